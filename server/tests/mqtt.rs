//! The wiring of MQTT, seen by stock clients (mosquitto's tools) on the real binary: TCP, TLS, WebSocket, kill -9, the end.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use support::{Server, eventually, get_as, post, text};

#[test]
fn messages_of_every_qos_arrive_and_retained_ones_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (_, token) = server.user("ann");
    let login = ["-u", "ann", "-P", &token];
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("iot/ann/{version}/{qos}");
            let words = [
                &login[..],
                &["-V", version, "-q", qos, "-r", "-t", &topic, "-m", "kept"],
            ]
            .concat();
            server.publish(&words);
            let words = [
                &login[..],
                &[
                    "-V", version, "-q", qos, "-t", &topic, "-C", "1", "-W", "20", "-v",
                ],
            ]
            .concat();
            assert_eq!(server.subscribe(&words), [format!("{topic} kept")]);
        }
    }
    let foreign = [
        &login[..],
        &["-V", "mqttv5", "-q", "1", "-t", "iot/bob/x", "-m", "x"],
    ]
    .concat();
    let refused = server.mosquitto("mosquitto_pub", &foreign).output().unwrap();
    assert!(
        text(&refused.stderr).to_lowercase().contains("not authorized"),
        "{}",
        text(&refused.stderr)
    );
    let wrong = [
        "-u",
        "ann",
        "-P",
        "gdt_00000000000000000000000000000000",
        "-t",
        "iot/ann/x",
        "-m",
        "x",
    ];
    assert!(
        !server
            .mosquitto("mosquitto_pub", &wrong)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn what_an_offline_session_is_owed_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let (_, token) = server.user("ann");
    let login = ["-u", "ann", "-P", &token, "-q", "1"];
    let phone = [&login[..], &["-i", "phone", "-c", "-t", "iot/ann/#"]].concat();
    server.subscribe(&[&phone[..], &["-E"]].concat());
    server.publish(&[&login[..], &["-t", "iot/ann/kept", "-r", "-m", "retained"]].concat());
    let mut publisher = server
        .mosquitto(
            "mosquitto_pub",
            &[&login[..], &["-t", "iot/ann/t", "-l"]].concat(),
        )
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = (0..300).map(|number| format!("message {number}")).collect();
    publisher
        .stdin
        .take()
        .unwrap()
        .write_all((lines.join("\n") + "\n").as_bytes())
        .unwrap();
    assert!(publisher.wait().unwrap().success());
    server.kill();
    server.again();
    let got = server.subscribe(&[&phone[..], &["-C", "301", "-W", "30"]].concat());
    assert_eq!(got[0], "retained");
    assert_eq!(got[1..], lines);
    let fresh = [&login[..], &["-t", "iot/ann/kept", "-C", "1", "-W", "20"]].concat();
    assert_eq!(server.subscribe(&fresh), ["retained"]);
}

#[test]
fn a_will_is_published_when_its_client_dies() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (_, token) = server.user("ann");
    let login = ["-u", "ann", "-P", &token, "-q", "1"];
    let watcher = server
        .mosquitto(
            "mosquitto_sub",
            &[&login[..], &["-t", "iot/ann/will", "-C", "1", "-W", "40"]].concat(),
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let will = [
        "-t",
        "iot/ann/x",
        "--will-topic",
        "iot/ann/will",
        "--will-payload",
        "gone",
        "--will-qos",
        "1",
    ];
    let dying = server.mosquitto("mosquitto_sub", &[&login[..], &will].concat());
    // Without `timeout` around it, which would take the kill in its place.
    let words: Vec<_> = dying.get_args().skip(1).map(|word| word.to_owned()).collect();
    let mut dying = std::process::Command::new(&words[0])
        .args(&words[1..])
        .spawn()
        .unwrap();
    eventually("both are connected", || {
        let (_, metrics) = get_as(&format!("http://127.0.0.1:{}/metrics", server.admin), None)?;
        metrics
            .lines()
            .any(|line| line.ends_with("sessions_live 2"))
            .then_some(())
    });
    dying.kill().unwrap();
    dying.wait().unwrap();
    let output = watcher.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "gone");
}

#[test]
fn two_people_chat_over_a_kill_and_find_it_again_even_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let ((_, ann), (bob_access, bob)) = (server.user("ann"), server.user("bob"));
    let phone = [
        "-u",
        "bob",
        "-P",
        &bob,
        "-i",
        "phone",
        "-c",
        "-q",
        "1",
        "-t",
        "me/inbox/json",
    ];
    server.subscribe(&[&phone[..], &["-E"]].concat());
    let send = ["-u", "ann", "-P", &ann, "-q", "1", "-t", "c/@bob/send/text", "-m"];
    server.publish(&[&send[..], &["Have you seen the godwits?"]].concat());
    server.kill();
    server.again();
    server.publish(&[&send[..], &["They fly without a rest."]].concat());
    let got = server.subscribe(&[&phone[..], &["-C", "3", "-W", "30"]].concat());
    let events: Vec<serde_json::Value> = got
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let contents: Vec<_> = events.iter().map(|event| event["content"].as_str()).collect();
    assert_eq!(
        contents,
        [
            None,
            Some("Have you seen the godwits?"),
            Some("They fly without a rest.")
        ]
    );
    let conversation = events[1]["conversation_id"].as_str().unwrap();
    let history = server.api(&format!("/conversations/{conversation}/messages"));
    let (status, history) = get_as(&history, Some(&bob_access)).unwrap();
    assert!(status == 200 && history.contains("They fly"), "{history}");
    let found = |server: &Server| {
        let (_, answer) = get_as(&server.api("/search?query=godwits"), Some(&bob_access))?;
        answer.contains("Have you seen").then_some(())
    };
    eventually("the message is found", || found(&server));
    assert_eq!(server.stop().0, Some(0));
    std::fs::remove_dir_all(folder.path().join("data/search")).unwrap();
    server.again();
    eventually("the message is found in the new index", || found(&server));
}

#[test]
fn mqtt_is_spoken_over_tls_with_the_certificate_of_https() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = support::free_port();
    let address = format!("127.0.0.1:{port}");
    let https = format!("127.0.0.1:{}", support::free_port());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let server = Server::start(
        folder.path(),
        &[
            "--tls-cert",
            cert,
            "--tls-key",
            key,
            "--mqtts",
            &address,
            "--https",
            &https,
        ],
    );
    let (_, token) = server.user("ann");
    let port = port.to_string();
    let tls = [
        "-p",
        &port,
        "--cafile",
        cert,
        "-u",
        "ann",
        "-P",
        &token,
        "-q",
        "1",
        "-t",
        "iot/ann/tls",
    ];
    server.publish(&[&tls[..], &["-r", "-m", "sealed"]].concat());
    assert_eq!(
        server.subscribe(&[&tls[..], &["-C", "1", "-W", "20"]].concat()),
        ["sealed"]
    );
    let plain = [
        "-p",
        &port,
        "-u",
        "ann",
        "-P",
        &token,
        "-t",
        "iot/ann/tls",
        "-m",
        "x",
    ];
    assert!(
        !server
            .mosquitto("mosquitto_pub", &plain)
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// A CONNECT of MQTT 5 without user name: clean start, keep-alive 60 s, client id `raw`.
const CONNECT: [u8; 18] = [
    0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 0b10, 0, 60, 0, 0, 3, b'r', b'a', b'w',
];

fn connected(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&CONNECT).unwrap();
    stream
}

#[test]
fn anonymous_clients_are_refused_unless_they_are_let_in() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let closed = Server::start(folders[0].path(), &[]);
    let mut packet = [0u8; 4];
    connected(closed.mqtt).read_exact(&mut packet).unwrap();
    assert!(packet[0] == 0x20 && packet[3] >= 0x80, "{packet:x?}");
    let open = Server::start(folders[1].path(), &["--anonymous"]);
    connected(open.mqtt).read_exact(&mut packet).unwrap();
    assert!(packet[0] == 0x20 && packet[3] == 0, "{packet:x?}");
    assert!(open.log().contains("anonymous clients are let in"));
    open.publish(&["-t", "any/thing", "-q", "1", "-r", "-m", "x"]);
    assert_eq!(
        open.subscribe(&["-t", "#", "-C", "1", "-W", "20", "-v"]),
        ["any/thing x"]
    );
}

#[test]
fn a_connection_beyond_the_limit_is_closed_and_one_that_ends_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--anonymous", "--max-connections", "2"]);
    let let_in = || {
        let mut stream = connected(server.mqtt);
        let mut packet = [0u8; 4];
        stream.read_exact(&mut packet).is_ok().then_some(stream)
    };
    let hold = || {
        std::process::Command::new("mosquitto_sub")
            .args(["-t", "x", "-W", "60", "-p", &server.mqtt.to_string()])
            .spawn()
            .unwrap()
    };
    let mut holders = [hold(), hold()];
    eventually("the limit is reached", || let_in().is_none().then_some(()));
    for holder in &mut holders {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    eventually("there is room again", let_in);
}

#[test]
fn clients_are_told_that_the_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--anonymous"]);
    let mut stream = connected(server.mqtt);
    let mut connack = [0u8; 2];
    stream.read_exact(&mut connack).unwrap();
    let mut rest = vec![0u8; usize::from(connack[1])];
    stream.read_exact(&mut rest).unwrap();
    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(
        took < Duration::from_secs(5),
        "an idle client does not hold the end up: {took:?}"
    );
    let mut last = Vec::new();
    stream.read_to_end(&mut last).unwrap();
    assert!(
        last.len() >= 3 && last[0] == 0xe0 && last[2] == 0x8b,
        "DISCONNECT, server shutting down: {last:x?}"
    );
}

#[test]
fn mqtt_is_spoken_over_a_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--anonymous"]);
    let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let ask = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    // A frame, masked by zeros, sent along with the request: what was already read must reach the broker.
    let mut bytes = ask.as_bytes().to_vec();
    bytes.extend_from_slice(&[0x82, 0x80 | CONNECT.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(&CONNECT);
    stream.write_all(&bytes).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(
        text(&head).starts_with("HTTP/1.1 101") && text(&head).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{}",
        text(&head)
    );
    let mut frame = [0u8; 6];
    stream.read_exact(&mut frame).unwrap();
    assert!(
        frame[0] == 0x82 && frame[2] == 0x20 && frame[5] == 0,
        "CONNACK in a binary frame: {frame:x?}"
    );
}

#[test]
fn a_message_by_rest_reaches_an_mqtt_client() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let ((ann, _), (_, bob)) = (server.user("ann"), server.user("bob"));
    let phone = [
        "-u",
        "bob",
        "-P",
        &bob,
        "-i",
        "phone",
        "-c",
        "-q",
        "1",
        "-t",
        "me/inbox/text",
    ];
    server.subscribe(&[&phone[..], &["-E"]].concat());
    let (_, found) = get_as(&server.api("/users?username=bob"), Some(&ann)).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let bob_id = found["user_id"]
        .as_str()
        .or(found["users"][0]["user_id"].as_str())
        .unwrap()
        .to_owned();
    let open = serde_json::json!({ "type": "one_on_one", "user_id": bob_id });
    let (status, conversation) = post(&server.api("/conversations"), Some(&ann), &open);
    assert!(status == 201 || status == 200, "{conversation}");
    let path = format!(
        "/conversations/{}/messages",
        conversation["conversation_id"].as_str().unwrap()
    );
    let (status, sent) = post(
        &server.api(&path),
        Some(&ann),
        &serde_json::json!({ "content": "by REST" }),
    );
    assert_eq!(status, 201, "{sent}");
    let got = server.subscribe(&[&phone[..], &["-C", "1", "-W", "20"]].concat());
    assert_eq!(got, ["ann: by REST"]);
}
