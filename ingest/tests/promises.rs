//! Success is said only of what is stored, and everybody who asks is answered.

mod common;

use godwit_ingest::Config;
use godwit_wire::account::AccountCommand;
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{Answer, Command, ConversationCommand as C, HistoryAt, Named};
use godwit_wire::ids::ConversationId;
use tokio::sync::oneshot::Receiver;

use common::steps::{Steps, is_note, is_offer, send, yes};
use common::{Bridge, named, pair};

fn group(by: &Named, others: &[&Named]) -> C {
    C::CreateGroup {
        by: by.clone(),
        name: "friends".into(),
        description: String::new(),
        members: others.iter().map(|one| (*one).clone()).collect(),
        full_history: false,
    }
}

fn made(steps: &mut Steps, id: ConversationId, command: C) {
    let mut call = steps.call(id, command);
    assert!(matches!(steps.answered(&mut call), Answer::Conversation(_)));
    // The last write of the making, too.
    steps.until("rest", |steps| {
        use godwit_cluster::Role as _;
        steps.ingest.quiet()
    });
}

fn is_open(call: &mut Receiver<Answer>) -> bool {
    call.try_recv().is_err()
}

/// Goes on for a while with everybody answering, writes being held.
fn a_while(steps: &mut Steps) {
    for _ in 0..20 {
        steps.turn();
        steps.answer(|_, command| Some(yes(command)));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn two_who_open_a_conversation_at_once_are_both_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    let open = |by: &Named, with: &Named| C::OpenDirect {
        by: by.clone(),
        with: with.clone(),
    };
    let mut of_ann = steps.call(id, open(&ann, &bob));
    steps.until_alone("an announcement", |steps| {
        steps.answer(|_, command| (!is_note(command)).then(|| yes(command)));
        steps.asked.iter().any(|(_, command, _)| is_note(command))
    });
    let mut of_bob = steps.call(id, open(&bob, &ann));
    let Answer::Conversation(to_ann) = steps.answered(&mut of_ann) else {
        panic!("not made")
    };
    let Answer::Conversation(to_bob) = steps.answered(&mut of_bob) else {
        panic!("not found")
    };
    assert!(to_ann.created && !to_bob.created);
    steps.rest(15);
    assert!(
        steps.call(id, C::Status { by: ann.user }).try_recv().is_ok()
            && godwit_cluster::Role::quiet(&steps.ingest),
        "nothing stays under way"
    );
}

#[test]
fn a_block_that_comes_while_the_conversation_is_made_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    // Bob's accounts were asked, and said yes, before he blocks.
    let mut first = steps.call(id, send(&ann, "1", Some(&bob)));
    let block = |blocked| C::Block {
        by: bob.user,
        user: ann.user,
        blocked,
    };
    let mut blocking = steps.call(id, block(true));
    assert!(matches!(steps.answered(&mut blocking), Answer::Done));
    assert!(matches!(steps.answered(&mut first), Answer::Refused(refusal) if refusal.code == Code::NotFound));
    let mut taken_back = steps.call(id, block(false));
    assert!(matches!(steps.answered(&mut taken_back), Answer::Done));
    let mut second = steps.call(id, send(&ann, "2", None));
    assert!(matches!(steps.answered(&mut second), Answer::Sent(_)));
}

#[test]
fn a_change_asked_for_twice_is_answered_twice_only_when_it_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, eve) = (named("ann"), named("bob"), named("eve"));
    let id = ConversationId::fresh();
    made(&mut steps, id, group(&ann, &[&bob]));
    let add = || C::AddMember {
        by: ann.user,
        user: eve.clone(),
    };
    steps.hold_writes = true;
    let mut first = steps.call(id, add());
    a_while(&mut steps);
    let mut again = steps.call(id, add());
    a_while(&mut steps);
    assert!(is_open(&mut first) && is_open(&mut again));
    steps.let_writes_go();
    assert!(matches!(steps.answered(&mut first), Answer::Done));
    assert!(matches!(steps.answered(&mut again), Answer::Done));
}

#[test]
fn a_new_name_is_told_to_every_mailbox_once_stored_and_answered_only_when_all_have_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob) = (named("ann"), named("bob"));
    let id = ConversationId::fresh();
    made(&mut steps, id, group(&ann, &[&bob]));
    let rename = || C::Change {
        by: ann.user,
        name: Some("old friends".into()),
        description: None,
    };
    steps.hold_writes = true;
    let mut call = steps.call(id, rename());
    assert!(steps.asked.is_empty(), "nobody hears of what is not stored");
    steps.until_alone("the write", |steps| !steps.held_writes.is_empty());
    steps.let_writes_go();
    let notes = steps.asked.iter().filter(|(_, command, _)| is_note(command));
    assert_eq!(notes.count(), 2);
    steps.answer(|user, command| (user == ann.user).then(|| yes(command)));
    assert!(is_open(&mut call));
    steps.answer(|_, _| Some(Refusal::unavailable().into()));
    let Ok(Answer::Refused(refusal)) = call.try_recv() else {
        panic!("bob has not heard of it")
    };
    assert!(refusal.code.retryable());
    let mut again = steps.call(id, rename());
    assert!(matches!(steps.answered(&mut again), Answer::Conversation(_)));
}

#[test]
fn a_read_watermark_or_block_sent_twice_is_answered_only_when_it_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    let mut first = steps.call(id, send(&ann, "1", Some(&bob)));
    assert!(matches!(steps.answered(&mut first), Answer::Sent(_)));
    steps.rest(5);
    steps.hold_writes = true;
    let read = C::Read {
        by: bob.user,
        up_to: 1,
    };
    let block = C::Block {
        by: bob.user,
        user: ann.user,
        blocked: true,
    };
    let mut calls = Vec::new();
    for command in [read.clone(), read, block.clone(), block] {
        calls.push(steps.call(id, command));
    }
    a_while(&mut steps);
    assert!(calls.iter_mut().all(is_open));
    steps.let_writes_go();
    for mut call in calls {
        assert!(matches!(steps.answered(&mut call), Answer::Done));
    }
}

#[test]
fn who_is_in_too_many_groups_is_not_taken_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, eve) = (named("ann"), named("bob"), named("eve"));
    let id = ConversationId::fresh();
    made(&mut steps, id, group(&ann, &[&bob]));
    let add = C::AddMember {
        by: ann.user,
        user: eve.clone(),
    };
    let mut call = steps.call(id, add);
    let mut answer = None;
    steps.until_alone("an answer", |steps| {
        steps.answer(|_, command| {
            let joins =
                matches!(command, Command::Account(c) if matches!(**c, AccountCommand::Joined { .. }));
            Some(if joins {
                Refusal::new(Code::Quota, "too many groups").into()
            } else {
                yes(command)
            })
        });
        answer = call.try_recv().ok();
        answer.is_some()
    });
    assert!(matches!(answer, Some(Answer::Refused(refusal)) if refusal.code == Code::Quota));
    let Answer::Conversation(info) = ({
        let mut get = steps.call(id, C::Get { by: ann.user });
        steps.answered(&mut get)
    }) else {
        panic!("no group")
    };
    assert_eq!((info.members.len(), info.last_sequence), (2, 0));
}

#[test]
fn one_id_is_one_message_however_long_a_look_up_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    let mut zero = steps.call(id, send(&ann, "0", Some(&bob)));
    assert!(matches!(steps.answered(&mut zero), Answer::Sent(_)));
    steps.hold_reads = true;
    let mut first = steps.call(id, send(&ann, "same", None));
    let mut between: Vec<_> = (1..40)
        .map(|n| steps.call(id, send(&ann, &n.to_string(), None)))
        .collect();
    // It looks its id up before the first one has a number.
    let mut again = steps.call(id, send(&ann, "same", None));
    let mut looked_up = std::mem::take(&mut steps.held_reads);
    assert_eq!(looked_up.len(), 41);
    let read = looked_up.pop_front().expect("the first one's");
    steps.complete(read);
    let Answer::Sent(first) = steps.answered(&mut first) else {
        panic!("not sent")
    };
    let last = looked_up.pop_back().expect("the repeat's");
    for (read, call) in looked_up.into_iter().zip(&mut between) {
        steps.complete(read);
        assert!(matches!(steps.answered(call), Answer::Sent(_)));
    }
    steps.complete(last);
    let Answer::Sent(again) = steps.answered(&mut again) else {
        panic!("not known")
    };
    assert!(again.duplicate && again.sequence_number == first.sequence_number);
}

#[test]
fn a_mailbox_that_refuses_is_asked_with_its_oldest_entry_only_and_then_gets_the_rest_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (ann, bob, id) = pair();
    let mut zero = steps.call(id, send(&ann, "0", Some(&bob)));
    assert!(matches!(steps.answered(&mut zero), Answer::Sent(_)));
    let mut calls: Vec<_> = (1..=200)
        .map(|n| steps.call(id, send(&ann, &n.to_string(), None)))
        .collect();
    let refuse = |steps: &mut Steps| {
        let mut offers = 0;
        steps.answer(|user, command| {
            let refused = user == bob.user && is_offer(command);
            offers += usize::from(refused);
            Some(if refused {
                Refusal::unavailable().into()
            } else {
                yes(command)
            })
        });
        offers
    };
    assert_eq!(refuse(&mut steps), 200);
    for _ in 0..5 {
        steps.harness.advance(110);
        steps.turn();
        assert_eq!(refuse(&mut steps), 1);
    }
    let (mut last, mut taken) = (1, Vec::new());
    for _ in 0..50 {
        steps.harness.advance(110);
        steps.turn();
        steps.answer(|user, command| {
            if let Command::User(godwit_wire::command::UserCommand::Offer { entry, after }) = command
                && user == bob.user
            {
                // As a mailbox does.
                if *after > last {
                    return Some(Refusal::unavailable().into());
                }
                last = last.max(entry.sequence_number);
                taken.push(entry.sequence_number);
            }
            Some(yes(command))
        });
    }
    assert_eq!(taken, (2..=201).collect::<Vec<_>>());
    for call in &mut calls {
        assert!(matches!(steps.answered(call), Answer::Sent(_)));
    }
}

#[test]
fn asking_for_conversations_that_are_not_there_keeps_nothing_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut steps = Steps::new(folder.path(), Config::default());
    let (eve, id) = (named("eve"), ConversationId::fresh());
    for _ in 0..2 {
        let (reply, mut answer) = godwit_cluster::harness::Harness::reply();
        let get = Command::Conversation(C::Get { by: eve.user });
        let loaded = steps.apply(&godwit_wire::ids::Key::Conversation(id), get, reply);
        assert!(loaded, "each time anew");
        assert!(matches!(answer.try_recv(), Ok(Answer::Refused(refusal)) if refusal.code == Code::NotFound));
    }
}

#[tokio::test]
async fn a_page_of_large_messages_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let bridge = Bridge::start(folder.path());
    let (ann, bob, id) = pair();
    let text = "x".repeat(godwit_wire::limits::MESSAGE_BYTES);
    for n in 1..=100 {
        bridge
            .send_to(id, &ann, &n.to_string(), &text, Some(&bob))
            .await
            .expect("sent");
    }
    let page = bridge.texts(id, &bob, HistoryAt::Newest).await;
    let positions: Vec<u64> = page.iter().map(|(at, _)| *at).collect();
    assert_eq!(positions, (1..=100).collect::<Vec<_>>());
    bridge.stop();
}
