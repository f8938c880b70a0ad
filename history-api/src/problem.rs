//! Errors as `application/problem+json`: every error that leaves, ours or the framework's, gets this one form. Which
//! code has which status is known to `wire::code` alone.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use godwit_wire::code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Told with `unavailable` and `rate_limited`, seconds.
const RETRY_SOON: u64 = 1;
/// Told with `quota`, seconds: it ends when somebody removes something.
const RETRY_LATER: u64 = 60;

/// The body of every error (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// `urn:godwit:error:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:godwit:error:not_found")]
    pub kind: String,
    /// The code's sentence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here.
    pub detail: String,
    /// One of the closed list of docs/protocol.md.
    #[schema(example = "not_found")]
    pub code: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Names this request in the server's log.
    #[schema(value_type = String, format = "uuid")]
    pub request_id: Uuid,
    /// Which fields are wrong, if it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What it must be.
    pub detail: String,
}

/// An error on its way out.
#[derive(Clone, Debug)]
pub struct Problem {
    refusal: Refusal,
    /// Of the framework, where it says more than the code's (405).
    status: Option<StatusCode>,
    retry_after: Option<u64>,
    errors: Vec<FieldError>,
    /// Which limit was met, to be counted.
    limit: Option<&'static str>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let retry_after = match refusal.code {
            Code::RateLimited | Code::Unavailable => Some(RETRY_SOON),
            Code::Quota => Some(RETRY_LATER),
            _ => None,
        };
        let refusal_code = refusal.code;
        Self {
            refusal,
            status: None,
            retry_after,
            errors: Vec::new(),
            limit: (refusal_code == Code::TooLarge).then_some("size"),
        }
    }
}

impl Problem {
    /// A code with its sentence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new(code, detail).into()
    }

    /// A field of the request is wrong.
    pub fn field(field: &'static str, detail: &'static str) -> Self {
        let errors = vec![FieldError {
            field: field.into(),
            detail: detail.into(),
        }];
        Self {
            errors,
            ..Refusal::new(Code::Malformed, format!("{field}: {detail}")).into()
        }
    }

    /// The same, counted as met of this limit.
    #[must_use]
    pub fn of_limit(self, limit: &'static str) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Which limit an answer says was met.
    pub(crate) fn limit_of(answer: &Response) -> Option<&'static str> {
        answer.extensions().get::<Self>()?.limit
    }

    /// Too often; may be tried again in `seconds`.
    pub fn too_often(seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds.max(1)),
            ..Self::new(Code::RateLimited, "too many requests")
        }
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.refusal.code
    }

    fn status(&self) -> StatusCode {
        let of_code = || StatusCode::from_u16(self.refusal.code.http()).ok();
        self.status
            .or_else(of_code)
            .unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// What a status that the framework chose means in our list.
    fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => (Code::NotFound, "there is no such thing here"),
            StatusCode::METHOD_NOT_ALLOWED => (Code::Malformed, "this path does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "the body is too large"),
            StatusCode::UNAUTHORIZED => (Code::Unauthenticated, "a credential is needed"),
            StatusCode::FORBIDDEN => (Code::Forbidden, "this is not allowed"),
            StatusCode::TOO_MANY_REQUESTS => (Code::RateLimited, "too many requests"),
            status if status.is_client_error() => {
                (Code::Malformed, "the request has not the form it must have")
            }
            _ => (Code::Unavailable, "this did not work; it may later"),
        };
        let problem = Self::new(code, detail);
        let kept = (status == StatusCode::METHOD_NOT_ALLOWED).then_some(status);
        Self {
            status: kept,
            ..problem
        }
    }
}

impl IntoResponse for Problem {
    /// Without a body: that is given by `finish`, which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error its body and every response its request id.
pub(crate) fn finish(mut response: Response, request_id: Uuid) -> Response {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        let problem = response.extensions_mut().remove::<Problem>();
        let problem = problem.unwrap_or_else(|| Problem::of_status(status));
        response = rendered(problem, request_id, response);
    }
    if let Ok(id) = HeaderValue::try_from(request_id.to_string()) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn rendered(problem: Problem, request_id: Uuid, response: Response) -> Response {
    let status = problem.status();
    let code = problem.refusal.code;
    let body = ProblemBody {
        kind: format!("urn:godwit:error:{}", code.name()),
        title: title(code).into(),
        status: status.as_u16(),
        detail: problem.refusal.detail.into_owned(),
        code: code.name().into(),
        retryable: code.retryable(),
        request_id,
        errors: problem.errors,
    };
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(seconds) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == Code::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // A struct of strings and numbers is always JSON.
    Response::from_parts(parts, Body::from(serde_json::to_vec(&body).unwrap_or_default()))
}

fn title(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "No valid credential",
        Code::NotFound => "Not there, or not yours",
        Code::Forbidden => "Not allowed",
        Code::Malformed => "Not in the form of the contract",
        Code::TopicForm => "Not a topic name",
        Code::Conflict => "Contradicts what is there",
        Code::TooLarge => "Too large",
        Code::RateLimited => "Too often",
        Code::Quota => "Too many",
        Code::Unavailable => "Not available at the moment",
    }
}
