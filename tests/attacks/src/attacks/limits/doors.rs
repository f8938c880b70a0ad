//! Limits of the doors: in one table, met on a server with few open files, so that a share of them is soon taken.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rsasl::config::SASLConfig;
use rsasl::mechname::Mechname;
use rsasl::prelude::SASLClient;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Case, cases, group};
use crate::attacks::doors::all;
use crate::attacks::websocket::{upgraded, whole};
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, Packet, kind};

const CASES: &[Case] = cases! {
    "a message of SCRAM", "MESSAGE_BYTES", "godwit_mqtt_refused_total{reason=\"credential\"" => scram_message;
    "a token in a renewal", "TOKEN_BYTES", "godwit_mqtt_closed_total{reason=\"protocol\"" => renewal_token;
    "renewals of a connection", "RENEWALS", "godwit_mqtt_reauthentications_too_many_total" => renewals;
    "time of a renewal", "RENEWAL_SECONDS", "godwit_mqtt_closed_total{reason=\"protocol\"" => renewal_time;
    "connections to HTTP of an address: this part of the room, at least 64", "PART",
        "godwit_http_refused_total{reason=\"address_connections\"" => http_of_an_address;
    "connections that are turned away and heard first, in the node", "TOLD",
        "godwit_mqtt_refused_total{reason=\"address_connections\"" => told_first;
};

/// Times that each is met where one takes milliseconds.
const ROUNDS: usize = 20;
/// Open files: an eighth of them is HTTP's, a quarter of that an address's.
const FILES: u32 = 4_096;
/// MQTT connections of an address.
const OF_ADDRESS: usize = 100;
/// The address that has them.
const FROM: usize = 4_711;

const SCRAM: &str = "SCRAM-SHA-256";
const TOKEN: &str = "TOKEN";

pub(super) fn attack(long: bool) -> Attack {
    let setup = Setup {
        offenders: 1,
        anonymous: true,
        files: Some(FILES),
        options: vec![("GODWIT_CONNECTIONS_PER_ADDRESS", OF_ADDRESS.to_string())],
        ..Setup::default()
    };
    group("limits of the doors", setup, long, &[CASES])
}

/// CONNECT of MQTT 5 with a method and its data; with SCRAM they name the user.
fn connect(client: &str, user: Option<&str>, method: &str, data: &[u8]) -> Vec<u8> {
    let mut properties = vec![0x15];
    properties.extend(wire::field(method));
    properties.push(0x16);
    properties.extend(wire::field(data));
    let mut body = wire::field("MQTT");
    body.extend([5, if user.is_some() { 0x82 } else { 2 }, 0, 0]);
    body.extend(wire::var(properties.len()));
    body.extend(properties);
    body.extend(wire::field(client));
    if let Some(user) = user {
        body.extend(wire::field(user));
    }
    wire::packet(0x10, &body)
}

/// AUTH.
fn auth(code: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let mut properties = vec![0x15];
    properties.extend(wire::field(method));
    properties.push(0x16);
    properties.extend(wire::field(data));
    let mut body = vec![code];
    body.extend(wire::var(properties.len()));
    body.extend(properties);
    wire::packet(0xf0, &body)
}

/// The data of an AUTH with this code.
fn auth_data(packet: &Packet, code: u8) -> Result<Vec<u8>> {
    ensure!(
        packet.kind() == kind::AUTH && packet.body.first() == Some(&code),
        "{packet:02x?} where AUTH {code:#04x} is due"
    );
    // The method comes first; lengths of properties up to 16,383 bytes.
    let begin = if packet.body.get(1).is_some_and(|byte| *byte >= 0x80) {
        3
    } else {
        2
    };
    let rest = packet.body.get(begin..).unwrap_or_default();
    let text = |at: usize| -> Option<(&[u8], usize)> {
        let length = usize::from(u16::from_be_bytes([*rest.get(at + 1)?, *rest.get(at + 2)?]));
        Some((rest.get(at + 3..at + 3 + length)?, at + 3 + length))
    };
    let (_, next) = text(0).context("no method")?;
    let (data, _) = text(next).context("no data")?;
    Ok(data.to_vec())
}

async fn scram_message(bed: Arc<Bed>) -> Result<String> {
    for round in 0..ROUNDS {
        for (bytes, wanted) in [(1_024, kind::AUTH), (1_025, kind::CONNACK)] {
            let mut first = format!("n,,n={}/none,r=", bed.offenders[0].name);
            first.push_str(&"r".repeat(bytes - first.len()));
            let mut peer = Peer::bare(bed.mqtt(), round).await?;
            peer.send(&connect("scram", None, SCRAM, first.as_bytes()))
                .await?;
            let packet = peer.next().await?.context("closed")?;
            ensure!(packet.kind() == wanted, "{packet:02x?} for {bytes} bytes");
            if wanted == kind::CONNACK {
                ensure!(packet.code() == 0x86, "CONNACK {:#04x}", packet.code());
                continue;
            }
            // A proof that is too long.
            peer.send(&auth(0x18, SCRAM, &vec![b'p'; bytes + 1])).await?;
            let packet = peer.next().await?.context("closed")?;
            ensure!(
                packet.kind() == kind::CONNACK && packet.code() == 0x86,
                "{packet:02x?} for a proof of 1,025 bytes"
            );
        }
    }
    Ok(format!(
        "{ROUNDS} times a first message of 1,024 bytes: challenged; of 1,025, and a proof of as many: CONNACK 0x86"
    ))
}

/// Connected by its token.
async fn by_token(bed: &Bed, from: usize, client: &str) -> Result<Peer> {
    let user = &bed.offenders[0];
    let mut peer = Peer::bare(bed.mqtt(), from).await?;
    let bytes = connect(client, Some(&user.name), TOKEN, user.token.as_bytes());
    peer.send(&bytes).await?;
    let packet = peer.next().await?.context("closed")?;
    ensure!(packet.is_welcome(), "{packet:02x?}");
    Ok(peer)
}

async fn renewal_token(bed: Arc<Bed>) -> Result<String> {
    for round in 0..ROUNDS {
        let mut peer = by_token(&bed, round, "renews").await?;
        // The right one, and more.
        let mut token = bed.offenders[0].token.clone().into_bytes();
        peer.send(&auth(0x19, TOKEN, &token)).await?;
        let packet = peer.next().await?.context("closed")?;
        ensure!(
            packet.kind() == kind::AUTH && packet.body.first() == Some(&0),
            "{packet:02x?} for the token"
        );
        token.resize(1_025, b' ');
        peer.send(&auth(0x19, TOKEN, &token)).await?;
        let code = peer.ended(PATIENCE).await?;
        ensure!(code == Some(0x87), "{code:02x?} for a token of 1,025 bytes");
    }
    Ok(format!(
        "{ROUNDS} times a token of 1,025 bytes in a renewal: DISCONNECT 0x87; the right one before: renewed"
    ))
}

async fn renewals(bed: Arc<Bed>) -> Result<String> {
    let mut most = 0;
    for round in 0..ROUNDS {
        let mut peer = by_token(&bed, round, "restless").await?;
        let renewal = auth(0x19, TOKEN, bed.offenders[0].token.as_bytes());
        let begun = Instant::now();
        let mut renewed = 0;
        loop {
            peer.send_anyway(&renewal).await;
            let packet = peer.next().await?.context("closed without a word")?;
            if packet.kind() == kind::DISCONNECT {
                ensure!(packet.code() == 0x96, "DISCONNECT {:#04x}", packet.code());
                break;
            }
            renewed += 1;
            let may = 5.0 + begun.elapsed().as_secs_f64() + 1.0;
            ensure!(f64::from(renewed) <= may, "renewed {renewed} times");
        }
        ensure!(renewed >= 4, "renewed {renewed} times only");
        most = most.max(renewed);
    }
    Ok(format!(
        "{ROUNDS} times renewed again and again: DISCONNECT 0x96 behind {most} at most"
    ))
}

/// Renewals by SCRAM that are begun and not proved.
async fn renewal_time(bed: Arc<Bed>) -> Result<String> {
    let user = bed.offenders[0].clone();
    let api = bed.api.clone();
    let made = tokio::task::spawn_blocking(move || -> Result<_> {
        let login = json!({ "username": user.name, "password": format!("{} horse staple", user.name) });
        let (_, session) = api.post_patiently("/auth/login", None, &login)?;
        let body = json!({ "name": "prover" });
        let (_, made) = api.post_patiently("/auth/device-tokens", session["access_token"].as_str(), &body)?;
        let field = |name: &str| made[name].as_str().map(str::to_owned).context("no token");
        Ok((format!("{}/{}", user.name, field("id")?), field("token")?))
    });
    let (name, token) = made.await??;
    let mut tasks = JoinSet::new();
    for round in 0..ROUNDS {
        let (bed, name, token) = (Arc::clone(&bed), name.clone(), token.clone());
        tasks.spawn(async move {
            let mut peer = Peer::bare(bed.mqtt(), round).await?;
            let client = format!("proves{round}");
            let (first, proof) = scram(&name, &token, None)?;
            ensure!(proof.is_empty(), "proved before it was asked");
            peer.send(&connect(&client, None, SCRAM, &first.said)).await?;
            let challenge = auth_data(&peer.next().await?.context("closed")?, 0x18)?;
            let (_, proof) = scram(&name, &token, Some((first, challenge)))?;
            peer.send(&auth(0x18, SCRAM, &proof)).await?;
            let packet = peer.next().await?.context("closed")?;
            ensure!(packet.is_welcome(), "{packet:02x?}");
            let (first, _) = scram(&name, &token, None)?;
            peer.send(&auth(0x19, SCRAM, &first.said)).await?;
            auth_data(&peer.next().await?.context("closed")?, 0x18)?;
            let begun = Instant::now();
            // It is served meanwhile.
            peer.ping().await?;
            let code = peer.ended(PATIENCE).await?;
            ensure!(code == Some(0x87), "{code:02x?} where 0x87 is due");
            Ok(begun.elapsed())
        });
    }
    let mut times = all(tasks).await?;
    times.sort_unstable();
    let (first, last) = (times.first().copied(), times.last().copied());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    ensure!(first >= Duration::from_millis(4_500), "ended after {first:?}");
    bed.measure(
        "seconds beyond 5 of a renewal that is not proved",
        last.as_secs_f64() - 5.0,
        1.5,
    );
    Ok(format!(
        "{ROUNDS} renewals begun and not proved: DISCONNECT 0x87 after {:.1} to {:.1} s",
        first.as_secs_f64(),
        last.as_secs_f64()
    ))
}

/// The client's side of an exchange, and what it said first.
struct Begun {
    session: rsasl::prelude::Session,
    said: Vec<u8>,
}

/// The client's first message, or the proof that answers a challenge. The library does the cryptography.
fn scram(name: &str, token: &str, challenged: Option<(Begun, Vec<u8>)>) -> Result<(Begun, Vec<u8>)> {
    let mut said = Cursor::new(Vec::new());
    if let Some((mut begun, challenge)) = challenged {
        begun.session.step(Some(&challenge), &mut said)?;
        return Ok((begun, said.into_inner()));
    }
    let method = Mechname::parse(SCRAM.as_bytes())?;
    let config = SASLConfig::with_credentials(None, name.into(), token.into())?;
    let mut session = SASLClient::new(config).start_suggested(&[method])?;
    session.step(None, &mut said)?;
    let said = said.into_inner();
    Ok((Begun { session, said }, Vec::new()))
}

/// Whether the other side closes within a moment.
pub(super) async fn is_closed(peer: &mut Peer, within: Duration) -> Result<bool> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match peer.next_within(left).await? {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some(_)) => {}
        }
    }
}

async fn http_of_an_address(bed: Arc<Bed>) -> Result<String> {
    let most = FILES as usize / 8 / 4;
    let mut held = Vec::new();
    for _ in 0..most {
        held.push(Peer::bare(bed.http(), FROM).await?);
    }
    // They must be in before the first one too many.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 0..ROUNDS {
        if let Ok(mut peer) = Peer::bare(bed.http(), FROM).await {
            let closed = is_closed(&mut peer, PATIENCE).await?;
            ensure!(closed, "one too many, {number}, is open");
        }
    }
    let mut other = Peer::bare(bed.http(), FROM + 1).await?;
    other
        .send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let answer = other.raw(PATIENCE).await;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{:?} from another address",
        String::from_utf8_lossy(&answer)
    );
    let first = held.first_mut().context("none is held")?;
    first
        .send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let answer = first.raw(PATIENCE).await;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "one that was let in is not answered"
    );
    Ok(format!(
        "{most} connections of one address let in, {ROUNDS} more closed; another address is served"
    ))
}

/// WebSockets of an address that has its connections: some are kept until they say who they are, and are told.
async fn told_first(bed: Arc<Bed>) -> Result<String> {
    const TOLD: usize = 64;
    // Not the address whose HTTP connections are ending.
    let from = FROM + 2;
    let mut kept = Vec::new();
    for number in 0..OF_ADDRESS {
        let hello = Hello {
            client: format!("fills{number}"),
            ..Hello::default()
        };
        kept.push(Peer::open(bed.mqtt(), from, &hello).await?);
    }
    let (mut silent, mut closed) = (Vec::new(), 0);
    for _ in 0..TOLD + ROUNDS {
        match upgraded(&bed, from).await {
            Ok((peer, _)) => silent.push(peer),
            Err(_) => closed += 1,
        }
    }
    let mut open = Vec::new();
    for mut peer in silent {
        match is_closed(&mut peer, Duration::from_millis(5)).await? {
            true => closed += 1,
            false => open.push(peer),
        }
    }
    ensure!(
        open.len() == TOLD && closed == ROUNDS,
        "{} open, {closed} closed at once",
        open.len()
    );
    for (number, mut peer) in open.into_iter().enumerate() {
        let hello = Hello {
            client: format!("late{number}"),
            ..Hello::default()
        };
        peer.send_anyway(&whole(&wire::connect(&hello))).await;
        let answer = peer.raw(PATIENCE).await;
        // Frame header of two bytes, then the CONNACK.
        ensure!(
            answer.get(2) == Some(&0x20) && answer.get(5) == Some(&0x97),
            "{answer:02x?} where CONNACK 0x97 is due"
        );
    }
    Ok(format!(
        "of {} WebSockets of an address that has its {OF_ADDRESS} connections {TOLD} were kept and told in CONNACK (0x97), {closed} closed at \
         once",
        TOLD + ROUNDS
    ))
}
