//! The MQTT topics and which names stand for mine, others', absent, reserved and wildcard in each. What a topic is for, and
//! whether it is served, is read from the table in docs/protocol.md, which must not have a row without one here.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::world::{Column, World, absent_id};

/// A row of the table in docs/protocol.md.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The topic, or `anything else`.
    pub(crate) topic: String,
    pub(crate) publish: bool,
    pub(crate) subscribe: bool,
    pub(crate) served: bool,
}

/// Reads the table.
pub(crate) fn table(page: &str) -> Result<Vec<Line>> {
    let mut lines = page
        .lines()
        .skip_while(|line| !line.starts_with("| topic | who, how |"))
        .skip(2);
    let mut found = Vec::new();
    for line in lines.by_ref().take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, topic, how, ..] = cells[..] else {
            anyhow::bail!("an odd row: {line}")
        };
        let named = topic.split('`').nth(1).unwrap_or(topic);
        found.push(Line {
            topic: named.to_owned(),
            publish: how.contains("publish") || how.contains("ACL"),
            subscribe: how.contains("subscribe") || how.contains("ACL"),
            served: !topic.contains("**not yet**"),
        });
    }
    ensure!(
        found.len() >= 10,
        "the topic table of docs/protocol.md was not found"
    );
    Ok(found)
}

/// How a payload is made from a cell's mark.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Bare.
    Plain,
    /// A protobuf SendRequest.
    Proto,
    /// The body of POST message.
    Json,
    /// A watermark at 1.
    ReadProto,
    ReadJson,
}

impl Form {
    pub(crate) fn payload(self, mark: &str) -> Vec<u8> {
        match self {
            Self::Plain => mark.into(),
            Self::Proto => {
                let mut bytes = vec![0x1a, u8::try_from(mark.len()).unwrap_or(0)];
                bytes.extend(mark.as_bytes());
                bytes
            }
            Self::Json => json!({ "content": mark }).to_string().into(),
            Self::ReadProto => vec![8, 1],
            Self::ReadJson => json!({ "up_to": 1 }).to_string().into(),
        }
    }
}

/// What a successful publish leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// A message in the conversation of the column.
    Message,
    /// A delivery to who subscribed.
    Delivery,
    Nothing,
}

/// Names of one topic of the table.
pub(crate) struct Names {
    /// The row of the table.
    pub(crate) line: &'static str,
    pub(crate) form: Form,
    pub(crate) leaves: Leaves,
    pub(crate) names: Vec<(Column, String)>,
    /// Filters, where they are others than the names.
    pub(crate) filters: Vec<(Column, String)>,
}

fn of(line: &'static str, form: Form, leaves: Leaves, names: &[(Column, &str)]) -> Names {
    let names: Vec<(Column, String)> = names
        .iter()
        .map(|(column, name)| (*column, (*name).to_owned()))
        .collect();
    Names {
        line,
        form,
        leaves,
        filters: names.clone(),
        names,
    }
}

/// A topic under `c/` that ends in `rest`, for conversations by id.
fn conversation(world: &World, line: &'static str, rest: &str, form: Form, leaves: Leaves) -> Names {
    use Column::{Absent, Mine, Others, Reserved, Wildcard};
    let (ours, theirs, absent) = (&world.ours, &world.theirs, absent_id());
    let upper = ours.to_uppercase();
    of(
        line,
        form,
        leaves,
        &[
            (Mine, &format!("c/{ours}/{rest}")),
            (Others, &format!("c/{theirs}/{rest}")),
            (Absent, &format!("c/{absent}/{rest}")),
            (Reserved, &format!("c/{ours}/{rest}/xml")),
            (Reserved, &format!("c/{upper}/{rest}")),
            (Reserved, &format!("c/me/{rest}")),
            (Wildcard, &format!("c/+/{rest}")),
        ],
    )
}

/// The same for one-to-one conversations by the other's name: whoever blocks me is nobody.
fn by_name(world: &World, line: &'static str, rest: &str, form: Form, leaves: Leaves) -> Names {
    use Column::{Absent, Mine, Others, Reserved, Wildcard};
    let (bob, erin) = (&world.bob.name, &world.erin.name);
    of(
        line,
        form,
        leaves,
        &[
            (Mine, &format!("c/@{bob}/{rest}")),
            (Others, &format!("c/@{erin}/{rest}")),
            (Absent, &format!("c/@nobody-has-this-name/{rest}")),
            (Reserved, &format!("c/@/{rest}")),
            (Reserved, &format!("c/@me/{rest}")),
            (Wildcard, &format!("c/@+/{rest}")),
        ],
    )
}

/// Every name that is tried.
pub(crate) fn names(world: &World) -> Vec<Names> {
    use Column::{Absent, Mine, Others, Reserved, Wildcard};
    let (alice, carol, absent) = (&world.alice.id, &world.carol.id, absent_id());
    let mut inbox = of(
        "me/inbox",
        Form::Plain,
        Leaves::Nothing,
        &[
            (Mine, "me/inbox"),
            (Mine, "me/inbox/json"),
            (Mine, "me/inbox/text"),
            // Nobody's mailbox has another name than its owner's own, not even for the owner.
            (Others, &format!("u/{carol}/inbox")),
            (Absent, &format!("u/{absent}/inbox")),
            (Reserved, &format!("u/{alice}/inbox")),
            (Reserved, "me"),
            (Reserved, "me/"),
            (Reserved, "me/outbox"),
            (Reserved, "me/inbox/xml"),
            (Wildcard, "me/+"),
            (Wildcard, "me/#"),
            (Wildcard, "u/#"),
        ],
    );
    inbox.filters.push((Reserved, "$share/g/me/inbox".into()));
    let mut ordinary = of(
        "anything else",
        Form::Plain,
        Leaves::Delivery,
        &[
            (Mine, "iot/alice"),
            (Mine, "iot/alice/a/b"),
            (Others, "iot/carol/a"),
            (Absent, "iot/nobody-has-this-name/a"),
            (Absent, "somewhere/else"),
            (Reserved, "$SYS/a"),
            (Reserved, "$share/g/iot/alice/a"),
            (Reserved, "c"),
            (Reserved, "p"),
            (Reserved, "u"),
            (Wildcard, "iot/alice/+"),
            (Wildcard, "iot/+/a"),
            (Wildcard, "#"),
        ],
    );
    ordinary.filters.extend([
        (Mine, "iot/alice/#".into()),
        (Mine, "iot/alice/+/b".into()),
        (Reserved, "$SYS/#".into()),
        (Wildcard, "iot/#".into()),
        (Wildcard, "+/alice/a".into()),
        (Wildcard, "+/inbox".into()),
        (Wildcard, "+/+".into()),
        (Wildcard, "/#".into()),
    ]);
    // A wildcard below what is mine is mine, and a group on what is mine is as good as what it is on.
    let mine = ["iot/alice/+", "$share/g/iot/alice/a"];
    ordinary
        .filters
        .retain(|(_, name)| !mine.contains(&name.as_str()));
    ordinary.filters.extend(mine.map(|name| (Mine, name.into())));
    ordinary.filters.extend([
        (Mine, "$share/g/iot/alice/#".into()),
        (Others, "$share/g/iot/carol/a".into()),
        (Absent, "$share/g/somewhere/else".into()),
        (Wildcard, "$share/g/#".into()),
    ]);
    let presence = &[
        (Mine, format!("p/{alice}")),
        (Others, format!("p/{carol}")),
        (Absent, format!("p/{absent}")),
        (Reserved, "p/".to_owned()),
        (Reserved, format!("p/{alice}/phone")),
        (Wildcard, "p/+".to_owned()),
        (Wildcard, "p/#".to_owned()),
    ];
    let own_presence = &[
        (Mine, "p/me/phone".to_owned()),
        (Others, format!("p/{carol}/phone")),
        (Absent, format!("p/{absent}/phone")),
        (Reserved, "p/me".to_owned()),
        (Reserved, "p/me/phone/more".to_owned()),
        (Wildcard, "p/me/+".to_owned()),
    ];
    let borrowed = |names: &[(Column, String)], line| {
        let names: Vec<(Column, &str)> = names
            .iter()
            .map(|(column, name)| (*column, name.as_str()))
            .collect();
        of(line, Form::Plain, Leaves::Nothing, &names)
    };
    let live = [
        (Mine, "me/live"),
        (Mine, "me/live/json"),
        (Reserved, "me/live/text"),
        (Wildcard, "me/live/#"),
    ];
    let mut all = vec![
        inbox,
        of("me/live", Form::Plain, Leaves::Nothing, &live),
        ordinary,
        borrowed(presence, "p/{user}"),
        borrowed(own_presence, "p/me/{device}"),
    ];
    let send = "c/{conv}/send";
    for (rest, form) in [
        ("send", Form::Proto),
        ("send/json", Form::Json),
        ("send/text", Form::Plain),
    ] {
        all.push(conversation(world, send, rest, form, Leaves::Message));
        all.push(by_name(world, send, rest, form, Leaves::Message));
    }
    for (rest, form) in [("read", Form::ReadProto), ("read/json", Form::ReadJson)] {
        all.push(conversation(world, "c/{conv}/read", rest, form, Leaves::Nothing));
        all.push(by_name(world, "c/{conv}/read", rest, form, Leaves::Nothing));
    }
    for (line, rest) in [
        ("c/{conv}/react", "react"),
        ("c/{conv}/typing", "typing"),
        ("c/{conv}/typing/+", "typing/+"),
        ("c/{conv}/log", "log"),
    ] {
        all.push(conversation(world, line, rest, Form::Plain, Leaves::Nothing));
    }
    all
}

/// Rows of the table without names here, and the reverse.
pub(crate) fn missing(lines: &[Line], names: &[Names]) -> Vec<String> {
    let unnamed = lines
        .iter()
        .filter(|line| !names.iter().any(|of| of.line == line.topic));
    let mut wrong: Vec<String> = unnamed
        .map(|line| format!("{} has no names in the matrix", line.topic))
        .collect();
    let unknown = names
        .iter()
        .filter(|of| !lines.iter().any(|line| line.topic == of.line));
    wrong.extend(unknown.map(|of| format!("{} is not in the table", of.line)));
    wrong
}

/// The table's row of some names.
pub(crate) fn line_of<'a>(lines: &'a [Line], names: &Names) -> Result<&'a Line> {
    lines
        .iter()
        .find(|line| line.topic == names.line)
        .context("a name without its row")
}
