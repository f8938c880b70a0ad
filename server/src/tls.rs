//! Certificates and authorities of MQTT over TLS and of HTTPS: read at start, read again on request without closing a
//! connection. What the files hold is taken together or not at all. Whose certificates let clients in is in `clients`.

mod clients;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use godwit_broker::TlsSettings;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::StartError;
use crate::config::{ClientAuth, Tls, TlsFiles};
use clients::Authorities;

pub(crate) use clients::no_client;

/// The TLS settings of this node's listeners.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// What was read last, and could be used.
    tls: Mutex<Tls>,
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
        let read = Read::of(&tls)?;
        Ok(Arc::new(Self {
            tls: Mutex::new(tls),
            mqtt: TlsSettings::new(read.mqtt),
            https: TlsSettings::new(read.https),
        }))
    }

    /// Reads the files once more, those that are named now if `tls` is given; new connections get what they hold now. Gives
    /// who judges clients' certificates from now on, if any count. After an error everything stays.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn reload(&self, tls: Option<Tls>) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartError> {
        let mut current = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = tls.unwrap_or_else(|| current.clone());
        let read = Read::of(&tls)?;
        *current = tls;
        self.mqtt.set(read.mqtt);
        self.https.set(read.https);
        Ok(read.verifier)
    }
}

/// What the files make.
struct Read {
    mqtt: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    /// Who judges clients' certificates, if any count.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Read {
    /// Each file is read once, so that what is made of it is one.
    fn of(tls: &Tls) -> Result<Self, StartError> {
        let names: Arc<dyn ResolvesServerCert> = Arc::new(ByName::read(&tls.certificates)?);
        let authorities = tls.client.as_ref().map(Authorities::read).transpose()?;
        let client = authorities.as_ref();
        let optional = client.map(|client| client.verifier(false)).transpose()?;
        let is_required = tls
            .client
            .as_ref()
            .is_some_and(|client| client.auth == ClientAuth::Required);
        let of_mqtt = client.map(|client| client.verifier(is_required)).transpose()?;
        Ok(Self {
            mqtt: config(b"mqtt", &names, of_mqtt)?,
            https: config(b"http/1.1", &names, optional.clone())?,
            verifier: optional,
        })
    }
}

fn config(
    protocol: &[u8],
    names: &Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, StartError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::Tls(error.to_string()))?;
    let are_judged = clients.is_some();
    let mut config = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    }
    .with_cert_resolver(names.clone());
    if are_judged {
        // A resumed session is not verified anew: a certificate that was revoked meanwhile would come in by it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
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
            for name in not_covered(files, &key)? {
                tracing::warn!(
                    name,
                    cert = %files.cert.display(),
                    "a certificate is not good for a name that it is given for: clients that look will refuse it"
                );
            }
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

/// Names of the configuration that the certificate is not good for.
fn not_covered<'f>(files: &'f TlsFiles, key: &CertifiedKey) -> Result<Vec<&'f str>, StartError> {
    let in_cert = |error: &rustls::Error| in_file(&files.cert, error);
    let certificate = key.end_entity_cert().map_err(|error| in_cert(&error))?;
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| in_cert(&error))?;
    let is_covered = |name: &str| {
        // One of those that the wildcard stands for.
        let asked = match name.strip_prefix("*.") {
            Some(parent) => format!("any-other.{parent}"),
            None => name.to_owned(),
        };
        ServerName::try_from(asked).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    };
    let names = files.names.iter().map(String::as_str);
    Ok(names.filter(|name| !is_covered(name)).collect())
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
        certificates.reload(None).unwrap();
        let second = certificates.mqtt.current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(&files.cert, "nothing").unwrap();
        assert!(
            certificates
                .reload(None)
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
    fn other_files_are_taken_up_and_stay_when_the_next_ones_are_broken() {
        let temp = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| write(temp.path(), name, &["one.example"]));
        let certificates = Certificates::open(tls(&[&first])).unwrap();
        certificates.reload(Some(tls(&[&second]))).unwrap();
        let mut broken = first.clone();
        broken.key = second.key.clone();
        assert!(certificates.reload(Some(tls(&[&broken]))).is_err());
        std::fs::remove_file(&first.cert).unwrap();
        certificates.reload(None).unwrap();
    }

    #[test]
    fn a_name_that_the_certificate_is_not_good_for_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let mut files = write(temp.path(), "server", &["one.example", "*.two.example"]);
        let names = [
            "one.example",
            "ONE.example",
            "a.two.example",
            "*.two.example",
            "two.example",
            "*.one.example",
            "a.b.two.example",
        ];
        files.names = names.map(str::to_owned).into();
        let key = read(&files).unwrap();
        assert_eq!(
            not_covered(&files, &key).unwrap(),
            ["two.example", "*.one.example", "a.b.two.example"]
        );
    }
}
