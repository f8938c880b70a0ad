//! Limits of what is owed: in one table, met on a server that keeps little for who does not come.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, cases, group};
use crate::attacks::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, kind};

const CASES: &[Case] = cases! {
    "entries owed to a persistent session by ordinary topics", "session_log_entries",
        "godwit_owed_over_quota_total" => log_entries;
    "bytes of them", "session_log_bytes", "godwit_owed_over_quota_total" => log_bytes;
    "entries waiting for a clean session", "MEMORY_QUEUE",
        "godwit_mqtt_limits_met_total{limit=\"memory_queue\"" => memory_queue;
    "bytes of them", "MEMORY_BYTES", "godwit_mqtt_limits_met_total{limit=\"memory_bytes\"" => memory_bytes;
    "entries of a mailbox", "mailbox_entries", "godwit_owed_over_quota_total" => mailbox_entries;
    "bytes of refused sends in a mailbox", "mailbox_bytes", "godwit_owed_over_quota_total" => mailbox_bytes;
};

/// Entries that are kept for a session, and in a mailbox: the fewest that may be configured. They are looked at each 1,024.
const ENTRIES: usize = 16_384;
/// Bytes of them: the fewest too.
const BYTES: usize = 16 << 20;

/// What comes of what is left is looked at so far.
const LOOKED_AT: usize = 600;

pub(super) fn attack(long: bool) -> Attack {
    let setup = Setup {
        offenders: 3,
        options: vec![
            ("GODWIT_SESSION_LOG_ENTRIES", ENTRIES.to_string()),
            ("GODWIT_SESSION_LOG_BYTES", BYTES.to_string()),
            ("GODWIT_MAILBOX_ENTRIES", ENTRIES.to_string()),
            ("GODWIT_MAILBOX_BYTES", BYTES.to_string()),
        ],
        ..Setup::default()
    };
    group("limits of what is owed", setup, long, &[CASES]).memory(
        224 << 20,
        "32 MiB of the store's queue and 192 MiB of its overlay (docs/operations.md)",
    )
}

/// A subscriber that acknowledges nothing, in both versions, while this is published: what it is told at its end.
async fn silent(bed: &Arc<Bed>, name: &str, expiry: u32, publishes: &[Vec<u8>]) -> Result<()> {
    let topic = format!("iot/mallory0/{name}");
    let mut ends = Vec::new();
    for old in [false, true] {
        let hello = Hello {
            old,
            expiry,
            ..bed.hello(0, &format!("{name}{old}"))
        };
        let mut peer = Peer::open(bed.mqtt(), 1, &hello).await?;
        let codes = peer.subscribe(&[&topic], 1).await?;
        ensure!(codes == [1], "SUBACK {codes:02x?}");
        let ended = tokio::spawn(async move { peer.ended(2 * PATIENCE).await });
        ends.push((old, ended));
    }
    let mut publisher = Peer::open(bed.mqtt(), 2, &bed.hello(0, "publisher")).await?;
    // A list, since what borrows across an await is not general enough for a table of functions.
    let all: Vec<_> = publishes
        .iter()
        .map(|payload| (topic.clone(), payload.clone()))
        .collect();
    let codes = burst(&mut publisher, all, false).await?;
    ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
    for (old, ended) in ends {
        let code = ended.await??;
        let wanted = (!old).then_some(0x97);
        ensure!(code == wanted, "{code:02x?} where {wanted:02x?} is due");
    }
    publisher.send_anyway(&wire::DISCONNECT).await;
    Ok(())
}

/// The one of version 5 is back: how many of these it is still owed, the newest and in order.
async fn left(bed: &Arc<Bed>, name: &str, publishes: &[Vec<u8>]) -> Result<usize> {
    let hello = Hello {
        expiry: 3_600,
        ..bed.hello(0, &format!("{name}false"))
    };
    let (mut peer, connack) = Peer::ask(bed.mqtt(), 1, &hello).await?;
    let connack = connack.context("closed")?;
    ensure!(
        connack.is_welcome() && connack.session_present(),
        "{connack:02x?}"
    );
    let (mut first, mut number) = (None, 0);
    while first.is_none_or(|first| number < publishes.len().min(first + LOOKED_AT)) {
        let packet = peer.expect(kind::PUBLISH).await?;
        peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
        if first.is_none() {
            number = publishes
                .iter()
                .position(|one| one == packet.payload())
                .context("a stranger")?;
            first = Some(number);
        }
        ensure!(publishes[number] == packet.payload(), "out of order at {number}");
        number += 1;
    }
    let first = first.unwrap_or_default();
    ensure!(first > 0, "all are still there");
    Ok(publishes.len() - first)
}

/// Payloads of this size that begin with their number.
fn numbered(count: usize, size: usize) -> Vec<Vec<u8>> {
    let one = |number: usize| {
        let mut payload = format!("{number} ").into_bytes();
        payload.resize(size.max(payload.len()), b'.');
        payload
    };
    (0..count).map(one).collect()
}

async fn log_entries(bed: Arc<Bed>) -> Result<String> {
    let publishes = numbered(ENTRIES + 2_000, 0);
    silent(&bed, "entries", 3_600, &publishes).await?;
    let left = left(&bed, "entries", &publishes).await?;
    // The oldest sixteenth goes as often as it must; a sixteenth and what came since may be over.
    ensure!(
        (ENTRIES * 7 / 8..=ENTRIES * 9 / 8).contains(&left),
        "{left} are still there"
    );
    Ok(format!(
        "{} entries owed and not acknowledged: DISCONNECT 0x97, in 3.1.1 closed; the newest {left} came in order afterwards",
        publishes.len()
    ))
}

async fn log_bytes(bed: Arc<Bed>) -> Result<String> {
    let publishes = numbered(220, 100_000);
    silent(&bed, "bytes", 3_600, &publishes).await?;
    let left = left(&bed, "bytes", &publishes).await?;
    Ok(format!(
        "22 MB owed and not acknowledged, of which 16 MiB are kept: DISCONNECT 0x97, in 3.1.1 closed; the newest {left} entries came in order"
    ))
}

async fn memory_queue(bed: Arc<Bed>) -> Result<String> {
    silent(&bed, "queue", 0, &numbered(1_500, 0)).await?;
    Ok(
        "1,500 entries for a clean session that acknowledges nothing: DISCONNECT 0x97, in 3.1.1 closed"
            .into(),
    )
}

async fn memory_bytes(bed: Arc<Bed>) -> Result<String> {
    // 256 are with the client, which is as many as it takes; the others wait: fewer than may by their number.
    silent(&bed, "memory", 0, &numbered(520, 12_000)).await?;
    Ok(
        "6 MB for a clean session that acknowledges nothing, half of which waits for it: DISCONNECT 0x97, in 3.1.1 closed"
            .into(),
    )
}

/// A device that was away: it has subscribed its inbox and left.
async fn away(bed: &Arc<Bed>, offender: usize, old: bool) -> Result<Hello> {
    let hello = Hello {
        old,
        expiry: 3_600,
        ..bed.hello(offender, &format!("away{old}"))
    };
    let mut peer = Peer::open(bed.mqtt(), 1, &hello).await?;
    let codes = peer.subscribe(&["me/inbox/json"], 1).await?;
    ensure!(codes == [1], "SUBACK {codes:02x?}");
    peer.send_anyway(&wire::DISCONNECT).await;
    Ok(hello)
}

/// It is back, and is told of a gap in its inbox before anything else that it missed; what comes afterwards goes on without one.
async fn told_of_a_gap(bed: &Arc<Bed>, hello: &Hello) -> Result<u64> {
    let mut peer = Peer::open(bed.mqtt(), 1, hello).await?;
    let (mut gaps, mut others) = (0, 0);
    let (mut number, mut gone) = (0, 0);
    while others < LOOKED_AT
        && let Some(packet) = peer.next_within(Duration::from_millis(500)).await?
    {
        let packet = packet.context("closed")?;
        if packet.kind() != kind::PUBLISH {
            continue;
        }
        if packet.qos() > 0 {
            peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
        }
        let text = String::from_utf8_lossy(packet.payload()).into_owned();
        let event: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let seq = event["inbox_seq"].as_u64();
        if event["type"] == "gap"
            && event
                .get("conversation_id")
                .is_none_or(serde_json::Value::is_null)
        {
            ensure!(others == 0, "a gap behind what it missed");
            gaps += 1;
            continue;
        }
        if let Some(seq) = seq {
            ensure!(
                number < seq,
                "{seq} after {number}: out of order, or again after the gap"
            );
            if others == 0 {
                gone = seq - 1;
            }
            number = seq;
            others += 1;
        }
    }
    ensure!(gaps > 0 && others > 0, "{others} events came, and {gaps} gaps");
    Ok(gone)
}

async fn mailbox_entries(bed: Arc<Bed>) -> Result<String> {
    let sent = ENTRIES + 1_500;
    let (old, new) = (away(&bed, 0, true).await?, away(&bed, 0, false).await?);
    let mut sender = Peer::open(bed.mqtt(), 3, &bed.hello(1, "sender")).await?;
    let topic = "c/@mallory0/send/text".to_owned();
    let all = (0..sent).map(|number| (topic.clone(), number.to_string().into_bytes()));
    let codes = burst(&mut sender, all, false).await?;
    ensure!(codes.iter().all(|code| *code == 0), "a message was refused");
    let (one, other) = (told_of_a_gap(&bed, &new).await?, told_of_a_gap(&bed, &old).await?);
    let due = (sent - ENTRIES) as u64;
    ensure!(
        one == other && one >= due && one < sent as u64 / 4,
        "{one} and {other} of {sent} went where {due} must"
    );
    Ok(format!(
        "{sent} messages for who is away, of whose mailbox {ENTRIES} are kept: all acknowledged to their sender; a `gap` up to {one} for both of its \
         devices, then the others in order"
    ))
}

/// Refused sends of a 3.1.1 client, which its mailbox holds whole.
async fn mailbox_bytes(bed: Arc<Bed>) -> Result<String> {
    const SENT: usize = 300;
    let (old, new) = (away(&bed, 2, true).await?, away(&bed, 2, false).await?);
    let hello = Hello {
        old: true,
        ..bed.hello(2, "rambler")
    };
    let mut sender = Peer::open(bed.mqtt(), 3, &hello).await?;
    let large = vec![b'm'; (64 << 10) + 1];
    for _ in 0..SENT {
        // Acknowledged when its entry `refused` is durable.
        let code = sender.publish("c/@mallory0/send/text", &large, false).await?;
        ensure!(code == 0, "PUBACK {code:#04x}");
    }
    let (one, other) = (told_of_a_gap(&bed, &new).await?, told_of_a_gap(&bed, &old).await?);
    Ok(format!(
        "{SENT} refused sends of 64 KiB and a byte in 3.1.1, of which 16 MiB are kept: acknowledged; a `gap` up to {one} and {other} \
         for both devices that were away, then the others in order"
    ))
}
