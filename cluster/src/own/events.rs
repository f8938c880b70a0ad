//! What a start is told, what it asks for, and how it stands: the words between [`Member`](super::Member) and whoever runs it.

use std::sync::Arc;

use godwit_store::View;
use godwit_store::coordination::{Changed, Nonce, StartId, StartRow, StoredView};

use super::body::{About, Body};
use super::map::Map;

/// Who a start is.
#[derive(Clone, Debug)]
pub struct Me {
    /// Fresh and random for each start.
    pub start: StartId,
    /// What it says about itself.
    pub about: About,
}

/// What a member is told. To each request among [`Action`] exactly one answer.
#[derive(Debug)]
pub enum Event {
    /// Time went on: due at [`Member::next_tick`](super::Member::next_tick) at the latest.
    Tick,
    /// [`Action::WriteStart`] ended: whether it is known to be stored.
    Wrote(bool),
    /// [`Action::ReadStarts`] ended; `None`: it failed.
    Starts(Option<Vec<StartRow>>),
    /// [`Action::ShowView`] ended; outer `None`: it failed.
    Shown(Option<Option<(View, Nonce)>>),
    /// [`Action::ReadView`] ended; outer `None`: it failed.
    View(Option<Option<StoredView>>),
    /// [`Action::ChangeView`] ended.
    Changed(Changed),
    /// Everything of [`Action::LetGo`] is let go: nobody answers for it any more.
    LetGo(View),
    /// A peer or a confirming read named this view; or, where it is not a later one, a peer has let go of something. It only hastens
    /// what would be read anyway.
    Hint(View),
    /// The node is to be taken out: it gives up its shards, then leaves.
    Drain,
}

/// What is to be done next. Requests may be under way at once, at most one of each kind.
#[derive(Debug)]
pub enum Action {
    /// A request: write this row, `stamp` filled in by the caller at the time of the call.
    WriteStart(StartRow),
    /// A request: read all rows.
    ReadStarts,
    /// A request: read number and nonce of the view at QUORUM.
    ShowView,
    /// A request: read the view at SERIAL.
    ReadView,
    /// A request: change the view.
    ChangeView {
        /// The nonce it must have; `None`: there must be no view.
        expected: Option<Nonce>,
        /// The new one.
        new: StoredView,
    },
    /// Delete a row that nobody needs. Not answered.
    DeleteStart {
        /// Whose.
        start: StartId,
        /// Up to this heartbeat: a later one stays.
        beat: u64,
    },
    /// Give out no timestamps at or below this one. Not answered.
    RaiseStamps(i64),
    /// These slots are no longer this node's: drop everything about them, then say [`Event::LetGo`] with the view.
    LetGo {
        /// The view that takes them.
        view: View,
        /// In order.
        slots: Vec<u16>,
    },
    /// These slots are this node's from now on: every write for them carries this view.
    TakeUp {
        /// The view of take-up.
        view: View,
        /// In order.
        slots: Vec<u16>,
    },
    /// Members or owners are others now. Not answered.
    Moved(Arc<Standing>),
    /// This start is over; everything was let go.
    Ended(Why),
}

/// Why a start is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was drained.
    Left,
    /// The others took it for dead: the node joins as a new start.
    Missing,
    /// A view was skipped, so nobody can say what it still holds: the node joins as a new start.
    Skipped,
    /// Its row is not there although it was stored, so the others take it for dead: the node joins as a new start.
    Unseen,
}

/// A view as a member stands in it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its number.
    pub number: View,
    /// Of the attempt that wrote it last.
    pub nonce: Nonce,
    /// Members and unsettled views.
    pub body: Body,
    /// Who owns which slot.
    pub map: Arc<Map>,
    /// Maps of the unsettled views, in their order.
    pub(super) earlier: Vec<Arc<Map>>,
}

impl Standing {
    /// The start that is to own a slot; `None`: nobody is.
    pub fn owner(&self, slot: u16) -> Option<StartId> {
        let seat = self.map.owner(slot)?;
        self.body.seats.get(seat).map(|seat| seat.start)
    }

    /// A view without unsettled ones, for tests of what follows from it.
    #[cfg(feature = "harness")]
    pub fn of(number: View, nonce: Nonce, body: Body, layout: super::Layout) -> Self {
        Self {
            number,
            nonce,
            map: Arc::new(Map::of(layout, &body.seats)),
            earlier: Vec::new(),
            body,
        }
    }

    /// Who owned what in a view of this number: the present one or an unsettled one.
    pub(super) fn map_of(&self, number: View) -> Option<&Arc<Map>> {
        let listed = self.body.unsettled.iter().zip(&self.earlier);
        let earlier = || listed.into_iter().find(|(earlier, _)| earlier.number == number);
        if number == self.number {
            Some(&self.map)
        } else {
            earlier().map(|(_, map)| map)
        }
    }
}
