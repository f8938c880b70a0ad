//! Search. Indexes say where, that of this node (`find`) and those of others (`nodes`); who may see what is asked of the
//! conversations' homes, and the messages come from there too, never from an index.

mod find;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use godwit_search::{Error, Hit, MAX_PAGE, MAX_SCOPE, Query as Words, SNIPPET_CHARS, check_cursor, snippet};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{
    Answer as HomeAnswer, ConversationCommand, EntryBody, Find, HistoryAt, LoggedEntry, Position,
};
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::json::{Message, Timestamp};
use godwit_wire::proto::chat::message::Content;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::conversations::{each, info, mine, owned};
use crate::extract::{Caller, Path, Query, id};
use crate::messages::{schema, visible};
use crate::problem::Problem;
use crate::state::{Api, unexpected};
use find::Failed;
pub use find::SearchIndex;
pub use nodes::{Place, Places};

/// How long one search may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Conversations listed at a time.
const LIST: u32 = 1_000;
/// Results of a page if none are asked for.
const PAGE_DEFAULT: usize = 20;
/// How long the message of a hit may take to come from its home.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(3);

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
    /// What was stored up to then can be found; absent while `partial`, and while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    indexed_up_to: Option<Timestamp>,
    /// Something may be missing: an index is being completed, or a node did not answer in time. The same search finds it
    /// later; a next page does not.
    partial: bool,
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
    search(&api, caller.user(), asked, vec![conversation]).await
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
    search(&api, by, asked, ids).await
}

async fn search(
    api: &Api,
    by: UserId,
    asked: Asked,
    conversations: Vec<ConversationId>,
) -> Result<Answer<Results>, Problem> {
    let Some(index) = api.parts.search.clone() else {
        return Err(Problem::new(Code::Unavailable, "this node does not search"));
    };
    let limit = match asked.limit {
        None => PAGE_DEFAULT,
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => limit,
        Some(_) => return Err(Problem::field("limit", "is 1 to 100")),
    };
    let words = Words::parse(&asked.query).map_err(|error| problem(&error))?;
    if let Some(cursor) = &asked.cursor {
        check_cursor(cursor).map_err(|error| problem(&error))?;
    }
    let find = Find {
        by,
        conversations,
        query: asked.query,
        sender: asked.sender.as_deref().map(id::<UserId>).transpose()?,
        after_ms: time("after", asked.after.as_deref())?,
        before_ms: time("before", asked.before.as_deref())?,
        // At most `MAX_PAGE`, which fits.
        limit: limit as u32,
        cursor: asked.cursor,
    };
    let all = index.everywhere(&api.parts.router, find, api.now()).await;
    let all = all.map_err(|error| match error {
        Failed::Index(error) => problem(&error),
        Failed::Busy => Problem::new(Code::Unavailable, "too many searches at a time"),
        Failed::Gone => unexpected(),
    })?;
    let mut partial = all.partial;
    let entries = each(all.page.hits, |hit| {
        let api = api.clone();
        async move { entry(&api, by, hit).await }
    });
    let mut results = Vec::new();
    for entry in entries.await {
        match entry {
            Ok(entry) => results.extend(entry.and_then(|entry| found(&entry, &words))),
            Err(problem) if problem.code() == Code::Unavailable => partial = true,
            Err(problem) => return Err(problem),
        }
    }
    let indexed_up_to = all.indexed_up_to_ms.filter(|_| !partial);
    Ok(Answer(Results {
        results,
        next: all.page.next,
        indexed_up_to: indexed_up_to.and_then(|ms| u64::try_from(ms).ok()).map(Timestamp),
        partial,
    }))
}

/// The message of a hit, as its conversation's home shows it to this user; `None`: it does not.
async fn entry(api: &Api, by: UserId, hit: Hit) -> Result<Option<Arc<LoggedEntry>>, Problem> {
    let at = HistoryAt::Around(Position::Sequence(hit.sequence_number));
    let command = ConversationCommand::History { by, at, limit: 1 };
    let home = api.conversation(ConversationId(hit.conversation), command);
    let answer = tokio::time::timeout(MESSAGE_PATIENCE, home).await;
    match answer.unwrap_or_else(|_| Err(Refusal::unavailable().into())) {
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

fn time(field: &'static str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let parsed = Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")));
    let ms = parsed.and_then(|time| i64::try_from(time.0).ok());
    ms.map(Some)
        .ok_or_else(|| Problem::field(field, "is a time by RFC 3339, or a date"))
}

fn problem(error: &Error) -> Problem {
    match error {
        Error::QueryTooLong => {
            Problem::field("query", "has at most 512 characters and 128 words").of_limit("query")
        }
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
