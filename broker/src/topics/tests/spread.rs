//! Publishes that are for many: a part a turn, in order within their key, and nobody else waits for them.

use super::super::spread::{A_TURN, FEW, MATCHED, WAITING};
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

fn plain(topic: &str, from: Option<SessionId>) -> Publish {
    Publish {
        retain: false,
        from,
        ..publish(topic, 1)
    }
}

type Told = tokio::sync::oneshot::Receiver<Answer>;

fn give(rig: &mut Rig, publish: Publish) -> Told {
    let (reply, told) = Harness::reply();
    let key = Key::of_topic(&publish.topic);
    rig.apply(&key, TopicCommand::Publish(Arc::new(publish)), reply);
    told
}

/// One turn, with its end: the topics and publishers of what was delivered in it, taken by all.
fn turn(rig: &mut Rig) -> Vec<(String, Option<SessionId>)> {
    let mut delivered = Vec::new();
    while let Some((_, command, reply)) = rig.harness.take_command() {
        let Command::User(UserCommand::Deliver { publish, .. }) = command else {
            panic!("only deliveries here")
        };
        delivered.push((publish.topic.to_string(), publish.from));
        rig.harness.with(RoleId::Broker, |cx| {
            cx.answer(reply, Answer::Kept { gone: Vec::new() })
        });
    }
    while let Some((tag, answer)) = rig.harness.take_answer() {
        let topics = &mut rig.topics;
        rig.harness
            .with(RoleId::Broker, |cx| topics.answered(cx, number(tag), answer));
    }
    rig.end_of_turn();
    delivered
}

#[test]
fn a_publish_for_many_is_given_to_a_part_of_them_a_turn_and_acknowledged_when_all_have_it() {
    let mut rig = Rig::new();
    let many = 10 * A_TURN + 3;
    subscribers(&mut rig, "a/b/c", many);
    let mut told = give(&mut rig, plain("a/b/c", None));
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
    let _many = give(&mut rig, plain("a/b/c", None));
    turn(&mut rig);
    let mut few = give(&mut rig, plain("x/y/z", None));
    let delivered = turn(&mut rig);
    assert_eq!(
        delivered.iter().filter(|(topic, _)| topic == "x/y/z").count(),
        FEW
    );
    assert!(delivered.len() > FEW, "the other goes on beside it");
    assert!(few.try_recv().is_ok());
}

#[test]
fn two_keys_with_publishes_for_many_share_the_turns() {
    let mut rig = Rig::new();
    for topic in ["a/b/c", "x/y/z"] {
        subscribers(&mut rig, topic, 5 * A_TURN);
    }
    let _one = give(&mut rig, plain("a/b/c", None));
    let _other = give(&mut rig, plain("x/y/z", None));
    turn(&mut rig);
    let delivered = turn(&mut rig);
    let of_one = delivered.iter().filter(|(topic, _)| topic == "a/b/c").count();
    assert_eq!((delivered.len(), of_one), (A_TURN, A_TURN / 2));
}

#[test]
fn publishes_of_one_key_stay_in_order_and_its_publishers_take_turns() {
    let mut rig = Rig::new();
    let many = 3 * A_TURN;
    subscribers(&mut rig, "a/b/#", many);
    let (one, other) = (SessionId::fresh(), SessionId::fresh());
    let order = [("a/b/1", one), ("a/b/2", one), ("a/b/3", one), ("a/b/4", other)];
    let mut told: Vec<Told> = order
        .iter()
        .map(|(topic, from)| give(&mut rig, plain(topic, Some(*from))))
        .collect();
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..1_000 {
        for (topic, _) in turn(&mut rig) {
            if seen.last() != Some(&topic) {
                seen.push(topic);
            }
        }
    }
    // Each is over before the next begins, and the other's only one does not wait for all of the first's.
    assert_eq!(seen, ["a/b/1", "a/b/2", "a/b/4", "a/b/3"]);
    assert!(told.iter_mut().all(|told| told.try_recv().is_ok()));
    assert!(rig.topics.quiet());
}

#[test]
fn what_waits_is_bounded_and_what_is_over_is_told_and_all_that_was_taken_arrives() {
    let mut rig = Rig::new();
    subscribers(&mut rig, "a/b/#", 2 * A_TURN);
    let mut told: Vec<Told> = (0..WAITING + 11)
        .map(|n| give(&mut rig, plain(&format!("a/b/{n}"), None)))
        .collect();
    let refused = |told: &mut Told| match told.try_recv() {
        Ok(Answer::Refused(refusal)) => refusal.code == Code::Unavailable,
        _ => false,
    };
    // One goes, so many wait, and ten are too many.
    assert_eq!(
        told.iter_mut()
            .filter_map(|told| refused(told).then_some(()))
            .count(),
        10
    );
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
    let tree: Vec<Route> = (0..many).map(|_| route("#")).collect();
    for route in tree {
        rig.topics.wildcards.insert(route, true);
    }
    let mut told: Vec<Told> = (0..5)
        .map(|n| give(&mut rig, plain(&format!("key{n}/b/c"), None)))
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
    let mut told = give(&mut rig, plain("a/b/c", None));
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
