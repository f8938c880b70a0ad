//! Packets that are wrong. The long form is `godwit-attacks`.

use godwit_attacks::attacks::malformed;
use godwit_attacks::judge::check;

#[test]
fn of_packets_that_are_wrong_only_the_sender_is_closed() {
    check(&malformed::packets(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
