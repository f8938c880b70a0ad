//! Topics' homes: routes, retained messages, and the copy of the wildcard filters that this worker matches its topics
//! against. Sessions are known here by their routes only.

mod announcing;
mod collect;
mod given_up;
mod gone;
mod groups;
mod home;
mod metrics;
mod nodes;
mod parked;
mod publish;
pub(crate) mod retained;
mod shared;
mod spread;
mod subscribe;
#[cfg(test)]
mod tests;
mod tree;
mod wildcards;

use std::collections::HashMap;

use godwit_cluster::{Cx, Flow, Loading, Reply};
use godwit_store::{Op, Outcome, Read, ReadAnswer};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand};
use godwit_wire::ids::{Key, SessionId};
use slab::Slab;

use crate::part::Part;
use announcing::Announcing;
use collect::Collecting;
pub(crate) use collect::{RETAINED_AT_ONCE, RETAINED_BYTES};
pub(crate) use home::ROUTES;
use home::TopicHome;
pub use metrics::Metrics;
use nodes::{Listing, Nodes, Relaying};
use parked::Parked;
use publish::Publishing;
use retained::{RETAINED, clear_retained, list_key, put_retained, read_retained};
pub(crate) use retained::{RETAINED_KEYS, weight};
use shared::Sharing;
use spread::Spreads;
use subscribe::Subscribing;
pub use tree::TopicTree;
use wildcards::Wildcards;

/// Rows read at a time.
const PAGE: u32 = 4_096;
/// A home without live interest is dropped when it was not used for so long, milliseconds.
const IDLE_MS: u64 = 10_000;
/// How often homes are looked over, milliseconds.
const SWEEP_MS: u64 = 2_000;
/// How long after a failed read of the wildcard filters they are read again, milliseconds.
const WILDCARDS_AGAIN_MS: u64 = 100;
/// Most retained messages that a sweep ends: as many as fit a batch of the store.
const EXPIRED_AT_ONCE: usize = BATCH_OPS;
/// Most writes of a batch of the store.
const BATCH_OPS: usize = 4_096;

const TIMER_SWEEP: u64 = 0;
const TIMER_WILDCARDS: u64 = 1;
const TIMER_SPREAD: u64 = 2;
const TIMER_NODES: u64 = 3;

/// A step under way; the number of its read, write or ask is its place in the slab.
#[derive(Debug)]
enum Step {
    /// A part of a publish: its retained row, or one user's delivery.
    Publish(usize),
    /// A member of a group that was asked to take a publish.
    Share(Box<Sharing>),
    /// A part of a subscription: its row, or a worker's copy.
    Subscribe(usize),
    /// A write that ends a route; the reply is answered `Done`.
    Unsubscribe(Box<str>, Reply),
    /// A page of topic keys with retained messages.
    RetainedKeys(usize, u16),
    /// The retained messages of one key, for a filter with early wildcards.
    RetainedOf(usize),
    /// A page of the wildcard filters, after a start.
    Wildcards,
    /// A node that was asked to announce what it has of shards.
    Interest(u64, uuid::Uuid),
    /// A worker that was given a command to its node.
    Relay(usize),
    /// A route that is announced.
    Announce(usize, Box<Route>),
    /// A part of the list for a node.
    List(usize),
    /// The list that this node asked for.
    Listed,
    /// Retained messages of earlier views are written under this one.
    Renewed(Box<str>),
    /// A lazy write.
    Lazy,
    /// A part of a publish that was given up: it still counts among what was given and not answered.
    VoidPublish,
    /// What it was for was given up.
    Void,
}

/// The topics part of one worker.
#[derive(Debug)]
pub(crate) struct Topics {
    metrics: Metrics,
    homes: HashMap<Box<str>, TopicHome>,
    /// Filters with a wildcard in their first two levels: every worker has all.
    wildcards: Wildcards,
    /// It has them all.
    wildcards_loaded: bool,
    /// Their rows are read, where this worker is to write them.
    rows_read: bool,
    nodes: Nodes,
    /// Interest that was announced in keys that are not in memory.
    unloaded: HashMap<Box<str>, HashMap<(SessionId, u64), Route>>,
    parked: Parked,
    /// Writes of what was retained under earlier views, of keys that are being loaded.
    earlier: HashMap<Box<str>, Vec<Op>>,
    /// Batches of them under way.
    renewing: usize,
    relaying: Slab<Relaying>,
    announcing: Slab<Announcing>,
    listing: Slab<Listing>,
    steps: Slab<Step>,
    publishing: Slab<Publishing>,
    spreads: Spreads,
    subscribing: Slab<Subscribing>,
    collecting: Slab<Collecting>,
}

impl Topics {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            homes: HashMap::new(),
            wildcards: Wildcards::default(),
            wildcards_loaded: false,
            rows_read: true,
            nodes: Nodes::default(),
            unloaded: HashMap::new(),
            parked: Parked::default(),
            earlier: HashMap::new(),
            renewing: 0,
            relaying: Slab::new(),
            announcing: Slab::new(),
            listing: Slab::new(),
            steps: Slab::new(),
            publishing: Slab::new(),
            spreads: Spreads::default(),
            subscribing: Slab::new(),
            collecting: Slab::new(),
        }
    }

    fn step(&mut self, step: Step) -> u64 {
        Part::Topics.tag(self.steps.insert(step) as u64)
    }

    fn end_step(&mut self, number: u64) -> Option<Step> {
        usize::try_from(number)
            .ok()
            .and_then(|place| self.steps.try_remove(place))
    }

    fn home(&mut self, key: &Key) -> Option<&mut TopicHome> {
        match key {
            Key::Topic(levels) => self.homes.get_mut(levels),
            _ => None,
        }
    }

    /// The worker begins.
    pub(crate) fn started(&mut self, cx: &mut Cx<'_>) {
        if !cx.is_clustered() {
            self.read_wildcards(cx, None);
        }
        cx.after(SWEEP_MS, Part::Topics.tag(TIMER_SWEEP));
    }

    fn read_wildcards(&mut self, cx: &mut Cx<'_>, after: Option<bytes::Bytes>) {
        let tag = self.step(Step::Wildcards);
        let partition = home::partition(&Key::Wildcards);
        cx.read(
            tag,
            vec![Read::Set {
                table: ROUTES,
                partition,
                after,
                up_to: None,
                limit: PAGE,
            }],
        );
    }

    pub(crate) fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: TopicCommand, reply: Reply) -> Flow {
        if self.must_wait(cx, key, &command) {
            self.park(cx, key, command, reply);
            return Flow::Taken;
        }
        self.apply_now(cx, key, command, reply)
    }

    /// As [`Self::apply`], where nothing is to be waited for.
    fn apply_now(&mut self, cx: &mut Cx<'_>, key: &Key, command: TopicCommand, reply: Reply) -> Flow {
        if let Key::Node(_) = key {
            self.relay(cx, command, reply);
            return Flow::Taken;
        }
        let command = match command {
            TopicCommand::Announce { route } => {
                self.announced(cx, key, route, reply);
                return Flow::Taken;
            }
            command => command,
        };
        if let Key::Topic(levels) = key {
            if let TopicCommand::Member { here: false, .. } = command
                && !self.homes.contains_key(levels)
            {
                // Where nothing is in memory nobody is known to be connected.
                cx.answer(reply, Answer::Done);
                return Flow::Taken;
            }
            let now = cx.now().mono_ms;
            match self.homes.get_mut(levels) {
                Some(home) => home.last_used_ms = now,
                None => {
                    return Flow::Load {
                        command: Command::Topic(command),
                        reply,
                        reads: load_reads(key),
                    };
                }
            }
        }
        match command {
            TopicCommand::Publish(publish, by) => self.publish(cx, key, publish, by, reply),
            TopicCommand::Subscribe { route, retained } => self.subscribe(cx, key, route, retained, reply),
            TopicCommand::Unsubscribe { route } => self.unsubscribe(cx, key, &route, reply),
            TopicCommand::Prune {
                session,
                topic,
                keep,
                before,
            } => self.prune(cx, key, (session, &topic), (&keep, before), reply),
            TopicCommand::Share {
                filter,
                publish,
                from,
            } => self.share_again(cx, key, filter, publish, from, reply),
            TopicCommand::Member {
                filter,
                session,
                here,
            } => self.member(cx, key, filter, (session, here), reply),
            TopicCommand::Retained { filter } => {
                let now = cx.expiry_ms();
                let found = self.home(key).map(|home| home.retained_matching(&filter, now));
                cx.answer(reply, Answer::Retained(found.unwrap_or_default()));
            }
            TopicCommand::List { node } => self.list(cx, node, reply),
            TopicCommand::Copy { node, routes, whole } => self.copied(cx, node, (&routes, whole), reply),
            // The first is taken above, the second is the users' to answer, the third is for the node.
            TopicCommand::Announce { .. } | TopicCommand::Interest { .. } | TopicCommand::View { .. } => {
                cx.answer(reply, Refusal::not_found().into());
            }
        }
        Flow::Taken
    }

    /// Rows of a topic key: pages of its routes and of its retained messages.
    pub(crate) fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading {
        let Key::Topic(levels) = key else {
            return Loading::Ready;
        };
        let now = cx.now();
        // Busy until the last page is here: a sweep in between would leave a home without its first routes.
        let home = self
            .homes
            .entry(levels.clone())
            .or_insert_with(|| TopicHome::loading(now.mono_ms));
        let mut more_reads = Vec::new();
        for answer in answers {
            match answer {
                ReadAnswer::Set { elements, more } => {
                    let last = elements.last().map(|(element, _)| element.clone());
                    for (element, value) in elements {
                        match home::read_route(&element, value) {
                            Some(route) => home.restore(route),
                            None => tracing::error!(key = %levels, "a route's row cannot be read"),
                        }
                    }
                    if let (true, Some(last)) = (more, last) {
                        more_reads.push(routes_read(key, Some(last)));
                    }
                }
                ReadAnswer::Rows { rows, more } => {
                    let last = rows.last().map(|(name, _)| name.clone());
                    for (name, value) in rows {
                        match read_retained(&name, value) {
                            Some((kept, view)) => {
                                if cx.is_clustered() && view != cx.view_of(key) {
                                    // It may not be on a quorum: who reads next might not find it. Nor is it said that
                                    // its key's place in the list was stored with it.
                                    let ops = self.earlier.entry(levels.clone());
                                    let ops = ops.or_insert_with(|| vec![list_key(levels)]);
                                    put_retained(key, cx.view_of(key), &kept, ops);
                                } else {
                                    home.listed = true;
                                }
                                home.retained.get_or_insert_default().put(kept);
                            }
                            None => tracing::error!(key = %levels, "a retained row cannot be read"),
                        }
                    }
                    if let (true, Some(last)) = (more, last) {
                        more_reads.push(retained_read(key, Some(last)));
                    }
                }
                _ => {}
            }
        }
        let ready = more_reads.is_empty();
        if ready {
            home.busy = home.busy.saturating_sub(1);
            for route in self.unloaded.remove(levels).into_iter().flatten() {
                home.insert_newer(route.1);
            }
        }
        self.metrics.homes.set(self.homes.len() as i64);
        if ready && !self.earlier.is_empty() {
            self.renew(cx, key, levels);
        }
        if ready {
            Loading::Ready
        } else {
            Loading::More(more_reads)
        }
    }

    pub(crate) fn load_failed(&mut self, key: &Key) {
        // What was read before the failing page is not whole.
        if let Key::Topic(levels) = key {
            self.homes.remove(levels);
            self.earlier.remove(levels);
        }
        self.parked.take(key);
    }

    pub(crate) fn stored(&mut self, cx: &mut Cx<'_>, number: u64, outcome: &Outcome) {
        let step = self.end_step(number);
        if *outcome == Outcome::Unknown {
            return;
        }
        match step {
            Some(Step::Publish(publishing)) => self.publish_part_done(cx, publishing, None),
            Some(Step::Subscribe(subscribing)) => self.subscribe_part_done(cx, subscribing, None),
            Some(Step::Unsubscribe(levels, reply)) => {
                if let Some(home) = self.homes.get_mut(&levels) {
                    home.busy = home.busy.saturating_sub(1);
                }
                cx.answer(reply, Answer::Done);
            }
            Some(Step::Renewed(levels)) => self.renewed(cx, &levels),
            Some(Step::Lazy | Step::Void | Step::VoidPublish) => {}
            _ => tracing::error!("a write ended that no topic began"),
        }
    }

    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, number: u64, answer: Answer) {
        match self.end_step(number) {
            Some(Step::Publish(publishing)) => {
                self.spreads.answered();
                self.publish_part_done(cx, publishing, Some(answer));
            }
            Some(Step::Subscribe(subscribing)) => self.subscribe_part_done(cx, subscribing, Some(answer)),
            Some(Step::Share(sharing)) => self.shared(cx, *sharing, answer),
            Some(Step::RetainedOf(collecting)) => self.retained_of_key(cx, collecting, answer),
            Some(Step::Interest(hearing, node)) => self.interest_told(cx, hearing, node, &answer),
            Some(Step::Relay(relaying)) => self.relayed(cx, relaying, answer),
            Some(Step::Announce(announcing, route)) => self.announce_told(cx, announcing, *route, answer),
            Some(Step::List(listing)) => self.part_given(cx, listing, answer),
            Some(Step::Listed) => self.listed(cx),
            Some(Step::VoidPublish) => self.spreads.answered(),
            Some(Step::Void) => {}
            _ => tracing::error!("an answer came that no topic asked for"),
        }
    }

    pub(crate) fn read(&mut self, cx: &mut Cx<'_>, number: u64, answers: Option<Vec<ReadAnswer>>) {
        match self.end_step(number) {
            Some(Step::Wildcards) => self.wildcards_read(cx, answers),
            Some(Step::RetainedKeys(collecting, slice)) => self.retained_keys(cx, collecting, slice, answers),
            Some(Step::Void) => {}
            _ => tracing::error!("a read ended that no topic began"),
        }
    }

    fn wildcards_read(&mut self, cx: &mut Cx<'_>, answers: Option<Vec<ReadAnswer>>) {
        let Some(ReadAnswer::Set { elements, more }) = answers.and_then(|answers| answers.into_iter().next())
        else {
            // The store does not answer. Publishes wait, parked and bounded, until it does.
            cx.after(WILDCARDS_AGAIN_MS, Part::Topics.tag(TIMER_WILDCARDS));
            return;
        };
        let last = elements.last().map(|(element, _)| element.clone());
        for (element, value) in elements {
            if let Some(route) = home::read_route(&element, value) {
                self.wildcards.insert_newer(route, false);
            }
        }
        if let (true, Some(last)) = (more, last) {
            self.read_wildcards(cx, Some(last));
            return;
        }
        self.metrics.wildcards.set(self.wildcards.len() as i64);
        self.rows_read = true;
        if !cx.is_clustered() {
            self.wildcards_loaded = true;
        }
        self.unpark(cx);
    }

    pub(crate) fn timer(&mut self, cx: &mut Cx<'_>, number: u64) {
        if number == TIMER_WILDCARDS {
            self.read_wildcards(cx, None);
            return;
        }
        if number == TIMER_NODES {
            self.nodes_timer(cx);
            return;
        }
        if number == TIMER_SPREAD {
            self.spread_timer();
            return;
        }
        cx.after(SWEEP_MS, Part::Topics.tag(TIMER_SWEEP));
        self.expire(cx);
        self.refuse_parked(cx);
        let now = cx.now().mono_ms;
        self.homes
            .retain(|_, home| now.saturating_sub(home.last_used_ms) < IDLE_MS || !home.is_droppable());
        self.metrics.homes.set(self.homes.len() as i64);
    }

    /// Ends retained messages whose time is over.
    fn expire(&mut self, cx: &mut Cx<'_>) {
        let now = cx.expiry_ms();
        let (mut writes, mut room) = (Vec::new(), EXPIRED_AT_ONCE);
        for (levels, home) in &mut self.homes {
            let Some(retained) = home.retained.as_deref_mut() else {
                continue;
            };
            // Two writes each.
            let gone = retained.expire(now, room / 2);
            if gone.is_empty() {
                continue;
            }
            let key = Key::Topic(levels.clone());
            let (view, mut ops) = (cx.view_of(&key), Vec::new());
            self.metrics.retained_expired.inc_by(gone.len() as u64);
            gone.iter()
                .for_each(|kept| clear_retained(&key, view, kept, &mut ops));
            room = room.saturating_sub(ops.len());
            writes.push((key, ops));
            if room < 2 {
                break;
            }
        }
        for (key, ops) in writes {
            let tag = self.step(Step::Lazy);
            cx.store(&key, tag, ops);
        }
    }

    pub(crate) fn quiet(&self) -> bool {
        self.publishing.is_empty() && self.subscribing.is_empty() && self.spreads.is_empty()
    }
}

fn load_reads(key: &Key) -> Vec<Read> {
    vec![routes_read(key, None), retained_read(key, None)]
}

fn routes_read(key: &Key, after: Option<bytes::Bytes>) -> Read {
    Read::Set {
        table: ROUTES,
        partition: home::partition(key),
        after,
        up_to: None,
        limit: PAGE,
    }
}

fn retained_read(key: &Key, after: Option<bytes::Bytes>) -> Read {
    Read::Rows {
        table: RETAINED,
        partition: home::partition(key),
        after,
        limit: PAGE,
    }
}

/// The routes of one session among others that matched a publish, merged into what it is asked to deliver.
fn is_for(route: &Route, publish: &Publish) -> bool {
    !(route.no_local && publish.from == Some(route.session))
}
