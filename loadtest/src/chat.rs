//! Users, device tokens and conversations for the `chat` scenario, made over Godwit's REST interface as docs/protocol.md
//! has it, and the protobuf bytes in front of a sent text. No MQTT here.

use crate::spec::{ChatPair, Login};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Requests at a time: registration hashes a password, which is the server's CPU time, so more would not help.
const SETUP_THREADS: usize = 4;
/// How often one request is repeated after 429 or 503 before giving up.
const MAX_TRIES: u32 = 20;
/// Longest wait between tries.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Appends what precedes the text in a `SendRequest`: content type text, then the text's tag and length. The text is
/// the last field, so a message is this and the text.
pub(crate) fn put_send_prefix(text_len: usize, out: &mut Vec<u8>) {
    const CONTENT_TYPE_TEXT: [u8; 2] = [2 << 3, 1];
    const TEXT: u8 = 3 << 3 | 2;
    out.extend_from_slice(&CONTENT_TYPE_TEXT);
    out.push(TEXT);
    let mut rest = text_len.max(crate::payload::MIN_LEN);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Registers two users a pair, gives each a device token and makes their conversations. Calls `progress` with the
/// number of pairs made so far.
///
/// # Errors
/// When the server refuses or cannot be reached, with its answer.
pub(crate) fn make_pairs(
    http: &str,
    run_id: &str,
    count: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> anyhow::Result<Vec<ChatPair>> {
    let api = Api::new(http);
    let next = AtomicUsize::new(0);
    let pairs: Mutex<Vec<(usize, ChatPair)>> = Mutex::new(Vec::with_capacity(count));
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..SETUP_THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || lock(&failure).is_some() {
                        return;
                    }
                    match api.make_pair(run_id, number) {
                        Ok(pair) => {
                            let mut made = lock(&pairs);
                            made.push((number, pair));
                            progress(made.len());
                        }
                        Err(error) => *lock(&failure) = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    let mut made = std::mem::take(&mut *lock(&pairs));
    made.sort_by_key(|(number, _)| *number);
    Ok(made.into_iter().map(|(_, pair)| pair).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Api {
    base: String,
    agent: ureq::Agent,
}

struct User {
    id: String,
    access_token: String,
    login: Login,
}

impl Api {
    fn new(http: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Self {
            base: format!("{}/api/v1", http.trim_end_matches('/')),
            agent: config.into(),
        }
    }

    fn make_pair(&self, run_id: &str, number: usize) -> anyhow::Result<ChatPair> {
        let sender = self.make_user(&format!("{run_id}-a{number}"))?;
        let recipient = self.make_user(&format!("{run_id}-b{number}"))?;
        let body = json!({ "type": "one_on_one", "user_id": recipient.id });
        let made = self.post("/conversations", Some(&sender.access_token), &body)?;
        let conversation =
            text(&made, &["id", "conversation_id"]).context("POST /conversations gave no id")?;
        Ok(ChatPair {
            sender: sender.login,
            recipient: recipient.login,
            conversation,
        })
    }

    fn make_user(&self, name: &str) -> anyhow::Result<User> {
        let account = json!({ "username": name, "password": format!("{name}-Loadtest-1") });
        let made = self.post("/users", None, &account)?;
        let id = text(&made, &["id", "user_id"]).context("POST /users gave no id")?;
        let session = self.post("/auth/login", None, &account)?;
        let access_token =
            text(&session, &["access_token"]).context("POST /auth/login gave no access_token")?;
        let wanted = json!({ "name": "loadtest", "scopes": ["chat"] });
        let device = self.post("/auth/device-tokens", Some(&access_token), &wanted)?;
        let password =
            text(&device, &["token", "device_token"]).context("POST /auth/device-tokens gave no token")?;
        Ok(User {
            id,
            access_token,
            login: Login {
                username: name.to_owned(),
                password,
            },
        })
    }

    fn post(&self, path: &str, bearer: Option<&str>, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut pause = Duration::from_millis(200);
        for _ in 0..MAX_TRIES {
            let mut request = self.agent.post(&url);
            if let Some(token) = bearer {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut response = request.send_json(body).with_context(|| format!("POST {url}"))?;
            let status = response.status().as_u16();
            if status == 429 || status == 503 {
                thread::sleep(pause);
                pause = (pause * 2).min(MAX_PAUSE);
                continue;
            }
            let answer = response.body_mut().read_to_string().unwrap_or_default();
            if !(200..300).contains(&status) {
                // An error body is a problem document; it never holds the password or token that was sent.
                bail!("POST {url} was answered {status}: {answer}");
            }
            return serde_json::from_str(&answer).with_context(|| format!("POST {url} gave no JSON"));
        }
        bail!("POST {url} was answered 429 or 503 {MAX_TRIES} times")
    }
}

fn text(value: &Value, names: &[&str]) -> Option<String> {
    names
        .iter()
        .find_map(|name| Some(value.get(name)?.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Template;

    #[test]
    fn the_bytes_of_a_send_request_are_tag_length_and_text_and_nothing_more() {
        let mut before = Vec::new();
        put_send_prefix(200, &mut before);
        assert_eq!(before, [0x10, 1, 0x1a, 0xc8, 1]);
        assert_eq!(
            Template::new(&before, 200, b"", 1).bytes().len(),
            before.len() + 200
        );
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_an_error_that_names_the_request() {
        let error = make_pairs("http://127.0.0.1:1", "t", 3, &|_| {}).expect_err("nobody listens on port 1");
        assert!(
            format!("{error:#}").contains("POST http://127.0.0.1:1/api/v1/users"),
            "{error:#}"
        );
    }
}
