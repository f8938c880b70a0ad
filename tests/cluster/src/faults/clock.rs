//! The clock of one node that is set forth and back, and that drifts: nothing may happen. Then the node is killed with its clock ahead: what others
//! write after it must count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_e2e::rest::Api;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Fault, any};
use crate::rig::{Rig, SERVED};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
/// What it is set to, milliseconds from the right time; first what it is anyway, to compare with.
const STEPS: [i64; 5] = [0, -10 * SECOND, 10 * SECOND, HOUR, -HOUR];
/// How long it stays so: a process sees it within a second.
const STAYS: Duration = Duration::from_millis(1_800);
/// How long it stays at most until the node says that it has seen it: it compares its clock with the others' every two seconds.
const SEEN: Duration = Duration::from_secs(8);
/// As near as heartbeats tell, seconds.
const NEAR: f64 = 3.0;
/// Seconds beyond which a message's time is wrong: what is not doubted, and for how long the newest one may have waited.
const FAR: i64 = 600;
/// Conversations that are looked at; a third of them is the node's.
const LOOKED_AT: usize = 12;
/// It drifts by so much a step, milliseconds, so many steps each way.
const DRIFT: i64 = 100;
const DRIFTS: i64 = 4;
const DRIFT_STEP: Duration = Duration::from_millis(200);

/// See the module.
pub(super) fn clock(rig: &mut Rig) -> Result<()> {
    rig.nodes.wait_formed()?;
    let (node, view) = (any(rig), rig.view_number());
    let told = rig.shared.failures();
    for millis in STEPS {
        rig.mark(
            format!("the clock of n{node} is {} s off", millis / SECOND),
            Fault::Clock.limit(),
        );
        if millis == 0 {
            rig.begin_nothing();
        }
        rig.like_nothing();
        set(rig, node, millis)?;
        rig.go_on(STAYS);
        let until = Instant::now() + SEEN;
        while !is_seen(rig, node, millis) {
            ensure!(
                Instant::now() < until,
                "the clock of n{node} is {millis} ms off, and it says {:?} s: nothing is tested",
                rig.nodes.clock_ahead(node)
            );
            rig.go_on(STAYS / 4);
        }
        // Also what was sent before it was seen. A conversation's messages are never older than those before them, so that of the way back nothing is
        // seen.
        let (off, all) = off(rig, node)?;
        ensure!(
            off == 0 && all > 0,
            "{off} of {all} conversations go by a clock that is {millis} ms off"
        );
    }
    rig.mark(format!("the clock of n{node} drifts"), Fault::Clock.limit());
    rig.like_nothing();
    for step in (0..=DRIFTS).chain((-DRIFTS..DRIFTS).rev()).chain(-DRIFTS..=0) {
        set(rig, node, step * DRIFT)?;
        rig.go_on(DRIFT_STEP);
    }
    let after = rig.view_number();
    if after != view {
        rig.shared.problem(format!(
            "view {view:?} became {after:?} while the clock of n{node} was set"
        ));
    }
    if told != rig.shared.failures() {
        let now = rig.shared.failures();
        rig.shared.problem(format!(
            "clients were told no while the clock of n{node} was set: {told:?} {now:?}"
        ));
    }
    rig.look_at_owners();
    // Just after it: before a heartbeat says so.
    set(rig, node, HOUR)?;
    let pause = rig.between(0, 1_500);
    rig.go_on(pause);
    rig.mark(
        format!("kill -9 of n{node}, an hour ahead since {pause:?}"),
        Fault::Kill.limit(),
    );
    rig.nodes.kill(node)?;
    rig.wait_back(Fault::Kill.limit())?;
    set(rig, node, -HOUR)?;
    rig.mark(format!("n{node} is started, an hour behind"), Fault::Kill.limit());
    rig.nodes.start_all()?;
    rig.wait_all_served(SERVED)?;
    set(rig, node, 0)
}

/// Sets a node's clock so many milliseconds from the right time.
pub(super) fn set(rig: &Rig, node: usize, millis: i64) -> Result<()> {
    let clock = rig.nodes.around.clocks.get(node);
    clock.context("the run has no clocks")?.set(millis)
}

/// Whether the node knows by how much it is off.
fn is_seen(rig: &Rig, node: usize, millis: i64) -> bool {
    let said = rig.nodes.clock_ahead(node);
    said.is_some_and(|seconds| (seconds - millis as f64 / 1e3).abs() < NEAR)
}

/// How many conversations' newest messages go by a clock that is far off, and how many there are; asked of the node itself, which must answer at once.
fn off(rig: &Rig, node: usize) -> Result<(usize, usize)> {
    let api = Api::new(&rig.nodes.http(node));
    let mut offs = Vec::new();
    for conversation in rig.world.conversations.iter().rev().take(LOOKED_AT) {
        let reader = &rig.world.users[conversation.members[0]];
        let path = format!("/conversations/{}/messages?limit=1", conversation.id);
        let asked = api.get(&path, &reader.token);
        let (_, page) = asked.with_context(|| format!("of n{node}, whose clock is set"))?;
        if let Some(text) = page["messages"][0]["created_at"].as_str() {
            let said = OffsetDateTime::parse(text, &Rfc3339)?;
            offs.push((said - OffsetDateTime::now_utc()).whole_seconds());
        }
    }
    let far = |off: &&i64| off.abs() > FAR;
    Ok((offs.iter().filter(far).count(), offs.len()))
}
