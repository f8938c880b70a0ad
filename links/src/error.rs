//! Why a link could not be made, or broke: for logs, and for the caller when it is refused.

use tonic::Status;

/// Why a link could not be made, or broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Of a newer or older release that cannot be spoken with.
    #[error("the other node speaks version {0} of the links' protocol, which this one does not")]
    Version(u32),
    #[error("the other node is of another cluster")]
    Cluster,
    /// What the address in the row led to.
    #[error(
        "the address leads to another start of a node than was called: it was restarted, or the address is not its own"
    )]
    WrongStart,
    #[error("not a member of the view yet, or no longer")]
    NotMember,
    #[error("the two nodes do not hold the same key")]
    Proof,
    #[error("a node sent something that the protocol does not allow there: {0}")]
    Unexpected(&'static str),
    #[error(
        "the certificate of the other node is not good for the address that it has in the store, or for the name that nodes have"
    )]
    Name,
    #[error("no answer in time")]
    Late,
    #[error("the other node ended it")]
    Ended,
    /// What the called node, or the connection, said.
    #[error("{0}")]
    Status(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

impl LinkError {
    /// What the caller is told.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotMember => Status::unavailable(self.to_string()),
            Self::Proof | Self::Name => Status::unauthenticated(self.to_string()),
            _ => Status::failed_precondition(self.to_string()),
        }
    }
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        // Of a broken connection the cause says more than the status.
        let mut said = status.message().to_owned();
        let mut cause = std::error::Error::source(&status);
        while let Some(error) = cause {
            let more = error.to_string();
            if !said.contains(&more) {
                said = format!("{said}: {more}");
            }
            cause = error.source();
        }
        Self::Status(said)
    }
}
