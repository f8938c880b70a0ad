//! What kind of world a seed makes: how bad network and nodes are, and which faults come how often. Most seeds have a bit of
//! everything; the others are small worlds in which one rare row of events happens often.

use crate::exec::{Micros, Sim};

const SECOND: Micros = 1_000_000;

/// Of what a world has most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Whichever the seed says: nine of ten are mixed.
    #[default]
    Any,
    /// A bit of everything.
    Mixed,
    /// Appends that reach one replica alone, and take-ups that are stopped between their reads and their writes for longer than the next
    /// one takes: what a former owner does late meets what a later one found.
    Torn,
    /// Owners that are stopped for three leases, between their look at the lease and their write, or with a confirming read under way;
    /// nothing else happens.
    Stops,
    /// A node with a clock that is behind is stopped while it joins, for so long that its row is deleted; nothing else happens.
    Sleeper,
}

/// One seed's world.
#[derive(Clone, Debug)]
pub(crate) struct Climate {
    pub(crate) kind: Kind,
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
    /// Percent of appends and of confirming reads in which a process is stopped for three leases: one at a time in all the world.
    pub(crate) stops: u64,
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
    pub(crate) fn of(kind: Kind, sim: &Sim) -> Self {
        match (kind, sim.below(100)) {
            (Kind::Torn, _) | (Kind::Any, 0..10) => Self::torn(sim),
            (Kind::Stops, _) | (Kind::Any, 10..13) => Self::stops(sim),
            (Kind::Sleeper, _) | (Kind::Any, 13) => Self::sleeper(sim),
            (Kind::Mixed | Kind::Any, _) => Self::mixed(sim),
        }
    }

    /// Whether random faults happen.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.kind, Kind::Stops | Kind::Sleeper)
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
            kind: Kind::Mixed,
            stops: 0,
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

    fn torn(sim: &Sim) -> Self {
        Self {
            kind: Kind::Torn,
            stops: 0,
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

    fn stops(sim: &Sim) -> Self {
        Self {
            kind: Kind::Stops,
            late: sim.between(0, 4),
            very_late: SECOND,
            unknown: sim.between(0, 3),
            naps: 0,
            nap: [0; 2],
            aimed: 0,
            tears: 0,
            stops: sim.between(3, 12),
            mended: 50,
            clocks_true: true,
            nodes: 3,
            from: 2 * SECOND,
            until: sim.between(60, 70) * SECOND,
            pace: SECOND,
        }
    }

    fn sleeper(sim: &Sim) -> Self {
        Self {
            kind: Kind::Sleeper,
            // So long that the row of who sleeps is left behind, and some time to see what it does then.
            until: sim.between(90, 95) * SECOND,
            stops: 0,
            ..Self::stops(sim)
        }
    }
}
