//! Contacts and blocks.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use godwit_accounts::tables::USER_NAMES;
use godwit_wire::account::{AccountAnswer, AccountCommand, ContactChange, ContactState};
use godwit_wire::code::Refusal;
use godwit_wire::command::Named;
use godwit_wire::ids::UserId;
use godwit_wire::json::Timestamp;
use godwit_wire::topic::is_user_name;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::extract::{Caller, Json, Path, Query, RequestKey, id, made};
use crate::problem::Problem;
use crate::state::{Api, unexpected};
use crate::users::find;

/// What another user is to the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContactIs {
    /// One of the two asked.
    Requested,
    /// Both asked.
    Accepted,
    /// Blocked by the one who asks.
    Blocked,
}

/// Who asked for contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RequestedBy {
    /// The one who asks here.
    Me,
    /// The other one.
    Them,
}

/// A contact.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Contact {
    /// The other one.
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    /// The other one.
    username: String,
    /// What they are to each other.
    #[schema(value_type = String, pattern = "^(requested|accepted|blocked)$")]
    state: ContactIs,
    /// With `requested`: who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<RequestedBy>,
    /// Since when.
    #[schema(value_type = String, format = "date-time")]
    since: Timestamp,
}

impl From<godwit_wire::account::Contact> for Contact {
    fn from(contact: godwit_wire::account::Contact) -> Self {
        let (state, requested_by) = match contact.state {
            ContactState::RequestedByMe => (ContactIs::Requested, Some(RequestedBy::Me)),
            ContactState::RequestedByThem => (ContactIs::Requested, Some(RequestedBy::Them)),
            ContactState::Accepted => (ContactIs::Accepted, None),
            ContactState::Blocked => (ContactIs::Blocked, None),
        };
        Self {
            user_id: contact.other.user,
            username: contact.other.name.as_ref().into(),
            state,
            requested_by,
            since: Timestamp(contact.since),
        }
    }
}

/// Which user: one of the two fields.
#[derive(Deserialize, ToSchema)]
pub(crate) struct WhichUser {
    /// By id.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    user_id: Option<UserId>,
    /// By user name.
    #[serde(default)]
    username: Option<String>,
}

impl WhichUser {
    /// The user meant, who exists.
    pub(crate) async fn named(&self, api: &Api) -> Result<Named, Problem> {
        let user = match (self.user_id, &self.username) {
            (Some(user), None) => Some(user),
            (None, Some(name)) if is_user_name(name) => find(api, USER_NAMES, name).await?,
            (None, Some(_)) => None,
            _ => return Err(Problem::field("user_id", "either user_id or username is given")),
        };
        match user {
            Some(user) => api.named(user).await,
            // In the words of "not yours": who is blocked is not told.
            None => Err(Refusal::not_found().into()),
        }
    }
}

async fn change(
    api: &Api,
    user: UserId,
    other: Named,
    change: ContactChange,
) -> Result<(Option<Contact>, bool), Problem> {
    match api
        .account(user, AccountCommand::SetContact { other, change })
        .await?
    {
        AccountAnswer::Contact(contact, new) => Ok((contact.map(Into::into), new)),
        _ => Err(unexpected()),
    }
}

/// Asks for contact, or accepts the other's asking.
#[utoipa::path(post, path = "/contacts", tag = "contacts", request_body = WhichUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "Kept for 24 h")),
    responses((status = 201, body = Contact, description = "Asked or accepted"),
        (status = 200, body = Contact, description = "Was so before")))]
pub(crate) async fn ask(
    State(api): State<Api>,
    caller: Caller,
    key: RequestKey,
    body: Json<WhichUser>,
) -> Result<(StatusCode, Answer<Contact>), Problem> {
    let other = body.value.named(&api).await?;
    let (_, repeated) = key.reserve(&api, caller.user(), body.digest).await?;
    let (contact, new) = change(&api, caller.user(), other, ContactChange::Ask).await?;
    let contact = contact.ok_or_else(unexpected)?;
    Ok((made(new && !repeated), Answer(contact)))
}

/// Body of PUT /contacts/{user_id}.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PutContact {
    /// `blocked` blocks; `accepted` accepts the other's asking, and ends a block.
    #[schema(value_type = String, pattern = "^(accepted|blocked)$")]
    state: ContactIs,
}

/// Blocks, or accepts.
#[utoipa::path(put, path = "/contacts/{user_id}", tag = "contacts", request_body = PutContact,
    params(("user_id" = String, Path, format = "uuid")), responses((status = 200, body = Contact)))]
pub(crate) async fn put(
    State(api): State<Api>,
    caller: Caller,
    Path(other): Path<String>,
    body: Json<PutContact>,
) -> Result<Answer<Contact>, Problem> {
    let wanted = match body.value.state {
        ContactIs::Blocked => ContactChange::Block,
        ContactIs::Accepted => ContactChange::Accept,
        ContactIs::Requested => return Err(Problem::field("state", "is accepted or blocked")),
    };
    let other = api.named(id(&other)?).await?;
    let (contact, _) = change(&api, caller.user(), other, wanted).await?;
    contact.map(Answer).ok_or_else(unexpected)
}

/// Takes a contact, a request or a block away; there need not be one.
#[utoipa::path(delete, path = "/contacts/{user_id}", tag = "contacts",
    params(("user_id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(other): Path<String>,
) -> Result<StatusCode, Problem> {
    let other = Named {
        user: id(&other)?,
        name: "".into(),
    };
    change(&api, caller.user(), other, ContactChange::Remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of GET /contacts.
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

/// Answer of GET /contacts.
#[derive(Serialize, ToSchema)]
pub(crate) struct Contacts {
    /// By user id.
    contacts: Vec<Contact>,
    /// `after` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A page of contacts.
#[utoipa::path(get, operation_id = "list_contacts", path = "/contacts", tag = "contacts", params(Page),
    responses((status = 200, body = Contacts)))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Answer<Contacts>, Problem> {
    let limit = crate::conversations::limit(page.limit)?;
    let after = page.after.as_deref().map(id).transpose()?;
    match api
        .account(caller.user(), AccountCommand::Contacts { after, limit })
        .await?
    {
        AccountAnswer::Contacts(contacts, more) => {
            let next = contacts
                .last()
                .filter(|_| more)
                .map(|contact| contact.other.user.to_string());
            Ok(Answer(Contacts {
                contacts: contacts.into_iter().map(Into::into).collect(),
                next,
            }))
        }
        _ => Err(unexpected()),
    }
}
