//! Networks that are cut: between nodes, between a node and the store, and one link after the other. Whoever cannot renew its lease must be silent when
//! it ends, whatever it hears from its clients.

use std::time::Duration;

use anyhow::{Context, Result};
use godwit_e2e::record::now;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::{Fault, Force, LEASE, any, some};
use crate::network::{End, Network};
use crate::rig::{Rig, SERVED};

/// All are served so long after a network is whole again: the mark is 10 s, and a test fails at three times that.
const HEALED: Duration = Duration::from_secs(30);
/// What may still be under way from a node that has fallen silent to its clients, and between two of their looks at the clock.
const UNDER_WAY: Duration = Duration::from_millis(1_000);
/// Milliseconds between two links that are cut, or healed.
const BETWEEN: (u64, u64) = (50, 900);

fn network(rig: &mut Rig) -> Result<&mut Network> {
    rig.nodes
        .around
        .network
        .as_mut()
        .context("the run has no network")
}

/// Everything passes again: how long until all are served.
fn heal(rig: &mut Rig) -> Result<()> {
    network(rig)?.heal_all()?;
    rig.mark("healed".to_owned(), Duration::MAX);
    rig.wait_back(HEALED)?;
    rig.nodes.wait_formed()?;
    let formed = rig.since_mark();
    rig.note(format!(
        "one settled view {formed:?} after the network was healed"
    ));
    rig.look_at_owners();
    Ok(())
}

/// Two nodes cannot reach each other, or one not the other.
pub(super) fn peers(rig: &mut Rig, force: &Force, both: bool) -> Result<()> {
    let pair = some(rig, 2);
    let (one, other) = (End::Node(pair[0]), End::Node(pair[1]));
    let how = if both { "and" } else { "cannot send to" };
    let lasts = force.lasts;
    rig.mark(
        format!("n{} {how} n{}: nothing passes for {lasts:?}", pair[0], pair[1]),
        Fault::Peers.limit(),
    );
    if both {
        network(rig)?.cut(one, other)?;
    } else {
        network(rig)?.cut_one_way(one, other)?;
    }
    rig.go_on(lasts / 2);
    rig.look_at_owners();
    rig.go_on(lasts / 2);
    heal(rig)
}

/// A node cannot reach the store, nor, if it is `apart`, the other nodes.
pub(super) fn store(rig: &mut Rig, force: &Force, apart: bool) -> Result<()> {
    let (node, lasts) = (any(rig), force.lasts);
    let homes = rig.homes(node)?;
    let others: Vec<usize> = (0..rig.nodes.count()).filter(|&one| one != node).collect();
    let from = if apart {
        "the store and the others"
    } else {
        "the store"
    };
    rig.mark(
        format!("n{node} is cut from {from} for {lasts:?}"),
        Fault::Store.limit(),
    );
    network(rig)?.cut(End::Node(node), End::Store)?;
    if apart {
        for &other in &others {
            network(rig)?.cut(End::Node(node), End::Node(other))?;
        }
    }
    let cut = now();
    // Until then it may serve.
    rig.go_on(LEASE + UNDER_WAY);
    // What its users had sent it in its lease is stored, perhaps, and nobody was told.
    rig.falls_silent();
    let silent_from = now();
    rig.nodes.wait_members(&others)?;
    let taken = rig.since_mark();
    rig.note(format!(
        "the others hold what was n{node}'s {taken:?} after it was cut off"
    ));
    if taken > Fault::Store.limit() && !rig.is_lenient {
        rig.shared
            .problem(format!("what was n{node}'s was taken up after {taken:?} only"));
    }
    rig.wait_back_since(silent_from, Fault::Store.limit())?;
    rig.look_at_owners();
    let rest = lasts.saturating_sub(rig.since_mark());
    rig.go_on(rest);
    let until = now();
    silent(rig, node, &homes, apart, cut, until);
    heal(rig)
}

/// Nobody may be told by the node, after its lease, that anything is stored: its own users not, and if it reaches no other node either, nobody. Users
/// whose home is elsewhere may be connected through it.
fn silent(rig: &mut Rig, node: usize, homes: &[Option<usize>], apart: bool, cut: u64, until: u64) {
    let end = cut + u64::try_from((LEASE + UNDER_WAY).as_nanos()).unwrap_or(u64::MAX);
    let before: usize = rig.told_by(node, cut, end).iter().map(|(_, count)| count).sum();
    rig.note(format!(
        "n{node} acknowledged {before} sends after it was cut off, in its lease"
    ));
    for (user, count) in rig.told_by(node, end, until) {
        if apart || homes.get(user) == Some(&Some(node)) {
            rig.shared.problem(format!(
                "n{node} told user {user} {count} times that a send is stored, after its lease had ended"
            ));
        }
    }
}

/// Every link is cut, one after the other, and healed, in another order.
pub(super) fn links(rig: &mut Rig) -> Result<()> {
    let count = rig.nodes.count();
    let mut all = Vec::new();
    for node in 0..count {
        all.extend([(End::Node(node), End::Store), (End::Node(node), End::Clients)]);
        all.extend((0..node).map(|other| (End::Node(node), End::Node(other))));
    }
    all.shuffle(&mut rig.random);
    rig.mark(
        format!("{} links are cut, one by one", all.len()),
        Fault::Links.limit(),
    );
    for &(one, other) in &all {
        if rig.random.random_bool(0.5) {
            network(rig)?.cut(one, other)?;
        } else {
            network(rig)?.cut_one_way(one, other)?;
        }
        let pause = rig.between(BETWEEN.0, BETWEEN.1);
        rig.go_on(pause);
        rig.falls_silent();
    }
    all.shuffle(&mut rig.random);
    rig.mark(
        "they are healed in another order".to_owned(),
        Fault::Links.limit(),
    );
    for (one, other) in all {
        network(rig)?.heal(one, other)?;
        let pause = rig.between(BETWEEN.0, BETWEEN.1);
        rig.go_on(pause);
        rig.falls_silent();
    }
    rig.mark("all links are healed".to_owned(), Duration::MAX);
    // The mark itself: nobody is stuck 30 s later.
    rig.watches_view = true;
    let back = rig.wait_back(HEALED);
    rig.watches_view = false;
    back?;
    rig.nodes.wait_formed()?;
    rig.wait_all_served(SERVED)?;
    Ok(())
}
