//! Deadlines: they are real seconds here, since the sockets are.

use std::time::{Duration, Instant};

use super::rig::{Rig, Saw, connect, publish, unix_ms};
use crate::net::NetConfig;
use crate::wire_trait::CloseReason;

#[test]
fn a_connection_without_a_connect_is_closed_after_5_seconds() {
    let rig = Rig::new(NetConfig::default());
    let (mut silent, mut dribbling) = (rig.client(), rig.client());
    let began = Instant::now();
    dribbling.write(&connect(5, "c", 0, Some(("alice", "good")))[..9]);
    for client in [&mut silent, &mut dribbling] {
        assert_eq!(client.packet(), None);
        let took = began.elapsed();
        assert!(
            took > Duration::from_secs(4) && took < Duration::from_millis(7_500),
            "{took:?}"
        );
    }
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_a_connection_and_pings_hold_it() {
    let rig = Rig::new(NetConfig::default());
    let login = Some(("alice", "good"));
    let (mut silent, mut lively) = (
        rig.connected(&connect(5, "s", 2, login)),
        rig.connected(&connect(5, "l", 2, login)),
    );
    let began = Instant::now();
    let pings = std::thread::spawn(move || {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_secs(1));
            lively.write(&[0xc0, 0]);
            assert_eq!(lively.packet().unwrap(), [0xd0, 0]);
        }
    });
    let answer = silent.packet().unwrap();
    let took = began.elapsed();
    assert_eq!((answer[0], answer[2]), (0xe0, 0x8d));
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_millis(5_500),
        "{took:?}"
    );
    rig.wait_for(&Saw::Closed(CloseReason::KeepAlive));
    pings.join().unwrap();
}

#[test]
fn the_end_of_a_credential_ends_the_connection_within_5_seconds() {
    let rig = Rig::new(NetConfig::default());
    let began = unix_ms();
    let mut client = rig.connected(&connect(5, "c", 0, Some(("bob", "ends"))));
    let answer = client.packet().unwrap();
    let took = unix_ms() - began;
    assert_eq!((answer[0], answer[2]), (0xe0, 0xa0));
    assert!((2_000..7_000).contains(&took), "{took}");
    rig.wait_for(&Saw::Closed(CloseReason::CredentialEnded));
}

#[test]
fn a_shutdown_tells_clients_and_their_homes() {
    let mut rig = Rig::new(NetConfig::default());
    let mut v5 = rig.connected(&connect(5, "c", 0, Some(("alice", "good"))));
    let mut v3 = rig.connected(&connect(4, "d", 0, Some(("bob", "good"))));
    v5.write(&publish("t", 1, b""));
    assert_eq!(v5.packet().unwrap()[0], 0x40);
    rig.stop();
    let answer = v5.packet().unwrap();
    assert_eq!((answer[0], answer[2]), (0xe0, 0x8b));
    assert_eq!((v5.packet(), v3.packet()), (None, None));
    let closed = rig
        .shared
        .saw
        .lock()
        .unwrap()
        .iter()
        .filter(|saw| **saw == Saw::Closed(CloseReason::Shutdown))
        .count();
    assert_eq!(closed, 2);
    assert!(
        std::net::TcpStream::connect(rig.at).is_err(),
        "nobody listens any more"
    );
}
