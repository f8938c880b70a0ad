//! The REST door as a client uses it: registration, tokens, conversations, groups, messages. Blocking; one agent keeps
//! its connections for all callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries of a page of history: the most that is given.
const PAGE: usize = 200;

/// Why a request gave no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The problem's code; `closed` if there was no answer.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Refused {
    /// Whether nobody knows what came of the request.
    pub fn is_unknown(&self) -> bool {
        self.status == 0 || self.status == 503 || self.status == 429
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

impl std::error::Error for Refused {}

type Answer = Result<(u16, Value), Refused>;

/// The door of one node.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    agent: ureq::Agent,
    busy: Arc<AtomicU64>,
}

impl Api {
    /// For `http://127.0.0.1:PORT`.
    pub fn new(http: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_idle_connections_per_host(16)
            .build();
        Self {
            base: format!("{http}/api/v1"),
            agent: config.into(),
            busy: Arc::default(),
        }
    }

    /// GET.
    ///
    /// # Errors
    /// Without a success.
    pub fn get(&self, path: &str, token: &str) -> Answer {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {token}"));
        Self::judge(request.call())
    }

    /// As [`Api::get`], again for a while when the door is busy.
    ///
    /// # Errors
    /// The last refusal.
    pub fn get_patiently(&self, path: &str, token: &str) -> Answer {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.get(path, token) {
                Err(refused) if refused.is_unknown() && pause < Duration::from_secs(5) => {
                    self.busy.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    /// How often reads were told to come again.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// POST.
    ///
    /// # Errors
    /// Without a success.
    pub fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Self::judge(request.send_json(body))
    }

    /// DELETE.
    ///
    /// # Errors
    /// Without a success.
    pub fn delete(&self, path: &str, token: &str) -> Answer {
        let request = self.agent.delete(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {token}"));
        Self::judge(request.call())
    }

    fn judge(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let closed = |error: ureq::Error| Refused {
            status: 0,
            code: "closed".to_owned(),
            detail: error.to_string(),
        };
        let mut answer = answer.map_err(closed)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(64 << 20);
        let text = body.read_to_string().map_err(closed)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            return Ok((status, value));
        }
        Err(Refused {
            status,
            code: value["code"].as_str().unwrap_or("?").to_owned(),
            detail: value["detail"].as_str().unwrap_or(&text).to_owned(),
        })
    }

    /// As [`Api::post`], again for a while when the door is busy or away: only for what may be done twice.
    ///
    /// # Errors
    /// The last refusal.
    pub fn post_patiently(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.post(path, token, body) {
                Err(refused) if refused.is_unknown() && pause < Duration::from_secs(10) => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                answer => return answer,
            }
        }
    }

    /// Registers a user; gives the id.
    ///
    /// # Errors
    /// When it is refused.
    pub fn register(&self, name: &str, password: &str) -> Result<String, Refused> {
        let body = json!({ "username": name, "password": password });
        let (_, made) = self.post_patiently("/users", None, &body)?;
        field(&made, &["id", "user_id"])
    }

    /// Logs in and makes a device token that may do everything.
    ///
    /// # Errors
    /// When it is refused.
    pub fn device_token(&self, name: &str, password: &str) -> Result<String, Refused> {
        let body = json!({ "username": name, "password": password });
        let (_, session) = self.post_patiently("/auth/login", None, &body)?;
        let access = field(&session, &["access_token"])?;
        let body = json!({ "name": "e2e", "scopes": ["chat", "topics", "rest"] });
        let (_, made) = self.post_patiently("/auth/device-tokens", Some(&access), &body)?;
        field(&made, &["token", "device_token"])
    }

    /// Makes or finds the one-to-one conversation with a user.
    ///
    /// # Errors
    /// When it is refused.
    pub fn direct(&self, token: &str, with: &str) -> Result<String, Refused> {
        let body = json!({ "type": "one_on_one", "user_id": with });
        let (_, made) = self.post_patiently("/conversations", Some(token), &body)?;
        field(&made, &["id", "conversation_id"])
    }

    /// Makes a group with these members besides its maker.
    ///
    /// # Errors
    /// When it is refused.
    pub fn group(&self, token: &str, name: &str, members: &[&str]) -> Result<String, Refused> {
        let body = json!({ "name": name, "members": members });
        let (_, made) = self.post_patiently("/groups", Some(token), &body)?;
        field(&made, &["id", "conversation_id"])
    }

    /// Sends a message; gives status, message id and sequence number.
    ///
    /// # Errors
    /// When it is refused, or nobody knows.
    pub fn send(
        &self,
        token: &str,
        conversation: &str,
        client_message_id: &str,
        text: &str,
    ) -> Result<(u16, String, u64), Refused> {
        let body = json!({ "client_message_id": client_message_id, "content_type": "text", "content": text });
        let path = format!("/conversations/{conversation}/messages");
        let (status, sent) = self.post(&path, Some(token), &body)?;
        let id = field(&sent, &["message_id"])?;
        Ok((status, id, sent["sequence_number"].as_u64().unwrap_or(0)))
    }

    /// The whole history of a conversation, oldest first, entry objects as they are served.
    ///
    /// # Errors
    /// When a page is refused or the pages do not go on.
    pub fn history(&self, token: &str, conversation: &str) -> Result<Vec<Value>, Refused> {
        let mut entries: Vec<Value> = Vec::new();
        loop {
            let after = entries
                .last()
                .map_or(0, |entry| entry["sequence_number"].as_u64().unwrap_or(0));
            let path = format!("/conversations/{conversation}/messages?limit={PAGE}&after={after}");
            let (_, mut page) = self.get_patiently(&path, token)?;
            let Value::Array(more) = page["messages"].take() else {
                return Err(odd(&page, "messages"));
            };
            let none = more.is_empty();
            entries.extend(more);
            if none || page["has_more"] != Value::Bool(true) {
                return Ok(entries);
            }
        }
    }
}

fn field(value: &Value, names: &[&str]) -> Result<String, Refused> {
    let found = names.iter().find_map(|name| value.get(name)?.as_str());
    found.map(str::to_owned).ok_or_else(|| odd(value, names[0]))
}

fn odd(value: &Value, name: &str) -> Refused {
    let mut shown = value.to_string();
    shown.truncate(300);
    Refused {
        status: 200,
        code: "odd".to_owned(),
        detail: format!("no `{name}` in {shown}"),
    }
}
