//! One persistent MQTT 5 session in a cluster: connects to whichever node takes it (follows a Server Reference, else tries
//! the nodes in turn), feeds its script, sends again what was not acknowledged. What is sent and got is the script's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytestring::ByteString;
use futures::{SinkExt, StreamExt};
use godwit_e2e::mqtt::{Delivery, Outgoing, Told};
use godwit_e2e::record::{Line, now};
use godwit_e2e::session::Script;
use godwit_e2e::shared::Shared;
use rand::RngExt;
use rand::rngs::StdRng;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAckReason, Packet, PublishAck, PublishAckReason, PublishProperties, Subscribe,
    SubscribeAckReason, SubscriptionOptions,
};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::served::Served;

/// For connecting and for the CONNACK.
const CONNECT: Duration = Duration::from_secs(4);
/// So long a send may go without an answer before the client takes the node for dead, as a chat application does.
const STALL: Duration = Duration::from_secs(5);
/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// Between two PINGREQs.
const PING: Duration = Duration::from_secs(2);
/// Reconnects wait this long at most, milliseconds, each a random part of it.
const RECONNECT_MS: u64 = 60;
/// After a refusal, before the next send.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// How long the session outlives its connection.
const EXPIRY_SECONDS: u32 = 24 * 3600;
/// Largest packet from a server.
const PACKET_BYTES: u32 = 512 * 1024;
/// The packet identifier of every SUBSCRIBE: outside of those of publishes.
const SUBSCRIBE_ID: NonZeroU16 = NonZeroU16::MAX;

/// Why a client left by itself: what it sends again then must not be stored twice, with or without an id.
const NO_ANSWERS: &str = "no answers";
/// The same of a client that is to.
const ROAMS: &str = "roams";
/// In one of so many ticks.
const ROAM_ONE_IN: u32 = 4;

/// A connection.
pub type Wire = Framed<TcpStream, Codec>;

/// Who connects.
#[derive(Debug, Clone)]
pub struct Who {
    /// User name.
    pub user: String,
    /// Device token.
    pub token: String,
    /// Client id.
    pub client: String,
    /// Where the nodes listen for MQTT.
    pub nodes: Arc<[SocketAddr]>,
    /// While it is set, the client leaves its connection without a word every second or so, and comes back at any node.
    pub roams: Arc<AtomicBool>,
}

/// What came of an attempt to connect.
pub enum Came {
    /// Connected; whether the session was there.
    In(Box<Wire>, bool),
    /// Told to go there.
    Elsewhere(SocketAddr),
    /// Anything else.
    No(String),
}

/// The first of the servers that a Server Reference names.
fn server_of(reference: Option<&ByteString>) -> Option<SocketAddr> {
    reference?.split(' ').next()?.parse().ok()
}

/// Connects once.
pub async fn connect(who: &Who, to: SocketAddr) -> Came {
    match tokio::time::timeout(CONNECT, connect_now(who, to)).await {
        Ok(Ok(came)) => came,
        Ok(Err(error)) => Came::No(format!("{error:#}")),
        Err(_) => Came::No(format!("{to} gives no CONNACK")),
    }
}

async fn connect_now(who: &Who, to: SocketAddr) -> Result<Came> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut wire = Framed::new(stream, Codec::new(PACKET_BYTES, 0));
    let connect = Connect {
        keep_alive: 20,
        session_expiry_interval_secs: EXPIRY_SECONDS,
        max_packet_size: NonZeroU32::new(PACKET_BYTES),
        client_id: who.client.as_str().into(),
        username: Some(who.user.as_str().into()),
        password: Some(who.token.clone().into_bytes().into()),
        ..Connect::default()
    };
    wire.send(Packet::Connect(Box::new(connect))).await?;
    let (packet, _) = wire.next().await.context("closed before its CONNACK")??;
    let Packet::ConnectAck(ack) = packet else {
        bail!("no CONNACK but {packet:?}");
    };
    match (ack.reason_code, server_of(ack.server_reference.as_ref())) {
        (ConnectAckReason::Success, _) => Ok(Came::In(Box::new(wire), ack.session_present)),
        (_, Some(server)) => Ok(Came::Elsewhere(server)),
        (reason, None) => Ok(Came::No(format!("CONNACK {reason:?} {:?}", ack.reason_string))),
    }
}

/// Subscribes at QoS 1 and waits for the answer; what else comes meanwhile is dropped unacknowledged.
///
/// # Errors
/// When it is refused or the connection ends.
pub async fn subscribe_once(wire: &mut Wire, filter: &str) -> Result<()> {
    wire.send(subscription(filter)).await?;
    while let Some(packet) = wire.next().await {
        if let (Packet::SubscribeAck(ack), _) = packet? {
            return match ack.status.as_slice() {
                [SubscribeAckReason::GrantedQos1] => Ok(()),
                other => bail!("SUBACK {other:?}"),
            };
        }
    }
    bail!("closed before its SUBACK")
}

fn subscription(filter: &str) -> Packet {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    Packet::Subscribe(Subscribe {
        packet_id: SUBSCRIBE_ID,
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![(filter.into(), options)],
    })
}

struct Sent {
    packet: NonZeroU16,
    number: u64,
    publish: Publish,
    at: Instant,
}

/// A session to be run.
pub struct Session<S> {
    /// Its name in the records.
    pub name: String,
    /// Who connects.
    pub who: Who,
    /// What it subscribes to.
    pub filter: String,
    /// What it does.
    pub script: S,
    /// What the run shares.
    pub shared: Arc<Shared>,
    /// When it was served.
    pub served: Arc<Served>,
    /// For its pauses and its choice of nodes.
    pub random: StdRng,
    state: State,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Sent>,
    last_packet: u16,
    known: bool,
    subscribed: bool,
    elsewhere: Option<SocketAddr>,
    /// The number of the node that it is connected to, or was last.
    at: usize,
}

/// Why a connection ended.
type Ended = String;

impl<S: Script> Session<S> {
    /// One that is not connected yet.
    pub fn new(
        name: String,
        who: Who,
        filter: String,
        script: S,
        shared: Arc<Shared>,
        served: Arc<Served>,
        random: StdRng,
    ) -> Self {
        Self {
            name,
            who,
            filter,
            script,
            shared,
            served,
            random,
            state: State::default(),
        }
    }

    /// Runs until the task is aborted.
    pub async fn run(mut self) {
        let trace = std::env::var_os("GODWIT_E2E_TRACE").is_some();
        let count = self.who.nodes.len();
        self.state.at = self.random.random_range(0..count);
        loop {
            let to = self
                .state
                .elsewhere
                .take()
                .unwrap_or(self.who.nodes[self.state.at]);
            let why = match connect(&self.who, to).await {
                Came::In(wire, resumed) => {
                    self.shared.recorder.write(&Line::Connect {
                        t: now(),
                        session: &self.name,
                    });
                    // Back to where it was, unless that does not take it.
                    if let Some(known) = self.who.nodes.iter().position(|known| *known == to) {
                        self.state.at = known;
                    }
                    let ended = self.connected(*wire, resumed).await;
                    self.shared.told_no("closed");
                    if ended != NO_ANSWERS || self.shared.answers_may_be_late() {
                        // The home died, or moved, or the client went away with a PUBACK on its way over the link: sends without an id
                        // that are in flight may be stored twice (at least once is all that QoS 1 says of them), and are counted
                        // apart as after a kill.
                        self.shared.recorder.write(&Line::Kill { t: now() });
                    }
                    ended
                }
                Came::Elsewhere(server) => {
                    self.shared.told_no("use another server");
                    self.state.elsewhere = Some(server);
                    "sent elsewhere".to_owned()
                }
                Came::No(why) => {
                    self.state.at = (self.state.at + 1) % count;
                    self.shared.told_no(if why.starts_with("CONNACK") {
                        &why
                    } else {
                        "no connection"
                    });
                    why
                }
            };
            if trace {
                eprintln!("{} {} at {to}: {why}", now(), self.name);
            }
            let pause = self.random.random_range(5..RECONNECT_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn connected(&mut self, mut wire: Wire, resumed: bool) -> Ended {
        if !resumed {
            if self.state.known {
                self.shared
                    .problem(format!("the session of {} was not there any more", self.name));
            }
            for sent in std::mem::take(&mut self.state.waiting) {
                self.script.forgotten(sent.number);
            }
        }
        self.state.subscribed = false;
        match self.talk(&mut wire, !resumed || !self.state.known).await {
            Ok(ended) => ended,
            Err(error) => format!("{error:#}"),
        }
    }

    async fn talk(&mut self, wire: &mut Wire, subscribe: bool) -> Result<Ended> {
        let mut heard = Instant::now();
        let mut pinged = Instant::now();
        if subscribe {
            wire.feed(subscription(&self.filter)).await?;
        }
        for sent in &mut self.state.waiting {
            sent.publish.dup = true;
            sent.at = Instant::now();
            wire.feed(Packet::Publish(Box::new(sent.publish.clone()))).await?;
        }
        wire.flush().await?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if self.state.known {
                self.send_more(wire).await?;
            }
            let packet = tokio::select! {
                packet = wire.next() => packet,
                _ = tick.tick() => {
                    let silent = heard.elapsed() > STALL;
                    let stuck = self.state.waiting.front().is_some_and(|sent| sent.at.elapsed() > STALL);
                    if silent || stuck {
                        self.shared.told_no(if silent { "silence" } else { "no answer to a send" });
                        return Ok(NO_ANSWERS.to_owned());
                    }
                    if self.who.roams.load(Ordering::Relaxed) && self.random.random_ratio(1, ROAM_ONE_IN) {
                        let to = self.random.random_range(0..self.who.nodes.len());
                        self.state.elsewhere = Some(self.who.nodes[to]);
                        self.shared.told_no(ROAMS);
                        return Ok(ROAMS.to_owned());
                    }
                    if pinged.elapsed() > PING {
                        pinged = Instant::now();
                        wire.send(Packet::PingRequest).await?;
                    }
                    continue;
                }
            };
            let Some(packet) = packet else {
                return Ok("closed".to_owned());
            };
            heard = Instant::now();
            match packet?.0 {
                Packet::Publish(publish) => self.arrived(wire, *publish).await?,
                Packet::PublishAck(ack) => self.answered(&ack).await,
                Packet::SubscribeAck(ack) => match ack.status.as_slice() {
                    [SubscribeAckReason::GrantedQos1] => {
                        self.state.known = true;
                        self.script.subscribed(1);
                    }
                    // Asked again at the next connection.
                    other => return Ok(format!("SUBACK {other:?}")),
                },
                Packet::Disconnect(gone) => {
                    self.state.elsewhere = server_of(gone.server_reference.as_ref());
                    return Ok(format!("DISCONNECT {:?}", gone.reason_code));
                }
                _ => {}
            }
        }
    }

    async fn send_more(&mut self, wire: &mut Wire) -> Result<()> {
        let mut any = false;
        while let Some((number, outgoing)) = self.script.next() {
            let packet = self.packet_id();
            let publish = to_publish(outgoing, packet);
            self.state.waiting.push_back(Sent {
                packet,
                number,
                publish: publish.clone(),
                at: Instant::now(),
            });
            wire.feed(Packet::Publish(Box::new(publish))).await?;
            any = true;
        }
        if any {
            wire.flush().await?;
        }
        Ok(())
    }

    /// One that nothing under way has; the windows are far smaller than the range.
    fn packet_id(&mut self) -> NonZeroU16 {
        loop {
            self.state.last_packet = self.state.last_packet % 60_000 + 1;
            let id = NonZeroU16::new(self.state.last_packet).unwrap_or(NonZeroU16::MIN);
            if self.state.waiting.iter().all(|sent| sent.packet != id) {
                return id;
            }
        }
    }

    async fn arrived(&mut self, wire: &mut Wire, publish: Publish) -> Result<()> {
        let delivery = Delivery {
            topic: publish.topic.to_string(),
            payload: publish.payload,
            dup: publish.dup,
            packet: publish.packet_id.map_or(0, NonZeroU16::get),
            qos: publish.qos.value(),
        };
        self.script.delivered(&delivery);
        if let Some(packet_id) = publish.packet_id {
            let ack = PublishAck {
                packet_id,
                reason_code: PublishAckReason::Success,
                properties: Vec::new(),
                reason_string: None,
            };
            wire.send(Packet::PublishAck(ack)).await?;
        }
        Ok(())
    }

    async fn answered(&mut self, ack: &PublishAck) {
        let at = self
            .state
            .waiting
            .iter()
            .position(|sent| sent.packet == ack.packet_id);
        let Some(sent) = at.and_then(|at| self.state.waiting.remove(at)) else {
            return;
        };
        let property = |name: &str| {
            let found = ack.properties.iter().find(|(key, _)| &**key == name);
            found.map(|(_, value)| value.to_string())
        };
        match ack.reason_code {
            PublishAckReason::Success | PublishAckReason::NoMatchingSubscribers => {
                self.served.now(self.state.at);
                let told = Told {
                    message_id: property("message_id"),
                    sequence: property("seq").and_then(|text| text.parse().ok()),
                };
                self.script.acknowledged(sent.number, &told);
            }
            reason => {
                let code = property("code").unwrap_or_else(|| format!("{reason:?}"));
                self.shared.told_no(&code);
                self.script.refused(sent.number, &code);
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

fn to_publish(outgoing: Outgoing, packet: NonZeroU16) -> Publish {
    let properties = outgoing.client_message_id.map(|id| PublishProperties {
        user_properties: vec![("client_message_id".into(), id.into())],
        ..PublishProperties::default()
    });
    Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: outgoing.topic.into(),
        packet_id: Some(packet),
        payload: outgoing.payload,
        properties,
    }
}
