//! The rules, in the order in which they need each other: first what is stored, then what was sent, then what was
//! delivered. Each submodule judges one kind of record against the others.

mod deliveries;
mod inbox;
mod owed;
mod sends;
mod stored;
mod topics;

use crate::run::{Outcome, Run, Session};
use crate::verdict::Verdict;
use crate::{BadInput, Limits};

/// Judges a run; the histories in it are sorted on the way.
pub(crate) fn judge(run: &mut Run, limits: &Limits) -> Result<Verdict, BadInput> {
    let mut verdict = Verdict::new();
    must_be_judgeable(run, limits)?;
    overview(run, &mut verdict);
    let index = stored::check(run, &mut verdict);
    sends::check(run, &index, &mut verdict);
    let seen = deliveries::check(run, &index, limits, &mut verdict);
    owed::check(run, &seen, limits, &mut verdict)?;
    inbox::check(run, &mut verdict);
    topics::check(run, limits, &mut verdict)?;
    verdict.add_evidence(run);
    Ok(verdict)
}

/// A run that shows nothing must not be called green.
fn must_be_judgeable(run: &Run, limits: &Limits) -> Result<(), BadInput> {
    let mut missing = Vec::new();
    let acked = run
        .attempts
        .iter()
        .filter(|attempt| attempt.outcome == Outcome::Acked);
    let published = run.publishes.iter().filter(|publish| publish.acked).count();
    let count = acked.clone().count() + published;
    if (count as u64) < limits.acknowledged {
        missing.push(format!(
            "{count} sends and publishes were acknowledged, {} are asked",
            limits.acknowledged
        ));
    }
    let mut conversations: Vec<u32> = acked
        .map(|a| a.conversation)
        .chain(run.deliveries.iter().map(|d| d.conversation))
        .collect();
    conversations.sort_unstable();
    conversations.dedup();
    for number in conversations {
        let known = run.conversations.get(&number);
        if !known.is_some_and(|conversation| conversation.read) {
            missing.push(format!("the history of {} was not read", run.names.text(number)));
        } else if known.is_some_and(|conversation| conversation.members.is_empty()) {
            missing.push(format!(
                "the members of {} were not recorded",
                run.names.text(number)
            ));
        }
    }
    missing.truncate(10);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(BadInput::Incomplete(missing))
    }
}

fn overview(run: &Run, verdict: &mut Verdict) {
    let count = |outcome| run.attempts.iter().filter(|a| a.outcome == outcome).count() as u64;
    verdict.count("records", run.records);
    verdict.count("sends acknowledged", count(Outcome::Acked));
    verdict.count("sends refused", count(Outcome::Refused));
    verdict.count("sends of unknown outcome", count(Outcome::Unknown));
    verdict.count("deliveries", run.deliveries.len() as u64);
    verdict.count("deliveries with the DUP flag", run.dup_flags);
    verdict.count("conversations", run.conversations.len() as u64);
    verdict.count("sessions", run.sessions.len() as u64);
    verdict.count(
        "sessions drained",
        run.sessions.values().filter(|s| s.drained.is_some()).count() as u64,
    );
    verdict.count("kills", run.kills.len() as u64);
    verdict.count(
        "topic publishes acknowledged",
        run.publishes.iter().filter(|p| p.acked).count() as u64,
    );
    verdict.count("topic deliveries", run.topic_deliveries.len() as u64);
    for (door, sends) in &run.by_door {
        verdict.count(&format!("sends by {door}"), *sends);
    }
}

/// Repeated deliveries, by whether something explains them.
#[derive(Debug, Default)]
struct Repeats {
    explained: u64,
    unexplained: u64,
}

impl Repeats {
    /// A repeat at `now` of what came last at `before`: explained by a kill or by a reconnect between the two.
    fn add(&mut self, kills: &[u64], session: &Session, before: u64, now: u64) {
        let between =
            |times: &[u64]| times.partition_point(|t| *t <= before) < times.partition_point(|t| *t <= now);
        if between(kills) || between(&session.connects) {
            self.explained += 1;
        } else {
            self.unexplained += 1;
        }
    }

    fn judge(&self, what: &str, of: usize, limits: &Limits, verdict: &mut Verdict) {
        verdict.count(
            &format!("{what} repeated after a kill or reconnect"),
            self.explained,
        );
        verdict.count(&format!("{what} repeated without cause"), self.unexplained);
        if self.unexplained as f64 > limits.duplicates * of as f64 {
            verdict.broken("DUP", &[], || {
                format!(
                    "{} of {of} {what} repeat without a kill or reconnect between",
                    self.unexplained
                )
            });
        }
    }
}
