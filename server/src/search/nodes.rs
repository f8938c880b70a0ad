//! Search on a node that is one of several: which shards' index is here, where that of the others is, what other nodes ask, and
//! what conversations confirm whose index is elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use godwit_cluster::Router;
use godwit_cluster::own::{Group, Layout, Roles};
use godwit_history_api::{Place, Places};
use godwit_ingest::{Confirmed, Searching};
use godwit_search::{Index, Notifier, Standing};
use godwit_wire::command::{Command, SearchCommand};
use godwit_wire::ids::{ConversationId, Key};

use super::Search;
use crate::cluster::Membership;

/// Conversations at most of which another node is to be told how far they are confirmed; beyond it they are found in the list
/// of open tails, or told again by their homes.
const ELSEWHERE: usize = 65_536;
/// Of them in one command.
const TOLD_AT_ONCE: usize = 1_024;
/// How often: little of the two seconds within which a message is found.
const TELL: Duration = Duration::from_millis(200);
/// What was told to an index elsewhere may have got lost; homes tell it once more after three seconds.
const HEARD_LATE_MS: i64 = 5_000;

/// Confirmed, and to be told to the nodes that index it.
#[derive(Clone, Default)]
pub(super) struct Elsewhere(Arc<Mutex<HashMap<ConversationId, u64>>>);

impl Elsewhere {
    fn add(&self, conversation: ConversationId, up_to: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < ELSEWHERE || all.contains_key(&conversation) {
            let known = all.entry(conversation).or_default();
            *known = up_to.max(*known);
        }
    }

    fn take(&self) -> HashMap<ConversationId, u64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells the index which shards are its own.
#[derive(Clone)]
pub(crate) struct IndexShards(pub(super) Notifier);

impl IndexShards {
    /// These slots are this node's: told before their conversations' homes are, so that nothing is confirmed unheard.
    pub(crate) fn take_up(&self, slots: &[u16]) {
        self.0.hold(&of_index(slots));
    }

    /// These are not any more.
    pub(crate) fn let_go(&self, slots: &[u16]) {
        self.0.let_go(&of_index(slots));
    }
}

fn of_index(slots: &[u16]) -> Vec<u32> {
    let of = slots.iter().filter_map(|slot| Layout::PRODUCT.of(*slot));
    of.filter(|(group, _)| *group == Group::Index)
        .map(|(_, shard)| u32::from(shard))
        .collect()
}

/// Where the index of a conversation is, by this node's view.
fn places(membership: &Membership) -> Places {
    let (standing, start) = (membership.standing(), membership.start());
    let of = move |conversation| {
        let Some(standing) = standing.borrow().clone() else {
            return Place::Nobody;
        };
        let slot = Layout::PRODUCT.slot(Group::Index, Key::Conversation(conversation).shard());
        let seat = standing
            .map
            .owner(slot)
            .and_then(|at| standing.body.seats.get(at));
        match seat {
            Some(seat) if Some(seat.start) == *start.borrow() => Place::Here,
            Some(seat) => Place::Node(seat.start),
            None => Place::Nobody,
        }
    };
    let standing = membership.standing();
    let heard_late_ms = move || {
        let standing = standing.borrow().clone();
        let apart = standing.is_some_and(|standing| {
            let seats = standing.body.seats.iter();
            let mut roles = seats.map(|seat| (seat.roles.has(Roles::INGEST), seat.roles.has(Roles::SEARCH)));
            roles.any(|(ingest, search)| ingest != search)
        });
        if apart { HEARD_LATE_MS } else { 0 }
    };
    Places {
        of: Arc::new(of),
        heard_late_ms: Arc::new(heard_late_ms),
    }
}

impl Search {
    /// From now on other nodes' indexes are found, and told what is confirmed here.
    pub(crate) fn join(&self, membership: &Membership, router: &Router, runtime: &tokio::runtime::Handle) {
        let places = places(membership);
        self.api.among(places.clone());
        let (elsewhere, router, notifier) = (self.elsewhere.clone(), router.clone(), self.notifier.clone());
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TELL).await;
                tell(elsewhere.take(), &places, &router, &notifier);
            }
        });
    }

    /// What the node's view is told to.
    pub(crate) fn shards(&self) -> IndexShards {
        IndexShards(self.notifier.clone())
    }

    /// What ingest calls when another node asks.
    pub(crate) fn searching(&self) -> Searching {
        let (homes, api, notifier) = (self.homes.clone(), self.api.clone(), self.notifier.clone());
        let now_ms = self.clock.clone();
        Arc::new(move |command, replies| match command {
            SearchCommand::Confirmed(tails) => {
                for (id, up_to) in tails {
                    notifier.notify(id.0, shard(id), up_to);
                }
            }
            SearchCommand::Find(find) => {
                let Some((router, runtime)) = homes.reached() else {
                    return;
                };
                let (api, router, now_ms) = (api.clone(), router.clone(), now_ms());
                runtime.spawn(async move {
                    replies.answer(api.answer(&router, find, now_ms).await);
                });
            }
        })
    }

    /// What ingest calls when more of a conversation is confirmed whose index may be another node's.
    pub(super) fn confirmed_anywhere(&self, index: Index) -> Confirmed {
        let (notifier, elsewhere) = (self.notifier.clone(), self.elsewhere.clone());
        Arc::new(move |conversation, shard, up_to| {
            let shard = u32::from(shard);
            match index.standing(shard) {
                Standing::Away => elsewhere.add(conversation, up_to),
                Standing::Catching | Standing::Whole => notifier.notify(conversation.0, shard, up_to),
            }
        })
    }
}

fn shard(conversation: ConversationId) -> u32 {
    u32::from(Key::Conversation(conversation).shard())
}

/// Tells the nodes that index these conversations. What does not get there is told again by its home, or found in the list of
/// open tails.
fn tell(confirmed: HashMap<ConversationId, u64>, places: &Places, router: &Router, notifier: &Notifier) {
    let mut by_node: HashMap<_, Vec<(ConversationId, u64)>> = HashMap::new();
    for (id, up_to) in confirmed {
        match (places.of)(id) {
            Place::Here => notifier.notify(id.0, shard(id), up_to),
            Place::Node(node) => by_node.entry(node).or_default().push((id, up_to)),
            Place::Nobody => {}
        }
    }
    for (node, tails) in by_node {
        for some in tails.chunks(TOLD_AT_ONCE) {
            let told = SearchCommand::Confirmed(some.to_vec());
            if !router.tell(Key::Node(node), Command::Search(Box::new(told))) {
                tracing::debug!(%node, "a node was not told what is to be indexed: it is told again");
            }
        }
    }
}
