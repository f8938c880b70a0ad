//! What other nodes' homes answer for an early wildcard is a copy, and takes room that is bounded.

use super::*;
use crate::copies::COPIES_BYTES;

const MIB: usize = 1024 * 1024;

/// What a home at another node answers: one message, which nobody else has.
pub(super) fn answer(bytes: usize, filter: &str) -> Answer {
    let far = Publish {
        payload: vec![b'x'; bytes].into(),
        ..publish(&filter.replace('#', "far"), 0)
    };
    Answer::Retained(vec![Arc::new(far)])
}

impl Rig {
    /// What an early wildcard is answered, with the room that is taken meanwhile by others.
    fn collected(&mut self, taken: usize) -> Answer {
        let _taken = self.topics.metrics.copies.hold(taken).unwrap();
        let (reply, mut answer) = Harness::reply();
        let command = TopicCommand::Subscribe {
            route: route("#"),
            retained: true,
        };
        self.apply(&Key::Wildcards, command, reply);
        self.run();
        answer.try_recv().expect("answered")
    }
}

#[test]
fn copies_of_retained_messages_are_collected_while_there_is_room_and_refused_beyond_it() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.publish(publish(&format!("key{n}/x/1"), 1));
    }
    rig.far = Some(MIB);
    match rig.collected(COPIES_BYTES - 11 * MIB) {
        Answer::Retained(found) => assert_eq!(found.len(), 10),
        _ => panic!("there was room"),
    }
    match rig.collected(COPIES_BYTES - 9 * MIB) {
        Answer::Refused(refusal) => assert_eq!(refusal.code, Code::Quota),
        _ => panic!("there was no room"),
    }
    assert_eq!(
        rig.topics.metrics.copies.gauge().get(),
        0,
        "all of it is given back"
    );
    rig.far = None;
    match rig.collected(COPIES_BYTES) {
        Answer::Retained(found) => assert_eq!(found.len(), 10, "shared with their homes"),
        _ => panic!("nothing is a copy"),
    }
}
