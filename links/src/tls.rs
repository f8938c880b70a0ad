//! Mutual TLS between nodes, of the certificates in the settings. Reading files is the server's.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::LinkError;
use crate::settings::{StartError, Tls};

/// What both sides of a connection need.
#[derive(Clone)]
pub(crate) struct Secured {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Secured {
    pub(crate) fn new(tls: Tls) -> Result<Self, StartError> {
        let wrong = |error: &dyn std::fmt::Display| StartError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in tls.ca {
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(default_provider());
        let name = tls
            .name
            .map(ServerName::try_from)
            .transpose()
            .map_err(|error| wrong(&error))?;

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let clients = clients.build().map_err(|error| wrong(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(tls.chain.clone(), tls.key.clone_key())
            .map_err(|error| wrong(&error))?;
        // Links last; and a resumed session is not verified anew.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![b"h2".to_vec()];

        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let servers = servers.build().map_err(|error| wrong(&error))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_webpki_verifier(servers)
            .with_client_auth_cert(tls.chain, tls.key)
            .map_err(|error| wrong(&error))?;
        client.resumption = Resumption::disabled();
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
            name,
        })
    }

    /// Of a connection to `addr` (`host:port`).
    pub(crate) async fn connect(&self, addr: &str, tcp: Tcp) -> Result<ToServer, LinkError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => host(addr)?,
        };
        Ok(self.connector.connect(name, tcp).await?)
    }

    /// Of a connection that came, and the certificate that it showed. That was verified, and its name where nodes have one; else its host is
    /// to be when it is known who calls: [`Secured::is_at`].
    pub(crate) async fn accept(
        &self,
        tcp: Tcp,
    ) -> Result<(FromClient, Option<CertificateDer<'static>>), LinkError> {
        let stream = self.acceptor.accept(tcp).await?;
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        if let Some(name) = &self.name
            && !certificate.is_some_and(|certificate| is_good_for(certificate, name))
        {
            return Err(LinkError::Name);
        }
        let shown = certificate.map(|certificate| certificate.clone().into_owned());
        Ok((stream, shown))
    }

    /// Whether a certificate is that of a node which others reach at `addr` (`host:port`): one node's must not do for another.
    pub(crate) fn is_at(&self, shown: Option<&CertificateDer<'_>>, addr: &str) -> Result<(), LinkError> {
        if self.name.is_some() {
            return Ok(());
        }
        let host = host(addr)?;
        match shown {
            Some(shown) if is_good_for(shown, &host) => Ok(()),
            _ => Err(LinkError::Name),
        }
    }
}

type Tcp = tokio::net::TcpStream;
type ToServer = tokio_rustls::client::TlsStream<Tcp>;
type FromClient = tokio_rustls::server::TlsStream<Tcp>;

fn is_good_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

fn host(addr: &str) -> Result<ServerName<'static>, LinkError> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    name.map_err(|_| LinkError::Status(format!("{host} is neither a name nor an address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_a_name_or_either_kind_of_address() {
        for (addr, wanted) in [
            ("node-1.example:7001", "node-1.example"),
            ("127.0.0.1:7001", "127.0.0.1"),
            ("[::1]:7001", "::1"),
        ] {
            assert_eq!(host(addr).unwrap().to_str(), wanted);
        }
        assert!(host("a b:1").is_err());
    }
}
