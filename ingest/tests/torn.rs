//! What a batch that is there by halves makes of a conversation: its writer died, as one on CQL may, with some of its
//! statements stored. Whoever takes the conversation up finds the entry in the log, or only what was to go with it.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use godwit_cluster::Role;
use godwit_ingest::{CONVERSATIONS, Config, tail_partition};
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Kind, Op, Read, ReadAnswer, Store, Table};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, ConversationCommand as C, Named};
use godwit_wire::ids::{ConversationId, Key};

use common::gate::Gate;
use common::steps::{Steps, send};
use common::{named, pair};

struct Owner {
    gate: Arc<Gate>,
    steps: Steps,
}

/// A start of the bridge on the engine whose batches have no order.
fn start(folder: &Path) -> Owner {
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::default()
    };
    let gate = Gate::new(Embedded::open(folder, options).expect("it opens"));
    gate.unordered.store(true, Ordering::SeqCst);
    let gate = Arc::new(gate);
    let steps = Steps::over(gate.clone(), Config::default());
    Owner { gate, steps }
}

impl Owner {
    fn ask(&mut self, id: ConversationId, command: C) -> Answer {
        let mut asked = self.steps.call(id, command);
        self.steps.answered(&mut asked)
    }

    /// Does this with only some of what it writes landing, and dies.
    fn dies_doing(mut self, id: ConversationId, command: C, keeps: fn(&Op) -> bool) {
        *self.gate.torn.lock().expect("whole") = Some(keeps);
        drop(self.steps.call(id, command));
        let since = Instant::now();
        while self.gate.landed.load(Ordering::SeqCst) == 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "nothing was written");
            self.steps.rest(1);
        }
        self.gate.close().expect("it closes");
    }

    /// Long enough for marks to be stored and the conversation to leave memory.
    fn idle_out(&mut self) {
        self.steps.rest(25);
        assert!(self.steps.ingest.quiet());
    }

    fn ends(self) {
        self.gate.close().expect("it closes");
    }
}

fn is_of(op: &Op, of: Table) -> bool {
    matches!(op, Op::Insert { table, .. } | Op::Put { table, .. } if table.id == of.id)
}

fn is_append(op: &Op) -> bool {
    matches!(op, Op::Append { .. })
}

fn is_small_row(op: &Op) -> bool {
    matches!(op, Op::Put { table, .. } if table.kind == Kind::Owned)
}

fn group(by: &Named, others: &[&Named]) -> C {
    C::CreateGroup {
        by: by.clone(),
        name: "friends".into(),
        description: String::new(),
        members: others.iter().map(|one| (*one).clone()).collect(),
        full_history: true,
    }
}

fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(refusal) if refusal.code == Code::NotFound)
}

#[test]
fn a_retry_of_a_message_whose_id_did_not_land_gets_the_number_of_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = pair();
    let mut owner = start(folder.path());
    assert!(matches!(
        owner.ask(id, send(&ann, "1", Some(&bob))),
        Answer::Sent(_)
    ));
    owner.dies_doing(id, send(&ann, "2", None), is_append);
    let mut owner = start(folder.path());
    owner.idle_out();
    let Answer::Sent(sent) = owner.ask(id, send(&ann, "2", None)) else {
        panic!("not sent")
    };
    assert_eq!((sent.sequence_number, sent.duplicate), (2, true));
    owner.ends();
}

#[test]
fn nothing_that_was_found_is_acknowledged_before_its_other_rows_are_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = pair();
    let mut owner = start(folder.path());
    assert!(matches!(
        owner.ask(id, send(&ann, "1", Some(&bob))),
        Answer::Sent(_)
    ));
    owner.dies_doing(id, send(&ann, "2", None), is_append);
    let mut owner = start(folder.path());
    owner.steps.hold_writes = true;
    let mut again = owner.steps.call(id, send(&ann, "2", None));
    owner.steps.rest(8);
    assert!(again.try_recv().is_err(), "ONCE: its id is not stored");
    owner.steps.let_writes_go();
    assert!(matches!(owner.steps.answered(&mut again), Answer::Sent(_)));
    owner.ends();
}

#[test]
fn who_was_removed_stays_out_though_only_the_entry_landed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = (named("ann"), named("bob"), ConversationId::fresh());
    let mut owner = start(folder.path());
    assert!(matches!(
        owner.ask(id, group(&ann, &[&bob])),
        Answer::Conversation(_)
    ));
    let (by, user) = (ann.user, bob.user);
    owner.dies_doing(id, C::RemoveMember { by, user }, is_append);
    let mut owner = start(folder.path());
    owner.idle_out();
    assert!(
        is_refused(&owner.ask(id, send(&bob, "1", None))),
        "SCOPE: bob is out"
    );
    owner.ends();
}

#[test]
fn who_was_added_is_in_by_name_though_only_the_entry_landed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, carol, id) = (named("ann"), named("carol"), ConversationId::fresh());
    let mut owner = start(folder.path());
    assert!(matches!(owner.ask(id, group(&ann, &[])), Answer::Conversation(_)));
    let add = C::AddMember {
        by: ann.user,
        user: carol.clone(),
    };
    owner.dies_doing(id, add, is_append);
    let mut owner = start(folder.path());
    owner.idle_out();
    let Answer::Conversation(info) = owner.ask(id, C::Get { by: ann.user }) else {
        panic!("no conversation")
    };
    let names: Vec<&str> = info.members.iter().map(|(one, ..)| &*one.name).collect();
    assert!(names.contains(&"carol"), "{names:?}");
    owner.ends();
}

#[test]
fn a_removal_whose_entry_did_not_land_never_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = (named("ann"), named("bob"), ConversationId::fresh());
    let mut owner = start(folder.path());
    assert!(matches!(
        owner.ask(id, group(&ann, &[&bob])),
        Answer::Conversation(_)
    ));
    let (by, user) = (ann.user, bob.user);
    owner.dies_doing(id, C::RemoveMember { by, user }, is_small_row);
    let mut owner = start(folder.path());
    // Its position is given to something else.
    assert!(matches!(owner.ask(id, send(&ann, "1", None)), Answer::Sent(_)));
    owner.idle_out();
    assert!(matches!(owner.ask(id, send(&bob, "1", None)), Answer::Sent(_)));
    owner.ends();
}

#[test]
fn a_conversation_that_was_made_by_halves_gets_into_the_list_of_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, bob, id) = (named("ann"), named("bob"), ConversationId::fresh());
    let owner = start(folder.path());
    owner.dies_doing(id, group(&ann, &[&bob]), |op| !is_of(op, CONVERSATIONS));
    let mut owner = start(folder.path());
    owner.idle_out();
    let all = Read::Set {
        table: CONVERSATIONS,
        partition: tail_partition(Key::Conversation(id).shard()),
        after: None,
        up_to: None,
        limit: 9,
    };
    let lists = owner.gate.read_now(&[all]).expect("it reads");
    assert!(matches!(&lists[..], [ReadAnswer::Set { elements, .. }] if elements.len() == 1));
    owner.ends();
}

#[test]
fn asking_for_conversations_that_nobody_made_leaves_no_rows_and_one_can_be_made_there_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut owner = start(folder.path());
    let (ann, bob, id) = pair();
    for _ in 0..3 {
        assert!(is_refused(&owner.ask(id, send(&ann, "1", None))));
        assert!(is_refused(&owner.ask(id, C::Get { by: ann.user })));
    }
    assert_eq!(owner.gate.take_ups.load(Ordering::SeqCst), 0);
    assert!(matches!(
        owner.ask(id, send(&ann, "1", Some(&bob))),
        Answer::Sent(_)
    ));
    assert_eq!(
        owner.gate.take_ups.load(Ordering::SeqCst),
        2,
        "its log and its rows"
    );
    assert!(matches!(
        owner.ask(id, C::Get { by: ann.user }),
        Answer::Conversation(_)
    ));
    owner.ends();
}
