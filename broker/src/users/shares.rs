//! A member of a shared subscription's group: takes what the group gives it, and says when its client comes and goes
//! (decision 0006). What becomes of its work when it goes for good is in `handing`.

use std::collections::HashSet;
use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Publish, Route, TopicCommand};
use godwit_wire::ids::{Key, SessionId};
use godwit_wire::topic::{filter_key, shared};

use super::Users;
use super::attach::QUOTA;
use super::config::UsersConfig;
use super::deliver::{self, READ_AGAIN_MS};
use super::env::{Env, What};
use super::home::Home;
use super::owed::Owed;
use super::session::{Session, Subscription};
use super::waiter::Waiter;

/// What a group is told until it has taken it in: one such word at a time for each connection and group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// The connection that is there. Another one says so itself.
    number: u64,
    /// The group's route.
    route_id: u64,
}

impl Subscription {
    /// Whether it makes its session a member of a group.
    pub(crate) fn is_shared(&self) -> bool {
        shared(&self.filter).is_some()
    }
}

impl Session {
    /// Its subscription as a member of this group.
    pub(crate) fn membership(&self, filter: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|one| *one.filter == *filter)
    }

    /// Tells its groups whether its client is connected. That it went is told once: who is asked and is away says so.
    pub(crate) fn tell_groups(&self, env: &mut Env<'_, '_>, here: bool) {
        if !self.shared {
            return;
        }
        for one in self.subscriptions.iter().filter(|one| one.is_shared()) {
            self.tell_group(env, one, here);
        }
    }

    fn tell_group(&self, env: &mut Env<'_, '_>, one: &Subscription, here: bool) {
        let (key, member) = self.whether_here(one, here);
        match self.live.as_deref().filter(|_| here) {
            Some(live) => {
                let telling = Telling {
                    number: live.number,
                    route_id: one.route_id,
                };
                env.ask(What::Told(self.id, telling), key, member);
            }
            None => env.cx.tell(key, member),
        }
    }

    fn whether_here(&self, one: &Subscription, here: bool) -> (Key, Command) {
        let member = TopicCommand::Member {
            filter: one.filter.clone(),
            session: self.id,
            here,
        };
        (filter_key(&one.filter), Command::Topic(member))
    }

    /// It has acknowledged an entry. What a member in memory only keeps for others in case that it goes is less by that one.
    pub(crate) fn keeps_no_more(&mut self, position: u64) {
        if self.shared && !self.is_persistent() && position > self.feed.cursor.acked() {
            self.log.done_with(position);
        }
    }

    /// Whether this QoS 2 message was taken before.
    fn has_recent(&self, owed: &Owed) -> bool {
        owed.number().is_some_and(|number| self.recent.contains(&number))
    }

    /// Whether one more may be too much for what it has of its own log, so that others are to be asked first.
    fn is_nearly_full(&self, config: &UsersConfig) -> bool {
        let acked = self.feed.cursor.acked();
        let ((entries, bytes), (most_entries, most_bytes)) = if self.is_persistent() {
            let owes = self.log.last().saturating_sub(acked);
            let most = (config.session_log_entries, config.session_log_bytes);
            ((owes, self.log.unsettled_bytes(acked)), most)
        } else {
            let (entries, bytes) = deliver::queued(self);
            let most = (deliver::MEMORY_QUEUE as u64, deliver::MEMORY_BYTES as u64);
            ((entries as u64, bytes as u64), most)
        };
        entries >= most_entries / 16 * 15 || bytes >= most_bytes / 16 * 15
    }
}

impl Users {
    /// The routes of sessions in memory only under topic keys of these shards.
    pub(crate) fn live_routes(&self, shards: &[u16]) -> Vec<Route> {
        let shards: HashSet<u16> = shards.iter().copied().collect();
        let mut routes = Vec::new();
        for (user, home) in &self.homes {
            for session in home.sessions.iter().filter(|session| !session.is_persistent()) {
                let all = session.subscriptions.iter();
                let wanted = all.filter(|one| shards.contains(&filter_key(&one.filter).shard()));
                routes.extend(wanted.map(|one| one.route(*user, session.id, false)));
            }
        }
        routes
    }
}

impl Home {
    /// Shared subscriptions of all sessions.
    pub(crate) fn shares(&self) -> usize {
        let of = |session: &Session| session.subscriptions.iter().filter(|one| one.is_shared()).count();
        self.sessions
            .iter()
            .filter(|session| session.shared)
            .map(of)
            .sum()
    }

    /// A group was told that the client of one of its members is there, or could not take it in: then it is told again.
    pub(crate) fn told(&self, env: &mut Env<'_, '_>, id: SessionId, telling: Telling, answer: &Answer) {
        if matches!(answer, Answer::Refused(_)) && self.teller(id, telling).is_some() {
            env.after(READ_AGAIN_MS, What::TellAgain(id, telling));
        }
    }

    /// The session, as long as this connection of it lasts.
    fn teller(&self, id: SessionId, telling: Telling) -> Option<&Session> {
        let session = self.sessions.iter().find(|session| session.id == id)?;
        let live = session.live.as_deref()?;
        (live.number == telling.number).then_some(session)
    }

    /// The timer after that.
    pub(crate) fn tell_again(&self, env: &mut Env<'_, '_>, id: SessionId, telling: Telling) {
        let Some(session) = self.teller(id, telling) else {
            return;
        };
        let mut subscriptions = session.subscriptions.iter();
        if let Some(one) = subscriptions.find(|one| one.route_id == telling.route_id && one.is_shared()) {
            session.tell_group(env, one, true);
        }
    }

    /// A group gives a publish to one of this user's sessions. `waits`: also without a client; `last`: also if it is
    /// nearly full.
    pub(crate) fn deliver_shared(
        &mut self,
        env: &mut Env<'_, '_>,
        publish: &Arc<Publish>,
        id: SessionId,
        filter: &Arc<str>,
        (waits, last): (bool, bool),
        reply: Reply,
    ) {
        let found = self.sessions.iter().position(|session| session.id == id);
        let member = found.and_then(|index| Some((index, self.sessions[index].membership(filter)?)));
        let Some((index, subscription)) = member else {
            env.metrics().unwanted.inc();
            deliver::say_gone(env, reply, vec![id]);
            return;
        };
        let owed = Owed::shared(publish.clone(), filter.clone(), subscription);
        if owed.qos == 2 && self.sessions[index].has_recent(&owed) {
            // It has it, and the group did not hear so: nobody else may get it.
            if self.sessions[index].is_persistent() {
                self.append_owed(env, index, owed, Waiter::Reply(reply), true);
            } else {
                env.cx.answer(reply, Answer::Kept { gone: Vec::new() });
            }
            return;
        }
        let session = &mut self.sessions[index];
        let connected = session.live.is_some();
        let acl = &env.common.config.acl;
        let allowed = session
            .live
            .as_deref()
            .is_none_or(|live| acl.may_receive(&live.principal, &session.client_id, &publish.topic));
        // One whose right has ended would take its turns and get nothing of them (SCOPE).
        if !allowed {
            env.cx.answer(reply, passed_over(Code::Forbidden));
            return;
        }
        // One in memory only without a client is about to end.
        if !(connected || waits && session.is_persistent()) {
            env.cx.answer(reply, Answer::Away);
            return;
        }
        if owed.qos == 0 {
            // Before its CONNACK it can take nothing, and nothing is kept for it.
            if session.live.as_deref().is_some_and(|live| live.ready) {
                deliver::give_now(session, env, &owed);
                env.cx.answer(reply, Answer::Kept { gone: Vec::new() });
            } else {
                env.cx.answer(reply, Answer::Away);
            }
            return;
        }
        if session.is_persistent() && !session.log.has_room() {
            // Not taken, for sure: others may have room.
            let refused = match last {
                true => Answer::Refused(Refusal::unavailable()),
                false => passed_over(Code::Quota),
            };
            env.cx.answer(reply, refused);
            return;
        }
        // The oldest would go for it, or the connection, though others have room.
        if !last && session.is_nearly_full(&env.common.config) {
            env.cx.answer(reply, passed_over(Code::Quota));
            return;
        }
        if connected
            && waits
            && !last
            && let Some(one) = session.membership(filter)
        {
            // That the client came was not heard. Told once: with the next publish again.
            let (key, member) = session.whether_here(one, true);
            env.cx.tell(key, member);
        }
        if session.is_persistent() {
            self.append_owed(env, index, owed, Waiter::Reply(reply), true);
            return;
        }
        let fits = deliver::queue(session, env, owed, true);
        env.cx.answer(reply, Answer::Kept { gone: Vec::new() });
        if !fits {
            self.close_session_connection(env, id, QUOTA);
        }
    }
}

/// Of a member that does not take this publish; its turn comes again.
fn passed_over(code: Code) -> Answer {
    Answer::Refused(Refusal::new(code, "not this member"))
}
