//! Several real nodes on one real Cassandra: one server for all tests here, a keyspace of it for each. None of them harms the server; what cuts nodes off
//! from it is in front of it.
#![allow(clippy::unwrap_used)]

mod node_faults;
mod plain;
mod readme;
mod roles;
mod search;
mod starts;
mod topics_over_nodes;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use godwit_cassandra::Cluster;

/// Of those that may have another beside them so many run at a time, however many threads the tests have.
static MACHINE: RwLock<()> = RwLock::new(());
static BESIDE: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// For a test whose limits of time are a few seconds, or that needs the whole machine: nothing runs beside it.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that waits more than it works, and whose limits of time are several times what it takes alone: one more like it may run.
fn beside_another() -> (RwLockReadGuard<'static, ()>, MutexGuard<'static, ()>) {
    loop {
        let machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        for place in &BESIDE {
            match place.try_lock() {
                Ok(place) => return (machine, place),
                Err(TryLockError::Poisoned(place)) => return (machine, place.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        drop(machine);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The server, started by whoever asks first.
fn cassandra() -> &'static Cluster {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(Cluster::shared()).expect("Cassandra")
}
