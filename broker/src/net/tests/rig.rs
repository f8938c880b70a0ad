//! Real workers with real sockets, accounts that know a few passwords, and a home that does little: what the tests of
//! `net` speak to.

use std::any::Any;
use std::collections::HashSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use godwit_accounts::USER_NAMES;
use godwit_cluster::own::{Holdings, Layout};
use godwit_cluster::{Clustered, Cx, Flow, Loading, Peers, Reply, Role, RoleId, Router, Tag, Workers};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Op, Outcome, Read, ReadAnswer, Store, View, blocking};
use godwit_wire::account::{AccountAnswer, AccountCommand, Principal, Scopes, ScramKeys};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::{Key, UserId};
use uuid::Uuid;

use crate::codec;
use crate::net::{Event, Listener, Net, NetConfig, NetMetrics, Proxies, TlsSettings};
use crate::packet::{Ack, Connack, Incoming, Outgoing, PublishOut};
use crate::part::Part;
use crate::wire_trait::{CloseReason, ConnId, Sent, Wire};

/// What the home saw, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saw {
    Publish(String, usize),
    Closed(CloseReason),
    Disconnect,
    /// That was shown to another node; asked by a publish to `certificate`.
    Certificate(Option<Uuid>),
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) saw: Mutex<Vec<Saw>>,
}

/// Sockets, and a home that acknowledges. It closes who calls itself `overtaken` without an answer, and gives none to `never`. Topics say what else it does: `pause` stops reading for 300 ms, `flood` sends
/// 4,000 numbered packets of 1 KiB as room allows, `burst` the last 512 of them in one turn, `nap` holds the worker up for 200 ms.
struct Home {
    net: Net,
    rest: Rest,
    ends: bool,
}

struct Rest {
    shared: Arc<Shared>,
    flood: Option<(ConnId, u32)>,
    paused: Option<ConnId>,
    /// Whom it let in.
    lets_in: Vec<(ConnId, UserId)>,
}

const FLOOD: u32 = 4_000;
/// Twice what may wait for a connection, in KiB.
pub(super) const BURST: u32 = 512;

fn pour(flood: &mut Option<(ConnId, u32)>, wire: &mut dyn Wire) {
    let Some((conn, next)) = flood else { return };
    while *next < FLOOD && wire.room(*conn) {
        let mut payload = vec![7u8; 1_024];
        payload[..4].copy_from_slice(&next.to_be_bytes());
        let packet = PublishOut {
            topic: "flood".into(),
            payload: payload.into(),
            qos: 0,
            retain: false,
            dup: false,
            packet_id: 0,
            message_expiry: None,
            subscription_ids: Vec::new(),
            properties: None,
        };
        assert_eq!(
            wire.send(*conn, &Outgoing::Publish(Box::new(packet))),
            Sent::Taken
        );
        *next += 1;
    }
}

/// What comes up from connections.
fn up(rest: &mut Rest) -> impl FnMut(&mut Cx<'_>, &mut Net, ConnId, Event) + '_ {
    |cx, net, conn, event| {
        let note = |saw| rest.shared.saw.lock().unwrap().push(saw);
        match event {
            Event::Closed(closed) => {
                note(Saw::Closed(closed.reason));
            }
            Event::Drained => pour(&mut rest.flood, net),
            Event::Renewed(_) => {}
            Event::Packet(Incoming::Disconnect { .. }) => {
                note(Saw::Disconnect);
                net.close(conn, None);
            }
            Event::Packet(Incoming::Publish(publish)) => {
                note(Saw::Publish(publish.topic.to_string(), publish.payload.len()));
                if &*publish.topic == "pause" {
                    net.pause(conn, true);
                    rest.paused = Some(conn);
                    cx.after(300, Part::Users.tag(0));
                }
                if &*publish.topic == "nap" {
                    std::thread::sleep(Duration::from_millis(200));
                }
                if &*publish.topic == "flood" {
                    rest.flood = Some((conn, 0));
                    pour(&mut rest.flood, net);
                }
                if &*publish.topic == "burst" {
                    // As room allows; what finds none is gone.
                    let mut burst = Some((conn, FLOOD - BURST));
                    pour(&mut burst, net);
                }
                if &*publish.topic == "certificate" {
                    note(Saw::Certificate(net.certificate(conn)));
                }
                if publish.qos == 1 {
                    let _ = net.send(conn, &Outgoing::Puback(Ack::success(publish.packet_id)));
                }
            }
            Event::Packet(_) => {}
        }
    }
}

impl Role for Home {
    fn apply(&mut self, _: &mut Cx<'_>, _: &Key, _: Command, _: Reply) -> Flow {
        Flow::Taken
    }

    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }

    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}

    fn enter(&mut self, _: &mut Cx<'_>, _: &Key, tag: Tag) -> Option<Vec<Read>> {
        if let Some((conn, connect, principal)) = self.net.entered(Part::of(tag).1)
            && &*connect.client_id != "never"
        {
            if &*connect.client_id == "overtaken" {
                self.net.close(conn, None);
                return None;
            }
            self.rest.lets_in.push((conn, principal.user));
            let connack = Connack {
                receive_maximum: 10,
                assigned_client_id: connect.client_id_assigned.then(|| connect.client_id.clone()),
                ..Connack::default()
            };
            let _ = self.net.send(conn, &Outgoing::Connack(Box::new(connack)));
        }
        None
    }

    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}

    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        self.net.name_read(cx, Part::of(tag).1, answers);
    }

    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer) {
        self.net
            .judged(cx, Part::of(tag).1, answer, &mut up(&mut self.rest));
    }

    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        match Part::of(tag) {
            (Part::Net, number) => self.net.timer(cx, number, &mut up(&mut self.rest)),
            _ => {
                if let Some(conn) = self.rest.paused.take() {
                    self.net.pause(conn, false);
                }
            }
        }
    }

    fn taken_up(&mut self, cx: &mut Cx<'_>, _: &[u16], _: View) {
        self.net.look_for_homes(cx);
    }

    fn started(&mut self, cx: &mut Cx<'_>) {
        self.net.start(cx);
    }

    fn given_up(&mut self, _: &mut Cx<'_>, shards: &[u16], _: View) {
        let lost: HashSet<u16> = shards.iter().copied().collect();
        let net = &mut self.net;
        self.rest.lets_in.retain(|(conn, user)| {
            let stays = !lost.contains(&Key::User(*user).shard());
            if !stays {
                net.moved(*conn, *user, false);
            }
            stays
        });
        net.given_up(&lost);
    }

    fn stands(&mut self, cx: &mut Cx<'_>) {
        self.net.stands(cx);
    }

    fn io_ended(&mut self, _: &mut Cx<'_>, token: mio::Token) {
        self.net.io_ended(token);
    }

    fn io(&mut self, cx: &mut Cx<'_>, token: mio::Token, readable: bool, writable: bool) {
        self.net
            .io(cx, token, readable, writable, &mut up(&mut self.rest));
    }

    fn handed(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        self.net.handed(cx, item);
    }

    fn lapsed(&mut self, cx: &mut Cx<'_>, over_ms: u64, handed: &mut Vec<Box<dyn Any + Send>>) {
        self.net.lapsed(cx, over_ms, handed);
    }

    fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        self.net.end_of_turn(cx, &mut up(&mut self.rest));
        if self.ends && !self.net.passes_on() {
            self.net.shut_down(cx, &mut up(&mut self.rest));
        }
    }

    fn after_turn(&mut self, cx: &mut Cx<'_>) -> bool {
        self.net.after_turn(cx, &mut up(&mut self.rest))
    }

    fn quiet(&self) -> bool {
        !self.net.passes_on()
    }

    fn shut_down(&mut self, _: &mut Cx<'_>) {
        self.net.stop_reading();
        self.ends = true;
    }
}

/// Knows the passwords `good` and `ends` (in two seconds); never answers `slow`; calls itself unavailable at `failing`.
struct Accounts(Vec<Reply>);

impl Role for Accounts {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        let (Key::User(user), Command::Account(command)) = (key, command) else {
            return Flow::Taken;
        };
        let secret = match *command {
            AccountCommand::Authenticate { secret } => secret,
            AccountCommand::ScramKeys { .. } => {
                let keys = ScramKeys {
                    salt: [1; 16],
                    iterations: 4_096,
                    stored_key: [2; 32],
                    server_key: [3; 32],
                };
                let answer = AccountAnswer::ScramKeys(keys);
                cx.answer(reply, Answer::Account(Box::new(answer)));
                return Flow::Taken;
            }
            _ => return Flow::Taken,
        };
        let expires_at = match &*secret.0 {
            "good" => 0,
            "ends" => cx.now().unix_ms + 2_000,
            "slow" => {
                self.0.push(reply);
                return Flow::Taken;
            }
            "failing" => {
                cx.answer(reply, Refusal::unavailable().into());
                return Flow::Taken;
            }
            _ => {
                cx.answer(reply, Refusal::new(Code::Unauthenticated, "no").into());
                return Flow::Taken;
            }
        };
        let principal = Principal {
            user: *user,
            name: "someone".into(),
            credential: Some(user.0),
            expires_at,
            scopes: Scopes {
                chat: true,
                topics: true,
                rest: false,
            },
            admin: false,
        };
        cx.answer(
            reply,
            Answer::Account(Box::new(AccountAnswer::Principal(principal))),
        );
        Flow::Taken
    }

    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }

    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}

    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}

    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, _: Answer) {}

    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}

    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
}

/// A running node of sockets.
pub(super) struct Rig {
    pub(super) at: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: NetMetrics,
    workers: Option<Workers>,
    _data: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new(config: NetConfig) -> Self {
        Self::with_tls(config, None)
    }

    pub(super) fn with_tls(config: NetConfig, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self::with_proxies(config, tls, None)
    }

    /// Two workers; users `alice` and `bob`, who live on different ones.
    pub(super) fn with_proxies(
        config: NetConfig,
        tls: Option<Arc<rustls::ServerConfig>>,
        proxies: Option<Proxies>,
    ) -> Self {
        Self::make(config, tls, proxies, None)
    }

    /// A node among others, which holds nothing yet.
    pub(super) fn among(
        config: NetConfig,
        tls: Option<Arc<rustls::ServerConfig>>,
        peers: Arc<dyn Peers>,
    ) -> Self {
        let clustered = Clustered {
            holdings: Arc::new(Holdings::new(Layout::PRODUCT)),
            clock: || 0,
            peers,
        };
        Self::make(config, tls, None, Some(clustered))
    }

    /// A node of a cluster, whose lease is as its holdings say.
    pub(super) fn leased(clustered: Clustered) -> Self {
        Self::make(NetConfig::default(), None, None, Some(clustered))
    }

    fn make(
        config: NetConfig,
        tls: Option<Arc<rustls::ServerConfig>>,
        proxies: Option<Proxies>,
        clustered: Option<Clustered>,
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 64 << 10,
            ..Options::default()
        };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(data.path(), options).unwrap());
        let client = blocking::Client::new(store.clone(), 200);
        let on = |worker: u16| {
            std::iter::repeat_with(UserId::fresh)
                .find(|user| Key::User(*user).shard() % 2 == worker)
                .unwrap()
        };
        for (name, user) in [("alice", on(0)), ("bob", on(1))] {
            let claim = Op::Claim {
                table: USER_NAMES,
                key: Bytes::copy_from_slice(name.as_bytes()),
                value: user.to_bytes(),
            };
            assert_eq!(client.write(vec![claim]).unwrap(), Outcome::Stored);
        }
        let (shared, metrics) = (Arc::new(Shared::default()), NetMetrics::default());
        let (theirs, counts) = (shared.clone(), metrics.clone());
        let make = move |_| -> [Box<dyn Role>; RoleId::COUNT] {
            let home = Home {
                net: Net::new(config.clone(), counts.clone()),
                rest: Rest {
                    shared: theirs.clone(),
                    flood: None,
                    paused: None,
                    lets_in: Vec::new(),
                },
                ends: false,
            };
            [
                Box::new(Accounts(Vec::new())),
                Box::new(home),
                Box::new(Accounts(Vec::new())),
            ]
        };
        let workers = match clustered {
            None => Workers::start(2, &store, Arc::new(make)).unwrap(),
            Some(clustered) => {
                Workers::start_in(2, &store, Arc::new(make), &|_: &Router| clustered.clone()).unwrap()
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        for worker in 0..2 {
            let socket = listener.try_clone().unwrap();
            workers.router().hand_over(
                worker,
                RoleId::Broker,
                Box::new(Listener {
                    socket,
                    tls: tls.clone().map(TlsSettings::new),
                    proxies: proxies.clone(),
                }),
            );
        }
        Self {
            at,
            shared,
            metrics,
            workers: Some(workers),
            _data: data,
        }
    }

    pub(super) fn router(&self) -> &Router {
        self.workers.as_ref().unwrap().router()
    }

    /// How many connections ended before their CONNACK for this reason.
    pub(super) fn refused(&self, reason: &'static str) -> u64 {
        self.metrics.refused(reason)
    }

    pub(super) fn stop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
    }

    pub(super) fn client(&self) -> Client {
        Client(TcpStream::connect(self.at).unwrap())
    }

    /// A client of MQTT 5 that was let in.
    pub(super) fn connected(&self, connect: &[u8]) -> Client {
        let mut client = self.client();
        client.write(connect);
        assert_eq!(client.packet().unwrap()[..1], [0x20]);
        client
    }

    /// Waits until the home saw this, 5 s at most.
    pub(super) fn wait_for(&self, saw: &Saw) {
        self.wait(|all| all.contains(saw));
    }

    pub(super) fn wait(&self, enough: impl Fn(&[Saw]) -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !enough(&self.shared.saw.lock().unwrap()) {
            assert!(
                Instant::now() < until,
                "not seen: {:?}",
                self.shared.saw.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A raw client.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next packet, or `None` at the end of the connection; waits 10 s at most.
    pub(super) fn packet(&mut self) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        packet(&mut self.0)
    }
}

impl Client {
    /// Whether the other side says no more but still takes what is sent: no reset that may destroy its last word.
    pub(super) fn ends_in_order(&mut self) -> bool {
        // Time for a reset to arrive, if there is one.
        std::thread::sleep(Duration::from_millis(50));
        self.0.write_all(&[0xc0, 0]).is_ok() && matches!(std::io::Read::read(&mut self.0, &mut [0]), Ok(0))
    }
}

/// The next packet of a stream.
pub(super) fn packet(stream: &mut impl std::io::Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match codec::frame(&bytes, 1 << 20) {
            codec::Frame::Whole { .. } => return Some(bytes),
            codec::Frame::Bad(error) => panic!("not a packet: {error}"),
            codec::Frame::Incomplete { need } => {
                let before = bytes.len();
                bytes.resize(need, 0);
                match stream.read(&mut bytes[before..]) {
                    Ok(0) => {
                        assert_eq!(before, 0, "ended within a packet");
                        return None;
                    }
                    Ok(read) => bytes.truncate(before + read),
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// A CONNECT.
pub(super) fn connect(level: u8, client: &str, keep_alive: u16, login: Option<(&str, &str)>) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut body = [
        &text("MQTT")[..],
        &[level, if login.is_some() { 0xc2 } else { 0x02 }],
    ]
    .concat();
    body.extend_from_slice(&keep_alive.to_be_bytes());
    if level == 5 {
        body.push(0);
    }
    body.extend(text(client));
    if let Some((user, password)) = login {
        body.extend(text(user));
        body.extend(text(password));
    }
    whole(0x10, &body)
}

/// A PUBLISH of QoS 1 in MQTT 5.
pub(super) fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    let head = [
        &(topic.len() as u16).to_be_bytes()[..],
        topic.as_bytes(),
        &id.to_be_bytes(),
        &[0],
    ]
    .concat();
    whole(0x32, &[&head, payload].concat())
}

pub(super) fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let more = left > 0x7f;
        packet.push((left & 0x7f) as u8 | if more { 0x80 } else { 0 });
        left >>= 7;
        if !more {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

pub(super) fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}
