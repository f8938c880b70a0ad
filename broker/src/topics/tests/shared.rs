//! Groups by their topics' homes' calls: whom a publish is given to, and who is asked when that one cannot take it.

use godwit_wire::code::Refusal;

use super::*;

/// Members that would not take a publish.
#[derive(Default)]
pub(super) struct Passed {
    /// Without the right to its topic.
    forbidden: Vec<SessionId>,
    /// With no room left, unless they are to take it all the same.
    quota: Vec<SessionId>,
    /// Of those: gone, or in memory only without a client, when they are to.
    gone_then: Vec<SessionId>,
    away_then: Vec<SessionId>,
    /// Those take it, but the answer is lost once; and those that did.
    unheard: Vec<SessionId>,
    unheard_took: Vec<SessionId>,
    /// How often any was asked.
    asked: usize,
}

impl Rig {
    /// A member is asked.
    pub(super) fn share(&mut self, command: Command, reply: Reply) {
        let Command::User(UserCommand::Share {
            session, waits, last, ..
        }) = command
        else {
            panic!("{command:?}")
        };
        let passed = &mut self.passed;
        passed.asked += 1;
        let answer = if passed.forbidden.contains(&session) {
            Answer::Refused(Refusal::new(Code::Forbidden, "not this member"))
        } else if passed.quota.contains(&session) && !last {
            Answer::Refused(Refusal::new(Code::Quota, "not this member"))
        } else if passed.gone_then.contains(&session) {
            Answer::Kept { gone: vec![session] }
        } else if passed.away_then.contains(&session) {
            Answer::Away
        } else if self.gone.contains(&session) {
            Answer::Kept { gone: vec![session] }
        } else if passed.unheard.contains(&session) {
            passed.unheard.retain(|one| *one != session);
            passed.unheard_took.push(session);
            self.delivered.push(session);
            Answer::Refused(Refusal::unavailable())
        } else if passed.unheard_took.contains(&session) {
            Answer::Kept { gone: Vec::new() }
        } else if self.full.contains(&session) {
            Answer::Refused(Refusal::unavailable())
        } else if self.stubborn.contains(&session) || (self.away.contains(&session) && !waits) {
            Answer::Away
        } else {
            self.delivered.push(session);
            Answer::Kept { gone: Vec::new() }
        };
        self.harness.with(RoleId::Broker, |cx| cx.answer(reply, answer));
    }

    fn members(&mut self, filter: &str, count: usize) -> Vec<Route> {
        self.members_of(filter, count, None)
    }

    /// All of one user, or each of its own.
    fn members_of(&mut self, filter: &str, count: usize, user: Option<UserId>) -> Vec<Route> {
        let member = |_| Route {
            qos: 1,
            user: user.unwrap_or_else(UserId::fresh),
            ..route(filter)
        };
        let all: Vec<Route> = (0..count).map(member).collect();
        for one in &all {
            assert!(matches!(self.subscribe(one), Some(Answer::Retained(_))));
        }
        all
    }

    /// Who got one more publish.
    fn one(&mut self, topic: &str) -> Vec<SessionId> {
        self.delivered.clear();
        let answer = self.publish(not_retained(topic));
        assert!(matches!(answer, Some(Answer::Published { .. })), "{answer:?}");
        std::mem::take(&mut self.delivered)
    }
}

fn not_retained(topic: &str) -> Publish {
    Publish {
        retain: false,
        ..publish(topic, 1)
    }
}

/// A filter whose routes are with its topic's key, and one of which every worker has a copy.
const FILTERS: [&str; 2] = ["$share/g/iot/alice/+", "$share/g/+/alice/#"];

#[test]
fn a_member_that_is_away_or_full_is_passed_over_and_one_that_is_gone_loses_its_route() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = rig.members(filter, 4);
        rig.away.push(all[0].session);
        rig.gone.push(all[1].session);
        rig.full.push(all[2].session);
        for _ in 0..8 {
            assert_eq!(rig.one("iot/alice/1"), [all[3].session], "{filter}");
        }
        assert_eq!(rig.store.rows_of_table(ROUTES.id), 3);
        // The others cannot take it now: whoever is away is given it to keep.
        rig.gone.push(all[3].session);
        rig.full.clear();
        rig.gone.push(all[2].session);
        assert_eq!(rig.one("iot/alice/1"), [all[0].session]);
        rig.gone.push(all[0].session);
        let answer = rig.publish(not_retained("iot/alice/1"));
        assert!(matches!(answer, Some(Answer::Published { matched: false, .. })));
        assert_eq!(rig.store.rows_of_table(ROUTES.id), 0);
        assert_eq!(rig.topics.wildcards.len(), 0);
    }
}

#[test]
fn a_qos_2_publish_whose_taking_was_not_heard_is_no_other_members() {
    for filter in FILTERS {
        for waits in [false, true] {
            let mut rig = Rig::new();
            let members: Vec<Route> = (0..3)
                .map(|_| Route {
                    qos: 2,
                    ..route(filter)
                })
                .collect();
            for one in &members {
                assert!(matches!(rig.subscribe(one), Some(Answer::Retained(_))));
            }
            if waits {
                rig.away.extend(members.iter().map(|one| one.session));
            }
            rig.passed.unheard.extend(members.iter().map(|one| one.session));
            let exactly_once = Publish {
                qos: 2,
                ..not_retained("iot/alice/1")
            };
            let answer = rig.publish(exactly_once);
            assert!(matches!(answer, Some(Answer::Published { .. })), "{answer:?}");
            assert_eq!(rig.delivered.len(), 1, "{filter}, away: {waits}");
            // One that never says whether it took it is the only one who may have.
            rig.passed.unheard.clear();
            rig.full.extend(members.iter().map(|one| one.session));
            rig.passed.unheard_took.clear();
            rig.passed.asked = 0;
            let refused = rig.publish(Publish {
                qos: 2,
                ..not_retained("iot/alice/2")
            });
            assert_eq!(code(refused), Some(Code::Unavailable));
        }
    }
}

#[test]
fn a_publish_that_no_member_can_take_now_is_refused() {
    let mut rig = Rig::new();
    let all = rig.members(FILTERS[0], 2);
    rig.full.extend(all.iter().map(|one| one.session));
    let refused = rig.publish(not_retained("iot/alice/1"));
    assert_eq!(code(refused), Some(Code::Unavailable));
}

#[test]
fn members_are_there_after_a_start_and_nobody_is_connected_until_it_says_so() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = rig.members(filter, 3);
        let mut rig = Rig::on(rig.store.durable());
        rig.away.extend(all.iter().map(|one| one.session));
        let mut got: Vec<SessionId> = (0..3).flat_map(|_| rig.one("iot/alice/1")).collect();
        got.sort_unstable();
        let mut expected: Vec<SessionId> = all.iter().map(|one| one.session).collect();
        expected.sort_unstable();
        assert_eq!(got, expected, "each once");
        rig.away.retain(|one| *one != all[1].session);
        let came = |here| TopicCommand::Member {
            filter: filter.into(),
            session: all[1].session,
            here,
        };
        rig.ask(&filter_key(filter), came(true));
        // It is live interest: nothing in the store says that it is here.
        rig.pass(2 * IDLE_MS);
        for _ in 0..3 {
            assert_eq!(rig.one("iot/alice/1"), [all[1].session]);
        }
        rig.ask(&filter_key(filter), came(false));
        rig.pass(2 * IDLE_MS);
        assert!(rig.topics.homes.is_empty());
    }
}

#[test]
fn what_a_member_leaves_is_given_to_another_or_to_nobody() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = rig.members(filter, 2);
        let share = |from: &Route| TopicCommand::Share {
            filter: filter.into(),
            publish: Arc::new(not_retained("iot/alice/1")),
            from: from.session,
        };
        for from in [0, 1, 0, 1] {
            let answer = rig.ask(&filter_key(filter), share(&all[from]));
            assert!(matches!(answer, Some(Answer::Published { matched: true, .. })));
            assert_eq!(std::mem::take(&mut rig.delivered), [all[1 - from].session]);
        }
        let route = all[1].clone();
        rig.ask(&filter_key(filter), TopicCommand::Unsubscribe { route });
        let answer = rig.ask(&filter_key(filter), share(&all[0]));
        assert!(matches!(answer, Some(Answer::Published { matched: false, .. })));
        assert!(rig.delivered.is_empty());
    }
}

#[test]
fn a_full_group_refuses_one_more_member() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        rig.members(filter, godwit_wire::limits::SHARE_MEMBERS);
        let more = Route {
            qos: 1,
            ..route(filter)
        };
        assert!(
            matches!(rig.subscribe(&more), Some(Answer::Refused(refusal)) if refusal.code == Code::Quota)
        );
        assert_eq!(rig.one("iot/alice/1").len(), 1);
    }
}

#[test]
fn qos_0_is_given_to_who_is_connected_and_to_nobody_else() {
    let mut rig = Rig::new();
    let all = rig.members(FILTERS[0], 2);
    let qos_0 = Publish {
        qos: 0,
        ..not_retained("iot/alice/1")
    };
    rig.away.push(all[0].session);
    let (reply, _) = Harness::reply();
    rig.apply(
        &Key::of_topic("iot/alice/1"),
        TopicCommand::Publish(Arc::new(qos_0.clone()), UserId::fresh()),
        reply,
    );
    rig.run();
    assert_eq!(rig.delivered, [all[1].session]);
    rig.away.push(all[1].session);
    rig.apply(
        &Key::of_topic("iot/alice/1"),
        TopicCommand::Publish(Arc::new(qos_0), UserId::fresh()),
        Reply::nobody(),
    );
    rig.run();
    assert_eq!(rig.delivered.len(), 1);
}

#[test]
fn a_member_that_came_unheard_is_found_and_so_is_one_that_is_no_more_though_others_are_connected() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = rig.members(filter, 4);
        // After a start nobody is known to be connected.
        let mut rig = Rig::on(rig.store.durable());
        rig.away.push(all[2].session);
        rig.gone.push(all[3].session);
        let here = TopicCommand::Member {
            filter: filter.into(),
            session: all[0].session,
            here: true,
        };
        rig.ask(&filter_key(filter), here);
        for _ in 0..6 {
            rig.pass(1_000);
            assert_eq!(rig.one("iot/alice/1").len(), 1);
        }
        let mut got: Vec<SessionId> = (0..2).flat_map(|_| rig.one("iot/alice/1")).collect();
        got.sort_unstable();
        let mut expected = [all[0].session, all[1].session];
        expected.sort_unstable();
        assert_eq!(got, expected, "{filter}: in turn");
        assert_eq!(rig.store.rows_of_table(ROUTES.id), 3, "{filter}");
    }
}

#[test]
fn a_member_whose_route_says_more_than_its_subscription_is_asked_once() {
    let mut rig = Rig::new();
    let all = rig.members(FILTERS[0], 2);
    for one in &all {
        rig.stubborn.push(one.session);
    }
    let answer = rig.publish(not_retained("iot/alice/1"));
    assert!(matches!(answer, Some(Answer::Published { matched: false, .. })));
    assert!(rig.delivered.is_empty());
}

fn sessions(routes: &[Route]) -> Vec<SessionId> {
    routes.iter().map(|one| one.session).collect()
}

#[test]
fn however_many_members_have_no_right_one_that_has_it_takes_the_publish() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        // Of one user: one of them speaks for all as long as there are others.
        let without = rig.members_of(filter, 40, Some(UserId::fresh()));
        rig.passed.forbidden = sessions(&without);
        let with = sessions(&rig.members_of(filter, 40, Some(UserId::fresh())));
        for _ in 0..3 {
            rig.passed.asked = 0;
            let got = rig.one("iot/alice/1");
            assert!(got.len() == 1 && with.contains(&got[0]), "{filter}: {got:?}");
            assert!(rig.passed.asked <= 2, "{filter}: {} were asked", rig.passed.asked);
        }
        // Each of its own.
        let mut rig = Rig::new();
        rig.passed.forbidden = sessions(&rig.members(filter, 40));
        let with = rig.members(filter, 1)[0].session;
        assert_eq!(rig.one("iot/alice/1"), [with], "{filter}");
        // What a member left is given in the same way.
        let share = TopicCommand::Share {
            filter: filter.into(),
            publish: Arc::new(not_retained("iot/alice/1")),
            from: SessionId::fresh(),
        };
        rig.delivered.clear();
        let answer = rig.ask(&filter_key(filter), share);
        assert!(matches!(answer, Some(Answer::Published { matched: true, .. })));
        assert_eq!(rig.delivered, [with], "{filter}");
    }
}

#[test]
fn of_one_user_each_session_is_asked_before_a_publish_is_nobodys_as_they_may_differ_in_their_rights() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = rig.members_of(filter, 50, Some(UserId::fresh()));
        rig.passed.forbidden = sessions(&all);
        let with = rig.passed.forbidden.remove(44);
        for _ in 0..3 {
            assert_eq!(rig.one("iot/alice/1"), [with], "{filter}");
        }
        rig.passed.forbidden.push(with);
        rig.passed.asked = 0;
        let answer = rig.publish(not_retained("iot/alice/1"));
        assert!(matches!(answer, Some(Answer::Published { matched: false, .. })));
        assert_eq!(rig.passed.asked, 50, "{filter}: each once");
    }
}

#[test]
fn when_the_first_that_was_full_has_gone_meanwhile_another_one_takes_it() {
    for filter in FILTERS {
        for how in ["gone", "away", "without the right"] {
            let mut rig = Rig::new();
            let all = sessions(&rig.members(filter, 40));
            rig.passed.quota = all.clone();
            // All but one, which is among those that need not be asked at first.
            let gone: Vec<SessionId> = all.iter().copied().filter(|one| *one != all[36]).collect();
            match how {
                "gone" => rig.passed.gone_then = gone,
                "away" => rig.passed.away_then = gone,
                _ => {
                    let now = rig.publish(not_retained("iot/alice/1"));
                    assert!(matches!(now, Some(Answer::Published { matched: true, .. })));
                    rig.passed.forbidden = gone;
                }
            }
            assert_eq!(rig.one("iot/alice/1"), [all[36]], "{filter}: {how}");
        }
    }
}

#[test]
fn one_that_is_away_and_full_takes_it_when_all_that_were_full_before_it_have_gone() {
    for filter in FILTERS {
        let mut rig = Rig::new();
        let all = sessions(&rig.members(filter, 33));
        let here = TopicCommand::Member {
            filter: filter.into(),
            session: all[32],
            here: false,
        };
        rig.ask(&filter_key(filter), here);
        rig.passed.quota = all.clone();
        rig.passed.gone_then = all[..32].to_vec();
        assert_eq!(rig.one("iot/alice/1"), [all[32]], "{filter}");
    }
}
