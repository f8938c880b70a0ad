//! What operators ask for about the sessions of a user: a table of them, and their end.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use super::{ask_admin_in_private, call_admin, load, say};
use crate::cli::Options;
use crate::config::Config;
use crate::sessions::{Kick, OneSession, Sessions};

/// How long a running node may take to answer: it asks another one.
const ANSWER_TIME: Duration = Duration::from_secs(15);

pub(super) fn list(user: &str, options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    // Everything else would have to be encoded, and is the name of nobody.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if user.is_empty() || !user.chars().all(plain) {
        bail!("{user:?} is neither the name nor the id of a user");
    }
    let path = format!("{}?user={user}", crate::sessions::PATH);
    let Some(sessions) = ask_admin_in_private::<Sessions>(&config, &path, ANSWER_TIME)? else {
        return nobody(&config);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&sessions, now)).context("standard output")
}

pub(super) fn kick(kick: &Kick, options: Options) -> anyhow::Result<()> {
    let config = load(options)?;
    let Some(kicked) = call_admin::<_, Sessions>(&config, "/sessions/kick", kick, ANSWER_TIME)? else {
        return nobody(&config);
    };
    let connected = kicked.sessions.iter().filter(|session| session.connected).count();
    let ended = match kick.forget {
        true => format!(", {} sessions forgotten", kicked.sessions.len()),
        false => String::new(),
    };
    say(&format!(
        "{}: {connected} connections ended{ended}",
        kicked.username
    ))
}

fn nobody(config: &Config) -> anyhow::Result<()> {
    bail!("nothing answers at the admin listener {}", config.admin)
}

/// A head line about the user, one of titles, and a line a session with its filters behind it.
fn table(sessions: &Sessions, now: Duration) -> String {
    let at = sessions
        .node
        .as_ref()
        .map_or(String::new(), |node| format!(", at home on {node}"));
    let mut lines = format!("user {}, id {}{at}\n", sessions.username, sessions.user_id.0);
    let titles = [
        "CLIENT", "STATE", "FOR", "PROTOCOL", "VIA", "EXPIRY", "OWED", "BYTES", "FILTERS",
    ];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(sessions.sessions.iter().map(|session| row(session, now)));
    let widths: [usize; 9] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        lines.push_str(cells.join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

fn row(session: &OneSession, now: Duration) -> [String; 9] {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let since = session.since.map(Duration::from_millis);
    let seconds = |time: Duration| rounded(time.as_secs());
    let state = if session.connected { "connected" } else { "away" };
    let listed = session.filters.len() as u64;
    let more = u64::from(session.subscriptions).saturating_sub(listed);
    let mut filters: Vec<String> = session.filters.iter().map(|filter| printable(filter)).collect();
    filters.extend((more > 0).then(|| format!("and {more} more")));
    [
        printable(&session.client_id),
        state.to_owned(),
        since.map_or("-".to_owned(), |since| seconds(now.saturating_sub(since))),
        or_none(&session.protocol),
        or_none(&session.via),
        session
            .expiry_seconds
            .map_or("never".to_owned(), |s| rounded(s.into())),
        session.owed_entries.to_string(),
        session.owed_bytes.to_string(),
        if filters.is_empty() {
            "-".to_owned()
        } else {
            filters.join(" ")
        },
    ]
}

/// What clients choose may not play with the terminal.
fn printable(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    text.chars().flat_map(char::escape_debug).collect()
}

/// Of the largest unit that it is at least two of.
fn rounded(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use godwit_wire::ids::UserId;

    use super::*;

    #[test]
    fn sessions_are_listed_a_line_each_and_control_characters_stay_harmless() {
        let session = OneSession {
            client_id: "pho\u{1b}ne".into(),
            connected: true,
            since: Some(1_000_000),
            protocol: Some("5.0".into()),
            via: Some("n2".into()),
            expiry_seconds: None,
            subscriptions: 3,
            filters: vec!["a/#".into(), "me/inbox".into()],
            owed_entries: 7,
            owed_bytes: 210,
        };
        let away = OneSession {
            client_id: String::new(),
            connected: false,
            since: None,
            protocol: None,
            via: None,
            expiry_seconds: Some(7_200),
            subscriptions: 0,
            filters: Vec::new(),
            owed_entries: 0,
            owed_bytes: 0,
        };
        let sessions = Sessions {
            user_id: UserId(uuid::Uuid::from_u128(7)),
            username: "ann".into(),
            node: Some("n1".into()),
            sessions: vec![session, away],
        };
        let told = table(&sessions, Duration::from_secs(1_300));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("user ann, id 0") && lines[0].ends_with(", at home on n1"));
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        let wanted = "pho\\u{1b}ne connected 5 min 5.0 n2 never 7 210 a/# me/inbox and 1 more";
        assert_eq!(cells.join(" "), wanted);
        assert_eq!(
            lines[3].split_whitespace().collect::<Vec<_>>().join(" "),
            "\"\" away - - - 2 h 0 0 -"
        );
        assert_eq!(lines[1].find("STATE"), lines[2].find("connected"));
    }
}
