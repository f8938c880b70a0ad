//! What the tests share: a store in memory, a folder that fails on command, small makers. Not compiled into the crate.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite, WatchCallback, WatchHandle,
    WritePtr,
    error::{DeleteError, LockError, OpenReadError, OpenWriteError},
};
use uuid::Uuid;

use crate::{
    Feed, FeedConfig, Index, IndexDoc, Query, Request, Scope, ScopeEntry, Source, SourceError, SourcePage,
    Tail, UNKNOWN_END, Which,
};

pub(crate) fn conversation(n: u128) -> Uuid {
    Uuid::from_u128(0xC0 << 120 | n)
}

pub(crate) fn sender(n: u128) -> Uuid {
    Uuid::from_u128(0x5E << 120 | n)
}

/// The shard of a test conversation.
pub(crate) fn shard(conversation: Uuid) -> u32 {
    (conversation.as_u128() % 4) as u32
}

/// Time of a message: later conversations and sequences are newer.
pub(crate) fn doc(conversation_n: u128, sequence_number: u64, text: &str) -> IndexDoc {
    let conversation = conversation(conversation_n);
    IndexDoc {
        conversation,
        sequence_number,
        shard: shard(conversation),
        message_id: Uuid::from_u128(conversation_n << 64 | u128::from(sequence_number)),
        sender: sender(u128::from(sequence_number % 2)),
        created_at_ms: 1_000 * sequence_number.cast_signed(),
        text: text.into(),
    }
}

/// A store in memory: the truth the index follows.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<StoreState>);

#[derive(Default)]
struct StoreState {
    /// Entry `n` of a conversation has sequence number `n + 1`; `None` has no text.
    logs: Mutex<BTreeMap<Uuid, Vec<Option<IndexDoc>>>>,
    /// Reported as indexed.
    indexed: Mutex<BTreeMap<Uuid, u64>>,
    failing: AtomicBool,
    /// This one conversation cannot be read.
    unreadable: Mutex<Option<Uuid>>,
    entries_read: AtomicUsize,
    reports: AtomicUsize,
    conversations_listed: AtomicUsize,
    now_ms: AtomicI64,
    /// Ends of logs that `open_tails` does not know.
    ends_unknown: AtomicBool,
}

impl Store {
    pub(crate) fn append(&self, conversation_n: u128, text: &str) -> Tail {
        self.push(conversation_n, Some(text))
    }

    /// A membership change: it takes a number and has no text.
    pub(crate) fn append_other(&self, conversation_n: u128) -> Tail {
        self.push(conversation_n, None)
    }

    fn push(&self, conversation_n: u128, text: Option<&str>) -> Tail {
        let id = conversation(conversation_n);
        let mut logs = self.0.logs.lock().unwrap();
        let log = logs.entry(id).or_default();
        let sequence = log.len() as u64 + 1;
        log.push(text.map(|text| doc(conversation_n, sequence, text)));
        Tail {
            conversation: id,
            shard: shard(id),
            confirmed_up_to: sequence,
        }
    }

    pub(crate) fn delete(&self, conversation_n: u128) {
        self.0.logs.lock().unwrap().remove(&conversation(conversation_n));
    }

    pub(crate) fn redact(&self, conversation_n: u128, sequence: usize) {
        self.0
            .logs
            .lock()
            .unwrap()
            .get_mut(&conversation(conversation_n))
            .unwrap()[sequence - 1] = None;
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.0.failing.store(failing, SeqCst);
    }

    pub(crate) fn fail_one(&self, conversation_n: Option<u128>) {
        *self.0.unreadable.lock().unwrap() = conversation_n.map(conversation);
    }

    /// A conversation whose home has closed its tail: somebody else had indexed it.
    pub(crate) fn close(&self, conversation_n: u128) {
        let id = conversation(conversation_n);
        let end = self.0.logs.lock().unwrap()[&id].len() as u64;
        self.0.indexed.lock().unwrap().insert(id, end);
    }

    /// How often anything was reported as indexed.
    pub(crate) fn reports(&self) -> usize {
        self.0.reports.load(SeqCst)
    }

    /// From now on the list of open tails does not know where logs end.
    pub(crate) fn forget_ends(&self) {
        self.0.ends_unknown.store(true, SeqCst);
    }

    pub(crate) fn entries_read(&self) -> usize {
        self.0.entries_read.load(SeqCst)
    }

    pub(crate) fn conversations_listed(&self) -> usize {
        self.0.conversations_listed.load(SeqCst)
    }

    pub(crate) fn set_now(&self, ms: i64) {
        self.0.now_ms.store(ms, SeqCst);
    }

    pub(crate) fn indexed(&self, conversation_n: u128) -> u64 {
        self.0
            .indexed
            .lock()
            .unwrap()
            .get(&conversation(conversation_n))
            .copied()
            .unwrap_or(0)
    }

    /// Starts a feed on `index` that follows this store.
    pub(crate) fn feed(&self, index: &Index) -> Feed {
        self.feed_with(index, crate::feed::MAX_NOTIFICATIONS)
    }

    pub(crate) fn feed_with(&self, index: &Index, notifications: usize) -> Feed {
        Feed::start_with(index.clone(), self.clone(), self.config(), notifications).unwrap()
    }

    /// A feed that takes out what has been away for so long.
    pub(crate) fn feed_keeping(&self, index: &Index, keep_away: Duration) -> Feed {
        let config = FeedConfig {
            keep_away,
            ..self.config()
        };
        Feed::start(index.clone(), self.clone(), config).unwrap()
    }

    fn config(&self) -> FeedConfig {
        let (clock, reported) = (self.0.clone(), self.0.clone());
        let mut config = FeedConfig::new(move || clock.now_ms.load(SeqCst));
        config.commit_interval = Duration::from_millis(20);
        config.on_indexed = Box::new(move |indexed| {
            let mut all = reported.indexed.lock().unwrap();
            reported.reports.fetch_add(indexed.len(), SeqCst);
            for one in indexed {
                assert_eq!(one.shard, shard(one.conversation));
                let up_to = all.entry(one.conversation).or_default();
                *up_to = one.up_to.max(*up_to);
            }
        });
        config
    }

    fn list(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
        open_only: bool,
    ) -> Result<Vec<Tail>, SourceError> {
        if self.0.failing.load(SeqCst) {
            return Err(SourceError("the store is away".into()));
        }
        let indexed = self.0.indexed.lock().unwrap();
        let tails: Vec<Tail> = self
            .0
            .logs
            .lock()
            .unwrap()
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| **id > after.conversation))
            .filter(|(id, _)| match which {
                Which::All => true,
                Which::These(shards) => shards.contains(&shard(**id)),
            })
            .map(|(id, log)| Tail {
                conversation: *id,
                shard: shard(*id),
                confirmed_up_to: log.len() as u64,
            })
            .filter(|tail| {
                !open_only || indexed.get(&tail.conversation).copied().unwrap_or(0) < tail.confirmed_up_to
            })
            .take(limit)
            .map(|tail| match open_only && self.0.ends_unknown.load(SeqCst) {
                true => Tail {
                    confirmed_up_to: UNKNOWN_END,
                    ..tail
                },
                false => tail,
            })
            .collect();
        self.0.conversations_listed.fetch_add(tails.len(), SeqCst);
        Ok(tails)
    }
}

impl Source for Store {
    fn read(
        &self,
        conversation: Uuid,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<SourcePage, SourceError> {
        if self.0.failing.load(SeqCst) || *self.0.unreadable.lock().unwrap() == Some(conversation) {
            return Err(SourceError("the store is away".into()));
        }
        let logs = self.0.logs.lock().unwrap();
        let log = logs.get(&conversation).map_or(&[][..], Vec::as_slice);
        let known = usize::try_from(up_to).unwrap_or(usize::MAX).min(log.len());
        let entries = log[..known].iter().skip(after as usize).take(limit);
        let count = entries.len();
        self.0.entries_read.fetch_add(count, SeqCst);
        Ok(SourcePage {
            docs: entries.flatten().cloned().collect(),
            read_up_to: after + count as u64,
        })
    }

    fn open_tails(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        self.list(which, after, limit, true)
    }

    fn conversations(
        &self,
        which: Which<'_>,
        after: Option<Tail>,
        limit: usize,
    ) -> Result<Vec<Tail>, SourceError> {
        self.list(which, after, limit, false)
    }
}

/// Waits until `done` says so; the limit is a failure, not a pace.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Everything of these conversations is visible.
pub(crate) fn all_of(conversations: impl IntoIterator<Item = u128>) -> Scope {
    Scope {
        conversations: conversations
            .into_iter()
            .map(|n| ScopeEntry::from(conversation(n), 1))
            .collect(),
    }
}

/// The sequence numbers found, newest first.
pub(crate) fn found(index: &Index, query: &str, scope: &Scope) -> Vec<u64> {
    let query = Query::parse(query).unwrap();
    let page = index
        .search(&Request {
            limit: 100,
            ..Request::new(&query, scope)
        })
        .unwrap();
    page.hits.into_iter().map(|hit| hit.sequence_number).collect()
}

/// A folder whose disk can be made to fail.
#[derive(Clone)]
pub(crate) struct FailingDirectory {
    inner: MmapDirectory,
    faults: Faults,
}

/// Which operations fail, and how.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    pub(crate) code: Arc<Mutex<Option<i32>>>,
    /// Writes left before they fail.
    pub(crate) after: Arc<AtomicUsize>,
}

pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EIO: i32 = 5;

impl Faults {
    pub(crate) fn set(&self, code: Option<i32>, after: usize) {
        self.after.store(after, SeqCst);
        *self.code.lock().unwrap() = code;
    }

    fn check(&self) -> io::Result<()> {
        let Some(code) = *self.code.lock().unwrap() else {
            return Ok(());
        };
        let left = self
            .after
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(code))
        }
    }
}

pub(crate) fn open_failing(path: &Path, faults: &Faults) -> Index {
    let faults = faults.clone();
    Index::open_with(
        path.to_owned(),
        Arc::new(move |path| {
            Ok(Box::new(FailingDirectory {
                inner: MmapDirectory::open(path)?,
                faults: faults.clone(),
            }))
        }),
    )
    .unwrap()
}

impl fmt::Debug for FailingDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailingDirectory({:?})", self.inner)
    }
}

struct FailingWrite {
    inner: WritePtr,
    faults: Faults,
}

impl io::Write for FailingWrite {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.faults.check()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.faults.check()?;
        self.inner.flush()
    }
}

impl TerminatingWrite for FailingWrite {
    fn terminate_ref(&mut self, token: tantivy::directory::AntiCallToken) -> io::Result<()> {
        self.faults.check()?;
        self.inner.terminate_ref(token)
    }
}

impl Directory for FailingDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.inner.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.inner.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.inner.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.faults
            .check()
            .map_err(|error| OpenWriteError::wrap_io_error(error, path.to_owned()))?;
        let inner = self.inner.open_write(path)?;
        Ok(io::BufWriter::new(Box::new(FailingWrite {
            inner,
            faults: self.faults.clone(),
        })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.inner.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.faults.check()?;
        self.inner.atomic_write(path, data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.faults.check()?;
        self.inner.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.inner.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.inner.watch(callback)
    }
}
