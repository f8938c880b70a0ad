//! Whether this machine's calendar can be trusted: it is compared with those of the other members, which tell theirs with each heartbeat. What is not done
//! meanwhile is the roles' affair (`Cx::expiry_ms`); nobody's ownership rests on it.

/// Further than this off the members' median, milliseconds: nothing ends by this node's calendar.
const OFF_MS: u64 = 10_000;
/// A heartbeat older than this says nothing about its node's calendar, milliseconds.
pub(super) const FRESH_MS: u64 = 6_000;

/// How far this node's calendar is ahead of the median of all members', its own among them; `others`: how far theirs are ahead of it. Of two
/// in the middle it is halfway, so of two nodes each is off by half of what lies between them.
pub(super) fn ahead_ms(others: impl IntoIterator<Item = i64>) -> i64 {
    let mut all: Vec<i64> = others.into_iter().chain([0]).collect();
    all.sort_unstable();
    let middle = all.len() / 2;
    let upper = all.get(middle).copied().unwrap_or(0);
    let lower = match all.len() % 2 {
        0 => all.get(middle - 1).copied().unwrap_or(0),
        _ => upper,
    };
    // Halves, so that nothing overflows; the sign of the least one has no opposite.
    (lower / 2 + upper / 2).saturating_neg()
}

/// Whether it is too far off.
pub(super) fn is_off(ahead_ms: i64) -> bool {
    ahead_ms.unsigned_abs() > OFF_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_is_off_if_it_is_far_from_the_median_of_all_and_not_if_another_ones_is() {
        assert!(!is_off(ahead_ms([])));
        // This one is an hour ahead of two others.
        assert_eq!(ahead_ms([-3_600_000, -3_599_900]), 3_599_900);
        assert!(is_off(ahead_ms([i64::MIN, i64::MIN])));
        assert!(is_off(ahead_ms([-3_600_000, -3_599_900])));
        // One of two others is an hour behind.
        assert!(!is_off(ahead_ms([-3_600_000, 40])));
        assert!(is_off(ahead_ms([10_500, 11_000])));
        assert!(!is_off(ahead_ms([9_000, 11_000])));
        // Of two nodes nobody knows which one is wrong: neither ends anything.
        assert!(is_off(ahead_ms([30_000])));
        assert!(is_off(ahead_ms([-30_000])));
    }
}
