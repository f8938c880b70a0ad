//! What is kept for a client that takes nothing: where it ends, and that others have nothing of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use super::bench::{Bench, Came, given, pair};
use crate::net::{KEPT_MOST, ROOM, SLOW_SECONDS};
use crate::packet::Outgoing;
use crate::wire_trait::{CloseReason, ConnId, Sent, Wire};

/// Bytes of a SUBACK for so many filters, in MQTT 5.
const fn suback(filters: usize) -> usize {
    1 + 2 + 2 + 1 + filters
}

/// A connection whose operating system takes nothing any more.
fn stuck(bench: &mut Bench) -> (ConnId, TcpStream) {
    let (ours, client) = pair();
    SockRef::from(&ours).set_send_buffer_size(8 << 10).unwrap();
    SockRef::from(&client).set_recv_buffer_size(16 << 10).unwrap();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    let mut quiet = 0;
    while quiet < 3 {
        let answer = Outgoing::Suback(1, vec![0; 1_000]);
        assert_eq!(bench.net.send(id, &answer), Sent::Taken);
        let before = bench.conn(id).out.len();
        assert!(before < ROOM, "the socket takes all of it");
        bench.turn();
        std::thread::sleep(Duration::from_millis(1));
        quiet = if bench.conn(id).out.len() == before {
            quiet + 1
        } else {
            0
        };
    }
    (id, client)
}

#[test]
fn who_takes_none_of_its_answers_is_closed_behind_the_most_that_is_kept_and_no_earlier() {
    let mut bench = Bench::new();
    let (id, mut client) = stuck(&mut bench);
    let (ours, mut other) = pair();
    let beside = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    // Answers alone: nobody asks for room before them.
    while bench.conn(id).out.len() + suback(1_000) <= KEPT_MOST - suback(200) {
        let answer = Outgoing::Suback(1, vec![0; 1_000]);
        assert_eq!(bench.net.send(id, &answer), Sent::Taken);
        bench.turn();
    }
    let left = KEPT_MOST - bench.conn(id).out.len();
    let last = Outgoing::Suback(1, vec![0; left - suback(0)]);
    assert_eq!(bench.net.send(id, &last), Sent::Taken);
    for _ in 0..3 {
        bench.turn();
    }
    assert_eq!(bench.conn(id).out.len(), KEPT_MOST);
    assert_eq!(bench.net.metrics.kept_bytes.get(), KEPT_MOST as i64);
    assert!(!bench.net.room(id), "it is given no more PUBLISHes long since");
    assert_eq!(bench.came, [], "as much as may be is not too much");

    assert_eq!(bench.net.send(id, &Outgoing::Pingresp), Sent::Taken);
    bench.turn();
    assert_eq!(
        bench.came,
        [Came::Closed(CloseReason::TooSlow)],
        "its home hears of it"
    );
    let conn = bench.conn(id);
    assert_eq!(
        (conn.out.capacity(), conn.input.capacity()),
        (0, 0),
        "its memory is free although it stays for a while to be told"
    );
    // What the operating system had is still to be read, and nothing comes behind it.
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut taken, mut some) = (0, vec![0; 64 << 10]);
    while let Ok(len @ 1..) = client.read(&mut some) {
        taken += len;
    }
    assert!(taken > 0 && taken < KEPT_MOST, "{taken}");

    // The one beside it is served.
    other.write_all(&[0xc0, 0]).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    bench.ready(beside);
    bench.turn();
    let mut bytes = Vec::new();
    while !bytes.ends_with(&[0xd0, 0]) {
        let len = other.read(&mut some).unwrap();
        assert!(len > 0, "it was closed");
        bytes.extend_from_slice(&some[..len]);
    }
    drop(client);
    bench.harness.advance(u64::from(SLOW_SECONDS) * 1_000 + 1_000);
    bench.turn();
    bench.tick();
    assert!(bench.net.get(id).is_none());
    assert_eq!(bench.net.metrics.kept_bytes.get(), 0);
}
