//! The patience of a start with its store: what a store that is busy, starting or gone does not answer is asked again until it answers, or
//! somebody ends the process. What it refuses ends the start at once. Its pauses are backon's; the loop is its own, since each attempt blocks a thread that is
//! left behind, and each pause, when the process is to end.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use godwit_store::StoreError;

use crate::StartError;
use crate::shutdown::Shutdown;

/// Before the first repetition; doubled from one to the next, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(8);
/// No more than one line in the log in so much time.
const LINE_EACH: Duration = Duration::from_secs(5);
/// How soon the wish to end is heard.
const LOOK: Duration = Duration::from_millis(50);

/// Calls `attempt` until its answer is not that the store did not answer. Each attempt may run twice, or to its end when nobody waits for it any
/// more: it must be one that may be repeated after an unknown outcome.
///
/// # Errors
/// What the store refuses; [`StartError::Stopped`] when the shutdown begins, whatever is under way.
pub(super) fn until_answered<T: Send + 'static>(
    shutdown: &Shutdown,
    attempt: impl Fn() -> Result<T, StartError> + Send + Sync + 'static,
) -> Result<T, StartError> {
    until(shutdown, FIRST_PAUSE, Arc::new(attempt))
}

fn until<T: Send + 'static>(
    shutdown: &Shutdown,
    first_pause: Duration,
    attempt: Arc<dyn Fn() -> Result<T, StartError> + Send + Sync>,
) -> Result<T, StartError> {
    let began = Instant::now();
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(first_pause)
        .with_max_delay(LAST_PAUSE)
        .without_max_times()
        .build();
    let (mut attempts, mut told) = (0_u32, None::<Instant>);
    loop {
        let (done, answered) = mpsc::sync_channel(1);
        let working = attempt.clone();
        // Not joined: an answer that does not come must not keep the process from ending.
        std::thread::Builder::new()
            .name("godwit-start".into())
            .spawn(move || {
                // Who asked may have ended.
                let _ = done.send(working());
            })?;
        let error = match wait(shutdown, &answered)? {
            Err(StartError::Store(error)) if error.retryable() => error,
            other => return other,
        };
        attempts += 1;
        let pause = pauses.next().unwrap_or(LAST_PAUSE);
        if told.is_none_or(|at| at.elapsed() >= LINE_EACH) {
            told = Some(Instant::now());
            tracing::warn!(
                attempts,
                %error,
                waiting = ?began.elapsed(),
                again_in = ?pause,
                "cannot start yet: the store is asked again until it answers; is it up, and reached at cql_nodes?"
            );
        }
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if shutdown.has_begun() {
                return Err(StartError::Stopped);
            }
            std::thread::sleep(LOOK.min(pause));
        }
    }
}

fn wait<T>(
    shutdown: &Shutdown,
    answered: &mpsc::Receiver<Result<T, StartError>>,
) -> Result<Result<T, StartError>, StartError> {
    loop {
        match answered.recv_timeout(LOOK) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if shutdown.has_begun() => return Err(StartError::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let panicked = "a thread of the start came to a sudden end; see the log";
                return Err(StoreError::Refused(panicked.into()).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counted(answers: impl Fn(u32) -> Result<u32, StartError> + Send + Sync + 'static) -> Counted {
        let count = Arc::new(AtomicU32::new(0));
        let of = count.clone();
        let attempt = Arc::new(move || answers(of.fetch_add(1, Ordering::SeqCst)));
        Counted { count, attempt }
    }

    struct Counted {
        count: Arc<AtomicU32>,
        attempt: Arc<dyn Fn() -> Result<u32, StartError> + Send + Sync>,
    }

    fn silent() -> StartError {
        StoreError::Unavailable("no answer within 4 s".into()).into()
    }

    #[test]
    fn a_store_that_does_not_answer_is_asked_until_it_does() {
        let asked = counted(|attempt| if attempt < 7 { Err(silent()) } else { Ok(attempt) });
        let got = until(&Shutdown::default(), Duration::ZERO, asked.attempt).unwrap();
        assert_eq!((got, asked.count.load(Ordering::SeqCst)), (7, 8));
    }

    #[test]
    fn what_the_store_refuses_ends_the_start_at_once() {
        let asked = counted(|_| Err(StoreError::Refused("run `godwit schema`".into()).into()));
        let error = until(&Shutdown::default(), Duration::ZERO, asked.attempt).unwrap_err();
        assert!(error.to_string().contains("godwit schema"), "{error}");
        assert_eq!(asked.count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_asks_to_end_is_heard_while_an_attempt_hangs_and_between_two() {
        let (held, release) = mpsc::channel::<()>();
        let release = std::sync::Mutex::new(release);
        let (shutdown, ending) = (Shutdown::default(), Shutdown::default());
        let begins = ending.clone();
        let asked = counted(move |_| {
            begins.begin();
            // Hangs until the test is over.
            let _ = release.lock().unwrap().recv();
            Err(silent())
        });
        let error = until(&ending, Duration::ZERO, asked.attempt).unwrap_err();
        assert!(matches!(error, StartError::Stopped), "{error}");
        drop(held);
        let begins = shutdown.clone();
        let asked = counted(move |_| {
            begins.begin();
            Err(silent())
        });
        let error = until(&shutdown, Duration::from_secs(3_600), asked.attempt).unwrap_err();
        assert!(matches!(error, StartError::Stopped), "{error}");
    }
}
