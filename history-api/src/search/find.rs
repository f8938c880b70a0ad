//! What this node's index finds for a user. The index knows no rights: what may be read is asked of the homes of those
//! conversations in which something was found, until all of what is answered is known to be allowed (SCOPE). Whose request
//! it is, an own client's or another node's, makes no difference.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use godwit_cluster::Router;
use godwit_search::{Error, Hit, MAX_PAGE, Page, Query as Words, Request, Scope, ScopeEntry, Standing};
use godwit_wire::code::Refusal;
use godwit_wire::command::{Answer, Command, ConversationCommand, Find, Found, FoundAt};
use godwit_wire::ids::{ConversationId, Key, UserId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{DEADLINE, Places};

/// Searches run at a time: each takes a core for its time, which messaging needs more.
const AT_A_TIME: usize = 2;
/// Homes asked at a time.
const HOMES_AT_A_TIME: usize = 64;
/// How long they may take; the conversations of those that did not answer are left out, and the answer says so.
pub(super) const HOMES_PATIENCE: Duration = Duration::from_secs(2);
/// How often the index is asked with what is known by then. As a rule once: what is found first may be read. After that all
/// homes are asked.
const ROUNDS: usize = 4;

/// The index, and how many may use it at a time.
#[derive(Clone)]
pub struct SearchIndex {
    index: godwit_search::Index,
    turns: Arc<Semaphore>,
    pub(super) places: Arc<OnceLock<Places>>,
}

/// Why nothing is found.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Index(#[from] Error),
    #[error("too many searches at a time")]
    Busy,
    #[error("a search came to a sudden end")]
    Gone,
}

impl SearchIndex {
    /// Searches go to this index.
    pub fn new(index: godwit_search::Index) -> Self {
        Self {
            index,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            places: Arc::default(),
        }
    }

    /// On a node that is one of several, for all clones: where the index of a conversation is. Once.
    pub fn among(&self, places: Places) {
        // A second time it is the same.
        let _ = self.places.set(places);
    }

    /// Answers another node.
    pub async fn answer(&self, router: &Router, find: Find, now_ms: u64) -> Answer {
        match self.find(router, &find, now_ms).await {
            Ok(found) => Answer::Found(Box::new(found)),
            Err(error) => {
                tracing::warn!(%error, "a search of another node failed");
                Refusal::unavailable().into()
            }
        }
    }

    /// Looks into those of the conversations whose index is here.
    pub(super) async fn find(&self, router: &Router, find: &Find, now_ms: u64) -> Result<Found, Failed> {
        // Before the search: what is found is then at least that whole, and that new.
        let (mut here, mut partial) = (Vec::with_capacity(find.conversations.len()), false);
        for id in &find.conversations {
            let standing = self.index.standing(u32::from(Key::Conversation(*id).shard()));
            partial |= standing != Standing::Whole;
            if standing != Standing::Away {
                here.push(*id);
            }
        }
        let freshness = self.index.freshness(i64::try_from(now_ms).unwrap_or(i64::MAX));
        let late_ms = self.places.get().map_or(0, |places| (places.heard_late_ms)());
        let words = Arc::new(Words::parse(&find.query)?);
        let limit = usize::try_from(find.limit).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let mut known = Known::default();
        let mut round = 0;
        let mut hits = loop {
            round += 1;
            let scope = known.scope(&here);
            // One more: whether there is a next page is nobody's business who may not read it.
            let page = self.search(find, &words, scope, limit + 1).await?;
            let mut unknown: Vec<ConversationId> = page
                .hits
                .iter()
                .map(|hit| ConversationId(hit.conversation))
                .collect();
            unknown.sort_unstable();
            unknown.dedup();
            unknown.retain(|id| !known.0.contains_key(id));
            if unknown.is_empty() {
                break page.hits;
            }
            if round == ROUNDS {
                unknown = here
                    .iter()
                    .filter(|id| !known.0.contains_key(id))
                    .copied()
                    .collect();
            }
            partial |= known.ask(router, find.by, unknown).await;
            if page.hits.iter().all(|hit| known.allows(hit)) {
                break page.hits;
            }
        };
        let more = hits.len() > limit;
        hits.truncate(limit);
        Ok(Found {
            hits: hits.iter().map(found_at).collect(),
            more,
            partial,
            indexed_up_to_ms: freshness.indexed_up_to_ms.map(|ms| ms.saturating_sub(late_ms)),
        })
    }

    async fn search(
        &self,
        find: &Find,
        words: &Arc<Words>,
        scope: Scope,
        limit: usize,
    ) -> Result<Page, Failed> {
        let turns = self.turns.clone().acquire_owned();
        let turn = tokio::time::timeout(DEADLINE, turns)
            .await
            .map_err(|_| Failed::Busy)?
            .map_err(|_| Failed::Gone)?;
        let (index, words, cursor) = (self.index.clone(), words.clone(), find.cursor.clone());
        let (sender, after_ms, before_ms) = (find.sender, find.after_ms, find.before_ms);
        let task = tokio::task::spawn_blocking(move || {
            let request = Request {
                query: &words,
                scope: &scope,
                sender: sender.map(|user| user.0),
                after_ms,
                before_ms,
                limit,
                cursor: cursor.as_deref(),
                deadline: Some(Instant::now() + DEADLINE),
            };
            let page = index.search(&request);
            drop(turn);
            page
        });
        Ok(task.await.map_err(|_| Failed::Gone)??)
    }
}

/// What homes said that the user may read.
#[derive(Default)]
struct Known(HashMap<ConversationId, Vec<(u64, u64)>>);

impl Known {
    /// What is not known is looked into wholly, and asked about if something is found there.
    fn scope(&self, conversations: &[ConversationId]) -> Scope {
        let entry = |id: &ConversationId| ScopeEntry {
            conversation: id.0,
            intervals: self.0.get(id).map_or_else(|| vec![(0, u64::MAX)], Clone::clone),
        };
        Scope {
            conversations: conversations.iter().map(entry).collect(),
        }
    }

    fn allows(&self, hit: &Hit) -> bool {
        let intervals = self.0.get(&ConversationId(hit.conversation));
        intervals.is_some_and(|intervals| {
            intervals
                .iter()
                .any(|&(first, last)| (first..=last).contains(&hit.sequence_number))
        })
    }

    /// Asks the homes. Nothing may be read where one does not answer; whether there was such a one.
    async fn ask(&mut self, router: &Router, by: UserId, conversations: Vec<ConversationId>) -> bool {
        let (mut silent, mut left) = (false, conversations.into_iter());
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < HOMES_AT_A_TIME
                && let Some(id) = left.next()
            {
                asked.spawn(visible(router.clone(), id, by));
            }
            match asked.join_next().await {
                Some(Ok((id, intervals))) => {
                    silent |= intervals.is_none();
                    self.0.insert(id, intervals.unwrap_or_default());
                }
                Some(Err(_)) => silent = true,
                None => return silent,
            }
        }
    }
}

async fn visible(
    router: Router,
    id: ConversationId,
    by: UserId,
) -> (ConversationId, Option<Vec<(u64, u64)>>) {
    let asked = Command::Conversation(ConversationCommand::Visible { by });
    let answer = tokio::time::timeout(HOMES_PATIENCE, router.call(Key::Conversation(id), asked));
    match answer.await {
        Ok(Answer::Visible(intervals)) => (id, Some(intervals)),
        _ => (id, None),
    }
}

fn found_at(hit: &Hit) -> FoundAt {
    FoundAt {
        conversation: ConversationId(hit.conversation),
        sequence_number: hit.sequence_number,
        created_at_ms: hit.created_at_ms,
    }
}
