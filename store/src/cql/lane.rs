//! How many read, or take up, at a time: so few that the store has not to queue them, and none of them so long that what cannot be answered, a
//! part of the ring without its replicas, has the places of everything else. Not here: what they read, nor how many wait in all.

use std::time::Duration;

use backon::Retryable;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::session::read_pauses;
use crate::StoreError;

tokio::task_local! {
    /// Until then a statement that fails is not repeated by itself: the whole attempt is.
    static WHOLE_UNTIL: Instant;
}

/// Whether a read that fails now is repeated by whoever asked. Not of an attempt that is long under way: what it has read already would be lost with it.
pub(super) fn is_repeated_outside() -> bool {
    WHOLE_UNTIL
        .try_with(|until| Instant::now() < *until)
        .unwrap_or(false)
}

/// A number of places.
pub(super) struct Lane {
    places: Semaphore,
    /// For what has had a place for `patience` and is not done.
    slow: Semaphore,
    patience: Duration,
}

impl Lane {
    pub(super) fn new(places: usize, slow: usize, patience: Duration) -> Self {
        Self {
            places: Semaphore::new(places),
            slow: Semaphore::new(slow),
            patience,
        }
    }

    /// Has an attempt made when there is a place, and made again if it failed at once, after growing pauses in which others have the place.
    pub(super) async fn run<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        (|| self.once(attempt()))
            .retry(read_pauses())
            .when(|(error, at_once)| *at_once && error.retryable())
            .await
            .map_err(|(error, _)| error)
    }

    /// With an error: whether it came at once.
    async fn once<T>(
        &self,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, (StoreError, bool)> {
        // Never closed.
        let place = self.places.acquire().await;
        let until = Instant::now() + self.patience;
        let mut attempt = std::pin::pin!(WHOLE_UNTIL.scope(until, attempt));
        let done = match timeout(self.patience, &mut attempt).await {
            Ok(done) => done,
            Err(_) => {
                // Where too many are slow it keeps its place: the store has enough to do.
                let slow = self.slow.try_acquire();
                if slow.is_ok() {
                    drop(place);
                }
                attempt.await
            }
        };
        done.map_err(|error| (error, Instant::now() < until))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const IN_TIME: Duration = Duration::from_secs(10);

    /// Does not end before it is told to.
    fn stuck(lane: &Arc<Lane>, told: &Arc<Notify>) -> tokio::task::JoinHandle<Result<u32, StoreError>> {
        let (lane, told) = (lane.clone(), told.clone());
        tokio::spawn(async move {
            let attempt = || async {
                told.notified().await;
                Ok(7)
            };
            lane.run(attempt).await
        })
    }

    async fn other(lane: &Lane) -> bool {
        timeout(IN_TIME, lane.run(|| async { Ok(()) })).await.is_ok()
    }

    #[tokio::test]
    async fn what_is_not_answered_gives_its_place_to_others_and_is_answered_in_the_end() {
        let (lane, told) = (Arc::new(Lane::new(1, 2, SOON)), Arc::new(Notify::new()));
        let two = [stuck(&lane, &told), stuck(&lane, &told)];
        tokio::task::yield_now().await;
        assert!(other(&lane).await, "both have given it");
        // A third one has no slow place, and keeps its own.
        let third = stuck(&lane, &told);
        tokio::time::sleep(SOON * 5).await;
        assert!(timeout(SOON * 5, lane.run(|| async { Ok(()) })).await.is_err());
        told.notify_waiters();
        for one in two.into_iter().chain([third]) {
            assert_eq!(timeout(IN_TIME, one).await.unwrap().unwrap().unwrap(), 7);
        }
        assert!(other(&lane).await);
    }

    #[tokio::test]
    async fn what_fails_at_once_is_tried_again_and_has_no_place_in_between() {
        let lane = Arc::new(Lane::new(1, 0, IN_TIME));
        let tries = Arc::new(AtomicUsize::new(0));
        let (its_lane, its_tries) = (lane.clone(), tries.clone());
        let failing = tokio::spawn(async move {
            let attempt = || async {
                assert!(is_repeated_outside());
                match its_tries.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => Err(StoreError::Unavailable("no replicas".into())),
                    tries => Ok(tries),
                }
            };
            its_lane.run(attempt).await
        });
        while tries.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(other(&lane).await);
        assert_eq!(tries.load(Ordering::SeqCst), 1, "it pauses");
        assert_eq!(timeout(IN_TIME, failing).await.unwrap().unwrap().unwrap(), 2);
        assert!(!is_repeated_outside());
    }

    #[tokio::test]
    async fn a_statement_of_what_is_long_under_way_is_repeated_by_itself() {
        let lane = Lane::new(1, 1, SOON);
        let attempt = || async {
            tokio::time::sleep(SOON * 2).await;
            Ok(is_repeated_outside())
        };
        assert!(!lane.run(attempt).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_no_use_or_took_its_time_is_not_tried_again() {
        let tries = AtomicUsize::new(0);
        let fail = |error: fn() -> StoreError, takes: Duration| {
            tries.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(takes).await;
                Err::<(), _>(error())
            }
        };
        let lane = Lane::new(1, 1, SOON);
        assert!(
            lane.run(|| fail(|| StoreError::Lost, Duration::ZERO))
                .await
                .is_err()
        );
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        let late = || fail(|| StoreError::Unavailable("late".into()), SOON * 2);
        assert!(lane.run(late).await.is_err());
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    }
}
