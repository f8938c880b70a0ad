//! Attacks on the doors, before anybody is known: connections that dribble, are silent, or come in crowds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::{self, Hello};

/// A CONNECT must be whole within this (docs/limits.md), and the connection closed a second later at the latest.
const GREETING: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(1);

/// Waits for all; gives what each gave, or the first error.
pub(super) async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::new();
    while let Some(one) = tasks.join_next().await {
        done.push(one??);
    }
    Ok(done)
}

/// How long a connection lasted, from before it was asked for and from when it was made: the server counts from between.
type Lasted = (Duration, Duration);

/// A CONNECT that comes a byte at a time, never whole.
pub fn slowloris(long: bool) -> Attack {
    let count = if long { 10_000 } else { 300 };
    let run = move |bed: Arc<Bed>| async move {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move {
                let begun = Instant::now();
                let mut peer = Peer::bare(bed.mqtt(), number).await?;
                let made = Instant::now();
                // Longer than it has time for.
                let bytes = wire::connect(&Hello {
                    client: "x".repeat(200),
                    ..Hello::default()
                });
                for byte in bytes.chunks(1) {
                    peer.send_anyway(byte).await;
                    if let Ok(code) = peer.ended(Duration::from_millis(500)).await {
                        ensure!(code.is_none(), "it was told {code:?}");
                        return Ok((begun.elapsed(), made.elapsed()));
                    }
                }
                bail!("a CONNECT that dribbled for {:?} was not closed", begun.elapsed())
            });
        }
        let times = all(tasks).await?;
        closed_in_time(&bed, &times, count).await
    };
    Attack::new("slowloris on CONNECT", Setup::default(), long, run)
        .waits()
        .memory(
            (16 << 20) + count as u64 * (1 << 10),
            "1 KiB a connection, and 16 MiB",
        )
}

async fn closed_in_time(bed: &Bed, times: &[Lasted], count: usize) -> Result<Vec<String>> {
    let first = times.iter().map(|time| time.0).min().unwrap_or_default();
    let last = times.iter().map(|time| time.1).max().unwrap_or_default();
    ensure!(first >= GREETING, "the first was closed after {first:?} already");
    bed.measure(
        "the last one closed so many seconds after its deadline",
        last.saturating_sub(GREETING).as_secs_f64(),
        LATE.as_secs_f64(),
    );
    let counted = bed.metric("godwit_mqtt_greeting_timeouts_total").await?;
    ensure!(counted >= count as f64, "{counted} counted of {count}");
    Ok(vec![format!(
        "{count} connections closed without a word after {:.1} to {:.1} s (5 s and up to 1 s), counted",
        first.as_secs_f64(),
        last.as_secs_f64()
    )])
}

/// Connections that never speak.
pub fn silent(long: bool) -> Attack {
    let count = if long { 10_000 } else { 2_000 };
    let run = move |bed: Arc<Bed>| async move {
        let times = silence(&bed, count).await?;
        closed_in_time(&bed, &times, count).await
    };
    Attack::new("connections that never speak", Setup::default(), long, run)
        .waits()
        .memory(
            (16 << 20) + count as u64 * (1 << 10),
            "1 KiB a connection, and 16 MiB",
        )
}

/// The same, and more of them than are let in.
pub fn crowd(long: bool) -> Attack {
    let (room, count) = if long { (15_000, 19_000) } else { (500, 1_000) };
    let setup = Setup {
        options: vec![("GODWIT_MAX_CONNECTIONS", room.to_string())],
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let times = silence(&bed, count).await?;
        let refused = bed
            .metric("godwit_mqtt_refused_total{reason=\"too_many\"")
            .await?;
        let kept: Vec<Lasted> = times
            .into_iter()
            .filter(|time| time.0 >= Duration::from_secs(2))
            .collect();
        // The bystanders are in, and who comes and goes is turned away too.
        ensure!(
            kept.len() <= room && kept.len() as f64 + refused >= count as f64,
            "{} kept and {refused} turned away of {count}",
            kept.len()
        );
        let mut told = closed_in_time(&bed, &kept, kept.len()).await?;
        told.push(format!(
            "{refused} more were closed at once: connections were at their limit of {room}"
        ));
        Ok(told)
    };
    // The node is full of them for some seconds.
    Attack::new("a crowd that never speaks", setup, long, run)
        .waits()
        .without_connects()
        .memory(
            (16 << 20) + count as u64 * (1 << 10),
            "1 KiB a connection, and 16 MiB",
        )
}

/// So many connections on which nothing is sent; how long each lasted.
async fn silence(bed: &Arc<Bed>, count: usize) -> Result<Vec<Lasted>> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let bed = Arc::clone(bed);
        if number % 50 == 49 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tasks.spawn(async move {
            let begun = Instant::now();
            let mut peer = Peer::bare(bed.mqtt(), number).await?;
            let made = Instant::now();
            let code = peer.ended(crate::peer::PATIENCE).await.context("silent")?;
            ensure!(code.is_none(), "it was told {code:?}");
            Ok((begun.elapsed(), made.elapsed()))
        });
    }
    all(tasks).await
}

/// Everybody drops and returns at once, and again: one storm is over before a bystander has sent enough for a p99.
pub fn storm(long: bool) -> Attack {
    let (count, storms) = if long { (5_000, 20) } else { (500, 2) };
    let setup = Setup {
        anonymous: true,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let begun = Instant::now();
        let mut peers = arrive(&bed, count, false).await?;
        let first = begun.elapsed();
        ensure!(peers.len() == count, "{} of {count} came", peers.len());
        let mut tasks = JoinSet::new();
        for (number, mut peer) in peers.into_iter().enumerate() {
            tasks.spawn(async move {
                let codes = peer.subscribe(&[format!("storm/{number}")], 1).await?;
                ensure!(codes == [1], "SUBACK {codes:02x?}");
                Ok(peer)
            });
        }
        peers = all(tasks).await?;
        let mut back = Vec::new();
        for _ in 0..storms {
            drop(peers);
            let begun = Instant::now();
            peers = arrive(&bed, count, true).await?;
            back.push(begun.elapsed());
            ensure!(
                peers.len() * 100 >= count * 99,
                "{} of {count} are back",
                peers.len()
            );
        }
        let slowest = back.iter().max().copied().unwrap_or_default();
        // The first time made the sessions; half a second is what noise may add to a short run.
        let mark = 2.0 * first.as_secs_f64() + if long { 0.0 } else { 0.5 };
        bed.measure("seconds until all were back", slowest.as_secs_f64(), mark);
        Ok(vec![format!(
            "{storms} times all dropped at once: all {count} persistent sessions were back after {:.2} to {:.2} s, all still \
             there; connected for the first time in {:.2} s",
            back.iter().min().copied().unwrap_or_default().as_secs_f64(),
            slowest.as_secs_f64(),
            first.as_secs_f64()
        )])
    };
    // Who connects during the storm is one of its crowd: that all of that are let in within twice the time of their first connects is the mark.
    Attack::new("storm: everybody drops and returns", setup, long, run)
        .without_connects()
        .memory(
            (32 << 20) + count as u64 * (16 << 10),
            "16 KiB a session twice loaded, and 32 MiB",
        )
}

async fn arrive(bed: &Arc<Bed>, count: usize, again: bool) -> Result<Vec<Peer>> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let bed = Arc::clone(bed);
        tasks.spawn(async move {
            let hello = Hello {
                client: format!("storm{number}"),
                expiry: 3_600,
                ..Hello::default()
            };
            let (peer, connack) = Peer::ask(bed.mqtt(), number, &hello).await?;
            let connack = connack.context("closed in place of a CONNACK")?;
            ensure!(connack.is_welcome(), "CONNACK {:#04x}", connack.code());
            ensure!(
                connack.session_present() == again,
                "session present {}",
                connack.session_present()
            );
            Ok(peer)
        });
    }
    all(tasks).await
}

/// More clients than the limit on open files leaves room for: who comes on top is closed at once, the store keeps its
/// descriptors, and turning away costs next to nothing.
pub fn descriptors(long: bool) -> Attack {
    let files = if long { 8_192 } else { 1_024 };
    let setup = Setup {
        anonymous: true,
        files: Some(files),
        ..Setup::default()
    };
    // What docs/limits.md says: an eighth is for HTTP, 512 for the store.
    let room = files as usize - files as usize / 8 - 512;
    full("descriptors used up", setup, room, long)
}

/// More clients than `max_connections`.
pub fn connections(long: bool) -> Attack {
    let setup = Setup {
        anonymous: true,
        options: vec![("GODWIT_MAX_CONNECTIONS", "200".into())],
        ..Setup::default()
    };
    full("the limit on connections", setup, 200, long)
}

fn full(name: &'static str, setup: Setup, room: usize, long: bool) -> Attack {
    let watched = if long { 20 } else { 1 };
    let run = move |bed: Arc<Bed>| async move {
        let mut kept = Vec::new();
        let mut http = Vec::new();
        let mut turned_away = 0;
        for number in 0..room + 100 {
            let hello = Hello {
                client: format!("crowd{number}"),
                ..Hello::default()
            };
            match Peer::ask(bed.mqtt(), number, &hello).await {
                Ok((peer, Some(packet))) if packet.is_welcome() => kept.push(peer),
                Ok((_, None)) => turned_away += 1,
                Ok((_, Some(packet))) => bail!("CONNACK {:#04x} at the limit", packet.code()),
                Err(_) => turned_away += 1,
            }
            // HTTP's doors are crowded too.
            if number % 2 == 0
                && let Ok(peer) = Peer::bare(bed.http(), number).await
            {
                http.push(peer);
            }
        }
        // Three bystanders are in, and a fourth comes and goes.
        ensure!(
            kept.len() <= room && kept.len() + 8 >= room,
            "{} were let in where {room} fit",
            kept.len()
        );
        let descriptors = bed.descriptors()?;
        let (cpu, begun) = (bed.cpu_seconds()?, Instant::now());
        let mut knocks = 0_u32;
        while begun.elapsed() < Duration::from_secs(watched) {
            let mut peer = Peer::bare(bed.mqtt(), 50_000 + knocks as usize).await?;
            let code = peer.ended(Duration::from_secs(2)).await;
            if let Ok(Some(code)) = code {
                bail!("{code:#04x} at the limit");
            }
            knocks += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let share = (bed.cpu_seconds()? - cpu) / begun.elapsed().as_secs_f64();
        let rate = f64::from(knocks) / begun.elapsed().as_secs_f64();
        bed.measure(
            "% of a core for the whole process while it turns away, bystanders and all",
            share * 100.0,
            20.0,
        );
        let refused = bed
            .metric("godwit_mqtt_refused_total{reason=\"too_many\"")
            .await?;
        ensure!(refused >= f64::from(knocks), "{refused} counted");
        kept.truncate(kept.len() / 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let hello = Hello {
            client: "later".into(),
            ..Hello::default()
        };
        Peer::open(bed.mqtt(), 1, &hello)
            .await
            .context("half have left, and still nobody is let in")?;
        Ok(vec![
            format!(
                "{} let in ({room} fit, bystanders among them), {turned_away} and then {knocks} more closed at once, counted; \
                 {descriptors} descriptors in use; a new one let in when half had left",
                kept.len() * 2
            ),
            format!("{rate:.0} a second were turned away then"),
        ])
    };
    Attack::new(name, setup, long, run).without_connects().memory(
        (32 << 20) + room as u64 * (16 << 10),
        "16 KiB a connection, and 32 MiB",
    )
}
