//! One node: it answers, and what it acknowledged is there after kill -9.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use godwit_cassandra::{Cluster, DATACENTER, NODES_VARIABLE, Options, Paxos};
use scylla::client::session::Session;

async fn schema(session: &Session) -> Result<()> {
    session
        .query_unpaged(
            format!("CREATE KEYSPACE t WITH replication = {{'class': 'NetworkTopologyStrategy', '{DATACENTER}': 1}}"),
            (),
        )
        .await?;
    session
        .query_unpaged("CREATE TABLE t.rows (k int PRIMARY KEY, v text)", ())
        .await?;
    Ok(())
}

/// Whether `INSERT … IF NOT EXISTS` was applied.
async fn claim(session: &Session, key: i32, value: &str) -> Result<bool> {
    let rows = session
        .query_unpaged(
            "INSERT INTO t.rows (k, v) VALUES (?, ?) IF NOT EXISTS",
            (key, value),
        )
        .await?
        .into_rows_result()?;
    let applied: Option<bool> = match rows.column_specs().len() {
        // Applied: only the first column; else the row that is there, too.
        1 => rows.single_row::<(bool,)>().ok().map(|row| row.0),
        _ => rows.single_row::<(bool, i32, String)>().ok().map(|row| row.0),
    };
    applied.ok_or_else(|| anyhow::anyhow!("no [applied] column"))
}

async fn value(session: &Session, key: i32) -> Result<Option<String>> {
    let rows = session
        .query_unpaged("SELECT v FROM t.rows WHERE k = ?", (key,))
        .await?
        .into_rows_result()?;
    Ok(rows.maybe_first_row::<(String,)>()?.map(|row| row.0))
}

#[tokio::test]
async fn a_node_takes_rows_and_lightweight_transactions_and_keeps_them_over_kill_9() -> Result<()> {
    let start = Instant::now();
    let cluster = Cluster::start_with(
        1,
        Options {
            paxos: Paxos::V2,
            ..Options::default()
        },
    )
    .await?;
    println!("one node: {:.1} s", start.elapsed().as_secs_f64());
    if cluster.is_external() {
        println!("skipped: the cluster is not ours to kill");
        return Ok(());
    }
    let session = cluster.session().await?;
    schema(&session).await?;
    session
        .query_unpaged("INSERT INTO t.rows (k, v) VALUES (1, 'plain')", ())
        .await?;
    assert!(claim(&session, 2, "first").await?);
    assert!(!claim(&session, 2, "second").await?);

    // Kill -9 loses no page of the system's cache: that the log is really synced is seen by its setting alone.
    for (name, expected) in [
        ("commitlog_sync", "group"),
        ("commitlog_sync_group_window", "5ms"),
        ("paxos_variant", "v2"),
    ] {
        let rows = session
            .query_unpaged("SELECT value FROM system_views.settings WHERE name = ?", (name,))
            .await?
            .into_rows_result()?;
        assert_eq!(rows.single_row::<(String,)>()?.0, expected, "{name}");
    }

    let (before, most) = cluster.memory(0)?;
    println!("memory: {} MiB, at most {} MiB", before >> 20, most >> 20);
    let pid = cluster.pid(0)?;
    cluster.kill(0)?;
    assert!(cluster.pid(0).is_err());
    let start = Instant::now();
    cluster.start_again(0).await?;
    println!("started again: {:.1} s", start.elapsed().as_secs_f64());
    assert_ne!(cluster.pid(0)?, pid);

    let session = cluster.session().await?;
    assert_eq!(value(&session, 1).await?.as_deref(), Some("plain"));
    assert_eq!(value(&session, 2).await?.as_deref(), Some("first"));
    assert!(!claim(&session, 2, "third").await?);
    Ok(())
}

#[tokio::test]
async fn a_node_that_cannot_start_is_an_error_with_what_its_log_says() -> Result<()> {
    if std::env::var_os(NODES_VARIABLE).is_some() {
        println!("skipped: nothing is started");
        return Ok(());
    }
    let options = Options::default().set("a_setting_that_is_none", 1);
    let error = Cluster::start_with(1, options).await.expect_err("started");
    let error = format!("{error:#}");
    assert!(
        error.contains("has ended") && error.contains("a_setting_that_is_none"),
        "{error}"
    );
    Ok(())
}

#[test]
fn nodes_die_with_the_process_that_started_them_though_it_is_killed() -> Result<()> {
    let mut starter = Command::new(env!("CARGO_BIN_EXE_godwit-cassandra"))
        .env_remove("CQL_NODES")
        .args(["--nodes", "3", "--heap", "512M"])
        .spawn()?;
    let nodes = wait_for(|| Some(children(starter.id())).filter(|nodes| nodes.len() == 3));
    starter.kill()?;
    starter.wait()?;
    let nodes = nodes.expect("it started three nodes");
    let gone = wait_for(|| nodes.iter().all(|pid| !runs(*pid)).then_some(()));
    assert!(gone.is_some(), "{nodes:?} go on");
    Ok(())
}

/// Asks until there is an answer, for a minute at most.
fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    (0..1200).find_map(|_| {
        sleep(Duration::from_millis(50));
        ask()
    })
}

/// The Java processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task"))
        .into_iter()
        .flatten()
        .flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "java"))
        .collect()
}

/// Whether there is such a process and it is not merely unburied.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}
