//! What operators ask of a user's sessions: which there are, and that connections or sessions end.

use godwit_cluster::Reply;
use godwit_wire::command::{Answer, LISTED_FILTERS, LiveInfo, SessionInfo};
use godwit_wire::ids::SessionId;
use godwit_wire::topic::Encoding;

use super::attach::disconnect;
use super::detach::Leave;
use super::env::Env;
use super::home::Home;
use super::inbox::InboxForm;
use super::session::Session;
use crate::packet::Version;
use crate::wire_trait::Wire;

/// An operator ended it.
const ADMINISTRATIVE_ACTION: u8 = 0x98;

impl Home {
    /// Tells what sessions there are.
    pub(crate) fn tell_sessions(&self, env: &mut Env<'_, '_>, reply: Reply) {
        let told = self.infos(env.wire, |_| true);
        env.cx.answer(reply, Answer::Sessions(told));
    }

    /// Ends connections of a client, or of all, and with `forget` their sessions.
    pub(crate) fn kick(
        &mut self,
        env: &mut Env<'_, '_>,
        client_id: Option<&str>,
        forget: bool,
        reply: Reply,
    ) {
        let is_meant = |session: &Session| client_id.is_none_or(|id| *session.client_id == *id);
        let told = self.infos(env.wire, is_meant);
        let meant = self.sessions.iter().filter(|session| is_meant(session));
        let ids: Vec<SessionId> = meant.map(|session| session.id).collect();
        for id in ids {
            self.kick_one(env, id);
            if forget {
                self.forget(env, id);
            }
        }
        env.cx.answer(reply, Answer::Sessions(told));
    }

    fn kick_one(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(index) = self.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let Some(live) = self.sessions[index].live.as_deref() else {
            return;
        };
        // Before its CONNACK nothing else may be said (MQTT-3.14.0-1).
        let last = live.ready.then(|| disconnect(ADMINISTRATIVE_ACTION));
        let unwritten = env.wire.close(live.conn, last);
        self.detach(env, index, Leave::Abruptly, unwritten);
    }

    /// The session of a client that is not connected ends. One that was to end with its connection is gone already.
    fn forget(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(index) = self.sessions.iter().position(|session| session.id == id) else {
            return;
        };
        let mut ops = Vec::new();
        let ended = Box::new(self.remove_session(env, index, &mut ops));
        self.session_over(env, ended.id);
        self.finish_end(env, Some(ended), ops);
    }

    fn infos(&self, wire: &dyn Wire, is_meant: impl Fn(&Session) -> bool) -> Vec<SessionInfo> {
        let meant = self.sessions.iter().filter(|session| is_meant(session));
        let mut told: Vec<SessionInfo> = meant.map(|session| self.info(wire, session)).collect();
        told.sort_by(|one, other| one.client_id.cmp(&other.client_id));
        told
    }

    fn info(&self, wire: &dyn Wire, session: &Session) -> SessionInfo {
        let live = session.live.as_deref().map(|live| LiveInfo {
            since: u64::from(live.since) * 1_000,
            is_v5: live.version == Version::V5,
            via: wire.came_by(live.conn),
        });
        let granted = session.subscriptions.iter().filter(|one| one.granted);
        let inbox = session.inbox.as_deref();
        let form = inbox.and_then(|inbox| inbox.form.as_ref());
        let filters = form.map(name_of).into_iter();
        let filters = filters.chain(granted.clone().map(|one| one.filter.to_string()));
        let feed = inbox.and_then(|inbox| inbox.feed.as_ref());
        let of_mailbox = feed.map_or(0, |feed| {
            self.mailbox.log.confirmed().saturating_sub(feed.cursor.acked())
        });
        let settled = session.feed.cursor.acked();
        SessionInfo {
            client_id: session.client_id.clone(),
            live,
            disconnected_at: session.disconnected_at,
            expiry: session.expiry,
            filters: filters.take(LISTED_FILTERS).collect(),
            // A user's subscriptions are bounded far below.
            subscriptions: (granted.count() + usize::from(form.is_some())) as u32,
            owed: of_mailbox + session.log.confirmed().saturating_sub(settled),
            owed_bytes: session.log.unsettled_bytes(settled),
        }
    }
}

fn name_of(form: &InboxForm) -> String {
    let name = match form.encoding {
        Encoding::Proto => "me/inbox",
        Encoding::Json => "me/inbox/json",
        Encoding::Text => "me/inbox/text",
    };
    name.to_owned()
}
