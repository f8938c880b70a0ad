//! The people and things that the matrices are about: who is in which conversation, who blocks whom, whose token has
//! ended. Made over REST on a node of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use godwit_e2e::binaries::Program;
use godwit_e2e::node::Node;
use rand::RngExt;
use serde_json::{Value, json};

use crate::http::{Got, Http};

/// Of everybody here.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// In the texts and names of alice's conversations; nobody else may ever see it.
pub(crate) const SECRET: &str = "heron-secret";

/// A user.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Access token of a login session.
    pub(crate) access: String,
    /// Device tokens: of every scope, and of one each.
    pub(crate) device: String,
    pub(crate) only_chat: String,
    pub(crate) only_topics: String,
    pub(crate) only_rest: String,
}

/// Whose an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Column {
    /// Mine, or I am in.
    Mine,
    /// There, and somebody else's.
    Others,
    /// Well-formed, and nobody's.
    Absent,
    /// A word that is no id, or a form that only looks like the contract's.
    Reserved,
    /// Wildcards.
    Wildcard,
}

impl Column {
    pub(crate) const ALL: [Self; 5] = [
        Self::Mine,
        Self::Others,
        Self::Absent,
        Self::Reserved,
        Self::Wildcard,
    ];
}

/// Everything.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) http: Http,
    pub(crate) alice: Person,
    /// In `ours` and, as a plain member, in alice's groups.
    pub(crate) bob: Person,
    /// Shares nothing with alice.
    pub(crate) carol: Person,
    /// Member of alice's groups.
    pub(crate) dave: Person,
    /// Has blocked alice.
    pub(crate) erin: Person,
    /// Logs in and out.
    pub(crate) gina: Person,
    /// alice and bob.
    pub(crate) ours: String,
    /// carol and dave.
    pub(crate) theirs: String,
    /// alice's group with bob and dave.
    pub(crate) group: String,
    /// carol's group with dave.
    pub(crate) their_group: String,
    pub(crate) our_message: String,
    pub(crate) their_message: String,
    /// alice's access token of a session that she logged out of.
    pub(crate) ended_access: String,
    /// alice's device token that she ended.
    pub(crate) ended_device: String,
    /// carol's.
    pub(crate) their_session: String,
    pub(crate) their_token: String,
    /// Goes last.
    _folder: tempfile::TempDir,
}

static FRESH: AtomicU32 = AtomicU32::new(0);

/// A user name that nobody has.
pub(crate) fn fresh_name() -> String {
    format!("fresh{}", FRESH.fetch_add(1, Ordering::Relaxed))
}

/// A version 7 UUID that nobody has.
pub(crate) fn absent_id() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[..6].copy_from_slice(&[0x01, 0x98, 0xc7, 0xa3, 0x0b, 0x12]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

impl World {
    /// Starts a node and settles everybody in.
    pub(crate) fn new(arguments: &[&str]) -> Result<Self> {
        Self::with(arguments, &[])
    }

    /// As [`Self::new`], with more in the environment.
    pub(crate) fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let mut node = Node::new(&Program::Godwit.path()?, &data, &log)?.arguments(arguments);
        for (name, value) in environment {
            node = node.environment(name, value);
        }
        node.start()?;
        let http = Http::new(&node.http());
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| person(&http, name));
        let [dave, erin, gina] = ["dave", "erin", "gina"].map(|name| person(&http, name));
        let (alice, bob, carol) = (alice?, bob?, carol?);
        let (dave, erin, gina) = (dave?, erin?, gina?);

        let ours = conversation(&http, &alice, &bob)?;
        let theirs = conversation(&http, &carol, &dave)?;
        let group = new_group(&http, &alice, SECRET, &[&bob, &dave])?;
        let their_group = new_group(&http, &carol, "Harbour", &[&dave])?;
        let our_message = message(&http, &alice, &ours, &format!("{SECRET} from alice"))?;
        let their_message = message(&http, &carol, &theirs, "a word between carol and dave")?;
        let blocked = json!({"state": "blocked"});
        let block = format!("/api/v1/contacts/{}", alice.id);
        done(http.call("PUT", &block, Some(&erin.access), Some(&blocked))?)?;
        let ask = json!({"user_id": alice.id});
        done(http.call("POST", "/api/v1/contacts", Some(&bob.access), Some(&ask))?)?;

        let ended_access = login(&http, &alice.name)?.0;
        done(http.call("POST", "/api/v1/auth/logout", Some(&ended_access), None)?)?;
        let (ended_device, id) = device_token(&http, &alice.access, &["chat", "topics", "rest"])?;
        let path = format!("/api/v1/auth/device-tokens/{id}");
        done(http.call("DELETE", &path, Some(&alice.access), None)?)?;
        let their_session = login(&http, &carol.name)?.1;
        let their_token = device_token(&http, &carol.access, &["chat"])?.1;
        Ok(Self {
            node,
            http,
            alice,
            bob,
            carol,
            dave,
            erin,
            gina,
            ours,
            theirs,
            group,
            their_group,
            our_message,
            their_message,
            ended_access,
            ended_device,
            their_session,
            their_token,
            _folder: folder,
        })
    }

    /// A group of alice's with bob and dave that no other test has touched.
    pub(crate) fn fresh_group(&self) -> Result<String> {
        new_group(&self.http, &self.alice, SECRET, &[&self.bob, &self.dave])
    }
}

/// The body of a success.
pub(crate) fn done(got: Got) -> Result<Value> {
    anyhow::ensure!((200..300).contains(&got.status), "{} {}", got.status, got.body);
    Ok(got.body)
}

fn text(value: &Value, field: &str) -> Result<String> {
    let found = value[field]
        .as_str()
        .with_context(|| format!("no {field} in {value}"))?;
    Ok(found.to_owned())
}

fn person(http: &Http, name: &str) -> Result<Person> {
    let body = json!({"username": name, "password": PASSWORD});
    let made = done(http.call("POST", "/api/v1/users", None, Some(&body))?)?;
    let access = login(http, name)?.0;
    let token = |scopes: &[&str]| Ok::<_, anyhow::Error>(device_token(http, &access, scopes)?.0);
    Ok(Person {
        name: name.to_owned(),
        id: text(&made, "user_id")?,
        device: token(&["chat", "topics", "rest"])?,
        only_chat: token(&["chat"])?,
        only_topics: token(&["topics"])?,
        only_rest: token(&["rest"])?,
        access,
    })
}

/// Access token, session id and refresh token of a new login session.
pub(crate) fn login(http: &Http, name: &str) -> Result<(String, String, String)> {
    let body = json!({"username": name, "password": PASSWORD});
    let session = done(http.call("POST", "/api/v1/auth/login", None, Some(&body))?)?;
    Ok((
        text(&session, "access_token")?,
        text(&session, "session_id")?,
        text(&session, "refresh_token")?,
    ))
}

/// A new device token and its id.
pub(crate) fn device_token(http: &Http, access: &str, scopes: &[&str]) -> Result<(String, String)> {
    let body = json!({"name": "e2e", "scopes": scopes});
    let made = done(http.call("POST", "/api/v1/auth/device-tokens", Some(access), Some(&body))?)?;
    Ok((text(&made, "token")?, text(&made, "id")?))
}

fn conversation(http: &Http, one: &Person, other: &Person) -> Result<String> {
    let body = json!({"type": "one_on_one", "user_id": other.id});
    let made = done(http.call("POST", "/api/v1/conversations", Some(&one.access), Some(&body))?)?;
    text(&made, "conversation_id")
}

fn new_group(http: &Http, admin: &Person, name: &str, members: &[&Person]) -> Result<String> {
    let members: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    let body = json!({"name": name, "members": members});
    let made = done(http.call("POST", "/api/v1/groups", Some(&admin.access), Some(&body))?)?;
    text(&made, "conversation_id")
}

fn message(http: &Http, sender: &Person, conversation: &str, content: &str) -> Result<String> {
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let body = json!({"content": content});
    let made = done(http.call("POST", &path, Some(&sender.access), Some(&body))?)?;
    text(&made, "message_id")
}
