//! Limits of the doors: connections, what is let in, renewals, what is kept for who takes too little.

use super::{At, DOORS_MET, Limit, NET, PACKETS_MET, count};

pub(super) fn doors() -> Vec<Limit> {
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
        .alone("it needs as many connections at a time, each from an address of its own: more than a process has descriptors for"),
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
            &[PACKETS_MET, "tests/attacks/tests/flows.rs::a_slow_reader_costs_its_cap_and_gets_everything_when_it_reads"],
        )
        .counted("godwit_mqtt_kept_bytes"),
        Limit::new(
            "bytes kept at which it is closed",
            At::Source(NET, "KEPT_MOST", "bytes"),
            "closed: answers to what was under way came on top",
            &["broker/src/net/tests/kept.rs::who_takes_none_of_its_answers_is_closed_behind_the_most_that_is_kept_and_no_earlier"],
        )
        .told("closed", "closed")
        .counted("godwit_mqtt_closed{reason=\"too_slow\"}")
        .alone("behind `ROOM`, which holds it off: no client comes so far by what it sends"),
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
