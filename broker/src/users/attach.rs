//! CONNECT: finds or begins the session, takes an older connection's place, and answers with CONNACK once what it says
//! is durable.

use godwit_wire::account::Principal;
use godwit_wire::command::Route;
use godwit_wire::ids::SessionId;
use godwit_wire::limits::{CLIENT_ID_BYTES, PACKET_BYTES, RECEIVE_MAXIMUM, TOPIC_ALIASES, USER_SESSIONS};

use super::detach::Leave;
use super::due;
use super::env::{Env, What};
use super::home::Home;
use super::owed::Owed;
use super::queue::Queue;
use super::rows::Name;
use super::session::{Live, Session};
use super::unwanted;
use super::waiter::Waiter;
use crate::packet::{Connack, Connect, Outgoing, Version};
use crate::wire_trait::ConnId;

const BAD_CLIENT_ID: u8 = 0x85;
/// Quota exceeded.
pub(crate) const QUOTA: u8 = 0x97;
const TAKEN_OVER: u8 = 0x8E;

/// A session whose end is on its way to the store.
pub(crate) struct EndedSession {
    pub(crate) id: SessionId,
    pub(crate) routes: Vec<Route>,
    /// Deliveries that waited for its log: it is gone.
    pub(crate) waiters: Vec<Waiter>,
    /// Work of groups that was in memory only.
    pub(crate) left: Vec<Owed>,
}

impl Home {
    /// A client that the door let in.
    pub(crate) fn attach(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        connect: Connect,
        principal: Principal,
    ) {
        if connect.client_id.len() > CLIENT_ID_BYTES || connect.client_id.contains('\0') {
            if connect.client_id.len() > CLIENT_ID_BYTES {
                env.metrics().count_limit("client_id");
            }
            refuse(env, conn, BAD_CLIENT_ID);
            return;
        }
        if let Err(reason) = self.check_will(env, &connect, &principal) {
            refuse(env, conn, reason);
            return;
        }
        let mut ops = Vec::new();
        let mut ended = None;
        if std::mem::take(&mut self.previous_stored) {
            // Only memory may say from now on what is a retry: it forgets what was taken for one.
            ops.push(Name::Previous.end(env.user, env.view()));
        }
        if let Some(index) = self.of_client(&connect.client_id) {
            self.take_over(env, index, connect.clean_start);
        }
        // It may be gone with its connection, or was to go with one that an earlier start of this node had.
        let over = |session: &Session| connect.clean_start || !session.outlives();
        let found = self.of_client(&connect.client_id);
        if let Some(index) = found.filter(|index| over(&self.sessions[*index])) {
            ended = Some(Box::new(self.remove_session(env, index, &mut ops)));
        }
        let found = self.of_client(&connect.client_id);
        if found.is_none() && self.sessions.len() >= USER_SESSIONS {
            self.finish_end(env, ended, ops);
            env.metrics().count_limit("sessions");
            refuse(env, conn, QUOTA);
            return;
        }
        let session_present = found.is_some();
        let index = found.unwrap_or_else(|| {
            let session = Session::new(SessionId::fresh(), connect.client_id.clone());
            self.sessions.reserve_exact(1);
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        let look_at = self.begin(env, conn, index, &connect, principal, session_present, &mut ops);
        if ops.is_empty() {
            self.finish_end(env, ended, ops);
            self.attached(env, conn);
        } else {
            env.store(What::Attached { conn, ended, look_at }, ops);
        }
    }

    fn of_client(&self, client_id: &str) -> Option<usize> {
        self.sessions
            .iter()
            .position(|session| *session.client_id == *client_id)
    }

    fn take_over(&mut self, env: &mut Env<'_, '_>, index: usize, clean_start: bool) {
        let Some(live) = self.sessions[index].live.as_deref() else {
            return;
        };
        // Before its CONNACK nothing else may be said (MQTT-3.14.0-1).
        let told = live.ready.then(|| disconnect(TAKEN_OVER));
        let unwritten = env.wire.close(live.conn, told);
        self.detach(env, index, Leave::TakenOver { clean_start }, unwritten);
    }

    /// Gives what [`due::session_look`] gives.
    #[expect(clippy::too_many_arguments, reason = "what a CONNECT begins with")]
    fn begin(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        index: usize,
        connect: &Connect,
        principal: Principal,
        session_present: bool,
        ops: &mut Vec<godwit_store::Op>,
    ) -> Option<u64> {
        let (user, view, now) = (env.user, env.view(), env.unix_ms());
        let (number, mono) = (env.fresh_number(), env.mono_ms());
        let granted = connect.session_expiry.min(env.common.config.session_expiry_max);
        let session = &mut self.sessions[index];
        session.expiry = granted;
        session.disconnected_at = 0;
        session.live = Some(Box::new(Live {
            conn,
            version: connect.version,
            principal: principal.clone(),
            // 32 bits last until 2106.
            since: (now / 1_000) as u32,
            number,
            window: connect.receive_maximum.clamp(1, RECEIVE_MAXIMUM),
            ready: false,
            will: connect.will.is_some(),
            session_present,
            told_expiry: (granted != connect.session_expiry).then_some(granted),
            told_keep_alive: keep_alive(connect, env.common.config.max_keep_alive),
            assigned_client_id: connect.client_id_assigned,
            paused: 0,
            ack_timer: false,
            narrowed: unwanted::second(mono),
            inbound: Queue::default(),
            first_serial: 0,
            asked0: 0,
            unanswered: 0,
            given: Queue::default(),
            parked: None,
            requests: Vec::new(),
        }));
        let mut look_at = None;
        if session.outlives() {
            session.stored = true;
            look_at = due::session_look(env, session, now + u64::from(granted) * 1_000, ops);
            ops.push(Name::Session(session.id).put(user, view, &session.row()));
        } else if session.stored {
            // It was to outlive its connections and now ends with this one: its rows go then, or at the next start of
            // this node, which looks at it soon.
            let _ = due::session_look(env, session, now, ops);
            ops.push(Name::Session(session.id).put(user, view, &session.row()));
        }
        let id = session.id;
        if let Some(will) = connect.will.as_deref() {
            self.keep_will(env, id, number, will, &connect.client_id, &principal, ops);
        }
        env.common.conns.insert(conn, user);
        env.metrics().live.inc();
        look_at
    }

    /// What a CONNECT changed is durable: CONNACK, then what is owed.
    pub(crate) fn attached(&mut self, env: &mut Env<'_, '_>, conn: ConnId) {
        let Some(session) = self.session_at(conn) else {
            return;
        };
        let (id, client_id) = (session.id, session.client_id.clone());
        let Some(live) = session.live.as_deref_mut() else {
            return;
        };
        live.ready = true;
        let (number, session_present) = (live.number, live.session_present);
        let connack = Connack {
            session_present,
            reason: 0,
            session_expiry: live.told_expiry.filter(|_| live.version == Version::V5),
            receive_maximum: RECEIVE_MAXIMUM,
            maximum_packet_size: PACKET_BYTES as u32,
            assigned_client_id: live.assigned_client_id.then(|| client_id.clone()),
            shared_subscriptions: true,
            topic_alias_maximum: TOPIC_ALIASES,
            server_keep_alive: (live.told_keep_alive > 0).then_some(live.told_keep_alive),
            maximum_qos: Some(env.common.config.max_qos).filter(|qos| *qos < 2),
            ..Connack::default()
        };
        // A CONNACK is always taken.
        let _ = env.wire.send(conn, &Outgoing::Connack(Box::new(connack)));
        self.hold_back_too(env, conn);
        self.drop_wills_of(env, &client_id, number, session_present);
        if let Some(session) = self.session(id) {
            session.tell_groups(env, true);
        }
        self.push_all(env, id);
        // What a session left before a start need not wait until clients have had their time to return.
        self.go_on(env);
    }
}

/// The Server Keep Alive of a connection, seconds: where it asks for more than the `most`, or for none. 0: what it asks for;
/// 3.1.1 cannot be told another.
fn keep_alive(connect: &Connect, most: u16) -> u16 {
    let over = connect.keep_alive == 0 || connect.keep_alive > most;
    if connect.version == Version::V5 && over {
        most
    } else {
        0
    }
}

/// The last word to a client. It is nothing in 3.1.1, but still one: closing without would reset the connection if the
/// client has sent more, and destroy the acknowledgements that it was given.
pub(crate) fn disconnect(reason: u8) -> Outgoing {
    Outgoing::Disconnect(reason, Vec::new())
}

/// A CONNACK that refuses is the last packet.
fn refuse(env: &mut Env<'_, '_>, conn: ConnId, reason: u8) {
    let connack = Connack {
        reason,
        ..Connack::default()
    };
    env.wire.close(conn, Some(Outgoing::Connack(Box::new(connack))));
}
