//! Rules of ownership, one by one: moving from view to view and the lease. How they hold together under faults is the simulation's (tests/ownership).

mod map;
mod rows;

use std::sync::Arc;

use godwit_store::coordination::{Changed, StartRow, StoredView};
use godwit_store::{Ownership, Scope, Verdict};
use uuid::Uuid;

use super::*;

const LAYOUT: Layout = Layout { shards: 64 };

fn seat(number: u128, name: &str) -> Seat {
    Seat {
        start: Uuid::from_u128(number),
        name: name.into(),
        roles: Roles::ALL,
        leaving: false,
    }
}

fn seats(names: &[&str]) -> Vec<Seat> {
    (1..)
        .zip(names)
        .map(|(number, name)| seat(number, name))
        .collect()
}

fn stored(number: u64, body: &Body) -> StoredView {
    StoredView {
        number,
        nonce: Uuid::from_u128(u128::from(number) << 8 | body.unsettled.len() as u128),
        body: body.encode(),
    }
}

fn earlier(number: u64, seats: &[Seat]) -> Earlier {
    Earlier {
        number,
        seats: seats.to_vec(),
    }
}

fn row(seat: &Seat, beat: u64, confirmed: u64) -> StartRow {
    let about = About {
        name: seat.name.to_string(),
        roles: seat.roles,
        ..About::default()
    };
    StartRow {
        start: seat.start,
        beat,
        confirmed,
        stamp: 1_000,
        about: about.encode(),
    }
}

/// A start of `seat`, and what it did since it was last asked.
struct Rig {
    member: Member,
    holdings: Arc<Holdings>,
    now: Millis,
    /// Its own heartbeat as it is stored.
    beat: u64,
    done: Vec<Action>,
}

impl Rig {
    fn new(seat: &Seat) -> Self {
        let holdings = Arc::new(Holdings::new(LAYOUT));
        let me = Me {
            start: seat.start,
            about: About {
                name: seat.name.to_string(),
                roles: seat.roles,
                ..About::default()
            },
        };
        Self {
            member: Member::new(me, holdings.clone(), 7, 0),
            holdings,
            now: 0,
            beat: 0,
            done: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.member.handle(self.now, event);
        while let Some(action) = self.member.next_action() {
            // What is let go is gone at once.
            if let Action::LetGo { view, .. } = action {
                self.member.handle(self.now, Event::LetGo(view));
            }
            if let Action::WriteStart(row) = &action {
                self.beat = row.beat;
            }
            self.done.push(action);
        }
    }

    /// Half a second in which everything that is asked is answered: heartbeats stored, these rows (its own, if it is among them, as it
    /// wrote it), this view.
    fn round(&mut self, rows: &[StartRow], view: &StoredView) {
        let me = self.member.me().start;
        self.now += BEAT_MS - 4;
        self.tell(Event::Tick);
        for _ in 0..4 {
            // Every request takes some time.
            self.now += 1;
            for action in std::mem::take(&mut self.done) {
                match action {
                    Action::WriteStart(_) => self.tell(Event::Wrote(true)),
                    Action::ReadStarts => {
                        let mut rows = rows.to_vec();
                        for row in rows.iter_mut().filter(|row| row.start == me) {
                            row.beat = self.beat.max(row.beat);
                        }
                        self.tell(Event::Starts(Some(rows)));
                    }
                    Action::ShowView => self.tell(Event::Shown(Some(Some((view.number, view.nonce))))),
                    Action::ReadView => self.tell(Event::View(Some(Some(view.clone())))),
                    other => self.done.push(other),
                }
            }
        }
    }

    fn held(&self) -> Vec<u16> {
        (0..LAYOUT.slots() as u16)
            .filter(|slot| self.holdings.held(*slot).is_some())
            .collect()
    }

    fn ended(&self) -> Option<Why> {
        self.done.iter().find_map(|action| match action {
            Action::Ended(why) => Some(*why),
            _ => None,
        })
    }
}

#[test]
fn views_and_starts_are_read_back_and_what_is_newer_is_refused() {
    let mut leaving = seats(&["a", "b"]);
    leaving[1].leaving = true;
    let body = Body {
        unsettled: vec![earlier(3, &leaving)],
        seats: leaving,
        floor: -5,
    };
    assert_eq!(Body::decode(&body.encode()), Some(body));
    assert_eq!(
        Body::decode(&bytes::Bytes::from_static(&[8, 2])),
        None,
        "format 2"
    );
    assert_eq!(Body::decode(&bytes::Bytes::from_static(&[255])), None);
    let about = About {
        name: "n1".into(),
        peer: "10.0.0.1:7".into(),
        ..About::default()
    };
    assert_eq!(About::decode(&about.encode()), Some(about));
}

#[test]
fn the_first_start_makes_the_first_view_and_holds_everything() {
    let me = seat(1, "a");
    let mut rig = Rig::new(&me);
    let made = loop {
        rig.now += HURRY_MS;
        assert!(rig.now < 5_000, "never tried");
        rig.tell(Event::Tick);
        let mut made = None;
        for action in std::mem::take(&mut rig.done) {
            match action {
                Action::WriteStart(_) => rig.tell(Event::Wrote(true)),
                Action::ReadStarts => rig.tell(Event::Starts(Some(vec![row(&me, 1, 0)]))),
                Action::ReadView => rig.tell(Event::View(Some(None))),
                Action::ShowView => rig.tell(Event::Shown(Some(None))),
                Action::ChangeView { expected, new } => made = Some((expected, new)),
                other => panic!("{other:?}"),
            }
        }
        rig.done.retain(|action| match action {
            Action::ChangeView { expected, new } => {
                made = Some((*expected, new.clone()));
                false
            }
            _ => true,
        });
        if let Some(made) = made {
            break made;
        }
    };
    assert_eq!((made.0, made.1.number), (None, 1));
    // Nobody knows whether it was applied: the row says.
    rig.tell(Event::Changed(Changed::Unknown));
    rig.round(&[row(&me, 2, 0)], &made.1);
    assert_eq!(rig.held().len(), LAYOUT.slots());
    assert!(rig.member.may_act());
}

/// A member of view 1 beside one other, with everything that is its own taken up.
fn beside_another() -> (Rig, Vec<Seat>, Vec<StartRow>) {
    let both = seats(&["a", "b"]);
    let mut rig = Rig::new(&both[0]);
    let body = Body {
        seats: both.clone(),
        ..Body::default()
    };
    let rows = vec![row(&both[0], 1, 1), row(&both[1], 1, 1)];
    rig.round(&rows, &stored(1, &body));
    rig.round(&rows, &stored(1, &body));
    assert!(!rig.held().is_empty() && rig.held().len() < LAYOUT.slots());
    rig.done.clear();
    (rig, both, rows)
}

#[test]
fn a_shard_waits_until_its_former_owner_has_confirmed() {
    let (mut rig, both, mut rows) = beside_another();
    let had = rig.held();
    let mut next = both.clone();
    next[1].leaving = true;
    let body = Body {
        unsettled: vec![earlier(1, &both)],
        seats: next,
        floor: 0,
    };
    rows[1].beat = 2;
    rig.round(&rows, &stored(2, &body));
    assert_eq!(rig.held(), had, "the other one may act by view 1");
    rows[1].beat = 3;
    rows[1].confirmed = 2;
    rig.round(&rows, &stored(2, &body));
    assert_eq!(rig.held().len(), LAYOUT.slots());
    assert!(
        had.iter().all(|slot| rig.holdings.held(*slot) == Some(1)),
        "what stays keeps its view of take-up"
    );
}

#[test]
fn a_former_owner_is_dead_after_lease_and_margin_of_silence() {
    let (mut rig, both, mut rows) = beside_another();
    let body = Body {
        seats: vec![both[0].clone()],
        unsettled: vec![earlier(1, &both)],
        floor: 0,
    };
    rows[1].beat = 2;
    let mut rounds = 0;
    while rig.held().len() < LAYOUT.slots() {
        rig.round(&rows, &stored(2, &body));
        rounds += 1;
        assert!(rounds < 20);
    }
    // The first round shows the beat; from then on it stands still.
    assert!((rounds - 1) * BEAT_MS >= DEAD_AFTER_MS, "after {rounds} rounds");
}

#[test]
fn a_view_that_is_not_listed_was_skipped_and_everything_is_lost() {
    let (mut rig, both, rows) = beside_another();
    let body = Body {
        seats: both,
        ..Body::default()
    };
    rig.round(&rows, &stored(3, &body));
    rig.round(&rows, &stored(3, &body));
    assert_eq!(rig.ended(), Some(Why::Skipped));
    assert!(rig.held().is_empty());
}

#[test]
fn views_that_are_listed_are_walked_through_and_what_another_had_is_taken_up_anew() {
    let (mut rig, both, mut rows) = beside_another();
    let had = rig.held();
    let three = [&both[..], &[seat(3, "c")]].concat();
    let body = Body {
        unsettled: vec![earlier(1, &both), earlier(2, &three)],
        seats: both,
        floor: 0,
    };
    rows.push(row(&three[2], 1, ENDED));
    rig.round(&rows, &stored(3, &body));
    rig.round(&rows, &stored(3, &body));
    assert_eq!(rig.ended(), None);
    let since: Vec<_> = had.iter().filter_map(|slot| rig.holdings.held(*slot)).collect();
    assert_eq!(since.len(), had.len());
    assert!(
        since.contains(&1) && since.contains(&3),
        "some stayed, some were another's in view 2"
    );
}

#[test]
fn who_is_missing_holds_nothing_and_says_that_it_has_ended() {
    let (mut rig, both, rows) = beside_another();
    let body = Body {
        seats: vec![both[1].clone()],
        unsettled: vec![earlier(1, &both)],
        floor: 0,
    };
    rig.now += BEAT_MS;
    rig.tell(Event::Tick);
    rig.tell(Event::Wrote(true));
    rig.done.clear();
    rig.tell(Event::Shown(Some(Some((2, Uuid::nil())))));
    // Members do not all read at once.
    rig.now += HURRY_MS;
    rig.tell(Event::Tick);
    rig.tell(Event::View(Some(Some(stored(2, &body)))));
    let says_so = |action: &Action| matches!(action, Action::WriteStart(row) if row.confirmed == ENDED);
    assert!(rig.done.iter().any(says_so), "{:?}", rig.done);
    rig.round(&rows, &stored(2, &body));
    assert_eq!((rig.ended(), rig.held()), (Some(Why::Missing), vec![]));
    assert!(!rig.holdings.may_act(rig.now));
}

#[test]
fn after_the_lease_nobody_acts_until_the_view_was_read_again() {
    let (mut rig, both, rows) = beside_another();
    let view = stored(
        1,
        &Body {
            seats: both,
            ..Body::default()
        },
    );
    assert!(rig.holdings.may_act(rig.now));
    rig.now += LEASE_MS;
    assert!(!rig.holdings.may_act(rig.now));
    rig.tell(Event::Tick);
    // Silent until it sees: only then a heartbeat, and only the read after that one counts.
    assert!(
        !rig.done
            .iter()
            .any(|action| matches!(action, Action::WriteStart(_))),
        "{:?}",
        rig.done
    );
    rig.tell(Event::Shown(Some(Some((view.number, view.nonce)))));
    rig.tell(Event::Wrote(true));
    assert!(!rig.holdings.may_act(rig.now), "a heartbeat alone is not enough");
    rig.round(&rows, &view);
    assert!(rig.holdings.may_act(rig.now));
    assert!(!rig.held().is_empty(), "shards are kept");
}

#[test]
fn a_verdict_needs_the_view_of_take_up_and_a_view_that_is_known() {
    let holdings = Holdings::new(LAYOUT);
    let scope = |view| Scope { shard: 5, view };
    holdings.move_to(4);
    holdings.take(5, 3);
    assert_eq!(holdings.verdict(scope(3), 4), Verdict::Held);
    assert_eq!(holdings.verdict(scope(3), 3), Verdict::Held, "it was held then");
    assert_eq!(holdings.verdict(scope(3), 5), Verdict::Later);
    assert_eq!(holdings.hinted(), 5, "the node is told to read it");
    assert_eq!(holdings.verdict(scope(2), 4), Verdict::Lost);
    holdings.let_go(5);
    assert_eq!(holdings.verdict(scope(3), 4), Verdict::Lost);
    let beyond = Scope {
        shard: u16::MAX,
        view: 1,
    };
    assert_eq!(holdings.verdict(beyond, 1), Verdict::Lost);
}

#[test]
fn a_drained_node_gives_up_its_shards_then_goes() {
    let (mut rig, both, mut rows) = beside_another();
    rig.tell(Event::Drain);
    let asks = |rig: &mut Rig| {
        let done = std::mem::take(&mut rig.done);
        done.into_iter().find_map(|action| match action {
            Action::ChangeView { new, .. } => Some(new),
            _ => None,
        })
    };
    let new = asks(&mut rig).expect("at once");
    let body = Body::decode(&new.body).expect("own");
    assert!(body.seats[0].leaving && body.unsettled == [earlier(1, &both)]);
    rig.tell(Event::Changed(Changed::Applied));
    rig.round(&rows, &new);
    assert!(rig.held().is_empty());
    let mut gone = None;
    for beat in 2..20 {
        for row in &mut rows {
            (row.beat, row.confirmed) = (beat, 2);
        }
        rig.round(&rows, &new);
        gone = gone.or_else(|| asks(&mut rig));
    }
    let gone = Body::decode(&gone.expect("it asks to be taken out").body).expect("own");
    assert_eq!(gone.seats, [both[1].clone()]);
    assert_eq!(gone.unsettled.len(), 1, "view 1 is settled, view 2 is not yet");
}
