//! What every request passes first and last: its id, the bound on requests under way, the allowance of its address, the form
//! of its errors.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use godwit_wire::code::{Code, Refusal};
use uuid::Uuid;

use crate::extract::Peer;
use crate::metrics::RequestLabels;
use crate::problem::{Problem, finish};
use crate::state::Api;
use crate::unread::Drained;

/// Methods and paths beyond this are nobody's.
const PATH_BYTES: usize = 8 * 1024;

pub(crate) async fn run(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    let metrics = api.parts.metrics.clone();
    metrics.in_flight.inc();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let request = request.map(|body| Drained::watch(body, &api.drains));
    let response = match admitted(&api, &request) {
        Ok(_permit) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let response = finish(response, id);
    metrics.in_flight.dec();
    let status = response.status().as_u16();
    metrics.requests.get_or_create(&RequestLabels { status }).inc();
    // The query is left out: it may hold a token.
    tracing::debug!(%id, %method, path, status, "request");
    response
}

fn admitted(api: &Api, request: &Request) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    let permit = api.requests.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::from(Refusal::unavailable()))?;
    let path = request.uri().path();
    if path.len() > PATH_BYTES {
        return Err(Problem::new(Code::Malformed, "the path is too long"));
    }
    let free = matches!(path, "/healthz" | "/readyz" | "/metrics") && *request.method() == Method::GET;
    if !free {
        let address = Peer::of(request.extensions()).into();
        api.per_address
            .take(address, api.now())
            .map_err(Problem::too_often)?;
    }
    Ok(permit)
}
