//! Clients that send and send again, devices that acknowledge, readers that own nothing, claims of names, and the watch
//! over leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::content::{CONVERSATION, Entry, USERS, What};
use crate::exec::{Proc, all, lock};
use crate::node::{Process, World, conversation_slot, mailbox_slot};

/// What clients and the run tell each other.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) stop: AtomicBool,
    /// Clients that have sent their last message and heard of it.
    pub(crate) done: AtomicUsize,
}

impl Traffic {
    fn over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn any(world: &World) -> Option<Arc<Process>> {
    let nodes = lock(&world.nodes);
    let running: Vec<_> = nodes.iter().filter_map(|node| node.process.clone()).collect();
    let at = world.sim.below(running.len() as u64) as usize;
    running.get(at).cloned()
}

/// Sends numbered messages, each until it is acknowledged; some once more later.
pub(crate) async fn client(world: Arc<World>, traffic: Arc<Traffic>, sender: u8) {
    let sim = world.sim.clone();
    let mut number = 0;
    let mut sent: Vec<Entry> = Vec::new();
    let mut last_one = false;
    loop {
        let again = sim.chance(12) && !sent.is_empty() && !last_one;
        let entry = if again {
            sent[sent.len() - 1 - sim.below(sent.len().min(4) as u64) as usize]
        } else {
            number += 1;
            let user = sim.below(u64::from(USERS)) as u8;
            let what = match sim.below(12) {
                0 => What::Joins(user),
                1 => What::Leaves(user),
                _ => What::Text,
            };
            Entry { sender, number, what }
        };
        // Some are sent together, so that a home writes them at once.
        let mut together = vec![entry];
        while !again && together.len() < 3 && sim.chance(35) {
            number += 1;
            let what = What::Text;
            together.push(Entry { sender, number, what });
        }
        all(together.iter().map(|entry| send(&world, *entry)).collect()).await;
        if !again {
            sent.extend(together);
        }
        if last_one {
            break;
        }
        last_one = traffic.over();
        sim.sleep(sim.between(30_000, 350_000)).await;
    }
    traffic.done.fetch_add(1, Ordering::SeqCst);
}

async fn send(world: &World, entry: Entry) {
    loop {
        if let Some(process) = any(world)
            && let Some(seq) = process.ask(entry).await
        {
            world.oracle.acknowledged(entry.sender, entry.number, seq);
            return;
        }
        world.sim.sleep(world.sim.between(20_000, 120_000)).await;
    }
}

/// Acknowledges what its user's mailbox has.
pub(crate) async fn device(world: Arc<World>, traffic: Arc<Traffic>, user: u8) {
    while !traffic.over() {
        world.sim.sleep(world.sim.between(100_000, 600_000)).await;
        let Some(process) = any(&world) else { continue };
        let has = world.oracle.last(user);
        if has > 0 {
            process
                .acknowledge(user, world.sim.between(has.saturating_sub(3), has))
                .await;
        }
    }
}

/// Reads logs from any node.
pub(crate) async fn reader(world: Arc<World>, traffic: Arc<Traffic>) {
    while !traffic.over() {
        world.sim.sleep(world.sim.between(50_000, 500_000)).await;
        let Some(process) = any(&world) else { continue };
        let log = if world.sim.chance(60) {
            CONVERSATION
        } else {
            world.sim.below(u64::from(USERS)) as u8
        };
        let last = world.oracle.last(log);
        let after = world.sim.between(last.saturating_sub(8), last);
        let page = process.engine.page(log, after, after + 6, true).await;
        for row in page.unwrap_or_default() {
            world.oracle.read(process.proc, log, row.seq, &row.row);
        }
    }
}

/// Two at once want the same names.
pub(crate) async fn claimer(world: Arc<World>, traffic: Arc<Traffic>, who: u64) {
    let mut name = 0;
    while !traffic.over() {
        world.sim.sleep(world.sim.between(300_000, 1_500_000)).await;
        let Some(process) = any(&world) else { continue };
        name += 1;
        if process.engine.claim(name, who).await {
            world.oracle.granted(name, who);
        } else {
            world.oracle.denied(name, who);
        }
    }
}

/// While clocks run true, never two at once should act for one shard.
pub(crate) async fn watch(world: Arc<World>) {
    loop {
        world.sim.sleep(25_000).await;
        let slots = std::iter::once(conversation_slot()).chain((0..USERS).map(mailbox_slot));
        let running: Vec<Arc<Process>> = lock(&world.nodes)
            .iter()
            .filter_map(|node| node.process.clone())
            .collect();
        for slot in slots {
            let acts = |process: &&Arc<Process>| {
                process.holdings.held(slot).is_some()
                    && process.may_act()
                    && !world.sim.is_paused(process.proc)
            };
            let acting: Vec<Proc> = running.iter().filter(acts).map(|process| process.proc).collect();
            if acting.len() > 1 {
                world
                    .oracle
                    .breaks("LEASE", format!("{acting:?} all act for slot {slot}"));
            }
        }
    }
}
