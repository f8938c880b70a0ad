//! MQTT control packets as the session engine sees them: one form for both protocol versions, validated by the codec.
//! No bytes and no sockets here.

use std::sync::Arc;

use bytes::Bytes;
use godwit_wire::proto::stored::PublishProperties;

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1 (level 4).
    V311,
    /// MQTT 5.0 (level 5).
    V5,
}

/// Packet identifier, never 0.
pub type PacketId = u16;

/// A CONNECT (MQTT 5, 3.1).
#[derive(Clone, Debug)]
pub struct Connect {
    /// Version.
    pub version: Version,
    /// Never empty at a user's home: the door assigns one.
    pub client_id: Box<str>,
    /// Whether the door assigned it: CONNACK tells it (MQTT 5).
    pub client_id_assigned: bool,
    /// Clean Start (3.1.1: Clean Session).
    pub clean_start: bool,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Session Expiry Interval, seconds; `u32::MAX`: as long as allowed. In 3.1.1: 0 for a clean session, else `u32::MAX`.
    pub session_expiry: u32,
    /// What the client takes unacknowledged; 65,535 if it did not say.
    pub receive_maximum: u16,
    /// Largest packet that the client takes; `u32::MAX` if it did not say.
    pub maximum_packet_size: u32,
    /// Aliases that the client takes from us.
    pub topic_alias_maximum: u16,
    /// Whether reason strings and user properties may be sent on other packets than PUBLISH, CONNACK, DISCONNECT.
    pub request_problem_information: bool,
    /// Will.
    pub will: Option<Box<Will>>,
    /// User name.
    pub username: Option<Box<str>>,
    /// Password.
    pub password: Option<Bytes>,
    /// Authentication Method.
    pub authentication_method: Option<Box<str>>,
    /// Authentication Data; only with a method.
    pub authentication_data: Option<Bytes>,
}

/// A will message (3.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// Topic name.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: u8,
    /// Retain.
    pub retain: bool,
    /// Will Delay Interval, seconds.
    pub delay: u32,
    /// Message Expiry Interval, seconds, from its publication.
    pub message_expiry: Option<u32>,
    /// The other properties.
    pub properties: Option<Box<PublishProperties>>,
}

/// A PUBLISH from a client.
#[derive(Clone, Debug)]
pub struct PublishIn {
    /// Topic name; empty if only an alias was sent (MQTT 5). Never empty at a user's home: `net` puts in what the alias
    /// stands for.
    pub topic: Box<str>,
    /// Topic Alias, not 0; `None` at a user's home.
    pub topic_alias: Option<u16>,
    /// Application message.
    pub payload: Bytes,
    /// QoS.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// With QoS 1 and 2.
    pub packet_id: PacketId,
    /// Message Expiry Interval, seconds.
    pub message_expiry: Option<u32>,
    /// What travels with it.
    pub properties: Option<Box<PublishProperties>>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterIn {
    /// Topic filter, not yet judged.
    pub filter: Box<str>,
    /// Maximum QoS asked for.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling, 0 to 2.
    pub retain_handling: u8,
}

/// What a client sends after its CONNECT.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A second CONNECT is a protocol error.
    Connect(Box<Connect>),
    /// PUBLISH.
    Publish(Box<PublishIn>),
    /// PUBACK; reason 0 in 3.1.1.
    Puback(PacketId, u8),
    /// PUBREC.
    Pubrec(PacketId, u8),
    /// PUBREL.
    Pubrel(PacketId, u8),
    /// PUBCOMP.
    Pubcomp(PacketId, u8),
    /// SUBSCRIBE.
    Subscribe {
        /// Packet identifier.
        packet_id: PacketId,
        /// At least one.
        filters: Vec<FilterIn>,
        /// Subscription Identifier.
        subscription_id: Option<u32>,
    },
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// Packet identifier.
        packet_id: PacketId,
        /// At least one.
        filters: Vec<Box<str>>,
    },
    /// PINGREQ.
    Pingreq,
    /// DISCONNECT.
    Disconnect {
        /// 0x00: normal; 0x04: with will.
        reason: u8,
        /// A new Session Expiry Interval, seconds.
        session_expiry: Option<u32>,
    },
    /// AUTH. Never comes up to a home.
    Auth(Box<Auth>),
}

/// An AUTH of MQTT 5 (3.15), either way.
#[derive(Clone, Debug)]
pub struct Auth {
    /// 0x00 success, 0x18 continue, 0x19 re-authenticate.
    pub reason: u8,
    /// Authentication Method; empty if a client left it out.
    pub method: Box<str>,
    /// Authentication Data; empty: none.
    pub data: Bytes,
}

/// User properties, in order.
pub type UserProperties = Vec<(String, String)>;

/// What goes to a client.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// CONNACK.
    Connack(Box<Connack>),
    /// PUBLISH.
    Publish(Box<PublishOut>),
    /// PUBACK.
    Puback(Ack),
    /// PUBREC.
    Pubrec(Ack),
    /// PUBREL.
    Pubrel(Ack),
    /// PUBCOMP.
    Pubcomp(Ack),
    /// SUBACK: one code a filter.
    Suback(PacketId, Vec<u8>),
    /// UNSUBACK; 3.1.1 sends no codes.
    Unsuback(PacketId, Vec<u8>),
    /// PINGRESP.
    Pingresp,
    /// AUTH; only to clients that named a method.
    Auth(Box<Auth>),
    /// DISCONNECT; nothing in 3.1.1. User properties carry the error code where there is one.
    Disconnect(u8, UserProperties),
    /// DISCONNECT 0x9C, use another server: this Server Reference. Nothing in 3.1.1.
    Elsewhere(Arc<str>),
}

/// A CONNACK. In 3.1.1 only session present and the code (mapped by the codec) are sent.
#[derive(Clone, Debug, Default)]
pub struct Connack {
    /// Session Present.
    pub session_present: bool,
    /// MQTT 5 reason code; 0: accepted.
    pub reason: u8,
    /// Session Expiry Interval if it differs from what was asked for.
    pub session_expiry: Option<u32>,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size.
    pub maximum_packet_size: u32,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<Box<str>>,
    /// Server Keep Alive, seconds: the connection's keep-alive from now on.
    pub server_keep_alive: Option<u16>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: u16,
    /// Maximum QoS, if it is not 2.
    pub maximum_qos: Option<u8>,
    /// Server Reference.
    pub server_reference: Option<Arc<str>>,
    /// Shared Subscription Available.
    pub shared_subscriptions: bool,
    /// Authentication Method and Data; `net` puts them in.
    pub authentication: Option<(&'static str, Bytes)>,
    /// Reason String, where it says more than the code's own ([`Outgoing::Disconnect`] has those too): they are left out
    /// for who asked for no problem information, or takes no packet as large.
    pub reason_string: Option<&'static str>,
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// Reason code (MQTT 5).
    pub reason: u8,
    /// User properties (MQTT 5; left out if the client asked for no problem information and the reason is an error).
    pub properties: UserProperties,
    /// Reason String (MQTT 5); left out like them, and before them if the packet would be too large.
    pub reason_string: Option<&'static str>,
}

impl Ack {
    /// A success without properties.
    pub fn success(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: 0,
            properties: Vec::new(),
            reason_string: None,
        }
    }
}

/// A PUBLISH to a client.
#[derive(Clone, Debug)]
pub struct PublishOut {
    /// Topic name.
    pub topic: Arc<str>,
    /// Application message.
    pub payload: Bytes,
    /// QoS.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// 0 with QoS 0.
    pub packet_id: PacketId,
    /// Remaining Message Expiry Interval, seconds.
    pub message_expiry: Option<u32>,
    /// Subscription Identifiers.
    pub subscription_ids: Vec<u32>,
    /// What travels with it.
    pub properties: Option<Box<PublishProperties>>,
}
