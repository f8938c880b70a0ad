//! TLS sessions as listeners begin them, with settings that may change meanwhile, and who a client is by its
//! certificate. Which certificates and authorities there are is the server's affair.

use std::sync::{Arc, PoisonError, RwLock};

use godwit_wire::account::AccountCommand;
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Net;
use super::transport::{TlsStream, Transport};
use crate::packet::Connect;
use crate::wire_trait::ConnId;

/// The TLS settings of listeners. New sessions begin with those that were set last; those that are under way keep theirs.
#[derive(Debug)]
pub struct TlsSettings(RwLock<Arc<ServerConfig>>);

impl TlsSettings {
    /// With these.
    pub fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(config)))
    }

    /// Those of new sessions.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New sessions begin with these.
    pub fn set(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// A session to be begun, where there is TLS.
pub(super) fn session(
    settings: Option<&TlsSettings>,
) -> Result<Option<Box<ServerConnection>>, rustls::Error> {
    let session = settings.map(|settings| ServerConnection::new(settings.current()));
    Ok(session.transpose()?.map(Box::new))
}

/// What a new connection runs over.
pub(super) fn transport(socket: mio::net::TcpStream, session: Option<Box<ServerConnection>>) -> Transport {
    match session {
        Some(session) => Transport::Tls(Box::new(TlsStream::new(socket, session))),
        None => Transport::Tcp(socket),
    }
}

/// Who a client is by the certificate that the handshake has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certified {
    /// The common name of its subject: a user name or id.
    pub(super) name: Box<str>,
    /// Stands for this very certificate: from SHA-256 over it.
    pub(super) certificate: Uuid,
    /// When it ends, milliseconds since 1970.
    pub(super) expires_at: u64,
}

/// Reads a client's certificate. `None`: it names nobody, or more than one.
pub(super) fn certified(certificate: &CertificateDer<'_>) -> Option<Certified> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    let ends = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Certified {
        name: name.as_str().ok()?.into(),
        certificate: id_of(certificate),
        expires_at: ends.saturating_mul(1_000),
    })
}

fn id_of(certificate: &[u8]) -> Uuid {
    let digest = Sha256::digest(certificate);
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(digest) {
        *byte = hashed;
    }
    Uuid::new_v8(bytes)
}

impl Net {
    fn certified(&self, id: ConnId) -> Option<Option<Certified>> {
        self.peek(id)?.transport.certified()
    }

    /// Whether a client is who its certificate says, where it showed one: the CONNECT names the same user, or none, which
    /// makes it that one.
    pub(super) fn is_as_certified(&self, id: ConnId, connect: &mut Connect) -> bool {
        let certified = match self.certified(id) {
            None => return true,
            Some(None) => return false,
            Some(Some(certified)) => certified,
        };
        match connect.username.as_deref() {
            None => {
                connect.username = Some(certified.name.as_ref().into());
                true
            }
            Some(username) => username == &*certified.name,
        }
    }

    /// What its user's home judges a client by that showed a certificate.
    pub(super) fn certificate_command(&self, id: ConnId) -> Option<AccountCommand> {
        let Certified {
            certificate,
            expires_at,
            ..
        } = self.certified(id)??;
        Some(AccountCommand::CheckCertificate {
            certificate,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_common_name_says_who_it_is_and_the_certificate_until_when() {
        let of_ann = made(&["ann"]);
        let certified_as = certified(&of_ann).unwrap();
        assert_eq!(&*certified_as.name, "ann");
        assert_eq!(certified_as.expires_at, 1_893_456_000_000);
        assert_eq!(certified(&of_ann).unwrap().certificate, certified_as.certificate);
        let other = certified(&made(&["ann"])).unwrap();
        assert_ne!(
            other.certificate, certified_as.certificate,
            "another certificate of hers"
        );
    }

    #[test]
    fn a_certificate_without_a_name_or_that_is_none_names_nobody() {
        assert_eq!(certified(&made(&[])), None);
        assert_eq!(certified(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
    }
}
