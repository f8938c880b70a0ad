//! How many retained messages are a user's, under all topics: counted when one is published, against what the topics' homes
//! have stored as the user's. What others replaced or time has ended is known at the next reading only, so the count may be
//! above the truth for a while; it is below by at most what was under way.

use std::collections::HashMap;

use bytes::Bytes;
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Publish;
use godwit_wire::ids::UserId;
use godwit_wire::topic::{PublishTopic, classify_publish};

use super::config::UsersConfig;
use super::env::{Env, What};
use super::home::Home;
use super::publish_in::PAUSED_NAME;
use super::target::Target;
use crate::packet::PublishIn;
use crate::topics::retained::{RETAINED_OF, owned_element, weight, weight_of};
use crate::wire_trait::ConnId;

/// Elements of a page.
const PAGE: u32 = 4_096;
/// A user at its quota is read again after as long at the soonest, milliseconds: something may have ended since.
const AGAIN_MS: u64 = 10_000;

/// A user's retained messages; there from its first one on.
#[derive(Default)]
pub(crate) struct Retaining {
    /// By the beginning of the topic's hash: what it takes, bytes. As many as the quota, and what was under way.
    topics: HashMap<u64, u32>,
    bytes: u64,
    /// Milliseconds of the loop.
    read_at: u64,
    /// It is being read: connections whose publish waits for that.
    waiting: Option<Vec<ConnId>>,
}

impl Retaining {
    fn set(&mut self, topic: u64, bytes: u32) {
        let old = self.topics.insert(topic, bytes).unwrap_or(0);
        self.bytes = self.bytes + u64::from(bytes) - u64::from(old);
    }

    fn forget(&mut self, topic: u64) {
        let old = self.topics.remove(&topic).unwrap_or(0);
        self.bytes -= u64::from(old);
    }

    /// Whether this one is beyond the quota. One that takes the place of another that is not smaller never is.
    fn is_over(&self, config: &UsersConfig, topic: u64, bytes: u32) -> bool {
        let (old, new) = (self.topics.get(&topic).copied(), u64::from(bytes));
        let most = config.retained_messages;
        let more = most > 0 && old.is_none() && self.topics.len() >= most as usize;
        let old = u64::from(old.unwrap_or(0));
        let most = config.retained_bytes;
        more || (most > 0 && new > old && self.bytes - old + new > most)
    }

    /// Counts what a publish retains, or refuses it.
    fn take(&mut self, config: &UsersConfig, publish: &Publish) -> Result<(), Refusal> {
        let topic = number(&owned_element(&publish.topic));
        if publish.payload.is_empty() {
            self.forget(topic);
            return Ok(());
        }
        let bytes = in_bytes(weight(publish));
        if self.is_over(config, topic, bytes) {
            return Err(Refusal::new(
                Code::Quota,
                "no more retained messages of this user",
            ));
        }
        self.set(topic, bytes);
        Ok(())
    }
}

fn number(element: &[u8]) -> u64 {
    let first = element.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

fn in_bytes(weight: usize) -> u32 {
    u32::try_from(weight).unwrap_or(u32::MAX)
}

fn page(user: UserId, after: Option<Bytes>) -> Read {
    Read::Set {
        table: RETAINED_OF,
        partition: user.to_bytes(),
        after,
        up_to: None,
        limit: PAGE,
    }
}

/// Whether there is a quota.
fn is_limited(config: &UsersConfig) -> bool {
    config.retained_messages > 0 || config.retained_bytes > 0
}

/// Counts a publish that retains something, or refuses it (0x97).
pub(crate) fn count_retained(
    of: &mut Option<Box<Retaining>>,
    env: &Env<'_, '_>,
    publish: &Publish,
) -> Result<(), Refusal> {
    let Some(of) = of.as_deref_mut().filter(|_| publish.retain) else {
        return Ok(());
    };
    let counted = of.take(&env.common.config, publish);
    if counted.is_err() {
        env.metrics().count_limit("retained");
    }
    counted
}

/// As [`count_retained`], for what a client publishes.
pub(crate) fn may_retain(
    of: &mut Option<Box<Retaining>>,
    env: &Env<'_, '_>,
    target: Target,
) -> Result<Target, Refusal> {
    if let Target::Topic(publish) = &target {
        count_retained(of, env, publish)?;
    }
    Ok(target)
}

impl Home {
    /// Before a publish that retains something goes on: what the user has is read, if it is not known or may be less than is
    /// known. Gives the publish back if it need not wait.
    pub(crate) fn know_retained(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet: Box<PublishIn>,
    ) -> Option<Box<PublishIn>> {
        let ordinary =
            |packet: &PublishIn| matches!(classify_publish(&packet.topic), Ok(PublishTopic::Ordinary(_)));
        if !packet.retain || !is_limited(&env.common.config) || !ordinary(&packet) {
            return Some(packet);
        }
        if let Some(known) = self.retaining.as_deref().filter(|known| known.waiting.is_none()) {
            let topic = number(&owned_element(&packet.topic));
            let bytes = in_bytes(weight_of(
                &packet.topic,
                packet.payload.len(),
                packet.properties.as_deref(),
            ));
            let old = env.mono_ms().saturating_sub(known.read_at) >= AGAIN_MS;
            if packet.payload.is_empty() || !old || !known.is_over(&env.common.config, topic, bytes) {
                return Some(packet);
            }
        }
        let live = self.session_at(conn)?.live.as_deref_mut()?;
        // What follows waits too, so that the order stays.
        live.pause(env, PAUSED_NAME, true);
        live.parked = Some(packet);
        self.read_retained(env, Some(conn));
        None
    }

    /// A connection with a will that retains something begins: by the time that it is published the count is known.
    pub(crate) fn know_retained_soon(&mut self, env: &mut Env<'_, '_>) {
        if self.retaining.is_none() && is_limited(&env.common.config) {
            self.read_retained(env, None);
        }
    }

    fn read_retained(&mut self, env: &mut Env<'_, '_>, conn: Option<ConnId>) {
        let of = self.retaining.get_or_insert_default();
        if let Some(waiting) = &mut of.waiting {
            waiting.extend(conn);
            return;
        }
        **of = Retaining {
            waiting: Some(conn.into_iter().collect()),
            ..Retaining::default()
        };
        env.read(What::Retaining, vec![page(env.user, None)]);
    }

    /// A page came.
    pub(crate) fn retained_read(&mut self, env: &mut Env<'_, '_>, answers: Option<Vec<ReadAnswer>>) {
        let Some(of) = self.retaining.as_deref_mut() else {
            return;
        };
        let failed = match answers.and_then(|answers| answers.into_iter().next()) {
            Some(ReadAnswer::Set { elements, more }) => {
                for (element, value) in &elements {
                    let bytes = value.first_chunk().copied().unwrap_or_default();
                    of.set(number(element), u32::from_be_bytes(bytes));
                }
                if let (true, Some((last, _))) = (more, elements.last()) {
                    env.read(What::Retaining, vec![page(env.user, Some(last.clone()))]);
                    return;
                }
                false
            }
            _ => true,
        };
        of.read_at = env.mono_ms();
        let waiting = of.waiting.take().unwrap_or_default();
        if failed {
            self.retaining = None;
        }
        for conn in waiting {
            self.go_on_parked(env, conn, failed);
        }
    }
}
