//! The target `sessions` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_broker::fuzz::sessions(bytes));
