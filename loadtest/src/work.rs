//! What a publisher sends next, what a recipient has seen, and how both are counted, the same for every kind of client.
//! No packets, no sockets, no clock; times are arguments.

use crate::{
    payload::Template,
    report::WorkerReport,
    scram::Exchange,
    spec::{Scenario, Spec},
};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most numbers remembered as not yet seen by one recipient; beyond it the rest count as lost even if they come late.
const MAX_MISSING: usize = 10_000;
/// Most publishes that may wait for room at one publisher in rate mode.
const MAX_BACKLOG: usize = 10_000;

/// What all clients of a worker share.
pub(crate) struct Shared {
    /// The order.
    pub(crate) spec: Spec,
    /// Counts and histograms.
    pub(crate) stats: WorkerReport,
    /// Publishers may send.
    pub(crate) publishing: bool,
    /// Inside the measured window.
    pub(crate) measuring: bool,
    /// By client: those that have not had their CONNACK. Few at a time.
    pub(crate) exchanges: HashMap<u32, Exchange>,
    /// What the members of each shared subscription have seen together.
    pub(crate) groups: Vec<Seen>,
}

impl Shared {
    /// Nothing done yet.
    pub(crate) fn new(spec: Spec) -> Self {
        let groups = match spec.members {
            0 | 1 => 0,
            members => spec.recipients / members,
        };
        Self {
            spec,
            stats: WorkerReport::default(),
            publishing: false,
            measuring: false,
            exchanges: HashMap::new(),
            groups: std::iter::repeat_with(Seen::default).take(groups).collect(),
        }
    }

    /// Counts a message that one of a group's members has received. `index`: the recipient's.
    pub(crate) fn received_by_member(&mut self, index: usize, number: u64, latency: u64) {
        let group = index / self.spec.members.max(1);
        if let Some(seen) = self.groups.get_mut(group) {
            let mut seen = std::mem::take(seen);
            seen.received(number, latency, self);
            self.groups[group] = seen;
        }
    }

    /// Counts the PUBACK of a publish, `latency` nanoseconds after it was sent.
    pub(crate) fn answered(&mut self, refused: bool, latency: u64) {
        let stats = &mut self.stats;
        if refused {
            stats.refused += 1;
            return;
        }
        stats.acked += 1;
        if self.measuring {
            stats.window_acked += 1;
            stats.ack.record(latency);
        }
    }
}

/// Which numbers a recipient has seen: all below `expected` but those in `missing`.
#[derive(Default)]
pub(crate) struct Seen {
    expected: u64,
    missing: Option<BTreeSet<u64>>,
}

impl Seen {
    /// Counts the message with this number, `latency` nanoseconds after it was sent.
    pub(crate) fn received(&mut self, number: u64, latency: u64, shared: &mut Shared) {
        let stats = &mut shared.stats;
        if number >= self.expected {
            if number > self.expected {
                let missing = self.missing.get_or_insert_default();
                let room = MAX_MISSING.saturating_sub(missing.len());
                missing.extend((self.expected..number).take(room));
            }
            self.expected = number + 1;
        } else if self
            .missing
            .as_mut()
            .is_some_and(|missing| missing.remove(&number))
        {
            stats.overtaken += 1;
        } else {
            stats.duplicates += 1;
            return;
        }
        stats.received += 1;
        if shared.measuring {
            stats.window_received += 1;
            stats.receive.record(latency);
        }
    }
}

/// The messages of one publisher, one after the other.
pub(crate) struct Supply {
    template: Template,
    topic: String,
    /// Recipient of the next message, and what to add for the one after it (0: always the same).
    next: usize,
    step: usize,
    number: u64,
    /// Rate mode: when each waiting publish became due.
    due: VecDeque<u64>,
}

impl Supply {
    /// The messages of the publisher at `publisher`.
    pub(crate) fn new(publisher: usize, spec: &Spec) -> Self {
        Self {
            template: spec.template(publisher),
            topic: spec.topic(publisher * spec.members),
            next: publisher,
            step: if spec.scenario == Scenario::Connect {
                spec.publishers
            } else {
                0
            },
            number: 0,
            due: VecDeque::new(),
        }
    }

    /// When the next message counts as sent, if there is one to be sent at `now`. A message that is given must be sent:
    /// to [`topic`](Self::topic), as [`message`](Self::message) with its [`stamp`](Self::stamp).
    pub(crate) fn next(&mut self, now: u64, shared: &Shared) -> Option<u64> {
        match (shared.spec.scenario, shared.spec.rate) {
            (Scenario::Connect, _) => self.sweep_on(shared).then_some(now),
            (_, None) => Some(now),
            (_, Some(_)) => self.due.pop_front(),
        }
    }

    /// Where the next message goes.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The next message, without its stamp.
    pub(crate) fn message(&self) -> &[u8] {
        self.template.bytes()
    }

    /// Writes the stamp into a copy of the message that starts at `message[0]`, and counts it as sent.
    pub(crate) fn stamp(&mut self, message: &mut [u8], sent_at: u64, shared: &mut Shared) {
        self.template.stamp(message, self.number, sent_at);
        shared.stats.sent += 1;
        if self.step == 0 {
            self.number += 1;
        } else {
            self.next += self.step;
        }
    }

    /// Rate mode: one more message is due.
    pub(crate) fn due(&mut self, now: u64, shared: &mut Shared) {
        if self.due.len() < MAX_BACKLOG {
            self.due.push_back(now);
        } else {
            shared.stats.skipped += 1;
        }
    }

    /// In `connect`: aims at the next recipient; after the last one the next round begins. False when all is sent.
    fn sweep_on(&mut self, shared: &Shared) -> bool {
        if self.next >= shared.spec.recipients {
            self.next %= self.step;
            self.number += 1;
        }
        if self.number >= shared.spec.messages_each || self.next >= shared.spec.recipients {
            return false;
        }
        self.topic = shared.spec.topic(self.next);
        true
    }
}
