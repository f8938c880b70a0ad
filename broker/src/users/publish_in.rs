//! A PUBLISH from the client: what it is for, whether it may, and the queue of those that are not acknowledged yet.
//! Acknowledgements leave in the order of the PUBLISHes (MQTT 4.6), each only once ACK holds for it.

use bytes::Bytes;
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::Refusal;
use godwit_wire::command::Answer;
use godwit_wire::ids::{MessageId, UserId};
use godwit_wire::limits::{ACK_TIMEOUT_MS, RECEIVE_MAXIMUM};
use godwit_wire::topic::{ConversationName, PublishTopic, classify_publish};

use super::answer::{Done, Waits};
use super::env::{Env, What};
use super::home::Home;
use super::in2::Begun;
use super::retaining::may_retain;
use super::retries::{self, Retry};
use super::session::{Live, Session};
use super::target::{Asker, Target, ask, is_implicit};
use crate::packet::{PublishIn, Version};
use crate::wire_trait::ConnId;

/// Most QoS 0 publishes of a connection under way: beyond it the client is not read. No more than of the others, so that
/// those for many all find a place to wait for their turn, and none is dropped.
const ASKED0: u16 = RECEIVE_MAXIMUM;
/// Most QoS 1 and 2 publishes of a 3.1.1 client that are not ended: it was not told a maximum, so it is paused at the
/// receive maximum, and closed only if it never completes QoS 2.
pub(crate) const OPEN_V311: usize = 4 * RECEIVE_MAXIMUM as usize;
/// Receive Maximum exceeded.
const TOO_MANY: u8 = 0x93;
/// QoS not supported.
pub(crate) const QOS: u8 = 0x9B;

/// Bytes of publishes of a user, over its connections, that are not answered: with more its clients are not read. They are in the store's
/// queue, where everybody's appends wait behind them: 10 ms of a slow disk. Each connection may have one packet more.
pub(crate) const UNANSWERED_BYTES: u32 = 1 << 20;
/// What a connection has of them that is not worth a look at the others.
const LITTLE: u32 = 64 << 10;

/// Reasons of a pause.
pub(crate) const PAUSED_FULL: u8 = 1;
/// What a publish needs is read first.
pub(crate) const PAUSED_NAME: u8 = 2;
/// Too many bytes are not answered.
const PAUSED_BYTES: u8 = 8;

/// A QoS 1 or 2 publish that is not acknowledged.
pub(crate) struct Inbound {
    pub(crate) packet_id: u16,
    /// As in [`Live::unanswered`].
    pub(crate) bytes: u32,
    /// Of a QoS 2 publish: what it is known by.
    pub(crate) message: Option<MessageId>,
    pub(crate) waits: Waits,
    /// When it came, of the loop's milliseconds.
    pub(crate) since_ms: u64,
    /// How a repeat of it on the next connection is known.
    pub(crate) retry: Option<Retry>,
    /// For the `refused` entry of a 3.1.1 client's `c/…` publish: topic and payload.
    pub(crate) refusable: Option<Box<(Box<str>, Bytes)>>,
    /// An ordinary topic's home has it, where it may wait for its turn.
    pub(crate) at_topic: bool,
}

impl Live {
    /// The publish with this serial number, if it is not acknowledged yet.
    pub(crate) fn inbound_at(&mut self, serial: u32) -> Option<&mut Inbound> {
        self.inbound
            .get_mut(serial.wrapping_sub(self.first_serial) as usize)
    }

    /// Pauses or goes on reading for one of the reasons.
    pub(crate) fn pause(&mut self, env: &mut Env<'_, '_>, reason: u8, on: bool) {
        let before = self.paused;
        self.paused = if on { before | reason } else { before & !reason };
        if (before == 0) != (self.paused == 0) {
            env.wire.pause(self.conn, self.paused != 0);
        }
    }
}

/// Whether one more publish is taken.
enum Admits {
    Yes,
    /// It is the repeat of one of this connection whose acknowledgement is due anyway.
    Due,
    No,
}

impl Session {
    /// BOUND: what the client may have open on this connection, and what the session keeps of earlier ones. `digest`: of a
    /// QoS 2 publish.
    fn admits(&mut self, env: &mut Env<'_, '_>, packet: &PublishIn, digest: Option<[u8; 16]>) -> Admits {
        let Some(live) = self.live.as_deref().filter(|_| packet.qos > 0) else {
            return Admits::Yes;
        };
        let repeated = digest.and_then(|digest| self.in2_of(packet.packet_id, digest));
        if repeated.is_some_and(|taken| live.awaits(taken.message)) {
            return Admits::Due;
        }
        let most = match live.version {
            Version::V5 => usize::from(RECEIVE_MAXIMUM),
            Version::V311 => OPEN_V311,
        };
        let open = live.inbound.len() + self.in2.iter().filter(|taken| taken.is_open()).count();
        // A repeat of what counts already is none more.
        if open >= most && !repeated.is_some_and(|taken| taken.here) {
            return Admits::No;
        }
        match digest.is_none() || repeated.is_some() || self.make_room_in2(env) {
            true => Admits::Yes,
            false => Admits::No,
        }
    }
}

impl Home {
    /// A PUBLISH.
    pub(crate) fn publish(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: Box<PublishIn>) {
        env.metrics().messages_in.inc();
        if packet.qos > env.common.config.max_qos {
            env.metrics().count_limit("max_qos");
            self.close_connection(env, conn, QOS);
            return;
        }
        if !self.meter(env, conn, &packet) {
            return;
        }
        let Some(packet) = self.know_retained(env, conn, packet) else {
            return;
        };
        let name = match classify_publish(&packet.topic) {
            Ok(
                PublishTopic::Send(ConversationName::With(name), _)
                | PublishTopic::Read(ConversationName::With(name), _),
            ) => env.common.known_name(name).is_none().then(|| name.to_owned()),
            _ => None,
        };
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        if let Some(name) = name.filter(|_| live.principal.scopes.chat && !live.principal.is_anonymous()) {
            // What follows waits too, so that the order stays.
            live.pause(env, PAUSED_NAME, true);
            live.parked = Some(packet);
            let read = Read::Fact {
                table: godwit_accounts::USER_NAMES,
                key: name.into(),
            };
            env.read(What::Name(conn), vec![read]);
            return;
        }
        self.take_publish(env, conn, packet, false);
    }

    /// The user behind the name in a parked publish was read.
    pub(crate) fn name_read(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        let Some(packet) = live.parked.take() else {
            return;
        };
        live.pause(env, PAUSED_NAME, false);
        let name = match classify_publish(&packet.topic) {
            Ok(
                PublishTopic::Send(ConversationName::With(name), _)
                | PublishTopic::Read(ConversationName::With(name), _),
            ) => name,
            _ => return,
        };
        let answer = answers.as_ref().and_then(|answers| answers.first());
        let failed = answer.is_none();
        if let Some(ReadAnswer::Fact(Some(id))) = answer
            && let Some(user) = UserId::from_slice(id)
        {
            env.common.learn_name(name, user);
        }
        self.take_publish(env, conn, packet, failed);
    }

    /// What a parked publish waited for is known, or could not be read.
    pub(crate) fn go_on_parked(&mut self, env: &mut Env<'_, '_>, conn: ConnId, failed: bool) {
        let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        else {
            return;
        };
        if let Some(packet) = live.parked.take() {
            live.pause(env, PAUSED_NAME, false);
            self.take_publish(env, conn, packet, failed);
        }
    }

    fn take_publish(&mut self, env: &mut Env<'_, '_>, conn: ConnId, packet: Box<PublishIn>, failed: bool) {
        let Home {
            sessions,
            previous,
            retaining,
            ..
        } = self;
        let at = |session: &Session| session.live.as_ref().is_some_and(|live| live.conn == conn);
        let Some(session) = sessions.iter_mut().find(|session| at(session)) else {
            return;
        };
        let digest = (packet.qos == 2).then(|| retries::digest(&packet).to_be_bytes());
        match session.admits(env, &packet, digest) {
            Admits::Yes => {}
            Admits::Due => return,
            Admits::No => {
                env.metrics().count_limit("receive_maximum");
                self.close_connection(env, conn, TOO_MANY);
                return;
            }
        }
        let mut retry = None;
        let mut message = None;
        if let Some(digest) = digest {
            match session.begin_in2(env, packet.packet_id, digest) {
                Begun::Goes(begun) => message = Some(begun),
                Begun::Awaits(begun) => {
                    self.hold(env, conn, &packet, None, Some(begun));
                    return;
                }
                Begun::Passed(begun) => {
                    if let Some(serial) = self.hold(env, conn, &packet, None, Some(begun)) {
                        self.done(env, conn, serial, Done::Ok);
                    }
                    return;
                }
            }
        }
        let Some(live) = session.live.as_deref() else {
            return;
        };
        if packet.qos == 1 {
            let (id, client_id) = (session.id, &session.client_id);
            retry = Some(retries::identity(previous, id, client_id, live, &packet));
        }
        let who = Asker {
            live,
            session_id: session.id,
            client_id: &session.client_id,
        };
        let target = match failed {
            true => Err(Refusal::unavailable()),
            false => who.target(
                env.common,
                env.cx.health(),
                env.stamp_ms(),
                &packet,
                message,
                retry.as_ref(),
            ),
        };
        let target = target.and_then(|target| may_retain(retaining, env, target));
        // Only what needs it: a send without an id of its own. Also of one that is refused now: what it was named on the
        // connection before may be stored, and the next one must find it by that name.
        let retry = retry.filter(|_| match &target {
            Ok(Target::Conversation(_, command)) => is_implicit(command),
            Ok(Target::Topic(_)) => false,
            Err(_) => true,
        });
        if packet.qos == 0 {
            self.go_on_0(env, conn, bytes_of(&packet), target);
            return;
        }
        let Some(serial) = self.hold(env, conn, &packet, retry, message) else {
            return;
        };
        match (target, message) {
            (Err(refusal), _) => self.refuse(env, conn, serial, refusal),
            (Ok(target), Some(message)) => self.pass_in2(env, conn, message, target),
            (Ok(target), None) => ask(env, What::Publish(conn, serial), target),
        }
    }

    fn go_on_0(&mut self, env: &mut Env<'_, '_>, conn: ConnId, bytes: u32, target: Result<Target, Refusal>) {
        let Ok(target) = target else {
            env.metrics().refused.inc();
            return;
        };
        if let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        {
            live.asked0 += 1;
            if live.asked0 >= ASKED0 {
                live.pause(env, PAUSED_FULL, true);
            }
            live.unanswered += bytes;
            if live.unanswered >= LITTLE {
                self.bound_bytes(env, conn);
            }
        }
        ask(env, What::Publish0(conn, bytes), target);
    }

    /// Takes its place in the queue of acknowledgements: gives its number there.
    fn hold(
        &mut self,
        env: &mut Env<'_, '_>,
        conn: ConnId,
        packet: &PublishIn,
        retry: Option<Retry>,
        message: Option<MessageId>,
    ) -> Option<u32> {
        let since_ms = env.mono_ms();
        let bytes = bytes_of(packet);
        let live = self.session_at(conn)?.live.as_deref_mut()?;
        live.unanswered += bytes;
        // At most the receive maximum, so it fits.
        let serial = live.first_serial.wrapping_add(live.inbound.len() as u32);
        let to_chat = packet.topic.starts_with("c/");
        let reserved = to_chat && live.version == Version::V311;
        live.inbound.push_back(Inbound {
            packet_id: packet.packet_id,
            bytes,
            message,
            waits: Waits::Home,
            since_ms,
            retry,
            refusable: reserved.then(|| Box::new((packet.topic.clone(), packet.payload.clone()))),
            // One of QoS 2 goes there later.
            at_topic: !to_chat && message.is_none(),
        });
        if live.version == Version::V311 && live.inbound.len() >= usize::from(RECEIVE_MAXIMUM) {
            live.pause(env, PAUSED_FULL, true);
        }
        if !std::mem::replace(&mut live.ack_timer, true) {
            env.after(ACK_TIMEOUT_MS, What::AckTimeout(conn));
        }
        if live.unanswered >= LITTLE {
            self.bound_bytes(env, conn);
        }
        Some(serial)
    }

    /// A connection has much that is not answered: it is not read if the user's are too many bytes.
    fn bound_bytes(&mut self, env: &mut Env<'_, '_>, conn: ConnId) {
        let lives = self.sessions.iter().filter_map(|session| session.live.as_deref());
        if lives.map(|live| live.unanswered).sum::<u32>() < UNANSWERED_BYTES {
            return;
        }
        if let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
            && live.paused & PAUSED_BYTES == 0
        {
            live.pause(env, PAUSED_BYTES, true);
            env.metrics().count_limit("unanswered_bytes");
        }
    }

    /// The answer to a QoS 1 publish.
    pub(crate) fn published(&mut self, env: &mut Env<'_, '_>, conn: ConnId, serial: u32, answer: Answer) {
        match done(answer) {
            Ok(done) => self.done(env, conn, serial, done),
            Err(refusal) => self.refuse(env, conn, serial, refusal),
        }
    }

    /// The answer to a QoS 0 publish: nobody is told.
    pub(crate) fn published0(
        &mut self,
        env: &mut Env<'_, '_>,
        (conn, bytes): (ConnId, u32),
        answer: &Answer,
    ) {
        if matches!(answer, Answer::Refused(_)) {
            env.metrics().refused.inc();
        }
        if let Some(live) = self
            .session_at(conn)
            .and_then(|session| session.live.as_deref_mut())
        {
            live.asked0 = live.asked0.saturating_sub(1);
            live.unanswered = live.unanswered.saturating_sub(bytes);
            live.relax(env);
        }
    }
}

impl Live {
    /// Goes on reading once there is room again.
    pub(crate) fn relax(&mut self, env: &mut Env<'_, '_>) {
        let full = self.asked0 > ASKED0 / 2 || self.inbound.len() > usize::from(RECEIVE_MAXIMUM) / 2;
        if self.paused & PAUSED_FULL != 0 && !full {
            self.pause(env, PAUSED_FULL, false);
        }
        // By what is its own, so that nobody waits for another connection's answers.
        if self.paused & PAUSED_BYTES != 0 && self.unanswered < UNANSWERED_BYTES / 4 {
            self.pause(env, PAUSED_BYTES, false);
        }
    }
}

/// What a PUBLISH counts for while it is not answered.
fn bytes_of(packet: &PublishIn) -> u32 {
    // A packet is far below 4 GiB.
    super::rates::weight(packet) as u32
}

/// What an answer means for the acknowledgement.
pub(crate) fn done(answer: Answer) -> Result<Done, Refusal> {
    match answer {
        Answer::Refused(refusal) => Err(refusal),
        Answer::Sent(sent) => Ok(Done::Sent(sent)),
        Answer::Published { matched: false, .. } => Ok(Done::Unmatched),
        _ => Ok(Done::Ok),
    }
}
