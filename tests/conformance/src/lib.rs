//! The conformance suite: every normative statement of MQTT 3.1.1 and 5.0 that concerns a server, shown on raw packets
//! against the real `godwit` binary. `statements` has the tables, `cases` the tests, `run` runs them, `report` writes
//! and compares the results; `sabotage` breaks the protocol between cases and server, so that every case is seen failing.

pub(crate) mod cases;
pub(crate) mod client;
pub(crate) mod killed;
pub(crate) mod opening;
pub(crate) mod reading;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sabotage;
pub(crate) mod server;
pub(crate) mod statements;
pub(crate) mod wire;

pub use run::conformance;
pub use sabotage::{Ask, sabotage};
