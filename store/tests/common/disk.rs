//! A disk that fails by plan, by order, or at random. Not here: what the engine makes of that.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use godwit_store::embedded::Faults;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Call {
    Create,
    Write,
    Sync,
    Ingest,
    Merge,
    LookUp,
}

/// A disk that fails by plan.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) calls: Mutex<Vec<(Call, bool)>>,
    /// The next this many calls of the kind fail.
    pub(crate) plan: Mutex<Vec<(Call, i32)>>,
    pub(crate) broken: AtomicBool,
    pub(crate) tree_broken: AtomicBool,
    /// Chance of failure of every call, of 1,000; and the state of the dice.
    pub(crate) chance: AtomicU64,
    pub(crate) dice: AtomicU64,
}

impl Disk {
    pub(crate) fn fail_next(&self, call: Call, errno: i32) {
        self.plan.lock().expect("lock").push((call, errno));
    }

    fn roll(&self) -> u64 {
        let x = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, SeqCst);
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x ^ (x >> 27)) >> 11
    }

    fn check(&self, call: Call) -> io::Result<()> {
        let mut plan = self.plan.lock().expect("lock");
        let planned = plan
            .iter()
            .position(|(c, _)| *c == call)
            .map(|i| plan.remove(i).1);
        let broken = match call {
            Call::Create | Call::Write | Call::Sync => self.broken.load(SeqCst),
            Call::Ingest => self.tree_broken.load(SeqCst),
            Call::Merge | Call::LookUp => false,
        };
        let errno = planned.or_else(|| broken.then_some(5)).or_else(|| {
            (self.roll() % 1000 < self.chance.load(SeqCst)).then_some(if self.roll().is_multiple_of(2) {
                5
            } else {
                28
            })
        });
        // What comes by the clock would be in between at random.
        if call != Call::Merge {
            self.calls.lock().expect("lock").push((call, errno.is_none()));
        }
        errno.map_or(Ok(()), |e| Err(io::Error::from_raw_os_error(e)))
    }
}

impl Faults for Disk {
    fn create(&self) -> io::Result<()> {
        self.check(Call::Create)
    }
    fn write(&self, len: usize) -> Result<(), (usize, io::Error)> {
        let part = self.roll() as usize % (len + 1);
        self.check(Call::Write).map_err(|e| (part, e))
    }
    fn sync(&self) -> io::Result<()> {
        self.check(Call::Sync)
    }
    fn ingest(&self) -> io::Result<()> {
        self.check(Call::Ingest)
    }
    fn merge(&self) -> io::Result<()> {
        self.check(Call::Merge)
    }
    fn look_up(&self) -> io::Result<()> {
        self.check(Call::LookUp)
    }
}
