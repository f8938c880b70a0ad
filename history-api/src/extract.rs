//! What handlers take out of a request: who is asking, ids in paths, JSON bodies, query strings, the Idempotency-Key. Each
//! refuses with a problem of ours.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use godwit_accounts::tables::DEVICE_TOKENS;
use godwit_accounts::tokens::device_token_hash;
use godwit_store::{Read, ReadAnswer};
use godwit_wire::account::{AccountAnswer, AccountCommand, IdempotencyKey, Principal, Secret};
use godwit_wire::code::{Code, Refusal};
use godwit_wire::command::Named;
use godwit_wire::ids::UserId;
use godwit_wire::json;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest Idempotency-Key, bytes; on POST message it is a client message id and keeps to that one's limit.
const KEY_BYTES: usize = 255;

/// Who asks, by login session or device token with the scope `rest`.
pub(crate) struct Caller(pub(crate) Principal);

impl Caller {
    pub(crate) fn user(&self) -> UserId {
        self.0.user
    }

    pub(crate) fn named(&self) -> Named {
        Named {
            user: self.0.user,
            name: self.0.name.clone(),
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Credential(principal, _) = Credential::from_request_parts(parts, api).await?;
        if !principal.scopes.rest {
            return Err(Problem::new(
                Code::Forbidden,
                "this device token has not the scope rest",
            ));
        }
        Ok(Self(principal))
    }
}

/// Who asks, by login session: credentials are managed by who knows the password, not by a device.
pub(crate) struct LoggedIn {
    pub(crate) principal: Principal,
    pub(crate) session: Uuid,
}

impl FromRequestParts<Api> for LoggedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Credential::from_request_parts(parts, api).await? {
            Credential(principal, Some(session)) => Ok(Self { principal, session }),
            _ => Err(Problem::new(
                Code::Forbidden,
                "a device token may not manage credentials: log in",
            )),
        }
    }
}

/// Who asks, and by which login session if not by a device token.
struct Credential(Principal, Option<Uuid>);

impl FromRequestParts<Api> for Credential {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or_else(unauthenticated)?;
        let (user, session, command) = match api.parts.tokens.check(token, api.now()) {
            Some(token) => {
                let (session, expires_at) = (token.session, token.expires_at);
                (
                    token.user,
                    Some(session),
                    AccountCommand::CheckSession { session, expires_at },
                )
            }
            None => {
                let secret = Secret(token.into());
                (
                    user_of_device_token(api, token).await?,
                    None,
                    AccountCommand::Authenticate { secret },
                )
            }
        };
        let AccountAnswer::Principal(principal) = api.account(user, command).await? else {
            return Err(unexpected());
        };
        api.per_user
            .take(user, api.passed())
            .map_err(|seconds| Problem::too_often(seconds).of_limit("user_requests"))?;
        Ok(Self(principal, session))
    }
}

async fn user_of_device_token(api: &Api, token: &str) -> Result<UserId, Problem> {
    let hash = device_token_hash(token).ok_or_else(unauthenticated)?;
    let partition = Bytes::copy_from_slice(&hash);
    match api
        .read(Read::Row {
            table: DEVICE_TOKENS,
            partition,
            name: Bytes::new(),
        })
        .await?
    {
        ReadAnswer::Row(Some(user)) => UserId::from_slice(&user).ok_or_else(unexpected),
        _ => Err(unauthenticated()),
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "the credential is missing or not valid")
}

/// The address at the other end; unspecified where there is none (tests).
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    pub(crate) fn of(extensions: &axum::http::Extensions) -> IpAddr {
        let address = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|ConnectInfo(address)| address.ip());
        address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Self::of(&parts.extensions)))
    }
}

/// A JSON body with the SHA-256 of what it says. Its content type is not looked at: nobody sends anything else here.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    /// First 16 bytes.
    pub(crate) digest: [u8; 16],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
            .await
            .map_err(|_| {
                Problem::new(Code::Malformed, "the body did not arrive in time").of_limit("body_time")
            })?
            .map_err(too_large_or_cut)?;
        Ok(Self::read(&body)?)
    }
}

impl<T: DeserializeOwned> Json<T> {
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let value = json::parse(body)?;
        // White space and the order of fields do not make another request.
        let said: serde_json::Value = json::parse(body)?;
        let canonical = said.to_string();
        Ok(Self {
            value,
            digest: first_16(&Sha256::digest(canonical.as_bytes())),
        })
    }
}

fn too_large_or_cut(rejection: BytesRejection) -> Problem {
    if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Code::TooLarge, "the body is too large")
    } else {
        Problem::new(Code::Malformed, "the body ended too early")
    }
}

fn first_16(hash: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

/// Parameters of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::new(
                Code::Malformed,
                "the path holds something that is no id",
            )),
        }
    }
}

/// An id in a path, in its one form.
pub(crate) fn id<T: FromStr>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| Problem::new(Code::Malformed, "an id is a UUID in lower case with hyphens"))
}

/// A UUID in a path that has no type of its own.
pub(crate) fn uuid(text: &str) -> Result<Uuid, Problem> {
    id::<UserId>(text).map(|id| id.0)
}

/// The query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::new(
                Code::Malformed,
                "a parameter in the query is missing or has a wrong value",
            )),
        }
    }
}

/// The header `Idempotency-Key`, if there is one.
pub(crate) struct RequestKey {
    pub(crate) text: Option<String>,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for RequestKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let path = parts.uri.path().to_owned();
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self { text: None, path });
        };
        let text = std::str::from_utf8(value.as_bytes())
            .ok()
            .filter(|text| (1..=KEY_BYTES).contains(&text.len()));
        let wrong = || Problem::field("Idempotency-Key", "has 1 to 255 bytes of UTF-8");
        Ok(Self {
            text: Some(text.ok_or_else(wrong)?.to_owned()),
            path,
        })
    }
}

impl RequestKey {
    /// With what was asked, as hashes.
    pub(crate) fn with(&self, digest: [u8; 16]) -> Option<IdempotencyKey> {
        let text = self.text.as_ref()?;
        let mut hash = Sha256::new();
        hash.update(self.path.as_bytes());
        hash.update([0]);
        hash.update(text.as_bytes());
        Some(IdempotencyKey {
            key: first_16(&hash.finalize()),
            digest,
        })
    }

    /// The id under which the request is done (a fresh one without key), and whether it came before.
    pub(crate) async fn reserve(
        &self,
        api: &Api,
        user: UserId,
        digest: [u8; 16],
    ) -> Result<(Uuid, bool), Problem> {
        let id = Uuid::now_v7();
        let Some(key) = self.with(digest) else {
            return Ok((id, false));
        };
        match api.account(user, AccountCommand::Reserve { key, id }).await? {
            AccountAnswer::Reserved(id, repeated) => Ok((id, repeated)),
            _ => Err(unexpected()),
        }
    }
}

/// 201 the first time, 200 for a repeat.
pub(crate) fn made(new: bool) -> StatusCode {
    if new { StatusCode::CREATED } else { StatusCode::OK }
}
