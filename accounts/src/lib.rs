//! Who is who and who may what: users, passwords, tokens, device tokens, contacts, blocks, and the ACL of ordinary topics.

pub mod acl;
pub mod admin;
mod auth;
mod cache;
pub mod config;
mod contacts;
mod eddsa;
mod membership;
mod metrics;
pub mod password;
mod people;
mod role;
mod rows;
pub mod scram;
mod state;
pub mod tables;
pub mod tokens;

pub use acl::Acl;
pub use cache::CACHED_USERS;
pub use config::{Config, Direct};
pub use metrics::Metrics;
pub use role::Accounts;
pub use tables::USER_NAMES;
pub use tokens::Tokens;
