//! Keys that are not in memory: what comes for one is parked, in order, until its role has what it asked the store for. What is then
//! done with it is in `worker`.

use std::collections::VecDeque;

use godwit_store::Read;
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;

use super::{LoadingKey, PARKED_PER_KEY, Parked, Worker};
use crate::role::{Flow, Loading, Reply, RoleId, Tag};
use crate::router::LOADS;

impl Worker {
    pub(super) fn enter(&mut self, role: RoleId, key: Key, tag: Tag) {
        if !self.loading_keys.is_empty()
            && let Some(load) = self.loading_keys.get(&(role, key.clone())).copied()
            && let Some(loading) = self.loading.get_mut(&load)
        {
            loading.parked.push_back(Parked::Entry(tag));
            return;
        }
        if let Some(reads) = self.with(role, |role, cx| role.enter(cx, &key, tag)) {
            self.load(role, key, VecDeque::from([Parked::Entry(tag)]), reads);
        }
    }

    /// Gives the command back if its key is not loading.
    pub(super) fn park_if_loading(
        &mut self,
        role: RoleId,
        key: &Key,
        parked: Parked,
    ) -> Option<(Command, Reply)> {
        let Parked::Command(command, reply) = parked else {
            return None;
        };
        if self.loading_keys.is_empty() {
            return Some((command, reply));
        }
        let Some(loading) = self
            .loading_keys
            .get(&(role, key.clone()))
            .and_then(|load| self.loading.get_mut(load))
        else {
            return Some((command, reply));
        };
        if loading.parked.len() < PARKED_PER_KEY {
            loading.parked.push_back(Parked::Command(command, reply));
        } else {
            self.turn.answer(reply, Answer::Refused(Refusal::unavailable()));
        }
        None
    }

    pub(super) fn load(&mut self, role: RoleId, key: Key, parked: VecDeque<Parked>, reads: Vec<Read>) {
        let load = self.next_load;
        self.next_load += 1;
        self.loading_keys.insert((role, key.clone()), load);
        self.loading.insert(load, LoadingKey { role, key, parked });
        self.turn
            .store
            .read(self.turn.worker, (LOADS << 56) | load, reads);
        self.take_own_reads();
    }

    /// Loads that the engine answered at once go on at once, so that what was parked keeps its place.
    fn take_own_reads(&mut self) {
        let ready = std::mem::take(&mut self.turn.own_inbox.lock().loads);
        for completion in ready {
            self.complete(completion);
        }
    }

    pub(super) fn load_read(&mut self, load: u64, answers: Option<Vec<godwit_store::ReadAnswer>>) {
        let Some(LoadingKey { role, key, parked }) = self.loading.remove(&load) else {
            return;
        };
        let Some(answers) = answers else {
            self.loading_keys.remove(&(role, key.clone()));
            self.with(role, |role, cx| role.load_failed(cx, &key));
            for parked in parked {
                if let Parked::Command(_, reply) = parked {
                    self.turn.answer(reply, Answer::Refused(Refusal::unavailable()));
                }
            }
            return;
        };
        match self.with(role, |role, cx| role.loaded(cx, &key, answers)) {
            Loading::More(reads) => {
                self.loading.insert(load, LoadingKey { role, key, parked });
                self.turn
                    .store
                    .read(self.turn.worker, (LOADS << 56) | load, reads);
                self.take_own_reads();
            }
            Loading::Ready => {
                self.loading_keys.remove(&(role, key.clone()));
                self.unpark(role, key, parked);
            }
        }
    }

    fn unpark(&mut self, role: RoleId, key: Key, mut parked: VecDeque<Parked>) {
        while let Some(next) = parked.pop_front() {
            let reads = match next {
                Parked::Command(command, reply) => {
                    match self.with(role, |role, cx| role.apply(cx, &key, command, reply)) {
                        Flow::Taken => continue,
                        Flow::Load {
                            command,
                            reply,
                            reads,
                        } => {
                            parked.push_front(Parked::Command(command, reply));
                            reads
                        }
                    }
                }
                Parked::Entry(tag) => match self.with(role, |role, cx| role.enter(cx, &key, tag)) {
                    None => continue,
                    Some(reads) => {
                        parked.push_front(Parked::Entry(tag));
                        reads
                    }
                },
            };
            // It needs more than was loaded: what is left waits in the same order.
            self.load(role, key, parked, reads);
            return;
        }
    }
}
