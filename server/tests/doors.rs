//! The doors of the real binary: client certificates, certificates by server name, the PROXY protocol, deadlines, aborted
//! handshakes and rotation under load (FAULTS 20). `GODWIT_DOORS_LONG=1`: 10,000 aborted handshakes instead of 600, and a
//! minute of rotation instead of seconds.
#![allow(clippy::unwrap_used)]

mod authority;
mod reload;
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authority::{Authority, Files, Tls, abort, http_status, self_signed, web_socket};
use rustix::process::Signal;
use support::{Server, eventually, free_port, get_as, text};

fn long() -> bool {
    std::env::var_os("GODWIT_DOORS_LONG").is_some()
}

/// A CONNECT of MQTT 5: clean start, no keep-alive.
fn connect(client: &str, login: Option<(&str, &str)>) -> Vec<u8> {
    let field = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let flags = if login.is_some() { 0xc2 } else { 2 };
    let mut body = [&field("MQTT")[..], &[5, flags, 0, 0, 0], &field(client)].concat();
    if let Some((user, password)) = login {
        body.extend([field(user), field(password)].concat());
    }
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// A server with TLS on ports of its own.
struct Secured {
    server: Server,
    mqtts: u16,
    https: u16,
}

impl Secured {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let (mqtts, https) = (free_port(), free_port());
        let at = |port| format!("127.0.0.1:{port}");
        let (mqtts_at, https_at) = (at(mqtts), at(https));
        let ports = ["--mqtts", &mqtts_at, "--https", &https_at];
        Self {
            server: Server::start(folder, &[&ports[..], more].concat()),
            mqtts,
            https,
        }
    }

    /// Has the files of TLS read again.
    fn reload(&self) {
        let count = || self.server.log().matches("certificates read again").count();
        let before = count();
        self.server.signal(Signal::HUP);
        eventually("the files are read again", || (count() > before).then_some(()));
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let (_, all) = get_as(&format!("http://127.0.0.1:{}/metrics", self.server.admin), None)?;
        let line = all.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

#[test]
fn a_certificate_lets_its_user_in_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, foreign) = (
        Authority::new(folder.path(), "ours"),
        Authority::new(folder.path(), "foreign"),
    );
    let (own, crl) = (
        ours.server("server", &["127.0.0.1"]),
        folder.path().join("crl.pem"),
    );
    ours.revoke(&crl, &[]);
    let options = [
        ["--tls-cert", own.cert()],
        ["--tls-key", own.key()],
        ["--tls-client-ca", ours.file.to_str().unwrap()],
        ["--tls-client-auth", "required"],
        ["--tls-client-crl", crl.to_str().unwrap()],
    ]
    .concat();
    let node = Secured::start(folder.path(), &options);
    let (ann_access, ann_token) = node.server.user("ann");
    let (_, bob_token) = node.server.user("bob");
    let (ann, bob, nobody) = (
        ours.client("ann", 1),
        ours.client("bob", 2),
        ours.client("nobody", 3),
    );

    // mosquitto's tools: no password, and both scopes of a device.
    let (port, ca) = (node.mqtts.to_string(), ours.file.to_str().unwrap().to_owned());
    let words = |files: &Files, more: &[&str]| -> Vec<String> {
        let tls = [
            "-p",
            &port,
            "--cafile",
            &ca,
            "--cert",
            files.cert(),
            "--key",
            files.key(),
            "-q",
            "1",
        ];
        tls.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let publish = |files: &Files, more: &[&str]| {
        let words = words(files, more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        node.server.mosquitto("mosquitto_pub", &words).output().unwrap()
    };
    for (version, user) in [
        ("mqttv311", &["-V", "mqttv311"][..]),
        ("mqttv5", &["-V", "mqttv5", "-u", "ann"]),
    ] {
        let sent = publish(&ann, &[user, &["-t", "iot/ann/x", "-r", "-m", version]].concat());
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let words = words(&ann, &["-t", "iot/ann/x", "-C", "1", "-W", "20"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(node.server.subscribe(&words), [version]);
    }
    let chat = publish(&ann, &["-V", "mqttv5", "-t", "c/@bob/send/text", "-m", "hello"]);
    assert!(chat.status.success(), "{}", text(&chat.stderr));
    for files in [
        &foreign.client("ann", 1),
        &ours.expired("ann"),
        &self_signed(folder.path(), "ann"),
    ] {
        let refused = publish(files, &["-t", "iot/ann/x", "-m", "x"]);
        assert!(!refused.status.success(), "{} came in", files.cert());
        // Not by its CONNACK either: the handshake fails.
        let mut raw = Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(Some(files)));
        assert!(raw.ask(&connect("c", None)).is_err());
    }
    assert!(
        Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(None))
            .ask(&connect("c", None))
            .is_err()
    );

    // Who it is not: the same answer whoever is named.
    let code = |files: &Files, login| {
        let mut client = Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(Some(files)));
        client.ask(&connect("c", login)).unwrap()[3]
    };
    assert_eq!(code(&ann, None), 0);
    assert_eq!(code(&nobody, None), 0x86, "an unknown user");
    assert_eq!(code(&ann, Some(("bob", &bob_token))), 0x86, "another user's name");
    assert_eq!(
        code(&ann, Some(("ann", "wrong"))),
        0x86,
        "a password that is given counts"
    );
    assert_eq!(code(&ann, Some(("ann", &bob_token))), 0x86);
    assert_eq!(code(&ann, Some(("ann", &ann_token))), 0);

    // Over HTTPS the certificate is optional; MQTT over WebSocket goes by it, REST does not look at it.
    let mut plain = Tls::to(node.https, "127.0.0.1", &ours.trusting(None));
    let asked =
        format!("GET /api/v1/users/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ann_access}\r\n\r\n");
    plain.0.write_all(asked.as_bytes()).unwrap();
    assert_eq!(http_status(&mut plain.0), 200);
    let mut by_certificate = Tls::to(node.https, "127.0.0.1", &ours.trusting(Some(&ann)));
    by_certificate
        .0
        .write_all(b"GET /api/v1/users/me HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(http_status(&mut by_certificate.0), 401);
    for (shown, expected) in [(Some(&ann), 0), (Some(&nobody), 0x86), (None, 0x87)] {
        let mut socket = Tls::to(node.https, "127.0.0.1", &ours.trusting(shown));
        assert_eq!(web_socket(&mut socket.0, &connect("w", None))[3], expected);
    }

    // Revoked: no longer let in, and put out within 5 s; bob stays.
    let mut open = Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(Some(&ann)));
    assert_eq!(open.ask(&connect("phone", None)).unwrap()[3], 0);
    let mut stays = Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(Some(&bob)));
    assert_eq!(stays.ask(&connect("phone", None)).unwrap()[3], 0);
    // A handshake of before counts no more, either, for what asks for MQTT only then.
    let mut early = Tls::to(node.https, "127.0.0.1", &ours.trusting(Some(&ann)));
    early
        .0
        .write_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(http_status(&mut early.0), 200);
    ours.revoke(&crl, &[1]);
    let began = Instant::now();
    node.reload();
    let last = open.packet().unwrap();
    assert_eq!((last[0], last[2]), (0xe0, 0x87), "{last:x?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut again = Tls::to(node.mqtts, "127.0.0.1", &ours.trusting(Some(&ann)));
    assert!(again.ask(&connect("phone", None)).is_err());
    assert_eq!(web_socket(&mut early.0, &connect("w", None))[3], 0x86);
    assert_eq!(stays.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);
    // Another authority altogether; not while the list is of the old one.
    std::fs::copy(&foreign.file, &ours.file).unwrap();
    node.server.signal(Signal::HUP);
    eventually("it is refused", || {
        let log = node.server.log();
        let refused = log
            .lines()
            .find(|line| line.contains("the certificates stay the old ones"))?;
        refused.contains("crl.pem").then_some(())
    });
    assert_eq!(stays.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);
    foreign.revoke(&crl, &[]);
    let last_of_bob = {
        node.reload();
        stays.packet().unwrap()
    };
    assert_eq!((last_of_bob[0], last_of_bob[2]), (0xe0, 0x87));
}

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for_also_after_each_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let make = || {
        [
            ours.server("first", &["127.0.0.1", "chat.example"]),
            ours.server("second", &["*.example.org"]),
            ours.server("third", &["given.example", "else.example"]),
        ]
    };
    let files = make();
    let listed = [
        format!("{},{}", files[1].cert(), files[1].key()),
        format!("{},{},given.example", files[2].cert(), files[2].key()),
    ];
    let options = [
        ["--tls-cert", files[0].cert()],
        ["--tls-key", files[0].key()],
        ["--tls", &listed[0]],
        ["--tls", &listed[1]],
    ]
    .concat();
    let node = Secured::start(folder.path(), &[&options[..], &["--anonymous"]].concat());
    let trusting = ours.trusting(None);
    let expect_all = |files: &[Files; 3]| {
        for (name, expected) in [
            ("127.0.0.1", 0),
            ("chat.example", 0),
            ("a.example.org", 1),
            ("given.example", 2),
        ] {
            for port in [node.mqtts, node.https] {
                let mut client = Tls::to(port, name, &trusting);
                client.0.conn.complete_io(&mut client.0.sock).unwrap();
                assert_eq!(client.shown(), files[expected].der(), "{name}");
            }
        }
    };
    expect_all(&files);
    let files = make();
    node.reload();
    expect_all(&files);
    let mut unknown = Tls::to(node.mqtts, "else.example", &trusting);
    let refused = unknown.ask(&connect("c", None)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("only valid for IpAddress(127.0.0.1)"),
        "the default is shown: {refused}"
    );
}

#[test]
fn aborted_handshakes_leave_no_descriptor_and_rotated_certificates_drop_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let files = ours.server("server", &["127.0.0.1"]);
    let options = [["--tls-cert", files.cert()], ["--tls-key", files.key()]].concat();
    let node = Secured::start(folder.path(), &[&options[..], &["--anonymous"]].concat());
    let (aborted, turns) = if long() { (10_000, 600) } else { (600, 20) };
    let trusting = ours.trusting(None);
    let come = |client: &str| {
        let mut tls = Tls::to(node.mqtts, "127.0.0.1", &trusting);
        assert_eq!(tls.ask(&connect(client, None)).unwrap()[3], 0);
        tls
    };
    let mut bystander = come("bystander");
    let open_files = || node.metric("process_open_fds").unwrap();
    let before = open_files();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Ok(way) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                    && way < aborted
                {
                    let port = if way % 10 < 7 { node.mqtts } else { node.https };
                    abort(port, way, &connect("c", None));
                }
            });
        }
    });
    eventually("no descriptor is left", || {
        (open_files() <= before + 2.0).then_some(())
    });
    assert_eq!(bystander.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);

    // Rotation under load: those that are in stay and lose nothing; who comes gets the newest.
    let (end, acknowledged) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (mut client, end, acknowledged) = (come(&format!("c{number}")), end.clone(), &acknowledged);
            scope.spawn(move || {
                for id in (1..=u16::MAX).cycle() {
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    let [high, low] = id.to_be_bytes();
                    let publish = [0x32, 7, 0, 1, b'x', high, low, 0, b'y'];
                    let answer = client.ask(&publish).expect("it is not dropped");
                    assert_eq!((answer[0], &answer[2..4]), (0x40, &[high, low][..]));
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..turns {
            let files = ours.server("server", &["127.0.0.1"]);
            node.reload();
            assert_eq!(come("newcomer").shown(), files.der());
        }
        end.store(true, Ordering::Relaxed);
    });
    assert!(acknowledged.load(Ordering::Relaxed) > turns);
    assert_eq!(bystander.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);
    eventually("rotation leaves no descriptor", || {
        (open_files() <= before + 2.0).then_some(())
    });
}

#[test]
fn what_dribbles_is_closed_at_the_connect_time_out_at_every_door() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let files = ours.server("server", &["127.0.0.1"]);
    let options = [
        ["--tls-cert", files.cert()],
        ["--tls-key", files.key()],
        ["--connect-seconds", "1"],
    ]
    .concat();
    let node = Secured::start(folder.path(), &options);
    let doors = [
        (node.server.mqtt, &[0x10, 60, 0, 4][..]),
        (node.mqtts, &[0x16, 3, 1, 0, 204, 1, 0, 0, 200]),
        (node.server.http, b"GET /mqtt HTTP/1.1\r\nHost: "),
        (node.https, &[0x16, 3, 1, 0, 204, 1, 0, 0, 200]),
    ];
    std::thread::scope(|scope| {
        for (port, first) in doors {
            scope.spawn(move || {
                let began = Instant::now();
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                socket.write_all(first).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                loop {
                    // A byte now and then is no excuse.
                    let _ = socket.write_all(b"3");
                    match socket.read(&mut [0; 64]) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        _ => break,
                    }
                    assert!(began.elapsed() < Duration::from_secs(8), "port {port}");
                }
                assert!(
                    began.elapsed() >= Duration::from_millis(900),
                    "port {port}: {:?}",
                    began.elapsed()
                );
            });
        }
    });
    assert_eq!(node.metric("godwit_mqtt_greeting_timeouts_total"), Some(2.0));
    assert_eq!(
        node.metric("godwit_http_refused_total{reason=\"late\"}"),
        Some(2.0)
    );
}

#[test]
fn behind_a_balancer_mqtt_and_http_want_its_header_and_the_limits_are_the_clients() {
    let folder = tempfile::tempdir().unwrap();
    let options = [
        "--anonymous",
        "--proxy-protocol=on",
        "--proxy-from=127.0.0.0/8,::1",
        "--connections-per-address=1",
    ];
    let server = Server::start(folder.path(), &options);
    let header = |client: u8| format!("PROXY TCP4 192.0.2.{client} 127.0.0.1 4000 1883\r\n");
    let come = |header: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", server.mqtt)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = socket.write_all(&[header.as_bytes(), &connect("c", None)].concat());
        let mut connack = [0; 4];
        socket
            .read_exact(&mut connack)
            .ok()
            .map(|()| (socket, connack[3]))
    };
    let first = come(&header(1));
    assert!(matches!(first, Some((_, 0))));
    let second = come(&header(2));
    assert!(matches!(second, Some((_, 0))));
    assert!(come(&header(1)).is_none(), "one connection an address");
    let (_, metrics) = get_as(&format!("http://127.0.0.1:{}/metrics", server.admin), None).unwrap();
    assert!(metrics.contains("godwit_mqtt_addresses 2"), "{metrics}");
    assert!(come("").is_none(), "no header");
    let ask = |head: &str, rest: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = socket.write_all([head, rest].concat().as_bytes());
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).ok().map(|()| text(&answer))
    };
    let health = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(ask(&header(3), health).unwrap(), "HTTP/1.1 200");
    assert_eq!(ask("", health), None);
    // A WebSocket counts for the address that was announced too, and is told.
    let mut socket = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(header(1).as_bytes()).unwrap();
    assert_eq!(web_socket(&mut socket, &connect("w", None))[3], 0x97);
    drop((first, second));
}
