//! A search in all of a user's conversations: each node is asked once, for those whose index it has; what came in time is put
//! together, and what did not is said.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use godwit_cluster::Router;
use godwit_search::{Hit, Page, merge};
use godwit_wire::command::{Answer, Command, Find, Found, FoundAt, SearchCommand};
use godwit_wire::ids::{ConversationId, Key};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::find::{Failed, HOMES_PATIENCE, SearchIndex};

/// How long another node may take: longer than the homes that it asks.
const NODE_PATIENCE: Duration = Duration::from_secs(3);
const _: () = assert!(HOMES_PATIENCE.as_millis() < NODE_PATIENCE.as_millis());

/// Where the index of a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this node, or it is to come here.
    Here,
    /// At the node of this start.
    Node(Uuid),
    /// Nobody indexes it.
    Nobody,
}

/// What a node that is one of several knows of the indexes.
#[derive(Clone)]
pub struct Places {
    /// Where the index of a conversation is.
    pub of: Arc<dyn Fn(ConversationId) -> Place + Send + Sync>,
    /// How late an index hears of what is confirmed, at most as a rule, milliseconds: 0 where it is at the conversation's home.
    pub heard_late_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// What all nodes found together.
pub(super) struct All {
    pub(super) page: Page,
    pub(super) partial: bool,
    pub(super) indexed_up_to_ms: Option<i64>,
}

impl SearchIndex {
    /// Asks every node that has the index of some of the conversations.
    pub(super) async fn everywhere(
        &self,
        router: &Router,
        mut find: Find,
        now_ms: u64,
    ) -> Result<All, Failed> {
        let limit = usize::try_from(find.limit).unwrap_or(usize::MAX);
        let mut elsewhere: HashMap<Uuid, Vec<ConversationId>> = HashMap::new();
        let mut nobodys = false;
        if let Some(places) = self.places.get() {
            find.conversations.retain(|id| match (places.of)(*id) {
                Place::Here => true,
                Place::Node(node) => {
                    elsewhere.entry(node).or_default().push(*id);
                    false
                }
                Place::Nobody => {
                    nobodys = true;
                    false
                }
            });
        }
        let mut asked = JoinSet::new();
        for (node, conversations) in elsewhere {
            let find = Find {
                conversations,
                ..find.clone()
            };
            asked.spawn(ask(router.clone(), node, find));
        }
        let alone = asked.is_empty() && !nobodys;
        let mut all = Vec::new();
        if alone || !find.conversations.is_empty() {
            match self.find(router, &find, now_ms).await {
                Ok(found) => all.push(Some(found)),
                Err(error) if alone => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a search failed at this node");
                    all.push(None);
                }
            }
        }
        while let Some(found) = asked.join_next().await {
            all.push(found.ok().flatten());
        }
        if nobodys {
            all.push(None);
        }
        Ok(together(all, limit))
    }
}

/// What was found, with nothing from those that did not answer.
fn together(all: Vec<Option<Found>>, limit: usize) -> All {
    let mut partial = false;
    let mut indexed_up_to_ms = Some(i64::MAX);
    let mut pages = Vec::new();
    for found in all {
        let found = found.unwrap_or_else(|| Found {
            partial: true,
            ..Found::default()
        });
        partial |= found.partial;
        indexed_up_to_ms = indexed_up_to_ms
            .zip(found.indexed_up_to_ms)
            .map(|(one, other)| one.min(other));
        pages.push((found.hits.iter().map(hit).collect(), found.more));
    }
    All {
        page: merge(pages, limit),
        partial,
        // Of what may be missing nobody knows up to when it is there.
        indexed_up_to_ms: indexed_up_to_ms.filter(|_| !partial),
    }
}

async fn ask(router: Router, node: Uuid, find: Find) -> Option<Found> {
    let command = Command::Search(Box::new(SearchCommand::Find(find)));
    match tokio::time::timeout(NODE_PATIENCE, router.call(Key::Node(node), command)).await {
        Ok(Answer::Found(found)) => Some(*found),
        _ => None,
    }
}

fn hit(at: &FoundAt) -> Hit {
    Hit {
        conversation: at.conversation.0,
        sequence_number: at.sequence_number,
        created_at_ms: at.created_at_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(times: &[i64], more: bool, indexed_up_to_ms: Option<i64>) -> Found {
        let at = |created_at_ms: &i64| FoundAt {
            conversation: ConversationId(Uuid::from_u128(1)),
            sequence_number: created_at_ms.unsigned_abs(),
            created_at_ms: *created_at_ms,
        };
        Found {
            hits: times.iter().map(at).collect(),
            more,
            partial: false,
            indexed_up_to_ms,
        }
    }

    fn times(all: &All) -> Vec<i64> {
        all.page.hits.iter().map(|hit| hit.created_at_ms).collect()
    }

    #[test]
    fn what_nodes_found_is_one_page_newest_first_and_as_new_as_the_oldest_says() {
        let some = vec![
            Some(found(&[9, 5, 3], true, Some(70))),
            Some(found(&[8, 4], false, Some(60))),
        ];
        let all = together(some.clone(), 3);
        assert_eq!((times(&all), all.partial), (vec![9, 8, 5], false));
        assert!(all.page.next.is_some());
        assert_eq!(all.indexed_up_to_ms, Some(60));
        let all = together(vec![some[1].clone()], 3);
        assert_eq!((times(&all), all.page.next), (vec![8, 4], None));
    }

    #[test]
    fn a_node_that_did_not_answer_makes_it_partial_and_of_no_known_age() {
        let all = together(vec![Some(found(&[9], false, Some(70))), None], 3);
        assert_eq!(
            (times(&all), all.partial, all.indexed_up_to_ms),
            (vec![9], true, None)
        );
        let unknown = together(vec![Some(found(&[9], false, None))], 3);
        assert_eq!((unknown.partial, unknown.indexed_up_to_ms), (false, None));
    }
}
