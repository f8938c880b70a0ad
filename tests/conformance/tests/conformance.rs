//! One test that runs everything; see the crate's README.

#[test]
fn the_server_does_what_is_committed_for_each_statement() {
    if let Err(wrong) = godwit_conformance::conformance() {
        panic!("{wrong}");
    }
}
