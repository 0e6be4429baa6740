//! The relay: brings every event from the store to Kafka, in order. One leader at a time; a crash may send an event
//! twice, which every reader knows by its position.

use std::time::Duration;

use events::{Delivered, HistoryId, Position};
use platform::{db::Connections, kafka::Broker, lease::Lease, patience::Patience};
use sqlx::{PgPool, postgres::PgConnectOptions};
use store_reader::{Heads, Read, StoreReader, Unreadable, Wake};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    checkpoint, history,
    metrics::Metrics,
    outbox::Outbox,
    topic::{self, Last},
};

mod wake;

/// The lease's key, "relay" in ASCII. Advisory locks are per database: one relay for each event store.
const LOCK: i64 = 0x72_656c_6179;
/// Events read from the store at once.
const BATCH: u32 = 1_000;
/// How often the store is asked without being told to: a ping may be lost with the one who sends it.
const POLL: Duration = Duration::from_millis(250);
/// From one round to the next at least, where there was nothing more: it costs as much for one event as for ten.
const PACE: Duration = Duration::from_millis(4);
/// How often progress is written down: what was acknowledged since is sent again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(500);
/// How long a leader that ends in order waits for what it has sent.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a relay needs.
pub(crate) struct Relay {
    pub(crate) store: StoreReader,
    /// The same, for who reads event after event.
    pub(crate) reads: Connections,
    pub(crate) read: PgPool,
    /// How the lease's own connection is made.
    pub(crate) lease: PgConnectOptions,
    pub(crate) broker: Broker,
    pub(crate) wake: Wake,
    pub(crate) metrics: Metrics,
}

/// How far the leader has come.
struct Progress {
    history: HistoryId,
    /// Everything up to here is handed to the producer.
    sent: Position,
    /// Where each shard stands there.
    heads: Heads,
    /// Everything up to here is acknowledged.
    acknowledged: Position,
    /// As far as the database knows.
    saved: Position,
    saved_at: Instant,
}

impl Relay {
    /// Leads whenever nobody else does, until the process ends.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let listening = wake::listen(self.store.pool(), &self.wake, &shutdown);
        tokio::join!(listening, self.lead_again_and_again(&shutdown));
    }

    async fn lead_again_and_again(&self, shutdown: &CancellationToken) {
        let mut patience = Patience::new("the relay");
        let mut standby = None;
        while !shutdown.is_cancelled() {
            if let Err(error) = self.lead(&mut standby, &mut patience, shutdown).await {
                patience.failed(error, shutdown).await;
            }
        }
    }

    /// One time of leading: until the lease is lost, the store has another history, or the process ends.
    async fn lead(
        &self,
        standby: &mut Option<Outbox>,
        patience: &mut Patience,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        if standby.is_none() {
            // Made while another leads: a producer waits up to half a second for its id.
            *standby = Some(Outbox::new(&self.broker, &self.broker.config().events_topic)?);
        }
        let Some(mut lease) = Lease::take(LOCK, &self.lease, shutdown).await? else { return Ok(()) };
        let history = lease.during(self.verified_history()).await??;
        let Some(mut outbox) = standby.take() else { return Ok(()) };
        lease.during(outbox.connect()).await??;
        let mut progress = lease.during(self.begin(history)).await??;
        tracing::info!(position = progress.sent, "this process relays the events to Kafka");
        let _leads = self.wake.lead();
        let (mut alarmed, mut next) = (None, Instant::now());
        while !shutdown.is_cancelled() {
            lease.renew_if_due().await?;
            if let Some(error) = outbox.failure() {
                lease.during(patience.failed(error, shutdown)).await?;
                outbox = lease.during(outbox.replaced(&self.broker)).await??;
                progress.heads = lease.during(self.store.heads_at(progress.acknowledged)).await??;
                progress.sent = progress.acknowledged;
            }
            let room = outbox.has_room();
            let sent = if room { self.send_next(&mut outbox, &mut progress, &mut lease).await? } else { Sent::All };
            match sent {
                Sent::OtherHistory => return Ok(()),
                Sent::Stuck(ref unreadable) => self.alarm(unreadable, &mut alarmed),
                Sent::All | Sent::More => {}
            }
            if self.note(&outbox, &mut progress, SAVE_EVERY).await? || progress.acknowledged == progress.sent {
                patience.worked();
            }
            if !matches!(sent, Sent::More) {
                let woken = async { if room { self.wake.told().await } else { outbox.acknowledgement().await } };
                let _ = tokio::time::timeout(POLL, shutdown.run_until_cancelled(woken)).await;
                tokio::time::sleep_until(next).await;
                next = Instant::now() + PACE;
            }
        }
        let _ = tokio::time::timeout(LAST_WAIT, outbox.all_acknowledged()).await;
        self.note(&outbox, &mut progress, Duration::ZERO).await?;
        lease.give_back().await;
        Ok(())
    }

    /// The store's history, once all that was projected and relayed before is found in it.
    async fn verified_history(&self) -> anyhow::Result<HistoryId> {
        let history = self.store.history().await?;
        let mut seen = history::seen_by(&checkpoint::all(&self.read).await?, history);
        self.broker.ensure_topics().await?;
        let relayed = topic::last_messages(&self.broker, &self.broker.config().events_topic).await?;
        seen.extend(relayed.into_values().filter_map(|last| match last {
            Last::Event(event, _) if event.history == history => {
                Some((event.envelope.position, event.envelope.event_id))
            }
            // What is not ours, or not of this history, says nothing about it.
            Last::Event(..) | Last::Foreign(_) | Last::Dropped => None,
        }));
        Ok(history::verify(&self.store, history, seen, &self.metrics).await?)
    }

    /// Where the last leader has come to, or the beginning of a topic that never had one. A new history goes on from
    /// there too: what is before it, readers take from the store.
    async fn begin(&self, history: HistoryId) -> anyhow::Result<Progress> {
        let saved = sqlx::query_scalar!(
            "insert into relay as r (topic, history) values ($1, $2)
            on conflict (topic) do update
            set history = excluded.history, position = least(r.position, (select position from store_head))
            returning position",
            self.broker.config().events_topic,
            history.0,
        );
        let position = saved.fetch_one(self.store.pool()).await?;
        let heads = self.store.heads_at(position).await?;
        let (sent, acknowledged, saved, saved_at) = (position, position, position, Instant::now());
        Ok(Progress { history, sent, heads, acknowledged, saved, saved_at })
    }

    async fn read_next(&self, after: Position) -> sqlx::Result<Read> {
        let mut connection = self.reads.take().await?;
        let read = store_reader::after(&mut *connection, after, BATCH).await?;
        connection.give_back();
        Ok(read)
    }

    /// Hands the next events to the producer.
    async fn send_next(&self, outbox: &mut Outbox, progress: &mut Progress, lease: &mut Lease) -> anyhow::Result<Sent> {
        let read = lease.during(self.read_next(progress.sent)).await??;
        if read.history.is_some_and(|history| history != progress.history) {
            return Ok(Sent::OtherHistory);
        }
        lease.assure().await?;
        for envelope in read.events {
            let envelope = match envelope {
                Ok(envelope) => envelope,
                Err(unreadable) if lease.during(self.store.is_left_out(unreadable.event_id)).await?? => {
                    // It stays a link of the chain: who reads Kafka sees that something was there, as who reads the store.
                    progress.heads.go_on(unreadable.shard, unreadable.position);
                    progress.sent = unreadable.position;
                    continue;
                }
                Err(unreadable) => return Ok(Sent::Stuck(unreadable)),
            };
            let (shard, position) = (envelope.shard, envelope.position);
            let previous = progress.heads.go_on(shard, position);
            if !outbox.send(&Delivered { envelope, previous, history: progress.history }) {
                progress.heads.go_on(shard, previous);
                return Ok(Sent::All);
            }
            progress.sent = position;
        }
        Ok(if read.more { Sent::More } else { Sent::All })
    }

    /// Once for an event, as often as it is met.
    fn alarm(&self, unreadable: &Unreadable, alarmed: &mut Option<Position>) {
        if alarmed.replace(unreadable.position) != Some(unreadable.position) {
            self.metrics.alarm("unreadable");
            tracing::error!(
                event_id = %unreadable.event_id,
                position = unreadable.position,
                "the relay stands before an event, and readers of Kafka wait: {unreadable}"
            );
        }
    }

    /// Notes what was acknowledged; writes it down now and then. Answers whether there was anything new.
    async fn note(&self, outbox: &Outbox, progress: &mut Progress, save_every: Duration) -> anyhow::Result<bool> {
        let (acknowledged, events) = outbox.acknowledged_through();
        let acknowledged = acknowledged.unwrap_or(progress.acknowledged);
        let news = acknowledged > progress.acknowledged;
        progress.acknowledged = acknowledged;
        self.metrics.relayed.add(events, &[]);
        if acknowledged > progress.saved && progress.saved_at.elapsed() >= save_every {
            self.metrics.relay_position.record(acknowledged, &[]);
            let topic = &self.broker.config().events_topic;
            sqlx::query!(
                "update relay set position = $3 where topic = $1 and history = $2",
                topic,
                progress.history.0,
                acknowledged,
            )
            .execute(self.store.pool())
            .await?;
            (progress.saved, progress.saved_at) = (acknowledged, Instant::now());
        }
        Ok(news)
    }
}

/// How far sending came.
enum Sent {
    /// Nothing more for now.
    All,
    More,
    /// Before an event that cannot be read, and that nobody has left out.
    Stuck(Unreadable),
    /// The store has a new history.
    OtherHistory,
}
