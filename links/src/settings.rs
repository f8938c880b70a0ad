//! What a node's links are started with. Where the key and the certificates come from is the server's.

use std::fmt;
use std::net::TcpListener;

use godwit_wire::account::Secret;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::StartId;

/// Shortest shared key, bytes: a proof can be tried offline by who sees one, so the key must not be a word.
pub const KEY_BYTES: usize = 16;

/// What a node's links are started with.
#[derive(Debug)]
pub struct Settings {
    /// Where other nodes come to: bound already, since the address stands in the node's row before its links start.
    pub listen: TcpListener,
    /// Only nodes of the same cluster are linked.
    pub cluster: String,
    /// This start of this node.
    pub start: StartId,
    /// Its name, for the logs of the others.
    pub node: String,
    /// How nodes know each other. `None` refuses to start: nodes without authentication must be asked for ([`Auth::Open`]).
    pub auth: Option<Auth>,
}

/// How nodes know each other.
pub enum Auth {
    /// By a key that all of them hold, at least [`KEY_BYTES`] long. Each proves it without sending it; what follows is
    /// neither encrypted nor signed: for networks that are trusted not to be listened to or changed.
    Key(Secret),
    /// By certificates, each side's verified by the other (TLS 1.2 or 1.3).
    Tls(Tls),
    /// Not at all: whoever reaches the address and knows the start ids is believed.
    Open,
}

/// Certificates of mutual TLS.
pub struct Tls {
    /// Of this node, its own certificate first. If it names extended key usages, both a server's and a client's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first.
    pub key: PrivateKeyDer<'static>,
    /// Who signs the nodes' certificates, and best nothing else.
    pub ca: Vec<CertificateDer<'static>>,
    /// A DNS name that the certificates of all nodes bear; each side checks it, and any of them may say that it is any other. `None`: each side checks that
    /// the other's is good for the host of the address where that node is reached, so none may pass for another.
    pub name: Option<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Tls(_) => "Tls(..)",
            Self::Open => "Open",
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Links that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a key nor certificates, nor a word that none are wanted.
    #[error("the links between nodes have no authentication: a key or certificates are needed")]
    NoAuth,
    /// Under [`KEY_BYTES`].
    #[error("the key between nodes has fewer than {KEY_BYTES} bytes")]
    ShortKey,
    /// Certificates that cannot be used.
    #[error("certificates of the links between nodes: {0}")]
    Tls(String),
    /// The listener.
    #[error("the peer address: {0}")]
    Listen(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_debug_output() {
        let secret = "s3cr3t-s3cr3t-s3cr3t";
        let key = Auth::Key(Secret(secret.into()));
        let bytes = PrivateKeyDer::Pkcs8(secret.as_bytes().to_vec().into());
        let tls = Tls {
            chain: Vec::new(),
            key: bytes,
            ca: Vec::new(),
            name: None,
        };
        let shown = format!("{key:?} {tls:?} {:?}", Auth::Open);
        assert!(!shown.contains(secret) && !shown.contains("115"), "{shown}");
    }
}
