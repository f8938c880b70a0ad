//! Which users are in memory: how they are loaded, and how they go when nobody asks for them.

use std::collections::HashSet;

use bytes::Bytes;
use godwit_cluster::{Cx, Loading, Reply, Tag};
use godwit_store::{Read, ReadAnswer, Scope};
use godwit_wire::account::AccountCommand;
use godwit_wire::command::Answer;
use godwit_wire::ids::UserId;
use uuid::Uuid;

use crate::role::{Accounts, conversations_of};
use crate::state::User;
use crate::tables::{USER_CONVERSATIONS, USERS};

/// Users in memory on one worker: about 1 KB each. Beyond it the longest loaded idle one goes.
pub const CACHED_USERS: usize = 16 * 1024;
/// How long an untouched user stays in memory, milliseconds: longer than a login with what follows it.
const IDLE_MS: u64 = 20_000;
const SWEEP_MS: u64 = 5_000;
/// Rows read at a time when a user is loaded.
const LOAD_PAGE: u32 = 1_000;
/// Users looked at to find one that may go.
const EVICTION_TRIES: usize = 8;

/// The timer's tag.
pub(crate) const SWEEP: Tag = 0;

#[derive(Default)]
pub(crate) struct Cached {
    pub(crate) user: User,
    /// There was nothing of it, so nothing was taken up: it is, before anything is made. What anybody may ask for
    /// without a credential leaves no rows.
    pub(crate) absent: bool,
    pub(crate) registering: bool,
    /// Writes and questions under way.
    pub(crate) busy: u32,
    /// Answers from memory that wait until what they rest on is durable.
    pub(crate) waiting: Vec<(Reply, Answer)>,
    pub(crate) used_ms: u64,
}

/// A load under way.
pub(crate) enum Loader {
    Rows(Box<User>),
    Groups(HashSet<Uuid>),
}

impl Accounts {
    /// What must be read before this command can be taken.
    pub(crate) fn missing(
        &mut self,
        user: UserId,
        command: &AccountCommand,
        scope: Scope,
    ) -> Option<Vec<Read>> {
        // The only command that makes anything of somebody who is not there.
        let makes = matches!(command, AccountCommand::Register(_));
        let cached = self.users.get(&user).filter(|cached| !(makes && cached.absent));
        let Some(cached) = cached else {
            self.loading.insert(user, Loader::Rows(Box::default()));
            let taken_up = Read::TakeUpRows {
                table: USERS,
                partition: user.to_bytes(),
                scope,
            };
            let taken_up = match makes {
                true => taken_up,
                false => Read::IfAny(Box::new(taken_up)),
            };
            return Some(vec![taken_up, rows_after(user, None)]);
        };
        let wants_groups = matches!(command, AccountCommand::Joined { group: true, .. });
        if wants_groups && cached.user.groups.is_none() && cached.user.profile.is_some() {
            self.loading.insert(user, Loader::Groups(HashSet::new()));
            return Some(vec![groups_after(user, None)]);
        }
        None
    }

    fn keep(&mut self, cx: &mut Cx<'_>, user: UserId, state: User, absent: bool) {
        if self.users.len() >= CACHED_USERS {
            self.evict(cx.now().mono_ms);
        }
        let cached = Cached {
            user: state,
            absent,
            used_ms: cx.now().mono_ms,
            ..Cached::default()
        };
        if self.users.insert(user, cached).is_none() {
            self.loaded.push_back(user);
            self.metrics.cached.inc();
        }
        if !self.sweeping {
            self.sweeping = true;
            cx.after(SWEEP_MS, SWEEP);
        }
    }

    /// Makes room for one more: the first of the longest loaded ones that nothing waits for. One whose groups are being
    /// read stays: they are a part of what is in memory, never all of it.
    fn evict(&mut self, now: u64) {
        for _ in 0..EVICTION_TRIES {
            let Some(user) = self.loaded.pop_front() else {
                return;
            };
            let loading = self.loading.contains_key(&user);
            match self.users.get(&user) {
                Some(cached) if loading || cached.busy > 0 || cached.registering || cached.used_ms == now => {
                    self.loaded.push_back(user);
                }
                Some(_) => {
                    self.users.remove(&user);
                    self.metrics.cached.dec();
                    return;
                }
                None => {}
            }
        }
    }

    pub(crate) fn sweep(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now().mono_ms;
        let before = self.users.len();
        let loading = &self.loading;
        self.users.retain(|user, cached| {
            cached.busy > 0
                || cached.registering
                || loading.contains_key(user)
                || cached.used_ms + IDLE_MS > now
        });
        if self.users.len() < before {
            self.metrics
                .cached
                .dec_by(i64::try_from(before - self.users.len()).unwrap_or(i64::MAX));
            let users = &self.users;
            self.loaded.retain(|user| users.contains_key(user));
            // Offline users cost no memory, also not as room in a map.
            self.users.shrink_to(2 * self.users.len());
            self.loaded.shrink_to(2 * self.loaded.len());
            self.pending.shrink_to(2 * self.pending.len());
        }
        self.sweeping = !self.users.is_empty();
        if self.sweeping {
            cx.after(SWEEP_MS, SWEEP);
        }
    }

    /// Takes in what [`Self::missing`] asked for.
    pub(crate) fn take_rows(&mut self, cx: &mut Cx<'_>, user: UserId, answers: Vec<ReadAnswer>) -> Loading {
        let absent = answers.contains(&ReadAnswer::Nothing);
        let answer = answers
            .into_iter()
            .find(|answer| !matches!(answer, ReadAnswer::TakenUp | ReadAnswer::Nothing));
        match (self.loading.remove(&user), answer) {
            (Some(Loader::Rows(mut state)), Some(ReadAnswer::Rows { rows, more })) => {
                for (name, value) in &rows {
                    if !state.take(name, value) {
                        self.metrics.unreadable.inc();
                        tracing::error!(%user, "a row of this user cannot be read and is left out");
                    }
                }
                match rows.last() {
                    Some((last, _)) if more => {
                        let reads = vec![rows_after(user, Some(last.clone()))];
                        self.loading.insert(user, Loader::Rows(state));
                        Loading::More(reads)
                    }
                    _ => {
                        self.keep(cx, user, *state, absent);
                        Loading::Ready
                    }
                }
            }
            (Some(Loader::Groups(mut groups)), Some(ReadAnswer::Set { elements, more })) => {
                groups.extend(
                    elements
                        .iter()
                        .filter_map(|(element, _)| Uuid::from_slice(element).ok()),
                );
                match elements.last() {
                    Some((last, _)) if more => {
                        let reads = vec![groups_after(user, Some(last.clone()))];
                        self.loading.insert(user, Loader::Groups(groups));
                        Loading::More(reads)
                    }
                    _ => {
                        self.has_groups(user, groups);
                        Loading::Ready
                    }
                }
            }
            _ => {
                tracing::error!(%user, "the store answered another question than was asked");
                Loading::Ready
            }
        }
    }

    /// Somebody who is not in memory is not made out of groups alone: who asked is applied again and loads everything.
    fn has_groups(&mut self, user: UserId, groups: HashSet<Uuid>) {
        if let Some(cached) = self.users.get_mut(&user) {
            cached.user.groups = Some(groups);
        }
    }
}

fn rows_after(user: UserId, after: Option<Bytes>) -> Read {
    Read::Rows {
        table: USERS,
        partition: user.to_bytes(),
        after,
        limit: LOAD_PAGE,
    }
}

fn groups_after(user: UserId, after: Option<Bytes>) -> Read {
    let partition = conversations_of(user, true);
    Read::Set {
        table: USER_CONVERSATIONS,
        partition,
        after,
        up_to: None,
        limit: LOAD_PAGE,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::tokens::Tokens;

    fn accounts() -> Accounts {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::open(&folder.path().join("signing.key")).unwrap());
        Accounts::new(Config::default(), tokens, Metrics::default())
    }

    fn cached(accounts: &mut Accounts) -> UserId {
        let user = UserId::fresh();
        accounts.users.insert(user, Cached::default());
        accounts.loaded.push_back(user);
        user
    }

    #[test]
    fn a_user_whose_groups_are_being_read_is_not_put_out_of_memory_for_room() {
        let mut accounts = accounts();
        let (loading, other) = (cached(&mut accounts), cached(&mut accounts));
        accounts.loading.insert(loading, Loader::Groups(HashSet::new()));
        accounts.evict(1);
        assert!(accounts.users.contains_key(&loading));
        assert!(!accounts.users.contains_key(&other));
    }

    #[test]
    fn groups_alone_do_not_make_a_user() {
        let mut accounts = accounts();
        let user = UserId::fresh();
        accounts.has_groups(user, HashSet::from([Uuid::now_v7()]));
        assert!(!accounts.users.contains_key(&user));
    }
}
