//! Doors (SCOPE): every door × whose × who, generated from the served OpenAPI document and from the topic table of
//! docs/protocol.md, on the real binary. A door that is in neither matrix fails the test.

mod effects;
mod http;
mod raw;
mod rest;
mod rest_rows;
mod tap;
mod topic_rows;
mod topics;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_e2e::binaries::workspace;
use serde_json::json;

use raw::{Answer, Hello, Packet, Version, Wire};
use tap::Tap;
use world::{PASSWORD, World, device_token, done, login};

fn none_wrong(wrong: &[String]) -> Result<()> {
    let few = wrong.iter().take(60).cloned().collect::<Vec<_>>();
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), few.join("\n"));
    Ok(())
}

#[test]
fn every_rest_door_gives_each_asker_its_one_answer_and_tells_not_yours_from_not_there_to_nobody() -> Result<()>
{
    let world = World::new(&[])?;
    let document = done(world.http.call("GET", "/api/v1/openapi.json", None, None)?)?;
    none_wrong(&rest::missing(&document)?)?;
    let mut grown = document;
    grown["paths"]["/api/v1/conversations/{conversation_id}/pin"]["post"]["operationId"] = "pin".into();
    grown["paths"]["/api/v1/users/{user_id}"]["get"]["parameters"] = json!([{"name": "as", "in": "query"}]);
    ensure!(
        rest::missing(&grown)?.len() == 3,
        "a new path, its id and a new parameter are noticed"
    );
    let (wrong, cells) = rest::run(&world).with_context(|| world.node.tail())?;
    println!("{cells} cells");
    none_wrong(&wrong)
}

#[test]
fn every_topic_door_gives_each_client_its_one_answer_and_lets_nothing_else_through() -> Result<()> {
    let world = World::new(&["--anonymous"])?;
    let page = std::fs::read_to_string(workspace().join("docs/protocol.md"))?;
    let lines = topic_rows::table(&page)?;
    none_wrong(&topic_rows::missing(&lines, &topic_rows::names(&world)))?;
    let grown = topic_rows::table(&page.replacen(
        "| anything else",
        "| `c/{conv}/pin` | publish | |\n| anything else",
        1,
    ))?;
    ensure!(
        topic_rows::missing(&grown, &topic_rows::names(&world)).len() == 1,
        "a new topic is noticed"
    );
    let cells = topics::cells(&world, &lines)?;
    println!("{} cells", cells.len());
    let witness = effects::Witness::new(&world)?;
    let mut wrong = topics::run(&world, &cells).with_context(|| world.node.tail())?;
    wrong.extend(witness.judge(&world, &cells)?);
    none_wrong(&wrong)
}

#[test]
fn a_wildcard_in_the_first_level_never_delivers_a_reserved_topic() -> Result<()> {
    let world = World::new(&["--anonymous"])?;
    let port = world.node.ports().mqtt;
    let all = Tap::new(port, "all", None, &["#"])?;
    let plus = Tap::new(port, "plus", None, &["+/+", "+/+/+", "+/#"])?;
    let bob = Tap::new(
        port,
        "bob",
        Some((&world.bob.name, &world.bob.device)),
        &["me/inbox/text"],
    )?;
    let hello = Hello {
        version: Version::V5,
        client: "sender",
        login: Some((&world.alice.name, &world.alice.device)),
        will: None,
        keep: false,
    };
    let mut alice = Wire::connect(port, &hello)?.0.context("alice is let in")?;
    let ack = Answer::Ack(0, Vec::new());
    ensure!(alice.publish(&format!("c/{}/send/text", world.ours), b"chat", 1, false)? == ack);
    ensure!(alice.publish("iot/alice/t", b"ordinary", 1, false)? == ack);
    let chat = bob.settled(|seen| !seen.is_empty());
    ensure!(
        chat.iter().any(|one| one.payload == b"alice: chat"),
        "bob has it: {chat:?}"
    );
    for (tap, copies) in [(&all, 1), (&plus, 2)] {
        let seen = tap.settled(|seen| !seen.is_empty());
        ensure!((1..=copies).contains(&seen.len()), "{seen:?}");
        ensure!(
            seen.iter()
                .all(|one| one.topic == "iot/alice/t" && one.payload == b"ordinary"),
            "{seen:?}"
        );
    }
    Ok(())
}

#[test]
fn every_credential_that_does_not_hold_is_refused_alike() -> Result<()> {
    let world = World::new(&[])?;
    let (alice, carol) = (&world.alice, &world.carol);
    let never = format!("gdt_{}", "0".repeat(32));
    let bad = [
        (alice.name.as_str(), world.ended_access.as_str()),
        (&alice.name, &world.ended_device),
        (&alice.name, &never),
        (&alice.name, &carol.device),
        (&alice.name, &carol.access),
        (&alice.name, PASSWORD),
        (&alice.name, ""),
        ("nobody-has-this-name", &alice.device),
        ("nobody-has-this-name", &never),
        ("", &alice.device),
        ("me", &alice.device),
    ];
    let port = world.node.ports().mqtt;
    for (version, refused) in [(Version::V3, 4), (Version::V5, 0x86)] {
        for (name, password) in bad {
            let login = Some((name, password));
            let hello = Hello {
                version,
                client: "door",
                login,
                will: None,
                keep: false,
            };
            let answer = Wire::connect(port, &hello)?.1;
            ensure!(
                answer == Answer::Connack(refused),
                "{version:?} {name:?}: {answer:?}"
            );
        }
        for (name, password) in [
            (&alice.name, &alice.device),
            (&alice.id, &alice.device),
            (&alice.name, &alice.access),
        ] {
            let login = Some((name.as_str(), password.as_str()));
            let hello = Hello {
                version,
                client: "door",
                login,
                will: None,
                keep: false,
            };
            ensure!(
                Wire::connect(port, &hello)?.1 == Answer::Connack(0),
                "{version:?} {name}"
            );
        }
        // Nobody is anonymous unless the installation says so.
        let hello = Hello {
            version,
            client: "door",
            login: None,
            will: None,
            keep: false,
        };
        let answer = Wire::connect(port, &hello)?.1;
        ensure!(
            matches!(answer, Answer::Connack(4 | 5 | 0x86 | 0x87)),
            "{version:?} nobody: {answer:?}"
        );
    }
    Ok(())
}

/// How long a connection may outlive its token.
const CUT: Duration = Duration::from_secs(5);

#[test]
fn a_connection_ends_with_its_token_and_its_session_stays() -> Result<()> {
    let world = World::new(&[])?;
    let (alice, port) = (&world.alice, world.node.ports().mqtt);
    for version in [Version::V3, Version::V5] {
        for device in [false, true] {
            let (token, end) = if device {
                let (token, id) = device_token(&world.http, &alice.access, &["chat", "topics"])?;
                (
                    token,
                    (
                        "DELETE",
                        format!("/api/v1/auth/device-tokens/{id}"),
                        alice.access.clone(),
                    ),
                )
            } else {
                let token = login(&world.http, &alice.name)?.0;
                (token.clone(), ("POST", "/api/v1/auth/logout".to_owned(), token))
            };
            let client = format!("ending-{version:?}-{device}");
            let hello = |password| {
                let login = Some((alice.name.as_str(), password));
                Hello {
                    version,
                    client: &client,
                    login,
                    will: None,
                    keep: true,
                }
            };
            let mut wire = Wire::connect(port, &hello(&token))?.0.context("let in")?;
            ensure!(wire.subscribe("iot/alice/kept", 1)? == Answer::Suback(1));
            done(world.http.call(end.0, &end.1, Some(&end.2), None)?)?;
            let began = Instant::now();
            match (version, wire.read()?) {
                (Version::V5, Some(Packet::Disconnect(0x87))) | (Version::V3, None) => {}
                (_, other) => anyhow::bail!("{client}: {other:?}"),
            }
            ensure!(began.elapsed() <= CUT, "{client}: after {:?}", began.elapsed());

            let refused = if version == Version::V5 { 0x86 } else { 4 };
            ensure!(
                Wire::connect(port, &hello(&token))?.1 == Answer::Connack(refused),
                "{client}: again"
            );
            // What was owed meanwhile comes with a token that holds.
            let mut other = publisher(&world)?;
            ensure!(matches!(
                other.publish("iot/alice/kept", b"kept", 1, false)?,
                Answer::Ack(0, _)
            ));
            let mut wire = Wire::connect(port, &hello(&alice.device))?.0.context("let in")?;
            match wire.read()? {
                Some(Packet::Publish(one)) if one.payload == b"kept" => wire.puback(one.id),
                other => anyhow::bail!("{client}: the session is gone: {other:?}"),
            }
        }
    }
    Ok(())
}

fn publisher(world: &World) -> Result<Wire> {
    let login = Some((world.alice.name.as_str(), world.alice.device.as_str()));
    let hello = Hello {
        version: Version::V5,
        client: "publisher",
        login,
        will: None,
        keep: false,
    };
    Wire::connect(world.node.ports().mqtt, &hello)?
        .0
        .context("let in")
}

#[test]
fn client_ids_that_could_widen_a_rule_open_nothing() -> Result<()> {
    let world = World::with(
        &[],
        &[(
            "GODWIT_ACL",
            "allow both users dev/%c/#; allow both users iot/%u/#",
        )],
    )?;
    let port = world.node.ports().mqtt;
    let login = Some((world.alice.name.as_str(), world.alice.device.as_str()));
    let attempt = |client: &str, topic: &str, granted: bool| -> Result<()> {
        let hello = Hello {
            version: Version::V5,
            client,
            login,
            will: None,
            keep: false,
        };
        let mut wire = Wire::connect(port, &hello)?
            .0
            .with_context(|| format!("{client:?} is let in"))?;
        let answer = wire.subscribe(topic, 1)?;
        let expected = Answer::Suback(if granted { 1 } else { 0x87 });
        ensure!(answer == expected, "{client:?} on {topic}: {answer:?}");
        let mut wire = Wire::connect(port, &hello)?.0.context("let in again")?;
        if !topic.contains(['+', '#']) {
            let answer = wire.publish(topic, b"x", 1, false)?;
            let fine = matches!(answer, Answer::Ack(0 | 0x10, _)) == granted;
            ensure!(fine, "{client:?} to {topic}: {answer:?}");
        }
        Ok(())
    };
    attempt("c1", "dev/c1/a", true)?;
    attempt("c1", "dev/c1/#", true)?;
    attempt("c1", "dev/c2/a", false)?;
    for (client, topic) in [
        ("+", "dev/+/a"),
        ("+", "dev/c1/a"),
        ("#", "dev/#"),
        ("#", "dev/c1/a"),
        ("c1/b", "dev/c1/b/a"),
        ("c1/#", "dev/c1/a"),
        // A name of the door's own making is nobody's to guess.
        ("", "dev//a"),
        ("", "dev/c1/a"),
        ("%u", "dev/alice/a"),
    ] {
        attempt(client, topic, false)?;
    }
    Ok(())
}
