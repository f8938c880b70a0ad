//! Changing the view: joining, taking the dead out and the waiting in, leaving, settling. All members want the same
//! changes; they take turns at trying, so that not all do at once and nobody waits for a dead one.

use godwit_store::View;
use godwit_store::coordination::{Nonce, StoredView};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::body::{About, Body, Earlier, MAX_MEMBERS, MAX_UNSETTLED, Seat};
use super::events::Action;
use super::member::{Member, Phase};
use super::{ENDED, LEFT_BEHIND_MS, Millis};

/// Between one member's turn and the next one's.
const TURN_MS: Millis = 300;
/// Turns are spread over so many; who comes later tries with these.
const TURNS: usize = 6;
/// An attempt is put off by up to this, and by more the more attempts in a row met another's.
const SPREAD_MS: Millis = 100;
/// For each so many starts that wait to join, attempts are put off by up to as much again.
const WAITING_TOGETHER: Millis = 8;
/// Rows deleted at a time.
const DELETED_AT_ONCE: usize = 8;

impl Member {
    /// What the view should be, if it should be another.
    fn wanted_change(&self) -> Option<(View, Body)> {
        let standing = self.standing.as_ref()?;
        if self.phase != Phase::In {
            return None;
        }
        let old = &standing.body;
        let mut unsettled: Vec<Earlier> = old
            .unsettled
            .iter()
            .filter(|earlier| {
                !earlier
                    .seats
                    .iter()
                    .all(|seat| self.is_past(seat, earlier.number))
            })
            .cloned()
            .collect();
        let room = unsettled.len() < MAX_UNSETTLED;
        let mut seats: Vec<Seat> = old.seats.clone();
        if room {
            seats.retain(|seat| !self.is_to_go(seat, standing.number, unsettled.is_empty()));
            for seat in &mut seats {
                seat.leaving |= self.draining && seat.start == self.me.start;
            }
            self.add_joiners(&mut seats);
        }
        if seats == old.seats {
            let body = Body {
                seats,
                unsettled,
                floor: old.floor,
            };
            return (body.unsettled.len() != old.unsettled.len()).then_some((standing.number, body));
        }
        unsettled.push(Earlier {
            number: standing.number,
            seats: old.seats.clone(),
        });
        Some((
            standing.number + 1,
            self.with_floor(Body {
                seats,
                unsettled,
                floor: old.floor,
            }),
        ))
    }

    fn is_to_go(&self, seat: &Seat, number: View, settled: bool) -> bool {
        if seat.start == self.me.start {
            return seat.leaving && settled;
        }
        let has_left = seat.leaving && settled && self.seen.confirmed(seat.start) >= number;
        has_left || self.seen.dead(seat.start, 0)
    }

    fn add_joiners(&self, seats: &mut Vec<Seat>) {
        let mut joiners: Vec<Seat> = self
            .seen
            .all()
            .filter(|(start, seen)| {
                seen.asks_to_join(self.now) && seats.iter().all(|seat| seat.start != *start)
            })
            .filter_map(|(start, seen)| seat(start, &About::decode(&seen.about)?))
            .collect();
        joiners.sort_by_key(|seat| seat.start);
        joiners.truncate(MAX_MEMBERS.saturating_sub(seats.len()));
        seats.extend(joiners);
    }

    /// Timestamps of a view are above all that its members and those of unsettled views may have given out.
    fn with_floor(&self, mut body: Body) -> Body {
        let stamps = body.all_seats().filter_map(|seat| self.seen.get(seat.start));
        body.floor = stamps.map(|seen| seen.stamp).fold(body.floor, i64::max);
        body
    }

    /// The view found at SERIAL is without this start, or there is none at all.
    pub(super) fn finds(&mut self, found: Option<(StoredView, Body)>) {
        let number = |found: &Option<(StoredView, Body)>| found.as_ref().map(|(stored, _)| stored.number);
        if number(&found) != number(&self.found) {
            // Everybody of it may be dead: then whoever joins has to see that for itself.
            self.moved_at = self.now;
        }
        self.found = found;
        self.join();
    }

    /// Asks to be taken into the view that it found, at once or when others were quicker, later.
    pub(super) fn join(&mut self) {
        let found = self.found.take();
        self.join_to(found.as_ref().map(|(stored, body)| (stored, body)));
        self.found = found;
    }

    fn join_to(&mut self, found: Option<(&StoredView, &Body)>) {
        let nonce = found.map(|(stored, _)| stored.nonce);
        // The row comes before the view that names it; the floor of timestamps needs everybody's.
        let has_row = self.seen.get(self.me.start).is_some_and(|seen| seen.stamp > 0);
        if self.changing || !has_row {
            return;
        }
        let due = match self.wanted {
            Some((of, due)) if of == nonce => due,
            _ => {
                // The one who comes first takes all in that wait.
                let waiting = self.seen.all().filter(|(_, seen)| seen.waits()).count() as Millis;
                let below = SPREAD_MS * (1 + waiting.min(MAX_MEMBERS as Millis) / WAITING_TOGETHER);
                let due = self.now + self.spread(below << self.refused.min(5));
                self.wanted = Some((nonce, due));
                due
            }
        };
        if self.now < due {
            return;
        }
        let Some(me) = seat(self.me.start, &self.me.about) else {
            return;
        };
        let Some((stored, old)) = found else {
            let body = Body {
                seats: vec![me],
                ..Body::default()
            };
            let body = self.with_floor(body);
            self.try_change(None, 1, &body);
            return;
        };
        let mut body = old.clone();
        body.unsettled.retain(|earlier| !self.is_settled(earlier));
        let room = body.unsettled.len() < MAX_UNSETTLED;
        if room {
            // Whoever joins may be the only one who has lived for long enough to see who is dead.
            body.seats.retain(|seat| !self.seen.dead(seat.start, 0));
        }
        if room && body.seats.len() < MAX_MEMBERS {
            body.unsettled.push(Earlier {
                number: stored.number,
                seats: old.seats.clone(),
            });
            body.seats.push(me);
            self.add_joiners(&mut body.seats);
            let body = self.with_floor(body);
            self.try_change(nonce, stored.number + 1, &body);
        } else if body.unsettled.len() < old.unsettled.len() {
            self.try_change(nonce, stored.number, &body);
        } else if body.seats.len() >= MAX_MEMBERS {
            tracing::warn!(members = body.seats.len(), "the cluster is full");
        }
    }

    fn is_settled(&self, earlier: &Earlier) -> bool {
        earlier
            .seats
            .iter()
            .all(|seat| self.is_past(seat, earlier.number))
    }

    fn try_change(&mut self, expected: Option<Nonce>, number: View, body: &Body) {
        self.changing = true;
        self.wanted = None;
        let new = StoredView {
            number,
            nonce: self.nonce(),
            body: body.encode(),
        };
        self.actions.push_back(Action::ChangeView { expected, new });
    }

    /// When this member's turn comes to make a change that is wanted.
    pub(super) fn change_due(&self) -> Option<Millis> {
        match (self.phase, self.wanted) {
            (Phase::In, Some((_, due))) if !self.changing && !self.reading_whole => Some(due),
            _ => None,
        }
    }

    /// Makes the change that is wanted, if it is this member's turn.
    pub(super) fn change_if_due(&mut self) {
        if self.changing || self.want_read || self.reading_whole || self.phase != Phase::In {
            return;
        }
        let Some(nonce) = self.standing.as_ref().map(|standing| standing.nonce) else {
            return;
        };
        let Some((number, body)) = self.wanted_change() else {
            self.wanted = None;
            return;
        };
        let due = match self.wanted {
            Some((of, due)) if of == Some(nonce) => due,
            _ => {
                let due = self.now + self.turn(nonce);
                self.wanted = Some((Some(nonce), due));
                due
            }
        };
        if self.now >= due {
            self.try_change(Some(nonce), number, &body);
        }
    }

    /// How long to leave a change to others: members that live take turns in an order that each change deals anew.
    fn turn(&mut self, nonce: Nonce) -> Millis {
        let spread = self.spread(SPREAD_MS);
        let Some(standing) = &self.standing else {
            return spread;
        };
        let leaves = standing
            .body
            .seats
            .iter()
            .any(|seat| seat.start == self.me.start && seat.leaving);
        if self.draining && !leaves {
            return 0;
        }
        let card = |start: godwit_store::coordination::StartId| {
            let salt = (nonce.as_u128() >> 64) as u64 ^ nonce.as_u128() as u64;
            xxh3_64_with_seed(start.as_bytes(), salt)
        };
        let mine = card(self.me.start);
        let before = standing.body.seats.iter().filter(|seat| {
            card(seat.start) < mine && self.seen.silent_for(seat.start, self.now) < super::LEASE_MS
        });
        before.count().min(TURNS - 1) as Millis * TURN_MS + spread
    }

    /// Deletes rows of starts that are in no view and stood still for long.
    pub(super) fn delete_what_is_left_behind(&mut self) {
        let Some(standing) = self.standing.clone() else {
            return;
        };
        let named = |start| standing.body.all_seats().any(|seat| seat.start == start);
        // The first member does it for all.
        if standing
            .body
            .seats
            .first()
            .is_none_or(|seat| seat.start != self.me.start)
        {
            return;
        }
        let left: Vec<_> = self
            .seen
            .all()
            .filter(|(start, seen)| {
                let over = seen.confirmed == ENDED && seen.left_behind(super::DEAD_AFTER_MS);
                !named(*start) && (over || seen.left_behind(LEFT_BEHIND_MS))
            })
            .map(|(start, seen)| Action::DeleteStart {
                start,
                beat: seen.beat,
            })
            .take(DELETED_AT_ONCE)
            .collect();
        self.actions.extend(left);
    }
}

fn seat(start: godwit_store::coordination::StartId, about: &About) -> Option<Seat> {
    (!about.name.is_empty()).then(|| Seat {
        start,
        name: about.name.as_str().into(),
        roles: about.roles,
        leaving: false,
    })
}
