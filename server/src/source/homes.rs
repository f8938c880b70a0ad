//! Where logs end, on a node that is one of several: only a log's owner may take it up, so conversations' homes are asked where
//! there may be something new; what has been quiet says it by its stored mark.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use godwit_cluster::Router;
use godwit_search::{SourceError, UNKNOWN_END};
use godwit_wire::command::{Answer, Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key};
use tokio::runtime::Handle;
use uuid::Uuid;

/// Homes asked at a time: each may have to take its conversation up first.
const AT_A_TIME: usize = 64;
/// How long a home may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who knows where a log ends.
pub(crate) trait Ends: Send + Sync {
    /// How far each is confirmed; [`UNKNOWN_END`] where nobody says so now.
    ///
    /// # Errors
    /// Nobody can be asked yet.
    fn of(&self, conversations: &[Uuid]) -> Result<Vec<u64>, SourceError>;
}

/// The homes, wherever they are. Reached once the workers run.
#[derive(Clone, Default)]
pub(crate) struct Homes(Arc<OnceLock<(Router, Handle)>>);

impl Homes {
    /// From now on they are reached so.
    pub(crate) fn are_reached(&self, router: &Router, runtime: &Handle) {
        // Set once: the workers start once.
        let _ = self.0.set((router.clone(), runtime.clone()));
    }

    /// The way to them.
    pub(crate) fn reached(&self) -> Option<&(Router, Handle)> {
        self.0.get()
    }
}

impl Ends for Homes {
    fn of(&self, conversations: &[Uuid]) -> Result<Vec<u64>, SourceError> {
        let Some((router, runtime)) = self.reached() else {
            return Err(SourceError("the workers do not run yet".into()));
        };
        let mut ends = Vec::with_capacity(conversations.len());
        for some in conversations.chunks(AT_A_TIME) {
            let asked: Vec<_> = some
                .iter()
                .map(|id| runtime.spawn(end(router.clone(), *id)))
                .collect();
            // This is the feed's own thread, none of the runtime's.
            ends.extend(runtime.block_on(async {
                let mut ends = Vec::with_capacity(asked.len());
                for one in asked {
                    ends.push(one.await.ok().flatten().unwrap_or(UNKNOWN_END));
                }
                ends
            }));
        }
        Ok(ends)
    }
}

async fn end(router: Router, conversation: Uuid) -> Option<u64> {
    let key = Key::Conversation(ConversationId(conversation));
    let asked = Command::Conversation(ConversationCommand::Indexed { up_to: 0 });
    match tokio::time::timeout(PATIENCE, router.call(key, asked)).await {
        Ok(Answer::Confirmed(up_to)) => Some(up_to),
        _ => None,
    }
}
