//! Who is who and who may what: users, passwords, tokens, device tokens, contacts, blocks, and the ACL of ordinary topics.

pub mod acl;
pub mod config;
mod eddsa;
mod metrics;
pub mod password;
mod rows;
mod state;
pub mod tables;
pub mod tokens;

pub use acl::Acl;
pub use config::{Config, Direct};
pub use metrics::Metrics;
pub use tables::USER_NAMES;
pub use tokens::Tokens;
