//! Secrets that all nodes of a cluster share: the key that signs access tokens and the one that nodes show each other. The first node makes
//! them; whoever reads the keyspace of facts has them.

use std::path::Path;

use bytes::Bytes;
use godwit_accounts::Tokens;
use godwit_store::cql::Cql;
use godwit_store::{Kind, Table};

use crate::StartError;
use crate::config::{Hidden, PeerTrust};

/// Name of a secret → the secret. A row or two.
pub(crate) const SECRETS: Table = Table {
    id: 500,
    kind: Kind::Facts,
    name: "secrets",
};

const SIGNING: &[u8] = b"signing key";
const PEER: &[u8] = b"peer key";

/// The key that signs access tokens: of the file, or the one in the store.
pub(super) fn tokens(store: &Cql, file: Option<&Path>) -> Result<Tokens, StartError> {
    if let Some(file) = file {
        // One that is made here would be another than the other nodes'.
        if !file.is_file() {
            return Err(StartError::Folder(format!(
                "signing_key_file: there is no file {}; all nodes have the same one",
                file.display()
            )));
        }
        return Ok(Tokens::open(file)?);
    }
    Ok(Tokens::of(&settled(store, SIGNING)?))
}

/// What nodes show each other where they do not show certificates.
pub(super) fn peer_key(store: &Cql, trust: &PeerTrust) -> Result<Option<Hidden>, StartError> {
    match trust {
        PeerTrust::Key(key) => Ok(Some(key.clone())),
        PeerTrust::Tls { .. } => Ok(None),
        PeerTrust::Stored => {
            let bytes = settled(store, PEER)?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Some(Hidden(hex)))
        }
    }
}

/// 32 random bytes: those in the store, or from now on these.
fn settled(store: &Cql, name: &'static [u8]) -> Result<[u8; 32], StartError> {
    let fresh = Bytes::copy_from_slice(&Tokens::fresh_seed());
    let found = store.settle(SECRETS, &Bytes::from_static(name), &fresh)?;
    <[u8; 32]>::try_from(found.as_ref()).map_err(|_| {
        StartError::Folder(format!(
            "the {} in the store's table {} is damaged: restore the keyspace from a backup",
            String::from_utf8_lossy(name),
            SECRETS.name
        ))
    })
}
