//! One publish on an ordinary topic: matched, given to every user it is for, and answered when all have it.

use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_store::Op;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Publish, Route, Target};
use godwit_wire::ids::{Key, SessionId, UserId};

use super::home::TopicHome;
use super::retained::{Kept, clear_retained, ended, put_retained, retained_slice};
use super::spread::{A_WALK, FEW, Spread};
use super::{EXPIRED_AT_ONCE, RETAINED_KEYS, Step, Topics, is_for};

/// A publish whose parts are under way.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) key: Key,
    pub(super) publish: Arc<Publish>,
    reply: Reply,
    outstanding: usize,
    pub(super) matched: bool,
    /// Subscriptions that it matched.
    routes: u32,
    refusal: Option<Refusal>,
    /// Sessions that matched and are no more.
    gone: Vec<SessionId>,
}

impl Publishing {
    /// One that nobody has matched yet, of so many parts.
    pub(super) fn new(key: &Key, publish: &Arc<Publish>, reply: Reply, outstanding: usize) -> Self {
        Self {
            key: key.clone(),
            publish: publish.clone(),
            reply,
            outstanding,
            matched: false,
            routes: 0,
            refusal: None,
            gone: Vec::new(),
        }
    }
}

impl Topics {
    /// `by`: who publishes, and as whose it counts if it is retained.
    pub(super) fn publish(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        publish: Arc<Publish>,
        by: UserId,
        reply: Reply,
    ) {
        self.metrics.publishes.inc();
        if cx.overfull() {
            cx.answer(reply, Refusal::unavailable().into());
        } else if self.spreads.holds(key) || self.waits_for_rest(cx, key) {
            self.wait(cx, key, publish, by, reply);
        } else {
            self.publish_now(cx, key, publish, by, reply);
        }
    }

    /// Whether a publish of this key is not matched for the moment: the worker rests, and it is not known to cost little.
    pub(super) fn waits_for_rest(&self, cx: &Cx<'_>, key: &Key) -> bool {
        let cheap = |home: &TopicHome| home.cost.is_some_and(|cost| (cost as usize) < A_WALK / 16);
        self.spreads.rests(cx.now().mono_ms)
            && !matches!(key, Key::Topic(levels) if self.homes.get(levels).is_some_and(cheap))
    }

    /// As [`Self::publish`], when nothing of its key is before it.
    pub(super) fn publish_now(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        publish: Arc<Publish>,
        by: UserId,
        reply: Reply,
    ) {
        let (deliveries, routes, cost) = self.match_publish(key, &publish);
        self.spreads.walk(cost);
        if let Some(home) = self.home(key) {
            home.cost = Some(u32::try_from(cost).unwrap_or(u32::MAX));
        }
        if self.spreads.is_full(deliveries.len(), by) {
            self.wait(cx, key, publish, by, reply);
            return;
        }
        let retained = match self.retain(cx, key, &publish, by) {
            Ok(ops) => ops,
            Err(refusal) => {
                self.metrics.retained_refused.inc();
                cx.answer(reply, refusal.into());
                return;
            }
        };
        let groups = self.groups_of(key, &publish.topic);
        let users = deliveries.len();
        self.metrics.deliveries.inc_by(users as u64);
        let matched = !deliveries.is_empty();
        let mut spread = Spread {
            publish,
            by,
            place: None,
            deliveries: deliveries.into_iter(),
            groups,
            matched_ms: cx.now().mono_ms,
        };
        if spread.publish.qos == 0 && reply.is_nobody() && spread.groups.is_empty() {
            if !retained.is_empty() {
                let tag = self.step(Step::Lazy);
                cx.store(key, tag, retained);
            }
        } else {
            // Whom it is for is known from memory: that it was this node's to say is confirmed with a write, or with none.
            let confirms = !retained.is_empty() || cx.is_clustered();
            let outstanding = users + spread.groups.len() + usize::from(confirms);
            if outstanding == 0 {
                cx.answer(reply, Answer::Published { matched, routes });
                return;
            }
            if let Some(home) = self.home(key) {
                home.busy += 1;
            }
            let mut publishing = Publishing::new(key, &spread.publish, reply, outstanding);
            (publishing.matched, publishing.routes) = (matched, routes);
            let place = self.publishing.insert(publishing);
            spread.place = Some(place);
            if confirms {
                let tag = self.step(Step::Publish(place));
                cx.store(key, tag, retained);
            }
        }
        if self.spreads.go(users) {
            self.give(cx, &mut spread, users, false);
        } else {
            self.metrics.spread.inc();
            self.spreads.begin(key, spread);
        }
    }

    /// Sets or clears the retained message in memory, if it is one; the writes that make it durable come back. Refused
    /// where its key has too many.
    fn retain(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        publish: &Arc<Publish>,
        by: UserId,
    ) -> Result<Vec<Op>, Refusal> {
        let view = cx.view_of(key);
        let mut ops = Vec::new();
        let Key::Topic(levels) = key else {
            return Ok(ops);
        };
        let Some(home) = self.homes.get_mut(levels).filter(|_| publish.retain) else {
            return Ok(ops);
        };
        if publish.payload.is_empty() {
            let retained = home.retained.as_deref_mut();
            if let Some(old) = retained.and_then(|retained| retained.clear(&publish.topic)) {
                clear_retained(key, view, &old, &mut ops);
            } else if cx.is_clustered() {
                // A write of an earlier owner, which died with it half done, may show yet: not above this one.
                ops.push(ended(key, view, &publish.topic));
            }
            return Ok(ops);
        }
        let retained = home.retained.get_or_insert_default();
        let mut checked = retained.check(publish);
        if checked.is_err() {
            // Two writes each, and four more are to follow in the batch.
            let over = retained.expire(cx.expiry_ms(), EXPIRED_AT_ONCE / 2 - 2);
            self.metrics.retained_expired.inc_by(over.len() as u64);
            over.iter()
                .for_each(|kept| clear_retained(key, view, kept, &mut ops));
            checked = retained.check(publish);
        }
        if let Err(refusal) = checked {
            if !ops.is_empty() {
                let tag = self.step(Step::Lazy);
                cx.store(key, tag, ops);
            }
            return Err(refusal);
        }
        let kept = Kept {
            publish: publish.clone(),
            owner: Some(by),
        };
        put_retained(key, view, &kept, &mut ops);
        if let Some(old) = retained.put(kept.clone()) {
            old.leave_to(&kept, &mut ops);
        } else {
            ops.extend(kept.listed());
        }
        if !std::mem::replace(&mut home.listed, true) {
            ops.push(Op::Insert {
                table: RETAINED_KEYS,
                partition: retained_slice(levels),
                element: bytes::Bytes::copy_from_slice(levels.as_bytes()),
                value: bytes::Bytes::new(),
            });
        }
        Ok(ops)
    }

    /// Whom a publish is for: one entry a user, one target a session, with the options of its matching subscriptions
    /// merged (MQTT 5, 3.3.4); and how many subscriptions it matched.
    /// For whom it is, how many subscriptions matched, and how many nodes of the tree it went through.
    fn match_publish(&self, key: &Key, publish: &Publish) -> (Vec<(UserId, Vec<Target>)>, u32, usize) {
        let mut cost = 0;
        let mut found: Vec<&Route> = Vec::new();
        let mut take = |route| {
            if is_for(route, publish) {
                found.push(route);
            }
        };
        if let Key::Topic(levels) = key
            && let Some(home) = self.homes.get(levels)
        {
            cost += home.matching(&publish.topic, &mut take);
        }
        cost += self.wildcards.matching(&publish.topic, &mut take);
        found.sort_unstable_by_key(|route| (route.user, route.session));
        let routes = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let mut deliveries: Vec<(UserId, Vec<Target>)> = Vec::new();
        for route in found {
            if deliveries.last().is_none_or(|(user, _)| *user != route.user) {
                deliveries.push((route.user, Vec::with_capacity(1)));
            }
            // There is one: it was just pushed, or was there.
            let Some((_, targets)) = deliveries.last_mut() else {
                continue;
            };
            merge(targets, route);
        }
        (deliveries, routes, cost)
    }

    /// A part of a publish ended: a write (`None`) or a delivery.
    pub(super) fn publish_part_done(&mut self, cx: &mut Cx<'_>, place: usize, answer: Option<Answer>) {
        let Some(publishing) = self.publishing.get_mut(place) else {
            return;
        };
        publishing.outstanding -= 1;
        let done = publishing.outstanding == 0;
        match answer {
            Some(Answer::Refused(refusal)) => {
                publishing.refusal.get_or_insert(refusal);
            }
            Some(Answer::Kept { gone }) => publishing.gone.extend(gone),
            _ => {}
        }
        if done {
            let mut publishing = self.publishing.remove(place);
            let key = &publishing.key;
            if !publishing.gone.is_empty() {
                self.sessions_gone(cx, key, &publishing.publish.topic, &mut publishing.gone);
            }
            if let Some(home) = self.home(key) {
                home.busy = home.busy.saturating_sub(1);
            }
            let (matched, routes) = (publishing.matched, publishing.routes);
            let answer = match publishing.refusal {
                None => Answer::Published { matched, routes },
                // It was work all the same.
                Some(refusal) if routes as usize > FEW => Answer::PublishRefused { refusal, routes },
                Some(refusal) => Answer::Refused(refusal),
            };
            cx.answer(publishing.reply, answer);
        }
    }
}

/// Adds a matching subscription to the targets of its user; those of one session come one after another.
fn merge(targets: &mut Vec<Target>, route: &Route) {
    match targets
        .last_mut()
        .filter(|target| target.session == route.session)
    {
        Some(target) => {
            target.qos = target.qos.max(route.qos);
            target.retain_as_published |= route.retain_as_published;
            target.subscription_ids.extend(route.subscription_id);
        }
        None => targets.push(Target {
            session: route.session,
            qos: route.qos,
            retain_as_published: route.retain_as_published,
            subscription_ids: route.subscription_id.into_iter().collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::home::TopicHome;
    use super::super::tree::tests::route;
    use super::*;

    #[test]
    fn overlapping_subscriptions_of_a_session_become_one_target_with_both_identifiers() {
        let mut topics = Topics::new(Metrics::default());
        let key = Key::Topic("a/b".into());
        let one = Route {
            qos: 1,
            subscription_id: Some(1),
            ..route("a/b/c")
        };
        let two = Route {
            qos: 2,
            subscription_id: Some(2),
            filter: "a/b/#".into(),
            ..one.clone()
        };
        let wild = Route {
            qos: 0,
            subscription_id: Some(3),
            filter: "#".into(),
            ..one.clone()
        };
        let other = route("+/b/c");
        let mut home = TopicHome::new(0);
        home.insert(one.clone());
        home.insert(two);
        topics.homes.insert("a/b".into(), home);
        topics.wildcards.insert(wild, true);
        topics.wildcards.insert(other.clone(), true);
        let publish = Publish {
            topic: "a/b/c".into(),
            payload: bytes::Bytes::new(),
            qos: 1,
            retain: false,
            expires_at: None,
            properties: None,
            from: None,
            message_id: None,
        };
        let (found, routes, _) = topics.match_publish(&key, &publish);
        assert_eq!((found.len(), routes), (2, 4));
        let (_, targets) = found
            .iter()
            .find(|(user, _)| *user == one.user)
            .expect("the session matched");
        let mut ids = targets[0].subscription_ids.clone();
        ids.sort_unstable();
        assert_eq!((targets.len(), targets[0].qos, ids), (1, 2, vec![1, 2, 3]));
    }

    #[test]
    fn no_local_keeps_a_session_from_its_own_publish_only() {
        let mut topics = Topics::new(Metrics::default());
        let own = Route {
            no_local: true,
            ..route("#")
        };
        topics.wildcards.insert(own.clone(), true);
        let mut publish = Publish {
            topic: "x".into(),
            payload: bytes::Bytes::new(),
            qos: 1,
            retain: false,
            expires_at: None,
            properties: None,
            from: Some(own.session),
            message_id: None,
        };
        let key = Key::Topic("x".into());
        assert!(topics.match_publish(&key, &publish).0.is_empty());
        publish.from = None;
        assert_eq!(topics.match_publish(&key, &publish).0.len(), 1);
    }
}
