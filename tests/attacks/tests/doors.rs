//! Crowds at the doors, before anybody is known. The long form is `godwit-attacks`.

use godwit_attacks::attacks::{doors, memory};
use godwit_attacks::judge::check;

#[test]
fn a_connect_that_dribbles_is_closed_in_time() {
    check(&doors::slowloris(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn thousands_that_never_speak_are_closed_in_time() {
    check(&doors::silent(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn of_a_crowd_that_never_speaks_those_above_the_limit_are_closed_at_once() {
    check(&doors::crowd(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn everybody_who_drops_and_returns_at_once_is_back_soon_with_its_session() {
    check(&doors::storm(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn who_comes_above_the_limit_on_connections_is_turned_away_at_little_cost() {
    check(&doors::connections(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn clients_cannot_take_the_descriptors_that_the_store_needs() {
    check(&doors::descriptors(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn at_its_bound_on_memory_a_node_lets_nobody_more_in_and_serves_who_is() {
    check(&memory::bound(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
