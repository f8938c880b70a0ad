//! Publishes that come by a route whose subscription has ended: not delivered, and the route is reported. A route may
//! outlive its subscription where a crash or a failed load lost the word that it is to go.

use godwit_wire::command::{Command, TopicCommand};
use godwit_wire::ids::{Key, SessionId};
use godwit_wire::topic::matches;

use super::env::Env;
use super::home::Home;
use super::session::Session;

/// Subscriptions that are looked through at every publish. A session with more looks at as small a part of its
/// publishes, so that what this costs does not grow with them; what outlived its subscription is found a little later.
const LOOKED_AT: usize = 8;

impl Session {
    /// Whether a publish is for one of its subscriptions, as far as it looks now.
    pub(crate) fn wants(&self, topic: &str, mono_ms: u64) -> bool {
        let part = (self.subscriptions.len() / LOOKED_AT) as u64;
        if part > 1 && !mono_ms.is_multiple_of(part) {
            return true;
        }
        let mut all = self.subscriptions.iter();
        all.any(|one| *one.filter == *topic || matches(&one.filter, topic))
    }
}

impl Home {
    /// A publish came for a session that has no subscription to its topic.
    pub(crate) fn unwanted(&mut self, env: &mut Env<'_, '_>, id: SessionId, topic: &str) {
        // Subscriptions made from now on have larger ids.
        let before = env.fresh_number();
        let Some(session) = self.session(id) else { return };
        let ids = |one: &super::session::Subscription| {
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
