//! Secrets that people choose: by whichever path they are guessed, guesses are counted, and nobody else is kept out.

#![allow(clippy::unwrap_used)]

mod api;

use std::net::SocketAddr;

use api::{PASSWORD, Response, Site, Someone};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use godwit_history_api::limits::{FAILED_OF_ADDRESS, FAILED_OF_NAME};
use godwit_history_api::{Config, Rate, Register};
use godwit_wire::account::Secret;
use serde_json::{Value, json};

const BURST: u32 = FAILED_OF_NAME.burst;

/// POST from 192.0.2.`from`, of the credential's holder if one is given.
fn post(site: &Site, from: u8, path: &str, token: &str, key: Option<&str>, body: &Value) -> Response {
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("/api/v1{path}"))
        .header("content-type", "application/json")
        .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, from], 1))));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    site.send(request.body(Body::from(body.to_string())).unwrap())
}

fn login(site: &Site, from: u8, name: &str, password: &str) -> Response {
    let body = json!({ "username": name, "password": password });
    post(site, from, "/auth/login", "", None, &body)
}

fn change(site: &Site, from: u8, of: &Someone, current: &str) -> Response {
    let body = json!({ "current_password": current, "new_password": PASSWORD });
    post(site, from, "/auth/password", &of.token, None, &body)
}

fn limited(site: &Site) -> u64 {
    site.metrics.logins_limited.get()
}

#[test]
fn guesses_at_a_password_count_by_what_is_named_and_tell_nothing_of_another_name() {
    let site = Site::open();
    let body = json!({ "username": "alice", "password": PASSWORD, "email": "a@example.org" });
    post(&site, 1, "/users", "", None, &body).expect(201);
    let alice = site.login("alice", PASSWORD);
    // From there she is known by her name.
    login(&site, 1, "alice", PASSWORD).expect(200);
    let bob = site.someone("bob");
    for number in 0..BURST {
        let name = if number % 2 == 0 { "alice" } else { "ALICE" };
        let answer = login(&site, 2 + number as u8, name, "a guess");
        assert_eq!(answer.problem(401), "unauthenticated");
    }
    assert_eq!(limited(&site), 0);
    assert_eq!(login(&site, 40, "alice", PASSWORD).problem(429), "rate_limited");
    // Whose address it is, is not told: hers and nobody's are answered alike, each by what was guessed at it.
    for address in ["a@example.org", "nobody@example.org"] {
        for number in 0..BURST {
            let answer = login(&site, 50 + number as u8, address, "a guess");
            assert_eq!(answer.problem(401), "unauthenticated", "{address}");
        }
        let refused = login(&site, 60, address, PASSWORD);
        assert_eq!(refused.problem(429), "rate_limited", "{address}");
    }
    assert_eq!(limited(&site), 3, "each is counted");
    // She is not kept out where she was, nor from changing it: both have allowances of their own, which end too.
    login(&site, 1, "alice", PASSWORD).expect(200);
    change(&site, 1, &alice, PASSWORD).expect(204);
    for number in 0..BURST {
        let answer = change(&site, 70 + number as u8, &alice, "a guess");
        assert_eq!(answer.problem(403), "forbidden");
        assert_eq!(
            login(&site, 1, "alice", "a guess").problem(401),
            "unauthenticated"
        );
    }
    assert_eq!(change(&site, 1, &alice, PASSWORD).problem(429), "rate_limited");
    assert_eq!(login(&site, 1, "alice", PASSWORD).problem(429), "rate_limited");
    // What she has goes on, and others are not concerned, from the same addresses.
    site.get("/api/v1/users/me", &alice.token).expect(200);
    change(&site, 2, &bob, PASSWORD).expect(204);
    login(&site, 1, "bob", PASSWORD).expect(200);
}

#[test]
fn a_repeated_registration_is_no_place_to_guess_a_password() {
    let site = Site::open();
    let body = |password: &str| json!({ "username": "alice", "password": password });
    let register = |from: u8, password: &str| post(&site, from, "/users", "", Some("first"), &body(password));
    register(1, PASSWORD).expect(201);
    for _ in 0..2 * BURST {
        register(1, PASSWORD).expect(200);
    }
    for _ in 0..BURST {
        assert_eq!(register(2, "another password").problem(409), "conflict");
    }
    assert_eq!(register(2, "another password").problem(429), "rate_limited");
    assert_eq!(register(3, PASSWORD).problem(429), "rate_limited");
    assert_eq!(limited(&site), 2);
    site.someone("bob");
}

#[test]
fn who_guesses_at_the_registration_token_keeps_nobody_else_from_registering() {
    let config = Config {
        registration: Register::Token(Secret("welcome aboard".into())),
        ..Config::default()
    };
    let site = Site::with(config, None, None);
    let register = |from: u8, name: &str, token: &str| {
        let body = json!({ "username": name, "password": PASSWORD, "registration_token": token });
        post(&site, from, "/users", "", None, &body)
    };
    for _ in 0..BURST {
        assert_eq!(register(1, "mallory", "a guess").problem(403), "forbidden");
    }
    for token in ["a guess", "welcome aboard"] {
        assert_eq!(
            register(1, "mallory", token).problem(429),
            "rate_limited",
            "{token}"
        );
    }
    assert_eq!(limited(&site), 2);
    register(2, "alice", "welcome aboard").expect(201);
    login(&site, 1, "alice", PASSWORD).expect(200);
}

#[test]
fn an_address_has_so_many_wrong_guesses_at_whatever_and_others_have_theirs() {
    let config = Config {
        registration: Register::Token(Secret("welcome aboard".into())),
        ..Config::default()
    };
    let site = Site::with(config, None, None);
    let register = |from: u8, name: &str, token: &str| {
        let body = json!({ "username": name, "password": PASSWORD, "registration_token": token });
        post(&site, from, "/users", "", None, &body)
    };
    register(2, "alice", "welcome aboard").expect(201);
    for _ in 0..BURST {
        assert_eq!(register(1, "mallory", "a guess").problem(403), "forbidden");
    }
    let mut failed = 0;
    let refused = loop {
        let answer = login(&site, 1, &format!("nobody{failed}"), "a guess");
        if answer.status != StatusCode::UNAUTHORIZED {
            break answer;
        }
        failed += 1;
        assert!(failed < 3 * FAILED_OF_ADDRESS.burst, "it is never limited");
    };
    assert_eq!(refused.problem(429), "rate_limited");
    assert!(failed >= FAILED_OF_ADDRESS.burst - BURST, "{failed}");
    login(&site, 2, "alice", PASSWORD).expect(200);
}

/// With the form of one, and a user's id in it.
fn invented(user: &str, number: u8) -> String {
    let user = uuid::Uuid::parse_str(user).unwrap();
    let mut bytes = vec![number; 16 + 16 + 16 + 32];
    bytes[..16].copy_from_slice(user.as_bytes());
    format!("gdr_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn invented_refresh_tokens_use_up_nobodys_requests() {
    let rate = Rate {
        burst: 5,
        every_us: 60_000_000,
    };
    let config = Config {
        registration: Register::Open,
        per_user: rate,
        ..Config::default()
    };
    let site = Site::with(config, None, None);
    let mut alice = site.someone("alice");
    let refresh = |token: &str| {
        post(
            &site,
            1,
            "/auth/refresh",
            "",
            None,
            &json!({ "refresh_token": token }),
        )
    };
    for number in 0..4 * rate.burst {
        let token = invented(&alice.id, number as u8);
        assert_eq!(refresh(&token).problem(401), "unauthenticated");
    }
    for _ in 0..rate.burst {
        site.get("/api/v1/users/me", &alice.token).expect(200);
        // Each is good for one exchange, and they have an allowance of their own.
        let pair = refresh(&alice.refresh).expect(200);
        alice.refresh = pair["refresh_token"].as_str().unwrap().to_owned();
    }
    assert_eq!(refresh(&alice.refresh).problem(429), "rate_limited");
    site.login("alice", PASSWORD);
}
