//! A read that may go on: who asks was admitted, and to what they see.

#[cfg(feature = "micro")]
pub(crate) mod micro;

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use chrono::Utc;
use events::{AccountId, HistoryId, Position, PositionToken, Shard, ThreadId};
use platform::{
    db::Connections,
    identity::{Authenticates, Authenticator},
    problem::Problem,
    sabotage::{Promise, breaks},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use crate::{
    answer::{Answer, ETag, Known, Whole},
    batch::Batch,
    cache::{Cache, Entry, Key, Reflected, Tag},
    changes::Changes,
    failure::Failure,
    freshness::{Freshness, Wanted, not_yet},
    history::History,
    projection::Projection,
    reaction::OwnReactions,
    view::{Reflects, Sight, Snapshot, View},
    visibility::{AskPrivate, Audience, Remembered},
};

/// How often an answer is looked for that is as fresh as wanted. The first own load is, unless the database was put
/// back to an earlier state meanwhile.
const ATTEMPTS: usize = 3;

/// Everything that reads go through. Clones share it.
#[derive(Clone)]
pub(crate) struct ReadSide(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) connections: Connections,
    pub(crate) cache: Cache,
    pub(crate) changes: Arc<Changes>,
    pub(crate) freshness: Freshness,
    pub(crate) facts: Remembered,
    pub(crate) private: Batch<AskPrivate>,
    pub(crate) history: History,
    pub(crate) authenticator: Arc<dyn Authenticator>,
}

impl ReadSide {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Authenticates for ReadSide {
    fn authenticator(&self) -> &Arc<dyn Authenticator> {
        &self.authenticator
    }
}

impl std::ops::Deref for ReadSide {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What a request says besides what it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) reader: Option<AccountId>,
    pub(crate) wanted: Wanted,
    pub(crate) known: Known,
}

/// See the module. Made by [`visibility`](crate::visibility) only, which decides what `S` is.
pub(crate) struct Reading<S> {
    side: ReadSide,
    sight: S,
    /// The shard that the answer is of; none where it is of several communities.
    shard: Option<Shard>,
    request: Request,
}

/// What only this reader is told: JSON, and its hash.
struct Mine {
    body: Bytes,
    hash: u64,
}

/// An answer that is good for a request, and what it reflects.
struct Shown {
    entry: Arc<Entry>,
    positions: Vec<PositionToken>,
}

impl<S: Send + Sync> Reading<S> {
    pub(crate) fn new(side: &ReadSide, sight: S, shard: Option<Shard>, request: Request) -> Self {
        Self { side: side.clone(), sight, shard, request }
    }

    /// For what is answered from elsewhere than the read tables.
    pub(crate) fn apart(self) -> (ReadSide, Request) {
        (self.side, self.request)
    }

    /// Answers with a view.
    pub(crate) async fn show<V: View<Sight = S>>(self, view: V) -> Result<Response, Problem> {
        let shown = self.find(&view, &self.sight).await?;
        Ok(self.answer(shown, None))
    }

    /// Answers with a view, and beside it with what only this reader is told, as `mine`. A guest is told nothing.
    pub(crate) async fn show_with<V: View<Sight = S>>(
        self,
        view: V,
        mine: &impl Serialize,
    ) -> Result<Response, Problem> {
        let shown = self.find(&view, &self.sight).await?;
        let mine = self.request.reader.map(|_| {
            let body = Bytes::from(serde_json::to_vec(mine).expect("numbers and text"));
            Mine { hash: hash(&body), body }
        });
        Ok(self.answer(shown, mine))
    }

    fn answer(self, shown: Shown, mine: Option<Mine>) -> Response {
        let Shown { entry, positions } = shown;
        let (etag, body) = match mine {
            None => (entry.etag, Whole::of(entry.body.clone())),
            Some(mine) => (ETag { hash: entry.etag.hash ^ mine.hash, ..entry.etag }, beside(&entry.body, &mine.body)),
        };
        let answer = Answer {
            etag,
            body,
            links: entry.links.clone(),
            positions,
            signed_in: self.request.reader.is_some(),
            waited: self.request.wanted.applied(),
        };
        answer.respond(&self.request.known)
    }

    /// The answer from the cache where it has one that is good for this request, else from the rows.
    async fn find<V: View>(&self, view: &V, sight: &V::Sight) -> Result<Shown, Problem> {
        let Parts { cache, freshness, .. } = &*self.side;
        let key = Key { sight: sight.clone().into(), view: view.clone().into() };
        freshness.reach(&self.request.wanted, V::JOINS).await?;
        if let Some(entry) = cache.get(&key).await
            && let Some(shown) = self.good::<V>(entry, &key.sight, true).await?
        {
            cache.count(&key.view, true);
            return Ok(shown);
        }
        cache.count(&key.view, false);
        // Boxed: it is many times as large as what most requests end with, and would be moved with each of them.
        Box::pin(self.make(view, sight, key)).await
    }

    /// The answer from the rows, or from somebody else's load of them.
    async fn make<V: View>(&self, view: &V, sight: &V::Sight, key: Key) -> Result<Shown, Problem> {
        let Parts { cache, freshness, .. } = &*self.side;
        for attempt in 1..=ATTEMPTS {
            let good = |entry: &Entry| {
                let (current, positions) = self.check::<V>(entry);
                current && self.request.wanted.within(&positions)
            };
            let entry = if attempt == 1 {
                cache.load(key.clone(), good, self.load(view, sight)).await?
            } else {
                // Rows that were found to have gone back are to be waited for; or what is kept shows what is not to be seen
                // any more, and the notice of that is still on its way.
                freshness.reach(&self.request.wanted, V::JOINS).await?;
                Arc::new(self.load(view, sight).await?)
            };
            if let Some(shown) = self.good::<V>(entry, &key.sight, false).await? {
                return Ok(shown);
            }
        }
        Err(not_yet("What Agora-Position names"))
    }

    /// The entry, if it is good for this request. One that was loaded just now need not be current: what has changed
    /// since need not be shown.
    async fn good<V: View>(&self, entry: Arc<Entry>, sight: &Sight, kept: bool) -> Result<Option<Shown>, Problem> {
        let (current, positions) = self.check::<V>(&entry);
        let fresh = (current || !kept) && self.request.wanted.within(&positions);
        Ok((fresh && self.in_sight(&entry, sight).await?).then_some(Shown { entry, positions }))
    }

    /// Whether nothing that the entry shows has changed, as far as is known, and what it reflects of its shards and of
    /// those that the request names.
    fn check<V: View>(&self, entry: &Entry) -> (bool, Vec<PositionToken>) {
        let changes = &self.side.changes;
        let history = entry.reflects.history;
        let mut positions: Vec<PositionToken> = Vec::with_capacity(entry.shards.len() + 1);
        let named = self.request.wanted.tokens().iter().map(|token| token.shard);
        for shard in entry.shards.iter().copied().chain(named) {
            if positions.iter().all(|token| token.shard != shard) {
                // Up to there every change is noted; before the stamps are asked.
                positions.push(PositionToken { history, shard, position: changes.noted(V::JOINS, shard) });
            }
        }
        let current = history == changes.history()
            && changes.stamps.unchanged_since(entry.born, &entry.tags)
            && entry.until.is_none_or(|until| Utc::now() < until);
        for token in &mut positions {
            let read = entry.reflects.in_shard(token.shard);
            token.position = if current { token.position.max(read) } else { read };
        }
        (current, positions)
    }

    /// Whether every community that the entry tells of may be seen, by the rows as they are now.
    async fn in_sight(&self, entry: &Entry, sight: &Sight) -> Result<bool, Problem> {
        let Some(horizon) = sight.horizon() else { return Ok(true) };
        if horizon.unbounded() || entry.communities.is_empty() {
            return Ok(true);
        }
        let private = self.side.private.ask(Arc::clone(&entry.communities)).await?;
        Ok(private.into_iter().all(|community| horizon.holds(community)))
    }

    /// Makes an answer of the rows as they are now.
    async fn load<V: View>(&self, view: &V, sight: &V::Sight) -> Result<Entry, Failure> {
        let Parts { connections, changes, .. } = &*self.side;
        let born = changes.stamps.now();
        let history = changes.history();
        let mut shards: Vec<Shard> = self.shard.map_or_else(|| Shard::all().collect(), |shard| vec![shard]);
        shards.extend(self.request.wanted.tokens().iter().map(|token| token.shard));
        shards.sort_unstable();
        shards.dedup();
        let noted: Vec<Position> = shards.iter().map(|shard| changes.noted(V::JOINS, *shard)).collect();
        let mut connection = connections.take().await?;
        let (rows, positions) = read(view, sight, &mut connection, &shards, history).await?;
        connection.give_back();
        for ((shard, position), noted) in shards.iter().zip(&positions).zip(noted) {
            if *position < noted {
                for projection in V::JOINS {
                    changes.fall_back(*projection, *shard, *position);
                }
            }
        }
        let positions = if breaks(Promise::TokenFromMemory) {
            let now = shards.iter().map(|shard| changes.noted(V::JOINS, *shard));
            positions.into_iter().zip(now).map(|(read, noted)| read.max(noted)).collect()
        } else {
            positions
        };
        let born = if breaks(Promise::OldLoad) { changes.stamps.now() } else { born };
        let page = view.page(sight, rows)?;
        let communities = page.shows.communities;
        let shown = |shard| vec![shard];
        let shards_shown =
            self.shard.map_or_else(|| communities.iter().map(|id| Shard::of_community(*id)).collect(), shown);
        Ok(Entry {
            born,
            etag: ETag { version: page.version, hash: hash(&page.body) },
            body: page.body.into(),
            links: page.links.header(),
            reflects: Reflected { history, positions: shards.into_iter().zip(positions).collect() },
            shards: shards_shown,
            tags: self.tags(page.shows.tags, V::JOINS, &sight.clone().into()),
            communities: communities.into(),
            posts: page.shows.posts.into(),
            until: page.shows.until,
        })
    }

    /// What the entry shows, and everything that may have changed when notices are lost.
    fn tags(&self, mut tags: Vec<Tag>, joins: &[Projection], sight: &Sight) -> Box<[Tag]> {
        tags.extend(joins.iter().map(|projection| match (sight, self.shard) {
            (Sight::Within(_), Some(shard)) => Tag::Shard(*projection, shard),
            (Sight::Across(_) | Sight::Belonging(_), _) | (_, None) => Tag::Lost(*projection),
        }));
        tags.sort_unstable();
        tags.dedup();
        tags.into()
    }
}

impl Reading<Audience> {
    /// Answers with a view of posts of this thread, and beside it, as `mine`, with the reader's own reactions.
    pub(crate) async fn show_posts<V: View<Sight = Audience>>(
        self,
        thread: ThreadId,
        view: V,
    ) -> Result<Response, Problem> {
        let mut shown = self.find(&view, &self.sight).await?;
        let Some(oneself) = self.request.oneself() else { return Ok(self.answer(shown, None)) };
        let own = OwnReactions { thread, posts: Arc::clone(&shown.entry.posts) };
        let reactions = self.find(&own, &oneself).await?;
        for token in &mut shown.positions {
            let other = reactions.positions.iter().find(|other| other.shard == token.shard);
            token.position = token.position.min(other.map_or(token.position, |other| other.position));
        }
        let Entry { body, etag, .. } = &*reactions.entry;
        Ok(self.answer(shown, Some(Mine { body: body.clone(), hash: etag.hash })))
    }
}

/// Reads the rows of a view, and for each shard up to where they reflect everything.
async fn read<V: View>(
    view: &V,
    sight: &V::Sight,
    connection: &mut PgConnection,
    shards: &[Shard],
    history: HistoryId,
) -> Result<(Vec<V::Row>, Vec<Position>), Failure> {
    let joins: Vec<String> = V::JOINS.iter().map(|projection| projection.name().to_owned()).collect();
    let shards: Vec<i16> = shards.iter().map(|shard| i16::from(*shard)).collect();
    let line = history.0;
    if !view.in_steps() {
        let rows = view.fetch(sight, &mut Snapshot { connection, joins: &joins, shards: &shards, line }).await?;
        if let Some(row) = rows.first() {
            let positions = row.positions().to_vec();
            return Ok((rows, positions));
        }
        // There is no row to say what this reflects: both again, in one snapshot.
    }
    let mut transaction = connection.begin_with("begin isolation level repeatable read, read only").await?;
    let snapshot = &mut Snapshot { connection: &mut transaction, joins: &joins, shards: &shards, line };
    let rows = view.fetch(sight, snapshot).await?;
    let positions = match rows.first() {
        Some(row) => row.positions().to_vec(),
        None => {
            sqlx::query_scalar!(r#"select positions as "positions!" from reflected($1, $2, $3)"#, &joins, &shards, line)
                .fetch_one(&mut *transaction)
                .await?
        }
    };
    transaction.rollback().await?;
    Ok((rows, positions))
}

/// The body with one field more at its end, `mine`. The body itself, which others share, is not copied.
fn beside(body: &Bytes, mine: &[u8]) -> Whole {
    const FIELD: &[u8] = b",\"mine\":";
    let open = body.strip_suffix(b"}").map_or_else(|| body.clone(), |open| body.slice_ref(open));
    Whole::of(open).and([FIELD, mine, b"}"].concat().into())
}

/// The first 64 bits of the SHA-256: the same in every instance.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*Sha256::digest(bytes).first_chunk().expect("a digest is longer"))
}
