//! One persistent MQTT session on rumqttc, 3.1.1 or 5.0, with manual acknowledgements: the same events for both. It
//! mends what rumqttc leaves open over a lost connection: acknowledgements already read are still told, what waits
//! for its acknowledgement is sent again in its first order, and released QoS 2 packet ids are remembered.

mod v3;
mod v5;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

/// Packets in flight of one client at most, by the range of packet ids; the senders' own windows are smaller.
const PACKET_IDS: u16 = 256;
/// Requests between a session's script and rumqttc: a window of publishes, and an acknowledgement for each packet
/// that the server may have in flight (256).
const REQUESTS: usize = 2_048;
/// Largest packet.
const PACKET_BYTES: usize = 512 * 1024;
/// Released packet ids remembered: more than any receive maximum here.
const RELEASED: usize = 512;
/// A dead peer is noticed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For connecting and for the CONNACK.
const CONNECT_SECONDS: u64 = 15;
/// How long the session outlives its connection.
const EXPIRY_SECONDS: u32 = 24 * 3600;

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V3,
    /// 5.0
    V5,
}

/// Who connects where.
#[derive(Debug, Clone)]
pub struct Login {
    /// Protocol.
    pub version: Version,
    /// Client id.
    pub client: String,
    /// User name.
    pub user: String,
    /// Device token.
    pub token: String,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// MQTT 5 receive maximum, if not the largest.
    pub receive_maximum: Option<u16>,
}

/// A publish that arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Topic.
    pub topic: String,
    /// Application message.
    pub payload: Bytes,
    /// DUP flag.
    pub dup: bool,
    /// Packet id, 0 for QoS 0.
    pub packet: u16,
    /// 0 to 2.
    pub qos: u8,
}

/// What a success told in MQTT 5.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// `message_id`
    pub message_id: Option<String>,
    /// `seq`
    pub sequence: Option<u64>,
}

/// What happened on a session.
#[derive(Debug)]
pub enum Happened {
    /// Connected; whether the session was there.
    Connected {
        /// Session present.
        resumed: bool,
    },
    /// SUBACK.
    Subscribed {
        /// Every filter was granted.
        granted: bool,
        /// The lowest granted QoS.
        qos: u8,
    },
    /// A publish went out under this packet id, the first time or again.
    Sent(u16),
    /// PUBACK, or PUBCOMP.
    Acknowledged(u16, Told),
    /// A PUBACK or PUBREC that says no, with its code.
    Refused(u16, String),
    /// A publish arrived.
    Delivered(Delivery),
    /// The PUBACK or PUBREC of a delivery went out.
    AcknowledgedDelivery,
    /// PUBREL: the packet id is free.
    Released(u16),
    /// The DISCONNECT went out.
    Left,
    /// Nothing of interest.
    Nothing,
    /// No connection any more, or none could be made; the next call connects again.
    Lost(String),
}

enum Inner {
    V3(Box<v3::Link>),
    V5(Box<v5::Link>),
}

/// A publish to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Topic.
    pub topic: String,
    /// Application message.
    pub payload: Bytes,
    /// 1 or 2.
    pub qos: u8,
    /// MQTT 5: the client message id as a user property.
    pub client_message_id: Option<String>,
}

/// One session.
pub struct Connection {
    inner: Inner,
    /// Packet ids of what was sent and is not acknowledged → when it was first given to rumqttc, as a running number.
    order: HashMap<u16, u64>,
    sent: u64,
    /// QoS 2 packet ids of arrived publishes that are not released.
    unreleased: BTreeSet<u16>,
    /// The last ones that were: if the PUBCOMP got lost the PUBREL comes again, and rumqttc must expect it.
    released: VecDeque<u16>,
    left_over: VecDeque<Happened>,
    /// Between the loss of a connection and the next CONNACK: what arrived before is not acknowledged any more, its
    /// packet id may mean something else by then.
    down: bool,
}

impl Connection {
    /// Connects with the first [`Connection::next`].
    pub fn new(login: &Login) -> Self {
        let inner = match login.version {
            Version::V3 => Inner::V3(Box::new(v3::Link::new(login))),
            Version::V5 => Inner::V5(Box::new(v5::Link::new(login))),
        };
        Self {
            inner,
            order: HashMap::new(),
            sent: 0,
            unreleased: BTreeSet::new(),
            released: VecDeque::new(),
            left_over: VecDeque::new(),
            down: true,
        }
    }

    /// Subscribes; whether there was room for the request.
    pub fn subscribe(&self, filter: &str, qos: u8) -> bool {
        match &self.inner {
            Inner::V3(link) => link.subscribe(filter, qos),
            Inner::V5(link) => link.subscribe(filter, qos),
        }
    }

    /// Publishes; whether there was room for the request. Requests go out in this order.
    pub fn publish(&self, publish: &Outgoing) -> bool {
        match &self.inner {
            Inner::V3(link) => link.publish(publish),
            Inner::V5(link) => link.publish(publish),
        }
    }

    /// Acknowledges a delivery: PUBACK or PUBREC; one of a lost connection is left to come again. Whether there was
    /// room for the request.
    pub fn acknowledge(&self, packet: u16, qos: u8) -> bool {
        if self.down {
            return true;
        }
        match &self.inner {
            Inner::V3(link) => link.acknowledge(packet, qos),
            Inner::V5(link) => link.acknowledge(packet, qos),
        }
    }

    /// Says DISCONNECT and ends; the session stays.
    pub async fn leave(mut self) {
        let asked = match &self.inner {
            Inner::V3(link) => link.disconnect(),
            Inner::V5(link) => link.disconnect(),
        };
        // Until it is written; the server then closes.
        for _ in 0..20 {
            if !asked || matches!(self.next().await, Happened::Left | Happened::Lost(_)) {
                return;
            }
        }
    }

    /// The next event. Must not be cancelled: rumqttc forgets packets then.
    pub async fn next(&mut self) -> Happened {
        let happened = match self.left_over.pop_front() {
            Some(happened) => happened,
            None => match &mut self.inner {
                Inner::V3(link) => link.next().await,
                Inner::V5(link) => link.next().await,
            },
        };
        self.keep_book(happened)
    }

    fn keep_book(&mut self, happened: Happened) -> Happened {
        match &happened {
            Happened::Connected { resumed } => {
                self.down = false;
                if !resumed {
                    self.order.clear();
                    self.unreleased.clear();
                }
            }
            Happened::Sent(packet) => {
                self.sent += 1;
                let number = self.sent;
                self.order.entry(*packet).or_insert(number);
            }
            Happened::Acknowledged(packet, _) | Happened::Refused(packet, _) => {
                self.order.remove(packet);
            }
            Happened::Delivered(delivery)
                if delivery.qos == 2 && !self.unreleased.insert(delivery.packet) =>
            {
                // Seen on the connection before, which ended before its PUBREC was there: once is enough.
                let _ = self.acknowledge(delivery.packet, 2);
                return Happened::Nothing;
            }
            Happened::Released(packet) => {
                self.unreleased.remove(packet);
                self.released.push_back(*packet);
                if self.released.len() > RELEASED {
                    self.released.pop_front();
                }
            }
            Happened::Lost(why) if !self.down => {
                // What was read before the loss is told before it.
                self.down = true;
                let why = why.clone();
                self.mend();
                self.left_over.push_back(Happened::Lost(why));
                return Happened::Nothing;
            }
            _ => {}
        }
        happened
    }

    fn mend(&mut self) {
        let expected: BTreeSet<u16> = self.unreleased.iter().chain(&self.released).copied().collect();
        let order = &self.order;
        let place = |packet: u16| order.get(&packet).copied();
        let left_over = match &mut self.inner {
            Inner::V3(link) => link.mend(&place, &expected),
            Inner::V5(link) => link.mend(&place, &expected),
        };
        self.left_over.extend(left_over);
    }
}

/// The place of a request that waits to be sent again: PUBREL first, then publishes as they were first sent, then
/// those that never were.
fn rank(release: bool, publish: Option<u16>, place: &dyn Fn(u16) -> Option<u64>) -> (u8, u64) {
    match (release, publish) {
        (true, _) => (0, 0),
        (false, Some(packet)) if packet != 0 => (1, place(packet).unwrap_or(u64::MAX)),
        _ => (2, 0),
    }
}
