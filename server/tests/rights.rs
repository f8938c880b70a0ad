//! Rights that end in mid-session, on the real binary with a client of bare packets: a token ends or is revoked, is renewed
//! in time, the rules change, a member is removed. The connection goes, or what is no longer allowed; the session stays.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Server, eventually, get, get_as, post};

/// The promise: a connection is cut within 5 s.
const CUT: Duration = Duration::from_secs(5);

/// MQTT 5, as bytes.
struct Client(TcpStream);

fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    let len = body.len();
    let digits = if len < 128 {
        vec![len as u8]
    } else {
        vec![(len % 128) as u8 | 0x80, (len / 128) as u8]
    };
    [&[first], &digits[..], body].concat()
}

impl Client {
    /// Connects with a session that stays for an hour; says whether it was there already.
    fn connect(server: &Server, id: &str, name: &str, token: &str, by_method: bool) -> (Self, bool) {
        let mut properties = vec![0x11, 0, 0, 14, 16];
        if by_method {
            properties.extend([&[0x15], &field(b"TOKEN")[..], &[0x16], &field(token.as_bytes())].concat());
        }
        let flags = if by_method { 0x80 } else { 0xc0 };
        let mut body = [
            field(b"MQTT"),
            vec![5, flags, 0, 60, properties.len() as u8],
            properties,
        ]
        .concat();
        body.extend([field(id.as_bytes()), field(name.as_bytes())].concat());
        if !by_method {
            body.extend(field(token.as_bytes()));
        }
        let stream = TcpStream::connect(("127.0.0.1", server.mqtt)).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut client = Self(stream);
        client.write(&packet(0x10, &body));
        let (first, body) = client.next();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK {body:02x?}");
        (client, body[0] == 1)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> (u8, Vec<u8>) {
        let (mut byte, mut len, mut shift) = ([0], 0, 0);
        self.0.read_exact(&mut byte).unwrap();
        let first = byte[0];
        loop {
            self.0.read_exact(&mut byte).unwrap();
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        (first, body)
    }

    /// SUBACK's codes.
    fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let filters = filters
            .iter()
            .flat_map(|filter| [field(filter.as_bytes()), vec![1]].concat());
        let body: Vec<u8> = [0, 1, 0].into_iter().chain(filters).collect();
        self.write(&packet(0x82, &body));
        let (first, body) = self.next();
        assert_eq!(first, 0x90);
        // Packet identifier, no properties.
        body[3..].to_vec()
    }

    /// The topics of this many messages, acknowledged.
    fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            let (first, body) = self.next();
            assert_eq!(first & 0xf6, 0x32, "{first:#x} {body:02x?}");
            let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            topics.push(String::from_utf8(body[2..end].to_vec()).unwrap());
            self.write(&[0x40, 2, body[end], body[end + 1]]);
        }
        topics
    }

    fn ping(&mut self) {
        self.write(&[0xc0, 0]);
        assert_eq!(self.next(), (0xd0, Vec::new()));
    }

    fn disconnect(mut self) {
        self.write(&[0xe0, 0]);
        // Its end, so that the session is known to be offline.
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    /// DISCONNECT with this code and the end, within `most`.
    fn await_cut(mut self, code: u8, most: Duration) {
        let since = Instant::now();
        let (first, body) = self.next();
        assert_eq!((first, body[0]), (0xe0, code));
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
        assert!(since.elapsed() <= most, "after {:?}", since.elapsed());
    }
}

/// A device token with its id.
fn device_token(server: &Server, access: &str, seconds: Option<u64>) -> (String, String) {
    let body = match seconds {
        Some(seconds) => json!({ "name": "short", "expires_in": seconds }),
        None => json!({ "name": "long" }),
    };
    let (status, made) = post(&server.api("/auth/device-tokens"), Some(access), &body);
    assert_eq!(status, 201, "{made}");
    let field = |name: &str| made[name].as_str().unwrap().to_owned();
    (field("token"), field("id"))
}

fn delete(url: &str, token: &str) {
    let request = ureq::delete(url).header("authorization", format!("Bearer {token}"));
    request.call().unwrap();
}

fn publish(server: &Server, name: &str, token: &str, topic: &str) {
    server.publish(&["-u", name, "-P", token, "-q", "1", "-t", topic, "-m", "x"]);
}

fn metric(server: &Server, name: &str) -> u64 {
    let (_, text) = get(&format!("http://127.0.0.1:{}/metrics", server.admin)).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or_default()
}

#[test]
fn a_connection_ends_with_its_token_and_the_session_stays_with_what_it_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (access, long) = server.user("ann");

    // The token comes to its end.
    let (short, _) = device_token(&server, &access, Some(2));
    let (mut phone, _) = Client::connect(&server, "phone", "ann", &short, false);
    assert_eq!(phone.subscribe(&["iot/ann/#"]), [1]);
    phone.await_cut(0xa0, Duration::from_secs(2) + CUT);
    publish(&server, "ann", &long, "iot/ann/1");
    let (mut phone, present) = Client::connect(&server, "phone", "ann", &long, false);
    assert!(present, "the session stays");
    assert_eq!(phone.topics(1), ["iot/ann/1"]);
    phone.disconnect();

    // The token is revoked.
    let (token, id) = device_token(&server, &access, None);
    let (phone, _) = Client::connect(&server, "phone", "ann", &token, true);
    let (mut other, _) = Client::connect(&server, "other", "ann", &long, false);
    delete(&server.api(&format!("/auth/device-tokens/{id}")), &access);
    phone.await_cut(0x87, CUT);
    other.ping();
    publish(&server, "ann", &long, "iot/ann/2");
    let (mut phone, present) = Client::connect(&server, "phone", "ann", &long, false);
    assert!(present);
    assert_eq!(phone.topics(1), ["iot/ann/2"]);
    phone.disconnect();

    // Renewed in time it lives on, and ends with the new token.
    let (short, _) = device_token(&server, &access, Some(2));
    let (next, next_id) = device_token(&server, &access, None);
    let (mut phone, _) = Client::connect(&server, "phone", "ann", &short, true);
    let data = [&[0x15], &field(b"TOKEN")[..], &[0x16], &field(next.as_bytes())].concat();
    phone.write(&packet(0xf0, &[&[0x19, data.len() as u8], &data[..]].concat()));
    let (first, body) = phone.next();
    assert_eq!((first, body[0]), (0xf0, 0));
    std::thread::sleep(Duration::from_secs(4));
    phone.ping();
    assert_eq!(metric(&server, "godwit_mqtt_reauthentications"), 1);
    delete(&server.api(&format!("/auth/device-tokens/{next_id}")), &access);
    phone.await_cut(0x87, CUT);
}

#[test]
fn changed_rules_refuse_filters_one_by_one_and_drop_what_was_owed() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("godwit.toml");
    std::fs::write(&rules, "[[acl]]\nallow = \"news/#\"\n").unwrap();
    let server = Server::start(folder.path(), &["--config", rules.to_str().unwrap()]);
    let (_, token) = server.user("ann");
    let (mut phone, _) = Client::connect(&server, "phone", "ann", &token, false);
    assert_eq!(phone.subscribe(&["news/#"]), [1]);
    phone.disconnect();
    let (mut tablet, _) = Client::connect(&server, "tablet", "ann", &token, false);
    assert_eq!(tablet.subscribe(&["news/+"]), [1]);
    for topic in ["news/a", "news/b", "news/ann"] {
        publish(&server, "ann", &token, topic);
    }
    assert_eq!(tablet.topics(3), ["news/a", "news/b", "news/ann"]);
    // Its acknowledgements have come.
    tablet.ping();
    let (mut other, _) = Client::connect(&server, "other", "ann", &token, false);
    assert_eq!(other.subscribe(&["news/b"]), [1]);

    let denied = "[[acl]]\nallow = \"news/#\"\n[[acl]]\ndeny = \"news/a\"\n[[acl]]\ndeny = \"news/%u\"\naccess = \"subscribe\"\n";
    std::fs::write(&rules, denied).unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("rules read again", || {
        server.log().contains("acl rules read again").then_some(())
    });
    // Who has subscribed what it may not any more is told so and cut; nobody else is, and the session stays.
    tablet.await_cut(0x87, CUT);
    other.ping();
    assert_eq!(metric(&server, "godwit_mqtt_rights_lost"), 1);
    let (mut tablet, present) = Client::connect(&server, "tablet", "ann", &token, false);
    assert!(present);
    tablet.ping();
    assert_eq!(metric(&server, "godwit_mqtt_owed_forbidden"), 0);
    // What was owed and is denied is dropped and counted; the rest comes.
    let (mut phone, present) = Client::connect(&server, "phone", "ann", &token, false);
    assert!(present);
    assert_eq!(phone.topics(1), ["news/b"]);
    phone.ping();
    let dropped = "godwit_mqtt_owed_forbidden";
    assert_eq!(metric(&server, dropped), 2);
    // So is what comes now; who came back stays.
    publish(&server, "ann", &token, "news/ann");
    publish(&server, "ann", &token, "news/c");
    assert_eq!(
        (phone.topics(1), tablet.topics(1)),
        (vec!["news/c".into()], vec!["news/c".into()])
    );
    assert_eq!(metric(&server, dropped), 4);
    // A filter is refused if it can match what is denied; others of the same SUBSCRIBE are not.
    let codes = phone.subscribe(&["news/#", "news/b", "news/ann", "news/+", "news/b/#", "other"]);
    assert_eq!(codes, [0x87, 1, 0x87, 0x87, 1, 0x87]);
    let mut old = server.mosquitto("mosquitto_sub", &["-u", "ann", "-P", &token, "-V", "mqttv311"]);
    let output = old
        .args(["-t", "news/b", "-t", "news/a", "-E", "-d"])
        .output()
        .unwrap();
    assert!(
        support::text(&output.stdout).contains("(mid: 1): 0, 128"),
        "{output:?}"
    );

    // Rules that cannot be read change nothing.
    std::fs::write(&rules, "[[acl]]\nallow = \"me/#\"\n").unwrap();
    server.signal(rustix::process::Signal::HUP);
    eventually("refused rules", || {
        server
            .log()
            .contains("the acl rules stay the old ones")
            .then_some(())
    });
    publish(&server, "ann", &token, "news/b");
    assert_eq!(phone.topics(1), ["news/b"]);
}

#[test]
fn what_a_member_was_owed_stays_owed_after_the_removal() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let ((ann, _), (_, bob)) = (server.user("ann"), server.user("bob"));
    let (_, me) = get_as(&server.api("/users/me"), Some(&bob)).unwrap();
    let me: serde_json::Value = serde_json::from_str(&me).unwrap();
    let bob_id = me["user_id"].as_str().unwrap();
    let (status, group) = post(
        &server.api("/groups"),
        Some(&ann),
        &json!({ "name": "g", "members": [bob_id] }),
    );
    assert_eq!(status, 201, "{group}");
    let group = group["conversation_id"].as_str().unwrap();
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
    let messages = server.api(&format!("/conversations/{group}/messages"));
    let send = |text: &str| {
        post(
            &messages,
            Some(&ann),
            &json!({ "content_type": "text", "content": text }),
        )
    };
    assert_eq!(send("before").0, 201);
    delete(&server.api(&format!("/groups/{group}/members/{bob_id}")), &ann);
    assert_eq!(send("after").0, 201);
    assert_eq!(
        server.subscribe(&[&phone[..], &["-C", "1", "-W", "20"]].concat()),
        ["ann: before"]
    );
    let more = server
        .mosquitto("mosquitto_sub", &[&phone[..], &["-W", "1"]].concat())
        .output()
        .unwrap();
    assert_eq!(support::text(&more.stdout), "", "nothing of after the removal");
}
