//! Search over two real nodes: whichever is asked finds what the other indexes, says when something may be missing, and has all of
//! it again after the other was killed. Nobody finds what is not theirs, wherever it is.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_cassandra::Cluster;
use godwit_cluster_tests::around::Around;
use godwit_cluster_tests::nodes::Nodes;
use godwit_e2e::rest::Api;
use godwit_e2e::world::{User, make_users};
use godwit_wire::ids::{ConversationId, Key, UserId};
use serde_json::Value;

use crate::{beside_another, cassandra};

/// Messages in each of the two conversations.
const EACH: usize = 40;
/// Longest until everything is found: a dead node's lease, and what there is to read.
const WHOLE: Duration = Duration::from_secs(40);
/// A message is findable within two seconds; the rest is for a slow machine.
const FINDABLE: Duration = Duration::from_secs(10);

/// The node that has taken up a key's shard of this kind.
fn holder(nodes: &Nodes, group: &str, key: &Key) -> Option<usize> {
    (0..nodes.count()).find(|&one| {
        let said = nodes.shards(one);
        said.is_some_and(|said| {
            let held = said.shards.iter().filter(|shard| shard.since.is_some());
            held.into_iter()
                .any(|shard| shard.group == group && shard.shard == key.shard())
        })
    })
}

fn search(api: &Api, user: &User, query: &str) -> Result<Value> {
    let (_, found) = api.get(&format!("/search?limit=100&query={query}"), &user.token)?;
    ensure!(
        found["partial"].is_boolean(),
        "it does not say whether it is partial: {found}"
    );
    ensure!(
        found["partial"] == false || found["indexed_up_to"].is_null(),
        "something may be missing, and it says up to when nothing is: {found}"
    );
    Ok(found)
}

fn contents(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().into_iter().flatten();
    let text = |one: &Value| one["message"]["content"].as_str().unwrap_or_default().to_owned();
    results.map(text).collect()
}

/// Waits until a search finds so many and says that it lacks nothing. One that says so must have them, whenever it is; how often it said that
/// something may be missing.
fn wait_whole(
    api: &Api,
    user: &User,
    query: &str,
    count: usize,
    known: bool,
    patience: Duration,
) -> Result<usize> {
    let (until, mut partial) = (Instant::now() + patience, 0);
    loop {
        let last = match search(api, user, query) {
            Ok(found) => {
                let contents = contents(&found);
                if found["partial"] == true {
                    partial += 1;
                } else if contents.len() == count {
                    ensure!(
                        found["indexed_up_to"].is_string(),
                        "it does not say how new it is: {found}"
                    );
                    return Ok(partial);
                } else {
                    ensure!(!known, "it lacks something and does not say so: {found}");
                }
                found.to_string()
            }
            // The user's home is moving.
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > until {
            bail!("{count} times {query:?} are not found within {patience:?}: {last}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All pages of this size.
fn pages(api: &Api, user: &User, query: &str, limit: usize) -> Result<Vec<String>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/search?query={query}&limit={limit}{cursor}");
        let (_, found) = api.get(&path, &user.token)?;
        all.extend(contents(&found));
        match found["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// A group of alice's whose home and index are at this node.
fn group_at(nodes: &Nodes, api: &Api, alice: &User, members: &[&str], node: usize) -> Result<String> {
    for attempt in 0..64 {
        let id = api.group(&alice.token, &format!("g{node}-{attempt}"), members)?;
        let key = Key::Conversation(
            id.parse::<ConversationId>()
                .map_err(|_| anyhow::anyhow!("an id: {id}"))?,
        );
        if holder(nodes, "index", &key) == Some(node) {
            return Ok(id);
        }
    }
    bail!("no group lives at n{node}")
}

fn run(folder: &Path, cassandra: &Cluster) -> Result<()> {
    let keyspace = format!("h{:x}", std::process::id());
    let mut nodes = Nodes::new(folder, cassandra, &keyspace, 2, Around::default(), &[])?;
    nodes.start_all()?;
    let apis: Vec<Api> = (0..2).map(|one| Api::new(&nodes.http(one))).collect();
    // Who searches lives at n0, so that the death of n1 is the index's alone.
    let mut users: Vec<User> = Vec::new();
    for round in 0..16 {
        users.extend(
            make_users(&apis[0], 2, &format!("s{round}-"))?
                .into_iter()
                .filter(|user| {
                    let id = user.id.parse::<UserId>();
                    id.is_ok_and(|id| holder(&nodes, "users", &Key::User(id)) == Some(0))
                }),
        );
        if users.len() >= 2 {
            break;
        }
    }
    let [alice, carol, ..] = &users[..] else {
        bail!("of 32 users {} live at n0", users.len());
    };
    let here = group_at(&nodes, &apis[0], alice, &[], 0)?;
    let there = group_at(&nodes, &apis[1], alice, &[&carol.id], 1)?;
    for number in 0..EACH {
        for (group, place) in [(&here, "here"), (&there, "there")] {
            let text = format!("heron {number} {place}");
            apis[number % 2].send(&alice.token, group, &text.replace(' ', "-"), &text)?;
        }
    }

    // Either node finds both.
    for api in &apis {
        wait_whole(api, alice, "heron", 2 * EACH, false, FINDABLE)?;
        let all = contents(&search(api, alice, "heron")?);
        ensure!(
            all[0].ends_with("39 there") && all[1].ends_with("39 here"),
            "newest first: {all:?}"
        );
        ensure!(
            pages(api, alice, "heron", 7)? == all,
            "pages lack or repeat something"
        );
        wait_whole(api, carol, "heron", EACH, false, FINDABLE)?;
    }
    // Who is taken out finds nothing, at once.
    apis[1].delete(&format!("/groups/{there}/members/{}", carol.id), &alice.token)?;
    for api in &apis {
        ensure!(
            contents(&search(api, carol, "heron")?).is_empty(),
            "found by who is not in any more"
        );
    }

    // The other's owner dies: the answer has what there is, says that it is not all, and has all of it later.
    nodes.kill(1)?;
    let killed = Instant::now();
    let first = search(&apis[0], alice, "heron").context("right after the kill")?;
    ensure!(
        first["partial"] == true,
        "n1 is dead and nothing is said of it: {first}"
    );
    ensure!(
        contents(&first).len() == EACH,
        "what n0 has is not found: {first}"
    );
    let took = killed.elapsed();
    let partial = wait_whole(&apis[0], alice, "heron", 2 * EACH, true, WHOLE)?;
    eprintln!(
        "n1 killed: first answer after {took:?}, {partial} more partial ones, whole after {:?}",
        killed.elapsed()
    );
    ensure!(
        contents(&search(&apis[0], carol, "heron")?).is_empty(),
        "found after the move by who is not in"
    );

    // While it was away something was said; it has its shards back, and completes what it had.
    apis[0].send(&alice.token, &there, "meanwhile", "heron meanwhile")?;
    let began = Instant::now();
    nodes.start_all()?;
    for (number, api) in apis.iter().enumerate() {
        let partial = wait_whole(api, alice, "heron", 2 * EACH + 1, true, WHOLE)?;
        eprintln!(
            "n1 is back: n{number} whole after {:?}, {partial} partial ones",
            began.elapsed()
        );
        ensure!(
            contents(&search(api, carol, "heron")?).is_empty(),
            "found by who is not in"
        );
    }
    let (_, one) = apis[0].get(
        &format!("/conversations/{there}/search?query=meanwhile"),
        &alice.token,
    )?;
    ensure!(contents(&one) == ["heron meanwhile"], "{one}");
    Ok(())
}

#[test]
fn either_node_finds_everything_says_when_it_does_not_and_nobody_finds_what_is_not_theirs() {
    let _beside = beside_another();
    let folder = tempfile::Builder::new()
        .prefix("godwit-search-")
        .tempdir()
        .expect("a temporary folder");
    if let Err(error) = run(folder.path(), cassandra()) {
        panic!("kept {}: {error:?}", folder.keep().display());
    }
}
