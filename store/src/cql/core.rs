//! What the parts of the engine share: the session, the ports, the room for what is under way, the counters. Not here: what is done
//! with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::clock::Clock;
use super::confirm::{Confirms, Done};
use super::coordination::CoordinationStatements;
use super::keys::Keys;
use super::lane::Lane;
use super::line::Line;
use super::order::Order;
use super::session::{Link, Options};
use super::statements::Tables;
use super::take_up::After;
use super::trim::Trims;
use crate::StoreError;
use crate::store::{Completion, CompletionPort, Health, Ownership, Stats, Verdict};
use crate::types::{PortId, Scope, Table};

/// Statements under way, of all workers: what a cluster of three takes in 50 ms.
pub(super) const MAX_STATEMENTS: usize = 4_096;
/// And bytes of them.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Statements on the wire at once. More only wait in the store's own queues, where their time-outs run.
const ON_THE_WIRE: usize = 512;
/// Calls for reads that are answered at once.
const READERS: usize = 256;
/// Calls that take something up. Their own, since each may write for some seconds where the store is slow.
const TAKE_UPS: usize = 128;
/// Of either so many more that the store does not answer, as where a part of the ring has lost its replicas: with these it has no more
/// than twice as many as writes.
const SLOW: usize = 384;
/// How long one may have its place before it is one of those.
const PLACE: Duration = Duration::from_secs(1);
/// What take-ups leave to tidy up, at a time: it is nobody's hurry.
const TIDIES_AT_ONCE: usize = 16;
/// And what waits of it: some 20 MiB. What is above the next owner does.
const TIDIES_WAITING: usize = 65_536;
/// Writes count as failing when one is being repeated and none was stored for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether all reads are answered, at the end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// An attempt of a write, and the pause after it.
const LAST_ATTEMPT: Duration = Duration::from_secs(6);

pub(super) struct Core {
    pub(super) link: Link,
    pub(super) tables: Tables,
    pub(super) coordination: CoordinationStatements,
    pub(super) handle: tokio::runtime::Handle,
    pub(super) clock: Clock,
    pub(super) ownership: Arc<dyn Ownership>,
    pub(super) order: Mutex<Order<Done>>,
    pub(super) confirms: Confirms,
    pub(super) room: Room,
    pub(super) keys: Keys,
    pub(super) trims: Trims,
    pub(super) wire: Semaphore,
    pub(super) readers: Lane,
    pub(super) take_ups: Lane,
    pub(super) tidies: Line<After>,
    pub(super) reads_waiting: AtomicUsize,
    pub(super) meters: Meters,
    pub(super) trouble: Trouble,
    /// What the last confirming read showed.
    pub(super) shown: AtomicU64,
    /// The engine ends: what is not stored by now is completed as unknown.
    pub(super) ended: AtomicBool,
    ports: RwLock<HashMap<PortId, Arc<dyn CompletionPort>>>,
}

/// Why a write is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The shard is another's.
    Lost,
    /// The engine ends.
    Ended,
}

impl From<Gone> for StoreError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Lost => Self::Lost,
            Gone::Ended => Self::Unavailable("the engine has been closed".into()),
        }
    }
}

impl Core {
    pub(super) async fn open(
        options: &Options,
        tables: &[Table],
        ownership: Arc<dyn Ownership>,
    ) -> Result<Self, StoreError> {
        let link = Link::open(options).await?;
        super::schema::checked(&link, options).await?;
        let prepared = Tables::prepare(&link, options, tables).await?;
        let coordination = CoordinationStatements::prepare(&link, options).await?;
        Ok(Self {
            link,
            tables: prepared,
            coordination,
            handle: tokio::runtime::Handle::current(),
            clock: Clock::default(),
            ownership,
            order: Mutex::default(),
            confirms: Confirms::default(),
            room: Room::default(),
            keys: Keys::default(),
            trims: Trims::default(),
            wire: Semaphore::new(ON_THE_WIRE),
            readers: Lane::new(READERS, SLOW, PLACE),
            take_ups: Lane::new(TAKE_UPS, SLOW, PLACE),
            tidies: Line::new(TIDIES_AT_ONCE, TIDIES_WAITING),
            reads_waiting: AtomicUsize::new(0),
            meters: Meters::default(),
            trouble: Trouble::default(),
            shown: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            ports: RwLock::default(),
        })
    }

    pub(super) fn register(&self, port: PortId, sink: Arc<dyn CompletionPort>) {
        self.ports
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port, sink);
    }

    pub(super) fn complete(&self, port: PortId, batch: &mut Vec<Completion>) {
        let sink = self
            .ports
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&port)
            .cloned();
        match sink {
            Some(sink) => sink.complete(batch),
            None => tracing::error!(port, "completions for a port that nobody registered"),
        }
    }

    /// Whether there is any use in going on under this scope, as far as the last read of the view says.
    pub(super) fn still(&self, scope: Scope) -> Result<(), Gone> {
        if self.ended.load(Relaxed) {
            return Err(Gone::Ended);
        }
        match self.ownership.verdict(scope, self.shown.load(Relaxed)) {
            Verdict::Lost => Err(Gone::Lost),
            Verdict::Held | Verdict::Later => Ok(()),
        }
    }

    pub(super) fn health(&self) -> Health {
        if self.trouble.lasts(SILENCE) {
            Health::Failing
        } else {
            Health::Serving
        }
    }

    /// Waits until everything that was taken is complete and every read is answered; after `patience`, ends it.
    pub(super) async fn end(&self, patience: Duration) {
        let quiet = async {
            self.room.empty().await;
            while self.reads_waiting.load(Relaxed) > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(patience, quiet).await.is_err() {
            tracing::warn!("the store does not answer: what it was asked to write ends as unknown");
        }
        self.ended.store(true, Relaxed);
        self.confirms.wake();
        // Each statement ends with its attempt or its pause, whichever it is at.
        let _ = tokio::time::timeout(LAST_ATTEMPT, self.room.empty()).await;
    }
}

/// What is under way, bounded.
#[derive(Default)]
pub(super) struct Room {
    used: Mutex<Used>,
    emptied: Notify,
}

#[derive(Default)]
struct Used {
    batches: usize,
    statements: usize,
    bytes: usize,
    closed: bool,
}

impl Room {
    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room, if there is any; an empty engine takes a batch of any size.
    pub(super) fn take(&self, statements: usize, bytes: usize) -> bool {
        let mut used = self.used();
        let full = used.statements + statements > MAX_STATEMENTS || used.bytes + bytes > MAX_BYTES;
        if used.closed || (full && used.batches > 0) {
            return false;
        }
        used.batches += 1;
        used.statements += statements;
        used.bytes += bytes;
        true
    }

    /// There is room for others again.
    pub(super) fn give_back(&self, statements: usize, bytes: usize) {
        let mut used = self.used();
        used.statements -= statements;
        used.bytes -= bytes;
    }

    /// So many batches are complete, and whoever submitted them knows.
    pub(super) fn completed(&self, batches: usize) {
        let mut used = self.used();
        used.batches -= batches;
        if used.batches == 0 {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn close(&self) {
        self.used().closed = true;
    }

    async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.used().batches == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Whether writes go through.
#[derive(Default)]
pub(super) struct Trouble {
    /// The view cannot be read, so that nothing is confirmed.
    pub(super) blind: AtomicBool,
    repeating: AtomicUsize,
    stored: Mutex<Option<Instant>>,
}

/// One write that has failed and is being repeated.
pub(super) struct Repeating<'a>(&'a Trouble);

impl Trouble {
    pub(super) fn repeats(&self) -> Repeating<'_> {
        self.repeating.fetch_add(1, Relaxed);
        Repeating(self)
    }

    pub(super) fn stored(&self) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn lasts(&self, silence: Duration) -> bool {
        let stored = *self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let late = self.repeating.load(Relaxed) > 0 && stored.is_none_or(|at| at.elapsed() > silence);
        late || self.blind.load(Relaxed)
    }
}

impl Drop for Repeating<'_> {
    fn drop(&mut self) {
        self.0.repeating.fetch_sub(1, Relaxed);
    }
}

/// Counters.
#[derive(Default)]
pub(super) struct Meters {
    batches: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
    histogram: [AtomicU64; 10],
}

impl Meters {
    /// A batch was stored and confirmed so long after it was submitted.
    pub(super) fn stored(&self, bytes: usize, took: Duration) {
        let micros = took.as_micros() as u64;
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
        for (bound, count) in Stats::COMMIT_BUCKETS_MICROS.iter().zip(&self.histogram) {
            if micros <= *bound {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            // Nothing is committed in groups here: a batch is its own.
            commits: self.batches.load(Relaxed),
            batches: self.batches.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            commit_micros: self.micros.load(Relaxed),
            commit_histogram: std::array::from_fn(|i| self.histogram[i].load(Relaxed)),
            ..Stats::default()
        }
    }
}
