//! Limits of registrations, logins and guesses at secrets.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rest::{Answer, Rest, bearer};
use crate::attacks::doors::all;
use crate::bed::Bed;
use crate::peer::PATIENCE;

/// Times that each is met where one takes milliseconds.
const ROUNDS: usize = 20;

/// Registrations that come to nothing, since the name is none: they are counted before that is seen.
pub(super) async fn registrations(bed: Arc<Bed>) -> Result<String> {
    let body = json!({ "username": "!", "password": "never hashed" });
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (bed, body) = (Arc::clone(&bed), body.clone());
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 7).await?;
            let (mut taken, mut refused) = (0, 0);
            while refused < ROUNDS && taken < 1_100 {
                let answer = rest.ask("POST /api/v1/users", "", &body).await?;
                match answer.status {
                    400 => taken += 1,
                    _ => {
                        answer.must(429, "a registration too many")?;
                        refused += 1;
                    }
                }
            }
            Ok((taken, refused))
        });
    }
    let begun = Instant::now();
    let done = all(tasks).await?;
    let taken: usize = done.iter().map(|one| one.0).sum();
    let refused: usize = done.iter().map(|one| one.1).sum();
    let most = 1_000.0 + 5.0 * (begun.elapsed().as_secs_f64() + 1.0);
    ensure!(
        taken >= 1_000 && taken as f64 <= most && refused > 0,
        "{taken} taken, {refused} refused"
    );
    let mut other = Rest::open(&bed, 8).await?;
    let answer = other.ask("POST /api/v1/users", "", &body).await?;
    answer.must(400, "from another address")?;
    Ok(format!(
        "{taken} from one address taken, {refused} refused (429); from another address taken"
    ))
}

async fn login(rest: &mut Rest, name: &str, password: &str) -> Result<Answer> {
    let body = json!({ "username": name, "password": password });
    rest.ask("POST /api/v1/auth/login", "", &body).await
}

/// At two doors, which count together.
pub(super) async fn wrong_passwords(bed: Arc<Bed>) -> Result<String> {
    let user = &bed.offenders[0];
    let right = format!("{} horse staple", user.name);
    let mut rest = Rest::open(&bed, 20).await?;
    let session = login(&mut rest, &user.name, &right)
        .await?
        .must(200, "the right password")?;
    let token = session["access_token"].as_str().context("no token")?;
    let token = format!("authorization: Bearer {token}\r\n");
    let change = |current: &str| json!({ "current_password": current, "new_password": "not to be taken" });
    let mut elsewhere = Rest::open(&bed, 44).await?;
    for number in 0..10 {
        let answer = login(&mut elsewhere, &user.name, "guessed wrong").await?;
        answer.must(401, &format!("guess {number} at a login"))?;
        let body = change("guessed wrong");
        let answer = elsewhere.ask("POST /api/v1/auth/password", &token, &body).await?;
        answer.must(403, &format!("guess {number} at a change"))?;
    }
    for (round, password) in (0..ROUNDS).zip(["guessed wrong", right.as_str()].into_iter().cycle()) {
        // From wherever.
        let mut rest = Rest::open(&bed, 21 + round).await?;
        login(&mut rest, &user.name, password)
            .await?
            .must(429, "a login behind ten failures")?;
        rest.ask("POST /api/v1/auth/password", &token, &change(password))
            .await?
            .must(429, "a change behind ten failures")?;
    }
    login(&mut rest, &user.name, &right)
        .await?
        .must(200, "a login from where the user logged in before")?;
    let other = &bed.offenders[1];
    let right = format!("{} horse staple", other.name);
    login(&mut rest, &other.name, &right)
        .await?
        .must(200, "another user")?;
    Ok(format!(
        "10 failed at a login (401) and 10 at a change (403); {ROUNDS} more of both: 429, with the right password too; the user is let in from where it was, and another user"
    ))
}

/// One that was exchanged already, again and again: its session has ended with the first time, and its user's requests are not its own.
pub(super) async fn refreshes(bed: Arc<Bed>) -> Result<String> {
    const PATH: &str = "POST /api/v1/auth/refresh";
    let user = bed.offenders[1].clone();
    let mut rest = Rest::open(&bed, 45).await?;
    let session = login(&mut rest, &user.name, &format!("{} horse staple", user.name))
        .await?
        .must(200, "a login")?;
    let body = json!({ "refresh_token": session["refresh_token"] });
    rest.ask(PATH, "", &body).await?.must(200, "the first exchange")?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for part in 0..4 {
        let (bed, body) = (Arc::clone(&bed), body.clone());
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 46 + part).await?;
            let (mut judged, mut limited) = (0, 0);
            while limited < ROUNDS && begun.elapsed() < PATIENCE {
                let answer = rest.ask(PATH, "", &body).await?;
                match answer.status {
                    401 => judged += 1,
                    _ => {
                        answer.must(429, "an exchange too many")?;
                        limited += 1;
                    }
                }
            }
            Ok((judged, limited))
        });
    }
    let done = all(tasks).await?;
    let judged: usize = done.iter().map(|one| one.0).sum();
    let limited: usize = done.iter().map(|one| one.1).sum();
    let most = 2_000.0 + 500.0 * (begun.elapsed().as_secs_f64() + 1.0);
    ensure!(
        judged >= 1_990 && judged as f64 <= most && limited > 0,
        "{judged} judged, {limited} limited"
    );
    for _ in 0..ROUNDS {
        rest.ask("GET /api/v1/users/me", &bearer(&user), &Value::Null)
            .await?
            .must(200, "another request of the user")?;
    }
    Ok(format!(
        "{judged} of a token that was exchanged already judged (401), {limited} more refused (429); the user's other requests answered"
    ))
}

pub(super) async fn failed_of_address(bed: Arc<Bed>) -> Result<String> {
    let mut tasks = JoinSet::new();
    for part in 0..4 {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let mut rest = Rest::open(&bed, 60).await?;
            let (mut failed, mut limited) = (0, 0);
            for number in 0..200 {
                if limited >= ROUNDS {
                    break;
                }
                let answer = login(&mut rest, &format!("nobody{part}of{number}"), "guessed wrong").await?;
                match answer.status {
                    401 => failed += 1,
                    _ => {
                        answer.must(429, "behind a hundred failures")?;
                        limited += 1;
                    }
                }
            }
            Ok((failed, limited))
        });
    }
    let begun = Instant::now();
    let done = all(tasks).await?;
    let failed: usize = done.iter().map(|one| one.0).sum();
    let limited: usize = done.iter().map(|one| one.1).sum();
    let most = 100.0 + begun.elapsed().as_secs_f64() + 2.0;
    ensure!(
        failed >= 100 && failed as f64 <= most && limited > 0,
        "{failed} failed, {limited} limited"
    );
    let other = &bed.offenders[1];
    let right = format!("{} horse staple", other.name);
    let mut rest = Rest::open(&bed, 61).await?;
    login(&mut rest, &other.name, &right)
        .await?
        .must(200, "from another address")?;
    Ok(format!(
        "{failed} failed from one address: 401; {limited} more: 429; from another address a user is let in"
    ))
}

pub(super) async fn login_sessions(bed: Arc<Bed>) -> Result<String> {
    // With sessions that earlier cases and the making of the user began: what is looked at is the 64 newest.
    const MOST: usize = 64;
    let user = bed.offenders[1].clone();
    let password = format!("{} horse staple", user.name);
    let mut rest = Rest::open(&bed, 70).await?;
    let mut sessions = Vec::new();
    for _ in 0..=MOST {
        let made = login(&mut rest, &user.name, &password)
            .await?
            .must(200, "a login")?;
        sessions.push(made["access_token"].as_str().context("no token")?.to_owned());
    }
    let me = |token: &str| format!("authorization: Bearer {token}\r\n");
    let mut oldest = rest
        .ask("GET /api/v1/auth/sessions", &me(&sessions[0]), &Value::Null)
        .await?;
    oldest.head.clear();
    ensure!(
        oldest.status == 401,
        "{} for the session that was not used for longest",
        oldest.status
    );
    for kept in [1, MOST / 2, MOST] {
        rest.ask("GET /api/v1/auth/sessions", &me(&sessions[kept]), &Value::Null)
            .await?
            .must(200, "a newer session")?;
    }
    Ok(format!(
        "{} logins: all let in, the oldest one's session has ended (401), the others' have not",
        MOST + 1
    ))
}
