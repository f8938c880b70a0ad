//! Bugs that the simulation must find: asleep in every member until a test plants one; not in a product build.

use super::Member;

/// Which rules a member breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bugs {
    /// A view that was passed unseen is taken for one in which nothing changed.
    pub skips_views: bool,
    /// Former owners of unsettled views are not waited for.
    pub forgets_unsettled: bool,
    /// A start goes on whose own row is not there.
    pub trusts_hidden_rows: bool,
}

impl Member {
    /// Breaks rules from now on.
    pub fn plant(&mut self, bugs: Bugs) {
        self.bugs = bugs;
    }
}
