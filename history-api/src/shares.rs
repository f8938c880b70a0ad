//! Room that addresses share: for HTTP connections, and for bytes that wait. None takes so much of it that the others
//! have nothing. Which addresses count together is `Customer`'s affair.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use godwit_wire::address::Customer;

/// One address may have this part of the room: four together are needed to keep others waiting.
const PART: usize = 4;

/// Room, and who has how much of it; as many entries as there are holders at most. Clones share it.
#[derive(Clone, Debug)]
pub struct Shares {
    room: usize,
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Customer, usize>,
}

/// A part of the room that counts until this is dropped.
#[derive(Debug)]
pub struct Share {
    of: Shares,
    customer: Customer,
    amount: usize,
}

impl Shares {
    /// Of so much room, an address a quarter of it; at least `least`, however little room there is.
    pub fn new(room: usize, least: usize) -> Self {
        Self {
            room,
            most: (room / PART).max(least),
            taken: Arc::default(),
        }
    }

    /// So much more for this address; `None`: it has its share, or there is no room.
    pub fn take(&self, address: IpAddr, amount: usize) -> Option<Share> {
        let customer = Customer::from(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let by = taken.by.get(&customer).copied().unwrap_or_default();
        let (all, by) = (taken.all.checked_add(amount)?, by.checked_add(amount)?);
        if all > self.room || by > self.most {
            return None;
        }
        taken.all = all;
        taken.by.insert(customer, by);
        Some(Share {
            of: self.clone(),
            customer,
            amount,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= self.amount;
        if let Some(by) = taken.by.get_mut(&self.customer) {
            *by -= self.amount;
            if *by == 0 {
                taken.by.remove(&self.customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back_and_others_have_their_own() {
        let shares = Shares::new(400, 0);
        let [one, mapped, other, net, same_net] = [
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "2001:db8::ffff:0:2",
        ]
        .map(address);
        let mut held: Vec<_> = (0..100).map(|_| shares.take(one, 1).unwrap()).collect();
        assert!(shares.take(one, 1).is_none() && shares.take(mapped, 1).is_none());
        assert!(shares.take(other, 1).is_some());
        held.pop();
        held.push(shares.take(mapped, 1).unwrap());
        assert!(shares.take(one, 1).is_none());
        let more = shares.take(net, 100).unwrap();
        assert!(shares.take(same_net, 1).is_none());
        drop((held, more));
        let taken = shares.taken.lock().unwrap();
        assert!(taken.by.is_empty() && taken.all == 0);
    }

    #[test]
    fn addresses_together_have_no_more_than_the_room() {
        let shares = Shares::new(10, 4);
        let two = [address("10.0.0.1"), address("10.0.0.2")].map(|one| shares.take(one, 4).unwrap());
        let third = address("10.0.0.3");
        assert!(shares.take(third, 3).is_none() && shares.take(third, usize::MAX).is_none());
        let rest = shares.take(third, 2).unwrap();
        drop(two);
        assert!(shares.take(third, 2).is_some());
        drop(rest);
    }
}
