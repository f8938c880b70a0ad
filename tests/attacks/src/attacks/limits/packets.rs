//! Limits of packets and of publishes under way: in one table, met on a server that takes QoS 1 at most.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::{Case, cases, group, held};
use crate::attacks::doors::all;
use crate::attacks::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, kind};

const CASES: &[Case] = cases! {
    "SUBSCRIBEs of a worker that are not answered", "SUBSCRIBING", "" => unanswered_subscribes;
    "QoS of publishes and wills", "max_qos",
        "godwit_mqtt_limits_met_total{limit=\"max_qos\"" => max_qos;
    "topic aliases of a connection", "TOPIC_ALIASES", "godwit_mqtt_protocol_errors_total" => topic_aliases;
    "QoS 0 publishes of a connection that are under way", "ASKED0", "godwit_mqtt_paused_total" => qos_0_under_way;
    "users that publishes for many are given to in a turn of a worker", "A_TURN",
        "godwit_topic_publishes_spread_total" => for_many;
    "publishes for many of one user that are given at a time", "AT_ONCE",
        "godwit_topic_publishes_spread_total" => many_keys_for_many;
    "publishes of a worker that wait for their turn or for room", "WAITING",
        "godwit_topic_publishes_crowded_total" => crowded;
    "packets of a connection that are taken at a time", "PACKETS_A_TURN", "" => held::small_packets;
    "bytes kept for a connection that takes too little", "ROOM", "" => held::answers_not_taken;
};

/// Times that each is met where one takes milliseconds.
const ROUNDS: usize = 20;
/// Clients that publishes for many are for: more than are given one in a turn.
const MANY: usize = 40;

pub(super) fn attack(long: bool) -> Attack {
    let setup = Setup {
        offenders: 3,
        anonymous: true,
        acl: "allow both users crowd/#; allow both everyone crowd/#",
        options: vec![("GODWIT_MAX_QOS", "1".into())],
        ..Setup::default()
    };
    group("limits of packets", setup, long, &[CASES]).memory(
        96 << 20,
        "publishes under way, 4,000 filters, the store's overlay",
    )
}

/// Many SUBSCRIBEs at one go on many connections, each of which waits for the store: all are answered, in order.
async fn unanswered_subscribes(bed: Arc<Bed>) -> Result<String> {
    const EACH: u16 = 200;
    let mut tasks = JoinSet::new();
    for round in 0..ROUNDS {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let old = round % 2 == 1;
            let hello = Hello {
                old,
                expiry: 60,
                ..bed.hello(0, &format!("asks{round}"))
            };
            let mut peer = Peer::open(bed.mqtt(), round, &hello).await?;
            let one = |pid| wire::subscribe(old, pid, &[format!("iot/mallory0/{round}/{pid}")], 1);
            let all: Vec<u8> = (1..=EACH).flat_map(one).collect();
            peer.send(&all).await?;
            for pid in 1..=EACH {
                let suback = peer.expect(kind::SUBACK).await?;
                ensure!(
                    suback.pid() == pid && suback.codes() == [1],
                    "{suback:02x?} where the answer to {pid} is due"
                );
            }
            Ok(())
        });
    }
    all(tasks).await?;
    Ok(format!(
        "{ROUNDS} times {EACH} SUBSCRIBEs at one go: all granted, in order"
    ))
}

async fn max_qos(bed: Arc<Bed>) -> Result<String> {
    for round in 0..ROUNDS {
        let old = round % 2 == 1;
        let hello = Hello {
            old,
            ..bed.hello(0, "exact")
        };
        let mut peer = Peer::open(bed.mqtt(), round, &hello).await?;
        let publish = wire::publish(old, "iot/mallory0/q", b"x", 2, false, 1);
        peer.send_anyway(&publish).await;
        let code = peer.ended(PATIENCE).await?;
        let wanted = (!old).then_some(0x9b);
        ensure!(code == wanted, "{code:02x?} where {wanted:02x?} is due for QoS 2");
        let hello = Hello {
            will: Some(("iot/mallory0/will".into(), b"w".to_vec(), 2, 0)),
            ..hello
        };
        let (_, connack) = Peer::ask(bed.mqtt(), round, &hello).await?;
        let code = connack.context("closed")?.code();
        let wanted = if old { 5 } else { 0x9b };
        ensure!(
            code == wanted,
            "CONNACK {code:#04x} where {wanted:#04x} is due for a will of QoS 2"
        );
    }
    Ok(format!(
        "{ROUNDS} times a publish of QoS 2: DISCONNECT 0x9b, in 3.1.1 closed; a will of QoS 2: CONNACK 0x9b, in 3.1.1 5"
    ))
}

/// A PUBLISH of QoS 0 with this alias.
fn aliased(topic: &str, alias: u8) -> Vec<u8> {
    let mut body = wire::field(topic);
    body.extend([3, 0x23, 0, alias]);
    body.extend(b"x");
    wire::packet(0x30, &body)
}

async fn topic_aliases(bed: Arc<Bed>) -> Result<String> {
    for round in 0..ROUNDS {
        let mut peer = Peer::open(bed.mqtt(), round, &bed.hello(0, "aliases")).await?;
        for alias in 1..=16 {
            peer.send(&aliased(&format!("iot/mallory0/{alias}"), alias))
                .await?;
        }
        peer.ping().await.context("16 aliases")?;
        peer.send_anyway(&aliased("iot/mallory0/17", 17)).await;
        let code = peer.ended(PATIENCE).await?;
        ensure!(code == Some(0x94), "{code:02x?} for the 17th topic alias");
    }
    Ok(format!(
        "{ROUNDS} times 16 aliases: taken; the 17th: DISCONNECT 0x94"
    ))
}

/// QoS 0 publishes as fast as they go: the client is not read for a while, and nothing is lost.
async fn qos_0_under_way(bed: Arc<Bed>) -> Result<String> {
    const SENT: usize = 3_000;
    let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(0, "hasty")).await?;
    let before = bed.metric("godwit_topic_publishes_total").await?;
    let one = wire::publish(false, "iot/mallory0/fast", b"x", 0, false, 0);
    peer.send(&one.repeat(SENT)).await?;
    peer.ping().await?;
    // The ping is answered when all were read, the last of them may be under way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The bystanders publish too.
    let taken = bed.metric("godwit_topic_publishes_total").await? - before;
    ensure!(taken >= SENT as f64, "{taken} of {SENT} publishes were done");
    Ok(format!(
        "{SENT} publishes of QoS 0 at one go: all taken, the client not read meanwhile"
    ))
}

/// Anonymous clients, each a user of its own, that have subscribed with QoS 1.
async fn audience(bed: &Arc<Bed>, filter: &'static str) -> Result<Vec<Peer>> {
    let mut tasks = JoinSet::new();
    for number in 0..MANY {
        let bed = Arc::clone(bed);
        tasks.spawn(async move {
            let hello = Hello {
                client: format!("hears{number}"),
                ..Hello::default()
            };
            let mut peer = Peer::open(bed.mqtt(), number, &hello).await?;
            let codes = peer.subscribe(&[filter], 1).await?;
            ensure!(codes == [1], "SUBACK {codes:02x?}");
            Ok(peer)
        });
    }
    all(tasks).await
}

/// Reads so many messages each, acknowledged; gives the payloads in order.
async fn heard(audience: Vec<Peer>, count: usize) -> Result<Vec<Vec<(String, usize)>>> {
    let mut tasks = JoinSet::new();
    for mut peer in audience {
        tasks.spawn(async move {
            let mut got = Vec::new();
            while got.len() < count {
                let packet = peer.expect(kind::PUBLISH).await?;
                peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
                let number = String::from_utf8_lossy(packet.payload()).parse()?;
                got.push((packet.topic(), number));
            }
            Ok(got)
        });
    }
    all(tasks).await
}

/// Publishes of one key for more than are given it in a turn: all get all, in order.
async fn for_many(bed: Arc<Bed>) -> Result<String> {
    let audience = audience(&bed, "crowd/one").await?;
    let mut publisher = Peer::open(bed.mqtt(), 900, &bed.hello(0, "speaker")).await?;
    let reading = tokio::spawn(heard(audience, ROUNDS));
    for number in 0..ROUNDS {
        let code = publisher
            .publish("crowd/one", number.to_string().as_bytes(), false)
            .await?;
        ensure!(code == 0, "PUBACK {code:#04x}");
    }
    for got in reading.await?? {
        ensure!(got.iter().map(|one| one.1).eq(0..ROUNDS), "out of order: {got:?}");
    }
    Ok(format!(
        "{ROUNDS} publishes for {MANY} users: acknowledged, all got all in order"
    ))
}

/// The same under many keys at one go.
async fn many_keys_for_many(bed: Arc<Bed>) -> Result<String> {
    const KEYS: usize = 20;
    let audience = audience(&bed, "crowd/+/key").await?;
    let mut publisher = Peer::open(bed.mqtt(), 901, &bed.hello(0, "speaker")).await?;
    let reading = tokio::spawn(heard(audience, 3 * KEYS));
    let publishes = (0..3 * KEYS).map(|number| {
        let topic = format!("crowd/{}/key", number % KEYS);
        (topic, (number / KEYS).to_string().into_bytes())
    });
    let codes = burst(&mut publisher, publishes, false).await?;
    ensure!(codes.iter().all(|code| *code == 0), "{codes:02x?}");
    for got in reading.await?? {
        for key in 0..KEYS {
            let topic = format!("crowd/{key}/key");
            let of_key = got.iter().filter(|one| one.0 == topic).map(|one| one.1);
            ensure!(of_key.eq(0..3), "{topic} is out of order: {got:?}");
        }
    }
    Ok(format!(
        "{} publishes for {MANY} users under {KEYS} keys at one go: acknowledged, all got all, in order within a key",
        3 * KEYS
    ))
}

/// More publishes for many of one user, under one key, than may wait: by connections that each keep to what they may have under way.
async fn crowded(bed: Arc<Bed>) -> Result<String> {
    const EACH: u16 = 250;
    let audience = audience(&bed, "crowd/one").await?;
    let reading: Vec<_> = audience
        .into_iter()
        .map(|peer| tokio::spawn(counted(peer)))
        .collect();
    let mut tasks = JoinSet::new();
    for number in 0..5 {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let hello = bed.hello(0, &format!("pushes{number}"));
            let mut peer = Peer::open(bed.mqtt(), 910 + number, &hello).await?;
            let all: Vec<u8> = (1..=EACH)
                .flat_map(|pid| wire::publish(false, "crowd/one", b"1", 1, false, pid))
                .collect();
            peer.send(&all).await?;
            let (mut taken, mut refused) = (0_usize, 0);
            for _ in 0..EACH {
                match peer.expect(kind::PUBACK).await?.code() {
                    0 => taken += 1,
                    0x83 => refused += 1,
                    code => anyhow::bail!("PUBACK {code:#04x}"),
                }
            }
            Ok((taken, refused))
        });
    }
    let done = all(tasks).await?;
    let (taken, refused) = done
        .iter()
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    ensure!(taken > 256, "only {taken} were taken");
    for reader in reading {
        let got = reader.await??;
        ensure!(got == taken, "{got} came of {taken} that were taken");
    }
    Ok(format!(
        "of {} publishes for {MANY} users by five connections at one go {taken} were acknowledged and came to all, {refused} refused \
         (PUBACK 0x83)",
        5 * EACH
    ))
}

/// Acknowledges until nothing came for a while; how many came.
async fn counted(mut peer: Peer) -> Result<usize> {
    let mut got = 0;
    while let Some(packet) = peer.next_within(Duration::from_millis(2_000)).await? {
        let packet = packet.context("closed")?;
        peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
        got += 1;
    }
    Ok(got)
}
