//! What kind of world a seed makes: how bad network and nodes are, and which faults come how often. Most seeds have a bit of
//! everything; the others are small worlds in which one rare row of events happens often.

use crate::exec::{Micros, Sim};

const SECOND: Micros = 1_000_000;

/// One seed's world.
#[derive(Clone, Debug)]
pub(crate) struct Climate {
    /// Percent of messages that are late, and by how much at most.
    pub(crate) late: u64,
    pub(crate) very_late: Micros,
    /// Percent of answers of transactions that get lost.
    pub(crate) unknown: u64,
    /// Percent of take-ups that are stopped between their reads and their writes; for one of these times, or for down to half of it.
    pub(crate) naps: u64,
    pub(crate) nap: [Micros; 2],
    /// Percent of take-ups whose process is hit soon after.
    pub(crate) aimed: u64,
    /// Per thousand of appends that are torn.
    pub(crate) tears: u64,
    /// Percent of torn writes' other copies that still arrive, much later.
    pub(crate) mended: u64,
    /// Whether boot clocks run true: only then leases prove anything.
    pub(crate) clocks_true: bool,
    pub(crate) nodes: u64,
    /// When faults begin, when they end, and the longest pause between two.
    pub(crate) from: Micros,
    pub(crate) until: Micros,
    pub(crate) pace: Micros,
}

impl Climate {
    /// Of this seed.
    pub(crate) fn of(sim: &Sim) -> Self {
        if sim.chance(10) {
            Self::torn(sim)
        } else {
            Self::mixed(sim)
        }
    }

    fn mixed(sim: &Sim) -> Self {
        let late = if sim.chance(30) {
            sim.between(10, 40)
        } else {
            sim.between(1, 8)
        };
        let naps = if sim.chance(20) { sim.between(5, 30) } else { 0 };
        let aimed = sim.between(0, 60);
        Self {
            late,
            very_late: sim.between(SECOND, 12 * SECOND),
            unknown: sim.between(0, 12),
            naps,
            // Some for longer than timestamps run ahead.
            nap: [7 * SECOND, 14 * SECOND],
            aimed,
            tears: aimed * 10 / 8,
            mended: 50,
            clocks_true: sim.chance(75),
            nodes: sim.between(3, 5),
            from: sim.between(0, 4) * SECOND,
            until: sim.between(14, 24) * SECOND,
            pace: sim.between(SECOND / 2, 3 * SECOND),
        }
    }

    /// Appends that reach one replica alone, and take-ups that are stopped between their reads and their writes for longer than the
    /// next one takes: what a former owner does late meets what a later one found.
    fn torn(sim: &Sim) -> Self {
        Self {
            late: sim.between(0, 4),
            very_late: SECOND,
            unknown: sim.between(0, 3),
            naps: sim.between(25, 60),
            nap: [8 * SECOND, 12 * SECOND],
            aimed: 0,
            tears: sim.between(40, 100),
            mended: 10,
            clocks_true: true,
            nodes: sim.between(3, 4),
            from: sim.between(1, 3) * SECOND,
            until: sim.between(24, 34) * SECOND,
            pace: sim.between(6 * SECOND, 12 * SECOND),
        }
    }
}
