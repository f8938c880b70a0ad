//! Who is in a conversation, and was, by positions: who gets position s is decided by the membership entries below s.
//! Knows no store and no fan-out.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_wire::command::Named;
use godwit_wire::ids::UserId;
use godwit_wire::proto::chat::{MemberOp, Role};

use crate::rows::MemberRow;

/// Most users who are or ever were in one conversation: all of their rows are read when it is loaded.
pub(crate) const MEMBERS_EVER: usize = 16_384;
/// Most stays of one user: they are one row, written anew with each.
pub(crate) const STAYS: usize = 1_024;

/// One user who is or was in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Membership {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    /// As in [`MemberRow::bounds`].
    bounds: Vec<u64>,
}

impl Membership {
    pub(crate) fn is_in(&self) -> bool {
        self.bounds.len() % 2 == 1
    }

    /// How often the user came in.
    pub(crate) fn stays(&self) -> usize {
        self.bounds.len().div_ceil(2)
    }

    /// The position of the entry that brought the user in; 0 for who was in from the creation.
    pub(crate) fn joined_at(&self) -> u64 {
        self.bounds
            .iter()
            .rev()
            .nth(usize::from(!self.is_in()))
            .copied()
            .unwrap_or_default()
    }

    fn was_in_at(&self, position: u64) -> bool {
        self.bounds
            .chunks(2)
            .any(|bound| bound[0] <= position && bound.get(1).is_none_or(|to| position <= *to))
    }

    pub(crate) fn to_row(&self) -> MemberRow {
        MemberRow {
            name: self.name.to_string(),
            role: self.role as i32,
            bounds: self.bounds.clone(),
            order: self.joined_at(),
        }
    }

    pub(crate) fn from_row(row: MemberRow) -> Self {
        let role = Role::try_from(row.role).unwrap_or(Role::Member);
        Self {
            name: row.name.into(),
            role,
            bounds: row.bounds,
        }
    }
}

/// Everybody who is or was in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    all: BTreeMap<UserId, Membership>,
}

impl Members {
    /// In from the creation on: position 0 stands before every entry.
    pub(crate) fn found(&mut self, user: Named, role: Role) {
        self.all.insert(
            user.user,
            Membership {
                name: user.name,
                role,
                bounds: vec![0],
            },
        );
    }

    pub(crate) fn restore(&mut self, user: UserId, row: MemberRow) {
        self.all.insert(user, Membership::from_row(row));
    }

    /// Forgets who came or went above this position: rows say so before their entries are known to be in the log. Says
    /// what those rows were. Names stay, until [`Self::settle`].
    pub(crate) fn cut_above(&mut self, position: u64) -> Vec<(UserId, Membership)> {
        let is_above = |member: &Membership| member.bounds.iter().any(|bound| *bound > position);
        let above = self.all.iter_mut().filter(|(_, member)| is_above(member));
        above
            .map(|(user, member)| {
                let was = member.clone();
                member.bounds.retain(|bound| *bound <= position);
                (*user, was)
            })
            .collect()
    }

    /// As the rows say after all.
    pub(crate) fn put_back(&mut self, rows: Vec<(UserId, Membership)>) {
        self.all.extend(rows);
    }

    /// After the entries above were applied again: who was never in is nobody.
    pub(crate) fn settle(&mut self) {
        self.all.retain(|_, member| !member.bounds.is_empty());
    }

    pub(crate) fn get(&self, user: UserId) -> Option<&Membership> {
        self.all.get(&user)
    }

    /// The membership of who is in now.
    pub(crate) fn current(&self, user: UserId) -> Option<&Membership> {
        self.all.get(&user).filter(|member| member.is_in())
    }

    pub(crate) fn iter_current(&self) -> impl Iterator<Item = (UserId, &Membership)> {
        self.all
            .iter()
            .filter(|(_, member)| member.is_in())
            .map(|(user, member)| (*user, member))
    }

    /// How many are or were in.
    pub(crate) fn count_ever(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.iter_current().count()
    }

    /// Whether nobody but this user is admin among who is in.
    pub(crate) fn is_last_admin(&self, user: UserId) -> bool {
        self.current(user)
            .is_some_and(|member| member.role == Role::Admin)
            && !self
                .iter_current()
                .any(|(other, member)| other != user && member.role == Role::Admin)
    }

    /// Who has been in for longest, but this user. Among equals the smaller id, which is the older user.
    pub(crate) fn oldest_but(&self, user: UserId) -> Option<UserId> {
        self.iter_current()
            .filter(|(other, _)| *other != user)
            .min_by_key(|(id, m)| (m.joined_at(), *id))
            .map(|(id, _)| id)
    }

    /// Applies a membership entry at its position. The same entry applied again changes nothing, so that rows and log
    /// may be read back in any combination after a crash.
    pub(crate) fn apply(&mut self, position: u64, user: UserId, name: &Arc<str>, op: MemberOp, role: Role) {
        let member = self.all.entry(user).or_insert_with(|| Membership {
            name: name.clone(),
            role: Role::Member,
            bounds: Vec::new(),
        });
        let newest = member.bounds.last().copied();
        match op {
            MemberOp::Added if !member.is_in() && newest.is_none_or(|newest| newest < position) => {
                member.bounds.push(position);
                member.role = role;
            }
            MemberOp::Removed | MemberOp::Left
                if member.is_in() && newest.is_some_and(|newest| newest < position) =>
            {
                member.bounds.push(position);
            }
            MemberOp::Role if member.is_in() => member.role = role,
            MemberOp::Added | MemberOp::Removed | MemberOp::Left | MemberOp::Role | MemberOp::Unspecified => {
            }
        }
    }

    /// Who gets the entry at this position: who was in below it, and who it brings in.
    pub(crate) fn at(&self, position: u64) -> impl Iterator<Item = UserId> + '_ {
        self.all
            .iter()
            .filter(move |(_, member)| member.was_in_at(position))
            .map(|(user, _)| *user)
    }

    /// The last position below this one that was for the user; 0: none.
    pub(crate) fn before(&self, user: UserId, position: u64) -> u64 {
        let Some(member) = self.all.get(&user) else {
            return 0;
        };
        let below = position.saturating_sub(1);
        let ends = member.bounds.chunks(2).filter(|bound| bound[0] <= below);
        ends.map(|bound| bound.get(1).copied().unwrap_or(below).min(below))
            .max()
            .unwrap_or_default()
    }

    /// What this user may read, as inclusive intervals up to `confirmed`; empty for who is not in now.
    pub(crate) fn visible(&self, user: UserId, full_history: bool, confirmed: u64) -> Vec<(u64, u64)> {
        let Some(member) = self.current(user) else {
            return Vec::new();
        };
        if full_history {
            return if confirmed == 0 {
                Vec::new()
            } else {
                vec![(1, confirmed)]
            };
        }
        member
            .bounds
            .chunks(2)
            .map(|bound| {
                (
                    bound[0].max(1),
                    bound.get(1).copied().unwrap_or(confirmed).min(confirmed),
                )
            })
            .filter(|(from, to)| from <= to)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named {
            user: UserId::fresh(),
            name: name.into(),
        }
    }

    fn group() -> (Members, Named, Named, Named) {
        let (ann, bob, eve) = (named("ann"), named("bob"), named("eve"));
        let mut members = Members::default();
        members.found(ann.clone(), Role::Admin);
        members.found(bob.clone(), Role::Member);
        (members, ann, bob, eve)
    }

    #[test]
    fn who_is_added_gets_the_entry_that_says_so_and_nothing_before() {
        let (mut members, ann, bob, eve) = group();
        members.apply(5, eve.user, &eve.name, MemberOp::Added, Role::Member);
        let at = |p| members.at(p).collect::<Vec<_>>();
        assert!(!at(4).contains(&eve.user) && at(5).contains(&eve.user) && at(6).contains(&eve.user));
        assert!(at(1).contains(&ann.user) && at(1).contains(&bob.user));
        assert_eq!(members.visible(eve.user, false, 9), [(5, 9)]);
        assert_eq!(members.visible(eve.user, true, 9), [(1, 9)]);
    }

    #[test]
    fn who_is_removed_gets_that_entry_and_nothing_after_and_reads_nothing_more() {
        let (mut members, _, bob, _) = group();
        members.apply(7, bob.user, &bob.name, MemberOp::Removed, Role::Member);
        let at = |p| members.at(p).any(|user| user == bob.user);
        assert!(at(7) && !at(8));
        assert!(members.visible(bob.user, true, 9).is_empty());
    }

    #[test]
    fn who_comes_back_reads_both_stays_but_not_what_lay_between() {
        let (mut members, _, bob, _) = group();
        members.apply(3, bob.user, &bob.name, MemberOp::Left, Role::Member);
        members.apply(6, bob.user, &bob.name, MemberOp::Added, Role::Member);
        assert_eq!(members.visible(bob.user, false, 8), [(1, 3), (6, 8)]);
        assert_eq!(members.current(bob.user).map(Membership::joined_at), Some(6));
    }

    #[test]
    fn the_position_before_skips_what_was_not_for_the_user() {
        let (mut members, ann, bob, eve) = group();
        assert_eq!(members.before(ann.user, 1), 0);
        assert_eq!(members.before(ann.user, 5), 4);
        members.apply(3, bob.user, &bob.name, MemberOp::Left, Role::Member);
        members.apply(6, bob.user, &bob.name, MemberOp::Added, Role::Member);
        assert_eq!(
            (
                members.before(bob.user, 3),
                members.before(bob.user, 6),
                members.before(bob.user, 8)
            ),
            (2, 3, 7)
        );
        assert_eq!(members.before(eve.user, 8), 0);
    }

    #[test]
    fn an_entry_applied_again_changes_nothing() {
        let (mut members, _, bob, eve) = group();
        members.apply(3, bob.user, &bob.name, MemberOp::Left, Role::Member);
        members.apply(4, eve.user, &eve.name, MemberOp::Added, Role::Member);
        members.apply(6, bob.user, &bob.name, MemberOp::Added, Role::Member);
        let before = members.all.clone();
        for (position, user, op) in [
            (3, &bob, MemberOp::Left),
            (4, &eve, MemberOp::Added),
            (6, &bob, MemberOp::Added),
        ] {
            members.apply(position, user.user, &user.name, op, Role::Member);
        }
        assert_eq!(members.all, before);
    }

    #[test]
    fn the_oldest_member_follows_the_last_admin() {
        let (mut members, ann, bob, eve) = group();
        members.apply(2, eve.user, &eve.name, MemberOp::Added, Role::Member);
        assert!(members.is_last_admin(ann.user));
        assert_eq!(members.oldest_but(ann.user), Some(bob.user));
        members.apply(3, bob.user, &bob.name, MemberOp::Role, Role::Admin);
        assert!(!members.is_last_admin(ann.user));
    }
}
