//! What was found out about a question, remembered for as long as the rows that it rests on stay as they were.
//!
//! That is asked of the database on each request, too, but one small question serves all who wait: how far the
//! projections have come in a shard. Up to there, the notices have told what changed; where they lag behind the rows,
//! the question itself is asked again.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use events::{Position, Shard};
use moka::sync::Cache;
use platform::problem::Problem;

use super::{AskFacts, Facts, Question, Subject};
use crate::{
    batch::Batch,
    cache::{Tag, Tick},
    changes::Changes,
    checkpoint::OfShard,
    projection::Projection,
};

/// Answers that are remembered at most: some 25 MB.
const REMEMBERED: u64 = 32_768;
/// And for how long, whatever no notice said: as finished answers.
const TIME_TO_LIVE: Duration = Duration::from_secs(10);

/// Where [`Facts`] are asked for.
pub(crate) struct Remembered {
    asked: Batch<AskFacts>,
    checkpoints: Batch<OfShard>,
    changes: Arc<Changes>,
    kept: Cache<Question, Arc<Kept>>,
}

struct Kept {
    facts: Arc<Facts>,
    /// The clock before their rows were read.
    born: Tick,
    /// The shard that the rows are of.
    shard: Shard,
    /// What they tell of.
    tags: Box<[Tag]>,
}

impl Remembered {
    pub(crate) fn new(asked: Batch<AskFacts>, checkpoints: Batch<OfShard>, changes: Arc<Changes>) -> Self {
        let kept = Cache::builder().max_capacity(REMEMBERED).time_to_live(TIME_TO_LIVE).build();
        Self { asked, checkpoints, changes, kept }
    }

    /// The facts, as the rows say them at some time after this call.
    ///
    /// # Errors
    /// 503 where the database is away, or too many ask; 500 for a defect.
    pub(crate) async fn ask(&self, question: Question) -> Result<Arc<Facts>, Problem> {
        if let Some(kept) = self.kept.get(&question)
            && self.holds(&kept, question.subject.joins()).await?
        {
            return Ok(Arc::clone(&kept.facts));
        }
        let born = self.changes.stamps.now();
        let facts = Arc::new(self.asked.ask(question.clone()).await?);
        if let Some((shard, tags)) = rest_on(&question, &facts) {
            let kept = Kept { facts: Arc::clone(&facts), born, shard, tags };
            self.kept.insert(question, Arc::new(kept));
        }
        Ok(facts)
    }

    /// Whether the rows are still as they were.
    async fn holds(&self, kept: &Kept, joins: &[Projection]) -> Result<bool, Problem> {
        let before: Vec<_> =
            joins.iter().map(|projection| (*projection, self.changes.known(*projection, kept.shard))).collect();
        let now = self.checkpoints.ask(kept.shard).await?;
        let told = |(projection, known): &(Projection, Position)| {
            let its = now.iter().find(|checkpoint| checkpoint.projection == *projection);
            its.is_some_and(|checkpoint| self.changes.told_up_to(checkpoint, *known))
        };
        // In this order: a change is in the stamps before it counts as told.
        Ok(before.iter().all(told)
            && self.changes.stamps.unchanged_since(kept.born, &kept.tags)
            && kept.facts.until.is_none_or(|until| Utc::now() < until))
    }
}

/// The shard and the things that the facts tell of; none where they are of several shards, or tell of nothing: then
/// there is no one thing whose change would be told.
fn rest_on(question: &Question, facts: &Facts) -> Option<(Shard, Box<[Tag]>)> {
    let community = facts.community?;
    let shard = Shard::of_community(community);
    let mut tags = vec![Tag::Thing(Projection::Community, community.0)];
    tags.extend(question.reader.map(|reader| Tag::Thing(Projection::Membership, reader.0)));
    match question.subject {
        Subject::Community(_) => {}
        Subject::Category(_) => tags.push(Tag::Thing(Projection::CategoryTree, community.0)),
        Subject::Thread(_) => tags.push(Tag::Thing(Projection::ThreadList, facts.thread?.0)),
        Subject::Post(post) => {
            tags.push(Tag::Thing(Projection::ThreadList, facts.thread?.0));
            tags.push(Tag::Thing(Projection::ThreadPage, post.0));
        }
        // A name may be taken by another, in another shard.
        Subject::Slug(_) | Subject::Username(_) | Subject::Account(_) | Subject::Everywhere => return None,
    }
    tags.extend(question.subject.joins().iter().map(|projection| Tag::Shard(*projection, shard)));
    Some((shard, tags.into()))
}
