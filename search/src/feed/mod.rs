//! The feed: keeps the index behind the confirmed log by a thread of its own. Here are its handle, what it needs from
//! the store, and its limits; the thread's loop is in `worker`, its list of work in `work`.

mod control;
#[cfg(test)]
mod divided_tests;
mod recovery;
#[cfg(test)]
mod tests;
mod walk;
mod work;
mod worker;

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering::SeqCst,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use uuid::Uuid;

use crate::{error::SourceError, index::Index, progress::FeedState, schema::IndexDoc, writer::Removal};
use control::{Control, Done};
use worker::Worker;

/// Notifications waiting for the thread, 40 bytes each: a second of the highest rate. Beyond, the feed remembers only
/// that some were lost and reads the list of open tails.
pub(crate) const MAX_NOTIFICATIONS: usize = 65_536;

/// Time between two commits; with the time of a commit and of a read this finds a message well within 2 s.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// How long what is indexed of a shard stays after the shard has gone: a node that is restarted, or drained for a while, has
/// little to read when it is back. What it takes of the disk in the meantime is bounded by what the cluster has.
const KEEP_AWAY: Duration = Duration::from_secs(30 * 60);

/// Where the end of a log is not known: whoever reads it finds out.
pub const UNKNOWN_END: u64 = u64::MAX;

/// Niceness of the feed's threads: under full load of all cores they get about a tenth of what a messaging thread gets.
const NICE: i32 = 10;

/// What the feed reads from the store. Called on the feed's thread only; may block.
///
/// 1. `read` MUST give entries in ascending sequence, none at or below `after`, only confirmed ones, and MUST see
///    every position that was notified before the call. Up to `up_to` the caller knows that they are; it may give more.
/// 2. Entries without text for the index (membership, encrypted, redacted) are left out of `docs` but counted in
///    `read_up_to`.
/// 3. A conversation stays in `open_tails` until [`FeedConfig::on_indexed`] has named its last confirmed position.
/// 4. Both lists MUST come in one stable order, in which `after` is the last one of the page before; an empty page is
///    the end. Neither may need a scan of all messages.
/// 5. A conversation that has a confirmed position above what `conversations` says MUST be in `open_tails`.
pub trait Source: Send + 'static {
    /// At most `limit` entries of `conversation` above the sequence number `after`. `up_to`: known to be confirmed, or
    /// [`UNKNOWN_END`].
    ///
    /// # Errors
    /// When the store does not answer; the feed tries again with a growing pause.
    fn read(
        &self,
        conversation: Uuid,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<SourcePage, SourceError>;

    /// Conversations that may hold entries which are not indexed.
    ///
    /// # Errors
    /// As `read`.
    fn open_tails(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError>;

    /// All conversations; read only when the index is built anew, or shards have come.
    ///
    /// # Errors
    /// As `read`.
    fn conversations(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError>;
}

/// Of which shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// Of all: the node is alone.
    All,
    /// Of these, in ascending order.
    These(&'a [u32]),
}

/// What one read gave.
#[derive(Clone, Debug, Default)]
pub struct SourcePage {
    /// The messages to index.
    pub docs: Vec<IndexDoc>,
    /// The last sequence number that was looked at, with or without text; the number asked `after` if there was none.
    pub read_up_to: u64,
}

/// A conversation and how far its log is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The conversation.
    pub conversation: Uuid,
    /// Its shard.
    pub shard: u32,
    /// Its highest confirmed sequence number, or [`UNKNOWN_END`].
    pub confirmed_up_to: u64,
}

/// What the feed reports as indexed and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// The conversation.
    pub conversation: Uuid,
    /// Its shard.
    pub shard: u32,
    /// Everything up to this sequence number is committed to the index.
    pub up_to: u64,
}

/// A listener for what was made durable.
pub type OnIndexed = Box<dyn Fn(&[Indexed]) + Send>;

/// How the feed runs.
pub struct FeedConfig {
    /// Time between commits.
    pub commit_interval: Duration,
    /// Niceness of the feed's threads, 0 to 19.
    pub nice: i32,
    /// Milliseconds since 1970 UTC.
    pub clock: Box<dyn Fn() -> i64 + Send + Sync>,
    /// How long what is indexed of a shard that has gone stays.
    pub keep_away: Duration,
    /// Called on the feed's thread after each commit with what it made durable, but for what was only looked through because
    /// its shard came; must not block for long.
    pub on_indexed: OnIndexed,
}

impl FeedConfig {
    /// The usual settings with this clock.
    pub fn new(clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self {
            commit_interval: COMMIT_INTERVAL,
            nice: NICE,
            clock: Box::new(clock),
            keep_away: KEEP_AWAY,
            on_indexed: Box::new(|_| {}),
        }
    }
}

/// What the feed is doing, for metrics and operators; counts since the index was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStatus {
    /// Its state.
    pub state: FeedState,
    /// Conversations waiting to be read.
    pub pending: u64,
    /// Messages added.
    pub indexed: u64,
    /// Commits made.
    pub commits: u64,
    /// Failures of disk or store.
    pub failures: u64,
    /// Notifications that found the queue full; the open tails stand in for them.
    pub lost_notifications: u64,
}

/// The running feed. Dropping it ends the thread without a last commit, which loses nothing: what is missing is read
/// again at the next start.
pub struct Feed {
    index: Index,
    notifier: Notifier,
    thread: Option<JoinHandle<()>>,
}

/// Tells the feed what was confirmed. Cheap to clone, one per worker.
#[derive(Clone)]
pub struct Notifier {
    index: Index,
    signals: SyncSender<Tail>,
    control: Arc<Control>,
}

impl Feed {
    /// Starts the thread `godwit-index`. It first reads the open tails (all conversations, if the index was made
    /// anew), then follows the notifications. One feed per index.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(index: Index, source: impl Source, config: FeedConfig) -> io::Result<Self> {
        Self::start_with(index, source, config, MAX_NOTIFICATIONS)
    }

    pub(crate) fn start_with(
        index: Index,
        source: impl Source,
        config: FeedConfig,
        notifications: usize,
    ) -> io::Result<Self> {
        let (signals, received) = sync_channel(notifications);
        let control = Arc::new(Control::default());
        let worker = Worker::new(index.clone(), source, config, received, control.clone());
        let thread = thread::Builder::new()
            .name("godwit-index".into())
            .spawn(move || worker.run())?;
        control.set_thread(thread.thread().clone());
        let notifier = Notifier {
            index: index.clone(),
            signals,
            control,
        };
        Ok(Self {
            index,
            notifier,
            thread: Some(thread),
        })
    }

    /// The handle for those who confirm messages.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// What the feed is doing.
    pub fn status(&self) -> FeedStatus {
        let progress = self.index.progress();
        let counters = &progress.counters;
        FeedStatus {
            state: progress.state(),
            pending: counters.pending.load(SeqCst),
            indexed: counters.indexed.load(SeqCst),
            commits: counters.commits.load(SeqCst),
            failures: counters.failures.load(SeqCst),
            lost_notifications: counters.lost_notifications.load(SeqCst),
        }
    }

    /// Takes something out of the index. It MUST be gone from the store before, or it would be read again. `done` is
    /// called on the feed's thread: with true once the removal is durable, with false if the feed ended before.
    ///
    /// # Errors
    /// Gives the removal back when too many are waiting; try again later.
    pub fn remove(&self, removal: Removal, done: impl FnOnce(bool) + Send + 'static) -> Result<(), Removal> {
        self.notifier.control.push_removal(removal, Done::new(done))
    }

    /// Drops the index and builds it anew from the store, in the background. Searches find what is there already.
    pub fn rebuild(&self) {
        self.notifier.control.ask_rebuild();
    }

    /// Commits what was read, then ends the thread and waits for it: as a rule well under a second.
    pub fn stop(mut self) {
        self.end(true);
    }

    fn end(&mut self, commit: bool) {
        self.notifier.control.ask_stop(commit);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the search feed's thread panicked");
        }
        self.index.progress().set_state(FeedState::Stopped);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Notifier {
    /// Says that `conversation` is confirmed up to `confirmed_up_to`. Never blocks and takes no lock: when the queue
    /// is full the feed learns that it must read the open tails.
    pub fn notify(&self, conversation: Uuid, shard: u32, confirmed_up_to: u64) {
        let progress = self.index.progress();
        if self
            .signals
            .try_send(Tail {
                conversation,
                shard,
                confirmed_up_to,
            })
            .is_err()
        {
            progress.counters.lost_notifications.fetch_add(1, SeqCst);
            progress.overflowed.store(true, SeqCst);
        }
        if progress.idle.swap(false, SeqCst) {
            self.control.wake();
        }
    }

    /// These shards are this node's from now on: what was stored of their conversations is indexed in the background, what is
    /// confirmed from now on is to be notified. Of an index that is not divided: nothing.
    pub fn hold(&self, shards: &[u32]) {
        if let Some(held) = self.index.progress().shards() {
            shards.iter().for_each(|shard| held.hold(*shard));
            self.control.shards_moved();
        }
    }

    /// These shards are another node's from now on.
    pub fn let_go(&self, shards: &[u32]) {
        if let Some(held) = self.index.progress().shards() {
            shards.iter().for_each(|shard| held.let_go(*shard));
            self.control.shards_moved();
        }
    }
}
