//! Who owns what: shard map, router and the worker loop. Knows no MQTT and no message; broker, ingest and accounts are
//! [`Role`]s of its loop. A node alone holds everything; in a cluster `own` says what a node holds, and the loop sends on
//! what is for others.

mod away;
#[cfg(feature = "harness")]
pub mod harness;
mod lanes;
mod meter;
pub mod own;
mod peers;
mod role;
mod router;
mod turn;
mod worker;
mod workers;

pub use away::{WAITING, WAITS_MS};
pub use lanes::{FullWorkers, LANES, LYING_BYTES, LYING_REQUESTS};
pub use meter::Turns;
pub use peers::{Clustered, Peers, Pipe, WorkersHomes};
pub use role::{Cx, Flow, Loading, Now, Reply, Role, RoleId, Tag};
pub use router::{INBOX_REQUESTS, OUTSIDE_REQUESTS, Router};
pub use turn::slot_of;
pub use worker::PARKED_PER_KEY;
pub use workers::{MAX_WORKERS, MakeRoles, Workers};
