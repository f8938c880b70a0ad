//! What a server holds for who does not take it, or waits for from who does not send it: in MQTT and in HTTP. What REST answers is not known here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::doors::is_closed;
use super::rest::{Answer, Rest, bearer};
use crate::attacks::doors::all;
use crate::attacks::floods::burst;
use crate::bed::Bed;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, kind};

/// Times that each is met where they wait side by side.
const ROUNDS: usize = 20;

/// A publish of the fewest bytes there are, where nobody may: it is refused at once, with one of the longest answers.
fn refused_publish(number: usize) -> Vec<u8> {
    wire::publish(false, "x", b"", 1, false, pid_of(number))
}

fn pid_of(number: usize) -> u16 {
    1 + (number % 60_000) as u16
}

/// Takes the refusals of so many, in order.
async fn take_refusals(peer: &mut Peer, count: usize) -> Result<()> {
    for number in 0..count {
        let puback = peer.expect(kind::PUBACK).await?;
        ensure!(
            puback.pid() == pid_of(number) && puback.code() >= 0x80,
            "{puback:02x?} where the refusal of {number} is due"
        );
    }
    Ok(())
}

/// Thousands of small packets in a read, by clients that take what is answered: each has a part of a turn.
pub(super) async fn small_packets(bed: Arc<Bed>) -> Result<String> {
    const COUNT: usize = 20_000;
    let mut tasks = JoinSet::new();
    for number in 0..bed.offenders.len() {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let mut peer = Peer::open(bed.mqtt(), number, &bed.hello(number, "crumbs")).await?;
            peer.send(&(0..COUNT).flat_map(refused_publish).collect::<Vec<u8>>())
                .await?;
            take_refusals(&mut peer, COUNT).await
        });
    }
    let clients = all(tasks).await?.len();
    Ok(format!(
        "{clients} clients with {COUNT} publishes of 8 bytes each at one go: all refused, in order"
    ))
}

/// Clients that take none of the answers to such: they are not read from some on, are not closed, and have all of their answers, in order, when they take them.
pub(super) async fn answers_not_taken(bed: Arc<Bed>) -> Result<String> {
    /// Of the 100,000 that a user may publish at once.
    const COUNT: usize = 90_000;
    const ROOM: f64 = (256 << 10) as f64;
    const KEPT_MOST: f64 = (5 << 18) as f64;
    let clients = bed.offenders.len();
    let slow = "godwit_mqtt_closed_total{reason=\"too_slow\"";
    let (kept_before, slow_before) = (kept(&bed).await?, bed.metric(slow).await?);
    let mut peers = Vec::new();
    for number in 0..clients {
        let mut peer = Peer::open(bed.mqtt(), number, &bed.hello(number, "deaf")).await?;
        peer.send(&(0..COUNT).flat_map(refused_publish).collect::<Vec<u8>>())
            .await?;
        peers.push(peer);
    }
    // Until nothing more is kept: they are not read.
    let (mut most, mut quiet) = (0.0, 0);
    let until = Instant::now() + 2 * PATIENCE;
    while quiet < 10 {
        ensure!(Instant::now() < until, "what is kept for them grows on: {most}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = kept(&bed).await? - kept_before;
        quiet = if now > most || now < ROOM { 0 } else { quiet + 1 };
        most = f64::max(most, now);
    }
    let each = most / clients as f64;
    ensure!(each >= ROOM, "{each} bytes kept for each: they are read on");
    ensure!(each < KEPT_MOST, "{each} bytes kept for each");
    for peer in &mut peers {
        take_refusals(peer, COUNT).await?;
        peer.ping().await?;
    }
    let closed = bed.metric(slow).await? - slow_before;
    ensure!(closed == 0.0, "{closed} closed");
    Ok(format!(
        "{clients} clients that took none of {COUNT} refusals: {:.0} KiB kept for each at most, not read meanwhile, none closed; all taken in order \
         afterwards",
        each / 1_024.0
    ))
}

async fn kept(bed: &Bed) -> Result<f64> {
    bed.metric("godwit_mqtt_kept_bytes").await
}

/// Bodies that do not come, or a byte at a time.
pub(super) async fn bodies_not_sent(bed: Arc<Bed>) -> Result<String> {
    let mut tasks = JoinSet::new();
    for number in 0..ROUNDS {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 500 + number).await?;
            rest.begin("POST /api/v1/groups", &bearer(&bed.offenders[0]), 1_000)
                .await?;
            let begun = Instant::now();
            if number % 2 == 0 {
                for _ in 0..18 {
                    rest.send(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            rest.answer().await?.must(400, "a body that does not come")?;
            Ok(begun.elapsed())
        });
    }
    times(&bed, "a body", 10, all(tasks).await?)
}

/// Headers that begin and do not end, behind a request that was answered.
pub(super) async fn headers_not_sent(bed: Arc<Bed>) -> Result<String> {
    let mut tasks = JoinSet::new();
    for number in 0..ROUNDS {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 520 + number).await?;
            rest.ask("GET /healthz", "", &Value::Null)
                .await?
                .must(200, "the first request")?;
            let begun = Instant::now();
            let half = if number % 2 == 0 { "GET /hea" } else { "" };
            rest.send(half.as_bytes()).await?;
            let is_closed = is_closed(rest.peer(), 2 * PATIENCE).await?;
            ensure!(is_closed, "open after {:?}", begun.elapsed());
            Ok(begun.elapsed())
        });
    }
    times(&bed, "a header", 30, all(tasks).await?)
}

/// How long those that were ended had, of which none may be ended early.
fn times(bed: &Bed, what: &str, seconds: u32, mut times: Vec<Duration>) -> Result<String> {
    times.sort_unstable();
    let (first, last) = (times.first().copied(), times.last().copied());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let due = f64::from(seconds);
    ensure!(
        first.as_secs_f64() > due - 0.5,
        "{what}: ended after {first:?}, {due} s are due"
    );
    bed.measure(
        format!("seconds beyond {seconds} of {what} that does not come"),
        last.as_secs_f64() - due,
        1.5,
    );
    Ok(format!(
        "{ROUNDS} of which half dribble and half are silent: ended after {:.1} to {:.1} s",
        first.as_secs_f64(),
        last.as_secs_f64()
    ))
}

/// Headers over their size.
pub(super) async fn large_headers(bed: Arc<Bed>) -> Result<String> {
    for number in 0..ROUNDS {
        let fill = |bytes: usize| format!("x-fill: {}\r\n", "f".repeat(bytes));
        let mut rest = Rest::open(&bed, 540 + number).await?;
        rest.ask("GET /healthz", &fill(31 << 10), &Value::Null)
            .await?
            .must(200, "31 KiB of headers")?;
        rest.begin("GET /healthz", &fill(40 << 10), 0).await?;
        rest.answer().await?.must(431, "40 KiB of headers")?;
    }
    Ok(format!("{ROUNDS} times 31 KiB of headers: answered; 40 KiB: 431"))
}

/// Large answers that nobody takes, beside one that is taken at once and one that is taken slowly, for longer than a connection may be silent.
pub(super) async fn answers_stalled(bed: Arc<Bed>) -> Result<String> {
    const CLIENTS: usize = 5;
    const MESSAGES: usize = 150;
    const BYTES: usize = 60 << 10;
    let mut sender = Peer::open(bed.mqtt(), 560, &bed.hello(1, "talks")).await?;
    let topic = "c/@mallory0/send/text".to_owned();
    let messages = (0..MESSAGES).map(|_| (topic.clone(), vec![b'm'; BYTES]));
    let codes = burst(&mut sender, messages, false).await?;
    ensure!(codes.iter().all(|code| *code == 0), "a message was refused");
    let token = bearer(&bed.offenders[0]);
    let mut rest = Rest::open(&bed, 561).await?;
    let with = json!({ "type": "one_on_one", "user_id": bed.offenders[1].id });
    let made = rest.ask("POST /api/v1/conversations", &token, &with).await?;
    let id = made.body["conversation_id"]
        .as_str()
        .context("no conversation")?
        .to_owned();
    let get = format!("GET /api/v1/conversations/{id}/messages?limit=200");
    let stalled = "godwit_http_stalled_total";
    let before = bed.metric(stalled).await?;
    let mut silent = Vec::new();
    for number in 0..CLIENTS {
        let mut rest = Rest::open_narrow(&bed, 562 + number, 4 << 10).await?;
        rest.begin(&get, &token, 0).await?;
        silent.push(rest);
    }
    let mut slow = Rest::open_narrow(&bed, 562 + CLIENTS, 64 << 10).await?;
    slow.begin(&get, &token, 0).await?;
    let slow = tokio::spawn(taken_slowly(slow));
    let begun = Instant::now();
    let whole = rest
        .ask(&get, &token, &Value::Null)
        .await?
        .must(200, "the answer")?;
    let length = whole.to_string().len();
    ensure!(length > MESSAGES * BYTES, "{length} bytes for who takes them");
    loop {
        let ended = bed.metric(stalled).await? - before;
        if ended >= CLIENTS as f64 {
            break;
        }
        let took = begun.elapsed();
        ensure!(
            took < 2 * PATIENCE,
            "{ended} of {CLIENTS} are closed after {took:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    ensure!(took > 29.5, "closed after {took:.1} s");
    let slow = slow.await??;
    let slow = slow.must(200, "the answer that was taken slowly")?;
    ensure!(slow == whole, "another answer for who takes it slowly");
    bed.measure(
        "seconds beyond 30 of an answer that is not taken",
        took - 30.0,
        2.5,
    );
    Ok(format!(
        "{CLIENTS} answers of {} KiB that nobody took: closed after {took:.1} s; who took it had all of it, who took it in 40 s too",
        (MESSAGES * BYTES) >> 10
    ))
}

/// 16 KiB a second for 40 s, and then all that is left.
async fn taken_slowly(mut rest: Rest) -> Result<Answer> {
    for _ in 0..40 {
        rest.take_some(16 << 10).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rest.answer().await
}
