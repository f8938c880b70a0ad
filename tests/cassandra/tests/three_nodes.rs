//! Three nodes: what QUORUM promises with one killed, with two killed, and when they are back.

use std::time::Instant;

use anyhow::Result;
use godwit_cassandra::{Cluster, DATACENTER};
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::{Consistency, Statement};

fn quorum(text: &str) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_consistency(Consistency::Quorum);
    // Else the driver would try to hide what is to be seen.
    statement.set_is_idempotent(false);
    statement
}

async fn insert(session: &Session, key: i32) -> Result<(), ExecutionError> {
    session
        .query_unpaged(quorum("INSERT INTO t.rows (k, v) VALUES (?, 'v')"), (key,))
        .await
        .map(|_| ())
}

async fn keys(session: &Session) -> Result<Vec<i32>> {
    let mut keys = Vec::new();
    for key in 1..=5 {
        let rows = session
            .query_unpaged(quorum("SELECT k FROM t.rows WHERE k = ?"), (key,))
            .await?
            .into_rows_result()?;
        keys.extend(rows.maybe_first_row::<(i32,)>()?.map(|row| row.0));
    }
    Ok(keys)
}

/// Whether a lightweight transaction was applied.
async fn claim(session: &Session, key: i32) -> Result<bool> {
    let rows = session
        .query_unpaged(
            quorum("UPDATE t.rows SET v = 'mine' WHERE k = ? IF v = NULL"),
            (key,),
        )
        .await?
        .into_rows_result()?;
    Ok(if rows.column_specs().len() == 1 {
        rows.single_row::<(bool,)>()?.0
    } else {
        // Not applied: with the value that is there.
        rows.single_row::<(bool, Option<String>)>()?.0
    })
}

/// A write that QUORUM must not acknowledge: refused because too few replicas are up or, when the coordinator still takes a dead one for
/// alive, timed out.
fn refused(outcome: Result<(), ExecutionError>) -> bool {
    matches!(
        outcome,
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            DbError::Unavailable { .. } | DbError::WriteTimeout { .. } | DbError::WriteFailure { .. },
            _,
        )))
    )
}

#[tokio::test]
async fn quorum_goes_on_with_one_of_three_killed_stops_with_two_and_is_back_when_they_are() -> Result<()> {
    let start = Instant::now();
    let cluster = Cluster::start(3).await?;
    println!("three nodes: {:.1} s", start.elapsed().as_secs_f64());
    if cluster.is_external() {
        println!("skipped: the cluster is not ours to kill");
        return Ok(());
    }
    let session = cluster.session().await?;
    assert_eq!(session.get_cluster_state().get_nodes_info().len(), 3);
    session
        .query_unpaged(
            format!("CREATE KEYSPACE t WITH replication = {{'class': 'NetworkTopologyStrategy', '{DATACENTER}': 3}}"),
            (),
        )
        .await?;
    session
        .query_unpaged("CREATE TABLE t.rows (k int PRIMARY KEY, v text)", ())
        .await?;
    insert(&session, 1).await?;
    for node in 0..3 {
        let (now, most) = cluster.memory(node)?;
        println!(
            "memory of node {node}: {} MiB, at most {} MiB",
            now >> 20,
            most >> 20
        );
    }

    // Node 0 coordinates: one that is stopped would let its clients wait.
    cluster.stop(2)?;
    let first = cluster.session_to(0).await?;
    insert(&first, 2).await?;
    assert_eq!(keys(&first).await?, [1, 2]);
    cluster.cont(2)?;
    let start = Instant::now();
    cluster.wait_until_ready().await?;
    println!("all three after a stop: {:.1} s", start.elapsed().as_secs_f64());

    cluster.kill(1)?;
    let start = Instant::now();
    cluster.wait_until_ready().await?;
    println!(
        "two that answer after the third's death: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let session = cluster.session().await?;
    insert(&session, 3).await?;
    assert_eq!(keys(&session).await?, [1, 2, 3]);
    assert!(claim(&session, 6).await?);
    assert!(!claim(&session, 6).await?);

    cluster.kill(2)?;
    let session = cluster.session().await?;
    let outcome = insert(&session, 4).await;
    println!("with two of three dead: {outcome:?}");
    assert!(refused(outcome));
    assert!(keys(&session).await.is_err());

    let start = Instant::now();
    cluster.start_all_again().await?;
    println!("two started again: {:.1} s", start.elapsed().as_secs_f64());
    let session = cluster.session().await?;
    insert(&session, 5).await?;
    let keys = keys(&session).await?;
    // What was not acknowledged may be there or not.
    assert!(keys == [1, 2, 3, 5] || keys == [1, 2, 3, 4, 5], "{keys:?}");
    Ok(())
}
