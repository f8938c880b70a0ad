//! Runs a search: which messages match, inside which scope, newest first, page by page. What may be seen is checked
//! for every message at the end, whatever the query was (invariant SCOPE).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Instant,
};

use tantivy::{
    COLLECT_BLOCK_BUFFER_LEN, Searcher, SegmentReader, Term,
    columnar::Column,
    query::{AllQuery, BooleanQuery, EnableScoring, PhraseQuery, Query as EngineQuery, TermQuery, Weight},
    schema::IndexRecordOption,
};
use uuid::Uuid;

use crate::{
    cursor,
    error::Error,
    index::{Index, guarded},
    query::{Group, Query},
    schema::{CONVERSATION, CREATED_AT, Fields, SEQUENCE},
};

/// Most conversations of one scope: a user's groups and one-to-one conversations, with room.
pub const MAX_SCOPE: usize = 20_000;

/// Most results of one page.
pub const MAX_PAGE: usize = 100;

/// Up to this many conversations are put into the engine's query if that makes it cheaper; above, only the final
/// check keeps to the scope.
const MAX_SCOPE_IN_QUERY: usize = 1_000;

/// What the searching user may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The conversations; at most [`MAX_SCOPE`].
    pub conversations: Vec<ScopeEntry>,
}

/// What the searching user may see of one conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeEntry {
    /// The conversation.
    pub conversation: Uuid,
    /// Visible sequence numbers, `(first, last)` inclusive; a current member's last interval ends at `u64::MAX`.
    pub intervals: Vec<(u64, u64)>,
}

impl ScopeEntry {
    /// A member sees everything from `first` on.
    pub fn from(conversation: Uuid, first: u64) -> Self {
        Self {
            conversation,
            intervals: vec![(first, u64::MAX)],
        }
    }
}

/// A search.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What to look for.
    pub query: &'a Query,
    /// What may be seen.
    pub scope: &'a Scope,
    /// Only messages of this sender.
    pub sender: Option<Uuid>,
    /// Only messages created at this time or later, ms since 1970.
    pub after_ms: Option<i64>,
    /// Only messages created before this time, ms since 1970.
    pub before_ms: Option<i64>,
    /// Results wanted, 1 to [`MAX_PAGE`], and one more for who wants to look at the first of the next page.
    pub limit: usize,
    /// `next` of the page before.
    pub cursor: Option<&'a str>,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl<'a> Request<'a> {
    /// A search for `query` in `scope`: first page, 50 results, no filter, no deadline.
    pub fn new(query: &'a Query, scope: &'a Scope) -> Self {
        Self {
            query,
            scope,
            sender: None,
            after_ms: None,
            before_ms: None,
            limit: 50,
            cursor: None,
            deadline: None,
        }
    }
}

/// Where a found message is; its content is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The conversation.
    pub conversation: Uuid,
    /// The sequence number there.
    pub sequence_number: u64,
    /// When it was created, ms since 1970.
    pub created_at_ms: i64,
}

/// One page of results, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The results.
    pub hits: Vec<Hit>,
    /// Cursor of the next page, if there is one.
    pub next: Option<String>,
}

/// The order of results, newest greatest; unique, so that pages neither overlap nor skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) created_at_ms: i64,
    pub(crate) conversation: [u8; 16],
    pub(crate) sequence: u64,
}

/// One page of what several nodes found, each newest first and behind the same cursor, with whether it has older ones.
pub fn merge(found: impl IntoIterator<Item = (Vec<Hit>, bool)>, limit: usize) -> Page {
    let (mut hits, mut more) = (Vec::new(), false);
    for (some, has_more) in found {
        hits.extend(some);
        more |= has_more;
    }
    hits.sort_unstable_by_key(|hit| Reverse(Key::of(hit)));
    // Two nodes that both hold themselves for the owner found the same.
    hits.dedup();
    more |= hits.len() > limit;
    hits.truncate(limit);
    let last = hits.last().filter(|_| more);
    let next = last.map(|hit| cursor::encode(&Key::of(hit)));
    Page { hits, next }
}

impl Key {
    fn of(hit: &Hit) -> Self {
        Self {
            created_at_ms: hit.created_at_ms,
            conversation: hit.conversation.into_bytes(),
            sequence: hit.sequence_number,
        }
    }
}

impl Index {
    /// Runs a search. Takes CPU time on the calling thread (milliseconds as a rule), so not for an async one.
    ///
    /// # Errors
    /// [`Error::BadCursor`], [`Error::ScopeTooLarge`], [`Error::TimedOut`]; [`Error::Engine`] or
    /// [`Error::Damaged`] when the files cannot be read.
    pub fn search(&self, request: &Request<'_>) -> Result<Page, Error> {
        let before = request.cursor.map(cursor::decode).transpose()?;
        let scope = Visible::of(request.scope)?;
        if scope.0.is_empty() || request.query.finds_nothing() {
            return Ok(Page::default());
        }
        guarded(|| {
            let live = self.live();
            let searcher = live.reader.searcher();
            let query = engine_query(&searcher, live.fields, request)?;
            let weight = query.weight(EnableScoring::disabled_from_searcher(&searcher))?;
            let mut newest = Newest::new(request, before);
            let mut segments = Vec::new();
            for segment in searcher.segment_readers() {
                let created_at = segment.fast_fields().i64(CREATED_AT)?;
                segments.push((created_at.max_value(), created_at, segment));
            }
            segments.sort_by_key(|(max, _, _)| Reverse(*max));
            for (max, created_at, segment) in segments {
                // Whatever is in this segment and the ones behind it is older than what was found.
                if newest.threshold().is_some_and(|worst| max < worst.created_at_ms) {
                    break;
                }
                search_segment(segment, created_at, weight.as_ref(), &scope, request, &mut newest)?;
            }
            Ok(newest.into_page())
        })
    }
}

fn search_segment(
    segment: &SegmentReader,
    created_at: Column<i64>,
    weight: &dyn Weight,
    scope: &Visible,
    request: &Request<'_>,
    newest: &mut Newest,
) -> Result<(), Error> {
    let Some(conversations) = segment.fast_fields().bytes(CONVERSATION)? else {
        return Ok(());
    };
    let mut visible = HashMap::new();
    for (conversation, intervals) in &scope.0 {
        if let Some(ordinal) = conversations.dictionary().term_ord(conversation)? {
            visible.insert(ordinal, (*conversation, intervals.as_slice()));
        }
    }
    if visible.is_empty() {
        return Ok(());
    }
    let sequences = segment.fast_fields().u64(SEQUENCE)?;
    let mut matching = weight.scorer(segment, 1.0)?;
    let mut docs = [0; COLLECT_BLOCK_BUFFER_LEN];
    loop {
        let count = matching.fill_buffer(&mut docs);
        for &doc in &docs[..count] {
            let Some(created_at_ms) = created_at.first(doc) else {
                continue;
            };
            if segment.is_deleted(doc) || !newest.wants_time(created_at_ms) {
                continue;
            }
            let Some(ordinal) = conversations.ords().first(doc) else {
                continue;
            };
            let Some((conversation, intervals)) = visible.get(&ordinal) else {
                continue;
            };
            let Some(sequence) = sequences.first(doc) else {
                continue;
            };
            if contains(intervals, sequence) {
                newest.offer(Key {
                    created_at_ms,
                    conversation: *conversation,
                    sequence,
                });
            }
        }
        if count < docs.len() {
            return Ok(());
        }
        if request.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(Error::TimedOut);
        }
    }
}

/// The scope in the form in which it is checked: intervals sorted and merged.
struct Visible(HashMap<[u8; 16], Vec<(u64, u64)>>);

impl Visible {
    fn of(scope: &Scope) -> Result<Self, Error> {
        if scope.conversations.len() > MAX_SCOPE {
            return Err(Error::ScopeTooLarge);
        }
        let mut all: HashMap<[u8; 16], Vec<(u64, u64)>> = HashMap::new();
        for entry in &scope.conversations {
            let intervals = all.entry(*entry.conversation.as_bytes()).or_default();
            intervals.extend(entry.intervals.iter().filter(|(first, last)| first <= last));
        }
        all.retain(|_, intervals| !intervals.is_empty());
        for intervals in all.values_mut() {
            intervals.sort_unstable();
            intervals.dedup_by(|next, kept| {
                let overlaps = next.0 <= kept.1;
                if overlaps {
                    kept.1 = kept.1.max(next.1);
                }
                overlaps
            });
        }
        Ok(Self(all))
    }
}

/// Whether `sequence` is in one of the sorted, disjoint `intervals`.
fn contains(intervals: &[(u64, u64)], sequence: u64) -> bool {
    let at = intervals.partition_point(|(first, _)| *first <= sequence);
    at > 0 && sequence <= intervals[at - 1].1
}

/// Keeps the newest keys that a page can need.
struct Newest {
    /// The page and one more, to know whether there is a next one.
    heap: BinaryHeap<Reverse<Key>>,
    limit: usize,
    before: Option<Key>,
    times: (i64, Option<i64>),
}

impl Newest {
    fn new(request: &Request<'_>, before: Option<Key>) -> Self {
        let limit = request.limit.clamp(1, MAX_PAGE + 1);
        let times = (request.after_ms.unwrap_or(i64::MIN), request.before_ms);
        Self {
            heap: BinaryHeap::with_capacity(limit + 2),
            limit,
            before,
            times,
        }
    }

    /// The oldest kept key, once there are enough.
    fn threshold(&self) -> Option<Key> {
        if self.heap.len() > self.limit {
            self.heap.peek().map(|Reverse(key)| *key)
        } else {
            None
        }
    }

    /// Whether a message of this time can be wanted: the cheap check before the others.
    fn wants_time(&self, created_at_ms: i64) -> bool {
        created_at_ms >= self.times.0
            && self.times.1.is_none_or(|before| created_at_ms < before)
            && self
                .before
                .is_none_or(|before| created_at_ms <= before.created_at_ms)
            && self
                .threshold()
                .is_none_or(|worst| created_at_ms >= worst.created_at_ms)
    }

    fn offer(&mut self, key: Key) {
        if self.before.is_some_and(|before| key >= before) {
            return;
        }
        self.heap.push(Reverse(key));
        if self.heap.len() > self.limit + 1 {
            self.heap.pop();
        }
    }

    fn into_page(self) -> Page {
        let mut keys: Vec<Key> = self
            .heap
            .into_sorted_vec()
            .into_iter()
            .map(|Reverse(key)| key)
            .collect();
        let more = keys.len() > self.limit;
        keys.truncate(self.limit);
        let next = keys.last().filter(|_| more).map(cursor::encode);
        let hits = keys
            .into_iter()
            .map(|key| Hit {
                conversation: Uuid::from_bytes(key.conversation),
                sequence_number: key.sequence,
                created_at_ms: key.created_at_ms,
            })
            .collect();
        Page { hits, next }
    }
}

/// The engine's query: a superset of what is wanted, as small as is cheap.
fn engine_query(
    searcher: &Searcher,
    fields: Fields,
    request: &Request<'_>,
) -> Result<Box<dyn EngineQuery>, Error> {
    let mut parts: Vec<Box<dyn EngineQuery>> = Vec::new();
    let mut rarest = searcher.num_docs();
    for group in &request.query.groups {
        for (_, term) in &group.terms {
            rarest = rarest.min(searcher.doc_freq(&Term::from_field_text(fields.text, term))?);
        }
        parts.push(group_query(fields, group));
    }
    if let Some(sender) = request.sender {
        let term = Term::from_field_bytes(fields.sender, sender.as_bytes());
        rarest = rarest.min(searcher.doc_freq(&term)?);
        parts.push(Box::new(TermQuery::new(term, IndexRecordOption::Basic)));
    }
    if let Some(conversations) = conversations_query(searcher, fields, request.scope, rarest)? {
        parts.push(conversations);
    }
    Ok(match parts.len() {
        0 => Box::new(AllQuery),
        1 => parts.remove(0),
        _ => Box::new(BooleanQuery::intersection(parts)),
    })
}

/// The scope's conversations as part of the query, if they hold no more messages than match anyway.
fn conversations_query(
    searcher: &Searcher,
    fields: Fields,
    scope: &Scope,
    rarest: u64,
) -> Result<Option<Box<dyn EngineQuery>>, Error> {
    if scope.conversations.len() > MAX_SCOPE_IN_QUERY {
        return Ok(None);
    }
    let mut parts: Vec<Box<dyn EngineQuery>> = Vec::with_capacity(scope.conversations.len());
    let mut messages = 0;
    for entry in &scope.conversations {
        let term = Term::from_field_bytes(fields.conversation, entry.conversation.as_bytes());
        messages += searcher.doc_freq(&term)?;
        if messages > rarest {
            return Ok(None);
        }
        parts.push(Box::new(TermQuery::new(term, IndexRecordOption::Basic)));
    }
    Ok(Some(Box::new(BooleanQuery::union(parts))))
}

fn group_query(fields: Fields, group: &Group) -> Box<dyn EngineQuery> {
    let mut terms: Vec<(usize, Term)> = group
        .terms
        .iter()
        .map(|(offset, term)| (*offset, Term::from_field_text(fields.text, term)))
        .collect();
    if terms.len() == 1 {
        let (_, term) = terms.remove(0);
        return Box::new(TermQuery::new(term, IndexRecordOption::Basic));
    }
    Box::new(PhraseQuery::new_with_offset(terms))
}
