//! The whole history, for who analyses it: which part of it ([`Asked`], [`Part`]), read in order by several statements at
//! once ([`Blocks`]), and where it goes: lines of JSON in a file that can be continued ([`mod@file`]), a topic of Kafka
//! ([`topic`]), Parquet ([`mod@export`]).

mod alone;
mod blocks;
pub mod export;
pub mod file;
pub mod seen;
pub mod topic;

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use events::{CommunityId, Event, HistoryId, Position, catalogue::catalogue};
use serde::{Deserialize, Serialize};
use store_reader::{Filter, StoreReader};

use crate::claims::{self, SLUG};

pub use blocks::{Block, Blocks, Gather, Lines};

/// How much a name has to be like another to be suggested in its place, of 1: as much as for clap.
const ALIKE: f64 = 0.7;

/// Which part of the history somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Behind this position.
    pub from: Position,
    /// Up to this position and with it; up to the last event of now where it is not said.
    pub to: Option<Position>,
    /// Recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Of these names; of all where there are none.
    pub types: Vec<String>,
    /// Of this community, by id or slug.
    pub community: Option<String>,
}

/// A part of the history, looked up: no event that is recorded later is in it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Behind this position.
    pub after: Position,
    /// Up to this position and with it.
    pub through: Position,
    /// Which events there.
    pub filter: Filter,
    /// The line of positions.
    pub history: HistoryId,
}

/// What makes two readings of the history one that was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The line of positions.
    pub history: HistoryId,
    /// Where it began.
    pub from: Position,
    /// Which names.
    pub types: Vec<String>,
    /// Which community.
    pub community: Option<CommunityId>,
}

impl Asked {
    /// Looks it up in the store.
    ///
    /// # Errors
    /// Where a name or a community is unknown, or the positions are not the store's.
    pub async fn look_up(self, store: &StoreReader) -> anyhow::Result<Part> {
        let types = known(self.types).context("--type")?;
        let community = match self.community {
            None => None,
            Some(named) => Some(find_community(store, &named).await.context("--community")?),
        };
        let head = store.head().await?;
        let through = self.to.unwrap_or(head);
        for (flag, position) in [("--from", self.from), ("--to", through)] {
            no_later(flag, position, head)?;
        }
        if through < self.from {
            bail!("--to {through} is before --from {}: nothing is between them", self.from);
        }
        let since = match self.since {
            None => 0,
            Some(time) => store.position_before(time).await?,
        };
        let after = self.from.max(since);
        Ok(Part { after, through, filter: Filter { types, community }, history: store.history().await? })
    }
}

impl Part {
    /// What it asks.
    pub fn question(&self) -> Question {
        let Self { after, filter, history, .. } = self;
        Question { history: *history, from: *after, types: filter.types.clone(), community: filter.community }
    }

    /// How many positions it goes over.
    pub fn positions(&self) -> u64 {
        u64::try_from(self.through - self.after).unwrap_or(0)
    }
}

/// Refuses a position that the store has not come to.
///
/// # Errors
/// Which names the flag, and the position `head` that it is at.
pub fn no_later(flag: &str, position: Position, head: Position) -> anyhow::Result<()> {
    ensure!(position <= head, "{flag}: there is no position {position} yet: the event store is at {head}");
    Ok(())
}

/// Sorted, each once: the same question however it was asked.
fn known(mut types: Vec<String>) -> anyhow::Result<Vec<String>> {
    types.sort();
    types.dedup();
    let Some(unknown) = types.iter().find(|name| Event::newest_version(name).is_none()) else { return Ok(types) };
    let near = catalogue().into_iter().map(|entry| (strsim::jaro(unknown, entry.name), entry.name));
    let meant = match near.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, name)) if likeness > ALIKE => format!(": did you mean `{name}`?"),
        _ => String::new(),
    };
    bail!("there is no event `{unknown}`{meant} (`agora events catalogue` prints all there are)")
}

async fn find_community(store: &StoreReader, named: &str) -> anyhow::Result<CommunityId> {
    let owner = claims::owner(store.pool(), SLUG, named).await?;
    Ok(owner.with_context(|| format!("there is no community `{named}`"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_one_that_is_like_it() {
        let refused = |name: &str| known(vec!["post.written".into(), name.into()]).expect_err("unknown").to_string();
        for (name, meant) in [
            ("post.writen", ": did you mean `post.written`?"),
            ("Thread.Started", ": did you mean `thread.started`?"),
            ("", ""),
            ("xyz", ""),
        ] {
            let said = format!("there is no event `{name}`{meant} (`agora events catalogue` prints all there are)");
            assert_eq!(refused(name), said);
        }
    }

    #[test]
    fn the_same_names_are_the_same_question() {
        let names = |names: &[&str]| known(names.iter().map(ToString::to_string).collect()).expect("known");
        assert_eq!(names(&["post.written", "post.edited", "post.written"]), names(&["post.edited", "post.written"]));
    }
}
