//! How names and values of small rows stand in CQL: keys end at 65,535 bytes, and a row that says "ended" is a value like others.
//! Pure functions. Not here: tables and statements.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// A key of these many bytes, and no other, is the beginning of a longer name and its digest. A whole partition key of CQL ends
/// at 65,535 bytes, and one of [`Kind::Single`](crate::Kind::Single) has up to 1 KiB before the name.
const LONG_NAME: usize = 60_000;
const DIGEST: usize = 32;

const ENDED: u8 = 0;
const VALUE: u8 = 1;
/// Added when the whole name stands before the value.
const NAMED: u8 = 2;

/// The key of a name: itself, unless it is too long.
pub(super) fn key(name: &Bytes) -> Bytes {
    if name.len() < LONG_NAME {
        return name.clone();
    }
    let mut key = BytesMut::with_capacity(LONG_NAME);
    key.put_slice(&name[..LONG_NAME - DIGEST]);
    key.put_slice(&Sha256::digest(name));
    key.freeze()
}

/// What is stored under a name's key.
pub(super) fn value(name: &Bytes, value: Option<&Bytes>) -> Bytes {
    let long = name.len() >= LONG_NAME;
    let content = value.map_or(&[][..], |v| v);
    let mut out = BytesMut::with_capacity(1 + content.len() + if long { 4 + name.len() } else { 0 });
    out.put_u8(if value.is_some() { VALUE } else { ENDED } + if long { NAMED } else { 0 });
    if long {
        out.put_u32(name.len() as u32);
        out.put_slice(name);
    }
    out.put_slice(content);
    out.freeze()
}

/// The name and the value again, `None` within for an ended row; `None` if this was not written by [`value`].
pub(super) fn split(key: Bytes, mut stored: Bytes) -> Option<(Bytes, Option<Bytes>)> {
    let tag = stored.try_get_u8().ok()?;
    let name = if tag & NAMED == 0 {
        key
    } else {
        let length = stored.try_get_u32().ok()? as usize;
        (stored.len() >= length).then(|| stored.split_to(length))?
    };
    match tag & !NAMED {
        ENDED => Some((name, None)),
        VALUE => Some((name, Some(stored))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_name_and_its_value_come_back_whole(
            fill in any::<u8>(),
            length in prop_oneof![0usize..40, (LONG_NAME - 3)..(LONG_NAME + 3), Just(65_536)],
            content in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        ) {
            let name = Bytes::from(vec![fill; length]);
            let content = content.map(Bytes::from);
            let key = key(&name);
            prop_assert!(key.len() <= LONG_NAME);
            let stored = value(&name, content.as_ref());
            prop_assert_eq!(split(key, stored), Some((name, content)));
        }

        #[test]
        fn bytes_of_nobody_are_no_value_and_no_panic(stored in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = split(Bytes::new(), stored.into());
        }
    }

    #[test]
    fn long_names_with_one_beginning_have_keys_of_their_own() {
        let name = |last: u8| Bytes::from([vec![1; 65_535], vec![last]].concat());
        assert_ne!(key(&name(1)), key(&name(2)));
    }
}
