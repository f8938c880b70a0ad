//! A user's home in memory: what it holds, how it is made out of the store, what it keeps lazily, and when it can go.

use std::collections::HashMap;

use bytes::Bytes;
use godwit_store::{Op, Read, ReadAnswer, Scope};
use godwit_wire::ids::{SessionId, UserId};
use prost::Message;

use super::cursor::{Cursor, State};
use super::env::{Env, What};
use super::feed::Feed;
use super::handing::{Estate, Leaving};
use super::inbox::Inbox;
use super::log::Log;
use super::mailbox::{self, Mailbox};
use super::owed::Owed;
use super::receipts::Receipts;
use super::retention;
use super::retries::{self, Previous};
use super::rows::{
    AgesRow, EstateRow, InRow, InboxRow, Name, OutRow, PreviousRow, SessionRow, SubscriptionRow, WillRow,
    read_rows,
};
use super::session::{self, In2, Phase, Session, Subscription};
use super::slices::Quota;
use super::wills::PendingWill;
use crate::tables::USER_ROWS;
use crate::wire_trait::ConnId;

/// How long cursors may be behind in the store, milliseconds: a crash repeats that much.
const FLUSH_MS: u64 = 500;
/// And how many acknowledgements.
const FLUSH_ACKS: u64 = 256;

/// A user's home.
pub(crate) struct Home {
    pub(crate) user: UserId,
    pub(crate) mailbox: Mailbox,
    pub(crate) sessions: Vec<Session>,
    /// Wills of connections, live ones too.
    pub(crate) wills: Vec<PendingWill>,
    /// Publishes of earlier connections that may be sent again.
    pub(crate) previous: Vec<Previous>,
    /// Whether a row in the store says so too.
    pub(crate) previous_stored: bool,
    pub(crate) receipts: Option<Box<Receipts>>,
    /// Work of groups that sessions left.
    pub(crate) leaving: Option<Box<Leaving>>,
    pub(crate) rates: Option<Box<super::rates::Rates>>,
    pub(crate) retaining: Option<Box<super::retaining::Retaining>>,
    /// Submitted, asked or read, and not come back.
    pub(crate) outstanding: u32,
    /// When something was last done, for going idle.
    pub(crate) touched_ms: u64,
    pub(crate) idle_timer: bool,
    flush_timer: bool,
    acks_since_flush: u64,
}

/// A home on its way into memory.
#[derive(Default)]
pub(crate) struct LoadState {
    rows: Vec<(Name, Bytes)>,
    mailbox: Option<(godwit_store::Head, Vec<godwit_store::LogRow>)>,
    asked_logs: Vec<SessionId>,
}

/// What a load needs next.
pub(crate) enum Loaded {
    /// More reads.
    More(Vec<Read>),
    /// Here it is.
    Home(Box<Home>),
}

impl LoadState {
    /// What is read first.
    pub(crate) fn first_reads(user: UserId, scope: Scope) -> Vec<Read> {
        let log = mailbox::log_id(user);
        let (table, partition) = (USER_ROWS, user.to_bytes());
        let rows = Read::TakeUpRows {
            table,
            partition,
            scope,
        };
        vec![rows, read_rows(user, None), Read::TakeUp { log, scope }]
    }

    /// Takes answers, in the order of the reads.
    pub(crate) fn take(&mut self, user: UserId, scope: Scope, answers: Vec<ReadAnswer>) -> Loaded {
        if !self.asked_logs.is_empty() {
            return Loaded::Home(Box::new(self.build(user, answers)));
        }
        let mut next_page = None;
        for answer in answers {
            match answer {
                ReadAnswer::Rows { rows, more } => {
                    next_page = rows.last().filter(|_| more).map(|(name, _)| name.clone());
                    let known = |(name, value): (Bytes, Bytes)| Some((Name::decode(&name)?, value));
                    self.rows.extend(rows.into_iter().filter_map(known));
                }
                ReadAnswer::TakeUp { head, rows } => self.mailbox = Some((head, rows)),
                _ => {}
            }
        }
        if next_page.is_some() {
            return Loaded::More(vec![read_rows(user, next_page)]);
        }
        let sessions = self.rows.iter().filter_map(|(name, _)| match name {
            Name::Session(id) => Some(*id),
            _ => None,
        });
        self.asked_logs = sessions.collect();
        if self.asked_logs.is_empty() {
            return Loaded::Home(Box::new(self.build(user, Vec::new())));
        }
        let take_up = |id: &SessionId| Read::TakeUp {
            log: session::log_id(*id),
            scope,
        };
        Loaded::More(self.asked_logs.iter().map(take_up).collect())
    }

    fn build(&mut self, user: UserId, logs: Vec<ReadAnswer>) -> Home {
        let rows = std::mem::take(&mut self.rows);
        let marks: Vec<Bytes> = rows
            .iter()
            .filter(|(name, _)| matches!(name, Name::Marks(_)))
            .map(|(_, value)| value.clone())
            .collect();
        let ever = rows.iter().any(|(name, _)| *name == Name::InboxEver);
        let (head, entries) = self.mailbox.take().unwrap_or_default();
        let mut home = Home::new(user, Mailbox::restored(head, &entries, &marks, ever));
        let mut sessions: HashMap<SessionId, (Session, SessionRow)> = HashMap::new();
        for (name, value) in &rows {
            if let (Name::Session(id), Ok(row)) = (name, SessionRow::decode(value.clone())) {
                let mut session = Session::new(*id, row.client_id.as_str().into());
                session.expiry = row.expiry;
                session.stored = true;
                session.shared = row.shared;
                session.disconnected_at = row.disconnected_at;
                session.due_at = row.due_at;
                sessions.insert(*id, (session, row));
            }
        }
        for (id, answer) in std::mem::take(&mut self.asked_logs).into_iter().zip(logs) {
            if let (Some((session, row)), ReadAnswer::TakeUp { head, rows }) = (sessions.get_mut(&id), answer)
            {
                session.log = Log::restored(head, rows.last().map_or(0, |row| row.seq));
                session.log.restore_rows(rows.iter().map(|row| row.row.len()));
                // A crash leaves no word of what was given: everything there may have been.
                let given = match row.disconnected_at {
                    0 => session.log.confirmed(),
                    _ => row.given_log,
                };
                session.feed = Feed::new(Cursor::new(session.log.floor(), given));
                for number in rows
                    .into_iter()
                    .filter_map(|row| Some(Owed::from_row(row.row)?.1))
                {
                    if number != 0 && !session.recent.contains(&number) {
                        session.recent.push_back(number);
                    }
                }
            }
        }
        for (name, value) in rows {
            restore_row(&mut home, &mut sessions, name, value);
        }
        home.sessions = sessions.into_values().map(|(session, _)| session).collect();
        home.sessions.sort_by_key(|session| session.id);
        home
    }
}

fn restore_row(
    home: &mut Home,
    sessions: &mut HashMap<SessionId, (Session, SessionRow)>,
    name: Name,
    value: Bytes,
) {
    match name {
        Name::Subscription(id, route_id) => {
            if let (Some((session, _)), Ok(row)) = (sessions.get_mut(&id), SubscriptionRow::decode(value)) {
                session.subscriptions.push(Subscription::restored(route_id, row));
            }
        }
        Name::Inbox(id) => {
            if let (Some((session, of)), Ok(row)) = (sessions.get_mut(&id), InboxRow::decode(value)) {
                let given = match of.disconnected_at {
                    0 => home.mailbox.log.confirmed(),
                    _ => of.given_mailbox,
                };
                session.inbox = Some(Box::new(Inbox::restored(&row, given)));
            }
        }
        Name::Out(id) => {
            if let (Some((session, _)), Ok(row)) = (sessions.get_mut(&id), OutRow::decode(value)) {
                let last = session.log.confirmed();
                session.log.restore_slices(&row.slices, &row.slice_bytes);
                session.feed.cursor.lift(row.acked.min(last));
                for position in row.received.into_iter().filter(|position| *position <= last) {
                    session.feed.cursor.restore(position, State::Received);
                }
                for position in row.settled.into_iter().filter(|position| *position <= last) {
                    session.feed.cursor.restore(position, State::Acked);
                }
                // Older than those of the rows above the head.
                for number in row.recent.into_iter().rev() {
                    if !session.recent.contains(&number) && session.recent.len() < session::RECENT {
                        session.recent.push_front(number);
                    }
                }
            }
        }
        Name::In(id, message) => {
            if let (Some((session, _)), Ok(row)) = (sessions.get_mut(&id), InRow::decode(value)) {
                let digest = <[u8; 16]>::try_from(&row.digest[..]).unwrap_or_default();
                session.in2.push(In2 {
                    packet_id: row.packet_id as u16,
                    message,
                    digest,
                    phase: Phase::Kept,
                    here: false,
                });
            }
        }
        Name::Estate(id) => {
            if let Ok(row) = EstateRow::decode(value) {
                let leaving = home.leaving.get_or_insert_default();
                leaving.restore(Estate::restored(id, row));
            }
        }
        Name::Will(id, number) => {
            if let Ok(row) = WillRow::decode(value) {
                home.wills.push(PendingWill::restored(id, number, row));
            }
        }
        Name::Previous => {
            home.previous_stored = true;
            home.previous = PreviousRow::decode(value)
                .map(retries::restored)
                .unwrap_or_default();
        }
        Name::Ages => {
            if let Ok(row) = AgesRow::decode(value) {
                home.mailbox.ages = retention::restored(&row);
                home.mailbox.log.restore_slices(&row.slices, &row.slice_bytes);
            }
        }
        Name::Session(_) | Name::Marks(_) | Name::InboxEver => {}
    }
}

impl Home {
    fn new(user: UserId, mailbox: Mailbox) -> Self {
        Self {
            user,
            mailbox,
            sessions: Vec::new(),
            wills: Vec::new(),
            previous: Vec::new(),
            previous_stored: false,
            receipts: None,
            leaving: None,
            rates: None,
            retaining: None,
            outstanding: 0,
            touched_ms: 0,
            idle_timer: false,
            flush_timer: false,
            acks_since_flush: 0,
        }
    }

    /// The session with this id.
    pub(crate) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// The session that has this connection.
    pub(crate) fn session_at(&mut self, conn: ConnId) -> Option<&mut Session> {
        let has = |session: &Session| session.live.as_ref().is_some_and(|live| live.conn == conn);
        self.sessions.iter_mut().find(|session| has(session))
    }

    /// Whether a client is connected.
    pub(crate) fn is_live(&self) -> bool {
        self.sessions.iter().any(|session| session.live.is_some())
    }

    /// Whether nobody needs it in memory at the moment.
    pub(crate) fn is_dormant(&self) -> bool {
        self.outstanding == 0 && !self.is_live() && self.leaving.is_none()
    }

    /// Something is behind in the store: it is stored soon.
    pub(crate) fn flush_soon(&mut self, env: &mut Env<'_, '_>, acks: u64) {
        self.acks_since_flush += acks;
        if self.acks_since_flush >= FLUSH_ACKS {
            self.flush(env);
        } else if !self.flush_timer {
            self.flush_timer = true;
            env.after(FLUSH_MS, What::Flush);
        }
    }

    /// The timer of [`Self::flush_soon`].
    pub(crate) fn flush_due(&mut self, env: &mut Env<'_, '_>) {
        self.flush_timer = false;
        self.flush(env);
        self.retain(env);
        self.mailbox.rest();
        self.rest_rates(env);
        for session in &mut self.sessions {
            session.rest();
        }
    }

    /// Stores what is kept lazily: cursors and floors. Receipts are told first, since a cursor that has passed a message
    /// never tells its receipt again.
    pub(crate) fn flush(&mut self, env: &mut Env<'_, '_>) {
        self.acks_since_flush = 0;
        self.tell_receipts(env);
        let mut ops = Vec::new();
        for session in &mut self.sessions {
            session.correct_its_end(env);
            session.lazy_ops(env, &mut ops);
        }
        if !ops.is_empty() {
            env.store(What::Lazy, ops);
        }
        self.mailbox.keep_marks(env, false);
    }

    /// Nobody is connected any more for a while: stores everything that memory knows better. `true`: nothing was left.
    pub(crate) fn settle(&mut self, env: &mut Env<'_, '_>) -> bool {
        self.flush(env);
        let mut ops = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.is_persistent()) {
            session.keep_quota(env);
            session.settle_ops(env, &mut ops);
        }
        if !self.previous.is_empty() && !self.is_live() && !self.previous_stored {
            self.previous_stored = true;
            ops.push(Name::Previous.put(env.user, env.view(), &retries::row(&self.previous)));
        }
        if !ops.is_empty() {
            env.store(What::Lazy, ops);
        }
        self.mailbox.keep_marks(env, true);
        self.retain(env);
        env.issued == 0
    }
}

impl Session {
    /// Cursors that are ahead of the store.
    fn lazy_ops(&mut self, env: &Env<'_, '_>, ops: &mut Vec<Op>) {
        if !self.is_persistent() {
            return;
        }
        let id = self.id;
        if let Some(inbox) = self.inbox.as_deref_mut() {
            let acked = inbox.feed.as_ref().map_or(0, |feed| feed.cursor.acked());
            if acked > inbox.stored {
                inbox.stored = acked;
                inbox.gap = None;
                ops.push(Name::Inbox(id).put(env.user, env.view(), &inbox.row()));
            }
        }
        if self.feed.cursor.acked() > self.log.floor() {
            self.head_ops(env, ops);
        }
    }

    /// Stores the head of the session's log, which is due: a take-up reads everything above it. Gives what
    /// [`Self::keep_quota`] gives.
    pub(crate) fn keep_head(&mut self, env: &mut Env<'_, '_>) -> bool {
        let mut ops = Vec::new();
        let over = self.keep_quota(env);
        self.head_ops(env, &mut ops);
        if !ops.is_empty() {
            env.store(What::Lazy, ops);
        }
        over
    }

    /// BOUND: at its quota the session's own log loses the oldest entries. Lifts the cursor over them, so that the head
    /// that is stored next ends them. `true`: the client has some of them and still answers for them, so its connection
    /// must end before their packet identifiers come again.
    fn keep_quota(&mut self, env: &Env<'_, '_>) -> bool {
        let config = &env.common.config;
        let quota = Quota {
            entries: config.session_log_entries,
            bytes: config.session_log_bytes,
        };
        let acked = self.feed.cursor.acked();
        let counted = self.log.count(quota, acked);
        self.out_dirty |= counted.closed;
        let Some(up_to) = counted.drop_to else {
            return false;
        };
        if counted.warn {
            tracing::warn!(user = %env.user.0, session = %self.id.0, "a session's log is over its quota: the oldest go");
        }
        env.metrics().over_quota.inc_by(up_to - acked);
        let in_flight = self.feed.cursor.sent() > acked;
        self.feed.cursor.lift(up_to);
        in_flight
    }

    /// The row of QoS 2 towards the client, and the floor as it is now: a message that is complete is in neither list.
    pub(crate) fn out_ops(&mut self, env: &Env<'_, '_>) -> Vec<Op> {
        let mut ops = Vec::new();
        self.out_dirty = true;
        self.settle_ops(env, &mut ops);
        ops
    }

    /// The head says what is confirmed only together with a row that remembers the QoS 2 messages below it.
    fn head_ops(&mut self, env: &Env<'_, '_>, ops: &mut Vec<Op>) {
        let floor = self.feed.cursor.acked();
        if self.out_dirty {
            self.out_dirty = false;
            ops.push(Name::Out(self.id).put(env.user, env.view(), &self.out_row()));
        }
        let (log, confirmed) = (self.log_id(), self.log.confirmed());
        if let Some(head) = self.log.move_head(confirmed, floor) {
            ops.push(Op::Head { log, head });
        }
    }

    fn settle_ops(&mut self, env: &Env<'_, '_>, ops: &mut Vec<Op>) {
        self.out_dirty |= self.log.slices_dirty();
        self.head_ops(env, ops);
    }

    /// Gives memory back that is not needed now.
    fn rest(&mut self) {
        self.log.rest();
        self.feed.rest();
        if let Some(inbox) = self.inbox.as_deref_mut() {
            inbox.rest();
        }
        if let Some(live) = self.live.as_deref_mut() {
            live.inbound.rest();
            live.given.rest();
            if live.requests.is_empty() {
                live.requests = Vec::new();
            }
        }
        if self.in2.is_empty() {
            self.in2 = Vec::new();
        }
    }
}
