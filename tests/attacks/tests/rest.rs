//! The REST door. The long form is `godwit-attacks`.

use godwit_attacks::attacks::rest;
use godwit_attacks::judge::check;

#[test]
fn requests_over_the_limits_of_rest_are_refused() {
    check(&rest::requests(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
