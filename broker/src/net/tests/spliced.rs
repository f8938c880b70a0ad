//! Clients at a node that is not their user's home: what goes from one to the other, and what ends.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_cluster::{Pipe as _, RoleId};
use godwit_wire::command::{Command, UserCommand};
use godwit_wire::ids::{Key, UserId};
use godwit_wire::peer::PeerRequest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};
use uuid::Uuid;

use super::rig::{Client, Saw, connect, packet, publish};
use super::two::{Both, End, Two, WINDOW, comes_in, in_time, start, tell};
use super::web_sockets::{binary, upgraded};
use crate::net::tls::certified;
use crate::net::{VerifyAgain, spliced};
use crate::wire_trait::CloseReason;

#[test]
fn clients_of_both_versions_are_served_at_any_node_and_their_disconnect_arrives() {
    let two = Two::new();
    for level in [4, 5] {
        let mut client = two.here.client();
        client.write(&two.connect(level));
        comes_in(&mut client);
        assert_eq!(two.here.metrics.spliced_here.get(), 1);
        assert_eq!(two.home.metrics.spliced_home.get(), 1);
        if level == 5 {
            client.write(&publish("large", 7, &[3; 250_000]));
            assert_eq!(client.packet().unwrap(), [0x40, 2, 0, 7]);
            two.home.wait_for(&Saw::Publish("large".into(), 250_000));
        }
        client.write(&[0xe0, 0]);
        let _ = client.0.shutdown(Shutdown::Write);
        two.home
            .wait(|saw| saw.iter().filter(|saw| **saw == Saw::Disconnect).count() == usize::from(level) - 3);
        assert_eq!(client.packet(), None);
    }
    two.is_empty();
    assert!(
        two.here.shared.saw.lock().unwrap().is_empty(),
        "it is not looked at here"
    );
}

#[test]
fn a_connect_goes_as_it_came_and_nothing_behind_it_before_the_home_has_spoken() {
    let two = Two::new();
    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    let (first, then) = (two.connect(4), publish("t", 1, b"early"));
    client.write(&[&first[..], &then].concat());
    let mut end = loop {
        if let Some((_, end)) = two.way.pipes.lock().unwrap().first_mut() {
            break end.take().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    std::thread::sleep(Duration::from_millis(50));
    let mut got = [0; 4_096];
    let len = end.read(&mut got).unwrap();
    assert_eq!(&got[..len], &first[..]);
    end.write(&[0x20, 2, 0, 0]).unwrap();
    comes_in_v4(&mut client);
    let mut rest = Vec::new();
    in_time("the rest does not come", || {
        if let Ok(len) = end.read(&mut got) {
            rest.extend_from_slice(&got[..len]);
        }
        rest.len() >= then.len()
    });
    assert_eq!(rest, then);
    // What is said last arrives, and then the end.
    end.write(&[0xe0, 0]).unwrap();
    drop(end);
    assert_eq!(client.packet().unwrap(), [0xe0, 0]);
    assert!(client.ends_in_order());
    drop(client);
    two.is_empty();
}

fn comes_in_v4(client: &mut Client) {
    assert_eq!(client.packet().unwrap(), [0x20, 2, 0, 0]);
}

#[test]
fn who_does_not_read_holds_up_its_home_and_who_is_not_read_its_client() {
    let two = Two::new();
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    client.write(&publish("flood", 1, b""));
    std::thread::sleep(Duration::from_millis(300));
    let kept = two.here.metrics.kept_bytes.get();
    assert!(kept <= 16 << 10, "{kept} bytes are kept here");
    let (mut floods, mut acked) = (0, false);
    while floods < 4_000 || !acked {
        match client.packet().unwrap()[0] {
            0x30 => floods += 1,
            _ => acked = true,
        }
    }
    drop(client);
    two.home.wait_for(&Saw::Closed(CloseReason::Gone));
    two.is_empty();

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(5));
    let both = loop {
        if let Some((both, Some(end))) = two.way.pipes.lock().unwrap().get_mut(1) {
            end.write(&[0x20, 3, 0, 0, 0]).unwrap();
            break both.clone();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    comes_in(&mut client);
    client.0.set_nonblocking(true).unwrap();
    // Until neither the socket nor the pipe takes more, for a while.
    let (mut sent, mut quiet) = (0, 0);
    while quiet < 20 {
        match client.0.write(&[0; 64 << 10]) {
            Ok(len) => (sent, quiet) = (sent + len, 0),
            Err(_) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    let taken = both.lock().unwrap().all[0];
    assert!(taken < sent && taken <= WINDOW, "{taken} of {sent}");
    drop(client);
    two.way.pipes.lock().unwrap().clear();
    in_time("its place is held", || two.here.metrics.connections.get() == 0);
}

#[test]
fn who_comes_while_the_home_is_nobodys_gets_in_when_it_is_taken_up() {
    let two = Two::unknown();
    let mut client = two.here.client();
    client.write(&two.connect(4));
    in_time("it does not wait", || two.here.metrics.awaited_home.get() == 1);
    two.take_up();
    comes_in(&mut client);
    drop(client);
    two.is_empty();
}

#[test]
fn a_way_that_breaks_ends_the_connection_and_before_the_first_word_it_is_tried_again() {
    let two = Two::new();
    let cut = |at: usize| {
        let both = two.way.pipes.lock().unwrap()[at].0.clone();
        both.lock().unwrap().is_broken = true;
        tell(&both, 0);
        tell(&both, 1);
    };
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    cut(0);
    assert_eq!(client.packet(), None);
    two.home.wait_for(&Saw::Closed(CloseReason::Gone));
    drop(client);
    two.is_empty();

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(5));
    in_time("it is not passed on", || two.way.pipes.lock().unwrap().len() == 2);
    two.way.is_kept.store(false, Ordering::SeqCst);
    cut(1);
    comes_in(&mut client);
}

#[test]
fn who_goes_before_an_answer_does_not_come_to_its_home_any_more_unless_it_has_said_something() {
    let two = Two::unknown();
    let mut client = two.here.client();
    client.write(&two.connect(5));
    in_time("it does not wait", || two.here.metrics.awaited_home.get() == 1);
    drop(client);
    two.is_empty();
    // What is said behind a CONNECT is for its home, also if nobody waits for an answer.
    let mut client = two.here.client();
    client.write(&[&two.connect(5)[..], &publish("late", 1, b"behind it")].concat());
    in_time("it does not wait", || two.here.metrics.awaited_home.get() == 2);
    drop(client);
    std::thread::sleep(Duration::from_millis(600));
    two.take_up();
    two.home.wait_for(&Saw::Publish("late".into(), 9));
    two.is_empty();
    assert_eq!(two.way.pipes.lock().unwrap().len(), 1, "the first was passed on");

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(5));
    in_time("it is not passed on", || two.way.pipes.lock().unwrap().len() == 2);
    drop(client);
    let both = two.way.pipes.lock().unwrap()[1].0.clone();
    in_time("its home is not told", || both.lock().unwrap().ended[0]);
}

#[test]
fn who_is_overtaken_before_an_answer_is_told_so_and_does_not_come_again() {
    let two = Two::new();
    let mut client = two.here.client();
    client.write(&connect(
        4,
        "overtaken",
        0,
        Some((&two.user().to_string(), "good")),
    ));
    assert_eq!(client.packet().unwrap(), [0x20, 2, 0, 3]);
    assert_eq!(two.way.pipes.lock().unwrap().len(), 1, "it came once more");
    drop(client);
    two.is_empty();
}

#[test]
fn who_cannot_be_passed_on_in_time_is_turned_away() {
    let two = Two::new();
    two.way.is_down.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(4));
    assert_eq!(
        client.packet().unwrap(),
        [0x20, 2, 0, 3],
        "3.1.1 says: server unavailable"
    );
    drop(client);
    two.is_empty();
    assert_eq!(two.here.refused("elsewhere"), 1);
}

#[test]
fn an_end_that_comes_with_data_is_found_behind_it_at_both_nodes() {
    let two = Two::new();
    let mut client = two.here.client();
    client.write(&two.connect(5));
    comes_in(&mut client);
    drop(client);
    two.home.wait_for(&Saw::Closed(CloseReason::Gone));
    let about = two.way.about.lock().unwrap().clone();
    let both = Arc::new(Mutex::new(Both::default()));
    spliced(
        two.home.router(),
        start(1),
        &about,
        Box::new(End(both.clone(), 1)),
    );
    let says_and_ends = |both: &Mutex<Both>, me: usize, bytes: &[u8]| {
        let mut state = both.lock().unwrap();
        state.written[me].extend(bytes);
        state.untaken[me] += bytes.len();
        state.ended[me] = true;
        drop(state);
        // Said once, for both.
        tell(both, 1 - me);
    };
    let all = [two.connect(5), publish("last", 1, b"words")].concat();
    says_and_ends(&both, 0, &all);
    let words = Saw::Publish("last".into(), 5);
    two.home
        .wait(|saw| saw.ends_with(&[words.clone(), Saw::Closed(CloseReason::Gone)]));

    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut client = two.here.client();
    client.write(&two.connect(4));
    in_time("it is not passed on", || two.way.pipes.lock().unwrap().len() == 2);
    let both = two.way.pipes.lock().unwrap()[1].0.clone();
    says_and_ends(&both, 1, &[0x20, 2, 0, 0, 0xd0, 0]);
    comes_in(&mut client);
    assert_eq!(client.packet().unwrap(), [0xd0, 0]);
    assert_eq!(client.packet(), None);
}

#[test]
fn in_a_web_socket_a_home_that_asks_for_proof_takes_large_frames_once_it_has_let_its_client_in() {
    let two = Two::new();
    two.way.is_kept.store(true, Ordering::SeqCst);
    let mut socket = WebSocket::from_raw_socket(upgraded(&two.here, Vec::new()), Role::Client, None);
    socket.send(Message::binary(two.connect(5))).unwrap();
    in_time("it is not passed on", || two.way.pipes.lock().unwrap().len() == 1);
    let mut end = two.way.pipes.lock().unwrap()[0].1.take().unwrap();
    let reads = |end: &mut End, packet: &[u8]| {
        let (mut all, mut part) = (Vec::new(), vec![0; 4_096]);
        in_time("it does not come", || {
            while let Ok(read @ 1..) = end.read(&mut part) {
                end.taken(read);
                all.extend_from_slice(&part[..read]);
            }
            all.len() >= packet.len()
        });
        assert!(all == packet);
    };
    reads(&mut end, &two.connect(5));
    let auth = [0xf0, 2, 0x18, 0];
    for _ in 0..2 {
        end.write(&auth).unwrap();
        assert_eq!(binary(&mut socket), auth);
        socket.send(Message::binary(auth.to_vec())).unwrap();
        reads(&mut end, &auth);
    }
    let connack = [0x20, 3, 0, 0, 0];
    end.write(&connack).unwrap();
    assert_eq!(binary(&mut socket), connack);
    let large = publish("large", 1, &[7; 200_000]);
    socket.send(Message::binary(large.clone())).unwrap();
    reads(&mut end, &large);
}

type Made = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn certificate(server: Option<&str>, name: &str) -> Made {
    let names: Vec<String> = server.iter().map(ToString::to_string).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn roots((certificate, _): &Made) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes who shows this certificate.
fn takes(client: &Made) -> Arc<dyn ClientCertVerifier> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client), provider());
    verifier.build().unwrap()
}

type Secured = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// A user's home, another node, where it comes by TLS with a certificate, and the certificate's id.
fn by_certificate(user: UserId) -> (Two, Secured, Uuid) {
    let (server, shown) = (
        certificate(Some("localhost"), "server"),
        certificate(None, &user.to_string()),
    );
    let shows = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&server))
        .with_client_auth_cert(vec![shown.0.clone()], shown.1.clone_key())
        .unwrap();
    let doors = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(takes(&shown))
        .with_single_cert(vec![server.0], server.1)
        .unwrap();
    let two = Two::with_tls(Some(Arc::new(doors)), user);
    two.take_up();
    let name = ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(Arc::new(shows), name).unwrap();
    let socket = TcpStream::connect(two.here.at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let id = certified(&shown.0).unwrap().certificate;
    (two, rustls::StreamOwned::new(session, socket), id)
}

#[test]
fn a_home_knows_the_certificate_that_was_shown_to_another_node_beside_a_password() {
    let user = UserId::fresh();
    let (two, mut client, id) = by_certificate(user);
    let login = connect(5, "c", 0, Some((&user.to_string(), "good")));
    client.write_all(&login).unwrap();
    let connack = packet(&mut client).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    client.write_all(&publish("certificate", 1, b"")).unwrap();
    assert_eq!(packet(&mut client).unwrap()[0], 0x40);
    two.home.wait_for(&Saw::Certificate(Some(id)));
}

#[test]
fn whose_certificate_is_revoked_where_it_came_is_told_by_its_home_and_heard_no_more() {
    let user = UserId::fresh();
    let (two, mut client, id) = by_certificate(user);
    two.way.is_kept.store(true, Ordering::SeqCst);
    client.write_all(&connect(5, "c", 0, None)).unwrap();
    in_time("it is not passed on", || {
        let _ = client.flush();
        two.way.pipes.lock().unwrap().len() == 1
    });
    let mut end = two.way.pipes.lock().unwrap()[0].1.take().unwrap();
    end.write(&[0x20, 3, 0, 0, 0]).unwrap();
    assert_eq!(packet(&mut client).unwrap(), [0x20, 3, 0, 0, 0]);
    let verifier = takes(&certificate(None, "another"));
    for worker in 0..2 {
        let again = VerifyAgain(verifier.clone());
        two.here
            .router()
            .hand_over(worker, RoleId::Broker, Box::new(again));
    }
    let told = || {
        let sent = two.way.sent.lock().unwrap();
        let ended = |request: &PeerRequest| match &request.command {
            Command::User(UserCommand::CredentialEnded { credential }) => {
                Some((request.key.clone(), *credential))
            }
            _ => None,
        };
        sent.iter().find_map(ended)
    };
    in_time("its home is not told", || told().is_some());
    assert_eq!(told(), Some((Key::User(user), id)));
    // The home is in the middle of a packet, and has its last word behind it.
    end.write(&[0x30, 5, 0, 1]).unwrap();
    end.write(b"t\x00x").unwrap();
    end.write(&[0xe0, 1, 0x87]).unwrap();
    drop(end);
    assert_eq!(packet(&mut client).unwrap(), [0x30, 5, 0, 1, b't', 0, b'x']);
    assert_eq!(packet(&mut client).unwrap(), [0xe0, 1, 0x87]);
    assert_eq!(packet(&mut client), None);
}
