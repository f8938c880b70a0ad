//! Groups: making and changing them, who is in and with which role.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use godwit_wire::code::Code;
use godwit_wire::command::ConversationCommand;
use godwit_wire::ids::{ConversationId, UserId};
use godwit_wire::json::Role;
use godwit_wire::limits::GROUP_MEMBERS;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::contacts::WhichUser;
use crate::conversations::{Conversation, each, expect_info, info};
use crate::extract::{Caller, Json, Path, RequestKey, id, made};
use crate::problem::Problem;
use crate::state::Api;

/// Longest name of a group, bytes.
const NAME_BYTES: usize = 128;
/// Longest description of a group, bytes.
const DESCRIPTION_BYTES: usize = 1_024;

/// What of a group's history its members read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HistoryOption {
    /// From their joining on.
    #[default]
    Joined,
    /// Everything.
    All,
}

/// Body of POST /groups.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewGroup {
    /// 1 to 128 bytes.
    name: String,
    /// At most 1,024 bytes.
    #[serde(default)]
    description: Option<String>,
    /// The others' user ids, at most 511.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 511)]
    members: Vec<UserId>,
    /// What of the history members read; absent: `joined`.
    #[serde(default)]
    #[schema(value_type = String, pattern = "^(joined|all)$", required = false)]
    history: HistoryOption,
}

fn name(name: &str) -> Result<(), Problem> {
    let fine = (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if fine {
        Ok(())
    } else {
        Err(Problem::field(
            "name",
            "has 1 to 128 bytes and no control characters",
        ))
    }
}

fn description(text: Option<&String>) -> Result<(), Problem> {
    let fine = text.is_none_or(|text| text.len() <= DESCRIPTION_BYTES);
    if fine {
        Ok(())
    } else {
        Err(Problem::field("description", "has at most 1024 bytes"))
    }
}

/// Makes a group; the one who asks is its first admin.
#[utoipa::path(post, operation_id = "create_group", path = "/groups", tag = "groups", request_body = NewGroup,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry find the first one's group")),
    responses((status = 201, body = Conversation, description = "Made"),
        (status = 200, body = Conversation, description = "A repeat")))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    key: RequestKey,
    body: Json<NewGroup>,
) -> Result<(StatusCode, Answer<Conversation>), Problem> {
    let group = body.value;
    name(&group.name)?;
    description(group.description.as_ref())?;
    let mut others = group.members;
    others.sort_unstable();
    others.dedup();
    others.retain(|user| *user != caller.user());
    if others.len() >= GROUP_MEMBERS {
        return Err(Problem::new(Code::Quota, "a group has at most 512 members").of_limit("members"));
    }
    let found = each(others, |user| {
        let api = api.clone();
        async move { api.named(user).await }
    });
    let members = found.await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (id, repeated) = key.reserve(&api, caller.user(), body.digest).await?;
    let command = ConversationCommand::CreateGroup {
        by: caller.named(),
        name: group.name,
        description: group.description.unwrap_or_default(),
        members,
        full_history: group.history == HistoryOption::All,
    };
    let info = expect_info(api.conversation(ConversationId(id), command).await?)?;
    Ok((
        made(!repeated),
        Answer(Conversation::of(info, caller.user(), true)),
    ))
}

/// Body of PATCH /groups/{group_id}.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangeGroup {
    /// Absent: stays.
    #[serde(default)]
    name: Option<String>,
    /// Absent: stays.
    #[serde(default)]
    description: Option<String>,
}

/// Changes name or description; admins.
#[utoipa::path(patch, operation_id = "change_group", path = "/groups/{group_id}", tag = "groups", request_body = ChangeGroup,
    params(("group_id" = String, Path, format = "uuid")), responses((status = 200, body = Conversation)))]
pub(crate) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(group): Path<String>,
    body: Json<ChangeGroup>,
) -> Result<Answer<Conversation>, Problem> {
    let ChangeGroup {
        name: new_name,
        description: text,
    } = body.value;
    new_name.as_deref().map(name).transpose()?;
    description(text.as_ref())?;
    let command = ConversationCommand::Change {
        by: caller.user(),
        name: new_name,
        description: text,
    };
    let info = expect_info(api.conversation(id(&group)?, command).await?)?;
    Ok(Answer(Conversation::of(info, caller.user(), true)))
}

/// A member that was added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Added {
    /// The group.
    #[schema(value_type = String, format = "uuid")]
    conversation_id: ConversationId,
    /// Who is in now.
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    /// Who is in now.
    username: String,
}

/// Takes somebody in; admins.
#[utoipa::path(post, path = "/groups/{group_id}/members", tag = "groups", request_body = WhichUser,
    params(("group_id" = String, Path, format = "uuid"),
        ("Idempotency-Key" = Option<String>, Header, description = "Kept for 24 h")),
    responses((status = 201, body = Added, description = "Added"), (status = 200, body = Added, description = "Was in")))]
pub(crate) async fn add_member(
    State(api): State<Api>,
    caller: Caller,
    key: RequestKey,
    Path(group): Path<String>,
    body: Json<WhichUser>,
) -> Result<(StatusCode, Answer<Added>), Problem> {
    let group: ConversationId = id(&group)?;
    // Whether the group is there for the one who asks comes first: a stranger learns nothing of users either.
    let before = info(&api, group, caller.user()).await?;
    let user = body.value.named(&api).await?;
    let (_, repeated) = key.reserve(&api, caller.user(), body.digest).await?;
    let new = !before.members.iter().any(|(member, ..)| member.user == user.user);
    let added = Added {
        conversation_id: group,
        user_id: user.user,
        username: user.name.as_ref().into(),
    };
    api.conversation(
        group,
        ConversationCommand::AddMember {
            by: caller.user(),
            user,
        },
    )
    .await
    .map_err(|problem| match before.members.len() >= GROUP_MEMBERS {
        true => problem.of_limit("members"),
        false => problem,
    })?;
    Ok((made(new && !repeated), Answer(added)))
}

/// A member in a path: an id, or `me`.
fn member(text: &str, caller: &Caller) -> Result<UserId, Problem> {
    if text == "me" { Ok(caller.user()) } else { id(text) }
}

/// Takes somebody out (admins), or leaves (`me`).
#[utoipa::path(delete, path = "/groups/{group_id}/members/{user_id}", tag = "groups",
    params(("group_id" = String, Path, format = "uuid"), ("user_id" = String, Path, description = "User id, or `me`")),
    responses((status = 204)))]
pub(crate) async fn remove_member(
    State(api): State<Api>,
    caller: Caller,
    Path((group, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let command = ConversationCommand::RemoveMember {
        by: caller.user(),
        user: member(&user, &caller)?,
    };
    api.conversation(id(&group)?, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Body of PUT /groups/{group_id}/members/{user_id}/role.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewRole {
    /// `member` or `admin`.
    #[schema(value_type = String, pattern = "^(member|admin)$")]
    role: Role,
}

/// Gives a role; admins.
#[utoipa::path(put, path = "/groups/{group_id}/members/{user_id}/role", tag = "groups", request_body = NewRole,
    params(("group_id" = String, Path, format = "uuid"), ("user_id" = String, Path, description = "User id, or `me`")),
    responses((status = 204)))]
pub(crate) async fn set_role(
    State(api): State<Api>,
    caller: Caller,
    Path((group, user)): Path<(String, String)>,
    body: Json<NewRole>,
) -> Result<StatusCode, Problem> {
    let (user, role) = (member(&user, &caller)?, body.value.role.to_proto());
    api.conversation(
        id(&group)?,
        ConversationCommand::SetRole {
            by: caller.user(),
            user,
            role,
        },
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
