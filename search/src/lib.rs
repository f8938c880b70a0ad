//! Search over stored history: a Tantivy index per node, fed from the confirmed log, and answers that keep to what the
//! asking user may see. The messages themselves stay in the store; how the store is read is the caller's [`Source`].

mod cursor;
mod error;
mod feed;
mod index;
mod progress;
mod query;
mod schema;
mod search;
#[cfg(test)]
mod search_tests;
mod shards;
mod snippet;
#[cfg(test)]
mod testing;
mod text;
mod writer;

pub use cursor::check_cursor;
pub use error::{Error, SourceError};
pub use feed::{
    Feed, FeedConfig, FeedStatus, Indexed, Notifier, OnIndexed, Source, SourcePage, Tail, UNKNOWN_END, Which,
};
pub use index::Index;
pub use progress::{FeedState, Freshness};
pub use query::{MAX_QUERY_CHARS, MAX_QUERY_TERMS, Query};
pub use schema::IndexDoc;
pub use search::{Hit, MAX_PAGE, MAX_SCOPE, Page, Request, Scope, ScopeEntry, merge};
pub use shards::Standing;
pub use snippet::{MAX_RANGES, SNIPPET_CHARS, Snippet, snippet};
pub use writer::Removal;
