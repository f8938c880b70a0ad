//! Packets that are too large. The long form is `godwit-attacks`.

use godwit_attacks::attacks::oversized;
use godwit_attacks::judge::check;

#[test]
fn what_is_too_large_is_refused_by_its_header_within_ten_milliseconds() {
    check(&oversized::packets(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn before_authentication_a_connection_holds_sixteen_kib_at_most() {
    check(&oversized::held(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn before_authentication_what_is_held_grows_only_as_bytes_arrive() {
    check(&oversized::announced(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn what_is_over_a_limit_of_its_own_is_refused_by_every_door() {
    check(&oversized::forms(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
