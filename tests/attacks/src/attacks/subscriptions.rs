//! Attacks by subscriptions: filters that match along many paths, `#` by thousands, more of them than anybody needs, and
//! filters for what belongs to others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use super::doors::all;
use super::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::{self, Hello, kind};

/// Subscriptions of a session (docs/limits.md).
const OF_SESSION: usize = 1_000;

/// Filters of 64 levels of which every level is `+` or the topic's own: a publish matches along all paths at once.
pub fn deep_wildcards(long: bool) -> Attack {
    let clients = if long { 10 } else { 2 };
    let publishes = if long { 400 } else { 10 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move {
                let hello = bed.hello(0, &format!("deep{number}"));
                let mut peer = Peer::open(bed.mqtt(), number, &hello).await?;
                let mut codes = Vec::new();
                // One hundred more than a session may have.
                for part in 0..11 {
                    let filters: Vec<String> = (0..100).map(|of| deep(part * 100 + of)).collect();
                    codes.extend(peer.subscribe(&filters, 0).await?);
                }
                let granted = codes.iter().filter(|code| **code == 0).count();
                let refused = codes.iter().filter(|code| **code == 0x97).count();
                ensure!(
                    (granted, refused) == (OF_SESSION, 100),
                    "{granted} granted, {refused} over the quota"
                );
                Ok(peer)
            });
        }
        let peers = all(tasks).await?;
        let topic = format!("iot/mallory0/{}", vec!["a"; 62].join("/"));
        let mut publisher = Peer::open(bed.mqtt(), 999, &bed.hello(0, "publisher")).await?;
        let quiet = Duration::from_millis(if long { 5_000 } else { 500 });
        let readers: Vec<_> = peers
            .into_iter()
            .map(|peer| tokio::spawn(count(peer, quiet)))
            .collect();
        let begun = Instant::now();
        if long {
            // As many under way as may be.
            let all = (0..publishes).map(|_| (topic.clone(), b"x".to_vec()));
            let codes = burst(&mut publisher, all, false).await?;
            ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
        } else {
            for _ in 0..publishes {
                let code = publisher.publish(&topic, b"x", false).await?;
                ensure!(code < 0x80, "PUBACK {code:#04x}");
            }
        }
        let took = begun.elapsed();
        let mut got = 0;
        for reader in readers {
            got += reader.await?;
        }
        Ok(vec![format!(
            "{clients} sessions with {OF_SESSION} filters of 64 levels each, the 1,001st and on refused (0x97); {publishes} publishes that \
             match them all: {:.1} ms each, {got} deliveries to the offender",
            took.as_secs_f64() * 1e3 / f64::from(publishes)
        )])
    };
    Attack::new("SUBSCRIBE flood with deep wildcards", setup, long, run).memory(
        (64 << 20) + clients as u64 * (4 << 20),
        "4 MiB for a session's 1,000 filters of 140 bytes and its buffers, and 64 MiB",
    )
}

/// The filter whose `+` stand where this number has its bits, behind the first two levels.
fn deep(number: usize) -> String {
    let levels: Vec<&str> = (0..62)
        .map(|bit| {
            if bit < 11 && number >> bit & 1 == 1 {
                "+"
            } else {
                "a"
            }
        })
        .collect();
    format!("iot/mallory0/{}", levels.join("/"))
}

/// Counts PUBLISHes until none came for a while.
async fn count(mut peer: Peer, quiet: Duration) -> usize {
    let mut got = 0;
    while let Ok(Some(Some(packet))) = peer.next_within(quiet).await {
        got += usize::from(packet.kind() == kind::PUBLISH);
    }
    got
}

/// Thousands who subscribe to everything, where the rules allow it; where they do not, all are refused.
pub fn everything(long: bool) -> Attack {
    let count: usize = if long { 5_000 } else { 600 };
    let pace = Duration::from_millis(if long { 500 } else { 75 });
    let setup = Setup {
        anonymous: true,
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move {
                let hello = Hello {
                    client: format!("all{number}"),
                    ..Hello::default()
                };
                let mut peer = Peer::open(bed.mqtt(), number, &hello).await?;
                let codes = peer.subscribe(&["#"], 0).await?;
                ensure!(codes == [0], "SUBACK {codes:02x?} for `#` of an anonymous client");
                Ok(peer)
            });
        }
        let peers = all(tasks).await?;
        let mut publisher = Peer::open(bed.mqtt(), 999, &bed.hello(0, "publisher")).await?;
        let readers: Vec<_> = peers
            .into_iter()
            .map(|peer| tokio::spawn(counted(peer)))
            .collect();
        for _ in 0..20 {
            publisher.publish("iot/mallory0/x", b"for all", false).await?;
            tokio::time::sleep(pace).await;
        }
        let (mut got, mut foreign) = (0, 0);
        for reader in readers {
            let (own, others) = reader.await??;
            got += own;
            foreign += others;
        }
        ensure!(got == 20 * count, "{got} of {} deliveries", 20 * count);
        // A user whose rules do not allow it.
        let codes = publisher.subscribe(&["#", "+/#", "iot/+/x"], 0).await?;
        ensure!(codes == [0x87; 3], "SUBACK {codes:02x?} for a user");
        Ok(vec![format!(
            "{count} anonymous clients with `#` got all of {got} deliveries of 20 publishes, and {foreign} of the bystanders' topic, none of \
             their chat; a user's `#` is refused (0x87)"
        )])
    };
    // What the bystanders publish goes to every `#` too.
    let attack = Attack::new("`#` by thousands", setup, long, run).topic_every(Duration::from_millis(500));
    attack.memory(
        (64 << 20) + count as u64 * (24 << 10),
        "24 KiB a client with its buffer, and 64 MiB",
    )
}

/// (what the attack published, what others did on ordinary topics); an error for what no `#` may match.
async fn counted(mut peer: Peer) -> Result<(usize, usize)> {
    let (mut own, mut others) = (0, 0);
    while let Some(Some(packet)) = peer.next_within(Duration::from_millis(2_500)).await? {
        let topic = packet.topic();
        match topic.split('/').next() {
            Some("iot") if topic == "iot/mallory0/x" => own += 1,
            Some("iot") => others += 1,
            _ => bail!("`#` matched {topic}"),
        }
        if own == 20 {
            break;
        }
    }
    Ok((own, others))
}

/// A million subscriptions by one client, over and over.
pub fn million(long: bool) -> Attack {
    let rounds = if long { 1_000 } else { 60 };
    let setup = Setup {
        offenders: 1,
        acl: "allow both users plaza/#",
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(0, "million")).await?;
        let (mut granted, mut refused) = (0, 0);
        for round in 0..rounds {
            let filters: Vec<String> = (0..OF_SESSION)
                .map(|of| format!("plaza/{round}/{of}/#"))
                .collect();
            for code in peer.subscribe(&filters, 0).await? {
                match code {
                    0 => granted += 1,
                    0x97 => refused += 1,
                    other => bail!("{other:#04x} for a filter"),
                }
            }
        }
        ensure!(granted == OF_SESSION, "{granted} granted");
        let mut told = vec![format!(
            "{} filters asked for, {granted} granted, {refused} refused (0x97)",
            granted + refused
        )];
        // With all of its sessions, and wildcards that every worker must keep.
        let (mut wild, mut over, mut sessions) = (0, 0, 0);
        let mut kept = Vec::new();
        for number in 0..70 {
            let hello = Hello {
                expiry: 60,
                ..bed.hello(0, &format!("wild{number}"))
            };
            let (mut peer, connack) = Peer::ask(bed.mqtt(), number, &hello).await?;
            match connack.context("closed")?.code() {
                0 => {}
                0x97 => {
                    sessions += 1;
                    continue;
                }
                other => bail!("CONNACK {other:#04x}"),
            }
            if number < 8 {
                let filters: Vec<String> = (0..OF_SESSION)
                    .map(|of| format!("plaza/+/{number}/{of}"))
                    .collect();
                for code in peer.subscribe(&filters, 0).await? {
                    match code {
                        0 => wild += 1,
                        0x97 => over += 1,
                        other => bail!("{other:#04x} for a wildcard"),
                    }
                }
            }
            kept.push(peer);
        }
        ensure!(
            wild == 5_000,
            "{wild} filters with a wildcard in the first two levels granted"
        );
        // The first client is the 64th session.
        ensure!(sessions == 7, "{sessions} sessions refused of 70 beside one");
        told.push(format!(
            "{wild} of {} filters with a wildcard in the first two levels granted to one user, {over} refused (0x97); its 65th session \
             and on refused (CONNACK 0x97)",
            wild + over
        ));
        Ok(told)
    };
    Attack::new("a million subscriptions by one client", setup, long, run).memory(
        96 << 20,
        "64 sessions of 1,000 filters at most, wildcards once a worker: 32 MiB, and 64 MiB",
    )
}

/// Filters and topics of others: nothing is delivered, and the answer for "not there" is that for "not yours".
pub fn probing(long: bool) -> Attack {
    let rounds = if long { 5_000 } else { 120 };
    let setup = Setup {
        offenders: 1,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let alice = bed.bystanders[0].clone();
        let nobody = "01890000-0000-7000-8000-000000000000";
        // (of somebody, of nobody): each pair has one answer.
        let of_one = |id: &str, name: &str| {
            vec![
                format!("u/{id}/inbox"),
                format!("u/{id}/#"),
                format!("p/{id}"),
                format!("c/{id}/log"),
                format!("c/@{name}/log"),
                format!("iot/{name}/#"),
                format!("iot/{name}/line"),
                format!("$share/g/iot/{name}/line"),
                format!("$share/g/u/{id}/inbox"),
                format!("me/../u/{id}/inbox"),
                format!("me/inbox/{id}"),
            ]
        };
        let general = [
            "#",
            "+/#",
            "+/+/line",
            "+/+/inbox",
            "u/#",
            "u/+/inbox",
            "me/#",
            "me/+",
            "c/#",
            "c/+/send",
            "c/+/log",
            "p/+",
            "p/#",
            "$SYS/#",
            "$share/g/#",
            "$share/g/+/+",
            "$share/g/me/inbox",
            "iot/+/line",
            "iot/#",
            "+/alice/line",
        ];
        let (somebody, none) = (of_one(&alice.id, &alice.name), of_one(nobody, "nobody-there"));
        let mut asked = 0;
        for (round, is_old) in (0..rounds).flat_map(|round| [(round, false), (round, true)]) {
            // Odd client ids, among them what looks like a rule, a path, another's.
            let ids = [
                "%u",
                "../alice",
                "phone",
                "+",
                "#",
                "alice/phone",
                "$SYS",
                "\u{1F426}",
                "%c/#",
                "0",
            ];
            let mut hello = bed.hello(0, ids[round % ids.len()]);
            hello.old = is_old;
            let mut peer = Peer::open(bed.mqtt(), round, &hello).await?;
            let codes = peer.subscribe(&general, 1).await?;
            ensure!(
                codes.iter().all(|code| *code >= 0x80),
                "granted: {:?}",
                general
                    .iter()
                    .zip(&codes)
                    .filter(|(_, code)| **code < 0x80)
                    .collect::<Vec<_>>()
            );
            let theirs = peer.subscribe(&somebody, 1).await?;
            let nobodys = peer.subscribe(&none, 1).await?;
            ensure!(theirs == nobodys, "told apart: {theirs:02x?} and {nobodys:02x?}");
            ensure!(theirs.iter().all(|code| *code >= 0x80), "granted: {theirs:02x?}");
            asked += codes.len() + theirs.len() + nobodys.len();
            if !is_old {
                for (one, other) in somebody.iter().zip(&none) {
                    if one.contains(['#', '+']) || one.starts_with("me/") {
                        continue;
                    }
                    let (one, other) = (
                        peer.publish(one, b"x", false).await?,
                        peer.publish(other, b"x", false).await?,
                    );
                    ensure!(one == other && one >= 0x80, "PUBACK {one:#04x} and {other:#04x}");
                }
            }
            // Not even what the bystanders send all the while.
            peer.send(&wire::PINGREQ).await?;
            let packet = peer.next().await?.context("closed")?;
            ensure!(packet.kind() == kind::PINGRESP, "{packet:?} was delivered");
        }
        // Bad credentials: somebody's name and nobody's.
        let mut answers = Vec::new();
        for name in [alice.name.as_str(), "nobody-there", alice.id.as_str(), nobody] {
            let hello = Hello {
                login: Some((name.to_owned(), "gdt_wrong".into())),
                ..bed.hello(0, "guess")
            };
            let (_, connack) = Peer::ask(bed.mqtt(), 1, &hello).await?;
            answers.push(connack.map(|packet| packet.body));
        }
        ensure!(
            answers.windows(2).all(|two| two[0] == two[1]),
            "told apart: {answers:?}"
        );
        Ok(vec![format!(
            "{asked} filters and topics refused, 0 deliveries; \"not there\" and \"not yours\" are answered alike, and so are bad \
             credentials of somebody and nobody"
        )])
    };
    Attack::new("probing", setup, long, run)
}
