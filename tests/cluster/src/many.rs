//! Many nodes on one machine: they form one view, and each takes a user's connection and its send. No faults here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use godwit_cassandra::Cluster;
use godwit_e2e::rest::Api;
use godwit_e2e::world::make_users;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Packet, PublishAckReason};
use serde::Serialize;

use crate::client::{Came, Who, connect};
use crate::nodes::Nodes;

/// For one send over MQTT, redirects included.
const SEND: Duration = Duration::from_secs(20);
/// Redirects that a client follows.
const HOPS: usize = 4;

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Formed {
    /// Nodes.
    pub nodes: usize,
    /// From the first start to one settled view of all, ms.
    pub formed_ms: u64,
    /// Resident memory of all, MiB.
    pub resident_mib: u64,
    /// Sends over REST, one through each node, that are in the history read through the last.
    pub over_rest: usize,
    /// Sends over MQTT, one begun at each node.
    pub over_mqtt: usize,
}

/// Starts so many nodes and sends through each.
///
/// # Errors
/// When they form no view, or a send is not acknowledged or not in the history.
pub fn form(folder: &Path, cassandra: &Cluster, count: usize) -> Result<Formed> {
    let keyspace = format!("m{:x}_{count}", std::process::id());
    let mut nodes = Nodes::with(folder, cassandra, &keyspace, count, &["--workers", "1"])?;
    let formed = nodes.start_all()?;
    let apis: Vec<Api> = (0..count).map(|one| Api::new(&nodes.http(one))).collect();
    let users = make_users(&apis[0], 2, "m")?;
    let conversation = apis[count / 2].direct(&users[0].token, &users[1].id)?;
    for (number, api) in apis.iter().enumerate() {
        let sent = api.send(
            &users[0].token,
            &conversation,
            &format!("rest-{number}"),
            &format!("rest {number}"),
        );
        sent.with_context(|| format!("over REST through n{number}\n{}", nodes.tails()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let who = Who {
        user: users[1].name.clone(),
        token: users[1].token.clone(),
        client: "phone".to_owned(),
        ports: nodes.mqtt(),
        roams: Arc::default(),
    };
    for number in 0..count {
        let topic = format!("c/{conversation}/send/text");
        let text = format!("mqtt {number}");
        let sending = send(&who, who.ports[number], &topic, &text);
        runtime
            .block_on(async { tokio::time::timeout(SEND, sending).await? })
            .with_context(|| format!("over MQTT from n{number}\n{}", nodes.tails()))?;
    }
    let history = apis[count - 1].history(&users[0].token, &conversation)?;
    let with = |word: &str| {
        history
            .iter()
            .filter(|entry| {
                entry["content"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(word))
            })
            .count()
    };
    let (over_rest, over_mqtt) = (with("rest "), with("mqtt "));
    // Bare text has no id here, so one that was sent again could stand twice: nothing was sent again.
    if (over_rest, over_mqtt) != (count, count) {
        bail!("of {count} sends each {over_rest} over REST and {over_mqtt} over MQTT are in the history");
    }
    Ok(Formed {
        nodes: count,
        formed_ms: u64::try_from(formed.as_millis()).unwrap_or(u64::MAX),
        resident_mib: nodes.resident()? >> 20,
        over_rest,
        over_mqtt,
    })
}

/// Connects, following redirects from this port, and sends once.
async fn send(who: &Who, port: u16, topic: &str, text: &str) -> Result<()> {
    let began = Instant::now();
    let mut port = port;
    for _ in 0..HOPS {
        let mut wire = match connect(who, port).await {
            Came::In(wire, _) => wire,
            Came::Elsewhere(other) => {
                port = other;
                continue;
            }
            Came::No(why) => bail!("after {:?}: {why}", began.elapsed()),
        };
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: Some(std::num::NonZeroU16::MIN),
            payload: text.to_owned().into(),
            properties: None,
        };
        wire.send(Packet::Publish(Box::new(publish))).await?;
        while let Some(packet) = wire.next().await {
            if let (Packet::PublishAck(ack), _) = packet? {
                return match ack.reason_code {
                    PublishAckReason::Success | PublishAckReason::NoMatchingSubscribers => Ok(()),
                    reason => bail!("PUBACK {reason:?} {:?}", ack.properties),
                };
            }
        }
        bail!("closed before its PUBACK");
    }
    bail!("sent elsewhere more than {HOPS} times")
}
