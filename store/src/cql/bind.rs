//! Values that go into statements and come out of rows, in the few forms that the tables have.

use bytes::Bytes;
use scylla::serialize::SerializationError;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use uuid::Uuid;

/// A bound value.
#[derive(Clone, Debug)]
pub(super) enum Bind {
    Blob(Bytes),
    Big(i64),
    Int(i32),
    Id(Uuid),
    Yes(bool),
    Text(String),
}

impl SerializeValue for Bind {
    fn serialize<'b>(
        &self,
        typ: &scylla::frame::response::result::ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Blob(v) => v.serialize(typ, writer),
            Self::Big(v) => v.serialize(typ, writer),
            Self::Int(v) => v.serialize(typ, writer),
            Self::Id(v) => v.serialize(typ, writer),
            Self::Yes(v) => v.serialize(typ, writer),
            Self::Text(v) => v.serialize(typ, writer),
        }
    }
}

impl From<&Bytes> for Bind {
    fn from(v: &Bytes) -> Self {
        Self::Blob(v.clone())
    }
}
impl From<Bytes> for Bind {
    fn from(v: Bytes) -> Self {
        Self::Blob(v)
    }
}
impl From<i64> for Bind {
    fn from(v: i64) -> Self {
        Self::Big(v)
    }
}
/// Views and positions; the largest says "ended".
impl From<u64> for Bind {
    fn from(v: u64) -> Self {
        Self::Big(i64::try_from(v).unwrap_or(i64::MAX))
    }
}
impl From<Uuid> for Bind {
    fn from(v: Uuid) -> Self {
        Self::Id(v)
    }
}
impl From<i32> for Bind {
    fn from(v: i32) -> Self {
        Self::Int(v)
    }
}
impl From<bool> for Bind {
    fn from(v: bool) -> Self {
        Self::Yes(v)
    }
}
impl From<&str> for Bind {
    fn from(v: &str) -> Self {
        Self::Text(v.into())
    }
}

/// A number as it stands in a row.
pub(super) fn number(stored: Option<i64>) -> u64 {
    match stored {
        Some(i64::MAX) => u64::MAX,
        Some(n) => u64::try_from(n).unwrap_or(0),
        None => 0,
    }
}
