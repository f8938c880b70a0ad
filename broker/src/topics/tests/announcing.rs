//! What is announced and refused is announced again, and nothing else, until it is refused for too long.

use std::collections::HashMap;

use godwit_wire::code::Refusal;

use super::*;

/// Announces so many routes, each of which is refused as often as `refuses` says by its filter and the number of the try. Gives how often each was announced, and
/// the answer.
fn announce(routes: usize, refuses: impl Fn(&str, u32) -> bool) -> (HashMap<String, u32>, Answer) {
    let mut rig = Rig::new();
    let (reply, mut answer) = Harness::reply();
    let routes = (0..routes).map(|number| route(&format!("t{number}/x"))).collect();
    let topics = &mut rig.topics;
    rig.harness
        .with(RoleId::Broker, |cx| topics.announce(cx, routes, reply));
    let mut asked = HashMap::<String, u32>::new();
    for _ in 0..1_000 {
        while let Some((_, command, reply)) = rig.harness.take_command() {
            let Command::Topic(TopicCommand::Announce { route }) = command else {
                panic!("nothing else is asked");
            };
            let times = asked.entry(route.filter.to_string()).or_default();
            *times += 1;
            let answer = match refuses(&route.filter, *times) {
                true => Refusal::unavailable().into(),
                false => Answer::Done,
            };
            rig.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
            while let Some((tag, answer)) = rig.harness.take_answer() {
                let topics = &mut rig.topics;
                rig.harness
                    .with(RoleId::Broker, |cx| topics.answered(cx, number(tag), answer));
            }
        }
        if let Ok(answer) = answer.try_recv() {
            return (asked, answer);
        }
        rig.harness.advance(200);
        while let Some(tag) = rig.harness.take_timer() {
            rig.timer(number(tag));
        }
    }
    panic!("it does not end");
}

#[test]
fn only_what_was_refused_is_announced_again() {
    let (asked, answer) = announce(3_000, |filter, times| filter.ends_with("7/x") && times < 4);
    assert!(matches!(answer, Answer::Done), "{answer:?}");
    assert_eq!(asked.len(), 3_000);
    for (filter, times) in asked {
        assert_eq!(times, if filter.ends_with("7/x") { 4 } else { 1 }, "{filter}");
    }
}

#[test]
fn what_is_refused_for_long_ends_it_and_the_whole_is_asked_for_anew() {
    let (asked, answer) = announce(3_000, |filter, _| filter == "t7/x");
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    assert_eq!(asked["t7/x"], 26);
}
