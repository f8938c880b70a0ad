//! Who owns what: shard map, router and the worker loop. Knows no MQTT and no message; broker, ingest and accounts are
//! [`Role`]s of its loop. This build has the view of one node; leases, views and peer links come with the cluster.

#[cfg(feature = "harness")]
pub mod harness;
pub mod own;
mod role;
mod router;
mod turn;
mod worker;
mod workers;

pub use role::{Cx, Flow, Loading, Now, Reply, Role, RoleId, Tag};
pub use router::{INBOX_REQUESTS, OUTSIDE_REQUESTS, Router};
pub use worker::PARKED_PER_KEY;
pub use workers::{MAX_WORKERS, MakeRoles, Workers};
