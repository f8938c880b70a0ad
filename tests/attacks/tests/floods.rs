//! Floods of what the server keeps or does on a client's behalf. The long form is `godwit-attacks`.

use godwit_attacks::attacks::floods;
use godwit_attacks::judge::check;

#[test]
fn retained_messages_have_their_quota() {
    check(&floods::retained(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_user_has_its_quota_of_retained_messages_over_all_topics() {
    check(&floods::retained_of_a_user(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn wills_of_a_crowd_that_vanishes_fire_once_each() {
    check(&floods::wills(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn of_many_that_fight_for_one_client_id_one_lives_and_nothing_is_lost() {
    check(&floods::take_over(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
