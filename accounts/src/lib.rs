//! Who is who and who may what: users, passwords, tokens, device tokens, contacts, blocks, and the ACL of ordinary topics.

pub mod acl;
pub mod tables;

pub use acl::Acl;
pub use tables::USER_NAMES;
