//! The feed's thread: drain notifications, read the log behind the marks, add, commit, report; on a failure throw the
//! uncommitted away and begin again from what the index holds. The marks come from the index itself, so that
//! a message is never added twice, whenever the process died.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use super::{
    FeedConfig, Indexed, Source, Tail,
    control::{Control, Done},
    recovery::FIRST_BACKOFF,
    walk::{Division, Walk, What},
    work::{Came, UNKNOWN, WorkList},
};
use crate::{
    error::{Error, SourceError},
    index::{CommitNote, Index},
    progress::FeedState,
    shards::Standing,
    writer::{Removal, Writer},
};

/// Entries read from one conversation at a time, so that a long one does not hold up the others.
const READ_PAGE: usize = 256;

/// Conversations read before notifications are looked at again.
const READS_PER_CYCLE: usize = 256;

/// Conversations that may fail to be read before the cycle gives the store a rest.
const MAX_FAILED_READS: usize = 8;

/// Messages after which a commit does not wait for its time: bounds what a crash makes us read again.
const MAX_UNCOMMITTED: usize = 20_000;

/// Pause in which notifications gather, so that a busy conversation is read once, not for each message.
const GATHER: Duration = Duration::from_millis(50);

/// A commit that is slow makes the interval longer, up to this: findable within 2 s must stay.
const MAX_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// An idle feed looks around this often, should a wake-up ever be missed.
const IDLE_TICK: Duration = Duration::from_secs(1);

pub(super) struct Worker<S> {
    pub(super) index: Index,
    pub(super) source: S,
    pub(super) config: FeedConfig,
    signals: Receiver<Tail>,
    pub(super) control: Arc<Control>,
    pub(super) writer: Option<Writer>,
    pub(super) work: WorkList,
    pub(super) walk: Option<Walk>,
    /// Of an index that has some shards only.
    pub(super) division: Division,
    /// Every conversation was visited.
    pub(super) complete: bool,
    /// What is committed about the index as a whole.
    pub(super) note: CommitNote,
    pub(super) removals: Vec<(Removal, Done)>,
    pub(super) uncommitted: usize,
    next_commit: Instant,
    /// When notifications were last drained, and the time before: what is drained now was not confirmed before that.
    drained_ms: i64,
    pub(super) backoff: Duration,
    pub(super) source_backoff: Duration,
}

/// What the reads of a cycle gave.
#[derive(Default)]
struct Reads {
    any: bool,
    failed: Option<SourceError>,
}

/// What to do after a cycle.
pub(super) enum Step {
    Go,
    Wait(Duration),
    Idle,
}

impl<S: Source> Worker<S> {
    pub(super) fn new(
        index: Index,
        source: S,
        config: FeedConfig,
        signals: Receiver<Tail>,
        control: Arc<Control>,
    ) -> Self {
        let drained_ms = (config.clock)();
        let progress = index.progress();
        let complete = progress.is_complete();
        let note = index.note().unwrap_or_default();
        let divided = progress.shards().is_some();
        // Of a divided index what comes is walked over when it comes.
        let walk = (!divided).then(|| Walk {
            what: if complete { What::Tails } else { What::All },
            shards: None,
            after: None,
            since_ms: progress.watermark().unwrap_or(UNKNOWN),
        });
        progress.set_state(if complete || divided {
            FeedState::CatchingUp
        } else {
            FeedState::Rebuilding
        });
        Self {
            index,
            source,
            config,
            signals,
            control,
            writer: None,
            work: WorkList::default(),
            walk,
            division: Division::default(),
            complete: complete && !divided,
            note,
            removals: Vec::new(),
            uncommitted: 0,
            next_commit: Instant::now(),
            drained_ms,
            backoff: FIRST_BACKOFF,
            source_backoff: FIRST_BACKOFF,
        }
    }

    pub(super) fn run(mut self) {
        lower_priority(self.config.nice);
        loop {
            if let Some(commit) = self.control.stopping() {
                self.finish(commit);
                return;
            }
            let step = match catch_unwind(AssertUnwindSafe(|| self.cycle())) {
                Ok(Ok(step)) => step,
                Ok(Err(error)) => self.recover(&error),
                Err(_) => self.recover(&Error::Damaged),
            };
            match step {
                Step::Go => {}
                Step::Wait(pause) => thread::park_timeout(pause),
                Step::Idle => self.idle(),
            }
        }
    }

    fn cycle(&mut self) -> Result<Step, Error> {
        if self.control.take_rebuild() {
            self.rebuild()?;
        }
        self.removals.extend(self.control.take_removals());
        self.look_at_shards()?;
        self.drain();
        let walked = self.walk_on();
        let read = self.read_some()?;
        let failed = walked.err().or(read.failed);
        self.index
            .progress()
            .counters
            .pending
            .store(self.work.pending() as u64, SeqCst);
        let wanted = self.wants_commit();
        let now = Instant::now();
        if wanted
            && (now >= self.next_commit
                || self.work.touched() >= MAX_UNCOMMITTED
                || self.uncommitted >= MAX_UNCOMMITTED)
        {
            self.commit()?;
        }
        if let Some(error) = failed {
            return Ok(self.source_failed(&error.into(), read.any));
        }
        self.source_backoff = FIRST_BACKOFF;
        Ok(if self.work.pending() > 0 || self.walks() {
            Step::Go
        } else if self.wants_commit() {
            Step::Wait(GATHER.min(self.next_commit.saturating_duration_since(now)))
        } else {
            self.settle();
            Step::Idle
        })
    }

    /// Takes over what was notified. Each waits since the drain before this one.
    fn drain(&mut self) {
        let since_ms = self.drained_ms;
        self.drained_ms = (self.config.clock)().max(since_ms);
        let mut lost = self.index.progress().overflowed.swap(false, SeqCst);
        // What arrives while draining is left for the next time, so that a flood cannot keep the thread here.
        for tail in self.signals.try_iter().take(super::MAX_NOTIFICATIONS) {
            lost |= is_here(&self.index, tail) && !self.work.add(tail, since_ms, Came::Told);
        }
        if lost {
            self.walk_again(since_ms);
        }
    }

    /// Reads and adds. A conversation that cannot be read waits again and does not hold up the others.
    fn read_some(&mut self) -> Result<Reads, Error> {
        let mut reads = Reads::default();
        let mut unread = Vec::new();
        for _ in 0..READS_PER_CYCLE {
            if self.uncommitted >= MAX_UNCOMMITTED || unread.len() >= MAX_FAILED_READS {
                break;
            }
            let Some(tail) = self.work.next() else { break };
            let mark = match self.work.mark(tail.conversation) {
                Some(mark) => mark,
                None => self.index.committed_mark(tail.conversation)?,
            };
            if mark >= tail.confirmed_up_to {
                self.work.read(tail, mark, true);
                continue;
            }
            let page = match self
                .source
                .read(tail.conversation, mark, tail.confirmed_up_to, READ_PAGE)
            {
                Ok(page) => page,
                Err(error) => {
                    unread.push(tail.conversation);
                    reads.failed = Some(error);
                    continue;
                }
            };
            reads.any = true;
            let mut last = mark;
            let writer = open_writer(&mut self.writer, &self.index)?;
            for doc in &page.docs {
                if doc.sequence_number > last {
                    writer.add(doc)?;
                    last = doc.sequence_number;
                    self.uncommitted += 1;
                }
            }
            let read_up_to = page.read_up_to.max(last);
            // A source that has nothing more is at its end, whatever was notified.
            let done = read_up_to >= tail.confirmed_up_to || read_up_to == mark;
            self.work.read(tail, read_up_to, done);
        }
        unread
            .into_iter()
            .for_each(|conversation| self.work.defer(conversation));
        Ok(reads)
    }

    /// Everything confirmed before this time is in the index once the next commit is through.
    fn watermark(&self) -> i64 {
        let walk = self.walk.as_ref().map(|walk| walk.since_ms);
        // What was found because its shard came holds nothing up: that shard is not whole.
        [self.work.oldest_pending(), walk, self.division.again]
            .into_iter()
            .flatten()
            .fold(self.drained_ms, i64::min)
    }

    pub(super) fn commit(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let watermark = self.watermark();
        let finished_walk = self.finished_walk();
        self.keep_what_came();
        let progress = self.index.progress();
        let note = CommitNote {
            complete: progress.shards().is_none() && (progress.is_complete() || finished_walk),
            watermark_ms: (watermark != UNKNOWN)
                .then_some(watermark)
                .max(progress.watermark()),
        };
        if self.uncommitted > 0 || !self.removals.is_empty() || note.complete != self.note.complete {
            let writer = open_writer(&mut self.writer, &self.index)?;
            for (removal, _) in &self.removals {
                writer.remove(*removal);
            }
            writer.commit(note)?;
            self.note = note;
            progress.counters.commits.fetch_add(1, SeqCst);
            progress
                .counters
                .indexed
                .fetch_add(self.uncommitted as u64, SeqCst);
        }
        if finished_walk {
            progress.set_complete();
        }
        if watermark != UNKNOWN {
            progress.raise_watermark(watermark);
        }
        self.uncommitted = 0;
        let indexed = self.work.committed();
        progress.publish(indexed.iter().map(|(one, _)| (one.conversation, one.up_to)));
        self.become_whole();
        let progress = self.index.progress();
        for (removal, done) in self.removals.drain(..) {
            // Only now, when nothing uncommitted needs its mark any more.
            let gone = match removal {
                Removal::Message(_) => None,
                Removal::Conversation(conversation) => Some(Some(conversation)),
                Removal::Shard(_) => Some(None),
            };
            if let Some(gone) = gone {
                self.work.forget_marks(gone);
                progress.forget(gone);
            }
            done.tell();
        }
        let asked: Vec<Indexed> = indexed
            .into_iter()
            .filter_map(|(one, asked)| asked.then_some(one))
            .collect();
        if !asked.is_empty() {
            (self.config.on_indexed)(&asked);
        }
        self.backoff = FIRST_BACKOFF;
        self.show_state();
        let took = started.elapsed();
        let pause = self
            .config
            .commit_interval
            .max((took * 4).min(MAX_COMMIT_INTERVAL));
        self.next_commit = Instant::now() + pause;
        Ok(())
    }

    /// Nothing is in hand: all that was confirmed before the last drain is indexed.
    fn settle(&mut self) {
        let watermark = self.watermark();
        if watermark != UNKNOWN && self.index.is_complete() {
            self.index.progress().raise_watermark(watermark);
        }
        self.backoff = FIRST_BACKOFF;
        self.show_state();
    }

    fn show_state(&self) {
        let progress = self.index.progress();
        let (complete, divided) = (progress.is_complete(), progress.shards().is_some());
        progress.set_state(if !complete && !divided {
            FeedState::Rebuilding
        } else if !complete || self.walks() || self.work.walked_pending() > 0 {
            FeedState::CatchingUp
        } else {
            FeedState::Following
        });
    }

    /// Sleeps until somebody notifies. The flag is set first and the queues are looked at again behind it, so that no
    /// notification is slept over.
    fn idle(&mut self) {
        let progress = self.index.progress();
        progress.idle.store(true, SeqCst);
        let waiting = match self.signals.try_recv() {
            Ok(tail) => {
                progress.idle.store(false, SeqCst);
                if is_here(&self.index, tail) && !self.work.add(tail, self.drained_ms, Came::Told) {
                    progress.overflowed.store(true, SeqCst);
                }
                true
            }
            Err(_) => progress.overflowed.load(SeqCst) || self.control.asked(),
        };
        if !waiting {
            thread::park_timeout(IDLE_TICK);
        }
        progress.idle.store(false, SeqCst);
    }
}

/// Whether a conversation's shard is this index's.
pub(super) fn is_here(index: &Index, tail: Tail) -> bool {
    let shards = index.progress().shards();
    shards.is_none_or(|shards| shards.standing(tail.shard) != Standing::Away)
}

fn open_writer<'a>(writer: &'a mut Option<Writer>, index: &Index) -> Result<&'a mut Writer, Error> {
    match writer {
        Some(writer) => Ok(writer),
        None => Ok(writer.insert(Writer::open(index)?)),
    }
}

/// Lowers this thread's priority; on Linux niceness is a thread's own, and those it starts inherit it.
fn lower_priority(nice: i32) {
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice.clamp(0, 19))
    {
        tracing::warn!(%error, "the search feed runs at normal priority");
    }
}
