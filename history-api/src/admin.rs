//! The admin listener: metrics, health, users. It asks for no credential: who reaches it is the operator.

use std::sync::Arc;

use axum::Json as Answer;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use serde::Deserialize;

use crate::extract::{Json, made};
use crate::problem::Problem;
use crate::state::{Api, unexpected};
use crate::users::{Me, NewUser, add_user};
use crate::{health, outermost};

/// Body of POST /users on the admin listener.
#[derive(Deserialize)]
struct NewAdmin {
    #[serde(flatten)]
    user: NewUser,
    #[serde(default)]
    admin: bool,
}

/// What the admin listener serves: `/metrics` (Prometheus text), `/healthz`, `/readyz`, `POST /users`.
pub fn admin_router(api: Api, registry: Arc<Registry>) -> Router {
    let of_registry = get(metrics).with_state(registry);
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/users", post(create_user))
        .with_state(api.clone())
        .route("/metrics", of_registry)
        .layer(axum::middleware::from_fn_with_state(api, outermost::run))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Result<Response, Problem> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|_| unexpected())?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn create_user(
    State(api): State<Api>,
    body: Json<NewAdmin>,
) -> Result<(StatusCode, Answer<Me>), Problem> {
    let NewAdmin { user, admin } = body.value;
    let (profile, _) = add_user(&api, user, None, admin).await?;
    Ok((made(true), Answer(profile.into())))
}
