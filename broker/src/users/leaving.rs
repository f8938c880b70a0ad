//! Routes whose subscriptions have ended, so many at a time: a crowd that goes has a hundred thousand of them, each of which its topic's
//! home, or every worker's copy of the early wildcards, is told, and what others ask would wait behind. A route may outlive its
//! subscription: what comes by it is dropped.

use std::collections::{HashMap, VecDeque};

use godwit_cluster::Cx;
use godwit_wire::command::{Command, Route, TopicCommand};
use godwit_wire::ids::UserId;
use godwit_wire::topic::filter_key;

use super::env::{Env, Ticket, Tickets, What};
use super::{NOBODY, Users};
use crate::part::Part;

/// Routes that homes of topics are told of in a turn, 2 to 5 µs each here and there.
pub(super) const A_TURN: usize = 256;
/// When the next of them go if nothing else happens, milliseconds.
const AGAIN_MS: u64 = 1;

/// Routes of this worker's users that are to go. Bounded by the subscriptions that there are.
#[derive(Default)]
pub(crate) struct Leaving {
    waiting: HashMap<UserId, Vec<Route>>,
    /// Users who have some, in the order in which they came; some who have none any more.
    line: VecDeque<UserId>,
    /// Told of in this turn.
    told: usize,
    /// The next turn comes by itself.
    comes: bool,
}

impl Leaving {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next one, if this turn has a part left.
    fn next(&mut self) -> Option<Route> {
        if self.told == A_TURN {
            return None;
        }
        loop {
            let user = self.line.front()?;
            if let Some(route) = self.waiting.get_mut(user).and_then(Vec::pop) {
                self.told += 1;
                return Some(route);
            }
            self.waiting.remove(user);
            self.line.pop_front();
        }
    }
}

/// Removes routes whose subscriptions have ended durably.
pub(crate) fn unroute(env: &mut Env<'_, '_>, routes: Vec<Route>) {
    let (user, leaving) = (env.user, &mut env.common.leaving);
    if routes.is_empty() {
        return;
    }
    if !leaving.waiting.contains_key(&user) {
        leaving.line.push_back(user);
    }
    leaving.waiting.entry(user).or_default().extend(routes);
    while let Some(route) = env.common.leaving.next() {
        tell(env.cx, route);
    }
    come_again(&mut env.common.leaving, &mut env.common.tickets, env.cx);
}

/// The next turn comes by itself where something is left: this one's end may be over.
fn come_again(leaving: &mut Leaving, tickets: &mut Tickets, cx: &mut Cx<'_>) {
    if !leaving.is_empty() && !std::mem::replace(&mut leaving.comes, true) {
        let tag = Part::Users.tag(tickets.issue(Ticket {
            user: NOBODY,
            what: What::Leave,
        }));
        cx.after(AGAIN_MS, tag);
    }
}

/// Before a user subscribes: what it has left takes no room that it may have.
pub(crate) fn unroute_all(env: &mut Env<'_, '_>) {
    let (user, leaving) = (env.user, &mut env.common.leaving);
    let Some(routes) = leaving.waiting.remove(&user) else {
        return;
    };
    leaving.line.retain(|one| *one != user);
    for route in routes {
        tell(env.cx, route);
    }
}

fn tell(cx: &mut Cx<'_>, route: Route) {
    let key = filter_key(&route.filter);
    cx.tell(key, Command::Topic(TopicCommand::Unsubscribe { route }));
}

impl Users {
    /// The end of a turn: a part of those that wait.
    pub(super) fn unroute_some(&mut self, cx: &mut Cx<'_>) {
        let leaving = &mut self.common.leaving;
        leaving.told = 0;
        while let Some(route) = leaving.next() {
            tell(cx, route);
        }
        come_again(leaving, &mut self.common.tickets, cx);
    }

    /// The end of this turn goes on.
    pub(super) fn leave_timer(&mut self) {
        self.common.leaving.comes = false;
    }
}
