//! What a topic has of a part of the history already, whatever ended the one who sent it.
//!
//! Within a partition events are in order, so its last message says how far it has come.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{bail, ensure};
use events::{CommunityId, Delivered, Position, Shard};
use platform::kafka::Broker;
use projector::topic::{Last, last_messages};
use tokio::time::sleep;
use uuid::Uuid;

use super::Question;
use crate::history::seen::Seen;

/// Where a topic has something, it is looked at again after this long: what a sender that was killed had on its way may be
/// written down a moment later.
const STILL: Duration = Duration::from_millis(500);
/// Looks after which a topic that has more each time counts as being written to.
const LOOKS: usize = 5;

/// What a topic has that answers a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct There {
    /// How far each partition reaches that has some of it.
    through: BTreeMap<i32, Position>,
    /// The last event of each partition, of whatever question.
    events: Vec<Seen>,
    /// Where it begins, and so how far the others reach.
    from: Position,
    partitions: i32,
}

/// What the messages of an answer say of it: a name (a UUID of version 5, RFC 9562) of the question, and of the number of
/// partitions. With another number, shards are in other partitions, and their last messages say something else.
pub(super) fn mark(question: &Question, partitions: i32) -> anyhow::Result<String> {
    let asked = serde_json::to_vec(&(question, partitions))?;
    Ok(Uuid::new_v5(&question.history.0, &asked).to_string())
}

impl There {
    /// Looks at the topic until it is at rest.
    ///
    /// # Errors
    /// Where Kafka does not answer, what is there answers another question, or somebody writes to it.
    pub(super) async fn look(
        broker: &Broker,
        topic: &str,
        question: &Question,
        partitions: i32,
    ) -> anyhow::Result<Self> {
        let look = async || Self::judged(&last_messages(broker, topic).await?, topic, question, partitions);
        let mut there = look().await?;
        for _ in 1..LOOKS {
            if there.through.is_empty() {
                return Ok(there);
            }
            sleep(STILL).await;
            let again = look().await?;
            if again == there {
                return Ok(there);
            }
            there = again;
        }
        bail!("{topic} is being written to by another process")
    }

    /// What the last messages of a topic's partitions say.
    fn judged(last: &BTreeMap<i32, Last>, topic: &str, question: &Question, partitions: i32) -> anyhow::Result<Self> {
        let mark = mark(question, partitions)?;
        let (mut through, mut events, mut ours) = (BTreeMap::new(), Vec::new(), true);
        for (partition, last) in last {
            let (event, marked) = match last {
                Last::Event(event, marked) => (event, marked),
                Last::Dropped => continue,
                Last::Foreign(reason) => bail!(
                    "{topic} has something else than Agora's events in partition {partition} ({reason}): take another topic"
                ),
            };
            ensure!(
                event.history == question.history,
                "{topic} holds another history: the event store was restored or replaced since. Take another topic"
            );
            events.push(Seen { position: event.envelope.position, event: event.envelope.event_id });
            // What is asked for is all behind it otherwise: nothing can be there twice.
            if event.envelope.position > question.from {
                ours &= marked.as_ref() == Some(&mark);
                through.insert(*partition, event.envelope.position);
            }
        }
        if let Some(last_of_all) = through.values().max() {
            let instead = format!("take another topic, or go on behind it with --from {last_of_all}");
            ensure!(
                ours,
                "{topic} has events up to position {last_of_all} that answer another question: ask the same again, {instead}"
            );
            let dropped = last.values().any(|last| matches!(last, Last::Dropped));
            ensure!(!dropped, "Kafka has dropped some of what {topic} had up to position {last_of_all}: {instead}");
        }
        Ok(Self { through, events, from: question.from, partitions })
    }

    /// Events that the store has to have, where it is the one that they are of.
    pub(super) fn events(&self) -> &[Seen] {
        &self.events
    }

    /// The last event, where there is one.
    pub(super) fn last(&self) -> Option<Position> {
        self.through.values().max().copied()
    }

    /// Nothing is missing up to here: of a community, all is in one partition.
    pub(super) fn through(&self, community: Option<CommunityId>) -> Position {
        let all = || (0..self.partitions).map(|partition| self.of_partition(partition)).min().unwrap_or(self.from);
        community.map_or_else(all, |community| self.of_shard(Shard::of_community(community)))
    }

    /// Whether it has an event that is asked for.
    pub(super) fn has(&self, event: &Delivered) -> bool {
        event.envelope.position <= self.of_shard(event.envelope.shard)
    }

    fn of_shard(&self, shard: Shard) -> Position {
        self.of_partition(shard.partition(self.partitions))
    }

    fn of_partition(&self, partition: i32) -> Position {
        self.through.get(&partition).copied().unwrap_or(self.from)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use events::{Envelope, EventId, HistoryId, Metadata, Stream, ThreadId};
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn event(question: &Question, position: Position, marked: Option<String>) -> Last {
        let metadata = Metadata {
            actor: None,
            correlation_id: Uuid::nil(),
            causation_id: None,
            traceparent: None,
            occurred_at: None,
        };
        let envelope = Envelope {
            event_id: EventId::new(),
            stream: Stream::thread(ThreadId::new()),
            sequence: 1,
            position,
            shard: Shard::default(),
            community: None,
            name: "thread.unlocked".into(),
            version: 1,
            recorded_at: DateTime::UNIX_EPOCH,
            metadata,
            payload: to_raw_value(&json!({})).expect("JSON"),
        };
        Last::Event(Box::new(Delivered { envelope, previous: 0, history: question.history }), marked)
    }

    #[test]
    fn what_is_missing_begins_where_a_partition_of_it_ends() {
        let mut question = Question { history: HistoryId::new(), from: 3, types: vec![], community: None };
        let mark = mark(&question, 3).expect("JSON");
        let last = [(0, event(&question, 9, Some(mark.clone()))), (1, event(&question, 7, Some(mark)))];
        let there = There::judged(&last.into(), "own", &question, 3).expect("ours");
        assert_eq!((there.last(), there.through(None)), (Some(9), 3), "partition 2 has nothing yet");
        for (id, through) in
            (0..64_u128).map(|id| CommunityId(Uuid::from_u128(id))).map(|id| (id, there.through(Some(id))))
        {
            assert_eq!(through, [9, 7, 3][usize::from(Shard::of_community(id).number()) % 3]);
        }
        // Before messages had a mark, or without one: only what is behind them can be sent.
        let unmarked = [(0, event(&question, 9, None))].into();
        let said = There::judged(&unmarked, "own", &question, 3).expect_err("refused").to_string();
        assert!(said.contains("up to position 9 that answer another question"), "{said}");
        question.from = 9;
        assert_eq!(There::judged(&unmarked, "own", &question, 3).expect("behind it").through(None), 9);
    }

    #[test]
    fn what_kafka_has_dropped_is_not_taken_for_what_never_came() {
        let question = Question { history: HistoryId::new(), from: 0, types: vec![], community: None };
        let marked = event(&question, 9, Some(mark(&question, 3).expect("JSON")));
        let said = There::judged(&[(0, marked), (1, Last::Dropped)].into(), "own", &question, 3);
        let said = said.expect_err("refused").to_string();
        assert!(said.contains("Kafka has dropped some of what own had up to position 9"), "{said}");
        // Emptied as a whole, it is as good as new.
        let emptied = There::judged(&[(0, Last::Dropped), (1, Last::Dropped)].into(), "own", &question, 3);
        assert_eq!(emptied.expect("empty").last(), None);
    }
}
