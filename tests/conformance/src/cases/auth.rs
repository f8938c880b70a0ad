//! Enhanced authentication and re-authentication (section 4.12), with users of the server under test. The client's side of
//! SCRAM is a library's; no cryptography here.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use godwit_e2e::rest::{Api, Refused};
use rsasl::config::SASLConfig;
use rsasl::mechname::Mechname;
use rsasl::prelude::{SASLClient, Session};
use serde_json::json;

use super::{Case, SKIPPED, cases, check};
use crate::client::{Client, Connect, Outcome};
use crate::server::Server;
use crate::wire::{self, AUTH, CONNACK, PUBACK, Packet, Value, props, text};

pub(crate) const CASES: &[Case] = cases!("auth";
    V5: scram_lets_in, scram_wrong_proof_is_refused, scram_of_nobody_is_refused_alike, only_auth_before_connack,
        method_stays_in_an_exchange, token_lets_in, token_is_renewed, scram_is_renewed, failed_renewal_ends,
        renewal_keeps_its_method, auth_fits_a_small_client, messages_flow_while_it_renews;
);

const SCRAM: &str = "SCRAM-SHA-256";
const PASSWORD: &str = "not told to MQTT";

/// A user with a device token.
#[derive(Clone)]
struct User {
    name: String,
    token: String,
    token_id: String,
}

impl User {
    fn new(server: &Server) -> Outcome<Self> {
        Self::number(server, 0)
    }

    /// The users of a server are made once: each costs two password hashes.
    fn number(server: &Server, number: usize) -> Outcome<Self> {
        static MADE: Mutex<Vec<((SocketAddr, usize), User)>> = Mutex::new(Vec::new());
        let rest = server.rest.ok_or(format!("{SKIPPED}no users of ours there"))?;
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, user)) = made.iter().find(|(at, _)| *at == (rest, number)) {
            return Ok(user.clone());
        }
        let user = Self::made(server, rest)?;
        made.push(((rest, number), user.clone()));
        Ok(user)
    }

    fn made(server: &Server, rest: SocketAddr) -> Outcome<Self> {
        let name = server.name("u");
        let refused = |error: Refused| format!("{name}: {error}");
        let api = Api::new(&format!("http://{rest}"));
        api.register(&name, PASSWORD).map_err(refused)?;
        let login = json!({ "username": name, "password": PASSWORD });
        let (_, session) = api.post_patiently("/auth/login", None, &login).map_err(refused)?;
        let access = session["access_token"].as_str();
        let body = json!({ "name": "conformance" });
        let (_, made) = api
            .post_patiently("/auth/device-tokens", access, &body)
            .map_err(refused)?;
        let field = |name: &str| made[name].as_str().map(str::to_owned).ok_or("no device token");
        Ok(Self {
            token: field("token")?,
            token_id: field("id")?,
            name,
        })
    }

    fn scram(&self) -> Outcome<Scram> {
        Scram::new(&format!("{}/{}", self.name, self.token_id), &self.token)
    }

    fn by_token<'a>(&self, server: &'a Server) -> Connect<'a> {
        Connect::new(server)
            .username(&self.name)
            .with(0x15, text("TOKEN"))
            .with(0x16, text(&self.token))
    }
}

/// The client's side of an exchange.
struct Scram(Session);

impl Scram {
    fn new(name: &str, password: &str) -> Outcome<Self> {
        let method = Mechname::parse(SCRAM.as_bytes()).map_err(|error| error.to_string())?;
        let config = SASLConfig::with_credentials(None, name.into(), password.into());
        let client = SASLClient::new(config.map_err(|error| error.to_string())?);
        let session = client
            .start_suggested(&[method])
            .map_err(|error| error.to_string())?;
        Ok(Self(session))
    }

    fn first(&mut self) -> Outcome<Vec<u8>> {
        self.step(None)
    }

    fn step(&mut self, message: Option<&[u8]>) -> Outcome<Vec<u8>> {
        let mut said = Cursor::new(Vec::new());
        let step = self.0.step(message, &mut said);
        step.map_err(|error| format!("SCRAM: {error}"))?;
        Ok(said.into_inner())
    }

    /// Connects up to the server's challenge; gives the proof that answers it.
    fn challenged(&mut self, connect: Connect<'_>) -> Outcome<(Client, Vec<u8>)> {
        let first = self.first()?;
        let mut client = connect.with(0x15, text(SCRAM)).with(0x16, text(first)).send()?;
        let challenge = wants_more(&mut client, SCRAM)?;
        let proof = self.step(Some(&challenge))?;
        Ok((client, proof))
    }

    /// The server knows the keys too, by what it said last.
    fn believes(&mut self, last: &Packet) -> Outcome {
        self.step(Some(&data(last))).map(drop)
    }
}

fn auth(code: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let mut body = vec![code];
    let mut given = vec![(0x15, text(method))];
    if !data.is_empty() {
        given.push((0x16, text(data)));
    }
    body.extend(props(wire::Version::V5, &given));
    wire::packet(0xF0, &body)
}

fn data(packet: &Packet) -> Vec<u8> {
    match packet.prop(0x16) {
        Some(Value::Text(data)) => data.clone(),
        _ => Vec::new(),
    }
}

/// An AUTH with this code and method, whose data is given.
fn expect_auth(client: &mut Client, code: u8, method: &str) -> Outcome<Vec<u8>> {
    let packet = client.next()?;
    let right = packet.kind == AUTH && packet.code == code && packet.prop(0x15) == Some(&text(method));
    check(right, || {
        format!(
            "expected AUTH {code:#04x} {method}, got {} {:?}",
            packet.short(),
            packet.prop(0x15)
        )
    })?;
    Ok(data(&packet))
}

fn wants_more(client: &mut Client, method: &str) -> Outcome<Vec<u8>> {
    expect_auth(client, 0x18, method)
}

/// A CONNACK that lets in and repeats the method.
fn let_in(client: &mut Client, method: &str) -> Outcome<Packet> {
    let packet = client.next()?;
    let right = packet.kind == CONNACK && packet.code == 0 && packet.prop(0x15) == Some(&text(method));
    check(right, || {
        format!(
            "expected CONNACK 0 with {method}, got {} {:?}",
            packet.short(),
            packet.prop(0x15)
        )
    })?;
    Ok(packet)
}

fn scram_lets_in(server: &Server) -> Outcome {
    let user = User::new(server)?;
    for connect in [Connect::new(server), Connect::new(server).username(&user.name)] {
        let mut scram = user.scram()?;
        let (mut client, proof) = scram.challenged(connect)?;
        client.send(&auth(0x18, SCRAM, &proof))?;
        let connack = let_in(&mut client, SCRAM)?;
        scram.believes(&connack)?;
        // Let in as this user: the own topics are there.
        client.subscribe(&format!("iot/{}/#", user.name), 1)?;
    }
    Ok(())
}

fn scram_wrong_proof_is_refused(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let name = format!("{}/{}", user.name, user.token_id);
    let (mut client, proof) = Scram::new(&name, "gdt_no")?.challenged(Connect::new(server))?;
    client.send(&auth(0x18, SCRAM, &proof))?;
    client.refused_connect(&[0x86, 0x87], false)?;
    // The proof of another exchange.
    let (_, old) = user.scram()?.challenged(Connect::new(server))?;
    let (mut client, _) = user.scram()?.challenged(Connect::new(server))?;
    client.send(&auth(0x18, SCRAM, &old))?;
    client.refused_connect(&[0x86, 0x87], false)?;
    // No SCRAM at all, and somebody else in the CONNECT.
    for bad in ["", "n", "n,,n=x", "p=tls-exporter,,n=x,r=y"] {
        let connect = Connect::new(server).with(0x15, text(SCRAM)).with(0x16, text(bad));
        connect.refused(&[0x86, 0x87], false)?;
    }
    let first = user.scram()?.first()?;
    let connect = Connect::new(server).username("other").with(0x15, text(SCRAM));
    connect.with(0x16, text(first)).refused(&[0x86, 0x87], false)
}

fn scram_of_nobody_is_refused_alike(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let known = format!("{}/{}", user.name, user.token_id);
    let no_token = format!("{}/0198c7a0-1111-7222-8333-444455556666", user.name);
    let no_user = format!("{}/{}", server.name("n"), user.token_id);
    let mut seen = Vec::new();
    for name in [&known, &no_token, &no_user, &user.name] {
        let mut salts = Vec::new();
        for _ in 0..2 {
            let mut scram = Scram::new(name, "gdt_no")?;
            let first = scram.first()?;
            let connect = Connect::new(server)
                .with(0x15, text(SCRAM))
                .with(0x16, text(first));
            let mut client = connect.send()?;
            let challenge = wants_more(&mut client, SCRAM)?;
            let shown = String::from_utf8_lossy(&challenge).into_owned();
            salts.push(shown.split(',').skip(1).map(str::to_owned).collect::<Vec<_>>());
            client.send(&auth(0x18, SCRAM, &scram.step(Some(&challenge))?))?;
            let refused = client.next()?;
            seen.push((challenge.len(), refused.kind, refused.code, refused.props));
        }
        check(salts.first() == salts.last(), || {
            format!("{name}: another salt each time")
        })?;
    }
    check(seen.iter().all(|one| Some(one) == seen.first()), || {
        format!("told apart: {seen:?}")
    })
}

fn only_auth_before_connack(server: &Server) -> Outcome {
    let user = User::new(server)?;
    for packet in [
        &wire::PINGREQ_BYTES[..],
        &wire::Out::new("a", "x", 0, 0).bytes(server.version),
    ] {
        let (mut client, _) = user.scram()?.challenged(Connect::new(server))?;
        client.send(packet)?;
        client.refused_connect(&[0x81, 0x82], true)?;
    }
    // DISCONNECT is allowed.
    let (mut client, _) = user.scram()?.challenged(Connect::new(server))?;
    client.send(&[0xE0, 0])?;
    client.ended()
}

fn method_stays_in_an_exchange(server: &Server) -> Outcome {
    let user = User::new(server)?;
    for (code, method) in [(0x18, "TOKEN"), (0x18, "X"), (0x19, SCRAM), (0, SCRAM)] {
        let (mut client, proof) = user.scram()?.challenged(Connect::new(server))?;
        client.send(&auth(code, method, &proof))?;
        client.refused_connect(&[0x82, 0x8C], true)?;
    }
    Ok(())
}

fn token_lets_in(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let mut client = user.by_token(server).send()?;
    let_in(&mut client, "TOKEN")?;
    client.subscribe(&format!("iot/{}/#", user.name), 1)?;
    let wrong = Connect::new(server)
        .username(&user.name)
        .with(0x15, text("TOKEN"));
    wrong.refused(&[0x86, 0x87], false)?;
    wrong
        .clone()
        .with(0x16, text("gdt_no"))
        .refused(&[0x86, 0x87], false)?;
    let nobody = Connect::new(server)
        .with(0x15, text("TOKEN"))
        .with(0x16, text(&user.token));
    nobody.refused(&[0x86, 0x87], false)
}

fn token_is_renewed(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let mut client = user.by_token(server).send()?;
    let_in(&mut client, "TOKEN")?;
    for _ in 0..2 {
        client.send(&auth(0x19, "TOKEN", user.token.as_bytes()))?;
        expect_auth(&mut client, 0, "TOKEN")?;
        client.ping()?;
    }
    Ok(())
}

/// Connected by SCRAM.
fn connected(server: &Server, user: &User) -> Outcome<Client> {
    let (mut client, proof) = user.scram()?.challenged(Connect::new(server))?;
    client.send(&auth(0x18, SCRAM, &proof))?;
    let_in(&mut client, SCRAM)?;
    Ok(client)
}

fn scram_is_renewed(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let mut client = connected(server, &user)?;
    let mut scram = user.scram()?;
    client.send(&auth(0x19, SCRAM, &scram.first()?))?;
    let challenge = wants_more(&mut client, SCRAM)?;
    client.ping()?;
    client.send(&auth(0x18, SCRAM, &scram.step(Some(&challenge))?))?;
    let last = expect_auth(&mut client, 0, SCRAM)?;
    scram.step(Some(&last))?;
    client.ping()
}

fn failed_renewal_ends(server: &Server) -> Outcome {
    let (user, other) = (User::new(server)?, User::number(server, 1)?);
    for bad in [other.token.as_bytes(), b"gdt_no", b"", b"\xFF"] {
        let mut client = user.by_token(server).send()?;
        let_in(&mut client, "TOKEN")?;
        client.send(&auth(0x19, "TOKEN", bad))?;
        client.told(&[0x87])?;
    }
    let mut client = connected(server, &user)?;
    client.send(&auth(0x19, SCRAM, &other.scram()?.first()?))?;
    client.told(&[0x87])?;
    let mut client = connected(server, &user)?;
    let mut wrong = Scram::new(&format!("{}/{}", user.name, user.token_id), "gdt_no")?;
    client.send(&auth(0x19, SCRAM, &wrong.first()?))?;
    let challenge = wants_more(&mut client, SCRAM)?;
    client.send(&auth(0x18, SCRAM, &wrong.step(Some(&challenge))?))?;
    client.told(&[0x87])
}

fn renewal_keeps_its_method(server: &Server) -> Outcome {
    let user = User::new(server)?;
    for (code, method) in [(0x19, SCRAM), (0x19, ""), (0x18, "TOKEN"), (0, "TOKEN")] {
        let mut client = user.by_token(server).send()?;
        let_in(&mut client, "TOKEN")?;
        client.send(&auth(code, method, user.token.as_bytes()))?;
        client.told(&[0x82, 0x8C])?;
    }
    Ok(())
}

/// The client finds packets that are larger than it takes.
fn auth_fits_a_small_client(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let mut client = user.by_token(server).with(0x27, Value::Four(48)).send()?;
    let_in(&mut client, "TOKEN")?;
    client.send(&auth(0x19, "TOKEN", user.token.as_bytes()))?;
    expect_auth(&mut client, 0, "TOKEN")?;
    client.ping()
}

fn messages_flow_while_it_renews(server: &Server) -> Outcome {
    let user = User::new(server)?;
    let mut client = connected(server, &user)?;
    let topic = format!("iot/{}/{}", user.name, server.name("t"));
    client.subscribe(&topic, 0)?;
    let mut scram = user.scram()?;
    client.send(&auth(0x19, SCRAM, &scram.first()?))?;
    let challenge = wants_more(&mut client, SCRAM)?;
    client.send(&wire::Out::new(&topic, "between", 1, 9).bytes(server.version))?;
    client.acked(PUBACK, 9)?;
    client.message_is("between")?;
    client.send(&auth(0x18, SCRAM, &scram.step(Some(&challenge))?))?;
    expect_auth(&mut client, 0, SCRAM).map(drop)
}
