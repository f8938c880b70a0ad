//! One start of a node: what it is told and what it does next. Its heartbeat and its lease are `lease.rs`, going from view to view is
//! `moves.rs`, changing the view `changes.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use godwit_store::View;
use godwit_store::coordination::{Changed, Nonce, StartRow, StoredView};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::body::Body;
use super::events::{Action, Event, Me, Standing, Why};
use super::holdings::Holdings;
use super::sightings::Sightings;
use super::{BEAT_MS, HURRY_MS, LEASE_MS, Millis};

/// What members put off the reading of a view by, at most and for each member that there is, so that they do not all read at once.
const SPREAD_MS: Millis = 4;
/// The same if only earlier views were settled and this start waits for none.
const SETTLED_SPREAD_MS: Millis = 20;
// Of the largest view all have followed within the lease.
const _: () = assert!(super::MAX_MEMBERS as Millis * SPREAD_MS < LEASE_MS);

/// What a slot is to this start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Others,
    /// Its own since this view, but a former owner may still act.
    Waiting(View),
    /// Taken up.
    Held(View),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Joining,
    In,
    /// Everything is let go, the last row is not yet written.
    Ending(Why),
    Ended,
}

/// One start of a node.
#[derive(Debug)]
pub struct Member {
    pub(super) me: Me,
    pub(super) about: Bytes,
    pub(super) holdings: Arc<Holdings>,
    pub(super) phase: Phase,
    pub(super) standing: Option<Arc<Standing>>,
    pub(super) slots: Vec<Slot>,
    pub(super) waiting: usize,
    /// While it joins: the view that it found.
    pub(super) found: Option<(StoredView, Body)>,
    /// Return of the SERIAL read that showed the present number.
    pub(super) moved_at: Millis,
    pub(super) seen: Sightings,
    pub(super) confirmed: View,
    pub(super) draining: bool,
    pub(super) want_read: bool,
    pub(super) changing: bool,
    /// The whole view is being read: nothing is changed on what may be old.
    pub(super) reading_whole: bool,
    /// Since when a change is wanted of the view with this nonce.
    pub(super) wanted: Option<(Option<Nonce>, Millis)>,
    /// Attempts to join or change that found another view, in a row.
    pub(super) refused: u32,
    pub(super) now: Millis,
    pub(super) actions: VecDeque<Action>,
    random: u64,

    pub(super) beat: u64,
    pub(super) next_beat: Millis,
    pub(super) write_soon: bool,
    /// When the write under way began and which view it confirms.
    pub(super) writing: Option<(Millis, View)>,
    /// The last heartbeat that is known to be stored, and when that was known.
    pub(super) stored: Option<(u64, Millis)>,
    next_look: Millis,
    reading_starts: Option<Millis>,
    /// They are worth another look as soon as they are read.
    look_again: bool,
    reading_view: Option<Millis>,
    /// A failed read of the view is not repeated at once.
    no_read_before: Millis,
    /// Begin of the last read of the view that was answered.
    pub(super) view_begun: Millis,
    pub(super) lease_until: Millis,
    /// A heartbeat that came after the lease had ended: good from the next read of the view begun after its return.
    pub(super) renewed: Option<(Millis, Millis)>,
    #[cfg(feature = "planted-bugs")]
    pub(super) bugs: super::Bugs,
}

impl Member {
    /// A start that will join. `random` should differ between starts; it only spreads attempts in time.
    pub fn new(me: Me, holdings: Arc<Holdings>, random: u64, now: Millis) -> Self {
        let slots = holdings.layout().slots();
        Self {
            about: me.about.encode(),
            me,
            phase: Phase::Joining,
            standing: None,
            slots: vec![Slot::Others; slots],
            waiting: 0,
            found: None,
            moved_at: now,
            seen: Sightings::default(),
            confirmed: 0,
            draining: false,
            want_read: true,
            changing: false,
            reading_whole: false,
            wanted: None,
            refused: 0,
            now,
            actions: VecDeque::new(),
            random,
            beat: 0,
            next_beat: now,
            write_soon: false,
            writing: None,
            stored: None,
            next_look: now,
            reading_starts: None,
            look_again: false,
            reading_view: None,
            no_read_before: now,
            view_begun: now,
            lease_until: 0,
            renewed: None,
            holdings,
            #[cfg(feature = "planted-bugs")]
            bugs: super::Bugs::default(),
        }
    }

    /// Who this is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The view it stands in; `None` before it was taken into one.
    pub fn standing(&self) -> Option<&Arc<Standing>> {
        self.standing.as_ref()
    }

    /// Takes in what happened at `now`, which never runs back.
    pub fn handle(&mut self, now: Millis, event: Event) {
        self.now = self.now.max(now);
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::Tick => {}
            Event::Wrote(stored) => self.wrote(stored),
            Event::Starts(rows) => self.starts(rows),
            Event::Shown(shown) => self.shown(shown),
            Event::View(view) => self.view(view),
            // Whatever it says, the row says more: the next read of it is at SERIAL.
            Event::Changed(changed) => {
                self.changing = false;
                self.want_read = true;
                self.refused = if changed == Changed::Applied {
                    0
                } else {
                    self.refused + 1
                };
            }
            Event::LetGo(view) => self.has_let_go(view),
            Event::Hint(view) => self.hinted(view),
            Event::Drain => self.draining = true,
        }
        self.work();
    }

    /// What to do next; called until it says `None`, after every [`Member::handle`].
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due if nothing happens before.
    pub fn next_tick(&self) -> Millis {
        let change = self.change_due().unwrap_or(Millis::MAX);
        // A request that is under way is waited for, not a time.
        let look = if self.reading_starts.is_some() && self.reading_view.is_some() {
            Millis::MAX
        } else {
            self.next_look
        };
        let beat = if self.writing.is_some() || !self.sees() {
            Millis::MAX
        } else {
            self.next_beat
        };
        let read = if self.asks() && self.reading_view.is_none() {
            self.no_read_before
        } else {
            Millis::MAX
        };
        look.min(beat)
            .min(read)
            .min(change)
            .clamp(self.now + 1, self.now + LEASE_MS)
    }

    pub(super) fn number(&self) -> View {
        self.standing.as_ref().map_or(0, |standing| standing.number)
    }

    fn work(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        self.write_if_due();
        if matches!(self.phase, Phase::Ending(_)) {
            return;
        }
        let looking = self.now >= self.next_look;
        if looking {
            let pause = if self.hurried() { HURRY_MS } else { BEAT_MS };
            self.next_look = self.now + pause;
        }
        if looking && self.reading_starts.is_none() {
            self.reading_starts = Some(self.now);
            self.actions.push_back(Action::ReadStarts);
        }
        if self.reading_view.is_none() && (looking || (self.asks() && self.now >= self.no_read_before)) {
            self.reading_view = Some(self.now);
            let whole = self.want_read && self.now >= self.no_read_before;
            self.want_read &= !whole;
            self.reading_whole = whole;
            self.actions
                .push_back(if whole { Action::ReadView } else { Action::ShowView });
        }
        self.take_up_what_is_free();
        self.change_if_due();
    }

    fn hinted(&mut self, view: View) {
        if self.number() < view && !std::mem::replace(&mut self.want_read, true) {
            // Others hear of it at the same time.
            let members = self
                .standing
                .as_ref()
                .map_or(0, |standing| standing.body.seats.len());
            let put_off = self.spread(1 + members as u64 * SPREAD_MS);
            self.no_read_before = self.no_read_before.max(self.now + put_off);
        }
        if self.waiting > 0 {
            self.next_look = self.now;
            // What is being read may be older than what the hint is about.
            self.look_again |= self.reading_starts.is_some();
        }
    }

    /// Something is under way that is not to wait for the slow round.
    fn hurried(&self) -> bool {
        let unsettled = self
            .standing
            .as_ref()
            .is_none_or(|standing| !standing.body.unsettled.is_empty());
        self.waiting > 0 || unsettled || self.draining
    }

    /// Whether the view is to be read without waiting for the next round.
    fn asks(&self) -> bool {
        self.want_read || (self.phase == Phase::In && self.renewed.is_some())
    }

    fn starts(&mut self, rows: Option<Vec<StartRow>>) {
        let begun = self.reading_starts.take();
        if std::mem::take(&mut self.look_again) {
            self.next_look = self.now;
        }
        let (Some(begun), Some(rows)) = (begun, rows) else {
            return;
        };
        let unseen = self.is_unseen(begun, &rows);
        let standing = self.standing.clone();
        let members = standing
            .iter()
            .flat_map(|standing| standing.body.all_seats().map(|seat| seat.start));
        // Who joins watches those of the view that it found, with or without a row.
        let found = self
            .found
            .iter()
            .flat_map(|(_, body)| body.all_seats().map(|seat| seat.start));
        self.seen.read(begun, self.now, rows, members.chain(found));
        if unseen {
            self.end(Why::Unseen);
        } else {
            self.delete_what_is_left_behind();
        }
    }

    fn shown(&mut self, shown: Option<Option<(View, Nonce)>>) {
        let begun = self.reading_view.take();
        let (Some(begun), Some(shown)) = (begun, shown) else {
            self.no_read_before = self.now + HURRY_MS;
            return;
        };
        let known = match (&self.standing, &self.found) {
            (Some(standing), _) => Some((standing.number, standing.nonce, standing.body.seats.len())),
            (None, Some((stored, body))) => Some((stored.number, stored.nonce, body.seats.len())),
            (None, None) => None,
        };
        if shown == known.map(|(number, nonce, _)| (number, nonce)) {
            self.view_was_read(begun);
            if self.phase == Phase::Joining && !self.want_read {
                self.join();
            }
            return;
        }
        if std::mem::replace(&mut self.want_read, true) {
            return;
        }
        // All see it at once, and reads at SERIAL that meet stop each other.
        let (number, members) = known.map_or((0, 1), |(number, _, seats)| (number, seats as u64));
        let settled = self.waiting == 0 && shown.is_some_and(|(shown, _)| shown == number);
        let each = if settled { SETTLED_SPREAD_MS } else { SPREAD_MS };
        self.no_read_before = self.now + self.spread(1 + members * each);
    }

    fn view(&mut self, view: Option<Option<StoredView>>) {
        self.reading_whole = false;
        let begun = self.reading_view.take();
        let (Some(begun), Some(view)) = (begun, view) else {
            self.want_read = true;
            self.no_read_before = self.now + HURRY_MS;
            return;
        };
        if self.read_whole(view) {
            self.view_was_read(begun);
        }
    }

    fn has_let_go(&mut self, view: View) {
        if view > self.confirmed {
            self.confirmed = view;
            self.write_soon = true;
        }
    }

    /// Everything is over: holds nothing, says so once more, joins as another start.
    pub(super) fn end(&mut self, why: Why) {
        if matches!(self.phase, Phase::Ending(_) | Phase::Ended) {
            return;
        }
        self.phase = Phase::Ending(why);
        self.lease_until = 0;
        self.renewed = None;
        self.holdings.act_until(0);
        let mut lost = Vec::new();
        for slot in 0..self.slots.len() {
            self.holdings.let_go(slot as u16);
            if matches!(self.slots[slot], Slot::Held(_)) {
                lost.push(slot as u16);
            }
            self.slots[slot] = Slot::Others;
        }
        self.waiting = 0;
        self.next_beat = Millis::MAX;
        self.actions.push_back(Action::LetGo {
            view: super::ENDED,
            slots: lost,
        });
    }

    /// A number below `below` that differs from start to start and from time to time.
    pub(super) fn spread(&mut self, below: u64) -> u64 {
        self.random = xxh3_64_with_seed(&self.random.to_le_bytes(), self.now);
        self.random % below
    }

    /// A nonce that no other attempt has.
    pub(super) fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 16];
        let high = self.spread(u64::MAX);
        let low = self.spread(u64::MAX);
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        // Spread from the start's own random bits too: two starts with one seed never try with one nonce.
        Uuid::from_u128(Uuid::from_bytes(bytes).as_u128() ^ self.me.start.as_u128())
    }
}
