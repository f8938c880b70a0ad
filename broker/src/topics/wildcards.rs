//! The filters with a wildcard in their first two levels, of which every worker has a copy: their tree, and how many of
//! them each user has.

use std::collections::HashMap;

use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Route;
use godwit_wire::ids::{SessionId, UserId};
use godwit_wire::limits::WILDCARD_FILTERS;
use godwit_wire::topic::shared;

use super::groups::Groups;
use super::tree::TopicTree;

/// Most of them that one user has: all that there may be are for twenty users at least.
pub(super) const USER_WILDCARD_FILTERS: u32 = 5_000;

const _: () = assert!(USER_WILDCARD_FILTERS as usize * 20 <= WILDCARD_FILTERS);

/// One worker's copy.
#[derive(Debug, Default)]
pub(super) struct Wildcards {
    tree: TopicTree,
    /// The shared ones.
    pub(super) groups: Groups,
    of_user: HashMap<UserId, u32>,
}

impl Wildcards {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tree.len() + self.groups.len()
    }

    /// Puts one in; the one it replaces comes back. `here`: its client is connected.
    pub(super) fn insert(&mut self, route: Route, here: bool) -> Option<Route> {
        let user = route.user;
        let old = match shared(&route.filter) {
            Some(_) => self.groups.insert(route, here),
            None => self.tree.insert(route),
        };
        if old.is_none() {
            *self.of_user.entry(user).or_default() += 1;
        }
        old
    }

    /// Puts one in, unless there is one of the same SUBSCRIBE or a later one.
    pub(super) fn insert_newer(&mut self, route: Route, here: bool) {
        if self
            .get(&route)
            .is_none_or(|known| known.route_id < route.route_id)
        {
            self.insert(route, here);
        }
    }

    /// The one of the same session and filter.
    fn get(&self, route: &Route) -> Option<&Route> {
        match shared(&route.filter) {
            Some(_) => self.groups.get(route.session, &route.filter),
            None => self.tree.get(route.session, &route.filter),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.tree.iter().chain(self.groups.iter())
    }

    /// Takes one out; with a `route_id` only if it is still that one.
    pub(super) fn remove(&mut self, session: SessionId, filter: &str, route_id: Option<u64>) {
        let removed = match shared(filter) {
            Some(_) => self.groups.remove(session, filter, route_id),
            None => self.tree.remove(session, filter, route_id),
        };
        let Some(route) = removed else { return };
        if let Some(count) = self.of_user.get_mut(&route.user) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&route.user);
            }
        }
    }

    /// Whether one may come in: `quota` if there are too many. What takes an older one's place always may.
    pub(super) fn check(&self, route: &Route) -> Result<(), Refusal> {
        let of_user = self.of_user.get(&route.user).copied().unwrap_or_default();
        let full = self.len() >= WILDCARD_FILTERS || of_user >= USER_WILDCARD_FILTERS;
        if full && self.get(route).is_none() {
            let detail = "no more filters with a wildcard in the first two levels";
            return Err(Refusal::new(Code::Quota, detail));
        }
        self.groups.check(route)
    }

    /// Calls `found` for every one that matches the topic name.
    pub(super) fn matching<'t>(&'t self, topic: &str, found: &mut impl FnMut(&'t Route)) -> usize {
        self.tree.matching(topic, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::route;
    use super::*;

    #[test]
    fn a_user_takes_only_a_part_of_the_room_and_may_always_subscribe_again() {
        let mut wildcards = Wildcards::default();
        let first = route("+/0");
        for n in 0..USER_WILDCARD_FILTERS {
            let one = Route {
                filter: format!("+/{n}").into(),
                ..first.clone()
            };
            assert!(wildcards.check(&one).is_ok(), "filter {n}");
            wildcards.insert(one, true);
        }
        let more = Route {
            filter: "+/more".into(),
            ..first.clone()
        };
        assert_eq!(
            wildcards.check(&more).map_err(|refusal| refusal.code),
            Err(Code::Quota)
        );
        let again = Route {
            route_id: 2,
            ..first.clone()
        };
        assert!(
            wildcards.check(&again).is_ok(),
            "a re-subscription is not one more"
        );
        assert!(
            wildcards.check(&route("+/other")).is_ok(),
            "another user has room"
        );
        assert_eq!(wildcards.insert(again, true), Some(first.clone()));
        wildcards.remove(first.session, "+/0", Some(1));
        assert!(wildcards.check(&more).is_err(), "that one was replaced");
        wildcards.remove(first.session, "+/0", Some(2));
        assert!(wildcards.check(&more).is_ok());
    }
}
