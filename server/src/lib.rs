//! The `godwit` process as a library: configuration, wiring, administration, shutdown. The binary calls it, and so do
//! tests, with several nodes in one process.

mod admin;
pub mod cli;
pub mod cluster;
mod commands;
pub mod config;
mod data;
mod doors;
mod http;
#[cfg(test)]
mod limits;
pub mod logs;
mod memory;
mod metrics;
mod mqtt;
mod node;
mod open_files;
mod paced;
mod peering;
#[cfg(feature = "planted-bugs")]
mod planted;
mod reload;
mod search;
mod serve;
mod sessions;
mod shutdown;
mod source;
mod tls;

use std::net::SocketAddr;

pub use config::{Config, ConfigError, Settings};
pub use data::DataFolder;
pub use node::{Addresses, Listeners};
pub use serve::{Running, serve};
pub use shutdown::{DEADLINE, Shutdown};

/// Why a node does not start. Each is one line for the person who started it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Options that cannot be taken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store: in use, damaged, of a newer format, or its disk fails.
    #[error(transparent)]
    Store(#[from] godwit_store::StoreError),
    /// The signing key.
    #[error(transparent)]
    Key(#[from] godwit_accounts::tokens::KeyError),
    /// The search index.
    #[error("the search index cannot be opened")]
    Search(#[from] godwit_search::Error),
    /// The certificate.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
    /// A file or folder.
    #[error("{0}")]
    Folder(String),
    /// An address.
    #[error("cannot listen on {address} (option {option})")]
    Listen {
        /// The option that asks for it.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// It was asked to end before it had started.
    #[error("asked to end before it had started")]
    Stopped,
    /// Threads or the like.
    #[error("the system refuses what the process needs")]
    System(#[from] std::io::Error),
}
