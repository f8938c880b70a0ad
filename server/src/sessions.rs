//! What operators see and do about a user's sessions, on the admin listener: `GET /sessions?user=`, `POST /sessions/kick`, both behind the
//! admin token. Any node of a cluster is asked: the user's home answers. What a session is, is the broker's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use godwit_accounts::USER_NAMES;
use godwit_store::coordination::StartId;
use godwit_store::{Read, ReadAnswer, Store};
use godwit_wire::account::{AccountAnswer, AccountCommand};
use godwit_wire::code::Code;
use godwit_wire::command::{Answer, Command, SessionInfo, UserCommand};
use godwit_wire::ids::{Key, UserId};
use godwit_wire::limits::CLIENT_ID_BYTES;
use godwit_wire::topic::is_user_name;
use serde::{Deserialize, Serialize};

use crate::admin::{Admin, failure};
use crate::cluster::Membership;

/// Where the routes begin.
pub(crate) const PATH: &str = "/sessions";
/// How long the user's home may take, which may be moving.
const TIME: Duration = Duration::from_secs(8);

/// Answer of both: the sessions, in the order of their client ids; those that were kicked as they were before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// The user's id.
    pub user_id: UserId,
    /// Its name.
    pub username: String,
    /// The node that its home is on; `None` on a node that stands alone.
    pub node: Option<String>,
    /// One each.
    pub sessions: Vec<OneSession>,
}

/// A session.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OneSession {
    /// Client id.
    pub client_id: String,
    /// Whether it has a connection.
    pub connected: bool,
    /// Since when it is as it is, milliseconds since 1970; `None`: its home crashed since.
    pub since: Option<u64>,
    /// "5.0" or "3.1.1", while it is connected.
    pub protocol: Option<String>,
    /// The node where its client came, if that is another one.
    pub via: Option<String>,
    /// Seconds after its connection's end at which it ends; `None`: it does not end by itself.
    pub expiry_seconds: Option<u32>,
    /// How many topic filters it has.
    pub subscriptions: u32,
    /// The first 100 of them.
    pub filters: Vec<String>,
    /// Messages that it is owed, or has not acknowledged yet.
    pub owed_entries: u64,
    /// About how many bytes of them are ordinary messages; chat is kept once for all.
    pub owed_bytes: u64,
}

/// Body of `POST /sessions/kick`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kick {
    /// Name or id of the user.
    pub user: String,
    /// Whose connection; `None`: all of the user's.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The sessions end too, with what they are owed.
    #[serde(default)]
    pub forget: bool,
}

struct Inner {
    router: godwit_cluster::Router,
    store: Arc<dyn Store>,
    membership: Option<Membership>,
}

type Asked = State<Arc<Inner>>;

/// The routes.
pub(crate) fn routes(admin: &Admin) -> Router {
    let inner = Arc::new(Inner {
        router: admin.router.clone(),
        store: admin.store.clone(),
        membership: admin.membership.clone(),
    });
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/kick", post(kick))
        .with_state(inner)
}

async fn list(State(inner): Asked, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    // Names and ids have no character that would have to be encoded.
    let Some(user) = query.strip_prefix("user=").filter(|user| !user.contains('&')) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "the query is user=, a name or an id, and nothing else",
        );
    };
    done(inner.ask(user, UserCommand::Sessions).await)
}

async fn kick(State(inner): Asked, body: Bytes) -> Response {
    let kick: Kick = match serde_json::from_slice(&body) {
        Ok(kick) => kick,
        Err(error) => {
            return failure(StatusCode::BAD_REQUEST, format!("the body is no kick: {error}"));
        }
    };
    let client_id = kick.client_id.map(String::into_boxed_str);
    if client_id.as_ref().is_some_and(|id| id.len() > CLIENT_ID_BYTES) {
        let told = format!("client_id has at most {CLIENT_ID_BYTES} bytes");
        return failure(StatusCode::BAD_REQUEST, told);
    }
    let forget = kick.forget;
    let command = UserCommand::Kick {
        client_id: client_id.clone(),
        forget,
    };
    let answer = inner.ask(&kick.user, command).await;
    if let Ok(told) = &answer {
        if let (Some(id), true) = (&client_id, told.sessions.is_empty()) {
            let told = format!("{} has no session of a client {id:?}", told.username);
            return failure(StatusCode::NOT_FOUND, told);
        }
        tracing::info!(user = %told.user_id, sessions = told.sessions.len(), forget, "an operator ended connections");
    }
    done(answer)
}

fn done(answer: Result<Sessions, Failed>) -> Response {
    match answer {
        Ok(sessions) => Json(sessions).into_response(),
        Err((status, detail)) => failure(status, detail),
    }
}

type Failed = (StatusCode, String);

impl Inner {
    async fn ask(&self, user: &str, command: UserCommand) -> Result<Sessions, Failed> {
        let (user_id, username) = self.who(user).await?;
        let answer = self.call(user_id, Command::User(command)).await?;
        let Answer::Sessions(sessions) = answer else {
            return Err(strange());
        };
        Ok(Sessions {
            user_id,
            username,
            node: self.home_of(user_id),
            sessions: sessions.into_iter().map(|one| self.shown(one)).collect(),
        })
    }

    /// The user behind a name or an id.
    async fn who(&self, user: &str) -> Result<(UserId, String), Failed> {
        let nobody = || (StatusCode::NOT_FOUND, format!("there is no user {user:?}"));
        let id = match user.parse::<UserId>() {
            Ok(id) => id,
            Err(_) if is_user_name(user) => self.named(user).await?.ok_or_else(nobody)?,
            Err(_) => {
                let told = format!("{user:?} is neither the name nor the id of a user");
                return Err((StatusCode::BAD_REQUEST, told));
            }
        };
        let command = Command::Account(Box::new(AccountCommand::Profile));
        match self.call(id, command).await {
            Ok(Answer::Account(answer)) => match *answer {
                AccountAnswer::Profile(profile) => Ok((id, profile.name.to_string())),
                _ => Err(strange()),
            },
            Ok(_) => Err(strange()),
            Err((StatusCode::NOT_FOUND, _)) => Err(nobody()),
            Err(other) => Err(other),
        }
    }

    async fn named(&self, name: &str) -> Result<Option<UserId>, Failed> {
        let (store, key) = (self.store.clone(), Bytes::copy_from_slice(name.as_bytes()));
        let read = move || {
            store.read_now(&[Read::Fact {
                table: USER_NAMES,
                key,
            }])
        };
        let answers = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
            Err(_) => return Err(strange()),
        };
        match answers.first() {
            Some(ReadAnswer::Fact(Some(id))) => Ok(UserId::from_slice(id)),
            _ => Ok(None),
        }
    }

    async fn call(&self, user: UserId, command: Command) -> Result<Answer, Failed> {
        let answer = tokio::time::timeout(TIME, self.router.call(Key::User(user), command)).await;
        match answer {
            Ok(Answer::Refused(refusal)) => {
                let status = match refusal.code {
                    Code::Unavailable => {
                        let told = "the user's home does not answer now; try again".to_owned();
                        return Err((StatusCode::SERVICE_UNAVAILABLE, told));
                    }
                    code => StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                };
                Err((status, refusal.detail.into_owned()))
            }
            Ok(answer) => Ok(answer),
            Err(_) => Err((
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the user's home has not answered within {TIME:?}"),
            )),
        }
    }

    fn home_of(&self, user: UserId) -> Option<String> {
        let standing = self.membership.as_ref()?.standing().borrow().clone()?;
        let owner = standing.map.owner(godwit_cluster::slot_of(&Key::User(user)))?;
        Some(standing.body.seats.get(owner)?.name.to_string())
    }

    /// The name of a node, or if it is none any more the id of its start.
    fn node(&self, start: StartId) -> String {
        let standing = self.membership.as_ref().map(|of| of.standing().borrow().clone());
        let standing = standing.flatten();
        let mut seats = standing.iter().flat_map(|standing| &standing.body.seats);
        let seat = seats.find(|seat| seat.start == start);
        seat.map_or_else(|| start.to_string(), |seat| seat.name.to_string())
    }

    fn shown(&self, session: SessionInfo) -> OneSession {
        let live = session.live;
        let ended = Some(session.disconnected_at).filter(|at| *at > 0);
        OneSession {
            client_id: session.client_id.into(),
            connected: live.is_some(),
            since: live.as_ref().map(|live| live.since).or(ended),
            protocol: live
                .as_ref()
                .map(|live| if live.is_v5 { "5.0" } else { "3.1.1" }.to_owned()),
            via: live.and_then(|live| live.via).map(|start| self.node(start)),
            expiry_seconds: Some(session.expiry).filter(|expiry| *expiry < u32::MAX),
            subscriptions: session.subscriptions,
            filters: session.filters,
            owed_entries: session.owed,
            owed_bytes: session.owed_bytes,
        }
    }
}

fn strange() -> Failed {
    let told = "an answer that does not fit; see the log".to_owned();
    (StatusCode::INTERNAL_SERVER_ERROR, told)
}
