//! What the coordination rows hold, as bytes: the body of a view and what a start says about itself. Versioned protobuf;
//! what is of a newer format is refused, never guessed.

use bytes::Bytes;
use godwit_store::View;
use godwit_store::coordination::StartId;
use prost::Message;
use uuid::Uuid;

use super::map::Roles;

/// Most members of a view: a body with [`MAX_UNSETTLED`] earlier views stays below what one row of the store takes.
pub const MAX_MEMBERS: usize = 200;
/// Most unsettled views: while so many wait for a member to follow or to be found dead, members are not changed.
pub const MAX_UNSETTLED: usize = 16;
/// Longest name of a node and longest address, in bytes.
pub const MAX_NAME: usize = 255;

const FORMAT: u32 = 1;

/// One member of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its start.
    pub start: StartId,
    /// Its node's name; decides which shards it gets.
    pub name: Box<str>,
    /// Of what it takes shards.
    pub roles: Roles,
    /// It asked to be taken out: it owns nothing and goes as soon as nobody waits for it.
    pub leaving: bool,
}

/// An earlier view in which somebody may still act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Its number.
    pub number: View,
    /// Its members.
    pub seats: Vec<Seat>,
}

/// What a view says beside its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Members, in the order in which they joined.
    pub seats: Vec<Seat>,
    /// Views before this one that are not settled, by number.
    pub unsettled: Vec<Earlier>,
    /// Timestamps of this view are above: microseconds since 1970.
    pub floor: i64,
}

/// What a start says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The node's name, unique in the cluster.
    pub name: String,
    /// Of what it takes shards.
    pub roles: Roles,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where MQTT clients reach it; empty: nowhere.
    pub mqtt: String,
    /// Where HTTP clients reach it; empty: nowhere.
    pub http: String,
}

#[derive(Clone, PartialEq, Message)]
struct SeatRow {
    #[prost(bytes = "bytes", tag = "1")]
    start: Bytes,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    roles: u32,
    #[prost(bool, tag = "4")]
    leaving: bool,
}

#[derive(Clone, PartialEq, Message)]
struct EarlierRow {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, repeated, tag = "2")]
    seats: Vec<SeatRow>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyRow {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, repeated, tag = "2")]
    seats: Vec<SeatRow>,
    #[prost(message, repeated, tag = "3")]
    unsettled: Vec<EarlierRow>,
    #[prost(int64, tag = "4")]
    floor: i64,
}

#[derive(Clone, PartialEq, Message)]
struct AboutRow {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    roles: u32,
    #[prost(string, tag = "4")]
    peer: String,
    #[prost(string, tag = "5")]
    mqtt: String,
    #[prost(string, tag = "6")]
    http: String,
}

/// What a start says about itself with each heartbeat, behind [`AboutRow`] in the same bytes.
#[derive(Clone, PartialEq, Message)]
struct BeatRow {
    #[prost(uint64, tag = "7")]
    unix_ms: u64,
}

/// The time of a start's calendar when it wrote its row, milliseconds since 1970, put behind what it says about itself.
pub fn with_clock(about: &Bytes, unix_ms: u64) -> Bytes {
    let beat = BeatRow { unix_ms }.encode_to_vec();
    [about, &beat[..]].concat().into()
}

/// That time of a row; `None`: it says none.
pub fn clock_of(about: &Bytes) -> Option<u64> {
    let beat = BeatRow::decode(about.clone()).ok()?;
    (beat.unix_ms > 0).then_some(beat.unix_ms)
}

impl Body {
    /// As the view's row holds it.
    pub fn encode(&self) -> Bytes {
        let unsettled = self.unsettled.iter().map(|earlier| EarlierRow {
            number: earlier.number,
            seats: rows(&earlier.seats),
        });
        let row = BodyRow {
            format: FORMAT,
            seats: rows(&self.seats),
            unsettled: unsettled.collect(),
            floor: self.floor,
        };
        row.encode_to_vec().into()
    }

    /// `None`: damaged, or of a format that this build does not know.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let row = BodyRow::decode(bytes.clone()).ok()?;
        if row.format != FORMAT || row.seats.len() > MAX_MEMBERS || row.unsettled.len() > MAX_UNSETTLED {
            return None;
        }
        let mut unsettled = Vec::with_capacity(row.unsettled.len());
        for earlier in row.unsettled {
            unsettled.push(Earlier {
                number: earlier.number,
                seats: seats(earlier.seats)?,
            });
        }
        Some(Self {
            seats: seats(row.seats)?,
            unsettled,
            floor: row.floor,
        })
    }

    /// Seats of the view and of all unsettled ones before it: whoever may act.
    pub fn all_seats(&self) -> impl Iterator<Item = &Seat> {
        let earlier = self.unsettled.iter().flat_map(|earlier| &earlier.seats);
        self.seats.iter().chain(earlier)
    }

    /// Where a start sits.
    pub fn seat_of(&self, start: StartId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.start == start)
    }
}

impl About {
    /// As the start's row holds it. Each text is cut at [`MAX_NAME`] bytes by who configures it.
    pub fn encode(&self) -> Bytes {
        let row = AboutRow {
            format: FORMAT,
            name: self.name.clone(),
            roles: self.roles.0,
            peer: self.peer.clone(),
            mqtt: self.mqtt.clone(),
            http: self.http.clone(),
        };
        row.encode_to_vec().into()
    }

    /// `None`: damaged, or of a format that this build does not know.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let row = AboutRow::decode(bytes.clone()).ok()?;
        let texts = [&row.name, &row.peer, &row.mqtt, &row.http];
        if row.format != FORMAT || texts.iter().any(|text| text.len() > MAX_NAME) {
            return None;
        }
        Some(Self {
            name: row.name,
            roles: Roles(row.roles),
            peer: row.peer,
            mqtt: row.mqtt,
            http: row.http,
        })
    }
}

fn rows(seats: &[Seat]) -> Vec<SeatRow> {
    let row = |seat: &Seat| SeatRow {
        start: Bytes::copy_from_slice(seat.start.as_bytes()),
        name: seat.name.to_string(),
        roles: seat.roles.0,
        leaving: seat.leaving,
    };
    seats.iter().map(row).collect()
}

fn seats(rows: Vec<SeatRow>) -> Option<Vec<Seat>> {
    let seat = |row: SeatRow| {
        Some(Seat {
            start: Uuid::from_slice(&row.start).ok()?,
            name: row.name.into_boxed_str(),
            roles: Roles(row.roles),
            leaving: row.leaving,
        })
    };
    if rows.len() > MAX_MEMBERS {
        return None;
    }
    rows.into_iter().map(seat).collect()
}
