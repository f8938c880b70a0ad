//! What can go wrong in this crate, at start and at run time.

use std::{io, path::PathBuf};

use tantivy::TantivyError;
use tantivy::directory::error::{OpenDirectoryError, OpenReadError};

use crate::{query, search};

/// An error of the search index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query has too many characters or terms.
    #[error(
        "the query is longer than {} characters or {} terms",
        query::MAX_QUERY_CHARS,
        query::MAX_QUERY_TERMS
    )]
    QueryTooLong,
    /// The `next` of an earlier page is not one that was given out.
    #[error("the cursor is not one that was given out")]
    BadCursor,
    /// The scope names too many conversations.
    #[error("the scope names more than {} conversations", search::MAX_SCOPE)]
    ScopeTooLarge,
    /// The search did not end within its deadline.
    #[error("the search did not end in time")]
    TimedOut,
    /// Another process, or another feed of this one, writes this index.
    #[error("the index in {0} is already being written")]
    InUse(PathBuf),
    /// The index library failed: a disk error, a full disk or a damaged file.
    #[error("the search index failed: {0}")]
    Engine(TantivyError),
    /// The index library panicked, which damaged files make it do.
    #[error("the search index is damaged")]
    Damaged,
    /// A file operation outside the index library failed.
    #[error("the search index's folder failed: {0}")]
    Io(#[from] io::Error),
    /// The store could not be read.
    #[error("the store could not be read: {0}")]
    Source(#[from] SourceError),
}

/// Why the store could not be read; its text goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

impl Error {
    /// Whether the request itself is at fault, so that the same one can never succeed.
    pub fn is_bad_request(&self) -> bool {
        matches!(self, Self::QueryTooLong | Self::BadCursor | Self::ScopeTooLarge)
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        !self.is_bad_request()
    }

    /// Whether the files themselves are unusable, so that only a rebuild helps. A failing or full disk is not that.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged => true,
            Self::Engine(engine) => match engine {
                TantivyError::DataCorruption(_)
                | TantivyError::IncompatibleIndex(_)
                | TantivyError::DeserializeError(_)
                | TantivyError::SchemaError(_)
                | TantivyError::OpenReadError(
                    OpenReadError::FileDoesNotExist(_) | OpenReadError::IncompatibleIndex(_),
                ) => true,
                // What the footer or a file's form shows to be wrong comes back as an IO error without an OS code.
                TantivyError::IoError(io) => is_malformed(io),
                TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. }) => {
                    is_malformed(io_error)
                }
                _ => false,
            },
            _ => false,
        }
    }
}

fn is_malformed(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
        && matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        )
}

impl From<TantivyError> for Error {
    fn from(error: TantivyError) -> Self {
        Self::Engine(error)
    }
}

impl From<OpenReadError> for Error {
    fn from(error: OpenReadError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<OpenDirectoryError> for Error {
    fn from(error: OpenDirectoryError) -> Self {
        Self::Engine(error.into())
    }
}
