//! Mutations for what a server must refuse in headers and in packets after CONNECT: each mends or swallows one kind of
//! wrong packet.

use super::link::Turn;
use super::mending::{ignored, kind};
use super::mutation::{Mutation, asked, instead, posted};
use super::sent::{Asked, Posted, ack_of, body, leaving_of, length};
use crate::wire::{CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Version, disconnect, packet};

fn headers() -> Vec<Mutation> {
    vec![
        Mutation::new(
            "flags-ignored",
            "reserved flags of packets but CONNECT and PUBLISH are ignored",
        )
        .on_client(|_, bytes| match bytes.split_first() {
            Some((first, rest)) => {
                let right = match first >> 4 {
                    1 | 3 => return Turn::Keep,
                    6 | 8 | 10 => first & 0xF0 | 2,
                    _ => first & 0xF0,
                };
                if right == *first {
                    Turn::Keep
                } else {
                    instead([&[right], rest].concat())
                }
            }
            None => Turn::Keep,
        }),
        Mutation::new("connect-header-ignored", "flags of CONNECT's header are ignored").on_client(
            |_, bytes| match bytes.split_first() {
                Some((first @ 0x11..=0x1F, rest)) => instead([&[first & 0xF0], rest].concat()),
                _ => Turn::Keep,
            },
        ),
        Mutation::new(
            "long-lengths-taken",
            "lengths that are longer than need be are taken",
        )
        .on_client(|link, bytes| {
            let version = link.version;
            let mended = match kind(bytes) {
                PUBLISH => Posted::of(version, bytes).map(|it| it.bytes(version)),
                SUBSCRIBE => Some(
                    Asked::of(version, bytes)
                        .map(|it| it.bytes(version))
                        .unwrap_or_default(),
                ),
                12 => body(bytes).map(|(first, body)| packet(first, body)),
                _ => None,
            };
            match mended {
                Some(mended) if mended != bytes => instead(mended),
                _ => Turn::Keep,
            }
        }),
        ignored(
            "five-byte-length-ignored",
            "a remaining length of five bytes is ignored",
            |_, bytes| length(bytes) == Some(usize::MAX),
        ),
        Mutation::new("tails-ignored", "bytes after the end of a packet are ignored").on_client(
            |link, bytes| {
                let whole = body(bytes).map_or(0, |(_, body)| body.len());
                let right = match (kind(bytes), link.version) {
                    (4..=7, Version::V311) => 2,
                    (4..=7, Version::V5)
                        if whole > 4 && body(bytes).is_some_and(|(_, it)| it.get(3) == Some(&0)) =>
                    {
                        4
                    }
                    (12, _) | (DISCONNECT, Version::V311) => 0,
                    (DISCONNECT, Version::V5) if body(bytes).is_some_and(|(_, it)| it.get(1) == Some(&0)) => {
                        2
                    }
                    _ => return Turn::Keep,
                };
                match body(bytes) {
                    Some((first, body)) if whole > right => {
                        instead(packet(first, body.get(..right).unwrap_or_default()))
                    }
                    _ => Turn::Keep,
                }
            },
        ),
        ignored(
            "servers-packets-ignored",
            "packets that only a server sends are ignored",
            |_, bytes| matches!(kind(bytes), 2 | 9 | 11 | 13),
        ),
        ignored("type-0-ignored", "packets of type 0 are ignored", |_, bytes| {
            kind(bytes) == 0
        }),
        ignored("auth-ignored", "AUTH is ignored", |_, bytes| kind(bytes) == 15),
        ignored(
            "first-packet-ignored",
            "packets before CONNECT are ignored",
            |link, bytes| link.connect.is_none() && kind(bytes) != CONNECT,
        ),
        ignored(
            "second-connect-ignored",
            "a second CONNECT is ignored",
            |link, bytes| link.connect.is_some() && kind(bytes) == CONNECT,
        ),
        Mutation::new("ack-codes-ignored", "reason codes that do not exist are taken").on_client(
            |link, bytes| match (ack_of(bytes), leaving_of(link.version, bytes)) {
                (Some((kind, pid, code @ 1..0x80)), _) if code != 0x10 => {
                    instead(crate::wire::ack(kind, pid))
                }
                (_, Some((1, props))) => instead(disconnect(link.version, 4, &props)),
                _ => Turn::Keep,
            },
        ),
        Mutation::new(
            "late-expiry-taken",
            "DISCONNECT may set a session expiry where there was none",
        )
        .on_client(|link, bytes| {
            let none = link.connect.as_ref().is_some_and(|it| it.prop(0x11).is_none());
            match leaving_of(link.version, bytes) {
                Some((code, props)) if none && !props.is_empty() => {
                    instead(disconnect(link.version, code, &[]))
                }
                _ => Turn::Keep,
            }
        }),
    ]
}

fn messages() -> Vec<Mutation> {
    vec![
        Mutation::new("qos-3-taken", "a PUBLISH with QoS 3 is taken for one with QoS 2").on_client(
            |_, bytes| match bytes.split_first() {
                Some((first, rest)) if first >> 4 == PUBLISH && first & 6 == 6 => {
                    instead([&[first & !2], rest].concat())
                }
                _ => Turn::Keep,
            },
        ),
        Mutation::new("dup-with-qos-0-taken", "DUP with QoS 0 is ignored").on_client(|_, bytes| match bytes
            .split_first()
        {
            Some((first, rest)) if first & 0xFE == 0x38 => instead([&[first & !8], rest].concat()),
            _ => Turn::Keep,
        }),
        posted(
            "publish-id-0-taken",
            "a PUBLISH with identifier 0 is taken",
            |_, it| {
                let changed = it.qos() > 0 && it.pid == 0;
                it.pid = if changed { 9 } else { it.pid };
                changed
            },
        ),
        posted(
            "wildcard-topic-taken",
            "a topic with wildcards is taken",
            |_, it| {
                let changed = it.topic.iter().any(|byte| matches!(byte, b'+' | b'#'));
                it.topic
                    .iter_mut()
                    .for_each(|byte| *byte = if matches!(byte, b'+' | b'#') { b'x' } else { *byte });
                changed
            },
        ),
        posted("empty-topic-taken", "an empty topic is taken", |_, it| {
            let changed = it.topic.is_empty();
            it.topic.extend(if changed { &b"x"[..] } else { b"" });
            changed
        }),
        ignored(
            "cut-publish-ignored",
            "a PUBLISH that ends too early is ignored",
            |link, bytes| kind(bytes) == PUBLISH && Posted::of(link.version, bytes).is_none(),
        ),
        asked(
            SUBSCRIBE,
            "subscribe-id-0-taken",
            "a SUBSCRIBE with identifier 0 is taken",
            |_, it| {
                let changed = it.pid == 0;
                it.pid = if changed { 9 } else { it.pid };
                changed
            },
        ),
        asked(
            UNSUBSCRIBE,
            "unsubscribe-id-0-taken",
            "an UNSUBSCRIBE with identifier 0 is taken",
            |_, it| {
                let changed = it.pid == 0;
                it.pid = if changed { 9 } else { it.pid };
                changed
            },
        ),
        asked(
            SUBSCRIBE,
            "qos-3-asked-taken",
            "a SUBSCRIBE with QoS 3 is taken",
            |_, it| {
                let changed = it.filters.iter().any(|(_, options)| options & 3 == 3);
                it.filters
                    .iter_mut()
                    .for_each(|(_, options)| *options &= if *options & 3 == 3 { !1 } else { 0xFF });
                changed
            },
        ),
        asked(
            SUBSCRIBE,
            "option-bits-ignored",
            "reserved bits of a SUBSCRIBE's options are ignored",
            |link, it| {
                let kept = if link.version == Version::V5 { 0x3F } else { 3 };
                let changed = it.filters.iter().any(|(_, options)| options & !kept != 0);
                it.filters.iter_mut().for_each(|(_, options)| *options &= kept);
                changed
            },
        ),
        asked(
            SUBSCRIBE,
            "handling-3-taken",
            "Retain Handling 3 is taken",
            |_, it| {
                let changed = it.filters.iter().any(|(_, options)| options & 0x30 == 0x30);
                it.filters
                    .iter_mut()
                    .for_each(|(_, options)| *options &= if *options & 0x30 == 0x30 { !0x10 } else { 0xFF });
                changed
            },
        ),
        asked(
            SUBSCRIBE,
            "shared-no-local-taken",
            "No Local on a shared filter is ignored",
            |_, it| {
                let mut changed = false;
                for (filter, options) in &mut it.filters {
                    if filter.starts_with(b"$share/") && *options & 4 != 0 {
                        *options &= !4;
                        changed = true;
                    }
                }
                changed
            },
        ),
        ignored(
            "empty-subscribe-ignored",
            "a SUBSCRIBE without a filter is ignored",
            |link, bytes| {
                kind(bytes) == SUBSCRIBE
                    && Asked::of(link.version, bytes).is_some_and(|it| it.filters.is_empty())
            },
        ),
        ignored(
            "empty-unsubscribe-ignored",
            "an UNSUBSCRIBE without a filter is ignored",
            |link, bytes| {
                kind(bytes) == UNSUBSCRIBE
                    && Asked::of(link.version, bytes).is_some_and(|it| it.filters.is_empty())
            },
        ),
        ignored(
            "missing-options-ignored",
            "a SUBSCRIBE without options is ignored",
            |link, bytes| kind(bytes) == SUBSCRIBE && Asked::of(link.version, bytes).is_none(),
        ),
    ]
}

pub(crate) fn list() -> Vec<Mutation> {
    headers().into_iter().chain(messages()).collect()
}
