//! Groups of shared subscriptions (decision 0006): their members, who of them is connected, and whose turn it is. A match
//! costs what the topic's levels do, and a choice the same however many members there are. Asks nobody anything.

use std::collections::HashMap;
use std::sync::Arc;

use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Route;
use godwit_wire::ids::{SessionId, UserId};
use godwit_wire::limits::SHARE_MEMBERS;
use godwit_wire::topic::inner_filter;
use slab::Slab;
use uuid::Uuid;

use super::tree::TopicTree;

/// How often a group asks a member that is believed to be away, milliseconds: one that came and was not heard of is found
/// by it, as is one that is no more.
const ASK_AWAY_MS: u64 = 1_000;

/// Who is not to be chosen for a publish: sessions, and as long as there is another one whoever is of the same user as one
/// that has no right to its topic. Bounded by the members of a group and one.
#[derive(Debug, Default)]
pub(super) struct But {
    /// In order, as are the users.
    sessions: Vec<SessionId>,
    users: Vec<UserId>,
    /// Nobody else is left: sessions of one user may differ in their rights by their client ids.
    users_too: bool,
}

impl But {
    pub(super) fn session(&mut self, session: SessionId) {
        if let Err(at) = self.sessions.binary_search(&session) {
            self.sessions.insert(at, session);
        }
    }

    /// All sessions of a user, for now.
    pub(super) fn user(&mut self, user: UserId) {
        if let Err(at) = self.users.binary_search(&user) {
            self.users.insert(at, user);
        }
    }

    fn allows(&self, member: &Route) -> bool {
        self.sessions.binary_search(&member.session).is_err()
    }

    fn prefers(&self, member: &Route) -> bool {
        self.allows(member) && self.users.binary_search(&member.user).is_err()
    }
}

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

    /// The next one of those, if there is one.
    fn choose(&mut self, may: impl Fn(&Route) -> bool) -> Option<Route> {
        for _ in 0..self.members.len() {
            let at = self.next.checked_rem(self.members.len())?;
            self.next = at + 1;
            let found = &self.members[at];
            if may(found) {
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

    /// All members' routes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.groups
            .iter()
            .flat_map(|(_, group)| [&group.here, &group.away, &group.deaf])
            .flat_map(|turns| &turns.members)
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
    pub(super) fn choose(&mut self, filter: &str, but: &mut But) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let mut found = match but.users_too {
            true => None,
            false => group.here.choose(|member| but.prefers(member)),
        };
        if found.is_none() && !but.users.is_empty() {
            but.users_too = true;
            found = group.here.choose(|member| but.allows(member));
        }
        let Some(member) = found else {
            return self.choose_away(filter, but);
        };
        Some(Chosen {
            member,
            here: true,
            only_asked: false,
        })
    }

    /// Whose turn it is among those that are not connected, but none of those.
    pub(super) fn choose_away(&mut self, filter: &str, but: &But) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let member = group.away.choose(|member| but.allows(member))?;
        Some(Chosen {
            member,
            here: false,
            only_asked: false,
        })
    }

    /// As [`Groups::choose`], for the first to be asked: now and then, in turn, one that is believed to be away although
    /// others are connected.
    pub(super) fn choose_first(&mut self, filter: &str, but: &mut But, now_ms: u64) -> Option<Chosen> {
        let group = self.groups.get_mut(*self.places.get(filter)?)?;
        let nobody_else = group.away.members.is_empty() && group.deaf.members.is_empty();
        if !nobody_else && now_ms.saturating_sub(group.asked_away_ms) >= ASK_AWAY_MS {
            // The first publish only starts the clock.
            let starts = std::mem::replace(&mut group.asked_away_ms, now_ms.max(1)) == 0;
            group.asked_deaf = !group.asked_deaf;
            let may = |member: &Route| but.allows(member);
            let deaf = match group.asked_deaf {
                true => group.deaf.choose(may),
                false => None,
            };
            // With nobody connected these get their turns without this.
            let away = match deaf.is_none() && !group.here.members.is_empty() {
                true => group.away.choose(may),
                false => None,
            };
            let found = deaf.or(away).or_else(|| group.deaf.choose(may));
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
mod tests;
