//! A store that a test writes directly, and projectors over it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use agora_tests::postgres::fresh_database;
use chrono::{DateTime, Utc};
use events::{
    AccountEvent, AccountId, CategoryEvent, CategoryId, CommunityEvent, CommunityId, Event, EventId, MembershipEvent,
    Metadata, PostEvent, PostId, ReactionEvent, Shard, Stream, ThreadEvent, ThreadId, account, category, community,
    membership, post, reaction, thread,
};
use platform::{
    db::DatabaseConfig,
    kafka::{Broker, KafkaConfig},
};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database of a test's own.
pub(crate) struct Lab {
    url: String,
    /// Both schemas.
    pub(crate) pool: PgPool,
}

/// A projector at work.
pub(crate) struct Running {
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// An event as a row of the store, but for its place there.
#[derive(Clone)]
pub(crate) struct Recorded {
    event_id: EventId,
    stream: Stream,
    shard: Shard,
    community: Option<CommunityId>,
    name: String,
    version: u32,
    payload: String,
    metadata: Metadata,
}

impl Running {
    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let url = fresh_database().await;
        let options: PgConnectOptions = url.parse().expect("a URL");
        let pool = PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects");
        Self { url, pool }
    }

    /// Another database, with all of that projected at once.
    pub(crate) async fn with(history: &[Recorded]) -> Self {
        let lab = Self::new().await;
        lab.append(history).await;
        let running = lab.start().await;
        lab.all_shown().await;
        running.stop().await;
        lab
    }

    /// A projector on an in-process broker of its own.
    pub(crate) async fn start(&self) -> Running {
        self.start_with(&Broker::start(&KafkaConfig::default()).expect("a broker")).await
    }

    pub(crate) async fn start_on(&self, kafka: &KafkaConfig) -> Running {
        self.start_with(&Broker::start(kafka).expect("a broker")).await
    }

    pub(crate) async fn start_with(&self, broker: &Broker) -> Running {
        self.try_start_with(projector::Config::default(), broker).await.expect("it starts")
    }

    pub(crate) async fn start_config(&self, config: projector::Config) -> Running {
        self.try_start(config).await.expect("it starts")
    }

    pub(crate) async fn try_start(&self, config: projector::Config) -> anyhow::Result<Running> {
        self.try_start_with(config, &Broker::start(&KafkaConfig::default())?).await
    }

    async fn try_start_with(&self, config: projector::Config, broker: &Broker) -> anyhow::Result<Running> {
        let database = DatabaseConfig { url: self.url.as_str().into(), ..DatabaseConfig::default() };
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let parts = projector::Parts { event_store: database.clone(), read_tables: database, broker: broker.clone() };
        projector::start(config, parts, shutdown.clone(), &tasks).await?;
        Ok(Running { shutdown, tasks })
    }

    /// Topics and a group of its own on a Kafka.
    pub(crate) fn topics_on(brokers: &str) -> KafkaConfig {
        let own = Uuid::now_v7().simple();
        KafkaConfig {
            brokers: Some(brokers.to_owned()),
            events_topic: format!("events-{own}"),
            changes_topic: format!("changes-{own}"),
            group: format!("projector-{own}"),
            partitions: 4,
            ..KafkaConfig::default()
        }
    }

    /// Appends events, all in one commit, and pings.
    pub(crate) async fn append(&self, events: &[Recorded]) {
        let mut transaction = self.pool.begin().await.expect("begins");
        for event in events {
            sqlx::query(
                "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                    position, shard, event_id, community_id, recorded_at)
                select $1, $2, (select count(*) + 1 from events where aggregate_type = $1 and aggregate_id = $2), $3, $4,
                    $5::json, $6::json, h.position + 1, $7, $8, $9, $10
                from store_head h",
            )
            .bind(&event.stream.aggregate)
            .bind(&event.stream.id)
            .bind(&event.name)
            .bind(event.version.to_string())
            .bind(&event.payload)
            .bind(serde_json::to_string(&event.metadata).expect("JSON"))
            .bind(i16::from(event.shard))
            .bind(event.event_id.0)
            .bind(event.community.map(|id| id.0))
            .bind(DateTime::<Utc>::UNIX_EPOCH)
            .execute(&mut *transaction)
            .await
            .expect("it is appended");
            sqlx::query("update store_head set position = position + 1")
                .execute(&mut *transaction)
                .await
                .expect("moves");
        }
        transaction.commit().await.expect("commits");
        self.execute("notify agora_appended").await;
    }

    /// The store as a backup had it, when its last position was that.
    pub(crate) async fn restore(&self, position: i64) {
        self.execute("alter table events disable trigger events_append_only").await;
        self.execute(&format!("delete from events where position > {position}")).await;
        self.execute("alter table events enable trigger events_append_only").await;
        self.execute(&format!("update store_head set position = {position}")).await;
        self.execute(&format!("update relay set position = least(position, {position})")).await;
    }

    /// Waits until every checkpoint stands at the head of its shard.
    pub(crate) async fn all_shown(&self) {
        self.until(
            "everything is shown",
            "select count(*) filter (where c.position = coalesce(h.position, 0) and c.history = s.history) = 7 * 64
            from checkpoint c cross join store_head s
            left join (select shard, max(position) as position from events group by shard) h using (shard)",
        )
        .await;
    }

    /// Waits until a query answers true.
    pub(crate) async fn until(&self, what: &str, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(query).await != json!(true) {
            if Instant::now() >= deadline {
                let parked = self.value("select coalesce(json_agg(p), '[]') from parked p").await;
                panic!("not within {PATIENCE:?}: {what}; parked: {parked}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The one value that a query answers; null where it answers none.
    pub(crate) async fn value(&self, query: &str) -> Value {
        let query = format!("select to_json(v) from ({query}) q (v)");
        let found: Option<Option<Value>> =
            sqlx::query_scalar(&query).fetch_optional(&self.pool).await.expect("an answer");
        found.flatten().unwrap_or_default()
    }

    pub(crate) async fn execute(&self, statement: &str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Every row of every read table, in text.
    pub(crate) async fn rows(&self) -> BTreeMap<String, Vec<String>> {
        let mut rows = BTreeMap::new();
        for table in self.tables().await {
            let query = format!("select row_to_json(t)::text from read.{table} t order by 1");
            let all = sqlx::query_scalar(&query).fetch_all(&self.pool).await.expect("the rows");
            rows.insert(table, all);
        }
        rows
    }

    pub(crate) async fn truncate_rows(&self) {
        self.execute(&format!("truncate {}", self.tables().await.join(", "))).await;
    }

    async fn tables(&self) -> Vec<String> {
        let tables = sqlx::query_scalar(
            "select tablename::text from pg_tables where schemaname = 'read'
            and tablename not in ('checkpoint', 'parked', 'skipped', '_sqlx_migrations')",
        );
        tables.fetch_all(&self.pool).await.expect("the tables")
    }
}

impl Recorded {
    fn new(community: Option<CommunityId>, actor: Option<AccountId>, stream: Stream, event: impl Into<Event>) -> Self {
        let event = event.into();
        let shard = match community {
            Some(community) => Shard::of_community(community),
            None => Shard::of_account(AccountId(stream.uuid().expect("an account"))),
        };
        let metadata = Metadata {
            actor,
            correlation_id: Uuid::now_v7(),
            causation_id: None,
            traceparent: None,
            occurred_at: None,
        };
        let (name, version) = (event.name().to_owned(), event.version());
        let payload = event.payload().expect("JSON").get().to_owned();
        Self { event_id: EventId::new(), stream, shard, community, name, version, payload, metadata }
    }

    /// An event of a community as it would never be written.
    pub(crate) fn raw(community: CommunityId, stream: Stream, name: &str, payload: &Value) -> Self {
        let event = CommunityEvent::Resumed(community::Resumed {});
        let (name, payload) = (name.to_owned(), payload.to_string());
        Self { stream, name, payload, ..Self::new(Some(community), None, Stream::community(community), event) }
    }

    pub(crate) fn created(id: CommunityId, slug: &str) -> Self {
        let created = community::Created { settings: settings(slug), owner: AccountId::new() };
        Self::new(Some(id), None, Stream::community(id), CommunityEvent::Created(created))
    }

    pub(crate) fn renamed(id: CommunityId, slug: &str) -> Self {
        let changed = community::SettingsChanged { settings: settings(slug) };
        Self::new(Some(id), None, Stream::community(id), CommunityEvent::SettingsChanged(changed))
    }

    /// A thread and its opening post.
    pub(crate) fn started(community: CommunityId) -> (ThreadId, [Self; 2]) {
        let (thread, opening_post, author) = (ThreadId::new(), PostId::new(), Some(AccountId::new()));
        let started = thread::Started {
            category: CategoryId::new(),
            title: "Tea".to_owned(),
            tags: vec!["green".to_owned()],
            author,
            opening_post,
        };
        let opening = Self::written(community, thread, opening_post, None, author, "How long?");
        (thread, [Self::new(Some(community), author, Stream::thread(thread), ThreadEvent::Started(started)), opening])
    }

    /// A reply to nothing in particular, so that it needs no other post.
    pub(crate) fn reply(community: CommunityId, thread: ThreadId, body: &str) -> Self {
        Self::written(community, thread, PostId::new(), None, None, body)
    }

    fn written(
        community: CommunityId,
        thread: ThreadId,
        post: PostId,
        parent: Option<(PostId, u8)>,
        author: Option<AccountId>,
        body: &str,
    ) -> Self {
        let depth = parent.map_or(0, |(_, depth)| depth + 1);
        let (parent, body) = (parent.map(|(parent, _)| parent), body.to_owned());
        let written = post::Written { thread, parent, depth, author, body, format: post::Format::Markdown };
        Self::new(Some(community), author, Stream::post(post), PostEvent::Written(written))
    }

    /// A history of that many events at least, the same for the same seed but for its ids: all kinds of them, in three
    /// communities.
    pub(crate) fn history(seed: u64, many: usize) -> Vec<Self> {
        let mut life = Life { seed, history: Vec::new(), people: Vec::new(), places: Vec::new() };
        life.begin();
        while life.history.len() < many {
            life.go_on();
        }
        life.history
    }
}

fn settings(slug: &str) -> community::Settings {
    community::Settings { slug: slug.to_owned(), name: slug.to_owned(), ..community::Settings::default() }
}

/// Makes histories up.
struct Life {
    seed: u64,
    history: Vec<Recorded>,
    people: Vec<AccountId>,
    places: Vec<Place>,
}

struct Place {
    community: CommunityId,
    categories: [CategoryId; 2],
    threads: Vec<Talk>,
}

struct Talk {
    id: ThreadId,
    deleted: bool,
    posts: Vec<Said>,
}

struct Said {
    id: PostId,
    depth: u8,
    revision: u32,
    deleted: bool,
    hidden: bool,
    reactions: BTreeMap<AccountId, &'static str>,
}

impl Life {
    /// Knuth's MMIX generator.
    fn dice(&mut self, sides: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).expect("31 bits") % sides
    }

    fn add(&mut self, community: Option<CommunityId>, actor: AccountId, stream: Stream, event: impl Into<Event>) {
        self.history.push(Recorded::new(community, Some(actor), stream, event));
    }

    fn begin(&mut self) {
        for n in 0..4 {
            let id = AccountId::new();
            let profile = account::Profile { display_name: format!("Person {n}"), ..account::Profile::default() };
            let registered = account::Registered { username: format!("person-{n}"), profile };
            self.add(None, id, Stream::account(id), AccountEvent::Registered(registered));
            self.people.push(id);
        }
        for n in 0..3 {
            let (id, owner, categories) = (CommunityId::new(), self.people[n], [CategoryId::new(), CategoryId::new()]);
            let created = community::Created { settings: settings(&format!("place-{n}")), owner };
            self.add(Some(id), owner, Stream::community(id), CommunityEvent::Created(created));
            for category in categories {
                let created =
                    category::Created { category, parent: None, presentation: category::Presentation::default() };
                self.add(Some(id), owner, Stream::category_tree(id), CategoryEvent::Created(created));
            }
            let member = self.people[3];
            let joined = MembershipEvent::Joined(membership::Joined { account: member });
            self.add(Some(id), member, Stream::membership(id, member), joined);
            self.places.push(Place { community: id, categories, threads: Vec::new() });
        }
    }

    fn go_on(&mut self) {
        let (place, person, what) = (self.dice(3), self.dice(4), self.dice(100));
        let (community, author) = (self.places[place].community, self.people[person]);
        let threads = self.places[place].threads.len();
        if threads == 0 || what < 10 {
            return self.start(place, author);
        }
        let talk = self.dice(threads);
        let thread = self.places[place].threads[talk].id;
        let number = self.dice(self.places[place].threads[talk].posts.len());
        match what {
            10..50 => self.reply(place, talk, number, author),
            50..70 => self.react(place, talk, number, author),
            70..85 => self.moderate(place, talk, number, author),
            85..90 => {
                let to = self.places[place].categories[self.history.len() % 2];
                let moved = ThreadEvent::Moved(thread::Moved { from: CategoryId::new(), to });
                self.add(Some(community), author, Stream::thread(thread), moved);
            }
            90..93 => {
                let talk = &mut self.places[place].threads[talk];
                talk.deleted = !talk.deleted;
                let event = if talk.deleted {
                    ThreadEvent::Deleted(thread::Deleted { reason: None, moderated: true })
                } else {
                    ThreadEvent::Restored(thread::Restored { moderated: true })
                };
                self.add(Some(community), author, Stream::thread(thread), event);
            }
            93..96 => {
                let pinned = ThreadEvent::Pinned(thread::Pinned { until: None });
                self.add(Some(community), author, Stream::thread(thread), pinned);
            }
            _ => {
                let order = [1, 0].map(|n: usize| self.places[place].categories[n]).to_vec();
                let reordered = CategoryEvent::Reordered(category::Reordered { parent: None, order });
                self.add(Some(community), author, Stream::category_tree(community), reordered);
            }
        }
    }

    fn start(&mut self, place: usize, author: AccountId) {
        let Place { community, categories, .. } = self.places[place];
        let (id, opening_post) = (ThreadId::new(), PostId::new());
        let (title, tags) = (format!("Thread {}", self.history.len()), vec!["tea".to_owned()]);
        let category = categories[self.history.len() % 2];
        let started = thread::Started { category, title, tags, author: Some(author), opening_post };
        self.add(Some(community), author, Stream::thread(id), ThreadEvent::Started(started));
        self.places[place].threads.push(Talk { id, deleted: false, posts: Vec::new() });
        let talk = self.places[place].threads.len() - 1;
        self.say(place, talk, opening_post, None, author);
    }

    fn reply(&mut self, place: usize, talk: usize, number: usize, author: AccountId) {
        let parent = &self.places[place].threads[talk].posts[number];
        let parent = (parent.id, parent.depth);
        self.say(place, talk, PostId::new(), Some(parent), author);
    }

    fn say(&mut self, place: usize, talk: usize, id: PostId, parent: Option<(PostId, u8)>, author: AccountId) {
        let (community, thread) = (self.places[place].community, self.places[place].threads[talk].id);
        let body = format!("Post *{}*", self.history.len());
        self.history.push(Recorded::written(community, thread, id, parent, Some(author), &body));
        let depth = parent.map_or(0, |(_, depth)| depth + 1);
        let said = Said { id, depth, revision: 1, deleted: false, hidden: false, reactions: BTreeMap::new() };
        self.places[place].threads[talk].posts.push(said);
    }

    fn react(&mut self, place: usize, talk: usize, number: usize, account: AccountId) {
        let kind = ["up", "down", "like", "heart"][self.dice(4)];
        let Place { community, threads, .. } = &mut self.places[place];
        let (community, thread) = (*community, threads[talk].id);
        let said = &mut threads[talk].posts[number];
        let post = said.id;
        if self.history.len().is_multiple_of(7) {
            let imported = reaction::ScoreImported { thread, post, up: 3, down: 1 };
            let stream = Stream::imported_score(post);
            return self.add(Some(community), account, stream, ReactionEvent::ScoreImported(imported));
        }
        let event = match said.reactions.insert(account, kind) {
            Some(before) if before == kind => {
                said.reactions.remove(&account);
                ReactionEvent::Cleared(reaction::Cleared { thread, post, account, kind: kind.to_owned() })
            }
            replaced => {
                let (kind, replaced) = (kind.to_owned(), replaced.map(str::to_owned));
                ReactionEvent::Set(reaction::Set { thread, post, account, kind, replaced })
            }
        };
        self.add(Some(community), account, Stream::reaction(post, account), event);
    }

    /// Edits, deletes, hides, and takes that back.
    fn moderate(&mut self, place: usize, talk: usize, number: usize, actor: AccountId) {
        let what = self.dice(3);
        let Place { community, threads, .. } = &mut self.places[place];
        let (community, thread) = (*community, threads[talk].id);
        let said = &mut threads[talk].posts[number];
        let event = match what {
            0 => {
                said.revision += 1;
                let body = "better said".to_owned();
                let (revision, format, reason) = (said.revision, post::Format::Html, None);
                PostEvent::Edited(post::Edited { thread, revision, body, format, reason, moderated: true })
            }
            1 => {
                said.deleted = !said.deleted;
                if said.deleted {
                    PostEvent::Deleted(post::Deleted { thread, reason: None, moderated: true })
                } else {
                    PostEvent::Restored(post::Restored { thread, moderated: true })
                }
            }
            _ => {
                said.hidden = !said.hidden;
                if said.hidden {
                    PostEvent::Hidden(post::Hidden { thread, reason: Some("rude".to_owned()) })
                } else {
                    PostEvent::Unhidden(post::Unhidden { thread })
                }
            }
        };
        let stream = Stream::post(said.id);
        self.add(Some(community), actor, stream, event);
    }
}
