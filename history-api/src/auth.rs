//! Logging in and out, refresh, password, login sessions.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use godwit_accounts::password;
use godwit_accounts::tokens::RefreshToken;
use godwit_wire::account::{AccountAnswer, AccountCommand, LoginSession, NewLoginSession, Principal, Secret};
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;
use godwit_wire::json::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::{Json, LoggedIn, Path, Peer, uuid};
use crate::guesses::Secret as Guessed;
use crate::problem::Problem;
use crate::state::{Api, unexpected};
use crate::users::{find_login, judge};

/// Longest kept text of a client's User-Agent, bytes.
const CLIENT_BYTES: usize = 256;

/// Body of POST /auth/login.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Login {
    /// User name or e-mail address.
    #[serde(alias = "email")]
    username: String,
    /// Password.
    password: String,
}

/// Answer of login and refresh.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenPair {
    /// JWT for `Authorization: Bearer` and as MQTT password.
    access_token: String,
    /// `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: u64,
    /// When the access token ends.
    #[schema(value_type = String, format = "date-time")]
    expires_at: Timestamp,
    /// Exchanged once for the next pair.
    refresh_token: String,
    /// The login session.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// Who logged in.
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    /// Who logged in.
    username: String,
}

fn pair(api: &Api, principal: &Principal, refresh: &RefreshToken) -> Result<Answer<TokenPair>, Problem> {
    let now = api.now();
    let (access, end) = api
        .parts
        .tokens
        .issue(refresh.user, refresh.session, now)
        .ok_or_else(unexpected)?;
    Ok(Answer(TokenPair {
        access_token: access.0.into(),
        token_type: "Bearer",
        expires_in: end.saturating_sub(now) / 1_000,
        expires_at: Timestamp(end),
        refresh_token: refresh.secret().0.into(),
        session_id: refresh.session,
        user_id: refresh.user,
        username: principal.name.as_ref().into(),
    }))
}

fn bad_login() -> Problem {
    Problem::new(Code::Unauthenticated, "user name or password is wrong")
}

/// Begins a login session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = TokenPair)))]
pub(crate) async fn login(
    State(api): State<Api>,
    Peer(address): Peer,
    headers: HeaderMap,
    body: Json<Login>,
) -> Result<Answer<TokenPair>, Problem> {
    let Login { username, password } = body.value;
    let secret = api.guesses.at_login(&username, address);
    let tried = async {
        let user = find_login(&api, &username).await?;
        try_login(&api, user, password, client(&headers)).await
    };
    let (principal, refresh) = api.guarded(secret, address, Code::Unauthenticated, tried).await?;
    api.guesses.welcome(secret, address);
    pair(&api, &principal, &refresh)
}

async fn try_login(
    api: &Api,
    user: Option<UserId>,
    password: String,
    client: String,
) -> Result<(Principal, RefreshToken), Problem> {
    let (version, good) = judge(api, user, password).await?;
    let Some(user) = user.filter(|_| good) else {
        return Err(bad_login());
    };
    let refresh = RefreshToken::first(user, Uuid::now_v7());
    let session = NewLoginSession {
        id: refresh.session,
        family_hash: refresh.family_hash,
        token_hash: refresh.token_hash,
        client,
    };
    match api
        .account(
            user,
            AccountCommand::Login {
                password_version: version,
                session,
            },
        )
        .await?
    {
        AccountAnswer::Principal(principal) => Ok((principal, refresh)),
        _ => Err(unexpected()),
    }
}

fn client(headers: &HeaderMap) -> String {
    let text = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.chars().take(CLIENT_BYTES).collect()
}

/// Body of POST /auth/refresh.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Refresh {
    /// The newest one of this login session.
    refresh_token: String,
}

/// Exchanges a refresh token. One that was exchanged before ends its login session.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = TokenPair)))]
pub(crate) async fn refresh(
    State(api): State<Api>,
    body: Json<Refresh>,
) -> Result<Answer<TokenPair>, Problem> {
    let invalid = || Problem::new(Code::Unauthenticated, "the refresh token is not valid");
    let given = RefreshToken::parse(&body.value.refresh_token).ok_or_else(invalid)?;
    // By what only its holder knows: whoever names a user here may not use up what that one may ask.
    api.refreshes
        .take(given.family_hash, api.passed())
        .map_err(|seconds| Problem::too_often(seconds).of_limit("user_requests"))?;
    let next = given.next();
    let command = AccountCommand::Refresh {
        session: given.session,
        family_hash: given.family_hash,
        token_hash: given.token_hash,
        next_hash: next.token_hash,
    };
    match api.account(given.user, command).await? {
        AccountAnswer::Principal(principal) => pair(&api, &principal, &next),
        _ => Err(unexpected()),
    }
}

/// Ends the login session that asks.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", responses((status = 204)))]
pub(crate) async fn logout(State(api): State<Api>, caller: LoggedIn) -> Result<StatusCode, Problem> {
    let session = caller.session;
    api.account_done(caller.principal.user, AccountCommand::EndSession { session })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Body of POST /auth/password.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangePassword {
    /// The one that is valid now.
    current_password: String,
    /// At least 8 characters, at most 1,024 bytes.
    #[schema(min_length = 8)]
    new_password: String,
}

/// Changes the password and ends the other login sessions.
#[utoipa::path(post, path = "/auth/password", tag = "auth", request_body = ChangePassword,
    responses((status = 204)))]
pub(crate) async fn change_password(
    State(api): State<Api>,
    caller: LoggedIn,
    Peer(address): Peer,
    body: Json<ChangePassword>,
) -> Result<StatusCode, Problem> {
    let user = caller.principal.user;
    let ChangePassword {
        current_password,
        new_password,
    } = body.value;
    if !password::acceptable(&new_password) {
        return Err(Problem::field(
            "new_password",
            "has at least 8 characters and at most 1024 bytes",
        ));
    }
    let judged = async {
        let (version, good) = judge(&api, Some(user), current_password).await?;
        good.then_some(version)
            .ok_or_else(|| Problem::new(Code::Forbidden, "the current password is wrong"))
    };
    let password_version = api
        .guarded(Guessed::PasswordOf(user), address, Code::Forbidden, judged)
        .await?;
    let phc = api
        .hashing(move || password::hash(&new_password))
        .await?
        .ok_or_else(unexpected)?;
    let phc = Secret(phc.0);
    let command = AccountCommand::ChangePassword {
        password_version,
        phc,
        keep: Some(caller.session),
    };
    api.account_done(user, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A login session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// What the client said it is (User-Agent).
    client: String,
    /// Whether it is the one that asks.
    current: bool,
    /// Its begin.
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    /// Last login or refresh.
    #[schema(value_type = String, format = "date-time")]
    last_used_at: Timestamp,
    /// Its end if it is not refreshed.
    #[schema(value_type = String, format = "date-time")]
    expires_at: Timestamp,
}

impl Session {
    fn of(session: LoginSession, current: Uuid) -> Self {
        Self {
            session_id: session.id,
            client: session.client,
            current: session.id == current,
            created_at: Timestamp(session.created_at),
            last_used_at: Timestamp(session.last_used_at),
            expires_at: Timestamp(session.expires_at),
        }
    }
}

/// Answer of GET /auth/sessions.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sessions {
    /// Oldest first.
    sessions: Vec<Session>,
}

async fn all_sessions(api: &Api, caller: &LoggedIn) -> Result<Vec<Session>, Problem> {
    match api
        .account(caller.principal.user, AccountCommand::Sessions)
        .await?
    {
        AccountAnswer::Sessions(sessions) => Ok(sessions
            .into_iter()
            .map(|session| Session::of(session, caller.session))
            .collect()),
        _ => Err(unexpected()),
    }
}

/// The login sessions.
#[utoipa::path(get, path = "/auth/sessions", tag = "auth", responses((status = 200, body = Sessions)))]
pub(crate) async fn sessions(State(api): State<Api>, caller: LoggedIn) -> Result<Answer<Sessions>, Problem> {
    Ok(Answer(Sessions {
        sessions: all_sessions(&api, &caller).await?,
    }))
}

/// One login session.
#[utoipa::path(get, path = "/auth/sessions/{session_id}", tag = "auth",
    params(("session_id" = String, Path, format = "uuid")), responses((status = 200, body = Session)))]
pub(crate) async fn session(
    State(api): State<Api>,
    caller: LoggedIn,
    Path(session): Path<String>,
) -> Result<Answer<Session>, Problem> {
    let wanted = uuid(&session)?;
    let found = all_sessions(&api, &caller)
        .await?
        .into_iter()
        .find(|session| session.session_id == wanted);
    found
        .map(Answer)
        .ok_or_else(|| Problem::new(Code::NotFound, "there is no such session"))
}

/// Ends all login sessions but the one that asks.
#[utoipa::path(delete, path = "/auth/sessions", tag = "auth", responses((status = 204)))]
pub(crate) async fn end_sessions(State(api): State<Api>, caller: LoggedIn) -> Result<StatusCode, Problem> {
    let command = AccountCommand::EndOtherSessions { keep: caller.session };
    api.account_done(caller.principal.user, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one login session; its connections are closed.
#[utoipa::path(delete, path = "/auth/sessions/{session_id}", tag = "auth",
    params(("session_id" = String, Path, format = "uuid")), responses((status = 204)))]
pub(crate) async fn end_session(
    State(api): State<Api>,
    caller: LoggedIn,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    let command = AccountCommand::EndSession {
        session: uuid(&session)?,
    };
    api.account_done(caller.principal.user, command).await?;
    Ok(StatusCode::NO_CONTENT)
}
