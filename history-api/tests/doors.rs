//! The other doors of the HTTP ports, over real sockets: the WebSocket upgrade, the admin listener, CORS, health.

#![allow(clippy::unwrap_used)]

mod api;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{PASSWORD, Site};
use axum::body::Body;
use axum::http::{Request, header};
use godwit_history_api::{Config, MqttUpgrade, Register, admin_router, take_apart};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

const HANDSHAKE: &str = "GET /mqtt HTTP/1.1\r\nHost: chat.example.org\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

type Handed = Arc<Mutex<Vec<(TcpStream, bytes::Bytes, SocketAddr)>>>;

async fn served(site: &Site) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = site
        .http
        .clone()
        .into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(10), stream.read_u8())
            .await
            .unwrap();
        head.push(byte.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_websocket_for_mqtt_leaves_http_with_what_was_already_read() {
    let handed = Handed::default();
    let mqtt: MqttUpgrade = {
        let handed = handed.clone();
        Arc::new(move |upgraded, peer| {
            let (stream, read) = take_apart::<TcpStream>(upgraded).expect("a TCP connection");
            handed.lock().unwrap().push((stream, read, peer));
        })
    };
    let site = Site::with(Config::default(), None, Some(mqtt));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = served(&site).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        // The first frame comes in the same segment as the handshake.
        client
            .write_all(format!("{HANDSHAKE}\r\nfirst").as_bytes())
            .await
            .unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // The example of RFC 6455, 1.3.
        assert!(
            answer
                .to_lowercase()
                .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{answer}"
        );
        assert!(
            answer.to_lowercase().contains("sec-websocket-protocol: mqtt"),
            "{answer}"
        );
        let (mut stream, read, peer) = loop {
            if let Some(handed) = handed.lock().unwrap().pop() {
                break handed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!((&read[..], peer), (&b"first"[..], client.local_addr().unwrap()));
        stream.write_all(b"pong").await.unwrap();
        let mut pong = [0; 4];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"pong");
    });
}

#[test]
fn a_handshake_without_what_it_must_have_is_refused() {
    let mqtt: MqttUpgrade = Arc::new(|_, _| panic!("nothing may be handed over"));
    let site = Site::with(Config::default(), None, Some(mqtt));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = served(&site).await;
        for (from, to, status) in [
            (
                "Sec-WebSocket-Protocol: mqtt",
                "Sec-WebSocket-Protocol: chat",
                400,
            ),
            ("Sec-WebSocket-Protocol: mqtt\r\n", "", 400),
            ("Version: 13", "Version: 8", 400),
            ("Upgrade: websocket", "Upgrade: h2c", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
            (
                "Host: chat.example.org",
                "Host: chat.example.org\r\nOrigin: https://evil.example",
                403,
            ),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client
                .write_all(format!("{}\r\n", HANDSHAKE.replace(from, to)).as_bytes())
                .await
                .unwrap();
            let answer = head(&mut client).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{to}: {answer}"
            );
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    });
}

#[test]
fn the_admin_listener_counts_makes_users_and_is_not_the_other_port() {
    let site = Site::with(Config::default(), None, None);
    let mut registry = Registry::default();
    let metrics = godwit_history_api::Metrics::default();
    metrics.register(&mut registry);
    metrics.logins_limited.inc();
    let admin = admin_router(site.api.clone(), Arc::new(registry));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let call = |method: &str, path: &str, body: serde_json::Value| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body.to_string()))
            .unwrap();
        runtime.block_on(async {
            let response = admin.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(bytes.to_vec()).unwrap())
        })
    };
    let (status, text) = call("GET", "/metrics", json!(null));
    assert_eq!(status, 200);
    assert!(text.contains("godwit_http_logins_limited_total 1"), "{text}");
    // Registration is closed here, but not to the operator.
    let (status, text) = call(
        "POST",
        "/users",
        json!({"username": "root", "password": PASSWORD, "admin": true}),
    );
    assert_eq!(status, 201, "{text}");
    let root = site.login("root", PASSWORD);
    assert_eq!(
        site.get("/api/v1/users/me", &root.token).expect(200)["admin"],
        true
    );
    assert_eq!(call("GET", "/readyz", json!(null)).0, 200);
    assert_eq!(call("GET", "/api/v1/users/me", json!(null)).0, 404);
    assert_eq!(site.get("/metrics", "").problem(404), "not_found");
}

#[test]
fn a_node_that_goes_away_is_alive_and_not_ready() {
    let site = Site::open();
    site.get("/readyz", "").expect(200);
    *site.why.lock().unwrap() = Some("no view yet".to_owned());
    let told = site.get("/readyz", "");
    assert_eq!(told.body["detail"], "no view yet");
    assert_eq!(told.problem(503), "unavailable");
    site.get("/healthz", "").expect(200);
    *site.why.lock().unwrap() = None;
    site.get("/readyz", "").expect(200);
    site.api.drain();
    let told = site.get("/readyz", "");
    assert!(told.body["detail"].as_str().unwrap().starts_with("draining"));
    assert_eq!(told.problem(503), "unavailable");
    site.get("/healthz", "").expect(200);
}

#[test]
fn only_named_origins_may_call_from_browsers() {
    let origins = vec!["https://app.example.org".to_owned()];
    let site = Site::with(
        Config {
            origins,
            registration: Register::Open,
            ..Config::default()
        },
        None,
        None,
    );
    let preflight = |origin: &str| {
        let request = Request::builder()
            .method("OPTIONS")
            .uri("/api/v1/users")
            .header(header::ORIGIN, origin);
        let request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        let request = request.header(
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            "authorization,idempotency-key",
        );
        site.send(request.body(Body::empty()).unwrap()).headers
    };
    let allowed = preflight("https://app.example.org");
    assert_eq!(
        allowed[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.org"
    );
    assert!(
        preflight("https://evil.example")
            .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)
            .is_none()
    );
    // An error is readable by the page too.
    let request = Request::builder()
        .uri("/api/v1/users/me")
        .header(header::ORIGIN, "https://app.example.org");
    let refused = site.send(request.body(Body::empty()).unwrap());
    assert_eq!(
        refused.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.org"
    );
    refused.problem(401);
}

#[test]
fn a_refusal_that_came_before_the_body_leaves_the_connection_to_the_next_request() {
    let site = Site::with(Config::default(), None, None);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = served(&site).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            client
                .write_all(b"POST /api/v1/contacts HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
                .await
                .unwrap();
            let refused = head(&mut client).await;
            assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
            let mut lengths = refused
                .lines()
                .filter_map(|line| line.strip_prefix("content-length: "));
            let length: usize = lengths.next_back().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            client.read_exact(&mut body).await.unwrap();
            client.write_all(b"12345").await.unwrap();
        }
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let healthy = head(&mut client).await;
        assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
    });
}
