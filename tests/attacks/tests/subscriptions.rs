//! Attacks by subscriptions. The long form is `godwit-attacks`.

use godwit_attacks::attacks::subscriptions;
use godwit_attacks::judge::check;

#[test]
fn filters_that_match_along_every_path_cost_their_owner_only() {
    check(&subscriptions::deep_wildcards(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_filter_for_everything_is_for_those_whose_rules_allow_it_and_matches_nothing_reserved() {
    check(&subscriptions::everything(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn of_a_million_subscriptions_a_session_and_a_user_get_their_quota() {
    check(&subscriptions::million(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn probing_delivers_nothing_and_tells_nothing() {
    check(&subscriptions::probing(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
