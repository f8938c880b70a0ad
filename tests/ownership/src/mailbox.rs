//! The model's home of a mailbox: takes offers, knows repeats by its mark, keeps a device's cursor, trims what the cursor
//! has passed.

use std::sync::Arc;

use godwit_store::{Head, Scope};
use tokio::sync::{mpsc, oneshot};

use crate::bugs::Bug;
use crate::content::MailEntry;
use crate::engine::{Lost, Taken};
use crate::node::Process;
use crate::replicas::{Key, Val};

const MARK: u8 = 0;
const CURSOR: u8 = 1;

/// What a mailbox is asked.
pub(crate) enum Ask {
    /// An entry from the conversation's home; answered when it is stored.
    Offer {
        mail: MailEntry,
        reply: oneshot::Sender<()>,
    },
    /// A device has acknowledged everything up to here; answered when it is stored.
    Cursor { at: u64, reply: oneshot::Sender<()> },
}

struct Mailbox {
    process: Arc<Process>,
    scope: Scope,
    user: u8,
    taken: Taken,
    last: u64,
    floor: u64,
    cursor: u64,
    /// The last position of the conversation that is confirmed here.
    mark: u64,
}

/// Runs until the shard is lost.
pub(crate) async fn home(
    process: Arc<Process>,
    scope: Scope,
    user: u8,
    mut inbox: mpsc::UnboundedReceiver<Ask>,
) {
    let Ok(mut mailbox) = Mailbox::take_up(process, scope, user).await else {
        return;
    };
    while let Some(ask) = inbox.recv().await {
        if !mailbox.process.may_act() {
            continue;
        }
        if mailbox.serve(ask).await.is_err() {
            return;
        }
    }
}

impl Mailbox {
    async fn take_up(process: Arc<Process>, scope: Scope, user: u8) -> Result<Self, Lost> {
        let engine = process.engine.clone();
        let taken = engine.take_up(user, scope).await?;
        let small = engine.take_up_rows(user, scope).await?;
        let (mut mark, up_to) = match small.get(&MARK) {
            Some(Val::Pair(mark, up_to)) => (*mark, *up_to),
            _ => (0, 0),
        };
        let cursor = match small.get(&CURSOR) {
            Some(Val::Number(at)) => *at,
            _ => 0,
        };
        // Entries that the stored mark does not stand for.
        let mut above = Vec::new();
        if taken.head.confirmed > up_to {
            above = engine.own_page(user, scope, up_to, taken.head.confirmed).await?;
        }
        let (has, stored) = (engine.oracle.last(user), engine.oracle.cursor(user));
        engine.confirm(scope).await?;
        let holds = above
            .iter()
            .map(|row| row.seq)
            .eq(up_to.max(taken.head.floor) + 1..=taken.head.confirmed);
        if up_to < taken.head.floor || (taken.head.confirmed > up_to && !holds) {
            let rows: Vec<u64> = above.iter().map(|row| row.seq).collect();
            engine.oracle.breaks(
                "ACK",
                format!("mailbox {user} above {up_to}, {:?}: {rows:?}", taken.head),
            );
            return Err(Lost);
        }
        for row in &taken.rows {
            engine
                .oracle
                .confirmed(user, row.seq, &row.row, scope.view, engine.proc);
        }
        let last = taken.rows.last().map_or(taken.head.confirmed, |row| row.seq);
        engine.oracle.taken_up(user, last, has, scope.view, engine.proc);
        engine.oracle.cursor_found(user, cursor, stored);
        above.extend(taken.rows.iter().cloned());
        let newest = above
            .iter()
            .filter_map(|row| MailEntry::decode(&row.row))
            .map(|mail| mail.seq)
            .max();
        mark = mark.max(newest.unwrap_or(0));
        if engine.bug == Bug::NoMarks {
            mark = 0;
        }
        let forget = engine.clone();
        process.spawn(async move {
            // The next owner does what is left.
            let _ = forget.forget_rows(user, scope).await;
        });
        Ok(Self {
            process,
            scope,
            user,
            floor: taken.head.floor,
            taken,
            last,
            cursor,
            mark,
        })
    }

    async fn serve(&mut self, ask: Ask) -> Result<(), Lost> {
        let engine = self.process.engine.clone();
        match ask {
            Ask::Offer { mail, reply } => {
                if mail.seq > self.mark {
                    self.append(&mail).await?;
                } else {
                    engine.confirm(self.scope).await?;
                }
                // Who offered may be gone.
                let _ = reply.send(());
            }
            Ask::Cursor { at, reply } => {
                self.cursor = self.cursor.max(at.min(self.last));
                let row = engine.put(self.user, self.scope, CURSOR, Val::Number(self.cursor));
                engine.stored(self.scope, vec![row]).await?;
                engine.confirm(self.scope).await?;
                engine.oracle.cursor_is(self.user, self.cursor);
                let _ = reply.send(());
                self.trim().await?;
            }
        }
        Ok(())
    }

    async fn append(&mut self, mail: &MailEntry) -> Result<(), Lost> {
        let engine = self.process.engine.clone();
        if self.taken.owed {
            engine.fence(self.user, self.scope, &mut self.taken).await?;
        }
        let seq = self.last + 1;
        let row = mail.encode();
        let key = Key::Row {
            log: self.user,
            seq,
            view: self.scope.view,
        };
        self.process.before_append(self.scope, self.user, seq).await;
        engine
            .stored(self.scope, vec![vec![(key, Val::Row(row.clone()))]])
            .await?;
        engine.confirm(self.scope).await?;
        self.last = seq;
        self.mark = mail.seq;
        engine
            .oracle
            .confirmed(self.user, seq, &row, self.scope.view, engine.proc);
        if engine.sim.chance(25) {
            let (head, fence, scope, user) = (self.head(), self.taken.fence.clone(), self.scope, self.user);
            self.process.spawn(async move {
                let _ = engine.head(user, scope, head, &fence).await;
            });
        }
        Ok(())
    }

    async fn trim(&mut self) -> Result<(), Lost> {
        let engine = self.process.engine.clone();
        let floor = self.cursor.min(self.last);
        if floor < self.floor + 3 || self.taken.owed || !engine.sim.chance(40) {
            return Ok(());
        }
        let mark = engine.put(self.user, self.scope, MARK, Val::Pair(self.mark, self.last));
        if engine.bug == Bug::FloorBeforeSnapshot {
            let (engine, scope) = (engine.clone(), self.scope);
            self.process.spawn(async move {
                let _ = engine.stored(scope, vec![mark]).await;
            });
        } else {
            engine.stored(self.scope, vec![mark]).await?;
            engine.confirm(self.scope).await?;
        }
        let from = std::mem::replace(&mut self.floor, floor);
        engine.trims(self.user, floor);
        engine
            .head(self.user, self.scope, self.head(), &self.taken.fence)
            .await?;
        engine.confirm(self.scope).await?;
        engine.drop_buckets(self.user, self.scope, from, floor).await
    }

    fn head(&self) -> Head {
        Head {
            confirmed: self.last,
            floor: self.floor,
        }
    }
}
