//! What was told to anybody, and whether it may be so: knows the promises (ACK, SEQ, ORDER, ONCE, OWNER, SCOPE, LEASE),
//! nothing of how they are kept. The first broken one ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use godwit_store::View;

use crate::content::{CONVERSATION, Entry, MEMBERS_AT_FIRST, MailEntry};
use crate::exec::{Proc, Sim, lock};

#[derive(Default)]
struct Log {
    /// Confirmed, by position − 1.
    rows: Vec<Bytes>,
    floor: u64,
    /// Who confirmed under a view.
    owners: BTreeMap<View, Proc>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<u8, Log>,
    /// Position in the mailbox by (mailbox, position in the conversation).
    delivered: BTreeMap<(u8, u64), u64>,
    /// The last position of the conversation in a mailbox.
    newest: BTreeMap<u8, u64>,
    ids: BTreeMap<(u8, u32), u64>,
    acked: BTreeMap<(u8, u32), u64>,
    cursors: BTreeMap<u8, u64>,
    denied: Vec<(u32, u64)>,
    granted: Vec<(u32, u64)>,
    /// Appends that an owner began after its lease, by view, log and position: none may be confirmed.
    late: BTreeSet<(View, u8, u64)>,
    late_ones: u64,
    broken: Option<String>,
    trace: Option<Vec<String>>,
    told: u64,
}

/// Shared by everybody; cheap to clone.
#[derive(Clone)]
pub(crate) struct Oracle {
    sim: Sim,
    state: Arc<Mutex<State>>,
}

impl Oracle {
    pub(crate) fn new(sim: Sim, trace: bool) -> Self {
        let state = State {
            trace: trace.then(Vec::new),
            ..State::default()
        };
        Self {
            sim,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A line of the trace.
    pub(crate) fn say(&self, proc: Proc, what: impl FnOnce() -> String) {
        let now = self.sim.now();
        if let Some(trace) = &mut lock(&self.state).trace {
            trace.push(format!("{:>10.3} p{proc:<3} {}", now as f64 / 1000.0, what()));
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        lock(&self.state).trace.take().unwrap_or_default()
    }

    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.state).broken.clone()
    }

    pub(crate) fn breaks(&self, promise: &str, why: impl Display) {
        let text = format!("{promise} at {} ms: {why}", self.sim.now() / 1000);
        self.say(0, || format!("BROKEN {text}"));
        lock(&self.state).broken.get_or_insert(text);
    }

    /// Acknowledged sends and delivered entries so far.
    pub(crate) fn told(&self) -> u64 {
        lock(&self.state).told
    }

    /// An owner confirms a position: its own append, or one that it found when it took the log up.
    pub(crate) fn confirmed(&self, log: u8, seq: u64, row: &Bytes, view: View, proc: Proc) {
        self.say(proc, || {
            format!("confirms {} {seq} in view {view}: {}", name(log), show(log, row))
        });
        let problem = {
            let mut state = lock(&self.state);
            let late = state.late.contains(&(view, log, seq));
            let of = state.logs.entry(log).or_default();
            let owner = *of.owners.entry(view).or_insert(proc);
            let last = of.rows.len() as u64;
            if late {
                Some((
                    "LATE",
                    format!(
                        "p{proc} began {} {seq} after its lease, and confirms it",
                        name(log)
                    ),
                ))
            } else if owner != proc {
                Some((
                    "OWNER",
                    format!("p{owner} and p{proc} both confirm {} in view {view}", name(log)),
                ))
            } else if seq <= last {
                let had = &of.rows[seq as usize - 1];
                (had != row).then(|| {
                    (
                        "OWNER",
                        format!(
                            "{} {seq} was {}, is now {}",
                            name(log),
                            show(log, had),
                            show(log, row)
                        ),
                    )
                })
            } else if seq != last + 1 {
                Some(("SEQ", format!("{} {seq} is confirmed after {last}", name(log))))
            } else {
                of.rows.push(row.clone());
                state.first_time(log, seq, row)
            }
        };
        if let Some((promise, why)) = problem {
            self.breaks(promise, why);
        }
    }

    /// A process begins to append at this position and further ones, and its lease is over.
    pub(crate) fn begins_late(&self, proc: Proc, view: View, log: u8, seq: u64) {
        self.say(proc, || format!("writes {} {seq} after its lease", name(log)));
        let state = &mut *lock(&self.state);
        state.late_ones += 1;
        state.late.insert((view, log, seq));
    }

    /// How many appends were begun after a lease.
    pub(crate) fn late_ones(&self) -> u64 {
        lock(&self.state).late_ones
    }

    /// An owner has taken a log up, and it was confirmed. `has` positions were when the confirming read began: who was
    /// stopped since may say it late.
    pub(crate) fn taken_up(&self, log: u8, last: u64, has: u64, view: View, proc: Proc) {
        self.say(proc, || {
            format!("took {} up in view {view}, {last} positions", name(log))
        });
        if last < has {
            self.breaks(
                "OWNER",
                format!(
                    "{} had {has} confirmed positions, its next owner found {last}",
                    name(log)
                ),
            );
        }
    }

    /// What is trimmed is not looked at again; so `rows` is what there is before.
    pub(crate) fn trims(&self, log: u8, floor: u64, rows: &BTreeMap<u64, Bytes>, proc: Proc) {
        self.all_there(log, rows);
        self.say(proc, || format!("trims {} to {floor}", name(log)));
        let state = &mut *lock(&self.state);
        let log = state.logs.entry(log).or_default();
        log.floor = log.floor.max(floor);
    }

    /// A home says that nothing of the conversation up to here is left to be offered.
    pub(crate) fn tail_is_closed(&self, last: u64, proc: Proc) {
        let missing = {
            let state = lock(&self.state);
            (1..=last).find_map(|seq| Some((seq, state.lacking(seq)?)))
        };
        if let Some((seq, user)) = missing {
            self.breaks(
                "TAIL",
                format!("p{proc} finds the tail closed, but mailbox {user} lacks {seq}"),
            );
        }
    }

    pub(crate) fn acknowledged(&self, sender: u8, number: u32, seq: u64) {
        self.say(0, || format!("client {sender} hears: {number} is {seq}"));
        let problem = {
            let mut state = lock(&self.state);
            state.told += 1;
            let log = state.logs.entry(CONVERSATION).or_default();
            let floor = log.floor;
            let at = seq
                .checked_sub(1)
                .and_then(|at| log.rows.get(at as usize))
                .and_then(Entry::decode);
            let is_it = at.is_some_and(|entry| entry.sender == sender && entry.number == number);
            let before = state.acked.insert((sender, number), seq);
            if !is_it {
                Some(("ACK", format!("{number} of client {sender} is not at {seq}")))
            } else if before.is_some_and(|before| before != seq && before > floor) {
                Some((
                    "ONCE",
                    format!("{number} of client {sender} was {before:?}, is {seq}"),
                ))
            } else {
                let lacking = state.lacking(seq);
                lacking.map(|user| ("ACK", format!("{seq} is acknowledged, mailbox {user} lacks it")))
            }
        };
        if let Some((promise, why)) = problem {
            self.breaks(promise, why);
        }
    }

    pub(crate) fn read(&self, proc: Proc, log: u8, seq: u64, row: &Bytes) {
        let has = {
            let state = lock(&self.state);
            state
                .logs
                .get(&log)
                .and_then(|log| log.rows.get(seq as usize - 1).cloned())
        };
        if has.as_ref() != Some(row) {
            self.breaks(
                "OWNER",
                format!("p{proc} reads at {} {seq} what nobody confirmed", name(log)),
            );
        }
    }

    pub(crate) fn cursor_is(&self, user: u8, cursor: u64) {
        let state = &mut *lock(&self.state);
        let stored = state.cursors.entry(user).or_default();
        *stored = (*stored).max(cursor);
    }

    pub(crate) fn cursor(&self, user: u8) -> u64 {
        lock(&self.state).cursors.get(&user).copied().unwrap_or(0)
    }

    /// An owner found this cursor; `stored` was confirmed when its confirming read began.
    pub(crate) fn cursor_found(&self, user: u8, cursor: u64, stored: u64) {
        if cursor < stored {
            self.breaks(
                "OWNER",
                format!("cursor {stored} of mailbox {user} was confirmed, its next owner found {cursor}"),
            );
        }
    }

    pub(crate) fn denied(&self, key: u32, value: u64) {
        lock(&self.state).denied.push((key, value));
    }

    pub(crate) fn granted(&self, key: u32, value: u64) {
        lock(&self.state).granted.push((key, value));
    }

    /// Facts at the end, by key.
    pub(crate) fn facts(&self, fact: impl Fn(u32) -> Option<u64>) {
        let (denied, granted) = {
            let state = lock(&self.state);
            (state.denied.clone(), state.granted.clone())
        };
        for (key, value) in denied {
            if fact(key) == Some(value) {
                self.breaks("FACT", format!("name {key} was refused to {value}, who has it"));
            }
        }
        for (key, value) in granted {
            if fact(key) != Some(value) {
                self.breaks(
                    "FACT",
                    format!("name {key} was given to {value}, and is {:?}", fact(key)),
                );
            }
        }
    }

    pub(crate) fn last(&self, log: u8) -> u64 {
        lock(&self.state)
            .logs
            .get(&log)
            .map_or(0, |log| log.rows.len() as u64)
    }

    /// A log as the store has it now: what is confirmed and not trimmed must be there.
    pub(crate) fn all_there(&self, log: u8, rows: &BTreeMap<u64, Bytes>) {
        let missing = {
            let state = lock(&self.state);
            state.logs.get(&log).and_then(|log| {
                (log.floor + 1..=log.rows.len() as u64)
                    .find(|seq| rows.get(seq) != log.rows.get(*seq as usize - 1))
            })
        };
        if let Some(seq) = missing {
            self.breaks(
                "ACK",
                format!("{} {seq} was confirmed and is not there", name(log)),
            );
        }
    }
}

impl State {
    fn first_time(&mut self, log: u8, seq: u64, row: &Bytes) -> Option<(&'static str, String)> {
        if log == CONVERSATION {
            let entry = Entry::decode(row)?;
            let floor = self.logs.get(&log).map_or(0, |log| log.floor);
            let before = self.ids.insert((entry.sender, entry.number), seq)?;
            return (before > floor).then(|| ("ONCE", format!("{entry:?} is at {before} and at {seq}")));
        }
        self.told += 1;
        let mail = MailEntry::decode(row)?;
        let conversation = self.logs.get(&CONVERSATION);
        let there = conversation.and_then(|log| log.rows.get((mail.seq as usize).checked_sub(1)?));
        if there != Some(&mail.entry) {
            return Some((
                "OWNER",
                format!("mailbox {log} got {} as {seq}, which nobody confirmed", mail.seq),
            ));
        }
        if self.members_at(mail.seq) & (1 << log) == 0 {
            return Some((
                "SCOPE",
                format!("mailbox {log} got {}, who was no member", mail.seq),
            ));
        }
        if let Some(before) = self.delivered.insert((log, mail.seq), seq) {
            return Some((
                "ONCE",
                format!("mailbox {log} has {} at {before} and at {seq}", mail.seq),
            ));
        }
        let newest = self.newest.insert(log, mail.seq).unwrap_or(0);
        (newest >= mail.seq).then(|| ("ORDER", format!("mailbox {log} got {} after {newest}", mail.seq)))
    }

    /// Members by the entries below a position.
    fn members_at(&self, seq: u64) -> u64 {
        let rows = self.logs.get(&CONVERSATION).map_or(&[][..], |log| &log.rows);
        let below = rows.iter().take(seq.saturating_sub(1) as usize);
        below
            .filter_map(Entry::decode)
            .fold(MEMBERS_AT_FIRST, |members, entry| entry.then(members))
    }

    /// A member whose mailbox lacks a position.
    fn lacking(&self, seq: u64) -> Option<u8> {
        let members = self.members_at(seq);
        (0..64).find(|user| members & (1 << user) != 0 && !self.delivered.contains_key(&(*user, seq)))
    }
}

pub(crate) fn name(log: u8) -> String {
    if log == CONVERSATION {
        "conversation".into()
    } else {
        format!("mailbox {log}")
    }
}

fn show(log: u8, row: &Bytes) -> String {
    if log == CONVERSATION {
        Entry::decode(row).map_or("?".into(), |entry| entry.to_string())
    } else {
        MailEntry::decode(row).map_or("?".into(), |mail| {
            format!("{} {}", mail.seq, show(CONVERSATION, &mail.entry))
        })
    }
}
