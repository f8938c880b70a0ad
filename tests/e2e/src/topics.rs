//! Scripts of ordinary topics: a publisher at QoS 1 and 2, whose payload is the id in the records, and a persistent
//! subscriber.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::chat::Seen;
use crate::mqtt::{Delivery, Outgoing, Told};
use crate::record::{Line, now};
use crate::session::Script;
use crate::shared::Shared;

/// As in a chat session: rumqttc has 256 packet ids.
const SPAN: u64 = 128;
/// Topics of one publisher.
const TOPICS: u64 = 3;

/// Publishes under `iot/{user}/…` at QoS 1 and 2 mixed.
pub struct Publisher {
    shared: Arc<Shared>,
    user: String,
    name: String,
    window: usize,
    random: StdRng,
    sends: u64,
    outstanding: BTreeMap<u64, String>,
}

impl Publisher {
    /// With nothing in flight.
    pub fn new(shared: Arc<Shared>, user: &str, name: &str, window: usize, random: StdRng) -> Self {
        Self {
            shared,
            user: user.to_owned(),
            name: name.to_owned(),
            window,
            random,
            sends: 0,
            outstanding: BTreeMap::new(),
        }
    }
}

impl Script for Publisher {
    fn next(&mut self) -> Option<(u64, Outgoing)> {
        let oldest = self.outstanding.keys().next().copied();
        let far = oldest.is_some_and(|oldest| self.sends - oldest >= SPAN);
        if far || self.outstanding.len() >= self.window || self.shared.is_stopped() {
            return None;
        }
        self.sends += 1;
        let id = format!("{}:{}", self.name, self.sends);
        let qos = if self.random.random_bool(0.5) { 1 } else { 2 };
        // One QoS a topic: MQTT promises an order only within one.
        let topic = format!(
            "iot/{}/{}-q{qos}/t{}",
            self.user,
            self.name,
            self.random.random_range(0..TOPICS)
        );
        self.shared.begin();
        self.shared.recorder.write(&Line::TopicPub {
            t: now(),
            publisher: &self.name,
            id: &id,
            topic: &topic,
            qos,
        });
        self.outstanding.insert(self.sends, id.clone());
        Some((
            self.sends,
            Outgoing {
                topic,
                payload: Bytes::from(id),
                qos,
                client_message_id: None,
            },
        ))
    }

    fn acknowledged(&mut self, number: u64, _: &Told) {
        if let Some(id) = self.outstanding.remove(&number) {
            self.shared.recorder.write(&Line::TopicAck { t: now(), id: &id });
            self.shared.acknowledge();
        }
    }

    fn refused(&mut self, number: u64, _: &str) {
        self.forgotten(number);
    }

    fn forgotten(&mut self, number: u64) {
        // It may arrive or not: nobody said yes.
        if self.outstanding.remove(&number).is_some() {
            self.shared.give_up();
        }
    }

    fn delivered(&mut self, _: &Delivery) {}

    fn subscribed(&mut self, _: u8) {}
}

/// Records what its filter brings.
pub struct Subscriber {
    shared: Arc<Shared>,
    name: String,
    filter: String,
    seen: Arc<Seen>,
}

impl Subscriber {
    /// A script for a session with this subscription.
    pub fn new(shared: Arc<Shared>, name: &str, filter: &str, seen: Arc<Seen>) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            filter: filter.to_owned(),
            seen,
        }
    }
}

impl Script for Subscriber {
    fn next(&mut self) -> Option<(u64, Outgoing)> {
        None
    }

    fn acknowledged(&mut self, _: u64, _: &Told) {}

    fn refused(&mut self, _: u64, _: &str) {}

    fn forgotten(&mut self, _: u64) {}

    fn delivered(&mut self, delivery: &Delivery) {
        let id = String::from_utf8_lossy(&delivery.payload);
        self.shared.recorder.write(&Line::TopicRecv {
            t: now(),
            session: &self.name,
            id: &id,
            topic: &delivery.topic,
            dup: delivery.dup,
        });
        self.shared.deliver();
        self.seen.add_text(&id);
    }

    fn subscribed(&mut self, qos: u8) {
        self.shared.recorder.write(&Line::TopicSub {
            t: now(),
            session: &self.name,
            filter: &self.filter,
            qos,
        });
    }
}
