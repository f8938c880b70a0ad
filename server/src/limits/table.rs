//! The list of limits, in the order of the page: what one is, and those of doors and packets. What is kept for a client is
//! in `kept`, conversations, HTTP and accounts in `chat`. A line is added with the limit; its test must exist.

mod chat;
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
    ("Doors", doors),
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
const OWED_MET: &str =
    "tests/attacks/tests/limits.rs::limits_of_what_is_owed_are_met_and_nobody_else_notices";
const HTTP_MET: &str =
    "tests/attacks/tests/limits.rs::limits_of_rest_and_accounts_are_met_and_nobody_else_notices";
const HTTP_MET_LONG: &str =
    "tests/attacks/tests/limits.rs::limits_of_rest_and_accounts_are_met_and_nobody_else_notices (long form)";

fn count(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn doors() -> Vec<Limit> {
    vec![
        Limit::new(
            "time to a whole CONNECT",
            At::Option("connect_seconds", "s"),
            "closed within a second more, without a word",
            &[
                "tests/attacks/tests/doors.rs::a_connect_that_dribbles_is_closed_in_time",
                "tests/attacks/tests/doors.rs::thousands_that_never_speak_are_closed_in_time",
                "server/tests/doors.rs::what_dribbles_is_closed_at_the_connect_time_out_at_every_door",
            ],
        )
        .told("closed; under judgement CONNACK 0x88", "closed; under judgement CONNACK 3")
        .http("closed")
        .counted("godwit_mqtt_greeting_timeouts"),
        Limit::new(
            "bytes before authentication",
            At::Source(NET, "GREETING_BYTES", "bytes"),
            "a larger CONNECT is refused by its header; memory grows only as bytes arrive",
            &[
                "tests/attacks/tests/oversized.rs::what_is_too_large_is_refused_by_its_header_within_ten_milliseconds",
                "tests/attacks/tests/oversized.rs::before_authentication_a_connection_holds_sixteen_kib_at_most",
            ],
        )
        .told("CONNACK 0x95", "closed")
        .counted("godwit_mqtt_refused{reason=\"too_large\"}"),
        Limit::new(
            "MQTT connections of the node",
            At::Option("max_connections", ""),
            "further ones are closed at once, or with `server_reference` told to go elsewhere, `TOLD` at a time; 0: what the limit on open files leaves beside an eighth for HTTP and 512 for the store",
            &[
                "tests/attacks/tests/doors.rs::who_comes_above_the_limit_on_connections_is_turned_away_at_little_cost",
                "tests/attacks/tests/doors.rs::clients_cannot_take_the_descriptors_that_the_store_needs",
                "broker/src/net/tests/addresses.rs::a_full_node_says_where_else_to_go",
            ],
        )
        .told("closed; with `server_reference` CONNACK 0x9C", "closed; with `server_reference` CONNACK 3")
        .counted("godwit_mqtt_refused{reason=\"too_many\"}"),
        Limit::new(
            "memory of the node",
            At::Option("max_memory_mb", " MB"),
            "further MQTT connections are closed at once, or told so, `TOLD` at a time; those that are in stay, each with bounds of its own; 0: what the process's control group may have, less a tenth",
            &["tests/attacks/tests/doors.rs::at_its_bound_on_memory_a_node_lets_nobody_more_in_and_serves_who_is"],
        )
        .told("closed, or CONNACK 0x97", "closed, or CONNACK 3")
        .counted("godwit_mqtt_refused{reason=\"memory\"}"),
        Limit::new(
            "connections that are turned away and heard first, in the node",
            At::Count("TOLD", u64::from(godwit_broker::TOLD)),
            "whose CONNECT is awaited (`connect_seconds` at most) to be answered, beside the limits that turn them away; further ones are closed at once",
            &[
                DOORS_MET, "broker/src/net/tests/addresses.rs::of_web_sockets_beyond_a_limit_a_few_are_kept_to_be_told_and_the_rest_is_closed_at_once",
                "broker/src/net/tests/addresses.rs::who_keeps_silent_at_a_full_node_is_one_of_a_few_and_takes_nobodys_room",
            ],
        )
        .told("closed", "closed")
        .counted("godwit_mqtt_refused{reason=\"address_connections\"}"),
        Limit::new(
            "MQTT connections of an address (IPv6: of a /64)",
            At::Option("connections_per_address", ""),
            "further ones are closed at once, over WebSocket after an answer to their CONNECT; 0: no limit",
            &[
                "tests/attacks/tests/rates.rs::an_address_has_its_limit_of_connections",
                "broker/src/net/tests/addresses.rs::a_web_socket_beyond_a_limit_is_told_in_its_connack",
            ],
        )
        .told("closed; WebSocket: CONNACK 0x97", "closed; WebSocket: CONNACK 3")
        .counted("godwit_mqtt_refused{reason=\"address_connections\"}"),
        Limit::new(
            "new MQTT connections of an address",
            At::Option("connects_per_address", "a second, beside ten seconds' worth at once"),
            "the same",
            &["tests/attacks/tests/rates.rs::an_address_has_its_limit_of_connects_a_second"],
        )
        .told("closed; WebSocket: CONNACK 0x9F", "closed; WebSocket: CONNACK 3")
        .counted("godwit_mqtt_refused{reason=\"address_rate\"}"),
        Limit::new(
            "addresses that are counted",
            At::Source("broker/src/net/addresses.rs", "ADDRESSES", ""),
            "further ones are let in uncounted: the node's own limit holds them",
            &["broker/src/net/addresses.rs::a_full_table_lets_newcomers_in_uncounted_and_still_holds_the_known_ones"],
        )
        .counted("godwit_mqtt_addresses")
        .alone("it needs 262,144 addresses"),
        Limit::new(
            "a header of the PROXY protocol, version 1",
            At::Source("broker/src/net/proxy.rs", "PROXY_V1_BYTES", "bytes"),
            "closed",
            &["broker/src/net/tests/proxied.rs::what_is_no_header_is_closed_at_once_and_counted"],
        )
        .told("closed", "closed")
        .http("closed")
        .counted("godwit_mqtt_refused{reason=\"proxy_header\"}")
        .alone("where the protocol is on every client comes through a balancer, the bystanders too"),
        Limit::new(
            "the same, version 2",
            At::Source("broker/src/net/proxy.rs", "PROXY_V2_BYTES", "bytes"),
            "closed",
            &["broker/src/net/tests/proxied.rs::what_is_no_header_is_closed_at_once_and_counted"],
        )
        .told("closed", "closed")
        .http("closed")
        .counted("godwit_mqtt_refused{reason=\"proxy_header\"}")
        .alone("as above"),
        Limit::new(
            "who may send such a header",
            At::Option("proxy_from", ""),
            "connections from elsewhere are closed where the protocol is on",
            &["broker/src/net/tests/proxied.rs::a_header_from_elsewhere_is_not_believed"],
        )
        .told("closed", "closed")
        .http("closed")
        .counted("godwit_mqtt_refused{reason=\"proxy_from\"}")
        .alone("as above"),
        Limit::new(
            "a message of SCRAM",
            At::Source("accounts/src/scram.rs", "MESSAGE_BYTES", "bytes"),
            "refused; two messages of a client are an exchange, a third breaks the protocol",
            &[DOORS_MET, "accounts/src/scram.rs::other_forms_of_the_first_message_are_refused_and_never_reach_the_library"],
        )
        .told("CONNACK 0x86, in a renewal DISCONNECT 0x87", "")
        .counted("godwit_mqtt_refused{reason=\"credential\"}"),
        Limit::new(
            "a token in a renewal",
            At::Source("broker/src/net/auth.rs", "TOKEN_BYTES", "bytes"),
            "the connection ends, the session stays",
            &[DOORS_MET, "tests/conformance/src/cases/auth.rs::failed_renewal_ends"],
        )
        .told("DISCONNECT 0x87", "")
        .counted("godwit_mqtt_closed{reason=\"protocol\"}"),
        Limit::new(
            "time of a renewal",
            At::Source("broker/src/net/auth.rs", "RENEWAL_SECONDS", "s"),
            "the same",
            &[DOORS_MET, "broker/src/net/tests/auth.rs::who_came_by_a_method_renews_by_it_and_a_failure_ends_the_connection_alone"],
        )
        .told("DISCONNECT 0x87", "")
        .counted("godwit_mqtt_closed{reason=\"protocol\"}"),
        Limit::new(
            "renewals of a connection",
            At::Source("broker/src/net/auth.rs", "RENEWALS", "at once, and one a second"),
            "the connection ends, the session stays",
            &[DOORS_MET, "broker/src/net/tests/auth.rs::who_authenticates_anew_again_and_again_is_told_and_closed"],
        )
        .told("DISCONNECT 0x96", "")
        .counted("godwit_mqtt_reauthentications_too_many"),
        Limit::new(
            "rules about topics",
            At::Count("MAX_RULES", count(godwit_accounts::acl::MAX_RULES)),
            "refused at the start and when they are read again",
            &["accounts/src/acl.rs::rules_about_reserved_levels_or_with_bad_filters_are_refused_at_start"],
        )
        .uncounted("no client meets it")
        .alone("no client meets it"),
        Limit::new(
            "bytes kept for a connection that takes too little",
            At::Source(NET, "ROOM", "bytes"),
            "it is given no more PUBLISHes and not read until it has taken some; QoS 0 is dropped and counted, QoS 1 and 2 wait in its log",
            &["tests/attacks/tests/flows.rs::a_slow_reader_costs_its_cap_and_gets_everything_when_it_reads"],
        )
        .counted("godwit_mqtt_kept_bytes"),
        Limit::new(
            "bytes kept at which it is closed",
            At::Source(NET, "KEPT_MOST", "bytes"),
            "closed: answers to what was under way came on top",
            &["broker/src/net/tests/bounds.rs::a_client_that_takes_nothing_is_not_read_for_ever"],
        )
        .told("closed", "closed")
        .counted("godwit_mqtt_closed{reason=\"too_slow\"}")
        .alone("behind `ROOM`, which holds it off: no client is known to come so far"),
        Limit::new(
            "a WebSocket frame",
            At::Source("broker/src/net/websocket.rs", "FRAME_BYTES", "bytes"),
            "closed by its header; no compression is negotiated, so what arrives is what is held",
            &["tests/attacks/tests/websocket.rs::no_compression_is_negotiated_and_huge_frames_end_the_connection"],
        )
        .told("closed", "closed")
        .counted("godwit_mqtt_protocol_errors"),
        Limit::new(
            "silence",
            At::Option("max_keep_alive", "s"),
            "a client that was silent for one and a half keep-alives is closed within a second more; its entries stay owed. 0: the client's own keep-alive",
            &["tests/attacks/tests/half_open.rs::peers_that_vanish_are_found_by_their_keep_alive_and_stay_owed"],
        )
        .told("DISCONNECT 0x8D", "closed")
        .counted("godwit_mqtt_keep_alive_timeouts"),
    ]
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
            &[PACKETS_MET, "broker/src/users/tests/subscribing.rs::a_subscribe_that_is_one_too_many_changes_nothing"],
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"subscriptions\"}"),
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
            At::Source("broker/src/topics/spread.rs", "UNANSWERED", "on a worker"),
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
