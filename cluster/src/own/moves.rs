//! From view to view: what a start keeps, lets go and waits for, and when it takes a slot up. No view is skipped: one
//! whose members are not known is lost ground.

use std::sync::Arc;

use godwit_store::View;
use godwit_store::coordination::StoredView;

use super::body::{Body, Seat};
use super::events::{Action, Standing, Why};
use super::map::Map;
use super::member::{Member, Phase, Slot};

impl Member {
    /// The view's row at SERIAL. Whether it is the view that this start acts in now.
    pub(super) fn read_whole(&mut self, stored: Option<StoredView>) -> bool {
        let Some(stored) = stored else {
            match self.phase {
                Phase::Joining => self.finds(None),
                // A row that was there and is not: nobody can say what is held.
                _ => self.end(Why::Skipped),
            }
            return false;
        };
        let Some(body) = Body::decode(&stored.body) else {
            tracing::error!(
                number = stored.number,
                "the view is of a format that this build does not know"
            );
            return false;
        };
        let seat = body.seat_of(self.me.start);
        match self.phase {
            Phase::Joining if seat.is_none() => {
                self.finds(Some((stored, body)));
                false
            }
            Phase::Joining => {
                self.phase = Phase::In;
                self.refused = 0;
                self.found = None;
                self.enter(stored, body, &[]);
                true
            }
            Phase::In => self.follow(stored, body),
            Phase::Ending(_) | Phase::Ended => false,
        }
    }

    fn follow(&mut self, stored: StoredView, body: Body) -> bool {
        let number = self.number();
        if stored.number < number {
            return false;
        }
        if stored.number == number {
            // Settled a little further: owners are the same.
            if self
                .standing
                .as_ref()
                .is_some_and(|standing| standing.nonce != stored.nonce)
            {
                self.stand(stored, body);
            }
            return true;
        }
        let mut between: Vec<Option<&[Seat]>> = Vec::new();
        for passed in number + 1..stored.number {
            let earlier = body.unsettled.iter().find(|earlier| earlier.number == passed);
            between.push(earlier.map(|earlier| &earlier.seats[..]));
        }
        #[cfg(feature = "planted-bugs")]
        if self.bugs.skips_views {
            between.clear();
        }
        if between.iter().any(Option::is_none) {
            self.end(Why::Skipped);
            return false;
        }
        let mine = |seats: &[Seat]| seats.iter().position(|seat| seat.start == self.me.start);
        let passed: Option<Vec<(View, usize)>> = (number + 1..)
            .zip(between.into_iter().flatten())
            .map(|(passed, seats)| Some((passed, mine(seats)?)))
            .collect();
        let Some(passed) = passed else {
            self.end(self.why_missing());
            return false;
        };
        if mine(&body.seats).is_none() {
            self.end(self.why_missing());
            return false;
        }
        self.enter(stored, body, &passed);
        true
    }

    fn why_missing(&self) -> Why {
        if self.draining { Why::Left } else { Why::Missing }
    }

    /// Acts by this view from now on. `passed`: the views between the present one and it, and its seat in each.
    fn enter(&mut self, stored: StoredView, body: Body, passed: &[(View, usize)]) {
        let number = stored.number;
        self.actions.push_back(Action::RaiseStamps(body.floor));
        self.stand(stored, body);
        let Some(standing) = self.standing.clone() else {
            return;
        };
        let Some(seat) = standing.body.seat_of(self.me.start) else {
            return;
        };
        let passed: Vec<(usize, Option<&Arc<Map>>)> = passed
            .iter()
            .map(|(number, seat)| (*seat, standing.map_of(*number)))
            .collect();
        self.moved_at = self.now;
        let mut lost = Vec::new();
        self.waiting = 0;
        for at in 0..self.slots.len() {
            // As many as `Layout::slots`, which fits.
            let slot = at as u16;
            let mine = standing.map.owner(slot) == Some(seat);
            let stayed = |(seat, map): &(usize, Option<&Arc<Map>>)| {
                map.is_some_and(|map| map.owner(slot) == Some(*seat))
            };
            let kept = mine && passed.iter().all(stayed);
            let was = self.slots[at];
            let is = match was {
                Slot::Held(_) | Slot::Waiting(_) if kept => was,
                _ if mine => Slot::Waiting(number),
                _ => Slot::Others,
            };
            if matches!(was, Slot::Held(_)) && is != was {
                self.holdings.let_go(slot);
                lost.push(slot);
            }
            self.waiting += usize::from(matches!(is, Slot::Waiting(_)));
            self.slots[at] = is;
        }
        // Only now: a verdict for this view must not find what it takes.
        self.holdings.move_to(number);
        self.actions.push_back(Action::LetGo {
            view: number,
            slots: lost,
        });
    }

    fn stand(&mut self, stored: StoredView, body: Body) {
        let layout = self.holdings.layout();
        let old = self.standing.clone();
        // A map costs some milliseconds: that of a view is made once.
        let map = |number: View, seats: &[Seat]| {
            let known = old.as_ref().and_then(|old| old.map_of(number));
            known.map_or_else(|| Arc::new(Map::of(layout, seats)), Arc::clone)
        };
        let standing = Arc::new(Standing {
            number: stored.number,
            nonce: stored.nonce,
            map: map(stored.number, &body.seats),
            earlier: body
                .unsettled
                .iter()
                .map(|earlier| map(earlier.number, &earlier.seats))
                .collect(),
            body,
        });
        self.actions.push_back(Action::Moved(standing.clone()));
        self.standing = Some(standing);
    }

    /// Takes up the slots whose former owners act in them no more.
    pub(super) fn take_up_what_is_free(&mut self) {
        if self.waiting == 0 || !self.may_act() {
            return;
        }
        let Some(standing) = self.standing.clone() else {
            return;
        };
        // By unsettled view: the seats that may still act by it.
        let acting: Vec<Vec<bool>> = standing
            .body
            .unsettled
            .iter()
            .map(|earlier| {
                earlier
                    .seats
                    .iter()
                    .map(|seat| !self.is_past(seat, earlier.number))
                    .collect()
            })
            .collect();
        #[cfg(feature = "planted-bugs")]
        let acting = if self.bugs.forgets_unsettled {
            Vec::new()
        } else {
            acting
        };
        let mut taken: Vec<(View, Vec<u16>)> = Vec::new();
        for at in 0..self.slots.len() {
            let slot = at as u16;
            let Slot::Waiting(since) = self.slots[at] else {
                continue;
            };
            let waits = acting.iter().zip(&standing.earlier).any(|(acting, map)| {
                map.owner(slot)
                    .is_some_and(|owner| acting.get(owner).copied().unwrap_or(false))
            });
            if waits {
                continue;
            }
            self.slots[at] = Slot::Held(since);
            self.waiting -= 1;
            self.holdings.take(slot, since);
            match taken.iter_mut().find(|(view, _)| *view == since) {
                Some((_, slots)) => slots.push(slot),
                None => taken.push((since, vec![slot])),
            }
        }
        for (view, slots) in taken {
            self.actions.push_back(Action::TakeUp { view, slots });
        }
    }

    /// Whether a member of view `of` acts by it no more: it has confirmed a later one or is dead, by a read begun after
    /// the present view was known to be decided. So if it lives after all, it reads the view again before it acts.
    pub(super) fn is_past(&self, seat: &Seat, of: View) -> bool {
        // Of itself it knows when it has let go, whatever was stored.
        seat.start == self.me.start && self.confirmed > of
            || self.seen.confirmed(seat.start) > of
            || self.seen.dead(seat.start, self.moved_at)
    }
}
