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

/// How often a group asks a member that is believed to be away, milliseconds: one that came and was not heard of is found
/// by it, as is one that is no more.
const ASK_AWAY_MS: u64 = 1_000;

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

    /// The next one but those, if there is one.
    fn choose(&mut self, but: &[SessionId]) -> Option<Route> {
        for _ in 0..=but.len() {
            let at = self.next.checked_rem(self.members.len())?;
            self.next = at + 1;
            let found = &self.members[at];
            if !but.contains(&found.session) {
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
    /// When one that is believed to be away was asked last; 0: never.
    asked_away_ms: u64,
    /// It was one of QoS 0.
    asked_deaf: bool,
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
    /// It is believed to be connected.
    pub(super) here: bool,
    /// Others are known to be connected: it is asked whether it is, too.
    pub(super) only_asked: bool,
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
                    asked_away_ms: 0,
                    asked_deaf: false,
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

    /// Whose turn it is in a group, but none of those: who is connected; if there is none, who can be kept something for.
    pub(super) fn choose(&mut self, filter: &str, but: &[SessionId]) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let Some(member) = group.here.choose(but) else {
            return self.choose_away(filter, but);
        };
        Some(Chosen {
            member,
            here: true,
            only_asked: false,
        })
    }

    /// Whose turn it is among those that are not connected, but none of those.
    pub(super) fn choose_away(&mut self, filter: &str, but: &[SessionId]) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let member = group.away.choose(but)?;
        Some(Chosen {
            member,
            here: false,
            only_asked: false,
        })
    }

    /// As [`Groups::choose`], for the first to be asked: now and then, in turn, one that is believed to be away although
    /// others are connected.
    pub(super) fn choose_first(&mut self, filter: &str, but: &[SessionId], now_ms: u64) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let nobody_else = group.away.members.is_empty() && group.deaf.members.is_empty();
        if !nobody_else && now_ms.saturating_sub(group.asked_away_ms) >= ASK_AWAY_MS {
            // The first publish only starts the clock.
            let starts = std::mem::replace(&mut group.asked_away_ms, now_ms.max(1)) == 0;
            group.asked_deaf = !group.asked_deaf;
            let deaf = match group.asked_deaf {
                true => group.deaf.choose(but),
                false => None,
            };
            // With nobody connected these get their turns without this.
            let away = match deaf.is_none() && !group.here.members.is_empty() {
                true => group.away.choose(but),
                false => None,
            };
            let found = deaf.or(away).or_else(|| group.deaf.choose(but));
            if let Some(member) = found.filter(|_| !starts) {
                return Some(Chosen {
                    member,
                    here: true,
                    only_asked: true,
                });
            }
        }
        self.choose(filter, but)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::route;
    use super::*;

    fn chosen(groups: &mut Groups, filter: &str, times: usize) -> Vec<SessionId> {
        let mut all = Vec::new();
        for _ in 0..times {
            all.extend(groups.choose(filter, &[]).map(|one| one.member.session));
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
        let other = groups.choose(filter, &[all[3].session]);
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
        assert!(groups.choose("$share/g/a", &[]).is_none());
        groups.is_here(deaf.session, "$share/g/a", true);
        assert!(groups.choose("$share/g/a", &[]).is_some());
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
    fn who_would_not_take_it_is_not_asked_again_and_one_that_is_away_is_when_no_connected_one_would() {
        let mut groups = Groups::default();
        let filter = "$share/g/a/#";
        let [one, two, away] = [0, 1, 2].map(|_| Route {
            qos: 1,
            ..route(filter)
        });
        groups.insert(one.clone(), true);
        groups.insert(two.clone(), true);
        groups.insert(away.clone(), false);
        let mut ask = |but: &[SessionId]| {
            let chosen = groups.choose(filter, but);
            chosen.map(|chosen| (chosen.member.session, chosen.here))
        };
        // Whoever else had a turn in between.
        for _ in 0..3 {
            assert_eq!(ask(&[one.session]), Some((two.session, true)));
            assert_eq!(ask(&[two.session]), Some((one.session, true)));
        }
        assert_eq!(ask(&[one.session, two.session]), Some((away.session, false)));
        assert_eq!(ask(&[one.session, away.session, two.session]), None);
    }

    #[test]
    fn who_is_believed_to_be_away_is_asked_now_and_then_in_turn() {
        let mut groups = Groups::default();
        let filter = "$share/g/a/#";
        let here = route(filter);
        groups.insert(here.clone(), true);
        let others: Vec<Route> = (0..4)
            .map(|n| Route {
                qos: n % 2,
                ..route(filter)
            })
            .collect();
        for one in &others {
            groups.insert(one.clone(), false);
        }
        let mut asked = Vec::new();
        for tenth in 0..61 {
            let chosen = groups.choose_first(filter, &[], 5_000 + tenth * 100).unwrap();
            if chosen.only_asked {
                asked.push(chosen.member.session);
            } else {
                assert_eq!(chosen.member.session, here.session);
            }
        }
        assert_eq!(asked.len(), 6, "once a second");
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 4, "each of them");
    }
}
