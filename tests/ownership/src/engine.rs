//! A model of the CQL engine in one process: writes that are repeated until stored, the confirming read, take-ups, pages.
//! What counts among rows is said by the engine's own pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_cluster::own::Holdings;
use godwit_store::cql::fence::{Fence, HeadRow, Heads, Interval, TakeUp, take_up, valid};
use godwit_store::{Head, LogRow, Ownership, Scope, Verdict, View};

use crate::bugs::Bug;
use crate::cells::{Cells, heads_of, owned_of, rows_of, that_count, view_of};
use crate::exec::{Proc, Sim, all};
use crate::oracle::Oracle;
use crate::replicas::{BUCKET, Key, Replicas, Val};
use crate::stamps::Stamps;
use crate::transactions::{Claimed, Transactions};

/// The shard is another's: whoever hears it stops.
#[derive(Debug)]
pub(crate) struct Lost;

pub(crate) struct Engine {
    pub(crate) sim: Sim,
    pub(crate) replicas: Replicas,
    pub(crate) transactions: Transactions,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) stamps: Stamps,
    pub(crate) proc: Proc,
    pub(crate) oracle: Oracle,
    pub(crate) bug: Bug,
}

/// A log that was taken up.
pub(crate) struct Taken {
    pub(crate) head: Head,
    pub(crate) rows: Vec<LogRow>,
    pub(crate) fence: Fence,
    /// What is still to be written because of [`Bug::FencesAtFirstAppend`].
    pub(crate) owed: bool,
}

impl Engine {
    pub(crate) fn still(&self, scope: Scope) -> Result<(), Lost> {
        (self.holdings.held(scope.shard) == Some(scope.view))
            .then_some(())
            .ok_or(Lost)
    }

    /// Writes statements at once, each until it is stored.
    pub(crate) async fn stored(&self, scope: Scope, statements: Vec<Vec<(Key, Val)>>) -> Result<(), Lost> {
        let one = |cells: Vec<(Key, Val)>| {
            let cells: Vec<_> = cells
                .into_iter()
                .map(|(key, val)| (key, self.stamps.next(), val))
                .collect();
            async move {
                let mut pause = 50_000;
                loop {
                    self.still(scope)?;
                    if self.replicas.write(self.proc, cells.clone()).await {
                        return Ok(());
                    }
                    self.sim.sleep(pause).await;
                    pause = (pause * 2).min(2_000_000);
                }
            }
        };
        all(statements.into_iter().map(one).collect())
            .await
            .into_iter()
            .collect()
    }

    /// The confirming read, begun now.
    pub(crate) async fn confirm(&self, scope: Scope) -> Result<(), Lost> {
        if self.bug == Bug::ConfirmsUnread {
            return self.still(scope);
        }
        self.stop_within(6_000);
        loop {
            self.still(scope)?;
            match self.transactions.shown(self.proc).await {
                Some(shown) => match self
                    .holdings
                    .verdict(scope, shown.map_or(0, |(number, _)| number))
                {
                    Verdict::Held => return Ok(()),
                    Verdict::Lost => return Err(Lost),
                    Verdict::Later => self.sim.sleep(10_000).await,
                },
                None => self.sim.sleep(50_000).await,
            }
        }
    }

    async fn cells(&self, scope: Scope, ranges: Vec<std::ops::RangeInclusive<Key>>) -> Result<Cells, Lost> {
        loop {
            self.still(scope)?;
            if let Some(cells) = self.replicas.read(self.proc, ranges.clone()).await {
                return Ok(Cells(cells));
            }
            self.sim.sleep(50_000).await;
        }
    }

    pub(crate) async fn take_up(&self, log: u8, scope: Scope) -> Result<Taken, Lost> {
        let heads = self.cells(scope, vec![heads_of(log)]).await?;
        let all_heads = heads.heads();
        let together = self.together(&all_heads);
        if together.lost(scope.view) {
            return Err(Lost);
        }
        let rows = self
            .cells(scope, rows_of(log, together.read_from(), u64::MAX))
            .await?
            .rows();
        self.nap().await;
        let written = match take_up(&together, &rows, scope.view) {
            TakeUp::Lost => return Err(Lost),
            TakeUp::Damaged { missing } => {
                // A later owner may have dropped what this one looks for.
                self.confirm(scope).await?;
                self.oracle
                    .breaks("ACK", format!("log {log} lacks {missing}, which was fenced"));
                return Err(Lost);
            }
            TakeUp::Here { rows, fence } => {
                let mut taken = Taken {
                    head: together.head,
                    rows,
                    fence: fence.unwrap_or_default(),
                    owed: true,
                };
                self.fence(log, scope, &mut taken).await?;
                return Ok(taken);
            }
            TakeUp::Write { rows, fence } => (rows, fence),
        };
        let (valid, mut fence) = written;
        if self.bug == Bug::FenceWithoutIntervals {
            fence.0.drain(..fence.0.len() - 1);
        }
        let mut taken = Taken {
            head: together.head,
            rows: valid,
            fence,
            owed: true,
        };
        let fenced = match self.bug {
            Bug::FencesAtFirstAppend => Ok(()),
            _ => self.fence(log, scope, &mut taken).await,
        };
        if self.bug == Bug::ClearsVoidRows {
            // Everything of former owners above what counts, seen or not.
            let last = taken.rows.last().map_or(taken.head.confirmed, |row| row.seq);
            let views = all_heads
                .iter()
                .map(|head| head.view)
                .filter(|view| *view < scope.view);
            for view in views {
                let cells = (last + 1..last + 5)
                    .map(|seq| (Key::Row { log, seq, view }, self.stamps.next(), Val::Ended));
                self.replicas.write(self.proc, cells.collect()).await;
            }
        }
        fenced?;
        Ok(taken)
    }

    /// Writes the valid rows once more, then the fence.
    pub(crate) async fn fence(&self, log: u8, scope: Scope, taken: &mut Taken) -> Result<(), Lost> {
        let row = |row: &LogRow| {
            vec![(
                Key::Row {
                    log,
                    seq: row.seq,
                    view: row.view,
                },
                Val::Row(row.row.clone()),
            )]
        };
        self.stored(scope, taken.rows.iter().map(row).collect()).await?;
        self.head(log, scope, taken.head, &taken.fence).await?;
        taken.owed = false;
        Ok(())
    }

    pub(crate) async fn head(&self, log: u8, scope: Scope, head: Head, fence: &Fence) -> Result<(), Lost> {
        let val = Val::Head {
            confirmed: head.confirmed,
            floor: head.floor,
            fence: Some(fence.clone()),
        };
        self.stored(
            scope,
            vec![vec![(
                Key::Head {
                    log,
                    view: scope.view,
                },
                val,
            )]],
        )
        .await
    }

    /// What is at or below the floor may go from now on.
    pub(crate) fn trims(&self, log: u8, floor: u64) {
        let there = that_count(&self.replicas, log);
        self.oracle.trims(log, floor, &there, self.proc);
    }

    /// Deletes the buckets that the floor has passed.
    pub(crate) async fn drop_buckets(
        &self,
        log: u8,
        scope: Scope,
        from: u64,
        floor: u64,
    ) -> Result<(), Lost> {
        let gone = |bucket| vec![(Key::Gone { log, bucket }, Val::Ended)];
        self.stored(scope, (from / BUCKET..floor / BUCKET).map(gone).collect())
            .await
    }

    /// What counts of all heads.
    fn together(&self, heads: &[HeadRow]) -> Heads {
        let mut together = Heads::of(heads.iter().cloned());
        if self.bug == Bug::FenceWithoutIntervals {
            // Every fence says where its owner begins; the largest view that has begun has the position.
            let mut own: Vec<Interval> = heads
                .iter()
                .filter_map(|head| head.fence.as_ref()?.0.last().copied())
                .collect();
            own.sort_by_key(|interval| interval.view);
            let mut all: Vec<Interval> = Vec::new();
            for interval in own {
                all.retain(|before| before.from < interval.from);
                all.push(interval);
            }
            if let Some((_, fence)) = &mut together.fence {
                *fence = Fence(all);
            }
        }
        together
    }

    /// Valid rows above `after` up to `up_to`, for whoever asks; rows first, heads after. Bounded by the stored head if
    /// `confirmed_only`. `None`: the reads failed.
    pub(crate) async fn page(
        &self,
        log: u8,
        after: u64,
        up_to: u64,
        confirmed_only: bool,
    ) -> Option<Vec<LogRow>> {
        let rows = Cells(self.replicas.read(self.proc, rows_of(log, after, up_to)).await?).rows();
        let heads = Cells(self.replicas.read(self.proc, vec![heads_of(log)]).await?).heads();
        let together = self.together(&heads);
        let (_, fence) = together.fence.as_ref()?;
        let mut found = valid(&rows, after.max(together.head.floor), |seq| fence.view_at(seq));
        found.retain(|row| !confirmed_only || row.seq <= together.head.confirmed);
        Some(found)
    }

    /// The same for an owner: until it is answered.
    pub(crate) async fn own_page(
        &self,
        log: u8,
        scope: Scope,
        after: u64,
        up_to: u64,
    ) -> Result<Vec<LogRow>, Lost> {
        loop {
            self.still(scope)?;
            if let Some(rows) = self.page(log, after, up_to, false).await {
                return Ok(rows);
            }
            self.sim.sleep(50_000).await;
        }
    }

    /// Makes small rows this owner's by copying them; gives them back.
    pub(crate) async fn take_up_rows(&self, part: u8, scope: Scope) -> Result<BTreeMap<u8, Val>, Lost> {
        let fences = Key::Fence { part, view: 0 }..=Key::Fence {
            part,
            view: View::MAX,
        };
        let whole = self
            .cells(scope, vec![fences])
            .await?
            .0
            .keys()
            .filter_map(view_of)
            .max();
        let Some(from) = whole else {
            self.stored(
                scope,
                vec![vec![(
                    Key::Fence {
                        part,
                        view: scope.view,
                    },
                    Val::Whole,
                )]],
            )
            .await?;
            return Ok(BTreeMap::new());
        };
        if from > scope.view {
            return Err(Lost);
        }
        let forgotten = Key::Forgotten { part, view: from }..=Key::Forgotten { part, view: from };
        let rows = self
            .cells(scope, vec![owned_of(part, from), forgotten])
            .await?
            .owned(part, from);
        if from < scope.view {
            let copy = |(name, val): (&u8, &Val)| {
                vec![(
                    Key::Owned {
                        part,
                        view: scope.view,
                        name: *name,
                    },
                    val.clone(),
                )]
            };
            self.stored(scope, rows.iter().map(copy).collect()).await?;
            self.stored(
                scope,
                vec![vec![(
                    Key::Fence {
                        part,
                        view: scope.view,
                    },
                    Val::Whole,
                )]],
            )
            .await?;
        }
        Ok(rows)
    }

    /// Deletes the partitions of lower views: after the take-up was confirmed.
    pub(crate) async fn forget_rows(&self, part: u8, scope: Scope) -> Result<(), Lost> {
        let fences = Key::Fence { part, view: 0 }..=Key::Fence {
            part,
            view: scope.view,
        };
        let views = self.cells(scope, vec![fences]).await?;
        let lower: Vec<View> = views
            .0
            .keys()
            .filter_map(view_of)
            .filter(|view| *view < scope.view)
            .collect();
        let forget = |view| vec![(Key::Forgotten { part, view }, Val::Ended)];
        self.stored(scope, lower.into_iter().map(forget).collect()).await
    }

    pub(crate) fn put(&self, part: u8, scope: Scope, name: u8, val: Val) -> Vec<(Key, Val)> {
        let key = Key::Owned {
            part,
            view: scope.view,
            name,
        };
        vec![(key, val)]
    }

    /// Where a client id points to, by the highest view.
    pub(crate) async fn position_of(
        &self,
        scope: Scope,
        sender: u8,
        number: u32,
    ) -> Result<Option<u64>, Lost> {
        let range = Key::Id {
            sender,
            number,
            view: 0,
        }..=Key::Id {
            sender,
            number,
            view: View::MAX,
        };
        let found = self.cells(scope, vec![range]).await?;
        Ok(found.0.into_values().next_back().and_then(|(_, val)| match val {
            Val::Number(seq) => Some(seq),
            _ => None,
        }))
    }

    /// Whether the set of open tails has this log.
    pub(crate) async fn is_open(&self, scope: Scope, log: u8) -> Result<bool, Lost> {
        let open = Key::Open { log, view: 0 }..=Key::Open { log, view: View::MAX };
        let closed = Key::Closed { log, view: 0 }..=Key::Closed { log, view: View::MAX };
        let cells = self.cells(scope, vec![open, closed]).await?.0;
        let closed: Vec<(View, i64)> = cells
            .iter()
            .filter_map(|(key, (stamp, _))| match key {
                Key::Closed { view, .. } => Some((*view, *stamp)),
                _ => None,
            })
            .collect();
        Ok(cells.iter().any(|(key, (stamp, _))| match key {
            Key::Open { view, .. } => !closed.iter().any(|(up_to, at)| view <= up_to && stamp <= at),
            _ => false,
        }))
    }

    /// Claims a name for who asks: `true` if it is theirs.
    pub(crate) async fn claim(&self, key: u32, value: u64) -> bool {
        loop {
            match self.transactions.claim(self.proc, key, value).await {
                Claimed::Applied => return true,
                Claimed::Taken(_) => return false,
                Claimed::Unknown if self.bug == Bug::TimedOutIsFailed => return false,
                // Nobody knows: the same once more, until it is known.
                Claimed::Unknown => self.sim.sleep(100_000).await,
            }
        }
    }
}
