//! What must be so once all has come to rest, whatever happened before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use rdkafka::{
    Message as _,
    message::{Headers, OwnedMessage},
};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    clients::Finished,
    cluster::{Cluster, header},
    history::{Effect, Order, Outcome},
};

/// Acknowledged commands that are sent once more, at the end.
const SENT_AGAIN: usize = 60;

/// How much was checked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Checked {
    /// Faults that were survived.
    pub(crate) faults: usize,
    /// Commands that clients sent.
    pub(crate) sent: usize,
    /// Those answered 2xx.
    pub(crate) acknowledged: usize,
    /// Those refused.
    pub(crate) refused: usize,
    /// Reads that were answered.
    pub(crate) reads: u64,
    /// Events in the store.
    pub(crate) events: usize,
    /// Messages in Kafka.
    pub(crate) messages: usize,
    /// Rows of read tables, each compared with a rebuild's.
    pub(crate) rows: usize,
}

#[derive(sqlx::FromRow)]
struct Stored {
    position: i64,
    shard: i16,
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_id: Uuid,
    event_type: String,
    payload: String,
    metadata: String,
    community_id: Option<Uuid>,
    recorded_at: DateTime<Utc>,
    #[sqlx(skip)]
    said: Value,
    #[sqlx(skip)]
    actor: String,
}

/// Checks all of it.
///
/// # Errors
/// The first promise that was broken, in words.
pub(crate) async fn everything(
    cluster: &mut Cluster,
    finished: &Finished,
    patience: Duration,
) -> anyhow::Result<Checked> {
    let history = finished.history();
    history.whole()?;
    let entries = history.entries();
    send_again(finished, &entries).await?;
    cluster.until_caught_up(&cluster.pool, patience).await.context("the read tables")?;
    let mut events: Vec<Stored> = sqlx::query_as(
        "select position, shard, aggregate_type, aggregate_id, sequence, event_id, event_type, payload::text,
            metadata::text, community_id, recorded_at
        from events order by position",
    )
    .fetch_all(&cluster.pool)
    .await?;
    for event in &mut events {
        event.said = serde_json::from_str(&event.payload)?;
        let metadata: Value = serde_json::from_str(&event.metadata)?;
        metadata["actor"].as_str().unwrap_or_default().clone_into(&mut event.actor);
    }
    store(&events)?;
    commands(&entries, &events)?;
    races(&events)?;
    let line: Uuid = sqlx::query_scalar("select history from history_line").fetch_one(&cluster.pool).await?;
    let messages = relayed(cluster, line, events.last().map_or(0, |event| event.position)).await?;
    kafka(&messages, line, &events)?;
    let rows = rebuild(cluster, patience).await?;
    cluster.check().await?;
    Ok(Checked {
        faults: 0,
        sent: entries.len(),
        acknowledged: entries.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Acknowledged { .. })).count(),
        refused: entries.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused { .. })).count(),
        reads: history.reads(),
        events: events.len(),
        messages: messages.len(),
        rows,
    })
}

/// The same key gets the same answer, for as long as receipts are kept.
async fn send_again(finished: &Finished, entries: &[(Order, Outcome)]) -> anyhow::Result<()> {
    let acknowledged: Vec<_> =
        entries.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Acknowledged { .. })).collect();
    let step = (acknowledged.len() / SENT_AGAIN).max(1);
    for (order, first) in acknowledged.into_iter().step_by(step) {
        let again = finished.again(order).await;
        ensure!(again == *first, "{order}: first {first:?}, and at the end {again:?}");
    }
    Ok(())
}

/// Positions without a gap, rising in time; streams without hole or double, each in one shard.
fn store(events: &[Stored]) -> anyhow::Result<()> {
    let (mut streams, mut homes, mut ids) = (HashMap::new(), HashMap::new(), HashSet::new());
    let mut last = DateTime::<Utc>::MIN_UTC;
    for (expected, event) in (1..).zip(events) {
        ensure!(event.position == expected, "position {expected} is missing: {} follows", event.position);
        ensure!(event.recorded_at >= last, "time falls at position {expected}");
        last = event.recorded_at;
        let stream = (&event.aggregate_type, &event.aggregate_id);
        let sequence: &mut i64 = streams.entry(stream).or_default();
        ensure!(event.sequence == *sequence + 1, "{stream:?} goes from {sequence} to {}", event.sequence);
        *sequence = event.sequence;
        let home = homes.entry(event.community_id.map_or_else(|| event.aggregate_id.clone(), |id| id.to_string()));
        let home = *home.or_insert(event.shard);
        ensure!(home == event.shard, "{stream:?} is in shards {home} and {}", event.shard);
        ensure!(ids.insert(event.event_id), "event {} stands twice", event.event_id);
    }
    Ok(())
}

/// What was acknowledged took effect exactly once, what was refused not at all, what was not answered at most once;
/// and what was said to be so already was so, at the position that was told.
fn commands(entries: &[(Order, Outcome)], events: &[Stored]) -> anyhow::Result<()> {
    let mut marked: HashMap<&str, Vec<&Stored>> = HashMap::new();
    for event in events {
        let text = ["body", "title", "display_name"].iter().find_map(|field| event.said[*field].as_str());
        let mark = text.and_then(|text| text.split(' ').next()).filter(|word| word.starts_with("op-"));
        if let Some(mark) = mark {
            marked.entry(mark).or_default().push(event);
        }
    }
    for (order, outcome) in entries {
        let found = marked.get(order.mark().as_str()).map_or(&[][..], Vec::as_slice);
        ensure!(found.len() <= 1, "{order}: took effect {} times", found.len());
        match outcome {
            Outcome::Acknowledged { position, .. } if order.effect == Effect::Marked => {
                let event = found.first().with_context(|| format!("{order}: was acknowledged, and is not there"))?;
                let covered = event.shard == i16::from(position.shard) && event.position <= position.position;
                ensure!(covered, "{order}: is at {} in {}, but was told {position}", event.position, event.shard);
            }
            Outcome::Acknowledged { position, unchanged, .. } => {
                let state = state(&order.effect, events, position.position);
                ensure!(state, "{order}: was acknowledged (unchanged: {unchanged}), and is not so at {position}");
            }
            Outcome::Refused { status, problem } => {
                ensure!(found.is_empty(), "{order}: was refused ({status} {problem}), and took effect");
            }
            Outcome::Unanswered => {}
        }
    }
    Ok(())
}

/// Whether it is so after all events up to a position.
fn state(effect: &Effect, events: &[Stored], position: i64) -> bool {
    let until = usize::try_from(position).unwrap_or(usize::MAX).min(events.len());
    let mut before = events[..until].iter().rev();
    // The last event that says something about it.
    let mut last = |kind: &str, id: &str, names: &[&str], of: &dyn Fn(&Stored) -> bool| {
        let says = |event: &&Stored| {
            event.aggregate_type == kind
                && event.aggregate_id == id
                && names.contains(&event.event_type.as_str())
                && of(event)
        };
        before.find(says)
    };
    let any = |_: &Stored| true;
    match effect {
        Effect::Marked => true,
        Effect::Reaction { post, account, kind } => {
            let stream = format!("{post}.{account}");
            let found = last("reaction", &stream, &["reaction.set", "reaction.cleared"], &any);
            let now =
                found.filter(|event| event.event_type == "reaction.set").and_then(|event| event.said["kind"].as_str());
            now == kind.as_deref()
        }
        Effect::Locked { thread, locked } => {
            let found = last("thread", thread, &["thread.locked", "thread.unlocked"], &any);
            found.is_some_and(|event| event.event_type == "thread.locked") == *locked
        }
        Effect::Banned { membership, banned } => {
            let found = last("membership", membership, &["membership.banned", "membership.ban_lifted"], &any);
            found.is_some_and(|event| event.event_type == "membership.banned") == *banned
        }
        Effect::Moderator { membership, moderator } => {
            let ends = ["membership.role_assigned", "membership.role_revoked", "membership.left", "membership.banned"];
            let found = last("membership", membership, &ends, &any);
            found.is_some_and(|event| event.event_type == "membership.role_assigned") == *moderator
        }
        Effect::Owner { community, account, owner } => {
            let names = ["community.created", "community.owner_added", "community.owner_removed"];
            let his = |event: &Stored| [&event.said["account"], &event.said["owner"]].iter().any(|it| *it == account);
            let found = last("community", community, &names, &his);
            found.is_some_and(|event| event.event_type != "community.owner_removed") == *owner
        }
    }
}

/// No rule that rests on two streams was broken by who came at the same time.
fn races(events: &[Stored]) -> anyhow::Result<()> {
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut moderators: HashSet<(String, String)> = HashSet::new();
    let mut banned: HashSet<(String, String)> = HashSet::new();
    let mut locked: HashSet<&str> = HashSet::new();
    let mut names: HashSet<String> = HashSet::new();
    for event in events {
        let at = event.position;
        let community = event.community_id.map(|id| id.to_string()).unwrap_or_default();
        let field = |name: &str| event.said[name].as_str().unwrap_or_default();
        let actor = (community.clone(), event.actor.clone());
        let whom = (community.clone(), field("account").to_owned());
        let acts_as_moderator = || {
            let owns = owners.get(community.as_str()).is_some_and(|owners| owners.contains(event.actor.as_str()));
            ensure!(owns || moderators.contains(&actor), "{} acts as a moderator at {at}, and is none", event.actor);
            Ok(())
        };
        match event.event_type.as_str() {
            "community.created" => {
                owners.insert(&event.aggregate_id, BTreeSet::from([field("owner")]));
            }
            "community.owner_added" | "community.owner_removed" => {
                let owners = owners.entry(&event.aggregate_id).or_default();
                ensure!(owners.contains(event.actor.as_str()), "{} acts as an owner at {at}, and is none", event.actor);
                if event.event_type == "community.owner_added" {
                    owners.insert(event.said["account"].as_str().unwrap_or_default());
                } else {
                    owners.remove(field("account"));
                }
                ensure!(!owners.is_empty(), "community {community} has no owner at {at}");
            }
            "membership.role_assigned" => {
                moderators.insert(whom);
            }
            "membership.role_revoked" => {
                moderators.remove(&whom);
            }
            "membership.banned" => {
                acts_as_moderator()?;
                moderators.remove(&whom);
                banned.insert(whom);
            }
            "membership.ban_lifted" => {
                acts_as_moderator()?;
                banned.remove(&whom);
            }
            "thread.locked" => {
                acts_as_moderator()?;
                locked.insert(&event.aggregate_id);
            }
            "thread.unlocked" => {
                acts_as_moderator()?;
                locked.remove(event.aggregate_id.as_str());
            }
            "post.written" => {
                ensure!(!locked.contains(field("thread")), "a reply at {at}, into a locked thread");
                ensure!(!banned.contains(&actor), "{} wrote at {at}, and was banned", event.actor);
            }
            "reaction.set" | "thread.started" => {
                ensure!(!banned.contains(&actor), "{} acted at {at}, and was banned", event.actor);
            }
            "account.registered" => {
                let name = field("username").to_lowercase();
                ensure!(names.insert(name.clone()), "the name {name} was given twice, again at {at}");
            }
            _ => {}
        }
    }
    Ok(())
}

/// What Kafka has, once what came last is in it: the relay goes on, however well the projectors do without it.
async fn relayed(cluster: &Cluster, history: Uuid, head: i64) -> anyhow::Result<Vec<OwnedMessage>> {
    let (history, head) = (history.to_string(), head.to_string());
    for _ in 0..50 {
        let messages = cluster.messages(&cluster.topics.events_topic)?;
        let sent = |it: &OwnedMessage| header(it, "ce_history") == history && header(it, "ce_position") == head;
        if messages.iter().any(sent) {
            return Ok(messages);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("position {head}, the store's last, does not come to Kafka")
}

/// Kafka read as any consumer would, by the gap rule: each message is the store's event of its position, and names the
/// one before it in its shard; what is missing is filled from the store, what is of another history is dropped.
fn kafka(messages: &[OwnedMessage], history: Uuid, events: &[Stored]) -> anyhow::Result<()> {
    let mut previous = HashMap::new();
    let mut before: HashMap<i16, i64> = HashMap::new();
    for event in events {
        previous.insert(event.position, before.insert(event.shard, event.position).unwrap_or(0));
    }
    for message in messages {
        let place = format!("message {}/{}", message.partition(), message.offset());
        let headers = message.headers().with_context(|| format!("{place} has no headers"))?;
        let pairs = headers.iter().filter_map(|header| Some((header.key, header.value?)));
        let payload = message.payload().unwrap_or_default();
        let sent = events::kafka::decode(pairs, payload).with_context(|| format!("{place} is not ours"))?;
        if sent.history.0 != history {
            continue;
        }
        let position = sent.envelope.position;
        let index = usize::try_from(position - 1).ok();
        let stored = index.and_then(|index| events.get(index)).with_context(|| format!("{place}: no {position}"))?;
        ensure!(stored.event_id == sent.envelope.event_id.0, "{place}: another event than the store's {position}");
        ensure!(payload == stored.payload.as_bytes(), "{place}: another payload than the store's {position}");
        let chain = previous.get(&position).copied().unwrap_or_default();
        ensure!(sent.previous == chain, "{place}: names {} before {position}, not {chain}", sent.previous);
    }
    Ok(())
}

/// Every row as a rebuild from the events makes it.
async fn rebuild(cluster: &Cluster, patience: Duration) -> anyhow::Result<usize> {
    let rebuilt = cluster.rebuilt(patience).await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'read'
        and tablename not in ('checkpoint', 'parked', 'skipped', '_sqlx_migrations') order by 1",
    )
    .fetch_all(&rebuilt)
    .await?;
    let mut compared = 0;
    for table in tables {
        let (live, anew) = (rows(&cluster.pool, &table).await?, rows(&rebuilt, &table).await?);
        let only = |some: &BTreeSet<String>, others: &BTreeSet<String>| some.difference(others).next().cloned();
        if let Some(row) = only(&live, &anew) {
            bail!("read.{table} has a row that a rebuild does not make: {row}; it makes {:?}", only(&anew, &live));
        }
        if let Some(row) = only(&anew, &live) {
            bail!("read.{table} lacks a row that a rebuild makes: {row}");
        }
        compared += live.len();
    }
    let parked: i64 = sqlx::query_scalar("select count(*) from parked").fetch_one(&cluster.pool).await?;
    ensure!(parked == 0, "{parked} shards have stopped");
    rebuilt.close().await;
    Ok(compared)
}

async fn rows(pool: &PgPool, table: &str) -> sqlx::Result<BTreeSet<String>> {
    let all: Vec<String> =
        sqlx::query_scalar(&format!("select row_to_json(t)::text from read.{table} t")).fetch_all(pool).await?;
    Ok(all.into_iter().collect())
}
