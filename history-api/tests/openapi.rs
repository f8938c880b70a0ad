//! The OpenAPI document says what is served: every route of the contract, every form as it is really written.

#![allow(clippy::unwrap_used)]

mod api;

use std::collections::BTreeSet;

use api::Site;
use serde_json::{Value, json};

/// Issue 2's part of docs/protocol.md.
const ROUTES: &[&str] = &[
    "GET /healthz",
    "GET /readyz",
    "GET /api/v1/openapi.json",
    "POST /api/v1/users",
    "GET /api/v1/users",
    "GET /api/v1/users/me",
    "PATCH /api/v1/users/me",
    "GET /api/v1/users/{user_id}",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/logout",
    "POST /api/v1/auth/password",
    "GET /api/v1/auth/sessions",
    "DELETE /api/v1/auth/sessions",
    "GET /api/v1/auth/sessions/{session_id}",
    "DELETE /api/v1/auth/sessions/{session_id}",
    "POST /api/v1/auth/device-tokens",
    "GET /api/v1/auth/device-tokens",
    "GET /api/v1/auth/device-tokens/{id}",
    "DELETE /api/v1/auth/device-tokens/{id}",
    "POST /api/v1/contacts",
    "GET /api/v1/contacts",
    "PUT /api/v1/contacts/{user_id}",
    "DELETE /api/v1/contacts/{user_id}",
    "POST /api/v1/conversations",
    "GET /api/v1/conversations",
    "GET /api/v1/conversations/{conversation_id}",
    "POST /api/v1/groups",
    "PATCH /api/v1/groups/{group_id}",
    "POST /api/v1/groups/{group_id}/members",
    "DELETE /api/v1/groups/{group_id}/members/{user_id}",
    "PUT /api/v1/groups/{group_id}/members/{user_id}/role",
    "POST /api/v1/conversations/{conversation_id}/messages",
    "GET /api/v1/conversations/{conversation_id}/messages",
    "PUT /api/v1/messages/{message_id}/status",
    "GET /api/v1/messages/{message_id}/status",
    "GET /api/v1/conversations/{conversation_id}/search",
    "GET /api/v1/search",
    "GET /api/v1/connect",
];

fn document() -> Value {
    serde_json::to_value(godwit_history_api::openapi()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    all
}

#[test]
fn the_document_has_exactly_the_routes_of_the_contract_and_all_are_served() {
    let document = document();
    let described: BTreeSet<String> = operations(&document)
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let wanted: BTreeSet<String> = ROUTES.iter().map(ToString::to_string).collect();
    assert_eq!(described, wanted);
    let site = Site::open();
    let served = site.get("/api/v1/openapi.json", "").expect(200);
    assert_eq!(served, document);
    let id = "018f3b1e-0000-7000-8000-000000000000";
    for (method, path, operation) in operations(&document) {
        let parts: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { id } else { part })
            .collect();
        let response = site.keyed(&method, &parts.join("/"), "", None, None);
        let status = response.status.as_u16();
        if operation
            .get("security")
            .is_some_and(|security| !security.to_string().contains("{}"))
        {
            assert_eq!(status, 401, "{method} {path} without a credential");
        } else {
            assert!(
                matches!(status, 200 | 400),
                "{method} {path} is open and answered {status}"
            );
        }
    }
}

#[test]
fn every_operation_says_its_errors_as_problems() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        for status in ["400", "401", "403", "404", "409", "413", "429", "503"] {
            let content = &operation["responses"][status]["content"]["application/problem+json"];
            assert_eq!(
                content["schema"]["$ref"], "#/components/schemas/ProblemBody",
                "{method} {path} {status}"
            );
        }
    }
    assert!(document["components"]["securitySchemes"]["bearer"].is_object());
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let pointer = target.strip_prefix('#').expect("inside the document");
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                map.values().for_each(|value| visit(value, document));
            }
            Value::Array(all) => all.iter().for_each(|value| visit(value, document)),
            _ => {}
        }
    }
    let document = document();
    visit(&document, &document);
}

/// The fields of a schema, with whether they must be there; `allOf` and references followed.
fn fields(document: &Value, schema: &Value) -> Vec<(String, bool)> {
    if let Some(target) = schema["$ref"].as_str() {
        return fields(document, document.pointer(&target[1..]).unwrap());
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().flat_map(|one| fields(document, one)).collect();
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties
        .keys()
        .map(|name| (name.clone(), required.contains(&json!(name))))
        .collect()
}

#[track_caller]
fn conforms(document: &Value, schema: &str, value: &Value) {
    let schema = &document["components"]["schemas"][schema];
    let fields = fields(document, schema);
    assert!(!fields.is_empty(), "a schema with fields");
    for name in value.as_object().unwrap().keys() {
        assert!(
            fields.iter().any(|(field, _)| field == name),
            "`{name}` is not in the schema"
        );
    }
    for (field, required) in fields {
        assert!(
            !required || value.get(&field).is_some(),
            "`{field}` is missing in {value}"
        );
    }
}

#[test]
fn what_is_answered_has_the_form_that_the_document_says() {
    let document = document();
    let site = Site::open();
    let (alice, bob) = (site.someone("alice"), site.someone("bob"));
    conforms(
        &document,
        "Me",
        &site.get("/api/v1/users/me", &alice.token).expect(200),
    );
    conforms(
        &document,
        "User",
        &site
            .get(&format!("/api/v1/users/{}", bob.id), &alice.token)
            .expect(200),
    );
    let problem = site.get("/api/v1/users/x", &alice.token);
    conforms(&document, "ProblemBody", &problem.body);
    let token = site.post(
        "/api/v1/auth/device-tokens",
        &alice.token,
        json!({"name": "x", "expires_in": 60}),
    );
    conforms(&document, "DeviceToken", &token.expect(201));
    let contact = site
        .post("/api/v1/contacts", &alice.token, json!({"user_id": bob.id}))
        .expect(201);
    conforms(&document, "Contact", &contact);
    let sessions = site.get("/api/v1/auth/sessions", &alice.token).expect(200);
    conforms(&document, "Session", &sessions["sessions"][0]);
    let login = json!({"username": "alice", "password": api::PASSWORD});
    conforms(
        &document,
        "TokenPair",
        &site.post("/api/v1/auth/login", "", login).expect(200),
    );

    let group = site
        .post(
            "/api/v1/groups",
            &alice.token,
            json!({"name": "g", "members": [bob.id]}),
        )
        .expect(201);
    conforms(&document, "Conversation", &group);
    conforms(&document, "ConversationMember", &group["members"][0]);
    let path = format!(
        "/api/v1/conversations/{}/messages",
        group["conversation_id"].as_str().unwrap()
    );
    let body = json!({"content": "hi", "client_message_id": "1"});
    let first = site.post(&path, &alice.token, body).expect(201);
    conforms(&document, "Message", &first);
    let reply = json!({"content": "hi", "reply_to": first["message_id"]});
    conforms(
        &document,
        "Message",
        &site.post(&path, &bob.token, reply).expect(201),
    );
    let carol = site.someone("carol");
    let members = format!(
        "/api/v1/groups/{}/members",
        group["conversation_id"].as_str().unwrap()
    );
    let added = site.post(&members, &alice.token, json!({"user_id": carol.id}));
    conforms(&document, "Added", &added.expect(201));
    let page = site.get(&path, &alice.token).expect(200);
    conforms(&document, "Messages", &page);
    // An entry is its form and the tag `type`.
    for entry in page["messages"].as_array().unwrap() {
        let mut bare = entry.clone();
        let form = match bare.as_object_mut().unwrap().remove("type").unwrap().as_str() {
            Some("message") => "Message",
            Some("member") => "Member",
            other => panic!("unknown type {other:?}"),
        };
        conforms(&document, form, &bare);
    }
    let types = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["type"].as_str().unwrap());
    assert_eq!(
        types.collect::<BTreeSet<_>>(),
        BTreeSet::from(["member", "message"])
    );
    let status = format!(
        "/api/v1/messages/{}/status",
        first["message_id"].as_str().unwrap()
    );
    conforms(&document, "Status", &site.get(&status, &alice.token).expect(200));
}
