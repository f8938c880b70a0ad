//! The certificate for MQTT over TLS and HTTPS: read at start, read again on request without closing a connection.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::StartError;
use crate::config::TlsFiles;

/// The certificate in use, shared by all listeners.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, are not PEM, or do not belong together.
    pub(crate) fn open(files: TlsFiles) -> Result<Arc<Self>, StartError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again; new connections get the new certificate. After an error the old one stays.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn reload(&self) -> Result<(), StartError> {
        let new = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Settings of a listener with this certificate; `protocols` are announced by ALPN.
    ///
    /// # Errors
    /// The library refuses its own defaults.
    pub(crate) fn server_config(
        self: &Arc<Self>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, StartError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| StartError::Tls(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, StartError> {
    let of_cert =
        |error: rustls::pki_types::pem::Error| StartError::Tls(format!("{}: {error}", files.cert.display()));
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(of_cert)?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(of_cert)?;
    if chain.is_empty() {
        return Err(StartError::Tls(format!(
            "{} holds no certificate",
            files.cert.display()
        )));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| StartError::Tls(format!("{}: {error}", files.key.display())))?;
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

    fn write(folder: &std::path::Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = TlsFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_changed_certificate_is_taken_up_and_a_broken_one_leaves_the_old_one() {
        let temp = tempfile::tempdir().unwrap();
        let files = write(temp.path(), "one.example");
        let certificate = Certificate::open(files.clone()).unwrap();
        let first = certificate.current.read().unwrap().cert.clone();
        write(temp.path(), "two.example");
        certificate.reload().unwrap();
        let second = certificate.current.read().unwrap().cert.clone();
        assert_ne!(first, second);
        std::fs::write(&files.cert, "nothing").unwrap();
        assert!(certificate.reload().unwrap_err().to_string().contains("cert.pem"));
        assert_eq!(certificate.current.read().unwrap().cert, second);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = write(one.path(), "one.example");
        let foreign = write(other.path(), "two.example");
        assert!(
            Certificate::open(TlsFiles {
                cert: files.cert,
                key: foreign.key
            })
            .is_err()
        );
    }
}
