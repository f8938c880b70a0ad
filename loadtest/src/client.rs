//! One light MQTT client as a state machine: packets in, bytes out. It knows no socket and no clock; the time is an
//! argument. An idle recipient is a few dozen bytes.

use crate::{
    packets::{self, Incoming, PacketError},
    payload,
    scram::{self, Exchange},
    spec::Spec,
    work::{Seen, Shared, Supply},
};

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

/// One client.
pub(crate) struct Client {
    index: u32,
    stage: Stage,
    role: Role,
}

enum Role {
    Recipient(Seen),
    Publisher(Box<Publisher>),
}

struct Publisher {
    /// When the publish in each slot was sent; the packet identifier is the slot plus one.
    slots: Vec<u64>,
    free: Vec<u16>,
    supply: Supply,
}

impl Client {
    /// The client at `index` of the order.
    pub(crate) fn new(index: usize, spec: &Spec) -> Self {
        let role = match index.checked_sub(spec.recipients) {
            None => Role::Recipient(Seen::default()),
            Some(publisher) => Role::Publisher(Box::new(Publisher {
                slots: vec![0; usize::from(spec.window)],
                free: (0..spec.window).rev().collect(),
                supply: Supply::new(publisher, spec),
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
    pub(crate) fn connected(&mut self, shared: &mut Shared, out: &mut Vec<u8>) -> Result<(), PacketError> {
        let index = self.index as usize;
        let client_id = shared.spec.client_id(index);
        let login = shared.spec.login_of(index);
        let mut method = None;
        if let Some(login) = login.filter(|_| shared.spec.scram) {
            let (exchange, first) = Exchange::begin(login)?;
            shared.exchanges.insert(self.index, exchange);
            method = Some((scram::METHOD, first));
        }
        let connect = packets::Connect {
            client_id: &client_id,
            clean: matches!(self.role, Role::Publisher(_)),
            keep_alive: shared.spec.keep_alive,
            login: login.map(|l| (l.username.as_str(), l.password.as_str())),
            method,
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
            (Stage::AwaitConnAck, Incoming::Auth { data }) => {
                if let Some(exchange) = shared.exchanges.get_mut(&self.index) {
                    packets::put_auth(scram::METHOD, exchange.prove(&data)?, out)?;
                }
            }
            (Stage::AwaitConnAck, Incoming::ConnAck { code: 0 }) => {
                shared.exchanges.remove(&self.index);
                match self.role {
                    Role::Publisher(_) => self.stage = Stage::Ready,
                    Role::Recipient(_) => {
                        self.stage = Stage::AwaitSubAck;
                        let filter = shared.spec.filter(self.index as usize);
                        packets::put_subscribe(shared.spec.version, &filter, out)?;
                    }
                }
            }
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
                if let (Role::Recipient(seen), Some((number, sent_at))) =
                    (&mut self.role, payload::read_stamp(payload))
                {
                    let latency = now.saturating_sub(sent_at);
                    match shared.spec.members {
                        0 | 1 => seen.received(number, latency, shared),
                        _ => shared.received_by_member(self.index as usize, number, latency),
                    }
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
            (
                _,
                Incoming::ConnAck { .. } | Incoming::SubAck { .. } | Incoming::Auth { .. } | Incoming::Other,
            ) => {}
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
            publisher.supply.due(now, shared);
        }
    }
}

impl Publisher {
    fn pump(&mut self, now: u64, shared: &mut Shared, out: &mut Vec<u8>) {
        while let Some(&slot) = self.free.last() {
            let Some(sent_at) = self.supply.next(now, shared) else {
                return;
            };
            self.free.pop();
            self.slots[usize::from(slot)] = sent_at;
            let (topic, message) = (self.supply.topic(), self.supply.message());
            let at = packets::put_publish(shared.spec.version, topic, slot + 1, message, out);
            self.supply.stamp(&mut out[at..], sent_at, shared);
        }
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
        let latency = now.saturating_sub(self.slots[usize::from(slot)]);
        shared.answered(reason >= 0x80, latency);
        Ok(())
    }
}

/// What may help against a refused connection, by the code of its CONNACK.
pub(crate) fn hint(code: u8) -> &'static str {
    match code {
        4 | 5 | 0x86 | 0x87 => " (login): give --username and --password, or start Godwit with --anonymous",
        _ => "",
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(crate) mod tests;
