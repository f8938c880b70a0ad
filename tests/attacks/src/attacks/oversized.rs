//! Packets that are too large: refused by their header, before authentication as after it, with what is held bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use super::doors::all;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::{self, Hello, kind};

/// Refused within this.
const MARK: Duration = Duration::from_millis(10);

/// The median of some refusals, against the mark.
fn quick(bed: &Bed, what: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let last = times.last().copied().unwrap_or_default();
    bed.measure(
        format!("{what}: ms, the median of {}", times.len()),
        median.as_secs_f64() * 1e3,
        MARK.as_secs_f64() * 1e3,
    );
    format!("{what}, {:.1} ms at most", last.as_secs_f64() * 1e3)
}

/// A header that announces 268,435,455 bytes behind a CONNECT's beginning.
fn endless_connect() -> Vec<u8> {
    let mut bytes = vec![0x10, 0xff, 0xff, 0xff, 0x7f];
    bytes.extend(wire::field("MQTT"));
    bytes.extend([5, 2, 0, 0, 0]);
    bytes
}

/// The four kinds of FAULTS 18, before and after authentication.
pub fn packets(long: bool) -> Attack {
    let count = if long { 400 } else { 40 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut told = Vec::new();
        let old = [false, true];
        // Before authentication.
        let huge = wire::connect(&Hello {
            client: "x".repeat(17 << 10),
            ..Hello::default()
        });
        for (what, bytes) in [
            ("CONNECT of 268,435,455 bytes: CONNACK 0x95", endless_connect()),
            ("CONNECT of 17 KiB: CONNACK 0x95", huge),
        ] {
            let mut times = Vec::new();
            for number in 0..count {
                let mut peer = Peer::bare(bed.mqtt(), number).await?;
                let begun = Instant::now();
                peer.send_anyway(&bytes).await;
                let packet = peer
                    .next()
                    .await?
                    .with_context(|| format!("closed, not told: {what}"))?;
                ensure!(
                    packet.kind() == kind::CONNACK && packet.code() == 0x95,
                    "{packet:?}: {what}"
                );
                times.push(begun.elapsed());
            }
            told.push(quick(&bed, what, times));
        }
        // After it: what is sent, the codes of a DISCONNECT; 3.1.1 is closed.
        let topic = "t".repeat(65_535);
        let properties = {
            let one = [0x26, 0, 1, b'a', 0, 1, b'b'].repeat(100_000);
            let mut body = wire::field("iot/mallory0/a");
            body.extend(wire::var(one.len()));
            body.extend(one);
            wire::packet(0x30, &body)
        };
        let filters: Vec<String> = (0..10_000)
            .map(|number| format!("iot/mallory0/{number}"))
            .collect();
        let long_one = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
        for is_old in old {
            let name = if is_old { "3.1.1" } else { "5.0" };
            let cases: [(&str, Vec<u8>, u8); 4] = [
                ("PUBLISH of 268,435,455 bytes", long_one.clone(), 0x95),
                ("100,000 user properties", properties.clone(), 0x95),
                ("10,000 filters", wire::subscribe(is_old, 5, &filters, 0), 0x97),
                (
                    "a topic of 65,535 bytes, QoS 0",
                    wire::publish(is_old, &topic, b"", 0, false, 0),
                    0,
                ),
            ];
            for (what, bytes, code) in cases {
                let mut times = Vec::new();
                for number in 0..count {
                    let mut hello = bed.hello(0, &format!("big{is_old}"));
                    hello.old = is_old;
                    let mut peer = Peer::open(bed.mqtt(), number, &hello).await?;
                    let begun = Instant::now();
                    peer.send_anyway(&bytes).await;
                    let wanted = (!is_old).then_some(code);
                    if code == 0 {
                        // Dropped: the connection lives.
                        peer.ping().await.with_context(|| format!("{what}, {name}"))?;
                    } else {
                        let got = peer.ended(crate::peer::PATIENCE).await;
                        let got = got.with_context(|| format!("{what}, {name}"))?;
                        ensure!(got == wanted, "{what}, {name}: {got:?}");
                    }
                    times.push(begun.elapsed());
                }
                let how = match (code, is_old) {
                    (0, _) => "dropped".to_owned(),
                    (_, true) => "closed".to_owned(),
                    (code, false) => format!("DISCONNECT {code:#04x}"),
                };
                told.push(quick(&bed, &format!("{what} in {name}: {how}"), times));
            }
        }
        told.push(long_topics(&bed, &topic).await?);
        Ok(told)
    };
    Attack::new("oversized packets", setup, long, run)
}

async fn long_topics(bed: &Bed, topic: &str) -> Result<String> {
    let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(0, "topics")).await?;
    let code = peer.publish(topic, b"", false).await?;
    ensure!(code == 0x90, "PUBACK {code:#04x} for a topic of 65,535 bytes");
    let codes = peer.subscribe(&[topic], 1).await?;
    ensure!(
        codes == [0x8f],
        "SUBACK {codes:02x?} for a filter of 65,535 bytes"
    );
    let deep = vec!["a"; 65].join("/");
    let code = peer.publish(&deep, b"", false).await?;
    ensure!(code == 0x90, "PUBACK {code:#04x} for 65 levels");
    Ok("topics of 65,535 bytes or 65 levels: PUBACK 0x90, SUBACK 0x8f".into())
}

/// Many connections that send just less than may be held before authentication, and nothing more.
pub fn held(long: bool) -> Attack {
    let count: usize = if long { 10_000 } else { 500 };
    let run = move |bed: Arc<Bed>| async move {
        let mut bytes = wire::connect(&Hello {
            client: "x".repeat(16_000),
            ..Hello::default()
        });
        bytes.truncate(bytes.len() - 1);
        let bytes: Arc<[u8]> = bytes.into();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (bed, bytes) = (Arc::clone(&bed), Arc::clone(&bytes));
            tasks.spawn(async move {
                let mut peer = Peer::bare(bed.mqtt(), number).await?;
                peer.send_anyway(&bytes).await;
                Ok(peer)
            });
        }
        let mut peers = all(tasks).await?;
        tokio::time::sleep(Duration::from_millis(if long { 3_000 } else { 800 })).await;
        let open = {
            let mut open = 0;
            for peer in &mut peers {
                open += usize::from(peer.next_within(Duration::ZERO).await?.is_none());
            }
            open
        };
        if open == 0 {
            bail!("nobody is held any more: nothing was measured");
        }
        Ok(vec![format!(
            "{open} of {count} connections held with 16,0xx bytes of an unfinished CONNECT each"
        )])
    };
    Attack::new("16 KiB before authentication", Setup::default(), long, run).memory(
        (24 << 20) + count as u64 * (20 << 10),
        "16 KiB and what the allocator makes of it, 20 KiB a connection, and 24 MiB",
    )
}

/// The same, announced and not sent: what is held grows only as bytes arrive.
pub fn announced(long: bool) -> Attack {
    let count: usize = if long { 10_000 } else { 500 };
    let run = move |bed: Arc<Bed>| async move {
        let mut bytes = wire::connect(&Hello {
            client: "x".repeat(16_000),
            ..Hello::default()
        });
        bytes.truncate(20);
        let bytes: Arc<[u8]> = bytes.into();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (bed, bytes) = (Arc::clone(&bed), Arc::clone(&bytes));
            tasks.spawn(async move {
                let mut peer = Peer::bare(bed.mqtt(), number).await?;
                peer.send_anyway(&bytes).await;
                Ok(peer)
            });
        }
        let mut peers = all(tasks).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut open = 0;
        for peer in &mut peers {
            open += usize::from(peer.next_within(Duration::ZERO).await?.is_none());
        }
        if open == 0 {
            bail!("nobody is held any more: nothing was measured");
        }
        Ok(vec![format!(
            "{open} of {count} connections held that announced 16,0xx bytes of a CONNECT and sent 20"
        )])
    };
    Attack::new(
        "announced before authentication, not sent",
        Setup::default(),
        long,
        run,
    )
    .memory(
        (8 << 20) + count as u64 * (2 << 10),
        "2 KiB a connection, and 8 MiB",
    )
}

/// What has a limit of its own below that of a packet: client ids and messages.
pub fn forms(long: bool) -> Attack {
    let rounds = if long { 200 } else { 5 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let bob = bed.bystanders[1].clone();
        let text = "m".repeat((64 << 10) + 1);
        for round in 0..rounds {
            for is_old in [false, true] {
                let hello = |client: String| Hello {
                    old: is_old,
                    ..bed.hello(0, &client)
                };
                let (_, connack) = Peer::ask(bed.mqtt(), round, &hello("i".repeat(257))).await?;
                let code = connack.context("closed")?.code();
                let wanted = if is_old { 2 } else { 0x85 };
                ensure!(code == wanted, "CONNACK {code:#04x} for a client id of 257 bytes");
                let mut peer = Peer::open(bed.mqtt(), round, &hello("i".repeat(256))).await?;
                peer.subscribe(&["me/inbox/json"], 1).await?;
                let topic = format!("c/@{}/send/text", bob.name);
                peer.send(&wire::publish(is_old, &topic, text.as_bytes(), 1, false, 7))
                    .await?;
                let (mut refused, mut acknowledged) = (false, None);
                while acknowledged.is_none() || (is_old && !refused) {
                    let packet = peer.next().await?.context("closed")?;
                    match packet.kind() {
                        kind::PUBACK => acknowledged = Some(packet.code()),
                        kind::PUBLISH => {
                            let body = String::from_utf8_lossy(packet.payload()).into_owned();
                            refused |= body.contains("refused") && body.contains("too_large");
                            peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
                        }
                        _ => {}
                    }
                }
                let wanted = if is_old { 0 } else { 0x83 };
                ensure!(
                    acknowledged == Some(wanted),
                    "PUBACK {acknowledged:02x?} for 64 KiB and a byte"
                );
            }
        }
        let (api, token) = (bed.api.clone(), bed.offenders[0].token.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let conversation = api.direct(&token, &bob.id)?;
            api.send(&token, &conversation, "large", &text)
        });
        match answer.await? {
            Err(refused) if refused.status == 413 => {}
            other => bail!("REST: {other:?} for 64 KiB and a byte"),
        }
        Ok(vec![
            "a client id of 257 bytes: CONNACK 0x85, in 3.1.1 2; one of 256 is let in".into(),
            "a message of 64 KiB and a byte: PUBACK 0x83, in 3.1.1 an entry `refused` {too_large} and its PUBACK, over REST 413".into(),
        ])
    };
    Attack::new("client ids and messages over their limits", setup, long, run)
}
