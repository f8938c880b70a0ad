//! Routes come and go: durable and in the copy of every worker of every node before the SUBACK.

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, Route, TopicCommand};
use godwit_wire::ids::Key;
use godwit_wire::topic::shared;

use super::home::{drop_route, put_route};
use super::nodes::copies;
use super::{Step, Topics};

/// A subscription whose parts are under way.
#[derive(Debug)]
pub(super) struct Subscribing {
    pub(super) key: Key,
    route: Route,
    retained: bool,
    reply: Reply,
    outstanding: usize,
    refusal: Option<Refusal>,
}

impl Topics {
    pub(super) fn subscribe(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        route: Route,
        retained: bool,
        reply: Reply,
    ) {
        if let Key::WildcardCopy(_) = key {
            self.wildcards.insert_newer(route, true);
            self.metrics.wildcards.set(self.wildcards.len() as i64);
            cx.answer(reply, Answer::Done);
            return;
        }
        let wild = *key == Key::Wildcards;
        if wild && let Err(refusal) = self.wildcards.check(&route) {
            let room = self.wildcards.groups.check(&route);
            let limit = if room.is_err() {
                "share_members"
            } else {
                "wildcards"
            };
            self.metrics.count_limit(limit);
            cx.answer(reply, refusal.into());
            return;
        }
        if let Some(groups) = self.home(key).and_then(|home| home.groups.as_deref())
            && shared(&route.filter).is_some()
            && let Err(refusal) = groups.check(&route)
        {
            self.metrics.count_limit("share_members");
            cx.answer(reply, refusal.into());
            return;
        }
        let mut ops = Vec::new();
        if route.persistent {
            ops.push(put_route(key, &route));
        }
        // This worker's own copy of the wildcard filters is the one that says what a route replaces: at once, or of two
        // SUBSCRIBEs behind each other the second would not see the first.
        let old = match self.home(key) {
            Some(home) => {
                home.busy += 1;
                home.insert(route.clone())
            }
            None if wild => {
                let old = self.wildcards.insert(route.clone(), true);
                self.metrics.wildcards.set(self.wildcards.len() as i64);
                old
            }
            None => None,
        };
        if let Some(old) = old.filter(|old| old.persistent && old.route_id != route.route_id) {
            ops.push(drop_route(key, &old));
        }
        let copies = if wild { copies(cx) } else { Vec::new() };
        let outstanding = copies.len() + usize::from(!ops.is_empty());
        let subscribing = Subscribing {
            key: key.clone(),
            route: route.clone(),
            retained,
            reply,
            outstanding,
            refusal: None,
        };
        let place = self.subscribing.insert(subscribing);
        for place_of_copy in copies {
            let tag = self.step(Step::Subscribe(place));
            let copy = TopicCommand::Subscribe {
                route: route.clone(),
                retained: false,
            };
            cx.ask(tag, place_of_copy, Command::Topic(copy));
        }
        if !ops.is_empty() {
            let tag = self.step(Step::Subscribe(place));
            cx.store(key, tag, ops);
        }
        if outstanding == 0 {
            self.subscribed(cx, place);
        }
    }

    pub(super) fn subscribe_part_done(&mut self, cx: &mut Cx<'_>, place: usize, answer: Option<Answer>) {
        let Some(subscribing) = self.subscribing.get_mut(place) else {
            return;
        };
        if let Some(Answer::Refused(refusal)) = answer {
            subscribing.refusal.get_or_insert(refusal);
        }
        subscribing.outstanding -= 1;
        if subscribing.outstanding == 0 {
            self.subscribed(cx, place);
        }
    }

    /// The route is live and durable.
    fn subscribed(&mut self, cx: &mut Cx<'_>, place: usize) {
        let Some(Subscribing {
            key,
            route,
            retained,
            reply,
            refusal,
            ..
        }) = self.subscribing.try_remove(place)
        else {
            return;
        };
        let now = cx.expiry_ms();
        let mut found = Vec::new();
        if let Some(home) = self.home(&key) {
            home.busy = home.busy.saturating_sub(1);
            if retained {
                found = home.retained_matching(&route.filter, now);
            }
        }
        if let Some(refusal) = refusal {
            cx.answer(reply, refusal.into());
        } else if retained && key == Key::Wildcards {
            self.collect(cx, route.filter, reply);
        } else {
            cx.answer(reply, Answer::Retained(found));
        }
    }

    pub(super) fn unsubscribe(&mut self, cx: &mut Cx<'_>, key: &Key, route: &Route, reply: Reply) {
        let id = Some(route.route_id);
        match key {
            Key::WildcardCopy(_) => {
                self.wildcards.remove(route.session, &route.filter, id);
                self.metrics.wildcards.set(self.wildcards.len() as i64);
                cx.answer(reply, Answer::Done);
                return;
            }
            Key::Wildcards => {
                self.wildcards.remove(route.session, &route.filter, id);
                for place in copies(cx) {
                    let copy = TopicCommand::Unsubscribe { route: route.clone() };
                    cx.tell(place, Command::Topic(copy));
                }
            }
            _ => {
                if let Some(home) = self.home(key) {
                    home.remove(route.session, &route.filter, id);
                }
            }
        }
        if !route.persistent {
            cx.answer(reply, Answer::Done);
            return;
        }
        let levels = match key {
            Key::Topic(levels) => levels.clone(),
            _ => "".into(),
        };
        if let Some(home) = self.home(key) {
            home.busy += 1;
        }
        let tag = self.step(Step::Unsubscribe(levels, reply));
        cx.store(key, tag, vec![drop_route(key, route)]);
    }
}

/// Those with a copy of the wildcard filters besides this one, which writes their rows.
pub(super) fn other_workers(cx: &Cx<'_>) -> Vec<u16> {
    let own = cx.worker();
    (0..cx.workers()).filter(|worker| *worker != own).collect()
}
