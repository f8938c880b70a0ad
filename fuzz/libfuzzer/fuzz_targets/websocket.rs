//! The target `websocket` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_broker::fuzz::websocket(bytes));
