//! The projections whose tables are read.

use events::Shard;
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error};

/// A projection, by the name that its checkpoints and notices bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Projection {
    Account,
    CategoryTree,
    Community,
    Membership,
    ModerationLog,
    ThreadList,
    ThreadPage,
}

impl Projection {
    /// All of them, each at its [index](Self::index).
    pub(crate) const ALL: [Self; 7] = [
        Self::Account,
        Self::CategoryTree,
        Self::Community,
        Self::Membership,
        Self::ModerationLog,
        Self::ThreadList,
        Self::ThreadPage,
    ];

    /// Its name in the database and in notices.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::CategoryTree => "category_tree",
            Self::Community => "community",
            Self::Membership => "membership",
            Self::ModerationLog => "moderation_log",
            Self::ThreadList => "thread_list",
            Self::ThreadPage => "thread_page",
        }
    }

    /// The one of that name; none for a projection of a newer release, which no view of ours joins.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// Its place in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A variant by its name, as the projections write it; none for one that this release does not know.
pub(crate) fn named<T: DeserializeOwned>(name: &str) -> Option<T> {
    T::deserialize(IntoDeserializer::<Error>::into_deserializer(name)).ok()
}

/// One value for each projection and shard.
#[derive(Debug)]
pub(crate) struct Grid<T>(Box<[T]>);

impl<T> Grid<T> {
    /// Fills it.
    pub(crate) fn new(value: impl Fn() -> T) -> Self {
        Self((0..Projection::ALL.len() * usize::from(Shard::COUNT)).map(|_| value()).collect())
    }

    /// The value of one projection in one shard.
    pub(crate) fn at(&self, projection: Projection, shard: Shard) -> &T {
        &self.0[projection.index() * usize::from(Shard::COUNT) + shard.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_index_and_is_found_by_its_name() {
        for (index, projection) in Projection::ALL.into_iter().enumerate() {
            assert_eq!(projection.index(), index);
            assert_eq!(Projection::named(projection.name()), Some(projection));
        }
        assert_eq!(Projection::named("search"), None);
    }
}
