//! Bugs that the simulation must find. Those of a start of a node sleep in `godwit_cluster` under a feature; the others
//! are in this crate's model of the engine and of the homes. None is reachable from the product.

/// Which rules are broken in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// None.
    #[default]
    None,
    /// A write counts as confirmed without reading the view.
    ConfirmsUnread,
    /// The fence is written with the first append instead of before the first act.
    FencesAtFirstAppend,
    /// A fence says only from where its writer's own positions are.
    FenceWithoutIntervals,
    /// After a take-up rows that are void are deleted.
    ClearsVoidRows,
    /// A view that was passed unseen is taken for one in which nothing changed.
    SkipsViews,
    /// A node that comes back goes on as the start that it was, in the view that it finds.
    ReusesView,
    /// Former owners in unsettled views are not waited for.
    ForgetsUnsettled,
    /// A transaction that timed out is taken for one that failed.
    TimedOutIsFailed,
    /// An open tail is offered to the members of today.
    OffersToTodaysMembers,
    /// A mailbox that is taken up knows no repeats.
    NoMarks,
    /// Deleted rows of starts hide what is written later by a clock that is behind, and whose row is hidden goes on.
    HidesRows,
    /// The floor is stored before what it rests on is confirmed.
    FloorBeforeSnapshot,
}

impl Bug {
    /// All of them, with the names that the command line takes.
    pub const ALL: [(&'static str, Self); 12] = [
        ("confirms-unread", Self::ConfirmsUnread),
        ("fences-at-first-append", Self::FencesAtFirstAppend),
        ("fence-without-intervals", Self::FenceWithoutIntervals),
        ("clears-void-rows", Self::ClearsVoidRows),
        ("skips-views", Self::SkipsViews),
        ("reuses-view", Self::ReusesView),
        ("forgets-unsettled", Self::ForgetsUnsettled),
        ("timed-out-is-failed", Self::TimedOutIsFailed),
        ("offers-to-todays-members", Self::OffersToTodaysMembers),
        ("no-marks", Self::NoMarks),
        ("hides-rows", Self::HidesRows),
        ("floor-before-snapshot", Self::FloorBeforeSnapshot),
    ];
}
