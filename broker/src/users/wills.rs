//! Wills: stored before CONNACK, published when a connection ends other than by DISCONNECT 0x00, after their delay,
//! also if the process died in between. A client that returns takes its will back.

use std::sync::Arc;

use bytes::Bytes;
use godwit_store::Op;
use godwit_wire::account::{AccountAnswer, Principal};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Publish};
use godwit_wire::ids::{MessageId, SessionId};
use godwit_wire::limits::USER_SESSIONS;
use godwit_wire::topic::{PublishTopic, classify_publish};

use super::detach::Leave;
use super::due::Look;
use super::env::{Env, What};
use super::home::Home;
use super::publish_in::QOS;
use super::retaining::count_retained;
use super::rows::{Name, WillRow};
use super::session::Session;
use super::target::is_as_said;
use crate::packet::{Connect, Will};

/// A will that could not be published is tried again after this, milliseconds, and after twice as long each time: whom it
/// reached with QoS 1 gets it once more.
const AGAIN_MS: u64 = 10_000;
/// As often, at most (about 20 minutes).
const AGAIN_DOUBLED: u32 = 7;
/// Most wills of a user with which those that could not be published are still kept when their client returns: twice one
/// for every session.
const KEPT: usize = 2 * USER_SESSIONS;

/// The will of a connection.
pub(crate) struct PendingWill {
    pub(super) session: SessionId,
    pub(super) number: u64,
    pub(super) row: Box<WillRow>,
    /// Its publish is on its way, or waits for its turn.
    pub(super) firing: bool,
    /// It waits for its turn.
    pub(super) waits: bool,
}

impl PendingWill {
    pub(crate) fn restored(session: SessionId, number: u64, row: WillRow) -> Self {
        Self {
            session,
            number,
            row: Box::new(row),
            firing: false,
            waits: false,
        }
    }
}

impl Home {
    /// Whether a will may be taken (SCOPE is checked again when it fires). `Err`: the reason code.
    pub(crate) fn check_will(
        &self,
        env: &Env<'_, '_>,
        connect: &Connect,
        principal: &Principal,
    ) -> Result<(), u8> {
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if will.qos > env.common.config.max_qos {
            env.metrics().count_limit("max_qos");
            return Err(QOS);
        }
        if !is_as_said(will.properties.as_deref(), &will.payload) {
            return Err(Code::Malformed.puback());
        }
        match classify_publish(&will.topic) {
            Ok(PublishTopic::Ordinary(topic))
                if env
                    .common
                    .config
                    .acl
                    .may_publish(principal, &connect.client_id, topic) =>
            {
                Ok(())
            }
            Err(refusal) if refusal.code() == Code::TopicForm => Err(refusal.code().puback()),
            _ => Err(Code::NotFound.puback()),
        }
    }

    /// Keeps the will of a connection that begins.
    #[expect(clippy::too_many_arguments, reason = "what a will is stored with")]
    pub(crate) fn keep_will(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        will: &Will,
        client_id: &str,
        principal: &Principal,
        ops: &mut Vec<Op>,
    ) {
        // Looked at only by a later start of this node: this one learns of the end from its connection.
        let look_at = env.unix_ms();
        if will.retain {
            self.know_retained_soon(env);
        }
        let row = WillRow {
            topic: will.topic.to_string(),
            payload: will.payload.clone(),
            qos: u32::from(will.qos),
            retain: will.retain,
            delay: will.delay,
            message_expiry: will.message_expiry,
            properties: will.properties.as_deref().cloned(),
            client_id: client_id.to_owned(),
            credential: bytes_of(principal),
            due_at: 0,
            look_at,
            message_id: MessageId::fresh().to_bytes(),
            failed: 0,
            marked: false,
        };
        ops.push(Name::Will(session, number).put(env.user, env.view(), &row));
        ops.push(look(env, session, number, look_at).insert());
        self.wills.push(PendingWill {
            session,
            number,
            row: Box::new(row),
            firing: false,
            waits: false,
        });
    }

    /// A connection with a will has ended.
    pub(crate) fn will_left(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        leave: Leave,
        expiry: u32,
    ) {
        let delay = self.will(session, number).map_or(0, |will| will.row.delay);
        match leave {
            Leave::Shutdown => {}
            Leave::Moved => {
                let at = env.stamp_ms() + env.common.config.return_ms;
                self.move_will(env, session, number, 0, at);
            }
            Leave::Normally => self.end_will(env, session, number),
            Leave::Revoked => {
                env.metrics().refused.inc();
                self.end_will(env, session, number);
            }
            Leave::TakenOver { clean_start: true } => self.fire_will(env, session, number),
            // Its delay ends with the CONNACK of the connection that took its place, if there is to be one.
            Leave::TakenOver { clean_start: false } | Leave::Abruptly => {
                self.delay_will(env, session, number, delay.min(expiry));
            }
        }
    }

    /// The client returned, with the connection `current`: wills of its earlier ones are void, or, if their session is
    /// not the one that goes on, due. One that was due already and was not published, or could not be, still is: at once, or when it is to be
    /// tried again.
    pub(crate) fn drop_wills_of(
        &mut self,
        env: &mut Env<'_, '_>,
        client_id: &str,
        current: u64,
        session_present: bool,
    ) {
        // What it says from now on must not be overtaken by what was due before.
        let in_line = self
            .wills
            .iter()
            .filter(|will| will.row.client_id == client_id && will.number != current && will.waits);
        let in_line: Vec<_> = in_line.map(|will| (will.session, will.number)).collect();
        for (session, number) in in_line {
            self.fire_will_now(env, session, number);
        }
        let of_client = self
            .wills
            .iter()
            .filter(|will| will.row.client_id == client_id && will.number != current && !will.firing);
        let found: Vec<_> = of_client
            .map(|will| {
                (
                    will.session,
                    will.number,
                    will.row.due_at,
                    will.row.failed > 0,
                    will.row.marked,
                )
            })
            .collect();
        let now = env.expiry_ms();
        for (session, number, due_at, failed, marked) in found {
            if failed && self.wills.len() > KEPT {
                env.metrics().refused.inc();
                self.end_will(env, session, number);
            } else if marked || failed && due_at <= now {
                self.fire_will_now(env, session, number);
            } else if failed {
                continue;
            } else if !session_present && due_at > 0 {
                self.fire_will(env, session, number);
            } else {
                self.end_will(env, session, number);
            }
        }
    }

    pub(super) fn will(&mut self, session: SessionId, number: u64) -> Option<&mut PendingWill> {
        self.wills
            .iter_mut()
            .find(|will| will.session == session && will.number == number)
    }

    /// Its client goes on with another credential, which counts for its will too.
    pub(crate) fn will_renewed(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        who: &Principal,
    ) {
        let (user, view, credential) = (env.user, env.view(), bytes_of(who));
        if let Some(will) = self.will(session, number)
            && will.row.credential != credential
        {
            will.row.credential = credential;
            let op = Name::Will(session, number).put(user, view, &*will.row);
            env.store(What::Lazy, vec![op]);
        }
    }

    fn delay_will(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64, seconds: u32) {
        if seconds == 0 {
            self.fire_will(env, session, number);
        } else {
            let at = env.stamp_ms() + u64::from(seconds) * 1_000;
            self.move_will(env, session, number, at, at);
        }
    }

    /// It is due at `due_at`, or at the end of its delay once it is found (0) that the client did not return by `at`.
    pub(super) fn move_will(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        due_at: u64,
        at: u64,
    ) {
        let (user, view) = (env.user, env.view());
        let Some(will) = self.will(session, number) else {
            return;
        };
        let before = look(env, session, number, will.row.look_at);
        will.row.due_at = due_at;
        will.row.look_at = at;
        let next = look(env, session, number, at);
        let mut ops = vec![Name::Will(session, number).put(user, view, &*will.row)];
        ops.push(next.insert());
        ops.extend((before != next).then(|| before.remove()));
        env.store(What::Expected(at), ops);
    }

    /// Its due row has come up.
    pub(crate) fn look_at_will(&mut self, env: &mut Env<'_, '_>, due: Look, number: u64) {
        let now = env.expiry_ms();
        let session = due.session;
        let live = self.sessions.iter().filter_map(|session| session.live.as_deref());
        let lives = live.into_iter().any(|live| live.number == number);
        let Some(will) = self.will(session, number) else {
            env.store(What::Lazy, vec![due.remove()]);
            return;
        };
        if will.row.look_at != due.at {
            // It was moved, and maybe by half only: will and due row are in different partitions. Its own time counts.
            let at = will.row.look_at;
            let ops = vec![look(env, session, number, at).insert(), due.remove()];
            env.store(What::Expected(at), ops);
            return;
        }
        if lives || will.firing {
            return;
        }
        let (due_at, delay) = (will.row.due_at, will.row.delay);
        let client_id = will.row.client_id.clone();
        let returns = |session: &Session| {
            *session.client_id == *client_id && session.live.as_deref().is_some_and(|live| !live.ready)
        };
        if self.sessions.iter().any(returns) {
            // Its CONNACK, or its end, decides.
            env.common.due.stands(env.user, due.at);
            return;
        }
        match due_at {
            // Its connection ended with an earlier start of this node. A session that is not there ended with it.
            0 => {
                let expiry = self.session(session).map_or(0, |session| session.expiry);
                self.delay_will(env, session, number, delay.min(expiry));
            }
            at if at <= now => self.fire_will(env, session, number),
            // The clock went back, or it is not known what time it is: then nothing is read until it is.
            at => env.common.due.stands(env.user, at),
        }
    }

    /// The accounts have said whose it is.
    pub(crate) fn will_judged(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        answer: Answer,
    ) {
        let judged = match answer {
            Answer::Account(answer) => match *answer {
                AccountAnswer::Principal(principal) => Ok(principal),
                _ => Err(unauthenticated()),
            },
            Answer::Refused(refusal) => Err(refusal),
            _ => Err(unauthenticated()),
        };
        match judged {
            Ok(principal) => self.publish_will(env, session, number, &principal),
            Err(refusal) => {
                env.metrics().refused.inc();
                self.will_fired(env, session, number, &refusal.into());
            }
        }
    }

    pub(super) fn publish_will(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        who: &Principal,
    ) {
        let now = env.stamp_ms();
        let Some(will) = self.will(session, number) else {
            return;
        };
        let row = &*will.row;
        if !env.common.config.acl.may_publish(who, &row.client_id, &row.topic) {
            env.metrics().refused.inc();
            self.end_will(env, session, number);
            return;
        }
        let publish = Publish {
            topic: row.topic.as_str().into(),
            payload: row.payload.clone(),
            qos: row.qos.min(2) as u8,
            retain: row.retain,
            expires_at: row.message_expiry.map(|seconds| now + u64::from(seconds) * 1_000),
            properties: row.properties.clone().map(Box::new),
            from: None,
            // What took it before a crash, or before another refused it, takes it once.
            message_id: MessageId::from_slice(&row.message_id),
        };
        if count_retained(&mut self.retaining, env, &publish).is_err() {
            env.metrics().refused.inc();
            self.end_will(env, session, number);
            return;
        }
        if let Some(will) = self.will(session, number) {
            will.firing = true;
        }
        env.ask_topic(What::Will(session, number), Arc::new(publish));
    }

    /// It was published, or refused.
    pub(crate) fn will_fired(
        &mut self,
        env: &mut Env<'_, '_>,
        session: SessionId,
        number: u64,
        answer: &Answer,
    ) {
        env.common.firing.is_over(number);
        let Some(will) = self.will(session, number) else {
            return;
        };
        will.firing = false;
        if matches!(answer, Answer::Refused(refusal) if refusal.code.retryable()) {
            let at = env.unix_ms() + (AGAIN_MS << will.row.failed.min(AGAIN_DOUBLED));
            will.row.failed = will.row.failed.saturating_add(1);
            will.row.marked = false;
            self.move_will(env, session, number, at, at);
        } else {
            self.end_will(env, session, number);
        }
    }

    fn end_will(&mut self, env: &mut Env<'_, '_>, session: SessionId, number: u64) {
        env.common.firing.is_over(number);
        let Some(at) = self
            .wills
            .iter()
            .position(|will| will.session == session && will.number == number)
        else {
            return;
        };
        let will = self.wills.swap_remove(at);
        let ops = vec![
            Name::Will(session, number).end(env.user, env.view()),
            look(env, session, number, will.row.look_at).remove(),
        ];
        env.store(What::Lazy, ops);
    }
}

/// What a client came by, in a row.
fn bytes_of(principal: &Principal) -> Bytes {
    let credential = principal.credential.as_ref();
    credential.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))
}

fn unauthenticated() -> Refusal {
    Refusal::new(Code::Unauthenticated, "the credential was revoked")
}

fn look(env: &Env<'_, '_>, session: SessionId, number: u64, at: u64) -> Look {
    Look {
        at,
        user: env.user,
        session,
        will: Some(number),
    }
}
