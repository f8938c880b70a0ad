//! The feed's walks over lists of the store: what was not indexed when the node stopped, everything when the index is made
//! anew, and on a node that is one of several everything of the shards that came. How conversations are read is in `worker`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Source, Tail, Which,
    control::Done,
    work::Came,
    worker::{Worker, is_here},
};
use crate::{
    error::{Error, SourceError},
    shards::{Come, Standing},
    writer::Removal,
};

/// Conversations of a walk taken at a time.
const WALK_PAGE: usize = 256;

/// Shards that came whose conversations are walked over together; each is whole by itself.
const SHARDS_A_WALK: usize = 256;

/// Between two looks for what is indexed of shards that have gone.
const LOOK_AWAY: Duration = Duration::from_secs(60);

/// Holds back no claim of how current the index is.
const NEVER: i64 = i64::MAX;

/// A walk over a list of the store.
pub(super) struct Walk {
    pub(super) what: What,
    /// Which shards'; `None`: all.
    pub(super) shards: Option<Vec<u32>>,
    pub(super) after: Option<Tail>,
    pub(super) since_ms: i64,
}

impl Walk {
    fn of(come: &[Come], what: fn(Vec<Come>) -> What) -> Self {
        Self {
            what: what(come.to_vec()),
            shards: Some(come.iter().map(|one| one.shard).collect()),
            after: None,
            since_ms: NEVER,
        }
    }
}

/// Which list.
pub(super) enum What {
    /// Conversations that may have something that is not indexed.
    Tails,
    /// All conversations.
    All,
    /// As the first, of shards that came.
    TailsOf(Vec<Come>),
    /// As the second, of shards that came.
    AllOf(Vec<Come>),
}

/// What the feed of a divided index knows besides.
#[derive(Default)]
pub(super) struct Division {
    /// Notifications were lost since this time: open tails are to be read again.
    pub(super) again: Option<i64>,
    /// Shards whose open tails were walked over, the newest that there is; all their conversations are next.
    tailed: BTreeSet<Come>,
    /// Shards that were walked over, and what was found is being read.
    walked: HashSet<Come>,
    /// There may be shards that came.
    look: bool,
    /// Since when shards are away, as far as was seen.
    away: HashMap<u32, Instant>,
    /// Away, and taken out.
    empty: HashSet<u32>,
    look_away_at: Option<Instant>,
}

impl Division {
    /// Whether there is, or may be, something to walk over.
    fn waits(&self) -> bool {
        self.look || self.again.is_some() || !self.tailed.is_empty()
    }

    /// The index is empty.
    pub(super) fn begin_again(&mut self) {
        self.tailed.clear();
        self.walked.clear();
        self.again = None;
        self.look = true;
    }
}

impl<S: Source> Worker<S> {
    /// Reads the open tails once more from the start; a walk over everything includes them.
    pub(super) fn walk_again(&mut self, since_ms: i64) {
        if self.index.progress().shards().is_some() {
            // The walk under way may be over other shards.
            let again = self.division.again.get_or_insert(since_ms);
            *again = since_ms.min(*again);
            return;
        }
        let (what, since_ms) = match self.walk.take() {
            Some(walk) => (walk.what, walk.since_ms.min(since_ms)),
            None => (What::Tails, since_ms),
        };
        self.walk = Some(Walk {
            what,
            shards: None,
            after: None,
            since_ms,
        });
    }

    pub(super) fn walk_on(&mut self) -> Result<(), SourceError> {
        if self.walk.is_none() {
            self.walk = self.next_walk();
        }
        let Some(walk) = &mut self.walk else { return Ok(()) };
        if self.work.walked_pending() >= WALK_PAGE {
            return Ok(());
        }
        let which = walk.shards.as_deref().map_or(Which::All, Which::These);
        let page = match walk.what {
            What::Tails | What::TailsOf(_) => self.source.open_tails(which, walk.after, WALK_PAGE)?,
            What::All | What::AllOf(_) => self.source.conversations(which, walk.after, WALK_PAGE)?,
        };
        let Some(last) = page.last() else {
            self.walk_ended();
            return Ok(());
        };
        let (after, since_ms) = (*last, walk.since_ms);
        let came = match walk.what {
            What::AllOf(_) => Came::Unasked,
            _ => Came::Walked,
        };
        for tail in page {
            if is_here(&self.index, tail) && !self.work.add(tail, since_ms, came) {
                // No room: this page is listed again once there is.
                return Ok(());
            }
        }
        walk.after = Some(after);
        Ok(())
    }

    fn walk_ended(&mut self) {
        let Some(walk) = self.walk.take() else { return };
        match walk.what {
            What::Tails => {}
            What::All => self.complete = true,
            What::TailsOf(come) => self.division.tailed.extend(come),
            What::AllOf(come) => self.division.walked.extend(come),
        }
    }

    /// Of a divided index: what is to be walked over next.
    fn next_walk(&mut self) -> Option<Walk> {
        let shards = self.index.progress().shards()?;
        if let Some(since_ms) = self.division.again.take() {
            return Some(Walk {
                what: What::Tails,
                shards: Some(shards.held()),
                after: None,
                since_ms,
            });
        }
        let Division {
            tailed, walked, look, ..
        } = &mut self.division;
        if std::mem::take(look) {
            let mut come = shards.catching();
            // What has gone meanwhile is not looked at.
            tailed.retain(|one| come.binary_search(one).is_ok());
            come.retain(|one| !tailed.contains(one) && !walked.contains(one));
            if !come.is_empty() {
                return Some(Walk::of(&come, What::TailsOf));
            }
        }
        let come: Vec<Come> = tailed.iter().take(SHARDS_A_WALK).copied().collect();
        for one in &come {
            tailed.remove(one);
        }
        (!come.is_empty()).then(|| Walk::of(&come, What::AllOf))
    }

    /// Shards came or went, or it is time to look for what is left of those that went.
    pub(super) fn look_at_shards(&mut self) -> Result<(), Error> {
        let Some(shards) = self.index.progress().shards() else {
            return Ok(());
        };
        if self.control.take_moved() {
            self.division.look = true;
            self.work
                .drop_shards(|shard| shards.standing(shard) == Standing::Away);
        }
        let now = Instant::now();
        if self.division.look_away_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.division.look_away_at = Some(now + LOOK_AWAY.min(self.config.keep_away));
        let away = shards.away();
        let division = &mut self.division;
        let is_away = |shard: &u32| away.binary_search(shard).is_ok();
        division.away.retain(|shard, _| is_away(shard));
        division.empty.retain(is_away);
        for shard in away {
            let since = *division.away.entry(shard).or_insert(now);
            if now.duration_since(since) >= self.config.keep_away && division.empty.insert(shard) {
                // Also when nothing is committed for long: it is done with the next commit.
                if self.index.has_any_of(shard)? {
                    self.removals.push((Removal::Shard(shard), Done::nobody()));
                }
            }
        }
        Ok(())
    }

    /// What came back before it was taken out stays. What is read of it from now on begins behind what is there.
    pub(super) fn keep_what_came(&mut self) {
        if let Some(shards) = self.index.progress().shards() {
            let is_away = |shard: u32| shards.standing(shard) == Standing::Away;
            self.removals.retain(|(removal, _)| match removal {
                Removal::Shard(shard) => is_away(*shard),
                Removal::Message(_) | Removal::Conversation(_) => true,
            });
        }
    }

    /// Whether a walk is under way, or to begin.
    pub(super) fn walks(&self) -> bool {
        self.walk.is_some() || self.division.waits()
    }

    /// Whether something is to be committed, or to be said once it is.
    pub(super) fn wants_commit(&self) -> bool {
        let read = |come: &Come| !self.work.is_walked(come.shard);
        self.work.touched() > 0
            || !self.removals.is_empty()
            || self.finished_walk()
            || self.division.walked.iter().any(read)
    }

    /// After a commit: what was found of a shard that came is all read, or not.
    pub(super) fn become_whole(&mut self) {
        let Some(shards) = self.index.progress().shards() else {
            return;
        };
        let work = &self.work;
        self.division.walked.retain(|come| {
            let waits = work.is_walked(come.shard);
            if !waits {
                shards.set_whole(*come);
            }
            waits
        });
    }

    /// Whether the walk that completes the index has ended, with all that it found, and no commit says so yet.
    pub(super) fn finished_walk(&self) -> bool {
        let divided = self.index.progress().shards().is_some();
        !divided && self.complete && !self.index.is_complete() && self.work.walked_pending() == 0
    }
}
