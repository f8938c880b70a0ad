//! MQTT's decoder under libFuzzer: any bytes, as 3.1.1 and as 5.0.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = godwit_broker::codec::fuzz_one(bytes);
});
