//! The REST matrix: every door × who asks × whose the id is, the one expected answer of each cell, and the comparison of
//! "not there" with "not yours".

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{Got, encoded};
use crate::rest_rows::{Expect, Needs, PLAIN_QUERY, ROWS, Row};
use crate::world::{Column, PASSWORD, Person, SECRET, World, login};

/// By whom a door is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// alice, by her login session.
    Owner,
    /// alice, by a device token with the scope `rest` alone.
    Device,
    /// alice, by a device token without the scope `rest`.
    WithoutRest,
    /// bob, who is in alice's conversations and no admin.
    Member,
    /// carol, who is in none of them.
    Stranger,
    Nobody,
    /// alice, by an access token or a device token that has ended.
    Ended,
    EndedDevice,
}

const EVERYBODY: [Who; 8] = [
    Who::Owner,
    Who::Device,
    Who::WithoutRest,
    Who::Member,
    Who::Stranger,
    Who::Nobody,
    Who::Ended,
    Who::EndedDevice,
];

impl Who {
    fn person(self, world: &World) -> &Person {
        match self {
            Self::Member => &world.bob,
            Self::Stranger => &world.carol,
            _ => &world.alice,
        }
    }

    fn token(self, world: &World, row: &Row) -> Result<Option<String>> {
        if row.needs == Needs::OwnLogin && matches!(self, Self::Owner | Self::Member | Self::Stranger) {
            return Ok(Some(login(&world.http, &world.gina.name)?.0));
        }
        Ok(Some(match self {
            Self::Owner | Self::Member | Self::Stranger => self.person(world).access.clone(),
            Self::Device => world.alice.only_rest.clone(),
            Self::WithoutRest => world.alice.only_chat.clone(),
            Self::Nobody => return Ok(None),
            Self::Ended => world.ended_access.clone(),
            Self::EndedDevice => world.ended_device.clone(),
        }))
    }
}

/// Which id is varied, and how.
type Varied = Option<(usize, Column)>;

/// The one answer. `None`: the cell says nothing that another does not say.
fn expected(row: &Row, who: Who, varied: Varied) -> Option<Expect> {
    use Expect::{Forbidden, Malformed, NotFound, Success, Unauthenticated};
    let column = varied.map_or(Column::Mine, |(_, column)| column);
    let subject = varied.map(|(index, _)| &row.subjects[index]);
    if row.needs == Needs::Nothing {
        return Some(Success);
    }
    let for_owner = match (column, subject) {
        (Column::Mine, _) | (_, None) => Success,
        (Column::Others, Some(subject)) => subject.others,
        (Column::Absent, Some(subject)) => subject.absent,
        (Column::Reserved | Column::Wildcard, Some(subject)) => subject.form,
    };
    match who {
        Who::Nobody | Who::Ended | Who::EndedDevice => Some(Unauthenticated),
        Who::WithoutRest => Some(Forbidden),
        Who::Device if row.needs != Needs::Caller => Some(Forbidden),
        Who::Owner | Who::Device => Some(for_owner),
        Who::Member if column == Column::Mine && row.is_private() => row.member.or(Some(NotFound)),
        Who::Member => None,
        Who::Stranger if row.is_private() => match (varied, for_owner) {
            // Hers.
            (Some((0, Column::Others)), _) => None,
            // What the id's form says is said before anybody looks whose it is.
            (Some((0, _)), Malformed) => Some(Malformed),
            // Which of two wrongs is told first is nobody's promise.
            (_, Malformed) => None,
            _ => Some(NotFound),
        },
        Who::Stranger if row.subjects.is_empty() => Some(Success),
        Who::Stranger => None,
    }
}

/// Columns of a row: everything mine, then each id in turn as another's.
fn variations(row: &Row) -> Vec<Varied> {
    let mut all = vec![None];
    for index in 0..row.subjects.len() {
        all.extend(
            Column::ALL
                .into_iter()
                .filter(|column| *column != Column::Mine)
                .map(|column| Some((index, column))),
        );
    }
    all
}

fn call(world: &World, row: &Row, who: Who, varied: Varied) -> Result<Got> {
    let mut values: Vec<(&str, String)> = vec![("password", PASSWORD.into())];
    for (index, subject) in row.subjects.iter().enumerate() {
        let column = varied
            .filter(|(which, _)| *which == index)
            .map_or(Column::Mine, |(_, column)| column);
        values.push((subject.name, subject.thing.value(world, column)?));
    }
    for (name, thing) in row.values {
        values.push((name, thing.value(world, Column::Mine)?));
    }
    let (method, path) = row
        .door
        .split_once(' ')
        .context("a door is a method and a path")?;
    let query = if row.query.is_empty() {
        String::new()
    } else {
        format!("?{}", row.query)
    };
    let (mut url, mut body) = (format!("{path}{query}"), row.body.to_owned());
    for (name, value) in &values {
        url = url.replace(&format!("{{{name}}}"), &encoded(value));
        body = body.replace(
            &format!("\"{{{name}}}\""),
            &Value::from(value.as_str()).to_string(),
        );
    }
    let body: Option<Value> = if body.is_empty() {
        None
    } else {
        Some(serde_json::from_str(&body)?)
    };
    let token = who.token(world, row)?;
    world.http.call(method, &url, token.as_deref(), body.as_ref())
}

/// What is wrong with an answer.
fn judge(world: &World, row: &Row, who: Who, expect: Expect, got: &Got) -> Option<String> {
    let said = got.body.to_string();
    let insider = matches!(who, Who::Owner | Who::Device | Who::Member) || row.needs == Needs::OwnLogin;
    let private = [SECRET, &world.ours, &world.group, &world.our_message];
    if !insider && let Some(leaked) = private.iter().find(|leaked| said.contains(**leaked)) {
        return Some(format!("it shows {leaked}"));
    }
    let fine = match expect.refusal() {
        None => row.ok.contains(&got.status),
        Some((status, code)) => {
            got.status == status && got.code() == code && got.content_type == "application/problem+json"
        }
    };
    (!fine).then(|| format!("expected {expect:?}"))
}

/// Tries every cell; gives what was wrong, and how many cells there were.
pub(crate) fn run(world: &World) -> Result<(Vec<String>, usize)> {
    let (mut wrong, mut cells) = (Vec::new(), 0);
    for row in ROWS {
        for who in EVERYBODY {
            let mut answers: Vec<(Varied, Expect, Got)> = Vec::new();
            for varied in variations(row) {
                let Some(expect) = expected(row, who, varied) else {
                    continue;
                };
                let got = call(world, row, who, varied)
                    .with_context(|| format!("{} {} {who:?} {varied:?}", row.door, row.query))?;
                cells += 1;
                if let Some(what) = judge(world, row, who, expect, &got) {
                    let of = varied.map(|(index, column)| (row.subjects[index].name, column));
                    let query = row.query;
                    wrong.push(format!(
                        "{} {query} {who:?} {of:?}: {what}, got {} {}",
                        row.door, got.status, got.body
                    ));
                }
                answers.push((varied, expect, got));
            }
            wrong.extend(differences(row, who, &answers));
        }
    }
    Ok((wrong, cells))
}

/// All cells of one asker that say "not found" must say it in the same words: mine to a stranger, others', absent.
fn differences(row: &Row, who: Who, answers: &[(Varied, Expect, Got)]) -> Vec<String> {
    let mut same: BTreeMap<&str, Vec<&(Varied, Expect, Got)>> = BTreeMap::new();
    for answer in answers
        .iter()
        .filter(|(_, expect, _)| *expect == Expect::NotFound)
    {
        let form = matches!(answer.0, Some((_, Column::Reserved | Column::Wildcard)));
        if !form {
            same.entry("not found").or_default().push(answer);
        }
    }
    let mut wrong = Vec::new();
    for group in same.values() {
        for pair in group.windows(2) {
            let [(one, _, first), (other, _, second)] = pair else {
                continue;
            };
            if first != second {
                wrong.push(format!(
                    "{} {} {who:?}: {one:?} and {other:?} can be told apart: {first:?} {second:?}",
                    row.door, row.query
                ));
            }
        }
    }
    wrong
}

/// Doors of the document without a row, rows without a door, ids of the document that no row varies.
pub(crate) fn missing(document: &Value) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let (mut doors, mut operations) = (BTreeSet::new(), BTreeSet::new());
    let paths = document["paths"]
        .as_object()
        .context("no paths in the document")?;
    for (path, item) in paths {
        for (method, operation) in item.as_object().context("a path is no object")? {
            if ![
                "get", "put", "post", "delete", "patch", "head", "options", "trace",
            ]
            .contains(&method.as_str())
            {
                continue;
            }
            let door = format!("{} {path}", method.to_uppercase());
            let rows: Vec<&Row> = ROWS.iter().filter(|row| row.door == door).collect();
            if rows.is_empty() {
                wrong.push(format!("{door} has no row"));
            }
            // Clients are generated by these.
            let named = operation["operationId"].as_str().unwrap_or_default();
            if !operations.insert(named.to_owned()) {
                wrong.push(format!("{door}: the operationId {named:?} is another's too"));
            }
            for id in ids(document, &door, operation)? {
                let varied = |row: &&Row| row.subjects.iter().any(|subject| subject.name == id);
                if !rows.iter().any(varied) {
                    wrong.push(format!("{door}: no row varies {id}"));
                }
            }
            doors.insert(door);
        }
    }
    ensure!(!doors.is_empty(), "the document has no doors");
    let gone = ROWS.iter().filter(|row| !doors.contains(row.door));
    wrong.extend(gone.map(|row| format!("{} is not in the document", row.door)));
    Ok(wrong)
}

/// Parameters in the path, those of the query that are not plain, and UUIDs in the body.
fn ids(document: &Value, door: &str, operation: &Value) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for piece in door.split('{').skip(1) {
        found.insert(piece.split('}').next().unwrap_or_default().to_owned());
    }
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().context("a parameter without a name")?;
        let plain = PLAIN_QUERY
            .iter()
            .any(|(of, plain)| (*of == "*" || *of == door) && *plain == name);
        if parameter["in"] == "query" && !plain {
            found.insert(name.to_owned());
        }
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    collect_uuids(document, schema, &mut found, 0);
    Ok(found)
}

/// Names of the properties that are UUIDs.
fn collect_uuids(document: &Value, schema: &Value, found: &mut BTreeSet<String>, depth: usize) {
    if depth > 8 {
        return;
    }
    let pointer = schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'));
    if let Some(meant) = pointer.and_then(|pointer| document.pointer(pointer)) {
        collect_uuids(document, meant, found, depth + 1);
    }
    for all in ["allOf", "oneOf", "anyOf"] {
        for part in schema[all].as_array().into_iter().flatten() {
            collect_uuids(document, part, found, depth + 1);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        // Media are not served yet: there is nothing that the id could name.
        if name != "media_id" && (property["format"] == "uuid" || property["items"]["format"] == "uuid") {
            found.insert(name.clone());
        }
        collect_uuids(document, property, found, depth + 1);
    }
}
