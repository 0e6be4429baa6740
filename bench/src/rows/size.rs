//! What it costs that a store, a thread or a stream is large: each beside the same in a small one.

mod long;
mod reads;

use super::{append, fresh, projection::project, rebuild};
use crate::{
    burst,
    lab::Lab,
    pairs::Pairs,
    report::{Bound, Report, Unit},
};

/// Posts of a made-up forum, and about how many events that makes. The last takes minutes to fill.
const SIZES: [(u64, &str); 3] = [(3_700, "10,000"), (37_000, "100,000"), (370_000, "1,000,000")];
/// The same in a minute.
const QUICK_SIZES: [(u64, &str); 2] = [(3_700, "10,000"), (18_500, "50,000")];
/// Posts of a history from which on the last is measured too.
const LARGE: u64 = 50_000;
/// Posts of one that is as good as empty; of an empty one there is nothing to rebuild.
const NOTHING: u64 = 50;
/// Events that are projected.
const BURST: i64 = 10_000;
/// Flat within a fifth.
const FLAT: Bound = Bound::Least(0.8);
/// Linear: a thousand events may take so many times as long as in a store that is a tenth.
const LINEAR: Bound = Bound::Most(1.2);

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let sizes = match &lab.options {
        options if options.quick => &QUICK_SIZES[..],
        options if options.size < LARGE => &SIZES[..2],
        _ => &SIZES[..],
    };
    let (small, baseline) = (Bed::new(lab, sizes[0]).await?, sizes[0].1);
    let mut smaller = rebuild::Bed::new(lab, sizes[0].0).await?;
    let (mut smaller_has, nothing) = (baseline, lab.filled(NOTHING).await?);
    for size in &sizes[1..] {
        let large = Bed::new(lab, *size).await?;
        let beside = |what: &str| format!("{what}, {} events in the store", size.1);
        let pairs = Pairs::take(lab.options.pairs, || large.append(), || small.append()).await?;
        report.beside(beside("append, 64 in flight"), Unit::PerSecond, &pairs, baseline, Some(FLAT));
        reads::measure(lab, [&large.database, &small.database], &beside, baseline, report).await?;
        let pairs = Pairs::take(lab.options.pairs, || large.project(), || small.project()).await?;
        report.beside(beside("live projection"), Unit::PerSecond, &pairs, baseline, Some(FLAT));
        lab.drop(&large.database).await?;
        let rebuilt = rebuild::Bed::new(lab, size.0).await?;
        let pairs =
            Pairs::take(lab.options.pairs, || rebuilt.thousand(&nothing), || smaller.thousand(&nothing)).await?;
        report.beside(beside("rebuild, a thousand events"), Unit::Ms, &pairs, smaller_has, Some(LINEAR));
        if size.0 > LARGE {
            fresh::row(lab, size.0, &rebuilt, &beside(fresh::NAME), report).await?;
        }
        std::mem::replace(&mut smaller, rebuilt).end().await?;
        smaller_has = size.1;
    }
    smaller.end().await?;
    lab.drop(&nothing).await?;
    long::thread(lab, &small.database, report).await?;
    long::stream(lab, &small.database, report).await?;
    lab.drop(&small.database).await
}

/// A database that nobody is connected to, all of it projected.
struct Bed<'a> {
    lab: &'a Lab,
    database: String,
}

impl<'a> Bed<'a> {
    /// With a made-up forum of so many posts.
    async fn new(lab: &'a Lab, (posts, _): (u64, &str)) -> anyhow::Result<Self> {
        Ok(Self { lab, database: lab.filled(posts).await? })
    }

    async fn append(&self) -> anyhow::Result<f64> {
        let database = self.lab.copy(&self.database).await?;
        let rate = append::Bed { lab: self.lab, database: &database }.ours(64).await?;
        self.lab.drop(&database).await?;
        Ok(rate)
    }

    async fn project(&self) -> anyhow::Result<f64> {
        let database = self.lab.copy(&self.database).await?;
        let replies = |from: i64, to: i64| burst::replies((to - from).unsigned_abs());
        let projected = project(self.lab, &database, replies, BURST).await?;
        self.lab.drop(&database).await?;
        Ok(projected.rate)
    }
}
