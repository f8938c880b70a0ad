//! The time by which nodes judge each other: CLOCK_BOOTTIME, which goes on while the process is stopped and the machine sleeps. No calendar.

use std::time::Duration;

use godwit_cluster::own::{Clock, Millis};
use godwit_store::coordination::Asked;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine was started.
pub fn boot_ms() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    seconds * 1_000 + millis
}

/// The machine's.
pub(crate) struct Boot;

impl Clock for Boot {
    fn now(&self) -> Millis {
        boot_ms()
    }

    fn unix_ms(&self) -> u64 {
        crate::node::unix_ms()
    }

    fn sleep_until(&self, at: Millis) -> Asked<'_, ()> {
        Box::pin(async move {
            loop {
                let left = at.saturating_sub(boot_ms());
                if left == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(left)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_never_ends_early() {
        let at = boot_ms() + 20;
        Boot.sleep_until(at).await;
        assert!(boot_ms() >= at);
        Boot.sleep_until(0).await;
    }
}
