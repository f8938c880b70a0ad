//! Limits of REST and of accounts: in one table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rest::{Rest, bearer};
use super::{Case, cases, group, held, secrets};
use crate::attacks::doors::all;
use crate::attacks::floods::burst;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;
use crate::peer::{PATIENCE, Peer};

const CASES: &[Case] = cases! {
    "characters of a search", "MAX_QUERY_CHARS", "godwit_http_limits_met_total{limit=\"query\"" => query;
    "a body", "BODY_BYTES", "godwit_http_limits_met_total{limit=\"size\"" => bodies;
    "a page of history", "PAGE", "" => page;
    "registrations from one address", "registrations_per_second",
        "godwit_http_limits_met_total{limit=\"registrations\"" => secrets::registrations;
    "wrong passwords: at a login by what is named (user name or e-mail address), and of a user at a change of it or a repeated registration", "FAILED_OF_NAME.burst",
        "godwit_http_logins_limited_total" => secrets::wrong_passwords;
    "exchanges of refresh tokens of a login session", "per_user",
        "godwit_http_limits_met_total{limit=\"user_requests\"" => secrets::refreshes;
    "the header of a request", "HEADER_BYTES", "" => held::large_headers;
    "time to a body", "BODY_TIMEOUT", "godwit_http_limits_met_total{limit=\"body_time\"" => held::bodies_not_sent;
    "groups of a user", "USER_GROUPS", "godwit_accounts_limits_met_total{limit=\"groups\"" => groups;
    "idempotency keys of a user", "IDEMPOTENCY_KEYS",
        "godwit_accounts_limits_met_total{limit=\"idempotency_keys\"" => idempotency_keys;
    "bytes of HTTP bodies and answers that wait for clients, each above 16 KiB", "WAITING_BYTES",
        "godwit_http_no_room_total" => waiting_bytes;
    "requests under way in the node", "REQUESTS", "godwit_http_limits_met_total{limit=\"requests\"" => under_way;
};

/// What takes a hundred password hashes, ten seconds of a build without optimizations, or half a minute.
const LONG: &[Case] = cases! {
    "wrong passwords and registration tokens from one address", "FAILED_OF_ADDRESS.burst",
        "godwit_http_logins_limited_total" => secrets::failed_of_address;
    "login sessions of a user", "LOGIN_SESSIONS",
        "godwit_accounts_limits_met_total{limit=\"login_sessions\"" => secrets::login_sessions;
    "time to the header of a request, and between requests", "HEADER_TIME", "" => held::headers_not_sent;
    "what a client takes of an answer that waits for it, in 30 s", "TAKEN_BYTES",
        "godwit_http_stalled_total" => held::answers_stalled;
};

/// Times that each is met where one takes milliseconds.
const ROUNDS: usize = 20;

pub(super) fn attack(long: bool) -> Attack {
    let setup = Setup {
        offenders: 2,
        options: vec![("GODWIT_REGISTRATIONS_PER_SECOND", "5".into())],
        ..Setup::default()
    };
    group(
        "limits of REST and accounts",
        setup,
        long,
        &[CASES, if long { LONG } else { &[] }],
    )
    .memory(
        if long { 320 << 20 } else { 192 << 20 },
        "password hashes at a time, 1,100 connections of 32 KiB, 1,000 groups, and 96 MiB; in the long form 7 answers of 9 MiB and what they are made of",
    )
}

async fn query(bed: Arc<Bed>) -> Result<String> {
    let mut rest = Rest::open(&bed, 1).await?;
    let token = bearer(&bed.offenders[0]);
    for _ in 0..ROUNDS {
        for (count, status) in [(512, 200), (513, 400)] {
            let path = format!("GET /api/v1/search?query={}", "q".repeat(count));
            let answer = rest.ask(&path, &token, &Value::Null).await?;
            answer.must(status, &format!("{count} characters"))?;
        }
    }
    Ok(format!("{ROUNDS} times 512 characters: answered; 513: 400"))
}

async fn bodies(bed: Arc<Bed>) -> Result<String> {
    let token = bearer(&bed.offenders[0]);
    for round in 0..ROUNDS {
        let mut rest = Rest::open(&bed, round).await?;
        rest.begin("POST /api/v1/groups", &token, (400 << 10) + 1).await?;
        rest.answer().await?.must(413, "400 KiB and a byte, announced")?;
    }
    Ok(format!(
        "{ROUNDS} times 400 KiB and a byte announced: 413 before any of it was sent"
    ))
}

async fn page(bed: Arc<Bed>) -> Result<String> {
    let mut sender = Peer::open(bed.mqtt(), 3, &bed.hello(0, "writer")).await?;
    let topic = "c/@mallory1/send/text".to_owned();
    let all = (0..230).map(|number| (topic.clone(), number.to_string().into_bytes()));
    let codes = burst(&mut sender, all, false).await?;
    ensure!(codes.iter().all(|code| *code == 0), "a message was refused");
    let mut rest = Rest::open(&bed, 2).await?;
    let token = bearer(&bed.offenders[0]);
    let with = json!({ "type": "one_on_one", "user_id": bed.offenders[1].id });
    let made = rest.ask("POST /api/v1/conversations", &token, &with).await?;
    let id = ["id", "conversation_id"].map(|name| made.body[name].as_str());
    let id = id
        .into_iter()
        .flatten()
        .next()
        .context("no conversation")?
        .to_owned();
    let get = |limit: u32| format!("GET /api/v1/conversations/{id}/messages?limit={limit}&after=0");
    for _ in 0..ROUNDS {
        let whole = rest
            .ask(&get(200), &token, &Value::Null)
            .await?
            .must(200, "a page")?;
        let count = whole["messages"].as_array().map(Vec::len);
        ensure!(
            count == Some(200) && whole["has_more"] == true,
            "{count:?} entries"
        );
        let answer = rest.ask(&get(201), &token, &Value::Null).await?;
        answer.must(400, "a page of 201")?;
    }
    Ok(format!(
        "{ROUNDS} times a page of 230 entries: 200 of them and `has_more`; 201 asked for: 400"
    ))
}

/// Makes groups, each with a key of its own where one is wanted, on some connections at once; the statuses.
async fn make_groups(bed: &Arc<Bed>, count: usize, keys: Option<&'static str>) -> Result<Vec<u16>> {
    const AT_ONCE: usize = 4;
    let mut tasks = JoinSet::new();
    for part in 0..AT_ONCE {
        let bed = Arc::clone(bed);
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 80 + part).await?;
            let token = bearer(&bed.offenders[0]);
            let mut statuses = Vec::new();
            for number in (part..count).step_by(AT_ONCE) {
                let key = keys.map(|prefix| format!("idempotency-key: {prefix}-{number}\r\n"));
                let headers = format!("{token}{}", key.unwrap_or_default());
                let body = json!({ "name": format!("group {number}"), "members": [] });
                let answer = rest.ask("POST /api/v1/groups", &headers, &body).await?;
                let status = answer.status;
                if status != 201 {
                    answer.must(429, "a group too many")?;
                }
                statuses.push(status);
            }
            Ok(statuses)
        });
    }
    Ok(all(tasks).await?.concat())
}

/// With a key for each, so that those are used up too: looked at by the next case.
async fn groups(bed: Arc<Bed>) -> Result<String> {
    let made = make_groups(&bed, 1_000, Some("first")).await?;
    let good = made.iter().filter(|status| **status == 201).count();
    ensure!(good == 1_000, "{good} of 1,000 groups");
    let more = make_groups(&bed, ROUNDS, None).await?;
    ensure!(
        more.iter().all(|status| *status == 429),
        "one more was made: {more:?}"
    );
    Ok(format!("1,000 groups made, {ROUNDS} more refused (429)"))
}

async fn idempotency_keys(bed: Arc<Bed>) -> Result<String> {
    let more = make_groups(&bed, ROUNDS, Some("second")).await?;
    ensure!(
        more.iter().all(|status| *status == 429),
        "one more was taken: {more:?}"
    );
    let mut rest = Rest::open(&bed, 90).await?;
    let known = format!("{}idempotency-key: first-0\r\n", bearer(&bed.offenders[0]));
    let body = json!({ "name": "group 0", "members": [] });
    let again = rest.ask("POST /api/v1/groups", &known, &body).await?;
    ensure!(
        matches!(again.status, 200 | 201),
        "{} {} for a known key",
        again.status,
        again.body
    );
    Ok(format!(
        "behind 1,000 of a day {ROUNDS} more refused (429), a known one answered as before"
    ))
}

/// Bodies that are announced and do not come, of one address: a quarter of the room.
async fn waiting_bytes(bed: Arc<Bed>) -> Result<String> {
    const BODY: usize = 400 << 10;
    // A quarter of 256 MiB.
    let room = (64 << 20) / BODY;
    let token = bearer(&bed.offenders[0]);
    let mut held = Vec::new();
    for _ in 0..room {
        let mut rest = Rest::open(&bed, 100).await?;
        rest.begin("POST /api/v1/groups", &token, BODY).await?;
        held.push(rest);
    }
    // All of them must have come in before the first one too many is asked.
    settled(&bed, room as f64).await?;
    for _ in 0..ROUNDS {
        let mut rest = Rest::open(&bed, 100).await?;
        rest.begin("POST /api/v1/groups", &token, BODY).await?;
        rest.answer().await?.must(503, "a body too many")?;
    }
    let body = json!({ "name": "n".repeat(20 << 10), "members": [] });
    let mut other = Rest::open(&bed, 101).await?;
    let answer = other.ask("POST /api/v1/groups", &token, &body).await?;
    ensure!(
        answer.status != 503,
        "{} {} from another address",
        answer.status,
        answer.body
    );
    Ok(format!(
        "{room} bodies of 400 KiB of one address held, {ROUNDS} more refused (503); one of another address taken"
    ))
}

/// Until so many requests are under way.
async fn settled(bed: &Bed, count: f64) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let open = bed.metric("godwit_http_requests_in_flight").await?;
        // The one that asks is among them.
        if open > count {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{open} of {count} requests under way");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Requests whose bodies do not come, from many addresses.
async fn under_way(bed: Arc<Bed>) -> Result<String> {
    const MOST: usize = 1_024;
    let mut held = Vec::new();
    for number in 0..MOST {
        let mut rest = Rest::open(&bed, 200 + number % 40).await?;
        rest.begin("POST /api/v1/auth/login", "", 100).await?;
        held.push(rest);
    }
    settled(&bed, MOST as f64).await?;
    for number in 0..ROUNDS {
        let mut rest = Rest::open(&bed, 300 + number).await?;
        let answer = rest.ask("GET /api/v1/users/me", "", &Value::Null).await?;
        answer.must(503, "a request too many")?;
        // What balancers ask is answered all the same, and operators' metrics have just been.
        rest.ask("GET /readyz", "", &Value::Null)
            .await?
            .must(200, "readiness")?;
    }
    drop(held);
    let until = Instant::now() + PATIENCE;
    loop {
        let mut rest = Rest::open(&bed, 400).await?;
        let answer = rest.ask("GET /api/v1/users/me", "", &Value::Null).await?;
        match answer.status {
            401 => break,
            _ if Instant::now() > until => bail!("no room when all have left"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(format!(
        "{MOST} requests under way, {ROUNDS} more refused (503), readiness and metrics told all the same; room again when they had ended"
    ))
}
