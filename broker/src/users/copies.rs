//! Retained messages that came over links. Those of this node are shared by all who wait for them; those of another come anew with each answer.
//! So what a worker's clients hold of them together is bounded, and who wants more waits in a line
//! (docs/decisions/0014-full-workers-and-retained-answers.md).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use godwit_wire::ids::{Key, SessionId, UserId};
use prometheus_client::metrics::gauge::Gauge;

use super::config::UsersMetrics;
use super::env::Env;
use super::request::Request;

/// Bytes of retained messages of other nodes that wait for a worker's clients, and of those asked for; one answer may overrun it.
pub(crate) const COPIES_BYTES: usize = 64 * 1024 * 1024;
/// What an answer of unknown size counts for while it is asked for: so 64 are at a time.
const UNKNOWN_BYTES: usize = 1024 * 1024;
/// A session that has had some for so long, milliseconds, gives them back if others wait and it took less than [`TAKES_BYTES`] meanwhile.
const IDLE_MS: u64 = 5_000;
/// What a client takes that reads.
const TAKES_BYTES: usize = 1024 * 1024;

struct Used {
    bytes: AtomicUsize,
    gauge: Gauge,
}

/// So many bytes are held; no longer when this is dropped.
pub(crate) struct Held {
    of: Arc<Used>,
    bytes: usize,
    /// Of who asks for them: its place in the line.
    place: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

fn gauged(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What comes of the retained messages that a filter asks for.
pub(crate) enum Fetch {
    /// They are this node's, or none are wanted.
    Here,
    /// They are asked for with the route, and this is held for them.
    Now(Held),
    /// They are asked for in turn, once the route is live.
    Later,
}

impl Fetch {
    /// Of a filter under this key.
    pub(crate) fn of(env: &mut Env<'_, '_>, key: &Key, retained: bool) -> Self {
        let copies = &env.common.copies;
        // Those of a wildcard are of all keys.
        let elsewhere = match key {
            Key::Wildcards => env.cx.is_clustered(),
            key => env.cx.is_elsewhere(key),
        };
        if !retained || !(elsewhere || copies.everywhere) {
            return Self::Here;
        }
        match copies.line.is_empty() && copies.has_room(UNKNOWN_BYTES) {
            true => {
                let place = env.common.copies.place();
                Self::Now(env.common.copies.hold(UNKNOWN_BYTES, place))
            }
            false => Self::Later,
        }
    }
}

struct Holder {
    user: UserId,
    /// What it took since then, milliseconds of the loop.
    since_ms: u64,
    taken: usize,
}

/// Where something waits in the line, and for how many bytes.
pub(crate) struct Place(u64, usize);

impl Held {
    /// Where that which this was held for waits for so many bytes.
    pub(crate) fn again(self, bytes: usize) -> Place {
        Place(self.place, bytes)
    }

    /// Holds nothing any more, but for its place.
    pub(crate) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.of.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of.gauge.dec_by(gauged(bytes));
    }
}

/// Who waits to ask.
pub(crate) struct Waits {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) route_id: u64,
    /// The SUBSCRIBE, and which filter of it; `None`: they were given back since.
    pub(crate) of: Option<(u64, usize)>,
    bytes: usize,
}

/// See the file's head. One a worker.
pub(crate) struct Copies {
    used: Arc<Used>,
    /// By place, in the order of coming. At most one for each subscription.
    line: BTreeMap<u64, Waits>,
    last_place: u64,
    waiting: Gauge,
    /// Who may hold some.
    holders: HashMap<SessionId, Holder>,
    /// For tests on one node: all are another's.
    pub(crate) everywhere: bool,
}

impl Copies {
    pub(crate) fn new(metrics: &UsersMetrics) -> Self {
        let used = Used {
            bytes: AtomicUsize::new(0),
            gauge: metrics.copies_bytes.clone(),
        };
        Self {
            used: Arc::new(used),
            line: BTreeMap::new(),
            last_place: 0,
            waiting: metrics.copies_waiting.clone(),
            holders: HashMap::new(),
            everywhere: false,
        }
    }

    /// Whether so many bytes more may be held. Of any size if nothing is.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let used = self.used.bytes.load(Ordering::Relaxed);
        used == 0 || used.saturating_add(bytes) <= COPIES_BYTES
    }

    /// A place behind all others.
    fn place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    fn hold(&self, bytes: usize, place: u64) -> Held {
        self.used.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.gauge.inc_by(gauged(bytes));
        Held {
            of: self.used.clone(),
            bytes,
            place,
        }
    }

    /// Holds a message.
    pub(crate) fn hold_message(&self, bytes: usize) -> Held {
        self.hold(bytes, 0)
    }

    /// One more waits, behind the others.
    pub(crate) fn wait(
        &mut self,
        (user, session): (UserId, SessionId),
        route_id: u64,
        of: Option<(u64, usize)>,
    ) {
        let place = self.place();
        self.wait_at(Place(place, UNKNOWN_BYTES), (user, session), route_id, of);
    }

    /// What came had no room: it is asked for again where it was in the line, as so many bytes.
    pub(crate) fn wait_at(
        &mut self,
        Place(place, bytes): Place,
        (user, session): (UserId, SessionId),
        route_id: u64,
        of: Option<(u64, usize)>,
    ) {
        let waits = Waits {
            user,
            session,
            route_id,
            of,
            bytes,
        };
        if self.line.insert(place, waits).is_none() {
            self.waiting.inc();
        }
    }

    /// The next one in the line, if there is room for what it asks for.
    pub(crate) fn next(&mut self) -> Option<(Waits, Held)> {
        let first = self.line.first_key_value()?;
        let (place, bytes) = (*first.0, first.1.bytes);
        if !self.has_room(bytes) {
            return None;
        }
        let waits = self.line.remove(&place)?;
        self.waiting.dec();
        Some((waits, self.hold(bytes, place)))
    }

    /// A session holds some from now on.
    pub(crate) fn holds(&mut self, user: UserId, session: SessionId, now_ms: u64) {
        self.holders.entry(session).or_insert(Holder {
            user,
            since_ms: now_ms,
            taken: 0,
        });
    }

    /// A session took one of so many bytes, if it holds any.
    pub(crate) fn took(&mut self, session: SessionId, bytes: usize) {
        if !self.holders.is_empty()
            && let Some(holder) = self.holders.get_mut(&session)
        {
            holder.taken += bytes;
        }
    }

    /// A session reads again: what it gave back is asked for in turn.
    pub(crate) fn ask_again(&mut self, of: (UserId, SessionId), request: &mut Request) {
        for again in request.again.iter_mut().filter(|again| !again.asked) {
            again.asked = true;
            self.wait(of, again.one.route_id, None);
        }
    }

    /// Looks at those who may hold some, with what each is to do: `true` from it if it holds some. Those who took too little give back
    /// (the second argument) if others wait.
    pub(crate) fn look(&mut self, now_ms: u64, mut each: impl FnMut(UserId, SessionId, bool) -> bool) {
        let others_wait = !self.line.is_empty();
        self.holders.retain(|session, holder| {
            let is_time = now_ms.saturating_sub(holder.since_ms) >= IDLE_MS;
            let gives_back = others_wait && is_time && holder.taken < TAKES_BYTES;
            if is_time && holder.taken >= TAKES_BYTES {
                (holder.since_ms, holder.taken) = (now_ms, 0);
            }
            each(holder.user, *session, gives_back)
        });
        if self.holders.is_empty() && self.holders.capacity() > 1_024 {
            self.holders = HashMap::new();
        }
    }
}
