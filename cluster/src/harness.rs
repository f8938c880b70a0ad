//! A worker's turn without its thread, for tests of roles: effects go to the given store and come back only when the
//! test takes them, time stands still until it is moved. Not part of the product.

use std::cmp::Reverse;
use std::io;
use std::sync::Arc;

use godwit_store::{Completion, Store, View};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;

use crate::own::{Holdings, Layout, Millis};
use crate::role::{Cx, Now, Reply, ReplyTo, RoleId, Tag, unpack};
use crate::router::{Inbox, Router};
use crate::turn::Turn;

/// What a node holds whose lease ends at `until` (milliseconds of the clock that it is given).
pub fn holdings(view: View, until: Millis) -> Holdings {
    let holdings = Holdings::new(Layout::PRODUCT);
    holdings.move_to(view);
    holdings.act_until(until);
    holdings
}

/// One worker, number 0 of 1, driven by a test.
pub struct Harness {
    turn: Turn,
    _poll: mio::Poll,
}

impl Harness {
    /// A worker on `store`, whose port 0 it registers; time is 1,000 ms (mono) and `unix_ms`.
    pub fn new(store: Arc<dyn Store>, unix_ms: u64) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let inbox = Arc::new(Inbox::new(mio::Waker::new(
            poll.registry(),
            mio::Token(usize::MAX),
        )?));
        let router = Router::new(vec![inbox.clone()]);
        store.register(0, inbox);
        let mut turn = Turn::new(0, router, poll.registry().try_clone()?, store);
        turn.hold_all();
        turn.now = Now {
            mono_ms: 1_000,
            unix_ms,
        };
        Ok(Self { turn, _poll: poll })
    }

    /// Calls a role.
    pub fn with<T>(&mut self, role: RoleId, call: impl FnOnce(&mut Cx<'_>) -> T) -> T {
        self.turn.health = self.turn.store_health();
        call(&mut Cx {
            turn: &mut self.turn,
            role,
        })
    }

    /// Whether the calendar is far off the other members'.
    pub fn doubt_clock(&mut self, doubts: bool) {
        self.turn.calendar.doubted = doubts;
    }

    /// By so much the members' time may be later than this node's.
    pub fn may_be_later(&mut self, later_ms: u64) {
        self.turn.calendar.later_ms = later_ms;
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.turn.now
    }

    /// Moves time on.
    pub fn advance(&mut self, ms: u64) {
        self.turn.now.mono_ms += ms;
        self.turn.now.unix_ms += ms;
    }

    /// The next command that was asked or told, in order.
    pub fn take_command(&mut self) -> Option<(Key, Command, Reply)> {
        let envelope = self.turn.take_local()?;
        Some((envelope.key, envelope.command, envelope.reply))
    }

    /// The next answer to a role of this worker.
    pub fn take_answer(&mut self) -> Option<(Tag, Answer)> {
        let (tag, answer) = self.turn.take_local_answer()?;
        Some((unpack(tag).1, answer))
    }

    /// The next [`Cx::enter`].
    pub fn take_entry(&mut self) -> Option<(Key, Tag)> {
        self.turn.take_entry().map(|(_, key, tag)| (key, tag))
    }

    /// What the store has completed since; tickets are the role's tags again.
    pub fn take_completions(&mut self) -> Vec<Completion> {
        let mut taken = std::mem::take(&mut self.turn.inbox().lock().completions);
        for completion in &mut taken {
            let (Completion::Written { ticket, .. } | Completion::Read { ticket, .. }) = completion;
            *ticket = unpack(*ticket).1;
        }
        taken
    }

    /// The next timer that is due.
    pub fn take_timer(&mut self) -> Option<Tag> {
        let now = self.turn.now.mono_ms;
        let timers = self.turn.timers();
        if timers.peek().is_none_or(|Reverse((due, _))| *due > now) {
            return None;
        }
        timers.pop().map(|Reverse((_, tag))| unpack(tag).1)
    }

    /// How long until the next timer, milliseconds.
    pub fn next_timer(&mut self) -> Option<u64> {
        let now = self.turn.now.mono_ms;
        self.turn
            .timers()
            .peek()
            .map(|Reverse((due, _))| due.saturating_sub(now))
    }

    /// A reply and where its answer comes out.
    pub fn reply() -> (Reply, tokio::sync::oneshot::Receiver<Answer>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Reply(ReplyTo::Outside(sender)), receiver)
    }
}
