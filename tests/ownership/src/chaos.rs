//! Faults: processes die, stop and drain, the store and other nodes are out of reach, messages are late, transactions
//! unheard, clocks jump or stand still. Then everything heals.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use godwit_cluster::own::Roles;

use crate::exec::{Micros, Proc, WORLD, lock};
use crate::node::{Node, Process, World};

const SECOND: Micros = 1_000_000;

/// Faults for as long as the climate has them, then calm.
pub(crate) async fn faults(world: Arc<World>) {
    let sim = world.sim.clone();
    let (until, pace) = (world.climate.until, world.climate.pace);
    let nodes = lock(&world.nodes).len();
    if world.climate.is_quiet() {
        // Nobody is stopped who would not be for all of three leases.
        sim.sleep_until(until - 13 * SECOND).await;
        lock(&world.replicas.weather).stops = 0;
        sim.sleep_until(until).await;
    }
    while sim.now() < until {
        sim.sleep(sim.between(pace / 8, pace)).await;
        let node = sim.below(nodes as u64) as usize;
        let proc = running(&world, node);
        match sim.below(23) {
            0..=3 => kill(&world, node),
            4..=7 => stop(&world, node, proc),
            8..=10 => cut_store(&world, node, proc),
            11..=12 => cut_nodes(&world, node),
            13..=14 => {
                let replica = sim.below(3) as usize;
                // One of three: with two away nothing is acknowledged, nor broken.
                let mut weather = lock(&world.replicas.weather);
                if weather.down.len() < 2 {
                    weather.down.insert(replica);
                    drop(weather);
                    let there = world.clone();
                    sim.at(sim.now() + sim.between(SECOND / 2, 4 * SECOND), move || {
                        lock(&there.replicas.weather).down.remove(&replica);
                    });
                }
            }
            15..=16 => drain(&world, node),
            17 => {
                let wall = lock(&world.nodes)[node].wall.clone();
                let hours = [-3_600, 3_600, -10, 10][sim.below(4) as usize];
                world
                    .oracle
                    .say(WORLD, || format!("wall clock of node {node} moves by {hours} s"));
                wall.fetch_add(hours * SECOND as i64, Ordering::SeqCst);
            }
            18..=20 => blind(&world, node, proc),
            _ if !world.climate.clocks_true => stand_still(&world, node),
            _ => {}
        }
    }
    heal(&world);
}

fn running(world: &World, node: usize) -> Option<Proc> {
    lock(&world.nodes)[node]
        .process
        .as_ref()
        .map(|process| process.proc)
}

fn kill(world: &Arc<World>, node: usize) {
    let process = lock(&world.nodes)[node].process.take();
    let Some(process) = process else { return };
    world.oracle.say(process.proc, || "is killed".into());
    world.sim.kill(process.proc);
    let there = world.clone();
    let soon = world.sim.chance(60);
    let most = if soon { SECOND } else { 6 * SECOND };
    world
        .sim
        .at(world.sim.now() + world.sim.between(50_000, most), move || {
            if running(&there, node).is_none() {
                Process::start(&there, node);
            }
        });
}

fn stop(world: &Arc<World>, node: usize, proc: Option<Proc>) {
    let Some(proc) = proc else { return };
    world.oracle.say(proc, || format!("is stopped (node {node})"));
    world.sim.pause(proc);
    let there = world.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(SECOND / 5, 9 * SECOND),
        move || {
            there.oracle.say(proc, || "goes on".into());
            there.sim.resume(proc);
        },
    );
}

fn cut_store(world: &Arc<World>, node: usize, proc: Option<Proc>) {
    let Some(proc) = proc else { return };
    world
        .oracle
        .say(proc, || format!("does not reach the store (node {node})"));
    lock(&world.replicas.weather).cut.insert(proc);
    let there = world.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(SECOND / 2, 8 * SECOND),
        move || {
            there.oracle.say(proc, || "reaches the store again".into());
            lock(&there.replicas.weather).cut.remove(&proc);
        },
    );
}

fn blind(world: &Arc<World>, node: usize, proc: Option<Proc>) {
    let Some(proc) = proc else { return };
    world
        .oracle
        .say(proc, || format!("cannot read the view (node {node})"));
    lock(&world.replicas.weather).blind.insert(proc);
    let there = world.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(SECOND / 2, 7 * SECOND),
        move || {
            there.oracle.say(proc, || "can read the view again".into());
            lock(&there.replicas.weather).blind.remove(&proc);
        },
    );
}

fn cut_nodes(world: &Arc<World>, node: usize) {
    let other = world.sim.below(lock(&world.nodes).len() as u64) as usize;
    let pair = (node.min(other), node.max(other));
    world
        .oracle
        .say(WORLD, || format!("nodes {pair:?} do not reach each other"));
    lock(&world.cut).insert(pair);
    let there = world.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(SECOND, 5 * SECOND),
        move || {
            lock(&there.cut).remove(&pair);
        },
    );
}

fn drain(world: &Arc<World>, node: usize) {
    let process = lock(&world.nodes)[node].process.clone();
    let Some(process) = process else { return };
    world.oracle.say(process.proc, || "is to leave".into());
    // The process may be over.
    let _ = process.drain.send(true);
    let there = world.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(2 * SECOND, 5 * SECOND),
        move || {
            if running(&there, node) == Some(process.proc) {
                kill(&there, node);
            }
        },
    );
}

fn stand_still(world: &Arc<World>, node: usize) {
    let (since, behind) = {
        let nodes = lock(&world.nodes);
        (nodes[node].stands_since.clone(), nodes[node].behind.clone())
    };
    if since.load(Ordering::SeqCst) != 0 {
        return;
    }
    world
        .oracle
        .say(WORLD, || format!("boot clock of node {node} stands still"));
    since.store(world.sim.now(), Ordering::SeqCst);
    let sim = world.sim.clone();
    world.sim.at(
        world.sim.now() + world.sim.between(SECOND, 8 * SECOND),
        move || {
            behind.fetch_add(sim.now() - since.load(Ordering::SeqCst), Ordering::SeqCst);
            since.store(0, Ordering::SeqCst);
        },
    );
}

/// A process that has just taken something up.
pub(crate) fn hit(world: &Arc<World>, node: usize, proc: Proc) {
    if world.calm.load(Ordering::SeqCst) || world.sim.is_dead(proc) {
        return;
    }
    match world.sim.below(5) {
        0 | 1 => stop(world, node, Some(proc)),
        2 | 3 => cut_store(world, node, Some(proc)),
        _ if running(world, node) == Some(proc) => kill(world, node),
        _ => {}
    }
}

/// A process that is about to write: what it sends now arrives at one replica alone, and then it is gone, for now or for ever.
pub(crate) fn tear(world: &Arc<World>, node: usize, proc: Proc) {
    if world.calm.load(Ordering::SeqCst) {
        return;
    }
    world.oracle.say(proc, || "writes to one replica alone".into());
    lock(&world.replicas.weather).torn.insert(proc);
    let there = world.clone();
    world
        .sim
        .at(world.sim.now() + world.sim.between(0, 20_000), move || {
            match there.sim.below(3) {
                0 => stop(&there, node, Some(proc)),
                1 => cut_store(&there, node, Some(proc)),
                _ if running(&there, node) == Some(proc) => kill(&there, node),
                _ => {}
            }
            lock(&there.replicas.weather).torn.remove(&proc);
        });
}

/// A node joins, with a clock that is behind, and is to fall asleep before it is in.
pub(crate) async fn sleeper(world: Arc<World>) {
    let sim = world.sim.clone();
    let node = {
        let mut nodes = lock(&world.nodes);
        let wall = [-10, -3_600][sim.below(2) as usize] * SECOND as i64;
        nodes.push(Node::new("sleeper".into(), Roles::ALL, wall));
        nodes.len() - 1
    };
    sim.sleep_until(world.climate.from).await;
    Process::start(&world, node);
    // When it asks to be taken in.
    lock(&world.replicas.weather).sleepy = running(&world, node);
}

fn heal(world: &Arc<World>) {
    world.oracle.say(WORLD, || "everything heals".into());
    world.calm.store(true, Ordering::SeqCst);
    {
        let mut weather = lock(&world.replicas.weather);
        weather.cut.clear();
        weather.blind.clear();
        weather.torn.clear();
        weather.down.clear();
        weather.naps = 0;
        weather.stops = 0;
        weather.late = 1;
        weather.very_late = 200_000;
        weather.unknown = 0;
    }
    lock(&world.cut).clear();
    let nodes = lock(&world.nodes).len();
    for node in 0..nodes {
        match running(world, node) {
            Some(proc) => world.sim.resume(proc),
            None => Process::start(world, node),
        }
    }
}
