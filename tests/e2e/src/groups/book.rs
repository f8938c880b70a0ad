//! What publishers and members of groups saw, and what is wrong with it. Knows nothing of how a group chooses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Faults named; the first ones say enough.
const NAMED: usize = 12;

/// A publish's number: the publisher, and its how many-th.
pub(super) type Id = (u16, u32);

/// A session of a member: which member, and its how many-th session.
pub(super) type Owner = (usize, u32);

/// What happened to one publish, as its publisher saw it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// MQTT promises an order only within one.
    qos: u8,
    /// The server's life in which it was first sent.
    life: u32,
    /// It was acknowledged.
    acknowledged: bool,
    /// It was sent once, and acknowledged in that same life.
    once: bool,
}

/// A publish that reached a member as one that its session did not hold.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    owner: Owner,
    /// Of the member.
    connection: u32,
    id: Id,
}

#[derive(Debug, Default)]
struct Pages {
    sent: HashMap<Id, Sent>,
    /// By group.
    arrivals: [Vec<Arrival>; 2],
    problems: Vec<String>,
}

/// Shared by all clients of a run.
#[derive(Debug, Default)]
pub(super) struct Book {
    life: AtomicU32,
    stopped: AtomicBool,
    calm: AtomicBool,
    over: AtomicBool,
    acknowledged: AtomicU64,
    arrivals: AtomicU64,
    refused: AtomicU64,
    ended: AtomicU64,
    left: AtomicU64,
    in_flight: AtomicU64,
    members: AtomicU64,
    pages: Mutex<Pages>,
}

/// What is said of one group.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Arrivals, repeats among them.
    pub arrivals: u64,
    /// Arrivals of what the session had had before.
    pub repeats: u64,
    /// Publishes that more than one session got.
    pub doubles: u64,
    /// Those of them that nothing explains: acknowledged at once, in one life of the server.
    pub unexplained: u64,
    /// Acknowledged publishes that nobody got.
    pub lost: u64,
    /// Of a publisher's publishes of one QoS at one session, those that came behind a later one. Allowed (MQTT 5, 4.6).
    pub overtaken: u64,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is about to be killed.
    pub(super) fn kill(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    /// Of the server.
    pub(super) fn life(&self) -> u32 {
        self.life.load(Ordering::SeqCst)
    }

    /// No new publishes.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether to begin no new publish.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Members come and stay.
    pub(super) fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// Whether members stay.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Everybody ends.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether to end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// A publish is about to be sent for the first time.
    pub(super) fn send(&self, id: Id, qos: u8) {
        let sent = Sent {
            qos,
            life: self.life(),
            acknowledged: false,
            once: true,
        };
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.pages().sent.insert(id, sent);
    }

    /// It is about to be sent again.
    pub(super) fn send_again(&self, id: Id) {
        if let Some(sent) = self.pages().sent.get_mut(&id) {
            sent.once = false;
        }
    }

    /// Its PUBACK, PUBREC or PUBCOMP came.
    pub(super) fn acknowledge(&self, id: Id) {
        let life = self.life();
        if let Some(sent) = self.pages().sent.get_mut(&id) {
            sent.once &= sent.life == life;
            sent.acknowledged = true;
        }
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// It was refused: it may have arrived or not.
    pub(super) fn refuse(&self, id: Id) {
        self.send_again(id);
        self.refused.fetch_add(1, Ordering::SeqCst);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Something arrived.
    pub(super) fn arrive(&self, group: usize, owner: Owner, connection: u32, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let id = text
            .split_once(':')
            .and_then(|(publisher, number)| Some((publisher.parse().ok()?, number.parse().ok()?)));
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        match id {
            Some(id) => self.pages().arrivals[group].push(Arrival {
                owner,
                connection,
                id,
            }),
            None => self.problem(format!("a payload of nobody arrived: {text}")),
        }
    }

    /// A session is in its group.
    pub(super) fn joined(&self) {
        self.members.fetch_add(1, Ordering::SeqCst);
    }

    /// How often one came in.
    pub(super) fn members(&self) -> u64 {
        self.members.load(Ordering::SeqCst)
    }

    /// A session ended for good.
    pub(super) fn session_ended(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// A member left its group by UNSUBSCRIBE.
    pub(super) fn unsubscribed(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    /// Sessions that ended, and members that left their group.
    pub(super) fn goings(&self) -> (u64, u64) {
        (
            self.ended.load(Ordering::SeqCst),
            self.left.load(Ordering::SeqCst),
        )
    }

    /// What must not happen, has.
    pub(super) fn problem(&self, what: String) {
        let mut pages = self.pages();
        if pages.problems.len() < NAMED {
            pages.problems.push(what);
        }
    }

    /// Acknowledged publishes.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Refused publishes.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Sent, and neither acknowledged nor refused.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Arrivals of all groups.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::SeqCst)
    }

    /// Whether every acknowledged publish arrived in both groups.
    pub(super) fn is_complete(&self) -> bool {
        let pages = self.pages();
        pages.arrivals.iter().all(|arrivals| {
            let got: HashSet<Id> = arrivals.iter().map(|one| one.id).collect();
            let mut acknowledged = pages.sent.iter().filter(|(_, sent)| sent.acknowledged);
            acknowledged.all(|(id, _)| got.contains(id))
        })
    }

    /// What is wrong with one group; `stays`: its members' sessions never ended. Faults go to `faults`.
    pub(super) fn judge(&self, group: usize, name: &str, stays: bool, faults: &mut Vec<String>) -> Tally {
        let pages = self.pages();
        let arrivals = &pages.arrivals[group];
        let mut tally = Tally {
            arrivals: arrivals.len() as u64,
            ..Tally::default()
        };
        let mut named = 0;
        let mut fault = |what: String| {
            named += 1;
            if named <= NAMED {
                faults.push(format!("{name}: {what}"));
            }
        };
        let mut owners: BTreeMap<Id, Vec<Owner>> = BTreeMap::new();
        for arrival in arrivals {
            let owners = owners.entry(arrival.id).or_default();
            if owners.contains(&arrival.owner) {
                tally.repeats += 1;
            } else {
                owners.push(arrival.owner);
            }
        }
        let once = |id: &Id| {
            pages
                .sent
                .get(id)
                .is_some_and(|sent| sent.acknowledged && sent.once)
        };
        for (id, sent) in &pages.sent {
            if sent.acknowledged && !owners.contains_key(id) {
                tally.lost += 1;
                fault(format!("{id:?} was acknowledged and nobody got it"));
            }
        }
        for (id, owners) in &owners {
            if !pages.sent.contains_key(id) {
                fault(format!("{id:?} was never sent"));
            }
            if owners.len() < 2 {
                continue;
            }
            tally.doubles += 1;
            if stays && once(id) {
                tally.unexplained += 1;
                fault(format!(
                    "{id:?}, acknowledged at once, has the members {owners:?}"
                ));
            }
        }
        // A session's log is one sequence: what comes again comes in the order of the first time. Where sessions end, what
        // they left may be given to a member once more after a kill, so that its log has it twice.
        let mut place: HashMap<(Owner, Id), u64> = HashMap::new();
        let mut last: HashMap<(Owner, u32), u64> = HashMap::new();
        let mut newest: HashMap<(Owner, u16, u8), u32> = HashMap::new();
        for (number, arrival) in (0_u64..).zip(arrivals) {
            let is_new = !place.contains_key(&(arrival.owner, arrival.id));
            let place = *place.entry((arrival.owner, arrival.id)).or_insert(number);
            // What may be in a log twice says nothing.
            if !once(&arrival.id) || owners[&arrival.id].len() > 1 {
                continue;
            }
            let last = last.entry((arrival.owner, arrival.connection)).or_insert(place);
            if stays && place < *last {
                fault(format!(
                    "{:?} came again at {:?} behind what had come later",
                    arrival.id, arrival.owner
                ));
            }
            *last = place.max(*last);
            let qos = pages.sent.get(&arrival.id).map_or(0, |sent| sent.qos);
            let newest = newest.entry((arrival.owner, arrival.id.0, qos)).or_default();
            tally.overtaken += u64::from(is_new && arrival.id.1 < *newest);
            *newest = arrival.id.1.max(*newest);
        }
        tally
    }

    /// What clients found wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        self.pages().problems.clone()
    }
}
