//! Publishes that are for many: a part a turn, in order within their key, and nobody else waits for them.

use std::collections::{HashSet, VecDeque};

use super::super::spread::{
    A_TURN, A_WALK, AT_ONCE, FEW, IN_INBOXES, MATCHED, SHARES, STUCK_MS, UNANSWERED, WAITING,
};
use super::*;

impl Rig {
    pub(super) fn end_of_turn(&mut self) {
        let topics = &mut self.topics;
        self.harness.with(RoleId::Broker, |cx| topics.end_of_turn(cx));
    }
}

/// Subscribers of one topic, each a user of their own.
fn subscribers(rig: &mut Rig, filter: &str, count: usize) {
    for _ in 0..count {
        rig.subscribe(&route(filter));
    }
}

fn plain(topic: &str) -> Publish {
    Publish {
        retain: false,
        ..publish(topic, 1)
    }
}

/// What a worker's mail brings where the subscribers of all keys are the same.
fn everywhere(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        rig.topics.wildcards.insert(route("#"), true);
    }
}

type Told = tokio::sync::oneshot::Receiver<Answer>;

/// By a user of its own.
fn give(rig: &mut Rig, publish: Publish) -> Told {
    give_of(rig, publish, UserId::fresh())
}

fn give_of(rig: &mut Rig, publish: Publish, by: UserId) -> Told {
    let (reply, told) = Harness::reply();
    let key = Key::of_topic(&publish.topic);
    rig.apply(&key, TopicCommand::Publish(Arc::new(publish), by), reply);
    told
}

/// One turn, with its end: the topics of what was delivered in it, taken by all.
fn turn(rig: &mut Rig) -> Vec<String> {
    let mut delivered = Vec::new();
    while let Some((_, command, reply)) = rig.harness.take_command() {
        let Command::User(UserCommand::Deliver { publish, .. }) = command else {
            panic!("only deliveries here")
        };
        delivered.push(publish.topic.to_string());
        rig.harness.with(RoleId::Broker, |cx| {
            cx.answer(reply, Answer::Kept { gone: Vec::new() })
        });
    }
    take_answers(rig);
    rig.end_of_turn();
    delivered
}

fn take_answers(rig: &mut Rig) {
    while let Some((tag, answer)) = rig.harness.take_answer() {
        let topics = &mut rig.topics;
        rig.harness
            .with(RoleId::Broker, |cx| topics.answered(cx, number(tag), answer));
    }
}

/// A turn, and time enough to rest from it.
fn slow_turn(rig: &mut Rig) -> Vec<String> {
    let delivered = turn(rig);
    rig.harness.advance(50);
    delivered
}

#[test]
fn a_publish_for_many_is_given_to_a_part_of_them_a_turn_and_acknowledged_when_all_have_it() {
    let mut rig = Rig::new();
    let many = 10 * A_TURN + 3;
    subscribers(&mut rig, "a/b/c", many);
    let mut told = give(&mut rig, plain("a/b/c"));
    let mut got = 0;
    while got < many {
        assert!(told.is_empty(), "before all have it");
        let delivered = turn(&mut rig).len();
        assert!(delivered <= A_TURN, "{delivered} in one turn");
        got += delivered;
    }
    assert_eq!(got, many);
    let routes = many as u32;
    let all = Answer::Published {
        matched: true,
        routes,
    };
    assert_eq!(format!("{:?}", told.try_recv().unwrap()), format!("{all:?}"));
    assert!(rig.topics.quiet());
}

#[test]
fn a_publish_for_few_of_another_key_does_not_wait_for_one_for_many() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", 10 * A_TURN);
    subscribers(&mut rig, "x/y/z", FEW);
    let _many = give(&mut rig, plain("a/b/c"));
    turn(&mut rig);
    let mut few = give(&mut rig, plain("x/y/z"));
    let delivered = turn(&mut rig);
    assert_eq!(delivered.iter().filter(|topic| *topic == "x/y/z").count(), FEW);
    assert!(delivered.len() > FEW, "the other goes on beside it");
    assert!(few.try_recv().is_ok());
}

#[test]
fn two_keys_with_publishes_for_many_share_the_turns() {
    let mut rig = Rig::new();
    for topic in ["a/b/c", "x/y/z"] {
        subscribers(&mut rig, topic, 5 * A_TURN);
    }
    let _one = give(&mut rig, plain("a/b/c"));
    let _other = give(&mut rig, plain("x/y/z"));
    turn(&mut rig);
    let delivered = turn(&mut rig);
    let of_one = delivered.iter().filter(|topic| *topic == "a/b/c").count();
    assert_eq!((delivered.len(), of_one), (A_TURN, A_TURN / 2));
}

/// Everything that is under way is given: one after another, whose.
fn in_order(rig: &mut Rig) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    while !rig.topics.quiet() {
        for topic in turn(rig) {
            if seen.last() != Some(&topic) {
                seen.push(topic);
            }
        }
    }
    seen
}

#[test]
fn publishes_of_one_key_stay_in_order_and_its_publishers_take_turns() {
    let mut rig = Rig::new();
    let many = 3 * A_TURN;
    subscribers(&mut rig, "a/b/#", many);
    let (one, other) = (UserId::fresh(), UserId::fresh());
    let order = [("a/b/1", one), ("a/b/2", one), ("a/b/3", one), ("a/b/4", other)];
    let mut told: Vec<Told> = order
        .iter()
        .map(|(topic, by)| give_of(&mut rig, plain(topic), *by))
        .collect();
    let seen = in_order(&mut rig);
    // Each is over before the next begins, and the other's only one does not wait for all of the first's.
    assert_eq!(seen, ["a/b/1", "a/b/2", "a/b/4", "a/b/3"]);
    assert!(told.iter_mut().all(|told| told.try_recv().is_ok()));
    assert!(rig.topics.quiet());
}

/// How many were refused as unavailable.
fn refused(told: &mut [Told]) -> usize {
    let is_refused = |told: &mut Told| match told.try_recv() {
        Ok(Answer::Refused(refusal)) => refusal.code == Code::Unavailable,
        _ => false,
    };
    told.iter_mut()
        .filter_map(|told| is_refused(told).then_some(()))
        .count()
}

#[test]
fn what_waits_is_bounded_and_what_is_over_is_told_and_all_that_was_taken_arrives() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/#", 2 * A_TURN);
    let users: Vec<UserId> = (0..SHARES + 4).map(|_| UserId::fresh()).collect();
    let mut told: Vec<Told> = (0..WAITING + 11)
        .map(|n| give_of(&mut rig, plain(&format!("a/b/{n}")), users[n % users.len()]))
        .collect();
    // One goes, so many wait, and ten are too many.
    assert_eq!(refused(&mut told), 10);
    let mut got = 0;
    while !rig.topics.quiet() {
        got += turn(&mut rig).len();
    }
    assert_eq!(got, (WAITING + 1) * 2 * A_TURN);
}

#[test]
fn no_more_is_matched_than_has_room_and_what_waits_for_room_goes_on() {
    let mut rig = Rig::new();
    let many = MATCHED / 3 + 1;
    everywhere(&mut rig, many);
    let mut told: Vec<Told> = (0..5)
        .map(|n| give(&mut rig, plain(&format!("key{n}/b/c"))))
        .collect();
    assert_eq!(rig.topics.publishing.len(), 3, "the others are not matched yet");
    rig.topics.wildcards = Default::default();
    let mut got = 0;
    while !rig.topics.quiet() {
        got += turn(&mut rig).len();
    }
    // What waited is matched when its turn comes: nobody is left.
    assert_eq!(got, 3 * many);
    assert!(told.iter_mut().all(|told| told.try_recv().is_ok()));
}

#[test]
fn a_retained_publish_that_waits_is_kept_in_its_turn() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", 3 * A_TURN);
    for bytes in [1, 2] {
        drop(give(&mut rig, publish("a/b/c", bytes)));
    }
    let of_memory = |rig: &mut Rig| {
        let home = rig.topics.home(&Key::of_topic("a/b/c")).unwrap();
        home.retained_matching("a/b/c", 0)[0].payload.len()
    };
    assert_eq!(of_memory(&mut rig), 1);
    rig.run();
    assert_eq!(of_memory(&mut rig), 2);
}

#[test]
fn one_that_somebody_could_not_take_says_all_the_same_for_how_many_it_was() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", A_TURN);
    let mut told = give(&mut rig, plain("a/b/c"));
    let mut first = true;
    while let Some((_, _, reply)) = rig.harness.take_command() {
        let answer = match std::mem::take(&mut first) {
            true => Answer::Refused(godwit_wire::code::Refusal::unavailable()),
            false => Answer::Kept { gone: Vec::new() },
        };
        rig.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
    }
    turn(&mut rig);
    let routes = A_TURN as u32;
    assert!(matches!(told.try_recv(), Ok(Answer::PublishRefused { routes: of, .. }) if of == routes));
}

#[test]
fn nothing_is_given_while_the_store_stands_still_and_it_goes_on_when_there_is_room() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", 10 * A_TURN);
    let _told = give(&mut rig, plain("a/b/c"));
    assert_eq!((turn(&mut rig).len(), turn(&mut rig).len()), (0, A_TURN));
    rig.store.busy.store(true, Ordering::Relaxed);
    let topics = &mut rig.topics;
    rig.harness.with(RoleId::Broker, |cx| {
        while !cx.congested() {
            let tag = topics.step(super::super::Step::Lazy);
            cx.store(&Key::Wildcards, tag, Vec::new());
        }
    });
    // What the turn before gave, and no more.
    assert_eq!(turn(&mut rig).len(), A_TURN);
    for _ in 0..100 {
        assert_eq!(turn(&mut rig).len(), 0);
    }
    // It is looked at again without anything else that makes a turn, and not without a pause.
    let due = |rig: &mut Rig| std::iter::from_fn(|| rig.harness.take_timer()).count();
    rig.harness.advance(2);
    assert_eq!(due(&mut rig), 1, "of the turns before");
    rig.topics.spread_timer();
    turn(&mut rig);
    rig.harness.advance(2);
    assert_eq!(due(&mut rig), 0);
    rig.harness.advance(10);
    assert_eq!(due(&mut rig), 1);
}

#[test]
fn what_is_given_and_not_answered_is_bounded_and_goes_on_with_the_answers() {
    let mut rig = Rig::new();
    let many = UNANSWERED + 10 * A_TURN;
    everywhere(&mut rig, many);
    let mut told = give(&mut rig, plain("a/b/c"));
    let mut asked = VecDeque::new();
    let turns = |rig: &mut Rig, asked: &mut VecDeque<_>| {
        for _ in 0..2 * many / A_TURN {
            rig.end_of_turn();
            asked.extend(std::iter::from_fn(|| rig.harness.take_command()).map(|(_, _, reply)| reply));
        }
    };
    let answer = |rig: &mut Rig, reply| {
        let kept = Answer::Kept { gone: Vec::new() };
        rig.harness.with(RoleId::Broker, |cx| cx.answer(reply, kept));
        take_answers(rig);
    };
    turns(&mut rig, &mut asked);
    assert_eq!(asked.len(), IN_INBOXES, "others ask those workers too");
    // As long as there are answers, however slowly they come.
    let some = A_TURN + 4;
    for _ in 0..3 {
        rig.harness.advance(STUCK_MS - 1);
        for _ in 0..some {
            answer(&mut rig, asked.pop_front().unwrap());
        }
        turns(&mut rig, &mut asked);
        let asked = asked.len();
        assert!((IN_INBOXES..IN_INBOXES + A_TURN).contains(&asked), "{asked}");
    }
    // Nothing moves.
    let mut most = IN_INBOXES;
    while most < UNANSWERED {
        rig.harness.advance(STUCK_MS);
        turns(&mut rig, &mut asked);
        most *= 2;
        let asked = asked.len();
        assert!((most..most + A_TURN).contains(&asked), "{asked} of {most}");
    }
    rig.harness.advance(STUCK_MS);
    turns(&mut rig, &mut asked);
    assert!(asked.len() < UNANSWERED + A_TURN, "{}", asked.len());
    let mut got = asked.len() + 3 * some;
    for reply in asked {
        answer(&mut rig, reply);
    }
    while !rig.topics.quiet() {
        got += turn(&mut rig).len();
    }
    assert_eq!(got, many);
    assert!(matches!(told.try_recv(), Ok(Answer::Published { .. })));
    assert!(rig.topics.spreads.is_at_rest());
}

#[test]
fn one_user_has_a_share_of_the_places_and_leaves_the_others_to_others() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/#", 2 * A_TURN);
    let flooder = UserId::fresh();
    let mut flood: Vec<Told> = (0..WAITING)
        .map(|n| give_of(&mut rig, plain(&format!("a/b/{n}")), flooder))
        .collect();
    // One goes, and its share waits.
    assert_eq!(refused(&mut flood), WAITING - WAITING / SHARES - 1);
    let mut other: Vec<Told> = (0..WAITING / SHARES)
        .map(|_| give(&mut rig, plain("a/b/other")))
        .collect();
    assert_eq!(refused(&mut other), 0);
    let seen = in_order(&mut rig);
    // All of the others', who have a line each, come before the flooder's third.
    let third = seen.iter().filter(|topic| *topic != "a/b/other").nth(2).unwrap();
    assert_eq!(third, "a/b/2");
    let before = |topic: &str| seen.iter().rposition(|seen| seen == topic).unwrap();
    assert!(before("a/b/other") < before("a/b/2"));
    assert!(rig.topics.spreads.is_at_rest());
}

#[test]
fn who_publishes_to_many_keys_has_few_under_way_and_another_users_goes_beside_them() {
    let mut rig = Rig::new();
    let many = 8 * A_TURN;
    everywhere(&mut rig, many);
    let flooder = UserId::fresh();
    let flood: Vec<Told> = (0..WAITING / SHARES)
        .map(|n| give_of(&mut rig, plain(&format!("key{n}/b/c")), flooder))
        .collect();
    assert_eq!(rig.topics.publishing.len(), AT_ONCE);
    let mut other = give(&mut rig, plain("other/b/c"));
    let mut turns = 0;
    while other.is_empty() {
        turn(&mut rig);
        turns += 1;
    }
    assert!(matches!(other.try_recv(), Ok(Answer::Published { .. })));
    // A fifth of the turns is its own.
    let fair = (AT_ONCE + 1) * many / A_TURN;
    assert!(turns <= fair + 3, "{turns} turns, not {fair}");
    while !rig.topics.quiet() {
        turn(&mut rig);
    }
    assert!(flood.into_iter().all(|mut told| told.try_recv().is_ok()));
}

#[test]
fn a_user_with_more_than_a_share_matched_waits_and_others_are_matched() {
    let mut rig = Rig::new();
    let many = MATCHED / SHARES + 1;
    everywhere(&mut rig, many);
    let one = UserId::fresh();
    let _told: Vec<Told> = (0..4)
        .map(|n| give_of(&mut rig, plain(&format!("key{n}/b/c")), one))
        .collect();
    assert_eq!(rig.topics.publishing.len(), 1);
    let _other = give(&mut rig, plain("other/b/c"));
    assert_eq!(rig.topics.publishing.len(), 2);
}

#[test]
fn what_a_user_publishes_next_by_another_session_or_as_a_will_is_behind_what_waits_already() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/#", 3 * A_TURN);
    let by = UserId::fresh();
    let sessions = [Some(SessionId::fresh()), None, Some(SessionId::fresh())];
    let mut told: Vec<Told> = (0..9)
        .map(|n| {
            let publish = Publish {
                from: sessions[n / 3],
                ..plain(&format!("a/b/{n}"))
            };
            give_of(&mut rig, publish, by)
        })
        .collect();
    let expected: Vec<String> = (0..9).map(|n| format!("a/b/{n}")).collect();
    assert_eq!(in_order(&mut rig), expected);
    assert!(told.iter_mut().all(|told| told.try_recv().is_ok()));
}

#[test]
fn what_is_given_in_a_later_turn_says_so() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", FEW);
    subscribers(&mut rig, "x/y/z", 2 * A_TURN);
    for (topic, is_late) in [("a/b/c", false), ("x/y/z", true)] {
        let _told = give(&mut rig, plain(topic));
        rig.end_of_turn();
        let (_, command, _) = rig.harness.take_command().unwrap();
        let Command::User(UserCommand::Deliver { late, .. }) = command else {
            panic!("{command:?} is no delivery")
        };
        assert_eq!(late > 0, is_late, "{topic}");
        while rig.harness.take_command().is_some() {}
    }
}

/// Filters of one user that a topic matches along all paths: each level is itself or `+`.
fn many_paths(rig: &mut Rig, levels: usize) -> String {
    let (user, session) = (UserId::fresh(), SessionId::fresh());
    for number in 0..1_u32 << levels {
        let path = (0..levels).map(|bit| if number >> bit & 1 == 1 { "/+" } else { "/a" });
        let mut of_user = route(&format!("deep/er{}", path.collect::<String>()));
        (of_user.user, of_user.session, of_user.route_id) = (user, session, u64::from(number) + 1);
        rig.subscribe(&of_user);
    }
    format!("deep/er{}", "/a".repeat(levels))
}

#[test]
fn a_publish_that_is_costly_to_match_has_turns_between_it_and_the_next_and_holds_up_no_other_key() {
    let mut rig = Rig::new();
    let deep = many_paths(&mut rig, 13);
    subscribers(&mut rig, "x/y/z", 1);
    slow_turn(&mut rig);
    let _known = give(&mut rig, plain("x/y/z"));
    slow_turn(&mut rig);

    let by = UserId::fresh();
    let mut costly: Vec<Told> = (0..3).map(|_| give_of(&mut rig, plain(&deep), by)).collect();
    let cost = rig.topics.home(&Key::of_topic(&deep)).and_then(|home| home.cost);
    assert!(cost.is_some_and(|cost| cost as usize > A_WALK), "{cost:?}");
    let _light = give(&mut rig, plain("x/y/z"));
    assert_eq!(
        slow_turn(&mut rig),
        [deep.clone(), "x/y/z".to_owned()],
        "the others of the first key wait"
    );
    // The end of that turn came before its rest was over.
    assert_eq!(slow_turn(&mut rig), Vec::<String>::new());
    let mut delivered = Vec::new();
    for _ in 0..8 {
        let of_turn = slow_turn(&mut rig);
        assert!(of_turn.len() <= 1, "one a turn");
        delivered.extend(of_turn);
    }
    assert_eq!(delivered, [deep.clone(), deep]);
    assert!(costly.iter_mut().all(|told| told.try_recv().is_ok()));
    assert!(rig.topics.quiet() && rig.topics.spreads.is_at_rest());
}

#[test]
fn while_the_worker_rests_a_key_that_nobody_knows_the_cost_of_waits_too() {
    let mut rig = Rig::new();
    let deep = many_paths(&mut rig, 13);
    subscribers(&mut rig, "x/y/z", 1);
    slow_turn(&mut rig);
    let _costly = give(&mut rig, plain(&deep));
    let mut unknown = give(&mut rig, plain("x/y/z"));
    assert_eq!(slow_turn(&mut rig), [deep]);
    assert!(unknown.try_recv().is_err());
    let delivered: Vec<String> = (0..4).flat_map(|_| slow_turn(&mut rig)).collect();
    assert_eq!(delivered, ["x/y/z"]);
    assert!(unknown.try_recv().is_ok());
}

#[test]
fn what_was_given_of_a_shard_that_went_counts_no_more_once_it_is_answered() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/c", 4 * A_TURN);
    let mut told = give(&mut rig, plain("a/b/c"));
    rig.topics
        .given_up(&HashSet::from([Key::of_topic("a/b/c").shard()]));
    assert!(
        !matches!(told.try_recv(), Ok(Answer::Published { .. })),
        "nobody says that it is done"
    );
    while !turn(&mut rig).is_empty() {}
    assert!(rig.topics.spreads.is_at_rest());
    assert!(rig.topics.quiet());
}
