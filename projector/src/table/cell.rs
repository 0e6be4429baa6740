//! What stands in a column, and what identifies a row.

use std::{borrow::Cow, fmt, hash::Hash, ops::Deref};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
    types::Json,
};
use uuid::Uuid;

use super::Statement;

/// What can stand in a column.
pub(crate) trait Cell {
    /// Postgres's name of the type in which a parameter carries it.
    const SENT_AS: &'static str;
    /// What makes the column's own type of that.
    const CAST: &'static str = "";
    /// The binary form of the column's own type.
    fn copy(&self, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError>;
}

/// Adds a field of a binary `COPY`: its length, and what is in it.
pub(crate) fn copy(cell: &impl Cell, to: &mut PgArgumentBuffer) -> Result<(), BoxDynError> {
    const NULL: i32 = -1;
    let length = to.len();
    to.extend_from_slice(&NULL.to_be_bytes());
    let begin = to.len();
    if let IsNull::No = cell.copy(to)? {
        let bytes = i32::try_from(to.len() - begin)?;
        to[length..begin].copy_from_slice(&bytes.to_be_bytes());
    }
    Ok(())
}

macro_rules! cells {
    ($($type:ty = $name:literal),+ $(,)?) => {
        $(impl Cell for $type {
            const SENT_AS: &'static str = $name;

            fn copy(&self, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <Self as Encode<Postgres>>::encode_by_ref(self, to)
            }
        })+
    };
}

cells! {
    bool = "boolean",
    i16 = "smallint",
    i32 = "integer",
    i64 = "bigint",
    f64 = "double precision",
    String = "text",
    Uuid = "uuid",
    DateTime<Utc> = "timestamptz",
    Word = "text",
}

impl<T: Serialize> Cell for Json<T> {
    const SENT_AS: &'static str = "jsonb";

    fn copy(&self, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <Self as Encode<Postgres>>::encode_by_ref(self, to)
    }
}

impl<T: Cell> Cell for Option<T> {
    const SENT_AS: &'static str = T::SENT_AS;
    const CAST: &'static str = T::CAST;

    fn copy(&self, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        self.as_ref().map_or(Ok(IsNull::Yes), |cell| cell.copy(to))
    }
}

/// What identifies a row: one column or two.
pub(crate) trait Key: Clone + Eq + Ord + Hash + fmt::Debug + Send + Sync {
    /// Binds an array for each column.
    fn bind(keys: Vec<Self>, statement: Statement<'_>) -> Statement<'_>;
}

impl Key for Uuid {
    fn bind(keys: Vec<Self>, statement: Statement<'_>) -> Statement<'_> {
        statement.bind(keys)
    }
}

impl<T> Key for (Uuid, T)
where
    T: Clone + Eq + Ord + Hash + fmt::Debug + Send + Sync + PgHasArrayType + Type<Postgres> + 'static,
    T: for<'q> Encode<'q, Postgres>,
{
    fn bind(keys: Vec<Self>, statement: Statement<'_>) -> Statement<'_> {
        let (first, second): (Vec<Uuid>, Vec<T>) = keys.into_iter().unzip();
        statement.bind(first).bind(second)
    }
}

/// An `integer[]` in one row. Arrays of arrays do not pass through `unnest`, so it is sent as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<i32>);

impl Path {
    /// One step further down.
    pub(crate) fn below(&self, number: i32) -> Self {
        Self(self.0.iter().copied().chain([number]).collect())
    }
}

impl Cell for Path {
    const SENT_AS: &'static str = "text";
    const CAST: &'static str = "::integer[]";

    fn copy(&self, to: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <Vec<i32> as Encode<Postgres>>::encode_by_ref(&self.0, to)
    }
}

impl Type<Postgres> for Path {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(found: &PgTypeInfo) -> bool {
        <Vec<i32> as Type<Postgres>>::compatible(found)
    }
}

impl PgHasArrayType for Path {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Path {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let numbers: Vec<String> = self.0.iter().map(i32::to_string).collect();
        <String as Encode<Postgres>>::encode(format!("{{{}}}", numbers.join(",")), buffer)
    }
}

impl Decode<'_, Postgres> for Path {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        <Vec<i32> as Decode<Postgres>>::decode(value).map(Self)
    }
}

/// A text that is one of a few words of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(Cow<'static, str>);

impl From<&'static str> for Word {
    fn from(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Type<Postgres> for Word {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(found: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(found)
    }
}

impl PgHasArrayType for Word {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Word {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<Postgres>>::encode(&**self, buffer)
    }
}

impl Decode<'_, Postgres> for Word {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        <String as Decode<Postgres>>::decode(value).map(|word| Self(Cow::Owned(word)))
    }
}
