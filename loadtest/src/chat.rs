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
    time::{Duration, Instant},
};

/// Requests at a time: registration hashes a password, which is the server's CPU time, so more would not help.
const SETUP_THREADS: usize = 4;
/// How often one request is repeated after 429 or 503 before giving up.
const MAX_TRIES: u32 = 20;
/// Pause between two searches for a message that is not found yet.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);
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

/// How long after the load the newest message of each given conversation became findable, in seconds, the slowest of
/// them; `None` when one was not found within `patience` or the server does not answer as the contract says.
pub(crate) fn index_lag(http: &str, pairs: &[ChatPair], patience: Duration) -> Option<f64> {
    let api = Api::new(http);
    let began = Instant::now();
    for pair in pairs {
        let newest = api.get(pair, "messages?limit=1")?;
        let content = newest
            .get("messages")?
            .get(0)?
            .get("content")?
            .as_str()?
            .to_owned();
        let stamp = content.split_whitespace().next()?.to_owned();
        loop {
            let found = api.get(pair, &format!("search?query={stamp}&limit=1"))?;
            if found
                .get("results")?
                .as_array()
                .is_some_and(|results| !results.is_empty())
            {
                break;
            }
            if began.elapsed() > patience {
                return None;
            }
            thread::sleep(SEARCH_PAUSE);
        }
    }
    Some(began.elapsed().as_secs_f64())
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
            access_token: sender.access_token,
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
        let token_id = text(&device, &["id"]).context("POST /auth/device-tokens gave no id")?;
        Ok(User {
            id,
            access_token,
            login: Login {
                username: name.to_owned(),
                password,
                token_id,
            },
        })
    }

    fn get(&self, pair: &ChatPair, rest: &str) -> Option<Value> {
        let url = format!("{}/conversations/{}/{rest}", self.base, pair.conversation);
        let bearer = format!("Bearer {}", pair.access_token);
        let mut response = self.agent.get(&url).header("authorization", bearer).call().ok()?;
        let answer = response.body_mut().read_to_string().ok()?;
        response
            .status()
            .is_success()
            .then(|| serde_json::from_str(&answer).ok())?
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
    use godwit_wire::proto::chat::{ContentType, SendRequest, send_request::Content};
    use prost::Message as _;
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        sync::Arc,
    };

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
    fn the_contract_reads_a_generated_send_request_as_text() {
        for len in [36, 127, 128, 200, 20_000] {
            let mut before = Vec::new();
            put_send_prefix(len, &mut before);
            let template = Template::new(&before, len, b"", 5);
            let request = SendRequest::decode(template.bytes()).expect("a SendRequest");
            assert_eq!(request.content_type(), ContentType::Text);
            let Some(Content::Text(text)) = request.content else {
                panic!("no text")
            };
            assert_eq!(text.as_bytes(), &template.bytes()[before.len()..]);
        }
    }

    /// A server that answers one request a connection, the first of all with 429, and counts the requests by path.
    fn stand_in(seen: Arc<Mutex<Vec<String>>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let lower = head.to_lowercase();
                let length = lower
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.lines().next());
                let mut body = vec![0; length.and_then(|digits| digits.trim().parse().ok()).unwrap_or(0)];
                reader.read_exact(&mut body).expect("the body");
                let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
                let mut seen = lock(&seen);
                let (status, answer) = match path.as_str() {
                    _ if seen.is_empty() => ("429 Too Many Requests", String::new()),
                    "/api/v1/users" => {
                        let asked: Value = serde_json::from_slice(&body).expect("JSON");
                        (
                            "201 Created",
                            json!({ "id": format!("id-of-{}", asked["username"].as_str().expect("a name")) })
                                .to_string(),
                        )
                    }
                    "/api/v1/auth/login" => ("200 OK", json!({ "access_token": "at" }).to_string()),
                    "/api/v1/auth/device-tokens" if lower.contains("authorization: bearer at") => (
                        "201 Created",
                        json!({ "token": "gdt_x", "id": "token-id" }).to_string(),
                    ),
                    "/api/v1/conversations" => ("201 Created", json!({ "id": "conv" }).to_string()),
                    path if path.contains("/messages?") => (
                        "200 OK",
                        json!({ "messages": [{ "content": "GWLT00 river" }] }).to_string(),
                    ),
                    "/api/v1/conversations/conv/search?query=GWLT00&limit=1" => {
                        let tries = seen.iter().filter(|path| path.contains("/search?")).count();
                        let results = if tries < 2 { json!([]) } else { json!([{}]) };
                        ("200 OK", json!({ "results": results }).to_string())
                    }
                    _ => ("404 Not Found", "{\"code\":\"not_found\"}".to_owned()),
                };
                seen.push(path);
                let length = answer.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
                );
                reader.get_mut().write_all(answer.as_bytes()).expect("answered");
            }
        });
        format!("http://{address}")
    }

    #[test]
    fn users_tokens_and_conversations_are_made_as_the_contract_has_it_and_a_busy_server_is_asked_again() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let http = stand_in(seen.clone());
        let pairs = make_pairs(&http, "t", 2, &|_| {}).expect("made");
        assert_eq!(pairs.len(), 2);
        assert_eq!(
            (
                pairs[1].sender.username.as_str(),
                pairs[1].recipient.username.as_str()
            ),
            ("t-a1", "t-b1")
        );
        assert_eq!(
            (pairs[0].sender.password.as_str(), pairs[0].conversation.as_str()),
            ("gdt_x", "conv")
        );
        // Two pairs: four users with a login and a device token each, two conversations, and one try again.
        assert_eq!(lock(&seen).len(), 2 * (2 * 3 + 1) + 1);
    }

    #[test]
    fn the_lag_of_the_index_ends_when_the_newest_message_is_found() {
        let seen = Arc::new(Mutex::new(vec!["not the first".to_owned()]));
        let http = stand_in(seen.clone());
        let login = Login {
            username: "a".into(),
            password: "b".into(),
            token_id: String::new(),
        };
        let pair = ChatPair {
            sender: login.clone(),
            recipient: login,
            conversation: "conv".into(),
            access_token: "at".into(),
        };
        let lag = index_lag(&http, std::slice::from_ref(&pair), Duration::from_secs(10));
        assert!(
            lag.is_some_and(|seconds| seconds >= 2.0 * SEARCH_PAUSE.as_secs_f64()),
            "{lag:?}"
        );
        let other = ChatPair {
            conversation: "other".into(),
            ..pair
        };
        assert_eq!(
            index_lag(&http, &[other], Duration::from_millis(200)),
            None,
            "never found"
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
