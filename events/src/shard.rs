//! The 64 lanes within which order is promised.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AccountId, CommunityId};

/// One of [`Shard::COUNT`] logical lanes. Kafka partition = shard mod partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8")]
pub struct Shard(u8);

/// A number that is no shard.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no shard: they run from 0 to {max}", max = Shard::COUNT - 1)]
pub struct NoShard(pub i64);

impl Shard {
    /// How many there are. Frozen: every stored event names its shard.
    pub const COUNT: u8 = 64;

    /// The shard of a community, and of all that belongs to it.
    pub fn of_community(id: CommunityId) -> Self {
        Self::of(id.0)
    }

    /// The shard of an account's own stream, which belongs to no community.
    pub fn of_account(id: AccountId) -> Self {
        Self::of(id.0)
    }

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Its number, from 0.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The Kafka partition it travels in, of `partitions`.
    pub fn partition(self, partitions: i32) -> i32 {
        i32::from(self.0) % partitions.max(1)
    }

    /// FNV-1a, 64 bits (draft-eastlake-fnv), over the id's 16 bytes in network order; its value mod 64.
    /// Frozen, with test vectors: a changed hash would reorder history.
    fn of(id: Uuid) -> Self {
        let hash = id
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        // Mod 64 is the lowest six bits: all of them are in the lowest byte.
        Self(hash.to_le_bytes()[0] % Self::COUNT)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u8> for Shard {
    type Error = NoShard;

    fn try_from(number: u8) -> Result<Self, NoShard> {
        Self::try_from(i16::from(number))
    }
}

impl TryFrom<i16> for Shard {
    type Error = NoShard;

    fn try_from(number: i16) -> Result<Self, NoShard> {
        u8::try_from(number).ok().filter(|shard| *shard < Self::COUNT).map(Self).ok_or(NoShard(number.into()))
    }
}

impl From<Shard> for i16 {
    fn from(shard: Shard) -> Self {
        shard.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_vectors_hold_for_good() {
        let vectors = [
            ("00000000-0000-0000-0000-000000000000", 37),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", 21),
            ("01890a5d-ac96-774b-bcce-b302099a8057", 51),
            ("018f3f4e-7c2a-7d10-8a3b-5e6f708192a3", 51),
        ];
        let found = vectors.map(|(id, _)| (id, Shard::of(id.parse().expect("a UUID")).number()));
        assert_eq!(found, vectors);
    }

    #[test]
    fn only_sixty_four_numbers_are_shards() {
        assert!(Shard::try_from(63_i16).is_ok());
        assert!(Shard::try_from(64_i16).is_err());
        assert!(Shard::try_from(-1_i16).is_err());
        assert!(serde_json::from_str::<Shard>("64").is_err());
    }
}
