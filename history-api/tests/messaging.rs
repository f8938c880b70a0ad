//! Conversations, groups, messages, history, status, through the real ingest role.

#![allow(clippy::unwrap_used)]

mod api;

use api::{Site, Someone};
use serde_json::{Value, json};

fn messages(conversation: &str) -> String {
    format!("/api/v1/conversations/{conversation}/messages")
}

fn sequences(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["sequence_number"].as_u64().unwrap())
        .collect()
}

fn group(site: &Site, admin: &Someone, members: &[&Someone]) -> String {
    let members: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
    let made = site
        .post(
            "/api/v1/groups",
            &admin.token,
            json!({"name": "team", "members": members}),
        )
        .expect(201);
    made["conversation_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_one_to_one_conversation_is_opened_once_and_is_the_same_from_both_sides() {
    let site = Site::open();
    let (alice, bob, eve) = (site.someone("alice"), site.someone("bob"), site.someone("eve"));
    let body = json!({"type": "one_on_one", "user_id": bob.id});
    let opened = site
        .post("/api/v1/conversations", &alice.token, body.clone())
        .expect(201);
    assert_eq!(
        (&opened["type"], &opened["member_count"]),
        (&json!("one_on_one"), &json!(2))
    );
    let again = site.post("/api/v1/conversations", &alice.token, body).expect(200);
    assert_eq!(again["conversation_id"], opened["conversation_id"]);
    let by_name = json!({"type": "one_on_one", "username": "alice"});
    let other = site
        .post("/api/v1/conversations", &bob.token, by_name)
        .expect(200);
    assert_eq!(other["conversation_id"], opened["conversation_id"]);
    let path = format!(
        "/api/v1/conversations/{}",
        opened["conversation_id"].as_str().unwrap()
    );
    assert_eq!(
        site.get(&path, &bob.token).expect(200)["conversation_id"],
        opened["conversation_id"]
    );
    assert_eq!(site.get(&path, &eve.token).problem(404), "not_found");
    let list = site.get("/api/v1/conversations", &bob.token).expect(200);
    assert_eq!(list["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(list["conversations"][0]["members"].as_array().unwrap().len(), 2);
    assert_eq!(
        site.get("/api/v1/conversations", &eve.token).expect(200),
        json!({"conversations": []})
    );
    for bad in [
        json!({"type": "one_on_one", "user_id": alice.id}),
        json!({"type": "group", "user_id": bob.id}),
        json!({"type": "one_on_one"}),
    ] {
        assert_eq!(
            site.post("/api/v1/conversations", &alice.token, bad).problem(400),
            "malformed"
        );
    }
    let nobody = json!({"type": "one_on_one", "user_id": "018f3b1e-0000-7000-8000-000000000000"});
    assert_eq!(
        site.post("/api/v1/conversations", &alice.token, nobody)
            .problem(404),
        "not_found"
    );
}

#[test]
fn a_message_has_its_place_and_a_retry_finds_the_first_one() {
    let site = Site::open();
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    let conversation = site.direct(&alice, &bob);
    let path = messages(&conversation);
    let send = |key, body: Value| site.keyed("POST", &path, &alice.token, key, Some(body));
    let first = send(Some("m1"), json!({"content": "hi"})).expect(201);
    assert_eq!(first["sequence_number"], 1);
    assert_eq!(
        (&first["content"], &first["content_type"]),
        (&json!("hi"), &json!("text"))
    );
    assert_eq!(
        (&first["client_message_id"], &first["sender_id"]),
        (&json!("m1"), &json!(alice.id))
    );
    assert_eq!(
        (&first["sender_name"], &first["conversation_id"]),
        (&json!("alice"), &json!(conversation))
    );
    assert_eq!(send(Some("m1"), json!({"content": "hi"})).expect(200), first);
    assert_eq!(
        send(None, json!({"content": "hi", "client_message_id": "m1"})).expect(200),
        first
    );
    assert_eq!(
        send(Some("m1"), json!({"content": "other"})).problem(409),
        "conflict"
    );
    assert_eq!(
        send(Some("m1"), json!({"content": "hi", "client_message_id": "m2"})).problem(400),
        "malformed"
    );
    // Another sender's key is another one.
    let theirs = site
        .keyed(
            "POST",
            &path,
            &bob.token,
            Some("m1"),
            Some(json!({"content": "yo"})),
        )
        .expect(201);
    assert_eq!(theirs["sequence_number"], 2);
    // Without a key nothing is a repeat.
    assert_eq!(
        send(None, json!({"content": "x"})).expect(201)["sequence_number"],
        3
    );
    assert_eq!(
        send(None, json!({"content": "x"})).expect(201)["sequence_number"],
        4
    );

    let page = site.get(&path, &bob.token).expect(200);
    assert_eq!(
        (sequences(&page), &page["has_more"]),
        (vec![1, 2, 3, 4], &json!(false))
    );
    let mut expected = first.clone();
    expected["type"] = json!("message");
    assert_eq!(page["messages"][0], expected, "field for field");

    for (body, status) in [
        (json!({"content": ""}), 400),
        (json!({"content": 1}), 400),
        (json!({"content": "x", "content_type": "song"}), 400),
        (json!({"content": "x".repeat(65_537)}), 413),
        (json!({}), 400),
    ] {
        send(None, body).problem(status);
    }
    send(None, json!({"content": "\u{1}".repeat(65_536)})).expect(201);
    let eve = site.someone("eve");
    assert_eq!(
        site.post(&path, &eve.token, json!({"content": "x"})).problem(404),
        "not_found"
    );
    assert_eq!(site.get(&path, &eve.token).problem(404), "not_found");
}

#[test]
fn history_comes_in_pages_by_number_and_by_id() {
    let site = Site::open();
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    let path = messages(&site.direct(&alice, &bob));
    let mut ids = Vec::new();
    for n in 1..=10 {
        let sent = site
            .post(&path, &alice.token, json!({"content": format!("m{n}")}))
            .expect(201);
        ids.push(sent["message_id"].as_str().unwrap().to_owned());
    }
    let page = |query: &str| {
        let page = site.get(&format!("{path}?{query}"), &bob.token).expect(200);
        (sequences(&page), page["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("limit=3"), (vec![8, 9, 10], true));
    assert_eq!(page("limit=3&before=8"), (vec![5, 6, 7], true));
    assert_eq!(page(&format!("limit=3&before={}", ids[7])), (vec![5, 6, 7], true));
    assert_eq!(page("limit=3&after=8"), (vec![9, 10], false));
    assert_eq!(page("after=0&limit=2"), (vec![1, 2], true));
    assert!(page(&format!("around={}&limit=5", ids[4])).0.contains(&5));
    for bad in [
        "limit=0",
        "limit=201",
        "before=1&after=2",
        "before=x",
        "around=-1",
    ] {
        assert_eq!(
            site.get(&format!("{path}?{bad}"), &bob.token).problem(400),
            "malformed"
        );
    }
}

#[test]
fn a_group_is_made_once_per_key_and_led_by_its_admins() {
    let site = Site::open();
    let (alice, bob, carol) = (site.someone("alice"), site.someone("bob"), site.someone("carol"));
    let make = |key: &str, name: &str| {
        let body = json!({"name": name, "description": "d", "members": [bob.id]});
        site.keyed("POST", "/api/v1/groups", &alice.token, Some(key), Some(body))
    };
    let made = make("g1", "team").expect(201);
    assert_eq!(
        make("g1", "team").expect(200)["conversation_id"],
        made["conversation_id"]
    );
    assert_eq!(make("g1", "other").problem(409), "conflict");
    assert_ne!(
        make("g2", "team").expect(201)["conversation_id"],
        made["conversation_id"]
    );
    let id = made["conversation_id"].as_str().unwrap();
    let roles: Vec<(&str, &str)> = made["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| {
            (
                member["username"].as_str().unwrap(),
                member["role"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(roles.contains(&("alice", "admin")) && roles.contains(&("bob", "member")));

    let path = format!("/api/v1/groups/{id}");
    let patch = |token: &str, body| site.keyed("PATCH", &path, token, None, Some(body));
    assert_eq!(
        patch(&alice.token, json!({"name": "crew"})).expect(200)["name"],
        "crew"
    );
    assert_eq!(
        patch(&bob.token, json!({"name": "mine"})).problem(403),
        "forbidden"
    );
    assert_eq!(
        patch(&carol.token, json!({"name": "mine"})).problem(404),
        "not_found"
    );

    let members = format!("{path}/members");
    let add = |token: &str| site.post(&members, token, json!({"user_id": carol.id}));
    assert_eq!(add(&bob.token).problem(403), "forbidden");
    assert_eq!(add(&carol.token).problem(404), "not_found");
    assert_eq!(add(&alice.token).expect(201)["username"], "carol");
    add(&alice.token).expect(200);
    let role = format!("{members}/{}/role", carol.id);
    assert_eq!(
        site.put(&role, &bob.token, json!({"role": "admin"})).problem(403),
        "forbidden"
    );
    site.put(&role, &alice.token, json!({"role": "admin"}))
        .expect(204);
    assert_eq!(
        site.put(&role, &alice.token, json!({"role": "king"}))
            .problem(400),
        "malformed"
    );
    site.delete(&format!("{members}/{}", bob.id), &carol.token)
        .expect(204);
    assert_eq!(
        site.get(&format!("/api/v1/conversations/{id}"), &bob.token)
            .problem(404),
        "not_found"
    );
    site.delete(&format!("{members}/me"), &carol.token).expect(204);
    assert_eq!(
        site.get(&format!("/api/v1/conversations/{id}"), &carol.token)
            .problem(404),
        "not_found"
    );
    let left = site
        .get(&format!("/api/v1/conversations/{id}"), &alice.token)
        .expect(200);
    assert_eq!(left["member_count"], 1);

    for bad in [
        json!({"name": ""}),
        json!({"name": "x".repeat(129)}),
        json!({"name": "x", "members": ["y"]}),
    ] {
        assert_eq!(
            site.post("/api/v1/groups", &alice.token, bad).problem(400),
            "malformed"
        );
    }
    let nobody = json!({"name": "x", "members": ["018f3b1e-0000-7000-8000-000000000000"]});
    assert_eq!(
        site.post("/api/v1/groups", &alice.token, nobody).problem(404),
        "not_found"
    );
}

#[test]
fn who_joins_later_reads_from_the_joining_on() {
    let site = Site::open();
    let (alice, bob, carol) = (site.someone("alice"), site.someone("bob"), site.someone("carol"));
    let id = group(&site, &alice, &[&bob]);
    let before = site
        .post(&messages(&id), &alice.token, json!({"content": "before"}))
        .expect(201);
    site.post(
        &format!("/api/v1/groups/{id}/members"),
        &alice.token,
        json!({"user_id": carol.id}),
    )
    .expect(201);
    site.post(&messages(&id), &alice.token, json!({"content": "after"}))
        .expect(201);
    let page = site.get(&messages(&id), &carol.token).expect(200);
    let texts: Vec<&Value> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["type"] == "message")
        .collect();
    assert_eq!((texts.len(), &texts[0]["content"]), (1, &json!("after")));
    let status = format!(
        "/api/v1/messages/{}/status",
        before["message_id"].as_str().unwrap()
    );
    assert_eq!(site.get(&status, &carol.token).problem(404), "not_found");
    site.get(&status, &bob.token).expect(200);
}

#[test]
fn a_status_moves_a_watermark_and_never_back() {
    let site = Site::open();
    let (alice, bob, eve) = (site.someone("alice"), site.someone("bob"), site.someone("eve"));
    let path = messages(&site.direct(&alice, &bob));
    let send = |text: &str| {
        let sent = site
            .post(&path, &alice.token, json!({"content": text}))
            .expect(201);
        format!("/api/v1/messages/{}/status", sent["message_id"].as_str().unwrap())
    };
    let (first, second) = (send("one"), send("two"));
    let of_bob = |path: &str| {
        let status = site.get(path, &alice.token).expect(200);
        let members = status["members"].as_array().unwrap();
        members
            .iter()
            .find(|member| member["user_id"] == bob.id.as_str())
            .map(|member| member["status"].clone())
    };
    assert_eq!(of_bob(&first).unwrap_or(json!("sent")), "sent");
    site.put(&second, &bob.token, json!({"status": "read"}))
        .expect(204);
    assert_eq!(
        (of_bob(&first), of_bob(&second)),
        (Some(json!("read")), Some(json!("read")))
    );
    site.put(&first, &bob.token, json!({"status": "read"}))
        .expect(204);
    assert_eq!(of_bob(&second), Some(json!("read")));
    let third = send("three");
    site.put(&third, &bob.token, json!({"status": "delivered"}))
        .expect(204);
    assert_eq!(of_bob(&third), Some(json!("delivered")));
    assert_eq!(
        site.put(&third, &bob.token, json!({"status": "sent"}))
            .problem(400),
        "malformed"
    );
    assert_eq!(
        site.put(&third, &eve.token, json!({"status": "read"}))
            .problem(404),
        "not_found"
    );
    assert_eq!(site.get(&third, &eve.token).problem(404), "not_found");
    let unknown = "/api/v1/messages/018f3b1e-0000-7000-8000-000000000000/status";
    assert_eq!(site.get(unknown, &alice.token).problem(404), "not_found");
}

#[test]
fn conversations_are_listed_in_pages() {
    let site = Site::open();
    let alice = site.someone("alice");
    let mut made: Vec<String> = (0..5).map(|_| group(&site, &alice, &[])).collect();
    made.sort();
    let mut seen = Vec::new();
    let mut path = "/api/v1/conversations?limit=2".to_owned();
    loop {
        let page = site.get(&path, &alice.token).expect(200);
        let ids = page["conversations"].as_array().unwrap().iter();
        seen.extend(ids.map(|conversation| conversation["conversation_id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/conversations?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
}
