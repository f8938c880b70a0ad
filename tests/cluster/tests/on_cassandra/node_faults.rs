//! The faults in their short form: real nodes on one real Cassandra, each fault once, several of them in a run, the records judged by the checker. The long form
//! is `godwit-faults`. `GODWIT_SEED` repeats a run.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use godwit_cluster_tests::faults::{Fault, FaultTest, Force};
use godwit_cluster_tests::outcome::Outcome;
use godwit_cluster_tests::rig::Size;
use godwit_cluster_tests::{many, owed};
use rand::RngExt;

use crate::{alone, beside_another, cassandra};

const SIZE: Size = Size {
    nodes: 3,
    users: 24,
    window: 2,
};

fn seed() -> u64 {
    std::env::var("GODWIT_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number"))
}

/// Runs one on a folder that stays if it fails.
fn on_folder(name: &str, run: impl FnOnce(&Path, u64) -> Result<(String, Vec<String>)>) {
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

/// A cut lasts longer than a lease and its margin, and more transactions' answers are lost or late than in the long form: there are few.
const FORCE: Force = Force {
    pause_ms: (200, 1_500),
    lasts: Duration::from_secs(6),
    claims: 200_000,
    at_random: Duration::from_secs(30),
};

fn said(outcome: &Outcome) -> Result<(String, Vec<String>)> {
    Ok((serde_json::to_string(outcome)?, outcome.faults()))
}

fn run(name: &str, nodes: usize, faults: impl FnOnce(u64) -> Vec<Fault>) {
    on_folder(name, |folder, seed| {
        let test = FaultTest {
            folder: folder.to_path_buf(),
            seed,
            faults: faults(seed),
            times: 1,
            force: FORCE,
            size: Size { nodes, ..SIZE },
        };
        said(&test.run(cassandra())?)
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_nodes_are_killed_one_or_two_of_five() {
    let _beside = beside_another();
    run("kill", 5, |_| vec![Fault::Kill, Fault::KillTwo]);
}

#[test]
fn nothing_acknowledged_is_lost_when_clients_go_from_node_to_node_and_when_all_nodes_are_killed_at_once() {
    let _alone = alone();
    run("kill-all", 3, |_| vec![Fault::Roam, Fault::KillAll]);
}

#[test]
fn nothing_happens_when_the_clock_of_a_node_is_set_and_one_that_slept_for_three_leases_contradicts_nobody() {
    let _alone = alone();
    run("clock", 3, |_| vec![Fault::Clock, Fault::Freeze]);
}

#[test]
fn a_rolling_restart_costs_nobody_a_message_and_ends_each_node_in_order() {
    let _alone = alone();
    run("restart", 3, |_| vec![Fault::Restart]);
}

#[test]
fn nodes_that_cannot_reach_each_other_or_the_store_contradict_nobody_and_nobody_is_stuck_when_links_are_healed()
 {
    let _beside = beside_another();
    run("cut", 3, |seed| {
        // One of each pair a run.
        let peers = [Fault::Peers, Fault::PeersOneWay];
        let store = [Fault::Store, Fault::Apart];
        vec![
            peers[seed as usize % 2],
            store[seed as usize / 2 % 2],
            Fault::Links,
        ]
    });
}

#[test]
fn a_slow_network_and_lost_answers_of_transactions_and_a_drain_cost_nobody_a_message_and_make_no_second_owner()
 {
    let _alone = alone();
    run("slow", 3, |_| vec![Fault::Slow, Fault::Drain, Fault::Conditional]);
}

#[test]
fn absent_sessions_get_everything_that_they_are_owed_after_all_nodes_were_killed() {
    let _beside = beside_another();
    on_folder("owed", |folder, seed| {
        let size = Size { users: 32, ..SIZE };
        said(&owed::owed(folder, cassandra(), seed, size, 20)?)
    });
}

#[test]
fn ten_nodes_form_a_view_and_each_serves_a_send_and_two_users_talk() {
    let _alone = alone();
    on_folder("many", |folder, _| {
        let formed = many::form(folder, cassandra(), 10)?;
        Ok((serde_json::to_string(&formed)?, Vec::new()))
    });
}
