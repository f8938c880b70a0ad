//! Clients whose home goes to another node, or that came by one that leaves: who is told what, and when.

use std::time::{Duration, Instant};

use super::rig::{Client, Saw, publish};
use super::two::{Two, comes_in, in_time, view};
use crate::wire_trait::CloseReason;

/// Whether a packet says that another server is to be used, and which.
fn says(packet: Option<Vec<u8>>, server: &str) -> bool {
    let packet = packet.unwrap_or_default();
    let names = packet.windows(server.len()).any(|part| part == server.as_bytes());
    // Reason code of a DISCONNECT and of a CONNACK.
    let place = if packet.first() == Some(&0x20) { 3 } else { 2 };
    names && packet.get(place) == Some(&0x9c)
}

fn at_home(two: &Two, level: u8) -> Client {
    let mut client = two.home.client();
    client.write(&two.connect(level));
    comes_in(&mut client);
    client
}

#[test]
fn who_is_at_home_and_who_came_by_another_node_are_told_where_the_home_went() {
    let two = Two::new();
    let mut here = two.here.client();
    here.write(&two.connect(5));
    comes_in(&mut here);
    let mut home = at_home(&two, 5);
    let mut old = at_home(&two, 4);
    two.give_up(&view(2, &[1, 3], &[2]));
    assert!(says(home.packet(), "n3:1883"));
    assert!(says(here.packet(), "n3:1883"));
    for client in [&mut here, &mut home, &mut old] {
        assert_eq!(client.packet(), None);
    }
    drop((here, home, old));
    two.is_empty();
    assert_eq!(two.home.metrics.going.get(), 0);
    assert!(
        two.home.shared.saw.lock().unwrap().is_empty(),
        "the home hears no more"
    );
}

#[test]
fn who_cannot_be_told_where_to_go_hears_that_the_server_shuts_down() {
    let two = Two::new();
    let mut client = at_home(&two, 5);
    two.give_up(&view(2, &[1, 4], &[2]));
    assert_eq!(client.packet().unwrap()[2], 0x8b);
    assert_eq!(client.packet(), None);
}

#[test]
fn many_are_told_a_few_at_a_time() {
    let two = Two::new();
    let mut clients: Vec<Client> = (0..130).map(|_| at_home(&two, 5)).collect();
    let began = Instant::now();
    two.give_up(&view(2, &[1, 3], &[2]));
    for client in &mut clients {
        assert!(says(client.packet(), "n3:1883"));
    }
    // Fifty, a pause of at least 16 ms, fifty, another one, and the rest.
    assert!(began.elapsed() >= Duration::from_millis(32));
    drop(clients);
    two.is_empty();
}

#[test]
fn who_came_by_a_node_that_leaves_is_served_until_it_is_told_and_its_session_knows_why_it_ended() {
    let two = Two::new();
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    client.write(&publish("t", 7, b"served"));
    assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
    let mut stays = at_home(&two, 5);
    two.tell(2, &view(2, &[2], &[1]));
    assert!(says(client.packet(), "n2:1883"));
    assert_eq!(client.packet(), None);
    two.home.wait_for(&Saw::Closed(CloseReason::Moved));
    stays.write(&publish("t", 8, b"served"));
    assert_eq!(stays.packet().unwrap(), [0x40, 2, 0, 8]);
    drop((client, stays));
    two.is_empty();
}

#[test]
fn while_a_node_leaves_new_clients_are_sent_to_their_home() {
    let two = Two::new();
    two.tell(1, &view(2, &[2], &[1]));
    in_time("the workers do not know", || {
        let mut client = two.here.client();
        client.write(&two.connect(5));
        says(client.packet(), "n2:1883")
    });
    let mut old = two.here.client();
    old.write(&two.connect(4));
    assert_eq!(
        old.packet().unwrap(),
        [0x20, 2, 0, 3],
        "3.1.1 says: server unavailable"
    );
    drop(old);
    two.is_empty();
}

#[test]
fn what_is_on_its_way_over_a_node_that_ends_arrives_and_then_the_word_where_to_go() {
    let mut two = Two::new();
    let mut clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = two.here.client();
            client.write(&two.connect(5));
            comes_in(&mut client);
            client
        })
        .collect();
    // The home leaves its pipes for a while.
    let mut other = at_home(&two, 5);
    other.write(&publish("nap", 1, b""));
    two.home.wait_for(&Saw::Publish("nap".into(), 0));
    let before = two.passed();
    let publish = publish("t", 7, b"");
    clients.iter_mut().for_each(|client| client.write(&publish));
    in_time("it does not come", || {
        two.passed() == before + clients.len() * publish.len()
    });
    two.tell(2, &view(2, &[2], &[1]));
    two.here.stop();
    for client in &mut clients {
        assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
        assert!(says(client.packet(), "n2:1883"));
    }
    for client in &mut clients {
        assert_eq!(client.packet(), None);
    }
    drop((clients, other));
    two.is_empty();
}
