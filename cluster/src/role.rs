//! The contract between the worker loop and the roles that live in it (accounts, broker, ingest). A role owns the
//! state of its keys on one worker; it does no blocking, reads no clock and reaches other keys only by [`Cx::ask`].

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::coordination::StartId;
use godwit_store::{Op, Outcome, Read, ReadAnswer, Scope, View};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;

use crate::own::Standing;
use crate::peers::Pipe;
use crate::router::Router;
use crate::turn::Turn;

/// Which role of a worker a command, a completion or a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RoleId {
    /// `Command::Account`.
    Accounts = 0,
    /// `Command::User` and `Command::Topic`; gets the worker's sockets.
    Broker = 1,
    /// `Command::Conversation` and `Command::Search`.
    Ingest = 2,
}

impl RoleId {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// Who takes this command.
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Account(_) => Self::Accounts,
            Command::User(_) | Command::Topic(_) => Self::Broker,
            Command::Conversation(_) | Command::Search(_) => Self::Ingest,
        }
    }
}

/// A number of the role's own choice that comes back with a completion, an answer or a timer. Below 2^56: the loop
/// keeps the role in the upper bits.
pub type Tag = u64;

/// Where an answer goes. Exactly one [`Cx::answer`] per reply; one that is dropped, as by [`Role::given_up`], is answered
/// `unavailable`: what it was about may have been done.
#[derive(Debug)]
#[must_use]
pub struct Reply(pub(crate) ReplyTo);

#[derive(Debug)]
pub(crate) enum ReplyTo {
    /// Nobody waits (a tell).
    Nobody,
    /// A role of a worker of this node.
    Worker { worker: u16, tag: u64 },
    /// Another node, under the id of its request.
    Peer { node: StartId, id: u64 },
    /// A caller outside the workers.
    Outside(tokio::sync::oneshot::Sender<Answer>),
}

impl Reply {
    /// A reply that nobody waits for.
    pub fn nobody() -> Self {
        Self(ReplyTo::Nobody)
    }

    /// Who is to be answered; from then on nobody.
    pub(crate) fn take(&mut self) -> ReplyTo {
        std::mem::replace(&mut self.0, ReplyTo::Nobody)
    }

    /// Whether nobody waits for it.
    pub fn is_nobody(&self) -> bool {
        matches!(self.0, ReplyTo::Nobody)
    }
}

thread_local! {
    /// Whom the worker of this thread did not answer: what it knew of a slot was dropped.
    static DROPPED: RefCell<Vec<ReplyTo>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let to @ (ReplyTo::Worker { .. } | ReplyTo::Peer { .. }) = self.take() {
            // At the very end of a thread there is nobody left to answer.
            let _ = DROPPED.try_with(|dropped| dropped.borrow_mut().push(to));
        }
    }
}

/// Those that were dropped on this thread since the last call.
pub(crate) fn take_dropped() -> Vec<ReplyTo> {
    DROPPED.with(|dropped| std::mem::take(&mut *dropped.borrow_mut()))
}

/// What a role did with a command.
#[derive(Debug)]
pub enum Flow {
    /// Taken; the reply is answered now or later.
    Taken,
    /// The key's state is not in memory. The loop reads, parks this and every later command and entry for the key
    /// (at most [`crate::PARKED_PER_KEY`], then `unavailable`), calls [`Role::loaded`], then applies the parked ones in order.
    Load {
        /// Given back.
        command: Command,
        /// Given back.
        reply: Reply,
        /// What to read.
        reads: Vec<Read>,
    },
}

/// What a role says to the rows it asked for.
#[derive(Debug)]
pub enum Loading {
    /// The state is in memory now.
    Ready,
    /// Read these too, then call again.
    More(Vec<Read>),
}

/// Time as the loop saw it at the start of this turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds that only grow, from an arbitrary start.
    pub mono_ms: u64,
    /// Milliseconds since 1970: in a cluster by the members' calendars, where the node's own is far off them.
    pub unix_ms: u64,
}

/// A role on one worker. Every call comes from the worker's own thread.
pub trait Role {
    /// Takes a command for a key that this worker owns.
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow;

    /// The rows asked for by [`Flow::Load`] or [`Role::enter`], one answer a read, in order.
    fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading;

    /// The reads failed. The loop answers the parked commands `unavailable`; parked entries are dropped after this
    /// call, so the role must give up whatever waited on them.
    fn load_failed(&mut self, cx: &mut Cx<'_>, key: &Key);

    /// What [`Cx::enter`] asked for: called when no load of the key is under way. `Some(reads)` loads first and calls
    /// again.
    fn enter(&mut self, cx: &mut Cx<'_>, key: &Key, tag: Tag) -> Option<Vec<Read>> {
        let _ = (cx, key, tag);
        None
    }

    /// A batch of [`Cx::store`] was completed. `Unknown` comes only while the engine closes, or
    /// when the shard is another's and [`Role::given_up`] is to come: answer nothing.
    fn stored(&mut self, cx: &mut Cx<'_>, tag: Tag, outcome: Outcome);

    /// The answer to [`Cx::read`]. `None`: the reads failed for now.
    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        let _ = (cx, tag, answers);
    }

    /// The answer to [`Cx::ask`].
    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer);

    /// A timer of [`Cx::after`] is due.
    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        let _ = (cx, tag);
    }

    /// The worker begins; it owns nothing yet.
    fn started(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// The worker owns these shards of the role's kind of home from now on, in this view. On one node called once, at its
    /// start, for all of them.
    fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16], view: View);

    /// The worker no longer owns these shards of the role's kind of home: everything about them is dropped, with the
    /// replies that wait, and nothing more is answered. Completions and answers of before may still come, and must find nothing.
    fn given_up(&mut self, cx: &mut Cx<'_>, shards: &[u16], view: View);

    /// Members or owners are others, or this node is a new start: [`Cx::members`] and [`Cx::me`] say so. Not called on a
    /// node that is alone.
    fn stands(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// The other side of a registered socket will send no more, or the socket failed: told right before [`Role::io`],
    /// which is the last readiness for it, so it must be read to its end. Broker only.
    fn io_ended(&mut self, cx: &mut Cx<'_>, token: mio::Token) {
        let _ = (cx, token);
    }

    /// A registered socket is ready (edge-triggered). Broker only.
    fn io(&mut self, cx: &mut Cx<'_>, token: mio::Token, readable: bool, writable: bool) {
        let _ = (cx, token, readable, writable);
    }

    /// Something handed over by [`Cx::hand_over`] or [`Router::hand_over`](crate::Router::hand_over).
    fn handed(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        let _ = (cx, item);
    }

    /// The lease of the node is over: nothing else of this role is called until it is back, but to let slots go. Called each 20 ms. Nothing may be said that a
    /// successor could contradict, nothing stored or asked. `over_ms`: for how long it has been over. `handed`: what was handed to the role meanwhile; what is
    /// left in it comes again, and to [`Role::handed`] when the lease is back. Broker only.
    fn lapsed(&mut self, cx: &mut Cx<'_>, over_ms: u64, handed: &mut Vec<Box<dyn Any + Send>>) {
        let _ = (cx, over_ms, handed);
    }

    /// Whether the end of this turn has enough to do: requests wait for the next one then, as they do when their part of the time is over.
    fn has_enough(&self) -> bool {
        false
    }

    /// Everything of this turn was dispatched: write what gathered. Called only after turns that did something.
    fn end_of_turn(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// What can wait, a part of it: called after [`Role::end_of_turn`], when what gathered in the turn was written and given to others. Whether it left
    /// something to write: the next turn begins at once then. Broker only.
    fn after_turn(&mut self, cx: &mut Cx<'_>) -> bool {
        let _ = cx;
        false
    }

    /// The process ends: tell clients, store what was lazy. The loop goes on until [`Role::quiet`] or its deadline.
    fn shut_down(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Whether nothing is outstanding that a shutdown should wait for.
    fn quiet(&self) -> bool {
        true
    }
}

/// What a role may do during a call. Effects take place in the order given.
pub struct Cx<'a> {
    pub(crate) turn: &'a mut Turn,
    pub(crate) role: RoleId,
}

impl Cx<'_> {
    /// The time of this turn.
    pub fn now(&self) -> Now {
        self.turn.now
    }

    /// The role has more to do than it may in a turn: there is another one, with its end, once everybody else has had theirs.
    pub fn again(&mut self) {
        self.turn.again = true;
    }

    /// Under what is written for this key: its slot, and the view in which the worker took that up. The key must be
    /// one that the worker holds.
    pub fn scope(&self, key: &Key) -> Scope {
        self.turn.scope(key)
    }

    /// The time by which something may be called over, milliseconds since 1970: 0 while this node's calendar is far off the other members', so that what
    /// ends by time ends late rather than early.
    pub fn expiry_ms(&self) -> u64 {
        if self.turn.calendar.doubted {
            0
        } else {
            self.turn.now.unix_ms
        }
    }

    /// The time from which something is to last, milliseconds since 1970: [`Now::unix_ms`], or later where nobody knows which of the members' calendars
    /// is right. What is written so and judged by any of them ends late rather than early.
    pub fn stamp_ms(&self) -> u64 {
        self.turn.now.unix_ms.saturating_add(self.turn.calendar.later_ms)
    }

    /// The view in which the worker took up this key's shard.
    pub fn view_of(&self, key: &Key) -> View {
        self.turn.scope(key).view
    }

    /// This worker's number.
    pub fn worker(&self) -> u16 {
        self.turn.worker
    }

    /// How many workers this node has.
    pub fn workers(&self) -> u16 {
        self.turn.router.workers()
    }

    /// Whether this worker holds the key, one of those that would be its own.
    pub fn holds(&self, key: &Key) -> bool {
        self.turn.holds(crate::turn::slot_of(key))
    }

    /// Whether this node is to hold the key: it waits for a former owner, or for its turn.
    pub fn awaits(&self, key: &Key) -> bool {
        let away = self.turn.away.as_ref();
        away.is_some_and(|away| away.awaits(crate::turn::slot_of(key)))
    }

    /// The start of this node in its cluster, once it is told.
    pub fn me(&self) -> Option<StartId> {
        self.turn.away.as_ref()?.me()
    }

    /// The members of the view that this worker was told of last, this node among them once it is one; none on a node
    /// that is alone.
    pub fn members(&self) -> Vec<StartId> {
        let away = self.turn.away.as_ref();
        away.map_or_else(Vec::new, |away| away.members().collect())
    }

    /// The view that this worker was told of last; none on a node that is alone.
    pub fn standing(&self) -> Option<Arc<Standing>> {
        self.turn.away.as_ref()?.standing()
    }

    /// Where MQTT clients reach the node that holds a key, if another one does and says so.
    pub fn reference_of(&self, key: &Key) -> Option<Arc<str>> {
        let away = self.turn.away.as_ref()?;
        away.reference(crate::turn::slot_of(key))
    }

    /// Where MQTT clients reach this node, if it is one of several and says so.
    pub fn own_reference(&self) -> Option<Arc<str>> {
        self.turn.away.as_ref()?.own_reference()
    }

    /// Whether a node is a member of the view that this worker was told of last, and does not leave.
    pub fn stays(&self, node: StartId) -> bool {
        self.turn.away.as_ref().is_some_and(|away| away.stays(node))
    }

    /// Whether this node is one of several.
    pub fn is_clustered(&self) -> bool {
        self.turn.away.is_some()
    }

    /// A way for a client's bytes to the node that holds a key, which is told `about` it.
    ///
    /// # Errors
    /// Nobody is known to hold it, or it is to be this node's, or that node cannot be reached now.
    pub fn splice(&self, key: &Key, about: Bytes) -> io::Result<Box<dyn Pipe>> {
        let away = self.turn.away.as_ref().ok_or(io::ErrorKind::NotFound)?;
        away.splice(crate::turn::slot_of(key), about)
    }

    /// The handle by which other threads give this worker something ([`Router::hand_over`]).
    pub fn router(&self) -> &Router {
        &self.turn.router
    }

    /// Which worker owns a key, if this node does.
    pub fn worker_of(&self, key: &Key) -> u16 {
        self.turn.router.worker_of(key)
    }

    /// Submits writes as one batch, all of them about `key`; [`Role::stored`] gets `tag`.
    pub fn store(&mut self, key: &Key, tag: Tag, ops: Vec<Op>) {
        self.turn.store(self.role, key, tag, ops);
    }

    /// Asks for reads; [`Role::read`] gets `tag`.
    pub fn read(&mut self, tag: Tag, reads: Vec<Read>) {
        self.turn.read(self.role, tag, reads);
    }

    /// Whether everything that this worker has submitted so far is in the order of an engine whose commits have one:
    /// then nothing that any worker submits from now on is durable without it. `false` while a batch is kept back
    /// because the engine is busy: another worker's may get in before it.
    pub fn totally_ordered(&self) -> bool {
        self.turn.totally_ordered()
    }

    /// Asks another home; [`Role::answered`] gets `tag`. Asks of one worker to one key arrive in order.
    pub fn ask(&mut self, tag: Tag, key: Key, command: Command) {
        let worker = self.turn.worker;
        let tag = pack(self.role, tag);
        self.turn
            .send(key, command, Reply(ReplyTo::Worker { worker, tag }));
    }

    /// Tells another home something; nobody waits for the answer.
    pub fn tell(&mut self, key: Key, command: Command) {
        self.turn.send(key, command, Reply::nobody());
    }

    /// Sends a command on with the reply it came with: to another home, or to its own once more.
    pub fn redirect(&mut self, key: Key, command: Command, reply: Reply) {
        self.turn.send(key, command, reply);
    }

    /// Answers.
    pub fn answer(&mut self, reply: Reply, answer: Answer) {
        self.turn.answer(reply, answer);
    }

    /// Calls [`Role::enter`] of this role for `key`, which must be one of this worker's, as soon as the key is loaded;
    /// in order with the commands for it.
    pub fn enter(&mut self, key: Key, tag: Tag) {
        self.turn.enter(self.role, key, tag);
    }

    /// Calls [`Role::timer`] with `tag` in about `ms` milliseconds (never early). Cannot be taken back: the role
    /// checks whether it still matters.
    pub fn after(&mut self, ms: u64, tag: Tag) {
        self.turn.after(self.role, ms, tag);
    }

    /// Gives something to this role on another worker (a connection whose user lives there).
    pub fn hand_over(&mut self, worker: u16, item: Box<dyn Any + Send>) {
        self.turn.hand_over(worker, self.role, item);
    }

    /// Whether work piles up behind this worker (store busy, another worker's queue full): read no more from clients
    /// until a later turn says otherwise.
    pub fn congested(&self) -> bool {
        self.turn.congested()
    }

    /// Whether so much is kept back that new work must be refused as `unavailable`: what came in before clients stopped
    /// being read, and calls from outside, which nothing else stops.
    pub fn overfull(&self) -> bool {
        self.turn.overfull()
    }

    /// Where sockets are registered. Token `usize::MAX` is the loop's own.
    pub fn registry(&self) -> &mio::Registry {
        &self.turn.registry
    }

    /// Whether writes go through (a store that fails or is short of space refuses sends early).
    pub fn health(&self) -> godwit_store::Health {
        self.turn.health
    }
}

const TAG_BITS: u32 = 56;

pub(crate) fn pack(role: RoleId, tag: Tag) -> u64 {
    debug_assert!(tag >> TAG_BITS == 0, "tags are below 2^56");
    (u64::from(role as u8) << TAG_BITS) | tag
}

pub(crate) fn unpack(packed: u64) -> (usize, Tag) {
    ((packed >> TAG_BITS) as usize, packed & ((1 << TAG_BITS) - 1))
}
