//! Mutations of what only MQTT 5 has beside properties: topic aliases, shared subscriptions (3.1.1 has them here too),
//! enhanced authentication, the server's own limits in CONNACK.

use super::link::{Link, Order, Turn};
use super::mutation::{Mutation, answer, asked, dropped, instead, nothing, opening, posted};
use super::sent::{Posted, body};
use crate::wire::{AUTH, CONNACK, PUBLISH, SUBSCRIBE, Value};

const ALIAS: u8 = 0x23;

fn alias(it: &Posted) -> Option<u16> {
    it.props.iter().find_map(|(id, value)| match value {
        Value::Two(alias) if *id == ALIAS => Some(*alias),
        _ => None,
    })
}

/// A PUBLISH by alias alone gets this topic, and no alias.
fn on(it: &mut Posted, topic: &[u8]) -> bool {
    it.topic = topic.to_vec();
    it.props.retain(|(id, _)| *id != ALIAS);
    true
}

/// What was put aside for an alias, by who keeps such things.
fn known(link: &Link, alias: u16) -> Option<Vec<u8>> {
    let key = alias.to_be_bytes();
    let found = link.aside.iter().find(|it| it.starts_with(&key))?;
    found.get(2..).map(<[u8]>::to_vec)
}

fn aliases() -> Vec<Mutation> {
    vec![
        posted(
            "alias-elsewhere",
            "a PUBLISH by its alias goes to another topic",
            |_, it| it.topic.is_empty() && alias(it).is_some() && on(it, b"some/where"),
        ),
        posted(
            "alias-given-once",
            "an alias stays with its first topic",
            |link, it| {
                let Some(number) = alias(it) else { return false };
                match known(link, number) {
                    Some(first) => it.topic.is_empty() && on(it, &first),
                    None => {
                        let mut entry = number.to_be_bytes().to_vec();
                        entry.extend(&it.topic);
                        link.aside.push(entry);
                        false
                    }
                }
            },
        ),
        posted(
            "alias-outlives",
            "an alias outlives its connection",
            |link, it| {
                let Some(number) = alias(it) else { return false };
                let mut key = b"alias".to_vec();
                key.extend(number.to_be_bytes());
                if !it.topic.is_empty() {
                    key.extend(&it.topic);
                    link.common().seen.insert(key);
                    return false;
                }
                let found = link.common().seen.iter().find(|it| it.starts_with(&key)).cloned();
                found.is_some_and(|found| on(it, found.get(key.len()..).unwrap_or_default()))
            },
        ),
        posted(
            "alias-unbounded",
            "an alias above the maximum is taken",
            |_, it| {
                let large = alias(it).is_some_and(|alias| alias > 10) && !it.topic.is_empty();
                if large {
                    it.props.retain(|(id, _)| *id != ALIAS);
                }
                large
            },
        ),
        posted(
            "alias-of-nothing-taken",
            "an alias of nothing is taken",
            |link, it| {
                let number = alias(it);
                if !it.topic.is_empty() {
                    link.aside
                        .extend(number.map(|number| number.to_be_bytes().to_vec()));
                    return false;
                }
                number.is_some_and(|number| known(link, number).is_none()) && on(it, b"some/where")
            },
        ),
        posted(
            "alias-has-rights",
            "an alias has the rights of what it stood for first",
            |link, it| {
                if it.topic.starts_with(b"denied/") {
                    link.count = 1;
                }
                link.count == 1 && it.topic.is_empty() && alias(it).is_some() && on(it, b"open/where")
            },
        ),
        answer(
            "alias-never-used",
            "the server never uses an alias that was allowed",
            |link, it| {
                let Some(Value::Two(number)) = it.prop(ALIAS).cloned() else {
                    return false;
                };
                if it.kind != PUBLISH {
                    return false;
                }
                let key = number.to_be_bytes();
                if it.topic.is_empty() {
                    it.topic = known(link, number)
                        .map(|topic| String::from_utf8_lossy(&topic).into_owned())
                        .unwrap_or_default();
                } else {
                    link.aside.retain(|it| !it.starts_with(&key));
                    let mut entry = key.to_vec();
                    entry.extend(it.topic.bytes());
                    link.aside.push(entry);
                }
                it.props.retain(|(id, _)| *id != ALIAS);
                true
            },
        ),
        answer(
            "aliases-mixed-up",
            "the server mixes up its aliases 1 and 2",
            |_, it| {
                let change = it.kind == PUBLISH && it.topic.is_empty();
                for (id, value) in &mut it.props {
                    if let (ALIAS, true, Value::Two(number)) = (*id, change, value) {
                        *number = 3 - (*number).clamp(1, 2);
                    }
                }
                change
            },
        ),
        answer(
            "resent-by-alias",
            "what is resent has an alias of the connection before",
            |_, it| {
                let change = it.kind == PUBLISH && it.dup() && it.prop(ALIAS).is_none();
                if change {
                    it.topic.clear();
                    it.props.push((ALIAS, Value::Two(1)));
                }
                change
            },
        ),
    ]
}

/// The name of a shared filter's group changed.
fn group(
    name: &str,
    says: &str,
    change: impl Fn(&mut Link, &str) -> String + Send + Sync + 'static,
) -> Mutation {
    asked(SUBSCRIBE, name, says, move |link, it| {
        let mut changed = false;
        for (filter, _) in &mut it.filters {
            let text = String::from_utf8_lossy(filter).into_owned();
            let parts = text.strip_prefix("$share/").and_then(|it| it.split_once('/'));
            if let Some((group, rest)) = parts.filter(|(group, rest)| !group.is_empty() && !rest.is_empty()) {
                let to = change(link, group);
                changed |= to != group;
                *filter = format!("$share/{to}/{rest}").into_bytes();
            }
        }
        changed
    })
}

fn shared() -> Vec<Mutation> {
    vec![
        group("groups-are-one", "all groups on a filter are one", |_, _| {
            "g".to_owned()
        }),
        group(
            "groups-of-one",
            "each member is a group of its own",
            |link, group| {
                let id = link.connect.as_ref().map(|it| it.id.clone()).unwrap_or_default();
                format!("{group}{}", String::from_utf8_lossy(&id))
            },
        ),
        asked(
            SUBSCRIBE,
            "share-with-retained",
            "a shared subscription gets retained messages",
            |link, it| {
                let shared = it.filters.iter().find_map(|(filter, options)| {
                    let text = std::str::from_utf8(filter).ok()?;
                    let (_, rest) = text.strip_prefix("$share/")?.split_once('/')?;
                    Some((rest.as_bytes().to_vec(), *options))
                });
                let Some((filter, options)) = shared.filter(|(filter, _)| !filter.is_empty()) else {
                    return false;
                };
                let mut plain = it.clone();
                plain.pid = 64_997;
                plain.filters = vec![(filter, options & 3)];
                link.swallow.push((crate::wire::SUBACK, 64_997));
                let plain = plain.bytes(link.version);
                link.order(Order::ToServer(plain));
                false
            },
        ),
        asked(
            SUBSCRIBE,
            "share-or-not",
            "a filter and the same one shared are one subscription",
            |link, it| {
                let shared: Vec<Vec<u8>> = it
                    .filters
                    .iter()
                    .filter_map(|(filter, _)| filter.strip_prefix(b"$share/g/").map(<[u8]>::to_vec))
                    .collect();
                let _ = link;
                let mut changed = false;
                for (filter, _) in &mut it.filters {
                    if shared.contains(filter) {
                        filter.splice(0..0, *b"$share/g/");
                        changed = true;
                    }
                }
                changed
            },
        ),
        Mutation::new(
            "begun-is-given-on",
            "what a member had begun to get is published again when it ends",
        )
        .client_end(|link, _| {
            let given = link
                .out
                .keys()
                .next()
                .and_then(|pid| link.common().given.get(pid).cloned());
            match given.filter(|_| !link.left && link.filters.iter().any(|it| it.starts_with(b"$share/"))) {
                Some(mut again) => {
                    if let Some(first) = again.first_mut() {
                        *first &= !8;
                    }
                    instead(again)
                }
                None => Turn::Keep,
            }
        }),
    ]
}

fn method(link: &Link) -> bool {
    link.connect.as_ref().is_some_and(|it| it.prop(0x15).is_some())
}

fn is_auth(bytes: &[u8], code: u8) -> bool {
    body(bytes).is_some_and(|(first, body)| first >> 4 == AUTH && body.first().copied().unwrap_or(0) == code)
}

fn authentication() -> Vec<Mutation> {
    vec![
        answer(
            "method-not-told",
            "CONNACK and AUTH do not name the method",
            |_, it| {
                let change = matches!(it.kind, CONNACK | AUTH) && it.prop(0x15).is_some();
                it.props.retain(|(id, _)| !change || *id != 0x15);
                change
            },
        ),
        answer(
            "server-proves-nothing",
            "the server's last word has no proof of its own",
            |_, it| {
                let change = matches!(it.kind, CONNACK | AUTH) && it.code == 0 && it.prop(0x16).is_some();
                for (id, value) in &mut it.props {
                    if *id == 0x16 && change {
                        *value = crate::wire::text("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
                    }
                }
                change
            },
        ),
        answer(
            "salts-are-fresh",
            "each challenge has another salt",
            |link, it| {
                let change = it.kind == AUTH && it.code == 0x18;
                let count = {
                    let mut common = link.common();
                    let count = common.seen.len();
                    common.seen.insert(count.to_be_bytes().to_vec());
                    count
                };
                for (id, value) in &mut it.props {
                    if let (0x16, true, Value::Text(data)) = (*id, change, value)
                        && let Some(at) = data.windows(3).position(|three| three == b",s=")
                        && let Some(letter) = data.get_mut(at + 3)
                    {
                        *letter = b'A' + u8::try_from(count % 26).unwrap_or(0);
                    }
                }
                change
            },
        ),
        dropped("challenge-missing", "AUTH to go on is not sent", |_, it| {
            it.kind == AUTH && it.code == 0x18
        }),
        dropped(
            "renewal-unanswered",
            "a renewal that succeeds is not answered",
            |_, it| it.kind == AUTH && it.code == 0,
        ),
        Mutation::new(
            "others-before-connack",
            "packets between CONNECT and CONNACK are ignored",
        )
        .on_client(|link, bytes| {
            let waits = method(link) && !link.welcome && link.connect.is_some();
            match bytes.first() {
                Some(first) if waits && !matches!(first >> 4, 1 | AUTH) => nothing(),
                _ => Turn::Keep,
            }
        }),
        Mutation::new(
            "wrong-auth-ignored",
            "an AUTH with another method or code is ignored",
        )
        .on_client(|link, bytes| {
            let right = link.connect.as_ref().and_then(|it| it.prop(0x15)).cloned();
            let (Some((first, body)), Some(Value::Text(right))) = (body(bytes), right) else {
                return Turn::Keep;
            };
            if first >> 4 != AUTH {
                return Turn::Keep;
            }
            let named = body
                .windows(right.len().max(1))
                .any(|part| part == right.as_slice());
            let code = if link.welcome { [0x18, 0x19] } else { [0x18, 0x18] };
            let begun = link.welcome && body.first() == Some(&0x18) && link.count == 0;
            link.count += u32::from(body.first() == Some(&0x19));
            if named && body.first().is_some_and(|it| code.contains(it)) && !begun {
                Turn::Keep
            } else {
                nothing()
            }
        }),
        Mutation::new(
            "renewal-blocks",
            "messages published while it is renewed are lost",
        )
        .on_client(|link, bytes| {
            if is_auth(bytes, 0x19) {
                link.count = 1;
            }
            let lost = link.count == 1 && bytes.first().is_some_and(|first| first >> 4 == PUBLISH);
            if lost { nothing() } else { Turn::Keep }
        })
        .on_server(|link, bytes| {
            if is_auth(bytes, 0) {
                link.count = 0;
            }
            Turn::Keep
        }),
        Mutation::new(
            "renewal-fails-open",
            "a renewal that fails is answered as if it had not",
        )
        .on_server(|link, bytes| {
            let failed = bytes.first() == Some(&0xE0) && link.last == AUTH && link.welcome;
            if failed {
                instead(vec![0xF0, 0])
            } else {
                Turn::Keep
            }
        })
        .server_end(|link, _| {
            if link.last == AUTH && link.welcome {
                nothing()
            } else {
                Turn::Keep
            }
        }),
    ]
}

fn conceals(name: &str, says: &str, id: u8) -> Mutation {
    answer(name, says, move |_, it| {
        let before = it.props.len();
        it.props.retain(|(known, _)| it.kind != CONNACK || *known != id);
        before != it.props.len()
    })
}

fn limits() -> Vec<Mutation> {
    vec![
        conceals(
            "keep-alive-not-told",
            "the server's own keep alive is not told",
            0x13,
        ),
        conceals(
            "maximum-qos-not-told",
            "the server's maximum QoS is not told",
            0x24,
        ),
        conceals(
            "aliases-not-told",
            "CONNACK does not say that aliases are taken",
            0x22,
        ),
        opening(
            "will-text-unchecked",
            "a will that is not the text it says it is, is taken",
            |_, it| {
                it.will.as_mut().is_some_and(|(_, _, payload)| {
                    let bad = std::str::from_utf8(payload).is_err();
                    if bad {
                        *payload = b"x".to_vec();
                    }
                    bad
                })
            },
        ),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    [aliases(), shared(), authentication(), limits()]
        .into_iter()
        .flatten()
        .collect()
}
