//! Any fault, in any order, some at a time: answers of lightweight transactions that are lost, a slow store and wrong clocks in the background, and one
//! after the other whatever is done to nodes and links.

use std::time::{Duration, Instant};

use anyhow::Result;
use godwit_cassandra::Cluster;
use rand::RngExt;

use super::{Fault, Force, any, clock, once};
use crate::rig::{Rig, SERVED};

/// What is done in front, and how often.
const FRONT: [(Fault, u32); 10] = [
    (Fault::Kill, 5),
    (Fault::KillTwo, 2),
    (Fault::KillAll, 1),
    (Fault::Freeze, 2),
    (Fault::Drain, 3),
    (Fault::Roam, 2),
    (Fault::Peers, 2),
    (Fault::PeersOneWay, 2),
    (Fault::Store, 3),
    (Fault::Apart, 2),
];
/// Besides: a round of all links.
const LINKS: u32 = 2;
/// A slow store: later, and so many pieces of 10,000 stall.
const DELAY: Duration = Duration::from_millis(60);
const STALLS: u32 = 50;
/// Clocks are so far off at most, milliseconds.
const OFF: i64 = 3_600_000;

/// See the module.
pub(super) fn everything(rig: &mut Rig, force: &Force, cassandra: &Cluster) -> Result<()> {
    rig.is_lenient = true;
    let until = Instant::now() + force.at_random;
    while Instant::now() < until {
        background(rig, force)?;
        let fault = front(rig);
        once(rig, fault, force, cassandra)?;
        rig.wait_all_served(SERVED)?;
        rig.look_at_owners();
    }
    rig.nodes.around.claims.lose(0);
    rig.nodes.around.pace.fast();
    for node in 0..rig.nodes.count() {
        clock::set(rig, node, 0)?;
    }
    rig.nodes.wait_formed()?;
    rig.mark("everything is well again".to_owned(), Duration::MAX);
    rig.wait_back(SERVED)
}

fn front(rig: &mut Rig) -> Fault {
    let all: u32 = FRONT.iter().map(|(_, often)| often).sum();
    let mut drawn = rig.random.random_range(0..all + LINKS);
    for (fault, often) in FRONT {
        if drawn < often {
            return fault;
        }
        drawn -= often;
    }
    Fault::Links
}

fn background(rig: &mut Rig, force: &Force) -> Result<()> {
    let (loses, is_slow) = (rig.random.random_bool(0.5), rig.random.random_bool(0.25));
    let claims = if loses { force.claims } else { 0 };
    rig.nodes.around.claims.lose(claims);
    if is_slow {
        rig.nodes.around.pace.slow(DELAY, STALLS);
    } else {
        rig.nodes.around.pace.fast();
    }
    let mut off = None;
    if rig.random.random_bool(0.4) {
        let (node, millis) = (any(rig), rig.random.random_range(-OFF..=OFF));
        clock::set(rig, node, millis)?;
        off = Some((node, millis));
    }
    eprintln!(
        "{:8.1} s: {claims} of a million answers lost or late, slow: {is_slow}, clock of node off by ms: {off:?}",
        rig.elapsed()
    );
    Ok(())
}
