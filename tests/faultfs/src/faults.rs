//! Which calls are to fail now, and how much room the disk claims to have. Set by the control socket, asked by the
//! layer before each change; decides nothing about what survives a power loss.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// What a failing call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Input/output error.
    Eio,
    /// No space left on device.
    Enospc,
}

impl Answer {
    fn errno(self) -> Errno {
        match self {
            Answer::Eio => Errno::IO,
            Answer::Enospc => Errno::NOSPC,
        }
    }
}

/// One standing order to fail.
#[derive(Debug, Clone, Copy)]
struct Order {
    answer: Answer,
    until: Option<Instant>,
    forget: bool,
}

/// Room on the claimed disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    /// Size of the disk as `statfs` tells it.
    total: i64,
    /// Used on it when nothing of the backing folder is counted.
    others: i64,
}

#[derive(Debug, Default)]
struct Orders {
    write: Option<Order>,
    sync: Option<Order>,
    space: Option<Space>,
}

/// The switchboard.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// False while nothing is ordered, so that the ordinary path takes no lock.
    any: AtomicBool,
    orders: Mutex<Orders>,
    /// Bytes that the served files take on the backing disk.
    used: AtomicI64,
}

/// A sync that must fail, and whether what it should have carried is forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedSync {
    pub(crate) errno: Errno,
    pub(crate) forget: bool,
}

impl Faults {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail_writes(&self, answer: Answer, time: Option<Duration>) {
        let until = time.map(|time| Instant::now() + time);
        self.orders().write = Some(Order {
            answer,
            until,
            forget: false,
        });
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn fail_syncs(&self, answer: Answer, time: Option<Duration>, forget: bool) {
        let until = time.map(|time| Instant::now() + time);
        self.orders().sync = Some(Order {
            answer,
            until,
            forget,
        });
        self.any.store(true, Ordering::Release);
    }

    /// Calls no longer fail; a claimed size of the disk stays.
    pub(crate) fn off(&self) {
        let mut orders = self.orders();
        orders.write = None;
        orders.sync = None;
        self.any.store(orders.space.is_some(), Ordering::Release);
    }

    /// From now the disk claims `free` bytes of room, `total` in all (default: what is used and free).
    pub(crate) fn claim_space(&self, free: u64, total: Option<u64>) {
        let free = i64::try_from(free).unwrap_or(i64::MAX / 4);
        let used = self.used.load(Ordering::Relaxed);
        let total = total
            .and_then(|t| i64::try_from(t).ok())
            .unwrap_or(used.saturating_add(free));
        let others = total - free - used;
        self.orders().space = Some(Space { total, others });
        self.any.store(true, Ordering::Release);
    }

    /// The room is that of the backing disk again.
    pub(crate) fn real_space(&self) {
        let mut orders = self.orders();
        orders.space = None;
        self.any
            .store(orders.write.is_some() || orders.sync.is_some(), Ordering::Release);
    }

    /// Claimed (total, free) in bytes, if claimed.
    pub(crate) fn space(&self) -> Option<(u64, u64)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let space = self.orders().space?;
        let free = space.total - space.others - self.used.load(Ordering::Relaxed);
        Some((space.total.max(0) as u64, free.max(0) as u64))
    }

    pub(crate) fn used_changed(&self, by: i64) {
        self.used.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set_used(&self, bytes: i64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> i64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The error that a change needing `room` more bytes must get, if any.
    pub(crate) fn write_error(&self, room: u64) -> Option<Errno> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        if let Some(order) = live(&mut self.orders().write) {
            return Some(order.answer.errno());
        }
        let (_, free) = self.space()?;
        (room > free).then_some(Errno::NOSPC)
    }

    /// The error that a sync must get, if any.
    pub(crate) fn sync_error(&self) -> Option<FailedSync> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let order = live(&mut self.orders().sync)?;
        Some(FailedSync {
            errno: order.answer.errno(),
            forget: order.forget,
        })
    }

    /// What is ordered, in words, for the status line.
    pub(crate) fn describe(&self) -> String {
        let mut orders = self.orders();
        let mut words = Vec::new();
        if let Some(order) = live(&mut orders.write) {
            words.push(format!("write {:?}", order.answer));
        }
        if let Some(order) = live(&mut orders.sync) {
            words.push(format!("sync {:?}", order.answer));
        }
        if words.is_empty() {
            "off".to_owned()
        } else {
            words.join(", ")
        }
    }
}

/// The order, unless its time has passed, in which case it is taken away.
fn live(order: &mut Option<Order>) -> Option<Order> {
    if order.as_ref()?.until.is_some_and(|until| Instant::now() >= until) {
        *order = None;
    }
    *order
}
