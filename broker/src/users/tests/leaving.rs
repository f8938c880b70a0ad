//! Who goes leaves routes: a part a turn, and all of a user's before it subscribes again.

use godwit_wire::command::{Command, TopicCommand};

use super::clients::*;
use super::rig::*;
use crate::packet::{Incoming, Version};
use crate::users::leaving::A_TURN;

const EACH: usize = 1_000;

/// What homes of topics are asked and told meanwhile: 0 for a route that goes, 1 for one that comes.
fn asked(rig: &mut Rig) -> Vec<u8> {
    let mut seen = Vec::new();
    while let Some((key, command, reply)) = rig.harness.take_command() {
        match &command {
            Command::Topic(TopicCommand::Unsubscribe { .. }) => seen.push(0),
            Command::Topic(TopicCommand::Subscribe { .. }) => seen.push(1),
            other => panic!("{other:?}"),
        }
        rig.command(key, command, reply);
    }
    seen
}

#[test]
fn routes_of_who_goes_are_ended_a_part_a_turn_and_a_users_all_before_it_subscribes_again() {
    let mut rig = Rig::new();
    let users = ["alice", "bob"].map(|name| (name, user(name)));
    let subs = [0, 1].map(|at| {
        let (name, user) = &users[at];
        let sub = rig.connect(user, clean(Version::V5, "many"));
        for first in (0..EACH).step_by(100) {
            let Incoming::Subscribe { filters, .. } = subscribe(1, "x", 0) else {
                unreachable!()
            };
            let filter = |n: usize| {
                let mut filter = filters[0].clone();
                filter.filter = format!("iot/{name}/{n}").as_str().into();
                filter
            };
            rig.packet(
                sub,
                Incoming::Subscribe {
                    packet_id: 1,
                    filters: (first..first + 100).map(filter).collect(),
                    subscription_id: None,
                },
            );
        }
        sub
    });
    assert_eq!(rig.routes(), 2 * EACH);
    rig.deaf = true;
    rig.vanish(subs[0]);
    rig.vanish(subs[1]);
    let gone = asked(&mut rig).len();
    assert!(
        (A_TURN..=4 * A_TURN).contains(&gone),
        "{gone} of {} in two turns, each begun and ended",
        2 * EACH
    );
    assert!(!rig.users.quiet(), "a stop waits for them");
    let sub = rig.connect(&users[1].1, clean(Version::V5, "many"));
    asked(&mut rig);
    rig.packet(sub, subscribe(1, "iot/bob/1", 0));
    let seen = asked(&mut rig);
    let first = seen.iter().position(|one| *one == 1).unwrap();
    assert!(first > 0, "some of its user's were left, and went first");
    assert!(
        rig.routes
            .iter()
            .filter(|route| route.user == users[1].1.user)
            .count()
            == 1,
        "only the new one is left of its user's"
    );
    for _ in 0..20 {
        rig.pass(1);
        asked(&mut rig);
    }
    assert_eq!(rig.routes(), 1);
    rig.deaf = false;
    rig.run();
    assert!(rig.users.quiet());
}
