//! Statements that failed are tried again: writes of batches until they are stored, what can be given up a few times. Each may come twice: its key,
//! content and timestamp are fixed. Not here: what they say.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use scylla::errors::ExecutionError;

use super::core::{Core, Gone};
use super::session::Bound;
use crate::StoreError;
use crate::types::Scope;

/// Pauses before a failed write is repeated: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How often more what somebody asks for, or nobody waits for, is tried before it is given up: with its time-outs and pauses, ten seconds in
/// all. A part of the ring that takes no writes must not hold up the others.
const SOON_REPEATS: usize = 2;

/// The growing pauses of everything that is repeated.
pub(super) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LAST_PAUSE)
        .with_jitter()
        .without_max_times()
}

/// How one attempt ended.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody knows: again.
    Again(String),
    /// There is no use.
    Gone(Gone),
}

impl From<Gone> for Failed {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<ExecutionError> for Failed {
    fn from(e: ExecutionError) -> Self {
        Self::Again(e.to_string())
    }
}

impl Core {
    /// Writes statements of one partition, again and again until they are stored.
    pub(super) async fn stored(&self, scope: Scope, statements: &[Bound]) -> Result<(), Gone> {
        self.until(|| self.once(scope, statements)).await
    }

    /// The same for what may be given up: a few attempts, then *unavailable*. What was tried may still land.
    pub(super) async fn stored_soon(&self, scope: Scope, statements: &[Bound]) -> Result<(), StoreError> {
        let ended = (|| self.once(scope, statements))
            .retry(pauses().with_max_times(SOON_REPEATS))
            .when(|e| matches!(e, Failed::Again(_)))
            .await;
        match ended {
            Ok(()) => {
                self.trouble.stored();
                Ok(())
            }
            Err(Failed::Gone(gone)) => Err(gone.into()),
            Err(Failed::Again(error)) => Err(StoreError::Unavailable(error)),
        }
    }

    async fn once(&self, scope: Scope, statements: &[Bound]) -> Result<(), Failed> {
        self.still(scope)?;
        // Never closed.
        let _permit = self.wire.acquire().await;
        Ok(self.link.together(statements).await?)
    }

    /// Repeats an attempt with growing pauses until it ends one way or the other.
    pub(super) async fn until<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, Gone>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let mut repeating = None;
        let ended = attempt
            .retry(pauses())
            .when(|e| matches!(e, Failed::Again(_)))
            .notify(|e, pause| {
                let Failed::Again(error) = e else { return };
                if repeating.is_none() {
                    tracing::warn!(error, again_in = ?pause, "a write was not stored; it is repeated until it is");
                    repeating = Some(self.trouble.repeats());
                }
            })
            .await;
        match ended {
            Ok(value) => {
                self.trouble.stored();
                Ok(value)
            }
            Err(Failed::Gone(gone)) => Err(gone),
            // `Again` is repeated without end.
            Err(Failed::Again(_)) => Err(Gone::Ended),
        }
    }
}
