//! Memory used up by sessions that each keep within their bounds: the node's own bound keeps further ones out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::Peer;
use crate::wire::Hello;

/// The node's bound: a little above what it needs with bystanders alone.
const BOUND_MB: u64 = 96;
/// As many as are sent and not acknowledged: what comes after them waits in the server.
const WINDOW: usize = 256;
/// What is sent to each session: just below what a clean session may have waiting.
const EACH: usize = 240;
const SIZE: usize = 8_000;
/// Most sessions: with these the bound has been missed.
const MOST: usize = 60;
/// Its memory goes back to the system ten seconds after it is not needed.
const GIVEN_BACK: Duration = Duration::from_secs(40);

/// Clean sessions that take nothing, each with what it may have waiting, until the node lets nobody more in.
pub fn bound(long: bool) -> Attack {
    let knocks = if long { 5_000 } else { 300 };
    let setup = Setup {
        offenders: 1,
        options: vec![("GODWIT_MAX_MEMORY_MB", BOUND_MB.to_string())],
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let mut publisher = Peer::open(bed.mqtt(), 1, &bed.hello(0, "publisher")).await?;
        let mut sessions = Vec::new();
        let code = loop {
            ensure!(sessions.len() < MOST, "{MOST} sessions, and the bound is not met");
            let hello = bed.hello(0, &format!("full{}", sessions.len()));
            let (mut peer, answer) = Peer::ask(bed.mqtt(), 2, &hello).await?;
            let Some(answer) = answer else {
                bail!("closed without a word although few are turned away");
            };
            if !answer.is_welcome() {
                break answer.code();
            }
            let topic = format!("iot/mallory0/full{}", sessions.len());
            peer.subscribe(&[&topic], 1).await?;
            let small = (0..WINDOW).map(|_| (topic.clone(), Vec::new()));
            let publishes = small.chain((0..EACH).map(|_| (topic.clone(), vec![b'x'; SIZE])));
            let codes = burst(&mut publisher, publishes, false).await?;
            ensure!(codes.iter().all(|code| *code < 0x80), "a publish was refused");
            sessions.push(peer);
            // The node looks at its memory twenty times a second.
            tokio::time::sleep(Duration::from_millis(120)).await;
        };
        ensure!(code == 0x97, "CONNACK {code:#04x} at the bound on memory");
        let at_bound = bed.metric("godwit_memory_used_bytes").await?;
        for number in 0..knocks {
            let hello = Hello {
                old: number % 2 == 1,
                client: format!("knock{number}"),
                ..bed.hello(0, "")
            };
            let (_, answer) = Peer::ask(bed.mqtt(), 10 + number, &hello).await?;
            let code = answer.map(|answer| answer.code());
            let told = if hello.old { 3 } else { 0x97 };
            ensure!(code.is_none() || code == Some(told), "{code:02x?} at the bound");
        }
        let after = bed.metric("godwit_memory_used_bytes").await?;
        let refused = bed.metric("godwit_mqtt_refused_total{reason=\"memory\"").await?;
        ensure!(refused > knocks as f64, "{refused} counted of {knocks}");
        // Who is in is served.
        publisher.ping().await?;
        let filled = sessions.len();
        drop(sessions);
        let (begun, again) = (Instant::now(), bed.hello(0, "again"));
        while !matches!(Peer::ask(bed.mqtt(), 3, &again).await?.1, Some(answer) if answer.is_welcome()) {
            ensure!(
                begun.elapsed() < GIVEN_BACK,
                "nobody is let in after they have gone"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(vec![format!(
            "{filled} sessions until {:.0} of {BOUND_MB} MB were used; then {knocks} turned away, told 0x97 or 3, counted, {:.0} MB after them; \
             one let in {:.1} s after all had gone",
            at_bound / f64::from(1 << 20),
            after / f64::from(1 << 20),
            begun.elapsed().as_secs_f64()
        )])
    };
    Attack::new("memory up to the node's bound", setup, long, run)
        .without_connects()
        .memory(
            BOUND_MB << 20,
            "the configured bound, in all that is added to the beginning",
        )
}
