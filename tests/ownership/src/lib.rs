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
mod coordination;
mod engine;
mod exec;
mod form;
mod mailbox;
mod node;
mod oracle;
mod replicas;
mod stamps;
mod stops;
mod traffic;
mod transactions;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use godwit_cluster::own::Roles;

pub use bugs::Bug;
pub use climate::Kind;
pub use form::{Formed, form, form_after_dead_ones};

use crate::climate::Climate;
use crate::content::{CONVERSATION, USERS};
use crate::exec::{Sim, WORLD, lock};
use crate::node::{Node, Process, World};
use crate::oracle::Oracle;
use crate::traffic::Traffic;

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
    /// Appends that a process began after its lease: none of them was confirmed. Counted in worlds of stops.
    pub late: u64,
    /// Virtual time from the end of faults to the last client's acknowledgement, in milliseconds.
    pub healed_ms: u64,
}

/// Runs one seed in the world that it says.
pub fn run(seed: u64, bug: Bug, trace: bool) -> Outcome {
    run_in(Kind::Any, seed, bug, trace)
}

/// Runs one seed in a world of this kind.
pub fn run_in(kind: Kind, seed: u64, bug: Bug, trace: bool) -> Outcome {
    let sim = Sim::new(seed);
    let climate = Climate::of(kind, &sim);
    let machines = machines(&sim, climate.nodes);
    let oracle = Oracle::new(sim.clone(), trace);
    let world = World::new(&sim, &oracle, climate.clone(), machines, bug);
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
    if climate.kind == Kind::Sleeper {
        sim.spawn(WORLD, chaos::sleeper(world.clone()));
    }
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
        late: oracle.late_ones(),
        healed_ms,
    };
    world.end();
    outcome
}

fn machines(sim: &Sim, count: u64) -> Vec<Node> {
    let some = [
        Roles::BROKER,
        Roles::INGEST.and(Roles::SEARCH),
        Roles::BROKER.and(Roles::API),
    ];
    let mixed = sim.chance(25);
    let node = |at: u64| {
        // Two have everything, so that there is always somebody.
        let roles = if mixed && at >= 2 {
            some[sim.below(3) as usize]
        } else {
            Roles::ALL
        };
        Node::new(format!("n{at}"), roles, sim.below(20_000) as i64 - 10_000)
    };
    (0..count).map(node).collect()
}
