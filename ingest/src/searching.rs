//! What other nodes ask of this node's search index. The index is not the worker's: what comes is handed to who has it, and
//! answered when that one hands the answer back.

use std::any::Any;
use std::sync::Arc;

use godwit_cluster::{Cx, Reply, RoleId, Router};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, SearchCommand};
use slab::Slab;

use crate::role::Ingest;

/// Searches of other nodes under way at this one at most: few run at a time, and who waits longer than a search may take has
/// been told. Beyond it they are refused as `unavailable`, and the answer to the user says that it is not whole.
pub const FINDS: usize = 256;

/// Takes what other nodes ask of this node's search index. Must not block.
pub type Searching = Arc<dyn Fn(SearchCommand, Replies) + Send + Sync>;

/// Searches that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Finding(Slab<Reply>);

/// Answers one of them, from any thread; dropped, it answers `unavailable`.
#[derive(Debug)]
pub struct Replies(Option<(Router, u16, usize)>);

/// An answer on its way back to the worker.
struct Searched {
    number: usize,
    answer: Answer,
}

impl Replies {
    /// What is answered to nobody.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some((router, worker, number)) = self.0.take() {
            router.hand_over(worker, RoleId::Ingest, Box::new(Searched { number, answer }));
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.send(Refusal::unavailable().into());
    }
}

impl Ingest {
    pub(crate) fn search(&mut self, cx: &mut Cx<'_>, command: SearchCommand, reply: Reply) {
        let Some(searching) = &self.config.searching else {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        };
        if reply.is_nobody() {
            searching(command, Replies::nobody());
        } else if self.finding.0.len() >= FINDS {
            cx.answer(reply, Refusal::unavailable().into());
        } else {
            let number = self.finding.0.insert(reply);
            searching(command, Replies(Some((cx.router().clone(), cx.worker(), number))));
        }
    }

    pub(crate) fn searched(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        let Ok(searched) = item.downcast::<Searched>() else {
            return;
        };
        if let Some(reply) = self.finding.0.try_remove(searched.number) {
            cx.answer(reply, searched.answer);
        }
    }
}
