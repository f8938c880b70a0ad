//! TLS to the store: from files to what the driver connects with. Whom the files name is the operator's to say.

use std::path::PathBuf;

use crate::StoreError;

/// The way to the store is encrypted, and its nodes show who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Authorities of the nodes' certificates, PEM. A certificate names the address of its node.
    pub ca: PathBuf,
    /// Certificate chain and private key that this side shows, PEM; for a store that asks for them.
    pub client: Option<(PathBuf, PathBuf)>,
}

#[cfg(not(feature = "cql-tls"))]
impl Tls {
    /// Not in this build.
    ///
    /// # Errors
    /// Always.
    pub(super) fn used_by<B>(&self, _: B) -> Result<B, StoreError> {
        Err(StoreError::Refused(
            "this build speaks no TLS to the store: build it with --features cql-tls".into(),
        ))
    }
}

#[cfg(feature = "cql-tls")]
mod with_rustls {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore};
    use scylla::client::session_builder::SessionBuilder;

    use super::{StoreError, Tls};

    fn refused(file: &Path, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Refused(format!("TLS to the store: {}: {error}", file.display()))
    }

    fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
        let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let all = all.map_err(|error| refused(file, &error))?;
        if all.is_empty() {
            return Err(refused(file, &"no certificate is in it"));
        }
        Ok(all)
    }

    impl Tls {
        /// Reads the files and has the driver connect by them.
        ///
        /// # Errors
        /// Which of them cannot be used, and why.
        pub(in super::super) fn used_by(
            &self,
            builder: SessionBuilder,
        ) -> Result<SessionBuilder, StoreError> {
            Ok(builder.tls_context(Some(self.context()?)))
        }

        fn context(&self) -> Result<Arc<ClientConfig>, StoreError> {
            let mut roots = RootCertStore::empty();
            for authority in certificates(&self.ca)? {
                roots.add(authority).map_err(|error| refused(&self.ca, &error))?;
            }
            // Named: with the driver's there are two.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| refused(&self.ca, &error))?
                .with_root_certificates(roots);
            let config = match &self.client {
                None => builder.with_no_client_auth(),
                Some((chain, key)) => {
                    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refused(key, &error))?;
                    builder
                        .with_client_auth_cert(certificates(chain)?, private)
                        .map_err(|error| refused(chain, &error))?
                }
            };
            Ok(Arc::new(config))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::Tls;

        #[test]
        fn a_file_that_cannot_be_used_is_named() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("ca.pem");
            let tls = Tls {
                ca: file.clone(),
                client: None,
            };
            let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
            for text in [None, Some(""), Some(broken)] {
                if let Some(text) = text {
                    std::fs::write(&file, text).unwrap();
                }
                let error = tls.context().unwrap_err().to_string();
                assert!(error.contains("ca.pem"), "{error}");
            }
        }
    }
}
