//! Connections after a change of the rules of ordinary topics: whose client has subscribed what it may not any more is told so and
//! closed, so that it learns of it; its session stays, with what it is owed and may have. What leaves is checked anyway when it leaves.

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

/// What is still to be looked at after a change.
pub(super) struct Review {
    /// The rules before it.
    old: Arc<Acl>,
    rest: Vec<ConnId>,
}

impl Users {
    /// The rules of ordinary topics are these from now on, also for what is subscribed and owed already.
    pub(crate) fn new_rules(&mut self, acl: Arc<Acl>) {
        let old = self.common.config.acl.clone();
        self.common.config = Arc::new(super::UsersConfig {
            acl,
            ..(*self.common.config).clone()
        });
        let rest = self.common.conns.keys().copied().collect();
        match &mut self.review {
            // Some have not been looked at since the change before: for them it is both.
            Some(review) => review.rest = rest,
            review => *review = Some(Review { old, rest }),
        }
    }

    /// Looks at some connections that were there at the change; goes on by itself.
    pub(crate) fn review(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        let Some(mut review) = self.review.take() else {
            return;
        };
        let mut filters = 0;
        for _ in 0..CONNS_A_TURN {
            if filters >= FILTERS_A_TURN {
                break;
            }
            let Some(conn) = review.rest.pop() else { break };
            let Some(user) = self.common.conns.get(&conn).copied() else {
                continue;
            };
            let (new, mut lost) = (self.common.config.acl.clone(), false);
            if let Some(session) = self.homes.get_mut(&user).and_then(|home| home.session_at(conn))
                && let Some(live) = session.live.as_deref()
            {
                filters += session.subscriptions.len();
                let may = |acl: &Acl, filter: &str| {
                    acl.may_subscribe(&live.principal, &session.client_id, inner_filter(filter))
                };
                lost = session
                    .subscriptions
                    .iter()
                    .any(|one| !may(&new, &one.filter) && may(&review.old, &one.filter));
            }
            if lost {
                self.common.metrics.rights_lost.inc();
                self.with_quietly(cx, wire, user, |home, env| {
                    home.close_connection(env, conn, REVOKED);
                });
            }
        }
        if !review.rest.is_empty() {
            self.review = Some(review);
            let ticket = Ticket {
                user: NOBODY,
                what: What::Review,
            };
            cx.after(PAUSE_MS, Part::Users.tag(self.common.tickets.issue(ticket)));
        }
    }
}
