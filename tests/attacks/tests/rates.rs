//! Who takes more than a share. The long form is `godwit-attacks`.

use godwit_attacks::attacks::rates;
use godwit_attacks::judge::check;

#[test]
fn an_address_has_its_limit_of_connections() {
    check(&rates::connections_of_an_address(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn an_address_has_its_limit_of_connects_a_second() {
    check(&rates::connects_of_an_address(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_user_who_publishes_too_fast_is_slowed_down_and_loses_nothing() {
    check(&rates::publishes_of_a_user(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_user_who_publishes_too_many_bytes_is_slowed_down_and_loses_nothing() {
    check(&rates::bytes_of_a_user(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn one_user_property_too_many_ends_the_connection() {
    check(&rates::properties(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
