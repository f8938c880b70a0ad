//! What one match costs among N subscriptions. `tests/match_cost` runs it under callgrind, which counts only what
//! `measured` does, from the moment on that a line comes on standard input: until then valgrind need not count.

use godwit_broker::TopicTree;
use godwit_wire::command::Route;
use godwit_wire::ids::{SessionId, UserId};
use uuid::Uuid;

/// Publishes matched.
const MATCHES: u64 = 10_000;

fn filter(n: u64) -> String {
    match n % 10 {
        0 => format!("plant/{}/+/state", n / 10),
        1 => format!("plant/{}/#", n / 10),
        _ => format!("plant/{}/line/{}", n / 10, n % 10),
    }
}

#[inline(never)]
fn measured(tree: &TopicTree, topics: &[String]) -> u64 {
    let mut found = 0;
    for topic in topics {
        tree.matching(topic, &mut |_| found += 1);
    }
    found
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000);
    let mut tree = TopicTree::default();
    for n in 0..count {
        tree.insert(Route {
            user: UserId(Uuid::from_u128(u128::from(n))),
            session: SessionId(Uuid::from_u128(u128::from(n))),
            route_id: n,
            filter: filter(n).into(),
            persistent: true,
            qos: 1,
            no_local: false,
            retain_as_published: false,
            subscription_id: None,
        });
    }
    // A fixed stride walks over all keys in an order that no cache foresees.
    let topics: Vec<String> = (0..MATCHES)
        .map(|n| format!("plant/{}/line/{}", (n * 7_919) % (count / 10).max(1), 2 + n % 8))
        .collect();
    eprintln!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    let found = measured(&tree, &topics);
    assert!(found >= MATCHES, "every topic has a subscriber");
    eprintln!("{count} subscriptions, {MATCHES} matches, {found} found");
}
