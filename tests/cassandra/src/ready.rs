//! When a cluster is ready: asked through a CQL driver, each node by itself, until it says so. Starts and kills nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::host_filter::AllowListHostFilter;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::{Consistency, Statement};
use tokio::time::timeout;

/// How long one node may take for one answer before it is asked anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks one node whether it answers, whether it knows `total` nodes, sees `alive` of them up, and has their schema.
pub(crate) async fn ask(address: IpAddr, port: u16, total: usize, alive: usize) -> Result<()> {
    timeout(PATIENCE * 3, async {
        let session = session_to(SocketAddr::new(address, port)).await?;
        let answer = session
            .query_unpaged("SELECT release_version FROM system.local", ())
            .await?
            .into_rows_result()?;
        let (version,) = answer.single_row::<(String,)>()?;
        if !version.starts_with("5.") {
            bail!("it is version {version}");
        }
        if total == 1 {
            return Ok(());
        }
        let known = session
            .query_unpaged("SELECT host_id, schema_version FROM system.peers_v2", ())
            .await?
            .into_rows_result()?
            .rows_num();
        if known + 1 != total {
            bail!("it knows {known} others");
        }
        // A keyspace that every Cassandra has, with a replica on each of three nodes: a coordinator asks nobody whom it holds for down,
        // so an answer at this level says how many it sees up.
        let mut probe = Statement::new(
            "SELECT status FROM system_distributed.view_build_status WHERE keyspace_name = 'none' AND view_name = 'none'",
        );
        probe.set_consistency(match total - alive {
            0 => Consistency::All,
            1 if total == 3 => Consistency::Two,
            _ => Consistency::One,
        });
        session.query_unpaged(probe, ()).await.context("it does not see them all up")?;
        if alive == total {
            session
                .check_schema_agreement()
                .await?
                .context("its schema is another one")?;
        }
        Ok(())
    })
    .await
    .context("it does not answer in time")?
}

/// A session that talks to this node alone and repeats nothing.
pub(crate) async fn session_to(address: SocketAddr) -> Result<Session> {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::One)
        .request_timeout(Some(PATIENCE))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .build();
    Ok(SessionBuilder::new()
        .known_node_addr(address)
        .host_filter(Arc::new(AllowListHostFilter::new([address])?))
        .connection_timeout(PATIENCE)
        .default_execution_profile_handle(profile.into_handle())
        .build()
        .await?)
}
