//! Peers whose network is cut: no FIN, no RST, no acknowledgement. Needs root and iproute2. The long form is `godwit-attacks`.

use godwit_attacks::attacks::half_open;
use godwit_attacks::judge::check;

#[test]
fn peers_that_vanish_are_found_by_their_keep_alive_and_stay_owed() {
    check(&half_open::vanished(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
