//! The one writer of an index: adds, removes, commits. Knows nothing of conversations' marks; the feed does.

use tantivy::{
    IndexWriter, TantivyError, Term,
    directory::error::LockError,
    indexer::{IndexWriterOptions, LogMergePolicy},
};
use uuid::Uuid;

use crate::{
    error::Error,
    index::{CommitNote, Index, Live, guarded},
    schema::IndexDoc,
};

/// Memory in which new documents are gathered, in bytes: the library's minimum, enough for some 50,000 messages; at
/// 2,000 a second and two commits a second it is never full.
const WRITER_MEMORY: usize = 15_000_000;

/// Segments of one size that are merged into one. More would make searches slower, fewer would write each message
/// more often.
const SEGMENTS_PER_MERGE: usize = 8;

/// Segments up to this many documents count as one size: about what a commit brings at 2,000 a second.
const SMALL_SEGMENT: u32 = 1_000;

/// Two segments are of one size when within this power of two of each other.
const SIZE_CLASS_LOG2: f64 = 2.0;

/// Documents above which a segment is left alone: merging more would keep a core busy for minutes.
const LARGEST_MERGED: usize = 5_000_000;

/// Share of removed documents above which a segment is written anew without them.
const REMOVED_SHARE: f32 = 0.3;

/// What to take out of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// One message, by its id: it was redacted or deleted.
    Message(Uuid),
    /// A conversation with all its messages.
    Conversation(Uuid),
    /// All conversations of a shard that now lives elsewhere.
    Shard(u32),
}

pub(crate) struct Writer {
    writer: IndexWriter,
    live: Live,
}

impl Writer {
    /// Takes the write lock of the index's folder. The threads that it starts inherit the caller's priority.
    pub(crate) fn open(index: &Index) -> Result<Self, Error> {
        let live = index.live();
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(WRITER_MEMORY)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = live
            .index
            .writer_with_options(options)
            .map_err(|error| match error {
                TantivyError::LockFailure(LockError::LockBusy, _) => Error::InUse(index.path().to_owned()),
                other => Error::Engine(other),
            })?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(SEGMENTS_PER_MERGE);
        policy.set_min_layer_size(SMALL_SEGMENT);
        policy.set_level_log_size(SIZE_CLASS_LOG2);
        policy.set_max_docs_before_merge(LARGEST_MERGED);
        policy.set_del_docs_ratio_before_merge(REMOVED_SHARE);
        writer.set_merge_policy(Box::new(policy));
        Ok(Self { writer, live })
    }

    pub(crate) fn add(&self, doc: &IndexDoc) -> Result<(), Error> {
        self.writer.add_document(self.live.fields.document(doc))?;
        Ok(())
    }

    /// Removes what was added so far, in earlier commits or this one.
    pub(crate) fn remove(&self, removal: Removal) {
        let fields = self.live.fields;
        self.writer.delete_term(match removal {
            Removal::Message(id) => Term::from_field_bytes(fields.message, id.as_bytes()),
            Removal::Conversation(id) => Term::from_field_bytes(fields.conversation, id.as_bytes()),
            Removal::Shard(shard) => Term::from_field_u64(fields.shard, u64::from(shard)),
        });
    }

    /// Makes all of it durable and visible to searches. After an error the outcome is unknown: this writer must be
    /// dropped, and what is committed be read from the index.
    pub(crate) fn commit(&mut self, note: CommitNote) -> Result<(), Error> {
        guarded(|| {
            let payload = serde_json::to_string(&note).map_err(|error| Error::Io(error.into()))?;
            let mut prepared = self.writer.prepare_commit()?;
            prepared.set_payload(&payload);
            prepared.commit()?;
            self.live.reader.reload()?;
            Ok(())
        })
    }

    /// Waits for merges that are under way, then gives the folder's lock back.
    pub(crate) fn close(self) -> Result<(), Error> {
        Ok(self.writer.wait_merging_threads()?)
    }
}
