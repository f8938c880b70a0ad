//! Ed25519 for the JWT library: the one algorithm that is used, in pure Rust. Every other one is refused here.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey, ed25519};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// The library has one provider a process; a second call changes nothing.
pub(crate) fn install() {
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match (algorithm, <&[u8; 32]>::try_from(key.as_bytes())) {
        (Algorithm::EdDSA, Ok(seed)) => Ok(Box::new(Ours(SigningKey::from_bytes(seed)))),
        (Algorithm::EdDSA, Err(_)) => Err(ErrorKind::InvalidEddsaKey.into()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let bytes = <&[u8; 32]>::try_from(key.try_get_as_bytes()?).map_err(|_| ErrorKind::InvalidEddsaKey)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidEddsaKey)?;
    Ok(Box::new(Theirs(key)))
}

struct Ours(SigningKey);

impl Signer<Vec<u8>> for Ours {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, ed25519::Error> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for Ours {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Theirs(VerifyingKey);

impl Verifier<Vec<u8>> for Theirs {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), ed25519::Error> {
        self.0.verify_strict(message, &Signature::from_slice(signature)?)
    }
}

impl JwtVerifier for Theirs {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
