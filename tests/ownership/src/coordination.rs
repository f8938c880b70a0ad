//! What a node's driver is given: a boot clock that may stand still, and the coordination rows on the simulated store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use godwit_cluster::own::{Clock, Millis};
use godwit_store::coordination::{Asked, Changed, Coordination, Nonce, StartId, StartRow, StoredView};
use godwit_store::{StoreError, View};

use crate::bugs::Bug;
use crate::engine::Engine;
use crate::exec::{Micros, Proc, Sim};
use crate::node::Process;
use crate::replicas::{Key, Replicas, Val};
use crate::transactions::Transactions;

#[derive(Clone)]
pub(crate) struct BootClock {
    pub(crate) sim: Sim,
    pub(crate) behind: Arc<AtomicU64>,
    pub(crate) stands_since: Arc<AtomicU64>,
}

impl BootClock {
    fn micros(&self) -> Micros {
        let stands = self.stands_since.load(Ordering::SeqCst);
        let real = if stands == 0 { self.sim.now() } else { stands };
        real - self.behind.load(Ordering::SeqCst).min(real)
    }
}

impl Clock for BootClock {
    fn now(&self) -> Millis {
        self.micros() / 1_000
    }

    fn sleep_until(&self, at: Millis) -> Asked<'_, ()> {
        Box::pin(async move {
            while self.now() < at {
                let left = (at * 1_000).saturating_sub(self.micros());
                self.sim.sleep(left.clamp(1_000, 500_000)).await;
            }
        })
    }
}

pub(crate) struct Rows {
    pub(crate) process: Weak<Process>,
    pub(crate) replicas: Replicas,
    pub(crate) transactions: Transactions,
    pub(crate) proc: Proc,
}

fn failed() -> StoreError {
    StoreError::Unavailable("no quorum".into())
}

impl Rows {
    fn engine(&self) -> Option<Arc<Engine>> {
        self.process.upgrade().map(|process| process.engine.clone())
    }
}

impl Coordination for Rows {
    fn write_start(&self, row: StartRow) -> Asked<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let stamp = match self.engine() {
                Some(engine) if engine.bug == Bug::HidesRows => engine.stamps.next(),
                _ => row.beat as i64,
            };
            let cell = (Key::Start(row.start.as_u128()), stamp, Val::Start(row));
            self.replicas
                .write(self.proc, vec![cell])
                .await
                .then_some(())
                .ok_or_else(failed)
        })
    }

    fn read_starts(&self) -> Asked<'_, Result<Vec<StartRow>, StoreError>> {
        Box::pin(async move {
            let all = Key::Start(0)..=Key::Start(u128::MAX);
            let cells = self
                .replicas
                .read(self.proc, vec![all])
                .await
                .ok_or_else(failed)?;
            let rows = cells.into_values().filter_map(|(_, val)| match val {
                Val::Start(row) => Some(row),
                _ => None,
            });
            Ok(rows.collect())
        })
    }

    fn delete_start(&self, start: StartId, beat: u64) -> Asked<'_, Result<(), StoreError>> {
        let stamp = match self.engine() {
            Some(engine) if engine.bug == Bug::HidesRows => engine.stamps.next(),
            _ => beat as i64,
        };
        Box::pin(async move {
            let cell = (Key::Start(start.as_u128()), stamp, Val::Ended);
            self.replicas
                .write(self.proc, vec![cell])
                .await
                .then_some(())
                .ok_or_else(failed)
        })
    }

    fn shown_view(&self) -> Asked<'_, Result<Option<(View, Nonce)>, StoreError>> {
        Box::pin(async move { self.transactions.shown(self.proc).await.ok_or_else(failed) })
    }

    fn read_view(&self) -> Asked<'_, Result<Option<StoredView>, StoreError>> {
        Box::pin(async move { self.transactions.read(self.proc).await.ok_or_else(failed) })
    }

    fn change_view(&self, expected: Option<Nonce>, new: StoredView) -> Asked<'_, Changed> {
        Box::pin(async move {
            if let Some(engine) = self.engine() {
                engine.sleep_now().await;
            }
            self.transactions.change(self.proc, expected, new).await
        })
    }

    fn stamp(&self) -> i64 {
        self.engine().map_or(0, |engine| engine.stamps.largest())
    }

    fn raise_stamps(&self, floor: i64) {
        // The floor of timestamps would hide what is cleared late: the bug is planted without it.
        if let Some(engine) = self.engine().filter(|engine| engine.bug != Bug::ClearsVoidRows) {
            engine.stamps.raise(floor);
        }
    }
}
