//! Many nodes on one machine: they form one view, and each takes a user's connection and its send. No faults here.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use godwit_cassandra::Cluster;
use godwit_e2e::rest::Api;
use godwit_e2e::world::{User, make_users};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Packet, PublishAck, PublishAckReason};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::around::Around;
use crate::client::{Came, Who, Wire, connect, subscribe_once};
use crate::nodes::Nodes;

/// For one send over MQTT, redirects included.
const SEND: Duration = Duration::from_secs(20);
/// Redirects that a client follows.
const HOPS: usize = 4;
/// For all that two users say to each other, and how much that is.
const CHAT: Duration = Duration::from_secs(60);
const WORDS: usize = 40;

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
    /// What two users on different nodes said to each other, in turn.
    pub words: usize,
    /// From one's PUBLISH to the other's, the slowest, ms.
    pub slowest_word_ms: u64,
}

/// Starts so many nodes and sends through each.
///
/// # Errors
/// When they form no view, or a send is not acknowledged or not in the history.
pub fn form(folder: &Path, cassandra: &Cluster, count: usize) -> Result<Formed> {
    let keyspace = format!("m{:x}_{count}", std::process::id());
    let mut nodes = Nodes::new(
        folder,
        cassandra,
        &keyspace,
        count,
        Around::default(),
        &["--workers", "1"],
    )?;
    let formed = nodes.start_all()?;
    let apis: Vec<Api> = (0..count).map(|one| Api::new(&nodes.http(one))).collect();
    let users = make_users(&apis[0], 4, "m")?;
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
    let all: Vec<Who> = users
        .iter()
        .map(|user| Who {
            user: user.name.clone(),
            token: user.token.clone(),
            client: "phone".to_owned(),
            nodes: nodes.mqtt(),
            roams: Arc::default(),
        })
        .collect();
    let who = &all[1];
    for number in 0..count {
        let topic = format!("c/{conversation}/send/text");
        let text = format!("mqtt {number}");
        let sending = send(who, who.nodes[number], &topic, &text);
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
    let slowest_word = talk(&runtime, &all, &apis, &users)
        .with_context(|| format!("two users on different nodes\n{}", nodes.tails()))?;
    Ok(Formed {
        nodes: count,
        words: WORDS,
        slowest_word_ms: slowest_word.as_millis() as u64,
        formed_ms: u64::try_from(formed.as_millis()).unwrap_or(u64::MAX),
        resident_mib: nodes.resident()? >> 20,
        over_rest,
        over_mqtt,
    })
}

/// Two users whose homes are different nodes talk, one of them connected to its home, the other to any other node.
fn talk(runtime: &Runtime, all: &[Who], apis: &[Api], users: &[User]) -> Result<Duration> {
    let home = |user: &User| -> Result<Option<usize>> {
        let (_, said) = apis[0].get_patiently("/connect", &user.token)?;
        let home = said["mqtt"].as_str().unwrap_or_default();
        Ok(all[0].nodes.iter().position(|node| node.to_string() == home))
    };
    let homes: Vec<Option<usize>> = users.iter().map(home).collect::<Result<_>>()?;
    let other = (1..users.len()).find(|&other| homes[other] != homes[0]);
    let (Some(other), Some(first), Some(second)) = (other, homes[0], other.and_then(|other| homes[other]))
    else {
        bail!("no two users are at home on different nodes: {homes:?}");
    };
    let count = apis.len();
    let mut others = (second + 1..second + count).map(|node| node % count);
    let elsewhere = others.find(|&node| node != first || count == 2);
    let at = [first, elsewhere.unwrap_or(second)].map(|node| all[0].nodes[node]);
    let conversation = apis[count - 1].direct(&users[0].token, &users[other].id)?;
    let talking = chat([&all[0], &all[other]], at, &conversation);
    runtime.block_on(async { tokio::time::timeout(CHAT, talking).await? })
}

/// Connects, following redirects from this node.
async fn come_in(who: &Who, to: SocketAddr) -> Result<Wire> {
    let began = Instant::now();
    let mut to = to;
    for _ in 0..HOPS {
        match connect(who, to).await {
            Came::In(wire, _) => return Ok(*wire),
            Came::Elsewhere(other) => to = other,
            Came::No(why) => bail!("after {:?}: {why}", began.elapsed()),
        }
    }
    bail!("sent elsewhere more than {HOPS} times")
}

async fn publish(wire: &mut Wire, topic: &str, text: &str) -> Result<()> {
    let publish = Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: topic.into(),
        packet_id: Some(NonZeroU16::MIN),
        payload: text.to_owned().into(),
        properties: None,
    };
    Ok(wire.send(Packet::Publish(Box::new(publish))).await?)
}

/// Sends once on a connection of its own.
async fn send(who: &Who, to: SocketAddr, topic: &str, text: &str) -> Result<()> {
    let mut wire = come_in(who, to).await?;
    publish(&mut wire, topic, text).await?;
    while let Some(packet) = wire.next().await {
        if let (Packet::PublishAck(ack), _) = packet? {
            return match ack.reason_code {
                PublishAckReason::Success | PublishAckReason::NoMatchingSubscribers => Ok(()),
                reason => bail!("PUBACK {reason:?} {:?}", ack.properties),
            };
        }
    }
    bail!("closed before its PUBACK")
}

/// Waits for this text from the other one, and acknowledges whatever comes.
async fn hear(wire: &mut Wire, wanted: &str) -> Result<()> {
    while let Some(packet) = wire.next().await {
        let (Packet::Publish(publish), _) = packet? else {
            continue;
        };
        if let Some(packet_id) = publish.packet_id {
            let ack = PublishAck {
                packet_id,
                reason_code: PublishAckReason::Success,
                properties: Vec::new(),
                reason_string: None,
            };
            wire.send(Packet::PublishAck(ack)).await?;
        }
        let text = String::from_utf8_lossy(&publish.payload);
        if text == wanted {
            return Ok(());
        }
        // What was sent before they talk may be owed, and one's own words come, too; the other's come in order, and none twice.
        if text.contains(": chat ") && is_same_sender(&text, wanted) {
            bail!("{text:?} in place of {wanted:?}");
        }
    }
    bail!("closed before {wanted:?}")
}

fn is_same_sender(text: &str, wanted: &str) -> bool {
    text.split_once(": ").map(|(sender, _)| sender) == wanted.split_once(": ").map(|(sender, _)| sender)
}

/// Two users at different nodes talk in turn; how long the slowest word took from its sender to the other one.
async fn chat(pair: [&Who; 2], at: [SocketAddr; 2], conversation: &str) -> Result<Duration> {
    let topic = format!("c/{conversation}/send/text");
    let mut wires = Vec::new();
    for (who, to) in pair.into_iter().zip(at) {
        let mut wire = come_in(who, to).await?;
        subscribe_once(&mut wire, "me/inbox/text").await?;
        wires.push(wire);
    }
    let mut slowest = Duration::ZERO;
    for word in 0..WORDS {
        let (speaker, listener) = (word % 2, 1 - word % 2);
        let text = format!("chat {word} ");
        let began = Instant::now();
        publish(&mut wires[speaker], &topic, &text).await?;
        let wanted = format!("{}: {text}", pair[speaker].user);
        hear(&mut wires[listener], &wanted).await?;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}
