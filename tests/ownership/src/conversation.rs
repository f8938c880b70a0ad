//! The model's home of the conversation: numbers, client ids, members, the open tail and its fan-out, trimming. Written
//! as DESIGN sections 5 and 6 say, on the model engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use godwit_store::{Head, Scope};
use tokio::sync::{mpsc, oneshot};

use crate::bugs::Bug;
use crate::content::{CONVERSATION, Entry, MEMBERS_AT_FIRST, MailEntry, USERS};
use crate::engine::{Lost, Taken};
use crate::exec::all;
use crate::node::Process;
use crate::replicas::{Key, Val};

/// Names of the small rows.
const SNAPSHOT: u8 = 0;
const FANNED_OUT: u8 = 1;

/// What a home is asked.
pub(crate) struct Send {
    pub(crate) entry: Entry,
    /// Position of the message.
    pub(crate) reply: oneshot::Sender<u64>,
}

struct Home {
    process: Arc<Process>,
    scope: Scope,
    taken: Taken,
    /// In memory: everything above the snapshot.
    rows: BTreeMap<u64, Entry>,
    ids: BTreeMap<(u8, u32), u64>,
    last: u64,
    floor: u64,
    /// Members before the first position above this one.
    snapshot: (u64, u64),
    fanned_out: u64,
    open: bool,
}

/// Runs until the shard is lost.
pub(crate) async fn home(process: Arc<Process>, scope: Scope, mut inbox: mpsc::UnboundedReceiver<Send>) {
    let Ok(mut home) = Home::take_up(process, scope).await else {
        return;
    };
    if home.fan_out().await.is_err() {
        return;
    }
    while let Some(first) = inbox.recv().await {
        let mut batch = vec![first];
        while batch.len() < 3 {
            let Ok(next) = inbox.try_recv() else { break };
            batch.push(next);
        }
        if !home.process.may_act() {
            // No answer: the client asks elsewhere.
            continue;
        }
        if home.serve(batch).await.is_err() {
            return;
        }
    }
}

impl Home {
    async fn take_up(process: Arc<Process>, scope: Scope) -> Result<Self, Lost> {
        let engine = process.engine.clone();
        let taken = engine.take_up(CONVERSATION, scope).await?;
        let small = engine.take_up_rows(CONVERSATION, scope).await?;
        let snapshot = match small.get(&SNAPSHOT) {
            Some(Val::Pair(at, members)) => (*at, *members),
            _ => (0, MEMBERS_AT_FIRST),
        };
        let fanned_out = match small.get(&FANNED_OUT) {
            Some(Val::Number(at)) => *at,
            _ => 0,
        };
        let mut rows = BTreeMap::new();
        if taken.head.confirmed > snapshot.0 {
            for row in engine
                .own_page(CONVERSATION, scope, snapshot.0, taken.head.confirmed)
                .await?
            {
                rows.insert(row.seq, Entry::decode(&row.row).ok_or(Lost)?);
            }
        }
        // Their client ids may not have been stored.
        let mut ids = Vec::new();
        for row in &taken.rows {
            let entry = Entry::decode(&row.row).ok_or(Lost)?;
            rows.insert(row.seq, entry);
            ids.push(vec![id(scope, entry, row.seq)]);
        }
        if engine.bug != Bug::FencesAtFirstAppend {
            engine.stored(scope, ids).await?;
        }
        // A row that its writer left behind may have come without its element of the list: it is this owner's to see to.
        let last = taken.rows.last().map_or(taken.head.confirmed, |row| row.seq);
        let open = engine.is_open(scope, CONVERSATION).await?;
        if last > fanned_out {
            engine.stored(scope, vec![opens(scope)]).await?;
        }
        let has = engine.oracle.last(CONVERSATION);
        engine.confirm(scope).await?;
        let floor = taken.head.floor;
        let above = snapshot.0.max(floor) + 1;
        let holds = rows.range(above..).map(|(seq, _)| *seq).eq(above..=last);
        if snapshot.0 < floor || !holds {
            engine.oracle.breaks(
                "ACK",
                format!(
                    "the conversation's rows from {} to {last}: {:?}",
                    snapshot.0,
                    rows.keys()
                ),
            );
            return Err(Lost);
        }
        for (seq, entry) in rows.range(taken.head.confirmed + 1..) {
            engine
                .oracle
                .confirmed(CONVERSATION, *seq, &entry.encode(), scope.view, engine.proc);
        }
        engine
            .oracle
            .taken_up(CONVERSATION, last, has, scope.view, engine.proc);
        if !open {
            engine.oracle.tail_is_closed(has, engine.proc);
        }
        let forget = engine.clone();
        process.spawn(async move {
            // The next owner does what is left.
            let _ = forget.forget_rows(CONVERSATION, scope).await;
        });
        let ids = rows
            .iter()
            .map(|(seq, entry)| ((entry.sender, entry.number), *seq))
            .collect();
        Ok(Self {
            process,
            scope,
            taken,
            rows,
            ids,
            last,
            floor,
            snapshot,
            fanned_out,
            // Only what it has put there itself: one of a former owner may still be taken out by that one.
            open: last > fanned_out,
        })
    }

    async fn serve(&mut self, batch: Vec<Send>) -> Result<(), Lost> {
        let engine = self.process.engine.clone();
        let mut new: Vec<Entry> = Vec::new();
        let mut answers: Vec<(oneshot::Sender<u64>, u64)> = Vec::new();
        for Send { entry, reply } in batch {
            let seq = match self.known(entry).await? {
                Some(seq) => seq,
                None => {
                    new.push(entry);
                    let seq = self.last + new.len() as u64;
                    self.ids.insert((entry.sender, entry.number), seq);
                    seq
                }
            };
            answers.push((reply, seq));
        }
        if !new.is_empty() {
            if self.taken.owed {
                engine.fence(CONVERSATION, self.scope, &mut self.taken).await?;
            }
            let mut statements = Vec::new();
            if !self.open {
                self.open = true;
                statements.push(opens(self.scope));
            }
            for (seq, entry) in (self.last + 1..).zip(&new) {
                let row = Key::Row {
                    log: CONVERSATION,
                    seq,
                    view: self.scope.view,
                };
                statements.push(vec![(row, Val::Row(entry.encode()))]);
                statements.push(vec![id(self.scope, *entry, seq)]);
            }
            self.process
                .before_append(self.scope, CONVERSATION, self.last + 1)
                .await;
            engine.stored(self.scope, statements).await?;
        }
        // Also what is only answered is confirmed.
        engine.confirm(self.scope).await?;
        for entry in new {
            self.last += 1;
            self.rows.insert(self.last, entry);
            engine.oracle.confirmed(
                CONVERSATION,
                self.last,
                &entry.encode(),
                self.scope.view,
                engine.proc,
            );
        }
        self.fan_out().await?;
        for (reply, seq) in answers {
            // The client may have given up.
            let _ = reply.send(seq);
        }
        self.upkeep().await
    }

    /// The position of a message that is there already.
    async fn known(&self, entry: Entry) -> Result<Option<u64>, Lost> {
        if let Some(seq) = self.ids.get(&(entry.sender, entry.number)) {
            return Ok((*seq > self.floor).then_some(*seq));
        }
        let engine = &self.process.engine;
        let Some(seq) = engine.position_of(self.scope, entry.sender, entry.number).await? else {
            return Ok(None);
        };
        if seq <= self.floor || seq > self.last {
            return Ok(None);
        }
        let there = match self.rows.get(&seq) {
            Some(there) => Some(*there),
            None => {
                let page = engine.own_page(CONVERSATION, self.scope, seq - 1, seq).await?;
                page.first().and_then(|row| Entry::decode(&row.row))
            }
        };
        let is_it = there.is_some_and(|there| (there.sender, there.number) == (entry.sender, entry.number));
        Ok(is_it.then_some(seq))
    }

    /// Members by the entries below a position.
    fn members_at(&self, seq: u64) -> u64 {
        let seq = if self.process.engine.bug == Bug::OffersToTodaysMembers {
            self.last + 1
        } else {
            seq
        };
        let entries = self.rows.range(self.snapshot.0 + 1..seq.max(self.snapshot.0 + 1));
        entries.fold(self.snapshot.1, |members, (_, entry)| entry.then(members))
    }

    /// Offers what is confirmed and not known to be everywhere, in order, to who was a member then.
    async fn fan_out(&mut self) -> Result<(), Lost> {
        while self.fanned_out < self.last {
            let seq = (self.fanned_out + 1).max(self.floor + 1);
            let Some(entry) = self.rows.get(&seq) else {
                self.process
                    .engine
                    .oracle
                    .breaks("ACK", format!("{seq} is to be offered and not in memory"));
                return Err(Lost);
            };
            let members = self.members_at(seq);
            let offers = (0..USERS).filter(|user| members & (1 << user) != 0).map(|user| {
                let mail = MailEntry {
                    seq,
                    entry: entry.encode(),
                };
                self.offer(user, mail)
            });
            all(offers.collect())
                .await
                .into_iter()
                .collect::<Result<(), Lost>>()?;
            self.fanned_out = seq;
        }
        Ok(())
    }

    /// Until the mailbox's owner, whoever that is by then, says that it is stored.
    async fn offer(&self, user: u8, mail: MailEntry) -> Result<(), Lost> {
        loop {
            self.process.engine.still(self.scope)?;
            if self.process.offer(user, mail.clone()).await {
                return Ok(());
            }
            self.process
                .engine
                .sim
                .sleep(self.process.engine.sim.between(30_000, 120_000))
                .await;
        }
    }

    /// What is done lazily: head, fan-out mark, closing the tail, trimming.
    async fn upkeep(&mut self) -> Result<(), Lost> {
        let engine = self.process.engine.clone();
        let (scope, sim) = (self.scope, engine.sim.clone());
        if sim.chance(30) {
            self.taken.head.confirmed = self.last;
            let (head, fence, engine) = (self.head(), self.taken.fence.clone(), engine.clone());
            if !self.taken.owed {
                self.process.spawn(async move {
                    let _ = engine.head(CONVERSATION, scope, head, &fence).await;
                });
            }
        }
        if sim.chance(25) {
            let mark = engine.put(CONVERSATION, scope, FANNED_OUT, Val::Number(self.fanned_out));
            engine.stored(scope, vec![mark]).await?;
            engine.confirm(scope).await?;
            if sim.chance(50) {
                self.open = false;
                let closed = vec![(
                    Key::Closed {
                        log: CONVERSATION,
                        view: scope.view,
                    },
                    Val::Ended,
                )];
                engine.stored(scope, vec![closed]).await?;
            }
        }
        // A snapshot never moves back: a floor that a former owner rested on it may still come.
        let lowest = (self.floor + 1).max(self.snapshot.0);
        if self.last >= self.floor + 6 && self.last - 2 >= lowest && sim.chance(20) && !self.taken.owed {
            let floor = sim.between(lowest, self.last - 2);
            let small = vec![
                engine.put(
                    CONVERSATION,
                    scope,
                    SNAPSHOT,
                    Val::Pair(floor, self.members_at(floor + 1)),
                ),
                engine.put(CONVERSATION, scope, FANNED_OUT, Val::Number(self.fanned_out)),
            ];
            if engine.bug != Bug::FloorBeforeSnapshot {
                engine.stored(scope, small).await?;
                engine.confirm(scope).await?;
            } else {
                let engine = engine.clone();
                self.process.spawn(async move {
                    let _ = engine.stored(scope, small).await;
                });
            }
            self.snapshot = (floor, self.members_at(floor + 1));
            let from = std::mem::replace(&mut self.floor, floor);
            self.taken.head.confirmed = self.last;
            engine.trims(CONVERSATION, floor);
            engine
                .head(CONVERSATION, scope, self.head(), &self.taken.fence)
                .await?;
            engine.confirm(scope).await?;
            self.rows = self.rows.split_off(&(floor + 1));
            engine.drop_buckets(CONVERSATION, scope, from, floor).await?;
        }
        Ok(())
    }

    fn head(&self) -> Head {
        Head {
            confirmed: self.last,
            floor: self.floor,
        }
    }
}

fn opens(scope: Scope) -> Vec<(Key, Val)> {
    let key = Key::Open {
        log: CONVERSATION,
        view: scope.view,
    };
    vec![(key, Val::Whole)]
}

fn id(scope: Scope, entry: Entry, seq: u64) -> (Key, Val) {
    let key = Key::Id {
        sender: entry.sender,
        number: entry.number,
        view: scope.view,
    };
    (key, Val::Number(seq))
}
