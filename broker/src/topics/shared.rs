//! A publish and the groups that it is for (decision 0006): one member of each is asked to take it, and another one if
//! that one is away, gone or full.

use std::collections::VecDeque;
use std::sync::Arc;

use godwit_cluster::{Cx, Reply};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand, UserCommand};
use godwit_wire::ids::{Key, SessionId};
use godwit_wire::topic::filter_key;

use super::groups::{But, Chosen, Groups};
use super::home::drop_route;
use super::nodes::copies;
use super::publish::Publishing;
use super::{Step, Topics};

/// Members that said that they are away; the next one is to take the publish as it is.
const ASKED: u8 = 32;
/// Members that refuse for now (their store stands still, or the link to them broke), or with QoS 2 how often one does,
/// until the publish is refused.
const REFUSED: u8 = 3;
/// Members that are full until one that is away, or else the first of them, takes the publish. One without the right to its
/// topic does not count: all others are asked before it is nobody's.
const PASSED: usize = 32;

/// A member that was asked.
#[derive(Debug)]
pub(super) struct Sharing {
    /// The publish.
    pub(super) place: usize,
    /// The group.
    filter: Arc<str>,
    /// Who is not to get it: who had it, and those that would not take it.
    but: But,
    /// Those that were full, in the order in which they said so; at most one more than [`PASSED`].
    full: VecDeque<SessionId>,
    /// Who was asked last.
    asked: Option<Route>,
    /// It may have taken the publish, and how it answered was lost: with QoS 2 nobody else may be asked before it says that
    /// it has not. It knows a message that it has.
    again: Option<Route>,
    /// Nobody was.
    first: bool,
    /// Only because it may have come unheard.
    only_asked: bool,
    /// It was to take the publish without a client too.
    waits: bool,
    /// And although it is full.
    takes: bool,
    away: u8,
    refused: u8,
}

impl Sharing {
    pub(super) fn new(place: usize, filter: Arc<str>, except: Option<SessionId>) -> Self {
        let mut but = But::default();
        if let Some(session) = except {
            but.session(session);
        }
        Self {
            place,
            filter,
            but,
            full: VecDeque::new(),
            asked: None,
            again: None,
            first: true,
            only_asked: false,
            waits: false,
            takes: false,
            away: 0,
            refused: 0,
        }
    }

    /// Who is asked next. `None`: there is no member that was not asked, or that is full and still there.
    fn next(&mut self, groups: &mut Groups, now_ms: u64) -> Option<Chosen> {
        let (filter, but) = (&self.filter, &mut self.but);
        loop {
            if !self.takes {
                let chosen = match self.full.len() {
                    _ if std::mem::take(&mut self.first) => groups.choose_first(filter, but, now_ms),
                    ..PASSED => groups.choose(filter, but),
                    PASSED => groups.choose_away(filter, but),
                    _ => None,
                };
                if chosen.is_some() || self.full.is_empty() {
                    return chosen;
                }
            }
            self.takes = true;
            while let Some(session) = self.full.pop_front() {
                if let Some(member) = groups.get(session, filter) {
                    return Some(Chosen {
                        member: member.clone(),
                        here: false,
                        only_asked: false,
                    });
                }
            }
            // All of them went in between: those that were not asked because of them.
            self.takes = false;
        }
    }
}

impl Topics {
    fn groups_at(&mut self, key: &Key) -> Option<&mut Groups> {
        match key {
            Key::Topic(levels) => self.homes.get_mut(levels)?.groups.as_deref_mut(),
            _ => Some(&mut self.wildcards.groups),
        }
    }

    /// The groups that a topic is for.
    pub(super) fn groups_of(&self, key: &Key, topic: &str) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        let mut take = |filter: &Arc<str>| found.push(filter.clone());
        if let Key::Topic(levels) = key
            && let Some(groups) = self.homes.get(levels).and_then(|home| home.groups.as_deref())
        {
            groups.matching(topic, &mut take);
        }
        if !self.wildcards.groups.is_empty() {
            self.wildcards.groups.matching(topic, &mut take);
        }
        found
    }

    /// Asks the next member of a group. This part of the publish ends at once if there is none.
    pub(super) fn share(&mut self, cx: &mut Cx<'_>, mut sharing: Sharing) {
        let Some(publish) = self.publishing.get(sharing.place).map(|one| one.publish.clone()) else {
            return;
        };
        let key = filter_key(&sharing.filter);
        let now = cx.now().mono_ms;
        let groups = self.groups_at(&key);
        let chosen = match sharing.again.take() {
            Some(member) => Some(Chosen {
                member,
                here: !sharing.waits,
                only_asked: sharing.only_asked,
            }),
            None => groups.and_then(|groups| sharing.next(groups, now)),
        };
        // QoS 0 waits for nobody.
        let Some(Chosen {
            member,
            here,
            only_asked,
        }) = chosen.filter(|chosen| chosen.here || publish.qos > 0)
        else {
            self.publish_part_done(cx, sharing.place, None);
            return;
        };
        sharing.only_asked = only_asked;
        sharing.waits = !here || sharing.away >= ASKED;
        let share = UserCommand::Share {
            publish,
            session: member.session,
            filter: sharing.filter.clone(),
            waits: sharing.waits,
            last: sharing.takes,
        };
        let user = member.user;
        sharing.asked = Some(member);
        let tag = self.step(Step::Share(Box::new(sharing)));
        cx.ask(tag, Key::User(user), Command::User(share));
    }

    /// A member answered.
    pub(super) fn shared(&mut self, cx: &mut Cx<'_>, mut sharing: Sharing, answer: Answer) {
        let Some(asked) = sharing.asked.take() else { return };
        let key = filter_key(&sharing.filter);
        match answer {
            Answer::Kept { gone } if gone.is_empty() => {
                self.metrics.shared.inc();
                if sharing.only_asked
                    && let Some(groups) = self.groups_at(&key)
                {
                    groups.is_here(asked.session, &sharing.filter, true);
                }
                if let Some(publishing) = self.publishing.get_mut(sharing.place) {
                    publishing.matched = true;
                }
                self.publish_part_done(cx, sharing.place, None);
            }
            Answer::Kept { .. } => {
                self.member_gone(cx, &key, asked);
                self.share(cx, sharing);
            }
            Answer::Away => {
                if let Some(groups) = self.groups_at(&key) {
                    groups.is_here(asked.session, &sharing.filter, false);
                }
                sharing.away = sharing.away.saturating_add(1);
                if sharing.waits {
                    // Its route says more than its subscription: QoS 1, where it has QoS 0 by now.
                    sharing.but.session(asked.session);
                }
                self.share(cx, sharing);
            }
            // It has no right to this topic: others may have it, those of other users first.
            Answer::Refused(refusal) if refusal.code == Code::Forbidden => {
                sharing.but.session(asked.session);
                sharing.but.user(asked.user);
                self.share(cx, sharing);
            }
            // It has no room.
            Answer::Refused(refusal) if refusal.code == Code::Quota && !sharing.takes => {
                sharing.but.session(asked.session);
                sharing.full.push_back(asked.session);
                self.share(cx, sharing);
            }
            Answer::Refused(refusal) if sharing.takes || sharing.refused >= REFUSED => {
                self.publish_part_done(cx, sharing.place, Some(refusal.into()));
            }
            _ => {
                sharing.refused += 1;
                let publishing = self.publishing.get(sharing.place);
                let once = publishing.is_some_and(|one| one.publish.qos.min(asked.qos) == 2);
                sharing.again = once.then_some(asked);
                self.share(cx, sharing);
            }
        }
    }

    /// A member is none any more: its route goes.
    fn member_gone(&mut self, cx: &mut Cx<'_>, key: &Key, route: Route) {
        self.metrics.routes_gone.inc();
        if *key == Key::Wildcards {
            // Here at once, or it is asked again; there, and in its row, by who writes it.
            self.wildcards
                .remove(route.session, &route.filter, Some(route.route_id));
            cx.tell(key.clone(), Command::Topic(TopicCommand::Unsubscribe { route }));
            return;
        }
        if let Some(home) = self.home(key) {
            home.remove(route.session, &route.filter, Some(route.route_id));
        }
        if route.persistent {
            let tag = self.step(Step::Lazy);
            cx.store(key, tag, vec![drop_route(key, &route)]);
        }
    }

    /// See [`TopicCommand::Share`].
    pub(super) fn share_again(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        filter: Arc<str>,
        publish: Arc<Publish>,
        from: SessionId,
        reply: Reply,
    ) {
        if cx.overfull() {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        if let Some(home) = self.home(key) {
            home.busy += 1;
        }
        let place = self.publishing.insert(Publishing::new(key, &publish, reply, 1));
        self.share(cx, Sharing::new(place, filter, Some(from)));
    }

    /// See [`TopicCommand::Member`].
    pub(super) fn member(
        &mut self,
        cx: &mut Cx<'_>,
        key: &Key,
        filter: Box<str>,
        (session, here): (SessionId, bool),
        reply: Reply,
    ) {
        if let Some(groups) = self.groups_at(key) {
            groups.is_here(session, &filter, here);
        }
        if *key == Key::Wildcards {
            for place in copies(cx) {
                let copy = TopicCommand::Member {
                    filter: filter.clone(),
                    session,
                    here,
                };
                cx.tell(place, Command::Topic(copy));
            }
        }
        cx.answer(reply, Answer::Done);
    }
}
