//! The target `decoder` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = godwit_broker::codec::fuzz_one(bytes);
});
