//! Messages: sending, history, status. The JSON of a message is `wire::json`'s, the same as in the inbox; [`schema`] says it
//! for the OpenAPI document.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use godwit_ingest::{MESSAGE_IDS, message_place};
use godwit_store::{Read, ReadAnswer};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::{
    Answer as HomeAnswer, ConversationCommand, HistoryAt, Position, Send, SendIdentity, Sent,
};
use godwit_wire::content::SendParts;
use godwit_wire::ids::{ConversationId, MessageId, UserId};
use godwit_wire::json::{ContentType, Event, Message, SendBody, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::conversations::limit;
use crate::extract::{Caller, Json, Path, Query, RequestKey, id, made};
use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// The forms of `wire::json` for the OpenAPI document. A test compares them with what is really written.
#[allow(dead_code, reason = "says forms; nothing is made of it")]
pub(crate) mod schema {
    use serde::Serialize;
    use utoipa::ToSchema;

    /// A message.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct Message {
        /// Which conversation.
        #[schema(format = "uuid")]
        pub(crate) conversation_id: String,
        /// Position in it: 1, 2, 3 … without gap.
        #[schema(minimum = 1)]
        pub(crate) sequence_number: u64,
        /// Its id.
        #[schema(format = "uuid")]
        pub(crate) message_id: String,
        /// The sender's own id for it, if it gave one.
        pub(crate) client_message_id: Option<String>,
        /// Who sent it.
        #[schema(format = "uuid")]
        pub(crate) sender_id: String,
        /// The sender's user name.
        pub(crate) sender_name: Option<String>,
        /// Kind of content.
        #[schema(pattern = "^(text|image|video|file|encrypted)$")]
        pub(crate) content_type: String,
        /// Content.
        pub(crate) content: Content,
        /// The message it answers.
        #[schema(format = "uuid")]
        pub(crate) reply_to: Option<String>,
        /// When it was stored.
        #[schema(format = "date-time")]
        pub(crate) created_at: String,
    }

    /// Content: a string (text; base64 for encrypted) or, for media, an object.
    #[derive(Serialize, ToSchema)]
    #[serde(untagged)]
    pub(crate) enum Content {
        /// Text, or base64 of what is encrypted.
        Text(String),
        /// Where an image, a video or a file is.
        Media(Media),
    }

    /// Where an image, a video or a file is.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct Media {
        /// Its id.
        #[schema(format = "uuid")]
        pub(crate) media_id: String,
        /// Its MIME type.
        pub(crate) mime_type: String,
        /// Its size, bytes.
        pub(crate) size: u64,
        /// What is written under it.
        pub(crate) caption: Option<String>,
    }

    /// A numbered change of who is in a conversation.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct Member {
        /// Which conversation.
        #[schema(format = "uuid")]
        pub(crate) conversation_id: String,
        /// Position in it.
        #[schema(minimum = 1)]
        pub(crate) sequence_number: u64,
        /// Who came, went or has a role.
        #[schema(format = "uuid")]
        pub(crate) user_id: String,
        /// Who did it.
        #[schema(format = "uuid")]
        pub(crate) by: String,
        /// What.
        #[schema(pattern = "^(added|removed|left|role)$")]
        pub(crate) op: String,
        /// The role it has now; absent for who is gone.
        #[schema(pattern = "^(member|admin)$")]
        pub(crate) role: Option<String>,
        /// When.
        #[schema(format = "date-time")]
        pub(crate) created_at: String,
    }

    /// What took a number.
    #[derive(Serialize, ToSchema)]
    #[serde(tag = "type", rename_all = "snake_case")]
    pub(crate) enum Entry {
        /// A message.
        Message(Message),
        /// A change of who is in.
        Member(Member),
    }

    /// Body of POST message, and payload of `c/{conv}/send/json`.
    #[derive(Serialize, ToSchema)]
    pub(crate) struct SendBody {
        /// 1 to 64 bytes; names the message for retries. The header Idempotency-Key is the same.
        #[schema(max_length = 64)]
        pub(crate) client_message_id: Option<String>,
        /// Kind of content; absent: `text`.
        #[schema(pattern = "^(text|image|video|file|encrypted)$")]
        pub(crate) content_type: Option<String>,
        /// Content.
        pub(crate) content: Content,
        /// The message it answers.
        #[schema(format = "uuid")]
        pub(crate) reply_to: Option<String>,
    }
}

/// Sends a message. 201 means: stored, with its place, and in every member's mailbox.
#[utoipa::path(post, path = "/conversations/{conversation_id}/messages", tag = "messages",
    request_body = schema::SendBody,
    params(("conversation_id" = String, Path, format = "uuid"),
        ("Idempotency-Key" = Option<String>, Header, description = "Is the client_message_id, kept as long as the message")),
    responses((status = 201, body = schema::Message, description = "Stored"),
        (status = 200, body = schema::Message, description = "Was stored before, by an earlier try")))]
pub(crate) async fn send(
    State(api): State<Api>,
    caller: Caller,
    key: RequestKey,
    Path(conversation): Path<String>,
    body: Json<SendBody<'static>>,
) -> Result<(StatusCode, Answer<Message<'static>>), Problem> {
    let conversation: ConversationId = id(&conversation)?;
    let parts = SendParts::of_body(&body.value)?.identified_by(key.text.as_deref())?;
    let client_message_id = parts.client_message_id.clone();
    let (identity, fresh) = match &client_message_id {
        Some(id) => (SendIdentity::Client(id.clone()), false),
        // Nobody can repeat it.
        None => (SendIdentity::Implicit(Uuid::now_v7().into_bytes()), true),
    };
    let send = Send {
        sender: caller.named(),
        identity,
        fresh,
        content: parts.content,
        content_type: parts.content_type,
        reply_to: parts.reply_to,
        direct_with: None,
    };
    let sent = match api
        .conversation(conversation, ConversationCommand::Send(Box::new(send)))
        .await?
    {
        HomeAnswer::Sent(sent) => sent,
        _ => return Err(unexpected()),
    };
    let content_type = ContentType::from_proto(parts.content_type as i32).ok_or_else(unexpected)?;
    let Sent {
        message_id,
        sequence_number,
        created_at,
        duplicate,
    } = sent;
    let message = Message {
        conversation_id: conversation,
        sequence_number,
        message_id,
        client_message_id: client_message_id.map(|id| String::from(id).into()),
        sender_id: caller.user(),
        sender_name: Some(caller.0.name.as_ref().to_owned().into()),
        content_type,
        content: body.value.content,
        reply_to: parts.reply_to,
        created_at: Timestamp(created_at),
    };
    Ok((made(!duplicate), Answer(message)))
}

/// Query of GET messages: at most one of before, after, around.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// 1 to 200, else 50.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The entries right before this message id or sequence number.
    #[serde(default)]
    before: Option<String>,
    /// The entries right after this message id or sequence number.
    #[serde(default)]
    after: Option<String>,
    /// This message id or sequence number with its neighbours.
    #[serde(default)]
    around: Option<String>,
}

impl Page {
    fn at(&self) -> Result<HistoryAt, Problem> {
        match (&self.before, &self.after, &self.around) {
            (None, None, None) => Ok(HistoryAt::Newest),
            (Some(before), None, None) => Ok(HistoryAt::Before(position("before", before)?)),
            (None, Some(after), None) => Ok(HistoryAt::After(position("after", after)?)),
            (None, None, Some(around)) => Ok(HistoryAt::Around(position("around", around)?)),
            _ => Err(Problem::new(
                Code::Malformed,
                "at most one of before, after and around is given",
            )),
        }
    }
}

fn position(field: &'static str, text: &str) -> Result<Position, Problem> {
    if let Ok(sequence) = text.parse() {
        Ok(Position::Sequence(sequence))
    } else if let Ok(message) = text.parse() {
        Ok(Position::Message(message))
    } else {
        Err(Problem::field(field, "is a message id or a sequence number"))
    }
}

/// Answer of GET messages.
#[derive(Debug, ToSchema)]
pub(crate) struct Messages {
    /// Oldest first.
    #[schema(value_type = Vec<schema::Entry>)]
    #[allow(
        dead_code,
        reason = "says the form; the entries are written as they lie in memory"
    )]
    messages: (),
    /// Whether there is more in the direction asked for.
    #[allow(dead_code, reason = "says the form")]
    has_more: bool,
}

#[derive(Serialize)]
struct MessagesOut<'a> {
    messages: Vec<Event<'a>>,
    has_more: bool,
}

/// A page of history: every entry that took a number.
#[utoipa::path(get, path = "/conversations/{conversation_id}/messages", tag = "messages",
    params(("conversation_id" = String, Path, format = "uuid"), Page),
    responses((status = 200, body = Messages)))]
pub(crate) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Path(conversation): Path<String>,
    Query(page): Query<Page>,
) -> Result<axum::response::Response, Problem> {
    use axum::response::IntoResponse as _;
    let (at, limit) = (page.at()?, limit(page.limit)?);
    let command = ConversationCommand::History {
        by: caller.user(),
        at,
        limit,
    };
    let HomeAnswer::History(page) = api.conversation(id(&conversation)?, command).await? else {
        return Err(unexpected());
    };
    let events: Result<Vec<Event<'_>>, _> = page
        .entries
        .iter()
        .map(|entry| Event::try_from(&entry.body))
        .collect();
    let out = MessagesOut {
        messages: events.map_err(|_| unexpected())?,
        has_more: page.has_more,
    };
    Ok(Answer(out).into_response())
}

/// Where a message is, if the user may read it. Not there and not yours are the same.
async fn place(api: &Api, by: UserId, message: &str) -> Result<(MessageId, ConversationId, u64), Problem> {
    let message: MessageId = id(message)?;
    let read = Read::Row {
        table: MESSAGE_IDS,
        partition: message.to_bytes(),
        name: Bytes::new(),
    };
    let place = match api.read(read).await? {
        ReadAnswer::Row(value) => value.and_then(|value| message_place(&value)),
        _ => return Err(unexpected()),
    };
    let (conversation, sequence) = place.ok_or_else(Refusal::not_found)?;
    let visible = visible(api, conversation, by).await?;
    if visible
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&sequence))
    {
        Ok((message, conversation, sequence))
    } else {
        Err(Refusal::not_found().into())
    }
}

/// What a user may read of a conversation.
pub(crate) async fn visible(
    api: &Api,
    conversation: ConversationId,
    by: UserId,
) -> Result<Vec<(u64, u64)>, Problem> {
    match api
        .conversation(conversation, ConversationCommand::Visible { by })
        .await?
    {
        HomeAnswer::Visible(intervals) => Ok(intervals),
        _ => Err(unexpected()),
    }
}

/// How far a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reached {
    /// Stored.
    Sent,
    /// Acknowledged by a device.
    Delivered,
    /// Read.
    Read,
}

/// Body of PUT status.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewStatus {
    /// `delivered` or `read`.
    #[schema(value_type = String, pattern = "^(delivered|read)$")]
    status: Reached,
}

/// Moves my watermark at least to this message.
#[utoipa::path(put, path = "/messages/{message_id}/status", tag = "messages", request_body = NewStatus,
    params(("message_id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn put_status(
    State(api): State<Api>,
    caller: Caller,
    Path(message): Path<String>,
    body: Json<NewStatus>,
) -> Result<StatusCode, Problem> {
    let (_, conversation, up_to) = place(&api, caller.user(), &message).await?;
    let command = match body.value.status {
        Reached::Read => ConversationCommand::Read {
            by: caller.user(),
            up_to,
        },
        Reached::Delivered => {
            api.tell(
                conversation,
                ConversationCommand::Delivered {
                    user: caller.user(),
                    up_to,
                },
            )?;
            return Ok(StatusCode::NO_CONTENT);
        }
        Reached::Sent => return Err(Problem::field("status", "is delivered or read")),
    };
    api.conversation(conversation, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How far a message got with one member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberStatus {
    /// Which member.
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    /// How far.
    #[schema(value_type = String, pattern = "^(sent|delivered|read)$")]
    status: Reached,
}

/// Answer of GET status.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Which message.
    #[schema(value_type = String, format = "uuid")]
    message_id: MessageId,
    /// Where it is.
    #[schema(value_type = String, format = "uuid")]
    conversation_id: ConversationId,
    /// Where it is.
    sequence_number: u64,
    /// Each member's.
    members: Vec<MemberStatus>,
}

/// How far a message got.
#[utoipa::path(get, path = "/messages/{message_id}/status", tag = "messages",
    params(("message_id" = String, Path, format = "uuid")), responses((status = 200, body = Status)))]
pub(crate) async fn status(
    State(api): State<Api>,
    caller: Caller,
    Path(message): Path<String>,
) -> Result<Answer<Status>, Problem> {
    let (message_id, conversation_id, sequence_number) = place(&api, caller.user(), &message).await?;
    let command = ConversationCommand::Status { by: caller.user() };
    let HomeAnswer::Status(marks) = api.conversation(conversation_id, command).await? else {
        return Err(unexpected());
    };
    let reached = |delivered: u64, read: u64| match sequence_number {
        position if position <= read => Reached::Read,
        position if position <= delivered => Reached::Delivered,
        _ => Reached::Sent,
    };
    let members = marks.iter().map(|mark| MemberStatus {
        user_id: mark.user,
        status: reached(mark.delivered_up_to, mark.read_up_to),
    });
    Ok(Answer(Status {
        message_id,
        conversation_id,
        sequence_number,
        members: members.collect(),
    }))
}
