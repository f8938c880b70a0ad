//! What time it is for the nodes of a cluster: each has its own calendar, and one that is wrong must not be written down, since others judge by theirs
//! what was written (docs/decisions/0015-the-members-time.md). Who compares calendars is outside.

use super::Millis;

/// What a comparison with the other members' calendars has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The members' time, milliseconds since 1970, at 0 of CLOCK_BOOTTIME: a step of this machine's calendar does not move it. `None`: not compared
    /// yet, the machine's own counts.
    pub at_boot_ms: Option<i64>,
    /// By so much, milliseconds, the members' time may be later than that: as many of them say so.
    pub later_ms: u64,
    /// Nothing ends by it.
    pub doubted: bool,
}

impl Calendar {
    /// Milliseconds since 1970. `boot_ms`: CLOCK_BOOTTIME; `own`: the machine's calendar.
    pub fn unix_ms(&self, boot_ms: Millis, own: u64) -> u64 {
        match self.at_boot_ms {
            Some(at_boot_ms) => boot_ms.saturating_add_signed(at_boot_ms),
            None => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_calendar_counts_only_until_it_was_compared() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.unix_ms(5_000, 1_000_000), 1_000_000);
        calendar.at_boot_ms = Some(900_000);
        assert_eq!(calendar.unix_ms(5_000, 1_000_000), 905_000);
        assert_eq!(
            calendar.unix_ms(6_000, 4_600_000),
            906_000,
            "it was set an hour on"
        );
        // A machine whose calendar is right and that was started before 1970, as no machine was.
        calendar.at_boot_ms = Some(-10_000);
        assert_eq!(calendar.unix_ms(5_000, 0), 0);
    }
}
