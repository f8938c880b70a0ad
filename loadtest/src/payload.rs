//! What a generated message carries: a mark, its number for its recipient and the time it was sent, then words. The
//! mark is text and is searched for, so it survives inside JSON or protobuf. No MQTT here.

const MARK: &[u8; 4] = b"GWLT";
const STAMP_LEN: usize = 4 + 16 + 16;
/// Shortest message that can carry a stamp, in bytes.
pub(crate) const MIN_LEN: usize = STAMP_LEN;
const WORDS: &[&str] = &[
    "river", "lantern", "seven", "quiet", "market", "garden", "tomorrow", "bridge", "letter", "winter",
    "coffee", "station", "orange", "window", "mountain", "paper", "evening", "harbour", "copper", "signal",
    "meadow", "ticket",
];

/// A message to be sent many times, with room for its stamp.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    /// A message of `len` bytes (at least [`MIN_LEN`]) of text between `before` and `after`, which are what an
    /// encoding wraps around the text. `salt` varies the words.
    pub(crate) fn new(before: &[u8], len: usize, after: &[u8], salt: usize) -> Self {
        let mut bytes = before.to_vec();
        let stamp_at = bytes.len();
        bytes.extend_from_slice(MARK);
        bytes.extend_from_slice(&[b'0'; 32]);
        let end = stamp_at + len.max(MIN_LEN);
        let mut word = salt;
        while bytes.len() < end {
            bytes.push(b' ');
            bytes.extend_from_slice(WORDS[word % WORDS.len()].as_bytes());
            word = word.wrapping_mul(31).wrapping_add(salt % 7 + 1);
        }
        bytes.truncate(end);
        bytes.extend_from_slice(after);
        Self { bytes, stamp_at }
    }

    /// The message with an empty stamp.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the stamp into a copy of the message that starts at `message[0]`.
    pub(crate) fn stamp(&self, message: &mut [u8], number: u64, sent_at: u64) {
        let at = self.stamp_at + MARK.len();
        if let Some(room) = message.get_mut(at..at + 32) {
            put_hex(&mut room[..16], number);
            put_hex(&mut room[16..], sent_at);
        }
    }
}

/// Number and time of sending, if the message carries a stamp.
pub(crate) fn read_stamp(message: &[u8]) -> Option<(u64, u64)> {
    let at = match message.starts_with(MARK) {
        true => 0,
        false => message.windows(MARK.len()).position(|window| window == MARK)?,
    };
    let digits = message.get(at + MARK.len()..at + STAMP_LEN)?;
    Some((get_hex(&digits[..16])?, get_hex(&digits[16..])?))
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn get_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_inside_any_encoding_and_the_message_has_the_asked_length() {
        let template = Template::new(b"{\"content\":\"", 128, b"\"}", 3);
        assert_eq!(template.bytes().len(), 12 + 128 + 2);
        let mut message = template.bytes().to_vec();
        template.stamp(&mut message, u64::MAX, 0x1234);
        assert_eq!(read_stamp(&message), Some((u64::MAX, 0x1234)));
        assert!(message.is_ascii());
    }

    #[test]
    fn a_message_without_a_whole_stamp_is_not_ours() {
        assert_eq!(read_stamp(b"hello"), None);
        assert_eq!(read_stamp(b"GWLT0000"), None);
        assert_eq!(read_stamp(&[b"GWLT".as_slice(), &[b'z'; 32]].concat()), None);
    }
}
