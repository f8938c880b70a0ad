//! Answers of lightweight transactions that are lost or late, while nodes die, leave and come and users register: nobody knows whether what it asked for
//! happened, and must find out.

use std::time::Duration;

use anyhow::{Result, bail};
use godwit_e2e::rest::Api;
use rand::RngExt;

use super::{Fault, Force, LEASE, crash};
use crate::rig::Rig;

/// What transactions whose answers are lost may cost: the mark is two leases, and a test fails at three times that, behind what a change takes anyway.
const STUCK: Duration = Duration::from_secs(3 * 2 * LEASE.as_secs());
/// What that is.
const CHANGE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) fn conditional(rig: &mut Rig, force: &Force) -> Result<()> {
    let before = rig.nodes.around.claims.counts();
    rig.nodes.around.claims.lose(force.claims);
    rig.allowance = STUCK;
    let done = churn(rig);
    rig.allowance = Duration::ZERO;
    rig.nodes.around.claims.lose(0);
    done?;
    let after = rig.nodes.around.claims.counts();
    if after.unreadable > 0 {
        bail!("a connection to the store is not what the proxy reads");
    }
    let (seen, hit) = (
        after.seen - before.seen,
        after.lost + after.late - before.lost - before.late,
    );
    rig.note(format!(
        "{seen} lightweight transactions and SERIAL reads, {hit} answers lost or late"
    ));
    if seen == 0 {
        bail!("no lightweight transaction passed: nothing was tested");
    }
    rig.mark("answers come again".to_owned(), Fault::Conditional.limit());
    rig.wait_back(Fault::Conditional.limit())
}

fn churn(rig: &mut Rig) -> Result<()> {
    names(rig)?;
    if rig.random.random_bool(0.5) {
        crash::kill(rig, 1)?;
    } else {
        crash::drain(rig)?;
    }
    rig.nodes.wait_formed()?;
    let took = rig.since_mark();
    rig.note(format!("one settled view {took:?} after the last change"));
    if took > CHANGE + STUCK {
        rig.shared.problem(format!(
            "the view was settled after {took:?} only, more than {CHANGE:?} and {STUCK:?}"
        ));
    }
    rig.look_at_owners();
    Ok(())
}

/// Two nodes are asked for one name at once: one gets it at most. If its answer got lost, asking again finds the name taken, and nobody gets it.
fn names(rig: &mut Rig) -> Result<()> {
    let apis: Vec<Api> = (0..rig.nodes.count())
        .map(|one| Api::new(&rig.nodes.http(one)))
        .collect();
    let name = format!("claimed{}", rig.random.random_range(0..u32::MAX));
    let asks = |api: &Api, by: usize| api.register(&name, &format!("a secret of {by}, not short"));
    let (one, other) = std::thread::scope(|scope| {
        let (asks, apis) = (&asks, &apis);
        let one = scope.spawn(move || asks(&apis[0], 0));
        let other = asks(&apis[1], 1);
        (one.join(), other)
    });
    let Ok(one) = one else {
        bail!("a registration panicked");
    };
    if one.is_ok() && other.is_ok() {
        rig.shared.problem(format!("two registered as {name}"));
    }
    for ended in [one, other] {
        if let Err(refused) = ended {
            rig.shared.told_no(&format!("registration {}", refused.code));
        }
    }
    Ok(())
}
