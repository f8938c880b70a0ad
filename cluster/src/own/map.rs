//! Which member owns which shard: slots, roles and rendezvous hashing. A pure function of a view's members; who has
//! really taken a shard up is `member.rs`'s to know.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::body::Seat;

/// What a node does. A node without a role takes no shards of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(pub u32);

impl Roles {
    /// Users' and topics' homes, MQTT.
    pub const BROKER: Self = Self(1);
    /// Conversations' homes.
    pub const INGEST: Self = Self(2);
    /// The index.
    pub const SEARCH: Self = Self(4);
    /// REST, WebSocket, long poll: no shards.
    pub const API: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);

    /// Whether all of `other` are among these.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What kind of home a key has. One shard has an owner in each group, since nodes need not have all roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Group {
    /// Users and ordinary topics (and accounts): members with [`Roles::BROKER`].
    Users = 0,
    /// Conversations: members with [`Roles::INGEST`].
    Conversations = 1,
    /// The index of a shard's conversations: members with [`Roles::SEARCH`].
    Index = 2,
}

impl Group {
    /// All of them, in the order of their slots.
    pub const ALL: [Self; 3] = [Self::Users, Self::Conversations, Self::Index];

    /// What a member needs to own shards of this group.
    pub fn role(self) -> Roles {
        match self {
            Self::Users => Roles::BROKER,
            Self::Conversations => Roles::INGEST,
            Self::Index => Roles::SEARCH,
        }
    }
}

/// How many shards there are, and how shard and group make a *slot*: the number that [`godwit_store::Scope`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shards of a cluster; fixed when it is created.
    pub shards: u16,
}

impl Layout {
    /// The product's. The simulation takes fewer.
    pub const PRODUCT: Self = Self {
        shards: godwit_wire::ids::Key::SHARDS,
    };

    /// How many slots there are: three groups of shards.
    pub fn slots(self) -> usize {
        usize::from(self.shards) * Group::ALL.len()
    }

    /// The slot of a shard in a group. `shard` is below [`Layout::shards`].
    pub fn slot(self, group: Group, shard: u16) -> u16 {
        group as u16 * self.shards + shard
    }

    /// The shard and the group of a slot; `None` beyond the last.
    pub fn of(self, slot: u16) -> Option<(Group, u16)> {
        let group = Group::ALL.get(usize::from(slot / self.shards))?;
        Some((*group, slot % self.shards))
    }
}

// Slots fit their number.
const _: () = assert!(Layout::PRODUCT.shards as usize * Group::ALL.len() <= u16::MAX as usize);

/// Nobody has the role.
const NOBODY: u16 = u16::MAX;

/// The owner of every slot in one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Index of a seat by slot.
    owners: Vec<u16>,
}

impl Map {
    /// The map of these seats. Among several seats of one name (a node that came back before its former start was found
    /// dead) the last one takes all: it is the one that lives.
    pub fn of(layout: Layout, seats: &[Seat]) -> Self {
        let names: Vec<u64> = seats.iter().map(|seat| xxh3_64(seat.name.as_bytes())).collect();
        let mut owners = Vec::with_capacity(layout.slots());
        for group in Group::ALL {
            let able: Vec<usize> = (0..seats.len())
                .filter(|&at| !seats[at].leaving && seats[at].roles.has(group.role()))
                .collect();
            for shard in 0..layout.shards {
                // Of equal scores `max_by_key` takes the last. Groups hash alike: what a node with all roles owns of
                // a shard it owns of all groups, so indexing needs no network.
                let best = able.iter().max_by_key(|&&at| score(names[at], shard));
                // At most `MAX_MEMBERS` seats, which fits.
                owners.push(best.map_or(NOBODY, |&at| at as u16));
            }
        }
        Self { owners }
    }

    /// Index of the seat that owns `slot`; `None` if nobody has its role.
    pub fn owner(&self, slot: u16) -> Option<usize> {
        match self.owners.get(usize::from(slot)) {
            Some(&NOBODY) | None => None,
            Some(&at) => Some(usize::from(at)),
        }
    }

    /// The slots of one seat, in order.
    pub fn slots_of(&self, seat: usize) -> impl Iterator<Item = u16> + '_ {
        self.owners
            .iter()
            .enumerate()
            .filter(move |&(_, &at)| usize::from(at) == seat)
            // As many as `Layout::slots`, which fits.
            .map(|(slot, _)| slot as u16)
    }
}

fn score(name: u64, shard: u16) -> u64 {
    xxh3_64_with_seed(&shard.to_le_bytes(), name)
}
