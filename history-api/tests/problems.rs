//! Every error has the one form of the contract, whoever found it.

#![allow(clippy::unwrap_used)]

mod api;

use api::Site;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

#[test]
fn the_frameworks_own_refusals_have_the_form_of_ours() {
    let site = Site::open();
    let alice = site.someone("alice");
    let raw = |method: &str, path: &str, body: &[u8]| {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", alice.token));
        site.send(request.body(Body::from(body.to_vec())).unwrap())
    };
    assert_eq!(raw("GET", "/", b"").problem(404), "not_found");
    assert_eq!(raw("GET", "/api/v1/nothing", b"").problem(404), "not_found");
    assert_eq!(raw("GET", "/api/v2/users", b"").problem(404), "not_found");
    let wrong = raw("DELETE", "/api/v1/users", b"");
    assert!(wrong.headers.contains_key(header::ALLOW));
    assert_eq!(wrong.problem(405), "malformed");
    for body in [
        &b"{"[..],
        b"",
        b"[]",
        b"\"x\"",
        b"{\"name\":1}",
        b"\xff\xfe",
        b"{\"name\":\"\xff\"}",
    ] {
        assert_eq!(
            raw("POST", "/api/v1/auth/device-tokens", body).problem(400),
            "malformed"
        );
    }
    let large = vec![b' '; godwit_history_api::BODY_BYTES + 1];
    assert_eq!(raw("POST", "/api/v1/groups", &large).problem(413), "too_large");
    for path in [
        "/api/v1/conversations/x",
        "/api/v1/conversations/%ff",
        "/api/v1/conversations?limit=0",
        "/api/v1/conversations?limit=x",
        "/api/v1/conversations?after=x",
        "/api/v1/users",
        "/api/v1/users/00000000-0000-0000-0000-00000000000G",
        "/api/v1/messages/1/status",
        "/mqtt",
    ] {
        let response = raw("GET", path, b"");
        let status = if path == "/mqtt" { 404 } else { 400 };
        response.problem(status);
    }
}

#[test]
fn what_is_not_served_yet_is_not_found() {
    let site = Site::open();
    let alice = site.someone("alice");
    let id = "018f3b1e-0000-7000-8000-000000000000";
    for (method, path) in [
        ("GET", format!("/api/v1/users/{id}/presence")),
        ("PUT", format!("/api/v1/users/{id}/presence")),
        ("PUT", format!("/api/v1/messages/{id}/reactions/x")),
        ("DELETE", format!("/api/v1/messages/{id}/reactions/x")),
        ("DELETE", format!("/api/v1/messages/{id}")),
        ("POST", format!("/api/v1/conversations/{id}/typing")),
        ("POST", "/api/v1/media".into()),
        ("GET", format!("/api/v1/media/{id}")),
        ("GET", "/api/v1/inbox?after=0&wait=30".into()),
        ("GET", "/api/v1/ws".into()),
        ("DELETE", "/api/v1/users/me".into()),
    ] {
        let response = site.keyed(method, &path, &alice.token, None, None);
        assert_eq!(response.problem(404), "not_found", "{method} {path}");
    }
}

#[test]
fn without_a_valid_credential_nothing_is_said() {
    let site = Site::open();
    let id = "018f3b1e-0000-7000-8000-000000000000";
    for token in [
        "",
        "x",
        "gdt_0123456789abcdefghijABCDEFGHIJ01",
        "a.b.c",
        "gdt_short",
    ] {
        for path in [
            "/api/v1/users/me".into(),
            format!("/api/v1/conversations/{id}"),
            "/api/v1/search".into(),
        ] {
            let response = site.get(&path, token);
            assert_eq!(response.headers[header::WWW_AUTHENTICATE], "Bearer");
            assert_eq!(response.problem(401), "unauthenticated");
        }
    }
}

#[test]
fn a_wrong_field_is_named() {
    let site = Site::open();
    let response = site.post(
        "/api/v1/users",
        "",
        json!({"username": "Me!", "password": "long enough"}),
    );
    assert_eq!(response.body["errors"][0]["field"], "username");
    assert_eq!(response.problem(400), "malformed");
    let response = site.post(
        "/api/v1/users",
        "",
        json!({"username": "alice", "password": "short"}),
    );
    assert_eq!(response.body["errors"][0]["field"], "password");
    let missing = site.post("/api/v1/users", "", json!({"username": "alice"}));
    assert!(missing.body["detail"].as_str().unwrap().contains("password"));
    assert_eq!(missing.problem(400), "malformed");
}

#[test]
fn a_problem_never_repeats_what_was_sent() {
    let site = Site::open();
    let secret = "hunter2-hunter2";
    for body in [
        json!({"username": secret}),
        json!({"username": 1, "password": secret}),
        json!({secret: secret}),
    ] {
        let response = site.post("/api/v1/users", "", body);
        assert!(!response.text.contains(secret), "{}", response.text);
        response.problem(400);
    }
}
