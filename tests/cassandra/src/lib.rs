//! A real Apache Cassandra for tests: [`Cluster::start`] runs one node or three as processes of this machine, [`Cluster`] kills,
//! stops and starts them again; whatever happens to the test, they end with it. No schema, no statements of the product and no
//! mock: what a test does with the cluster it does through a CQL driver.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let cluster = godwit_cassandra::Cluster::start(3).await?;
//! let session = cluster.session().await?;
//! cluster.kill(1)?;
//! // … QUORUM goes on …
//! cluster.start_again(1).await?;
//! # Ok(()) }
//! ```
//!
//! With `CQL_NODES=a,b,c` in the environment that cluster is used instead; everything that would harm it then is an error.

mod classpath;
mod cluster;
mod options;
mod place;
mod process;
mod ready;
mod settings;

pub use cluster::{Cluster, NODES_VARIABLE};
pub use options::{Options, Paxos};
pub use settings::DATACENTER;
