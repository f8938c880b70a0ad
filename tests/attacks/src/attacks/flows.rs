//! Attacks by what is begun and not ended: QoS 2 without a PUBREL, deliveries without an acknowledgement, readers that are
//! slow or gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use super::doors::all;
use super::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::{Attack, floor};
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, kind};

/// Unacknowledged publishes of a client (docs/limits.md), each way.
const RECEIVE_MAXIMUM: usize = 256;
/// Where a 3.1.1 client, which cannot be told that, is closed.
const OPEN_OLD: usize = 4 * RECEIVE_MAXIMUM;

fn one_offender() -> Setup {
    Setup {
        offenders: 1,
        ..Setup::default()
    }
}

/// QoS 2 publishes that are never completed, on connection after connection of persistent sessions, and deliveries that
/// are never acknowledged until every packet identifier that may be in use is.
pub fn never_completed(long: bool) -> Attack {
    let rounds = if long { 200 } else { 6 };
    let run = move |bed: Arc<Bed>| async move {
        let mut told = Vec::new();
        for is_old in [false, true] {
            let most = if is_old { OPEN_OLD } else { RECEIVE_MAXIMUM };
            for round in 0..rounds {
                let hello = Hello {
                    old: is_old,
                    expiry: 3_600,
                    ..bed.hello(0, &format!("begun{}", round % 3))
                };
                let mut peer = Peer::open(bed.mqtt(), round, &hello).await?;
                for pid in 1..=most as u16 + 1 {
                    let bytes = wire::publish(is_old, "iot/mallory0/two", b"begun", 2, false, pid);
                    peer.send_anyway(&bytes).await;
                }
                let code = peer.ended(PATIENCE).await.context("QoS 2 never completed")?;
                let wanted = (!is_old).then_some(0x93);
                ensure!(code == wanted, "{code:02x?} where {wanted:02x?} is due");
            }
            told.push(format!(
                "{rounds} times {} QoS 2 publishes without a PUBREL in {}: {}",
                most + 1,
                if is_old { "3.1.1" } else { "5.0" },
                if is_old { "closed" } else { "DISCONNECT 0x93" }
            ));
        }
        told.push(never_acknowledged(&bed).await?);
        Ok(told)
    };
    Attack::new(
        "packet ids used up, QoS 2 never completed",
        one_offender(),
        long,
        run,
    )
}

/// Deliveries that are not acknowledged: a persistent session's wait for it, a clean one's are its end.
async fn never_acknowledged(bed: &Bed) -> Result<String> {
    const SENT: usize = 1_500;
    let lasting = Hello {
        expiry: 3_600,
        ..bed.hello(0, "lasting")
    };
    let mut silent = Peer::open(bed.mqtt(), 1, &lasting).await?;
    silent.subscribe(&["iot/mallory0/acks"], 1).await?;
    let mut clean = Peer::open(bed.mqtt(), 1, &bed.hello(0, "clean")).await?;
    clean.subscribe(&["iot/mallory0/acks"], 1).await?;
    let mut publisher = Peer::open(bed.mqtt(), 2, &bed.hello(0, "publisher")).await?;
    let publishes = (0..SENT).map(|number| ("iot/mallory0/acks".to_owned(), number.to_string().into_bytes()));
    let codes = burst(&mut publisher, publishes, false).await?;
    ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
    let code = clean
        .ended(PATIENCE)
        .await
        .context("a clean session with 1,500 owed")?;
    ensure!(code == Some(0x97), "a clean session with 1,500 owed: {code:02x?}");
    let mut owed = Vec::new();
    while let Some(Some(packet)) = silent.next_within(Duration::from_millis(400)).await? {
        ensure!(packet.kind() == kind::PUBLISH, "{packet:?}");
        owed.push(packet);
    }
    ensure!(owed.len() == RECEIVE_MAXIMUM, "{} under way", owed.len());
    silent.ping().await?;
    let mut got = 0;
    for packet in owed {
        silent.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
        got += usize::from(packet.payload() == got.to_string().as_bytes());
    }
    while got < SENT {
        let packet = silent.expect(kind::PUBLISH).await?;
        ensure!(
            packet.payload() == got.to_string().as_bytes(),
            "out of order at {got}"
        );
        silent.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
        got += 1;
    }
    Ok(format!(
        "who acknowledges nothing is sent {RECEIVE_MAXIMUM} of {SENT}, is answered all the while, and gets the rest in order when it \
         acknowledges; a clean session is disconnected (0x97) when more than 1,000 wait for it"
    ))
}

/// A connected session that acknowledges nothing while ever more is owed to it: its log has a bound.
pub fn owed_without_end(long: bool) -> Attack {
    let size = 240_000;
    let count = if long { 900 } else { 320 };
    let run = move |bed: Arc<Bed>| async move {
        let hello = Hello {
            expiry: 3_600,
            ..bed.hello(0, "owed")
        };
        let mut owed = Peer::open(bed.mqtt(), 1, &hello).await?;
        owed.subscribe(&["iot/mallory0/owed"], 1).await?;
        let ended = tokio::spawn(async move { owed.ended(Duration::from_secs(120)).await });
        let mut publisher = Peer::open(bed.mqtt(), 2, &bed.hello(0, "publisher")).await?;
        let publishes = (0..count).map(|_| ("iot/mallory0/owed".to_owned(), vec![b'o'; size]));
        let codes = burst(&mut publisher, publishes, false).await?;
        ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
        let code = ended.await??;
        ensure!(code == Some(0x97), "{code:02x?} where 0x97 is due");
        let gone = bed.metric("godwit_owed_over_quota_total").await?;
        ensure!(gone > 0.0, "nothing was counted");
        let mut told = vec![format!(
            "{} MB owed and not acknowledged: disconnected (0x97), {gone} of the oldest entries went, counted",
            count * size / 1_000_000
        )];
        if long {
            let hello = Hello {
                expiry: 3_600,
                ..bed.hello(0, "many")
            };
            let mut many = Peer::open(bed.mqtt(), 1, &hello).await?;
            many.subscribe(&["iot/mallory0/many"], 1).await?;
            let ended = tokio::spawn(async move { many.ended(Duration::from_secs(120)).await });
            let publishes = (0..110_000).map(|_| ("iot/mallory0/many".to_owned(), b"o".to_vec()));
            let codes = burst(&mut publisher, publishes, false).await?;
            ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
            let code = ended.await??;
            ensure!(code == Some(0x97), "{code:02x?} where 0x97 is due");
            let more = bed.metric("godwit_owed_over_quota_total").await? - gone;
            ensure!(more > 0.0, "nothing was counted");
            told.push(format!("110,000 entries owed: the same, {more} went"));
        }
        Ok(told)
    };
    Attack::new("owed without end", one_offender(), long, run).memory(
        288 << 20,
        "200 publishes of 240 KB under way (48 MB), 32 MiB of the store's queue, 192 MiB of its overlay (docs/operations.md)",
    )
}

/// A reader that takes nothing of a fast topic, among fast ones: they do not feel it, its memory has a cap, and it gets
/// everything when it reads.
pub fn slow_reader(long: bool) -> Attack {
    let fast = if long { 1_000 } else { 30 };
    let (steps, pace) = if long { (200, 50) } else { (60, 20) };
    let flood = if long { 10_000 } else { 1_500 };
    let setup = Setup {
        offenders: 1,
        acl: "allow both everyone plaza/#",
        anonymous: true,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let begun = Instant::now();
        let times: Arc<Mutex<Vec<(usize, Duration)>>> = Arc::default();
        let mut readers = JoinSet::new();
        for number in 0..fast {
            let (bed, times) = (Arc::clone(&bed), Arc::clone(&times));
            readers.spawn(async move {
                let hello = Hello {
                    client: format!("fast{number}"),
                    ..Hello::default()
                };
                let mut peer = Peer::open(bed.mqtt(), number, &hello).await?;
                let codes = peer.subscribe(&["plaza/fast"], 1).await?;
                ensure!(codes == [1], "SUBACK {codes:02x?}");
                Ok((peer, times))
            });
        }
        let mut tasks = JoinSet::new();
        for (mut peer, times) in all(readers).await? {
            tasks.spawn(async move {
                for number in 0..2 * steps {
                    let packet = peer.expect(kind::PUBLISH).await?;
                    peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
                    let (got, sent) = numbers(packet.payload())?;
                    ensure!(got == number, "{got} in place of {number}");
                    let took = begun.elapsed().saturating_sub(Duration::from_micros(sent));
                    times
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((got, took));
                }
                Ok(())
            });
        }
        let mut publisher = Peer::open(bed.mqtt(), 2, &bed.hello(0, "publisher")).await?;
        let mut slow = None;
        for number in 0..2 * steps {
            if number == steps {
                slow = Some([
                    slow_one(&bed, "slow", 1).await?,
                    slow_one(&bed, "slow0", 0).await?,
                ]);
            }
            let payload = payload(number, begun.elapsed());
            publisher.publish("plaza/fast", &payload, false).await?;
            tokio::time::sleep(Duration::from_millis(pace)).await;
        }
        all(tasks).await?;
        // As fast as it goes, to the slow ones alone.
        let more = (2 * steps..2 * steps + flood)
            .map(|number| ("plaza/fast".to_owned(), payload(number, begun.elapsed())));
        burst(&mut publisher, more, false).await?;
        let kept = bed.metric("godwit_mqtt_kept_bytes").await?;
        ensure!(
            kept <= 2.0 * f64::from((1 << 20) + (256 << 10)),
            "{kept} bytes kept"
        );
        let dropped = bed.metric("godwit_mqtt_qos0_dropped_total").await?;
        ensure!(dropped > 0.0, "nothing of QoS 0 was dropped");
        let Some([mut slow, _]) = slow else {
            bail!("no slow reader");
        };
        for number in steps..2 * steps + flood {
            let packet = slow.expect(kind::PUBLISH).await?;
            slow.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
            let (got, _) = numbers(packet.payload())?;
            ensure!(got == number, "the slow reader got {got} in place of {number}");
        }
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |part: std::ops::Range<usize>| {
            let mut times: Vec<Duration> = times
                .iter()
                .filter(|(number, _)| part.contains(number))
                .map(|(_, time)| *time)
                .collect();
            times.sort_unstable();
            times.get(times.len() * 99 / 100).copied().unwrap_or_default()
        };
        let (before, during) = (of(0..steps), of(steps..2 * steps));
        let mark = before.mul_f64(1.5).max(floor(long));
        bed.measure(
            "the fast readers' p99, ms",
            during.as_secs_f64() * 1e3,
            mark.as_secs_f64() * 1e3,
        );
        Ok(vec![
            format!(
                "{} messages of 4 KiB, {} of them as fast as they go, unread by a persistent session: {kept} bytes kept for both slow \
                 readers, {dropped} deliveries of QoS 0 dropped and counted; then it got all of them in order",
                steps + flood,
                flood
            ),
            format!(
                "{fast} fast readers of the same topic: p99 {:.1} ms before, {:.1} ms during",
                before.as_secs_f64() * 1e3,
                during.as_secs_f64() * 1e3
            ),
        ])
    };
    Attack::new("slow reader of a fast topic", setup, long, run)
        .mark(1.5)
        .memory(
            (96 << 20) + fast as u64 * (24 << 10),
            "1.25 MiB a slow reader, 24 KiB a fast one, 64 MiB of the store's overlay, 32 MiB",
        )
}

async fn slow_one(bed: &Bed, client: &str, qos: u8) -> Result<Peer> {
    let hello = Hello {
        expiry: 3_600,
        ..bed.hello(0, client)
    };
    let mut peer = Peer::bare_slow(bed.mqtt(), 3).await?;
    let connack = peer.greet(&hello).await?.context("closed")?;
    ensure!(connack.is_welcome(), "CONNACK {:#04x}", connack.code());
    let codes = peer.subscribe(&["plaza/fast"], qos).await?;
    ensure!(codes == [qos], "SUBACK {codes:02x?}");
    Ok(peer)
}

fn payload(number: usize, at: Duration) -> Vec<u8> {
    let mut text = format!("{number} {} ", at.as_micros()).into_bytes();
    text.resize(4_096, b'.');
    text
}

fn numbers(payload: &[u8]) -> Result<(usize, u64)> {
    let text = String::from_utf8_lossy(payload);
    let mut words = text.split(' ');
    let number = words.next().context("no number")?.parse()?;
    Ok((number, words.next().context("no time")?.parse()?))
}
