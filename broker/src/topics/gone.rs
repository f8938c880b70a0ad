//! Routes that nobody wants any more: of sessions that are gone, and those that outlived their subscription. They are
//! found where they match a publish, so that it costs what that match did.

use godwit_cluster::{Cx, Reply, slot_of};
use godwit_wire::command::{Answer, Command, Route, TopicCommand};
use godwit_wire::ids::{Key, SessionId};

use super::home::drop_route;
use super::{BATCH_OPS, Step, Topics};
use crate::users::VIEW_SHIFT;

impl Topics {
    /// Members or owners are others: sessions in memory of users whose home is another start now are gone, and nobody ends
    /// their routes one by one. Those that the user has made there since stay: they have the view of its take-up, or a later one.
    pub(super) fn drop_moved(&mut self, cx: &mut Cx<'_>) {
        let Some(now) = cx.standing() else { return };
        let Some(before) = self.nodes.swept.replace(now.clone()) else {
            return;
        };
        let is_gone = |route: &&Route| {
            let slot = slot_of(&Key::User(route.user));
            !route.persistent
                && route.route_id >> VIEW_SHIFT < now.number
                && before.owner(slot) != now.owner(slot)
        };
        let mut dropped = 0;
        for home in self.homes.values_mut() {
            let gone: Vec<Route> = home.routes().filter(is_gone).cloned().collect();
            dropped += gone.len() as u64;
            for route in gone {
                home.remove(route.session, &route.filter, Some(route.route_id));
            }
        }
        let gone: Vec<Route> = self.wildcards.iter().filter(is_gone).cloned().collect();
        dropped += gone.len() as u64;
        for route in gone {
            self.wildcards
                .remove(route.session, &route.filter, Some(route.route_id));
        }
        self.metrics.wildcards.set(self.wildcards.len() as i64);
        self.metrics.routes_gone.inc_by(dropped);
    }

    /// Sessions that matched a publish are no more: their routes that match its topic go too.
    pub(super) fn sessions_gone(&mut self, cx: &mut Cx<'_>, key: &Key, topic: &str, gone: &mut [SessionId]) {
        gone.sort_unstable();
        self.drop_routes(cx, key, topic, |route| gone.binary_search(&route.session).is_ok());
    }

    /// See [`TopicCommand::Prune`].
    pub(super) fn prune(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        (session, topic): (SessionId, &str),
        (keep, before): (&[u64], u64),
        reply: Reply,
    ) {
        self.drop_routes(cx, key, topic, |route| {
            route.session == session && route.route_id < before && !keep.contains(&route.route_id)
        });
        cx.answer(reply, Answer::Done);
    }

    fn drop_routes(&mut self, cx: &mut Cx<'_>, key: &Key, topic: &str, unwanted: impl Fn(&Route) -> bool) {
        let mut found: Vec<Route> = Vec::new();
        let mut take = |route: &Route| {
            if unwanted(route) {
                found.push(route.clone());
            }
        };
        self.wildcards.matching(topic, &mut take);
        let wild = std::mem::take(&mut found);
        let mut take = |route: &Route| {
            if unwanted(route) {
                found.push(route.clone());
            }
        };
        let (mut ops, mut gone) = (Vec::new(), wild.len() as u64);
        if let Some(home) = self.home(key) {
            home.matching(topic, &mut take);
            for route in found {
                home.remove(route.session, &route.filter, Some(route.route_id));
                if route.persistent {
                    ops.push(drop_route(key, &route));
                }
                gone += 1;
            }
        }
        self.metrics.routes_gone.inc_by(gone);
        while !ops.is_empty() {
            let rest = ops.split_off(ops.len().min(BATCH_OPS));
            let tag = self.step(Step::Lazy);
            cx.store(key, tag, std::mem::replace(&mut ops, rest));
        }
        for route in wild {
            cx.tell(
                Key::Wildcards,
                Command::Topic(TopicCommand::Unsubscribe { route }),
            );
        }
    }
}
