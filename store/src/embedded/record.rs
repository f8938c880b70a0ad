//! The journal's records and the rows in them, as bytes. One record is what one group commit wrote. Not here: files.
//!
//! ```text
//! record: checksum 8 │ number 8 │ length 4 │ magic 4 │ rows …           (little-endian; length counts everything)
//! row:    kind 1 │ partition key length 2 │ clustering length 2 │ value length 4 │ partition key │ clustering │ value
//! ```
//! The checksum is XXH3-64 over all behind it with the segment's random seed (`journal`), so that a record never counts
//! in another segment than its own, and nobody can put bytes into a message that count as one. Record numbers grow by
//! one over all segments.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes before the rows of a record.
pub(super) const RECORD_HEAD: usize = 24;
const MAGIC: [u8; 4] = *b"GwR1";
const ROW_HEAD: usize = 9;

/// What a row of the journal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The key has this value.
    Put,
    /// The key has no value.
    Delete,
    /// The larger of each number counts: confirmed 8, floor 8, big-endian.
    Head,
}

/// A row as it stands in a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'a> {
    pub(super) act: Act,
    pub(super) pkey: &'a [u8],
    pub(super) rest: &'a [u8],
    pub(super) value: &'a [u8],
}

/// An empty record to be filled by [`push_row`] and finished by [`seal`].
pub(super) fn new_record(capacity: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEAD + capacity);
    record.resize(RECORD_HEAD, 0);
    record
}

/// Whether rows were pushed.
pub(super) fn is_empty(record: &[u8]) -> bool {
    record.len() <= RECORD_HEAD
}

/// Appends a row; `pkey` writes the partition key itself and returns its length, the value comes in pieces.
pub(super) fn push_row(
    record: &mut Vec<u8>,
    act: Act,
    pkey: impl FnOnce(&mut Vec<u8>) -> usize,
    rest: &[u8],
    value: &[&[u8]],
) {
    let head = record.len();
    record.resize(head + ROW_HEAD, 0);
    let pkey_len = pkey(record);
    record.extend_from_slice(rest);
    let mut value_len = 0;
    for piece in value {
        record.extend_from_slice(piece);
        value_len += piece.len();
    }
    record[head] = act as u8;
    // Partition keys and clustering keys are shorter than 65,536 (layout), values than 4 GiB.
    record[head + 1..head + 3].copy_from_slice(&(pkey_len as u16).to_le_bytes());
    record[head + 3..head + 5].copy_from_slice(&(rest.len() as u16).to_le_bytes());
    record[head + 5..head + 9].copy_from_slice(&(value_len as u32).to_le_bytes());
}

/// Fills in a record's head for the segment with this seed, to which it will be written.
pub(super) fn seal(record: &mut [u8], number: u64, seed: u64) {
    let len = record.len() as u32;
    record[8..16].copy_from_slice(&number.to_le_bytes());
    record[16..20].copy_from_slice(&len.to_le_bytes());
    record[20..24].copy_from_slice(&MAGIC);
    let sum = xxh3_64_with_seed(&record[8..], seed);
    record[..8].copy_from_slice(&sum.to_le_bytes());
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// The valid record at `at` of a segment with this seed: its bytes and number.
pub(super) fn record_at(data: &[u8], at: usize, seed: u64) -> Option<(&[u8], u64)> {
    let len = u32_at(data, at + 16)? as usize;
    if len < RECORD_HEAD || data.get(at + 20..at + 24)? != MAGIC {
        return None;
    }
    let record = data.get(at..at.checked_add(len)?)?;
    (xxh3_64_with_seed(&record[8..], seed) == u64_at(record, 0)?).then_some((record, u64_at(record, 8)?))
}

/// Looks for a valid record of the segment with this seed anywhere from `from` on, with a number above `above`.
pub(super) fn valid_record_beyond(data: &[u8], from: usize, seed: u64, above: u64) -> Option<usize> {
    let mut at = from;
    while let Some(found) = data.get(at..)?.windows(MAGIC.len()).position(|w| w == MAGIC) {
        let start = at + found;
        if start >= from + 20
            && let Some((_, number)) = record_at(data, start - 20, seed)
            && number > above
        {
            return Some(start - 20);
        }
        at = start + 1;
    }
    None
}

/// The row at `at` of a record, and where the next begins. `None` at the end, or if the bytes are no row.
#[inline]
pub(super) fn row_at(record: &[u8], at: usize) -> Option<(RowRef<'_>, usize)> {
    let head = record.get(at..at + ROW_HEAD)?;
    let act = match head[0] {
        0 => Act::Put,
        1 => Act::Delete,
        2 => Act::Head,
        _ => return None,
    };
    let pkey = usize::from(u16::from_le_bytes([head[1], head[2]]));
    let rest = usize::from(u16::from_le_bytes([head[3], head[4]]));
    let value = u32::from_le_bytes([head[5], head[6], head[7], head[8]]) as usize;
    let body = record.get(at + ROW_HEAD..at + ROW_HEAD + pkey + rest + value)?;
    let row = RowRef {
        act,
        pkey: &body[..pkey],
        rest: &body[pkey..pkey + rest],
        value: &body[pkey + rest..],
    };
    Some((row, at + ROW_HEAD + pkey + rest + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, seed: u64, value: &[u8]) -> Vec<u8> {
        let mut r = new_record(64);
        push_row(
            &mut r,
            Act::Put,
            |out| {
                out.extend_from_slice(b"part");
                4
            },
            b"rest",
            &[value],
        );
        seal(&mut r, number, seed);
        r
    }

    #[test]
    fn a_record_is_read_back_and_counts_in_its_own_segment_only() {
        let r = record(3, 9, b"value");
        let (all, number) = record_at(&r, 0, 9).expect("valid");
        assert_eq!((all.len(), number), (r.len(), 3));
        let (row, next) = row_at(&r, RECORD_HEAD).expect("row");
        assert_eq!(
            (row.act, row.pkey, row.rest, row.value),
            (Act::Put, &b"part"[..], &b"rest"[..], &b"value"[..])
        );
        assert_eq!(next, r.len());
        assert!(record_at(&r, 0, 10).is_none());
    }

    #[test]
    fn every_single_changed_byte_makes_a_record_invalid_or_is_past_it() {
        let r = record(3, 9, b"value");
        for i in 0..r.len() {
            let mut bad = r.clone();
            bad[i] ^= 0x10;
            assert!(record_at(&bad, 0, 9).is_none(), "byte {i}");
        }
    }

    #[test]
    fn a_valid_record_behind_damage_is_found() {
        let (a, b) = (record(1, 9, b"aa"), record(2, 9, b"bb"));
        let mut data = [&a[..], &b[..]].concat();
        data[30] ^= 1;
        assert!(record_at(&data, 0, 9).is_none());
        assert_eq!(valid_record_beyond(&data, 0, 9, 0), Some(a.len()));
        data[a.len() + 2] ^= 1;
        assert_eq!(valid_record_beyond(&data, 0, 9, 0), None);
    }

    #[test]
    fn bytes_that_are_no_row_are_not_read_as_one() {
        assert!(row_at(&[9; 40], 0).is_none());
        assert!(row_at(&[0, 255, 255, 255, 255, 255, 255, 255, 255], 0).is_none());
    }
}
