//! Half-open connections: the network of the peers is cut, so that neither a FIN nor an acknowledgement of theirs ever comes. Some
//! are found by their keep-alive, some are back from elsewhere before that, and to some much is being sent meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::doors::all;
use super::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::network::Network;
use crate::peer::{PATIENCE, Peer};
use crate::wire::{self, Hello, kind};

/// How late a vanished peer may be found, and how late after that what is told to it last may be given up.
const LATE: Duration = Duration::from_secs(1);
/// A connection that was told its end is closed after this, whatever its client takes.
const LINGERS: Duration = Duration::from_secs(2);
/// Peers to which much is being sent, and how much.
const HEAVY: usize = 4;
const MUCH: usize = 40;
const BYTES: usize = 100_000;

/// Who comes back at a time.
const AT_ONCE: usize = 250;

/// What a peer is sent: before the others are found, and after.
const FIRST: u8 = 10;
const SECOND: u8 = 10;

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Found by its keep-alive.
    Found,
    /// The same, with much unsent.
    Heavy,
    /// Back from another address before that.
    Back,
}

fn fate(number: usize) -> Fate {
    match number {
        ..HEAVY => Fate::Heavy,
        number if number % 4 == 3 => Fate::Back,
        _ => Fate::Found,
    }
}

fn hello(number: usize, keep_alive: u16) -> Hello {
    Hello {
        old: number % 5 == 4,
        client: format!("gone{number}"),
        keep_alive,
        expiry: 3_600,
        ..Hello::default()
    }
}

/// All connected and subscribed over the cable, and heard of just now.
async fn arrive(bed: &Arc<Bed>, network: &Network, count: usize, keep_alive: u16) -> Result<Vec<Peer>> {
    let mut tasks = JoinSet::new();
    for (number, stream) in network.connect(bed.mqtt(), count).await?.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut peer = Peer::open_over(stream, &hello(number, keep_alive)).await?;
            let of = if fate(number) == Fate::Heavy {
                "much"
            } else {
                "all"
            };
            let codes = peer.subscribe(&[format!("gone/{of}")], 1).await?;
            ensure!(codes == [1], "SUBACK {codes:02x?}");
            Ok(peer)
        });
    }
    let peers = all(tasks).await?;
    let mut tasks = JoinSet::new();
    for mut peer in peers {
        tasks.spawn(async move { peer.ping().await.map(|()| peer) });
    }
    all(tasks).await
}

/// Back over loopback: the session is there.
async fn back(bed: &Bed, number: usize) -> Result<Peer> {
    let (peer, connack) = Peer::ask(bed.mqtt(), number, &hello(number, 0)).await?;
    let connack = connack.context("closed in place of a CONNACK")?;
    ensure!(connack.is_welcome(), "CONNACK {:#04x}", connack.code());
    ensure!(connack.session_present(), "the session of gone{number} is lost");
    Ok(peer)
}

/// Takes and acknowledges what is owed, from one number to another, in order.
async fn take(peer: &mut Peer, from: u8, to: u8) -> Result<()> {
    for number in from..to {
        let packet = peer.expect(kind::PUBLISH).await?;
        ensure!(
            packet.payload().first() == Some(&number),
            "{:?} in place of {number}",
            packet.payload().first()
        );
        peer.send(&wire::ack(kind::PUBACK, packet.pid())).await?;
    }
    Ok(())
}

async fn publish(publisher: &mut Peer, numbers: std::ops::Range<u8>) -> Result<()> {
    for number in numbers {
        let code = publisher.publish("gone/all", &[number], false).await?;
        ensure!(code < 0x80, "PUBACK {code:#04x}");
    }
    Ok(())
}

/// Waits for something that is due so long after `since`; how long after it was, `None`: not in time.
async fn until<F, R>(since: Instant, due: Duration, done: F) -> Result<Option<Duration>>
where
    F: Fn() -> R,
    R: Future<Output = Result<bool>>,
{
    while since.elapsed() < due + PATIENCE {
        if done().await? {
            return Ok(Some(since.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(None)
}

/// See the module.
pub fn vanished(long: bool) -> Attack {
    let count: usize = if long { 10_000 } else { 80 };
    // Long enough for all of them to arrive.
    let keep_alive: u16 = if long { 30 } else { 3 };
    let setup = Setup {
        anonymous: true,
        everywhere: true,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let silence = Duration::from_millis(u64::from(keep_alive) * 1_500);
        let network = Network::start()?;
        let kept_before = bed.metric("godwit_mqtt_kept_bytes").await?;
        let peers = arrive(&bed, &network, count, keep_alive).await?;
        network.cut()?;
        // The last that was heard of any of them was before.
        let cut = Instant::now();
        let mut publisher = Peer::open(bed.mqtt(), 1, &bystander("publisher")).await?;
        publish(&mut publisher, 0..FIRST).await?;
        let much = (0..MUCH).map(|number| ("gone/much".to_owned(), vec![number as u8; BYTES]));
        let codes = burst(&mut publisher, much, false).await?;
        ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");

        // Back from elsewhere while the old connection looks alive.
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in (0..count).filter(|number| fate(*number) == Fate::Back) {
            let (bed, room) = (Arc::clone(&bed), Arc::clone(&room));
            tasks.spawn(async move {
                let _room = room.acquire().await?;
                let mut peer = back(&bed, number).await?;
                take(&mut peer, 0, FIRST).await?;
                peer.ping().await?;
                peer.send_anyway(&wire::DISCONNECT).await;
                Ok(())
            });
        }
        let returned = all(tasks).await?.len();
        let (_, unsent) = network.left()?;
        let kept = bed.metric("godwit_mqtt_kept_bytes").await? - kept_before;
        ensure!(
            unsent > 0 && kept > 0.0,
            "nothing is unsent ({unsent} bytes, {kept} kept): nothing is tested"
        );

        let due = (count - returned) as f64;
        let found = until(cut, silence, || async {
            let found = bed.metric("godwit_mqtt_keep_alive_timeouts_total").await?;
            // What came last came at most this long before the cut.
            let early =
                found > 0.0 && cut.elapsed() + Duration::from_secs(if long { 20 } else { 1 }) < silence;
            ensure!(!early, "found after {:?} already", cut.elapsed());
            Ok(found >= due)
        });
        let found = found.await?.context("not all were found by their keep-alive")?;
        bed.measure(
            "the last one found so many seconds after 1.5 keep-alives",
            found.saturating_sub(silence).as_secs_f64(),
            LATE.as_secs_f64(),
        );
        // What is left then is the bystanders, who comes and goes among them, and the publisher.
        let freed = until(cut, silence + LINGERS, || async {
            let kept = bed.metric("godwit_mqtt_kept_bytes").await? - kept_before;
            let connections = bed.metric("godwit_mqtt_connections").await?;
            // Those that were taken over are the operating system's for some time more, as any that is closed.
            Ok(kept <= 65_536.0 && connections <= 6.0 && network.left()?.0 <= returned)
        });
        let freed = freed.await?.context("the connections' memory is not freed")?;
        bed.measure(
            "their connections and what was unsent gone, the operating system's too, so many seconds after that and 2 s",
            freed.saturating_sub(silence + LINGERS).as_secs_f64(),
            LATE.as_secs_f64(),
        );

        publish(&mut publisher, FIRST..FIRST + SECOND).await?;
        // Not all at once: a storm is another attack.
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (bed, room) = (Arc::clone(&bed), Arc::clone(&room));
            tasks.spawn(async move {
                let _room = room.acquire().await?;
                let mut peer = back(&bed, number).await?;
                match fate(number) {
                    Fate::Heavy => take(&mut peer, 0, MUCH as u8).await,
                    Fate::Found => take(&mut peer, 0, FIRST + SECOND).await,
                    Fate::Back => take(&mut peer, FIRST, FIRST + SECOND).await,
                }
            });
        }
        all(tasks).await?;
        drop(peers);
        Ok(vec![
            format!(
                "{count} clients with a keep-alive of {keep_alive} s whose packets were all dropped from some moment on: {due} found after \
                 {:.1} s, {unsent} bytes unsent in sockets and {kept} kept for {HEAVY} of them",
                found.as_secs_f64()
            ),
            format!(
                "{returned} were back over another network before that, with all that was owed; the others got everything of meanwhile \
                 when they were, {MUCH} messages of {BYTES} bytes among it, in order"
            ),
        ])
    };
    Attack::new("half-open: peers vanish", setup, long, run)
        .waits()
        .memory(
            (96 << 20) + count as u64 * (24 << 10),
            "24 KiB a client, 1.25 MiB for each that much is sent to, 32 MiB of the store's overlay, and 59 MiB",
        )
}

fn bystander(client: &str) -> Hello {
    Hello {
        client: client.into(),
        ..Hello::default()
    }
}
