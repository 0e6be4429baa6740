//! A hit of the cache by itself: without the network, and without the look at the rows that decides who may see.

use std::time::Duration;

use anyhow::Context as _;
use futures::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use platform::{
    db,
    identity::{Authenticator, Identity, TokenError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    AccountId, Arc, Audience, Bytes, Changes, ETag, Entry, History, Key, Known, PositionToken, Problem, ReadSide,
    Reading, Reflected, Request, Response, Shard, Tag, ThreadId, View, Wanted, hash,
};
use crate::{Config, SCHEMA, projection::Projection, read_side, thread_list::ThreadHead};

/// Things that a page of 20 posts shows: as many tags are looked at.
const THINGS: u128 = 25;
const VIEW: ThreadHead = ThreadHead { thread: ThreadId(Uuid::nil()) };

/// Is not asked.
struct Nobody;

impl Authenticator for Nobody {
    fn authenticate<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
        ready(Err(TokenError::Expired)).boxed()
    }
}

/// A finished answer, asked for by somebody who has been admitted and brings a position.
pub struct Hit {
    side: ReadSide,
    audience: Audience,
    shard: Shard,
    request: Request,
}

impl Hit {
    /// Keeps an answer with this body. In a runtime; no database is asked.
    ///
    /// # Errors
    /// Where a default of the configuration is refused.
    pub async fn of(body: Bytes) -> anyhow::Result<Self> {
        let config = Config::default();
        let db = db::connect_lazily(&config.database, SCHEMA, "agora micro", &[])?;
        let (changes, shutdown) = (Arc::new(Changes::new()), CancellationToken::new());
        shutdown.cancel();
        let history = History::start(&config.database, &changes, shutdown, &TaskTracker::new())?;
        let side = read_side(&config, &db, changes, history, Arc::new(Nobody))?;
        let shard = Shard::all().next().context("a shard")?;
        let token = PositionToken { history: side.changes.history(), shard, position: 0 };
        let wanted = Wanted::of(token, Duration::ZERO);
        let request = Request { reader: Some(AccountId(Uuid::nil())), wanted, known: Known::default() };
        let audience = request.oneself().context("a reader")?;
        let hit = Self { side, audience, shard, request };
        let things = (0..THINGS).map(|nth| Tag::Thing(Projection::ThreadPage, Uuid::from_u128(nth))).collect();
        let entry = Entry {
            born: hit.side.changes.stamps.now(),
            etag: ETag { version: 1, hash: hash(&body) },
            body,
            links: None,
            reflects: Reflected { history: token.history, positions: vec![(shard, 0)] },
            shards: vec![shard],
            tags: hit.reading().tags(things, ThreadHead::JOINS, &audience.into()),
            communities: Arc::default(),
            posts: Arc::default(),
            until: None,
        };
        let key = Key { sight: audience.into(), view: VIEW.into() };
        hit.side.cache.load(key, |_| true, async { Ok(entry) }).await.map_err(Problem::from)?;
        Ok(hit)
    }

    /// The answer, headers and all.
    ///
    /// # Panics
    /// Where it is not kept any more.
    pub fn answer(&self) -> Response {
        let shown = self.reading().show(VIEW).now_or_never();
        shown.expect("there is nothing to wait for").expect("it is there")
    }

    fn reading(&self) -> Reading<Audience> {
        Reading::new(&self.side, self.audience, Some(self.shard), self.request.clone())
    }
}
