//! Limits of sessions and subscriptions: in one table, met on a server on which sessions last a day at most and a user may
//! publish little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::{Case, cases, group};
use crate::attacks::doors::all;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::{self, Hello, kind};

const CASES: &[Case] = cases! {
    "subscriptions of a user, over all sessions", "USER_SUBSCRIPTIONS",
        "godwit_mqtt_limits_met_total{limit=\"user_subscriptions\"" => of_a_user;
    "shared subscriptions of a user", "USER_SHARES",
        "godwit_mqtt_limits_met_total{limit=\"shared_subscriptions\"" => shares;
    "the name of such a group", "SHARE_NAME_BYTES",
        "godwit_mqtt_limits_met_total{limit=\"share_name\"" => share_names;
    "members of a shared subscription's group", "SHARE_MEMBERS",
        "godwit_topic_limits_met_total{limit=\"share_members\"" => share_members;
    "session expiry", "session_days", "" => expiry;
    "subscriptions that a publish or a will matches", "ROUTES",
        "godwit_mqtt_limits_met_total{limit=\"publishes_per_second\"" => routes;
};

/// What takes a hundred thousand filters: fifteen seconds of a build without optimizations.
const LONG: &[Case] = cases! {
    "such filters of the node", "WILDCARD_FILTERS",
        "godwit_topic_limits_met_total{limit=\"wildcards\"" => wildcards_of_the_node;
};

/// Times that each is met where one takes milliseconds.
const ROUNDS: usize = 20;
/// Publishes a second that a user may do here; five times as many at once.
const PER_SECOND: usize = 300;

pub(super) fn attack(long: bool) -> Attack {
    let setup = Setup {
        offenders: 3,
        anonymous: true,
        options: vec![
            ("GODWIT_SESSION_DAYS", "1".into()),
            ("GODWIT_PUBLISHES_PER_SECOND", PER_SECOND.to_string()),
        ],
        ..Setup::default()
    };
    let tables = [CASES, if long { LONG } else { &[] }];
    let attack = group("limits of sessions and subscriptions", setup, long, &tables);
    if long {
        let because =
            "110,000 filters and a copy of 100,000 for each worker, 1,100 clients of 16 KiB, and 96 MiB";
        return attack.memory(224 << 20, because);
    }
    attack.memory(
        128 << 20,
        "10,000 filters of a user, 1,100 clients of 16 KiB, and 96 MiB",
    )
}

/// Ten sessions' worth, and more in an eleventh.
async fn of_a_user(bed: Arc<Bed>) -> Result<String> {
    let mut peers = Vec::new();
    for session in 0..10 {
        let hello = bed.hello(0, &format!("many{session}"));
        let mut peer = Peer::open(bed.mqtt(), session, &hello).await?;
        for part in 0..10 {
            let filters: Vec<String> = (0..100)
                .map(|of| format!("iot/mallory0/{session}/{part}/{of}"))
                .collect();
            let codes = peer.subscribe(&filters, 0).await?;
            ensure!(codes == [0; 100], "SUBACK {codes:02x?}");
        }
        peers.push(peer);
    }
    for round in 0..ROUNDS {
        let old = round % 2 == 1;
        let hello = Hello {
            old,
            ..bed.hello(0, "over")
        };
        let mut peer = Peer::open(bed.mqtt(), round, &hello).await?;
        let codes = peer
            .subscribe(&["iot/mallory0/one", "iot/mallory0/more"], 1)
            .await?;
        let wanted = if old { 0x80 } else { 0x97 };
        ensure!(codes == [wanted; 2], "SUBACK {codes:02x?} over the quota");
        // What is there already may be asked for again.
        let codes = peers[0].subscribe(&["iot/mallory0/0/0/0"], 1).await?;
        ensure!(codes == [1], "SUBACK {codes:02x?} for one that is there");
    }
    Ok(format!(
        "10,000 filters of ten sessions granted, {} more refused (0x97, in 3.1.1 0x80), {ROUNDS} again granted",
        2 * ROUNDS
    ))
}

async fn shares(bed: Arc<Bed>) -> Result<String> {
    let mut peer = Peer::open(bed.mqtt(), 1, &bed.hello(1, "sharer")).await?;
    let filter = |number: usize| format!("$share/g{number}/iot/mallory1/s");
    let filters: Vec<String> = (0..256).map(filter).collect();
    let codes = peer.subscribe(&filters, 1).await?;
    ensure!(codes == [1; 256], "SUBACK {codes:02x?}");
    for round in 0..ROUNDS {
        let old = round % 2 == 1;
        let hello = Hello {
            old,
            ..bed.hello(1, "other")
        };
        let mut other = Peer::open(bed.mqtt(), 1, &hello).await?;
        let codes = other
            .subscribe(&[filter(256), "iot/mallory1/s".into()], 1)
            .await?;
        let wanted = if old { 0x80 } else { 0x97 };
        ensure!(codes == [wanted, 1], "SUBACK {codes:02x?} for the 257th");
    }
    Ok(format!(
        "256 shared subscriptions granted, {ROUNDS} times the 257th refused (0x97, in 3.1.1 0x80), one that is not shared granted"
    ))
}

async fn share_names(bed: Arc<Bed>) -> Result<String> {
    for round in 0..ROUNDS {
        let old = round % 2 == 1;
        let hello = Hello {
            old,
            ..bed.hello(2, "named")
        };
        let mut peer = Peer::open(bed.mqtt(), 1, &hello).await?;
        let filter = |bytes: usize| format!("$share/{}/iot/mallory2/n", "n".repeat(bytes));
        let codes = peer.subscribe(&[filter(128), filter(129)], 1).await?;
        let wanted = if old { 0x80 } else { 0x8f };
        ensure!(codes == [1, wanted], "SUBACK {codes:02x?} for 128 and 129 bytes");
    }
    Ok(format!(
        "{ROUNDS} times a group's name of 128 bytes: granted; of 129: SUBACK 0x8f, in 3.1.1 0x80"
    ))
}

/// Anonymous clients, since a user has fewer sessions than a group members.
async fn share_members(bed: Arc<Bed>) -> Result<String> {
    const MEMBERS: usize = 1_024;
    const MORE: usize = 30;
    let filter = "$share/all/hall/one";
    let hello = |number: usize| Hello {
        client: format!("member{number}"),
        old: number % 2 == 1,
        ..Hello::default()
    };
    let mut members = Vec::new();
    for first in (0..MEMBERS).step_by(64) {
        let mut tasks = JoinSet::new();
        for number in first..first + 64 {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move {
                let mut peer = Peer::open(bed.mqtt(), number, &hello(number)).await?;
                let codes = peer.subscribe(&[filter], 1).await?;
                ensure!(codes == [1], "SUBACK {codes:02x?} for member {number}");
                Ok(peer)
            });
        }
        members.extend(all(tasks).await?);
        // As clients do, not all in one burst: new connections are not what is looked at.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in MEMBERS..MEMBERS + MORE {
        let mut peer = Peer::open(bed.mqtt(), number, &hello(number)).await?;
        let codes = peer.subscribe(&[filter, "$share/two/hall/one"], 1).await?;
        let wanted = if number % 2 == 1 { 0x80 } else { 0x97 };
        ensure!(codes == [wanted, 1], "SUBACK {codes:02x?} for one too many");
    }
    // Who is in may ask again, and when one has left there is room.
    let codes = members[0].subscribe(&[filter], 1).await?;
    ensure!(codes == [1], "SUBACK {codes:02x?} for a member");
    drop(members.pop());
    let mut peer = Peer::open(bed.mqtt(), 1, &hello(5_000)).await?;
    let until = Instant::now() + crate::peer::PATIENCE;
    while peer.subscribe(&[filter], 1).await? != [1] {
        ensure!(Instant::now() < until, "no room when one has left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(format!(
        "{MEMBERS} members let in, {MORE} more refused (0x97, in 3.1.1 0x80), into another group let in; room again when one had left"
    ))
}

/// A session that is to last for ever lasts a day, and is told.
async fn expiry(bed: Arc<Bed>) -> Result<String> {
    const DAY: [u8; 5] = [0x11, 0, 1, 0x51, 0x80];
    for (round, asked) in (0..ROUNDS).zip([u32::MAX, 86_401, 100_000_000].into_iter().cycle()) {
        let hello = Hello {
            expiry: asked,
            ..bed.hello(2, &format!("lasting{}", round % 4))
        };
        let (_, connack) = Peer::ask(bed.mqtt(), round, &hello).await?;
        let connack = connack.context("closed")?;
        ensure!(connack.is_welcome(), "CONNACK {:#04x}", connack.code());
        ensure!(
            connack.body.windows(5).any(|bytes| bytes == DAY),
            "not told: {:02x?}",
            connack.body
        );
    }
    Ok(format!(
        "{ROUNDS} times more than a day asked for: let in, a day told in CONNACK"
    ))
}

/// Publishes that are one delivery each and match hundreds of filters: they count as many more.
async fn routes(bed: Arc<Bed>) -> Result<String> {
    const FILTERS: usize = 400;
    const COUNT: usize = 45;
    let mut reader = Peer::open(bed.mqtt(), 1, &bed.hello(2, "reader")).await?;
    let filters: Vec<String> = (0..FILTERS)
        .map(|number| {
            let level = |bit: usize| if number >> bit & 1 == 1 { "+" } else { "a" };
            let levels: Vec<&str> = (0..9).map(level).collect();
            format!("iot/mallory2/{}", levels.join("/"))
        })
        .collect();
    let codes = reader.subscribe(&filters, 0).await?;
    ensure!(codes == [0; FILTERS], "SUBACK {codes:02x?}");
    let drained = tokio::spawn(async move {
        let mut got = 0_usize;
        while let Some(Some(packet)) = reader.next_within(Duration::from_millis(2_500)).await? {
            got += usize::from(packet.kind() == kind::PUBLISH);
        }
        anyhow::Ok(got)
    });
    let mut publisher = Peer::open(bed.mqtt(), 2, &bed.hello(2, "publisher")).await?;
    let topic = format!("iot/mallory2/{}", ["a"; 9].join("/"));
    let begun = Instant::now();
    // One after the other: what a publish counts as is known when it was matched.
    for _ in 0..COUNT {
        let code = publisher.publish(&topic, b"x", false).await?;
        ensure!(code == 0, "PUBACK {code:#04x}");
    }
    let took = begun.elapsed();
    // What each counts as, of which five seconds' worth may come at once. The last one is paid for afterwards.
    let due = ((COUNT - 1) * (1 + FILTERS / 8)) as f64 / PER_SECOND as f64 - 5.0;
    ensure!(
        took.as_secs_f64() + 0.3 >= due,
        "{COUNT} publishes in {took:?}, which may take {due:.1} s"
    );
    // Another client of the same user is slowed down with it, others are not: the bystanders say so.
    publisher.send_anyway(&wire::DISCONNECT).await;
    let got = drained.await??;
    ensure!(got >= COUNT, "{got} of {COUNT} came");
    Ok(format!(
        "{COUNT} publishes that match {FILTERS} filters each took {:.1} s (due: {due:.1} s), all acknowledged",
        took.as_secs_f64()
    ))
}

/// All that a node takes, by a hundred users of a session each; beyond it nobody has one more until somebody leaves.
async fn wildcards_of_the_node(bed: Arc<Bed>) -> Result<String> {
    const MOST: usize = 100_000;
    const EACH: usize = 1_000;
    const AT_ONCE: usize = 4;
    let hello = |user: usize| Hello {
        client: format!("wild{user}"),
        old: user % 2 == 1,
        ..Hello::default()
    };
    // The bystanders' are among them.
    let before = bed.metric("godwit_wildcard_routes").await? as usize;
    let (mut peers, mut granted) = (Vec::new(), 0);
    for first in (0..MOST / EACH).step_by(AT_ONCE) {
        let mut tasks = JoinSet::new();
        for user in first..first + AT_ONCE {
            let (bed, hello) = (Arc::clone(&bed), hello(user));
            tasks.spawn(async move {
                let mut peer = Peer::open(bed.mqtt(), user, &hello).await?;
                let filters: Vec<String> = (0..EACH).map(|of| format!("+/wild{user}/{of}")).collect();
                let codes = peer.subscribe(&filters, 0).await?;
                let granted = codes.iter().filter(|code| **code == 0).count();
                Ok((user, peer, granted))
            });
        }
        for (user, peer, of_one) in all(tasks).await? {
            granted += of_one;
            peers.push((user, peer));
        }
    }
    ensure!(
        granted + before == MOST,
        "{granted} granted beside {before} where {MOST} are due"
    );
    for (round, (user, peer)) in peers.iter_mut().enumerate().take(ROUNDS) {
        let hello = hello(MOST + round);
        let mut late = Peer::open(bed.mqtt(), 200 + round, &hello).await?;
        let codes = late.subscribe(&["+/late/1", "hall/late"], 1).await?;
        let wanted = if hello.old { 0x80 } else { 0x97 };
        ensure!(codes == [wanted, 1], "SUBACK {codes:02x?} for one too many");
        // What is there already may be asked for again.
        let codes = peer.subscribe(&[format!("+/wild{user}/0")], 1).await?;
        ensure!(codes == [1], "SUBACK {codes:02x?} for one that is there");
    }
    drop(peers.pop());
    let mut late = Peer::open(bed.mqtt(), 240, &hello(0xfff)).await?;
    let until = Instant::now() + crate::peer::PATIENCE;
    while late.subscribe(&["+/late/1"], 1).await? != [1] && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(Instant::now() < until, "no room when one has left");
    // All at once.
    drop((peers, late));
    loop {
        let left = bed.metric("godwit_wildcard_routes").await? as usize;
        if left == before {
            break;
        }
        ensure!(Instant::now() < until + crate::peer::PATIENCE, "{left} are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(format!(
        "{granted} filters of {} users granted, {ROUNDS} more refused (0x97, in 3.1.1 0x80), others of the same SUBSCRIBE granted; room again when one had \
         left, none of them there when all had",
        MOST / EACH
    ))
}
