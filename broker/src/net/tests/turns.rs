//! What one turn may do: who is read again, what is put off, what counts as a sign of life.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use godwit_wire::ids::UserId;
use socket2::SockRef;

use super::bench::{Bench, Came, connack, given, harness, pair, publish_out};
use super::rig::whole;
use crate::net::conn::Arrival;
use crate::net::pace::{ENDS, LOOKS};
use crate::net::{ROOM, TICKS};
use crate::packet::Outgoing;
use crate::wire_trait::{CloseReason, Sent, Wire};

fn publish() -> Vec<u8> {
    whole(0x30, b"\0\x01t\0")
}

/// Writes until the other side is gone, or 20 s.
fn pour(mut client: TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    client
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && client.write_all(&bytes).is_ok() {}
    })
}

#[test]
fn a_client_that_never_stops_sending_is_read_once_a_turn_whatever_else_it_causes() {
    let mut bench = Bench::new();
    let (ours, client) = pair();
    // So much that a turn does not empty it.
    SockRef::from(&ours).set_recv_buffer_size(1 << 20).unwrap();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    let mut bytes = publish().repeat(8_192);
    bytes.extend([0xc0, 0]);
    let pouring = pour(client.try_clone().unwrap(), bytes);
    // Its answers are taken, so that it is read on and on.
    let answers = std::thread::spawn(move || {
        let mut client = client;
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        while client.read(&mut [0; 4_096]).is_ok_and(|len| len > 0) {}
    });
    let until = Instant::now() + Duration::from_secs(10);
    while bench.came.len() < 200_000 {
        assert!(Instant::now() < until, "it is read: {}", bench.came.len());
        bench.ready(id);
        bench.turn();
        assert!(bench.net.again.len() <= 1, "{}", bench.net.again.len());
    }
    let _ = bench
        .conn(id)
        .transport
        .socket()
        .unwrap()
        .shutdown(Shutdown::Both);
    pouring.join().unwrap();
    answers.join().unwrap();
}

#[test]
fn what_came_is_put_off_while_there_is_no_room_behind_and_then_goes_on_in_order() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    client.write_all(&publish().repeat(1_000)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    bench.batches = 1_000;
    for _ in 0..5 {
        bench.ready(id);
        bench.turn();
        assert!(
            bench.came.len() <= 32,
            "a segment is not taken whole: {}",
            bench.came.len()
        );
        assert_eq!((bench.net.again.len(), bench.net.waiting.len()), (0, 1));
    }
    client.write_all(&publish().repeat(500)).unwrap();
    let (other, mut second) = pair();
    let other = bench.open(Bench::tcp(other), &given(0, u32::MAX));
    second.write_all(&publish()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = bench.came.len();
    for _ in 0..3 {
        bench.ready(other);
        bench.turn();
        assert_eq!(bench.came.len(), before, "nor is another read");
        assert_eq!((bench.net.again.len(), bench.net.waiting.len()), (0, 2));
    }
    // There is room again.
    (bench.harness, bench.batches) = (harness(), 0);
    for _ in 0..4 {
        bench.turn();
    }
    assert_eq!(bench.came, [Came::Publish; 1_501]);
    assert_eq!((bench.net.again.len(), bench.net.waiting.len()), (0, 0));
}

#[test]
fn those_that_go_while_they_are_put_off_are_forgotten() {
    let mut bench = Bench::new();
    bench.batches = 5_000;
    for _ in 0..3 {
        let (ours, mut client) = pair();
        let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
        client.write_all(&publish().repeat(20)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        bench.ready(id);
        bench.net.close(id, None);
    }
    assert!(!bench.net.waiting.is_empty());
    bench.tick();
    assert!(bench.net.waiting.is_empty());
}

#[test]
fn the_wheel_looks_at_every_connection_within_ten_minutes() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        let (ours, _client) = pair();
        let id = bench.open(Bench::tcp(ours), &given(u16::MAX, u32::MAX));
        bench.net.close(id, None);
    }
    let last = *bench.net.wheel.keys().max().unwrap();
    assert!(last <= bench.net.now + 600 * TICKS, "{last}");
}

#[test]
fn room_is_looked_for_in_the_socket_before_there_is_none() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    let mut sent = 0;
    while bench.conn(id).out.len() < ROOM {
        assert_eq!(bench.net.send(id, &publish_out(1_000)), Sent::Taken);
        sent += 1;
    }
    assert!(bench.net.room(id), "a socket that takes it has room");
    // Nobody reads: then there is none, without a further try, until the client takes some.
    while bench.net.room(id) {
        assert_eq!(bench.net.send(id, &publish_out(1_000)), Sent::Taken);
        sent += 1;
    }
    assert!(bench.conn(id).out.len() >= ROOM);
    bench.turn();
    assert!(!bench.came.contains(&Came::Drained));
    let mut got = 0;
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut some = vec![0; 64 << 10];
    while got < sent * (1_000 + 3 + 3 + 1) {
        got += client.read(&mut some).unwrap();
        bench.ready(id);
    }
    assert_eq!(bench.came, [Came::Drained]);
    assert!(bench.net.room(id));
}

#[test]
fn a_client_that_takes_what_is_kept_for_it_is_alive_and_read_as_soon_as_there_is_room() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    SockRef::from(&ours).set_send_buffer_size(8 << 10).unwrap();
    SockRef::from(&client).set_recv_buffer_size(16 << 10).unwrap();
    let id = bench.open(Bench::tcp(ours), &given(10, u32::MAX));
    while bench.conn(id).out.len() < 2 * ROOM {
        assert_eq!(bench.net.send(id, &publish_out(1_000)), Sent::Taken);
    }
    bench.turn();
    client.write_all(&[0xc0, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    bench.ready(id);
    assert!(bench.conn(id).unread, "it is not read beyond what it takes");
    bench.harness.advance(14_000);
    let mut some = vec![0; 16 << 10];
    let mut below = false;
    while !below {
        let _ = client.read(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let before = bench.conn(id).out.len();
        assert!(before >= ROOM / 2, "the socket takes little at a time");
        bench.step_writable(id);
        let now = bench.net.now;
        let conn = bench.conn(id);
        if conn.out.len() < before {
            assert_eq!(conn.last_in, now, "it takes, so it is there");
        }
        below = conn.out.len() < ROOM;
    }
    assert!(bench.conn(id).out.len() >= ROOM / 2);
    bench.turn();
    assert!(
        !bench.conn(id).unread,
        "its PINGREQ is read without a further readiness"
    );
}

#[test]
fn what_a_vanished_client_has_not_taken_goes_with_its_connection() {
    let mut bench = Bench::new();
    let (ours, mut client) = pair();
    SockRef::from(&ours).set_send_buffer_size(8 << 10).unwrap();
    SockRef::from(&client).set_recv_buffer_size(16 << 10).unwrap();
    let id = bench.open(Bench::tcp(ours), &given(2, u32::MAX));
    while bench.conn(id).out.len() < ROOM {
        assert_eq!(bench.net.send(id, &publish_out(1_000)), Sent::Taken);
    }
    bench.turn();
    bench.harness.advance(3_500);
    bench.turn();
    bench.tick();
    assert_eq!(bench.came, [Came::Closed(CloseReason::KeepAlive)]);
    let conn = bench.conn(id);
    assert_eq!((conn.out.capacity(), conn.input.capacity()), (0, 0));
    bench.harness.advance(2_500);
    bench.turn();
    bench.tick();
    assert!(bench.net.get(id).is_none());
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut some = vec![0; 64 << 10];
    let error = loop {
        match client.read(&mut some) {
            Ok(got) => assert!(
                got > 0,
                "the operating system goes on for a client that has vanished"
            ),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_takes_no_packet_as_large_as_its_answer_is_told_so() {
    let mut bench = Bench::new();
    let answer = |client: &mut TcpStream| {
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut bytes = vec![0; 64];
        let len = client.read(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    };
    let (ours, mut client) = pair();
    let id = bench.attached(Bench::tcp(ours), &given(0, 8));
    assert_eq!(bench.net.send(id, &connack()), Sent::TooLarge);
    bench.turn();
    let told = answer(&mut client);
    assert_eq!((told[0], told[3]), (0x20, 0x95));
    let (ours, mut client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, 60));
    assert_eq!(answer(&mut client)[0], 0x20);
    assert_eq!(bench.net.send(id, &publish_out(100)), Sent::TooLarge);
    assert_eq!(
        bench.net.send(id, &Outgoing::Suback(1, vec![0; 100])),
        Sent::TooLarge
    );
    bench.turn();
    let told = answer(&mut client);
    assert_eq!((told[0], told[2]), (0xe0, 0x95));
    assert_eq!(bench.came, [Came::Closed(CloseReason::Protocol(0x95)); 2]);
    let (ours, mut client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, 60));
    assert_eq!(answer(&mut client)[0], 0x20);
    assert_eq!(bench.net.send(id, &publish_out(100)), Sent::TooLarge);
    bench.turn();
    assert_eq!(
        bench.came.len(),
        2,
        "a PUBLISH that is too large counts as delivered"
    );
}

#[test]
fn who_may_be_silent_for_long_is_looked_for_by_the_operating_system() {
    let mut bench = Bench::new();
    for (keep_alive, probed) in [(0, true), (60, false), (1_800, false), (u16::MAX, true)] {
        let (ours, _client) = pair();
        let id = bench.open(Bench::tcp(ours), &given(keep_alive, u32::MAX));
        let socket = bench.conn(id).transport.socket().unwrap();
        assert_eq!(
            SockRef::from(&*socket).keepalive().unwrap(),
            probed,
            "{keep_alive}"
        );
    }
}

#[test]
fn no_listener_waits_for_ever_behind_one_at_which_very_many_wait() {
    let mut bench = Bench::new();
    let listener = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        socket.listen(600).unwrap();
        std::net::TcpListener::from(socket)
    };
    let (crowded, quiet) = (listener(), listener());
    let connect = |to: &std::net::TcpListener| TcpStream::connect(to.local_addr().unwrap()).unwrap();
    let mut crowd: Vec<_> = (0..300).map(|_| connect(&crowded)).collect();
    let waiting = connect(&quiet);
    let waiting = waiting.local_addr().unwrap();
    bench.listen(crowded.try_clone().unwrap());
    bench.listen(quiet.try_clone().unwrap());
    for round in 0.. {
        assert!(round < 3, "it waits behind the other");
        let slots = &mut bench.net.slots;
        let mut conns = slots.iter_mut().filter_map(|slot| slot.conn.as_mut());
        if conns.any(|conn| {
            conn.transport
                .socket()
                .and_then(|socket| socket.peer_addr().ok())
                .is_some_and(|peer| peer == waiting)
        }) {
            break;
        }
        crowd.extend((0..32).map(|_| connect(&crowded)));
        bench.accept_again();
    }
}

#[test]
fn the_time_of_a_reauthentication_does_not_run_while_its_client_is_not_read() {
    let mut bench = Bench::new();
    let (ours, _client) = pair();
    let id = bench.open(Bench::tcp(ours), &given(0, u32::MAX));
    bench.net.begin_challenge(id);
    let pass = |bench: &mut Bench, seconds: u64| {
        for _ in 0..seconds * u64::from(TICKS) {
            bench.harness.advance(1_000 / u64::from(TICKS));
            // Tells the time too.
            bench.turn();
            bench.tick();
        }
    };
    pass(&mut bench, 4);
    bench.net.pause(id, true);
    pass(&mut bench, 30);
    assert!(bench.came.is_empty(), "not read for 30 s");
    bench.net.pause(id, false);
    pass(&mut bench, 4);
    assert!(bench.came.is_empty(), "it has its time again");
    pass(&mut bench, 3);
    assert_eq!(bench.came, [Came::Closed(CloseReason::Protocol(0x87))]);
}

#[test]
fn of_many_that_go_at_once_a_part_is_ended_in_a_turn_and_all_in_the_end() {
    let mut bench = Bench::new();
    let many = 4 * ENDS;
    let mut ids = Vec::new();
    for _ in 0..many {
        let (ours, client) = pair();
        ids.push(bench.open(Bench::tcp(ours), &given(0, u32::MAX)));
        drop(client);
    }
    for id in &ids {
        bench.ready(*id);
    }
    assert_eq!(bench.came.len(), ENDS);
    // Readiness that comes again changes nothing.
    bench.ready(ids[many - 1]);
    let mut turns = 0;
    while bench.came.len() < many {
        bench.turn();
        turns += 1;
        assert!(
            bench.came.len() <= (turns + 1) * ENDS,
            "{} after {turns}",
            bench.came.len()
        );
    }
    assert_eq!(bench.came, vec![Came::Closed(CloseReason::Gone); many]);
}

#[test]
fn deadlines_of_many_in_one_tick_are_met_a_part_a_turn() {
    let mut bench = Bench::new();
    let many = 2 * LOOKS + 1;
    let clients: Vec<TcpStream> = (0..many)
        .map(|_| {
            let (ours, client) = pair();
            bench.open(Bench::tcp(ours), &given(1, u32::MAX));
            client
        })
        .collect();
    bench.harness.advance(10_000);
    // It tells the time.
    bench.turn();
    bench.tick();
    assert_eq!(bench.came.len(), LOOKS);
    bench.turn();
    assert_eq!(bench.came.len(), 2 * LOOKS);
    bench.turn();
    assert_eq!(bench.came, vec![Came::Closed(CloseReason::KeepAlive); many]);
    drop(clients);
}

#[test]
fn who_is_between_connect_and_home_is_known_by_user_and_forgotten_however_it_goes_on() {
    let mut bench = Bench::new();
    let user = UserId::fresh();
    let arrive = |bench: &mut Bench, user| {
        let (ours, client) = pair();
        let id = bench.attached(Bench::tcp(ours), &given(0, u32::MAX));
        bench.conn(id).owned = false;
        let arrival = Arrival {
            connect: given(0, u32::MAX),
            user,
            principal: None,
            nobody: false,
            raw: None,
            awaited: false,
        };
        bench.net.keep_arrival(id, Box::new(arrival));
        (id, client)
    };
    let (first, _one) = arrive(&mut bench, user);
    let (second, _two) = arrive(&mut bench, user);
    let (other, _three) = arrive(&mut bench, UserId::fresh());
    assert_eq!(bench.net.arriving.of(user), [first, second]);
    assert!(bench.net.take_arrival(first).is_some());
    assert_eq!(bench.net.arriving.of(user), [second]);
    bench.net.not_entered(user);
    assert!(bench.net.arriving.of(user).is_empty());
    assert_eq!(bench.net.arriving.len(), 1);
    bench.net.close(other, None);
    assert_eq!(bench.net.arriving.len(), 0);
}
