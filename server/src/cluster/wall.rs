//! What the other members' calendars, which they tell with each heartbeat, say about this machine's: how far it is off, and what time it is then. What is
//! not done meanwhile is the roles' affair (`Cx::expiry_ms`); nobody's ownership rests on it (docs/decisions/0015-the-members-time.md).

/// Further than this off the members' median, milliseconds: nothing ends by this node's calendar, and it is not what is written down.
const OFF_MS: u64 = 10_000;
/// A heartbeat older than this says nothing about its node's calendar, milliseconds.
pub(super) const FRESH_MS: u64 = 6_000;

/// What a comparison has shown; all in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// How far this node's calendar is ahead of the median of all members', its own among them. Of two in the middle it is halfway, so of two nodes each is
    /// off by half of what lies between them.
    pub(super) ahead_ms: i64,
    /// What makes the members' time of this machine's calendar: nothing while it is near the median, or while nobody knows that it is the wrong one.
    pub(super) to_add_ms: i64,
    /// By so much the members' time may be later than that: of two in the middle the other one may be right.
    pub(super) later_ms: u64,
}

impl Compared {
    /// `others`: how far their calendars are ahead of this one.
    pub(super) fn with(others: impl IntoIterator<Item = i64>) -> Self {
        let mut all: Vec<i64> = others.into_iter().chain([0]).collect();
        all.sort_unstable();
        let middle = all.len() / 2;
        let upper = all.get(middle).copied().unwrap_or(0);
        let lower = match all.len() % 2 {
            0 => all.get(middle - 1).copied().unwrap_or(0),
            _ => upper,
        };
        let mut compared = Self {
            // Halves, so that nothing overflows; the sign of the least one has no opposite.
            ahead_ms: (lower / 2 + upper / 2).saturating_neg(),
            to_add_ms: 0,
            later_ms: 0,
        };
        if compared.is_off() {
            // What both say who may be right; between them this machine's own word.
            compared.to_add_ms = 0.clamp(lower, upper);
            compared.later_ms = upper.abs_diff(compared.to_add_ms);
        }
        compared
    }

    /// See [`is_off`].
    pub(super) fn is_off(&self) -> bool {
        is_off(self.ahead_ms)
    }
}

/// Whether a calendar is too far off that is so far ahead.
pub(super) fn is_off(ahead_ms: i64) -> bool {
    ahead_ms.unsigned_abs() > OFF_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn is_off(others: impl IntoIterator<Item = i64>) -> bool {
        Compared::with(others).is_off()
    }

    /// What is added, and by how much it may be later.
    fn time(others: impl IntoIterator<Item = i64>) -> (i64, u64) {
        let compared = Compared::with(others);
        (compared.to_add_ms, compared.later_ms)
    }

    #[test]
    fn a_calendar_is_off_if_it_is_far_from_the_median_of_all_and_not_if_another_ones_is() {
        assert!(!is_off([]));
        // This one is an hour ahead of two others.
        assert_eq!(Compared::with([-HOUR, 100 - HOUR]).ahead_ms, HOUR - 100);
        assert!(is_off([i64::MIN, i64::MIN]));
        assert!(is_off([-HOUR, 100 - HOUR]));
        // One of two others is an hour behind.
        assert!(!is_off([-HOUR, 40]));
        assert!(is_off([10_500, 11_000]));
        assert!(!is_off([9_000, 11_000]));
        // Of two nodes nobody knows which one is wrong: neither ends anything.
        assert!(is_off([30_000]));
        assert!(is_off([-30_000]));
    }

    #[test]
    fn who_is_far_off_takes_the_others_time_and_who_is_not_has_its_own() {
        assert_eq!(time([]), (0, 0));
        assert_eq!(time([9_000, 11_000]), (0, 0), "near enough");
        assert_eq!(time([-HOUR, 40]), (0, 0), "another one's is wrong");
        assert_eq!(time([-HOUR, 100 - HOUR]), (100 - HOUR, 0));
        assert_eq!(time([HOUR, HOUR + 100]), (HOUR, 0));
        // Four, of which this one alone is wrong: the nearer one of the two in the middle.
        assert_eq!(time([HOUR, HOUR + 100, HOUR + 200]), (HOUR, 100));
        assert_eq!(time([i64::MIN, i64::MIN]), (i64::MIN, 0));
    }

    #[test]
    fn where_nobody_knows_who_is_right_each_keeps_its_time_and_knows_how_much_later_it_may_be() {
        assert_eq!(time([HOUR]), (0, HOUR as u64));
        assert_eq!(time([-HOUR]), (0, 0));
        assert_eq!(time([0, HOUR, HOUR]), (0, HOUR as u64));
        assert_eq!(time([0, -HOUR, -HOUR]), (0, 0));
        assert_eq!(time([i64::MIN]), (0, 0));
        assert_eq!(time([i64::MAX]), (0, i64::MAX as u64));
    }
}
