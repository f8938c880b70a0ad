//! Whose certificates let clients in: authorities, and what they have revoked. Who a client is by its certificate is the
//! broker's affair.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::{chain, in_file};
use crate::StartError;
use crate::config::ClientTls;

/// The authorities and their lists.
pub(super) struct Authorities<'c> {
    files: &'c ClientTls,
    roots: Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
}

impl<'c> Authorities<'c> {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be read, or hold something else, or a list is of another authority: it would revoke nothing, and nobody
    /// would notice.
    pub(super) fn read(files: &'c ClientTls) -> Result<Self, StartError> {
        let certificates = chain(&files.ca)?;
        let mut lists = Vec::new();
        if let Some(file) = &files.crl {
            lists = CertificateRevocationListDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| in_file(file, &error))?;
            if lists.is_empty() {
                return Err(in_file(file, &"it holds no revocation list"));
            }
            for list in &lists {
                is_of(list, &certificates)
                    .map_err(|wrong| in_file(file, &format!("{wrong} in {}", files.ca.display())))?;
            }
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| in_file(&files.ca, &error))?;
        }
        Ok(Self {
            files,
            roots: Arc::new(roots),
            lists,
        })
    }

    /// Who judges clients' certificates by them.
    ///
    /// # Errors
    /// They cannot be used.
    pub(super) fn verifier(&self, required: bool) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
        let provider = Arc::new(default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider);
        if !self.lists.is_empty() {
            // An authority without a list in the file revokes nothing.
            builder = builder
                .with_crls(self.lists.iter().cloned())
                .allow_unknown_revocation_status();
        }
        if !required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| in_file(&self.files.ca, &error))
    }
}

/// Whether one of the authorities has issued the list.
fn is_of(list: &CertificateRevocationListDer<'_>, authorities: &[CertificateDer<'_>]) -> Result<(), String> {
    let (_, list) = CertificateRevocationList::from_der(list)
        .map_err(|error| format!("it holds something else than a revocation list: {error}"))?;
    let mut wrong = "is of none of the authorities";
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() == list.issuer().as_raw() {
            if list.verify_signature(authority.public_key()).is_ok() {
                return Ok(());
            }
            wrong = "is not signed by the authority of that name";
        }
    }
    Err(format!("the revocation list of \"{}\" {wrong}", list.issuer()))
}

/// Where clients' certificates count no more: refuses those that were shown before. No handshake asks it.
pub(crate) fn no_client() -> Arc<dyn ClientCertVerifier> {
    Arc::new(NoClient)
}

#[derive(Debug)]
struct NoClient;

fn counts_no_more<T>() -> Result<T, Error> {
    Err(CertificateError::ApplicationVerificationFailure.into())
}

impl ClientCertVerifier for NoClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        counts_no_more()
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        counts_no_more()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        counts_no_more()
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
    };

    use super::*;
    use crate::config::ClientAuth;

    /// An authority's file, and a list of it.
    fn authority(folder: &Path, file: &str, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let (ca, crl) = (
            folder.join(format!("{file}.pem")),
            folder.join(format!("{file}.crl")),
        );
        std::fs::write(&ca, issuer.pem()).unwrap();
        std::fs::write(&crl, list.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
        (ca, crl)
    }

    fn refused(ca: &Path, crl: &Path) -> Option<String> {
        let files = ClientTls {
            auth: ClientAuth::Required,
            ca: ca.to_owned(),
            crl: Some(crl.to_owned()),
        };
        let read = Authorities::read(&files).and_then(|read| read.verifier(true));
        read.err().map(|error| error.to_string())
    }

    #[test]
    fn authorities_and_revocation_lists_that_are_none_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let (ca, crl) = authority(temp.path(), "ours", "ours");
        let empty = temp.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        assert_eq!(refused(&ca, &crl), None);
        assert!(refused(&empty, &crl).unwrap().contains("empty.pem"));
        let told = refused(&ca, &empty).unwrap();
        assert!(told.contains("no revocation list"), "{told}");
    }

    #[test]
    fn a_revocation_list_of_another_authority_is_refused_also_under_the_same_name() {
        let temp = tempfile::tempdir().unwrap();
        let (ours, own) = authority(temp.path(), "ours", "ours");
        let (_, foreign) = authority(temp.path(), "foreign", "foreign");
        let (_, renewed) = authority(temp.path(), "renewed", "ours");
        for (list, told) in [(&foreign, "CN=foreign"), (&renewed, "is not signed by")] {
            let refused = refused(&ours, list).unwrap();
            let is_clear = [told, "ours.pem", "revocation list"]
                .iter()
                .all(|word| refused.contains(word));
            assert!(is_clear && !refused.contains('\n'), "{refused}");
        }
        // One that is not ours among ours is none the better.
        let both = temp.path().join("both.crl");
        let lists = [&own, &foreign].map(|file| std::fs::read_to_string(file).unwrap());
        std::fs::write(&both, lists.concat()).unwrap();
        assert!(refused(&ours, &both).is_some());
    }
}
