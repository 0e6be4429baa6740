//! One attempt at a use case: what it read, and what it wants appended.

use std::{collections::HashMap, sync::Arc};

use cqrs_es::event_sink::EventSink;
use events::{AccountId, CommunityId, Event, EventId, Metadata, Shard, Stream, limits};

use super::{
    Append, Claim, Loaded, NewEvent, PrivateData, Receipt, Request, Stop, Store, StoreError, Stored, load::AnyState,
};

/// One attempt. What is read through it is recorded, and has to be current when it is appended.
pub struct Work<'a> {
    store: &'a Store,
    request: &'a Request,
    /// The version at which each stream was read.
    read: HashMap<Stream, i64>,
    /// Each stream's state with what this attempt did to it, and its version then.
    states: HashMap<Stream, (AnyState, i64)>,
    events: Vec<NewEvent>,
    claims: Vec<Claim>,
    private: Vec<PrivateData>,
    home: Home,
}

/// What an attempt's events belong to.
#[derive(Clone, Copy)]
enum Home {
    Community(CommunityId),
    Account(AccountId),
    /// Nothing was written yet, and nothing said.
    Nowhere,
}

impl<'a> Work<'a> {
    pub(super) fn new(store: &'a Store, request: &'a Request) -> Self {
        Self {
            store,
            request,
            read: HashMap::new(),
            states: HashMap::new(),
            events: Vec::new(),
            claims: Vec::new(),
            private: Vec::new(),
            home: Home::Nowhere,
        }
    }

    /// What the client asked with.
    pub fn request(&self) -> &'a Request {
        self.request
    }

    /// The state of a stream, with what this attempt did to it so far. Its version becomes a guard.
    ///
    /// # Errors
    /// [`StoreError`] where the stream cannot be read or decoded.
    pub async fn load<A: Stored>(&mut self, stream: &Stream) -> Result<Arc<Loaded<A>>, StoreError> {
        if let Some(state) = self.states.get(stream).and_then(|(state, _)| state.clone().downcast().ok()) {
            return Ok(state);
        }
        let loaded = self.store.loader.load::<A>(stream).await?;
        self.read.insert(stream.clone(), loaded.version);
        self.states.insert(stream.clone(), (loaded.clone(), loaded.version));
        Ok(loaded)
    }

    /// Who holds a unique value; none where it is free.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn lookup(&mut self, kind: &'static str, value: &str) -> Result<Option<String>, StoreError> {
        self.store.claimed_by(kind, value).await
    }

    /// As [`Self::lookup`], for kinds of values that are never given up once they are taken.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn lookup_lasting(&mut self, kind: &'static str, value: &str) -> Result<Option<String>, StoreError> {
        self.store.lastingly_claimed_by(kind, value).await
    }

    /// Holds the version of what is to be changed against the client's `If-Match`, where there is one.
    ///
    /// # Errors
    /// [`Stop::VersionMismatch`].
    pub fn require_version<R>(&self, version: i64) -> Result<(), Stop<R>> {
        match self.request.if_match {
            Some(expected) if expected != version => Err(Stop::VersionMismatch { version }),
            _ => Ok(()),
        }
    }

    /// Has an aggregate decide on a command, and keeps the events for the append. Answers the state after it.
    ///
    /// # Errors
    /// The aggregate's refusal, or [`StoreError`].
    pub async fn handle<A: Stored>(
        &mut self,
        stream: &Stream,
        command: A::Command,
        facts: &A::Services,
    ) -> Result<Arc<Loaded<A>>, Stop<A::Error>> {
        let before = self.load::<A>(stream).await?;
        let mut state = before.state.clone();
        let sink = EventSink::default();
        state.handle(command, facts, &sink).await.map_err(Stop::Refused)?;
        let mut version = before.version;
        for event in sink.collect().await {
            version += 1;
            self.events.push(new_event(stream, version, &event.into())?);
        }
        let after = Arc::new(Loaded { state, version });
        self.states.insert(stream.clone(), (after.clone(), version));
        Ok(after)
    }

    /// Takes a unique value with the append.
    pub fn claim(&mut self, kind: &'static str, value: String, owner: String) {
        self.claims.push(Claim { kind, value, owner, release: false });
    }

    /// Gives a unique value up with the append.
    pub fn release(&mut self, kind: &'static str, value: String, owner: String) {
        self.claims.push(Claim { kind, value, owner, release: true });
    }

    /// Writes private data with the append; none deletes it.
    pub fn keep_private(&mut self, owner: AccountId, kind: &'static str, value: Option<String>) {
        self.private.push(PrivateData { owner: owner.0, kind, value });
    }

    /// Says which community the events belong to: their shard comes from it.
    pub fn in_community(&mut self, community: CommunityId) {
        self.home = Home::Community(community);
    }

    /// Says that the events are an account's own.
    pub fn in_account(&mut self, account: AccountId) {
        self.home = Home::Account(account);
    }

    /// What the attempt wants appended, and the states to remember if it stands.
    pub(super) fn into_append(self, receipt: Option<Receipt>) -> Result<(Append, Vec<(Stream, AnyState)>), StoreError> {
        let metadata = serde_json::to_string(&Metadata {
            actor: self.request.actor,
            correlation_id: self.request.correlation_id,
            causation_id: None,
            traceparent: self.request.traceparent.clone(),
            occurred_at: self.request.occurred_at,
        })?;
        if !self.events.is_empty() && matches!(self.home, Home::Nowhere) {
            return Err(StoreError::Rejected("the operation did not say where its events belong".to_owned()));
        }
        let (shard, community) = self.home.lane();
        let append = Append {
            shard,
            community,
            checks: self.read.into_iter().collect(),
            events: self.events,
            metadata,
            claims: self.claims,
            private: self.private,
            receipt,
        };
        Ok((append, states(self.states)))
    }

    /// What a refusal rests on, and nothing to write; and the states to forget if it has moved.
    pub(super) fn into_confirmation(self, receipt: Option<Receipt>) -> (Append, Vec<(Stream, AnyState)>) {
        let (shard, community) = self.home.lane();
        let append = Append {
            shard,
            community,
            checks: self.read.into_iter().collect(),
            events: Vec::new(),
            metadata: String::new(),
            claims: Vec::new(),
            private: Vec::new(),
            receipt,
        };
        (append, states(self.states))
    }
}

impl Home {
    fn lane(self) -> (Shard, Option<CommunityId>) {
        match self {
            Self::Community(id) => (Shard::of_community(id), Some(id)),
            Self::Account(id) => (Shard::of_account(id), None),
            Self::Nowhere => (Shard::default(), None),
        }
    }
}

fn states(states: HashMap<Stream, (AnyState, i64)>) -> Vec<(Stream, AnyState)> {
    states.into_iter().map(|(stream, (state, _))| (stream, state)).collect()
}

fn new_event(stream: &Stream, sequence: i64, event: &Event) -> Result<NewEvent, StoreError> {
    let payload = event.payload()?;
    let bytes = payload.get().len();
    if bytes > limits::EVENT_BYTES {
        return Err(StoreError::TooLarge { name: event.name(), bytes });
    }
    let (name, version) = (event.name(), event.version());
    Ok(NewEvent { stream: stream.clone(), sequence, event_id: EventId::new(), name, version, payload })
}
