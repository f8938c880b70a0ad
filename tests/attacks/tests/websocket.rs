//! Compression of nothing. The long form is `godwit-attacks`.

use godwit_attacks::attacks::websocket;
use godwit_attacks::judge::check;

#[test]
fn no_compression_is_negotiated_and_huge_frames_end_the_connection() {
    check(&websocket::compression(false)).unwrap_or_else(|wrong| panic!("{wrong}"));
}
