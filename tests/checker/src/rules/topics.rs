//! Publishes on ordinary topics: TOPIC_LOSS, TOPIC_ORDER, TOPIC_ONCE, TOPIC_PHANTOM. A session is owed a publish that
//! was acknowledged, begun after its subscription was, and matches it.

use std::collections::{HashMap, HashSet};

use super::Repeats;
use crate::run::{Publish, Run, Session, Subscription, TopicDelivery};
use crate::verdict::Verdict;
use crate::{BadInput, Limits};

pub(super) fn check(run: &Run, limits: &Limits, verdict: &mut Verdict) -> Result<(), BadInput> {
    let mut deliveries: Vec<&TopicDelivery> = run.topic_deliveries.iter().collect();
    deliveries.sort_unstable_by_key(|d| (d.session, d.t, d.at));
    let mut seen: HashMap<u32, HashSet<u32>> = HashMap::new();
    let mut repeats = Repeats::default();
    for group in deliveries.chunk_by(|a, b| a.session == b.session) {
        let number = group[0].session;
        if let Some(session) = run.sessions.get(&number) {
            seen.insert(number, arrived(run, session, group, &mut repeats, verdict));
        }
    }
    repeats.judge("topic deliveries", deliveries.len(), limits, verdict);
    owed(run, &seen, verdict)
}

/// Judges what one session got, and says what that was.
fn arrived(
    run: &Run,
    session: &Session,
    group: &[&TopicDelivery],
    repeats: &mut Repeats,
    verdict: &mut Verdict,
) -> HashSet<u32> {
    let mut last_time: HashMap<u32, u64> = HashMap::new();
    let mut newest: HashMap<(u32, u32), (u64, crate::run::At)> = HashMap::new();
    for delivery in group {
        let topic = run.names.text(delivery.topic);
        let publish = delivery
            .publish
            .map(|index| (index, &run.publishes[index as usize]));
        let Some((index, publish)) = publish.filter(|(_, publish)| publish.topic == delivery.topic) else {
            verdict.broken("TOPIC_PHANTOM", &[delivery.at], || {
                format!("nobody published this on {topic}")
            });
            continue;
        };
        if let Some(before) = last_time.insert(index, delivery.t) {
            let at_qos_2 = |s: &Subscription| s.qos == 2 && matches(run.names.text(s.filter), topic);
            if publish.qos == 2 && session.subscriptions.iter().any(at_qos_2) {
                verdict.broken("TOPIC_ONCE", &[publish.at, delivery.at], || {
                    format!("a QoS 2 publish on {topic} came twice")
                });
            } else if was_sent_again(run, publish) {
                repeats.explained += 1;
            } else {
                repeats.add(&run.kills, session, before, delivery.t);
            }
            continue;
        }
        let place = (publish.t, publish.at);
        let newest = newest.entry((publish.publisher, publish.topic)).or_insert(place);
        if place < *newest {
            verdict.broken("TOPIC_ORDER", &[publish.at, delivery.at], || {
                let publisher = run.names.text(publish.publisher);
                format!("a publish of {publisher} on {topic} came first after a later one")
            });
        }
        *newest = place.max(*newest);
    }
    last_time.into_keys().collect()
}

/// In flight at a kill, or when its publisher connected again: the publisher sent it once more, and below QoS 2 it may
/// stand twice.
fn was_sent_again(run: &Run, publish: &Publish) -> bool {
    let within = |times: &[u64]| {
        let first = times.partition_point(|t| *t < publish.t);
        times.get(first).is_some_and(|t| *t <= publish.answered)
    };
    let publisher = run.sessions.get(&publish.publisher);
    within(&run.kills) || publisher.is_some_and(|publisher| within(&publisher.connects))
}

fn owed(run: &Run, seen: &HashMap<u32, HashSet<u32>>, verdict: &mut Verdict) -> Result<(), BadInput> {
    let mut by_topic: HashMap<u32, Vec<u32>> = HashMap::new();
    for (index, publish) in run
        .publishes
        .iter()
        .enumerate()
        .filter(|(_, publish)| publish.acked)
    {
        by_topic.entry(publish.topic).or_default().push(index as u32);
    }
    let nothing = HashSet::new();
    let (mut checked, mut drained_any, mut subscribed) = (0, false, false);
    for (number, session) in &run.sessions {
        let reliable = || {
            session
                .subscriptions
                .iter()
                .filter(|subscription| subscription.qos > 0)
        };
        subscribed |= reliable().next().is_some();
        if session.drained.is_none() || reliable().next().is_none() {
            continue;
        }
        drained_any = true;
        let seen = seen.get(number).unwrap_or(&nothing);
        for (&topic, publishes) in &by_topic {
            let name = run.names.text(topic);
            let since = reliable().filter(|s| s.filter == topic || matches(run.names.text(s.filter), name));
            let Some(since) = since.map(|subscription| subscription.t).min() else {
                continue;
            };
            for &index in publishes {
                let publish = &run.publishes[index as usize];
                if publish.t <= since {
                    continue;
                }
                checked += 1;
                if !seen.contains(&index) {
                    verdict.broken("TOPIC_LOSS", &[publish.at], || {
                        let session = run.names.text(*number);
                        format!("acknowledged on {name} and never reached session {session}")
                    });
                }
            }
        }
    }
    verdict.count("owed topic deliveries checked", checked);
    if subscribed && !by_topic.is_empty() && !drained_any {
        let why = "no session with a subscription on ordinary topics was drained".to_owned();
        return Err(BadInput::Incomplete(vec![why]));
    }
    Ok(())
}

/// MQTT's matching, level by level; a wildcard in the first level does not match `$` topics.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        if part == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if part == "+" || part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/#", "a"),
            ("#", "a/b/c"),
            ("+/+", "/b"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+", "a"),
            ("+", "a/b"),
            ("#", "$SYS/x"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
