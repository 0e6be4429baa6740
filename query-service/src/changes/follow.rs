//! The task that keeps [`Changes`] up to date.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use platform::{
    kafka::{Aside, Broker, Quiet},
    problem::Chain,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
};
use sqlx::PgPool;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Changes, Checkpoint, Notice};

/// How often the checkpoint table is looked at, for notices that were lost.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a notice may take after its checkpoint was seen: it is published after the commit.
const NOTICE_TAKES: Duration = Duration::from_millis(50);
/// How often the topic's partitions are counted: one more may be added at any time.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How long Kafka may take to answer which partitions there are.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a consumer that failed is replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// Follows the notices and the checkpoint table until shutdown. Without Kafka it goes on by the checkpoints alone:
/// then what is cached of a shard goes with every look that finds it moved.
pub(crate) async fn follow(changes: Arc<Changes>, broker: Broker, db: PgPool, shutdown: CancellationToken) {
    let following = async { tokio::join!(notices(&changes, &broker), checkpoints(&changes, &db)) };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = following => {}
    }
}

/// Those of this process at once, the others by Kafka.
async fn notices(changes: &Changes, broker: &Broker) {
    tokio::join!(told(changes, broker.told_changes()), async {
        if !broker.in_process() {
            heard(changes, broker).await;
        }
    });
}

async fn told(changes: &Changes, mut messages: broadcast::Receiver<Bytes>) {
    loop {
        match messages.recv().await {
            Ok(message) => take_in(changes, &message),
            // As with one that Kafka lost.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn heard(changes: &Changes, broker: &Broker) -> Infallible {
    loop {
        let Err(error) = listen(changes, broker).await;
        tracing::warn!(cause = %Chain(error.as_ref()), "cannot follow the change notices; going by the checkpoints");
        sleep(REPLACE_AFTER).await;
    }
}

/// Every instance hears every notice: partitions are assigned by hand, from their ends. What was said before this
/// began is found out by the checkpoints.
async fn listen(changes: &Changes, broker: &Broker) -> anyhow::Result<Infallible> {
    // The name is asked for, and not used: nothing is committed under it.
    let mut config = broker.consumer();
    config.set("group.id", "agora-query-service");
    let consumer: StreamConsumer<Quiet> = config.create_with_context(Quiet::new("the follower of change notices"))?;
    let consumer = Arc::new(Aside::new(consumer));
    let mut assigned = 0;
    let mut count = interval(COUNT_EVERY);
    loop {
        tokio::select! {
            _ = count.tick() => assigned = assign(&consumer, broker.config().changes_topic.clone(), assigned).await?,
            message = consumer.recv(), if assigned > 0 => match message {
                Ok(message) => {
                    consumer.client().context().answered();
                    take_in(changes, message.payload().unwrap_or_default());
                }
                // librdkafka connects again by itself.
                Err(error) => tracing::debug!(cause = %error, "no change notices for now"),
            },
        }
    }
}

/// Adds the partitions from `assigned` on; returns how many there are.
async fn assign(consumer: &Arc<Aside<StreamConsumer<Quiet>>>, topic: String, assigned: i32) -> anyhow::Result<i32> {
    let consumer = Arc::clone(consumer);
    // It blocks until the broker has answered.
    let assign = move || {
        let metadata = consumer.fetch_metadata(Some(&topic), METADATA_TIMEOUT)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            bail!("there is no topic {topic} yet");
        }
        let partitions = i32::try_from(partitions)?;
        // What is said in a partition that was added meanwhile is of interest from its beginning on.
        let from = if assigned == 0 { Offset::End } else { Offset::Beginning };
        let mut more = TopicPartitionList::new();
        for partition in assigned..partitions {
            more.add_partition_offset(&topic, partition, from)?;
        }
        if more.count() > 0 {
            consumer.incremental_assign(&more)?;
        }
        Ok(partitions.max(assigned))
    };
    tokio::task::spawn_blocking(assign).await.context("counting the partitions failed")?
}

fn take_in(changes: &Changes, payload: &[u8]) {
    match Notice::read(payload) {
        Ok(notices) => notices.iter().for_each(|notice| changes.note(notice)),
        // The break in the chain will show.
        Err(error) => tracing::warn!(cause = %error, "a change notice cannot be read"),
    }
}

async fn checkpoints(changes: &Changes, db: &PgPool) -> Infallible {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        look.tick().await;
        match Checkpoint::all(db).await {
            Ok(checkpoints) => {
                away = false;
                let behind = changes.see(&checkpoints);
                if !behind.is_empty() {
                    sleep(NOTICE_TAKES).await;
                    for checkpoint in &behind {
                        changes.give_up_on(checkpoint);
                    }
                }
            }
            Err(error) if !away => {
                away = true;
                tracing::warn!(cause = %Chain(&error), "cannot look at the checkpoints; trying again");
            }
            Err(_) => {}
        }
    }
}
