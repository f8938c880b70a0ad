//! How much of the room for HTTP connections one address may take, so that it leaves the others some. Which
//! addresses count together is `Customer`'s affair.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use godwit_wire::address::Customer;

/// One address may have this part of the room: four together are needed to keep others waiting.
const PART: usize = 4;
/// And at least so many, however little room there is: what a browser or a load balancer keeps open.
const LEAST: usize = 64;

/// Who has how many; as many entries as there are connections at most.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    most: usize,
    open: Arc<Mutex<HashMap<Customer, usize>>>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Shares,
    customer: Customer,
}

impl Shares {
    /// Of room for so many connections.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            most: (room / PART).max(LEAST),
            open: Arc::default(),
        }
    }

    /// One more of this address; `None`: it has its share.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Share> {
        let customer = Customer::from(address);
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(customer).or_default();
        if *open >= self.most {
            return None;
        }
        *open += 1;
        Some(Share {
            of: self.clone(),
            customer,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(&self.customer) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back_and_others_have_their_own() {
        let shares = Shares::new(400);
        let [one, mapped, other, net, same_net] = [
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "10.0.0.2",
            "2001:db8::1",
            "2001:db8::ffff:0:2",
        ]
        .map(|text| text.parse::<IpAddr>().unwrap());
        let mut held: Vec<_> = (0..100).map(|_| shares.take(one).unwrap()).collect();
        assert!(shares.take(one).is_none() && shares.take(mapped).is_none());
        assert!(shares.take(other).is_some());
        held.pop();
        held.push(shares.take(mapped).unwrap());
        assert!(shares.take(one).is_none());
        let more: Vec<_> = (0..100).map(|_| shares.take(net).unwrap()).collect();
        assert!(shares.take(same_net).is_none());
        drop((held, more));
        assert!(shares.open.lock().unwrap().is_empty());
    }
}
