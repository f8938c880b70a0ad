//! MQTT 5.0 by rumqttc.

use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, LastWill, Packet, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};

use crate::{Connect, Message, PACKET_BYTES, Tell, Told, WAITING};

pub(crate) fn qos(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

pub(crate) fn open(step: &Connect, tell: Tell) -> anyhow::Result<AsyncClient> {
    let (host, port) = step.host_and_port()?;
    let mut options = MqttOptions::new(&step.client_id, host, port);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(if step.persistent { 3600 } else { 0 });
    properties.max_packet_size = u32::try_from(PACKET_BYTES).ok();
    options
        .set_transport(step.transport()?)
        .set_connect_properties(properties)
        .set_clean_start(!step.persistent)
        .set_keep_alive(Duration::from_secs(30));
    if let (Some(user), Some(password)) = (&step.user, &step.password) {
        options.set_credentials(user, password);
    }
    if let Some(will) = &step.will {
        options.set_last_will(LastWill::new(
            &will.topic,
            will.payload.clone(),
            qos(will.qos),
            will.retain,
            None,
        ));
    }
    let (client, events) = AsyncClient::new(options, WAITING);
    tokio::spawn(run(events, tell));
    Ok(client)
}

async fn run(mut events: EventLoop, tell: Tell) {
    loop {
        let told = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => Told::Connected {
                session_present: connack.session_present,
            },
            Ok(Event::Incoming(Packet::SubAck(suback))) => {
                Told::Subscribed(match suback.return_codes.first() {
                    Some(SubscribeReasonCode::Success(granted)) => *granted as u8,
                    _ => 0x80,
                })
            }
            Ok(
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))
                | Event::Outgoing(Outgoing::Publish(0)),
            ) => Told::Published,
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let message = Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                };
                if tell.messages.send(message).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(_) => continue,
            Err(error) => {
                let code = match &error {
                    // rumqttc has names for them, not numbers; these are the ones that the script may meet.
                    ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword) => Some(0x86),
                    ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => Some(0x87),
                    _ => None,
                };
                let lost = Told::Lost {
                    code,
                    error: error.to_string(),
                };
                let _ = tell.answers.send(lost).await;
                return;
            }
        };
        if tell.answers.send(told).await.is_err() {
            return;
        }
    }
}
