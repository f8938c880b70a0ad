//! What topics' homes of several nodes tell each other: the interest of sessions in memory for homes that were just taken
//! up, and the filters with early wildcards for nodes that are new (docs/decisions/0011-many-nodes.md). Until it is
//! told nothing is published there.

use std::collections::HashSet;
use std::sync::Arc;

use godwit_cluster::own::Standing;
use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, Route, TopicCommand};
use godwit_wire::ids::Key;
use uuid::Uuid;

use super::subscribe::other_workers;
use super::{Step, TIMER_NODES, Topics};
use crate::part::Part;

/// After how long a node that did not answer is asked again, milliseconds.
const AGAIN_MS: u64 = 200;
/// Filters of a part of the list.
const PART_ROUTES: usize = 512;
/// And bytes of it, about: each may have 64 KiB.
const PART_BYTES: usize = 128 * 1024;

/// What a worker knows of the others' interest.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The start as which it has its copy, or is being given it.
    me: Option<Uuid>,
    /// Shards whose keys' interest is not known yet.
    unheard: HashSet<u16>,
    /// Each asks for some of them.
    hearings: Vec<Hearing>,
    next_hearing: u64,
    /// The view up to which routes of sessions in memory were looked through.
    pub(super) swept: Option<Arc<Standing>>,
    /// The list is asked for.
    asked: bool,
    timer: bool,
}

/// Shards that were taken up together, and the nodes that have not announced what they have.
#[derive(Debug)]
struct Hearing {
    number: u64,
    shards: HashSet<u16>,
    /// `None`: the members are not known yet.
    waits: Option<Vec<(Uuid, bool)>>,
}

/// A command to a node that its workers are given.
#[derive(Debug)]
pub(super) struct Relaying {
    reply: Reply,
    pub(super) outstanding: usize,
    pub(super) refusal: Option<Refusal>,
}

/// The list on its way to a node.
#[derive(Debug)]
pub(super) struct Listing {
    node: Uuid,
    /// All parts are there: the last word is under way.
    whole: bool,
    relaying: Relaying,
}

impl Relaying {
    pub(super) fn new(reply: Reply, outstanding: usize) -> Self {
        Self {
            reply,
            outstanding,
            refusal: None,
        }
    }

    /// A part was answered. Whether it was the last one.
    pub(super) fn took(&mut self, answer: Answer) -> bool {
        if let Answer::Refused(refusal) = answer {
            self.refusal.get_or_insert(refusal);
        }
        self.outstanding -= 1;
        self.outstanding == 0
    }

    pub(super) fn end(self, cx: &mut Cx<'_>) {
        cx.answer(self.reply, self.refusal.map_or(Answer::Done, Answer::Refused));
    }
}

impl Nodes {
    /// Whether the interest in this shard is known.
    pub(super) fn has_heard(&self, shard: u16) -> bool {
        self.unheard.is_empty() || !self.unheard.contains(&shard)
    }

    /// Whether all of it is.
    pub(super) fn has_heard_all(&self) -> bool {
        self.unheard.is_empty()
    }

    /// These shards are another's.
    pub(super) fn give_up(&mut self, lost: &HashSet<u16>) {
        self.unheard.retain(|shard| !lost.contains(shard));
        for hearing in &mut self.hearings {
            hearing.shards.retain(|shard| !lost.contains(shard));
        }
        self.hearings.retain(|hearing| !hearing.shards.is_empty());
    }
}

impl Topics {
    /// The worker owns these shards from now on: of its keys it knows what is stored.
    pub(crate) fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16]) {
        if !cx.is_clustered() {
            return;
        }
        let nodes = &mut self.nodes;
        nodes.unheard.extend(shards);
        nodes.next_hearing += 1;
        nodes.hearings.push(Hearing {
            number: nodes.next_hearing,
            shards: shards.iter().copied().collect(),
            waits: None,
        });
        if shards.contains(&Key::Wildcards.shard()) {
            self.rows_read = false;
            self.read_wildcards(cx, None);
        }
        self.hear(cx);
    }

    /// Members or owners are others.
    pub(crate) fn stands(&mut self, cx: &mut Cx<'_>) {
        if self.nodes.me != cx.me() {
            // What the start before this one was not told of, it missed.
            self.nodes.me = cx.me();
            self.wildcards_loaded = false;
        }
        self.drop_moved(cx);
        self.hear(cx);
        self.ask_list(cx);
    }

    /// Asks the nodes that are to be asked for their interest, and ends what has all of it.
    fn hear(&mut self, cx: &mut Cx<'_>) {
        let members = cx.members();
        let mut asks = Vec::new();
        for hearing in &mut self.nodes.hearings {
            if !members.is_empty() {
                let all = || members.iter().map(|node| (*node, false)).collect();
                let waits = hearing.waits.get_or_insert_with(all);
                // Sessions in memory are gone with their node.
                waits.retain(|(node, _)| members.contains(node));
            }
            for (node, asked) in hearing.waits.iter_mut().flatten().filter(|(_, asked)| !asked) {
                *asked = true;
                let shards: Arc<[u16]> = hearing.shards.iter().copied().collect();
                asks.push((hearing.number, *node, shards));
            }
        }
        for (number, node, shards) in asks {
            let tag = self.step(Step::Interest(number, node));
            let interest = TopicCommand::Interest { shards };
            cx.ask(tag, Key::Node(node), Command::Topic(interest));
        }
        self.heard(cx);
    }

    fn heard(&mut self, cx: &mut Cx<'_>) {
        let nodes = &mut self.nodes;
        let is_over = |hearing: &Hearing| hearing.waits.as_ref().is_some_and(Vec::is_empty);
        let before = nodes.hearings.len();
        nodes.hearings.retain(|hearing| {
            if is_over(hearing) {
                nodes.unheard.retain(|shard| !hearing.shards.contains(shard));
            }
            !is_over(hearing)
        });
        if nodes.hearings.len() < before {
            self.unpark(cx);
        }
    }

    /// A node has announced what it has, or not.
    pub(super) fn interest_told(&mut self, cx: &mut Cx<'_>, number: u64, node: Uuid, answer: &Answer) {
        let hearing = self.nodes.hearings.iter_mut().find(|one| one.number == number);
        let Some(waits) = hearing.and_then(|hearing| hearing.waits.as_mut()) else {
            return;
        };
        if matches!(answer, Answer::Refused(_)) {
            let waiting = waits.iter_mut().filter(|(waiting, _)| *waiting == node);
            waiting.for_each(|(_, asked)| *asked = false);
            self.nodes_again(cx);
            return;
        }
        waits.retain(|(waiting, _)| *waiting != node);
        self.heard(cx);
    }

    pub(super) fn nodes_again(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.nodes.timer, true) {
            cx.after(AGAIN_MS, Part::Topics.tag(TIMER_NODES));
        }
    }

    pub(super) fn nodes_timer(&mut self, cx: &mut Cx<'_>) {
        self.nodes.timer = false;
        self.announce_refused(cx);
        self.hear(cx);
        self.ask_list(cx);
    }

    /// The first worker of a node asks for all filters, for the others too.
    fn ask_list(&mut self, cx: &mut Cx<'_>) {
        let Some(me) = self.nodes.me else { return };
        if self.wildcards_loaded || self.nodes.asked || cx.worker() != cx.worker_of(&Key::Node(me)) {
            return;
        }
        if !cx.members().contains(&me) {
            // Told when it is.
            return;
        }
        self.nodes.asked = true;
        let tag = self.step(Step::Listed);
        let list = TopicCommand::List { node: me };
        cx.ask(tag, Key::Wildcards, Command::Topic(list));
    }

    /// The list is here, or must be asked for again.
    pub(super) fn listed(&mut self, cx: &mut Cx<'_>) {
        self.nodes.asked = false;
        if !self.wildcards_loaded {
            self.nodes_again(cx);
        }
    }

    /// See [`TopicCommand::List`]. This worker's copy is whole.
    pub(super) fn list(&mut self, cx: &mut Cx<'_>, node: Uuid, reply: Reply) {
        // Else it would not be told of what comes later.
        if !cx.members().contains(&node) {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        for route in self.wildcards.iter() {
            bytes += route.filter.len();
            part.push(route.clone());
            if part.len() >= PART_ROUTES || bytes >= PART_BYTES {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
        }
        parts.push(part);
        let place = self.listing.insert(Listing {
            node,
            whole: false,
            relaying: Relaying::new(reply, parts.len()),
        });
        // All at once: what changes from now on is told behind it.
        for part in parts {
            self.give_part(cx, place, node, part.into(), false);
        }
    }

    fn give_part(&mut self, cx: &mut Cx<'_>, place: usize, node: Uuid, routes: Arc<[Route]>, whole: bool) {
        let tag = self.step(Step::List(place));
        let copy = TopicCommand::Copy { node, routes, whole };
        cx.ask(tag, Key::Node(node), Command::Topic(copy));
    }

    pub(super) fn part_given(&mut self, cx: &mut Cx<'_>, place: usize, answer: Answer) {
        let Some(listing) = self.listing.get_mut(place) else {
            return;
        };
        if !listing.relaying.took(answer) {
            return;
        }
        if listing.whole || listing.relaying.refusal.is_some() {
            self.listing.remove(place).relaying.end(cx);
            return;
        }
        (listing.whole, listing.relaying.outstanding) = (true, 1);
        let node = listing.node;
        self.give_part(cx, place, node, Arc::default(), true);
    }

    /// See [`TopicCommand::Copy`]: to one worker.
    pub(super) fn copied(
        &mut self,
        cx: &mut Cx<'_>,
        node: Uuid,
        (routes, whole): (&[Route], bool),
        reply: Reply,
    ) {
        if self.nodes.me != Some(node) {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        for route in routes {
            self.wildcards.insert_newer(route.clone(), !route.persistent);
        }
        self.metrics.wildcards.set(self.wildcards.len() as i64);
        if whole {
            self.wildcards_loaded = true;
            self.unpark(cx);
        }
        cx.answer(reply, Answer::Done);
    }

    /// A command to this node: each of its workers has a part in it.
    pub(super) fn relay(&mut self, cx: &mut Cx<'_>, command: TopicCommand, reply: Reply) {
        let workers = cx.workers();
        if reply.is_nobody() {
            for worker in 0..workers {
                cx.tell(Key::WildcardCopy(worker), Command::Topic(command.clone()));
            }
            return;
        }
        let place = self.relaying.insert(Relaying::new(reply, usize::from(workers)));
        for worker in 0..workers {
            let tag = self.step(Step::Relay(place));
            cx.ask(tag, Key::WildcardCopy(worker), Command::Topic(command.clone()));
        }
    }

    pub(super) fn relayed(&mut self, cx: &mut Cx<'_>, place: usize, answer: Answer) {
        if let Some(relaying) = self.relaying.get_mut(place)
            && relaying.took(answer)
        {
            self.relaying.remove(place).end(cx);
        }
    }
}

/// Those with a copy besides this worker, which writes the rows: of this node by worker, of others by node.
pub(super) fn copies(cx: &Cx<'_>) -> Vec<Key> {
    let me = cx.me();
    let nodes = cx.members().into_iter().filter(|node| Some(*node) != me);
    let workers = other_workers(cx).into_iter().map(Key::WildcardCopy);
    workers.chain(nodes.map(Key::Node)).collect()
}
