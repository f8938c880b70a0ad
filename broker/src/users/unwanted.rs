//! Publishes that come by a route whose subscription has ended. A route outlives its subscription by a moment, and longer
//! where a crash or a failed load lost the word that it is to go. If no other matches, the publish is not delivered, and
//! the route is reported; if others do, it is delivered with their options only.

use godwit_wire::command::{Command, Publish, Target, TopicCommand};
use godwit_wire::ids::{Key, SessionId};
use godwit_wire::topic::matches;

use super::env::Env;
use super::home::Home;
use super::session::{Session, Subscription};

/// Subscriptions that are looked through at every publish. A session with more looks at as small a part of its
/// other publishes, so that what this costs does not grow with them; what outlived its subscription is found a little later.
const LOOKED_AT: usize = 8;
/// For how long after an UNSUBACK every publish is looked at, seconds: its routes are gone long before. One that was matched
/// while they were there, and had to wait for its turn since, says how long, and is looked at so much longer.
const NARROWED_S: u32 = 4;
/// Seconds that a connection can look back.
const REMEMBERED_S: u32 = 250;

/// Whether a publish is looked at: when, and which it is.
pub(crate) struct Look {
    pub(crate) mono_ms: u64,
    /// Seconds since it was matched, rounded up.
    pub(crate) late: u32,
    /// Of all that is given to sessions of this worker.
    pub(crate) count: u64,
}

impl Session {
    /// Whether a publish is for one of its subscriptions, as far as it looks now. The target, made of the routes that
    /// matched, keeps what its present subscriptions to this topic ask for, and gets nothing more: one of them may wait
    /// for its SUBACK.
    pub(crate) fn narrow(&self, target: &mut Target, publish: &Publish, look: &Look) -> bool {
        let part = (self.subscriptions.len() / LOOKED_AT) as u64;
        if part > 1 && !look.count.is_multiple_of(part) && !self.was_narrowed(look) {
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
            // As a rule the first already asks for all that the routes did.
            let as_much = one.qos >= target.qos && retain_as_published >= target.retain_as_published;
            if as_much && target.subscription_ids.is_empty() {
                return true;
            }
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

impl Session {
    /// Whether an UNSUBACK may have been sent since a publish was matched, or shortly before that; by mistake also now and
    /// then when none was, which only costs time.
    fn was_narrowed(&self, look: &Look) -> bool {
        let within = look.late.saturating_add(NARROWED_S);
        match self.live.as_deref() {
            Some(live) if within < REMEMBERED_S => {
                u32::from(second(look.mono_ms).wrapping_sub(live.narrowed)) < within
            }
            Some(_) => true,
            // Without a connection nothing was unsubscribed since it ended, which was maybe just before it was read.
            None => {
                let away = |left| look.mono_ms.saturating_sub(left);
                look.late > 0
                    && self
                        .left_mono_ms
                        .is_none_or(|left| away(left) < u64::from(within) * 1_000)
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_connection_the_time_since_it_ended_is_no_affair_of_the_calendar() {
        let mut session = Session::new(SessionId(uuid::Uuid::nil()), "c".into());
        let look = |mono_ms, late| Look {
            mono_ms,
            late,
            count: 0,
        };
        // It ended with another start, whose time is another: an UNSUBACK may be of just before.
        session.disconnected_at = 5_000;
        assert!(session.was_narrowed(&look(900_000, 1)));
        assert!(!session.was_narrowed(&look(900_000, 0)));
        // It ended here, by a calendar that is years behind or ahead.
        session.left_mono_ms = Some(890_000);
        assert!(!session.was_narrowed(&look(900_000, 1)));
        session.left_mono_ms = Some(896_000);
        for at in [5_000, u64::MAX] {
            session.disconnected_at = at;
            assert!(session.was_narrowed(&look(900_000, 1)));
        }
    }
}
