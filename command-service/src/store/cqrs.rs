//! The store as `cqrs-es` knows stores: one stream, one aggregate. Commands that need more go through
//! [`super::Operation`]; both end in the same append.

use std::collections::HashMap;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use events::{AccountId, CommunityId, EventId, Metadata, Shard, Stream};
use serde_json::{Value, json};

use super::{Append, Loaded, NewEvent, Store, StoreError, Stored, Verdict};

/// A stream's state between load and commit.
pub struct Context<A> {
    stream: Stream,
    loaded: Loaded<A>,
}

impl<A: Stored> AggregateContext<A> for Context<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.loaded.state
    }
}

/// Reads [`events::Metadata`]'s fields from the metadata, and `community_id`, which decides the shard (without it,
/// the stream has to be an account's own).
impl<A: Stored> EventStore<A> for Store {
    type AC = Context<A>;

    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        self.loader.envelopes::<A>(&stream::<A>(aggregate_id)).await.map_err(unexpected)
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Context<A>, AggregateError<A::Error>> {
        let stream = stream::<A>(aggregate_id);
        let loaded = self.loader.load::<A>(&stream).await.map_err(unexpected)?;
        Ok(Context { loaded: Loaded::clone(&loaded), stream })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Context<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let Context { stream, loaded } = context;
        let append = single(&stream, loaded.version, &events, &metadata).map_err(unexpected)?;
        match self.append(append).await.map_err(unexpected)? {
            Verdict::Appended { .. } => {}
            Verdict::Moved { .. } => {
                self.loader.forget(&stream, loaded.version);
                return Err(AggregateError::AggregateConflict);
            }
            verdict @ (Verdict::Replayed(_) | Verdict::Claimed { .. } | Verdict::Rejected(_)) => {
                return Err(unexpected(StoreError::Rejected(format!("{verdict:?}"))));
            }
        }
        // The aggregate in the context is as it was before its events: what the cache holds is now behind.
        self.loader.forget(&stream, loaded.version);
        let first = usize::try_from(loaded.version).unwrap_or(usize::MAX) + 1;
        let envelope = |(sequence, payload)| EventEnvelope {
            aggregate_id: stream.id.clone(),
            sequence,
            payload,
            metadata: metadata.clone(),
        };
        Ok((first..).zip(events).map(envelope).collect())
    }
}

fn stream<A: Stored>(aggregate_id: &str) -> Stream {
    Stream { aggregate: A::TYPE.to_owned(), id: aggregate_id.to_owned() }
}

fn single<E: Clone + Into<events::Event>>(
    stream: &Stream,
    version: i64,
    events: &[E],
    metadata: &HashMap<String, String>,
) -> Result<Append, StoreError> {
    let bad = |what: &str| StoreError::Rejected(format!("{what} of {stream} is no UUID"));
    let community: Option<CommunityId> =
        metadata.get("community_id").map(|id| id.parse().map_err(|_| bad("the community"))).transpose()?;
    let shard = match community {
        Some(community) => Shard::of_community(community),
        None => Shard::of_account(stream.uuid().map(AccountId).map_err(|_| bad("the id"))?),
    };
    let written = (version + 1..).zip(events).map(|(sequence, event)| {
        let event: events::Event = event.clone().into();
        let (name, version, payload) = (event.name(), event.version(), event.payload()?);
        Ok(NewEvent { stream: stream.clone(), sequence, event_id: EventId::new(), name, version, payload })
    });
    Ok(Append {
        shard,
        community,
        checks: vec![(stream.clone(), version)],
        events: written.collect::<Result<_, StoreError>>()?,
        metadata: serde_json::to_string(&read_metadata(metadata)?)?,
        claims: Vec::new(),
        private: Vec::new(),
        receipt: None,
    })
}

/// Ours, from theirs: all of it is text in both.
fn read_metadata(metadata: &HashMap<String, String>) -> Result<Metadata, StoreError> {
    let mut fields = json!(metadata);
    if fields.get("correlation_id").is_none_or(Value::is_null) {
        fields["correlation_id"] = json!(EventId::new());
    }
    Ok(serde_json::from_value(fields)?)
}

fn unexpected<E: std::error::Error>(error: StoreError) -> AggregateError<E> {
    AggregateError::UnexpectedError(Box::new(error))
}
