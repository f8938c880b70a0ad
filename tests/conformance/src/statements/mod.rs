//! The normative statements of both specifications, each with what shows it. The ids are the specifications', the
//! words are ours: read the specification for what is said exactly.

mod v311;
mod v5;

use crate::wire::Version;

/// What shows a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown {
    /// These cases.
    By(&'static [&'static str]),
    /// Nothing can: why.
    NotApplicable(&'static str),
    /// It is about what is not served yet, as these cases show: it is refused.
    NotServed(&'static str, &'static [&'static str]),
}

/// One statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement {
    /// Without `MQTT-`.
    pub(crate) id: &'static str,
    pub(crate) says: &'static str,
    pub(crate) shown: Shown,
}

const fn by(id: &'static str, says: &'static str, cases: &'static [&'static str]) -> Statement {
    Statement {
        id,
        says,
        shown: Shown::By(cases),
    }
}

const fn not(id: &'static str, says: &'static str, why: &'static str) -> Statement {
    Statement {
        id,
        says,
        shown: Shown::NotApplicable(why),
    }
}

const fn later(
    id: &'static str,
    says: &'static str,
    why: &'static str,
    cases: &'static [&'static str],
) -> Statement {
    Statement {
        id,
        says,
        shown: Shown::NotServed(why, cases),
    }
}

const CLIENT: &str = "binds the client";
const AUTH: &str = "enhanced authentication is not served yet: every method is refused";
const SHARED: &str = "shared subscriptions are not served yet: announced so and refused";
const ALIAS: &str = "topic aliases from clients are not served yet: announced as 0, so every one is refused";

// A table that lacks a statement of the specification's Appendix B is found by its length.
const _: () = assert!(v311::STATEMENTS.len() == v311::COUNT && v5::STATEMENTS.len() == v5::COUNT);

/// All statements of a version.
pub(crate) const fn of(version: Version) -> &'static [Statement] {
    match version {
        Version::V311 => v311::STATEMENTS,
        Version::V5 => v5::STATEMENTS,
    }
}

/// The corners that the statements do not name, with the cases that look into them.
pub(crate) const CORNERS: &[(&str, &[&str])] = &[
    (
        "DUP on every resend",
        &["corners::dup_on_every_resend", "session::order_over_a_resume"],
    ),
    ("a PUBREL owed over a resume", &["qos2::out_pubrel_is_resent"]),
    (
        "identifiers of resumed QoS 2 messages and new messages",
        &["corners::identifiers_of_resumed_qos_2_are_not_reused"],
    ),
    (
        "a message that expires while QoS 2 is in flight",
        &[
            "qos2::out_is_completed_though_expired",
            "qos2::in_is_completed_though_expired",
        ],
    ),
    (
        "the retained flag after a resume",
        &["retained::flag_stays_on_resend_after_resume"],
    ),
    (
        "will on abrupt close, keep-alive end, take-over, protocol error; not on DISCONNECT 0x00",
        &[
            "wills::published_when_the_connection_is_lost",
            "wills::published_when_keep_alive_ends",
            "wills::published_on_take_over",
            "wills::published_on_a_protocol_error",
            "wills::not_published_after_disconnect",
        ],
    ),
    (
        "session present only if state was really kept",
        &["session::present_only_if_kept"],
    ),
    (
        "SUBACK only when the route is live",
        &[
            "subscribe::works_as_soon_as_acknowledged",
            "races::suback_means_live",
        ],
    ),
    (
        "SUBSCRIBE with granted and refused filters",
        &["subscribe::refused_filters_do_not_stop_others"],
    ),
    (
        "overlapping subscriptions",
        &[
            "corners::overlapping_subscriptions",
            "corners::overlap_with_different_options",
        ],
    ),
    (
        "unsubscribe of one of them",
        &["corners::unsubscribe_one_of_overlapping"],
    ),
    (
        "retained message removed by an empty payload",
        &["retained::removed_by_an_empty_payload"],
    ),
    (
        "$share with wildcards (not served yet: refused)",
        &[
            "subscribe::shared_filters_are_refused",
            "subscribe::shared_filters_are_refused_quietly",
        ],
    ),
    (
        "clean start against a live session",
        &["corners::clean_start_against_a_live_session"],
    ),
    (
        "zero-length client id",
        &[
            "connect::empty_client_id_gets_a_name",
            "connect::empty_client_id_is_let_in",
            "connect::empty_client_id_needs_clean_session",
        ],
    ),
    ("keep alive 0", &["connect::keep_alive_0_never_ends"]),
    (
        "a second CONNECT",
        &["connect::second_connect_ends_the_connection"],
    ),
    (
        "reserved bits",
        &[
            "format::reserved_flag_is_refused",
            "format::connect_with_flags_is_refused",
            "format::pingreq_with_flags_is_refused",
            "publish::puback_with_flags_is_refused",
            "qos2::pubrec_with_flags_is_refused",
            "subscribe::reserved_bits_are_refused",
        ],
    ),
    (
        "remaining length of five bytes",
        &["corners::remaining_length_of_five_bytes"],
    ),
    (
        "U+0000 and surrogates",
        &[
            "utf8::publish_topic_must_be_utf8",
            "utf8::nul_in_a_publish_topic_is_refused",
            "utf8::nul_in_a_filter_is_refused",
            "utf8::nul_in_a_client_id_is_refused",
        ],
    ),
    (
        "QoS 3",
        &[
            "publish::qos_3_is_refused",
            "subscribe::qos_3_is_refused",
            "format::will_qos_3_is_refused",
        ],
    ),
    (
        "PUBACKs out of order",
        &["publish::pubacks_out_of_order_are_taken"],
    ),
    (
        "a session used in both versions",
        &[
            "corners::session_across_versions",
            "corners::take_over_across_versions",
        ],
    ),
    (
        "acknowledgements of the wrong kind",
        &["corners::crossed_acknowledgements_end_nothing"],
    ),
    (
        "a message resent and a new one: order",
        &["corners::resumed_and_new_in_order"],
    ),
    (
        "a packet byte by byte; many in one write",
        &["corners::packet_in_single_bytes", "corners::everything_at_once"],
    ),
    (
        "a packet larger than the server takes",
        &["corners::larger_than_the_server_takes"],
    ),
    (
        "empty payloads",
        &["publish::empty_payload_is_delivered", "wills::empty_payload"],
    ),
    (
        "acknowledgements of nothing",
        &[
            "publish::puback_unknown_is_ignored",
            "qos2::pubcomp_unknown_is_ignored",
        ],
    ),
    (
        "a completed QoS 2 delivery leaves nothing behind",
        &["qos2::out_nothing_is_resent_when_complete"],
    ),
    ("a session's next will", &["wills::replaced_by_the_next_connect"]),
    (
        "session expiry changed by DISCONNECT and by the next CONNECT",
        &[
            "session::expiry_at_disconnect_prolongs_it",
            "session::resumed_expiry_is_the_new_one",
        ],
    ),
    (
        "subscription identifier on retained messages",
        &["retained::identifier_of_the_subscription_comes_along"],
    ),
    (
        "acknowledgements without code and length, and with reasons",
        &[
            "properties::acknowledgements_may_be_short",
            "utf8::reason_string_must_be_utf8",
        ],
    ),
    (
        "a payload that is not the text it says it is",
        &["properties::payload_format_is_checked"],
    ),
    (
        "session expiry right after the server's start",
        &["session::expires_right_after_a_start"],
    ),
    (
        "options and identifier of a subscription after a resume",
        &["subscribe::identifier_and_options_survive_a_resume"],
    ),
    (
        "a smaller window or packet size on the next connection",
        &[
            "limits::receive_maximum_is_kept_on_resume",
            "limits::too_large_on_resume_is_dropped",
        ],
    ),
    (
        "a session expiry other than asked for is told",
        &["session::another_expiry_is_told"],
    ),
    (
        "one packet identifier in both directions",
        &["corners::identifiers_of_both_directions_are_apart"],
    ),
    (
        "a retained message for two filters of one SUBSCRIBE",
        &["corners::retained_for_two_filters_at_once"],
    ),
    (
        "WebSocket: a ping between fragments, a frame without a mask",
        &[
            "websocket::control_frames_may_come_between",
            "websocket::unmasked_frame_closes",
        ],
    ),
];
