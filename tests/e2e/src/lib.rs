//! End-to-end tests of the real `godwit` binary: clients that record what they sent, were told and got; faults done to
//! the process and its disk; the checker's verdict on the records. Nothing here knows how the product works inside.

pub mod binaries;
pub mod chat;
pub mod disk;
pub mod failing;
pub mod groups;
pub mod history;
pub mod judge;
pub mod killtest;
pub mod memory;
pub mod mqtt;
pub mod node;
pub mod posting;
pub mod raw;
pub mod record;
pub mod rest;
pub mod rig;
pub mod session;
pub mod shared;
pub mod topics;
pub mod tour;
pub mod world;
