//! What is begun and not ended. The long form is `godwit-attacks`.

use godwit_attacks::attacks::flows;
use godwit_attacks::judge::check;

#[test]
fn packet_identifiers_that_are_never_given_back_end_their_owner_only() {
    check(&flows::never_completed(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn what_is_owed_to_who_never_acknowledges_has_a_bound() {
    check(&flows::owed_without_end(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn a_slow_reader_costs_its_cap_and_gets_everything_when_it_reads() {
    check(&flows::slow_reader(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
