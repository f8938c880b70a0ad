//! Limits of the REST door: sizes, counts and requests a second of a user; too many sockets are with the other crowds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_e2e::rest::{Api, Refused};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::doors::all;
use crate::bed::{Bed, Setup};
use crate::judge::Attack;

/// A request's refusal must have this status.
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Refused>, status: u16) -> Result<String> {
    match answer {
        // A body that is too large may not be taken to its end, and then a client that goes on sending sees the connection closed.
        Err(refused) if refused.status == status || (status == 413 && refused.status == 0) => {
            Ok(format!("{what}: {status} {}", refused.code))
        }
        other => bail!("{what}: {other:?} where {status} is due"),
    }
}

/// Requests over the limits of REST, and then as many as go.
pub fn requests(long: bool) -> Attack {
    let time = Duration::from_secs(if long { 20 } else { 1 });
    let setup = Setup {
        offenders: 2,
        ..Setup::default()
    };
    let run = move |bed: Arc<Bed>| async move {
        let (api, user) = (bed.api.clone(), bed.offenders[0].clone());
        let checks = tokio::task::spawn_blocking(move || over(&api, &user.name, &user.token));
        let mut told = checks.await??;
        // As many requests as go, of one user, on a few connections.
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (api, token) = (bed.api.clone(), bed.offenders[1].token.clone());
            tasks.spawn_blocking(move || {
                let (mut answered, mut limited) = (0_u32, 0_u32);
                while begun.elapsed() < time || (limited == 0 && begun.elapsed() < 15 * time) {
                    match api.get("/users/me", &token) {
                        Ok(_) => answered += 1,
                        Err(refused) if refused.status == 429 => limited += 1,
                        Err(refused) => bail!("GET /users/me: {refused}"),
                    }
                }
                Ok((answered, limited))
            });
        }
        let counts = all(tasks).await?;
        let answered: u32 = counts.iter().map(|one| one.0).sum();
        let limited: u32 = counts.iter().map(|one| one.1).sum();
        // 2,000 at once and 500 a second.
        let most = 2_000.0 + 500.0 * (begun.elapsed().as_secs_f64() + 1.0);
        ensure!(
            f64::from(answered) <= most,
            "{answered} answered where {most:.0} may be"
        );
        let limit = match limited {
            0 => "the machine was too slow for the limit of 2,000 at once and 500 a second".to_owned(),
            limited => format!("{limited} refused (429)"),
        };
        told.push(format!(
            "{answered} requests of a user answered in {:.1} s, {limit}",
            begun.elapsed().as_secs_f64()
        ));
        Ok(told)
    };
    Attack::new("REST over its limits", setup, long, run)
}

fn over(api: &Api, name: &str, token: &str) -> Result<Vec<String>> {
    let many: Vec<String> = (0..513)
        .map(|number| format!("01890000-0000-7000-8000-{number:012x}"))
        .collect();
    // Not by the client's way for groups, which is patient with a 429.
    let group = |name: &str, members: &[String]| {
        let body = json!({ "name": name, "members": members });
        api.post("/groups", Some(token), &body)
    };
    let mut told = vec![
        refused("a group of 514", group("many", &many), 429)?,
        refused("a group's name of 129 bytes", group(&"n".repeat(129), &[]), 400)?,
        refused(
            "a body of 1 MiB",
            api.post(
                "/groups",
                Some(token),
                &json!({ "name": "b".repeat(1 << 20), "members": [] }),
            ),
            413,
        )?,
        refused(
            "a path of 9,000 bytes",
            api.get(&format!("/conversations/{}", "p".repeat(9_000)), token),
            400,
        )?,
    ];
    let login = json!({ "username": name, "password": format!("{name} horse staple") });
    let (_, session) = api.post_patiently("/auth/login", None, &login)?;
    let access = session["access_token"]
        .as_str()
        .context("no access token")?
        .to_owned();
    let one = json!({ "name": "more", "scopes": ["rest"] });
    let make = || -> Result<Value, Refused> {
        api.post("/auth/device-tokens", Some(&access), &one)
            .map(|(_, made)| made)
    };
    let mut made = 1;
    let answer = loop {
        match make() {
            Ok(_) if made < 400 => made += 1,
            other => break other,
        }
    };
    ensure!(made == 256, "{made} device tokens");
    told.push(refused("the 257th device token", answer, 429)?);
    Ok(told)
}
