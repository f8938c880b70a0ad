//! What comes back to this part — completions, reads, answers, timers — finds the home that it is for, by its ticket.

use godwit_cluster::Cx;
use godwit_store::{Outcome, ReadAnswer};
use godwit_wire::command::Answer;
use godwit_wire::ids::{Key, UserId};

use super::due::Look;
use super::env::{Ticket, What};
use super::{NOBODY, Users, handing, leaving, rates};
use crate::part::Part;
use crate::wire_trait::Wire;

impl Users {
    pub(super) fn take(&mut self, number: u64) -> Option<Ticket> {
        self.common.tickets.take(number)
    }

    pub(super) fn came_back(&mut self, user: UserId) {
        if let Some(home) = self.homes.get_mut(&user) {
            home.outstanding = home.outstanding.saturating_sub(1);
        }
    }

    /// A batch was completed.
    pub(crate) fn stored(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, number: u64, outcome: &Outcome) {
        let Some(Ticket { user, what }) = self.take(number) else {
            return;
        };
        self.came_back(user);
        if *outcome != Outcome::Stored {
            // The engine closes: nobody is told anything.
            return;
        }
        let lazy = match what {
            What::Lazy => None,
            What::Expected(at) => {
                self.common.due.stands(user, at);
                None
            }
            What::Gone(told) => {
                let (reply, gone) = *told;
                cx.answer(reply, Answer::Kept { gone });
                None
            }
            What::Marks(up_to) => Some(up_to),
            what => return self.stored_for(cx, wire, user, what),
        };
        self.with_quietly(cx, wire, user, |home, env| {
            if let Some(up_to) = lazy {
                home.mailbox.marks_stored(env, up_to);
                home.retain(env);
            }
        });
    }

    fn stored_for(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, user: UserId, what: What) {
        self.with(cx, wire, user, |home, env| match what {
            What::Mail => home.mail_stored(env),
            What::Owed(session) => home.owed_stored(env, session),
            What::Attached { conn, ended, look_at } => {
                if let Some(at) = look_at {
                    env.common.due.stands(user, at);
                }
                if let Some(ended) = ended {
                    home.session_ended(env, *ended);
                }
                home.attached(env, conn);
            }
            What::Ended(ended) => home.session_ended(env, *ended),
            What::Unrouted(routes) => leaving::unroute(env, routes),
            What::Retained {
                session,
                request,
                entries,
            } => home.retained_stored(env, session, request, entries),
            What::Subscribed(session, request) => home.subscribed(env, session, request),
            What::Unsubscribed(conn, done) => home.unsubscribed(env, conn, *done),
            What::In2 {
                session,
                message,
                target,
            } => home.in2_stored(env, session, message, *target),
            What::In2Ended { session, message } => home.in2_ended(env, session, message),
            What::Trim(floor) => home.trim(env, floor),
            What::Out2(session) => home.pubrecs_stored(env, session),
            _ => {}
        });
    }

    /// Reads were answered. `None`: they failed for now.
    pub(crate) fn read(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        number: u64,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(Ticket { user, what }) = self.take(number) else {
            return;
        };
        if let What::Due(shard) = what {
            self.due_read(shard, answers.as_ref().and_then(|answers| answers.first()));
            return;
        }
        self.came_back(user);
        self.with(cx, wire, user, |home, env| match what {
            What::OwedPage(session, asked) => home.owed_page(env, session, asked, answers),
            What::MailPage(session, asked) => home.mail_page(env, session, asked, answers),
            What::MailRows(session, asked, rows) => {
                home.mail_rows(env, session, asked, *rows, answers);
            }
            What::EstatePage(session) => home.estate_page(env, session, answers),
            What::Name(conn) => home.name_read(env, conn, answers),
            What::Retaining => home.retained_read(env, answers),
            _ => {}
        });
    }

    /// Another home answered.
    pub(crate) fn answered(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, number: u64, answer: Answer) {
        let Some(Ticket { user, what }) = self.take(number) else {
            return;
        };
        self.came_back(user);
        let (answer, routes) = match answer {
            Answer::Published { matched, routes } => (Answer::Published { matched, routes }, routes),
            Answer::PublishRefused { refusal, routes } => (refusal.into(), routes),
            other => (other, 0),
        };
        if routes >= rates::ROUTES {
            self.with(cx, wire, user, |home, env| home.meter_routes(env, routes));
        }
        self.with(cx, wire, user, |home, env| match what {
            What::Publish(conn, serial) => home.published(env, conn, serial, answer),
            What::Publish2 { session, message } => home.published2(env, session, message, answer),
            What::Publish0(conn, bytes) => home.published0(env, (conn, bytes), &answer),
            What::Routed {
                session,
                request,
                index,
                route_id,
            } => {
                home.routed(env, session, request, index, route_id, answer);
            }
            What::Handed(handing) => home.handed(env, handing, &answer),
            What::Told(session, telling) => home.told(env, session, telling, &answer),
            What::WillOf(session, number) => home.will_judged(env, session, number, answer),
            What::Will(session, number) => home.will_fired(env, session, number, &answer),
            _ => {}
        });
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, number: u64) {
        let Some(Ticket { user, what }) = self.take(number) else {
            return;
        };
        match what {
            What::Tick => self.tick(cx),
            What::Leave => self.leave_timer(),
            What::Idle => self.idle(cx, wire, user),
            What::Review => self.review_goes_on(cx, wire),
            what => self.with_quietly(cx, wire, user, |home, env| match what {
                What::AckTimeout(conn) => home.ack_timeout(env, conn),
                What::SubscribeTimeout(session, request) => home.subscribe_timeout(env, session, request),
                What::OwedAgain(session, generation) => home.owed_again(env, session, generation),
                What::MailAgain(session, generation) => home.mail_again(env, session, generation),
                What::Flush => home.flush_due(env),
                What::RateOver => home.rate_over(env),
                What::HandAgain(handing) => handing::hand(env, handing),
                What::TellAgain(session, telling) => home.tell_again(env, session, telling),
                What::EstateAgain(session) => home.estate_again(env, session),
                What::Receipts => home.receipts_due(env),
                _ => {}
            }),
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) {
        self.common.tickets.rest();
        let now = cx.now();
        // With a calendar that is far off nothing is due, as if the store were slow.
        let due = match cx.expiry_ms() {
            0 => Vec::new(),
            unix_ms => self.common.due.tick(now.mono_ms, unix_ms),
        };
        for (shard, read) in due {
            let ticket = Ticket {
                user: NOBODY,
                what: What::Due(shard),
            };
            let tag = Part::Users.tag(self.common.tickets.issue(ticket));
            cx.read(tag, vec![read]);
        }
        if !self.stopping {
            let tag = Part::Users.tag(self.common.tickets.issue(Ticket {
                user: NOBODY,
                what: What::Tick,
            }));
            cx.after(self.common.due.next_tick_ms(), tag);
        }
    }

    fn due_read(&mut self, shard: u16, answer: Option<&ReadAnswer>) {
        let looks = self.common.due.read(shard, answer);
        self.common.due.put(looks);
    }

    /// Users of whom something is due, a few a turn.
    pub(super) fn some_looks(&mut self, cx: &mut Cx<'_>) {
        let looks: Vec<Look> = self.common.due.some_looks().collect();
        for look in looks {
            let ticket = Ticket {
                user: look.user,
                what: What::Look(Box::new(look)),
            };
            let tag = Part::Users.tag(self.common.tickets.issue(ticket));
            cx.enter(Key::User(look.user), tag);
        }
    }
}
