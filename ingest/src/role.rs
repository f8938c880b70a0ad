//! The role: which step a command, a completion or an answer belongs to. The steps themselves are in the files beside.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Tag};
use godwit_store::{Outcome, Read, ReadAnswer, View};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, ConversationCommand};
use godwit_wire::ids::{ConversationId, Key, UserId};
use slab::Slab;

use crate::announce::Announcing;
use crate::conversation::{Conversation, Phase};
use crate::create::Creation;
use crate::metrics::Metrics;
use crate::read::Reading;
use crate::searching::{Finding, Searching};

/// Told whenever more of a conversation is confirmed: `(conversation, shard, confirmed up to)`. Must not block.
pub type Confirmed = Arc<dyn Fn(ConversationId, u16, u64) + Send + Sync>;

/// What the bridge needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where the search index hears of new entries; `None`: nothing is indexed, tails close without it.
    pub confirmed: Option<Confirmed>,
    /// What other nodes ask of this node's search index; `None`: it is answered `unavailable`.
    pub searching: Option<Searching>,
    /// How long a conversation stays in memory after its last use, milliseconds.
    pub idle_ms: u64,
    /// Most conversations in memory on a worker before the least used quiet ones are dropped early.
    pub loaded: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            confirmed: None,
            searching: None,
            idle_ms: 10_000,
            loaded: 100_000,
        }
    }
}

/// A step under way; the tag of its read, write or ask is its place in the slab.
#[derive(Debug)]
pub(crate) enum Step {
    /// The look-up of a pending send's id.
    Check(ConversationId, u64),
    /// The row of a position.
    Stored(ConversationId, u64),
    /// An offer of a position to a user.
    Offer(ConversationId, u64, UserId),
    /// Word of a membership change to the accounts of its user.
    Membership(ConversationId, u64, UserId),
    /// A write whose end is answered so.
    Write(ConversationId, Reply, Box<Answer>),
    /// A lazy write: nobody waits, but the state stays until it ended.
    Lazy(ConversationId),
    /// Rows that a former owner may not have stored.
    Restored(ConversationId),
    /// A step of making a conversation.
    Making(ConversationId),
    /// The question to who is to be taken in, before the change gets a number.
    Ask(ConversationId, Reply, Box<ConversationCommand>),
    /// The row of a new name or description.
    Changed(ConversationId, Box<Announcing>),
    /// Word of it to a member's mailbox.
    Noted(ConversationId, u64),
    /// The conversation's entering in that user's list, before the change gets a number.
    Join(ConversationId, Reply, Box<ConversationCommand>),
    /// A read for an answer.
    Reading(Box<Reading>),
    /// Pages of the lists of open tails.
    Tails(Vec<u16>),
    /// What it was for was given up.
    Void,
}

/// Timers carry one of these numbers.
pub(crate) const TIMER_SWEEP: Tag = 0;
pub(crate) const TIMER_RECEIPTS: Tag = 1;
pub(crate) const TIMER_OFFERS: Tag = 2;
pub(crate) const TIMER_TAILS: Tag = 3;

/// The ingest bridge on one worker.
pub struct Ingest {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) conversations: HashMap<ConversationId, Conversation>,
    pub(crate) steps: Slab<Step>,
    pub(crate) creations: HashMap<ConversationId, Creation>,
    /// Changes of groups that their members are being told of.
    pub(crate) announcements: HashMap<u64, Box<Announcing>>,
    pub(crate) next_announcement: u64,
    /// Conversations with an open tail that were not yet looked at after the take-up.
    pub(crate) tails: VecDeque<ConversationId>,
    /// Those of them that are being loaded.
    pub(crate) loading_tails: HashSet<ConversationId>,
    /// Those that could not be loaded: the next sweep tries again.
    pub(crate) failed_tails: Vec<ConversationId>,
    /// Shards whose lists are still to be read; the next sweep tries again what could not be.
    pub(crate) unread_shards: VecDeque<u16>,
    /// Reads of lists under way.
    pub(crate) reading_tails: usize,
    pub(crate) tails_timer: bool,
    pub(crate) receipts_timer: bool,
    pub(crate) offers_timer: bool,
    /// Conversations with refused offers.
    pub(crate) refused: VecDeque<ConversationId>,
    /// Words to the accounts that did not get there.
    pub(crate) refused_words: Vec<(ConversationId, u64, UserId)>,
    /// Conversations with watermarks to tell.
    pub(crate) untold: Vec<ConversationId>,
    /// Other nodes' searches.
    pub(crate) finding: Finding,
}

impl Ingest {
    /// A bridge without conversations; they are loaded as they are spoken to.
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self {
            config,
            metrics,
            conversations: HashMap::new(),
            steps: Slab::new(),
            creations: HashMap::new(),
            announcements: HashMap::new(),
            next_announcement: 0,
            tails: VecDeque::new(),
            loading_tails: HashSet::new(),
            failed_tails: Vec::new(),
            unread_shards: VecDeque::new(),
            reading_tails: 0,
            tails_timer: false,
            receipts_timer: false,
            offers_timer: false,
            refused: VecDeque::new(),
            refused_words: Vec::new(),
            untold: Vec::new(),
            finding: Finding::default(),
        }
    }

    pub(crate) fn step(&mut self, step: Step) -> Tag {
        self.steps.insert(step) as Tag
    }

    fn end_step(&mut self, tag: Tag) -> Option<Step> {
        usize::try_from(tag)
            .ok()
            .and_then(|place| self.steps.try_remove(place))
    }
}

impl Role for Ingest {
    fn apply(&mut self, cx: &mut Cx<'_>, key: &Key, command: Command, reply: Reply) -> Flow {
        let (Key::Conversation(id), Command::Conversation(_)) = (key, &command) else {
            match command {
                Command::Search(command) => self.search(cx, *command, reply),
                _ => cx.answer(reply, Answer::Refused(Refusal::not_found())),
            }
            return Flow::Taken;
        };
        let loaded = self.conversations.get_mut(id);
        // Rows without a log that was taken up: it is taken up now, whatever is asked.
        let half = |c: &Conversation| c.not_taken_up && c.phase != Phase::Absent;
        let makes = may_make(&command) || loaded.as_deref().is_some_and(half);
        let Some(conversation) = loaded.filter(|c| !(makes && c.not_taken_up)) else {
            return Flow::Load {
                command,
                reply,
                reads: Self::load_reads(*id, cx.scope(key), makes),
            };
        };
        conversation.last_used_ms = cx.now().mono_ms;
        if let Command::Conversation(command) = command {
            self.command(cx, *id, command, reply);
        }
        // What nobody made is not kept: asking for random ids must cost nothing that stays.
        let nothing = |c: &Conversation| c.phase == Phase::Absent && !c.damaged && c.is_quiet();
        if self.conversations.get(id).is_some_and(nothing) {
            self.conversations.remove(id);
        }
        Flow::Taken
    }

    fn loaded(&mut self, cx: &mut Cx<'_>, key: &Key, answers: Vec<ReadAnswer>) -> Loading {
        if let Key::Conversation(id) = key {
            self.install(*id, answers, cx.now().mono_ms);
            self.resume(cx, *id);
        }
        Loading::Ready
    }

    fn load_failed(&mut self, _cx: &mut Cx<'_>, key: &Key) {
        if let Key::Conversation(id) = key {
            self.tail_load_failed(*id);
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_>, key: &Key, _tag: Tag) -> Option<Vec<Read>> {
        let Key::Conversation(id) = key else { return None };
        if !self.conversations.contains_key(id) {
            return Some(Self::load_reads(*id, cx.scope(key), true));
        }
        self.tail_loaded(*id);
        None
    }

    fn stored(&mut self, cx: &mut Cx<'_>, tag: Tag, outcome: Outcome) {
        let Some(step) = self.end_step(tag) else { return };
        if outcome == Outcome::Unknown {
            // The engine closes: nobody is told anything.
            return;
        }
        match step {
            Step::Void => {}
            Step::Stored(id, position) => self.row_stored(cx, id, position),
            Step::Write(id, reply, answer) => {
                self.release(id);
                cx.answer(reply, *answer);
            }
            Step::Lazy(id) => self.release(id),
            Step::Restored(id) => self.restored(cx, id),
            Step::Making(id) => self.made(cx, id),
            Step::Changed(id, change) => self.tell_change(cx, id, change),
            _ => tracing::error!("a write ended that nobody began"),
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>, tag: Tag, answers: Option<Vec<ReadAnswer>>) {
        match self.end_step(tag) {
            Some(Step::Void) => {}
            Some(Step::Check(id, number)) => self.checked(cx, id, number, answers),
            Some(Step::Reading(reading)) => self.has_read(cx, *reading, answers),
            Some(Step::Tails(shards)) => self.tails_read(cx, &shards, answers),
            _ => tracing::error!("a read ended that nobody began"),
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_>, tag: Tag, answer: Answer) {
        match self.end_step(tag) {
            Some(Step::Void) => {}
            Some(Step::Offer(id, position, user)) => self.offer_answered(cx, id, position, user, &answer),
            Some(Step::Membership(id, position, user)) => {
                self.membership_answered(cx, id, position, user, &answer);
            }
            Some(Step::Making(id)) => self.making_answered(cx, id, answer),
            Some(Step::Noted(id, number)) => self.change_told(cx, id, number, &answer),
            Some(Step::Ask(id, reply, command)) => self.asked(cx, id, reply, *command, answer),
            Some(Step::Join(id, reply, command)) => self.joined(cx, id, reply, &command, answer),
            _ => tracing::error!("an answer came that nobody asked for"),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, tag: Tag) {
        match tag {
            TIMER_SWEEP => self.sweep(cx),
            TIMER_RECEIPTS => self.tell_receipts(cx),
            TIMER_OFFERS => self.offer_again(cx),
            TIMER_TAILS => {
                self.tails_timer = false;
                self.load_tails(cx);
            }
            _ => {}
        }
    }

    fn started(&mut self, cx: &mut Cx<'_>) {
        cx.after(crate::tail::SWEEP_MS, TIMER_SWEEP);
    }

    fn taken_up(&mut self, cx: &mut Cx<'_>, shards: &[u16], _view: View) {
        self.read_tails(cx, shards);
    }

    fn given_up(&mut self, _cx: &mut Cx<'_>, shards: &[u16], _view: View) {
        self.give_up(&shards.iter().copied().collect());
    }

    fn handed(&mut self, cx: &mut Cx<'_>, item: Box<dyn Any + Send>) {
        self.searched(cx, item);
    }

    fn shut_down(&mut self, cx: &mut Cx<'_>) {
        self.close_all(cx);
    }

    fn quiet(&self) -> bool {
        self.conversations.values().all(Conversation::is_quiet)
    }
}

/// Whether a conversation may come to be by it.
fn may_make(command: &Command) -> bool {
    use ConversationCommand as C;
    match command {
        Command::Conversation(C::OpenDirect { .. } | C::CreateGroup { .. }) => true,
        Command::Conversation(C::Send(send)) => send.direct_with.is_some(),
        _ => false,
    }
}

impl Ingest {
    fn command(&mut self, cx: &mut Cx<'_>, id: ConversationId, command: ConversationCommand, reply: Reply) {
        use ConversationCommand as C;
        let writes = !matches!(
            command,
            C::Get { .. } | C::History { .. } | C::Visible { .. } | C::Status { .. } | C::Indexed { .. }
        );
        if writes && self.conversations.get(&id).is_some_and(|c| c.damaged) {
            cx.answer(reply, Refusal::unavailable().into());
            return;
        }
        match command {
            C::Send(send) => self.send(cx, id, send, reply),
            C::OpenDirect { by, with } => self.open_direct(cx, id, by, with, reply),
            C::CreateGroup {
                by,
                name,
                description,
                members,
                full_history,
            } => {
                self.create_group(cx, id, by, (name, description), members, full_history, reply);
            }
            C::Change {
                by,
                name,
                description,
            } => self.change(cx, id, by, (name, description), reply),
            C::AddMember { .. } | C::RemoveMember { .. } | C::SetRole { .. } => {
                self.change_membership(cx, id, command, reply);
            }
            C::Get { .. } | C::History { .. } | C::Visible { .. } | C::Status { .. } => {
                self.look(cx, id, command, reply);
            }
            C::Read { by, up_to } => self.watermark_read(cx, id, by, up_to, reply),
            C::Delivered { user, up_to } => self.watermark_delivered(cx, id, user, up_to),
            C::Block { by, user, blocked } => self.block(cx, id, by, user, blocked, reply),
            C::Indexed { up_to } => {
                if let Some(conversation) = self.conversations.get_mut(&id) {
                    conversation.indexed = conversation.indexed.max(up_to);
                    // It may have been dropped from memory while the index lagged.
                    conversation.tail_maybe_listed = true;
                    let confirmed = conversation.confirmed;
                    cx.answer(reply, Answer::Confirmed(confirmed));
                }
            }
        }
    }

    /// A step that held the state in memory ended.
    pub(crate) fn release(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.busy = conversation.busy.saturating_sub(1);
        }
    }

    /// A write whose end is answered; the state stays until then.
    pub(crate) fn write_then(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConversationId,
        ops: Vec<godwit_store::Op>,
        reply: Reply,
        answer: Answer,
    ) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.busy += 1;
        }
        let tag = self.step(Step::Write(id, reply, Box::new(answer)));
        cx.store(&Key::Conversation(id), tag, ops);
    }
}
