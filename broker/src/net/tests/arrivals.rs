//! Clients whose home is on another worker, and what they sent before they were known.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use godwit_cluster::RoleId;
use godwit_wire::ids::{Key, UserId};

use super::bench::pair;
use super::rig::{Client, Rig, Saw, connect, publish};
use crate::net::{NetConfig, NewConnection, NewTransport};

/// A client that sent all this before worker 0 got its connection.
fn sent_ahead(rig: &Rig, bytes: &[u8]) -> Client {
    let (ours, client) = pair();
    let peer = ours.peer_addr().unwrap();
    let mut client = Client(client);
    client.write(bytes);
    let new = NewConnection {
        transport: NewTransport::Tcp(ours),
        peer,
        already_read: Vec::new(),
    };
    rig.router().hand_over(0, RoleId::Broker, Box::new(new));
    client
}

#[test]
fn what_came_behind_the_connect_of_a_client_known_by_id_or_by_nothing_goes_with_it() {
    let rig = Rig::new(NetConfig {
        anonymous: true,
        ..NetConfig::default()
    });
    let there = |user: &UserId| Key::User(*user).shard() % 2 == 1;
    let user = std::iter::repeat_with(UserId::fresh)
        .find(there)
        .unwrap()
        .to_string();
    let mut names = (0..).map(|number| format!("client-{number}"));
    let nobody = names.find(|name| there(&UserId::anonymous(name))).unwrap();
    for greeting in [
        connect(5, "c", 0, Some((&user, "good"))),
        connect(5, &nobody, 0, None),
    ] {
        let last = publish("last", 8, b"y");
        let packets = [&greeting[..], &publish("early", 7, b"x"), &last[..9]].concat();
        let mut client = sent_ahead(&rig, &packets);
        assert_eq!(client.packet().unwrap()[0], 0x20);
        assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
        // The other half of a packet that was cut.
        client.write(&last[9..]);
        assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 8]);
    }
    rig.wait(|all| {
        all.iter()
            .filter(|saw| **saw == Saw::Publish("last".into(), 1))
            .count()
            == 2
    });
}

/// FAULTS.md, row 19, at small scale: silent sockets, sockets that dribble, sockets whose client has vanished.
#[test]
fn sockets_that_never_say_who_they_are_are_closed_in_time_and_do_not_slow_others() {
    let rig = Rig::new(NetConfig::default());
    let began = Instant::now();
    let greeting = connect(5, "c", 0, Some(("alice", "good")));
    // Fewer than may wait at the listener: one more would come a second later.
    let mut sockets: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(rig.at).unwrap()).collect();
    let mut slowest = Duration::ZERO;
    let mut dribbled = 0;
    // A byte a quarter of a second, of a CONNECT that would take far longer than the deadline.
    while began.elapsed() < Duration::from_millis(4_500) {
        if let Some(byte) = greeting.get(dribbled..dribbled + 1) {
            for socket in sockets.iter_mut().step_by(2) {
                let _ = std::io::Write::write_all(socket, byte);
            }
            dribbled += 1;
        }
        let asked = Instant::now();
        drop(rig.connected(&greeting));
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(dribbled < greeting.len(), "nobody has said all");
    for socket in sockets {
        assert_eq!(Client(socket).packet(), None);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(7_500), "{took:?}");
    let until = Instant::now() + Duration::from_secs(2);
    while rig.metrics.connections.get() != 0 {
        assert!(Instant::now() < until, "{}", rig.metrics.connections.get());
        std::thread::sleep(Duration::from_millis(5));
    }
}
