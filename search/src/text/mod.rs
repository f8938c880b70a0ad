//! How text becomes terms: the one analysis that indexing, queries and snippets share. Nothing here knows Tantivy,
//! except `tokenizer`, which wraps it.

mod fold;
mod pieces;
pub(crate) mod tokenizer;

pub(crate) use pieces::{Kind, Piece, pieces, terms};

/// Longest term kept, in code points: what is longer (base64, keys, URLs) is cut there, in text and query alike.
pub(crate) const MAX_TERM_CHARS: usize = 64;
