//! Limits of conversations, of HTTP and of accounts.

use godwit_accounts::config as accounts;
use godwit_wire::limits as wire;

use super::{At, DOORS_MET, HTTP_MET, HTTP_MET_LONG, Limit, count};

pub(super) fn conversations() -> Vec<Limit> {
    vec![
        Limit::new(
            "content of a message",
            At::Bytes("MESSAGE_BYTES", count(wire::MESSAGE_BYTES)),
            "refused",
            &["tests/attacks/tests/oversized.rs::what_is_over_a_limit_of_its_own_is_refused_by_every_door"],
        )
        .told("PUBACK 0x83", "acknowledged when an entry `refused` is durable")
        .http("413")
        .counted("godwit_mqtt_publishes_refused"),
        Limit::new(
            "groups of a user",
            At::Count("USER_GROUPS", count(wire::USER_GROUPS)),
            "it is taken into no more",
            &[
                HTTP_MET,
                "accounts/tests/people.rs::conversations_come_in_pages_and_groups_have_a_limit",
            ],
        )
        .http("429")
        .counted("godwit_accounts_limits_met{limit=\"groups\"}"),
        Limit::new(
            "members of a group",
            At::Count("GROUP_MEMBERS", count(wire::GROUP_MEMBERS)),
            "refused",
            REST,
        )
        .http("429")
        .counted("godwit_http_limits_met{limit=\"members\"}"),
        Limit::new(
            "a page of history",
            At::Count("PAGE", u64::from(wire::PAGE)),
            "no more entries are given, `has_more` says so",
            &[
                HTTP_MET,
                "history-api/tests/messaging.rs::history_comes_in_pages_by_number_and_by_id",
            ],
        )
        .uncounted("nothing is refused"),
    ]
}

const REST: &[&str] = &["tests/attacks/tests/rest.rs::requests_over_the_limits_of_rest_are_refused"];

pub(super) fn http() -> Vec<Limit> {
    vec![
        Limit::new(
            "requests under way in the node",
            At::Count("REQUESTS", count(godwit_history_api::REQUESTS)),
            "refused, with Retry-After; readiness, health and metrics are told all the same",
            &[HTTP_MET, "history-api/tests/crowd.rs::one_request_under_way_too_many_is_told_to_come_later_and_is_served_then"],
        )
        .http("503")
        .counted("godwit_http_limits_met{limit=\"requests\"}"),
        Limit::new(
            "connections to HTTP of an address: this part of the room, at least 64",
            At::Source("history-api/src/shares.rs", "PART", ""),
            "closed at once",
            &[DOORS_MET, "history-api/src/shares.rs::an_address_has_its_share_and_gets_it_back_and_others_have_their_own"],
        )
        .counted("godwit_http_refused{reason=\"address_connections\"}"),
        Limit::new(
            "bytes of HTTP bodies and answers that wait for clients, each above 16 KiB",
            At::Count("WAITING_BYTES", count(godwit_history_api::WAITING_BYTES)),
            "further requests are refused, with Retry-After; one address has a quarter",
            &[
                HTTP_MET, "history-api/tests/crowd.rs::answers_that_nobody_takes_have_a_bound_and_other_addresses_are_served",
                "history-api/src/waiting.rs::an_answer_counts_until_its_bytes_are_gone_and_others_have_their_room",
            ],
        )
        .http("503")
        .counted("godwit_http_no_room"),
        Limit::new(
            "what a client takes of an answer that waits for it, in 30 s",
            At::Source("server/src/paced.rs", "TAKEN_BYTES", "bytes"),
            "who takes less is closed: the place, and the answer, are not held for who does not read",
            &[
                HTTP_MET_LONG, "server/src/http/tests.rs::who_does_not_take_its_answer_loses_its_place",
                "server/src/http/tests.rs::who_takes_it_in_crumbs_loses_its_place_too",
            ],
        )
        .http("closed")
        .counted("godwit_http_stalled"),
        Limit::new(
            "requests of a user",
            At::Count(
                "per_user",
                u64::from(godwit_history_api::Config::default().per_user.burst),
            ),
            "at once, then 500 a second; refused, with Retry-After",
            REST,
        )
        .http("429")
        .counted("godwit_http_limits_met{limit=\"user_requests\"}"),
        Limit::new(
            "requests of an address",
            At::Count(
                "per_address",
                u64::from(godwit_history_api::Config::default().per_address.burst),
            ),
            "at once, then 5,000 a second; refused, with Retry-After",
            &["history-api/tests/auth.rs::requests_of_a_user_and_of_an_address_are_limited"],
        )
        .http("429")
        .counted("godwit_http_limits_met{limit=\"address_requests\"}")
        .alone("a server without optimizations does not answer so many a second"),
        Limit::new(
            "device tokens of a user",
            At::Count("DEVICE_TOKENS", count(accounts::DEVICE_TOKENS)),
            "refused",
            REST,
        )
        .http("429")
        .counted("godwit_accounts_limits_met{limit=\"device_tokens\"}"),
        Limit::new(
            "login sessions of a user",
            At::Count("LOGIN_SESSIONS", count(accounts::LOGIN_SESSIONS)),
            "the one that was not used for longest ends",
            &[HTTP_MET_LONG, "accounts/tests/limits.rs::of_one_login_session_too_many_the_one_that_was_not_used_for_longest_ends"],
        )
        .counted("godwit_accounts_limits_met{limit=\"login_sessions\"}"),
        Limit::new(
            "contacts of a user, requests among them",
            At::Count("CONTACTS", count(accounts::CONTACTS)),
            "refused",
            &["accounts/tests/limits.rs::a_user_has_as_many_contacts_as_it_may_requests_among_them"],
        )
        .http("429")
        .counted("godwit_accounts_limits_met{limit=\"contacts\"}")
        .alone("it needs 5,000 users, each of whom costs a password hash"),
        Limit::new(
            "idempotency keys of a user",
            At::Count("IDEMPOTENCY_KEYS", count(accounts::IDEMPOTENCY_KEYS)),
            "refused until one is a day old",
            &[HTTP_MET, "accounts/tests/limits.rs::a_user_has_as_many_idempotency_keys_as_it_may_and_known_ones_hold"],
        )
        .http("429")
        .counted("godwit_accounts_limits_met{limit=\"idempotency_keys\"}"),
        Limit::new(
            "characters of a search",
            At::Count("MAX_QUERY_CHARS", count(godwit_search::MAX_QUERY_CHARS)),
            "refused",
            &[HTTP_MET, "history-api/tests/search.rs::results_come_in_pages_and_wrong_questions_are_refused"],
        )
        .http("400")
        .counted("godwit_http_limits_met{limit=\"query\"}"),
        Limit::new(
            "a body",
            At::Bytes("BODY_BYTES", count(godwit_history_api::BODY_BYTES)),
            "refused by its header or when so much has come",
            &[HTTP_MET, "history-api/tests/problems.rs::the_frameworks_own_refusals_have_the_form_of_ours"],
        )
        .http("413")
        .counted("godwit_http_limits_met{limit=\"size\"}"),
        Limit::new(
            "registrations from one address",
            At::Option("registrations_per_second", "a second, beside 1,000 at once"),
            "refused, with Retry-After",
            &[HTTP_MET, "history-api/tests/auth.rs::registrations_from_one_address_are_limited"],
        )
        .http("429")
        .counted("godwit_http_limits_met{limit=\"registrations\"}"),
        Limit::new(
            "wrong passwords: at a login by what is named (user name or e-mail address), and of a user at a change of it or a repeated registration",
            At::Source(
                "history-api/src/limits.rs",
                "FAILED_OF_NAME.burst",
                "at once, then one in 10 s",
            ),
            "refused, whether the password is right or not, with Retry-After; what the user has goes on. Each of the last 4 addresses from which a login succeeded (16,384 names, until the process ends) has as many of its own, so that strangers keep nobody out there; elsewhere they can",
            &[
                HTTP_MET, "history-api/tests/guesses.rs::guesses_at_a_password_count_by_what_is_named_and_tell_nothing_of_another_name",
                "history-api/tests/guesses.rs::a_repeated_registration_is_no_place_to_guess_a_password",
            ],
        )
        .http("429")
        .counted("godwit_http_logins_limited"),
        Limit::new(
            "wrong registration tokens from one address",
            At::Source(
                "history-api/src/limits.rs",
                "FAILED_OF_NAME.burst",
                "at once, then one in 10 s",
            ),
            "its registrations are refused, whether the token is right or not, with Retry-After",
            &["history-api/tests/guesses.rs::who_guesses_at_the_registration_token_keeps_nobody_else_from_registering"],
        )
        .http("429")
        .counted("godwit_http_logins_limited")
        .alone("as of passwords, where registration is by token; others register meanwhile"),
        Limit::new(
            "wrong passwords and registration tokens from one address",
            At::Source(
                "history-api/src/limits.rs",
                "FAILED_OF_ADDRESS.burst",
                "at once, then one a second",
            ),
            "the same",
            &[
                HTTP_MET_LONG,
                "history-api/tests/guesses.rs::an_address_has_so_many_wrong_guesses_at_whatever_and_others_have_theirs",
            ],
        )
        .http("429")
        .counted("godwit_http_logins_limited"),
        Limit::new(
            "exchanges of refresh tokens of a login session",
            At::Count(
                "per_user",
                u64::from(godwit_history_api::Config::default().per_user.burst),
            ),
            "at once, then 500 a second; refused, with Retry-After, and the token stays good",
            &[HTTP_MET, "history-api/tests/guesses.rs::invented_refresh_tokens_use_up_nobodys_requests"],
        )
        .http("429")
        .counted("godwit_http_limits_met{limit=\"user_requests\"}"),
        Limit::new(
            "the header of a request",
            At::Source("server/src/http.rs", "HEADER_BYTES", "bytes"),
            "refused and closed",
            &[HTTP_MET],
        )
        .http("431")
        .uncounted("refused by what reads it, before it is a request"),
        Limit::new(
            "time to the header of a request, and between requests",
            At::Source("server/src/http.rs", "HEADER_TIME", "s"),
            "closed; the first of a connection has `connect_seconds`",
            &[HTTP_MET_LONG],
        )
        .http("closed")
        .uncounted("a connection that rests is no offender"),
        Limit::new(
            "time to a body",
            At::Source("history-api/src/extract.rs", "BODY_TIMEOUT", "s"),
            "refused",
            &[HTTP_MET],
        )
        .http("400")
        .counted("godwit_http_limits_met{limit=\"body_time\"}"),
    ]
}
