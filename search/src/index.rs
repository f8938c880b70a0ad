//! The index's folder: opening, dropping what cannot be used, rebuilding; and the handle through which searches read
//! it. Writing is in `writer`, what a search does in `search`.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use serde::{Deserialize, Serialize};
use tantivy::{
    DocSet, IndexReader, IndexSettings, ReloadPolicy, Searcher, TERMINATED, Term,
    directory::{Directory, MmapDirectory, error::OpenDirectoryError},
    schema::IndexRecordOption,
    tokenizer::TokenizerManager,
};
use uuid::Uuid;

use crate::{
    error::Error,
    progress::Progress,
    schema::{Fields, SEQUENCE, schema},
    shards::Standing,
    text::tokenizer,
};

/// How the folder is accessed; tests put failing disks here.
pub(crate) type Opener = Arc<dyn Fn(&Path) -> Result<Box<dyn Directory>, OpenDirectoryError> + Send + Sync>;

/// The search index of one node. Cheap to clone; all clones see the same state.
#[derive(Clone)]
pub struct Index {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    opener: Opener,
    live: RwLock<Live>,
    progress: Progress,
}

/// The open files.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) index: tantivy::Index,
    pub(crate) reader: IndexReader,
    pub(crate) fields: Fields,
}

/// What every commit says about the index as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitNote {
    /// Whether every conversation of the store was visited since the index was made.
    pub(crate) complete: bool,
    /// Everything confirmed before this time (ms since 1970) is in the index.
    pub(crate) watermark_ms: Option<i64>,
}

impl Index {
    /// Opens the index in the folder `path`, which is made if absent. A folder with another schema or with damaged
    /// files is dropped, and [`Index::is_complete`] is false until a feed has rebuilt it. Costs some milliseconds
    /// whatever the number of documents.
    ///
    /// # Errors
    /// When the disk fails or the folder cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_with(
            path.into(),
            Arc::new(|path| Ok(Box::new(MmapDirectory::open(path)?))),
        )
    }

    pub(crate) fn open_with(path: PathBuf, opener: Opener) -> Result<Self, Error> {
        let live = match open_live(&path, &opener) {
            Ok(live) => live,
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "search index unusable, rebuilding it from the store");
                remake(&path, &opener)?
            }
            Err(error) => return Err(error),
        };
        let note = note(&live.index)?;
        let progress = Progress::new(note.complete, note.watermark_ms);
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                opener,
                live: RwLock::new(live),
                progress,
            }),
        })
    }

    /// Drops all documents and starts empty; a feed then fills it from the store again. Searches go on and find what
    /// there is. No feed may be running on this index; call [`crate::Feed::rebuild`] instead if one is.
    ///
    /// # Errors
    /// When the folder cannot be emptied or made anew; the index then stays as it was for readers.
    pub fn rebuild(&self) -> Result<(), Error> {
        let live = remake(&self.inner.path, &self.inner.opener)?;
        self.replace(live);
        self.inner.progress.restart();
        Ok(())
    }

    /// Opens the files anew after a failure.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        let live = open_live(&self.inner.path, &self.inner.opener)?;
        self.replace(live);
        Ok(())
    }

    /// Whether everything that the store held when the index was made has been put into it once; of a divided one: whether all
    /// its shards are whole.
    pub fn is_complete(&self) -> bool {
        self.inner.progress.is_complete()
    }

    /// Makes it the index of some of so many shards, of none at first: a node that is one of several. Which ones is said by
    /// [`crate::Notifier::hold`] and [`crate::Notifier::let_go`]. Before a feed is started.
    pub fn divide(&self, shards: u32) {
        self.inner.progress.divide(shards);
    }

    /// How this index stands to a shard. One that is not divided has all of them, wholly when [`Index::is_complete`]. Ask
    /// before a search: it finds then at least what that says.
    pub fn standing(&self, shard: u32) -> Standing {
        self.inner.progress.standing(shard)
    }

    /// How many shards it has, but not wholly; of an index that is not divided 0.
    pub fn catching(&self) -> usize {
        let shards = self.inner.progress.shards();
        shards.map_or(0, |shards| shards.catching().len())
    }

    /// How many messages are in the index.
    pub fn documents(&self) -> u64 {
        self.searcher().num_docs()
    }

    /// In how many segments they are; what a search costs grows with it.
    pub fn segments(&self) -> usize {
        self.searcher().segment_readers().len()
    }

    /// Up to which sequence number `conversation` is indexed, as far as known: at least all messages up to there
    /// can be found. 0 if none. An entry without text (a membership change) behind the last message may be missing
    /// from the count after a restart.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn indexed_up_to(&self, conversation: Uuid) -> Result<u64, Error> {
        match self.inner.progress.mark(conversation) {
            Some(mark) => Ok(mark),
            None => self.committed_mark(conversation),
        }
    }

    /// Up to when the whole index is current.
    pub fn freshness(&self, now_ms: i64) -> crate::Freshness {
        self.inner.progress.freshness(now_ms)
    }

    /// The highest sequence number of `conversation` that is committed: the mark from which indexing goes on. Looks
    /// only into segments that can hold a higher one than was already found, so a long conversation is cheap.
    pub(crate) fn committed_mark(&self, conversation: Uuid) -> Result<u64, Error> {
        guarded(|| {
            let live = self.live();
            max_sequence(&live.reader.searcher(), live.fields, conversation)
        })
    }

    /// Whether there is anything of a shard, removed or not.
    pub(crate) fn has_any_of(&self, shard: u32) -> Result<bool, Error> {
        guarded(|| {
            let live = self.live();
            let term = Term::from_field_u64(live.fields.shard, u64::from(shard));
            Ok(live.reader.searcher().doc_freq(&term)? > 0)
        })
    }

    pub(crate) fn note(&self) -> Result<CommitNote, Error> {
        note(&self.live().index)
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.inner.progress
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(crate) fn live(&self) -> Live {
        // Nothing panics while holding this lock, and a half-made value is never put there.
        self.inner
            .live
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub(crate) fn searcher(&self) -> Searcher {
        self.live().reader.searcher()
    }

    fn replace(&self, live: Live) {
        *self
            .inner
            .live
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = live;
    }
}

/// Runs what touches the files: damaged ones can make the library panic, which must stay with this one call.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Damaged))
}

fn max_sequence(searcher: &Searcher, fields: Fields, conversation: Uuid) -> Result<u64, Error> {
    let mut segments = Vec::new();
    for segment in searcher.segment_readers() {
        let column = segment.fast_fields().u64(SEQUENCE)?;
        segments.push((column.max_value(), column, segment));
    }
    segments.sort_by_key(|(max, _, _)| std::cmp::Reverse(*max));
    let term = Term::from_field_bytes(fields.conversation, conversation.as_bytes());
    let mut found = 0;
    for (max, column, segment) in segments {
        if max <= found {
            break;
        }
        let inverted = segment.inverted_index(fields.conversation)?;
        let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::Basic)? else {
            continue;
        };
        let mut doc = postings.doc();
        while doc != TERMINATED {
            // What was removed does not count: a shard that left and came back is indexed again.
            if !segment.is_deleted(doc) {
                found = found.max(column.first(doc).unwrap_or(0));
            }
            doc = postings.advance();
        }
    }
    Ok(found)
}

fn open_live(path: &Path, opener: &Opener) -> Result<Live, Error> {
    fs::create_dir_all(path)?;
    let (schema, fields) = schema();
    let directory = opener(path)?;
    let mut index = if tantivy::Index::exists(directory.as_ref())? {
        guarded(|| Ok(tantivy::Index::open(directory)?))?
    } else {
        tantivy::Index::create(directory, schema.clone(), IndexSettings::default())?
    };
    if index.schema() != schema {
        return Err(Error::Engine(tantivy::TantivyError::SchemaError(
            "another version".into(),
        )));
    }
    let tokenizers = TokenizerManager::default();
    tokenizers.register(tokenizer::NAME, tokenizer::MessageTokenizer);
    index.set_tokenizers(tokenizers);
    let reader = guarded(|| {
        Ok(index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?)
    })?;
    Ok(Live {
        index,
        reader,
        fields,
    })
}

/// Empties the folder and makes an empty index in it.
fn remake(path: &Path, opener: &Opener) -> Result<Live, Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    open_live(path, opener)
}

fn note(index: &tantivy::Index) -> Result<CommitNote, Error> {
    let payload = index.load_metas()?.payload;
    // A note that does not parse costs a visit of every conversation, nothing else.
    Ok(payload
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}
