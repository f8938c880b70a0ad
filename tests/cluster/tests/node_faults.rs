//! The faults in their short form: three real nodes on one real Cassandra, a few repetitions each, the records judged by the checker. The long form
//! is `godwit-faults`. `GODWIT_SEED` repeats a run.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use godwit_cassandra::Cluster;
use godwit_cluster_tests::faults::{Fault, FaultTest};
use godwit_cluster_tests::rig::{Outcome, Size};
use godwit_cluster_tests::{many, owed};
use rand::RngExt;

/// Two clusters under full load at once would only slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const SIZE: Size = Size {
    nodes: 3,
    users: 24,
    window: 2,
};

fn cassandra() -> &'static Cluster {
    static RUNTIME: Mutex<()> = Mutex::new(());
    let _one = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(Cluster::shared()).expect("Cassandra")
}

fn seed() -> u64 {
    std::env::var("GODWIT_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"))
}

/// Runs one on a folder that stays if it fails.
fn on_folder(name: &str, run: impl FnOnce(&Path, u64) -> Result<(String, Vec<String>)>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::Builder::new()
        .prefix(&format!("godwit-{name}-"))
        .tempdir()
        .expect("a temporary folder");
    let seed = seed();
    eprintln!("{name}: seed {seed}");
    let faults = match run(folder.path(), seed) {
        Ok((said, faults)) => {
            eprintln!("{said}");
            faults
        }
        Err(error) => vec![format!("{error:#}")],
    };
    if !faults.is_empty() {
        panic!(
            "seed {seed}, kept {}:\n{}",
            folder.keep().display(),
            faults.join("\n")
        );
    }
}

fn said(outcome: &Outcome, limit: Duration) -> Result<(String, Vec<String>)> {
    Ok((serde_json::to_string(outcome)?, outcome.faults(limit)))
}

fn run(name: &str, fault: Fault, times: u32) {
    on_folder(name, |folder, seed| {
        let test = FaultTest {
            folder: folder.to_path_buf(),
            seed,
            fault,
            times,
            size: SIZE,
        };
        said(&test.run(cassandra())?, fault.limit())
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_a_node_is_killed_again_and_again() {
    run("kill", Fault::Kill, 2);
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    run("kill-all", Fault::KillAll, 1);
}

#[test]
fn a_node_that_slept_for_three_leases_contradicts_nobody() {
    run("freeze", Fault::Freeze, 1);
}

#[test]
fn a_node_that_is_drained_and_joins_again_costs_nobody_a_message() {
    run("drain", Fault::Drain, 1);
}

#[test]
fn clients_that_come_back_at_other_nodes_get_every_message_in_order() {
    run("roam", Fault::Roam, 1);
}

#[test]
fn absent_sessions_get_everything_that_they_are_owed_after_all_nodes_were_killed() {
    on_folder("owed", |folder, seed| {
        let size = Size { users: 32, ..SIZE };
        said(&owed::owed(folder, cassandra(), seed, size, 20)?, Duration::MAX)
    });
}

#[test]
fn twenty_nodes_form_a_view_and_each_serves_a_send() {
    on_folder("many", |folder, _| {
        let formed = many::form(folder, cassandra(), 20)?;
        Ok((serde_json::to_string(&formed)?, Vec::new()))
    });
}
