//! What the other members' calendars, which they tell with each heartbeat, say about this machine's: how far it is off, and what time it is then. What is
//! not done meanwhile is the roles' affair (`Cx::expiry_ms`); nobody's ownership rests on it (docs/decisions/0015-the-members-time.md).

use godwit_cluster::own::{Calendar, Millis};

/// Further than this off the members' median, milliseconds: nothing ends by this node's calendar, and it is not what is written down.
const OFF_MS: u64 = 10_000;
/// A heartbeat older than this says nothing about its node's calendar, milliseconds.
pub(super) const FRESH_MS: u64 = 6_000;
/// Nothing is stamped further ahead than this, milliseconds, because another one's calendar may be right: one that is at the year 2100 must not make what
/// is written everlasting.
const AHEAD_MS: u64 = 86_400_000;
/// 2025-01-01, milliseconds since 1970. A calendar before it was never set, so the later one is right, however late.
const NEVER_SET_BEFORE: u64 = 1_735_689_600_000;

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
    /// There are two in the middle, and they disagree: nobody knows who is right.
    undecided: bool,
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
            undecided: upper.abs_diff(lower) > OFF_MS,
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

/// What comparisons of calendars have shown since the process began.
#[derive(Debug, Default)]
pub(super) struct History {
    /// How far this machine's calendar is ahead of the median of the members', or, with nobody left, of what they said last; milliseconds. `None`: not
    /// known yet.
    pub(super) ahead_ms: Option<i64>,
    /// There was somebody to compare with.
    compared: bool,
}

impl History {
    /// What time it is from now on; `None`: what it was. `former`: what it is by now; `others`: how far their calendars are ahead of this machine's,
    /// which says `own` at `now` of CLOCK_BOOTTIME, both milliseconds; `waits`: a heartbeat of somebody else may come yet.
    pub(super) fn take(
        &mut self,
        former: Calendar,
        others: Vec<i64>,
        waits: bool,
        (own, now): (u64, Millis),
    ) -> Option<Calendar> {
        let alone = others.is_empty();
        if alone && (waits && self.ahead_ms.is_none() || self.compared && former.doubted) {
            // Not known yet; or nobody is left who could end the doubt: what the members said last goes on, late rather than early, until somebody comes
            // or this is started again.
            return None;
        }
        self.compared |= !alone;
        let compared = Compared::with(others);
        self.ahead_ms = Some(compared.ahead_ms);
        let own_at_boot = i64::try_from(own)
            .unwrap_or(i64::MAX)
            .saturating_sub_unsigned(now);
        let at_boot_ms = own_at_boot.saturating_add(compared.to_add_ms);
        if let Some(before) = former.at_boot_ms
            && self.compared
            && (alone || compared.undecided)
            && at_boot_ms.abs_diff(before) > OFF_MS
        {
            // Nobody says that this step is right, and the time before it was what others had said, or agreed to.
            if alone {
                self.ahead_ms = Some(own_at_boot.saturating_sub(before));
            }
            return Some(Calendar {
                doubted: true,
                ..former
            });
        }
        let later_ms = match own < NEVER_SET_BEFORE {
            true => compared.later_ms,
            false => compared.later_ms.min(AHEAD_MS),
        };
        Some(Calendar {
            at_boot_ms: Some(at_boot_ms),
            later_ms,
            doubted: compared.is_off(),
        })
    }
}

/// Whether a calendar is too far off that is so far ahead.
fn is_off(ahead_ms: i64) -> bool {
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

    /// A calendar of a machine that was started at 0 of it, and what it knows of the others'.
    #[derive(Default)]
    struct Machine {
        calendar: Calendar,
        history: History,
    }

    const NOW: u64 = 5_000;
    const OWN: u64 = 1_800_000_000_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    impl Machine {
        /// The machine's calendar is so much ahead of what it was, the others' of that.
        fn looks(&mut self, own: i64, others: &[i64]) {
            let others = others.iter().map(|other| other - own).collect();
            let here = OWN.saturating_add_signed(own);
            let taken = self.history.take(self.calendar, others, false, (here, NOW));
            self.calendar = taken.unwrap_or(self.calendar);
        }

        /// How far its time is from what it was at first, by how much that may be later, and whether it is doubted.
        fn time(&self) -> (i64, u64, bool) {
            let time = self.calendar.unix_ms(NOW, 0);
            (
                i64::try_from(i128::from(time) - i128::from(OWN)).unwrap(),
                self.calendar.later_ms,
                self.calendar.doubted,
            )
        }
    }

    #[test]
    fn a_node_of_its_own_takes_what_its_calendar_says() {
        let mut machine = Machine::default();
        let first = machine
            .history
            .take(machine.calendar, Vec::new(), true, (OWN, NOW));
        assert_eq!(first, None, "a heartbeat may come yet");
        for step in [0, YEAR, -HOUR] {
            machine.looks(step, &[]);
            assert_eq!(machine.time(), (step, 0, false));
        }
    }

    #[test]
    fn a_step_that_nobody_is_left_to_judge_is_not_taken() {
        let mut machine = Machine::default();
        machine.looks(0, &[0]);
        machine.looks(2_000, &[]);
        assert_eq!(machine.time(), (2_000, 0, false), "it is set by NTP");
        machine.looks(YEAR, &[]);
        assert_eq!(machine.time(), (2_000, 0, true));
        assert_eq!(machine.history.ahead_ms, Some(YEAR - 2_000));
        machine.looks(YEAR, &[YEAR]);
        assert_eq!(machine.time(), (YEAR, 0, false), "the other one agrees");
        // Off, and then alone: what the others said.
        machine.looks(YEAR + HOUR, &[YEAR, YEAR]);
        machine.looks(YEAR + HOUR, &[]);
        assert_eq!(machine.time(), (YEAR, 0, true));
        // A doubt outlasts them.
        let mut machine = Machine::default();
        machine.looks(0, &[HOUR]);
        machine.looks(0, &[]);
        assert_eq!(machine.time(), (0, HOUR as u64, true));
    }

    #[test]
    fn a_time_that_most_agreed_to_is_kept_while_two_are_left_who_do_not() {
        let mut machine = Machine::default();
        machine.looks(HOUR, &[0, 0]);
        assert_eq!(machine.time(), (0, 0, true));
        machine.looks(HOUR, &[0]);
        assert_eq!(machine.time(), (0, 0, true), "it went by the others' time");
        machine.looks(0, &[0]);
        assert_eq!(machine.time(), (0, 0, false));
        // Of two one is set, and they disagree since.
        machine.looks(YEAR, &[0]);
        assert_eq!(machine.time(), (0, 0, true));
        machine.looks(YEAR, &[YEAR, YEAR]);
        assert_eq!(machine.time(), (YEAR, 0, false));
    }

    #[test]
    fn nothing_is_stamped_more_than_a_day_ahead_but_by_a_calendar_that_was_never_set() {
        let mut machine = Machine::default();
        machine.looks(0, &[75 * YEAR]);
        assert_eq!(machine.time(), (0, 24 * HOUR as u64, true));
        let mut machine = Machine::default();
        machine.looks(-50 * YEAR, &[0]);
        assert_eq!(machine.time(), (-50 * YEAR, 50 * YEAR as u64, true));
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
