//! Device tokens: what a device shows as MQTT password and as bearer token. Made, listed and ended by a login session.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use godwit_accounts::config::NAME_BYTES;
use godwit_accounts::tokens::{device_token_hash, new_device_token};
use godwit_wire::account::{AccountAnswer, AccountCommand, NewDeviceToken, Scopes};
use godwit_wire::code::Code;
use godwit_wire::json::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::{Json, LoggedIn, Path, RequestKey, made, uuid};
use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// What a device token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// `me/…`, `c/…`, `p/…` over MQTT.
    Chat,
    /// Ordinary topics.
    Topics,
    /// This API.
    Rest,
}

/// Body of POST /auth/device-tokens.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewToken {
    /// Name for people, at most 128 bytes.
    name: String,
    /// Absent: all.
    #[serde(default)]
    scopes: Option<Vec<Scope>>,
    /// Seconds until it ends; absent: never.
    #[serde(default)]
    #[schema(minimum = 1)]
    expires_in: Option<u64>,
}

/// A device token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceToken {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The token itself, shown once: in the first answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "gdt_0123456789abcdefghijABCDEFGHIJ01")]
    token: Option<String>,
    /// Name for people.
    name: String,
    /// What it may be used for.
    scopes: Vec<Scope>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    /// When it ends; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    expires_at: Option<Timestamp>,
}

impl From<godwit_wire::account::DeviceToken> for DeviceToken {
    fn from(token: godwit_wire::account::DeviceToken) -> Self {
        let Scopes { chat, topics, rest } = token.scopes;
        let all = [(Scope::Chat, chat), (Scope::Topics, topics), (Scope::Rest, rest)];
        Self {
            id: token.id,
            token: None,
            name: token.name,
            scopes: all
                .into_iter()
                .filter_map(|(scope, has)| has.then_some(scope))
                .collect(),
            created_at: Timestamp(token.created_at),
            expires_at: (token.expires_at != 0).then_some(Timestamp(token.expires_at)),
        }
    }
}

/// Makes a device token. A repeat with the same Idempotency-Key finds it, but does not show the token again.
#[utoipa::path(post, operation_id = "create_device_token", path = "/auth/device-tokens", tag = "auth", request_body = NewToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry find the first one's token")),
    responses((status = 201, body = DeviceToken, description = "Made"),
        (status = 200, body = DeviceToken, description = "A repeat")))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: LoggedIn,
    key: RequestKey,
    body: Json<NewToken>,
) -> Result<(StatusCode, Answer<DeviceToken>), Problem> {
    let NewToken {
        name,
        scopes,
        expires_in,
    } = body.value;
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(Problem::field("name", "has 1 to 128 bytes"));
    }
    let has = |scope| scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope));
    let scopes = Scopes {
        chat: has(Scope::Chat),
        topics: has(Scope::Topics),
        rest: has(Scope::Rest),
    };
    if scopes == Scopes::default() {
        return Err(Problem::field(
            "scopes",
            "names at least one of chat, topics, rest",
        ));
    }
    let expires_at = match expires_in {
        Some(0) => return Err(Problem::field("expires_in", "is at least 1 second")),
        Some(seconds) => api
            .now()
            .saturating_add(seconds.saturating_mul(1_000))
            .min(LAST_DAY),
        None => 0,
    };
    let secret = new_device_token();
    let token_hash = device_token_hash(&secret.0).ok_or_else(unexpected)?;
    let key = key.with(body.digest);
    let (id, user) = (Uuid::now_v7(), caller.principal.user);
    let (tokens, copy) = (api.parts.tokens.clone(), secret.clone());
    // Milliseconds of hashing.
    let scram = tokio::task::spawn_blocking(move || tokens.scram_keys(user, id, &copy));
    let scram = scram.await.map_err(|_| unexpected())?;
    let new = NewDeviceToken {
        id,
        token_hash,
        scram,
        name,
        scopes,
        expires_at,
        key,
    };
    let command = AccountCommand::CreateDeviceToken(Box::new(new));
    match api.account(caller.principal.user, command).await? {
        AccountAnswer::DeviceToken(token, repeated) => {
            let token = DeviceToken {
                token: (!repeated).then(|| secret.0.into()),
                ..token.into()
            };
            Ok((made(!repeated), Answer(token)))
        }
        _ => Err(unexpected()),
    }
}

/// 9999-12-31: what RFC 3339 can say.
const LAST_DAY: u64 = 253_402_214_400_000;

/// Answer of GET /auth/device-tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceTokens {
    /// Oldest first.
    device_tokens: Vec<DeviceToken>,
}

async fn all(api: &Api, caller: &LoggedIn) -> Result<Vec<DeviceToken>, Problem> {
    match api
        .account(caller.principal.user, AccountCommand::DeviceTokens)
        .await?
    {
        AccountAnswer::DeviceTokens(tokens) => Ok(tokens.into_iter().map(Into::into).collect()),
        _ => Err(unexpected()),
    }
}

/// The device tokens.
#[utoipa::path(get, operation_id = "list_device_tokens", path = "/auth/device-tokens", tag = "auth",
    responses((status = 200, body = DeviceTokens)))]
pub(crate) async fn list(State(api): State<Api>, caller: LoggedIn) -> Result<Answer<DeviceTokens>, Problem> {
    Ok(Answer(DeviceTokens {
        device_tokens: all(&api, &caller).await?,
    }))
}

/// One device token.
#[utoipa::path(get, operation_id = "get_device_token", path = "/auth/device-tokens/{id}", tag = "auth",
    params(("id" = String, Path, format = "uuid")), responses((status = 200, body = DeviceToken)))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: LoggedIn,
    Path(id): Path<String>,
) -> Result<Answer<DeviceToken>, Problem> {
    let wanted = uuid(&id)?;
    let found = all(&api, &caller)
        .await?
        .into_iter()
        .find(|token| token.id == wanted);
    found
        .map(Answer)
        .ok_or_else(|| Problem::new(Code::NotFound, "there is no such device token"))
}

/// Ends a device token; its connections are closed.
#[utoipa::path(delete, operation_id = "end_device_token", path = "/auth/device-tokens/{id}", tag = "auth",
    params(("id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn end(
    State(api): State<Api>,
    caller: LoggedIn,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let command = AccountCommand::EndDeviceToken { id: uuid(&id)? };
    api.account_done(caller.principal.user, command).await?;
    Ok(StatusCode::NO_CONTENT)
}
