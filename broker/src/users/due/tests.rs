//! Tests of which due rows are read when, with answers made up; homes and a store have no part in them.

use super::*;

fn look(at: u64, will: Option<u64>) -> Look {
    Look {
        at,
        user: UserId::fresh(),
        session: SessionId::fresh(),
        will,
    }
}

#[test]
fn a_due_row_reads_back() {
    for look in [look(7, None), look(u64::MAX, Some(9))] {
        assert_eq!(Look::decode(&look.element()), Some(look));
    }
    assert_eq!(Look::decode(b"short"), None);
}

#[test]
fn nothing_is_looked_at_before_clients_had_time_to_return() {
    let mut due = Due::default();
    due.taken_up(&[3], 30_000);
    assert!(due.tick(29_999, 1_000_000).is_empty());
    assert_eq!(due.tick(30_000, 1_000_000).len(), 1);
    assert!(due.tick(30_001, 1_000_000).is_empty(), "it is being read");
}

#[test]
fn shards_that_come_later_do_not_put_off_those_that_were_there() {
    let mut due = Due::default();
    due.taken_up(&[3], 30_000);
    // Another node goes down and comes back, again and again: shards go to and fro.
    due.taken_up(&[4], 45_000);
    due.given_up(&HashSet::from([4]));
    due.taken_up(&[4], 55_000);
    let numbers = |reads: Vec<(u16, Read)>| reads.into_iter().map(|(shard, _)| shard).collect::<Vec<_>>();
    assert!(due.tick(29_999, 1_000_000).is_empty());
    assert_eq!(numbers(due.tick(30_000, 1_000_000)), [3]);
    assert!(due.tick(54_999, 1_000_000).is_empty());
    assert_eq!(numbers(due.tick(55_000, 1_000_000)), [4]);
}

#[test]
fn a_row_of_after_the_start_is_looked_at_in_time_and_the_older_ones_beside_it_are_not() {
    let mut due = Due::default();
    let fresh = look(2_000, None);
    let older = Look {
        at: 1_500,
        session: SessionId::fresh(),
        ..fresh
    };
    let another = Look {
        at: 2_000,
        session: SessionId::fresh(),
        user: UserId(Uuid::max()),
        will: None,
    };
    let shard = Key::User(fresh.user).shard();
    due.taken_up(&[shard], 30_000);
    due.stands(fresh.user, fresh.at);
    assert!(due.tick(1_000, 1_999).is_empty());
    let reads = due.tick(2_000, 2_000);
    let [
        (
            number,
            Read::Set {
                after: Some(after), ..
            },
        ),
    ] = &reads[..]
    else {
        panic!("it is read")
    };
    assert!(*number == shard && older.element() < *after && *after < fresh.element());
    assert!(due.tick(2_100, 2_100).is_empty(), "it is being read");
    assert!(due.read(shard, None).is_empty());
    assert_eq!(due.tick(3_000, 3_000).len(), 1, "again after a failure");
    let elements = vec![(fresh.element(), Bytes::new()), (another.element(), Bytes::new())];
    let answer = ReadAnswer::Set {
        elements,
        more: false,
    };
    assert_eq!(due.read(shard, Some(&answer)), [fresh]);
    assert!(due.tick(29_999, 29_999).is_empty());
    let reads = due.tick(30_000, 30_000);
    let [
        (
            _,
            Read::Set {
                after: Some(after), ..
            },
        ),
    ] = &reads[..]
    else {
        panic!("all are read")
    };
    assert!(*after < older.element());
}

#[test]
fn rows_of_after_the_start_are_bounded_and_the_earliest_are_kept() {
    let mut due = Due::default();
    let user = UserId::fresh();
    due.taken_up(&[Key::User(user).shard()], 30_000);
    for at in (1..=FRESH as u64 + 10).rev() {
        due.stands(user, at);
    }
    assert_eq!(due.fresh.len(), FRESH);
    assert_eq!(due.fresh.first(), Some(&(1, user)));
    due.tick(30_000, 1_000_000);
    due.stands(user, 5);
    assert!(due.fresh.is_empty());
}

#[test]
fn a_shard_is_read_again_when_its_next_row_is_due() {
    let mut due = Due::default();
    let (past, future) = (look(900, None), look(5_000, Some(1)));
    let shard = Key::User(past.user).shard();
    due.taken_up(&[shard], 0);
    assert_eq!(due.tick(0, 1_000).len(), 1);
    let elements = vec![(past.element(), Bytes::new()), (future.element(), Bytes::new())];
    let answer = ReadAnswer::Set {
        elements,
        more: false,
    };
    assert_eq!(due.read(shard, Some(&answer)), [past]);
    assert!(due.tick(0, 4_999).is_empty());
    due.stands(past.user, 3_000);
    assert_eq!(due.tick(0, 3_000).len(), 1);
    let answer = ReadAnswer::Set {
        elements: Vec::new(),
        more: false,
    };
    assert!(due.read(shard, Some(&answer)).is_empty());
    assert!(due.tick(0, u64::MAX - 1).is_empty());
}

#[test]
fn a_full_page_of_due_rows_is_followed_by_the_next() {
    let mut due = Due::default();
    due.taken_up(&[1], 0);
    due.tick(0, 1_000);
    let elements = vec![
        (look(10, None).element(), Bytes::new()),
        (look(20, None).element(), Bytes::new()),
    ];
    let answer = ReadAnswer::Set { elements, more: true };
    assert_eq!(due.read(1, Some(&answer)).len(), 2);
    let again = due.tick(0, 1_000);
    let Some((
        1,
        Read::Set {
            after: Some(after), ..
        },
    )) = again.first()
    else {
        panic!("it is read on");
    };
    assert_eq!(after[..], 20u64.to_be_bytes()[..]);
}

const NOTHING: ReadAnswer = ReadAnswer::Set {
    elements: Vec::new(),
    more: false,
};

#[test]
fn a_row_that_became_durable_during_a_read_is_read_by_the_next() {
    let mut due = Due::default();
    let row = look(900, None);
    let shard = Key::User(row.user).shard();
    due.taken_up(&[shard], 0);
    due.tick(0, 1_000);
    due.stands(row.user, row.at);
    due.read(shard, Some(&NOTHING));
    let reads = due.tick(0, 1_000);
    let [
        (
            _,
            Read::Set {
                after: Some(after), ..
            },
        ),
    ] = &reads[..]
    else {
        panic!("it is read")
    };
    assert!(*after < row.element());
}

#[test]
fn a_row_below_what_was_read_is_looked_at_though_the_clock_went_back() {
    let mut due = Due::default();
    let row = look(500, None);
    let shard = Key::User(row.user).shard();
    due.taken_up(&[shard], 0);
    due.tick(0, 1_000);
    due.read(shard, Some(&NOTHING));
    due.stands(row.user, row.at);
    assert!(due.tick(0, 499).is_empty());
    assert_eq!(due.tick(0, 500).len(), 1);
}

#[test]
fn a_read_that_failed_is_repeated_from_where_it_began() {
    let mut due = Due::default();
    due.taken_up(&[1], 0);
    let after = |reads: Vec<(u16, Read)>| match &reads[..] {
        [(1, Read::Set { after, .. })] => after.clone(),
        _ => panic!("it is read"),
    };
    let first = after(due.tick(0, 1_000));
    due.read(1, None);
    assert_eq!(after(due.tick(0, 1_000)), first);
}

#[test]
fn what_is_due_at_once_is_looked_at_a_part_a_turn_and_no_more_is_read_meanwhile() {
    let mut due = Due::default();
    due.taken_up(&[3, 4], 0);
    let many = 2 * LOOKS_A_TURN + 1;
    due.put((0..many as u64).map(|at| look(at, None)).collect());
    let mut seen = Vec::new();
    for part in [LOOKS_A_TURN, LOOKS_A_TURN, 1] {
        assert!(due.tick(1_000, 1_000_000).is_empty());
        assert_eq!(due.next_tick_ms(), BUSY_TICK_MS);
        let some: Vec<Look> = due.some_looks().collect();
        assert_eq!(some.len(), part);
        seen.extend(some.iter().map(|look| look.at));
    }
    assert_eq!(seen, (0..many as u64).collect::<Vec<_>>(), "in order");
    assert_eq!(due.tick(1_000, 1_000_000).len(), 2);
}
