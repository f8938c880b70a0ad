//! What a start makes of rows: its own that is not there, those of dead ones, and none at all.

use super::*;

#[test]
fn who_joins_drops_seats_that_it_has_seen_dead_with_a_row_and_without() {
    let dead: Vec<Seat> = (1..=MAX_MEMBERS as u128)
        .map(|number| seat(number, &format!("n{number}")))
        .collect();
    let me = seat(1_000, "me");
    let full = stored(
        7,
        &Body {
            seats: dead.clone(),
            unsettled: (1..=MAX_UNSETTLED as u64)
                .map(|number| earlier(number - 1, &dead[..3]))
                .collect(),
            floor: 0,
        },
    );
    // Half of them left their rows behind.
    let mut rows: Vec<StartRow> = dead.iter().step_by(2).map(|seat| row(seat, 3, 7)).collect();
    rows.push(row(&me, 1, 0));
    let mut rig = Rig::new(&me);
    let asked = loop {
        rig.round(&rows, &full);
        let change = rig.done.iter().find_map(|action| match action {
            Action::ChangeView { new, .. } => Some(new.clone()),
            _ => None,
        });
        if let Some(new) = change {
            break new;
        }
        assert!(rig.now < 3 * DEAD_AFTER_MS, "never tried");
    };
    assert!(rig.now > DEAD_AFTER_MS, "before it could know");
    let body = Body::decode(&asked.body).expect("own");
    assert_eq!((asked.number, &body.seats[..]), (8, &[me][..]));
    assert_eq!(
        body.unsettled,
        [earlier(7, &dead)],
        "they may still act by view 7"
    );
}

#[test]
fn who_joins_keeps_the_seats_of_those_that_live() {
    let (one, other) = (seat(1, "a"), seat(2, "b"));
    let me = seat(3, "c");
    let view = stored(
        7,
        &Body {
            seats: vec![one.clone(), other.clone()],
            unsettled: (0..MAX_UNSETTLED as u64)
                .map(|number| earlier(number, std::slice::from_ref(&other)))
                .collect(),
            floor: 0,
        },
    );
    let mut rig = Rig::new(&me);
    let mut rows = vec![row(&one, 1, 7), row(&other, 1, 0), row(&me, 1, 0)];
    let asked = loop {
        rows[0].beat += 1;
        rig.round(&rows, &view);
        if let Some(Action::ChangeView { new, .. }) = rig.done.last() {
            break Body::decode(&new.body).expect("own");
        }
        assert!(rig.now < 3 * DEAD_AFTER_MS, "never tried");
    };
    assert_eq!(asked.seats, [one, me]);
}

#[test]
fn who_does_not_see_its_own_row_begins_anew() {
    let (mut rig, both, rows) = beside_another();
    let view = stored(
        1,
        &Body {
            seats: both,
            ..Body::default()
        },
    );
    rig.round(&rows, &view);
    rig.done.clear();
    rig.round(&rows[1..], &view);
    assert_eq!((rig.ended(), rig.held()), (Some(Why::Unseen), vec![]));
    assert!(!rig.holdings.may_act(rig.now));
}

#[test]
fn a_read_that_may_have_begun_before_the_heartbeat_was_stored_says_nothing_of_it() {
    let me = seat(1, "a");
    let mut rig = Rig::new(&me);
    rig.now = 7;
    rig.tell(Event::Tick);
    rig.tell(Event::Wrote(true));
    // Both in one millisecond.
    rig.tell(Event::Starts(Some(Vec::new())));
    let over = |rig: &Rig| {
        let last = |action: &Action| matches!(action, Action::WriteStart(row) if row.confirmed == ENDED);
        rig.done.iter().any(last)
    };
    assert!(!over(&rig), "{:?}", rig.done);
    rig.now += BEAT_MS;
    rig.tell(Event::Tick);
    rig.tell(Event::Starts(Some(Vec::new())));
    rig.tell(Event::Wrote(true));
    assert!(over(&rig), "{:?}", rig.done);
}

#[test]
fn who_waits_reads_the_rows_at_once_when_a_peer_has_let_go_and_again_if_they_were_being_read() {
    let (mut rig, both, mut rows) = beside_another();
    let mut next = both.clone();
    next[1].leaving = true;
    let body = Body {
        unsettled: vec![earlier(1, &both)],
        seats: next,
        floor: 0,
    };
    let view = stored(2, &body);
    let read = |rig: &mut Rig| {
        rig.done
            .drain(..)
            .any(|action| matches!(action, Action::ReadStarts))
    };
    rig.tell(Event::Hint(1));
    assert!(!read(&mut rig), "it waits for nothing");
    rig.round(&rows, &view);
    rig.round(&rows, &view);
    assert_eq!(rig.holdings.current(), 2);
    assert!(rig.held().len() < LAYOUT.slots());
    // One that is under way comes back. Its own heartbeat is among them, whichever that is.
    rows[0].beat = 1_000;
    rig.tell(Event::Starts(Some(rows.clone())));
    rig.done.clear();
    rig.now += 1;
    rig.tell(Event::Hint(2));
    assert!(read(&mut rig));
    rig.now += 1;
    rig.tell(Event::Hint(2));
    assert!(!read(&mut rig), "they are being read");
    rig.now += 1;
    rig.tell(Event::Starts(Some(rows.clone())));
    rig.now += 1;
    rig.tell(Event::Tick);
    assert!(read(&mut rig), "they may have been older than the word");
    rows[1].confirmed = 2;
    rig.now += 1;
    rig.tell(Event::Starts(Some(rows)));
    assert_eq!(rig.held().len(), LAYOUT.slots());
    rig.done.clear();
    rig.now += 1;
    rig.tell(Event::Hint(2));
    assert!(!read(&mut rig), "it waits for nothing more");
}
