//! Groups by their own calls: turns, who is passed over, who is asked although away, how many there may be.

use super::super::tree::tests::route;
use super::*;

fn but(sessions: &[SessionId]) -> But {
    let mut but = But::default();
    sessions.iter().for_each(|one| but.session(*one));
    but
}

fn chosen(groups: &mut Groups, filter: &str, times: usize) -> Vec<SessionId> {
    let mut all = Vec::new();
    for _ in 0..times {
        all.extend(
            groups
                .choose(filter, &mut But::default())
                .map(|one| one.member.session),
        );
    }
    all
}

#[test]
fn connected_members_take_turns_and_the_others_only_when_nobody_is() {
    let mut groups = Groups::default();
    let filter = "$share/g/a/#";
    let all: Vec<Route> = (0..4).map(|_| route(filter)).collect();
    for (n, one) in all.iter().enumerate() {
        assert!(
            groups
                .insert(
                    Route {
                        qos: 1,
                        ..one.clone()
                    },
                    n < 2
                )
                .is_none()
        );
    }
    let turns = chosen(&mut groups, filter, 4);
    assert_eq!(
        turns,
        [all[0].session, all[1].session, all[0].session, all[1].session]
    );
    groups.is_here(all[0].session, filter, false);
    assert_eq!(chosen(&mut groups, filter, 2), [all[1].session; 2]);
    groups.is_here(all[1].session, filter, false);
    assert!(!groups.is_anyone_here());
    let mut turns = chosen(&mut groups, filter, 4);
    turns.sort_unstable();
    turns.dedup();
    assert_eq!(turns.len(), 4, "each once");
    groups.is_here(all[3].session, filter, true);
    assert_eq!(chosen(&mut groups, filter, 2), [all[3].session; 2]);
    let other = groups.choose(filter, &mut but(&[all[3].session]));
    assert!(other.is_some_and(|one| !one.here && one.member.session != all[3].session));
}

#[test]
fn nothing_is_kept_for_a_member_of_qos_0_that_is_away() {
    let mut groups = Groups::default();
    let deaf = Route {
        qos: 0,
        ..route("$share/g/a")
    };
    groups.insert(deaf.clone(), false);
    assert!(groups.choose("$share/g/a", &mut But::default()).is_none());
    groups.is_here(deaf.session, "$share/g/a", true);
    assert!(groups.choose("$share/g/a", &mut But::default()).is_some());
}

#[test]
fn a_topic_finds_each_group_of_its_filters_once_and_an_empty_group_is_gone() {
    let mut groups = Groups::default();
    let members = [
        "$share/g/a/+",
        "$share/g/a/+",
        "$share/h/a/+",
        "$share/g/#",
        "$share/g/b",
    ]
    .map(route);
    for one in &members {
        groups.insert(one.clone(), true);
    }
    let found = |groups: &Groups| {
        let mut found = Vec::new();
        groups.matching("a/b", &mut |filter| found.push(filter.to_string()));
        found.sort();
        found
    };
    assert_eq!(found(&groups), ["$share/g/#", "$share/g/a/+", "$share/h/a/+"]);
    let newer = Route {
        route_id: 9,
        ..members[3].clone()
    };
    assert_eq!(groups.insert(newer, true), Some(members[3].clone()));
    assert!(
        groups
            .remove(members[3].session, "$share/g/#", Some(members[3].route_id))
            .is_none()
    );
    for one in &members {
        assert!(groups.remove(one.session, &one.filter, None).is_some());
    }
    assert!(found(&groups).is_empty() && groups.is_empty() && groups.places.is_empty());
    assert!(groups.tree.is_empty() && !groups.is_anyone_here());
}

#[test]
fn a_group_has_a_most_of_members_and_who_is_in_may_subscribe_again() {
    let mut groups = Groups::default();
    let first = route("$share/g/a");
    groups.insert(first.clone(), true);
    for _ in 1..SHARE_MEMBERS {
        let one = route("$share/g/a");
        assert!(groups.check(&one).is_ok());
        groups.insert(one, false);
    }
    let refused = groups.check(&route("$share/g/a")).map_err(|refusal| refusal.code);
    assert_eq!(refused, Err(Code::Quota));
    assert!(groups.check(&first).is_ok() && groups.check(&route("$share/h/a")).is_ok());
}

#[test]
fn who_would_not_take_it_is_not_asked_again_and_one_that_is_away_is_when_no_connected_one_would() {
    let mut groups = Groups::default();
    let filter = "$share/g/a/#";
    let [one, two, away] = [0, 1, 2].map(|_| Route {
        qos: 1,
        ..route(filter)
    });
    groups.insert(one.clone(), true);
    groups.insert(two.clone(), true);
    groups.insert(away.clone(), false);
    let mut ask = |sessions: &[SessionId]| {
        let chosen = groups.choose(filter, &mut but(sessions));
        chosen.map(|chosen| (chosen.member.session, chosen.here))
    };
    // Whoever else had a turn in between.
    for _ in 0..3 {
        assert_eq!(ask(&[one.session]), Some((two.session, true)));
        assert_eq!(ask(&[two.session]), Some((one.session, true)));
    }
    assert_eq!(ask(&[one.session, two.session]), Some((away.session, false)));
    assert_eq!(ask(&[one.session, away.session, two.session]), None);
}

#[test]
fn who_is_believed_to_be_away_is_asked_now_and_then_in_turn() {
    let mut groups = Groups::default();
    let filter = "$share/g/a/#";
    let here = route(filter);
    groups.insert(here.clone(), true);
    let others: Vec<Route> = (0..4)
        .map(|n| Route {
            qos: n % 2,
            ..route(filter)
        })
        .collect();
    for one in &others {
        groups.insert(one.clone(), false);
    }
    let mut asked = Vec::new();
    for tenth in 0..61 {
        let chosen = groups
            .choose_first(filter, &mut But::default(), 5_000 + tenth * 100)
            .unwrap();
        if chosen.only_asked {
            asked.push(chosen.member.session);
        } else {
            assert_eq!(chosen.member.session, here.session);
        }
    }
    assert_eq!(asked.len(), 6, "once a second");
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 4, "each of them");
}

#[test]
fn others_come_before_the_sessions_of_a_user_without_the_right_and_each_of_those_is_asked_when_there_are_none()
 {
    let mut groups = Groups::default();
    let filter = "$share/g/a/#";
    let [without, with] = [0, 1].map(|_| UserId::fresh());
    let mut add = |user, here| {
        let one = Route {
            user,
            ..route(filter)
        };
        groups.insert(one.clone(), here);
        one.session
    };
    let theirs = [0, 1, 2].map(|_| add(without, true));
    let other = add(with, true);
    let away = add(without, false);
    let mut but = But::default();
    let mut ask = |but: &mut But| groups.choose(filter, but).map(|chosen| chosen.member.session);
    assert_eq!(ask(&mut but), Some(theirs[0]));
    but.session(theirs[0]);
    but.user(without);
    assert_eq!(ask(&mut but), Some(other));
    but.session(other);
    let mut left = Vec::new();
    while let Some(one) = ask(&mut but).filter(|_| left.len() < 9) {
        left.push(one);
        but.session(one);
    }
    assert_eq!(left, [theirs[1], theirs[2], away]);
}
