//! The opaque `next` of a page: the sort key of its last message, so that it holds over commits, merges and rebuilds.

use crate::{error::Error, search::Key};

const VERSION: &str = "1";
const CREATED_HEX: usize = 16;
const CONVERSATION_HEX: usize = 32;
const SEQUENCE_HEX: usize = 16;
const LENGTH: usize = 1 + CREATED_HEX + CONVERSATION_HEX + SEQUENCE_HEX;

pub(crate) fn encode(key: &Key) -> String {
    format!(
        "{VERSION}{:016x}{:032x}{:016x}",
        key.created_at_ms.cast_unsigned(),
        u128::from_be_bytes(key.conversation),
        key.sequence
    )
}

/// Whether it is `next` of a page.
///
/// # Errors
/// [`Error::BadCursor`].
pub fn check_cursor(text: &str) -> Result<(), Error> {
    decode(text).map(drop)
}

pub(crate) fn decode(text: &str) -> Result<Key, Error> {
    let plain = text.len() == LENGTH
        && text.starts_with(VERSION)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !plain {
        return Err(Error::BadCursor);
    }
    let (created, rest) = text[1..].split_at(CREATED_HEX);
    let (conversation, sequence) = rest.split_at(CONVERSATION_HEX);
    let bad = |_| Error::BadCursor;
    Ok(Key {
        created_at_ms: u64::from_str_radix(created, 16).map_err(bad)?.cast_signed(),
        conversation: u128::from_str_radix(conversation, 16).map_err(bad)?.to_be_bytes(),
        sequence: u64::from_str_radix(sequence, 16).map_err(bad)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        for created_at_ms in [i64::MIN, -1, 0, 1_700_000_000_000, i64::MAX] {
            let key = Key {
                created_at_ms,
                conversation: [0xA7; 16],
                sequence: u64::MAX,
            };
            assert_eq!(decode(&encode(&key)).unwrap(), key);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = encode(&Key {
            created_at_ms: 1,
            conversation: [1; 16],
            sequence: 1,
        });
        for bad in [
            "",
            "x",
            &good[1..],
            &format!("{good}0"),
            &good.replacen('1', "2", 1),
            &"é".repeat(33),
        ] {
            assert!(matches!(decode(bad), Err(Error::BadCursor)), "{bad}");
        }
        assert!(decode(&good.replace('0', "+")).is_err());
    }
}
