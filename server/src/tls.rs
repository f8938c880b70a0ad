//! Certificates and authorities of MQTT over TLS and of HTTPS: read at start, read again on request without closing a
//! connection. What the files hold is taken together or not at all.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use godwit_broker::TlsSettings;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::StartError;
use crate::config::{ClientAuth, ClientTls, Tls, TlsFiles};

/// The TLS settings of this node's listeners.
#[derive(Debug)]
pub(crate) struct Certificates {
    tls: Tls,
    /// Of MQTT.
    pub(crate) mqtt: Arc<TlsSettings>,
    /// Of HTTPS, where a client's certificate is never required: REST has none.
    pub(crate) https: Arc<TlsSettings>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, are not PEM, or do not belong together.
    pub(crate) fn open(tls: Tls) -> Result<Arc<Self>, StartError> {
        let (mqtt, https) = configs(&tls)?;
        Ok(Arc::new(Self {
            tls,
            mqtt: TlsSettings::new(mqtt),
            https: TlsSettings::new(https),
        }))
    }

    /// Reads the files again; new connections get what they hold now. After an error everything stays.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn reload(&self) -> Result<(), StartError> {
        let (mqtt, https) = configs(&self.tls)?;
        self.mqtt.set(mqtt);
        self.https.set(https);
        Ok(())
    }

    /// Who judges clients' certificates by what the files hold now.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartError> {
        let client = self.tls.client.as_ref();
        client.map(|client| verifier(client, false)).transpose()
    }
}

/// Settings of MQTT and of HTTPS.
fn configs(tls: &Tls) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), StartError> {
    let names: Arc<dyn ResolvesServerCert> = Arc::new(ByName::read(&tls.certificates)?);
    let config = |protocol: &[u8], required| -> Result<Arc<ServerConfig>, StartError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| StartError::Tls(error.to_string()))?;
        let mut config = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(client) => builder.with_client_cert_verifier(verifier(client, required)?),
        }
        .with_cert_resolver(names.clone());
        if tls.client.is_some() {
            // A resumed session is not verified anew: a certificate that was revoked meanwhile would come in by it.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    };
    let required = tls
        .client
        .as_ref()
        .is_some_and(|client| client.auth == ClientAuth::Required);
    Ok((config(b"mqtt", required)?, config(b"http/1.1", false)?))
}

/// Who judges clients' certificates.
fn verifier(client: &ClientTls, required: bool) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
    let mut roots = RootCertStore::empty();
    for authority in chain(&client.ca)? {
        roots
            .add(authority)
            .map_err(|error| in_file(&client.ca, &error))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    if let Some(file) = &client.crl {
        let lists = CertificateRevocationListDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| in_file(file, &error))?;
        if lists.is_empty() {
            return Err(in_file(file, &"it holds no revocation list"));
        }
        // An authority without a list in the file revokes nothing.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if !required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| in_file(&client.ca, &error))
}

/// Certificates by the server name that the client asks for.
#[derive(Debug)]
struct ByName {
    /// For clients that ask for none, or for one that is nobody's.
    first: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn read(files: &[TlsFiles]) -> Result<Self, StartError> {
        let (mut first, mut names) = (None, HashMap::new());
        for files in files {
            let key = Arc::new(read(files)?);
            for name in names_of(files, &key)? {
                // The first one counts.
                names.entry(name).or_insert_with(|| key.clone());
            }
            first.get_or_insert(key);
        }
        let first = first.ok_or_else(|| StartError::Tls("there is none".into()))?;
        Ok(Self { first, names })
    }

    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.first;
        };
        let by_wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        };
        self.names.get(&name).or_else(by_wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).clone())
    }
}

/// The names of the configuration, else those of the certificate.
fn names_of(files: &TlsFiles, key: &CertifiedKey) -> Result<Vec<String>, StartError> {
    if !files.names.is_empty() {
        return Ok(files.names.iter().map(|name| name.to_ascii_lowercase()).collect());
    }
    let end_entity = key
        .end_entity_cert()
        .map_err(|error| in_file(&files.cert, &error))?;
    let (_, parsed) = X509Certificate::from_der(end_entity).map_err(|error| in_file(&files.cert, &error))?;
    let alternative = parsed
        .subject_alternative_name()
        .map_err(|error| in_file(&files.cert, &error))?;
    let names = alternative.iter().flat_map(|names| &names.value.general_names);
    let of_dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(of_dns.collect())
}

fn in_file(file: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::Tls(format!("{}: {error}", file.display()))
}

/// The certificates of a file, one at least.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let read = |file| -> Result<Vec<_>, pem::Error> { CertificateDer::pem_file_iter(file)?.collect() };
    let chain = read(file).map_err(|error| in_file(file, &error))?;
    if chain.is_empty() {
        return Err(in_file(file, &"it holds no certificate"));
    }
    Ok(chain)
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, StartError> {
    let chain = chain(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| in_file(&files.key, &error))?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
        StartError::Tls(format!(
            "{} and {}: {error}",
            files.cert.display(),
            files.key.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let files = TlsFiles {
            cert: folder.join(format!("{file}.pem")),
            key: folder.join(format!("{file}.key")),
            names: Vec::new(),
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn tls(certificates: &[&TlsFiles]) -> Tls {
        Tls {
            certificates: certificates.iter().map(|files| (*files).clone()).collect(),
            client: None,
        }
    }

    #[test]
    fn changed_files_are_taken_up_and_broken_ones_leave_everything_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let files = write(temp.path(), "server", &["one.example"]);
        let certificates = Certificates::open(tls(&[&files])).unwrap();
        let first = certificates.mqtt.current();
        write(temp.path(), "server", &["two.example"]);
        certificates.reload().unwrap();
        let second = certificates.mqtt.current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(&files.cert, "nothing").unwrap();
        assert!(
            certificates
                .reload()
                .unwrap_err()
                .to_string()
                .contains("server.pem")
        );
        assert!(Arc::ptr_eq(&second, &certificates.mqtt.current()));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let mut files = write(temp.path(), "one", &["one.example"]);
        files.key = write(temp.path(), "two", &["two.example"]).key;
        assert!(Certificates::open(tls(&[&files])).is_err());
    }

    #[test]
    fn a_certificate_is_chosen_by_its_own_names_or_those_given_and_else_it_is_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let first = write(temp.path(), "first", &["chat.example"]);
        let wild = write(temp.path(), "wild", &["*.example.org", "Example.org"]);
        let mut named = write(temp.path(), "named", &["else.example"]);
        named.names = vec!["given.example".into()];
        let names = ByName::read(&[first.clone(), wild.clone(), named.clone()]).unwrap();
        let of = |name| names.of(name).cert.clone();
        let file = |files: &TlsFiles| chain(&files.cert).unwrap();
        assert_eq!(of(None), file(&first));
        assert_eq!(of(Some("nobody.example")), file(&first));
        assert_eq!(of(Some("EXAMPLE.org")), file(&wild));
        assert_eq!(of(Some("a.example.org")), file(&wild));
        assert_eq!(
            of(Some("a.b.example.org")),
            file(&first),
            "a wildcard is one label"
        );
        assert_eq!(of(Some("given.example")), file(&named));
        assert_eq!(of(Some("else.example")), file(&first));
    }

    #[test]
    fn authorities_and_revocation_lists_that_are_none_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let files = write(temp.path(), "server", &["one.example"]);
        let empty = temp.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let mut given = tls(&[&files]);
        given.client = Some(ClientTls {
            auth: ClientAuth::Required,
            ca: empty.clone(),
            crl: None,
        });
        let refused = Certificates::open(given.clone()).unwrap_err().to_string();
        assert!(refused.contains("empty.pem"), "{refused}");
        given.client = Some(ClientTls {
            auth: ClientAuth::Required,
            ca: files.cert.clone(),
            crl: Some(empty),
        });
        let refused = Certificates::open(given).unwrap_err().to_string();
        assert!(refused.contains("no revocation list"), "{refused}");
    }
}
