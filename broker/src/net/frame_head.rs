//! The beginning of the frame of a WebSocket that is under way, seen beside the library that reads it: of a frame that is
//! too large the library gives nothing, and its sender is to be told.

/// Bytes of a frame's content that are kept: the header of a CONNECT, its protocol's name and version.
const HEAD_BYTES: usize = 16;
/// Bytes before the content of a client's frame at most: 2, a length of 8, a mask of 4 (RFC 6455, 5.2).
const BEFORE_BYTES: usize = 14;

/// Follows the frames of a client.
#[derive(Debug, Default)]
pub(super) struct FrameHead {
    /// What came of the frame under way, up to its bound; what is before the content first.
    seen: Vec<u8>,
    /// Bytes of it that came.
    came: u64,
}

/// What is before the content.
struct Before {
    len: usize,
    mask: [u8; 4],
    content: u64,
}

fn before(seen: &[u8]) -> Option<Before> {
    let byte = *seen.get(1)?;
    let extended = match byte & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let length = seen.get(2..2 + extended)?;
    let content = match extended {
        0 => u64::from(byte & 0x7f),
        _ => length.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    };
    let len = 2 + extended;
    if byte & 0x80 == 0 {
        return Some(Before {
            len,
            mask: [0; 4],
            content,
        });
    }
    let mask = seen.get(len..len + 4)?.try_into().ok()?;
    Some(Before {
        len: len + 4,
        mask,
        content,
    })
}

impl FrameHead {
    /// These bytes came.
    pub(super) fn came(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if before(&self.seen).is_none() {
                // Its length is not known yet.
                let (first, rest) = bytes.split_at(1);
                self.seen.extend_from_slice(first);
                self.came += 1;
                bytes = rest;
            }
            let Some(before) = before(&self.seen) else {
                continue;
            };
            let whole = (before.len as u64).saturating_add(before.content);
            let left = usize::try_from(whole - self.came).unwrap_or(usize::MAX);
            let (of_this, rest) = bytes.split_at(left.min(bytes.len()));
            let room = (BEFORE_BYTES + HEAD_BYTES).saturating_sub(self.seen.len());
            self.seen.extend(of_this.iter().take(room));
            self.came += of_this.len() as u64;
            bytes = rest;
            if self.came == whole {
                *self = Self::default();
            }
        }
    }

    /// The first bytes of the content of the binary frame under way; nothing of another.
    pub(super) fn content(&self) -> Vec<u8> {
        let binary = self.seen.first().is_some_and(|first| first & 0x0f == 2);
        let Some(before) = before(&self.seen).filter(|_| binary) else {
            return Vec::new();
        };
        let content = self.seen.get(before.len..).unwrap_or_default();
        let unmasked = content.iter().zip(before.mask.iter().cycle());
        unmasked.map(|(byte, mask)| byte ^ mask).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a client.
    fn frame(opcode: u8, content: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 250];
        let mut frame = vec![0x80 | opcode];
        match content.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(content.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        frame
    }

    #[test]
    fn the_head_is_that_of_the_frame_under_way_however_the_bytes_come() {
        let large: Vec<u8> = (0..70_000).map(|number| number as u8).collect();
        for step in [1, 2, 7, 4_096] {
            let mut head = FrameHead::default();
            let before = [frame(9, b"ping"), frame(2, b""), frame(2, &large[..300])].concat();
            for chunk in before.chunks(step) {
                head.came(chunk);
            }
            assert_eq!(head.content(), b"", "all of them ended");
            for chunk in frame(2, &large)[..100].chunks(step) {
                head.came(chunk);
            }
            assert_eq!(head.content(), large[..HEAD_BYTES], "step {step}");
        }
    }

    #[test]
    fn a_frame_of_text_has_no_head_and_no_length_overflows() {
        let mut head = FrameHead::default();
        head.came(&frame(1, &[7; 1_000])[..50]);
        assert_eq!(head.content(), b"");
        let mut head = FrameHead::default();
        head.came(&[
            0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 5, 6,
        ]);
        assert_eq!(head.content(), [5, 6]);
    }
}
