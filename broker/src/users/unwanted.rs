//! Publishes that come by a route whose subscription has ended. A route outlives its subscription by a moment, and longer
//! where a crash or a failed load lost the word that it is to go. If no other matches, the publish is not delivered, and
//! the route is reported; if others do, it is delivered with their options only.

use godwit_wire::command::{Command, Publish, Target, TopicCommand};
use godwit_wire::ids::{Key, SessionId};
use godwit_wire::topic::matches;

use super::env::Env;
use super::home::Home;
use super::session::{Live, Session, Subscription};

/// Subscriptions that are looked through at every publish. A session with more looks at as small a part of its
/// other publishes, so that what this costs does not grow with them; what outlived its subscription is found a little later.
const LOOKED_AT: usize = 8;
/// For how long after an UNSUBACK every publish is looked at, seconds: its routes are gone long before. One that was matched
/// while they were there, and had to wait for its turn since, says so, and is looked at always.
const NARROWED_S: u8 = 4;

impl Session {
    /// Whether a publish is for one of its subscriptions, as far as it looks now. The target, made of the routes that
    /// matched, keeps what its present subscriptions to this topic ask for, and gets nothing more: one of them may wait
    /// for its SUBACK. `late`: the publish was matched some time ago.
    pub(crate) fn narrow(
        &self,
        target: &mut Target,
        publish: &Publish,
        (mono_ms, late): (u64, bool),
    ) -> bool {
        let part = (self.subscriptions.len() / LOOKED_AT) as u64;
        let lately = || {
            let live = self.live.as_deref();
            live.is_some_and(|live| live.was_narrowed(mono_ms))
        };
        if part > 1 && !late && !mono_ms.is_multiple_of(part) && !lately() {
            return true;
        }
        let topic = &*publish.topic;
        let matching = || {
            self.subscriptions.iter().filter(|one| {
                (*one.filter == *topic || matches(&one.filter, topic))
                    && !(one.no_local && publish.from == Some(self.id))
            })
        };
        let (mut qos, mut retain_as_published, mut ids) = (None, false, 0);
        for one in matching() {
            qos = qos.max(Some(one.qos));
            retain_as_published |= one.retain_as_published;
            ids += usize::from(one.subscription_id.is_some());
        }
        let Some(qos) = qos else { return false };
        target.qos = target.qos.min(qos);
        target.retain_as_published &= retain_as_published;
        let known = |id: &u32| matching().any(|one| one.subscription_id == Some(*id));
        if target.subscription_ids.len() > ids || !target.subscription_ids.iter().all(known) {
            target.subscription_ids = matching().filter_map(|one| one.subscription_id).collect();
        }
        true
    }
}

/// A second of the loop, as a connection remembers it: comes again every 256.
pub(crate) fn second(mono_ms: u64) -> u8 {
    (mono_ms / 1_000) as u8
}

impl Live {
    /// Whether an UNSUBACK was sent lately; by mistake also now and then when none was, which only costs time.
    fn was_narrowed(&self, mono_ms: u64) -> bool {
        second(mono_ms).wrapping_sub(self.narrowed) < NARROWED_S
    }
}

impl Home {
    /// A publish came for a session that has no subscription to its topic.
    pub(crate) fn unwanted(&mut self, env: &mut Env<'_, '_>, id: SessionId, topic: &str) {
        // Subscriptions made from now on have larger ids.
        let before = env.fresh_number();
        let Some(session) = self.session(id) else { return };
        let ids = |one: &Subscription| {
            let replaced = one.replaced.clone();
            replaced.into_iter().chain([one.route_id])
        };
        let prune = TopicCommand::Prune {
            session: id,
            topic: topic.into(),
            keep: session.subscriptions.iter().flat_map(ids).collect(),
            before,
        };
        env.metrics().unwanted.inc();
        env.cx.tell(Key::of_topic(topic), Command::Topic(prune));
    }
}
