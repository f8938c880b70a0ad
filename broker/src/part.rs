//! Whose a completion, an answer, a timer or an entry is: the broker's three parts share the role's tags.

use godwit_cluster::Tag;

/// A part of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    /// Sockets and the door.
    Net = 0,
    /// Users' homes.
    Users = 1,
    /// Topics' homes.
    Topics = 2,
}

/// Bits of a part's own number; the two above name the part (the loop takes 56 in all).
const NUMBER_BITS: u32 = 54;

impl Part {
    /// The role's tag for a number of this part's own choice, below 2^54. The glue gives the number back.
    pub(crate) fn tag(self, number: u64) -> Tag {
        debug_assert!(number >> NUMBER_BITS == 0, "numbers are below 2^54");
        ((self as u64) << NUMBER_BITS) | number
    }

    /// Whose tag this is, and the number.
    pub(crate) fn of(tag: Tag) -> (Self, u64) {
        let part = match tag >> NUMBER_BITS {
            0 => Self::Net,
            1 => Self::Users,
            _ => Self::Topics,
        };
        (part, tag & ((1 << NUMBER_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_back_its_part_and_number() {
        for part in [Part::Net, Part::Users, Part::Topics] {
            for number in [0, 1, (1 << NUMBER_BITS) - 1] {
                assert_eq!(Part::of(part.tag(number)), (part, number));
            }
        }
    }
}
