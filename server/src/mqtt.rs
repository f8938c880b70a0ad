//! MQTT's part of the wiring: how the broker is set up from the configuration, its listeners on every worker, and
//! WebSockets that leave HTTP after their upgrade.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use godwit_broker::{Broker, Listener, NetConfig, NewConnection, NewTransport, StopListening, UsersConfig};
use godwit_cluster::{RoleId, Router};
use godwit_history_api::{MqttUpgrade, take_apart};
use tokio_rustls::server::TlsStream;

use crate::StartError;
use crate::node::Node;

pub(crate) use godwit_broker::Metrics;

/// Milliseconds of a day.
const DAY_MS: u64 = DAY_SECONDS as u64 * 1_000;
/// Seconds of a day; times the most days that are configured it is far below 2^32.
const DAY_SECONDS: u32 = 24 * 3_600;

/// The broker's settings; `connections` is what the limit on open files leaves room for: more are not let in, whatever
/// is configured, since the descriptors that are left are the store's.
pub(crate) fn config(node: &Node, connections: u32) -> godwit_broker::Config {
    let settings = &node.settings;
    let options = &settings.options;
    godwit_broker::Config {
        net: NetConfig {
            anonymous: options.anonymous,
            max_connections: match options.max_connections {
                0 => connections,
                given => given.min(connections),
            },
        },
        users: Arc::new(UsersConfig {
            acl: settings.acl.clone(),
            mailbox_ms: u64::from(options.mailbox_days) * DAY_MS,
            session_expiry_max: options.session_days * DAY_SECONDS,
            ..UsersConfig::default()
        }),
    }
}

/// The broker on one worker.
pub(crate) fn role(config: &godwit_broker::Config, metrics: &Metrics) -> Broker {
    Broker::new(config, metrics)
}

/// Gives the listeners to every worker: whichever is free accepts.
///
/// # Errors
/// A socket cannot be shared, or the TLS settings are refused.
pub(crate) fn open(
    router: &Router,
    node: &Node,
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
) -> Result<(), StartError> {
    let secured = match (&node.certificate, tls) {
        (Some(certificate), Some(socket)) => Some((socket, certificate.server_config(&[b"mqtt"])?)),
        _ => None,
    };
    for worker in 0..router.workers() {
        if let Some(socket) = &plain {
            let listener = Listener {
                socket: socket.try_clone()?,
                tls: None,
            };
            router.hand_over(worker, RoleId::Broker, Box::new(listener));
        }
        if let Some((socket, config)) = &secured {
            let listener = Listener {
                socket: socket.try_clone()?,
                tls: Some(config.clone()),
            };
            router.hand_over(worker, RoleId::Broker, Box::new(listener));
        }
    }
    Ok(())
}

/// Lets no more clients in; those that are in stay.
pub(crate) fn close(router: &Router) {
    for worker in 0..router.workers() {
        router.hand_over(worker, RoleId::Broker, Box::new(StopListening));
    }
}

/// Takes upgraded WebSockets out of HTTP and gives them to the workers in turn.
pub(crate) fn upgrade(router: &Router) -> MqttUpgrade {
    let (router, next) = (router.clone(), AtomicU16::new(0));
    Arc::new(move |upgraded, peer| {
        let (transport, already_read) = match take_apart::<tokio::net::TcpStream>(upgraded) {
            Ok((stream, read)) => match stream.into_std() {
                Ok(stream) => (NewTransport::WebSocket(stream, None), read),
                Err(error) => return gone(peer, &error.to_string()),
            },
            Err(upgraded) => match take_apart::<TlsStream<tokio::net::TcpStream>>(upgraded) {
                Ok((stream, read)) => {
                    let (stream, session) = stream.into_inner();
                    match stream.into_std() {
                        Ok(stream) => (NewTransport::WebSocket(stream, Some(Box::new(session))), read),
                        Err(error) => return gone(peer, &error.to_string()),
                    }
                }
                Err(_) => return gone(peer, "an upgraded connection of an unknown transport"),
            },
        };
        let worker = next.fetch_add(1, Ordering::Relaxed) % router.workers();
        let connection = NewConnection {
            transport,
            peer,
            already_read: already_read.to_vec(),
        };
        router.hand_over(worker, RoleId::Broker, Box::new(connection));
    })
}

fn gone(peer: SocketAddr, why: &str) {
    tracing::debug!(%peer, why, "a WebSocket was lost on its way to the broker");
}
