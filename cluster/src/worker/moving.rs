//! What a worker of a cluster does besides: takes slots up and lets them go, sends requests for others' keys on, and stands
//! still while its node's lease is over.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use godwit_store::View;
use godwit_wire::code::Refusal;
use godwit_wire::ids::Key;
use godwit_wire::peer::PeerAnswer;

use super::{LoadingKey, NAP, Parked, ROLES, Worker};
use crate::away::Went;
use crate::own::{Group, LEASE_MS, Layout};
use crate::peers::Move;
use crate::role::RoleId;
use crate::router::Envelope;
use crate::turn::slot_of;

/// Naps between two looks at those who come while the lease is over.
const NAPS_A_LOOK: u32 = 4;

/// What kind of home a role's keys have.
fn group_of(role: RoleId) -> Group {
    match role {
        RoleId::Accounts | RoleId::Broker => Group::Users,
        RoleId::Ingest => Group::Conversations,
    }
}

impl Worker {
    /// Waits while the lease of the node is over; nothing is done meanwhile but to let go. `false`: the node stops, and who
    /// may not answer cannot say good-bye either.
    pub(super) fn await_lease(&mut self, stopping: bool) -> bool {
        let mut calls = 0_u32;
        while self.lease_is_over() {
            let (stops, moves) = {
                let mut mail = self.turn.own_inbox.lock();
                (mail.stop, std::mem::take(&mut mail.moves))
            };
            self.tell_time();
            self.moved(moves);
            if stops || stopping {
                self.turn.own_inbox.quiet.store(true, Ordering::Release);
                return false;
            }
            if calls.is_multiple_of(NAPS_A_LOOK) {
                self.turn_clients_away();
            }
            calls = calls.wrapping_add(1);
            std::thread::sleep(NAP);
        }
        true
    }

    /// The broker sees to those who come while the lease is over.
    fn turn_clients_away(&mut self) {
        let over_ms = self.clustered.as_ref().map_or(0, |clustered| {
            let silence = clustered.holdings.silence((clustered.clock)());
            silence.unwrap_or(0).saturating_sub(LEASE_MS)
        });
        let (of_broker, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.turn.own_inbox.lock().handed)
                .into_iter()
                .partition(|(role, _)| *role == RoleId::Broker);
        let mut handed = of_broker.into_iter().map(|(_, item)| item).collect();
        self.with(RoleId::Broker, |role, cx| role.lapsed(cx, over_ms, &mut handed));
        // Before what came meanwhile.
        others.extend(handed.into_iter().map(|item| (RoleId::Broker, item)));
        self.turn.own_inbox.lock().handed.splice(0..0, others);
    }

    fn lease_is_over(&self) -> bool {
        let Some(clustered) = &self.clustered else {
            return false;
        };
        if clustered.holdings.current() == 0 || clustered.holdings.may_act((clustered.clock)()) {
            return false;
        }
        // Who holds nothing has nothing to be careful with: a node that has left passes on what its clients ask.
        self.turn.views.iter().any(|view| *view != 0)
    }

    /// The shards of one group among these slots that are this worker's.
    fn own_shards(&self, group: Group, slots: &[u16]) -> Vec<u16> {
        let (workers, worker) = (self.turn.router.workers(), self.turn.worker);
        let of_group = slots.iter().filter_map(|slot| Layout::PRODUCT.of(*slot));
        of_group
            .filter(|(of, shard)| *of == group && shard % workers == worker)
            .map(|(_, shard)| shard)
            .collect()
    }

    pub(super) fn take_up(&mut self, view: View, slots: &[u16]) {
        for group in [Group::Users, Group::Conversations] {
            for shard in self.own_shards(group, slots) {
                self.turn.hold(Layout::PRODUCT.slot(group, shard), view);
            }
        }
        for role in ROLES {
            let shards = self.own_shards(group_of(role), slots);
            if !shards.is_empty() {
                self.with(role, |role, cx| role.taken_up(cx, &shards, view));
            }
        }
        if let Some(away) = &mut self.turn.away {
            away.took_up();
        }
    }

    fn let_go(&mut self, view: View, slots: &[u16]) {
        for role in ROLES {
            let shards = self.own_shards(group_of(role), slots);
            if !shards.is_empty() {
                self.with(role, |role, cx| role.given_up(cx, &shards, view));
            }
        }
        for group in [Group::Users, Group::Conversations] {
            for shard in self.own_shards(group, slots) {
                self.turn.hold(Layout::PRODUCT.slot(group, shard), 0);
            }
        }
        self.drop_loads();
        // What the roles asked of themselves for these keys finds nobody.
        let turn = &mut self.turn;
        let mut entries = std::mem::take(&mut turn.entries);
        entries.retain(|(_, key, _)| turn.holds(slot_of(key)));
        turn.entries = entries;
    }

    /// Loads of keys that are not held any more: their commands go to whom they belong.
    fn drop_loads(&mut self) {
        let gone = |loading: &LoadingKey| !self.turn.holds(slot_of(&loading.key));
        let loads: Vec<u64> = self
            .loading
            .iter()
            .filter(|(_, loading)| gone(loading))
            .map(|(load, _)| *load)
            .collect();
        for load in loads {
            let Some(LoadingKey { role, key, parked }) = self.loading.remove(&load) else {
                continue;
            };
            self.loading_keys.remove(&(role, key.clone()));
            for parked in parked {
                if let Parked::Command(command, reply) = parked {
                    let key = key.clone();
                    self.apply(Envelope::of_this_node(key, command, reply));
                }
            }
        }
    }

    pub(super) fn moved(&mut self, moves: Vec<Move>) {
        for told in moves {
            match told {
                Move::TakeUp(view, slots) => self.take_up(view, &slots),
                Move::LetGo(view, slots, guard) => {
                    self.let_go(view, &slots);
                    self.turn.answer_dropped();
                    // What was answered before leaves before.
                    self.turn.flush();
                    drop(guard);
                }
                Move::Stands(standing, me) => {
                    let now = self.turn.now.mono_ms;
                    let away = self.turn.away.as_mut();
                    for reply in away.map_or_else(Vec::new, |away| away.stands(standing, me, now)) {
                        self.turn.answer(reply, Refusal::unavailable().into());
                    }
                    for role in ROLES {
                        self.with(role, |role, cx| role.stands(cx));
                    }
                }
            }
        }
    }

    pub(super) fn peers_answered(&mut self, answers: Vec<(u64, PeerAnswer)>) {
        let now = self.turn.now.mono_ms;
        for (id, answer) in answers {
            let answered = self
                .turn
                .away
                .as_mut()
                .and_then(|away| away.answered(id, answer, now));
            if let Some((reply, answer)) = answered {
                self.turn.answer(reply, answer);
            }
        }
    }

    /// Gives a request back if its key is held here; else it is on its way.
    pub(super) fn if_held(&mut self, envelope: Envelope) -> Option<Envelope> {
        let Some(away) = &mut self.turn.away else {
            return Some(envelope);
        };
        let is_here = match envelope.key {
            Key::WildcardCopy(_) => true,
            Key::Node(node) => away.is_me(node),
            _ => {
                let slot = slot_of(&envelope.key);
                let view = self.turn.views[usize::from(slot)];
                if view != 0 && away.is_void(&envelope, view) {
                    away.send_back(envelope.reply);
                    return None;
                }
                view != 0 && !away.holds_back(slot)
            }
        };
        if is_here {
            return Some(envelope);
        }
        if let Some(reply) = away.take(envelope, self.turn.now.mono_ms) {
            self.turn.answer(reply, Refusal::unavailable().into());
        }
        None
    }

    /// Requests that wait for their slot to be somebody's.
    pub(super) fn look_away(&mut self) -> bool {
        let now = self.turn.now.mono_ms;
        let views = &self.turn.views;
        let held = |slot: u16| views.get(usize::from(slot)).copied().unwrap_or_default();
        let Some(away) = &mut self.turn.away else {
            return false;
        };
        let went: VecDeque<Went> = away.look(now, held).into();
        let any = !went.is_empty();
        for one in went {
            match one {
                Went::Here(envelope) => self.apply_here(envelope),
                Went::Refused(reply) => self.turn.answer(reply, Refusal::unavailable().into()),
            }
        }
        any
    }
}
