//! Users: registration, the own profile, others' profiles.

use std::net::IpAddr;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use godwit_accounts::config::{EMAIL_BYTES, NAME_BYTES};
use godwit_accounts::tables::{USER_EMAILS, USER_NAMES};
use godwit_accounts::{password, tokens};
use godwit_store::{Read, ReadAnswer, Table};
use godwit_wire::account::{AccountAnswer, AccountCommand, IdempotencyKey, Profile, Registration};
use godwit_wire::code::Code;
use godwit_wire::ids::UserId;
use godwit_wire::json::Timestamp;
use godwit_wire::topic::is_user_name;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Register;
use crate::extract::{Caller, Json, Path, Peer, Query, RequestKey, id, made};
use crate::guesses::Secret;
use crate::problem::Problem;
use crate::state::{Api, unexpected};

/// A user as everybody sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    /// Id.
    #[schema(value_type = String, format = "uuid")]
    pub user_id: UserId,
    /// Immutable user name.
    pub username: String,
    /// For people; absent if none was given.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub display_name: String,
    /// When it was registered.
    #[schema(value_type = String, format = "date-time")]
    pub created_at: Timestamp,
}

/// A user as the user sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// As everybody sees it.
    #[serde(flatten)]
    pub user: User,
    /// E-mail address, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Administrator of the installation.
    pub admin: bool,
}

impl From<Profile> for User {
    fn from(profile: Profile) -> Self {
        Self {
            user_id: profile.user,
            username: profile.name.as_ref().into(),
            display_name: profile.display_name,
            created_at: Timestamp(profile.created_at),
        }
    }
}

impl From<Profile> for Me {
    fn from(mut profile: Profile) -> Self {
        let (email, admin) = (profile.email.take(), profile.admin);
        Self {
            user: profile.into(),
            email,
            admin,
        }
    }
}

/// Body of POST /users.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewUser {
    /// `[a-z0-9][a-z0-9._-]{1,31}`, not `me`, not a UUID.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{1,31}$")]
    username: String,
    /// At least 8 characters, at most 1,024 bytes.
    #[schema(min_length = 8)]
    password: String,
    /// At most 128 bytes.
    #[serde(default)]
    display_name: Option<String>,
    /// Can be used instead of the user name at login.
    #[serde(default)]
    email: Option<String>,
    /// Where registration asks for one.
    #[serde(default)]
    registration_token: Option<String>,
}

/// Registers a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = NewUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry find the first one's user")),
    responses((status = 201, body = Me, description = "Registered"), (status = 200, body = Me, description = "A repeat")))]
pub(crate) async fn register(
    State(api): State<Api>,
    key: RequestKey,
    Peer(address): Peer,
    body: Json<NewUser>,
) -> Result<(StatusCode, Answer<Me>), Problem> {
    match &api.parts.config.registration {
        Register::Open => {}
        Register::Closed => return Err(Problem::new(Code::Forbidden, "registration is closed here")),
        Register::Token(wanted) => {
            let given = body.value.registration_token.as_deref().unwrap_or_default();
            let judged = async {
                if tokens::equal(&wanted.0, given) {
                    return Ok(());
                }
                let detail = "registration needs a token, and this is not it";
                Err(Problem::new(Code::Forbidden, detail))
            };
            api.guarded(
                Secret::Registration(address.into()),
                address,
                Code::Forbidden,
                judged,
            )
            .await?;
        }
    }
    api.registrations
        .take(address.into(), api.passed())
        .map_err(|seconds| Problem::too_often(seconds).of_limit("registrations"))?;
    // The password is left out: a fast hash of it is kept nowhere. It is compared at a repeat.
    let said = (&body.value.username, &body.value.display_name, &body.value.email);
    let key = key.with(digest_of(&said)?).map(|key| (key, address));
    let (profile, repeated) = add_user(&api, body.value, key, false).await?;
    Ok((made(!repeated), Answer(profile.into())))
}

fn digest_of(said: &impl Serialize) -> Result<[u8; 16], Problem> {
    use sha2::{Digest, Sha256};
    let bytes = serde_json::to_vec(said).map_err(|_| unexpected())?;
    let mut digest = [0; 16];
    digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
    Ok(digest)
}

/// Checks and registers. Also for the admin listener. `true`: an earlier request with this key made it, which is told from an address that has not
/// guessed too often.
pub(crate) async fn add_user(
    api: &Api,
    new: NewUser,
    key: Option<(IdempotencyKey, IpAddr)>,
    admin: bool,
) -> Result<(Profile, bool), Problem> {
    if !is_user_name(&new.username) {
        return Err(Problem::field(
            "username",
            "is [a-z0-9][a-z0-9._-]{1,31}, not `me` and not a UUID",
        ));
    }
    if !password::acceptable(&new.password) {
        return Err(Problem::field(
            "password",
            "has at least 8 characters and at most 1024 bytes",
        ));
    }
    let display_name = display_name(new.display_name)?.unwrap_or_default();
    let email = new.email.map(|address| email(&address)).transpose()?;
    // A name that leads to a user already is refused before the costly hash.
    let claimed = find(api, USER_NAMES, &new.username).await?;
    if let (Some(user), None) = (claimed, key)
        && api.profile(user).await.is_ok()
    {
        return Err(Problem::new(Code::Conflict, "this user name is taken"));
    }
    let secret = new.password.clone();
    let phc = api
        .hashing(move || password::hash(&secret))
        .await?
        .ok_or_else(unexpected)?;
    let registration = Registration {
        name: new.username.into(),
        display_name,
        email,
        phc,
        admin,
        key: key.map(|(key, _)| key),
    };
    let user = claimed.unwrap_or_else(UserId::fresh);
    match api
        .account(user, AccountCommand::Register(Box::new(registration)))
        .await?
    {
        AccountAnswer::Registered(profile, false) => Ok((profile, false)),
        AccountAnswer::Registered(profile, true) => {
            let (_, address) = key.ok_or_else(unexpected)?;
            let judged = async {
                if judge(api, Some(user), new.password).await?.1 {
                    return Ok((profile, true));
                }
                let detail = "this Idempotency-Key came before with another request";
                Err(Problem::new(Code::Conflict, detail))
            };
            api.guarded(Secret::PasswordOf(user), address, Code::Conflict, judged)
                .await
        }
        _ => Err(unexpected()),
    }
}

/// Whether this is the user's password, and which version was judged. Takes as long for a user that is not there.
pub(crate) async fn judge(api: &Api, user: Option<UserId>, given: String) -> Result<(u64, bool), Problem> {
    let known = match user {
        Some(user) => match api.account(user, AccountCommand::Password).await {
            Ok(AccountAnswer::Password(phc, version)) => Some((phc, version)),
            Err(problem) if problem.code() != Code::NotFound => return Err(problem),
            _ => None,
        },
        None => None,
    };
    let version = known.as_ref().map_or(0, |(_, version)| *version);
    let good = api
        .hashing(move || password::verify(&given, known.map(|(phc, _)| phc).as_ref()))
        .await?;
    Ok((version, good))
}

/// Whom a claimed name or e-mail address leads to; whether that user exists is not said.
pub(crate) async fn find(api: &Api, table: Table, key: &str) -> Result<Option<UserId>, Problem> {
    match api
        .read(Read::Fact {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
        })
        .await?
    {
        ReadAnswer::Fact(user) => Ok(user.and_then(|user| UserId::from_slice(&user))),
        _ => Err(unexpected()),
    }
}

/// Whom a login names: a user name or an e-mail address.
pub(crate) async fn find_login(api: &Api, login: &str) -> Result<Option<UserId>, Problem> {
    let login = login.to_lowercase();
    if login.contains('@') {
        find(api, USER_EMAILS, &login).await
    } else if is_user_name(&login) {
        find(api, USER_NAMES, &login).await
    } else {
        Ok(None)
    }
}

fn display_name(name: Option<String>) -> Result<Option<String>, Problem> {
    match name {
        Some(name) if name.len() > NAME_BYTES || name.chars().any(char::is_control) => Err(Problem::field(
            "display_name",
            "has at most 128 bytes and no control characters",
        )),
        name => Ok(name),
    }
}

fn email(address: &str) -> Result<String, Problem> {
    let address = address.trim().to_lowercase();
    let formed = address.len() <= EMAIL_BYTES
        && !address.chars().any(|c| c.is_whitespace() || c.is_control())
        && address
            .rsplit_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && domain.len() >= 3);
    if formed {
        Ok(address)
    } else {
        Err(Problem::field("email", "is not an e-mail address"))
    }
}

/// The own profile.
#[utoipa::path(get, path = "/users/me", tag = "users", responses((status = 200, body = Me)))]
pub(crate) async fn me(State(api): State<Api>, caller: Caller) -> Result<Answer<Me>, Problem> {
    Ok(Answer(api.profile(caller.user()).await?.into()))
}

/// Body of PATCH /users/me.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangeMe {
    /// At most 128 bytes; absent: stays.
    #[serde(default)]
    display_name: Option<String>,
}

/// Changes the own profile.
#[utoipa::path(patch, path = "/users/me", tag = "users", request_body = ChangeMe,
    responses((status = 200, body = Me)))]
pub(crate) async fn change_me(
    State(api): State<Api>,
    caller: Caller,
    body: Json<ChangeMe>,
) -> Result<Answer<Me>, Problem> {
    let display_name = display_name(body.value.display_name)?;
    match api
        .account(caller.user(), AccountCommand::ChangeProfile { display_name })
        .await?
    {
        AccountAnswer::Profile(profile) => Ok(Answer(profile.into())),
        _ => Err(unexpected()),
    }
}

/// A user's profile.
#[utoipa::path(get, path = "/users/{user_id}", tag = "users",
    params(("user_id" = String, Path, format = "uuid")), responses((status = 200, body = User)))]
pub(crate) async fn user(
    State(api): State<Api>,
    _caller: Caller,
    Path(user): Path<String>,
) -> Result<Answer<User>, Problem> {
    Ok(Answer(api.profile(id(&user)?).await?.into()))
}

/// Query of GET /users.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindUser {
    /// The whole user name.
    username: String,
}

/// Answer of GET /users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Users {
    /// None or one.
    users: Vec<User>,
}

/// The user of a name.
#[utoipa::path(get, path = "/users", tag = "users", params(FindUser), responses((status = 200, body = Users)))]
pub(crate) async fn find_user(
    State(api): State<Api>,
    _caller: Caller,
    Query(query): Query<FindUser>,
) -> Result<Answer<Users>, Problem> {
    let name = query.username.to_lowercase();
    let found = if is_user_name(&name) {
        find(&api, USER_NAMES, &name).await?
    } else {
        None
    };
    let users = match found {
        Some(user) => match api.profile(user).await {
            Ok(profile) => vec![profile.into()],
            Err(problem) if problem.code() == Code::NotFound => Vec::new(),
            Err(problem) => return Err(problem),
        },
        None => Vec::new(),
    };
    Ok(Answer(Users { users }))
}
