//! The admin listener: metrics and health for whoever reaches it; users and backups for who knows the admin token, which
//! only who reads the data folder does.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use godwit_history_api::{Api, admin_router};
use godwit_store::Store;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Membership;
use crate::data::DataFolder;

/// What the admin listener works with.
pub(crate) struct Admin {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: DataFolder,
    pub(crate) token: String,
    /// The way to the homes.
    pub(crate) router: godwit_cluster::Router,
    /// In a cluster.
    pub(crate) membership: Option<Membership>,
    /// One backup at a time: each holds back the store's loading and merging.
    pub(crate) backups: Mutex<()>,
}

/// Body of `POST /backup`, and of its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// An absolute path on the server, empty or absent.
    pub(crate) dir: PathBuf,
}

/// What is answered to what did not work: the part of a problem document (RFC 9457) that tells what happened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    #[serde(default)]
    title: String,
    #[serde(default)]
    status: u16,
    pub(crate) detail: String,
}

pub(crate) fn failure(status: StatusCode, detail: impl Into<String>) -> Response {
    let problem = [(header::CONTENT_TYPE, "application/problem+json")];
    (
        status,
        problem,
        Json(Failure {
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: detail.into(),
        }),
    )
        .into_response()
}

/// The API's routes for operators, and backups; all that changes anything behind the token.
pub(crate) fn routes(admin: Admin, api: Api, registry: Registry) -> Router {
    let cluster = crate::cluster::admin::routes(admin.membership.clone());
    let sessions = crate::sessions::routes(&admin);
    let admin = Arc::new(admin);
    Router::new()
        .route("/backup", post(backup))
        .with_state(admin.clone())
        .merge(admin_router(api, Arc::new(registry)))
        .merge(cluster)
        .merge(sessions)
        .layer(middleware::from_fn_with_state(admin, with_token))
}

/// Lets through who only reads what is nobody's in particular, or knows the admin token.
async fn with_token(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.uri().path().starts_with(crate::sessions::PATH);
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer "));
    if reads || token.is_some_and(|token| same(token, &admin.token)) {
        return next.run(request).await;
    }
    failure(
        StatusCode::UNAUTHORIZED,
        "the token in the file admin.token of the data folder is needed",
    )
}

/// Compares without telling by its time how much was right.
fn same(one: &str, other: &str) -> bool {
    let differing = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |bits, (a, b)| bits | (a ^ b));
    one.len() == other.len() && differing == 0
}

async fn backup(State(admin): State<Arc<Admin>>, Json(asked): Json<Backup>) -> Response {
    if !asked.dir.is_absolute() {
        return failure(StatusCode::BAD_REQUEST, "dir is an absolute path on the server");
    }
    if admin.membership.is_some() {
        // Says how it is done: there is nothing to be copied here.
        let refused = admin.store.backup(&asked.dir).err();
        return failure(
            StatusCode::CONFLICT,
            refused.map(|e| e.to_string()).unwrap_or_default(),
        );
    }
    let Ok(_alone) = admin.backups.try_lock() else {
        return failure(StatusCode::CONFLICT, "another backup is under way");
    };
    let (working, dir) = (admin.clone(), asked.dir.clone());
    let work = tokio::task::spawn_blocking(move || working.folder.backup(working.store.as_ref(), &dir));
    match work.await {
        Ok(Ok(())) => {
            tracing::info!(dir = %asked.dir.display(), "backup written");
            (StatusCode::CREATED, Json(asked)).into_response()
        }
        Ok(Err(error)) => {
            tracing::warn!(dir = %asked.dir.display(), %error, "backup failed");
            failure(StatusCode::CONFLICT, error.to_string())
        }
        Err(_) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the backup came to a sudden end; see the log",
        ),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_token_is_the_same_only_if_all_of_it_is() {
        assert!(super::same("abc", "abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!super::same(other, "abc"), "{other:?}");
        }
    }
}
