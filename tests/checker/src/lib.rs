//! The oracle of the fault tests: reads what clients recorded and says whether anything acknowledged was lost, given
//! two numbers, doubled, reordered or changed. Knows nothing of the system under test but what the records say.
//!
//! | rule | broken when |
//! |---|---|
//! | ACK | an acknowledged send is not in its conversation's history (nor, told as `refused`, in the sender's mailbox) |
//! | OWED | an acknowledged message is missing in a drained session of a user who was a member at its position |
//! | GAP | as OWED, but the session was told of a gap, and gaps were not allowed |
//! | SEQ | a history is not 1, 2, 3 …; an acknowledged or delivered position names another message than history does |
//! | INBOX | a mailbox's numbers as a drained session saw them have a hole, or one number carried two things |
//! | ORDER | in one session and conversation a message came first after one with a higher number did; repeats of what the session saw are no inversion |
//! | ONCE | one (conversation, sender, client message id) or one message id stands twice in history, or was acknowledged as two; a send without id twice, unless in flight at a kill (counted apart) |
//! | CONTENT | content, sender or client id differ between send, history and delivery |
//! | PHANTOM | something was delivered that history does not hold |
//! | SCOPE | a message was delivered to a user who was no member at its position |
//! | REFUSED | a send that was only ever refused is in history |
//! | DUP | more than the allowed share of deliveries were repeats without a kill or a reconnect of that session since; repeats of a publish below QoS 2 that was in flight at a kill or reconnect of its publisher are explained by that |
//! | TOPIC_LOSS, TOPIC_ORDER, TOPIC_ONCE, TOPIC_PHANTOM | the same for publishes on ordinary topics: loss in a drained session that was subscribed; first deliveries of one publisher and topic out of order; a QoS 2 publish twice at QoS 2; an id that nobody published |

mod read;
pub mod record;
mod rules;
mod run;
mod verdict;

use std::path::{Path, PathBuf};

pub use verdict::{Example, Verdict, Violation};

/// What is tolerated and what a run must at least contain.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The share of deliveries that may repeat without cause.
    pub duplicates: f64,
    /// What is missing under a gap marker is counted, not judged.
    pub gaps: bool,
    /// Acknowledged sends and publishes that a run must have to be judged at all.
    pub acknowledged: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            duplicates: 0.001,
            gaps: false,
            acknowledged: 1,
        }
    }
}

/// Why a run cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum BadInput {
    /// A file or the folder cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is none of the records, or contradicts another.
    #[error("{place}: {why}")]
    Record {
        /// File and line.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Something needed to judge was not recorded.
    #[error("not enough was recorded to judge: {}", .0.join("; "))]
    Incomplete(Vec<String>),
}

/// Reads every `*.jsonl` file of the folder and judges the run.
///
/// # Errors
/// When it cannot be judged; that is never a verdict.
pub fn judge(folder: &Path, limits: &Limits) -> Result<Verdict, BadInput> {
    let mut run = run::Run::read(folder)?;
    rules::judge(&mut run, limits)
}
