//! A user's small rows: their names (one byte for the kind, then an id) and their values. Fields are only ever added.
//! No meaning here, only form.

use bytes::Bytes;
use godwit_wire::account::ScramKeys;
use prost::Message;
use uuid::Uuid;

/// The kind is the first byte of a row's name.
pub(crate) mod kind {
    /// `p`: the [`super::ProfileRow`].
    pub(crate) const PROFILE: u8 = b'p';
    /// `s` + session id: a [`super::SessionRow`].
    pub(crate) const SESSION: u8 = b's';
    /// `d` + token id: a [`super::TokenRow`].
    pub(crate) const TOKEN: u8 = b'd';
    /// `c` + user id: a [`super::ContactRow`].
    pub(crate) const CONTACT: u8 = b'c';
    /// `i` + 16 bytes of the key's hash: a [`super::KeyRow`].
    pub(crate) const KEY: u8 = b'i';
}

/// Who the user is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProfileRow {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) display_name: String,
    #[prost(string, tag = "3")]
    pub(crate) email: String,
    /// PHC string.
    #[prost(string, tag = "4")]
    pub(crate) phc: String,
    #[prost(uint64, tag = "5")]
    pub(crate) password_version: u64,
    #[prost(bool, tag = "6")]
    pub(crate) admin: bool,
    #[prost(uint64, tag = "7")]
    pub(crate) created_at: u64,
    /// Idempotency key of the registration and the digest of its content; empty: none.
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) digest: Bytes,
}

/// A login session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) family_hash: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) token_hash: Bytes,
    #[prost(string, tag = "3")]
    pub(crate) client: String,
    #[prost(uint64, tag = "4")]
    pub(crate) created_at: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) last_used_at: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) expires_at: u64,
}

/// A device token.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TokenRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) token_hash: Bytes,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(bool, tag = "3")]
    pub(crate) chat: bool,
    #[prost(bool, tag = "4")]
    pub(crate) topics: bool,
    #[prost(bool, tag = "5")]
    pub(crate) rest: bool,
    #[prost(uint64, tag = "6")]
    pub(crate) created_at: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) expires_at: u64,
    /// For SCRAM-SHA-256: salt, iterations, StoredKey, ServerKey.
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) scram_salt: Bytes,
    #[prost(uint32, tag = "9")]
    pub(crate) scram_iterations: u32,
    #[prost(bytes = "bytes", tag = "10")]
    pub(crate) scram_stored_key: Bytes,
    #[prost(bytes = "bytes", tag = "11")]
    pub(crate) scram_server_key: Bytes,
}

impl TokenRow {
    /// What a SCRAM exchange is judged by; `None` if the row has none.
    pub(crate) fn scram(&self) -> Option<ScramKeys> {
        Some(ScramKeys {
            salt: self.scram_salt[..].try_into().ok()?,
            iterations: self.scram_iterations,
            stored_key: self.scram_stored_key[..].try_into().ok()?,
            server_key: self.scram_server_key[..].try_into().ok()?,
        })
    }
}

/// What another user is to this one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContactRow {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// This user asked.
    #[prost(bool, tag = "2")]
    pub(crate) outgoing: bool,
    /// The other one asked.
    #[prost(bool, tag = "3")]
    pub(crate) incoming: bool,
    #[prost(bool, tag = "4")]
    pub(crate) blocked: bool,
    #[prost(uint64, tag = "5")]
    pub(crate) since: u64,
}

/// An idempotency key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyRow {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    /// The id under which the request is done.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) id: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) created_at: u64,
}

/// A row's name.
pub(crate) fn name(kind: u8, id: &[u8]) -> Bytes {
    let mut name = Vec::with_capacity(1 + id.len());
    name.push(kind);
    name.extend_from_slice(id);
    name.into()
}

/// The id in a row's name.
pub(crate) fn id_of(name: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(name.get(1..)?).ok()
}

/// A hash or digest in a row; anything else reads as one that matches nothing that is asked for.
pub(crate) fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}
