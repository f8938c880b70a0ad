//! A member of a shared subscription's group: takes what the group gives it, and says when its client comes and goes
//! (decision 0006). What becomes of its work when it goes for good is in `handing`.

use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, Publish, TopicCommand};
use godwit_wire::ids::SessionId;
use godwit_wire::topic::{filter_key, shared};

use super::attach::QUOTA;
use super::deliver;
use super::env::Env;
use super::home::Home;
use super::owed::Owed;
use super::session::{Session, Subscription};
use super::waiter::Waiter;

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

    /// Tells its groups whether its client is connected. Not told to them in a crash: then nobody is.
    pub(crate) fn tell_groups(&self, env: &mut Env<'_, '_>, here: bool) {
        if !self.shared {
            return;
        }
        for one in self.subscriptions.iter().filter(|one| one.is_shared()) {
            let member = TopicCommand::Member {
                filter: one.filter.clone(),
                session: self.id,
                here,
            };
            env.cx.tell(filter_key(&one.filter), Command::Topic(member));
        }
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

    /// A group gives a publish to one of this user's sessions. `waits`: also without a client.
    pub(crate) fn deliver_shared(
        &mut self,
        env: &mut Env<'_, '_>,
        publish: &Arc<Publish>,
        id: SessionId,
        filter: &Arc<str>,
        waits: bool,
        reply: Reply,
    ) {
        let found = self.sessions.iter().position(|session| session.id == id);
        let member = found.and_then(|index| Some((index, self.sessions[index].membership(filter)?)));
        let Some((index, subscription)) = member else {
            env.metrics().unwanted.inc();
            env.cx.answer(reply, Answer::Kept { gone: vec![id] });
            return;
        };
        let owed = Owed::shared(publish.clone(), filter.clone(), subscription);
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
        if !(waits || connected) {
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
            env.cx.answer(reply, Answer::Refused(Refusal::unavailable()));
            return;
        }
        // The oldest would go for it though others have room.
        let owes = session.log.last().saturating_sub(session.feed.cursor.acked());
        if !waits && session.is_persistent() && owes >= env.common.config.session_log_entries / 16 * 15 {
            env.cx.answer(reply, passed_over(Code::Quota));
            return;
        }
        if connected && waits {
            // That the client came was not heard.
            session.tell_groups(env, true);
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
