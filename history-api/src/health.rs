//! Whether the node lives and serves.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use godwit_store::Health;
use godwit_wire::code::Code;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::state::Api;

/// Says in one line why the node is not to be sent clients; `None`: nothing known here keeps it from serving. Must not block.
pub type NotReady = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How the node is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ok`, or `low_space`: history is read, sends are refused.
    #[schema(pattern = "^(ok|low_space)$")]
    status: &'static str,
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = Ready)))]
pub(crate) async fn healthz() -> Answer<Ready> {
    Answer(Ready { status: "ok" })
}

/// 503 while the store fails or the node goes away; in a cluster also while it is in no view or its lease is over.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses((status = 200, body = Ready)))]
pub(crate) async fn readyz(State(api): State<Api>) -> Result<Answer<Ready>, Problem> {
    if api.is_draining() {
        return Err(Problem::new(Code::Unavailable, "draining: this node goes away"));
    }
    if let Some(why) = api.parts.not_ready.as_ref().and_then(|not_ready| not_ready()) {
        return Err(Problem::new(Code::Unavailable, why));
    }
    match api.parts.store.health() {
        Health::Serving => Ok(Answer(Ready { status: "ok" })),
        Health::LowSpace => Ok(Answer(Ready { status: "low_space" })),
        Health::Failing => Err(Problem::new(
            Code::Unavailable,
            "the store does not take writes at the moment",
        )),
    }
}
