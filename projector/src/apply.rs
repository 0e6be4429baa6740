//! Applies moves to all projections in one transaction; where that does not work, to each in its own, and isolates what
//! cannot be applied down to the one event.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};

use events::{Event, HistoryId, Position, Shard};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use platform::{
    db::{Connections, Lent},
    sabotage::{Promise, breaks},
};
use sqlx::{Connection as _, postgres::PgRow};
use tokio::sync::Mutex;

use crate::{
    batch::{Batch, Content},
    checkpoint::{self, Park},
    lanes::Move,
    projection::{Changed, Fault, Kept, Projection},
    table::Writes,
};

/// A batch that folds fewer events than this is folded where it is; a larger one where it holds nobody up.
const FOLD_IN_PLACE: usize = 16;
/// Or fewer bytes: a long body takes milliseconds to render.
const FOLD_BYTES_IN_PLACE: usize = 32 * 1024;

/// `lock_not_available`, where somebody has locked what is not waited for, or not any longer.
const LOCKED: &str = "55P03";

/// The one connection of a batch: while one projection folds a large one, another loads.
type Connection<'a> = Mutex<Lent<'a>>;

/// A projection, whichever.
pub(crate) trait AnyProjection: Send + Sync {
    /// [`Projection::NAME`].
    fn name(&self) -> &'static str;
    /// [`Projection::VERSION`].
    fn version(&self) -> i32;
    /// [`Projection::TABLES`].
    fn tables(&self) -> &'static [Kept];
    /// [`Projection::concerns`].
    fn concerns(&self, event: &Event) -> bool;
    /// Loads the rows that the events of these indices need, and folds the events into them.
    ///
    /// Outside the transaction that writes them: folding may take longer than a transaction may lie idle. Where others
    /// wrote those rows meanwhile, that transaction does not find its checkpoints, and nothing of this is written.
    /// [`cautious`](Writes::new) is how they are written.
    fn fold<'a>(
        &'a self,
        batch: &'a Batch,
        folds: Vec<usize>,
        cautious: bool,
        read: &'a Connection<'_>,
    ) -> BoxFuture<'a, Result<Folded, Failure>>;
}

/// What came of folding events into rows.
#[derive(Default)]
pub(crate) struct Folded {
    /// What is to be written.
    writes: Writes,
    /// What was changed, by shard.
    changed: HashMap<Shard, Changed>,
}

/// Makes [`AnyProjection`] of a [`Projection`].
pub(crate) struct Of<P>(pub(crate) PhantomData<fn() -> P>);

impl<P: Projection> AnyProjection for Of<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> i32 {
        P::VERSION
    }

    fn tables(&self) -> &'static [Kept] {
        P::TABLES
    }

    fn concerns(&self, event: &Event) -> bool {
        P::concerns(event)
    }

    fn fold<'a>(
        &'a self,
        batch: &'a Batch,
        folds: Vec<usize>,
        cautious: bool,
        read: &'a Connection<'_>,
    ) -> BoxFuture<'a, Result<Folded, Failure>> {
        async move {
            let contents = folds.iter().filter_map(|index| batch[*index].content.as_ref().ok());
            let events: Vec<_> = contents.flat_map(Content::recorded).filter(|it| P::concerns(it.event)).collect();
            let payloads = events.iter().map(|event| event.envelope.payload.get().len()).sum::<usize>();
            let in_place = folds.len() < FOLD_IN_PLACE && payloads < FOLD_BYTES_IN_PLACE;
            let rows = P::load(&events, &mut *read.lock().await).await?;
            drop(events);
            if in_place {
                return fold::<P>(rows, batch, &folds, cautious);
            }
            let batch = Batch::clone(batch);
            let folding = tokio::task::spawn_blocking(move || fold::<P>(rows, &batch, &folds, cautious));
            folding.await.map_err(|error| Failure::Trouble(error.into()))?
        }
        .boxed()
    }
}

fn fold<P: Projection>(mut rows: P::Rows, batch: &Batch, folds: &[usize], cautious: bool) -> Result<Folded, Failure> {
    let mut changed: HashMap<Shard, Changed> = HashMap::new();
    for index in folds {
        let item = &batch[*index];
        let Ok(content) = &item.content else { continue };
        let changed = changed.entry(item.shard).or_default();
        for recorded in content.recorded().filter(|recorded| P::concerns(recorded.event)) {
            // A panic is a defect of ours that this event brought out: it stops one shard, not the process.
            let folded = catch_unwind(AssertUnwindSafe(|| P::fold(&mut rows, &recorded, changed)));
            let folded = folded.unwrap_or_else(|panic| Err(Fault::Panic(words(&*panic))));
            folded.map_err(|fault| Failure::Fault { index: *index, reason: fault.to_string() })?;
        }
    }
    let mut writes = Writes::new(cautious);
    P::write(rows, &mut writes);
    Ok(Folded { writes, changed })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The event of this index cannot be folded.
    Fault { index: usize, reason: String },
    /// Postgres refuses a value; it does not say of which event.
    Data(String),
    /// These shards are not where they were believed to be.
    Stale(HashSet<Shard>),
    /// Nothing that an event is to blame for.
    Trouble(anyhow::Error),
}

impl Failure {
    /// Whether `lock_timeout` or `statement_timeout` ended it.
    pub(crate) fn is_patience_at_an_end(&self) -> bool {
        let Self::Trouble(error) = self else { return false };
        error.downcast_ref().is_some_and(|error| has_code(error, LOCKED) || has_code(error, "57014"))
    }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|its| its == code)
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        // Data exceptions and integrity constraint violations.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code {
            Some(code) if code.starts_with("22") || code.starts_with("23") => Self::Data(error.to_string()),
            _ => Self::Trouble(error.into()),
        }
    }
}

/// What became of a move.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is committed.
    Moved { from: Position, to: Position, events: usize, changed: Changed },
    /// The lane stopped, with everything before that event applied.
    Parked(Park),
    /// The lane is not where it was believed to be.
    Stale,
}

/// Who applies, to what.
pub(crate) struct Target<'a> {
    pub(crate) projection: &'a dyn AnyProjection,
    pub(crate) rows: &'a Connections,
    pub(crate) history: HistoryId,
}

impl Target<'_> {
    /// Applies moves of different lanes, all in one transaction as long as nothing is wrong with them.
    pub(crate) fn apply<'a>(
        &'a self,
        batch: &'a Batch,
        mut moves: Vec<Move>,
    ) -> BoxFuture<'a, anyhow::Result<Vec<(Shard, Outcome)>>> {
        async move {
            let (mut outcomes, mut cautious) = (Vec::new(), false);
            while !moves.is_empty() {
                match commit(self.rows, self.history, batch, &[(self.projection, &moves)], cautious).await {
                    Ok(changed) => {
                        let changed = changed.into_iter().next().unwrap_or_default();
                        outcomes.extend(committed(moves, changed, batch));
                        break;
                    }
                    Err(Failure::Stale(shards)) => {
                        moves.retain(|its| !shards.contains(&its.shard));
                        outcomes.extend(shards.into_iter().map(|shard| (shard, Outcome::Stale)));
                    }
                    Err(Failure::Fault { index, reason }) => {
                        let guilty = moves.iter().position(|its| its.folds.contains(&index));
                        let guilty = guilty.map(|nth| moves.swap_remove(nth));
                        moves.extend(guilty.map(|its| its.parked_at(index, batch, reason)));
                    }
                    // A row that should be new, and was there: of events that were skipped, perhaps.
                    Err(Failure::Data(_)) if !cautious => cautious = true,
                    Err(Failure::Data(reason)) => {
                        outcomes.extend(self.halve(batch, moves, reason).await?);
                        break;
                    }
                    Err(Failure::Trouble(error)) => return Err(error),
                }
            }
            Ok(outcomes)
        }
        .boxed()
    }

    /// Looks for the event that holds what Postgres refuses.
    async fn halve(
        &self,
        batch: &Batch,
        mut moves: Vec<Move>,
        reason: String,
    ) -> anyhow::Result<Vec<(Shard, Outcome)>> {
        if moves.len() > 1 {
            let others = moves.split_off(moves.len() / 2);
            let mut outcomes = self.apply(batch, moves).await?;
            outcomes.extend(self.apply(batch, others).await?);
            return Ok(outcomes);
        }
        let Some(its) = moves.pop() else { return Ok(Vec::new()) };
        match its.folds[..] {
            [] => anyhow::bail!("the checkpoint of {} does not move: {reason}", self.projection.name()),
            [guilty] => self.apply(batch, vec![its.parked_at(guilty, batch, reason)]).await,
            _ => {
                let middle = its.folds[its.folds.len() / 2];
                let (before, rest) = its.split(middle, batch);
                let mut outcomes = self.apply(batch, vec![before]).await?;
                if outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Moved { .. })) {
                    outcomes.extend(self.apply(batch, vec![rest]).await?);
                }
                Ok(outcomes)
            }
        }
    }
}

/// Applies moves of different projections, all in one transaction or nothing of them; answers what each changed.
/// [`cautious`](Writes::new) is how rows are written.
///
/// # Errors
/// Why nothing was written; or, where it was the commit that failed, why nobody knows.
pub(crate) async fn commit(
    rows: &Connections,
    history: HistoryId,
    batch: &Batch,
    plans: &[(&dyn AnyProjection, &[Move])],
    cautious: bool,
) -> Result<Vec<HashMap<Shard, Changed>>, Failure> {
    let named = plans.iter().flat_map(|(projection, moves)| moves.iter().map(|its| (projection.name(), its)));
    let named: Vec<_> = named.collect();
    let parks = || named.iter().filter_map(|(name, its)| Some((*name, its.shard, its.park.as_ref()?)));
    let mut connection = Connection::new(rows.take().await?);
    let mut is_locked = false;
    loop {
        let folding =
            plans.iter().map(|(projection, moves)| fold_moves(*projection, moves, batch, cautious, &connection));
        let folded = join_all(folding).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut writes = Writes::default();
        let changed = folded.into_iter().map(|its| {
            writes.extend(its.writes);
            its.changed
        });
        let changed = changed.collect();
        let alone = writes.is_one_statement() && parks().next().is_none() && !breaks(Promise::CheckpointApart);
        let to = connection.get_mut();
        if alone && !is_locked {
            // A transaction of its own: three round trips less, which take as long as the rows of a small batch. It has all its
            // tables at once, and does not wait with them for the checkpoints: who holds those may be about to swap the tables.
            match writes.run_behind(checkpoint::advance(history, &named, batch, false), to).await {
                Err(error) if has_code(&error, LOCKED) => {
                    is_locked = true;
                    continue;
                }
                said => stands(&said?)?,
            }
        } else {
            let mut transaction = to.begin().await?;
            let advance = checkpoint::advance(history, &named, batch, true);
            let advanced = if breaks(Promise::CheckpointApart) {
                Writes::default().run_behind(advance, &mut *rows.take().await?).await?
            } else {
                Writes::default().run_behind(advance, &mut transaction).await?
            };
            stands(&advanced)?;
            for (name, shard, park) in parks() {
                checkpoint::park(&mut transaction, name, shard, park).await?;
            }
            writes.run(&mut transaction).await?;
            transaction.commit().await?;
        }
        connection.into_inner().give_back();
        return Ok(changed);
    }
}

fn stands(said: &[PgRow]) -> Result<(), Failure> {
    if said.is_empty() { Ok(()) } else { Err(Failure::Stale(checkpoint::stale(said)?)) }
}

async fn fold_moves(
    projection: &dyn AnyProjection,
    moves: &[Move],
    batch: &Batch,
    cautious: bool,
    read: &Connection<'_>,
) -> Result<Folded, Failure> {
    // In order of position, whatever their shards: a projection sees what the store has seen.
    let mut folds: Vec<usize> = moves.iter().flat_map(|its| its.folds.iter().copied()).collect();
    folds.sort_unstable();
    if folds.is_empty() { Ok(Folded::default()) } else { projection.fold(batch, folds, cautious, read).await }
}

/// What became of moves that were committed.
pub(crate) fn committed(
    moves: Vec<Move>,
    mut changed: HashMap<Shard, Changed>,
    batch: &Batch,
) -> impl Iterator<Item = (Shard, Outcome)> {
    moves.into_iter().flat_map(move |its| {
        let (to, _) = its.to(batch);
        let changed = changed.remove(&its.shard).unwrap_or_default();
        let (from, events) = (its.from, its.passes.len());
        let gone = (to > from).then_some(Outcome::Moved { from, to, events, changed });
        let parked = its.park.map(Outcome::Parked);
        gone.into_iter().chain(parked).map(move |outcome| (its.shard, outcome))
    })
}
