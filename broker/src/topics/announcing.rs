//! The interest of sessions in memory, as their users' homes announce it to topics' homes that were just taken up
//! (docs/decisions/0011-many-nodes.md). Who asks for it is in `nodes`.

use std::collections::VecDeque;

use godwit_cluster::{Cx, Reply};
use godwit_store::View;
use godwit_wire::command::{Answer, Command, Route, TopicCommand};
use godwit_wire::ids::Key;
use godwit_wire::topic::filter_key;

use super::nodes::Relaying;
use super::{Step, Topics};

/// Routes that a worker announces and that are not answered: it waits for them before it goes on, so that clients' own
/// requests have room on the links.
const ANNOUNCED_AT_ONCE: usize = 1_024;
/// So often what was refused is announced again with nothing taken in between (5 s); then, and when the view is another, the whole is asked for anew.
const REFUSED_AGAIN: u32 = 25;

/// Routes that are being announced.
#[derive(Debug)]
pub(super) struct Announcing {
    left: VecDeque<Route>,
    /// What was refused for now: announced again after a pause.
    refused: Vec<Route>,
    /// Pauses since one was taken.
    pauses: u32,
    /// The view in which it was asked for.
    view: Option<View>,
    relaying: Relaying,
}

impl Topics {
    /// See [`TopicCommand::Interest`]: to one worker, whose users' routes these are.
    pub(crate) fn announce(&mut self, cx: &mut Cx<'_>, routes: Vec<Route>, reply: Reply) {
        if routes.is_empty() {
            cx.answer(reply, Answer::Done);
            return;
        }
        let place = self.announcing.insert(Announcing {
            relaying: Relaying::new(reply, 0),
            left: routes.into(),
            refused: Vec::new(),
            pauses: 0,
            view: cx.standing().map(|standing| standing.number),
        });
        for _ in 0..ANNOUNCED_AT_ONCE {
            self.announce_next(cx, place);
        }
    }

    fn announce_next(&mut self, cx: &mut Cx<'_>, place: usize) {
        let Some(announcing) = self.announcing.get_mut(place) else {
            return;
        };
        let Some(route) = announcing.left.pop_front() else {
            return;
        };
        announcing.relaying.outstanding += 1;
        let key = filter_key(&route.filter);
        let tag = self.step(Step::Announce(place, Box::new(route.clone())));
        cx.ask(tag, key, Command::Topic(TopicCommand::Announce { route }));
    }

    pub(super) fn announce_told(&mut self, cx: &mut Cx<'_>, place: usize, route: Route, answer: Answer) {
        let view = cx.standing().map(|standing| standing.number);
        let Some(announcing) = self.announcing.get_mut(place) else {
            return;
        };
        let is_tried_on = view == announcing.view
            && announcing.pauses < REFUSED_AGAIN
            && announcing.relaying.refusal.is_none();
        let answer = match answer {
            Answer::Refused(refusal) if is_tried_on && refusal.code.retryable() => {
                announcing.refused.push(route);
                Answer::Done
            }
            Answer::Refused(refusal) => {
                // It is asked again, for all of them.
                announcing.left.clear();
                announcing.refused.clear();
                Answer::Refused(refusal)
            }
            answer => {
                announcing.pauses = 0;
                answer
            }
        };
        let waits_for_none = announcing.relaying.took(answer);
        let is_paused = !announcing.refused.is_empty();
        if waits_for_none && announcing.left.is_empty() && !is_paused {
            self.announcing.remove(place).relaying.end(cx);
            return;
        }
        if is_paused {
            self.nodes_again(cx);
        }
        self.announce_next(cx, place);
    }

    /// After the pause: what was refused goes first, since it has waited longest.
    pub(super) fn announce_refused(&mut self, cx: &mut Cx<'_>) {
        let mut rooms = Vec::new();
        for (place, announcing) in &mut self.announcing {
            if announcing.refused.is_empty() {
                continue;
            }
            announcing.pauses += 1;
            for route in announcing.refused.drain(..).rev() {
                announcing.left.push_front(route);
            }
            rooms.push((
                place,
                ANNOUNCED_AT_ONCE.saturating_sub(announcing.relaying.outstanding),
            ));
        }
        for (place, room) in rooms {
            (0..room).for_each(|_| self.announce_next(cx, place));
        }
    }

    /// See [`TopicCommand::Announce`]. A key that is not in memory is not loaded for it.
    pub(super) fn announced(&mut self, cx: &mut Cx<'_>, key: &Key, route: Route, reply: Reply) {
        match key {
            Key::Topic(levels) => match self.homes.get_mut(levels) {
                Some(home) => home.insert_newer(route),
                None => {
                    let routes = self.unloaded.entry(levels.clone()).or_default();
                    routes.insert((route.session, route.route_id), route);
                }
            },
            _ => {
                self.wildcards.insert_newer(route, true);
                self.metrics.wildcards.set(self.wildcards.len() as i64);
            }
        }
        cx.answer(reply, Answer::Done);
    }
}
