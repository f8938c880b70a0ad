//! The REST doors and what each may answer. That no door is missing here is checked against the served OpenAPI document.

use crate::world::{Column, World, absent_id, device_token, fresh_name, login};
use anyhow::Result;

/// What an id names, or another value that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Conversation,
    /// alice's one group.
    Group,
    /// A new group of alice's for each time.
    FreshGroup,
    /// dave, who is in alice's groups; carol, who is not.
    GroupMember,
    Message,
    /// Of a new login each time.
    Session,
    /// A new one each time.
    DeviceToken,
    /// bob; erin, who blocks alice.
    User,
    UserName,
    FreshName,
    RefreshToken,
}

impl Thing {
    /// The value for a column; `owner` is alice.
    pub(crate) fn value(self, world: &World, column: Column) -> Result<String> {
        let name = matches!(self, Self::UserName);
        Ok(match column {
            Column::Absent if name => "nobody-has-this-name".into(),
            Column::Absent => absent_id(),
            Column::Reserved if name => "me".into(),
            // `me` is a form of its own in some paths; this is one in none.
            Column::Reserved => "@bob".into(),
            Column::Wildcard => "+".into(),
            Column::Mine => match self {
                Self::Conversation => world.ours.clone(),
                Self::Group => world.group.clone(),
                Self::FreshGroup => world.fresh_group()?,
                Self::GroupMember => world.dave.id.clone(),
                Self::Message => world.our_message.clone(),
                Self::Session => login(&world.http, &world.alice.name)?.1,
                Self::DeviceToken => device_token(&world.http, &world.alice.access, &["chat"])?.1,
                Self::User => world.bob.id.clone(),
                Self::UserName => world.bob.name.clone(),
                Self::FreshName => fresh_name(),
                Self::RefreshToken => login(&world.http, &world.gina.name)?.2,
            },
            Column::Others => match self {
                Self::Conversation => world.theirs.clone(),
                Self::Group | Self::FreshGroup => world.their_group.clone(),
                Self::GroupMember => world.carol.id.clone(),
                Self::Message => world.their_message.clone(),
                Self::Session => world.their_session.clone(),
                Self::DeviceToken => world.their_token.clone(),
                Self::User => world.erin.id.clone(),
                Self::UserName => world.erin.name.clone(),
                Self::FreshName | Self::RefreshToken => anyhow::bail!("{self:?} is nobody's"),
            },
        })
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The row's success.
    Success,
    Malformed,
    NotFound,
    Forbidden,
    Unauthenticated,
    Conflict,
}

impl Expect {
    /// Status and code of a refusal (docs/protocol.md, Errors).
    pub(crate) fn refusal(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Success => None,
            Self::Malformed => Some((400, "malformed")),
            Self::NotFound => Some((404, "not_found")),
            Self::Forbidden => Some((403, "forbidden")),
            Self::Unauthenticated => Some((401, "unauthenticated")),
            Self::Conflict => Some((409, "conflict")),
        }
    }
}

/// An id of a request, `{name}` in its path, query or body, and what its columns get from somebody who may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) thing: Thing,
    pub(crate) others: Expect,
    pub(crate) absent: Expect,
    /// Reserved and wildcard.
    pub(crate) form: Expect,
}

/// Not there and not mine are one.
const fn hidden(name: &'static str, thing: Thing) -> Subject {
    Subject {
        name,
        thing,
        others: Expect::NotFound,
        absent: Expect::NotFound,
        form: Expect::Malformed,
    }
}

/// Users are there for every user, also for those whom they block.
const fn public(name: &'static str, thing: Thing, others: Expect, absent: Expect) -> Subject {
    Subject {
        name,
        thing,
        others,
        absent,
        form: Expect::Malformed,
    }
}

/// A place to go on from: it need not be there, and shows nothing.
const fn place(name: &'static str, thing: Thing) -> Subject {
    public(name, thing, Expect::Success, Expect::Success)
}

/// Who may use a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nobody is asked who they are.
    Nothing,
    /// A login session or a device token with the scope `rest`.
    Caller,
    /// A login session: devices manage no credentials.
    Login,
    /// As `Login`; it ends sessions, so gina does it, each time logged in anew.
    OwnLogin,
}

/// One door, or one of several forms of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Method and path as in the OpenAPI document.
    pub(crate) door: &'static str,
    pub(crate) needs: Needs,
    /// Statuses of success.
    pub(crate) ok: &'static [u16],
    pub(crate) subjects: &'static [Subject],
    /// What a plain member gets for what is mine; `None`: the row's things have no members.
    pub(crate) member: Option<Expect>,
    pub(crate) query: &'static str,
    /// JSON with `{name}`.
    pub(crate) body: &'static str,
    /// Values that are not varied.
    pub(crate) values: &'static [(&'static str, Thing)],
}

impl Row {
    /// Whether what it is about is somebody's own.
    pub(crate) fn is_private(&self) -> bool {
        self.subjects.first().is_some_and(|first| {
            let person = matches!(first.thing, Thing::User | Thing::UserName | Thing::GroupMember);
            first.others == Expect::NotFound && !person
        })
    }
}

const BARE: Row = Row {
    door: "",
    needs: Needs::Caller,
    ok: &[200],
    subjects: &[],
    member: None,
    query: "",
    body: "",
    values: &[],
};

const fn open(door: &'static str) -> Row {
    Row {
        door,
        needs: Needs::Nothing,
        ..BARE
    }
}

const fn caller(door: &'static str) -> Row {
    Row { door, ..BARE }
}

const fn row(door: &'static str, subjects: &'static [Subject]) -> Row {
    Row {
        door,
        subjects,
        ..BARE
    }
}

const CONVERSATION: &[Subject] = &[hidden("conversation_id", Thing::Conversation)];
const MESSAGE: &[Subject] = &[hidden("message_id", Thing::Message)];
const SESSION: &[Subject] = &[hidden("session_id", Thing::Session)];
const TOKEN: &[Subject] = &[hidden("id", Thing::DeviceToken)];
const GROUP: &[Subject] = &[hidden("group_id", Thing::Group)];
const GROUP_MEMBER: &[Subject] = &[
    hidden("group_id", Thing::FreshGroup),
    hidden("user_id", Thing::GroupMember),
];
const WHOM: &[Subject] = &[public("user_id", Thing::User, Expect::Success, Expect::NotFound)];
/// Whoever blocks me is not there for me.
const PARTNER: &[Subject] = &[hidden("user_id", Thing::User)];
const HISTORY: &str = "GET /api/v1/conversations/{conversation_id}/messages";
const SEND: &str = "POST /api/v1/conversations/{conversation_id}/messages";
const ADD: &str = "POST /api/v1/groups/{group_id}/members";
const SUCCESS: Option<Expect> = Some(Expect::Success);
const FORBIDDEN: Option<Expect> = Some(Expect::Forbidden);

/// Query parameters that name nothing of anybody's.
pub(crate) const PLAIN_QUERY: &[(&str, &str)] = &[
    ("*", "limit"),
    ("*", "query"),
    // Opaque, and good only together with the asker's own scope.
    ("*", "cursor"),
    // Times.
    ("GET /api/v1/search", "after"),
    ("GET /api/v1/search", "before"),
    ("GET /api/v1/conversations/{conversation_id}/search", "after"),
    ("GET /api/v1/conversations/{conversation_id}/search", "before"),
];

/// Every row. Rows of one door stand together.
pub(crate) const ROWS: &[Row] = &[
    open("GET /healthz"),
    open("GET /readyz"),
    open("GET /api/v1/openapi.json"),
    Row {
        ok: &[201],
        body: r#"{"username":"{name}","password":"{password}"}"#,
        values: &[("name", Thing::FreshName)],
        ..open("POST /api/v1/users")
    },
    Row {
        query: "username={username}",
        ..row(
            "GET /api/v1/users",
            &[Subject {
                form: Expect::Success,
                ..place("username", Thing::UserName)
            }],
        )
    },
    caller("GET /api/v1/users/me"),
    caller("GET /api/v1/connect"),
    Row {
        body: r#"{"display_name":"A"}"#,
        ..caller("PATCH /api/v1/users/me")
    },
    row("GET /api/v1/users/{user_id}", WHOM),
    Row {
        body: r#"{"username":"gina","password":"{password}"}"#,
        ..open("POST /api/v1/auth/login")
    },
    Row {
        body: r#"{"refresh_token":"{refresh_token}"}"#,
        values: &[("refresh_token", Thing::RefreshToken)],
        ..open("POST /api/v1/auth/refresh")
    },
    Row {
        needs: Needs::OwnLogin,
        ok: &[204],
        ..caller("POST /api/v1/auth/logout")
    },
    Row {
        needs: Needs::OwnLogin,
        ok: &[204],
        body: r#"{"current_password":"{password}","new_password":"{password}"}"#,
        ..caller("POST /api/v1/auth/password")
    },
    Row {
        needs: Needs::Login,
        ..caller("GET /api/v1/auth/sessions")
    },
    Row {
        needs: Needs::OwnLogin,
        ok: &[204],
        ..caller("DELETE /api/v1/auth/sessions")
    },
    Row {
        needs: Needs::Login,
        ..row("GET /api/v1/auth/sessions/{session_id}", SESSION)
    },
    Row {
        needs: Needs::Login,
        ok: &[204],
        ..row("DELETE /api/v1/auth/sessions/{session_id}", SESSION)
    },
    Row {
        needs: Needs::Login,
        ok: &[201],
        body: r#"{"name":"one more"}"#,
        ..caller("POST /api/v1/auth/device-tokens")
    },
    Row {
        needs: Needs::Login,
        ..caller("GET /api/v1/auth/device-tokens")
    },
    Row {
        needs: Needs::Login,
        ..row("GET /api/v1/auth/device-tokens/{id}", TOKEN)
    },
    Row {
        needs: Needs::Login,
        ok: &[204],
        ..row("DELETE /api/v1/auth/device-tokens/{id}", TOKEN)
    },
    Row {
        ok: &[200, 201],
        body: r#"{"user_id":"{user_id}"}"#,
        ..row("POST /api/v1/contacts", WHOM)
    },
    Row {
        ok: &[200, 201],
        body: r#"{"username":"{username}"}"#,
        ..row(
            "POST /api/v1/contacts",
            &[Subject {
                form: Expect::NotFound,
                ..public("username", Thing::UserName, Expect::Success, Expect::NotFound)
            }],
        )
    },
    caller("GET /api/v1/contacts"),
    Row {
        query: "after={after}",
        ..row("GET /api/v1/contacts", &[place("after", Thing::User)])
    },
    Row {
        body: r#"{"state":"accepted"}"#,
        // Of those there are, erin has not asked; that she blocks is not told.
        ..row(
            "PUT /api/v1/contacts/{user_id}",
            &[public("user_id", Thing::User, Expect::Conflict, Expect::NotFound)],
        )
    },
    Row {
        ok: &[204],
        ..row(
            "DELETE /api/v1/contacts/{user_id}",
            &[place("user_id", Thing::User)],
        )
    },
    Row {
        ok: &[200, 201],
        body: r#"{"type":"one_on_one","user_id":"{user_id}"}"#,
        ..row("POST /api/v1/conversations", PARTNER)
    },
    Row {
        ok: &[200, 201],
        body: r#"{"type":"one_on_one","username":"{username}"}"#,
        ..row(
            "POST /api/v1/conversations",
            &[Subject {
                form: Expect::NotFound,
                ..hidden("username", Thing::UserName)
            }],
        )
    },
    caller("GET /api/v1/conversations"),
    Row {
        query: "after={after}",
        ..row(
            "GET /api/v1/conversations",
            &[place("after", Thing::Conversation)],
        )
    },
    Row {
        member: SUCCESS,
        ..row("GET /api/v1/conversations/{conversation_id}", CONVERSATION)
    },
    Row {
        ok: &[201],
        body: r#"{"name":"g","members":["{members}"]}"#,
        ..row("POST /api/v1/groups", &[hidden("members", Thing::User)])
    },
    Row {
        member: FORBIDDEN,
        body: r#"{"description":"new"}"#,
        ..row("PATCH /api/v1/groups/{group_id}", GROUP)
    },
    Row {
        ok: &[200, 201],
        member: FORBIDDEN,
        body: r#"{"user_id":"{user_id}"}"#,
        ..row(
            ADD,
            &[
                hidden("group_id", Thing::FreshGroup),
                hidden("user_id", Thing::User),
            ],
        )
    },
    Row {
        ok: &[200, 201],
        member: FORBIDDEN,
        body: r#"{"username":"{username}"}"#,
        ..row(
            ADD,
            &[
                hidden("group_id", Thing::FreshGroup),
                Subject {
                    form: Expect::NotFound,
                    ..hidden("username", Thing::UserName)
                },
            ],
        )
    },
    Row {
        ok: &[204],
        member: FORBIDDEN,
        ..row("DELETE /api/v1/groups/{group_id}/members/{user_id}", GROUP_MEMBER)
    },
    Row {
        ok: &[204],
        member: FORBIDDEN,
        body: r#"{"role":"admin"}"#,
        ..row(
            "PUT /api/v1/groups/{group_id}/members/{user_id}/role",
            GROUP_MEMBER,
        )
    },
    Row {
        ok: &[201],
        member: SUCCESS,
        body: r#"{"content":"hi"}"#,
        ..row(SEND, CONVERSATION)
    },
    Row {
        ok: &[201],
        member: SUCCESS,
        body: r#"{"content":"hi","reply_to":"{reply_to}"}"#,
        // Only its form is looked at: what it names need not be there for all who read it.
        ..row(
            SEND,
            &[
                hidden("conversation_id", Thing::Conversation),
                place("reply_to", Thing::Message),
            ],
        )
    },
    Row {
        member: SUCCESS,
        ..row(HISTORY, CONVERSATION)
    },
    Row {
        member: SUCCESS,
        query: "around={around}",
        ..row(
            HISTORY,
            &[
                hidden("conversation_id", Thing::Conversation),
                hidden("around", Thing::Message),
            ],
        )
    },
    Row {
        member: SUCCESS,
        query: "before={before}",
        ..row(
            HISTORY,
            &[
                hidden("conversation_id", Thing::Conversation),
                hidden("before", Thing::Message),
            ],
        )
    },
    Row {
        member: SUCCESS,
        query: "after={after}",
        ..row(
            HISTORY,
            &[
                hidden("conversation_id", Thing::Conversation),
                hidden("after", Thing::Message),
            ],
        )
    },
    Row {
        ok: &[204],
        member: SUCCESS,
        body: r#"{"status":"read"}"#,
        ..row("PUT /api/v1/messages/{message_id}/status", MESSAGE)
    },
    Row {
        ok: &[204],
        member: SUCCESS,
        body: r#"{"status":"delivered"}"#,
        ..row("PUT /api/v1/messages/{message_id}/status", MESSAGE)
    },
    Row {
        member: SUCCESS,
        ..row("GET /api/v1/messages/{message_id}/status", MESSAGE)
    },
    Row {
        member: SUCCESS,
        query: "query=heron",
        ..row("GET /api/v1/conversations/{conversation_id}/search", CONVERSATION)
    },
    Row {
        member: SUCCESS,
        query: "query=heron&sender={sender}",
        ..row(
            "GET /api/v1/conversations/{conversation_id}/search",
            &[
                hidden("conversation_id", Thing::Conversation),
                place("sender", Thing::User),
            ],
        )
    },
    Row {
        query: "query=heron",
        ..caller("GET /api/v1/search")
    },
    Row {
        query: "query=heron&sender={sender}",
        ..row("GET /api/v1/search", &[place("sender", Thing::User)])
    },
];
