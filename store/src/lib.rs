//! What Godwit keeps, and how it is asked for: logs, versioned small rows, sets and facts.
//!
//! This crate holds the [`Store`] contract, its engines and the conformance suite. It does not know what a
//! message or a user is: tables are declared by the crate that owns them.

pub mod coordination;
#[cfg(feature = "cql")]
pub mod cql;
pub mod embedded;
mod store;
#[cfg(feature = "testsuite")]
pub mod testsuite;
mod types;

pub use store::{
    Completion, CompletionPort, Health, Outcome, Ownership, Stats, Store, StoreError, Submission, Verdict,
    blocking,
};
pub use types::{Batch, Head, Kind, LogId, LogRow, Op, PortId, Read, ReadAnswer, Scope, Table, Ticket, View};
