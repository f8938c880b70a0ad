//! What gathers for a connection in one turn.

use super::rig::{BURST, Rig, connect, publish};
use crate::net::NetConfig;

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
