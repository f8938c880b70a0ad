//! What gathers for a connection in one turn.

use std::io::Write as _;
use std::time::Duration;

use super::bench::{Bench, Came, given, pair};
use super::rig::{BURST, Rig, connect, publish, whole};
use crate::net::NetConfig;
use crate::net::reading::PACKETS_A_TURN;

#[test]
fn a_burst_of_one_turn_that_the_socket_takes_is_not_refused_for_lack_of_room() {
    let rig = Rig::new(NetConfig::default());
    let mut client = rig.connected(&connect(5, "c", 0, Some(("alice", "good"))));
    client.write(&publish("burst", 9, b""));
    let mut got = 0;
    loop {
        let packet = client.packet().unwrap();
        if packet[0] == 0x40 {
            break;
        }
        assert_eq!(packet[0] & 0xf0, 0x30);
        got += 1;
    }
    assert_eq!(got, BURST);
}

#[test]
fn of_thousands_of_small_packets_a_turn_takes_a_part_and_the_others_are_served_in_between() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    let (ours, mut other) = pair();
    let beside = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    // One of them is cut by the end of a part.
    let all = 3 * PACKETS_A_TURN + 7;
    client.write_all(&whole(0x30, b"\0\x01t\0").repeat(all)).unwrap();
    other.write_all(&whole(0x82, b"\0\x01\0\0\x01t\0")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    bench.ready(id);
    assert_eq!(bench.came.len(), PACKETS_A_TURN);
    bench.ready(beside);
    assert_eq!(
        bench.came.last(),
        Some(&Came::Subscribe),
        "it does not wait for the rest"
    );
    for turn in 2..=4 {
        bench.turn();
        assert_eq!(
            bench.came.len(),
            1 + all.min(turn * PACKETS_A_TURN),
            "turn {turn}"
        );
    }
    assert!(bench.net.again.is_empty() && bench.conn(id).input.is_empty());
}
