//! Who is let in, and what the others are told.

use super::rig::{Client, Rig, Saw, connect, publish, whole};
use crate::net::NetConfig;
use crate::wire_trait::CloseReason;

fn refusal(rig: &Rig, first: &[u8]) -> Option<Vec<u8>> {
    let mut client = rig.client();
    client.write(first);
    let answer = client.packet();
    if answer.is_some() {
        assert_eq!(client.packet(), None, "closed after the refusal");
    }
    answer
}

fn code(rig: &Rig, first: &[u8]) -> u8 {
    let answer = refusal(rig, first).expect("an answer");
    assert_eq!(answer[0], 0x20);
    answer[3]
}

#[test]
fn a_user_of_either_worker_is_let_in_in_both_versions_and_by_id() {
    let rig = Rig::new(NetConfig::default());
    for user in ["alice", "bob", "0190a5d0-0000-7000-8000-000000000001"] {
        for level in [4, 5] {
            let mut client = rig.client();
            client.write(&connect(level, "c", 0, Some((user, "good"))));
            let answer = client.packet().unwrap();
            assert_eq!((answer[0], answer[3]), (0x20, 0), "{user} {level}");
        }
    }
}

#[test]
fn what_came_behind_the_connect_goes_with_it_to_the_users_worker() {
    let rig = Rig::new(NetConfig::default());
    for user in ["alice", "bob"] {
        let mut client = rig.client();
        let packets = [
            connect(5, "c", 0, Some((user, "good"))),
            publish("early", 7, b"x"),
            vec![0xc0, 0],
        ]
        .concat();
        client.write(&packets);
        assert_eq!(client.packet().unwrap()[0], 0x20);
        assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
        assert_eq!(client.packet().unwrap(), [0xd0, 0]);
    }
    rig.wait(|all| {
        all.iter()
            .filter(|saw| **saw == Saw::Publish("early".into(), 1))
            .count()
            == 2
    });
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let rig = Rig::new(NetConfig::default());
    for (user, password) in [
        ("alice", "bad"),
        ("nobody", "good"),
        ("nobody", "bad"),
        ("Not A Name", "good"),
    ] {
        let login = Some((user, password));
        let v5 = refusal(&rig, &connect(5, "c", 0, login)).unwrap();
        assert_eq!(
            v5,
            refusal(&rig, &connect(5, "c", 0, Some(("bob", "bad")))).unwrap()
        );
        assert_eq!(v5[3], 0x86, "{user}");
        assert_eq!(code(&rig, &connect(4, "c", 0, login)), 4, "{user}");
    }
}

#[test]
fn without_a_user_name_only_an_anonymous_door_opens() {
    let closed = Rig::new(NetConfig::default());
    assert_eq!(code(&closed, &connect(5, "c", 0, None)), 0x87);
    assert_eq!(code(&closed, &connect(4, "c", 0, None)), 5);
    let open = Rig::new(NetConfig {
        anonymous: true,
        ..NetConfig::default()
    });
    let mut client = open.client();
    client.write(&connect(5, "", 0, None));
    let connack = client.packet().unwrap();
    assert_eq!(connack[3], 0);
    assert!(connack.contains(&0x12), "the assigned client id is told");
}

#[test]
fn a_version_that_is_not_served_is_refused_in_words_it_may_know() {
    let rig = Rig::new(NetConfig::default());
    assert_eq!(refusal(&rig, &connect(3, "c", 0, None)).unwrap(), [0x20, 2, 0, 1]);
    assert_eq!(code(&rig, &connect(6, "c", 0, None)), 0x84);
    let mqisdp = whole(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01c");
    assert_eq!(refusal(&rig, &mqisdp).unwrap(), [0x20, 2, 0, 1]);
}

#[test]
fn what_is_not_mqtt_gets_no_answer() {
    let rig = Rig::new(NetConfig::default());
    assert_eq!(refusal(&rig, b"GET / HTTP/1.1\r\n\r\n"), None);
    assert_eq!(refusal(&rig, &publish("t", 1, b"")), None);
    assert_eq!(
        refusal(&rig, &whole(0x10, b"\0\x04MQTX\x05\x02\0\0\0\0\x01c")),
        None
    );
    assert_eq!(refusal(&rig, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
}

#[test]
fn an_authentication_method_is_refused() {
    let rig = Rig::new(NetConfig::default());
    let packet = whole(0x10, b"\0\x04MQTT\x05\x02\0\0\x06\x15\0\x03abc\0\x01c");
    assert_eq!(code(&rig, &packet), 0x8c);
}

#[test]
fn an_empty_client_id_with_a_kept_session_is_refused_in_3_1_1_and_assigned_in_5() {
    let rig = Rig::new(NetConfig::default());
    let mut v3 = connect(4, "", 0, Some(("alice", "good")));
    v3[9] &= !0x02;
    assert_eq!(code(&rig, &v3), 2);
    let mut v5 = connect(5, "", 0, Some(("alice", "good")));
    v5[9] &= !0x02;
    let mut client = rig.client();
    client.write(&v5);
    assert_eq!(client.packet().unwrap()[3], 0);
}

#[test]
fn accounts_that_do_not_answer_are_unavailable() {
    let rig = Rig::new(NetConfig::default());
    assert_eq!(code(&rig, &connect(5, "c", 0, Some(("bob", "failing")))), 0x88);
    assert_eq!(code(&rig, &connect(4, "c", 0, Some(("bob", "failing")))), 3);
    let slow = |login| connect(5, "c", 0, Some(login));
    assert_eq!(
        code(&rig, &slow(("bob", "slow"))),
        0x88,
        "after the time to a CONNACK"
    );
}

#[test]
fn a_home_that_never_answers_hears_that_its_client_was_turned_away() {
    let rig = Rig::new(NetConfig::default());
    assert_eq!(code(&rig, &connect(5, "never", 0, Some(("bob", "good")))), 0x88);
    rig.wait_for(&Saw::Closed(CloseReason::Gone));
}

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    let rig = Rig::new(NetConfig {
        max_connections: 2,
        ..NetConfig::default()
    });
    let login = Some(("alice", "good"));
    let _kept: Vec<Client> = (0..2)
        .map(|_| rig.connected(&connect(5, "c", 0, login)))
        .collect();
    let mut third = rig.client();
    assert_eq!(third.packet(), None);
}
