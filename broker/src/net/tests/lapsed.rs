//! Sockets of a node whose lease is over: newcomers hear a no at once, those who were connected nothing, and after a while the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_cluster::own::{Homes as _, Layout};
use godwit_cluster::{Clustered, WorkersHomes};
use godwit_wire::ids::UserId;

use super::rig::{Client, Rig, Saw, connect, publish};
use super::two::{Way, start};
use crate::wire_trait::CloseReason;

/// Milliseconds of the node's clock; of this test alone.
static NOW: AtomicU64 = AtomicU64::new(0);
/// The end of the lease.
const END: u64 = 10_000;

fn login(level: u8, client: &str) -> Vec<u8> {
    let user = UserId::fresh().to_string();
    connect(level, client, 0, Some((&user, "good")))
}

#[test]
fn without_a_lease_newcomers_are_refused_at_once_and_nothing_is_acknowledged_until_it_is_back() {
    let rig = Rig::leased(Clustered {
        holdings: Arc::new(godwit_cluster::harness::holdings(1, END)),
        clock: || NOW.load(Ordering::SeqCst),
        peers: Arc::new(Way::default()),
    });
    let homes = WorkersHomes::new(rig.router().clone());
    homes.begin(start(1));
    let all = (0..Layout::PRODUCT.slots()).filter_map(|slot| u16::try_from(slot).ok());
    homes.take_up(1, all.collect());
    let mut served: Vec<Client> = [5, 4].map(|level| rig.connected(&login(level, "served"))).into();

    NOW.store(END, Ordering::SeqCst);
    // The workers look when they are woken.
    rig.router().look();
    let mut new = rig.client();
    new.write(&login(5, "new"));
    let refused = new.packet().unwrap();
    assert_eq!((refused[0], refused[3]), (0x20, 0x88));
    assert_eq!(new.packet(), None);
    let mut new = rig.client();
    new.write(&login(4, "new"));
    assert_eq!(new.packet().unwrap()[..4], [0x20, 2, 0, 3]);
    assert_eq!(new.packet(), None);

    for client in &mut served {
        client.write(&publish("t", 1, b"?"));
    }
    // Others come meanwhile: had the node answered, it would have.
    for _ in 0..3 {
        let mut new = rig.client();
        new.write(&login(5, "new"));
        assert_eq!(new.packet().unwrap()[3], 0x88);
    }
    NOW.store(END + 4_000, Ordering::SeqCst);
    let told = served[0].packet().unwrap();
    assert_eq!((told[0], told[2]), (0xe0, 0x8b), "{told:?}");
    for client in &mut served {
        assert_eq!(client.packet(), None);
    }
    assert_eq!(*rig.shared.saw.lock().unwrap(), []);

    NOW.store(END - 1, Ordering::SeqCst);
    rig.wait(|saw| {
        saw.iter()
            .filter(|one| **one == Saw::Closed(CloseReason::Moved))
            .count()
            == 2
    });
    assert_eq!(
        rig.metrics.closed(&["no_lease", "moved", "gone"]),
        [2, 0, 0],
        "each is counted once"
    );
    drop(rig.connected(&login(5, "again")));
    assert!(
        !rig.shared
            .saw
            .lock()
            .unwrap()
            .contains(&Saw::Publish("t".into(), 1))
    );
}
