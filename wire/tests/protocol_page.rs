//! docs/protocol.md against the code: each JSON example is parsed as its form and comes back the same, the table of codes
//! is that of `Code`, and the topics that the page marks "not yet" are those that are refused so.

#![allow(clippy::unwrap_used)] // a test may

use godwit_wire::code::Code;
use godwit_wire::json;
use godwit_wire::topic::{FilterTopic, PublishTopic, TopicRefusal, classify_filter, classify_publish};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/protocol.md");
const ID: &str = "0198c7a2-7d4e-7c1a-9b3f-2f6d1e0a5b01";

/// The fenced blocks that begin with ```` ```json FORM ````: form and text.
fn examples() -> Vec<(&'static str, &'static str)> {
    PAGE.split("```json")
        .skip(1)
        .map(|block| {
            let (form, rest) = block.split_once('\n').unwrap();
            (form.trim(), rest.split_once("```").unwrap().0)
        })
        .collect()
}

#[test]
fn every_json_example_is_of_its_form_and_has_no_field_that_the_form_lacks() {
    let examples = examples();
    for (form, text) in &examples {
        let written: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let bytes = text.as_bytes();
        let read = match *form {
            "event" => serde_json::to_value(json::parse::<json::InboxEvent<'_>>(bytes).unwrap()),
            "send" => serde_json::to_value(json::parse::<json::SendBody<'_>>(bytes).unwrap()),
            "read" => serde_json::to_value(json::parse::<json::ReadBody>(bytes).unwrap()),
            "problem" => Ok(problem(&written)),
            other => panic!("no test knows the form `{other}`"),
        };
        assert_eq!(read.unwrap(), written);
    }
    let types: Vec<_> = ["message", "member", "conversation", "refused", "gap", "receipt"].into();
    for wanted in types {
        let shown = examples
            .iter()
            .any(|(_, text)| text.contains(&format!("{{\"type\":\"{wanted}\"")));
        assert!(shown, "the page shows no `{wanted}`");
    }
}

/// What a problem of this code must be, with the fields that are free taken from the example.
fn problem(written: &Value) -> Value {
    let code = Code::ALL
        .into_iter()
        .find(|code| code.name() == written["code"])
        .unwrap();
    serde_json::json!({
        "type": format!("urn:godwit:error:{}", code.name()),
        "title": written["title"].as_str().unwrap(),
        "status": code.http(),
        "detail": written["detail"].as_str().unwrap(),
        "code": code.name(),
        "retryable": code.retryable(),
        "request_id": written["request_id"].as_str().unwrap(),
    })
}

#[test]
fn every_inline_object_with_quoted_keys_is_json() {
    let prose: String = PAGE.split("```").step_by(2).collect();
    let inline: Vec<_> = prose
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.starts_with("{\""))
        .collect();
    assert!(inline.len() >= 2, "{inline:?}");
    for code in inline {
        serde_json::from_str::<Value>(code).unwrap_or_else(|error| panic!("{error}: {code}"));
    }
}

#[test]
fn the_table_of_codes_is_that_of_the_code() {
    for code in Code::ALL {
        let puback = match code {
            Code::Unauthenticated => "–".to_owned(),
            other => format!("0x{:02X}", other.puback()),
        };
        let row = format!("| {} | {} | {puback} |", code.name(), code.http());
        assert!(PAGE.contains(&row), "{row}");
    }
}

#[test]
fn the_topics_marked_not_yet_are_those_that_are_refused_so() {
    let mut rows = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split(" | ");
        let (topic_cell, how) = (cells.next().unwrap(), cells.next().unwrap());
        let topic = topic_cell.split('`').nth(1).unwrap();
        let topic = topic
            .replace("{conv}", ID)
            .replace("{user}", ID)
            .replace("{device}", "phone");
        let refusal = match how.starts_with("subscribe") {
            true => classify_filter(&topic)
                .map(|known| assert!(matches!(known, FilterTopic::Inbox(_))))
                .err(),
            false => classify_publish(&topic)
                .map(|known| assert!(!matches!(known, PublishTopic::Ordinary(_))))
                .err(),
        };
        let marked = topic_cell.contains("**not yet**");
        assert_eq!(refusal, marked.then_some(TopicRefusal::NotYet), "{row}");
        rows += 1;
    }
    assert_eq!(rows, 10);
}
