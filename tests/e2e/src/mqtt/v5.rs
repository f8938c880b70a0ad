//! MQTT 5.0 by rumqttc. See the module above.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing as Out;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Packet, PubAckReason, PubRecReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions, Request};

use super::{Delivery, Happened, Login, Outgoing, Told};

/// Refused QoS 2 publishes after which the connection is made anew: rumqttc 0.25 keeps the place of each among those in
/// flight until then, and sends nothing any more when all are taken.
const STUCK: u16 = super::PACKET_IDS / 2;

pub(super) struct Link {
    client: AsyncClient,
    events: EventLoop,
    stuck: u16,
}

fn qos(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

impl Link {
    pub(super) fn new(login: &Login) -> Self {
        let mut options = MqttOptions::new(&login.client, "127.0.0.1", login.port);
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(super::EXPIRY_SECONDS);
        properties.receive_maximum = login.receive_maximum;
        properties.max_packet_size = u32::try_from(super::PACKET_BYTES).ok();
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options
            .set_connect_properties(properties)
            .set_credentials(&login.user, &login.token)
            .set_clean_start(false)
            .set_keep_alive(super::KEEP_ALIVE)
            .set_manual_acks(true)
            .set_outgoing_inflight_upper_limit(super::PACKET_IDS)
            .set_pending_throttle(Duration::ZERO)
            .set_connection_timeout(super::CONNECT_SECONDS)
            .set_network_options(network);
        let (client, events) = AsyncClient::new(options, super::REQUESTS);
        Self {
            client,
            events,
            stuck: 0,
        }
    }

    pub(super) fn subscribe(&self, filter: &str, number: u8) -> bool {
        self.client.try_subscribe(filter, qos(number)).is_ok()
    }

    pub(super) fn publish(&self, publish: &Outgoing) -> bool {
        let (topic, level, payload) = (&publish.topic, qos(publish.qos), publish.payload.clone());
        match &publish.client_message_id {
            None => self.client.try_publish(topic, level, false, payload),
            Some(id) => {
                let properties = PublishProperties {
                    user_properties: vec![("client_message_id".to_owned(), id.clone())],
                    ..PublishProperties::default()
                };
                self.client
                    .try_publish_with_properties(topic, level, false, payload, properties)
            }
        }
        .is_ok()
    }

    pub(super) fn acknowledge(&self, packet: u16, number: u8) -> bool {
        self.client.try_ack(&bare(packet, number)).is_ok()
    }

    pub(super) fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }

    pub(super) async fn next(&mut self) -> Happened {
        if self.stuck >= STUCK {
            self.stuck = 0;
            self.events.clean();
            return Happened::Lost("left, because refused publishes fill the client".to_owned());
        }
        match self.events.poll().await {
            Ok(event) => {
                let record = matches!(event, Event::Incoming(Packet::PubRec(_)));
                let happened = told(event);
                self.stuck += u16::from(record && matches!(happened, Happened::Refused(..)));
                happened
            }
            Err(error) => {
                self.stuck = 0;
                Happened::Lost(error.to_string())
            }
        }
    }

    pub(super) fn mend(
        &mut self,
        place: &dyn Fn(u16) -> Option<u64>,
        expected: &BTreeSet<u16>,
    ) -> Vec<Happened> {
        let read: Vec<Happened> = self.events.state.events.drain(..).map(told).collect();
        // A PUBREC of the old connection: its PUBLISH comes again.
        self.events
            .pending
            .retain(|request| !matches!(request, Request::PubRec(_)));
        self.events
            .pending
            .make_contiguous()
            .sort_by_key(|request| match request {
                Request::Publish(publish) => super::rank(false, Some(publish.pkid), place),
                Request::PubRel(_) => super::rank(true, None, place),
                _ => super::rank(false, None, place),
            });
        let arrived = read.iter().filter_map(|happened| match happened {
            Happened::Delivered(delivery) if delivery.qos == 2 => Some(delivery.packet),
            _ => None,
        });
        let waiting: BTreeSet<u16> = expected.iter().copied().chain(arrived).collect();
        for packet in waiting {
            let _ = self
                .events
                .state
                .handle_incoming_packet(Packet::Publish(bare(packet, 2)));
        }
        self.events.state.events.clear();
        read
    }
}

fn bare(packet: u16, number: u8) -> Publish {
    Publish {
        qos: qos(number),
        pkid: packet,
        topic: Bytes::from_static(b"-"),
        ..Publish::default()
    }
}

fn told(event: Event) -> Happened {
    match event {
        Event::Outgoing(Out::Publish(packet)) => Happened::Sent(packet),
        Event::Outgoing(Out::PubAck(_) | Out::PubRec(_)) => Happened::AcknowledgedDelivery,
        Event::Outgoing(Out::Disconnect) => Happened::Left,
        Event::Outgoing(_) => Happened::Nothing,
        Event::Incoming(packet) => came(packet),
    }
}

fn came(packet: Packet) -> Happened {
    match packet {
        Packet::ConnAck(ack) => Happened::Connected {
            resumed: ack.session_present,
        },
        Packet::SubAck(ack) => {
            let granted = ack.return_codes.iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Some(*qos as u8),
                _ => None,
            });
            let granted: Option<Vec<u8>> = granted.collect();
            Happened::Subscribed {
                granted: granted.is_some(),
                qos: granted.and_then(|all| all.into_iter().min()).unwrap_or(0),
            }
        }
        Packet::PubAck(ack) => {
            let properties = ack.properties.map(|all| all.user_properties).unwrap_or_default();
            match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                    Happened::Acknowledged(ack.pkid, what_is_told(&properties))
                }
                reason => Happened::Refused(ack.pkid, code(&properties, &format!("{reason:?}"))),
            }
        }
        Packet::PubRec(record) => match record.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Happened::Nothing,
            reason => {
                let properties = record
                    .properties
                    .map(|all| all.user_properties)
                    .unwrap_or_default();
                Happened::Refused(record.pkid, code(&properties, &format!("{reason:?}")))
            }
        },
        Packet::PubComp(complete) => Happened::Acknowledged(complete.pkid, Told::default()),
        Packet::Publish(publish) => Happened::Delivered(Delivery {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            dup: publish.dup,
            packet: publish.pkid,
            qos: publish.qos as u8,
        }),
        Packet::PubRel(release) => Happened::Released(release.pkid),
        _ => Happened::Nothing,
    }
}

fn property<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = properties.iter().find(|(key, _)| key == name)?;
    Some(&found.1)
}

fn what_is_told(properties: &[(String, String)]) -> Told {
    Told {
        message_id: property(properties, "message_id").map(str::to_owned),
        sequence: property(properties, "seq").and_then(|text| text.parse().ok()),
    }
}

fn code(properties: &[(String, String)], reason: &str) -> String {
    property(properties, "code").unwrap_or(reason).to_owned()
}
