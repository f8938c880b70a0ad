//! MQTT 5.0, Appendix B of the OASIS Standard of 7 March 2019.

use super::{CLIENT, Statement, by, not};

/// Statements in the appendix.
pub(super) const COUNT: usize = 251;

pub(super) const STATEMENTS: &[Statement] = &[
    by(
        "1.5.4-1",
        "texts are well-formed UTF-8 without surrogates",
        &[
            "utf8::client_id_must_be_utf8",
            "utf8::publish_topic_must_be_utf8",
            "utf8::subscribe_filter_must_be_utf8",
            "utf8::user_name_must_be_utf8",
        ],
    ),
    by(
        "1.5.4-2",
        "no text holds U+0000",
        &[
            "utf8::nul_in_a_publish_topic_is_refused",
            "utf8::nul_in_a_filter_is_refused",
            "utf8::nul_in_a_client_id_is_refused",
        ],
    ),
    by(
        "1.5.4-3",
        "EF BB BF is a character like others and stays",
        &["utf8::byte_order_mark_stays"],
    ),
    by(
        "1.5.5-1",
        "Variable Byte Integers have their shortest form",
        &["properties::long_length_form_is_refused"],
    ),
    by(
        "1.5.7-1",
        "both halves of a string pair are valid texts",
        &["utf8::user_property_must_be_utf8"],
    ),
    by(
        "2.1.3-1",
        "reserved flag bits have the listed values",
        &[
            "format::connect_with_flags_is_refused",
            "format::pingreq_with_flags_is_refused",
            "publish::puback_with_flags_is_refused",
            "qos2::pubrec_with_flags_is_refused",
        ],
    ),
    by(
        "2.2.1-2",
        "a QoS 0 PUBLISH has no packet identifier",
        &["publish::qos_0_out_has_no_identifier"],
    ),
    by(
        "2.2.1-3",
        "clients' new packets carry an unused identifier that is not 0 (0 is refused)",
        &[
            "publish::identifier_0_is_refused",
            "subscribe::identifier_0_is_refused",
            "unsubscribe::unsubscribe_identifier_0_is_refused",
        ],
    ),
    by(
        "2.2.1-4",
        "the server's new PUBLISH carries an unused identifier that is not 0",
        &[
            "publish::identifiers_out_are_unused",
            "corners::identifiers_of_resumed_qos_2_are_not_reused",
        ],
    ),
    by(
        "2.2.1-5",
        "acknowledgements carry the PUBLISH's identifier",
        &[
            "publish::each_qos_gets_its_answer",
            "qos2::out_goes_all_the_way",
            "qos2::in_order_over_two_messages",
        ],
    ),
    by(
        "2.2.1-6",
        "SUBACK and UNSUBACK carry the request's identifier",
        &[
            "subscribe::suback_answers_with_the_identifier",
            "unsubscribe::unsuback_answers_with_the_identifier",
        ],
    ),
    by(
        "2.2.2-1",
        "no properties are written as length 0",
        &["properties::missing_length_is_refused"],
    ),
    by(
        "3.1.0-1",
        "a client's first packet is CONNECT",
        &["connect::first_packet_is_connect"],
    ),
    by(
        "3.1.0-2",
        "a second CONNECT is a protocol error and ends the connection",
        &["connect::second_connect_ends_the_connection"],
    ),
    by(
        "3.1.2-1",
        "the protocol name is MQTT; another is refused and closed",
        &["format::wrong_protocol_name_is_refused"],
    ),
    by(
        "3.1.2-2",
        "a version that is not served is refused and closed",
        &["format::unknown_level_is_refused"],
    ),
    by(
        "3.1.2-3",
        "the reserved connect flag is 0",
        &["format::reserved_flag_is_refused"],
    ),
    by(
        "3.1.2-4",
        "clean start 1 discards what session there is",
        &[
            "races::clean_start_at_once",
            "qos2::in_clean_start_forgets_identifiers",
            "session::clean_start_discards",
            "corners::clean_start_against_a_live_session",
        ],
    ),
    by(
        "3.1.2-5",
        "clean start 0 resumes the session that there is",
        &[
            "races::kept_sessions_are_there_at_once",
            "session::resumed_with_its_subscriptions",
        ],
    ),
    by(
        "3.1.2-6",
        "clean start 0 without a session makes one",
        &[
            "races::ended_sessions_are_gone_at_once",
            "session::none_is_created_anew",
        ],
    ),
    by(
        "3.1.2-7",
        "a will is stored with the session",
        &["wills::published_when_the_connection_is_lost"],
    ),
    by(
        "3.1.2-8",
        "a will is published after the connection ended and its delay or the session is over, unless DISCONNECT 0x00 or a new connection came",
        &[
            "wills::published_after_a_wrong_disconnect",
            "wills::published_when_the_connection_is_lost",
            "wills::published_on_take_over",
            "wills::delay_is_waited_for",
            "wills::delay_ends_with_the_session",
            "wills::disconnect_4_publishes",
            "wills::error_disconnect_publishes",
            "wills::clean_start_takes_the_delayed_will",
        ],
    ),
    by(
        "3.1.2-9",
        "with the will flag its properties, topic and payload are there",
        &[
            "format::will_flag_without_fields_is_refused",
            "format::will_fields_without_flag_are_refused",
        ],
    ),
    by(
        "3.1.2-10",
        "a will is gone once published or after DISCONNECT 0x00",
        &[
            "wills::not_published_twice",
            "wills::not_published_after_disconnect",
            "wills::published_once_over_reconnects",
        ],
    ),
    by(
        "3.1.2-11",
        "without a will its QoS is 0",
        &["format::will_qos_without_will_is_refused"],
    ),
    by(
        "3.1.2-12",
        "a will's QoS is 0, 1 or 2; 3 is malformed",
        &["format::will_qos_3_is_refused", "wills::each_qos"],
    ),
    by(
        "3.1.2-13",
        "without a will its retain flag is 0",
        &["format::will_retain_without_will_is_refused"],
    ),
    by(
        "3.1.2-14",
        "will retain 0: published as not retained",
        &["wills::not_retained_otherwise"],
    ),
    by(
        "3.1.2-15",
        "will retain 1: published as retained",
        &["wills::retained_if_asked"],
    ),
    by(
        "3.1.2-16",
        "user name flag 0: no user name",
        &["format::username_without_flag_is_refused"],
    ),
    by(
        "3.1.2-17",
        "user name flag 1: a user name",
        &["format::username_flag_without_name_is_refused"],
    ),
    by(
        "3.1.2-18",
        "password flag 0: no password",
        &["format::password_without_flag_is_refused"],
    ),
    by(
        "3.1.2-19",
        "password flag 1: a password",
        &["format::password_flag_without_word_is_refused"],
    ),
    not(
        "3.1.2-20",
        "with keep alive a client that is silent sends PINGREQ",
        CLIENT,
    ),
    not("3.1.2-21", "a client takes the server's keep alive", CLIENT),
    by(
        "3.1.2-22",
        "silence for one and a half keep alives ends the connection like a failure",
        &[
            "connect::keep_alive_ends_a_silent_connection",
            "connect::keep_alive_is_kept_by_any_packet",
            "wills::published_when_keep_alive_ends",
        ],
    ),
    by(
        "3.1.2-23",
        "with an expiry above 0 the session outlives its connection",
        &[
            "races::nothing_is_lost_at_a_lost_connection",
            "session::kept_after_a_lost_connection",
            "session::clean_start_1_with_expiry_is_kept",
        ],
    ),
    by(
        "3.1.2-24",
        "nothing larger than the client's maximum packet size is sent",
        &[
            "limits::too_large_on_resume_is_dropped",
            "limits::maximum_packet_size_is_kept",
        ],
    ),
    by(
        "3.1.2-25",
        "what is too large is dropped and counts as sent",
        &[
            "limits::too_large_on_resume_is_dropped",
            "limits::too_large_counts_as_delivered",
        ],
    ),
    by(
        "3.1.2-26",
        "no topic alias above the client's maximum",
        &["properties::no_topic_alias_is_sent"],
    ),
    by(
        "3.1.2-27",
        "no topic alias at all to who announced none",
        &["properties::no_topic_alias_is_sent_uninvited"],
    ),
    by(
        "3.1.2-28",
        "no response information to who did not ask",
        &["connect::unasked_response_information_stays_away"],
    ),
    by(
        "3.1.2-29",
        "request problem information 0: reasons only in PUBLISH, CONNACK, DISCONNECT",
        &["properties::no_reasons_when_not_asked_for"],
    ),
    not(
        "3.1.2-30",
        "after naming a method a client sends only AUTH or DISCONNECT until CONNACK",
        CLIENT,
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
        "an empty client id gets a unique one",
        &["connect::empty_client_id_gets_a_name"],
    ),
    by(
        "3.1.3-7",
        "the assigned id is used as the client's and returned",
        &["connect::empty_client_id_gets_a_name"],
    ),
    by(
        "3.1.3-8",
        "a client id that is refused ends the connection",
        &[
            "connect::long_client_id_is_let_in_or_refused",
            "utf8::client_id_must_be_utf8",
        ],
    ),
    by(
        "3.1.3-9",
        "a new connection within the will delay cancels the will",
        &[
            "wills::take_over_in_time_cancels",
            "wills::coming_back_in_time_cancels",
        ],
    ),
    by(
        "3.1.3-10",
        "a will's user properties keep their order",
        &["wills::properties_are_published"],
    ),
    by(
        "3.1.3-11",
        "the will topic is a valid text",
        &["utf8::will_topic_must_be_utf8"],
    ),
    by(
        "3.1.3-12",
        "the user name is a valid text",
        &["utf8::user_name_must_be_utf8"],
    ),
    by(
        "3.1.4-1",
        "a CONNECT that breaks its format ends the connection",
        &[
            "properties::of_a_will_are_checked",
            "format::truncated_connect_is_refused",
            "properties::twice_is_refused",
            "limits::receive_maximum_0_is_refused",
            "limits::maximum_packet_size_0_is_refused",
            "properties::values_out_of_range_are_refused",
        ],
    ),
    by(
        "3.1.4-2",
        "further checks, of who it is and what it may, end the connection when they fail",
        &[
            "connect::bad_credentials_are_refused",
            "wills::denied_topic_is_refused",
        ],
    ),
    by(
        "3.1.4-3",
        "the older connection of a client id is told 0x8E and closed",
        &[
            "races::take_over_storm_leaves_one",
            "connect::take_over_closes_the_older_connection",
        ],
    ),
    by(
        "3.1.4-4",
        "clean start is done",
        &["session::clean_start_discards"],
    ),
    by(
        "3.1.4-5",
        "an accepted CONNECT gets CONNACK 0x00",
        &["connect::connack_is_first_and_only"],
    ),
    by(
        "3.1.4-6",
        "after a refused CONNECT nothing is processed",
        &["connect::refused_connect_is_followed_by_nothing"],
    ),
    by(
        "3.2.0-1",
        "CONNACK 0x00 comes before any other packet",
        &[
            "connect::connack_is_first_and_only",
            "session::qos_1_and_2_are_kept_for_the_absent",
        ],
    ),
    by(
        "3.2.0-2",
        "one CONNACK at most",
        &["connect::connack_is_first_and_only"],
    ),
    by(
        "3.2.2-1",
        "CONNACK's reserved flags are 0 (every packet read is checked)",
        &["connect::clean_connect_answers_session_present_0"],
    ),
    by(
        "3.2.2-2",
        "clean start 1 is answered with session present 0",
        &["connect::clean_connect_answers_session_present_0"],
    ),
    by(
        "3.2.2-3",
        "clean start 0 is answered with what there is",
        &["session::present_only_if_kept", "session::none_is_created_anew"],
    ),
    not(
        "3.2.2-4",
        "a client without state closes on session present 1",
        CLIENT,
    ),
    not(
        "3.2.2-5",
        "a client with state discards it on session present 0",
        CLIENT,
    ),
    by(
        "3.2.2-6",
        "a CONNACK that refuses has session present 0",
        &["connect::bad_credentials_are_refused"],
    ),
    by(
        "3.2.2-7",
        "after a CONNACK of 0x80 or more the server closes",
        &["connect::bad_credentials_are_refused"],
    ),
    by(
        "3.2.2-8",
        "CONNACK codes are those of the table (every packet read is checked)",
        &[
            "connect::bad_credentials_are_refused",
            "format::wrong_protocol_name_is_refused",
            "connect::unknown_method_is_refused",
        ],
    ),
    by(
        "3.2.2-9",
        "a server without QoS 1 or 2 announces its maximum (so configured)",
        &["limits::maximum_qos_is_told_and_kept"],
    ),
    by(
        "3.2.2-10",
        "such a server accepts subscriptions of each QoS",
        &["limits::maximum_qos_is_told_and_kept"],
    ),
    not(
        "3.2.2-11",
        "a client publishes with no more than the announced maximum QoS",
        CLIENT,
    ),
    by(
        "3.2.2-12",
        "a will QoS that is not served is refused",
        &["limits::will_above_the_maximum_qos_is_refused"],
    ),
    not(
        "3.2.2-13",
        "a retained will is refused where nothing is retained",
        "retained messages are served",
    ),
    not(
        "3.2.2-14",
        "a client told that nothing is retained sends nothing retained",
        CLIENT,
    ),
    by(
        "3.2.2-15",
        "a client sends no packet above the server's maximum (one that is gets 0x95)",
        &[
            "limits::maximum_packet_size_of_the_server",
            "corners::larger_than_the_server_takes",
        ],
    ),
    by(
        "3.2.2-16",
        "an assigned client id is one that no other session has",
        &["connect::empty_client_id_gets_a_name"],
    ),
    by(
        "3.2.2-17",
        "a client sends no alias above the server's maximum (one that is gets 0x94)",
        &["properties::topic_alias_is_refused"],
    ),
    by(
        "3.2.2-18",
        "without a maximum a client sends no alias",
        &["properties::topic_alias_is_refused"],
    ),
    by(
        "3.2.2-19",
        "CONNACK leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.2.2-20",
        "CONNACK leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    not("3.2.2-21", "a client uses the server's keep alive", CLIENT),
    by(
        "3.2.2-22",
        "without a keep alive of its own the server uses the client's",
        &["connect::keep_alive_ends_a_silent_connection"],
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
            "publish::qos_0_with_dup_is_refused",
            "publish::first_delivery_has_dup_0",
        ],
    ),
    by(
        "3.3.1-3",
        "DUP going out says only whether that packet is a repetition",
        &["publish::dup_is_not_passed_on"],
    ),
    by("3.3.1-4", "QoS 3 is refused", &["publish::qos_3_is_refused"]),
    by(
        "3.3.1-5",
        "RETAIN 1 replaces what was retained on the topic",
        &[
            "retained::stored_for_new_subscribers",
            "retained::replaced_by_the_next",
        ],
    ),
    by(
        "3.3.1-6",
        "an empty retained message removes what was retained",
        &[
            "wills::retained_and_empty_removes",
            "races::retained_removed_at_once",
            "retained::removed_by_an_empty_payload",
        ],
    ),
    by(
        "3.3.1-7",
        "an empty retained message is not stored",
        &["retained::empty_is_never_stored"],
    ),
    by(
        "3.3.1-8",
        "RETAIN 0 leaves what is retained alone",
        &["retained::not_retained_leaves_it_alone"],
    ),
    by(
        "3.3.1-9",
        "retain handling 0 sends what is retained",
        &[
            "races::retained_at_once",
            "retained::more_than_a_window",
            "retained::handling_0_sends_always",
            "retained::sent_for_wildcards",
        ],
    ),
    by(
        "3.3.1-10",
        "retain handling 1 sends it to a new subscription only",
        &["retained::handling_1_sends_to_new_subscriptions_only"],
    ),
    by(
        "3.3.1-11",
        "retain handling 2 sends nothing",
        &["retained::handling_2_never_sends"],
    ),
    by(
        "3.3.1-12",
        "retain as published 0: forwarded with RETAIN 0",
        &["retained::as_published_0_clears_the_flag"],
    ),
    by(
        "3.3.1-13",
        "retain as published 1: forwarded with the flag as it came",
        &["retained::as_published_keeps_the_flag"],
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
        "3.3.2-4",
        "the payload format indicator is passed on",
        &["properties::passed_on_unaltered"],
    ),
    by(
        "3.3.2-5",
        "an expired message whose delivery has not begun is deleted",
        &["properties::expired_is_not_delivered", "retained::expires"],
    ),
    by(
        "3.3.2-6",
        "the expiry sent on is less the time waited",
        &[
            "properties::expiry_is_counted_down",
            "retained::expiry_is_counted_down",
        ],
    ),
    by(
        "3.3.2-7",
        "aliases do not outlive their connection",
        &[
            "alias::ends_with_its_connection",
            "alias::resent_messages_have_their_topic",
            "properties::no_topic_alias_is_sent_uninvited",
        ],
    ),
    by(
        "3.3.2-8",
        "no alias 0",
        &[
            "properties::topic_alias_0_is_refused",
            "properties::no_topic_alias_is_sent",
        ],
    ),
    by(
        "3.3.2-9",
        "a client sends no alias above the server's maximum (one that is gets 0x94)",
        &[
            "properties::topic_alias_is_refused",
            "alias::above_the_maximum_is_refused",
        ],
    ),
    not("3.3.2-10", "a client accepts every alias it announced", CLIENT),
    by(
        "3.3.2-11",
        "the server sends no alias above the client's maximum",
        &[
            "properties::no_topic_alias_is_sent",
            "alias::is_sent_for_a_topic_that_repeats",
        ],
    ),
    by(
        "3.3.2-12",
        "the server accepts every alias that it announced",
        &[
            "alias::every_one_that_was_announced_is_taken",
            "alias::stands_for_its_topic",
            "alias::may_be_given_to_another_topic",
        ],
    ),
    by(
        "3.3.2-13",
        "the response topic is a valid text",
        &["utf8::response_topic_must_be_utf8"],
    ),
    by(
        "3.3.2-14",
        "the response topic holds no wildcard",
        &["properties::response_topic_with_wildcard_is_refused"],
    ),
    by(
        "3.3.2-15",
        "the response topic is passed on",
        &["properties::passed_on_unaltered"],
    ),
    by(
        "3.3.2-16",
        "the correlation data is passed on",
        &["properties::passed_on_unaltered"],
    ),
    by(
        "3.3.2-17",
        "user properties are passed on",
        &[
            "properties::passed_on_unaltered",
            "properties::user_properties_keep_their_order",
        ],
    ),
    by(
        "3.3.2-18",
        "user properties keep their order",
        &[
            "properties::user_properties_keep_their_order",
            "retained::properties_are_kept",
        ],
    ),
    by(
        "3.3.2-19",
        "the content type is a valid text",
        &["utf8::content_type_must_be_utf8"],
    ),
    by(
        "3.3.2-20",
        "the content type is passed on",
        &["properties::passed_on_unaltered"],
    ),
    by(
        "3.3.4-1",
        "a PUBLISH is answered as its QoS wants",
        &["publish::each_qos_gets_its_answer"],
    ),
    by(
        "3.3.4-2",
        "overlapping subscriptions: the highest QoS among them is respected",
        &["corners::overlapping_subscriptions"],
    ),
    by(
        "3.3.4-3",
        "subscription identifiers come with the message",
        &["subscribe::identifiers_come_with_messages"],
    ),
    by(
        "3.3.4-4",
        "one copy carries the identifiers of all that match",
        &["subscribe::identifiers_come_with_messages"],
    ),
    by(
        "3.3.4-5",
        "of several copies each carries its own identifier",
        &["subscribe::identifiers_come_with_messages"],
    ),
    by(
        "3.3.4-6",
        "no subscription identifier in a client's PUBLISH",
        &["properties::subscription_identifier_from_a_client_is_refused"],
    ),
    by(
        "3.3.4-7",
        "a client stays within the server's receive maximum (one that does not gets 0x93)",
        &["publish::server_may_not_be_overrun"],
    ),
    not(
        "3.3.4-8",
        "a client at its limit goes on with other packets",
        CLIENT,
    ),
    by(
        "3.3.4-9",
        "the server stays within the client's receive maximum",
        &[
            "limits::receive_maximum_is_kept",
            "limits::receive_maximum_counts_qos_2_to_pubcomp",
        ],
    ),
    by(
        "3.3.4-10",
        "the server at its limit goes on with other packets",
        &["limits::other_packets_go_on_at_a_full_window"],
    ),
    by(
        "3.4.2-1",
        "PUBACK codes are those of the table",
        &[
            "publish::refused_topic_does_no_harm",
            "publish::puback_code_must_exist",
        ],
    ),
    by(
        "3.4.2-2",
        "PUBACK leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.4.2-3",
        "PUBACK leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.5.2-1",
        "PUBREC codes are those of the table",
        &[
            "publish::refused_topic_does_no_harm",
            "qos2::pubrec_code_must_exist",
        ],
    ),
    by(
        "3.5.2-2",
        "PUBREC leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.5.2-3",
        "PUBREC leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.6.1-1",
        "PUBREL's flags are 0010, others are malformed",
        &["qos2::pubrel_with_wrong_flags_is_refused"],
    ),
    by(
        "3.6.2-1",
        "PUBREL codes are those of the table",
        &[
            "qos2::out_pubrec_unknown_gets_0x92",
            "qos2::pubrec_repeated_is_answered_with_pubrel",
        ],
    ),
    by(
        "3.6.2-2",
        "PUBREL leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.6.2-3",
        "PUBREL leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.7.2-1",
        "PUBCOMP codes are those of the table",
        &["qos2::in_pubrel_unknown_gets_0x92"],
    ),
    by(
        "3.7.2-2",
        "PUBCOMP leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.7.2-3",
        "PUBCOMP leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.8.1-1",
        "SUBSCRIBE's flags are 0010, others are malformed",
        &["subscribe::wrong_flags_are_refused"],
    ),
    by(
        "3.8.3-1",
        "filters in SUBSCRIBE are valid texts",
        &["utf8::subscribe_filter_must_be_utf8"],
    ),
    by(
        "3.8.3-2",
        "SUBSCRIBE has at least one filter with options",
        &[
            "subscribe::no_filter_is_refused",
            "subscribe::missing_options_are_refused",
        ],
    ),
    by(
        "3.8.3-3",
        "No Local keeps a client id's own messages away",
        &[
            "corners::overlap_with_different_options",
            "subscribe::no_local_keeps_own_messages_away",
        ],
    ),
    by(
        "3.8.3-4",
        "No Local on a shared subscription is a protocol error",
        &["shared::no_local_is_a_protocol_error"],
    ),
    by(
        "3.8.3-5",
        "reserved option bits make it malformed",
        &[
            "subscribe::reserved_bits_are_refused",
            "subscribe::qos_3_is_refused",
            "subscribe::retain_handling_3_is_refused",
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
        "the same filter replaces the subscription",
        &[
            "races::replaced_at_once",
            "subscribe::same_filter_replaces",
            "subscribe::identifier_is_replaced",
        ],
    ),
    by(
        "3.8.4-4",
        "replacing sends retained messages as retain handling says, and loses nothing",
        &[
            "subscribe::replacing_loses_nothing",
            "retained::sent_again_on_each_subscribe",
        ],
    ),
    by(
        "3.8.4-5",
        "several filters are as several SUBSCRIBEs with one answer",
        &[
            "subscribe::many_filters_in_one",
            "subscribe::refused_filters_do_not_stop_others",
        ],
    ),
    by(
        "3.8.4-6",
        "SUBACK has a code for each filter",
        &["subscribe::codes_are_in_order"],
    ),
    by(
        "3.8.4-7",
        "which is the granted QoS or a refusal",
        &[
            "subscribe::all_three_qos_are_granted",
            "subscribe::refused_filters_do_not_stop_others",
        ],
    ),
    by(
        "3.8.4-8",
        "messages come with the lower of the two QoS",
        &["publish::lower_qos_is_delivered", "retained::qos_is_the_lower"],
    ),
    by(
        "3.9.2-1",
        "SUBACK leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.9.2-2",
        "SUBACK leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
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
        "SUBACK codes are those of the table (every packet read is checked)",
        &[
            "subscribe::refused_filters_do_not_stop_others",
            "subscribe::misplaced_wildcards_are_refused",
        ],
    ),
    by(
        "3.10.1-1",
        "UNSUBSCRIBE's flags are 0010, others are malformed",
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
        "filters are compared character by character, the equal one goes",
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
        "UNSUBSCRIBE gets an UNSUBACK",
        &["unsubscribe::unsuback_answers_with_the_identifier"],
    ),
    by(
        "3.10.4-5",
        "with its identifier, also when nothing was deleted",
        &["unsubscribe::unsubscribe_of_nothing_is_answered"],
    ),
    by(
        "3.10.4-6",
        "several filters are as several UNSUBSCRIBEs with one answer",
        &["unsubscribe::unsubscribe_many_in_one"],
    ),
    by(
        "3.11.2-1",
        "UNSUBACK leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.11.2-2",
        "UNSUBACK leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.11.3-1",
        "codes in UNSUBACK have the filters' order",
        &["unsubscribe::unsubscribe_tells_what_existed"],
    ),
    by(
        "3.11.3-2",
        "UNSUBACK codes are those of the table",
        &["unsubscribe::unsubscribe_tells_what_existed"],
    ),
    by(
        "3.12.4-1",
        "PINGREQ gets a PINGRESP",
        &["connect::pingreq_is_answered"],
    ),
    by(
        "3.14.0-1",
        "no DISCONNECT from the server before its CONNACK of less than 0x80",
        &[
            "connect::first_packet_is_connect",
            "format::truncated_connect_is_refused",
        ],
    ),
    by(
        "3.14.1-1",
        "reserved bits of DISCONNECT are 0, else 0x81",
        &["format::disconnect_with_flags_is_refused"],
    ),
    by(
        "3.14.2-1",
        "DISCONNECT codes are those of the table",
        &["connect::disconnect_code_must_exist"],
    ),
    by(
        "3.14.2-2",
        "no session expiry in a DISCONNECT of the server",
        &["properties::session_expiry_is_never_in_a_servers_disconnect"],
    ),
    by(
        "3.14.2-3",
        "DISCONNECT leaves out a reason string that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.14.2-4",
        "DISCONNECT leaves out user properties that would make it too large",
        &["limits::reasons_never_exceed_the_packet_size"],
    ),
    by(
        "3.14.4-1",
        "nothing is sent after DISCONNECT",
        &[
            "connect::take_over_closes_the_older_connection",
            "connect::what_follows_a_disconnect_is_not_done",
        ],
    ),
    by(
        "3.14.4-2",
        "who sent DISCONNECT closes",
        &[
            "connect::second_connect_ends_the_connection",
            "connect::disconnect_closes",
        ],
    ),
    by(
        "3.14.4-3",
        "DISCONNECT 0x00 discards the will",
        &["wills::not_published_after_disconnect"],
    ),
    by(
        "3.15.1-1",
        "flags of AUTH are 0",
        &["format::auth_with_flags_is_refused"],
    ),
    by(
        "3.15.2-1",
        "AUTH codes are those of the table",
        &[
            "auth::scram_lets_in",
            "auth::token_is_renewed",
            "auth::scram_is_renewed",
            "connect::auth_without_method_is_refused",
        ],
    ),
    by(
        "3.15.2-2",
        "AUTH leaves out a reason string that would make it too large",
        &["auth::auth_fits_a_small_client"],
    ),
    by(
        "3.15.2-3",
        "AUTH leaves out user properties that would make it too large",
        &["auth::auth_fits_a_small_client"],
    ),
    by(
        "4.1.0-1",
        "state is not discarded while connected",
        &["session::never_ends_while_connected"],
    ),
    by(
        "4.1.0-2",
        "state is discarded once the expiry has passed",
        &[
            "session::expires_right_after_a_start",
            "session::expires_after_its_time",
            "session::expiry_0_ends_with_the_connection",
            "session::expiry_at_disconnect_ends_it",
        ],
    ),
    by(
        "4.2.0-1",
        "an ordered, lossless transport both ways",
        &["publish::order_is_kept", "publish::large_payload_is_delivered"],
    ),
    by(
        "4.3.1-1",
        "QoS 0 goes out with QoS 0 and DUP 0",
        &["publish::first_delivery_has_dup_0"],
    ),
    by(
        "4.3.2-1",
        "QoS 1: an unused identifier for each new message",
        &["publish::identifiers_out_are_unused"],
    ),
    by(
        "4.3.2-2",
        "QoS 1: goes out with DUP 0",
        &["publish::first_delivery_has_dup_0"],
    ),
    by(
        "4.3.2-3",
        "QoS 1: unacknowledged until PUBACK",
        &[
            "races::reconnecting_loses_no_qos_1",
            "publish::unacknowledged_is_resent_on_resume_only",
            "corners::crossed_acknowledgements_end_nothing",
        ],
    ),
    by(
        "4.3.2-4",
        "QoS 1: PUBACK once the message is owned",
        &[
            "publish::each_qos_gets_its_answer",
            "publish::acknowledged_means_stored_for_the_absent",
        ],
    ),
    by(
        "4.3.2-5",
        "QoS 1: after PUBACK the identifier is a new message, whatever DUP says",
        &["publish::acknowledged_identifier_is_a_new_message"],
    ),
    by(
        "4.3.3-1",
        "QoS 2: an unused identifier for each new message",
        &[
            "publish::identifiers_out_are_unused",
            "corners::identifiers_of_resumed_qos_2_are_not_reused",
        ],
    ),
    by(
        "4.3.3-2",
        "QoS 2: goes out with DUP 0",
        &["publish::first_delivery_has_dup_0"],
    ),
    by(
        "4.3.3-3",
        "QoS 2: unacknowledged until PUBREC",
        &[
            "qos2::out_publish_is_resent_with_dup",
            "corners::crossed_acknowledgements_end_nothing",
        ],
    ),
    by(
        "4.3.3-4",
        "QoS 2: a PUBREC of less than 0x80 is answered with PUBREL",
        &[
            "qos2::out_goes_all_the_way",
            "qos2::out_pubrec_error_ends_the_delivery",
        ],
    ),
    by(
        "4.3.3-5",
        "QoS 2: PUBREL is unacknowledged until PUBCOMP",
        &[
            "races::reconnecting_doubles_no_qos_2",
            "qos2::out_pubrel_is_resent",
        ],
    ),
    by(
        "4.3.3-6",
        "QoS 2: no PUBLISH again after PUBREL",
        &["qos2::out_publish_is_not_resent_after_pubrel"],
    ),
    by(
        "4.3.3-7",
        "QoS 2: a message that was sent does not expire",
        &["qos2::out_is_completed_though_expired"],
    ),
    by(
        "4.3.3-8",
        "QoS 2: PUBREC once the message is owned",
        &[
            "publish::each_qos_gets_its_answer",
            "publish::acknowledged_means_stored_for_the_absent",
        ],
    ),
    by(
        "4.3.3-9",
        "QoS 2: after a PUBREC of 0x80 or more the identifier is a new message",
        &["qos2::in_refused_identifier_is_a_new_message"],
    ),
    by(
        "4.3.3-10",
        "QoS 2: until PUBREL a repeated PUBLISH gets PUBREC and is not delivered again",
        &[
            "races::publisher_reconnecting_doubles_no_qos_2",
            "qos2::in_repeated_before_pubrel_is_delivered_once",
            "qos2::in_over_a_lost_connection_is_delivered_once",
        ],
    ),
    by(
        "4.3.3-11",
        "QoS 2: PUBREL is answered with PUBCOMP",
        &[
            "qos2::in_pubrel_unknown_is_answered",
            "qos2::in_is_delivered_once",
            "qos2::in_pubrel_repeated_is_answered",
            "qos2::in_pubrel_on_a_new_connection_is_answered",
        ],
    ),
    by(
        "4.3.3-12",
        "QoS 2: after PUBCOMP the identifier is a new message",
        &["qos2::in_completed_identifier_is_a_new_message"],
    ),
    by(
        "4.3.3-13",
        "QoS 2: the exchange goes on though the message expired",
        &["qos2::in_is_completed_though_expired"],
    ),
    by(
        "4.4.0-1",
        "on a resume, and only then, unacknowledged PUBLISH and PUBREL are sent again with their identifiers",
        &[
            "publish::begun_delivery_is_resent_though_expired",
            "publish::unacknowledged_is_resent_on_resume_only",
            "publish::acknowledged_is_not_resent",
            "qos2::out_publish_is_resent_with_dup",
            "qos2::out_pubrel_is_resent",
            "session::taken_over_without_loss",
        ],
    ),
    by(
        "4.4.0-2",
        "a PUBACK or PUBREC of 0x80 or more ends the delivery",
        &[
            "publish::puback_error_ends_the_delivery",
            "qos2::out_pubrec_error_ends_the_delivery",
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
    not("4.6.0-1", "a client resends in the original order", CLIENT),
    not("4.6.0-2", "a client sends PUBACKs in order", CLIENT),
    not("4.6.0-3", "a client sends PUBRECs in order", CLIENT),
    not("4.6.0-4", "a client sends PUBRELs in order", CLIENT),
    by(
        "4.6.0-5",
        "one client's messages on a topic arrive in order, for each QoS",
        &[
            "publish::order_is_kept",
            "session::order_over_a_resume",
            "corners::resumed_and_new_in_order",
        ],
    ),
    by(
        "4.6.0-6",
        "every topic is ordered for subscriptions that are not shared",
        &["publish::order_is_kept"],
    ),
    by(
        "4.7.0-1",
        "wildcards are for filters, not for topic names",
        &[
            "publish::wildcard_in_a_topic_is_refused",
            "wills::wildcard_topic_is_refused",
            "publish::wildcards_match",
        ],
    ),
    by(
        "4.7.1-1",
        "# is alone or after /, and last",
        &["subscribe::misplaced_wildcards_are_refused"],
    ),
    by(
        "4.7.1-2",
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
        "4.8.2-1",
        "a shared filter begins with $share/ and has a name",
        &[
            "shared::filters_without_a_name_are_refused",
            "shared::one_member_gets_each",
        ],
    ),
    by(
        "4.8.2-2",
        "the name holds no / + # and is followed by / and a filter",
        &["shared::filters_without_a_name_are_refused"],
    ),
    by(
        "4.8.2-3",
        "each member's granted QoS is respected",
        &["shared::granted_qos_is_respected"],
    ),
    by(
        "4.8.2-4",
        "a QoS 2 delivery to a member is completed when it comes back",
        &["shared::begun_qos_2_is_completed"],
    ),
    by(
        "4.8.2-5",
        "if its session ends first, nobody else gets that QoS 2 message",
        &["shared::begun_qos_2_ends_with_its_session"],
    ),
    by(
        "4.8.2-6",
        "a PUBACK or PUBREC of 0x80 or more from a member discards the message",
        &["shared::errors_discard_the_message"],
    ),
    by(
        "4.9.0-1",
        "the first send quota is above 0 and at most the receive maximum",
        &["limits::receive_maximum_is_kept"],
    ),
    by(
        "4.9.0-2",
        "at quota 0 no more QoS 1 or 2 goes out",
        &[
            "limits::receive_maximum_is_kept_on_resume",
            "limits::receive_maximum_is_kept",
            "limits::receive_maximum_counts_qos_2_to_pubcomp",
        ],
    ),
    by(
        "4.9.0-3",
        "at quota 0 everything else goes on",
        &["limits::other_packets_go_on_at_a_full_window"],
    ),
    by(
        "4.12.0-1",
        "a method that is not served ends the connection, with CONNACK 0x8C or 0x87 at most",
        &["connect::unknown_method_is_refused"],
    ),
    by(
        "4.12.0-2",
        "the server's AUTH that wants more has code 0x18",
        &["auth::scram_lets_in", "auth::scram_is_renewed"],
    ),
    not("4.12.0-3", "a client answers with AUTH 0x18", CLIENT),
    by(
        "4.12.0-4",
        "the server may refuse at any step and closes",
        &[
            "connect::unknown_method_is_refused",
            "auth::scram_wrong_proof_is_refused",
            "auth::scram_of_nobody_is_refused_alike",
        ],
    ),
    by(
        "4.12.0-5",
        "the method of CONNECT is in every AUTH and in CONNACK",
        &[
            "auth::scram_lets_in",
            "auth::token_lets_in",
            "auth::token_is_renewed",
            "auth::scram_is_renewed",
        ],
    ),
    by(
        "4.12.0-6",
        "without a method: no AUTH from the server and none in CONNACK",
        &["connect::announcements_are_right"],
    ),
    by(
        "4.12.0-7",
        "without a method a client sends no AUTH (one that does is closed)",
        &["connect::auth_without_method_is_refused"],
    ),
    not(
        "4.12.1-1",
        "a client re-authenticates with the same method",
        CLIENT,
    ),
    by(
        "4.12.1-2",
        "a failed re-authentication ends the connection",
        &["auth::failed_renewal_ends", "auth::renewal_keeps_its_method"],
    ),
    by(
        "4.13.1-1",
        "a malformed packet or protocol error ends the connection",
        &[
            "format::too_many_bytes_are_refused",
            "format::packets_of_the_server_are_refused",
            "format::type_0_is_refused",
            "corners::remaining_length_of_five_bytes",
            "properties::unknown_property_is_refused",
            "properties::in_the_wrong_packet_is_refused",
            "properties::length_beyond_is_refused",
            "subscribe::identifier_value_0_is_refused",
            "subscribe::identifier_twice_is_refused",
            "session::expiry_from_0_at_disconnect_is_refused",
        ],
    ),
    by(
        "4.13.2-1",
        "a code of 0x80 or more in CONNACK or DISCONNECT: the connection is closed",
        &[
            "connect::bad_credentials_are_refused",
            "connect::second_connect_ends_the_connection",
            "wills::error_disconnect_publishes",
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
];
