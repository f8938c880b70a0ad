//! MQTT 3.1.1 by rumqttc. See the module above.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing as Out, Publish, QoS, Request,
    SubscribeReasonCode,
};

use super::{Delivery, Happened, Login, Outgoing, Told};

pub(super) struct Link {
    client: AsyncClient,
    events: EventLoop,
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
        options
            .set_credentials(&login.user, &login.token)
            .set_clean_session(false)
            .set_keep_alive(super::KEEP_ALIVE)
            .set_manual_acks(true)
            .set_inflight(super::PACKET_IDS)
            .set_pending_throttle(Duration::ZERO)
            .set_max_packet_size(super::PACKET_BYTES, super::PACKET_BYTES);
        let (client, mut events) = AsyncClient::new(options, super::REQUESTS);
        events
            .network_options
            .set_connection_timeout(super::CONNECT_SECONDS)
            .set_tcp_nodelay(true);
        Self { client, events }
    }

    pub(super) fn subscribe(&self, filter: &str, number: u8) -> bool {
        self.client.try_subscribe(filter, qos(number)).is_ok()
    }

    pub(super) fn publish(&self, publish: &Outgoing) -> bool {
        let payload = publish.payload.to_vec();
        self.client
            .try_publish(&publish.topic, qos(publish.qos), false, payload)
            .is_ok()
    }

    pub(super) fn acknowledge(&self, packet: u16, number: u8) -> bool {
        self.client.try_ack(&bare(packet, number)).is_ok()
    }

    pub(super) fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }

    pub(super) async fn next(&mut self) -> Happened {
        match self.events.poll().await {
            Ok(event) => told(event),
            Err(error) => Happened::Lost(error.to_string()),
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
                .handle_incoming_packet(Incoming::Publish(bare(packet, 2)));
        }
        self.events.state.events.clear();
        read
    }
}

fn bare(packet: u16, number: u8) -> Publish {
    Publish {
        dup: false,
        qos: qos(number),
        retain: false,
        topic: String::new(),
        pkid: packet,
        payload: Bytes::new(),
    }
}

fn told(event: Event) -> Happened {
    match event {
        Event::Outgoing(Out::Publish(packet)) => Happened::Sent(packet),
        Event::Outgoing(Out::PubAck(_) | Out::PubRec(_)) => Happened::AcknowledgedDelivery,
        Event::Outgoing(Out::Disconnect) => Happened::Left,
        Event::Outgoing(_) => Happened::Nothing,
        Event::Incoming(packet) => match packet {
            Incoming::ConnAck(ack) => Happened::Connected {
                resumed: ack.session_present,
            },
            Incoming::SubAck(ack) => {
                let granted = ack.return_codes.iter().map(|code| match code {
                    SubscribeReasonCode::Success(qos) => Some(*qos as u8),
                    SubscribeReasonCode::Failure => None,
                });
                let granted: Option<Vec<u8>> = granted.collect();
                Happened::Subscribed {
                    granted: granted.is_some(),
                    qos: granted.and_then(|all| all.into_iter().min()).unwrap_or(0),
                }
            }
            Incoming::PubAck(ack) => Happened::Acknowledged(ack.pkid, Told::default()),
            Incoming::PubComp(complete) => Happened::Acknowledged(complete.pkid, Told::default()),
            Incoming::Publish(publish) => Happened::Delivered(Delivery {
                topic: publish.topic,
                payload: publish.payload,
                dup: publish.dup,
                packet: publish.pkid,
                qos: publish.qos as u8,
            }),
            Incoming::PubRel(release) => Happened::Released(release.pkid),
            _ => Happened::Nothing,
        },
    }
}
