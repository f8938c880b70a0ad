//! A slow network: everything between nodes and between them and the store comes late, some of it much later.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Fault, Force};
use crate::rig::{Rig, SERVED};

/// How late everything is, in each direction.
const DELAY: Duration = Duration::from_millis(200);
/// Of 10,000 pieces so many stall.
const STALLS: u32 = 100;

/// See the module.
pub(super) fn slow(rig: &mut Rig, force: &Force) -> Result<()> {
    rig.nodes.wait_formed()?;
    let (before, stalled) = (rig.view_number(), rig.nodes.around.pace.stalled());
    let acknowledged = rig.shared.acknowledged();
    // Clients wait 5 s for an answer, a send takes 4 and each stall 1.2 more: they give up and go elsewhere again and again, so there is no mark.
    rig.mark(format!("everything is {DELAY:?} late"), Duration::MAX);
    rig.shared.let_answers_be_late(true);
    rig.nodes.around.pace.slow(DELAY, STALLS);
    rig.go_on(force.lasts);
    rig.wait_all_served(SERVED)?;
    let took = rig.since_mark();
    rig.nodes.around.pace.fast();
    let stalled = rig.nodes.around.pace.stalled() - stalled;
    let rate = (rig.shared.acknowledged() - acknowledged) as f64 / took.as_secs_f64();
    rig.note(format!(
        "slow for {took:?}: {stalled} pieces stalled, {rate:.0} sends acknowledged a second"
    ));
    if stalled == 0 {
        bail!("nothing stalled: nothing was tested");
    }
    let after = rig.view_number();
    rig.shared.let_answers_be_late(false);
    rig.note(format!("view {before:?} before, {after:?} after"));
    rig.mark("as fast as before".to_owned(), Fault::Slow.limit());
    rig.wait_back(Fault::Slow.limit())
}
