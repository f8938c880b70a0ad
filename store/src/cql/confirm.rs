//! The confirming read: one QUORUM read of the view at a time serves everything whose writes were done before it began; then
//! [`Ownership`](crate::Ownership) says for each whether its shard is still held. Completions leave from here, and only from here.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use tokio::sync::{Notify, oneshot};

use super::again::pauses;
use super::core::{Core, Gone};
use crate::store::{Completion, Outcome, Verdict};
use crate::types::{Head, LogId, PortId, Scope, Ticket, View};

/// Before the view is read again for those whose owner did not know yet what the last read showed.
const LATER: Duration = Duration::from_millis(10);
/// The same while this node may not act.
const IDLE: Duration = Duration::from_millis(100);

/// A batch whose writes are done, and everything older of its logs.
pub(super) struct Done {
    pub(super) port: PortId,
    pub(super) ticket: Ticket,
    pub(super) scope: Scope,
    /// Of the writes; what is stored or taken still has to be confirmed.
    pub(super) outcome: Outcome,
    pub(super) begun: Instant,
    pub(super) statements: usize,
    pub(super) bytes: usize,
    /// Heads whose floor may have passed a bucket.
    pub(super) heads: Vec<(LogId, Head)>,
}

enum Waiting {
    Batch(Done),
    /// A take-up, or anything else that asks for itself.
    Asked(Scope, oneshot::Sender<Result<(), Gone>>),
}

impl Waiting {
    fn scope(&self) -> Scope {
        match self {
            Self::Batch(done) => done.scope,
            Self::Asked(scope, _) => *scope,
        }
    }

    /// What is lost or unknown already needs no read.
    fn is_open(&self) -> bool {
        match self {
            Self::Batch(done) => matches!(done.outcome, Outcome::Stored | Outcome::Taken(_)),
            Self::Asked(..) => true,
        }
    }
}

#[derive(Default)]
pub(super) struct Confirms {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
}

impl Confirms {
    fn push(&self, new: impl IntoIterator<Item = Waiting>) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(new);
        self.wake.notify_one();
    }

    pub(super) fn batches(&self, done: Vec<Done>) {
        if !done.is_empty() {
            self.push(done.into_iter().map(Waiting::Batch));
        }
    }

    /// Whether the shard is still held, by a read that begins after this call.
    pub(super) async fn held(&self, scope: Scope) -> Result<(), Gone> {
        let (answer, held) = oneshot::channel();
        self.push([Waiting::Asked(scope, answer)]);
        held.await.unwrap_or(Err(Gone::Ended))
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Confirms for as long as the engine lives.
pub(super) async fn run(core: Arc<Core>) {
    let mut waiting = Vec::new();
    let mut delays = pauses().build();
    loop {
        waiting.extend(core.confirms.take());
        if waiting.is_empty() {
            core.confirms.wake.notified().await;
            continue;
        }
        let read = if waiting.iter().any(Waiting::is_open) {
            // 0 before there is a view.
            core.shown_view()
                .await
                .map(|shown| shown.map_or(0, |(view, _)| view))
        } else {
            Ok(core.shown.load(Relaxed))
        };
        let pause = match read {
            Ok(shown) => {
                core.shown.store(shown, Relaxed);
                core.trouble.blind.store(false, Relaxed);
                waiting = judge(&core, waiting, Some(shown));
                delays = pauses().build();
                let pause = if core.ownership.acts() { LATER } else { IDLE };
                (!waiting.is_empty()).then_some(pause)
            }
            Err(e) => {
                tracing::warn!(error = %e, "the view cannot be read: nothing is confirmed until it can");
                core.trouble.blind.store(true, Relaxed);
                waiting = judge(&core, waiting, None);
                delays.next()
            }
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Completes what can be; gives back the rest, in order. Without a view only what is lost can be.
fn judge(core: &Arc<Core>, waiting: Vec<Waiting>, shown: Option<View>) -> Vec<Waiting> {
    let ended = core.ended.load(Relaxed);
    // After the read: while it was under way, or the process stopped, the lease may have ended (decision 0010).
    let acts = core.ownership.acts();
    let mut verdicts: HashMap<Scope, Verdict> = HashMap::new();
    // What follows something that waits, of one shard, waits too: completions of a log stay in order.
    let mut held_up: HashSet<u16> = HashSet::new();
    let (mut rest, mut out): (Vec<Waiting>, HashMap<PortId, Vec<Completion>>) = Default::default();
    let mut completed = 0;
    for one in waiting {
        let scope = one.scope();
        let verdict = *verdicts.entry(scope).or_insert_with(|| {
            let view = shown.unwrap_or_else(|| core.shown.load(Relaxed));
            match core.ownership.verdict(scope, view) {
                Verdict::Held if shown.is_none() || !acts => Verdict::Later,
                verdict => verdict,
            }
        });
        if !ended && (held_up.contains(&scope.shard) || (one.is_open() && verdict == Verdict::Later)) {
            held_up.insert(scope.shard);
            rest.push(one);
            continue;
        }
        match one {
            Waiting::Batch(done) => {
                let outcome = match verdict {
                    _ if !matches!(done.outcome, Outcome::Stored | Outcome::Taken(_)) => done.outcome.clone(),
                    Verdict::Held => done.outcome.clone(),
                    Verdict::Lost => Outcome::Lost,
                    Verdict::Later => Outcome::Unknown,
                };
                finish(core, &done, &outcome);
                completed += 1;
                let completion = Completion::Written {
                    ticket: done.ticket,
                    outcome,
                };
                out.entry(done.port).or_default().push(completion);
            }
            Waiting::Asked(_, answer) => {
                // Who asked may have gone.
                let _ = answer.send(match verdict {
                    Verdict::Held => Ok(()),
                    Verdict::Lost => Err(Gone::Lost),
                    Verdict::Later => Err(Gone::Ended),
                });
            }
        }
    }
    for (port, mut completions) in out {
        core.complete(port, &mut completions);
    }
    core.room.completed(completed);
    rest
}

fn finish(core: &Arc<Core>, done: &Done, outcome: &Outcome) {
    core.room.give_back(done.statements, done.bytes);
    if *outcome == Outcome::Stored {
        core.meters.stored(done.bytes, done.begun.elapsed());
        for (log, head) in &done.heads {
            core.trim(done.scope, *log, *head);
        }
    }
}
