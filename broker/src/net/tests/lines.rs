//! What many want at once of what is dear waits for its turn: to be let in, to subscribe. Others do not wait for them.

use std::io::Write as _;
use std::net::TcpStream;

use super::bench::{Bench, Came, given, pair};
use super::rig::{connect, publish, whole};
use crate::net::TICKS;
use crate::net::conn::{Conn, Stage};
use crate::net::pace::{ENTERING, OF_A_CONNECT, STRANGERS, SUBSCRIBES, SUBSCRIBING};
use crate::packet::Outgoing;
use crate::wire_trait::{ConnId, Sent, Wire as _};

const A_TURN: usize = STRANGERS / OF_A_CONNECT;

fn stranger(bench: &mut Bench, sends: &[u8]) -> (ConnId, TcpStream) {
    let (ours, mut client) = pair();
    let now = bench.net.now;
    let conn = Conn::new(Bench::tcp(ours), Vec::new(), now, now + 5 * TICKS);
    let id = bench.add(Box::new(conn));
    client.write_all(sends).unwrap();
    (id, client)
}

fn subscribe() -> Vec<u8> {
    whole(0x82, b"\0\x01\0\0\x01t\0")
}

#[test]
fn of_many_who_come_at_once_some_are_let_in_in_a_turn_and_the_rest_in_the_next_ones() {
    let mut bench = Bench::new();
    let sends = connect(5, "c", 0, None);
    let crowd: Vec<_> = (0..2 * A_TURN + 1)
        .map(|_| stranger(&mut bench, &sends))
        .collect();
    let (ours, mut client) = pair();
    let open = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    client.write_all(&publish("t", 1, b"")).unwrap();
    for (id, _) in &crowd {
        bench.ready(*id);
    }
    assert!(bench.came.is_empty());
    bench.ready(open);
    assert_eq!(bench.came, [Came::Publish], "who is in does not wait for them");
    // Nobody is let in here without a name: each is answered, and closed.
    let mut left = crowd.len();
    let mut turns = 0;
    while left > 0 {
        bench.turn();
        turns += 1;
        let mut greets = |id: ConnId| {
            bench
                .net
                .get(id)
                .is_some_and(|conn| conn.stage == Stage::Greeting)
        };
        let now = crowd.iter().filter(|(id, _)| greets(*id)).count();
        assert!(left - now <= A_TURN, "{} in one turn", left - now);
        left = now;
        assert!(turns < 10, "{left} are never read");
    }
    assert_eq!(turns, 3);
}

#[test]
fn who_sends_a_connect_in_crumbs_has_its_turn_like_the_others() {
    let mut bench = Bench::new();
    let crumbs: Vec<_> = (0..STRANGERS + 1)
        .map(|_| stranger(&mut bench, &[0x10]))
        .collect();
    let (last, _client) = stranger(&mut bench, &connect(5, "c", 0, None));
    for (id, _) in &crumbs {
        bench.ready(*id);
    }
    bench.ready(last);
    bench.turn();
    assert_eq!(bench.conn(last).stage, Stage::Greeting, "behind those before it");
    bench.turn();
    assert_ne!(bench.conn(last).stage, Stage::Greeting);
}

#[test]
fn of_many_who_subscribe_at_once_the_rest_wait_and_nothing_overtakes_on_their_connections() {
    let mut bench = Bench::new();
    let mut crowd = Vec::new();
    for _ in 0..3 * SUBSCRIBES {
        let (ours, mut client) = pair();
        let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
        let sends = [subscribe(), publish("t", 1, b"")].concat();
        client.write_all(&sends).unwrap();
        crowd.push((id, client));
    }
    let both = [Came::Subscribe, Came::Publish];
    for (id, _) in &crowd {
        bench.ready(*id);
    }
    assert_eq!(bench.came, both.repeat(SUBSCRIBES));
    let (ours, mut client) = pair();
    let other = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    // Its opening was the end of a turn.
    assert_eq!(bench.came, both.repeat(2 * SUBSCRIBES));
    client.write_all(&publish("t", 1, b"")).unwrap();
    bench.ready(other);
    assert_eq!(
        bench.came.pop(),
        Some(Came::Publish),
        "who does not subscribe does not wait"
    );
    bench.turn();
    assert_eq!(bench.came, both.repeat(3 * SUBSCRIBES), "all had their turn");
}

#[test]
fn of_those_who_subscribe_so_many_are_unanswered_at_a_time() {
    let mut bench = Bench::new();
    let mut crowd = Vec::new();
    for _ in 0..SUBSCRIBING + 3 {
        let (ours, mut client) = pair();
        let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
        client.write_all(&subscribe()).unwrap();
        crowd.push((id, client));
    }
    for (id, _) in &crowd {
        bench.ready(*id);
    }
    for _ in 0..SUBSCRIBING {
        bench.turn();
    }
    assert_eq!(bench.came.len(), SUBSCRIBING, "nobody was answered");
    // One is answered, and one goes.
    assert_eq!(
        bench.net.send(crowd[0].0, &Outgoing::Suback(1, vec![1])),
        Sent::Taken
    );
    bench.turn();
    assert_eq!(bench.came.len(), SUBSCRIBING + 1);
    bench.net.close(crowd[1].0, None);
    bench.turn();
    assert_eq!(bench.came.len(), SUBSCRIBING + 2);
    bench.harness.advance(1_000);
    bench.turn();
    assert_eq!(
        bench.came.len(),
        SUBSCRIBING + 3,
        "the others have not been answered for long"
    );
}

#[test]
fn of_those_who_are_let_in_so_many_are_with_their_homes_at_a_time() {
    let mut bench = Bench::new();
    bench.net.config.anonymous = true;
    let crowd: Vec<_> = (0..ENTERING + 4)
        .map(|number| stranger(&mut bench, &connect(5, &format!("c{number}"), 0, None)))
        .collect();
    for (id, _) in &crowd {
        bench.ready(*id);
    }
    for _ in 0..crowd.len() {
        bench.turn();
    }
    let with_home = |bench: &mut Bench| {
        let is_there = |(id, _): &&(ConnId, TcpStream)| {
            let conn = bench.net.get(*id);
            conn.is_some_and(|conn| conn.unanswered.connect)
        };
        crowd.iter().filter(is_there).count()
    };
    assert_eq!(with_home(&mut bench), ENTERING, "nobody was answered");
    let kept = bench.net.arriving.len();
    assert_eq!(kept, crowd.len(), "the others are known, and wait");
    // One is let in, one is refused, one goes; each makes room for one more.
    let (id, _) = crowd[0];
    assert!(bench.net.entered(id.to_tag()).is_some());
    let welcome = Outgoing::Connack(Box::default());
    assert_eq!(bench.net.send(id, &welcome), Sent::Taken);
    bench.turn();
    assert_eq!(with_home(&mut bench), ENTERING);
    assert!(bench.conn(crowd[ENTERING].0).unanswered.connect, "in order");
    bench
        .net
        .refuse(crowd[1].0, crate::codec::reason::SERVER_UNAVAILABLE);
    bench.turn();
    assert!(bench.conn(crowd[ENTERING + 1].0).unanswered.connect);
    bench.net.close(crowd[2].0, None);
    bench.turn();
    assert!(bench.conn(crowd[ENTERING + 2].0).unanswered.connect);
    assert!(!bench.conn(crowd[ENTERING + 3].0).unanswered.connect);
    // Nobody has been answered for long: it is not this worker that is busy.
    bench.harness.advance(1_000);
    bench.turn();
    assert!(bench.conn(crowd[ENTERING + 3].0).unanswered.connect);
}
