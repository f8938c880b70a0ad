//! Search. The index says where; who may see what is asked of the conversations' homes, and the messages come from there
//! too, never from the index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json as Answer;
use axum::extract::State;
use godwit_search::{
    Error, Freshness, Hit, MAX_PAGE, MAX_SCOPE, Query as Words, Request, SNIPPET_CHARS, Scope, ScopeEntry,
    snippet,
};
use godwit_wire::code::Code;
use godwit_wire::command::{
    Answer as HomeAnswer, ConversationCommand, EntryBody, HistoryAt, LoggedEntry, Position,
};
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::json::{Message, Timestamp};
use godwit_wire::proto::chat::message::Content;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use crate::conversations::{each, info, mine, owned};
use crate::extract::{Caller, Path, Query, id};
use crate::messages::{schema, visible};
use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// How long one search may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Conversations listed at a time.
const LIST: u32 = 1_000;
/// Results of a page if none are asked for.
const PAGE_DEFAULT: usize = 20;
/// Searches run at a time: each takes a core for its time, which messaging needs more.
const AT_A_TIME: usize = 2;

/// The index, and how many may use it at a time.
#[derive(Clone)]
pub struct SearchIndex {
    index: godwit_search::Index,
    turns: Arc<Semaphore>,
}

impl SearchIndex {
    /// Searches go to this index.
    pub fn new(index: godwit_search::Index) -> Self {
        Self {
            index,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

/// Query of a search.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Words that must all occur; in quotation marks: a phrase.
    #[serde(default)]
    query: String,
    /// 1 to 100, else 20.
    #[serde(default)]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Only messages of this user.
    #[serde(default)]
    #[param(value_type = Option<String>, format = "uuid")]
    sender: Option<String>,
    /// Only messages stored at this time or later: RFC 3339, or a date.
    #[serde(default)]
    after: Option<String>,
    /// Only messages stored before this time: RFC 3339, or a date.
    #[serde(default)]
    before: Option<String>,
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<String>,
}

/// A result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The message.
    #[schema(value_type = schema::Message)]
    message: Message<'static>,
    /// The piece of its text with what was found; plain text.
    snippet: String,
    /// What to highlight in the snippet: half-open ranges in code points.
    ranges: Vec<[usize; 2]>,
}

/// Answer of a search.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Results {
    /// Newest first.
    results: Vec<Found>,
    /// `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// What was stored up to then can be found; absent while the index is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    indexed_up_to: Option<Timestamp>,
}

/// Searches one conversation.
#[utoipa::path(get, path = "/conversations/{conversation_id}/search", tag = "search",
    params(("conversation_id" = String, Path, format = "uuid"), Asked), responses((status = 200, body = Results)))]
pub(crate) async fn in_conversation(
    State(api): State<Api>,
    caller: Caller,
    Path(conversation): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Answer<Results>, Problem> {
    let conversation: ConversationId = id(&conversation)?;
    let intervals = visible(&api, conversation, caller.user()).await?;
    if intervals.is_empty() {
        // A member of a conversation in which nothing was said yet is told so; for all others it is not there.
        info(&api, conversation, caller.user()).await?;
    }
    let scope = Scope {
        conversations: vec![ScopeEntry {
            conversation: conversation.0,
            intervals,
        }],
    };
    search(&api, caller.user(), asked, scope).await
}

/// Searches all conversations I am in.
#[utoipa::path(get, path = "/search", tag = "search", params(Asked), responses((status = 200, body = Results)))]
pub(crate) async fn everywhere(
    State(api): State<Api>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Answer<Results>, Problem> {
    let by = caller.user();
    let mut ids: Vec<ConversationId> = Vec::new();
    loop {
        let (page, more) = mine(&api, by, ids.last().copied(), LIST).await?;
        ids.extend(page);
        if !more || ids.len() >= MAX_SCOPE {
            break;
        }
    }
    ids.truncate(MAX_SCOPE);
    let asked_for = ids.clone();
    let found = each(ids, |id| {
        let api = api.clone();
        async move { visible(&api, id, by).await }
    });
    let mut conversations = Vec::new();
    for (id, intervals) in asked_for.into_iter().zip(found.await) {
        match intervals {
            Ok(intervals) if intervals.is_empty() => {}
            Ok(intervals) => conversations.push(ScopeEntry {
                conversation: id.0,
                intervals,
            }),
            Err(problem) if problem.code() == Code::NotFound => {}
            Err(problem) => return Err(problem),
        }
    }
    search(&api, by, asked, Scope { conversations }).await
}

async fn search(api: &Api, by: UserId, asked: Asked, scope: Scope) -> Result<Answer<Results>, Problem> {
    let Some(SearchIndex { index, turns }) = api.parts.search.clone() else {
        return Err(Problem::new(Code::Unavailable, "this node does not search"));
    };
    let limit = match asked.limit {
        None => PAGE_DEFAULT,
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => limit,
        Some(_) => return Err(Problem::field("limit", "is 1 to 100")),
    };
    let words = Arc::new(Words::parse(&asked.query).map_err(|error| problem(&error))?);
    let sender = asked.sender.as_deref().map(id::<UserId>).transpose()?;
    let (after_ms, before_ms) = (
        time("after", asked.after.as_deref())?,
        time("before", asked.before.as_deref())?,
    );
    let turn = tokio::time::timeout(DEADLINE, turns.acquire_owned())
        .await
        .map_err(|_| Problem::new(Code::Unavailable, "too many searches at a time"))?
        .map_err(|_| unexpected())?;
    let now = i64::try_from(api.now()).unwrap_or(i64::MAX);
    let (query, cursor) = (words.clone(), asked.cursor);
    let task = tokio::task::spawn_blocking(move || {
        // Before the search: what is found is then at least that new.
        let freshness = index.freshness(now);
        let request = Request {
            query: &query,
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
        page.map(|page| (page, freshness))
    });
    let (page, freshness) = task
        .await
        .map_err(|_| unexpected())?
        .map_err(|error| problem(&error))?;
    let entries = each(page.hits, |hit| {
        let api = api.clone();
        async move { entry(&api, by, hit).await }
    });
    let mut results = Vec::new();
    for entry in entries.await {
        if let Some(found) = entry?.and_then(|entry| found(&entry, &words)) {
            results.push(found);
        }
    }
    Ok(Answer(Results {
        results,
        next: page.next,
        indexed_up_to: up_to(&freshness),
    }))
}

/// The message of a hit, as its conversation's home shows it to this user; `None`: it does not.
async fn entry(api: &Api, by: UserId, hit: Hit) -> Result<Option<Arc<LoggedEntry>>, Problem> {
    let at = HistoryAt::Around(Position::Sequence(hit.sequence_number));
    let command = ConversationCommand::History { by, at, limit: 1 };
    match api.conversation(ConversationId(hit.conversation), command).await {
        Ok(HomeAnswer::History(page)) => Ok(page
            .entries
            .into_iter()
            .find(|entry| entry.sequence_number == hit.sequence_number)),
        Ok(_) => Err(unexpected()),
        Err(problem) if problem.code() == Code::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn found(entry: &LoggedEntry, words: &Words) -> Option<Found> {
    let EntryBody::Message(message) = &entry.body else {
        return None;
    };
    let Some(Content::Text(text)) = &message.content else {
        return None;
    };
    let snippet = snippet(text, words, SNIPPET_CHARS);
    Some(Found {
        message: owned(message)?,
        snippet: snippet.text,
        ranges: snippet.ranges,
    })
}

fn up_to(freshness: &Freshness) -> Option<Timestamp> {
    freshness
        .indexed_up_to_ms
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Timestamp)
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let parsed = Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
    let ms = parsed.and_then(|time| i64::try_from(time.0).ok());
    ms.map(Some)
        .ok_or_else(|| Problem::field(field, "is a time by RFC 3339, or a date"))
}

fn problem(error: &Error) -> Problem {
    match error {
        Error::QueryTooLong => Problem::field("query", "has at most 512 characters and 128 words"),
        Error::BadCursor => Problem::field("cursor", "is `next` of the page before"),
        Error::ScopeTooLarge => Problem::new(Code::Quota, "there are too many conversations to search in"),
        other => {
            tracing::warn!(error = %other, "a search failed");
            Problem::new(
                Code::Unavailable,
                "the search did not end in time, or the index is not there",
            )
        }
    }
}
