//! The simulated store's plain rows: three replicas, QUORUM, writes that arrive in any order, late or never at one of
//! them, answers that get lost. No read repair: a reader sees what two replicas have.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use godwit_store::View;
use godwit_store::coordination::StartRow;
use godwit_store::cql::fence::Fence;
use tokio::sync::oneshot;

use crate::climate::Climate;
use crate::exec::{Micros, Proc, Sim, lock};

/// Positions of a bucket in the model: few, so that trimming drops whole ones.
pub(crate) const BUCKET: u64 = 4;
/// A coordinator gives up after this.
pub(crate) const TIMEOUT: Micros = 1_000_000;

/// Names a cell. Rows of one partition stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Start(u128),
    Head {
        log: u8,
        view: View,
    },
    Row {
        log: u8,
        seq: u64,
        view: View,
    },
    /// The bucket's partition was deleted.
    Gone {
        log: u8,
        bucket: u64,
    },
    Owned {
        part: u8,
        view: View,
        name: u8,
    },
    /// The owned partition of this view was deleted.
    Forgotten {
        part: u8,
        view: View,
    },
    Fence {
        part: u8,
        view: View,
    },
    /// A client id: sender, number.
    Id {
        sender: u8,
        number: u32,
        view: View,
    },
    /// An element of the set of open tails, and the deletion of those up to a view.
    Open {
        log: u8,
        view: View,
    },
    Closed {
        log: u8,
        view: View,
    },
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Val {
    Start(StartRow),
    Head {
        confirmed: u64,
        floor: u64,
        fence: Option<Fence>,
    },
    Row(Bytes),
    Number(u64),
    Pair(u64, u64),
    Whole,
    /// Deleted.
    Ended,
}

type Cells = BTreeMap<Key, (i64, Val)>;

/// Who cannot reach which replica, and how bad the network is.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    pub(crate) cut: BTreeSet<Proc>,
    pub(crate) down: BTreeSet<usize>,
    /// Who does not reach the view's row: its replicas are other machines than those of the rest.
    pub(crate) blind: BTreeSet<Proc>,
    /// Whose writes reach one replica alone for now: it dies or is cut off in the middle of them.
    pub(crate) torn: BTreeSet<Proc>,
    /// See [`Climate`].
    pub(crate) stops: u64,
    /// Who is stopped just before it changes the view, for so long that its row may be deleted.
    pub(crate) sleepy: Option<Proc>,
    /// Whether transactions that meet stop each other.
    pub(crate) contended: bool,
    /// No stop before.
    pub(crate) next_stop: Micros,
    pub(crate) naps: u64,
    pub(crate) nap: [Micros; 2],
    pub(crate) late: u64,
    pub(crate) very_late: Micros,
    pub(crate) unknown: u64,
    pub(crate) mended: u64,
}

#[derive(Clone)]
pub(crate) struct Replicas {
    sim: Sim,
    cells: Arc<[Mutex<Cells>; 3]>,
    pub(crate) weather: Arc<Mutex<Weather>>,
}

/// How a message fares.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// When it arrives; `None`: never.
    pub(crate) there: Option<Micros>,
    /// When the answer is back; `None`: never.
    pub(crate) back: Option<Micros>,
}

impl Replicas {
    pub(crate) fn new(sim: Sim) -> Self {
        Self {
            sim,
            cells: Arc::new(Default::default()),
            weather: Arc::default(),
        }
    }

    pub(crate) fn set(&self, climate: &Climate) {
        let mut weather = lock(&self.weather);
        weather.stops = climate.stops;
        weather.next_stop = climate.from;
        weather.naps = climate.naps;
        weather.nap = climate.nap;
        weather.late = climate.late;
        weather.very_late = climate.very_late;
        weather.unknown = climate.unknown;
        weather.mended = climate.mended;
    }

    fn hop(&self) -> Micros {
        let weather = lock(&self.weather);
        if self.sim.chance(weather.late) {
            // Most of the late ones a little, some by many seconds.
            let most = if self.sim.chance(30) {
                weather.very_late
            } else {
                150_000
            };
            return self.sim.between(1_000, most.max(1_001));
        }
        self.sim.between(200, 3_000)
    }

    pub(crate) fn way(&self, proc: Proc, replica: usize) -> Way {
        let (cut, down) = {
            let weather = lock(&self.weather);
            (weather.cut.contains(&proc), weather.down.contains(&replica))
        };
        let now = self.sim.now();
        if cut || down {
            // Lost, or it lies somewhere and arrives much later.
            let late = self
                .sim
                .chance(40)
                .then(|| now + self.sim.between(100_000, 15_000_000));
            return Way {
                there: late,
                back: None,
            };
        }
        let there = now + self.hop();
        Way {
            there: Some(there),
            back: Some(there + self.hop()),
        }
    }

    fn torn_way(&self, arrives: bool) -> Way {
        let mended = lock(&self.weather).mended;
        let later = self
            .sim
            .chance(mended)
            .then(|| self.sim.now() + self.sim.between(2_000_000, 20_000_000));
        Way {
            there: if arrives {
                Some(self.sim.now() + self.sim.between(200, 3_000))
            } else {
                later
            },
            back: None,
        }
    }

    /// Writes cells of one partition at once. Whether a quorum answered in time; if not it may land at any time.
    pub(crate) async fn write(&self, proc: Proc, cells: Vec<(Key, i64, Val)>) -> bool {
        let cells = Arc::new(cells);
        let mut backs: Vec<Micros> = Vec::new();
        let torn = lock(&self.weather)
            .torn
            .contains(&proc)
            .then(|| self.sim.below(3) as usize);
        for replica in 0..3 {
            let way = match torn {
                None => self.way(proc, replica),
                Some(one) => self.torn_way(one == replica),
            };
            if let Some(there) = way.there {
                let (this, cells) = (self.clone(), cells.clone());
                self.sim.at(there, move || this.apply(replica, &cells));
            }
            backs.extend(way.back);
        }
        self.quorum(backs).await
    }

    async fn quorum(&self, mut backs: Vec<Micros>) -> bool {
        backs.sort_unstable();
        let limit = self.sim.now() + TIMEOUT;
        match backs.get(1) {
            Some(&second) if second <= limit => {
                self.sim.sleep_until(second).await;
                true
            }
            _ => {
                self.sim.sleep_until(limit).await;
                false
            }
        }
    }

    fn apply(&self, replica: usize, cells: &[(Key, i64, Val)]) {
        let mut has = lock(&self.cells[replica]);
        for (key, stamp, val) in cells {
            match has.get_mut(key) {
                Some(old) if old.0 >= *stamp => {}
                Some(old) => *old = (*stamp, val.clone()),
                None => {
                    has.insert(*key, (*stamp, val.clone()));
                }
            }
        }
    }

    /// The world begins with this cell.
    pub(crate) fn begin_with(&self, key: Key, stamp: i64, val: &Val) {
        for replica in 0..3 {
            self.apply(replica, &[(key, stamp, val.clone())]);
        }
    }

    /// Reads ranges at QUORUM; `None`: it failed. Deleted cells are left out by the caller's own rules.
    pub(crate) async fn read(
        &self,
        proc: Proc,
        ranges: Vec<RangeInclusive<Key>>,
    ) -> Option<BTreeMap<Key, (i64, Val)>> {
        let mut ways: Vec<(Micros, Micros, usize)> = (0..3)
            .filter_map(|replica| {
                let way = self.way(proc, replica);
                Some((way.back?, way.there?, replica))
            })
            .collect();
        ways.sort_unstable();
        ways.truncate(2);
        let limit = self.sim.now() + TIMEOUT;
        let last = ways.get(1).map(|way| way.0).filter(|&back| back <= limit);
        let Some(last) = last else {
            self.sim.sleep_until(limit).await;
            return None;
        };
        let ranges = Arc::new(ranges);
        let mut answers = Vec::new();
        for (_, there, replica) in ways {
            let (sender, receiver) = oneshot::channel();
            let (this, ranges) = (self.clone(), ranges.clone());
            self.sim.at(there, move || {
                let has = lock(&this.cells[replica]);
                let found = ranges.iter().flat_map(|range| has.range(range.clone()));
                let found: Vec<_> = found.map(|(key, cell)| (*key, cell.clone())).collect();
                // Who asked may be dead.
                let _ = sender.send(found);
            });
            answers.push(receiver);
        }
        self.sim.sleep_until(last).await;
        let mut merged = Cells::new();
        for answer in answers {
            for (key, cell) in answer.await.unwrap_or_default() {
                match merged.get_mut(&key) {
                    Some(old) if old.0 >= cell.0 => {}
                    Some(old) => *old = cell,
                    None => {
                        merged.insert(key, cell);
                    }
                }
            }
        }
        Some(merged)
    }

    /// What all replicas have together, for who looks from outside.
    pub(crate) fn everything(&self, ranges: Vec<RangeInclusive<Key>>) -> BTreeMap<Key, (i64, Val)> {
        let mut merged = Cells::new();
        for replica in self.cells.iter() {
            let has = lock(replica);
            for (key, cell) in ranges.iter().flat_map(|range| has.range(range.clone())) {
                match merged.get_mut(key) {
                    Some(old) if old.0 >= cell.0 => {}
                    _ => {
                        merged.insert(*key, cell.clone());
                    }
                }
            }
        }
        merged
    }
}
