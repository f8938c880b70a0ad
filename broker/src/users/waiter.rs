//! Who waits for an entry to be durable: another home, several of one delivery, or a publish of one's own connection.

use std::cell::RefCell;
use std::rc::Rc;

use godwit_cluster::{Cx, Reply};
use godwit_wire::command::Answer;
use godwit_wire::ids::SessionId;

use crate::wire_trait::ConnId;

/// Waits for one entry.
pub(crate) enum Waiter {
    /// Nobody.
    Nobody,
    /// Another home: `Kept`.
    Reply(Reply),
    /// A delivery to several sessions.
    Shared(Rc<Shared>),
    /// A refused publish of a 3.1.1 client: acknowledged once its `refused` entry is durable.
    Publish(ConnId, u32),
    /// Several.
    Many(Vec<Waiter>),
}

/// A delivery to several sessions of one user, answered once with the last.
pub(crate) struct Shared(RefCell<Inner>);

struct Inner {
    reply: Option<Reply>,
    missing: u32,
    gone: Vec<SessionId>,
}

impl Shared {
    /// Answers `reply` when [`Waiter::kept`] was called for `missing` waiters.
    pub(crate) fn new(reply: Reply, missing: u32, gone: Vec<SessionId>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Inner {
            reply: Some(reply),
            missing,
            gone,
        })))
    }
}

impl Waiter {
    /// Waits for the same entry too.
    pub(crate) fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Nobody) => {}
            (Self::Nobody, other) => *self = other,
            (Self::Many(many), other) => many.push(other),
            (_, other) => {
                let first = std::mem::replace(self, Self::Nobody);
                *self = Self::Many(vec![first, other]);
            }
        }
    }

    /// Those that it stands for, one by one.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::Many(many) => many.into_iter().flat_map(Self::each).collect(),
            one => vec![one],
        }
    }

    /// The entry is durable. `publish` is told of a publish of one's own.
    pub(crate) fn kept(self, cx: &mut Cx<'_>, publish: &mut Vec<(ConnId, u32)>) {
        match self {
            Self::Nobody => {}
            Self::Reply(reply) => cx.answer(reply, Answer::Kept { gone: Vec::new() }),
            Self::Shared(shared) => {
                let mut inner = shared.0.borrow_mut();
                inner.missing = inner.missing.saturating_sub(1);
                if inner.missing == 0 {
                    let gone = std::mem::take(&mut inner.gone);
                    if let Some(reply) = inner.reply.take() {
                        cx.answer(reply, Answer::Kept { gone });
                    }
                }
            }
            Self::Publish(conn, serial) => publish.push((conn, serial)),
            Self::Many(many) => many.into_iter().for_each(|waiter| waiter.kept(cx, publish)),
        }
    }
}
