//! Users' homes: mailbox, sessions, durable logs with cursors, QoS flows, wills, session expiry. No sockets, no clock, no
//! blocking: connections are spoken to through [`Wire`], everything else through [`Cx`]. This file finds the home that
//! a call is for; what a home does is in the files named after it.

mod acks;
mod administer;
mod answer;
mod attach;
mod config;
mod cursor;
mod deliver;
mod detach;
mod due;
mod env;
mod feed;
mod feed_mail;
mod firing;
mod handing;
mod home;
mod in2;
mod inbox;
mod leaving;
mod log;
mod mail;
mod mailbox;
mod owed;
mod publish_in;
mod queue;
mod rates;
mod receipts;
mod request;
mod retaining;
mod retention;
mod retries;
mod returns;
mod reviewing;
mod rows;
mod session;
mod shares;
mod slices;
mod suback;
mod subscribe;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod unwanted;
mod waiter;
mod wills;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_cluster::{Cx, Flow, Loading, Reply};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::account::Principal;
use godwit_wire::command::{Answer, Command, UserCommand};
use godwit_wire::ids::{Key, UserId};
use uuid::Uuid;

pub use self::config::{UsersConfig, UsersMetrics};
pub(crate) use self::env::VIEW_SHIFT;
use self::env::{Common, Env, Ticket, What};
use self::home::{Home, LoadState, Loaded};
use self::reviewing::Review;
use self::waiter::Waiter;
use crate::packet::{Connect, Incoming};
use crate::part::Part;
use crate::wire_trait::{Closed, ConnId, Wire};

/// Whose a ticket is that is nobody's.
const NOBODY: UserId = UserId(Uuid::nil());
/// A client broke the protocol.
const PROTOCOL_ERROR: u8 = 0x82;

/// The users' homes of one worker.
pub(crate) struct Users {
    homes: HashMap<UserId, Box<Home>>,
    loading: HashMap<UserId, LoadState>,
    common: Common,
    review: Option<Review>,
    stopping: bool,
}

impl Users {
    /// No homes yet.
    pub(crate) fn new(config: Arc<UsersConfig>, metrics: UsersMetrics) -> Self {
        Self {
            homes: HashMap::new(),
            loading: HashMap::new(),
            common: Common::new(config, metrics),
            review: None,
            stopping: false,
        }
    }

    /// Whether a user's home is in memory.
    pub(crate) fn is_loaded(&self, user: UserId) -> bool {
        self.homes.contains_key(&user)
    }

    /// What must be read first to have it in memory.
    pub(crate) fn load_reads(&mut self, cx: &Cx<'_>, user: UserId) -> Vec<Read> {
        self.loading.insert(user, LoadState::default());
        LoadState::first_reads(user, cx.scope(&Key::User(user)))
    }

    /// The rows of a load.
    pub(crate) fn loaded(&mut self, cx: &mut Cx<'_>, user: UserId, answers: Vec<ReadAnswer>) -> Loading {
        let state = self.loading.entry(user).or_default();
        match state.take(user, cx.scope(&Key::User(user)), answers) {
            Loaded::More(reads) => Loading::More(reads),
            Loaded::Home(home) => {
                self.loading.remove(&user);
                if self.homes.insert(user, home).is_none() {
                    self.common.metrics.homes.inc();
                }
                // Nothing may come of what it was loaded for.
                let tag = Part::Users.tag(self.common.tickets.issue(Ticket {
                    user,
                    what: What::Idle,
                }));
                if let Some(home) = self.homes.get_mut(&user) {
                    home.idle_timer = true;
                    home.touched_ms = cx.now().mono_ms;
                }
                cx.after(self.common.config.idle_ms, tag);
                Loading::Ready
            }
        }
    }

    /// A load failed.
    pub(crate) fn load_failed(&mut self, user: UserId) {
        self.loading.remove(&user);
        for look in self.common.tickets.take_looks(user) {
            self.common.due.stands(look.user, look.at);
        }
    }

    fn with(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        user: UserId,
        call: impl FnOnce(&mut Home, &mut Env<'_, '_>),
    ) {
        if let Some(home) = self.homes.get_mut(&user) {
            home.touched_ms = cx.now().mono_ms;
        }
        self.with_quietly(cx, wire, user, call);
    }

    /// As [`Self::with`], for what keeps no home in memory.
    fn with_quietly(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        user: UserId,
        call: impl FnOnce(&mut Home, &mut Env<'_, '_>),
    ) {
        let Some(home) = self.homes.get_mut(&user) else {
            return;
        };
        let mut env = Env {
            cx,
            wire,
            common: &mut self.common,
            user,
            issued: 0,
        };
        call(home, &mut env);
        if home.is_dormant() && env.issued == 0 && !home.idle_timer {
            home.idle_timer = true;
            let quiet_ms = env.mono_ms().saturating_sub(home.touched_ms);
            let ms = env.common.config.idle_ms.saturating_sub(quiet_ms);
            env.after(ms, What::Idle);
        }
        home.outstanding += env.issued;
    }

    fn with_conn(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        conn: ConnId,
        call: impl FnOnce(&mut Home, &mut Env<'_, '_>),
    ) {
        if let Some(user) = self.common.conns.get(&conn).copied() {
            self.with(cx, wire, user, call);
        }
    }

    /// A client that the door let in; its home is loaded.
    pub(crate) fn attach(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        conn: ConnId,
        connect: Box<Connect>,
        principal: Principal,
    ) {
        let user = principal.user;
        self.with(cx, wire, user, |home, env| {
            home.attach(env, conn, *connect, principal)
        });
    }

    /// A packet of a client.
    pub(crate) fn packet(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, conn: ConnId, packet: Incoming) {
        self.with_conn(cx, wire, conn, |home, env| match packet {
            Incoming::Publish(publish) => home.publish(env, conn, publish),
            Incoming::Puback(id, reason) => home.puback(env, conn, id, reason),
            Incoming::Pubrec(id, reason) => home.pubrec(env, conn, id, reason),
            Incoming::Pubrel(id, _) => home.pubrel(env, conn, id),
            Incoming::Pubcomp(id, _) => home.pubcomp(env, conn, id),
            Incoming::Subscribe {
                packet_id,
                filters,
                subscription_id,
            } => {
                home.subscribe(env, conn, packet_id, filters, subscription_id);
            }
            Incoming::Unsubscribe { packet_id, filters } => home.unsubscribe(env, conn, packet_id, filters),
            Incoming::Disconnect {
                reason,
                session_expiry,
            } => home.disconnected(env, conn, reason, session_expiry),
            Incoming::Connect(_) | Incoming::Pingreq | Incoming::Auth(_) => {
                home.close_connection(env, conn, PROTOCOL_ERROR);
            }
        });
    }

    /// A client has authenticated anew: its rights are these from now on.
    pub(crate) fn renewed(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, conn: ConnId, who: Principal) {
        self.with_conn(cx, wire, conn, |home, env| {
            let Some(session) = home.session_at(conn) else {
                return;
            };
            let id = session.id;
            if let Some(live) = session.live.as_deref_mut() {
                live.principal = who.clone();
                let number = live.number;
                home.will_renewed(env, id, number, &who);
            }
            // It may be allowed now what it was not.
            home.push_all(env, id);
        });
    }

    /// `net` closed a connection.
    pub(crate) fn closed(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, conn: ConnId, closed: Closed) {
        self.with_conn(cx, wire, conn, |home, env| home.closed(env, conn, closed));
    }

    /// A connection has room again.
    pub(crate) fn drained(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, conn: ConnId) {
        self.with_conn(cx, wire, conn, |home, env| {
            if let Some(id) = home.session_at(conn).map(|session| session.id) {
                home.push_all(env, id);
            }
        });
    }

    /// A command for a user's home.
    pub(crate) fn apply(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        user: UserId,
        command: UserCommand,
        reply: Reply,
    ) -> Flow {
        if !self.is_loaded(user) {
            if !needs_home(&command) {
                // Only live sessions are told, and there is none.
                cx.answer(reply, Answer::Done);
                return Flow::Taken;
            }
            let reads = self.load_reads(cx, user);
            return Flow::Load {
                command: Command::User(command),
                reply,
                reads,
            };
        }
        self.with(cx, wire, user, |home, env| match command {
            UserCommand::Offer { entry, after } => home.mailbox.offer(env, entry, after, reply),
            UserCommand::Note(event) => home.mailbox.note(env, *event, Waiter::Reply(reply)),
            UserCommand::Deliver {
                publish,
                targets,
                late,
            } => home.deliver(env, &publish, (targets, late), reply),
            UserCommand::Share {
                publish,
                session,
                filter,
                waits,
                last,
            } => home.deliver_shared(env, &publish, session, &filter, (waits, last), reply),
            UserCommand::Receipt {
                conversation,
                watermark,
            } => {
                home.give_receipt(env, conversation, watermark);
                env.cx.answer(reply, Answer::Done);
            }
            UserCommand::CredentialEnded { credential } => {
                home.credential_ended(env, credential);
                env.cx.answer(reply, Answer::Done);
            }
            UserCommand::Sessions => home.tell_sessions(env, reply),
            UserCommand::Kick { client_id, forget } => {
                home.kick(env, client_id.as_deref(), forget, reply);
            }
        });
        Flow::Taken
    }

    /// A home without connections and without work leaves memory, once it has stored what only memory knew.
    fn idle(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire, user: UserId) {
        let idle_ms = self.common.config.idle_ms;
        let Some(home) = self.homes.get_mut(&user) else {
            return;
        };
        home.idle_timer = false;
        if !home.is_dormant() {
            return;
        }
        let quiet_ms = cx.now().mono_ms.saturating_sub(home.touched_ms);
        if quiet_ms < idle_ms {
            home.idle_timer = true;
            let ticket = Ticket {
                user,
                what: What::Idle,
            };
            let tag = Part::Users.tag(self.common.tickets.issue(ticket));
            cx.after(idle_ms - quiet_ms, tag);
            return;
        }
        let mut left = false;
        self.with_quietly(cx, wire, user, |home, env| left = home.settle(env));
        if left {
            self.homes.remove(&user);
            self.common.metrics.homes.dec();
            if self.homes.capacity() > 1_024 && self.homes.len() < self.homes.capacity() / 4 {
                self.homes.shrink_to_fit();
            }
        }
    }

    /// What [`Cx::enter`] asked for. `Some`: these must be read first, then again.
    pub(crate) fn enter(
        &mut self,
        cx: &mut Cx<'_>,
        wire: &mut dyn Wire,
        user: UserId,
        number: u64,
    ) -> Option<Vec<Read>> {
        if !self.is_loaded(user) {
            return Some(self.load_reads(cx, user));
        }
        let ticket = self.take(number);
        if let Some(Ticket {
            what: What::WillTurn(session, will),
            ..
        }) = &ticket
        {
            self.came_back(user);
            self.with(cx, wire, user, |home, env| {
                home.will_turn(env, *session, *will);
            });
        } else if let Some(Ticket {
            what: What::Look(look),
            ..
        }) = ticket
        {
            self.with(cx, wire, user, |home, env| home.look(env, *look));
        }
        None
    }

    /// Everything of this turn was dispatched.
    pub(crate) fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        self.some_looks(cx);
        self.fire_some(cx);
        self.unroute_some(cx);
    }

    /// The worker owns these shards from now on.
    pub(crate) fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16]) {
        let not_before = cx.now().mono_ms + self.common.config.return_ms;
        self.common.due.taken_up(shards, not_before);
    }

    /// The worker begins.
    pub(crate) fn started(&mut self, cx: &mut Cx<'_>) {
        self.tick(cx);
    }

    /// The worker no longer owns these shards: everything about them is dropped, nobody is told anything but where to come to.
    pub(crate) fn given_up(&mut self, wire: &mut dyn Wire, lost: &HashSet<u16>) {
        self.common.due.given_up(lost);
        for number in self.common.firing.given_up(lost) {
            self.common.tickets.take(number);
        }
        self.common.tickets.forget(lost);
        let conns = &mut self.common.conns;
        self.homes.retain(|user, home| {
            let stays = !lost.contains(&Key::User(*user).shard());
            if !stays {
                self.common.metrics.homes.dec();
                for live in home.sessions.iter().filter_map(|session| session.live.as_deref()) {
                    conns.remove(&live.conn);
                    self.common.metrics.live.dec();
                    wire.moved(live.conn, *user, live.waits());
                }
            }
            stays
        });
        self.loading
            .retain(|user, _| !lost.contains(&Key::User(*user).shard()));
    }

    /// The process ends: stores what is kept lazily.
    pub(crate) fn shut_down(&mut self, cx: &mut Cx<'_>, wire: &mut dyn Wire) {
        self.stopping = true;
        self.leave_line(cx, wire);
        let users: Vec<UserId> = self.homes.keys().copied().collect();
        for user in users {
            self.with(cx, wire, user, |home, env| {
                home.settle(env);
            });
        }
    }

    /// Whether nothing is on its way.
    pub(crate) fn quiet(&self) -> bool {
        self.common.leaving.is_empty() && self.homes.values().all(|home| home.outstanding == 0)
    }
}

/// Whether a command is of use to a home without live sessions.
fn needs_home(command: &UserCommand) -> bool {
    !matches!(
        command,
        UserCommand::Receipt { .. } | UserCommand::CredentialEnded { .. }
    )
}
