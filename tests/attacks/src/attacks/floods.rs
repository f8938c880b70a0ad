//! Floods of what the server keeps or does on a client's behalf: retained messages, wills, take-overs of one session.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use super::doors::all;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::{self, Hello, kind};

/// QoS 1 publishes under way at a time: below the receive maximum.
const WINDOW: usize = 200;

/// Publishes all of them with QoS 1, a window at a time; the codes in order.
pub(super) async fn burst<I>(peer: &mut Peer, publishes: I, retain: bool) -> Result<Vec<u8>>
where
    I: IntoIterator<Item = (String, Vec<u8>)>,
{
    let mut publishes = publishes.into_iter();
    let (mut codes, mut open, mut pid) = (Vec::new(), 0, 0_u16);
    loop {
        while open < WINDOW
            && let Some((topic, payload)) = publishes.next()
        {
            pid = pid % 60_000 + 1;
            peer.send(&wire::publish(false, &topic, &payload, 1, retain, pid))
                .await?;
            open += 1;
        }
        if open == 0 {
            return Ok(codes);
        }
        codes.push(peer.expect(kind::PUBACK).await?.code());
        open -= 1;
    }
}

/// How many of each code, for the report.
pub(super) fn tally(codes: &[u8], code: u8) -> usize {
    codes.iter().filter(|one| **one == code).count()
}

/// Retained messages without end: too many bytes under one pair of first levels, and in the long form too many of them.
pub fn retained(long: bool) -> Attack {
    let setup = Setup {
        offenders: 2,
        acl: "allow both users plaza/%u/#",
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut told = Vec::new();
        let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(0, "hoarder")).await?;
        let large = (0..100).map(|number| (format!("iot/mallory0/{number}"), vec![b'x'; 200_000]));
        let codes = burst(&mut peer, large, true).await?;
        let (kept, refused) = (
            codes.iter().filter(|code| **code < 0x80).count(),
            tally(&codes, 0x97),
        );
        ensure!(kept + refused == 100 && refused > 0, "{codes:02x?}");
        ensure!(kept * 200_000 <= 16 << 20, "{kept} of 200,000 bytes are kept");
        told.push(format!(
            "{kept} retained messages of 200,000 bytes kept under one pair of first levels, {refused} refused (0x97)"
        ));
        // What replaces is let in, what clears too.
        let again = (0..20).map(|number| (format!("iot/mallory0/{number}"), vec![b'y'; 100]));
        let codes = burst(&mut peer, again, true).await?;
        ensure!(
            codes.iter().all(|code| *code < 0x80),
            "a replacement: {codes:02x?}"
        );
        if long {
            let mut peer = Peer::open(bed.mqtt(), 2, &bed.hello(1, "collector")).await?;
            let small = (0..60_000).map(|number| (format!("plaza/mallory1/{number}"), vec![b'x'; 20]));
            let codes = burst(&mut peer, small, true).await?;
            let (kept, refused) = (
                codes.iter().filter(|code| **code < 0x80).count(),
                tally(&codes, 0x97),
            );
            ensure!(kept <= 50_000 && kept + refused == 60_000, "{kept} and {refused}");
            told.push(format!(
                "{kept} small ones kept under one pair, {refused} refused (0x97)"
            ));
        }
        let counted = bed.metric("godwit_retained_refused_total").await?;
        ensure!(counted > 0.0, "no refusal was counted");
        told.push(format!("{counted} refusals counted"));
        Ok(told)
    };
    Attack::new("retained flood", setup, long, run).memory(
        if long { 224 << 20 } else { 160 << 20 },
        "twice 16 MiB of each key in memory, and 128 MiB of publishes and of the store's overlay",
    )
}

/// Retained messages of one user under more than one pair of first levels.
pub fn retained_of_a_user(long: bool) -> Attack {
    let rounds = if long { 50 } else { 1 };
    let setup = Setup {
        offenders: 2,
        acl: "allow both users plaza/%u/#",
        options: vec![
            ("GODWIT_RETAINED_PER_USER", "100".into()),
            ("GODWIT_RETAINED_BYTES_PER_USER", "500000".into()),
        ],
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut many = Peer::open(bed.mqtt(), 1, &bed.hello(0, "many")).await?;
        let mut large = Peer::open(bed.mqtt(), 2, &bed.hello(1, "large")).await?;
        let (mut refused, mut kept) = (0, 0);
        for round in 0..rounds {
            let topic = |number: usize| {
                let first = if number.is_multiple_of(2) { "iot" } else { "plaza" };
                format!("{first}/mallory0/{number}")
            };
            let small = (0..150).map(|number| (topic(number), vec![b'x'; 10]));
            let codes = burst(&mut many, small, true).await?;
            refused = tally(&codes, 0x97);
            ensure!(refused == 50, "{refused} of 150 refused: {codes:02x?}");
            let bytes = (0..40).map(|number| (format!("iot/mallory1/{number}"), vec![b'y'; 20_000]));
            let codes = burst(&mut large, bytes, true).await?;
            kept = 40 - tally(&codes, 0x97);
            ensure!(
                (15..=25).contains(&kept),
                "round {round}: {kept} of 20,000 bytes kept: {codes:02x?}"
            );
        }
        let met = bed
            .metric("godwit_mqtt_limits_met_total{limit=\"retained\"")
            .await?;
        ensure!(met > 0.0, "the limit was not counted");
        Ok(vec![format!(
            "of 150 retained messages of a user {refused} refused (0x97), its limit being 100; of 40 of 20,000 bytes {kept} kept, the limit being \
             500,000; counted {met} times"
        )])
    };
    Attack::new("retained messages of one user", setup, long, run).memory(
        if long { 72 << 20 } else { 32 << 20 },
        "buffers, and the store's overlay of 40 MB that were written",
    )
}

/// Clients by the hundred whose wills are as large as they can be, and who all vanish at once.
pub fn wills(long: bool) -> Attack {
    let count: usize = if long { 5_000 } else { 300 };
    let setup = Setup {
        anonymous: true,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let watcher = Hello {
            client: "watcher".into(),
            // So that what it has not taken yet may wait in its log.
            expiry: 60,
            ..Hello::default()
        };
        let mut watcher = Peer::open(bed.mqtt(), 0, &watcher).await?;
        watcher.subscribe(&["wills/#"], 1).await?;
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let bed = Arc::clone(&bed);
            if number % 50 == 49 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tasks.spawn(async move {
                let delay = u32::from(number % 4 == 3) * 3_600;
                let hello = Hello {
                    client: format!("will{number}"),
                    expiry: if delay > 0 { 7_200 } else { 0 },
                    will: Some((format!("wills/{number}"), vec![b'w'; 12 << 10], 1, delay)),
                    ..Hello::default()
                };
                Peer::open(bed.mqtt(), number, &hello).await
            });
        }
        let peers = all(tasks).await?;
        let begun = Instant::now();
        drop(peers);
        let due = (0..count).filter(|number| number % 4 != 3).count();
        let mut fired = BTreeSet::new();
        while fired.len() < due {
            let packet = watcher.expect(kind::PUBLISH).await?;
            watcher.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
            ensure!(fired.insert(packet.topic()), "{} fired twice", packet.topic());
        }
        let took = begun.elapsed();
        if let Some(Some(packet)) = watcher.next_within(Duration::from_millis(300)).await? {
            bail!("{} fired too", packet.topic());
        }
        // The wrong ones: where it must not go, and more than is let in before authentication.
        let bad = Hello {
            client: "bad".into(),
            will: Some(("me/inbox".into(), Vec::new(), 1, 0)),
            ..Hello::default()
        };
        let (_, connack) = Peer::ask(bed.mqtt(), 1, &bad).await?;
        let code = connack.context("closed")?.code();
        ensure!(code >= 0x80, "a will to me/inbox was let in");
        Ok(vec![format!(
            "{due} wills of 12 KiB fired once each in {:.2} s after all vanished at once, {} with a delay wait; a will to me/inbox: CONNACK \
             {code:#04x}",
            took.as_secs_f64(),
            count - due
        )])
    };
    Attack::new("will flood", setup, long, run).memory(
        (64 << 20) + count as u64 * (40 << 10),
        "three copies of each will, and 64 MiB",
    )
}

/// Connections that fight for one client id, a hundred a second, while messages flow to it.
pub fn take_over(long: bool) -> Attack {
    let fights: usize = if long { 3_000 } else { 250 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let hello = Hello {
            expiry: 3_600,
            ..bed.hello(0, "contested")
        };
        let mut first = Peer::open(bed.mqtt(), 0, &hello).await?;
        first.subscribe(&["iot/mallory0/prize"], 1).await?;
        let seen: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
        let (open, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let publisher = {
            let (bed, stop) = (Arc::clone(&bed), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(0, "giver")).await?;
                let mut given = 0_usize;
                while !stop.load(Ordering::Acquire) {
                    let code = peer
                        .publish("iot/mallory0/prize", given.to_string().as_bytes(), false)
                        .await?;
                    ensure!(code < 0x80, "PUBACK {code:#04x}");
                    given += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(given)
            })
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(hold(first, Arc::clone(&seen), Arc::clone(&open)));
        let (mut live, mut ticks) = (0.0_f64, tokio::time::interval(Duration::from_millis(10)));
        let begun = Instant::now();
        for number in 0..fights {
            ticks.tick().await;
            let (bed, hello) = (Arc::clone(&bed), hello.clone());
            let (seen, open) = (Arc::clone(&seen), Arc::clone(&open));
            if number % 50 == 0 {
                live = live.max(bed.metric("godwit_mqtt_sessions_live").await?);
            }
            tasks.spawn(async move {
                let (peer, connack) = Peer::ask(bed.mqtt(), number, &hello).await?;
                match connack {
                    // Overtaken before it was answered.
                    None => Ok(None),
                    // A DISCONNECT may come only after a CONNACK (MQTT-3.14.0-1).
                    Some(packet) if packet.kind() == kind::DISCONNECT => {
                        bail!("DISCONNECT before any CONNACK")
                    }
                    Some(packet) if packet.is_welcome() => {
                        ensure!(packet.session_present(), "the session was lost");
                        hold(peer, seen, open).await
                    }
                    Some(packet) => bail!("CONNACK {:#04x}", packet.code()),
                }
            });
        }
        let rate = fights as f64 / begun.elapsed().as_secs_f64();
        bed.measure(
            "ms from one to the next, where 100 a second are due",
            1e3 / rate,
            11.0,
        );
        stop.store(true, Ordering::Release);
        let given = publisher.await??;
        // Three bystanders, the one that comes and goes, the publisher, the winner.
        ensure!(live <= 6.0, "{live} live sessions where 6 can be");
        // All but the last one end by themselves; the last one by the next CONNECT, which ends with DISCONNECT.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let left = open.load(Ordering::Acquire);
        ensure!(left == 1, "{left} connections live at the end");
        let mut last = Peer::open(bed.mqtt(), 7, &hello).await?;
        let until = Instant::now() + crate::peer::PATIENCE;
        while lock(&seen).len() < given {
            ensure!(Instant::now() < until, "{} of {given} came", lock(&seen).len());
            if let Some(Some(packet)) = last.next_within(Duration::from_millis(200)).await? {
                take(&mut last, &packet, &seen).await;
            }
        }
        let told = all(tasks).await?;
        let overtaken = told.iter().filter(|code| **code == Some(0x8e)).count();
        let silent = told.iter().filter(|code| code.is_none()).count();
        ensure!(overtaken + silent == told.len(), "{told:?}");
        ensure!(
            overtaken > fights / 2,
            "only {overtaken} were told that they were taken over"
        );
        Ok(vec![format!(
            "{fights} connections for one client id at {rate:.0} a second: {overtaken} told 0x8e, {silent} closed before their CONNACK or \
             without a word, one open at the end, never more than one live; {given} messages sent to it, {given} arrived"
        )])
    };
    Attack::new("take-over storm on one client id", setup, long, run)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(peer: &mut Peer, packet: &wire::Packet, seen: &Mutex<BTreeSet<usize>>) {
    if packet.kind() != kind::PUBLISH {
        return;
    }
    if let Ok(number) = String::from_utf8_lossy(packet.payload()).parse() {
        lock(seen).insert(number);
    }
    peer.send_anyway(&wire::ack(kind::PUBACK, packet.pid())).await;
}

/// Acknowledges what comes until the end; what it was told there.
async fn hold(
    mut peer: Peer,
    seen: Arc<Mutex<BTreeSet<usize>>>,
    open: Arc<AtomicUsize>,
) -> Result<Option<u8>> {
    open.fetch_add(1, Ordering::AcqRel);
    let mut code = None;
    loop {
        match peer.next_within(Duration::from_secs(120)).await? {
            None => bail!("a connection was never taken over"),
            Some(None) => break,
            Some(Some(packet)) if packet.kind() == kind::DISCONNECT => code = Some(packet.code()),
            Some(Some(packet)) => take(&mut peer, &packet, &seen).await,
        }
    }
    open.fetch_sub(1, Ordering::AcqRel);
    Ok(code)
}
