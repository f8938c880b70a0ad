//! Connections after a change of the rules of ordinary topics: whose client has subscribed what it may not any more is told so and
//! closed, so that it learns of it; its session stays, with what it is owed and may have. What leaves is checked anyway when it leaves.

use std::collections::HashSet;
use std::sync::Arc;

use godwit_accounts::Acl;
use godwit_cluster::Cx;
use godwit_wire::topic::inner_filter;

use super::detach::REVOKED;
use super::env::{Ticket, What};
use super::{NOBODY, Users};
use crate::part::Part;
use crate::wire_trait::{ConnId, Wire};

/// Connections that are looked at in a turn.
const CONNS_A_TURN: usize = 1_024;
/// Their subscriptions, of which the last one's may overrun it: each is compared with every rule.
const FILTERS_A_TURN: usize = 4_096;
/// Until the next turn of these: 200,000 connections a second at most, so that a worker's are through within the 5 s that a change may take.
const PAUSE_MS: u64 = 5;

/// Rules of before changes that are remembered while connections are looked at. After still more changes those that were not looked at since are taken to
/// have lost whatever they have not now.
const CHANGES: usize = 16;

/// What is still to be looked at after a change, or after some that came before the first had been looked at everywhere.
#[derive(Default)]
pub(super) struct Review {
    /// The rules before each change.
    old: Vec<Arc<Acl>>,
    /// With the first of them that a connection was not looked at since; `None`: with any. Those that have waited longest come last, and are next.
    pub(super) rest: Vec<(ConnId, Option<usize>)>,
    /// A timer goes on with it.
    goes_on: bool,
}

impl Users {
    /// The rules of ordinary topics are these from now on, also for what is subscribed and owed already.
    pub(crate) fn new_rules(&mut self, acl: Arc<Acl>) {
        let old = self.common.config.acl.clone();
        self.common.config = Arc::new(super::UsersConfig {
            acl,
            ..(*self.common.config).clone()
        });
        let review = self.review.get_or_insert_default();
        if review.old.len() >= CHANGES {
            review.old.clear();
            review.rest.iter_mut().for_each(|(_, since)| *since = None);
        }
        let since = Some(review.old.len());
        review.old.push(old);
        // Some have not been looked at since changes before: for them it is all of these, and their time is over first.
        let waiting = std::mem::take(&mut review.rest);
        let known: HashSet<ConnId> = waiting.iter().map(|(conn, _)| *conn).collect();
        let others = self.common.conns.keys().filter(|conn| !known.contains(conn));
        review.rest = others.map(|conn| (*conn, since)).collect();
        review.rest.extend(waiting);
    }

    /// The timer after some connections.
    pub(super) fn review_goes_on(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        if let Some(review) = &mut self.review {
            review.goes_on = false;
        }
        self.review(cx, wire);
    }

    /// Looks at some connections that were there at a change; goes on by itself.
    pub(crate) fn review(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        let Some(mut review) = self.review.take() else {
            return;
        };
        let mut filters = 0;
        for _ in 0..CONNS_A_TURN {
            if filters >= FILTERS_A_TURN {
                break;
            }
            let Some((conn, since)) = review.rest.pop() else {
                break;
            };
            let Some(user) = self.common.conns.get(&conn).copied() else {
                continue;
            };
            let (new, mut lost) = (self.common.config.acl.clone(), false);
            if let Some(session) = self.homes.get_mut(&user).and_then(|home| home.session_at(conn))
                && let Some(live) = session.live.as_deref()
            {
                let before = since.map(|since| review.old.get(since..).unwrap_or_default());
                filters += session.subscriptions.len() * before.map_or(1, <[_]>::len);
                let may = |acl: &Acl, filter: &str| {
                    acl.may_subscribe(&live.principal, &session.client_id, inner_filter(filter))
                };
                let might = |filter| before.is_none_or(|old| old.iter().any(|old| may(old, filter)));
                lost = session
                    .subscriptions
                    .iter()
                    .any(|one| !may(&new, &one.filter) && might(&one.filter));
            }
            if lost {
                self.common.metrics.rights_lost.inc();
                self.with_quietly(cx, wire, user, |home, env| {
                    home.close_connection(env, conn, REVOKED);
                });
            }
        }
        if review.rest.is_empty() {
            return;
        }
        if !std::mem::replace(&mut review.goes_on, true) {
            let ticket = Ticket {
                user: NOBODY,
                what: What::Review,
            };
            cx.after(PAUSE_MS, Part::Users.tag(self.common.tickets.issue(ticket)));
        }
        self.review = Some(review);
    }
}
