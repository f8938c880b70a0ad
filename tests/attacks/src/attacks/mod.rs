//! The attacks, a file a family. Each function gives the attack in its short form (seconds, in `cargo test`) or its long
//! one (`godwit-attacks`).

pub mod doors;
pub mod floods;
pub mod flows;
pub mod half_open;
pub mod limits;
pub mod malformed;
pub mod memory;
pub mod oversized;
pub mod rates;
pub mod rest;
pub mod subscriptions;
pub mod websocket;

use crate::judge::Attack;

/// Makes an attack: `true` in its long form.
pub type Make = fn(bool) -> Attack;

/// Every attack, in the order of the report.
pub const ALL: &[Make] = &[
    doors::slowloris,
    doors::silent,
    doors::crowd,
    doors::storm,
    doors::connections,
    doors::descriptors,
    memory::bound,
    malformed::packets,
    oversized::packets,
    oversized::held,
    oversized::announced,
    oversized::forms,
    subscriptions::deep_wildcards,
    subscriptions::everything,
    subscriptions::million,
    subscriptions::probing,
    floods::retained,
    floods::retained_of_a_user,
    floods::wills,
    floods::take_over,
    flows::never_completed,
    flows::owed_without_end,
    flows::slow_reader,
    half_open::vanished,
    rates::connections_of_an_address,
    rates::connects_of_an_address,
    rates::publishes_of_a_user,
    rates::bytes_of_a_user,
    rates::properties,
    rest::requests,
    websocket::compression,
    limits::doors,
    limits::packets,
    limits::sessions,
    limits::owed,
    limits::http,
];
