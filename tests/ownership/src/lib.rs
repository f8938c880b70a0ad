//! The protocol of ownership under simulation: the real [`Member`](godwit_cluster::own::Member), driver, holdings and
//! fence functions, on a store of three replicas and nodes that fail in every way the design names. One seed, one run.
//!
//! What is modelled beside them: the engine's IO, a conversation's home and mailboxes' homes (`engine.rs`,
//! `conversation.rs`, `mailbox.rs`). What is judged: `oracle.rs`.

mod bugs;
mod cells;
mod chaos;
mod climate;
mod content;
mod conversation;
mod engine;
mod exec;
mod mailbox;
mod node;
mod oracle;
mod replicas;
mod stamps;
mod traffic;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use godwit_cluster::own::Roles;

pub use bugs::Bug;

use crate::climate::Climate;
use crate::content::{CONVERSATION, USERS};
use crate::exec::{Sim, WORLD, lock};
use crate::node::{Node, Process, World};
use crate::oracle::Oracle;
use crate::replicas::Replicas;
use crate::traffic::Traffic;
use crate::transactions::Transactions;

const SECOND: u64 = 1_000_000;
/// After faults end every client hears of its sends within this.
const HEALED_WITHIN: u64 = 25 * SECOND;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first broken promise.
    pub broken: Option<String>,
    /// What happened, line by line, if it was asked for.
    pub trace: Vec<String>,
    /// Events of the world.
    pub events: u64,
    /// Sends acknowledged and entries delivered.
    pub told: u64,
    /// Virtual time from the end of faults to the last client's acknowledgement, in milliseconds.
    pub healed_ms: u64,
}

/// Runs one seed.
pub fn run(seed: u64, bug: Bug, trace: bool) -> Outcome {
    let sim = Sim::new(seed);
    let oracle = Oracle::new(sim.clone(), trace);
    let replicas = Replicas::new(sim.clone());
    let transactions = Transactions::new(sim.clone(), replicas.clone());
    let climate = Climate::of(&sim);
    replicas.set(&climate);
    let world = Arc::new(World {
        transactions,
        replicas,
        oracle: oracle.clone(),
        bug,
        nodes: Mutex::new(machines(&sim, climate.nodes)),
        cut: Mutex::new(BTreeSet::new()),
        maps: Mutex::new(BTreeMap::new()),
        starts: Mutex::new(BTreeMap::new()),
        procs: AtomicU64::new(0),
        climate: climate.clone(),
        calm: AtomicBool::new(false),
        sim: sim.clone(),
    });
    let nodes = lock(&world.nodes).len();
    for node in 0..nodes {
        let there = world.clone();
        sim.at(sim.between(0, 700_000), move || Process::start(&there, node));
    }
    let traffic = Arc::new(Traffic::default());
    for user in 0..USERS {
        sim.spawn(WORLD, traffic::client(world.clone(), traffic.clone(), user));
        sim.spawn(WORLD, traffic::device(world.clone(), traffic.clone(), user));
    }
    sim.spawn(WORLD, traffic::reader(world.clone(), traffic.clone()));
    for who in 0..2 {
        sim.spawn(WORLD, traffic::claimer(world.clone(), traffic.clone(), who));
    }
    if climate.clocks_true {
        sim.spawn(WORLD, traffic::watch(world.clone()));
    }
    let broken = || oracle.broken().is_some();
    let there = world.clone();
    sim.run(climate.from, broken);
    sim.spawn(WORLD, async move { chaos::faults(there).await });
    sim.run(climate.until + climate.pace + SECOND, || {
        broken() || world.calm.load(Ordering::SeqCst)
    });
    traffic.stop.store(true, Ordering::SeqCst);
    let healed = sim.now();
    let all_done = || traffic.done.load(Ordering::SeqCst) == usize::from(USERS);
    sim.run(healed + HEALED_WITHIN, || broken() || all_done());
    let healed_ms = (sim.now() - healed) / 1_000;
    if !broken() && !all_done() {
        oracle.breaks(
            "LIVE",
            format!("a client waits {} s after all faults", HEALED_WITHIN / SECOND),
        );
    }
    // What is under way still lands.
    sim.run(sim.now() + 20 * SECOND, broken);
    if !broken() {
        for log in (0..USERS).chain([CONVERSATION]) {
            oracle.all_there(log, &cells::that_count(&world.replicas, log));
        }
        oracle.facts(|key| world.transactions.fact(key));
    }
    let outcome = Outcome {
        broken: oracle.broken(),
        trace: oracle.trace(),
        events: sim.events(),
        told: oracle.told(),
        healed_ms,
    };
    for node in lock(&world.nodes).iter_mut() {
        node.process = None;
    }
    sim.clear();
    outcome
}

fn machines(sim: &Sim, count: u64) -> Vec<Node> {
    let some = [
        Roles::BROKER,
        Roles::INGEST.and(Roles::SEARCH),
        Roles::BROKER.and(Roles::API),
    ];
    let mixed = sim.chance(25);
    let node = |at: u64| Node {
        name: format!("n{at}"),
        // Two have everything, so that there is always somebody.
        roles: if mixed && at >= 2 {
            some[sim.below(3) as usize]
        } else {
            Roles::ALL
        },
        wall: Arc::new(AtomicI64::new(sim.below(20_000) as i64 - 10_000)),
        behind: Arc::default(),
        stands_since: Arc::default(),
        process: None,
    };
    (0..count).map(node).collect()
}
