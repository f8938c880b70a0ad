//! How many connections an address has, and how fast it makes new ones: one table for all workers, of bounded size. Which
//! addresses count together is `Customer`'s affair.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use godwit_cluster::Cx;
use godwit_wire::address::Customer;

use super::{Net, NetMetrics};
use crate::codec::reason;
use crate::wire_trait::ConnId;

/// Most addresses that are known at a time: 16 MB at worst. An address is known while it has a connection, or came within
/// [`BURST_SECONDS`]. Connections of further ones are let in uncounted, since whoever commands so many addresses is
/// not held up by a limit for each, and an honest newcomer must not pay for them; `max_connections` bounds them all.
pub(super) const ADDRESSES: usize = 1 << 18;
/// Connections that an address may make at once, in seconds of its rate: devices behind one address come back
/// together.
pub(super) const BURST_SECONDS: u64 = 10;
/// Entries that are looked at for each new connection, whether they are needed still: more than one, so that the
/// table shrinks while newcomers come.
const LOOKS: usize = 4;

/// Most connections of the node that are turned away and may send their CONNECT first, within its time, to be told why in
/// the CONNACK; further ones are closed at once. Turning away must stay cheap, whatever comes: these few are beside
/// `max_connections` and beside what their addresses may have.
pub const TOLD: u32 = 64;

/// The limits of one address; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections at a time.
    pub connections: u32,
    /// New connections a second for ever, beside what ten such seconds allow at once.
    pub per_second: u32,
}

/// Where a connection is counted: a place of the table and 1; 0: nowhere. Above all places: not let in, but told so.
/// As small as this since every connection has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u32);

const TOLD_TOO_MANY: Place = Place(u32::MAX);
const TOLD_TOO_FAST: Place = Place(u32::MAX - 1);
const TOLD_FULL: Place = Place(u32::MAX - 2);
const TOLD_MEMORY: Place = Place(u32::MAX - 3);

impl Place {
    /// Why it is not let in.
    pub(super) fn refused(self) -> Option<Refused> {
        match self {
            TOLD_TOO_MANY => Some(Refused::TooMany),
            TOLD_TOO_FAST => Some(Refused::TooFast),
            TOLD_FULL => Some(Refused::Full),
            TOLD_MEMORY => Some(Refused::Memory),
            _ => None,
        }
    }
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its address has as many as it may.
    TooMany,
    /// Its address makes them too fast.
    TooFast,
    /// The node has as many as it may, and another server is known.
    Full,
    /// The node is at its bound on memory.
    Memory,
}

impl Refused {
    /// The reason code of its CONNACK.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::TooMany | Self::Memory => reason::QUOTA,
            Self::TooFast => reason::CONNECTION_RATE,
            Self::Full => reason::USE_ANOTHER_SERVER,
        }
    }

    /// What it is called in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TooMany => "address_connections",
            Self::TooFast => "address_rate",
            Self::Full => "too_many",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug)]
struct Entry {
    of: Customer,
    open: u32,
    /// Microseconds (of the workers' time) at which all that it made is within its rate.
    paid_at: u64,
}

#[derive(Debug, Default)]
struct Table {
    places: HashMap<Customer, u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
}

/// The table.
#[derive(Debug, Default)]
pub struct Addresses {
    limits: AddressLimits,
    most: usize,
    table: Mutex<Table>,
    /// Connections that are turned away and whose CONNECT is awaited: [`TOLD`] at most.
    told: AtomicU32,
    /// Those of them that are among the open connections: counted after each was and taken back before it is not, so that
    /// nobody who looks at both sees too little room used.
    told_open: AtomicU32,
    /// How many are known.
    pub(super) known: Gauge,
    /// Connections that were let in uncounted, the table being full.
    pub(super) uncounted: Counter,
}

impl Addresses {
    /// An empty table.
    pub fn new(limits: AddressLimits) -> Self {
        Self {
            limits,
            most: ADDRESSES,
            ..Self::default()
        }
    }

    /// Shows what it counts in these metrics.
    #[must_use]
    pub fn counted_in(mut self, metrics: &NetMetrics) -> Self {
        self.known = metrics.addresses.clone();
        self.uncounted = metrics.addresses_uncounted.clone();
        self
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection comes at `now_ms`. It is counted until [`Self::left`] if it is let in.
    pub(super) fn came(&self, address: IpAddr, now_ms: u64) -> Result<Place, Refused> {
        let AddressLimits {
            connections,
            per_second,
        } = self.limits;
        if connections == 0 && per_second == 0 {
            return Ok(Place::default());
        }
        let now = now_ms.saturating_mul(1_000);
        let customer = Customer::from(address);
        let mut table = self.table();
        table.forget_some(now);
        let index = match table.places.get(&customer) {
            Some(index) => *index,
            None => match table.make(customer, self.most) {
                Some(index) => index,
                None => {
                    drop(table);
                    self.uncounted.inc();
                    return Ok(Place::default());
                }
            },
        };
        let known = i64::try_from(table.places.len()).unwrap_or(i64::MAX);
        let judged = match table.entry(index) {
            Some(entry) => entry.count(connections, per_second, now),
            None => Ok(()),
        };
        drop(table);
        self.known.set(known);
        judged.map(|()| Place(index + 1))
    }

    /// The place of a connection that was not let in and is to be told so, until [`Self::left`]. `None`: there are enough
    /// of them.
    pub(super) fn to_be_told(&self, refused: Refused) -> Option<Place> {
        let one_more = |told| (told < TOLD).then_some(told + 1);
        self.told
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(match refused {
            Refused::TooMany => TOLD_TOO_MANY,
            Refused::TooFast => TOLD_TOO_FAST,
            Refused::Full => TOLD_FULL,
            Refused::Memory => TOLD_MEMORY,
        })
    }

    /// How many of those there are.
    #[cfg(test)]
    pub(super) fn told(&self) -> u32 {
        self.told.load(Ordering::Relaxed)
    }

    /// How many of the open connections are not let in.
    pub(super) fn told_open(&self) -> u32 {
        self.told_open.load(Ordering::SeqCst)
    }

    /// A connection at this place is among the open ones.
    pub(super) fn opened(&self, place: Place) {
        if place.refused().is_some() {
            self.told_open.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// It is about to be none of them any more.
    pub(super) fn closes(&self, place: Place) {
        if place.refused().is_some() {
            self.told_open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A connection that was let in, or was to be told that it was not, is gone.
    pub(super) fn left(&self, place: Place) {
        if place.refused().is_some() {
            self.told.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let Some(index) = place.0.checked_sub(1) else {
            return;
        };
        let mut table = self.table();
        if let Some(entry) = table.entry(index) {
            entry.open = entry.open.saturating_sub(1);
            if self.limits.per_second == 0 {
                table.forget(index, 0);
            }
        }
        let known = i64::try_from(table.places.len()).unwrap_or(i64::MAX);
        drop(table);
        self.known.set(known);
    }
}

impl Net {
    /// Whether a client of this address may come in now.
    pub(super) fn admit(&self, cx: &Cx<'_>, address: IpAddr) -> Result<Place, Refused> {
        let judged = self.config.addresses.came(address, cx.now().mono_ms);
        if let Err(refused) = judged {
            tracing::debug!(%address, refused = refused.name(), "a connection was not let in");
        }
        judged
    }

    /// Where a connection is counted.
    pub(super) fn place(&self, id: ConnId) -> Place {
        let slot = self.slots.get(id.index as usize);
        slot.filter(|slot| slot.generation == id.generation)
            .map(|slot| slot.place)
            .unwrap_or_default()
    }

    pub(super) fn set_place(&mut self, id: ConnId, place: Place) {
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            let before = std::mem::replace(&mut slot.place, place);
            self.config.addresses.opened(place);
            self.config.addresses.closes(before);
        }
    }
}

impl Entry {
    fn count(&mut self, connections: u32, per_second: u32, now: u64) -> Result<(), Refused> {
        if connections > 0 && self.open >= connections {
            return Err(Refused::TooMany);
        }
        if per_second > 0 {
            let paid_at = self.paid_at.max(now) + 1_000_000 / u64::from(per_second);
            if paid_at > now + BURST_SECONDS * 1_000_000 {
                return Err(Refused::TooFast);
            }
            self.paid_at = paid_at;
        }
        self.open += 1;
        Ok(())
    }
}

impl Table {
    fn entry(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    fn make(&mut self, customer: Customer, most: usize) -> Option<u32> {
        if self.places.len() >= most {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            // There are at most `ADDRESSES`.
            (self.entries.len() - 1) as u32
        });
        *self.entries.get_mut(index as usize)? = Some(Entry {
            of: customer,
            open: 0,
            paid_at: 0,
        });
        self.places.insert(customer, index);
        Some(index)
    }

    /// Forgets an address that has no connection and is within its rate.
    fn forget(&mut self, index: u32, now: u64) {
        let Some(slot) = self.entries.get_mut(index as usize) else {
            return;
        };
        if let Some(entry) = slot
            && entry.open == 0
            && entry.paid_at <= now
        {
            self.places.remove(&entry.of);
            *slot = None;
            self.free.push(index);
        }
    }

    fn forget_some(&mut self, now: u64) {
        for _ in 0..LOOKS.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            // As in `make`.
            self.forget(self.hand as u32, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(connections: u32, per_second: u32) -> Addresses {
        Addresses::new(AddressLimits {
            connections,
            per_second,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_of_an_address_are_counted_until_they_go_and_others_are_not_held_up() {
        let table = table(2, 0);
        let first = table.came(ip("192.0.2.1"), 0).unwrap();
        table.came(ip("192.0.2.1"), 0).unwrap();
        assert_eq!(table.came(ip("192.0.2.1"), 0), Err(Refused::TooMany));
        // The same client by a listener of both families.
        assert_eq!(table.came(ip("::ffff:192.0.2.1"), 0), Err(Refused::TooMany));
        assert!(table.came(ip("192.0.2.2"), 0).is_ok());
        table.left(first);
        assert!(table.came(ip("192.0.2.1"), 0).is_ok());
        assert_eq!(table.came(ip("192.0.2.1"), 0), Err(Refused::TooMany));
    }

    #[test]
    fn addresses_of_one_64_are_one() {
        let table = table(1, 0);
        table.came(ip("2001:db8:0:1::1"), 0).unwrap();
        assert_eq!(table.came(ip("2001:db8:0:1:ffff::2"), 0), Err(Refused::TooMany));
        assert!(table.came(ip("2001:db8:0:2::1"), 0).is_ok());
    }

    #[test]
    fn a_rate_allows_ten_seconds_of_it_at_once_and_then_itself() {
        let table = table(0, 2);
        let at_once = (0..50)
            .filter(|_| table.came(ip("192.0.2.1"), 5_000).is_ok())
            .count();
        assert_eq!(at_once, 20);
        assert_eq!(table.came(ip("192.0.2.1"), 5_000), Err(Refused::TooFast));
        assert!(table.came(ip("192.0.2.1"), 5_500).is_ok());
        assert_eq!(table.came(ip("192.0.2.1"), 5_500), Err(Refused::TooFast));
    }

    #[test]
    fn an_address_is_forgotten_when_nothing_of_it_is_left() {
        let table = table(5, 1);
        for number in 0..100u8 {
            let place = table.came(IpAddr::from([192, 0, 2, number]), 0).unwrap();
            table.left(place);
        }
        assert_eq!(table.table().places.len(), 100, "their rate is remembered");
        for _ in 0..60 {
            let place = table.came(ip("198.51.100.1"), 2_000).unwrap_or_default();
            table.left(place);
        }
        assert_eq!(table.table().places.len(), 1);
        assert_eq!(table.table().entries.len(), 100, "places are used again");
    }

    #[test]
    fn a_full_table_lets_newcomers_in_uncounted_and_still_holds_the_known_ones() {
        let mut table = table(1, 0);
        table.most = 2;
        let first = table.came(ip("192.0.2.1"), 0).unwrap();
        table.came(ip("192.0.2.2"), 0).unwrap();
        for _ in 0..3 {
            let place = table.came(ip("192.0.2.3"), 0).unwrap();
            assert_eq!(place, Place::default());
            table.left(place);
        }
        assert_eq!(table.uncounted.get(), 3);
        assert_eq!(table.came(ip("192.0.2.1"), 0), Err(Refused::TooMany));
        table.left(first);
        assert_ne!(table.came(ip("192.0.2.3"), 0).unwrap(), Place::default());
    }
}
