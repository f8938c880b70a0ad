//! The rig with real homes of topics, for groups of shared subscriptions: users and topics on one worker.

use godwit_cluster::{Flow, Loading, Reply, RoleId};
use godwit_store::{Completion, Store as _};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, TopicCommand};
use godwit_wire::ids::Key;

use super::rig::Rig;
use crate::part::Part;
use crate::topics::{Metrics, Topics};

fn of_topics(tag: u64) -> Option<u64> {
    let (part, number) = Part::of(tag);
    (part == Part::Topics).then_some(number)
}

impl Rig {
    pub(super) fn with_topics() -> Self {
        let mut rig = Self::new();
        rig.start_topics();
        rig
    }

    pub(super) fn start_topics(&mut self) {
        let mut topics = Box::new(Topics::new(Metrics::default()));
        self.harness.with(RoleId::Broker, |cx| topics.started(cx));
        self.topics = Some(topics);
        self.run();
    }

    /// What is not for topics comes back.
    pub(super) fn topics_completed(&mut self, completion: Completion) -> Option<Completion> {
        let (Completion::Written { ticket, .. } | Completion::Read { ticket, .. }) = &completion;
        let Some(number) = of_topics(*ticket) else {
            return Some(completion);
        };
        if let Some(topics) = self.topics.as_deref_mut() {
            self.harness.with(RoleId::Broker, |cx| match completion {
                Completion::Written { outcome, .. } => topics.stored(cx, number, &outcome),
                Completion::Read { answers, .. } => topics.read(cx, number, answers.ok()),
            });
        }
        None
    }

    pub(super) fn topics_answered(&mut self, tag: u64, answer: Answer) -> Option<Answer> {
        let Some(number) = of_topics(tag) else {
            return Some(answer);
        };
        if let Some(topics) = self.topics.as_deref_mut() {
            self.harness
                .with(RoleId::Broker, |cx| topics.answered(cx, number, answer));
        }
        None
    }

    pub(super) fn topics_end_of_turn(&mut self) {
        if let Some(topics) = self.topics.as_deref_mut() {
            self.harness.with(RoleId::Broker, |cx| topics.end_of_turn(cx));
        }
    }

    pub(super) fn topics_timer(&mut self, tag: u64) -> bool {
        let number = of_topics(tag);
        if let (Some(number), Some(topics)) = (number, self.topics.as_deref_mut()) {
            self.harness.with(RoleId::Broker, |cx| topics.timer(cx, number));
        }
        number.is_some()
    }

    pub(super) fn topics_command(&mut self, key: &Key, command: TopicCommand, reply: Reply) {
        if self.topics_refuse {
            self.topics_refused += 1;
            self.answer(reply, Refusal::unavailable().into());
            return;
        }
        let Some(topics) = self.topics.as_deref_mut() else {
            return;
        };
        let flow = self
            .harness
            .with(RoleId::Broker, |cx| topics.apply(cx, key, command, reply));
        let Flow::Load {
            command: Command::Topic(command),
            reply,
            mut reads,
        } = flow
        else {
            return;
        };
        loop {
            let answers = self.store.read_now(&reads).unwrap();
            let loading = self
                .harness
                .with(RoleId::Broker, |cx| topics.loaded(cx, key, answers));
            match loading {
                Loading::Ready => break,
                Loading::More(more) => reads = more,
            }
        }
        self.topics_command(key, command, reply);
    }
}
