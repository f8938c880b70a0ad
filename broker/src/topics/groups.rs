//! Groups of shared subscriptions (decision 0006): their members, who of them is connected, and whose turn it is. A match
//! costs what the topic's levels do, and a choice the same however many members there are. Asks nobody anything.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Route;
use godwit_wire::ids::SessionId;
use godwit_wire::limits::SHARE_MEMBERS;
use godwit_wire::topic::inner_filter;
use slab::Slab;
use uuid::Uuid;

use super::tree::TopicTree;

/// Members that would not take a publish until one is to take it if it may.
const PASSED: usize = 32;

/// Members in the order of their turns.
#[derive(Debug, Default)]
struct Turns {
    members: Vec<Route>,
    next: usize,
}

impl Turns {
    fn position(&self, session: SessionId) -> Option<usize> {
        self.members.iter().position(|member| member.session == session)
    }

    fn get(&self, session: SessionId) -> Option<&Route> {
        self.members.get(self.position(session)?)
    }

    fn take(&mut self, session: SessionId) -> Option<Route> {
        let at = self.position(session)?;
        // In order, so that nobody's turn is passed over.
        let taken = self.members.remove(at);
        if at < self.next {
            self.next -= 1;
        }
        Some(taken)
    }

    /// The next one but `except`, if there is one.
    fn choose(&mut self, except: Option<SessionId>) -> Option<Route> {
        for _ in 0..2 {
            let at = self.next.checked_rem(self.members.len())?;
            self.next = at + 1;
            let found = &self.members[at];
            if Some(found.session) != except {
                return Some(found.clone());
            }
        }
        None
    }
}

/// One group.
#[derive(Debug)]
struct Group {
    filter: Arc<str>,
    /// Those whose client is connected.
    here: Turns,
    /// The others, if they get QoS 1 or 2.
    away: Turns,
    /// The others, of QoS 0: there is nothing to be kept for them.
    deaf: Turns,
}

impl Group {
    fn all(&mut self) -> [&mut Turns; 3] {
        [&mut self.here, &mut self.away, &mut self.deaf]
    }

    fn len(&self) -> usize {
        self.here.members.len() + self.away.members.len() + self.deaf.members.len()
    }

    fn get(&self, session: SessionId) -> Option<&Route> {
        let found = self.here.get(session).or_else(|| self.away.get(session));
        found.or_else(|| self.deaf.get(session))
    }

    fn put(&mut self, route: Route, here: bool) {
        let turns = match (here, route.qos) {
            (true, _) => &mut self.here,
            (false, 0) => &mut self.deaf,
            (false, _) => &mut self.away,
        };
        turns.members.push(route);
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) member: Route,
    /// It is known to be connected.
    pub(super) here: bool,
    /// All others were passed over, or enough of them.
    pub(super) last: bool,
}

/// The groups under one key.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// One route for each group: its inner filter, and its place in `groups` for a session.
    tree: TopicTree,
    groups: Slab<Group>,
    places: HashMap<Arc<str>, usize>,
    routes: usize,
    here: usize,
}

fn mark(place: usize, filter: &str, of: &Route) -> Route {
    Route {
        session: SessionId(Uuid::from_u128(place as u128)),
        filter: inner_filter(filter).into(),
        ..of.clone()
    }
}

impl Groups {
    /// Members of all groups.
    pub(super) fn len(&self) -> usize {
        self.routes
    }

    /// Whether nobody is in any.
    pub(super) fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// Whether somebody is connected: that is known in memory only.
    pub(super) fn is_anyone_here(&self) -> bool {
        self.here > 0
    }

    fn group(&self, filter: &str) -> Option<&Group> {
        self.groups.get(*self.places.get(filter)?)
    }

    /// The route of a member.
    pub(super) fn get(&self, session: SessionId, filter: &str) -> Option<&Route> {
        self.group(filter)?.get(session)
    }

    /// Whether one more may come in: `quota` if there are too many. Who is in always may.
    pub(super) fn check(&self, route: &Route) -> Result<(), Refusal> {
        let full = |group: &Group| group.len() >= SHARE_MEMBERS && group.get(route.session).is_none();
        if self.group(&route.filter).is_some_and(full) {
            return Err(Refusal::new(Code::Quota, "no more members in this group"));
        }
        Ok(())
    }

    /// Puts a member in; its route that this one replaces comes back.
    pub(super) fn insert(&mut self, route: Route, here: bool) -> Option<Route> {
        let place = match self.places.get(&*route.filter) {
            Some(place) => *place,
            None => {
                let filter: Arc<str> = (*route.filter).into();
                let place = self.groups.insert(Group {
                    filter: filter.clone(),
                    here: Turns::default(),
                    away: Turns::default(),
                    deaf: Turns::default(),
                });
                self.tree.insert(mark(place, &filter, &route));
                self.places.insert(filter, place);
                place
            }
        };
        let old = self.take(place, route.session);
        self.here += usize::from(here);
        self.routes += 1;
        if let Some(group) = self.groups.get_mut(place) {
            group.put(route, here);
        }
        old
    }

    fn take(&mut self, place: usize, session: SessionId) -> Option<Route> {
        let group = self.groups.get_mut(place)?;
        let here = group.here.members.len();
        let old = group.all().into_iter().find_map(|turns| turns.take(session))?;
        self.here -= here - group.here.members.len();
        self.routes -= 1;
        Some(old)
    }

    /// Takes a member out; with a `route_id` only if it is still that one.
    pub(super) fn remove(
        &mut self,
        session: SessionId,
        filter: &str,
        route_id: Option<u64>,
    ) -> Option<Route> {
        let place = *self.places.get(filter)?;
        let found = self.groups.get(place)?.get(session)?;
        if route_id.is_some_and(|id| id != found.route_id) {
            return None;
        }
        let old = self.take(place, session)?;
        if self.groups.get(place).is_some_and(|group| group.len() == 0) {
            self.groups.remove(place);
            self.places.remove(filter);
            let mark = mark(place, filter, &old);
            self.tree.remove(mark.session, &mark.filter, None);
        }
        Some(old)
    }

    /// A member's client came or went.
    pub(super) fn is_here(&mut self, session: SessionId, filter: &str, here: bool) {
        let Some(place) = self.places.get(filter).copied() else {
            return;
        };
        let was = |group: &Group| group.here.get(session).is_some();
        if self.groups.get(place).is_some_and(was) == here {
            return;
        }
        if let Some(route) = self.take(place, session) {
            self.insert(route, here);
        }
    }

    /// Calls `found` for the filter of every group that a topic name is for.
    pub(super) fn matching(&self, topic: &str, found: &mut impl FnMut(&Arc<str>)) {
        self.tree.matching(topic, &mut |mark| {
            // It was made from such a number.
            let place = usize::try_from(mark.session.0.as_u128()).unwrap_or(usize::MAX);
            if let Some(group) = self.groups.get(place) {
                found(&group.filter);
            }
        });
    }

    /// Whose turn it is in a group, but not `except`: who is connected, or who can be kept something for. `passed`: so many
    /// would not take it (full, or without the right to this topic); when all that are connected would not, one that is
    /// not is asked, and a connected one again only when there is none.
    pub(super) fn choose(
        &mut self,
        filter: &str,
        except: Option<SessionId>,
        passed: usize,
    ) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let chosen = |member, here, last| Chosen { member, here, last };
        let all_passed = passed >= PASSED || (passed > 0 && passed >= group.here.members.len());
        if !all_passed && let Some(member) = group.here.choose(except) {
            return Some(chosen(member, true, false));
        }
        if let Some(member) = group.away.choose(except) {
            return Some(chosen(member, false, passed >= PASSED));
        }
        let member = group.here.choose(except)?;
        Some(chosen(member, true, true))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::route;
    use super::*;

    fn chosen(groups: &mut Groups, filter: &str, times: usize) -> Vec<SessionId> {
        let mut all = Vec::new();
        for _ in 0..times {
            all.extend(groups.choose(filter, None, 0).map(|one| one.member.session));
        }
        all
    }

    #[test]
    fn connected_members_take_turns_and_the_others_only_when_nobody_is() {
        let mut groups = Groups::default();
        let filter = "$share/g/a/#";
        let all: Vec<Route> = (0..4).map(|_| route(filter)).collect();
        for (n, one) in all.iter().enumerate() {
            assert!(
                groups
                    .insert(
                        Route {
                            qos: 1,
                            ..one.clone()
                        },
                        n < 2
                    )
                    .is_none()
            );
        }
        let turns = chosen(&mut groups, filter, 4);
        assert_eq!(
            turns,
            [all[0].session, all[1].session, all[0].session, all[1].session]
        );
        groups.is_here(all[0].session, filter, false);
        assert_eq!(chosen(&mut groups, filter, 2), [all[1].session; 2]);
        groups.is_here(all[1].session, filter, false);
        assert!(!groups.is_anyone_here());
        let mut turns = chosen(&mut groups, filter, 4);
        turns.sort_unstable();
        turns.dedup();
        assert_eq!(turns.len(), 4, "each once");
        groups.is_here(all[3].session, filter, true);
        assert_eq!(chosen(&mut groups, filter, 2), [all[3].session; 2]);
        let other = groups.choose(filter, Some(all[3].session), 0);
        assert!(other.is_some_and(|one| !one.here && one.member.session != all[3].session));
    }

    #[test]
    fn nothing_is_kept_for_a_member_of_qos_0_that_is_away() {
        let mut groups = Groups::default();
        let deaf = Route {
            qos: 0,
            ..route("$share/g/a")
        };
        groups.insert(deaf.clone(), false);
        assert!(groups.choose("$share/g/a", None, 0).is_none());
        groups.is_here(deaf.session, "$share/g/a", true);
        assert!(groups.choose("$share/g/a", None, 0).is_some());
    }

    #[test]
    fn a_topic_finds_each_group_of_its_filters_once_and_an_empty_group_is_gone() {
        let mut groups = Groups::default();
        let members = [
            "$share/g/a/+",
            "$share/g/a/+",
            "$share/h/a/+",
            "$share/g/#",
            "$share/g/b",
        ]
        .map(route);
        for one in &members {
            groups.insert(one.clone(), true);
        }
        let found = |groups: &Groups| {
            let mut found = Vec::new();
            groups.matching("a/b", &mut |filter| found.push(filter.to_string()));
            found.sort();
            found
        };
        assert_eq!(found(&groups), ["$share/g/#", "$share/g/a/+", "$share/h/a/+"]);
        let newer = Route {
            route_id: 9,
            ..members[3].clone()
        };
        assert_eq!(groups.insert(newer, true), Some(members[3].clone()));
        assert!(
            groups
                .remove(members[3].session, "$share/g/#", Some(members[3].route_id))
                .is_none()
        );
        for one in &members {
            assert!(groups.remove(one.session, &one.filter, None).is_some());
        }
        assert!(found(&groups).is_empty() && groups.is_empty() && groups.places.is_empty());
        assert!(groups.tree.is_empty() && !groups.is_anyone_here());
    }

    #[test]
    fn a_group_has_a_most_of_members_and_who_is_in_may_subscribe_again() {
        let mut groups = Groups::default();
        let first = route("$share/g/a");
        groups.insert(first.clone(), true);
        for _ in 1..SHARE_MEMBERS {
            let one = route("$share/g/a");
            assert!(groups.check(&one).is_ok());
            groups.insert(one, false);
        }
        let refused = groups.check(&route("$share/g/a")).map_err(|refusal| refusal.code);
        assert_eq!(refused, Err(Code::Quota));
        assert!(groups.check(&first).is_ok() && groups.check(&route("$share/h/a")).is_ok());
    }

    #[test]
    fn when_all_that_are_connected_would_not_take_it_one_that_is_not_is_asked_and_else_the_last_takes_it() {
        let mut groups = Groups::default();
        let filter = "$share/g/a/#";
        let [one, two, away] = [0, 1, 2].map(|_| Route {
            qos: 1,
            ..route(filter)
        });
        groups.insert(one, true);
        groups.insert(two, true);
        groups.insert(away.clone(), false);
        let mut ask = |passed| {
            let chosen = groups.choose(filter, None, passed).unwrap();
            (chosen.member.session == away.session, chosen.here, chosen.last)
        };
        assert_eq!(ask(0), (false, true, false));
        assert_eq!(ask(1), (false, true, false));
        assert_eq!(ask(2), (true, false, false));
        assert_eq!(ask(PASSED), (true, false, true));
        groups.remove(away.session, filter, None);
        let chosen = groups.choose(filter, None, 2).unwrap();
        assert!(chosen.here && chosen.last);
    }
}
