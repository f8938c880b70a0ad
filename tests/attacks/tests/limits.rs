//! Limits that no other attack reaches, beside bystanders. The long form is `godwit-attacks`.

use godwit_attacks::attacks::limits;
use godwit_attacks::judge::check;

#[test]
fn limits_of_the_doors_are_met_and_nobody_else_notices() {
    check(&limits::doors(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn limits_of_packets_are_met_and_nobody_else_notices() {
    check(&limits::packets(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn limits_of_sessions_and_subscriptions_are_met_and_nobody_else_notices() {
    check(&limits::sessions(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn limits_of_what_is_owed_are_met_and_nobody_else_notices() {
    check(&limits::owed(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn limits_of_rest_and_accounts_are_met_and_nobody_else_notices() {
    check(&limits::http(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
