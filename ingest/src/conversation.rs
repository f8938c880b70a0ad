//! The state of one conversation in memory: a cache of its rows and log that can be dropped whenever nothing is under
//! way. Pure data; what happens to it is in the files beside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use godwit_cluster::Reply;
use godwit_wire::command::{LoggedEntry, Send, SendIdentity, Sent};
use godwit_wire::ids::{ConversationId, UserId};

use crate::members::Members;
use crate::rows::{InfoRow, WatermarkRow};

/// Names of the newest sends kept in memory, so that most retries need no read.
const RECENT: usize = 16;
/// Most positions under way in one conversation: beyond it sends are refused as unavailable and come again.
pub(crate) const IN_FLIGHT: usize = 4_096;
/// Most sends waiting for the look-up of their id.
pub(crate) const PENDING: usize = 4_096;

/// Most who wait for one position: retries of who gave up waiting.
pub(crate) const WAITERS: usize = 64;

/// First 16 bytes of a SHA-256 over what a sender asked for.
pub(crate) type Digest = [u8; 16];

/// A confirmed or numbered send, by what names it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) sender: UserId,
    pub(crate) identity: SendIdentity,
    pub(crate) digest: Digest,
    pub(crate) sent: Sent,
    /// Pending sends with a smaller number looked their id up before this one was numbered.
    pub(crate) until: u64,
}

/// Who waits for a position to be fanned out.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Answered `Sent`.
    Send(Reply, Sent),
    /// Answered `Done`.
    Change(Reply),
}

/// A position that has a number and is not yet fanned out to all.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) entry: Arc<LoggedEntry>,
    /// Its row is durable.
    pub(crate) stored: bool,
    /// It was offered to everybody it is for.
    pub(crate) offered: bool,
    /// Offers (and for membership changes, words to the accounts) not yet answered.
    pub(crate) outstanding: usize,
    pub(crate) waiters: Vec<Waiter>,
    /// When it got its number, for the acknowledge latency.
    pub(crate) since_ms: u64,
}

/// Whether a send's id was met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Its row is being read.
    Reading,
    /// There is no row.
    New,
    /// It has this position.
    At(u64),
    /// The read failed: refused as unavailable.
    Failed,
}

/// A send that waits for the look-up of its id; they are numbered in the order of arrival.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) send: Box<Send>,
    pub(crate) digest: Digest,
    pub(crate) reply: Reply,
    pub(crate) check: Check,
}

/// Where a conversation stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There are no rows of it.
    Absent,
    /// It is being made: sends wait.
    Making,
    /// It is there.
    Ready,
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    pub(crate) phase: Phase,
    pub(crate) info: InfoRow,
    pub(crate) members: Members,
    pub(crate) blocked_by: BTreeSet<UserId>,
    pub(crate) watermarks: BTreeMap<UserId, WatermarkRow>,
    /// Last number given.
    pub(crate) head: u64,
    /// Everything up to here is durable.
    pub(crate) confirmed: u64,
    /// Positions `head - flight.len() + 1 ..= head`.
    pub(crate) flight: VecDeque<Flight>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) next_pending: u64,
    recent: VecDeque<Known>,
    /// Offers that were refused and come again, by user in order.
    pub(crate) refused_offers: BTreeSet<(UserId, u64)>,
    /// It is among those whose refused offers come again with the timer.
    pub(crate) offers_queued: bool,
    pub(crate) last_created_at: u64,
    /// Its row in the list of open tails is there: written by this home, and not removed since.
    pub(crate) tail_listed: bool,
    /// The row may be there, of this home or an earlier one.
    pub(crate) tail_maybe_listed: bool,
    /// The stored fan-out mark.
    pub(crate) mark: u64,
    /// The search index has everything up to here, as far as it said.
    pub(crate) indexed: u64,
    /// How far it was confirmed when the search index was told once more.
    pub(crate) told_again: u64,
    pub(crate) unstored_watermarks: BTreeSet<UserId>,
    pub(crate) untold_watermarks: BTreeSet<UserId>,
    /// Steps under way that must find the state when they end.
    pub(crate) busy: usize,
    pub(crate) last_used_ms: u64,
    /// Rows that a batch of a former owner may have left behind are being stored, in so many batches: until then nothing is
    /// acknowledged, and neither mark nor head move over them.
    pub(crate) restoring: usize,
    /// Whose member rows are not what the log says.
    pub(crate) unlike_log: BTreeSet<UserId>,
    /// There was nothing of it, so nothing was taken up: it is, before anything is made.
    pub(crate) not_taken_up: bool,
    /// Some of what is stored of it cannot be read: nothing is written to it.
    pub(crate) damaged: bool,
}

impl Conversation {
    pub(crate) fn new(id: ConversationId) -> Self {
        Self {
            id,
            phase: Phase::Absent,
            info: InfoRow::default(),
            members: Members::default(),
            blocked_by: BTreeSet::new(),
            watermarks: BTreeMap::new(),
            head: 0,
            confirmed: 0,
            flight: VecDeque::new(),
            pending: VecDeque::new(),
            next_pending: 0,
            recent: VecDeque::new(),
            refused_offers: BTreeSet::new(),
            offers_queued: false,
            last_created_at: 0,
            tail_listed: false,
            tail_maybe_listed: false,
            mark: 0,
            indexed: 0,
            told_again: 0,
            unstored_watermarks: BTreeSet::new(),
            untold_watermarks: BTreeSet::new(),
            busy: 0,
            restoring: 0,
            unlike_log: BTreeSet::new(),
            not_taken_up: false,
            last_used_ms: 0,
            damaged: false,
        }
    }

    /// Everything up to here is fanned out.
    pub(crate) fn fanned_out(&self) -> u64 {
        self.head - self.flight.len() as u64
    }

    pub(crate) fn flight_at(&mut self, position: u64) -> Option<&mut Flight> {
        let first = self.fanned_out() + 1;
        let index = usize::try_from(position.checked_sub(first)?).ok()?;
        self.flight.get_mut(index)
    }

    pub(crate) fn remember(&mut self, known: Known) {
        // A position in flight stays known, however many they are: its row may not be readable yet. So does one that a
        // send still waiting may be a repeat of, which found no row when it looked.
        let fanned_out = self.fanned_out();
        let waiting = self
            .pending
            .front()
            .map_or(self.next_pending, |pending| pending.number);
        while self.recent.len() >= RECENT
            && self
                .recent
                .front()
                .is_some_and(|oldest| oldest.sent.sequence_number <= fanned_out && oldest.until <= waiting)
        {
            self.recent.pop_front();
        }
        self.recent.push_back(known);
    }

    pub(crate) fn recall(&self, sender: UserId, identity: &SendIdentity) -> Option<&Known> {
        self.recent
            .iter()
            .rev()
            .find(|known| known.sender == sender && known.identity == *identity)
    }

    /// The send that has this position, while it is known.
    pub(crate) fn recent_at(&self, position: u64) -> Option<&Known> {
        // They are remembered in the order of their positions.
        let below = |known: &Known| known.sent.sequence_number < position;
        let found = self.recent.get(self.recent.partition_point(below))?;
        (found.sent.sequence_number == position).then_some(found)
    }

    /// Whether it may be dropped from memory.
    pub(crate) fn is_quiet(&self) -> bool {
        self.busy == 0
            && self.flight.is_empty()
            && self.pending.is_empty()
            && self.unstored_watermarks.is_empty()
            && self.untold_watermarks.is_empty()
    }

    /// Whether the user may send here now.
    pub(crate) fn may_send(&self, user: UserId) -> bool {
        self.members.current(user).is_some()
            && !self
                .blocked_by
                .iter()
                .any(|blocker| *blocker != user && !self.info.group)
    }
}
