//! The API as clients meet it, without a socket: the real router over real workers with the accounts and ingest roles on
//! the embedded store. Users' mailboxes are played by a role that keeps everything it is offered.

// A module of several test crates, each of which uses a part of it.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use godwit_accounts::{Accounts, Tokens};
use godwit_cluster::{Cx, Flow, Loading, Reply, Role, Router, Tag, Workers};
use godwit_history_api::{Api, Config, Metrics, MqttUpgrade, Parts, Rate, Register, SearchIndex};
use godwit_ingest::Ingest;
use godwit_store::embedded::{Embedded, Options};
use godwit_store::{Outcome, ReadAnswer, Store, View};
use godwit_wire::command::{Answer, Command};
use godwit_wire::ids::Key;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

struct Mailboxes;

impl Role for Mailboxes {
    fn apply(&mut self, cx: &mut Cx<'_>, _: &Key, _: Command, reply: Reply) -> Flow {
        cx.answer(reply, Answer::Kept { gone: Vec::new() });
        Flow::Taken
    }
    fn loaded(&mut self, _: &mut Cx<'_>, _: &Key, _: Vec<ReadAnswer>) -> Loading {
        Loading::Ready
    }
    fn load_failed(&mut self, _: &mut Cx<'_>, _: &Key) {}
    fn stored(&mut self, _: &mut Cx<'_>, _: Tag, _: Outcome) {}
    fn answered(&mut self, _: &mut Cx<'_>, _: Tag, _: Answer) {}
    fn taken_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
    fn given_up(&mut self, _: &mut Cx<'_>, _: &[u16], _: View) {}
}

pub struct Site {
    pub api: Api,
    /// Why the node is not ready.
    pub why: Arc<Mutex<Option<String>>>,
    pub http: axum::Router,
    pub router: Router,
    pub metrics: Metrics,
    pub store: Arc<dyn Store>,
    workers: Option<Workers>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Response {
    /// The body, if the status is the one expected.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.body
    }

    /// Checks the form of a problem, and says its code.
    #[track_caller]
    pub fn problem(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let code = self.body["code"].as_str().expect("a code").to_owned();
        assert_eq!(self.body["type"], format!("urn:godwit:error:{code}"));
        assert_eq!(self.body["status"], status);
        assert!(!self.body["title"].as_str().unwrap().is_empty());
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        assert!(self.body["retryable"].is_boolean());
        assert_eq!(
            self.body["request_id"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        let retry = matches!(status, 429 | 503);
        assert_eq!(
            self.headers.contains_key(header::RETRY_AFTER),
            retry,
            "Retry-After with {status}"
        );
        code
    }
}

/// A user of the tests.
#[derive(Clone, Debug)]
pub struct Someone {
    pub id: String,
    pub name: String,
    pub token: String,
    pub refresh: String,
    pub session: String,
}

pub const PASSWORD: &str = "correct horse";

impl Site {
    pub fn open() -> Self {
        Self::with(
            Config {
                registration: Register::Open,
                per_user: Rate::NONE,
                ..Config::default()
            },
            None,
            None,
        )
    }

    pub fn with(config: Config, search: Option<SearchIndex>, mqtt: Option<MqttUpgrade>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 4 << 20,
            ..Options::default()
        };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&folder.path().join("store"), options).unwrap());
        let tokens = Arc::new(Tokens::open(&folder.path().join("signing.key")).unwrap());
        let make = {
            let tokens = tokens.clone();
            move |_: u16| -> [Box<dyn Role>; 3] {
                let accounts = Accounts::new(Default::default(), tokens.clone(), Default::default());
                let ingest = Ingest::new(godwit_ingest::Config::default(), Default::default());
                [Box::new(accounts), Box::new(Mailboxes), Box::new(ingest)]
            }
        };
        let workers = Workers::start(2, &store, Arc::new(make)).unwrap();
        let router = workers.router().clone();
        let why: Arc<Mutex<Option<String>>> = Arc::default();
        let not_ready = {
            let why = why.clone();
            move || why.lock().unwrap().clone()
        };
        let metrics = Metrics::default();
        let api = Api::new(Parts {
            whereabouts: godwit_history_api::connect::alone(godwit_history_api::connect::Reached::default()),
            router: router.clone(),
            store: store.clone(),
            tokens,
            search,
            config,
            metrics: metrics.clone(),
            clock: Arc::new(now),
            not_ready: Some(Arc::new(not_ready)),
            mqtt,
        });
        let http = godwit_history_api::router(api.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            api,
            why,
            http,
            router,
            metrics,
            store,
            workers: Some(workers),
            runtime,
            _folder: folder,
        }
    }

    pub fn send(&self, request: Request<Body>) -> Response {
        self.runtime.block_on(async {
            let response = self.http.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Response {
                status: parts.status,
                headers: parts.headers,
                body,
                text,
            }
        })
    }

    pub fn keyed(
        &self,
        method: &str,
        path: &str,
        token: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap())
    }

    pub fn get(&self, path: &str, token: &str) -> Response {
        self.keyed("GET", path, token, None, None)
    }

    pub fn post(&self, path: &str, token: &str, body: Value) -> Response {
        self.keyed("POST", path, token, None, Some(body))
    }

    pub fn put(&self, path: &str, token: &str, body: Value) -> Response {
        self.keyed("PUT", path, token, None, Some(body))
    }

    pub fn delete(&self, path: &str, token: &str) -> Response {
        self.keyed("DELETE", path, token, None, None)
    }

    /// Registers a user and logs in.
    pub fn someone(&self, name: &str) -> Someone {
        self.post(
            "/api/v1/users",
            "",
            json!({"username": name, "password": PASSWORD}),
        )
        .expect(201);
        self.login(name, PASSWORD)
    }

    pub fn login(&self, name: &str, password: &str) -> Someone {
        let body = json!({"username": name, "password": password});
        let pair = self.post("/api/v1/auth/login", "", body).expect(200);
        let text = |field: &str| pair[field].as_str().unwrap().to_owned();
        Someone {
            id: text("user_id"),
            name: text("username"),
            token: text("access_token"),
            refresh: text("refresh_token"),
            session: text("session_id"),
        }
    }

    /// The one-to-one conversation of two.
    pub fn direct(&self, of: &Someone, with: &Someone) -> String {
        let body = json!({"type": "one_on_one", "user_id": with.id});
        let response = self.post("/api/v1/conversations", &of.token, body);
        assert!(response.status.is_success(), "{}", response.text);
        response.body["conversation_id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
        let _ = self.store.close();
    }
}
