//! The loop: one thread per worker takes mail, completions, sockets and timers, and dispatches them to its roles; it
//! loads keys and parks what comes for them meanwhile. What a turn gathers and sends on is in `turn`.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use godwit_store::{Completion, Outcome, Store};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;

use crate::away::Away;
use crate::meter::{LONG, Part, Spent};
use crate::own::Layout;
use crate::peers::Clustered;
use crate::role::{Cx, Flow, Reply, Role, RoleId, Tag, unpack};
use crate::router::{Envelope, LOADS, Mail, Router};
use crate::turn::Turn;

/// Most commands parked while a key loads; beyond it they are refused as `unavailable`. Entries cannot be refused: the
/// role that asks for them bounds them.
pub const PARKED_PER_KEY: usize = 1_024;
/// Requests taken from the inbox at a time, as often as their part of the turn lasts and its end has not enough to do.
const REQUESTS: usize = 32;
/// Most taken in a turn.
const REQUESTS_A_TURN: usize = 1_024;
/// How long a shutdown waits for the roles to become quiet.
const SHUTDOWN: Duration = Duration::from_secs(8);
/// Longest sleep without an event, so that kept-back work is tried again.
const NAP: Duration = Duration::from_millis(5);

mod loading;
mod moving;

/// The token under which a worker is woken.
pub(crate) const WAKER: mio::Token = mio::Token(usize::MAX);

pub(super) enum Parked {
    Command(Command, Reply),
    Entry(Tag),
}

/// A key that is being loaded by a role.
pub(super) struct LoadingKey {
    role: RoleId,
    key: Key,
    parked: VecDeque<Parked>,
}

/// One worker, on its thread.
pub(crate) struct Worker {
    turn: Turn,
    roles: [Box<dyn Role>; RoleId::COUNT],
    loading: HashMap<u64, LoadingKey>,
    loading_keys: HashMap<(RoleId, Key), u64>,
    next_load: u64,
    started: Instant,
    /// In this turn.
    spent: Spent,
    clustered: Option<Clustered>,
}

impl Worker {
    pub(crate) fn new(
        worker: u16,
        router: Router,
        registry: mio::Registry,
        store: Arc<dyn Store>,
        roles: [Box<dyn Role>; RoleId::COUNT],
        clustered: Option<Clustered>,
    ) -> Self {
        let mut turn = Turn::new(worker, router, registry, store);
        let away = |clustered: &Clustered| {
            let (peers, holdings) = (clustered.peers.clone(), clustered.holdings.clone());
            Box::new(Away::new(worker, peers, holdings))
        };
        turn.away = clustered.as_ref().map(away);
        let (loading, loading_keys) = (HashMap::new(), HashMap::new());
        Self {
            turn,
            roles,
            loading,
            loading_keys,
            next_load: 0,
            started: Instant::now(),
            spent: Spent::begins(),
            clustered,
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self, mut poll: mio::Poll) {
        self.tell_time();
        for role in ROLES {
            self.with(role, |role, cx| role.started(cx));
        }
        if self.clustered.is_none() {
            // One node holds every shard from its start on.
            let slots: Vec<u16> = (0..Layout::PRODUCT.slots() as u16).collect();
            self.take_up(self.turn.store.start_view(), &slots);
        }
        let mut events = mio::Events::with_capacity(1_024);
        let mut stop_at: Option<Instant> = None;
        // Whether the end of the last turn set off work of its own, whose end of turn is still due.
        let mut unfinished = false;
        // How many of the sockets that were ready had their turn.
        let mut served = 0;
        let mut begun = Instant::now();
        loop {
            if !self.await_lease(stop_at.is_some()) {
                return;
            }
            let mut busy = self.take_mail(&mut stop_at) || unfinished;
            busy |= self.look_away();
            busy |= self.run_timers();
            self.drain_local();
            self.spent.on("timers", 0);
            unfinished = false;
            let did_something = busy || !events.is_empty();
            if did_something {
                for role in ROLES {
                    self.with(role, |role, cx| role.end_of_turn(cx));
                }
                unfinished = self.drain_local();
                self.spent.on("ends", 0);
            }
            self.turn.give_out();
            let mut left = false;
            if did_something {
                // After the others' mail has gone: a message takes several turns, and is not to wait for this in each.
                left = self.with(RoleId::Broker, |role, cx| role.after_turn(cx));
                left |= self.drain_local();
                self.turn.give_out();
                self.spent.on("what can wait", 0);
            }
            unfinished |= std::mem::take(&mut self.turn.again) | left;
            if let Some(deadline) = stop_at {
                let quiet = self.roles.iter().all(|role| role.quiet()) && !self.turn.kept_back() && !left;
                self.turn.own_inbox.quiet.store(quiet, Ordering::Release);
                if (quiet && self.turn.router.all_quiet()) || Instant::now() >= deadline {
                    return;
                }
            }
            let took = begun.elapsed();
            self.turn.own_inbox.meter.turn(took);
            if took > LONG {
                tracing::debug!(?took, of = ?self.spent, "a long turn");
            }
            if events.iter().nth(served).is_none() {
                served = 0;
                let sleep = if unfinished {
                    Some(Duration::ZERO)
                } else {
                    self.sleep(stop_at.is_some())
                };
                if let Err(error) = poll.poll(&mut events, sleep)
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    tracing::error!(%error, "polling failed");
                    std::thread::sleep(NAP);
                }
            }
            self.spent = Spent::begins();
            begun = Instant::now();
            self.tell_time();
            // It may have slept for long: nobody is read, or answered, without the lease.
            if !self.await_lease(stop_at.is_some()) {
                return;
            }
            let part = Part::begins();
            for event in events.iter().skip(served) {
                served += 1;
                if event.token() != WAKER {
                    let ended = event.is_read_closed() || event.is_error();
                    let readable = event.is_readable() || ended;
                    let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                    self.with(RoleId::Broker, |role, cx| {
                        if ended {
                            role.io_ended(cx, event.token());
                        }
                        role.io(cx, event.token(), readable, writable);
                    });
                    self.drain_local();
                }
                if part.is_over() {
                    break;
                }
            }
            self.spent.on("sockets, the last of these", served);
        }
    }

    fn tell_time(&mut self) {
        self.turn.now.mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A clock before 1970 reads as 1970.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.turn.now.unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        if let Some(clustered) = &self.clustered {
            self.turn.calendar = clustered.holdings.calendar();
            let boot_ms = (clustered.clock)();
            self.turn.now.unix_ms = self.turn.calendar.unix_ms(boot_ms, self.turn.now.unix_ms);
        }
        self.turn.health = self.turn.store.health();
    }

    fn sleep(&self, stopping: bool) -> Option<Duration> {
        let timer = self.turn.timers.peek().map(|Reverse((due, _))| {
            // Rounded up when it was set, so that it is due when the sleep ends.
            Duration::from_millis(due.saturating_sub(self.turn.now.mono_ms))
        });
        let timer = match (timer, self.turn.away.as_ref().and_then(|away| away.again_at())) {
            (timer, None) => timer,
            (timer, Some(at)) => {
                let again = Duration::from_millis(at.saturating_sub(self.turn.now.mono_ms));
                Some(timer.map_or(again, |timer| timer.min(again)))
            }
        };
        let nap = (self.turn.kept_back() || stopping).then_some(NAP);
        match (timer, nap) {
            (Some(timer), Some(nap)) => Some(timer.min(nap)),
            (one, other) => one.or(other),
        }
    }

    fn take_mail(&mut self, stop_at: &mut Option<Instant>) -> bool {
        let inbox = self.turn.own_inbox.clone();
        inbox.looking();
        let mut mail = inbox.lock();
        let answers = std::mem::take(&mut mail.answers);
        let completions = std::mem::take(&mut mail.completions);
        let loads = std::mem::take(&mut mail.loads);
        let handed = std::mem::take(&mut mail.handed);
        let (peer_answers, moves) = (
            std::mem::take(&mut mail.peer_answers),
            std::mem::take(&mut mail.moves),
        );
        // Those that come from now on may belong behind answers that come with them.
        let waiting = mail.waiting();
        let mut left = waiting.min(REQUESTS_A_TURN);
        let mut requests = take_some(&mut mail, &mut left);
        let stop = std::mem::take(&mut mail.stop);
        drop(mail);
        let busy = !(answers.is_empty()
            && completions.is_empty()
            && loads.is_empty()
            && handed.is_empty()
            && peer_answers.is_empty()
            && moves.is_empty()
            && requests.is_empty()
            && !stop);
        let of_store = completions.len();
        for completion in completions.into_iter().chain(loads) {
            self.complete(completion);
        }
        self.spent.on("completions", of_store);
        let of_others = answers.len();
        for (tag, answer) in answers {
            self.answered(tag, answer);
        }
        self.spent.on("answers", of_others);
        self.peers_answered(peer_answers);
        self.moved(moves);
        for (role, item) in handed {
            self.with(role, |role, cx| role.handed(cx, item));
        }
        let part = Part::begins();
        let mut applied = 0;
        loop {
            applied += requests.len();
            for envelope in requests {
                self.apply(envelope);
            }
            if left == 0 || part.is_over() || self.roles.iter().any(|role| role.has_enough()) {
                break;
            }
            requests = take_some(&mut inbox.lock(), &mut left);
        }
        if applied < waiting {
            inbox.wake();
        }
        self.spent.on("handed and requests", applied);
        if stop && stop_at.is_none() {
            *stop_at = Some(Instant::now() + SHUTDOWN);
            for role in ROLES {
                self.with(role, |role, cx| role.shut_down(cx));
            }
        }
        busy
    }

    /// Everything that this worker asked of itself, until nothing is left. Reads of the embedded store are answered
    /// before the call returns, so loads end here too. Whether there was anything.
    fn drain_local(&mut self) -> bool {
        let mut any = false;
        loop {
            if let Some((tag, answer)) = self.turn.local_answers.pop_front() {
                self.answered(tag, answer);
            } else if let Some((role, key, tag)) = self.turn.entries.pop_front() {
                self.enter(role, key, tag);
            } else if let Some(envelope) = self.turn.local.pop_front() {
                self.apply(envelope);
            } else {
                return any;
            }
            any = true;
        }
    }

    fn run_timers(&mut self) -> bool {
        let mut any = false;
        while let Some(Reverse((due, packed))) = self.turn.timers.peek().copied() {
            if due > self.turn.now.mono_ms {
                break;
            }
            self.turn.timers.pop();
            any = true;
            let (role, tag) = unpack(packed);
            self.with(ROLES[role], |role, cx| role.timer(cx, tag));
        }
        any
    }

    fn with<T>(&mut self, role: RoleId, call: impl FnOnce(&mut dyn Role, &mut Cx<'_>) -> T) -> T {
        call(
            self.roles[role as usize].as_mut(),
            &mut Cx {
                turn: &mut self.turn,
                role,
            },
        )
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Written { ticket, outcome } => {
                let (role, tag) = unpack(ticket);
                let outcome = match outcome {
                    // The word to give the slot up is on its way; until then nobody is told anything.
                    Outcome::Lost => Outcome::Unknown,
                    known => known,
                };
                self.with(ROLES[role], |role, cx| role.stored(cx, tag, outcome));
            }
            Completion::Read { ticket, answers } => {
                let answers = answers
                    .inspect_err(|error| tracing::warn!(%error, "a read failed"))
                    .ok();
                if ticket >> 56 == LOADS {
                    self.load_read(unpack(ticket).1, answers);
                } else {
                    let (role, tag) = unpack(ticket);
                    self.with(ROLES[role], |role, cx| role.read(cx, tag, answers));
                }
            }
        }
    }

    fn answered(&mut self, packed: u64, answer: Answer) {
        let (role, tag) = unpack(packed);
        self.with(ROLES[role], |role, cx| role.answered(cx, tag, answer));
    }

    fn apply(&mut self, envelope: Envelope) {
        if let Some(envelope) = self.if_held(envelope) {
            self.apply_here(envelope);
        }
    }

    fn apply_here(&mut self, envelope: Envelope) {
        let Envelope {
            key, command, reply, ..
        } = envelope;
        let role = RoleId::of(&command);
        if let Some((command, reply)) = self.park_if_loading(role, &key, Parked::Command(command, reply)) {
            let flow = self.with(role, |role, cx| role.apply(cx, &key, command, reply));
            if let Flow::Load {
                command,
                reply,
                reads,
            } = flow
            {
                self.load(
                    role,
                    key,
                    VecDeque::from([Parked::Command(command, reply)]),
                    reads,
                );
            }
        }
    }
}

/// The next requests, of so many that may be taken.
fn take_some(mail: &mut Mail, left: &mut usize) -> Vec<Envelope> {
    let taken = mail.take(REQUESTS.min(*left));
    *left -= taken.len();
    taken
}

pub(super) const ROLES: [RoleId; RoleId::COUNT] = [RoleId::Accounts, RoleId::Broker, RoleId::Ingest];
