//! The list of limits, in the order of the page: what one is, and those of packets. Those of doors are in `doors`, what is kept for a client is
//! in `kept`, conversations, HTTP and accounts in `chat`. A line is added with the limit; its test must exist.

mod chat;
mod doors;
mod kept;
mod nodes;

use godwit_wire::limits as wire;

/// Where a limit is set, and what its value is.
pub(super) enum At {
    /// An option, and the unit of its value.
    Option(&'static str, &'static str),
    /// A constant that counts.
    Count(&'static str, u64),
    /// One of bytes.
    Bytes(&'static str, u64),
    /// One of milliseconds.
    Millis(&'static str, u64),
    /// A private constant: file, name, unit.
    Source(&'static str, &'static str, &'static str),
}

/// A line of the page.
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) at: At,
    /// What happens to who meets it.
    pub(super) effect: &'static str,
    /// Reason codes and HTTP status.
    pub(super) v5: &'static str,
    pub(super) v311: &'static str,
    pub(super) http: &'static str,
    pub(super) metric: &'static str,
    /// Why there is none.
    pub(super) uncounted: &'static str,
    /// `FILE::NAME` of those that reach it; behind a blank, in which form alone.
    pub(super) tests: &'static [&'static str],
    /// Why none of them does so beside bystanders.
    pub(super) alone: &'static str,
}

impl Limit {
    fn new(name: &'static str, at: At, effect: &'static str, tests: &'static [&'static str]) -> Self {
        Self {
            name,
            at,
            effect,
            v5: "",
            v311: "",
            http: "",
            metric: "",
            uncounted: "",
            tests,
            alone: "",
        }
    }

    /// What is told in MQTT 5 and in 3.1.1.
    fn told(mut self, v5: &'static str, v311: &'static str) -> Self {
        (self.v5, self.v311) = (v5, v311);
        self
    }

    fn http(mut self, status: &'static str) -> Self {
        self.http = status;
        self
    }

    fn counted(mut self, metric: &'static str) -> Self {
        self.metric = metric;
        self
    }

    fn uncounted(mut self, why: &'static str) -> Self {
        self.uncounted = why;
        self
    }

    fn alone(mut self, why: &'static str) -> Self {
        self.alone = why;
        self
    }
}

/// A heading, and what gives its limits.
pub(super) type Section = (&'static str, fn() -> Vec<Limit>);

/// All of them, in the order of the page.
pub(super) const LIMITS: &[Section] = &[
    ("Doors", doors::doors),
    ("Packets", packets),
    ("Sessions and subscriptions", kept::sessions),
    ("What is under way and owed", kept::owed),
    ("Retained messages", kept::retained),
    ("Conversations", chat::conversations),
    ("HTTP and accounts", chat::http),
    ("Between nodes", nodes::between),
];

const NET: &str = "broker/src/net/mod.rs";

// The attacks that are tables of limits; their tables name them as this one does.
const DOORS_MET: &str = "tests/attacks/tests/limits.rs::limits_of_the_doors_are_met_and_nobody_else_notices";
const PACKETS_MET: &str = "tests/attacks/tests/limits.rs::limits_of_packets_are_met_and_nobody_else_notices";
const SESSIONS_MET: &str =
    "tests/attacks/tests/limits.rs::limits_of_sessions_and_subscriptions_are_met_and_nobody_else_notices";
const SESSIONS_MET_LONG: &str = "tests/attacks/tests/limits.rs::limits_of_sessions_and_subscriptions_are_met_and_nobody_else_notices (long form)";
const OWED_MET: &str =
    "tests/attacks/tests/limits.rs::limits_of_what_is_owed_are_met_and_nobody_else_notices";
const HTTP_MET: &str =
    "tests/attacks/tests/limits.rs::limits_of_rest_and_accounts_are_met_and_nobody_else_notices";
const HTTP_MET_LONG: &str =
    "tests/attacks/tests/limits.rs::limits_of_rest_and_accounts_are_met_and_nobody_else_notices (long form)";

fn count(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn packets() -> Vec<Limit> {
    const LARGE: &[&str] = &[
        "tests/attacks/tests/oversized.rs::what_is_too_large_is_refused_by_its_header_within_ten_milliseconds",
    ];
    vec![
        Limit::new(
            "a packet",
            At::Bytes("PACKET_BYTES", count(wire::PACKET_BYTES)),
            "refused by its header; announced in CONNACK (Maximum Packet Size)",
            LARGE,
        )
        .told("DISCONNECT 0x95", "closed")
        .counted("godwit_mqtt_protocol_errors"),
        Limit::new(
            "a topic name or filter",
            At::Bytes("TOPIC_BYTES", count(wire::TOPIC_BYTES)),
            "refused; QoS 0 is dropped",
            LARGE,
        )
        .told("PUBACK 0x90, SUBACK 0x8F", "closed, SUBACK 0x80")
        .counted("godwit_mqtt_publishes_refused"),
        Limit::new(
            "levels of a topic name or filter",
            At::Count("TOPIC_LEVELS", count(wire::TOPIC_LEVELS)),
            "the same",
            LARGE,
        )
        .told("PUBACK 0x90, SUBACK 0x8F", "closed, SUBACK 0x80")
        .counted("godwit_mqtt_publishes_refused"),
        Limit::new(
            "filters of one SUBSCRIBE",
            At::Count("SESSION_SUBSCRIPTIONS", count(wire::SESSION_SUBSCRIPTIONS)),
            "the connection ends, nothing of the packet is done",
            LARGE,
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"subscriptions\"}"),
        Limit::new(
            "SUBSCRIBEs of a connection that are not answered",
            At::Source("broker/src/users/subscribe.rs", "REQUESTS", ""),
            "the connection ends",
            &["broker/src/users/tests/subscribing.rs::a_subscribe_that_is_one_too_many_changes_nothing"],
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"subscriptions\"}")
        .alone("`SUBSCRIBING` holds it off"),
        Limit::new(
            "SUBSCRIBEs of a worker that are not answered",
            At::Source("broker/src/net/pace.rs", "SUBSCRIBING", ""),
            "the connections that send more are not read until some are, each in its turn",
            &[PACKETS_MET, "broker/src/net/tests/lines.rs::of_those_who_subscribe_so_many_are_unanswered_at_a_time"],
        )
        .told("not read", "not read")
        .uncounted("they wait some milliseconds"),
        Limit::new(
            "clients of a worker that are let in and have no CONNACK yet",
            At::Source("broker/src/net/pace.rs", "ENTERING", "; 192 on a CQL store, which answers each by itself"),
            "the others wait in the order in which their credentials were found good; twice as many may be if none is answered for half a second",
            &["broker/src/net/tests/lines.rs::of_those_who_are_let_in_so_many_are_with_their_homes_at_a_time"],
        )
        .told("not yet", "not yet")
        .uncounted("they wait some milliseconds")
        .alone("everybody meets it in a storm ([faults](faults.md), 16)"),
        Limit::new(
            "packets of a connection that are taken at a time",
            At::Source("broker/src/net/reading.rs", "PACKETS_A_TURN", ""),
            "the rest has a later turn",
            &[
                PACKETS_MET,
                "broker/src/net/tests/bursts.rs::of_thousands_of_small_packets_a_turn_takes_a_part_and_the_others_are_served_in_between",
            ],
        )
        .uncounted("they wait some milliseconds"),
        Limit::new(
            "a client id",
            At::Bytes("CLIENT_ID_BYTES", count(wire::CLIENT_ID_BYTES)),
            "refused",
            &["tests/attacks/tests/oversized.rs::what_is_over_a_limit_of_its_own_is_refused_by_every_door"],
        )
        .told("CONNACK 0x85", "CONNACK 2")
        .counted("godwit_mqtt_limits_met{limit=\"client_id\"}"),
        Limit::new(
            "user properties of a packet, and of its will",
            At::Count("USER_PROPERTIES", count(wire::USER_PROPERTIES)),
            "the connection ends",
            &["tests/attacks/tests/rates.rs::one_user_property_too_many_ends_the_connection"],
        )
        .told("DISCONNECT 0x97", "")
        .counted("godwit_mqtt_protocol_errors"),
        Limit::new(
            "topic aliases of a connection",
            At::Count("TOPIC_ALIASES", count(wire::TOPIC_ALIASES)),
            "announced in CONNACK; a higher one ends the connection",
            &[PACKETS_MET, "tests/conformance/src/cases/alias.rs::above_the_maximum_is_refused"],
        )
        .told("DISCONNECT 0x94", "")
        .counted("godwit_mqtt_protocol_errors"),
        Limit::new(
            "QoS of publishes and wills",
            At::Option("max_qos", ""),
            "announced in CONNACK; a publish above it ends the connection, a will is refused at CONNECT",
            &[
                PACKETS_MET, "broker/src/users/tests/announced.rs::a_maximum_qos_is_announced_and_what_is_above_it_ends_the_connection_and_no_subscription",
                "broker/src/users/tests/announced.rs::a_will_above_the_maximum_qos_is_refused_at_connect",
            ],
        )
        .told("DISCONNECT 0x9B, CONNACK 0x9B", "closed, CONNACK 5")
        .counted("godwit_mqtt_limits_met{limit=\"max_qos\"}"),
        Limit::new(
            "publishes of a client that are not acknowledged",
            At::Count("RECEIVE_MAXIMUM", count(wire::RECEIVE_MAXIMUM)),
            "announced in CONNACK; a 3.1.1 client is paused there and closed at four times as many that it does not complete",
            &["tests/attacks/tests/flows.rs::packet_identifiers_that_are_never_given_back_end_their_owner_only"],
        )
        .told("DISCONNECT 0x93", "not read, closed at 1,024")
        .counted("godwit_mqtt_limits_met{limit=\"receive_maximum\"}"),
        Limit::new(
            "QoS 0 publishes of a connection that are under way",
            At::Count("ASKED0", count(wire::RECEIVE_MAXIMUM)),
            "its client is not read until half of them are done",
            &[PACKETS_MET, "broker/src/users/tests/ordinary.rs::a_connection_has_no_more_qos_0_publishes_under_way_than_may_wait_for_their_turn"],
        )
        .told("not read", "not read")
        .counted("godwit_mqtt_paused"),
        Limit::new(
            "publishes of a user",
            At::Option("publishes_per_second", "a second, beside five seconds' worth at once"),
            "its clients are not read for a while, which loses nothing; who keeps at it for 5 minutes is disconnected",
            &[
                "tests/attacks/tests/rates.rs::a_user_who_publishes_too_fast_is_slowed_down_and_loses_nothing",
                "broker/src/users/tests/rates.rs::who_never_lets_up_is_told_and_closed_and_who_catches_up_is_not",
            ],
        )
        .told("not read; DISCONNECT 0x96", "not read; closed")
        .counted("godwit_mqtt_limits_met{limit=\"publishes_per_second\"}"),
        Limit::new(
            "bytes of them",
            At::Option("publish_bytes_per_second", "bytes a second, beside five seconds' worth at once"),
            "the same",
            &["tests/attacks/tests/rates.rs::a_user_who_publishes_too_many_bytes_is_slowed_down_and_loses_nothing"],
        )
        .told("not read; DISCONNECT 0x96", "not read; closed")
        .counted("godwit_mqtt_limits_met{limit=\"publish_bytes_per_second\"}"),
        Limit::new(
            "bytes of publishes of a user that are not answered",
            At::Source("broker/src/users/publish_in.rs", "UNANSWERED_BYTES", "bytes"),
            "its clients are not read until fewer are; each connection may have one packet more",
            &["tests/attacks/tests/flows.rs::what_is_owed_to_who_never_acknowledges_has_a_bound"],
        )
        .told("not read", "not read")
        .counted("godwit_mqtt_limits_met{limit=\"unanswered_bytes\"}"),
        Limit::new(
            "wills of a worker that are being published",
            At::Source("broker/src/users/firing.rs", "MOST", "or 256 KiB of them"),
            "the others wait, in order",
            &["tests/attacks/tests/floods.rs::wills_of_a_crowd_that_vanishes_fire_once_each"],
        )
        .uncounted("they wait some milliseconds"),
        Limit::new(
            "subscriptions that a publish or a will matches",
            At::Source("broker/src/users/rates.rs", "ROUTES", "for each publish more that it counts as"),
            "as `publishes_per_second`, before the next is read",
            &[SESSIONS_MET, "broker/src/users/tests/rates.rs::a_publish_that_was_for_thousands_counts_as_many_more_and_holds_back_nobody_else"],
        )
        .told("not read; DISCONNECT 0x96", "not read; closed")
        .counted("godwit_mqtt_limits_met{limit=\"publishes_per_second\"}"),
        Limit::new(
            "users that publishes for many are given to in a turn of a worker",
            At::Source("broker/src/topics/spread.rs", "A_TURN", ""),
            "the rest goes on in the next turn, in order within a key; acknowledged when all have it",
            &[PACKETS_MET, "broker/src/topics/tests/spread.rs::a_publish_for_many_is_given_to_a_part_of_them_a_turn_and_acknowledged_when_all_have_it"],
        )
        .counted("godwit_topic_publishes_spread"),
        Limit::new(
            "publishes for many of one user that are given at a time",
            At::Source("broker/src/topics/spread.rs", "AT_ONCE", "on a worker, whichever keys"),
            "further ones wait, in order, and others' go on beside them",
            &[PACKETS_MET, "broker/src/topics/tests/spread.rs::who_publishes_to_many_keys_has_few_under_way_and_another_users_goes_beside_them"],
        )
        .counted("godwit_topic_publishes_spread"),
        Limit::new(
            "deliveries of publishes for many that are matched and not given",
            At::Source("broker/src/topics/spread.rs", "MATCHED", "on a worker, of one user a sixteenth; one publish may overrun it"),
            "further publishes for many wait",
            &[
                "broker/src/topics/tests/spread.rs::no_more_is_matched_than_has_room_and_what_waits_for_room_goes_on",
                "broker/src/topics/tests/spread.rs::a_user_with_more_than_a_share_matched_waits_and_others_are_matched",
            ],
        )
        .counted("godwit_topic_publishes_spread")
        .alone("it needs thousands of users for whom four publishes are at a time"),
        Limit::new(
            "deliveries that are given and not answered",
            At::Source("broker/src/topics/spread.rs", "UNANSWERED", "on a worker; 512 while answers come"),
            "publishes for many go on when some are",
            &["broker/src/topics/tests/spread.rs::what_is_given_and_not_answered_is_bounded_and_goes_on_with_the_answers"],
        )
        .counted("godwit_topic_publishes_spread")
        .alone("as above, and a store that does not answer"),
        Limit::new(
            "publishes of a worker that wait for their turn or for room",
            At::Source("broker/src/topics/spread.rs", "WAITING", "of 64 MiB at most; of one user a sixteenth of both"),
            "one more that would have to wait is refused: to a key with a publish for many under way, or for many itself",
            &[
                PACKETS_MET, "broker/src/topics/tests/spread.rs::what_waits_is_bounded_and_what_is_over_is_told_and_all_that_was_taken_arrives",
                "broker/src/topics/tests/spread.rs::one_user_has_a_share_of_the_places_and_leaves_the_others_to_others",
            ],
        )
        .told("PUBACK 0x83", "closed")
        .counted("godwit_topic_publishes_crowded"),
    ]
}
