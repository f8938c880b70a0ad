//! MQTT 3.1.1, Appendix B of the OASIS Standard of 29 October 2014.

use super::{CLIENT, Statement, by, elsewhere, not};

/// Statements in the appendix.
pub(super) const COUNT: usize = 141;

pub(super) const STATEMENTS: &[Statement] = &[
    by(
        "1.5.3-1",
        "texts are well-formed UTF-8 without surrogates, else the connection is closed",
        &[
            "utf8::client_id_must_be_utf8",
            "utf8::publish_topic_must_be_utf8",
            "utf8::subscribe_filter_must_be_utf8",
            "utf8::user_name_must_be_utf8",
        ],
    ),
    by(
        "1.5.3-2",
        "no text holds U+0000, else the connection is closed",
        &[
            "utf8::nul_in_a_publish_topic_is_refused",
            "utf8::nul_in_a_filter_is_refused",
            "utf8::nul_in_a_client_id_is_refused",
        ],
    ),
    by(
        "1.5.3-3",
        "EF BB BF is a character like others and stays",
        &["utf8::byte_order_mark_stays"],
    ),
    by(
        "2.2.2-1",
        "reserved flag bits have the listed values",
        &[
            "format::connect_with_flags_is_refused",
            "format::pingreq_with_flags_is_refused",
        ],
    ),
    by(
        "2.2.2-2",
        "other flags end the connection",
        &[
            "format::connect_with_flags_is_refused",
            "format::pingreq_with_flags_is_refused",
            "publish::puback_with_flags_is_refused",
            "qos2::pubrec_with_flags_is_refused",
        ],
    ),
    by(
        "2.3.1-1",
        "SUBSCRIBE, UNSUBSCRIBE and PUBLISH above QoS 0 carry an identifier that is not 0",
        &[
            "publish::identifier_0_is_refused",
            "subscribe::identifier_0_is_refused",
            "unsubscribe::unsubscribe_identifier_0_is_refused",
        ],
    ),
    not(
        "2.3.1-2",
        "a client's new packet carries an unused identifier",
        CLIENT,
    ),
    by(
        "2.3.1-3",
        "a resent packet keeps its identifier, which is free after the acknowledgement",
        &[
            "publish::acknowledged_identifier_is_a_new_message",
            "qos2::in_completed_identifier_is_a_new_message",
        ],
    ),
    by(
        "2.3.1-4",
        "the same holds for the server's PUBLISH",
        &[
            "publish::identifiers_out_are_unused",
            "publish::unacknowledged_is_resent_on_resume_only",
            "corners::identifiers_of_resumed_qos_2_are_not_reused",
        ],
    ),
    by(
        "2.3.1-5",
        "a QoS 0 PUBLISH has no identifier",
        &["publish::qos_0_out_has_no_identifier"],
    ),
    by(
        "2.3.1-6",
        "PUBACK, PUBREC, PUBREL carry the PUBLISH's identifier",
        &[
            "publish::each_qos_gets_its_answer",
            "qos2::out_goes_all_the_way",
            "qos2::in_order_over_two_messages",
        ],
    ),
    by(
        "2.3.1-7",
        "SUBACK and UNSUBACK carry the request's identifier",
        &[
            "subscribe::suback_answers_with_the_identifier",
            "unsubscribe::unsuback_answers_with_the_identifier",
        ],
    ),
    by(
        "3.1.0-1",
        "a client's first packet is CONNECT",
        &["connect::first_packet_is_connect"],
    ),
    by(
        "3.1.0-2",
        "a second CONNECT ends the connection",
        &["connect::second_connect_ends_the_connection"],
    ),
    by(
        "3.1.2-1",
        "another protocol name is not served as this protocol",
        &["format::wrong_protocol_name_is_refused"],
    ),
    by(
        "3.1.2-2",
        "a level that is not served gets CONNACK 0x01 and is closed",
        &[
            "format::unknown_level_gets_return_code_1",
            "format::unknown_level_is_refused",
        ],
    ),
    by(
        "3.1.2-3",
        "the reserved connect flag is 0, else closed",
        &["format::reserved_flag_is_refused"],
    ),
    by(
        "3.1.2-4",
        "clean session 0 resumes or makes a session that is kept after the connection",
        &[
            "races::kept_sessions_are_there_at_once",
            "session::resumed_with_its_subscriptions",
            "session::none_is_created_anew",
            "session::kept_after_a_lost_connection",
        ],
    ),
    by(
        "3.1.2-5",
        "QoS 1 and 2 messages are stored for the absent",
        &[
            "races::nothing_is_lost_at_a_lost_connection",
            "session::qos_1_and_2_are_kept_for_the_absent",
            "session::long_absence_backlog",
        ],
    ),
    by(
        "3.1.2-6",
        "clean session 1 discards what there is and lasts as long as its connection",
        &[
            "races::clean_start_at_once",
            "qos2::in_clean_start_forgets_identifiers",
            "session::clean_start_discards",
            "session::clean_lasts_no_longer",
        ],
    ),
    by(
        "3.1.2-7",
        "retained messages are no part of a session",
        &["session::retained_is_no_part_of_it"],
    ),
    by(
        "3.1.2-8",
        "a will is stored and published when the connection ends, unless DISCONNECT came",
        &[
            "wills::published_when_the_connection_is_lost",
            "wills::published_when_keep_alive_ends",
            "wills::published_on_a_protocol_error",
            "wills::published_on_take_over",
        ],
    ),
    by(
        "3.1.2-9",
        "with the will flag its topic and message are there",
        &["format::will_flag_without_fields_is_refused"],
    ),
    by(
        "3.1.2-10",
        "a will is gone once published or after DISCONNECT",
        &[
            "wills::not_published_twice",
            "wills::published_once_over_reconnects",
        ],
    ),
    by(
        "3.1.2-11",
        "without the will flag: QoS and retain 0, no topic and message",
        &[
            "format::will_qos_without_will_is_refused",
            "format::will_retain_without_will_is_refused",
            "format::will_fields_without_flag_are_refused",
        ],
    ),
    by(
        "3.1.2-12",
        "without the will flag no will is published",
        &["wills::none_means_none"],
    ),
    by(
        "3.1.2-13",
        "without a will its QoS is 0",
        &["format::will_qos_without_will_is_refused"],
    ),
    by(
        "3.1.2-14",
        "a will's QoS is 0, 1 or 2, never 3",
        &["format::will_qos_3_is_refused", "wills::each_qos"],
    ),
    by(
        "3.1.2-15",
        "without a will its retain flag is 0",
        &["format::will_retain_without_will_is_refused"],
    ),
    by(
        "3.1.2-16",
        "will retain 0: published as not retained",
        &["wills::not_retained_otherwise"],
    ),
    by(
        "3.1.2-17",
        "will retain 1: published as retained",
        &["wills::retained_if_asked"],
    ),
    by(
        "3.1.2-18",
        "user name flag 0: no user name",
        &["format::username_without_flag_is_refused"],
    ),
    by(
        "3.1.2-19",
        "user name flag 1: a user name",
        &["format::username_flag_without_name_is_refused"],
    ),
    by(
        "3.1.2-20",
        "password flag 0: no password",
        &["format::password_without_flag_is_refused"],
    ),
    by(
        "3.1.2-21",
        "password flag 1: a password",
        &["format::password_flag_without_word_is_refused"],
    ),
    by(
        "3.1.2-22",
        "no password without a user name",
        &["format::password_needs_username"],
    ),
    not(
        "3.1.2-23",
        "a client keeps to its keep alive with PINGREQ",
        CLIENT,
    ),
    by(
        "3.1.2-24",
        "silence for one and a half keep alives ends the connection like a failure",
        &[
            "connect::keep_alive_ends_a_silent_connection",
            "connect::keep_alive_is_kept_by_any_packet",
            "wills::published_when_keep_alive_ends",
        ],
    ),
    by(
        "3.1.3-1",
        "the payload's fields have their order",
        &["connect::all_fields_in_order_are_read"],
    ),
    by(
        "3.1.3-2",
        "the client id identifies the session",
        &[
            "session::resumed_with_its_subscriptions",
            "session::client_ids_are_apart",
        ],
    ),
    by(
        "3.1.3-3",
        "the client id is there, first",
        &["format::missing_client_id_is_refused"],
    ),
    by(
        "3.1.3-4",
        "the client id is a valid text",
        &[
            "utf8::client_id_must_be_utf8",
            "utf8::nul_in_a_client_id_is_refused",
        ],
    ),
    by(
        "3.1.3-5",
        "ids of 1 to 23 letters and digits are let in",
        &["connect::letters_and_digits_make_a_client_id"],
    ),
    by(
        "3.1.3-6",
        "an empty client id is let in and is unique",
        &["connect::empty_client_id_is_let_in"],
    ),
    not(
        "3.1.3-7",
        "with an empty client id a client sets clean session 1",
        CLIENT,
    ),
    by(
        "3.1.3-8",
        "an empty client id with clean session 0 gets CONNACK 0x02 and is closed",
        &["connect::empty_client_id_needs_clean_session"],
    ),
    by(
        "3.1.3-9",
        "a client id that is refused gets CONNACK 0x02 and is closed",
        &[
            "connect::long_client_id_is_let_in_or_refused",
            "connect::empty_client_id_needs_clean_session",
        ],
    ),
    by(
        "3.1.3-10",
        "the will topic is a valid text",
        &["utf8::will_topic_must_be_utf8"],
    ),
    by(
        "3.1.3-11",
        "the user name is a valid text",
        &["utf8::user_name_must_be_utf8"],
    ),
    by(
        "3.1.4-1",
        "a CONNECT that breaks its format is closed without a CONNACK",
        &[
            "format::truncated_connect_is_refused",
            "format::reserved_flag_is_refused",
            "format::missing_client_id_is_refused",
        ],
    ),
    by(
        "3.1.4-2",
        "the older connection of a client id is closed",
        &[
            "races::take_over_storm_leaves_one",
            "connect::take_over_closes_the_older_connection",
        ],
    ),
    by(
        "3.1.4-3",
        "clean session is done",
        &[
            "session::clean_start_discards",
            "corners::clean_start_against_a_live_session",
        ],
    ),
    by(
        "3.1.4-4",
        "an accepted CONNECT gets CONNACK 0",
        &["connect::connack_is_first_and_only"],
    ),
    by(
        "3.1.4-5",
        "after a refused CONNECT nothing is processed",
        &["connect::refused_connect_is_followed_by_nothing"],
    ),
    by(
        "3.2.0-1",
        "the first packet from the server is CONNACK",
        &[
            "connect::connack_is_first_and_only",
            "session::qos_1_and_2_are_kept_for_the_absent",
        ],
    ),
    by(
        "3.2.2-1",
        "clean session 1 is answered with session present 0",
        &["connect::clean_connect_answers_session_present_0"],
    ),
    by(
        "3.2.2-2",
        "a stored session is answered with session present 1",
        &["session::present_only_if_kept"],
    ),
    by(
        "3.2.2-3",
        "none stored: session present 0",
        &[
            "races::ended_sessions_are_gone_at_once",
            "session::none_is_created_anew",
            "session::present_only_if_kept",
        ],
    ),
    by(
        "3.2.2-4",
        "a CONNACK that refuses has session present 0",
        &["connect::bad_credentials_are_refused"],
    ),
    by(
        "3.2.2-5",
        "a CONNACK that refuses is followed by the end",
        &[
            "connect::bad_credentials_are_refused",
            "connect::empty_client_id_needs_clean_session",
        ],
    ),
    by(
        "3.2.2-6",
        "where no return code fits the connection is closed without CONNACK",
        &["format::reserved_flag_is_refused", "utf8::client_id_must_be_utf8"],
    ),
    by(
        "3.3.1-1",
        "DUP is 1 on a delivery that is repeated",
        &[
            "publish::unacknowledged_is_resent_on_resume_only",
            "corners::dup_on_every_resend",
        ],
    ),
    by(
        "3.3.1-2",
        "DUP is 0 with QoS 0",
        &[
            "publish::first_delivery_has_dup_0",
            "publish::qos_0_with_dup_is_refused",
        ],
    ),
    by(
        "3.3.1-3",
        "DUP is not passed on",
        &["publish::dup_is_not_passed_on"],
    ),
    by(
        "3.3.1-4",
        "QoS 3 ends the connection",
        &["publish::qos_3_is_refused"],
    ),
    by(
        "3.3.1-5",
        "RETAIN 1: stored with its QoS for future subscribers",
        &[
            "retained::stored_for_new_subscribers",
            "retained::replaced_by_the_next",
            "retained::survives_its_publishers_session",
        ],
    ),
    by(
        "3.3.1-6",
        "a new subscription gets the last retained message of each topic",
        &[
            "races::retained_at_once",
            "retained::more_than_a_window",
            "retained::stored_for_new_subscribers",
            "retained::sent_for_wildcards",
        ],
    ),
    by(
        "3.3.1-7",
        "a retained QoS 0 message discards the one before",
        &["retained::qos_0_replaces_too"],
    ),
    by(
        "3.3.1-8",
        "RETAIN 1 on what a new subscription gets",
        &[
            "retained::stored_for_new_subscribers",
            "retained::sent_again_on_each_subscribe",
        ],
    ),
    by(
        "3.3.1-9",
        "RETAIN 0 on what established subscriptions get",
        &["retained::flag_is_0_for_established_subscriptions"],
    ),
    by(
        "3.3.1-10",
        "an empty retained message is delivered and removes what was retained",
        &[
            "wills::retained_and_empty_removes",
            "races::retained_removed_at_once",
            "retained::removed_by_an_empty_payload",
        ],
    ),
    by(
        "3.3.1-11",
        "an empty retained message is not stored",
        &["retained::empty_is_never_stored"],
    ),
    by(
        "3.3.1-12",
        "RETAIN 0 leaves what is retained alone",
        &["retained::not_retained_leaves_it_alone"],
    ),
    by(
        "3.3.2-1",
        "the topic is first in PUBLISH and a valid text",
        &[
            "utf8::publish_topic_must_be_utf8",
            "publish::truncated_publish_is_refused",
        ],
    ),
    by(
        "3.3.2-2",
        "no wildcards in a PUBLISH's topic",
        &["publish::wildcard_in_a_topic_is_refused"],
    ),
    by(
        "3.3.2-3",
        "the topic that is delivered matches the filter",
        &[
            "publish::delivered_topic_matches_the_filter",
            "publish::wildcards_match",
        ],
    ),
    by(
        "3.3.4-1",
        "a PUBLISH is answered as its QoS wants",
        &["publish::each_qos_gets_its_answer"],
    ),
    by(
        "3.3.5-1",
        "overlapping subscriptions: the highest QoS among them is respected",
        &["corners::overlapping_subscriptions"],
    ),
    by(
        "3.3.5-2",
        "a PUBLISH that is not allowed is acknowledged as usual or ends the connection",
        &["publish::refused_topic_does_no_harm"],
    ),
    by(
        "3.6.1-1",
        "PUBREL's flags are 0010, others end the connection",
        &["qos2::pubrel_with_wrong_flags_is_refused"],
    ),
    by(
        "3.8.1-1",
        "SUBSCRIBE's flags are 0010, others end the connection",
        &["subscribe::wrong_flags_are_refused"],
    ),
    by(
        "3.8.3-1",
        "filters in SUBSCRIBE are valid texts",
        &["utf8::subscribe_filter_must_be_utf8"],
    ),
    not(
        "3.8.3-2",
        "a server without wildcards refuses filters with them",
        "wildcards are served",
    ),
    by(
        "3.8.3-3",
        "SUBSCRIBE has at least one filter with its QoS",
        &[
            "subscribe::no_filter_is_refused",
            "subscribe::missing_options_are_refused",
        ],
    ),
    by(
        "3.8.3-4",
        "reserved bits or QoS 3 end the connection",
        &[
            "subscribe::reserved_bits_are_refused",
            "subscribe::qos_3_is_refused",
        ],
    ),
    by(
        "3.8.4-1",
        "SUBSCRIBE gets a SUBACK",
        &["subscribe::suback_answers_with_the_identifier"],
    ),
    by(
        "3.8.4-2",
        "with its identifier",
        &["subscribe::suback_answers_with_the_identifier"],
    ),
    by(
        "3.8.4-3",
        "the same filter replaces the subscription, retained messages come again, nothing is lost",
        &[
            "races::replaced_at_once",
            "subscribe::same_filter_replaces",
            "subscribe::replacing_loses_nothing",
            "retained::sent_again_on_each_subscribe",
        ],
    ),
    by(
        "3.8.4-4",
        "several filters are as several SUBSCRIBEs with one answer",
        &[
            "subscribe::many_filters_in_one",
            "subscribe::refused_filters_do_not_stop_others",
        ],
    ),
    by(
        "3.8.4-5",
        "SUBACK has for each filter the granted QoS or a refusal",
        &[
            "subscribe::codes_are_in_order",
            "subscribe::refused_filters_do_not_stop_others",
            "shared::filters_without_a_name_are_refused",
        ],
    ),
    by(
        "3.8.4-6",
        "messages come with the lower of the two QoS",
        &["publish::lower_qos_is_delivered", "retained::qos_is_the_lower"],
    ),
    by(
        "3.9.3-1",
        "codes in SUBACK have the filters' order",
        &[
            "subscribe::codes_are_in_order",
            "subscribe::refused_filters_do_not_stop_others",
        ],
    ),
    by(
        "3.9.3-2",
        "SUBACK codes are 0, 1, 2 and 0x80 (every packet read is checked)",
        &[
            "subscribe::refused_filters_do_not_stop_others",
            "subscribe::misplaced_wildcards_are_refused",
        ],
    ),
    by(
        "3.10.1-1",
        "UNSUBSCRIBE's flags are 0010, others end the connection",
        &["unsubscribe::unsubscribe_with_wrong_flags_is_refused"],
    ),
    by(
        "3.10.3-1",
        "filters in UNSUBSCRIBE are valid texts",
        &["utf8::unsubscribe_filter_must_be_utf8"],
    ),
    by(
        "3.10.3-2",
        "UNSUBSCRIBE has at least one filter",
        &["unsubscribe::unsubscribe_without_filter_is_refused"],
    ),
    by(
        "3.10.4-1",
        "filters are compared byte for byte, the equal one goes",
        &[
            "unsubscribe::unsubscribe_compares_exactly",
            "corners::unsubscribe_one_of_overlapping",
        ],
    ),
    by(
        "3.10.4-2",
        "after UNSUBSCRIBE nothing new is added",
        &[
            "unsubscribe::unsubscribe_stops_messages",
            "unsubscribe::unsubscribe_stops_messages_at_once",
        ],
    ),
    by(
        "3.10.4-3",
        "QoS 1 and 2 deliveries that were begun are completed",
        &["unsubscribe::unsubscribe_completes_what_was_begun"],
    ),
    by(
        "3.10.4-4",
        "UNSUBSCRIBE gets an UNSUBACK with its identifier",
        &["unsubscribe::unsuback_answers_with_the_identifier"],
    ),
    by(
        "3.10.4-5",
        "also when nothing was deleted",
        &["unsubscribe::unsubscribe_of_nothing_is_answered"],
    ),
    by(
        "3.10.4-6",
        "several filters are as several UNSUBSCRIBEs with one answer",
        &["unsubscribe::unsubscribe_many_in_one"],
    ),
    by(
        "3.12.4-1",
        "PINGREQ gets a PINGRESP",
        &["connect::pingreq_is_answered"],
    ),
    by(
        "3.14.1-1",
        "reserved bits of DISCONNECT are 0, else closed",
        &["format::disconnect_with_flags_is_refused"],
    ),
    not("3.14.4-1", "a client closes after DISCONNECT", CLIENT),
    not("3.14.4-2", "a client sends nothing after DISCONNECT", CLIENT),
    by(
        "3.14.4-3",
        "DISCONNECT discards the will",
        &["wills::not_published_after_disconnect"],
    ),
    by(
        "4.1.0-1",
        "session state is stored for as long as the session",
        &[
            "session::resumed_with_its_subscriptions",
            "session::order_over_a_resume",
        ],
    ),
    by(
        "4.1.0-2",
        "a session lasts at least as long as its connection",
        &["session::taken_over_without_loss"],
    ),
    by(
        "4.3.1-1",
        "QoS 0 goes out with QoS 0 and DUP 0",
        &["publish::first_delivery_has_dup_0"],
    ),
    by(
        "4.3.2-1",
        "QoS 1 out: unused identifier, DUP 0, unacknowledged until PUBACK",
        &[
            "races::reconnecting_loses_no_qos_1",
            "publish::identifiers_out_are_unused",
            "publish::first_delivery_has_dup_0",
            "publish::unacknowledged_is_resent_on_resume_only",
            "corners::crossed_acknowledgements_end_nothing",
        ],
    ),
    by(
        "4.3.2-2",
        "QoS 1 in: PUBACK once owned, after it the identifier is a new message",
        &[
            "publish::each_qos_gets_its_answer",
            "publish::acknowledged_means_stored_for_the_absent",
            "publish::acknowledged_identifier_is_a_new_message",
        ],
    ),
    by(
        "4.3.3-1",
        "QoS 2 out: unused identifier, DUP 0, PUBREL for PUBREC, no PUBLISH after PUBREL, PUBREL until PUBCOMP",
        &[
            "races::reconnecting_doubles_no_qos_2",
            "publish::identifiers_out_are_unused",
            "publish::first_delivery_has_dup_0",
            "qos2::out_goes_all_the_way",
            "qos2::out_publish_is_resent_with_dup",
            "qos2::out_pubrel_is_resent",
            "qos2::out_publish_is_not_resent_after_pubrel",
        ],
    ),
    by(
        "4.3.3-2",
        "QoS 2 in: PUBREC once owned and for each repetition, delivered once, PUBCOMP for PUBREL, then a new message",
        &[
            "qos2::in_pubrel_unknown_is_answered",
            "races::publisher_reconnecting_doubles_no_qos_2",
            "qos2::in_is_delivered_once",
            "qos2::in_repeated_before_pubrel_is_delivered_once",
            "qos2::in_over_a_lost_connection_is_delivered_once",
            "qos2::in_pubrel_repeated_is_answered",
            "qos2::in_completed_identifier_is_a_new_message",
        ],
    ),
    by(
        "4.4.0-1",
        "on a resume unacknowledged PUBLISH and PUBREL are sent again with their identifiers",
        &[
            "publish::unacknowledged_is_resent_on_resume_only",
            "publish::acknowledged_is_not_resent",
            "qos2::out_publish_is_resent_with_dup",
            "qos2::out_pubrel_is_resent",
            "session::taken_over_without_loss",
        ],
    ),
    by(
        "4.5.0-1",
        "an owned message is added to the state of all that subscribe",
        &[
            "races::nothing_is_lost_at_a_disconnect",
            "publish::acknowledged_means_stored_for_the_absent",
            "session::long_absence_backlog",
        ],
    ),
    not(
        "4.5.0-2",
        "a client acknowledges whatever it does with the message",
        CLIENT,
    ),
    by(
        "4.6.0-1",
        "what is resent is resent in the original order",
        &["session::order_over_a_resume", "corners::dup_on_every_resend"],
    ),
    by(
        "4.6.0-2",
        "PUBACKs are sent in the order of the PUBLISHes",
        &["corners::everything_at_once"],
    ),
    by(
        "4.6.0-3",
        "PUBRECs are sent in the order of the PUBLISHes",
        &["publish::order_is_kept", "qos2::in_order_over_two_messages"],
    ),
    by(
        "4.6.0-4",
        "PUBRELs are sent in the order of the PUBRECs",
        &["corners::identifiers_of_resumed_qos_2_are_not_reused"],
    ),
    by(
        "4.6.0-5",
        "every topic is ordered unless configured otherwise",
        &["publish::order_is_kept"],
    ),
    by(
        "4.6.0-6",
        "one client's messages on a topic arrive in order, for each QoS",
        &[
            "publish::order_is_kept",
            "session::order_over_a_resume",
            "corners::resumed_and_new_in_order",
        ],
    ),
    by(
        "4.7.1-1",
        "wildcards are for filters, not for topic names",
        &[
            "publish::wildcard_in_a_topic_is_refused",
            "wills::wildcard_topic_is_refused",
            "publish::wildcards_match",
        ],
    ),
    by(
        "4.7.1-2",
        "# is alone or after /, and last",
        &["subscribe::misplaced_wildcards_are_refused"],
    ),
    by(
        "4.7.1-3",
        "+ has a level of its own",
        &["subscribe::misplaced_wildcards_are_refused"],
    ),
    by(
        "4.7.2-1",
        "filters that begin with a wildcard do not match $ topics",
        &[
            "publish::first_level_wildcards_leave_dollar_out",
            "retained::dollar_topics_stay_out_of_wildcards",
        ],
    ),
    by(
        "4.7.3-1",
        "topics and filters have at least one character",
        &[
            "wills::empty_topic_is_refused",
            "publish::empty_topic_is_refused",
            "subscribe::empty_filter_is_refused",
        ],
    ),
    by(
        "4.7.3-2",
        "no U+0000 in topics and filters",
        &[
            "utf8::nul_in_a_publish_topic_is_refused",
            "utf8::nul_in_a_filter_is_refused",
        ],
    ),
    by(
        "4.7.3-3",
        "topics and filters have at most 65,535 bytes",
        &["publish::topic_longer_than_the_limit"],
    ),
    by(
        "4.7.3-4",
        "nothing is normalised or substituted in matching",
        &["utf8::nothing_is_normalised"],
    ),
    by(
        "4.8.0-1",
        "a protocol violation ends the connection",
        &[
            "format::too_many_bytes_are_refused",
            "format::packets_of_the_server_are_refused",
            "format::type_0_is_refused",
            "connect::auth_packet_is_refused",
            "corners::remaining_length_of_five_bytes",
            "publish::truncated_publish_is_refused",
        ],
    ),
    elsewhere(
        "4.8.0-2",
        "a transient error while a packet is processed ends the connection",
        &[
            "broker/src/users/tests/ordinary.rs::an_unanswered_publish_is_told_unavailable_after_ten_seconds_and_closes_a_3_1_1_connection",
            "tests/e2e/tests/failing_disk.rs::a_failing_disk_is_told_and_nothing_is_acknowledged_falsely",
        ],
    ),
    by(
        "6.0.0-1",
        "MQTT is in binary frames; another kind ends the connection",
        &[
            "websocket::packets_are_in_binary_frames",
            "websocket::text_frame_closes",
        ],
    ),
    by(
        "6.0.0-2",
        "packets and frames need not be aligned",
        &[
            "websocket::control_frames_may_come_between",
            "websocket::frames_are_no_packets",
        ],
    ),
    not("6.0.0-3", "a client offers the subprotocol mqtt", CLIENT),
    by(
        "6.0.0-4",
        "the server answers with the subprotocol mqtt",
        &["websocket::subprotocol_is_mqtt"],
    ),
    not(
        "7.0.0-1",
        "a server that connects to other servers is a client too",
        "the server connects to no other server by MQTT",
    ),
    by(
        "7.0.0-2",
        "no extension is needed to work with it",
        &["publish::each_qos_gets_its_answer"],
    ),
    by(
        "7.1.1-1",
        "a server has an ordered, lossless transport both ways",
        &["publish::order_is_kept", "publish::large_payload_is_delivered"],
    ),
    not(
        "7.1.2-1",
        "a client has an ordered, lossless transport both ways",
        CLIENT,
    ),
];
