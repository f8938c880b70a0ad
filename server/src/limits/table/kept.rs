//! Limits of what is kept for a client: sessions, subscriptions, what is owed, retained messages.

use godwit_wire::limits as wire;

use super::{At, Limit, OWED_MET, SESSIONS_MET, SESSIONS_MET_LONG, count};

pub(super) fn sessions() -> Vec<Limit> {
    const MILLION: &[&str] = &[
        "tests/attacks/tests/subscriptions.rs::of_a_million_subscriptions_a_session_and_a_user_get_their_quota",
    ];
    vec![
        Limit::new(
            "sessions of a user",
            At::Count("USER_SESSIONS", count(wire::USER_SESSIONS)),
            "a CONNECT with a further client id is refused",
            MILLION,
        )
        .told("CONNACK 0x97", "CONNACK 3")
        .counted("godwit_mqtt_limits_met{limit=\"sessions\"}"),
        Limit::new(
            "subscriptions of a session",
            At::Count("SESSION_SUBSCRIPTIONS", count(wire::SESSION_SUBSCRIPTIONS)),
            "each further filter is refused",
            &[
                "tests/attacks/tests/subscriptions.rs::filters_that_match_along_every_path_cost_their_owner_only",
                "tests/attacks/tests/subscriptions.rs::of_a_million_subscriptions_a_session_and_a_user_get_their_quota",
            ],
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"subscriptions\"}"),
        Limit::new(
            "subscriptions of a user, over all sessions",
            At::Count("USER_SUBSCRIPTIONS", count(wire::USER_SUBSCRIPTIONS)),
            "each further filter is refused",
            &[SESSIONS_MET, "broker/src/users/tests/announced.rs::a_user_has_as_many_subscriptions_over_all_sessions_as_it_may"],
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"user_subscriptions\"}"),
        Limit::new(
            "filters of a user with a wildcard in the first two levels",
            At::Source("broker/src/topics/wildcards.rs", "USER_WILDCARD_FILTERS", ""),
            "each further one is refused",
            MILLION,
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_topic_limits_met{limit=\"wildcards\"}"),
        Limit::new(
            "shared subscriptions of a user",
            At::Count("USER_SHARES", count(wire::USER_SHARES)),
            "each further one is refused",
            &[SESSIONS_MET, "broker/src/users/tests/groups.rs::a_user_has_a_most_of_shared_subscriptions"],
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"shared_subscriptions\"}"),
        Limit::new(
            "members of a shared subscription's group",
            At::Count("SHARE_MEMBERS", count(wire::SHARE_MEMBERS)),
            "a further one is refused",
            &[SESSIONS_MET, "broker/src/topics/groups/tests.rs::a_group_has_a_most_of_members_and_who_is_in_may_subscribe_again"],
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_topic_limits_met{limit=\"share_members\"}"),
        Limit::new(
            "the name of such a group",
            At::Bytes("SHARE_NAME_BYTES", count(wire::SHARE_NAME_BYTES)),
            "refused",
            &[SESSIONS_MET, "wire/tests/topics.rs::a_shared_filter_has_a_name_without_wildcards_and_lives_where_its_inner_filter_does"],
        )
        .told("SUBACK 0x8F", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"share_name\"}"),
        Limit::new(
            "such filters of the node",
            At::Count("WILDCARD_FILTERS", count(wire::WILDCARD_FILTERS)),
            "the same",
            &[SESSIONS_MET_LONG],
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_topic_limits_met{limit=\"wildcards\"}"),
        Limit::new(
            "subscriptions of clients that go, of which a worker tells their topics' homes in a turn",
            At::Source("broker/src/users/leaving.rs", "A_TURN", ""),
            "the rest goes in the next turns; who subscribes again has its own told first",
            &["broker/src/users/tests/leaving.rs::routes_of_who_goes_are_ended_a_part_a_turn_and_a_users_all_before_it_subscribes_again"],
        )
        .uncounted("nothing is refused")
        .alone("every crowd with many subscriptions meets it: `WILDCARD_FILTERS`"),
        Limit::new(
            "time to a SUBACK",
            At::Source("broker/src/users/subscribe.rs", "WAIT_MS", "ms"),
            "what is not granted by then is refused, filter by filter",
            &["broker/src/users/tests/sessions.rs::a_subscribe_whose_route_does_not_come_is_refused_after_five_seconds"],
        )
        .told("SUBACK 0x80", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"subscribe_time\"}")
        .alone("it needs a store that does not answer, which bystanders notice"),
        Limit::new(
            "session expiry",
            At::Option("session_days", "days"),
            "a longer one is shortened to it, and told",
            &[SESSIONS_MET, "broker/src/users/tests/ends.rs::a_longer_expiry_than_allowed_is_told"],
        )
        .told("in CONNACK", "as if it had asked for it")
        .uncounted("nothing is refused"),
        Limit::new(
            "a second connection with the same client id",
            At::Count("one", 1),
            "the first one is closed, the session and what it is owed go on",
            &["tests/attacks/tests/floods.rs::of_many_that_fight_for_one_client_id_one_lives_and_nothing_is_lost"],
        )
        .told("DISCONNECT 0x8E", "closed")
        .counted("godwit_mqtt_sessions_live"),
    ]
}

pub(super) fn owed() -> Vec<Limit> {
    const OWED: &[&str] = &[
        OWED_MET,
        "tests/attacks/tests/flows.rs::what_is_owed_to_who_never_acknowledges_has_a_bound",
    ];
    vec![
        Limit::new(
            "time of a PUBLISH to its acknowledgement",
            At::Millis("ACK_TIMEOUT_MS", wire::ACK_TIMEOUT_MS),
            "not acknowledged, which is not \"not stored\": the append goes on",
            &["broker/src/users/tests/ordinary.rs::an_unanswered_publish_is_told_unavailable_after_ten_seconds_and_closes_a_3_1_1_connection"],
        )
        .told("PUBACK 0x83", "closed")
        .http("503")
        .counted("godwit_mqtt_publishes_refused")
        .alone("it needs a store that does not answer, which bystanders notice"),
        Limit::new(
            "the same on an ordinary topic while the store is well",
            At::Millis("TOPIC_TIMEOUT_MS", wire::TOPIC_TIMEOUT_MS),
            "not acknowledged, which is not \"not given\"; while the store fails it is as above",
            &["broker/src/users/tests/ordinary.rs::a_publish_on_an_ordinary_topic_waits_for_its_turn_while_the_store_is_well"],
        )
        .told("PUBACK 0x83", "closed")
        .counted("godwit_mqtt_publishes_refused")
        .alone("it takes two minutes of publishes for ten thousand each"),
        Limit::new(
            "entries owed to a persistent session by ordinary topics",
            At::Option("session_log_entries", ""),
            "the oldest go, a sixteenth at a time; a connected client is disconnected",
            &[OWED_MET, "broker/src/users/tests/quotas.rs::the_log_of_a_session_that_never_returns_is_bounded_in_entries_and_the_newest_are_kept_in_order"],
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_owed_over_quota"),
        Limit::new(
            "bytes of them",
            At::Option("session_log_bytes", "bytes"),
            "the same",
            OWED,
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_owed_over_quota"),
        Limit::new(
            "entries waiting for a clean session",
            At::Source("broker/src/users/deliver.rs", "MEMORY_QUEUE", ""),
            "disconnected: they are in memory only",
            &[OWED_MET, "tests/attacks/tests/flows.rs::packet_identifiers_that_are_never_given_back_end_their_owner_only"],
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"memory_queue\"}"),
        Limit::new(
            "bytes of them",
            At::Source("broker/src/users/deliver.rs", "MEMORY_BYTES", "bytes"),
            "the same",
            &[OWED_MET],
        )
        .told("DISCONNECT 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"memory_bytes\"}"),
        Limit::new(
            "entries of a mailbox",
            At::Option("mailbox_entries", ""),
            "the oldest go, a sixteenth at a time; sessions that did not have them are told of a `gap`",
            &[OWED_MET, "broker/src/users/tests/quotas.rs::a_mailbox_holds_no_more_entries_than_its_quota_and_the_gap_is_told"],
        )
        .told("`gap` in me/inbox", "`gap` in me/inbox")
        .counted("godwit_owed_over_quota"),
        Limit::new(
            "bytes of refused sends in a mailbox",
            At::Option("mailbox_bytes", "bytes"),
            "the same",
            &[OWED_MET, "broker/src/users/tests/quotas.rs::refused_sends_fill_a_mailbox_only_to_its_quota_and_the_gap_is_told"],
        )
        .told("", "`gap` in me/inbox")
        .counted("godwit_owed_over_quota"),
        Limit::new(
            "age of a mailbox's entries",
            At::Option("mailbox_days", "days"),
            "older ones go; the same",
            &["broker/src/users/tests/ends.rs::mailbox_entries_over_their_time_go_and_a_session_that_did_not_have_them_is_told_of_the_gap"],
        )
        .told("`gap` in me/inbox", "`gap` in me/inbox")
        .uncounted("its time, which is no surprise")
        .alone("a day is the least"),
    ]
}

pub(super) fn retained() -> Vec<Limit> {
    const FLOOD: &[&str] = &["tests/attacks/tests/floods.rs::retained_messages_have_their_quota"];
    const COPIES: &[&str] = &[
        "broker/src/users/tests/retained.rs::other_nodes_retained_messages_that_wait_have_a_bound_over_a_users_sessions_and_over_all",
    ];
    vec![
        Limit::new(
            "retained messages of a user",
            At::Option("retained_per_user", ""),
            "a publish that would be one more is refused whole, a will is not published; what replaces or clears is let in",
            &[
                "tests/attacks/tests/floods.rs::a_user_has_its_quota_of_retained_messages_over_all_topics",
                "broker/src/users/tests/retaining.rs::a_will_that_would_be_one_too_many_is_not_published",
            ],
        )
        .told("PUBACK 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"retained\"}"),
        Limit::new(
            "bytes of them",
            At::Option("retained_bytes_per_user", "bytes"),
            "the same",
            &["tests/attacks/tests/floods.rs::a_user_has_its_quota_of_retained_messages_over_all_topics"],
        )
        .told("PUBACK 0x97", "closed")
        .counted("godwit_mqtt_limits_met{limit=\"retained\"}"),
        Limit::new(
            "retained messages under one pair of first levels",
            At::Source("broker/src/topics/retained.rs", "KEY_MESSAGES", ""),
            "a publish that would be one more is refused whole; one that replaces or clears is not",
            &["tests/attacks/tests/floods.rs::retained_messages_have_their_quota (long form)", "broker/src/topics/tests.rs::a_retained_publish_over_the_quota_of_its_key_is_refused_whole_until_there_is_room"],
        )
        .told("PUBACK 0x97", "closed")
        .counted("godwit_retained_refused"),
        Limit::new(
            "bytes of them",
            At::Source("broker/src/topics/retained.rs", "KEY_BYTES", "bytes"),
            "the same",
            FLOOD,
        )
        .told("PUBACK 0x97", "closed")
        .counted("godwit_retained_refused"),
        Limit::new(
            "other nodes' retained messages that wait for clients, on a node",
            At::Source("broker/src/copies.rs", "COPIES_BYTES", "bytes"),
            "a filter whose retained messages would be beyond it is refused",
            COPIES,
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"retained_copies\"}")
        .alone("it takes several nodes"),
        Limit::new(
            "of them, for one user",
            At::Source("broker/src/copies.rs", "COPIES_OF_USER", "bytes"),
            "the same",
            COPIES,
        )
        .told("SUBACK 0x97", "SUBACK 0x80")
        .counted("godwit_mqtt_limits_met{limit=\"retained_copies\"}")
        .alone("it takes several nodes"),
    ]
}
