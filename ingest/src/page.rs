//! Which positions a page of history has, out of what its asker may see. Pure.

use godwit_wire::command::{HistoryAt, Position};

/// The visible positions of a page as inclusive ranges in order, and whether there are more in its direction.
pub(crate) fn window(visible: &[(u64, u64)], at: HistoryAt, limit: u64) -> (Vec<(u64, u64)>, bool) {
    let number = |position| match position {
        Position::Sequence(sequence) => sequence,
        // Places of messages were looked up before.
        Position::Message(_) => 0,
    };
    let last_below = |bound: u64, limit: u64| {
        let (mut ranges, mut left) = (Vec::new(), limit);
        for &(from, to) in visible.iter().rev() {
            let to = to.min(bound.saturating_sub(1));
            if from > to || left == 0 {
                continue;
            }
            let from = from.max((to + 1).saturating_sub(left));
            left -= to - from + 1;
            ranges.push((from, to));
        }
        ranges.reverse();
        ranges
    };
    let first_above = |bound: u64, limit: u64| {
        let (mut ranges, mut left) = (Vec::new(), limit);
        for &(from, to) in visible {
            let from = from.max(bound.saturating_add(1));
            if from > to || left == 0 {
                continue;
            }
            let to = to.min(from.saturating_add(left - 1));
            left -= to - from + 1;
            ranges.push((from, to));
        }
        ranges
    };
    let older_than = |ranges: &[(u64, u64)]| {
        ranges
            .first()
            .is_some_and(|first| visible.first().is_some_and(|oldest| oldest.0 < first.0))
    };
    let newer_than = |ranges: &[(u64, u64)]| {
        ranges
            .last()
            .is_some_and(|last| visible.last().is_some_and(|newest| newest.1 > last.1))
    };
    match at {
        HistoryAt::Newest => {
            let ranges = last_below(u64::MAX, limit);
            let more = older_than(&ranges);
            (ranges, more)
        }
        HistoryAt::Before(position) => {
            let ranges = last_below(number(position), limit);
            let more = older_than(&ranges);
            (ranges, more)
        }
        HistoryAt::After(position) => {
            let ranges = first_above(number(position), limit);
            let more = newer_than(&ranges);
            (ranges, more)
        }
        HistoryAt::Around(position) => {
            let position = number(position);
            let mut ranges = last_below(position, limit / 2);
            let before: u64 = ranges.iter().map(|(from, to)| to - from + 1).sum();
            ranges.extend(first_above(position.saturating_sub(1), limit - before));
            let more = older_than(&ranges) || newer_than(&ranges);
            (ranges, more)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Position = Position::Sequence;

    #[test]
    fn a_page_holds_only_what_is_visible_and_says_whether_there_is_more() {
        let visible = [(1, 3), (6, 10)];
        assert_eq!(window(&visible, HistoryAt::Newest, 3), (vec![(8, 10)], true));
        assert_eq!(
            window(&visible, HistoryAt::Newest, 6),
            (vec![(3, 3), (6, 10)], true)
        );
        assert_eq!(
            window(&visible, HistoryAt::Newest, 100),
            (vec![(1, 3), (6, 10)], false)
        );
        assert_eq!(
            window(&visible, HistoryAt::Before(S(7)), 2),
            (vec![(3, 3), (6, 6)], true)
        );
        assert_eq!(
            window(&visible, HistoryAt::After(S(2)), 2),
            (vec![(3, 3), (6, 6)], true)
        );
        assert_eq!(window(&visible, HistoryAt::After(S(10)), 2), (vec![], false));
        assert_eq!(
            window(&visible, HistoryAt::Around(S(8)), 4),
            (vec![(6, 7), (8, 9)], true)
        );
        assert_eq!(window(&[], HistoryAt::Newest, 4), (vec![], false));
        assert_eq!(
            window(&visible, HistoryAt::After(S(u64::MAX)), 4),
            (vec![], false)
        );
    }
}
