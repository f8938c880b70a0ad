//! One topic key in memory: its routes and its retained messages, loaded with its first use and dropped when it idles.

use std::sync::Arc;

use bytes::Bytes;
use godwit_store::{Kind, Op, Table};
use godwit_wire::command::{Publish, Route};
use godwit_wire::ids::{Key, SessionId, UserId};
use godwit_wire::topic::{matches, shared};
use prost::Message;

use super::groups::Groups;
use super::retained::Retained;
use super::tree::TopicTree;

/// Routes of persistent sessions: `(topic key; session id, route id) → RouteRow`.
pub(crate) const ROUTES: Table = Table {
    id: 220,
    kind: Kind::Set,
    name: "routes",
};
/// Routes of one key from which on a tree serves better than a look at each.
const FEW: usize = 8;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RouteRow {
    #[prost(bytes = "bytes", tag = "1")]
    user: Bytes,
    #[prost(string, tag = "2")]
    filter: String,
    #[prost(uint32, tag = "3")]
    qos: u32,
    #[prost(bool, tag = "4")]
    no_local: bool,
    #[prost(bool, tag = "5")]
    retain_as_published: bool,
    #[prost(uint32, optional, tag = "6")]
    subscription_id: Option<u32>,
}

/// Partition of a key in [`ROUTES`] and [`RETAINED`].
pub(crate) fn partition(key: &Key) -> Bytes {
    match key {
        Key::Topic(levels) => Bytes::from(format!("t{levels}")),
        // Filters with a wildcard in the first two levels are kept under one key.
        _ => Bytes::from_static(b"w"),
    }
}

fn element(route: &Route) -> Bytes {
    let mut element = [0u8; 24];
    element[..16].copy_from_slice(route.session.0.as_bytes());
    element[16..].copy_from_slice(&route.route_id.to_be_bytes());
    Bytes::copy_from_slice(&element)
}

pub(crate) fn put_route(key: &Key, route: &Route) -> Op {
    let value = RouteRow {
        user: route.user.to_bytes(),
        filter: route.filter.to_string(),
        qos: route.qos.into(),
        no_local: route.no_local,
        retain_as_published: route.retain_as_published,
        subscription_id: route.subscription_id,
    };
    let value = value.encode_to_vec().into();
    Op::Insert {
        table: ROUTES,
        partition: partition(key),
        element: element(route),
        value,
    }
}

pub(crate) fn drop_route(key: &Key, route: &Route) -> Op {
    Op::Remove {
        table: ROUTES,
        partition: partition(key),
        element: element(route),
    }
}

pub(crate) fn read_route(element: &[u8], value: Bytes) -> Option<Route> {
    let row = RouteRow::decode(value).ok()?;
    Some(Route {
        user: UserId::from_slice(&row.user)?,
        session: SessionId::from_slice(element.get(..16)?)?,
        route_id: u64::from_be_bytes(element.get(16..24)?.try_into().ok()?),
        filter: row.filter.into(),
        persistent: true,
        qos: u8::try_from(row.qos).ok()?.min(2),
        no_local: row.no_local,
        retain_as_published: row.retain_as_published,
        subscription_id: row.subscription_id,
    })
}

#[derive(Debug)]
enum Routes {
    /// Most keys have one subscriber.
    Few(Vec<Route>),
    Many(TopicTree),
}

/// One topic key.
#[derive(Debug)]
pub(crate) struct TopicHome {
    routes: Routes,
    /// The members of its groups; most keys have none.
    pub(crate) groups: Option<Box<Groups>>,
    /// Its retained messages; most keys have none.
    pub(crate) retained: Option<Box<Retained>>,
    /// Its row in [`RETAINED_KEYS`](super::retained::RETAINED_KEYS) is there.
    pub(crate) listed: bool,
    /// Batches under way of what was retained under earlier views: it is shown when they are stored.
    pub(crate) renewing: usize,
    /// Publishes and writes under way.
    pub(crate) busy: usize,
    pub(crate) last_used_ms: u64,
    /// What the last publish cost to be matched ([`TopicTree::matching`]).
    pub(crate) cost: Option<u32>,
}

impl TopicHome {
    pub(crate) fn new(now_ms: u64) -> Self {
        let routes = Routes::Few(Vec::new());
        Self {
            routes,
            groups: None,
            retained: None,
            listed: false,
            renewing: 0,
            busy: 0,
            last_used_ms: now_ms,
            cost: None,
        }
    }

    /// One whose rows are being read.
    pub(crate) fn loading(now_ms: u64) -> Self {
        Self {
            busy: 1,
            ..Self::new(now_ms)
        }
    }

    /// Puts a stored route in, whose client is not known to be connected.
    pub(crate) fn restore(&mut self, route: Route) {
        match shared(&route.filter) {
            Some(_) => drop(self.groups.get_or_insert_default().insert(route, false)),
            None => drop(self.insert(route)),
        }
    }

    /// Puts a route in; the one it replaces comes back.
    pub(crate) fn insert(&mut self, route: Route) -> Option<Route> {
        if shared(&route.filter).is_some() {
            return self.groups.get_or_insert_default().insert(route, true);
        }
        match &mut self.routes {
            Routes::Few(routes) => {
                let same = |old: &&mut Route| old.session == route.session && old.filter == route.filter;
                if let Some(old) = routes.iter_mut().find(same) {
                    return Some(std::mem::replace(old, route));
                }
                routes.push(route);
                if routes.len() > FEW {
                    let mut tree = TopicTree::default();
                    for route in routes.drain(..) {
                        tree.insert(route);
                    }
                    self.routes = Routes::Many(tree);
                }
                None
            }
            Routes::Many(tree) => tree.insert(route),
        }
    }

    /// Puts a route in, unless there is one of the same SUBSCRIBE or a later one.
    pub(crate) fn insert_newer(&mut self, route: Route) {
        let known = match (shared(&route.filter), &self.routes) {
            (Some(_), _) => {
                let groups = self.groups.as_deref();
                groups.and_then(|groups| groups.get(route.session, &route.filter))
            }
            (None, Routes::Few(routes)) => {
                let same = |old: &&Route| old.session == route.session && old.filter == route.filter;
                routes.iter().find(same)
            }
            (None, Routes::Many(tree)) => tree.get(route.session, &route.filter),
        };
        if known.is_none_or(|known| known.route_id < route.route_id) {
            self.insert(route);
        }
    }

    pub(crate) fn remove(
        &mut self,
        session: SessionId,
        filter: &str,
        route_id: Option<u64>,
    ) -> Option<Route> {
        if shared(filter).is_some() {
            let groups = self.groups.as_deref_mut()?;
            let removed = groups.remove(session, filter, route_id);
            if groups.is_empty() {
                self.groups = None;
            }
            return removed;
        }
        match &mut self.routes {
            Routes::Few(routes) => {
                let same = |route: &Route| {
                    route.session == session
                        && *route.filter == *filter
                        && route_id.is_none_or(|id| id == route.route_id)
                };
                routes
                    .iter()
                    .position(same)
                    .map(|found| routes.swap_remove(found))
            }
            Routes::Many(tree) => tree.remove(session, filter, route_id),
        }
    }

    /// All routes, those of groups too.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        let (few, many) = match &self.routes {
            Routes::Few(routes) => (Some(routes.iter()), None),
            Routes::Many(tree) => (None, Some(tree.iter())),
        };
        let of_groups = self.groups.as_deref().map(Groups::iter);
        let own = few.into_iter().flatten().chain(many.into_iter().flatten());
        own.chain(of_groups.into_iter().flatten())
    }

    /// How many nodes of the tree, or filters, it looked at.
    pub(crate) fn matching<'t>(&'t self, topic: &str, found: &mut impl FnMut(&'t Route)) -> usize {
        match &self.routes {
            Routes::Few(routes) => {
                let matching = routes.iter().filter(|route| matches(&route.filter, topic));
                matching.for_each(found);
                routes.len()
            }
            Routes::Many(tree) => tree.matching(topic, found),
        }
    }

    pub(crate) fn retained_matching(&self, filter: &str, now_ms: u64) -> Vec<Arc<Publish>> {
        let retained = self.retained.as_deref();
        retained.map_or_else(Vec::new, |retained| retained.matching(filter, now_ms))
    }

    /// Whether it can be had again from the store: no live interest, nothing under way.
    pub(crate) fn is_droppable(&self) -> bool {
        let all_persistent = match &self.routes {
            Routes::Few(routes) => routes.iter().all(|route| route.persistent),
            Routes::Many(tree) => tree.iter().all(|route| route.persistent),
        };
        // A group's members are persistent too, or connected.
        let anyone_here = self.groups.as_deref().is_some_and(Groups::is_anyone_here);
        self.busy == 0 && all_persistent && !anyone_here
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::route;
    use super::*;

    #[test]
    fn a_key_with_many_routes_answers_like_one_with_few() {
        let mut home = TopicHome::new(0);
        let routes: Vec<_> = (0..30).map(|n| route(&format!("a/b/{}", n % 10))).collect();
        for route in &routes {
            assert!(home.insert(route.clone()).is_none());
        }
        let mut found = 0;
        home.matching("a/b/3", &mut |_| found += 1);
        assert_eq!(found, 3);
        for route in &routes {
            assert!(home.remove(route.session, &route.filter, None).is_some());
        }
        home.matching("a/b/3", &mut |_| found += 1);
        assert_eq!(found, 3);
    }

    #[test]
    fn a_route_reads_back_from_its_row() {
        let original = Route {
            subscription_id: Some(7),
            no_local: true,
            qos: 2,
            ..route("a/b/#")
        };
        let key = Key::Topic("a/b".into());
        let Op::Insert { element, value, .. } = put_route(&key, &original) else {
            panic!("an insert")
        };
        assert_eq!(read_route(&element, value), Some(original));
    }
}
