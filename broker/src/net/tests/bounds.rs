//! Framing over a real socket, pauses, slow consumers, oversized and broken packets.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::rig::{Client, Rig, Saw, connect, publish, whole};
use crate::net::NetConfig;
use crate::wire_trait::CloseReason;

fn alice(rig: &Rig) -> Client {
    rig.connected(&connect(5, "c", 0, Some(("alice", "good"))))
}

#[test]
fn packets_sent_byte_by_byte_and_many_at_once_arrive_whole_and_in_order() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig);
    client.0.set_nodelay(true).unwrap();
    for byte in publish("crumbs", 1, b"abc") {
        client.write(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 1]);
    let many: Vec<u8> = (1..=2_000)
        .flat_map(|id| publish("many", id, &[0; 100]))
        .collect();
    client.write(&many);
    for id in 1..=2_000u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet().unwrap(), [0x40, 2, high, low]);
    }
}

#[test]
fn a_packet_of_the_largest_size_is_taken_and_one_larger_is_refused_by_its_header() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig);
    let most = 256 * 1024;
    let packet = publish("big", 3, &vec![1; most - 4 - 5 - 2 - 1]);
    assert_eq!(packet.len(), most);
    client.write(&packet);
    assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 3]);
    let before = Instant::now();
    client.write(&[0x32, 0xff, 0xff, 0xff, 0x7f]);
    let answer = client.packet().unwrap();
    assert_eq!((answer[0], answer[2]), (0xe0, 0x95));
    assert!(before.elapsed() < Duration::from_millis(500));
    rig.wait_for(&Saw::Closed(CloseReason::Protocol(0x95)));
}

#[test]
fn a_connect_over_16_kib_is_refused_with_its_code_or_without_a_word() {
    let rig = Rig::new(NetConfig::default());
    let long = "x".repeat(17_000);
    let mut client = rig.client();
    client.write(&connect(5, "c", 0, Some(("alice", &long))));
    assert_eq!(client.packet().unwrap()[3], 0x95);
    let mut client = rig.client();
    client.write(&connect(4, "c", 0, Some(("alice", &long))));
    assert_eq!(client.packet(), None);
}

#[test]
fn an_offender_is_told_why_although_it_sent_more_than_was_read() {
    let rig = Rig::new(NetConfig::default());
    for (packet, reason) in [
        (connect(5, "c", 0, None), 0x82),
        (vec![0xf0, 0], 0x82),
        (publish("wild/+", 1, b""), 0x90),
        (whole(0x36, b"\0\x01t\0\x01\0"), 0x81),
        (vec![0x20, 2, 0, 0], 0x82),
    ] {
        let mut client = alice(&rig);
        let more = publish("t", 9, &[0; 60_000]).repeat(4);
        client.write(&[packet, more].concat());
        let answer = client.packet().expect("a DISCONNECT");
        assert_eq!((answer[0], answer[2]), (0xe0, reason));
        assert!(
            client.ends_in_order(),
            "a reset may destroy the reason before it is read"
        );
        rig.wait_for(&Saw::Closed(CloseReason::Protocol(reason)));
    }
}

/// Data and end come in one readiness, since the worker is held up meanwhile.
#[test]
fn a_client_that_closes_right_behind_its_data_is_noticed_without_keep_alive() {
    let rig = Rig::new(NetConfig::default());
    let mut holder = alice(&rig);
    let clients: Vec<Client> = (0..20).map(|_| alice(&rig)).collect();
    holder.write(&publish("nap", 1, b""));
    rig.wait_for(&Saw::Publish("nap".into(), 0));
    for mut client in clients {
        client.write(&whole(0x30, b"\0\x04last\0"));
    }
    let gone = |all: &[Saw]| {
        all.iter()
            .filter(|saw| **saw == Saw::Closed(CloseReason::Gone))
            .count()
    };
    rig.wait(|all| gone(all) == 20);
    let last = Saw::Publish("last".into(), 0);
    let lasts = rig
        .shared
        .saw
        .lock()
        .unwrap()
        .iter()
        .filter(|saw| **saw == last)
        .count();
    assert_eq!(lasts, 20, "what came before the end was given");
}

#[test]
fn a_paused_client_is_given_nothing_and_then_everything_in_order() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig);
    let mut packets = publish("pause", 1, b"");
    for id in 2..=1_000 {
        packets.extend(publish("behind", id, &[0; 200]));
    }
    client.write(&packets);
    rig.wait_for(&Saw::Publish("pause".into(), 0));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        rig.shared.saw.lock().unwrap().len(),
        1,
        "nothing comes up while paused"
    );
    for id in 1..=1_000u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet().unwrap(), [0x40, 2, high, low]);
    }
}

#[test]
fn a_slow_consumer_gets_everything_in_order_with_a_bound_on_what_is_kept() {
    let rig = Rig::new(NetConfig::default());
    let mut slow = alice(&rig);
    slow.write(&publish("flood", 1, b""));
    std::thread::sleep(Duration::from_millis(300));
    let kept = rig.metrics.kept_bytes.get();
    assert!(kept < 300 * 1024, "{kept}");
    let mut fast = rig.connected(&connect(5, "f", 0, Some(("bob", "good"))));
    fast.write(&publish("t", 5, b""));
    assert_eq!(fast.packet().unwrap(), [0x40, 2, 0, 5]);
    let (mut expected, mut acked) = (0u32, false);
    while expected < 4_000 || !acked {
        let packet = slow.packet().unwrap();
        if packet[0] == 0x40 {
            acked = true;
            continue;
        }
        let payload = &packet[packet.len() - 1_024..];
        assert_eq!(payload[..4], expected.to_be_bytes());
        expected += 1;
    }
    let until = Instant::now() + Duration::from_secs(2);
    while rig.metrics.kept_bytes.get() != 0 {
        assert!(Instant::now() < until, "{}", rig.metrics.kept_bytes.get());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_takes_nothing_is_not_read_for_ever() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig);
    client
        .0
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let pings = [0xc0u8, 0].repeat(512 * 1024);
    let mut stopped = false;
    for _ in 0..64 {
        if std::io::Write::write_all(&mut client.0, &pings).is_err() {
            stopped = true;
            break;
        }
    }
    assert!(stopped, "it is not read beyond what it takes");
    assert!(
        rig.metrics.kept_bytes.get() < 1 << 20,
        "{}",
        rig.metrics.kept_bytes.get()
    );
    let mut some = vec![0; 1 << 20];
    assert!(client.0.read(&mut some).unwrap() > 0);
}

#[test]
fn a_disconnect_ends_the_connection() {
    let rig = Rig::new(NetConfig::default());
    let mut client = alice(&rig);
    client.write(&[0xe0, 0]);
    assert_eq!(client.packet(), None);
    assert_eq!(
        *rig.shared.saw.lock().unwrap(),
        [Saw::Disconnect],
        "the home is not told what it did itself"
    );
    let until = Instant::now() + Duration::from_secs(2);
    while rig.metrics.connections.get() != 0 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
}
