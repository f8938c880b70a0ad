//! The cases, by what they are about, and the list of all. A case is a function that talks to the server and says what
//! was not as the specification wants it.

pub(crate) mod alias;
pub(crate) mod auth;
pub(crate) mod connect;
pub(crate) mod corners;
pub(crate) mod format;
pub(crate) mod limits;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod qos2;
pub(crate) mod races;
pub(crate) mod retained;
pub(crate) mod session;
pub(crate) mod shared;
pub(crate) mod subscribe;
pub(crate) mod unsubscribe;
pub(crate) mod utf8;
pub(crate) mod websocket;
pub(crate) mod wills;

use crate::client::Outcome;
use crate::server::Server;
use crate::wire::Version;

/// In which versions a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Both,
    V311,
    V5,
}

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// `file::function`.
    pub(crate) name: &'static str,
    pub(crate) on: On,
    pub(crate) run: fn(&Server) -> Outcome,
}

impl Case {
    pub(crate) fn runs_on(&self, version: Version) -> bool {
        match self.on {
            On::Both => true,
            On::V311 => version == Version::V311,
            On::V5 => version == Version::V5,
        }
    }
}

/// The cases of a file: `cases!("file"; Both: one, two; V5: three)`.
macro_rules! cases {
    ($file:literal; $($on:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        &[$($($crate::cases::Case {
            name: concat!($file, "::", stringify!($name)),
            on: $crate::cases::On::$on,
            run: $name,
        }),+),+]
    };
}
pub(crate) use cases;

/// What a case answers that cannot be run on this server; counted as neither pass nor fail, and an error on our own.
pub(crate) const SKIPPED: &str = "skipped: ";

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        connect::CASES,
        auth::CASES,
        format::CASES,
        publish::CASES,
        qos2::CASES,
        subscribe::CASES,
        shared::CASES,
        unsubscribe::CASES,
        retained::CASES,
        wills::CASES,
        session::CASES,
        utf8::CASES,
        properties::CASES,
        alias::CASES,
        limits::CASES,
        websocket::CASES,
        corners::CASES,
        races::CASES,
    ]
    .concat()
}

/// `Err` with what was wrong unless it holds.
pub(crate) fn check(holds: bool, wrong: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(wrong()) }
}
