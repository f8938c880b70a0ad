//! The bridge on a real worker and a real store: what a sender, a member and a reader of history meet.

mod common;

use std::sync::Arc;
use std::time::Duration;

use godwit_wire::code::Code;
use godwit_wire::command::{Answer, ConversationCommand as C, HistoryAt, Named, Position, Sent};
use godwit_wire::ids::{ConversationId, MessageId};

use common::{Bridge, named, pair};

#[tokio::test]
async fn the_first_send_makes_the_conversation_and_everybody_gets_everything_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    assert_eq!(
        bridge.send(id, &ann, "0", "nobody there").await,
        Err(Code::NotFound)
    );
    for n in 1..=20 {
        let sent = bridge
            .send_to(id, &ann, &n.to_string(), "hi", Some(&bob))
            .await
            .expect("it is sent");
        assert_eq!((sent.sequence_number, sent.duplicate), (n, false));
    }
    let expected: Vec<u64> = (1..=20).collect();
    assert_eq!(
        (bridge.positions(&ann), bridge.positions(&bob)),
        (expected.clone(), expected)
    );
    assert_eq!(bridge.world.lock().expect("whole").notes[&bob.user], 1);
    let eve = named("eve");
    assert_eq!(bridge.send(id, &eve, "1", "let me in").await, Err(Code::NotFound));
    bridge.stop();
}

#[tokio::test]
async fn a_repeated_send_is_the_first_one_also_after_a_restart_and_other_content_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    let first = bridge
        .send_to(id, &ann, "a", "one", Some(&bob))
        .await
        .expect("sent");
    for n in 0..40 {
        bridge
            .send(id, &ann, &format!("filler {n}"), "x")
            .await
            .expect("sent");
    }
    let again = bridge.send(id, &ann, "a", "one").await.expect("known");
    assert_eq!(
        again,
        Sent {
            duplicate: true,
            ..first
        }
    );
    assert_eq!(bridge.send(id, &ann, "a", "two").await, Err(Code::Conflict));
    let of_bob = bridge
        .send(id, &bob, "a", "two")
        .await
        .expect("ids are each sender's own");
    assert!(!of_bob.duplicate);
    let world = bridge.world.clone();
    bridge.stop();
    let bridge = Bridge::start_with(folder.path(), world);
    assert_eq!(
        bridge.send(id, &ann, "a", "one").await,
        Ok(Sent {
            duplicate: true,
            ..first
        })
    );
    assert_eq!(
        bridge
            .send(id, &ann, "b", "new")
            .await
            .expect("sent")
            .sequence_number,
        43
    );
    bridge.stop();
}

#[tokio::test]
async fn sends_at_the_same_time_with_one_id_are_one_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Arc::new(Bridge::start(folder.path()));
    let (ann, bob, id) = pair();
    let mut sends = Vec::new();
    for _ in 0..50 {
        let (bridge, ann, bob) = (bridge.clone(), ann.clone(), bob.clone());
        sends.push(tokio::spawn(async move {
            bridge.send_to(id, &ann, "same", "hi", Some(&bob)).await
        }));
    }
    let mut new = 0;
    for send in sends {
        let sent = send.await.expect("joined").expect("sent");
        assert_eq!(sent.sequence_number, 1);
        new += usize::from(!sent.duplicate);
    }
    assert_eq!(new, 1);
    assert_eq!(
        bridge.texts(id, &bob, HistoryAt::Newest).await,
        [(1, "hi".to_owned())]
    );
}

#[tokio::test]
async fn a_refused_offer_comes_again_in_order_and_holds_the_acknowledgement() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    bridge
        .send_to(id, &ann, "0", "x", Some(&bob))
        .await
        .expect("sent");
    bridge.world.lock().expect("whole").refuse.insert(bob.user, 3);
    for n in 1..=10 {
        bridge
            .send(id, &ann, &n.to_string(), "x")
            .await
            .expect("sent after the offers came again");
    }
    assert_eq!(bridge.positions(&bob), (1..=11).collect::<Vec<u64>>());
    bridge.stop();
}

#[tokio::test]
async fn a_tail_that_was_not_fanned_out_is_offered_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    bridge
        .send_to(id, &ann, "0", "x", Some(&bob))
        .await
        .expect("sent");
    bridge.world.lock().expect("whole").silent = Some(bob.user);
    let send = bridge.send(id, &ann, "1", "lost on the way");
    assert!(
        tokio::time::timeout(Duration::from_millis(300), send)
            .await
            .is_err(),
        "ACK: bob has it not"
    );
    // The process dies here: nothing is flushed, workers are left behind with a closed store.
    bridge.store.close().expect("closed");
    drop(bridge);
    let bridge = Bridge::start(folder.path());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while bridge.positions(&bob) != [1, 2] {
        assert!(
            std::time::Instant::now() < deadline,
            "offered: {:?}",
            bridge.positions(&bob)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let again = bridge
        .send(id, &ann, "1", "lost on the way")
        .await
        .expect("known");
    assert_eq!((again.sequence_number, again.duplicate), (2, true));
    bridge.stop();
}

#[tokio::test]
async fn a_group_numbers_its_changes_and_shows_each_member_its_own_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, eve) = (named("ann"), named("bob"), named("eve"));
    let id = ConversationId::fresh();
    let create = C::CreateGroup {
        by: ann.clone(),
        name: "friends".into(),
        description: String::new(),
        members: vec![bob.clone()],
        full_history: false,
    };
    let Answer::Conversation(made) = bridge.ask(id, create.clone()).await else {
        panic!("not made")
    };
    assert!(made.created && made.members.len() == 2);
    let Answer::Conversation(again) = bridge.ask(id, create).await else {
        panic!("not found again")
    };
    assert!(!again.created);
    bridge.send(id, &ann, "1", "before eve").await.expect("sent");
    let add = |by: &Named, user: &Named| C::AddMember {
        by: by.user,
        user: user.clone(),
    };
    assert!(matches!(bridge.ask(id, add(&bob, &eve)).await, Answer::Refused(r) if r.code == Code::Forbidden));
    assert!(matches!(bridge.ask(id, add(&eve, &eve)).await, Answer::Refused(r) if r.code == Code::NotFound));
    assert!(matches!(bridge.ask(id, add(&ann, &eve)).await, Answer::Done));
    bridge.send(id, &eve, "1", "hello").await.expect("sent");
    let remove = |by: &Named, user: &Named| C::RemoveMember {
        by: by.user,
        user: user.user,
    };
    assert!(matches!(bridge.ask(id, remove(&ann, &bob)).await, Answer::Done));
    bridge.send(id, &ann, "2", "without bob").await.expect("sent");
    assert_eq!(bridge.positions(&bob), [1, 2, 3, 4]);
    assert_eq!(bridge.positions(&eve), [2, 3, 4, 5]);
    assert_eq!(
        bridge.send(id, &bob, "9", "still here?").await,
        Err(Code::NotFound)
    );
    let texts = |all: Vec<(u64, String)>| all.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    let of_eve = texts(bridge.texts(id, &eve, HistoryAt::Newest).await);
    assert_eq!(of_eve, ["Added", "hello", "Removed", "without bob"]);
    let after = texts(
        bridge
            .texts(id, &ann, HistoryAt::After(Position::Sequence(3)))
            .await,
    );
    assert_eq!(after, ["Removed", "without bob"]);
    let Answer::Refused(refusal) = bridge
        .ask(
            id,
            C::History {
                by: bob.user,
                at: HistoryAt::Newest,
                limit: 10,
            },
        )
        .await
    else {
        panic!("bob is out")
    };
    assert_eq!(refusal.code, Code::NotFound);
    // The last admin goes: the oldest member follows.
    assert!(matches!(bridge.ask(id, remove(&ann, &ann)).await, Answer::Done));
    assert!(matches!(bridge.ask(id, add(&eve, &bob)).await, Answer::Done));
    bridge.stop();
}

#[tokio::test]
async fn a_page_may_be_asked_around_a_message_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    let mut ids: Vec<MessageId> = Vec::new();
    for n in 1..=9 {
        let sent = bridge
            .send_to(id, &ann, &n.to_string(), &n.to_string(), Some(&bob))
            .await
            .expect("sent");
        ids.push(sent.message_id);
    }
    let at = HistoryAt::Around(Position::Message(ids[4]));
    let Answer::History(page) = bridge
        .ask(
            id,
            C::History {
                by: bob.user,
                at,
                limit: 4,
            },
        )
        .await
    else {
        panic!("no page")
    };
    let found: Vec<u64> = page.entries.iter().map(|entry| entry.sequence_number).collect();
    assert_eq!((found, page.has_more), (vec![3, 4, 5, 6], true));
    let foreign = HistoryAt::Before(Position::Message(MessageId::fresh()));
    let answer = bridge
        .ask(
            id,
            C::History {
                by: bob.user,
                at: foreign,
                limit: 4,
            },
        )
        .await;
    assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == Code::NotFound));
    bridge.stop();
}

#[tokio::test]
async fn a_block_ends_sending_both_ways_until_it_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    bridge
        .send_to(id, &ann, "1", "hi", Some(&bob))
        .await
        .expect("sent");
    let block = |blocked| C::Block {
        by: bob.user,
        user: ann.user,
        blocked,
    };
    assert!(matches!(bridge.ask(id, block(true)).await, Answer::Done));
    assert_eq!(
        bridge.send(id, &ann, "2", "still there?").await,
        Err(Code::NotFound)
    );
    assert!(matches!(bridge.ask(id, block(false)).await, Answer::Done));
    bridge.send(id, &ann, "2", "still there?").await.expect("sent");
    let (dan, kim, other) = pair();
    bridge.world.lock().expect("whole").closed = Some(kim.user);
    assert_eq!(
        bridge.send_to(other, &dan, "1", "hi", Some(&kim)).await,
        Err(Code::NotFound)
    );
    bridge.stop();
}

#[tokio::test]
async fn watermarks_move_forward_only_and_never_beyond_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    for n in 1..=3 {
        bridge
            .send_to(id, &ann, &n.to_string(), "x", Some(&bob))
            .await
            .expect("sent");
    }
    for up_to in [2, 1, 99] {
        assert!(matches!(
            bridge.ask(id, C::Read { by: bob.user, up_to }).await,
            Answer::Done
        ));
    }
    bridge.stop();
    let bridge = Bridge::start(folder.path());
    let Answer::Status(marks) = bridge.ask(id, C::Status { by: ann.user }).await else {
        panic!("no status")
    };
    let of_bob = marks
        .iter()
        .find(|mark| mark.user == bob.user)
        .expect("bob is in");
    assert_eq!((of_bob.read_up_to, of_bob.delivered_up_to), (3, 3));
    let eve = named("eve");
    let refused = bridge
        .ask(
            id,
            C::Read {
                by: eve.user,
                up_to: 1,
            },
        )
        .await;
    assert!(matches!(refused, Answer::Refused(refusal) if refusal.code == Code::NotFound));
    bridge.stop();
}
