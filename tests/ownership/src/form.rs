//! Worlds in which nothing but membership happens: how long it takes many nodes to form a view, and what it costs. Nothing is judged but
//! that they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_cluster::own::{About, Body, MAX_MEMBERS, MAX_UNSETTLED, Roles, Seat};
use godwit_store::coordination::{StartRow, StoredView};
use uuid::Uuid;

use crate::bugs::Bug;
use crate::climate::{Climate, Kind};
use crate::exec::{Micros, Sim, WORLD, lock};
use crate::node::{LAYOUT, Node, Process, World};
use crate::oracle::Oracle;
use crate::replicas::{Key, Val};

const SECOND: Micros = 1_000_000;
/// Nobody waits for longer.
const PATIENCE: Micros = 60 * SECOND;

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Formed {
    /// Virtual time from the last start until all nodes were in the view, in milliseconds.
    pub in_ms: u64,
    /// Until all earlier views were settled, all nodes stood in the last one and every slot was held.
    pub settled_ms: u64,
    /// Changes of the view's row, those that settle among them.
    pub changes: u64,
    /// Transactions that tried to make one.
    pub attempts: u64,
    /// Reads of the view at SERIAL.
    pub reads: u64,
    /// Number of the last view.
    pub views: u64,
}

/// Nodes start, each so long after the one before it (milliseconds); 0: all within 200 ms. `None`: they formed no view within a minute.
pub fn form(seed: u64, nodes: u64, apart_ms: u64) -> Option<Formed> {
    let (sim, world) = empty(seed, nodes);
    for node in 0..nodes {
        let there = world.clone();
        let when = if apart_ms == 0 {
            sim.between(0, 200_000)
        } else {
            node * apart_ms * 1_000
        };
        sim.at(when, move || Process::start(&there, node as usize));
    }
    let from = if apart_ms == 0 {
        200
    } else {
        (nodes - 1) * apart_ms
    };
    formed(&world, nodes, from * 1_000)
}

/// The view that is found is full of starts that are dead, half of them without a row, and so are all that are not settled; a node starts, dies a few
/// times before it could see that they are dead, and then lives.
pub fn form_after_dead_ones(seed: u64) -> Option<Formed> {
    let (sim, world) = empty(seed, 1);
    let seats: Vec<Seat> = (1..=MAX_MEMBERS as u128)
        .map(|at| Seat {
            start: Uuid::from_u128(at),
            name: format!("dead{at}").into(),
            roles: Roles::ALL,
            leaving: false,
        })
        .collect();
    for seat in seats.iter().step_by(2) {
        let row = StartRow {
            start: seat.start,
            beat: 3,
            confirmed: MAX_UNSETTLED as u64,
            stamp: 1,
            about: About {
                name: seat.name.to_string(),
                ..About::default()
            }
            .encode(),
        };
        world
            .replicas
            .begin_with(Key::Start(seat.start.as_u128()), 3, &Val::Start(row));
    }
    let number = MAX_UNSETTLED as u64 + 1;
    let unsettled = (1..number).map(|number| godwit_cluster::own::Earlier {
        number,
        seats: seats.clone(),
    });
    let body = Body {
        unsettled: unsettled.collect(),
        seats: seats.clone(),
        floor: 0,
    };
    world.transactions.begin_with(StoredView {
        number,
        nonce: Uuid::from_u128(1),
        body: body.encode(),
    });
    let mut when = 0;
    for _ in 0..sim.between(0, 4) {
        let there = world.clone();
        sim.at(when, move || Process::start(&there, 0));
        when += sim.between(SECOND / 5, 4 * SECOND);
        let there = world.clone();
        sim.at(when, move || {
            let process = lock(&there.nodes)[0].process.take();
            if let Some(process) = process {
                there.sim.kill(process.proc);
            }
        });
        when += 1_000;
    }
    let there = world.clone();
    sim.at(when, move || Process::start(&there, 0));
    formed(&world, 1, when)
}

fn empty(seed: u64, nodes: u64) -> (Sim, Arc<World>) {
    let sim = Sim::new(seed);
    let climate = Climate::of(Kind::Stops, &sim);
    let nodes = (0..nodes).map(|at| Node::new(format!("n{at}"), Roles::ALL, 0));
    let oracle = Oracle::new(sim.clone(), false);
    let world = World::new(&sim, &oracle, climate, nodes.collect(), Bug::None);
    let mut weather = lock(&world.replicas.weather);
    weather.stops = 0;
    weather.contended = true;
    drop(weather);
    (sim, world)
}

/// Looks every 20 ms.
fn formed(world: &Arc<World>, nodes: u64, from: Micros) -> Option<Formed> {
    let (all_in, settled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (there, seen, done) = (world.clone(), all_in.clone(), settled.clone());
    world.sim.spawn(WORLD, async move {
        there.sim.sleep_until(from).await;
        while done.load(Ordering::SeqCst) == 0 {
            there.sim.sleep(20_000).await;
            let (is_in, is_settled) = looks(&there, nodes);
            let now = there.sim.now() - from;
            if is_in && seen.load(Ordering::SeqCst) == 0 {
                seen.store(now, Ordering::SeqCst);
            }
            if is_settled {
                done.store(now, Ordering::SeqCst);
            }
        }
    });
    world
        .sim
        .run(from + PATIENCE, || settled.load(Ordering::SeqCst) > 0);
    let (changes, attempts, reads) = world.transactions.cost();
    let last = world.transactions.stands();
    world.end();
    let settled = settled.load(Ordering::SeqCst);
    (settled > 0).then_some(Formed {
        in_ms: all_in.load(Ordering::SeqCst) / 1_000,
        settled_ms: settled / 1_000,
        changes,
        attempts,
        reads,
        views: last?.number,
    })
}

/// Whether all are in the view, and whether it is settled and everything held.
fn looks(world: &World, nodes: u64) -> (bool, bool) {
    let Some(view) = world.transactions.stands() else {
        return (false, false);
    };
    let Some(body) = Body::decode(&view.body) else {
        return (false, false);
    };
    if body.seats.len() as u64 != nodes {
        return (false, false);
    }
    let machines = lock(&world.nodes);
    let running: Vec<_> = machines.iter().filter_map(|node| node.process.as_ref()).collect();
    let stand = running
        .iter()
        .filter(|process| process.holdings.current() == view.number)
        .count();
    let slots = 0..LAYOUT.slots() as u16;
    let held = slots.filter(|slot| {
        running
            .iter()
            .any(|process| process.holdings.held(*slot).is_some())
    });
    let settled = body.unsettled.is_empty() && stand as u64 == nodes && held.count() == LAYOUT.slots();
    (true, settled)
}
