//! Publishes on ordinary topics that matched a session's subscriptions: into the session's own log (persistent), into
//! memory, or straight to the connection; and pushing from that log.

use std::collections::VecDeque;
use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_store::{Op, Read, ReadAnswer};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Publish, Target};
use godwit_wire::ids::SessionId;

use super::attach::QUOTA;
use super::cursor::{Half, State, packet_id};
use super::env::{Asked, Env, What};
use super::feed::{Next, gap_before};
use super::feed_mail::give;
use super::handing;
use super::home::Home;
use super::log::{Keep, PAGE_BYTES, PAGE_ROWS};
use super::owed::{Owed, Share};
use super::session::{Live, Session};
use super::unwanted::Look;
use super::waiter::{Shared, Waiter};
use crate::packet::{Ack, Outgoing, PublishOut};

/// Most QoS 1 and 2 publishes that wait in memory for the client of a session that is not persistent; beyond it the
/// connection is closed (0x97), since nothing may be dropped silently.
pub(crate) const MEMORY_QUEUE: usize = 1_000;
/// And most bytes of them.
pub(crate) const MEMORY_BYTES: usize = 2 * 1024 * 1024;
/// After how long a page that could not be read is asked for again, milliseconds. Until then nothing else asks for it.
pub(crate) const READ_AGAIN_MS: u64 = 500;

/// Says that these sessions, if any, are no more. Their routes go for good by this word: in a cluster a former owner, to
/// whom nobody has said yet that it is one, must not give it.
pub(crate) fn say_gone(env: &mut Env<'_, '_>, reply: Reply, gone: Vec<SessionId>) {
    if gone.is_empty() || !env.cx.is_clustered() {
        env.cx.answer(reply, Answer::Kept { gone });
    } else {
        env.store(What::Gone(Box::new((reply, gone))), Vec::new());
    }
}

impl Home {
    /// A publish for some of this user's sessions. `Kept` once all of them have it. `late`: it was matched so many
    /// seconds ago.
    pub(crate) fn deliver(
        &mut self,
        env: &mut Env<'_, '_>,
        publish: &Arc<Publish>,
        (targets, late): (Vec<Target>, u32),
        reply: Reply,
    ) {
        let full = |session: &Session| session.is_persistent() && !session.log.has_room();
        if self.sessions.iter().any(full) {
            env.cx.answer(reply, Answer::Refused(Refusal::unavailable()));
            return;
        }
        let mut look = Look {
            mono_ms: env.mono_ms(),
            late,
            count: 0,
        };
        let mut gone = Vec::new();
        let mut durable = Vec::new();
        let mut offenders = Vec::new();
        for mut target in targets {
            let Some(index) = self
                .sessions
                .iter()
                .position(|session| session.id == target.session)
            else {
                gone.push(target.session);
                continue;
            };
            let session = &mut self.sessions[index];
            look.count = env.common.next_look();
            if !session.narrow(&mut target, publish, &look) {
                self.unwanted(env, target.session, &publish.topic);
                continue;
            }
            if publish.retain {
                session.overtaken(&publish.topic);
            }
            let owed = Owed::new(publish.clone(), target);
            if owed.qos == 0 {
                give_now(session, env, &owed);
            } else if session.is_persistent() {
                durable.push((index, owed));
            } else if !queue(session, env, owed, true) {
                offenders.push(session.id);
            }
        }
        if durable.is_empty() {
            say_gone(env, reply, gone);
        } else if let ([_], true) = (&durable[..], gone.is_empty()) {
            let mut reply = Some(reply);
            for (index, owed) in durable {
                let waiter = reply.take().map_or(Waiter::Nobody, Waiter::Reply);
                self.append_owed(env, index, owed, waiter, true);
            }
        } else {
            let missing = u32::try_from(durable.len()).unwrap_or(u32::MAX);
            let shared = Shared::new(reply, missing, gone);
            for (index, owed) in durable {
                self.append_owed(env, index, owed, Waiter::Shared(shared.clone()), true);
            }
        }
        for id in offenders {
            self.close_session_connection(env, id, 0x97);
        }
    }

    /// Appends to a persistent session's log. `once` (all but retained messages): a QoS 2 message that it took before waits for what is on its way.
    pub(crate) fn append_owed(
        &mut self,
        env: &mut Env<'_, '_>,
        index: usize,
        owed: Owed,
        waiter: Waiter,
        once: bool,
    ) {
        let session = &mut self.sessions[index];
        let named = owed.number().filter(|_| once && owed.qos == 2);
        if named.is_some_and(|number| !session.note_recent(number)) {
            let last = session.log.last();
            if let Err(waiter) = session.log.also_wait(last, waiter) {
                self.kept(env, waiter);
            }
            return;
        }
        let row = owed.row();
        let seq = session.log.append(owed, waiter, row.len());
        let (id, log, view) = (session.id, session.log_id(), env.view());
        env.store(What::Owed(id), vec![Op::Append { log, view, seq, row }]);
        env.metrics().owed.inc();
    }

    /// The store has the oldest unconfirmed entry of a session's log.
    pub(crate) fn owed_stored(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        let keep = match session.live.is_some() {
            true => Keep::Tail,
            false => Keep::No,
        };
        let Some((_, _, waiter)) = session.log.confirm(keep) else {
            return;
        };
        let over = session.log.is_head_due(env.cx.is_clustered()) && session.keep_head(env);
        let settled = push(session, env);
        self.kept(env, waiter);
        if settled > 0 {
            self.flush_soon(env, settled);
        }
        if over {
            self.close_session_connection(env, id, QUOTA);
        }
    }

    /// Gives a session what its window and connection have room for.
    pub(crate) fn push_owed(&mut self, env: &mut Env<'_, '_>, id: SessionId) {
        let settled = self.session(id).map_or(0, |session| push(session, env));
        if settled > 0 {
            self.flush_soon(env, settled);
        }
    }

    /// A page of a session's log was read.
    pub(crate) fn owed_page(
        &mut self,
        env: &mut Env<'_, '_>,
        id: SessionId,
        asked: Asked,
        answers: Option<Vec<ReadAnswer>>,
    ) {
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(ReadAnswer::Log { rows, .. }) = answers.and_then(|answers| answers.into_iter().next())
        else {
            env.after(READ_AGAIN_MS, What::OwedAgain(id, asked.generation));
            return;
        };
        // What is of another form is missing, and nothing after the page is.
        let last = rows.last().map_or(asked.up_to, |row| row.seq);
        let first = session.feed.cursor.sent() + 1;
        let read = |row: godwit_store::LogRow| Some((row.seq, Owed::from_row(row.row)?.0));
        let page: VecDeque<_> = rows.into_iter().filter_map(read).collect();
        let missing = gap_before(&page, first, last);
        if !session.feed.page_read(asked.generation, page) {
            return;
        }
        if missing >= first {
            env.metrics().missing.inc_by(missing + 1 - first);
            tracing::error!(from = first, to = missing, "rows of a session's log are missing");
            session.feed.cursor.lift(missing);
        }
        self.push_owed(env, id);
    }

    /// The timer after a page of a session's log that could not be read.
    pub(crate) fn owed_again(&mut self, env: &mut Env<'_, '_>, id: SessionId, generation: u32) {
        if let Some(session) = self.session(id) {
            session.feed.page_failed(generation);
            self.push_owed(env, id);
        }
    }
}

/// QoS 0: now or never.
pub(crate) fn give_now(session: &Session, env: &mut Env<'_, '_>, owed: &Owed) {
    let Some(live) = session.live.as_deref().filter(|live| live.ready) else {
        return;
    };
    if !env.wire.room(live.conn) {
        env.metrics().dropped_qos0.inc();
    } else if let Some(packet) = packet(session, live, env, owed, 0, false) {
        give(env, live, packet);
    }
}

/// Into the memory of a session that ends with its connection. `false`: it takes too little.
pub(crate) fn queue(session: &mut Session, env: &mut Env<'_, '_>, owed: Owed, once: bool) -> bool {
    if session.live.is_none() {
        return true;
    }
    let named = owed.number().filter(|_| once && owed.qos == 2);
    if named.is_some_and(|number| !session.note_recent(number)) {
        return true;
    }
    session.log.append(owed, Waiter::Nobody, 0);
    drop(session.log.confirm(Keep::All));
    push(session, env);
    let (entries, bytes) = queued(session);
    let over = match (entries > MEMORY_QUEUE, bytes > MEMORY_BYTES) {
        (true, _) => "memory_queue",
        (_, true) => "memory_bytes",
        _ => return true,
    };
    env.metrics().count_limit(over);
    false
}

/// How many entries a session in memory still has to acknowledge, and about how many bytes they keep. What it acknowledged
/// behind an open one does not count: a member's are kept in their places until then, emptied, and no more than
/// [`SPAN`](super::cursor::SPAN).
pub(crate) fn queued(session: &Session) -> (usize, usize) {
    let (mut entries, bytes) = session.log.kept();
    if entries > MEMORY_QUEUE / 16 * 15 {
        entries = entries.saturating_sub(session.feed.cursor.settled().count());
    }
    (entries, bytes)
}

/// Pushes from the session's log. Gives how many entries were settled by being passed over.
pub(crate) fn push(session: &mut Session, env: &mut Env<'_, '_>) -> u64 {
    let mut settled = 0;
    loop {
        let next = session.feed.cursor.sent() + 1;
        let Some(live) = session.live.as_deref().filter(|live| live.ready) else {
            break;
        };
        if next > session.log.confirmed()
            || session.in_flight() >= live.window
            || !session.feed.cursor.has_span()
            || !env.wire.room(live.conn)
        {
            break;
        }
        match session.feed.cursor.state(next) {
            Some(State::Acked | State::Leaving) => {
                settled += session.feed.cursor.passed().count() as u64;
                continue;
            }
            Some(State::Received) => {
                // While its row is on its way the PUBREL follows that.
                if !session.out_waiting.contains(&next) {
                    let pubrel = Outgoing::Pubrel(Ack::success(packet_id(Half::Session, next)));
                    // An acknowledgement is always taken.
                    let _ = env.wire.send(live.conn, &pubrel);
                }
                drop(session.feed.cursor.passed());
                continue;
            }
            Some(State::Sent | State::Sent2) | None => {}
        }
        let owed = match session.feed.next(&session.log) {
            Next::Nothing => break,
            Next::Read { after, up_to } => {
                let read = Read::Log {
                    log: session.log_id(),
                    after,
                    up_to,
                    max_rows: PAGE_ROWS,
                    max_bytes: PAGE_BYTES,
                };
                let generation = session.feed.generation();
                env.read(
                    What::OwedPage(session.id, Asked { generation, up_to }),
                    vec![read],
                );
                break;
            }
            Next::Entry(owed) => owed,
        };
        let id = packet_id(Half::Session, next);
        let repeat = session.feed.cursor.is_repeat(next);
        if let Some(share) = owed.share.as_deref()
            && leaves(session, live, env, &owed, share, repeat)
        {
            handing::hand_one(env, session.id, next, owed);
            settled += session.feed.cursor.gave(State::Leaving, None).count() as u64;
            continue;
        }
        let given =
            packet(session, live, env, &owed, id, repeat).is_some_and(|packet| give(env, live, packet));
        let state = match (given, owed.qos) {
            (false, _) => State::Acked,
            (true, 2) => State::Sent2,
            (true, _) => State::Sent,
        };
        settled += session.feed.cursor.gave(state, None).count() as u64;
    }
    let cursor = &session.feed.cursor;
    // Of a member of a group that is in memory only another one is to get what it has and does not acknowledge.
    let had = match session.shared && !session.is_persistent() {
        true => cursor.acked(),
        false => cursor.sent(),
    };
    session.log.had(had);
    settled
}

/// Whether an entry of a group is another member's: this one left before it was sent, or its right to the topic ended
/// before it was, at QoS 1 before it was acknowledged.
fn leaves(
    session: &Session,
    live: &Live,
    env: &Env<'_, '_>,
    owed: &Owed,
    share: &Share,
    repeat: bool,
) -> bool {
    let acl = &env.common.config.acl;
    let allowed = || acl.may_receive(&live.principal, &session.client_id, &owed.publish.topic);
    let free = !repeat || owed.qos == 1;
    (!repeat && session.membership(&share.filter).is_none()) || (free && !allowed())
}

/// The PUBLISH of an entry. `None`: its time is over, or its right is gone (SCOPE is checked when something leaves). What
/// may have been given before (`repeat`) is given to its end although its time is over (MQTT 5, 4.3.3-7 and 4.4.0-1).
fn packet(
    session: &Session,
    live: &Live,
    env: &mut Env<'_, '_>,
    owed: &Owed,
    packet_id: u16,
    repeat: bool,
) -> Option<PublishOut> {
    let publish = &*owed.publish;
    let (now, over_at) = (env.stamp_ms(), env.expiry_ms());
    let is_over = |at: u64| at <= over_at;
    if !repeat && publish.expires_at.is_some_and(is_over) {
        env.metrics().expired.inc();
        return None;
    }
    if !env
        .common
        .config
        .acl
        .may_receive(&live.principal, &session.client_id, &publish.topic)
    {
        env.metrics().no_longer_allowed.inc();
        return None;
    }
    Some(PublishOut {
        topic: (*publish.topic).into(),
        payload: publish.payload.clone(),
        qos: owed.qos,
        retain: owed.retain,
        dup: repeat,
        packet_id,
        // Rounded up: 0 only when its time is over, and that is known.
        message_expiry: publish.expires_at.map(|at| {
            let left = at.saturating_sub(now).div_ceil(1_000);
            let left = left.max(u64::from(!is_over(at)));
            u32::try_from(left).unwrap_or(u32::MAX)
        }),
        subscription_ids: owed.subscription_ids.clone(),
        properties: publish.properties.clone(),
    })
}
