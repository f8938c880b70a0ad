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
    /// Tests of other suites: what it asks needs more than packets. `file::function`, the file from the repository's root.
    Elsewhere(&'static [&'static str]),
    /// Nothing can: why.
    NotApplicable(&'static str),
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

const fn elsewhere(id: &'static str, says: &'static str, tests: &'static [&'static str]) -> Statement {
    Statement {
        id,
        says,
        shown: Shown::Elsewhere(tests),
    }
}

const fn not(id: &'static str, says: &'static str, why: &'static str) -> Statement {
    Statement {
        id,
        says,
        shown: Shown::NotApplicable(why),
    }
}

const CLIENT: &str = "binds the client";

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
        "an alias that stands for nothing, for a topic without rights, of a message repeated in full",
        &[
            "alias::of_nothing_is_refused",
            "alias::of_a_topic_without_rights_is_refused",
            "alias::repeated_in_full_is_known",
        ],
    ),
    (
        "a server's own keep-alive is told and kept",
        &["limits::server_keep_alive_is_told_and_kept"],
    ),
    (
        "retained messages of one user are bounded",
        &["limits::retained_messages_of_a_user_are_bounded"],
    ),
    (
        "a will that is not the text it says it is",
        &["limits::will_that_is_no_text_is_refused"],
    ),
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
        "$share with wildcards, without a name, without a filter, on reserved levels",
        &[
            "shared::wildcards_match",
            "shared::filters_without_a_name_are_refused",
            "shared::reserved_filters_are_refused",
        ],
    ),
    (
        "each message of a group to one member, connected ones first; two groups on one filter; a client in a group and outside",
        &[
            "shared::announced",
            "shared::one_member_gets_each",
            "shared::members_that_are_away_come_last",
            "shared::groups_on_one_filter_are_apart",
            "shared::in_a_group_and_outside",
            "shared::no_retained_messages",
            "shared::identifiers_and_codes_are_a_members_own",
        ],
    ),
    (
        "what a member of a group that goes had not acknowledged",
        &[
            "shared::clean_start_gives_its_work_on",
            "shared::lost_clean_session_gives_its_work_on",
            "shared::unsubscribed_member_gets_no_more",
            "shared::lost_connection_keeps_its_work",
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
        "enhanced authentication: only AUTH before CONNACK, one method, traffic while it renews, nobody told apart",
        &[
            "auth::only_auth_before_connack",
            "auth::method_stays_in_an_exchange",
            "auth::messages_flow_while_it_renews",
            "auth::scram_of_nobody_is_refused_alike",
        ],
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
