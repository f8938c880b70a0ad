//! MQTT's part of the wiring: how the broker is set up from the configuration, its listeners on every worker, and
//! WebSockets that leave HTTP after their upgrade.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use godwit_accounts::Acl;
use godwit_broker::{
    AddressLimits, Addresses, Broker, Listener, NetConfig, NewConnection, NewRules, NewTransport, Proxies,
    StopListening, UsersConfig, VerifyAgain,
};
use godwit_cluster::{RoleId, Router};
use godwit_history_api::{MqttUpgrade, take_apart};
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::server::TlsStream;

use crate::StartError;
use crate::config::Switch;
use crate::node::Node;
use crate::paced::Paced;

pub(crate) use godwit_broker::Metrics;

/// Milliseconds of a day.
const DAY_MS: u64 = DAY_SECONDS as u64 * 1_000;
/// Seconds of a day; times the most days that are configured it is far below 2^32.
const DAY_SECONDS: u32 = 24 * 3_600;

/// The broker's settings; `connections` is what the limit on open files leaves room for: more are not let in, whatever
/// is configured, since the descriptors that are left are the store's.
pub(crate) fn config(node: &Node, connections: u32, metrics: &Metrics) -> godwit_broker::Config {
    let settings = &node.settings;
    let options = &settings.options;
    let limits = AddressLimits {
        connections: options.connections_per_address,
        per_second: options.connects_per_address,
    };
    godwit_broker::Config {
        net: NetConfig {
            anonymous: options.anonymous,
            max_connections: match options.max_connections {
                0 => connections,
                given => given.min(connections),
            },
            memory_full: node.memory.full.clone(),
            connect_seconds: options.connect_seconds,
            server_reference: options.server_reference.as_deref().map(Arc::from),
            addresses: Arc::new(Addresses::new(limits).counted_in(&metrics.net)),
        },
        users: Arc::new(UsersConfig {
            acl: settings.acl.clone(),
            mailbox_ms: u64::from(options.mailbox_days) * DAY_MS,
            mailbox_entries: options.mailbox_entries.into(),
            mailbox_bytes: options.mailbox_bytes.into(),
            session_log_entries: options.session_log_entries.into(),
            session_log_bytes: options.session_log_bytes.into(),
            session_expiry_max: options.session_days * DAY_SECONDS,
            publishes_per_second: options.publishes_per_second,
            publish_bytes_per_second: options.publish_bytes_per_second,
            retained_messages: options.retained_per_user,
            retained_bytes: options.retained_bytes_per_user,
            max_keep_alive: options.max_keep_alive,
            max_qos: options.max_qos,
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
/// A socket cannot be shared.
pub(crate) fn open(
    router: &Router,
    node: &Node,
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
) -> Result<(), StartError> {
    let secured = node.certificates.as_ref().zip(tls);
    let secured = secured.map(|(certificates, socket)| (socket, Some(certificates.mqtt.clone())));
    let (proxies, plain) = (proxies(node), plain.map(|socket| (socket, None)));
    for worker in 0..router.workers() {
        for (socket, tls) in plain.iter().chain(&secured) {
            let listener = Listener {
                socket: socket.try_clone()?,
                tls: tls.clone(),
                proxies: proxies.clone(),
            };
            router.hand_over(worker, RoleId::Broker, Box::new(listener));
        }
    }
    Ok(())
}

/// The balancers that all connections come from, where there are any.
pub(crate) fn proxies(node: &Node) -> Option<Proxies> {
    let options = &node.settings.options;
    let networks: Vec<_> = options.proxy_from.iter().map(|network| network.0).collect();
    (options.proxy_protocol == Switch::On).then(|| Proxies::new(&networks))
}

/// Closes connections by a client certificate that this verifier refuses.
pub(crate) fn verify_again(router: &Router, verifier: &Arc<dyn ClientCertVerifier>) {
    for worker in 0..router.workers() {
        router.hand_over(worker, RoleId::Broker, Box::new(VerifyAgain(verifier.clone())));
    }
}

/// Lets no more clients in; those that are in stay.
pub(crate) fn close(router: &Router) {
    for worker in 0..router.workers() {
        router.hand_over(worker, RoleId::Broker, Box::new(StopListening));
    }
}

/// Gives every worker new rules of ordinary topics.
pub(crate) fn change_rules(router: &Router, acl: &Arc<Acl>) {
    for worker in 0..router.workers() {
        router.hand_over(worker, RoleId::Broker, Box::new(NewRules(acl.clone())));
    }
}

/// Takes upgraded WebSockets out of HTTP and gives them to the workers in turn.
pub(crate) fn upgrade(router: &Router) -> MqttUpgrade {
    let (router, next) = (router.clone(), AtomicU16::new(0));
    Arc::new(move |upgraded, peer| {
        let (transport, already_read) = match take_apart::<Paced>(upgraded) {
            Ok((stream, read)) => match stream.into_inner().into_std() {
                Ok(stream) => (NewTransport::WebSocket(stream, None), read),
                Err(error) => return gone(peer, &error.to_string()),
            },
            Err(upgraded) => match take_apart::<TlsStream<Paced>>(upgraded) {
                Ok((stream, read)) => {
                    let (stream, session) = stream.into_inner();
                    match stream.into_inner().into_std() {
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
