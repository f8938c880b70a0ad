//! Tokens: access tokens (JWT, EdDSA), refresh tokens, device tokens; how they are made, read and hashed. Which of them
//! are good is said by the user's home, not here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::SigningKey;
use godwit_wire::account::Secret;
use godwit_wire::ids::UserId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::config::ACCESS_TOKEN_MS;
use crate::eddsa;
use crate::state::same;

/// What every device token begins with.
pub const DEVICE_TOKEN_PREFIX: &str = "gdt_";
/// Base62 characters behind it: 190 bits.
pub const DEVICE_TOKEN_CHARS: usize = 32;
const REFRESH_PREFIX: &str = "gdr_";
/// User, session, the part that stays, the part that rotates.
const REFRESH_BYTES: usize = 16 + 16 + 16 + 32;
/// Longest access token looked at, bytes: ours have about 300.
const ACCESS_TOKEN_BYTES: usize = 1_024;
const ISSUER: &str = "godwit";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why the signing key cannot be had at start.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing the file failed.
    #[error("the signing key {path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What happened.
        error: io::Error,
    },
    /// The file is not a key.
    #[error(
        "the signing key {0} is damaged: put it back from a backup, or remove it (everybody logs in anew)"
    )]
    Damaged(String),
}

/// The installation's signing key.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    pub(crate) seed: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(…)")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: UserId,
    sid: Uuid,
    iat: u64,
    exp: u64,
}

/// An access token whose signature and end were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Whose.
    pub user: UserId,
    /// The login session behind it.
    pub session: Uuid,
    /// When it ends, milliseconds since 1970.
    pub expires_at: u64,
}

impl Tokens {
    /// Reads the signing key from `path`; makes it (file mode 0600) if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not a key.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let name = path.display().to_string();
        let failed = |error| KeyError::Io {
            path: name.clone(),
            error,
        };
        let text = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = BASE64.encode(fresh::<32>());
                write(path, &text).map_err(failed)?;
                text
            }
            other => other.map_err(failed)?,
        };
        let bytes = BASE64.decode(text.trim()).ok();
        let seed = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Ok(Self::of(&seed.ok_or_else(|| KeyError::Damaged(name.clone()))?))
    }

    /// A fresh seed for [`Tokens::of`].
    pub fn fresh_seed() -> [u8; 32] {
        fresh()
    }

    /// A key that is nowhere stored: for tests and tools.
    pub fn ephemeral() -> Self {
        Self::of(&fresh::<32>())
    }

    /// The key of this seed, which is kept elsewhere: who has it can make tokens.
    pub fn of(seed: &[u8; 32]) -> Self {
        eddsa::install();
        let public = SigningKey::from_bytes(seed).verifying_key();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        // The end is compared with the caller's time.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_ed_der(seed),
            decoding: DecodingKey::from_ed_der(public.as_bytes()),
            validation,
            seed: *seed,
        }
    }

    /// A fresh access token of a login session, and when it ends (milliseconds since 1970). `None` if it cannot be
    /// made (the clock is absurd).
    pub fn issue(&self, user: UserId, session: Uuid, now_ms: u64) -> Option<(Secret, u64)> {
        let end = now_ms.checked_add(ACCESS_TOKEN_MS)? / 1_000;
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user,
            sid: session,
            iat: now_ms / 1_000,
            exp: end,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.encoding).ok()?;
        Some((Secret(token.into()), end * 1_000))
    }

    /// Checks signature and end of an access token.
    pub fn check(&self, token: &str, now_ms: u64) -> Option<AccessToken> {
        if token.len() > ACCESS_TOKEN_BYTES {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .ok()?
            .claims;
        let expires_at = claims.exp.checked_mul(1_000)?;
        (now_ms < expires_at).then_some(AccessToken {
            user: claims.sub,
            session: claims.sid,
            expires_at,
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the signing key can be read by others: chmod 600");
    }
    file.take(1_024).read_to_string(&mut text)?;
    Ok(text)
}

/// Whole or not at all, and there after a loss of power.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    // A file left behind by an earlier try keeps its mode.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes);
    bytes
}

/// Whether two secrets are equal, without telling by its time where they differ.
pub fn equal(one: &str, other: &str) -> bool {
    same(&sha256(one.as_bytes()), &sha256(other.as_bytes()))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A fresh device token.
pub fn new_device_token() -> Secret {
    let mut rng = rand::rng();
    let mut token = String::from(DEVICE_TOKEN_PREFIX);
    for _ in 0..DEVICE_TOKEN_CHARS {
        // In range by its bounds.
        token.push(char::from(BASE62[rng.random_range(0..BASE62.len())]));
    }
    Secret(token.into())
}

/// What is stored of a device token; `None` if it has not its form.
pub fn device_token_hash(token: &str) -> Option<[u8; 32]> {
    let characters = token.strip_prefix(DEVICE_TOKEN_PREFIX)?;
    let formed =
        characters.len() == DEVICE_TOKEN_CHARS && characters.bytes().all(|byte| byte.is_ascii_alphanumeric());
    formed.then(|| sha256(token.as_bytes()))
}

/// A refresh token as it is sent, with what is stored of it.
#[derive(Clone)]
pub struct RefreshToken {
    /// Whose.
    pub user: UserId,
    /// The login session.
    pub session: Uuid,
    /// SHA-256 of the part that stays: tells an old token of this session from an invented one.
    pub family_hash: [u8; 32],
    /// SHA-256 of the whole.
    pub token_hash: [u8; 32],
    bytes: [u8; REFRESH_BYTES],
}

impl RefreshToken {
    /// The first one of a new login session.
    pub fn first(user: UserId, session: Uuid) -> Self {
        let mut bytes = fresh::<REFRESH_BYTES>();
        bytes[..16].copy_from_slice(user.0.as_bytes());
        bytes[16..32].copy_from_slice(session.as_bytes());
        Self::of(bytes)
    }

    /// The one that takes this one's place.
    pub fn next(&self) -> Self {
        let mut bytes = self.bytes;
        bytes[48..].copy_from_slice(&fresh::<32>());
        Self::of(bytes)
    }

    /// Reads one; `None` if it has not its form.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(REFRESH_PREFIX)?;
        if text.len() > 2 * REFRESH_BYTES {
            return None;
        }
        Some(Self::of(BASE64.decode(text).ok()?.try_into().ok()?))
    }

    /// As it is sent.
    pub fn secret(&self) -> Secret {
        Secret(format!("{REFRESH_PREFIX}{}", BASE64.encode(self.bytes)).into())
    }

    fn of(bytes: [u8; REFRESH_BYTES]) -> Self {
        let id = |from: usize| {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[from..from + 16]);
            Uuid::from_bytes(id)
        };
        Self {
            user: UserId(id(0)),
            session: id(16),
            family_hash: sha256(&bytes[..48]),
            token_hash: sha256(&bytes),
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn an_access_token_is_good_until_its_end_and_only_for_its_key() {
        let (tokens, user, session) = (Tokens::ephemeral(), UserId::fresh(), Uuid::now_v7());
        let (token, end) = tokens.issue(user, session, NOW).unwrap();
        assert_eq!(end, NOW + ACCESS_TOKEN_MS);
        let expected = AccessToken {
            user,
            session,
            expires_at: end,
        };
        assert_eq!(tokens.check(&token.0, NOW), Some(expected));
        assert_eq!(tokens.check(&token.0, end - 1), Some(expected));
        assert_eq!(tokens.check(&token.0, end), None);
        assert_eq!(Tokens::ephemeral().check(&token.0, NOW), None);
    }

    #[test]
    fn a_token_that_was_tampered_with_or_asks_for_no_signature_is_refused() {
        let tokens = Tokens::ephemeral();
        let (token, _) = tokens.issue(UserId::fresh(), Uuid::now_v7(), NOW).unwrap();
        let parts: Vec<&str> = token.0.split('.').collect();
        let none = BASE64.encode(br#"{"alg":"none","typ":"JWT"}"#);
        let hmac = BASE64.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let (other, _) = tokens.issue(UserId::fresh(), Uuid::now_v7(), NOW).unwrap();
        let body = other.0.split('.').nth(1).unwrap().to_owned();
        for bad in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{hmac}.{}.{}", parts[1], parts[2]),
            format!("{}.{body}.{}", parts[0], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            "x".repeat(5_000),
            String::new(),
        ] {
            assert_eq!(tokens.check(&bad, NOW), None);
        }
        assert!(tokens.check(&token.0, NOW).is_some());
    }

    #[test]
    fn the_key_file_is_made_once_for_its_owner_alone_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let (token, _) = Tokens::open(&path)
            .unwrap()
            .issue(UserId::fresh(), Uuid::now_v7(), NOW)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Tokens::open(&path).unwrap().check(&token.0, NOW).is_some());
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(Tokens::open(&path), Err(KeyError::Damaged(_))));
    }

    #[test]
    fn device_tokens_have_their_form_and_differ() {
        let (one, other) = (new_device_token(), new_device_token());
        assert_ne!(one, other);
        assert_eq!(one.0.len(), 36);
        assert!(device_token_hash(&one.0).is_some());
        for bad in [
            "gdt_",
            "gdx_0123456789abcdefghijABCDEFGHIJ01",
            "gdt_0123456789abcdefghijABCDEFGHIJ0é",
        ] {
            assert_eq!(device_token_hash(bad), None);
        }
        assert_eq!(format!("{one:?}"), "Secret(…)");
    }

    #[test]
    fn a_refresh_token_keeps_its_family_and_changes_itself() {
        let first = RefreshToken::first(UserId::fresh(), Uuid::now_v7());
        let next = first.next();
        assert_eq!(first.family_hash, next.family_hash);
        assert_ne!(first.token_hash, next.token_hash);
        let read = RefreshToken::parse(&next.secret().0).unwrap();
        assert_eq!((read.user, read.session), (first.user, first.session));
        assert_eq!(read.token_hash, next.token_hash);
        assert!(RefreshToken::parse("gdr_AAAA").is_none() && RefreshToken::parse("x").is_none());
    }
}
