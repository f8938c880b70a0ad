//! One connection of rumqttc, 3.1.1 or 5.0, behind one face: how its options are set, what it is asked to do, and what
//! it tells. Nothing is counted here.

use crate::{
    client::hint,
    packets::{MAX_FRAME, PacketError, SESSION_EXPIRY_SECS, Version},
    spec::Spec,
};
use bytes::Bytes;
use rumqttc::{Outgoing, QoS, v5};
use std::time::Duration;

/// Longest handshake, and longest write to a broker that reads nothing, in seconds.
const CONNECT_TIMEOUT_SECS: u64 = 30;
/// Shortest keep alive that rumqttc's 5.0 module takes, in seconds; it panics below.
const V5_MIN_KEEP_ALIVE: u16 = 5;
/// Login errors of rumqttc told as the code of 3.1.1 that [`hint`] knows.
const NOT_AUTHORIZED: u8 = 5;

/// What a connection tells.
pub(super) enum Heard {
    /// The handshake is done.
    Connected,
    /// The subscription was answered; QoS 1 or not.
    SubAck {
        /// QoS 1 was granted.
        granted: bool,
    },
    /// A message came, and its PUBACK is written.
    Message(Bytes),
    /// The oldest publish handed over and not yet told is written, under this packet identifier.
    Written(u16),
    /// A publish is answered.
    PubAck {
        /// Its packet identifier.
        packet_id: u16,
        /// By a reason code of 0x80 or above.
        refused: bool,
    },
    /// The DISCONNECT asked for is written.
    Disconnected,
    /// Nothing that matters here.
    Other,
}

/// Why a connection has ended, or was never made.
pub(super) enum Fault {
    /// The broker said no to the handshake; the code, and what may help.
    Refused(String),
    /// It broke, or nobody was there.
    Broken(String),
}

/// The half that is asked; it never waits.
pub(super) enum Caller {
    /// MQTT 3.1.1.
    V311(rumqttc::AsyncClient),
    /// MQTT 5.0.
    V5(v5::AsyncClient),
}

/// The half that does the work while it is polled, and tells.
pub(super) enum Line {
    /// MQTT 3.1.1.
    V311(Box<rumqttc::EventLoop>),
    /// MQTT 5.0.
    V5(Box<v5::EventLoop>),
}

/// Both halves of the client at `index`, with nothing done yet.
pub(super) fn link(index: usize, spec: &Spec) -> (Caller, Line) {
    let (host, port) = (spec.target.ip(), spec.target.port());
    let host = match host.is_ipv6() {
        true => format!("[{host}]"),
        false => host.to_string(),
    };
    // Room for a whole window, one SUBSCRIBE and one DISCONNECT: a request that fits the window never finds it full.
    let requests = usize::from(spec.window) + 2;
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_SECS);
    match spec.version {
        Version::V311 => {
            let mut options = rumqttc::MqttOptions::new(spec.client_id(index), host, port);
            options
                .set_clean_session(false)
                .set_keep_alive(Duration::from_secs(spec.keep_alive.into()))
                .set_inflight(spec.window)
                .set_max_packet_size(MAX_FRAME, MAX_FRAME);
            if let Some(login) = spec.login_of(index) {
                options.set_credentials(&login.username, &login.password);
            }
            let (caller, mut line) = rumqttc::AsyncClient::new(options, requests);
            line.set_network_options(network);
            (Caller::V311(caller), Line::V311(Box::new(line)))
        }
        Version::V5 => {
            let mut options = v5::MqttOptions::new(spec.client_id(index), host, port);
            let keep_alive = match spec.keep_alive {
                // It cannot do without; 18 hours are longer than any run.
                0 => u16::MAX,
                some => some.max(V5_MIN_KEEP_ALIVE),
            };
            options
                .set_clean_start(false)
                .set_session_expiry_interval(Some(SESSION_EXPIRY_SECS))
                .set_keep_alive(Duration::from_secs(keep_alive.into()))
                .set_outgoing_inflight_upper_limit(spec.window)
                .set_max_packet_size(Some(MAX_FRAME as u32))
                .set_connection_timeout(CONNECT_TIMEOUT_SECS)
                .set_network_options(network);
            if let Some(login) = spec.login_of(index) {
                options.set_credentials(&login.username, &login.password);
            }
            let (caller, line) = v5::AsyncClient::new(options, requests);
            (Caller::V5(caller), Line::V5(Box::new(line)))
        }
    }
}

impl Caller {
    /// Asks for a subscription at QoS 1.
    pub(super) fn subscribe(&self, filter: &str) -> Result<(), PacketError> {
        match self {
            Self::V311(caller) => caller.try_subscribe(filter, QoS::AtLeastOnce).is_ok(),
            Self::V5(caller) => caller
                .try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce)
                .is_ok(),
        }
        .then_some(())
        .ok_or_else(|| PacketError(format!("rumqttc does not take a subscription to {filter}")))
    }

    /// Hands over a message at QoS 1.
    pub(super) fn publish(&self, topic: &str, message: Vec<u8>) -> Result<(), PacketError> {
        match self {
            Self::V311(caller) => caller
                .try_publish(topic, QoS::AtLeastOnce, false, message)
                .is_ok(),
            Self::V5(caller) => caller
                .try_publish(topic, v5::mqttbytes::QoS::AtLeastOnce, false, message)
                .is_ok(),
        }
        .then_some(())
        .ok_or_else(|| PacketError(format!("rumqttc does not take a message to {topic}")))
    }

    /// Asks for a DISCONNECT; one that is not taken changes nothing, since the connection is dropped next.
    pub(super) fn disconnect(&self) {
        let _ = match self {
            Self::V311(caller) => caller.try_disconnect().is_ok(),
            Self::V5(caller) => caller.try_disconnect().is_ok(),
        };
    }
}

impl Line {
    /// Works until there is something to tell. Not to be called again after an error (it would connect anew), nor
    /// dropped half-way (rumqttc may have taken a packet from the socket by then).
    ///
    /// # Errors
    /// When the connection is refused or broken.
    pub(super) async fn hear(&mut self) -> Result<Heard, Fault> {
        match self {
            Self::V311(line) => hear_v311(line).await,
            Self::V5(line) => hear_v5(line).await,
        }
    }
}

async fn hear_v311(line: &mut rumqttc::EventLoop) -> Result<Heard, Fault> {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError, Event, Packet, SubscribeReasonCode};
    let event = line.poll().await.map_err(|error| match error {
        ConnectionError::ConnectionRefused(code) => refused(
            &code,
            matches!(code, Code::BadUserNamePassword | Code::NotAuthorized),
        ),
        other => Fault::Broken(other.to_string()),
    })?;
    Ok(match event {
        Event::Incoming(Packet::ConnAck(_)) => Heard::Connected,
        Event::Incoming(Packet::SubAck(answer)) => Heard::SubAck {
            granted: answer.return_codes == [SubscribeReasonCode::Success(QoS::AtLeastOnce)],
        },
        Event::Incoming(Packet::Publish(publish)) => Heard::Message(publish.payload),
        Event::Incoming(Packet::PubAck(answer)) => Heard::PubAck {
            packet_id: answer.pkid,
            refused: false,
        },
        Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
        Event::Incoming(_) => Heard::Other,
    })
}

async fn hear_v5(line: &mut v5::EventLoop) -> Result<Heard, Fault> {
    use v5::{
        ConnectionError, Event,
        mqttbytes::{QoS, v5 as wire},
    };
    use wire::{ConnectReturnCode as Code, PubAckReason, SubscribeReasonCode};
    let event = line.poll().await.map_err(|error| match error {
        ConnectionError::ConnectionRefused(code) => refused(
            &code,
            matches!(code, Code::BadUserNamePassword | Code::NotAuthorized),
        ),
        other => Fault::Broken(other.to_string()),
    })?;
    Ok(match event {
        Event::Incoming(wire::Packet::ConnAck(_)) => Heard::Connected,
        Event::Incoming(wire::Packet::SubAck(answer)) => Heard::SubAck {
            granted: answer.return_codes == [SubscribeReasonCode::Success(QoS::AtLeastOnce)],
        },
        Event::Incoming(wire::Packet::Publish(publish)) => Heard::Message(publish.payload),
        Event::Incoming(wire::Packet::PubAck(answer)) => Heard::PubAck {
            packet_id: answer.pkid,
            refused: !matches!(
                answer.reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            ),
        },
        Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
        Event::Incoming(_) => Heard::Other,
    })
}

fn heard_outgoing(outgoing: &Outgoing) -> Heard {
    match outgoing {
        Outgoing::Publish(packet_id) => Heard::Written(*packet_id),
        Outgoing::Disconnect => Heard::Disconnected,
        _ => Heard::Other,
    }
}

fn refused(code: &dyn std::fmt::Debug, login: bool) -> Fault {
    let help = if login { hint(NOT_AUTHORIZED) } else { "" };
    Fault::Refused(format!("{code:?}{help}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::tests::shared, spec::Scenario};

    #[test]
    fn both_versions_ask_for_a_session_that_stays_and_for_the_window_of_the_run() {
        let mut spec = shared(Scenario::Pairs, 1, 1, 9).spec;
        let (_, line) = link(1, &spec);
        assert!(matches!(&line, Line::V311(line)
            if !line.mqtt_options.clean_session() && line.mqtt_options.inflight() == 9));
        spec.version = Version::V5;
        let (_, line) = link(1, &spec);
        assert!(matches!(&line, Line::V5(line)
            if !line.options.clean_start()
                && line.options.session_expiry_interval() == Some(SESSION_EXPIRY_SECS)
                && line.options.get_outgoing_inflight_upper_limit() == Some(9)));
    }

    #[test]
    fn a_keep_alive_that_rumqttc_would_panic_at_is_raised() {
        let mut spec = shared(Scenario::Pairs, 1, 1, 1).spec;
        for (asked, used) in [(0, u16::MAX), (1, V5_MIN_KEEP_ALIVE), (600, 600)] {
            spec.keep_alive = asked;
            spec.version = Version::V311;
            link(0, &spec);
            spec.version = Version::V5;
            let (_, line) = link(0, &spec);
            assert!(matches!(&line, Line::V5(line)
                if line.options.keep_alive() == Duration::from_secs(used.into())));
        }
    }
}
