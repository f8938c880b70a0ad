//! Registration, login, refresh, passwords, sessions, device tokens, contacts.

#![allow(clippy::unwrap_used)]

mod api;

use api::{PASSWORD, Site};
use axum::http::header;
use godwit_history_api::{Config, Rate, Register};
use godwit_wire::account::Secret;
use serde_json::json;

#[test]
fn a_user_registers_logs_in_and_is_seen_by_others_without_the_address() {
    let site = Site::open();
    let body =
        json!({"username": "alice", "password": PASSWORD, "display_name": "Alice", "email": "A@Example.org"});
    let me = site.post("/api/v1/users", "", body.clone()).expect(201);
    assert_eq!(
        (&me["username"], &me["display_name"]),
        (&json!("alice"), &json!("Alice"))
    );
    assert_eq!(
        (&me["email"], &me["admin"]),
        (&json!("a@example.org"), &json!(false))
    );
    assert_eq!(site.post("/api/v1/users", "", body).problem(409), "conflict");
    let same_address = json!({"username": "alice2", "password": PASSWORD, "email": "a@example.org"});
    assert_eq!(
        site.post("/api/v1/users", "", same_address).problem(409),
        "conflict"
    );

    let by_address = site.login("a@EXAMPLE.org", PASSWORD);
    assert_eq!(by_address.id, me["user_id"]);
    let alice = site.login("Alice", PASSWORD);
    let bob = site.someone("bob");
    let seen = site
        .get(&format!("/api/v1/users/{}", alice.id), &bob.token)
        .expect(200);
    assert_eq!(
        (&seen["username"], seen.get("email"), seen.get("admin")),
        (&json!("alice"), None, None)
    );
    let found = site.get("/api/v1/users?username=alice", &bob.token).expect(200);
    assert_eq!(found["users"][0], seen);
    assert_eq!(
        site.get("/api/v1/users?username=nobody", &bob.token).expect(200),
        json!({"users": []})
    );
    let changed = site.keyed(
        "PATCH",
        "/api/v1/users/me",
        &bob.token,
        None,
        Some(json!({"display_name": "Bob"})),
    );
    assert_eq!(changed.expect(200)["display_name"], "Bob");
    assert_eq!(
        site.get("/api/v1/users/me", &bob.token).expect(200)["display_name"],
        "Bob"
    );
}

#[test]
fn a_registration_is_repeated_by_its_key() {
    let site = Site::open();
    let post = |key: &str, name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        site.keyed("POST", "/api/v1/users", "", Some(key), Some(body))
    };
    let first = post("k1", "alice", PASSWORD).expect(201);
    assert_eq!(post("k1", "alice", PASSWORD).expect(200), first);
    assert_eq!(post("k1", "alice", "another password").problem(409), "conflict");
    assert_eq!(post("k2", "alice", PASSWORD).problem(409), "conflict");
    assert_eq!(post("", "bob", PASSWORD).problem(400), "malformed");
}

#[test]
fn registration_is_closed_or_asks_for_its_token() {
    let with = |registration| {
        Site::with(
            Config {
                registration,
                ..Config::default()
            },
            None,
            None,
        )
    };
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(
        with(Register::Closed)
            .post("/api/v1/users", "", body.clone())
            .problem(403),
        "forbidden"
    );
    let site = with(Register::Token(Secret("let me in".into())));
    assert_eq!(site.post("/api/v1/users", "", body).problem(403), "forbidden");
    let body = |token| json!({"username": "alice", "password": PASSWORD, "registration_token": token});
    assert_eq!(
        site.post("/api/v1/users", "", body("let me")).problem(403),
        "forbidden"
    );
    site.post("/api/v1/users", "", body("let me in")).expect(201);
}

#[test]
fn a_refresh_token_is_good_once_and_used_twice_ends_the_session() {
    let site = Site::open();
    let alice = site.someone("alice");
    let refresh = |token: &str| site.post("/api/v1/auth/refresh", "", json!({"refresh_token": token}));
    let second = refresh(&alice.refresh).expect(200);
    let token = second["access_token"].as_str().unwrap().to_owned();
    assert_eq!(second["session_id"], alice.session.as_str());
    site.get("/api/v1/users/me", &token).expect(200);
    assert_eq!(refresh(&alice.refresh).problem(401), "unauthenticated");
    // The thief and the owner are both out.
    assert_eq!(
        refresh(second["refresh_token"].as_str().unwrap()).problem(401),
        "unauthenticated"
    );
    assert_eq!(
        site.get("/api/v1/users/me", &token).problem(401),
        "unauthenticated"
    );
    assert_eq!(refresh("gdr_x").problem(401), "unauthenticated");
}

#[test]
fn logging_out_ends_the_access_token_at_once() {
    let site = Site::open();
    let alice = site.someone("alice");
    let other = site.login("alice", PASSWORD);
    site.keyed("POST", "/api/v1/auth/logout", &alice.token, None, None)
        .expect(204);
    assert_eq!(
        site.get("/api/v1/users/me", &alice.token).problem(401),
        "unauthenticated"
    );
    site.get("/api/v1/users/me", &other.token).expect(200);
}

#[test]
fn sessions_are_listed_and_ended() {
    let site = Site::open();
    let alice = site.someone("alice");
    let (second, third) = (site.login("alice", PASSWORD), site.login("alice", PASSWORD));
    let listed = site.get("/api/v1/auth/sessions", &second.token).expect(200);
    let sessions = listed["sessions"].as_array().unwrap();
    let current: Vec<_> = sessions
        .iter()
        .filter(|session| session["current"] == true)
        .collect();
    assert_eq!((sessions.len(), current.len()), (3, 1));
    assert_eq!(current[0]["session_id"], second.session.as_str());
    let path = format!("/api/v1/auth/sessions/{}", alice.session);
    assert_eq!(
        site.get(&path, &second.token).expect(200)["session_id"],
        alice.session.as_str()
    );
    site.delete(&path, &second.token).expect(204);
    assert_eq!(site.delete(&path, &second.token).problem(404), "not_found");
    assert_eq!(
        site.get("/api/v1/users/me", &alice.token).problem(401),
        "unauthenticated"
    );
    site.delete("/api/v1/auth/sessions", &second.token).expect(204);
    assert_eq!(
        site.get("/api/v1/users/me", &third.token).problem(401),
        "unauthenticated"
    );
    site.get("/api/v1/users/me", &second.token).expect(200);
    // Somebody else's session is not there.
    let bob = site.someone("bob");
    let path = format!("/api/v1/auth/sessions/{}", second.session);
    assert_eq!(site.delete(&path, &bob.token).problem(404), "not_found");
}

#[test]
fn a_password_change_ends_the_other_sessions() {
    let site = Site::open();
    let alice = site.someone("alice");
    let other = site.login("alice", PASSWORD);
    let change = |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        site.post("/api/v1/auth/password", &alice.token, body)
    };
    assert_eq!(change("wrong password", "new password").problem(403), "forbidden");
    assert_eq!(change(PASSWORD, "short").problem(400), "malformed");
    change(PASSWORD, "new password").expect(204);
    assert_eq!(
        site.get("/api/v1/users/me", &other.token).problem(401),
        "unauthenticated"
    );
    site.get("/api/v1/users/me", &alice.token).expect(200);
    let old = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(
        site.post("/api/v1/auth/login", "", old).problem(401),
        "unauthenticated"
    );
    site.login("alice", "new password");
}

#[test]
fn failed_logins_are_limited_and_tell_nothing_of_users() {
    let site = Site::open();
    site.someone("alice");
    let login = |name: &str, password: &str| {
        site.post(
            "/api/v1/auth/login",
            "",
            json!({"username": name, "password": password}),
        )
    };
    let unknown = login("nobody", PASSWORD).body;
    let wrong = login("alice", "wrong password").body;
    assert_eq!(
        (&unknown["detail"], &unknown["code"]),
        (&wrong["detail"], &wrong["code"])
    );
    for _ in 1..godwit_history_api::limits::FAILED_OF_NAME.burst {
        assert_eq!(login("alice", "wrong password").problem(401), "unauthenticated");
    }
    let limited = login("alice", PASSWORD);
    assert!(
        limited.headers[header::RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    assert_eq!(
        limited.problem(429),
        "rate_limited",
        "also with the right password"
    );
    site.someone("bob");
}

#[test]
fn a_device_token_is_shown_once_and_has_its_scopes() {
    let site = Site::open();
    let alice = site.someone("alice");
    let make = |key: Option<&str>, body| {
        site.keyed(
            "POST",
            "/api/v1/auth/device-tokens",
            &alice.token,
            key,
            Some(body),
        )
    };
    let all = make(Some("k"), json!({"name": "laptop"})).expect(201);
    let token = all["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("gdt_") && token.len() == 36);
    assert_eq!(all["scopes"], json!(["chat", "topics", "rest"]));
    let again = make(Some("k"), json!({"name": "laptop"})).expect(200);
    assert_eq!((&again["id"], again.get("token")), (&all["id"], None));
    assert_eq!(make(Some("k"), json!({"name": "phone"})).problem(409), "conflict");
    let chat = make(
        None,
        json!({"name": "phone", "scopes": ["chat"], "expires_in": 3600}),
    )
    .expect(201);
    assert!(chat["expires_at"].is_string());
    let listed = site.get("/api/v1/auth/device-tokens", &alice.token).expect(200);
    assert_eq!(listed["device_tokens"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("gdt_"));

    site.get("/api/v1/users/me", &token).expect(200);
    assert_eq!(
        site.get("/api/v1/users/me", chat["token"].as_str().unwrap())
            .problem(403),
        "forbidden"
    );
    // A device manages no credentials.
    assert_eq!(
        site.get("/api/v1/auth/device-tokens", &token).problem(403),
        "forbidden"
    );
    assert_eq!(
        site.post("/api/v1/auth/device-tokens", &token, json!({"name": "x"}))
            .problem(403),
        "forbidden"
    );
    let path = format!("/api/v1/auth/device-tokens/{}", all["id"].as_str().unwrap());
    site.delete(&path, &alice.token).expect(204);
    assert_eq!(
        site.get("/api/v1/users/me", &token).problem(401),
        "unauthenticated"
    );
    assert_eq!(site.delete(&path, &alice.token).problem(404), "not_found");
    for bad in [
        json!({"name": ""}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "expires_in": 0}),
        json!({"name": "x", "scopes": ["root"]}),
    ] {
        assert_eq!(make(None, bad).problem(400), "malformed");
    }
}

#[test]
fn registrations_from_one_address_are_limited() {
    let registrations = Rate {
        burst: 2,
        every_us: 60_000_000,
    };
    let config = Config {
        registration: Register::Open,
        registrations,
        ..Config::default()
    };
    let site = Site::with(config, None, None);
    let alice = site.someone("alice");
    site.someone("bob");
    let body = json!({"username": "carol", "password": PASSWORD});
    assert_eq!(site.post("/api/v1/users", "", body).problem(429), "rate_limited");
    site.get("/api/v1/users/me", &alice.token).expect(200);
}

#[test]
fn requests_of_a_user_and_of_an_address_are_limited() {
    let rate = Rate {
        burst: 5,
        every_us: 60_000_000,
    };
    let site = Site::with(
        Config {
            registration: Register::Open,
            per_user: rate,
            ..Config::default()
        },
        None,
        None,
    );
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    for _ in 0..rate.burst {
        site.get("/api/v1/users/me", &alice.token).expect(200);
    }
    assert_eq!(
        site.get("/api/v1/users/me", &alice.token).problem(429),
        "rate_limited"
    );
    site.get("/api/v1/users/me", &bob.token).expect(200);
    let site = Site::with(
        Config {
            per_address: rate,
            ..Config::default()
        },
        None,
        None,
    );
    for _ in 0..rate.burst {
        site.get("/api/v1/users/me", "").problem(401);
    }
    assert_eq!(site.get("/api/v1/users/me", "").problem(429), "rate_limited");
    site.get("/healthz", "").expect(200);
}

#[test]
fn contacts_are_asked_accepted_blocked_and_removed() {
    let site = Site::open();
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    let ask = |by: &api::Someone, of: &api::Someone| {
        site.post("/api/v1/contacts", &by.token, json!({"user_id": of.id}))
    };
    let asked = ask(&alice, &bob).expect(201);
    assert_eq!(
        (&asked["state"], &asked["requested_by"]),
        (&json!("requested"), &json!("me"))
    );
    ask(&alice, &bob).expect(200);
    let seen = site.get("/api/v1/contacts", &bob.token).expect(200);
    assert_eq!(seen["contacts"][0]["requested_by"], "them");
    let accepted = site
        .post("/api/v1/contacts", &bob.token, json!({"username": "alice"}))
        .expect(201);
    assert_eq!(accepted["state"], "accepted");
    assert_eq!(
        site.get("/api/v1/contacts", &alice.token).expect(200)["contacts"][0]["state"],
        "accepted"
    );

    let conversation = site.direct(&alice, &bob);
    let path = format!("/api/v1/conversations/{conversation}/messages");
    site.post(&path, &bob.token, json!({"content": "hi"})).expect(201);
    let contact = format!("/api/v1/contacts/{}", bob.id);
    let blocked = site
        .put(&contact, &alice.token, json!({"state": "blocked"}))
        .expect(200);
    assert_eq!(blocked["state"], "blocked");
    assert_eq!(
        site.post(&path, &bob.token, json!({"content": "hi"}))
            .problem(404),
        "not_found"
    );
    assert_eq!(
        site.get("/api/v1/contacts", &bob.token).expect(200)["contacts"][0]["state"],
        "accepted"
    );
    site.put(&contact, &alice.token, json!({"state": "accepted"}))
        .expect(200);
    site.post(&path, &bob.token, json!({"content": "hi"})).expect(201);
    site.delete(&contact, &alice.token).expect(204);
    site.delete(&contact, &alice.token).expect(204);
    assert_eq!(
        site.get("/api/v1/contacts", &bob.token).expect(200),
        json!({"contacts": []})
    );
    for bad in [
        json!({}),
        json!({"user_id": alice.id}),
        json!({"user_id": bob.id, "username": "bob"}),
    ] {
        assert_eq!(
            site.post("/api/v1/contacts", &alice.token, bad).problem(400),
            "malformed"
        );
    }
    assert_eq!(
        site.post("/api/v1/contacts", &alice.token, json!({"username": "nobody"}))
            .problem(404),
        "not_found"
    );
}
