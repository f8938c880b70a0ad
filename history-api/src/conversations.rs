//! Conversations: opening one-to-one ones, listing mine, what a member sees of one.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use godwit_wire::account::{AccountAnswer, AccountCommand};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer as HomeAnswer, ConversationCommand, ConversationInfo, EntryBody};
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::json::{self, ConversationKind, Timestamp};
use godwit_wire::limits::PAGE;
use godwit_wire::proto::chat;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use utoipa::{IntoParams, ToSchema};

use crate::contacts::WhichUser;
use crate::extract::{Caller, Json, Path, Query, RequestKey, id, made};
use crate::messages::schema;
use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// Conversations asked for at a time when a page of them is answered.
const AT_A_TIME: usize = 32;
/// Length of a page if none is asked for.
const PAGE_DEFAULT: u32 = 50;

/// A member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConversationMember {
    /// Who.
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    /// Who.
    username: String,
    /// What the member may do.
    #[schema(value_type = String, pattern = "^(member|admin)$")]
    role: json::Role,
    /// Position of the entry by which the member came in.
    since: u64,
}

/// A conversation as a member sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Conversation {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    conversation_id: ConversationId,
    /// One-to-one or group.
    #[serde(rename = "type")]
    #[schema(value_type = String, pattern = "^(one_on_one|group)$")]
    kind: ConversationKind,
    /// Groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// How many are in.
    member_count: usize,
    /// Who is in; a list of conversations leaves it out for groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<ConversationMember>>,
    /// Newest position.
    last_sequence_number: u64,
    /// How far the one who asks has read.
    read_up_to: u64,
    /// Newest message that the one who asks may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Message>)]
    last_message: Option<json::Message<'static>>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
}

impl Conversation {
    pub(crate) fn of(info: ConversationInfo, by: UserId, with_members: bool) -> Self {
        let read_up_to = info
            .watermarks
            .iter()
            .find(|mark| mark.user == by)
            .map_or(0, |mark| mark.read_up_to);
        let last_message = info.last_message.as_deref().and_then(|entry| match &entry.body {
            EntryBody::Message(message) => owned(message),
            EntryBody::Member(_) => None,
        });
        let member_count = info.members.len();
        let members = info
            .members
            .into_iter()
            .map(|(named, role, since)| ConversationMember {
                user_id: named.user,
                username: named.name.as_ref().into(),
                role: if role == chat::Role::Admin {
                    json::Role::Admin
                } else {
                    json::Role::Member
                },
                since,
            });
        Self {
            conversation_id: info.id,
            kind: if info.group {
                ConversationKind::Group
            } else {
                ConversationKind::OneOnOne
            },
            name: info.group.then_some(info.name),
            description: info.group.then_some(info.description),
            member_count,
            members: (with_members || !info.group).then(|| members.collect()),
            last_sequence_number: info.last_sequence,
            read_up_to,
            last_message,
            created_at: Timestamp(info.created_at),
        }
    }
}

/// The message in its JSON form, with a life of its own.
pub(crate) fn owned(message: &chat::Message) -> Option<json::Message<'static>> {
    let value = serde_json::to_value(json::Message::try_from(message).ok()?).ok()?;
    serde_json::from_value(value).ok()
}

/// Length of a page, checked.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        None => Ok(PAGE_DEFAULT),
        Some(limit @ 1..=PAGE) => Ok(limit),
        Some(_) => Err(Problem::field("limit", "is 1 to 200")),
    }
}

/// What a member sees of a conversation.
pub(crate) async fn info(api: &Api, id: ConversationId, by: UserId) -> Result<ConversationInfo, Problem> {
    expect_info(api.conversation(id, ConversationCommand::Get { by }).await?)
}

pub(crate) fn expect_info(answer: HomeAnswer) -> Result<ConversationInfo, Problem> {
    match answer {
        HomeAnswer::Conversation(info) => Ok(*info),
        _ => Err(unexpected()),
    }
}

/// Body of POST /conversations.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewConversation {
    /// `one_on_one`; groups are made by POST /groups.
    #[serde(rename = "type")]
    #[schema(value_type = String, pattern = "^one_on_one$")]
    kind: ConversationKind,
    /// With whom.
    #[serde(flatten)]
    with: WhichUser,
}

/// Opens the one-to-one conversation with a user, or finds it.
#[utoipa::path(post, path = "/conversations", tag = "conversations", request_body = NewConversation,
    params(("Idempotency-Key" = Option<String>, Header, description = "Kept for 24 h")),
    responses((status = 201, body = Conversation, description = "Opened"),
        (status = 200, body = Conversation, description = "Was there")))]
pub(crate) async fn open(
    State(api): State<Api>,
    caller: Caller,
    key: RequestKey,
    body: Json<NewConversation>,
) -> Result<(StatusCode, Answer<Conversation>), Problem> {
    if body.value.kind != ConversationKind::OneOnOne {
        return Err(Problem::field(
            "type",
            "is one_on_one; groups are made by POST /groups",
        ));
    }
    let with = body.value.with.named(&api).await?;
    if with.user == caller.user() {
        return Err(Problem::field("user_id", "is another user"));
    }
    let (_, repeated) = key.reserve(&api, caller.user(), body.digest).await?;
    let id = ConversationId::direct(caller.user(), with.user);
    let command = ConversationCommand::OpenDirect {
        by: caller.named(),
        with,
    };
    let info = expect_info(api.conversation(id, command).await?)?;
    let new = info.created && !repeated;
    Ok((made(new), Answer(Conversation::of(info, caller.user(), true))))
}

/// A conversation.
#[utoipa::path(get, operation_id = "get_conversation", path = "/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = String, Path, format = "uuid")), responses((status = 200, body = Conversation)))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(conversation): Path<String>,
) -> Result<Answer<Conversation>, Problem> {
    let info = info(&api, id(&conversation)?, caller.user()).await?;
    Ok(Answer(Conversation::of(info, caller.user(), true)))
}

/// Query of GET /conversations.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// 1 to 200, else 50.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default)]
    after: Option<String>,
}

/// Answer of GET /conversations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Conversations {
    /// By id.
    conversations: Vec<Conversation>,
    /// `after` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A page of the conversations I am in.
#[utoipa::path(get, operation_id = "list_conversations", path = "/conversations", tag = "conversations", params(Page),
    responses((status = 200, body = Conversations)))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Answer<Conversations>, Problem> {
    let limit = limit(page.limit)?;
    let after = page.after.as_deref().map(id).transpose()?;
    let (ids, more) = mine(&api, caller.user(), after, limit).await?;
    let next = ids.last().filter(|_| more).map(ToString::to_string);
    let by = caller.user();
    let found = each(ids, |id| {
        let api = api.clone();
        async move { info(&api, id, by).await }
    });
    let mut conversations = Vec::new();
    for found in found.await {
        match found {
            Ok(info) => conversations.push(Conversation::of(info, by, false)),
            // Left, or taken out, since the list was read.
            Err(problem) if problem.code() == Code::NotFound => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(Answer(Conversations { conversations, next }))
}

/// A page of the conversations a user is in, by id.
pub(crate) async fn mine(
    api: &Api,
    user: UserId,
    after: Option<ConversationId>,
    limit: u32,
) -> Result<(Vec<ConversationId>, bool), Problem> {
    match api
        .account(user, AccountCommand::Conversations { after, limit })
        .await?
    {
        AccountAnswer::Conversations(page, more) => Ok((page.into_iter().map(|(id, _)| id).collect(), more)),
        _ => Err(unexpected()),
    }
}

/// Does something for each, some at a time; the results in the order of `items`.
pub(crate) async fn each<I, T, F>(items: Vec<I>, mut work: impl FnMut(I) -> F) -> Vec<Result<T, Problem>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let mut done: Vec<Option<Result<T, Problem>>> = Vec::new();
    let mut tasks: JoinSet<(usize, Result<T, Problem>)> = JoinSet::new();
    done.resize_with(items.len(), || None);
    let mut items = items.into_iter().enumerate();
    loop {
        while tasks.len() < AT_A_TIME {
            let Some((at, item)) = items.next() else { break };
            let future = work(item);
            tasks.spawn(async move { (at, future.await) });
        }
        match tasks.join_next().await {
            Some(Ok((at, result))) => done[at] = Some(result),
            // It panicked: its place stays empty.
            Some(Err(_)) => {}
            None => {
                return done
                    .into_iter()
                    .map(|one| one.unwrap_or_else(|| Err(unexpected())))
                    .collect();
            }
        }
    }
}
