//! `agora up` on a store that has everything and a read database that has nothing, until all is projected; beside a
//! rebuild of the same read tables, which need not serve meanwhile.

use std::time::Instant;

use super::rebuild::Bed;
use crate::{
    lab::{Lab, connect},
    pairs::Pairs,
    process::Place,
    report::{Bound, Report, Unit},
    standing,
};

/// What is measured.
pub(super) const NAME: &str = "fresh start to caught up: events";

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let bed = Bed::new(lab, lab.options.size).await?;
    row(lab, lab.options.size, &bed, NAME, report).await?;
    bed.end().await
}

/// `bed` has so many posts.
pub(super) async fn row(lab: &Lab, size: u64, bed: &Bed<'_>, name: &str, report: &mut Report) -> anyhow::Result<()> {
    let pairs = Pairs::take(lab.options.pairs, || fresh(lab, size), || bed.rebuild()).await?;
    report.beside(name, Unit::PerSecond, &pairs, "rebuild", Some(Bound::Least(1.)));
    Ok(())
}

/// Events a second, from the start of the process.
async fn fresh(lab: &Lab, size: u64) -> anyhow::Result<f64> {
    let database = lab.unread(size).await?;
    let pool = connect(&database, 1).await?;
    lab.checkpoint().await?;
    let began = Instant::now();
    let up = lab.run("up", &Place { database: database.clone(), kafka: None, core: None }, &[]).await?;
    standing::caught_up(&pool).await?;
    let took = began.elapsed().as_secs_f64();
    let events = standing::events(&pool).await?;
    up.stop()?;
    pool.close().await;
    lab.drop(&database).await?;
    Ok(events / took)
}
