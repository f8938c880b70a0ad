//! Who takes more than a share: connections and CONNECTs of one address, publishes and bytes of one user, user properties of
//! one packet. The limits are set low, so that a test reaches them; the bystanders come from other addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::floods::{burst, tally};
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello};

/// The attacker's one address.
const FROM: usize = 4_711;

/// What became of a connection: let in, refused with a code, or closed.
async fn knock(bed: &Bed, from: usize, hello: &Hello) -> Result<(Option<Peer>, Option<u8>)> {
    let Ok(mut peer) = Peer::bare(bed.mqtt(), from).await else {
        return Ok((None, None));
    };
    match peer.greet(hello).await? {
        Some(packet) if packet.is_welcome() => Ok((Some(peer), None)),
        Some(packet) => Ok((None, Some(packet.code()))),
        None => Ok((None, None)),
    }
}

fn anonymous(name: &'static str, value: &str) -> Setup {
    Setup {
        anonymous: true,
        offenders: 1,
        options: vec![(name, value.to_owned())],
        ..Setup::default()
    }
}

/// More connections of one address than it may have.
pub fn connections_of_an_address(long: bool) -> Attack {
    const MOST: usize = 100;
    let more = if long { 2_000 } else { 100 };
    let run = move |bed: Arc<Bed>| async move {
        let (mut kept, mut told, mut closed) = (Vec::new(), 0, 0);
        for number in 0..MOST + more {
            let hello = Hello {
                client: format!("one{number}"),
                old: number % 2 == 1,
                ..Hello::default()
            };
            match knock(&bed, FROM, &hello).await? {
                (Some(peer), _) => kept.push(peer),
                (None, None) => closed += 1,
                (None, Some(code)) => {
                    let wanted = if hello.old { 3 } else { 0x97 };
                    ensure!(code == wanted, "CONNACK {code:#04x}");
                    told += 1;
                }
            }
        }
        ensure!(kept.len() == MOST, "{} let in", kept.len());
        let counted = bed
            .metric("godwit_mqtt_refused_total{reason=\"address_connections\"")
            .await?;
        ensure!(counted >= more as f64, "{counted} counted of {more}");
        let hello = Hello {
            client: "neighbour".into(),
            ..Hello::default()
        };
        Peer::open(bed.mqtt(), FROM + 1, &hello)
            .await
            .context("another address")?;
        drop(kept);
        tokio::time::sleep(Duration::from_millis(200)).await;
        Peer::open(bed.mqtt(), FROM, &hello)
            .await
            .context("when all have left")?;
        Ok(vec![format!(
            "{MOST} connections of one address let in, {told} refused (0x97, in 3.1.1 3), {closed} closed at once; counted; another \
             address is let in, and this one when its connections have ended"
        )])
    };
    let setup = anonymous("GODWIT_CONNECTIONS_PER_ADDRESS", "100");
    Attack::new("connections of one address", setup, long, run)
}

/// Connections of one address that come and go faster than they may.
pub fn connects_of_an_address(long: bool) -> Attack {
    // Ten seconds' worth at once; who comes and goes of the bystanders makes 16 a second.
    const PER_SECOND: f64 = 30.0;
    let time = Duration::from_secs(if long { 30 } else { 2 });
    let run = move |bed: Arc<Bed>| async move {
        let (begun, mut let_in, mut told, mut closed) = (Instant::now(), 0_u32, 0_u32, 0_u32);
        while begun.elapsed() < time {
            let hello = Hello {
                client: "again".into(),
                ..Hello::default()
            };
            match knock(&bed, FROM, &hello).await? {
                (Some(mut peer), _) => {
                    let_in += 1;
                    peer.send_anyway(&wire::DISCONNECT).await;
                }
                (None, Some(0x9f)) => told += 1,
                (None, None) => closed += 1,
                (None, Some(code)) => bail!("CONNACK {code:#04x}"),
            }
        }
        let most = PER_SECOND * (10.0 + begun.elapsed().as_secs_f64() + 1.0);
        ensure!(f64::from(let_in) <= most, "{let_in} let in where {most:.0} may");
        ensure!(let_in >= 250, "{let_in} let in where 300 may at once");
        let refused = f64::from(told + closed);
        ensure!(refused > 0.0, "nobody was refused: the attack is too slow");
        let counted = bed
            .metric("godwit_mqtt_refused_total{reason=\"address_rate\"")
            .await?;
        ensure!(counted >= refused, "{counted} counted of {refused}");
        Ok(vec![format!(
            "{let_in} connections of one address let in within {:.1} s (30 a second, 300 at once), {told} refused (0x9f), {closed} closed at \
             once; counted",
            begun.elapsed().as_secs_f64()
        )])
    };
    let setup = anonymous("GODWIT_CONNECTS_PER_ADDRESS", "30");
    Attack::new("CONNECTs of one address", setup, long, run)
}

/// Publishes as fast as they go, of more than the user may: it is slowed down, nothing is lost.
pub fn publishes_of_a_user(long: bool) -> Attack {
    let count = if long { 30_000 } else { 7_000 };
    let setup = anonymous("GODWIT_PUBLISHES_PER_SECOND", "1000");
    // Five seconds' worth at once, then 1,000 a second.
    let due = Duration::from_secs((count - 5_000) / 1_000);
    let run = move |bed: Arc<Bed>| async move {
        let publishes =
            (0..count).map(|number| ("iot/mallory0/r".to_owned(), number.to_string().into_bytes()));
        slowed(&bed, publishes.collect(), due, "publishes_per_second").await
    };
    Attack::new("publishes of one user", setup, long, run).waits()
}

/// The same with bytes.
pub fn bytes_of_a_user(long: bool) -> Attack {
    let count: u64 = if long { 600 } else { 140 };
    let setup = anonymous("GODWIT_PUBLISH_BYTES_PER_SECOND", "1000000");
    // 50,000 bytes each: five seconds' worth at once, then a million a second.
    let due = Duration::from_millis((count * 50_000 - 5_000_000) / 1_000);
    let run = move |bed: Arc<Bed>| async move {
        let publishes = (0..count).map(|_| ("iot/mallory0/r".to_owned(), vec![b'r'; 50_000]));
        slowed(&bed, publishes.collect(), due, "publish_bytes_per_second").await
    };
    Attack::new("bytes of one user", setup, long, run).waits()
}

async fn slowed(
    bed: &Bed,
    publishes: Vec<(String, Vec<u8>)>,
    due: Duration,
    limit: &str,
) -> Result<Vec<String>> {
    let count = publishes.len();
    let mut peer = Peer::open(bed.mqtt(), FROM, &bed.hello(0, "fast")).await?;
    let begun = Instant::now();
    let codes = burst(&mut peer, publishes, false).await?;
    let took = begun.elapsed();
    ensure!(
        codes.iter().all(|code| *code < 0x80),
        "{} refused",
        codes.len() - tally(&codes, 0)
    );
    ensure!(
        took + Duration::from_millis(300) >= due,
        "{count} publishes in {took:?}, which may take {due:?}"
    );
    let met = bed
        .metric(&format!("godwit_mqtt_limits_met_total{{limit=\"{limit}\""))
        .await?;
    ensure!(met > 0.0, "the limit was not counted");
    Ok(vec![format!(
        "{count} publishes took {:.2} s (at {limit}: {:.2} s), all acknowledged; not read {met} times meanwhile, counted",
        took.as_secs_f64(),
        due.as_secs_f64()
    )])
}

/// One user property more than a packet may have.
pub fn properties(long: bool) -> Attack {
    let rounds = if long { 2_000 } else { 100 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        for round in 0..rounds {
            let mut peer = Peer::open(bed.mqtt(), round, &bed.hello(0, "properties")).await?;
            peer.send(&with_properties(100)).await?;
            peer.ping().await.context("100 user properties")?;
            peer.send_anyway(&with_properties(101)).await;
            let code = peer.ended(PATIENCE).await?;
            ensure!(code == Some(0x97), "{code:02x?} for 101 user properties");
        }
        Ok(vec![format!(
            "{rounds} times 100 user properties: taken; 101: DISCONNECT 0x97"
        )])
    };
    Attack::new("user properties", setup, long, run)
}

fn with_properties(count: usize) -> Vec<u8> {
    let properties = [0x26, 0, 1, b'a', 0, 1, b'b'].repeat(count);
    let mut body = wire::field("iot/mallory0/p");
    body.extend(wire::var(properties.len()));
    body.extend(properties);
    wire::packet(0x30, &body)
}
