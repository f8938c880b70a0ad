//! What is decoded from a CONNECT outlives it by hours, and must not keep it in memory.

use super::whole;
use crate::codec::decode_connect;

#[test]
fn the_correlation_data_of_a_will_does_not_keep_the_connect() {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let properties = [&[0x09][..], &text("answer")].concat();
    let body = [
        &b"\0\x04MQTT\x05\x06\0\0\0"[..],
        &text(&"c".repeat(60)),
        &[properties.len() as u8],
        &properties,
        &text("will"),
        &text(&"p".repeat(10_000)),
    ]
    .concat();
    let connect = decode_connect(&whole(0x10, &body)).unwrap();
    let properties = connect.will.unwrap().properties.unwrap();
    let kept = properties.correlation_data.unwrap().try_into_mut().unwrap();
    assert_eq!(kept, "answer".as_bytes());
    assert!(kept.capacity() < 100, "{}", kept.capacity());
}
