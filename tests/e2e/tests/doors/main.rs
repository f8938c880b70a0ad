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

use anyhow::{Context, Result, ensure};
use godwit_e2e::binaries::workspace;

use raw::{Answer, Hello, Version, Wire};
use tap::Tap;
use world::{PASSWORD, World, done};

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
