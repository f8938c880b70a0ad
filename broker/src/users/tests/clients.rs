//! What clients of the tests are and send.

use bytes::Bytes;
use godwit_wire::account::{Principal, Scopes};
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::proto::chat;
use prost::Message as _;
use uuid::Uuid;

use super::rig::Rig;
use crate::packet::{Connect, FilterIn, Incoming, Outgoing, PublishIn, PublishOut, Version};
use crate::wire_trait::ConnId;

pub(super) fn subscribe(packet_id: u16, filter: &str, qos: u8) -> Incoming {
    let filter = FilterIn {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    Incoming::Subscribe {
        packet_id,
        filters: vec![filter],
        subscription_id: None,
    }
}

pub(super) fn user(name: &str) -> Principal {
    Principal {
        user: UserId::fresh(),
        name: name.into(),
        credential: Some(Uuid::now_v7()),
        expires_at: 0,
        scopes: Scopes {
            chat: true,
            topics: true,
            rest: true,
        },
        admin: false,
    }
}

/// A persistent session.
pub(super) fn persistent(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        client_id: client_id.into(),
        client_id_assigned: false,
        clean_start: false,
        keep_alive: 0,
        session_expiry: 3_600,
        receive_maximum: 65_535,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        request_problem_information: true,
        will: None,
        username: None,
        password: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// A session that ends with its connection.
pub(super) fn clean(version: Version, client_id: &str) -> Connect {
    Connect {
        clean_start: true,
        session_expiry: 0,
        ..persistent(version, client_id)
    }
}

pub(super) fn publish(topic: &str, payload: &str, qos: u8, packet_id: u16) -> Incoming {
    Incoming::Publish(Box::new(PublishIn {
        topic: topic.into(),
        topic_alias: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        dup: false,
        packet_id,
        message_expiry: None,
        properties: None,
    }))
}

pub(super) fn text(publish: &PublishOut) -> String {
    String::from_utf8_lossy(&publish.payload).into_owned()
}

pub(super) fn send(conversation: ConversationId, payload: &str, packet_id: u16) -> Incoming {
    publish(&format!("c/{conversation}/send/text"), payload, 1, packet_id)
}

pub(super) fn seqs(publishes: &[PublishOut]) -> Vec<u64> {
    let decode = |publish: &PublishOut| {
        chat::InboxEvent::decode(publish.payload.clone())
            .unwrap()
            .inbox_seq
    };
    publishes.iter().map(decode).collect()
}

pub(super) fn ack_all(rig: &mut Rig, conn: ConnId) -> Vec<PublishOut> {
    let mut all = Vec::new();
    loop {
        let got = rig.publishes(conn);
        if got.is_empty() {
            return all;
        }
        for publish in got {
            if publish.qos > 0 {
                rig.packet(conn, Incoming::Puback(publish.packet_id, 0));
            }
            all.push(publish);
        }
    }
}

pub(super) fn connack(rig: &mut Rig, conn: ConnId) -> bool {
    match rig.out(conn).first() {
        Some(Outgoing::Connack(connack)) => {
            assert_eq!(connack.reason, 0);
            connack.session_present
        }
        other => panic!("{other:?} is no CONNACK"),
    }
}

pub(super) fn pubacks(rig: &mut Rig, conn: ConnId) -> Vec<u16> {
    let puback = |packet: Outgoing| match packet {
        Outgoing::Puback(ack) => Some(ack.packet_id),
        _ => None,
    };
    rig.out(conn).into_iter().filter_map(puback).collect()
}

pub(super) fn connack_of(rig: &mut Rig, conn: ConnId) -> bool {
    let lines = rig.wire.lines.get_mut(&conn).unwrap();
    let at = lines
        .out
        .iter()
        .position(|packet| matches!(packet, Outgoing::Connack(_)));
    match lines.out.remove(at.unwrap()) {
        Outgoing::Connack(connack) => connack.session_present,
        _ => unreachable!(),
    }
}
