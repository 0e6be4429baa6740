//! A thread as it was: its posts at a moment of the history, folded from their events. For moderators.
//!
//! The read tables tell which posts the thread has, as the store has no index of that; what they were is read from the
//! events alone. Only names are as they are now.

mod fold;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{
    DecodeError, Envelope, Event, HistoryId, Position, PositionToken, PostEvent, ReactionEvent, Shard, ThreadId,
    post::Format,
};
use futures::{Stream, TryStreamExt as _};
use moka::future::Cache as Moka;
use platform::{
    extract::moment,
    problem::{FieldError, Problem},
};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use store_reader::{StoreReader, Unreadable};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{PostRow, Posts};
use crate::{
    answer::{Answer, ETag, Known, Whole},
    cursor::{Direction, Place},
    freshness::not_yet,
    listing::{self, Listing, fitting},
    projection::Projection,
    reading::{ReadSide, Request, hash},
    visibility::InThread,
};
pub(crate) use fold::ThreadThen;
use fold::{PostThen, PostsThen, ReactionsThen};

/// Posts whose events are read in one statement.
const TOGETHER: usize = 256;
/// Posts that are kept of what was folded, some 200 bytes each.
const POSTS_KEPT: u64 = 100_000;
/// For how long: as somebody goes through the pages.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Threads folded at once.
const FOLDED_AT_ONCE: usize = 2;
/// By how much a client's clock may be ahead: a time up to so far in the future is taken for now.
const LEEWAY: chrono::Duration = chrono::Duration::seconds(5);

/// A moment of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum AsOf {
    /// Everything up to this position, and with it.
    Position(Position),
    /// Everything that was recorded up to this time.
    Time(DateTime<Utc>),
}

impl TryFrom<String> for AsOf {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let rule = "must be a position, or a time as in RFC 3339, like 2030-01-31T12:00:00Z";
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Position).map_err(|_| rule);
        }
        moment(&text).map(Self::Time).map_err(|_| rule)
    }
}

/// With `as_of`: what the posts are shown as of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Moment {
    /// Everything up to this position is in it, and nothing later.
    #[schema(value_type = i64)]
    position: Position,
    /// The thread as it was then.
    thread: ThreadThen,
}

/// What page of the thread is asked for.
pub(super) struct Wanted<'a> {
    pub(super) as_of: AsOf,
    pub(super) from: Option<i32>,
    pub(super) limit: u32,
    pub(super) cursor: Option<&'a str>,
}

/// A thread as it was, but for the texts.
pub(crate) struct Then {
    thread: ThreadThen,
    posts: Vec<PostThen>,
}

/// Threads as they were that were asked for lately, and whose turn it is to fold one: it takes as long as the thread is, and
/// others read meanwhile.
pub(crate) struct Folded {
    kept: Moka<(HistoryId, ThreadId, Position), Arc<Then>>,
    turns: Semaphore,
}

impl Default for Folded {
    fn default() -> Self {
        let posts = |_: &_, then: &Arc<Then>| u32::try_from(then.posts.len() + 1).unwrap_or(u32::MAX);
        let kept = Moka::builder().max_capacity(POSTS_KEPT).weigher(posts).time_to_live(KEPT_FOR).build();
        Self { kept, turns: Semaphore::new(FOLDED_AT_ONCE) }
    }
}

/// Reads one thread at one moment.
struct Look {
    side: ReadSide,
    store: StoreReader,
    request: Request,
    thread: ThreadId,
    shard: Shard,
    line: HistoryId,
    position: Position,
}

pub(super) async fn show(at: InThread, wanted: Wanted<'_>) -> Result<Response, Problem> {
    let InThread { thread, community, reading, .. } = at.moderated()?;
    let (side, request) = reading.apart();
    let store = side.history.store().await?;
    let (line, head) = store.standing().await?;
    let position = wanted.as_of.position(store, head).await?;
    let listing = wanted.listing(thread, position)?;
    let (shard, store) = (Shard::of_community(community), store.clone());
    let look = Look { request, thread, shard, line, position, store, side: side.clone() };
    let then = look.then(head).await?;
    let rows = look.rows(&then.thread, &then.posts, &listing).await?;
    let mut paged = listing.page(rows, |row| row.number);
    let last = listing.cursor(&Place { key: i32::MAX, direction: Direction::Backward });
    paged.links.add("last", &listing.target(Some(("cursor", &last))));
    let version = then.thread.version;
    let items = paged.rows.into_iter().map(PostRow::into_body).collect();
    let as_of = Some(Moment { position, thread: then.thread.clone() });
    let body = Posts { as_of, ..Posts::new(items, paged.next, paged.previous) };
    let body = serde_json::to_vec(&body).expect("bodies are numbers, text and lists of them");
    let answer = Answer {
        etag: ETag { version, hash: hash(&body) },
        body: Whole::of(body),
        links: paged.links.header(),
        positions: vec![PositionToken { history: line, shard: look.shard, position }],
        signed_in: true,
        waited: look.request.wanted.applied(),
    };
    // What was taken back since is nobody's to keep (RFC 9111, section 5.2.2.5): so there is nothing to compare, either.
    let mut response = answer.respond(&Known::default());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().remove(header::ETAG);
    Ok(response)
}

impl AsOf {
    /// The last position of it.
    async fn position(self, store: &StoreReader, head: Position) -> Result<Position, Problem> {
        match self {
            Self::Position(position) if position > head => {
                Err(in_the_future(&format!("is a position that there is not yet: the event store is at {head}")))
            }
            Self::Position(position) => Ok(position),
            Self::Time(time) if time > Utc::now() + LEEWAY => Err(in_the_future("is a time that has not come yet")),
            // To the microsecond, as times are recorded.
            Self::Time(time) => Ok(store.position_before(time + chrono::Duration::microseconds(1)).await?.min(head)),
        }
    }
}

fn in_the_future(words: &str) -> Problem {
    let refused = listing::refused(vec![FieldError::new("?as_of", "in_the_future", words)]);
    refused.expect_err("there is an error")
}

impl Wanted<'_> {
    /// Its pages are all as of one position, whatever happens in between.
    fn listing(&self, thread: ThreadId, position: Position) -> Result<Listing<i32>, Problem> {
        let position = position.to_string();
        let path = format!("/v2/threads/{thread}/posts");
        let listing = Listing::new(path, &[("as_of", Some(&position))], self.limit, self.cursor)?;
        Ok(match self.from.filter(|from| *from > 1) {
            Some(from) => listing.starting(Place { key: from - 1, direction: Direction::Forward }),
            None => listing,
        })
    }
}

impl Look {
    /// The thread and its posts then. What was is not to change any more: who goes from page to page folds them once.
    async fn then(&self, head: Position) -> Result<Arc<Then>, Problem> {
        let (folded, key) = (&self.side.history.folded, (self.line, self.thread, self.position));
        if let Some(then) = folded.kept.get(&key).await {
            return Ok(then);
        }
        let _turn = folded.turns.acquire().await.expect("never closed");
        if let Some(then) = folded.kept.get(&key).await {
            return Ok(then);
        }
        let thread = self.thread(head).await?;
        let then = Arc::new(Then { thread, posts: self.posts().await?.by_number() });
        folded.kept.insert(key, Arc::clone(&then)).await;
        Ok(then)
    }

    async fn thread(&self, head: Position) -> Result<ThreadThen, Problem> {
        let id = [self.thread.to_string()];
        let (mut then, mut began) = (None, None);
        self.fold(self.store.streams("thread", &id, head), |event| {
            began = began.or(Some((event.position, event.recorded_at)));
            if event.position > self.position { Ok(()) } else { ThreadThen::take(&mut then, event) }
        })
        .await?;
        then.ok_or_else(|| not_begun(began))
    }

    async fn posts(&self) -> Result<PostsThen, Problem> {
        let mut posts = PostsThen::default();
        for ids in self.post_ids().await?.chunks(TOGETHER) {
            self.fold(self.store.streams("post", ids, self.position), |event| posts.take(event)).await?;
        }
        Ok(posts)
    }

    /// All posts that the thread has, once the read tables know of those that it had then.
    async fn post_ids(&self) -> Result<Vec<String>, Problem> {
        let position = self.store.heads_at(self.position).await?.of(self.shard);
        let token = PositionToken { history: self.line, shard: self.shard, position };
        let reached = self.side.freshness.reach(&self.request.wanted.instead(token), &[Projection::ThreadPage]).await;
        // No position that the client named: of that moment, and tables of another history are on their way to this one.
        reached.map_err(|problem| match problem.name() {
            "history-lost" | "position-not-reached" => not_yet("What was then"),
            _ => problem,
        })?;
        let ids = sqlx::query_scalar!("select post_id from post where thread_id = $1", self.thread.0);
        let mut connection = self.side.connections.take().await?;
        let ids = ids.fetch_all(&mut *connection).await?;
        connection.give_back();
        Ok(ids.iter().map(Uuid::to_string).collect())
    }

    /// The rows of a page, as [`Listing::page`] takes them.
    async fn rows(
        &self,
        thread: &ThreadThen,
        posts: &[PostThen],
        listing: &Listing<i32>,
    ) -> Result<Vec<PostRow>, Problem> {
        let picked = pick(posts, listing);
        let mut texts = self.texts(&picked).await?;
        let mut reactions = self.reactions(&picked).await?;
        let names = self.names(&picked).await?;
        let replies = replies(posts);
        let mut rows = Vec::with_capacity(picked.len());
        for (number, post) in picked {
            // Those that have no room are not rendered.
            if rows.len() > fitting(&rows, 2) {
                break;
            }
            let (children, seen) = replies.get(&post.id).copied().unwrap_or_default();
            let reacted = reactions.remove(&post.id).unwrap_or_default();
            let name = post.author.and_then(|author| names.get(&author).cloned());
            let (username, display_name) = name.unwrap_or_default();
            let score = reacted.score();
            let text = texts.remove(&post.text);
            rows.push(PostRow {
                positions: Vec::new(),
                post_id: post.id,
                thread_id: self.thread.0,
                thread_title: thread.title.clone(),
                thread_version: thread.version,
                community_id: Uuid::nil(),
                community_slug: None,
                community_name: None,
                number,
                parent_id: post.parent,
                depth: i16::from(post.depth),
                path: Vec::new(),
                author_id: post.author,
                author_username: username,
                author_display_name: display_name,
                created_at: post.created_at,
                edited_at: post.edited_at,
                revision: i32::try_from(post.revision).unwrap_or(i32::MAX),
                format: text.as_ref().map_or("markdown", |(_, format)| word(*format)).to_owned(),
                body_html: text.as_ref().filter(|_| !post.deleted).map(|(body, format)| rendering::html(body, *format)),
                body: text.map(|(body, _)| body).filter(|_| !post.deleted),
                children,
                replies: seen,
                score,
                reactions: Json(reacted.kinds),
                imported_up: reacted.imported.0,
                imported_down: reacted.imported.1,
                accepted: thread.answer_id == Some(post.id) && post.can_be_seen(),
                deleted: post.deleted,
                hidden: post.hidden,
                version: post.version,
            });
        }
        Ok(rows)
    }

    /// By where they stand.
    async fn texts(&self, posts: &[(i32, &PostThen)]) -> Result<HashMap<Position, (String, Format)>, Problem> {
        let at: Vec<Position> = posts.iter().map(|(_, post)| post.text).collect();
        let mut texts = HashMap::with_capacity(at.len());
        self.fold(self.store.at(&at), |envelope| {
            for event in envelope.decode()? {
                match event {
                    Event::Post(PostEvent::Written(written)) => {
                        texts.insert(envelope.position, (written.body, written.format));
                    }
                    Event::Post(PostEvent::Edited(edited)) => {
                        texts.insert(envelope.position, (edited.body, edited.format));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await?;
        Ok(texts)
    }

    async fn reactions(&self, posts: &[(i32, &PostThen)]) -> Result<HashMap<Uuid, ReactionsThen>, Problem> {
        let ids: Vec<String> = posts.iter().map(|(_, post)| post.id.to_string()).collect();
        let mut last: HashMap<String, ReactionEvent> = HashMap::new();
        let mut take = |envelope: &Envelope| {
            let reactions = envelope.decode()?.into_iter().filter_map(|event| match event {
                Event::Reaction(event) => Some((envelope.stream.id.clone(), event)),
                _ => None,
            });
            last.extend(reactions);
            Ok(())
        };
        let passed = self.fold(self.store.last_of_streams_below("reaction", &ids, self.position), &mut take).await?;
        if !passed.is_empty() {
            // What stands is what the last one said that can be read.
            let streams: Vec<String> = passed.into_iter().map(|event| event.stream.id).collect();
            self.fold(self.store.streams("reaction", &streams, self.position), &mut take).await?;
        }
        let mut reactions: HashMap<Uuid, ReactionsThen> = HashMap::new();
        for (stream, event) in last {
            let post = stream.split_once('.').and_then(|(post, _)| post.parse().ok());
            if let Some(post) = post {
                reactions.entry(post).or_default().take(event);
            }
        }
        Ok(reactions)
    }

    /// Takes in events, each as it can be read; answers those that cannot be, and that every reader leaves out. Whether they
    /// are left out is asked when the rows are through, and their connection is free: there are few.
    async fn fold(
        &self,
        events: impl Stream<Item = sqlx::Result<Result<Envelope, Unreadable>>>,
        mut take: impl FnMut(&Envelope) -> Result<(), DecodeError>,
    ) -> Result<Vec<Unreadable>, Problem> {
        let mut met = Vec::new();
        {
            let mut events = pin!(events);
            while let Some(event) = events.try_next().await? {
                let taken = event.and_then(|event| take(&event).map_err(|error| Unreadable::of(&event, error)));
                // What came later is nobody's business here.
                met.extend(taken.err().filter(|met| met.position <= self.position));
            }
        }
        match self.store.not_left_out(met.clone()).await?.first() {
            None => Ok(met),
            Some(stop) => {
                let before = format_args!("The thread is shown as of a moment before it: as_of={}.", stop.position - 1);
                Err(self.side.history.unreadable(stop, before))
            }
        }
    }

    /// Usernames and the names shown, of the authors.
    async fn names(
        &self,
        posts: &[(i32, &PostThen)],
    ) -> Result<HashMap<Uuid, (Option<String>, Option<String>)>, Problem> {
        let authors: Vec<Uuid> = posts.iter().filter_map(|(_, post)| post.author).collect();
        let names =
            sqlx::query!("select account_id, username, display_name from account where account_id = any($1)", &authors);
        let mut connection = self.side.connections.take().await?;
        let names = names.fetch_all(&mut *connection).await?;
        connection.give_back();
        Ok(names.into_iter().map(|row| (row.account_id, (Some(row.username), Some(row.display_name)))).collect())
    }
}

/// The posts that a page may show, with their numbers, in the direction that it is read.
fn pick<'p>(posts: &'p [PostThen], listing: &Listing<i32>) -> Vec<(i32, &'p PostThen)> {
    let numbered = (1..).zip(posts);
    let from = listing.from().copied();
    let rows = usize::try_from(listing.rows()).unwrap_or(usize::MAX);
    match listing.direction() {
        Direction::Forward => numbered.filter(|(number, _)| *number > from.unwrap_or(0)).take(rows).collect(),
        Direction::Backward => {
            let before: Vec<_> = numbered.filter(|(number, _)| *number < from.unwrap_or(i32::MAX)).collect();
            before.into_iter().rev().take(rows).collect()
        }
    }
}

/// Of each post, the direct replies, and those that can be seen.
fn replies(posts: &[PostThen]) -> HashMap<Uuid, (i32, i32)> {
    let mut replies: HashMap<Uuid, (i32, i32)> = HashMap::new();
    for post in posts {
        if let Some(parent) = post.parent {
            let (all, seen) = replies.entry(parent).or_default();
            (*all, *seen) = (*all + 1, *seen + i32::from(post.can_be_seen()));
        }
    }
    replies
}

fn word(format: Format) -> &'static str {
    match format {
        Format::Markdown => "markdown",
        Format::Html => "html",
    }
}

fn not_begun(began: Option<(Position, DateTime<Utc>)>) -> Problem {
    let later = began.map(|(position, at)| {
        format!(": it began at position {position}, on {}", at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    });
    let words = format_args!("The thread had not begun then{}.", later.unwrap_or_default());
    Problem::new(StatusCode::NOT_FOUND, "thread-not-begun", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        let read = |text: &str| AsOf::try_from(text.to_owned());
        assert_eq!(read("4711"), Ok(AsOf::Position(4711)));
        let time = "2030-01-31T12:00:00Z".parse().expect("a time");
        assert_eq!(read("2030-01-31T12:00:00Z"), Ok(AsOf::Time(time)));
        for text in ["", "-1", "1.5", "yesterday", "99999999999999999999", "2030-01-31"] {
            assert!(read(text).is_err_and(|words| words.starts_with("must be a position, or a time")), "{text}");
        }
    }
}
