//! The simulated store's lightweight transactions: linearizable, but who asked may never hear what came of it, and one
//! of unknown outcome may be applied until the next one on the row has ended. A QUORUM read may lag behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use godwit_store::View;
use godwit_store::coordination::{Changed, Nonce, StoredView};

use crate::exec::{Proc, Sim, lock};
use crate::replicas::{Replicas, TIMEOUT};

#[derive(Default)]
struct Row {
    /// All that were ever decided; the last one stands.
    decided: Vec<StoredView>,
    /// How many of them each replica has learned.
    learned: [usize; 3],
    pending: Vec<(Option<Nonce>, StoredView)>,
    /// How often somebody tried to change it, and read it at SERIAL.
    tried: u64,
    read: u64,
    /// The last round that was begun.
    ballot: u64,
}

impl Row {
    fn nonce(&self) -> Option<Nonce> {
        self.decided.last().map(|view| view.nonce)
    }

    fn decide(&mut self, expected: Option<Nonce>, new: &StoredView) -> bool {
        let applies = self.nonce() == expected;
        if applies {
            self.decided.push(new.clone());
        }
        applies
    }
}

/// Rare unique facts: key → value, who wrote it, and attempts of unknown outcome.
#[derive(Default)]
struct Facts {
    rows: BTreeMap<u32, u64>,
    pending: Vec<(u32, u64)>,
}

/// What a claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    Applied,
    Taken(u64),
    Unknown,
}

#[derive(Clone)]
pub(crate) struct Transactions {
    sim: Sim,
    replicas: Replicas,
    row: Arc<Mutex<Row>>,
    facts: Arc<Mutex<Facts>>,
}

enum Fate {
    Plain,
    /// Lost on the way: never applied.
    Lost,
    /// Decided, the answer is lost.
    Unheard,
    /// Accepted by too few: applied by the next one, or never.
    Pending,
}

impl Transactions {
    pub(crate) fn new(sim: Sim, replicas: Replicas) -> Self {
        Self {
            sim,
            replicas,
            row: Arc::default(),
            facts: Arc::default(),
        }
    }

    fn fate(&self, proc: Proc) -> Fate {
        let ways: Vec<_> = (0..3).map(|replica| self.replicas.way(proc, replica)).collect();
        let back = ways.iter().filter(|way| way.back.is_some()).count();
        let there = ways.iter().filter(|way| way.there.is_some()).count();
        let (unknown, blind) = {
            let weather = lock(&self.replicas.weather);
            (weather.unknown, weather.blind.contains(&proc))
        };
        if blind {
            return Fate::Lost;
        }
        if back >= 2 && !self.sim.chance(unknown) {
            return Fate::Plain;
        }
        match self.sim.below(3) {
            0 if there >= 2 => Fate::Unheard,
            1 if there >= 1 => Fate::Pending,
            _ => Fate::Lost,
        }
    }

    /// Rounds on one row that are under way at once stop each other and begin again after a random pause, as the servers do it. Whether it came
    /// through in time.
    async fn wins(&self) -> bool {
        if !lock(&self.replicas.weather).contended {
            return true;
        }
        let limit = self.sim.now() + TIMEOUT;
        while self.sim.now() < limit {
            let mine = {
                let mut row = lock(&self.row);
                row.ballot += 1;
                row.ballot
            };
            // Prepare, then propose.
            self.sim.sleep(self.sim.between(2_000, 12_000)).await;
            if lock(&self.row).ballot == mine {
                return true;
            }
            self.sim.sleep(self.sim.between(0, 100_000)).await;
        }
        false
    }

    /// Another transaction comes by: what is pending is finished or buried.
    fn settle(&self, row: &mut Row) {
        for (expected, new) in std::mem::take(&mut row.pending) {
            if self.sim.chance(50) {
                row.decide(expected, &new);
            }
        }
    }

    /// Replicas learn what stands: two at once, the third some time; with `late` all of them some time.
    fn learn(&self, late: bool) {
        let known = lock(&self.row).decided.len();
        let slow = self.sim.below(3) as usize;
        for replica in 0..3 {
            let row = self.row.clone();
            let learn = move || {
                let learned = &mut lock(&row).learned[replica];
                *learned = (*learned).max(known);
            };
            if late || replica == slow {
                self.sim
                    .at(self.sim.now() + self.sim.between(1_000, 4_000_000), learn);
            } else {
                learn();
            }
        }
    }

    pub(crate) async fn change(&self, proc: Proc, expected: Option<Nonce>, new: StoredView) -> Changed {
        lock(&self.row).tried += 1;
        if !self.wins().await {
            return Changed::Unknown;
        }
        match self.fate(proc) {
            Fate::Plain => {
                self.sim.sleep(self.sim.between(2_000, 12_000)).await;
                let applied = {
                    let mut row = lock(&self.row);
                    self.settle(&mut row);
                    row.decide(expected, &new)
                };
                self.learn(false);
                self.sim.sleep(self.sim.between(1_000, 6_000)).await;
                if applied { Changed::Applied } else { Changed::Not }
            }
            Fate::Unheard => {
                let this = self.clone();
                self.sim
                    .at(self.sim.now() + self.sim.between(2_000, TIMEOUT), move || {
                        let mut row = lock(&this.row);
                        this.settle(&mut row);
                        row.decide(expected, &new);
                        drop(row);
                        this.learn(true);
                    });
                self.sim.sleep(TIMEOUT).await;
                Changed::Unknown
            }
            Fate::Pending => {
                lock(&self.row).pending.push((expected, new));
                self.sim.sleep(TIMEOUT).await;
                Changed::Unknown
            }
            Fate::Lost => {
                self.sim.sleep(TIMEOUT).await;
                Changed::Unknown
            }
        }
    }

    /// At SERIAL; `None`: it failed.
    pub(crate) async fn read(&self, proc: Proc) -> Option<Option<StoredView>> {
        lock(&self.row).read += 1;
        if !self.wins().await {
            return None;
        }
        match self.fate(proc) {
            Fate::Plain => {
                self.sim.sleep(self.sim.between(1_000, 8_000)).await;
                let stands = {
                    let mut row = lock(&self.row);
                    self.settle(&mut row);
                    row.decided.last().cloned()
                };
                self.learn(false);
                self.sim.sleep(self.sim.between(500, 4_000)).await;
                Some(stands)
            }
            _ => {
                self.sim.sleep(TIMEOUT).await;
                None
            }
        }
    }

    /// At QUORUM; `None`: it failed.
    pub(crate) async fn shown(&self, proc: Proc) -> Option<Option<(View, Nonce)>> {
        if lock(&self.replicas.weather).blind.contains(&proc) {
            self.sim.sleep(TIMEOUT).await;
            return None;
        }
        let mut ways: Vec<_> = (0..3)
            .filter_map(|replica| {
                let way = self.replicas.way(proc, replica);
                Some((way.there?, way.back?, replica))
            })
            .filter(|way| way.1 <= self.sim.now() + TIMEOUT)
            .collect();
        ways.sort_unstable();
        let [(first, back_one, one), (second, back_two, two), ..] = ways[..] else {
            self.sim.sleep(TIMEOUT).await;
            return None;
        };
        self.sim.sleep_until(first).await;
        let seen = lock(&self.row).learned[one];
        self.sim.sleep_until(second).await;
        let shown = {
            let row = lock(&self.row);
            let seen = seen.max(row.learned[two]);
            seen.checked_sub(1)
                .map(|at| (row.decided[at].number, row.decided[at].nonce))
        };
        self.sim.sleep_until(back_one.max(back_two)).await;
        Some(shown)
    }

    /// `IF NOT EXISTS`; a repeat of the same value counts as applied.
    pub(crate) async fn claim(&self, proc: Proc, key: u32, value: u64) -> Claimed {
        let fate = self.fate(proc);
        let decide = {
            let this = self.clone();
            move || {
                let mut facts = lock(&this.facts);
                for (key, value) in std::mem::take(&mut facts.pending) {
                    if this.sim.chance(50) {
                        facts.rows.entry(key).or_insert(value);
                    }
                }
                *facts.rows.entry(key).or_insert(value)
            }
        };
        match fate {
            Fate::Plain => {
                self.sim.sleep(self.sim.between(2_000, 20_000)).await;
                let holds = decide();
                if holds == value {
                    Claimed::Applied
                } else {
                    Claimed::Taken(holds)
                }
            }
            fate => {
                match fate {
                    Fate::Unheard => {
                        self.sim
                            .at(self.sim.now() + self.sim.between(2_000, TIMEOUT), move || {
                                decide();
                            })
                    }
                    Fate::Pending => lock(&self.facts).pending.push((key, value)),
                    Fate::Plain | Fate::Lost => {}
                }
                self.sim.sleep(TIMEOUT).await;
                Claimed::Unknown
            }
        }
    }

    /// The view of this number as it was last decided.
    pub(crate) fn decided(&self, number: View) -> Option<StoredView> {
        let row = lock(&self.row);
        row.decided
            .iter()
            .rev()
            .find(|view| view.number == number)
            .cloned()
    }

    pub(crate) fn stands(&self) -> Option<StoredView> {
        lock(&self.row).decided.last().cloned()
    }

    /// How many changes of the view's row were made and tried, and how often it was read at SERIAL.
    pub(crate) fn cost(&self) -> (u64, u64, u64) {
        let row = lock(&self.row);
        (row.decided.len() as u64, row.tried, row.read)
    }

    /// The world begins with this view.
    pub(crate) fn begin_with(&self, view: StoredView) {
        let mut row = lock(&self.row);
        row.decided.push(view);
        row.learned = [1; 3];
    }

    pub(crate) fn fact(&self, key: u32) -> Option<u64> {
        lock(&self.facts).rows.get(&key).copied()
    }
}
