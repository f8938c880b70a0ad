//! One light MQTT client as a state machine: packets in, bytes out. It knows no socket and no clock; the time is an
//! argument. An idle recipient is a few dozen bytes.

use crate::{
    packets::{self, Incoming, PacketError, Version},
    payload::{self, Template},
    report::WorkerReport,
    spec::{Scenario, Spec},
};
use std::collections::{BTreeSet, VecDeque};

/// Most numbers remembered as not yet seen by one recipient; beyond it the rest count as lost even if they come late.
const MAX_MISSING: usize = 10_000;
/// Most publishes that may wait for room at one publisher in rate mode.
const MAX_BACKLOG: usize = 10_000;

/// Where a client is between its connection and its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No connection yet.
    Idle,
    /// CONNECT written.
    AwaitConnAck,
    /// SUBSCRIBE written.
    AwaitSubAck,
    /// At work.
    Ready,
}

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
}

/// One client.
pub(crate) struct Client {
    index: u32,
    stage: Stage,
    role: Role,
}

enum Role {
    Recipient(Recipient),
    Publisher(Box<Publisher>),
}

/// Which numbers a recipient has seen: all below `expected` but those in `missing`.
#[derive(Default)]
struct Recipient {
    expected: u64,
    missing: Option<BTreeSet<u64>>,
}

struct Publisher {
    /// When the publish in each slot was sent; the packet identifier is the slot plus one.
    slots: Vec<u64>,
    free: Vec<u16>,
    template: Template,
    topic: String,
    /// Recipient of the next message, and what to add for the one after it (0: always the same).
    next: usize,
    step: usize,
    number: u64,
    /// Rate mode: when each waiting publish became due.
    due: VecDeque<u64>,
}

impl Client {
    /// The client at `index` of the order.
    pub(crate) fn new(index: usize, spec: &Spec) -> Self {
        let role = match index.checked_sub(spec.recipients) {
            None => Role::Recipient(Recipient::default()),
            Some(publisher) => Role::Publisher(Box::new(Publisher {
                slots: vec![0; usize::from(spec.window)],
                free: (0..spec.window).rev().collect(),
                template: spec.template(publisher),
                topic: spec.topic(publisher),
                next: publisher,
                step: if spec.scenario == Scenario::Connect {
                    spec.publishers
                } else {
                    0
                },
                number: 0,
                due: VecDeque::new(),
            })),
        };
        Self {
            index: index as u32,
            stage: Stage::Idle,
            role,
        }
    }

    /// Where it is.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Publishes that have no answer yet.
    pub(crate) fn unanswered(&self) -> u64 {
        match &self.role {
            Role::Publisher(publisher) => (publisher.slots.len() - publisher.free.len()) as u64,
            Role::Recipient(_) => 0,
        }
    }

    /// Its connection stands: writes the CONNECT. Recipients have persistent sessions, publishers clean ones.
    pub(crate) fn connected(&mut self, shared: &Shared, out: &mut Vec<u8>) -> Result<(), PacketError> {
        let index = self.index as usize;
        let client_id = shared.spec.client_id(index);
        let connect = packets::Connect {
            client_id: &client_id,
            clean: matches!(self.role, Role::Publisher(_)),
            keep_alive: shared.spec.keep_alive,
            login: shared
                .spec
                .login_of(index)
                .map(|l| (l.username.as_str(), l.password.as_str())),
        };
        self.stage = Stage::AwaitConnAck;
        packets::put_connect(shared.spec.version, &connect, out)
    }

    /// One packet from the broker.
    ///
    /// # Errors
    /// When the broker refuses what the run needs; the text is for the user.
    pub(crate) fn packet(
        &mut self,
        packet: Incoming<'_>,
        now: u64,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<(), PacketError> {
        match (self.stage, packet) {
            (Stage::AwaitConnAck, Incoming::ConnAck { code: 0 }) => match self.role {
                Role::Publisher(_) => self.stage = Stage::Ready,
                Role::Recipient(_) => {
                    self.stage = Stage::AwaitSubAck;
                    let filter = shared.spec.filter(self.index as usize);
                    packets::put_subscribe(shared.spec.version, &filter, out)?;
                }
            },
            (Stage::AwaitConnAck, Incoming::ConnAck { code }) => {
                return Err(PacketError(format!(
                    "the broker refused a connection with code {code}{}",
                    hint(code)
                )));
            }
            (Stage::AwaitSubAck, Incoming::SubAck { granted: true }) => self.stage = Stage::Ready,
            (Stage::AwaitSubAck, Incoming::SubAck { granted: false }) => {
                let filter = shared.spec.filter(self.index as usize);
                return Err(PacketError(format!("the broker did not grant QoS 1 on {filter}")));
            }
            (
                _,
                Incoming::Publish {
                    packet_id,
                    qos,
                    payload,
                },
            ) => {
                if qos == 1 {
                    packets::put_puback(packet_id, out);
                }
                if let (Role::Recipient(recipient), Some((number, sent_at))) =
                    (&mut self.role, payload::read_stamp(payload))
                {
                    recipient.received(number, now.saturating_sub(sent_at), shared);
                }
            }
            (_, Incoming::PubAck { packet_id, reason }) => {
                if let Role::Publisher(publisher) = &mut self.role {
                    publisher.acknowledged(packet_id, reason, now, shared)?;
                }
            }
            (_, Incoming::Disconnect { reason }) => {
                return Err(PacketError(format!(
                    "the broker sent DISCONNECT with reason {reason:#04x}"
                )));
            }
            (_, Incoming::ConnAck { .. } | Incoming::SubAck { .. } | Incoming::Other) => {}
        }
        Ok(())
    }

    /// A publisher writes as many publishes as its window and its work allow.
    pub(crate) fn pump(&mut self, now: u64, shared: &mut Shared, out: &mut Vec<u8>) {
        if self.stage == Stage::Ready
            && shared.publishing
            && let Role::Publisher(publisher) = &mut self.role
        {
            publisher.pump(now, shared, out);
        }
    }

    /// Rate mode: one more publish is due.
    pub(crate) fn due(&mut self, now: u64, shared: &mut Shared) {
        if let Role::Publisher(publisher) = &mut self.role {
            if publisher.due.len() < MAX_BACKLOG {
                publisher.due.push_back(now);
            } else {
                shared.stats.skipped += 1;
            }
        }
    }
}

impl Recipient {
    fn received(&mut self, number: u64, latency: u64, shared: &mut Shared) {
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

impl Publisher {
    fn pump(&mut self, now: u64, shared: &mut Shared, out: &mut Vec<u8>) {
        while let Some(&slot) = self.free.last() {
            let sent_at = match (shared.spec.scenario, shared.spec.rate) {
                (Scenario::Connect, _) => match self.sweep_on(shared) {
                    true => now,
                    false => return,
                },
                (_, None) => now,
                (_, Some(_)) => match self.due.pop_front() {
                    Some(due) => due,
                    None => return,
                },
            };
            self.free.pop();
            self.slots[usize::from(slot)] = sent_at;
            let version: Version = shared.spec.version;
            let at = packets::put_publish(version, &self.topic, slot + 1, self.template.bytes(), out);
            self.template.stamp(&mut out[at..], self.number, sent_at);
            shared.stats.sent += 1;
            if self.step == 0 {
                self.number += 1;
            } else {
                self.next += self.step;
            }
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

    fn acknowledged(
        &mut self,
        packet_id: u16,
        reason: u8,
        now: u64,
        shared: &mut Shared,
    ) -> Result<(), PacketError> {
        let slot = packet_id.wrapping_sub(1);
        let known = usize::from(slot) < self.slots.len() && !self.free.contains(&slot);
        if !known {
            return Err(PacketError(format!(
                "the broker acknowledged packet {packet_id}, which was not sent"
            )));
        }
        self.free.push(slot);
        let stats = &mut shared.stats;
        if reason >= 0x80 {
            stats.refused += 1;
            return Ok(());
        }
        stats.acked += 1;
        if shared.measuring {
            stats.window_acked += 1;
            stats
                .ack
                .record(now.saturating_sub(self.slots[usize::from(slot)]));
        }
        Ok(())
    }
}

fn hint(code: u8) -> &'static str {
    match code {
        4 | 5 | 0x86 | 0x87 => " (login): give --username and --password, or start Godwit with --anonymous",
        _ => "",
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
