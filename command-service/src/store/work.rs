//! One attempt at a use case: what it read, and what it wants appended.

use std::{collections::HashMap, sync::Arc};

use cqrs_es::event_sink::EventSink;
use events::{AccountId, CommunityId, Event, EventId, Metadata, Shard, Stream, limits};
use platform::sabotage::{Promise, breaks};

use super::{
    Append, Claim, Loaded, NewEvent, PrivateData, Receipt, Request, Stop, Store, StoreError, Stored,
    load::Folded,
    turns::{Concerns, Use},
};

/// One attempt. What is read through it is recorded, and has to be current when it is appended.
pub struct Work<'a> {
    store: &'a Store,
    request: &'a Request,
    seen: Seen,
    events: Vec<NewEvent>,
    claims: Vec<Claim>,
    private: Vec<PrivateData>,
    home: Home,
    /// Whether anything was held against the client's `If-Match`.
    compared: bool,
    /// Whether an attempt before this one found that something had moved.
    again: bool,
}

/// The streams that an attempt read: at which version, and the state with what the attempt did to it.
#[derive(Default)]
pub(super) struct Seen(HashMap<Stream, (i64, Folded)>);

/// What an attempt's events belong to.
#[derive(Clone, Copy)]
enum Home {
    Community(CommunityId),
    Account(AccountId),
    /// Nothing was written yet, and nothing said.
    Nowhere,
}

impl<'a> Work<'a> {
    pub(super) fn new(store: &'a Store, request: &'a Request, again: bool) -> Self {
        Self {
            store,
            request,
            seen: Seen::default(),
            events: Vec::new(),
            claims: Vec::new(),
            private: Vec::new(),
            home: Home::Nowhere,
            compared: false,
            again,
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
        if let Some(state) = self.seen.0.get(stream).and_then(|(_, folded)| folded.state()) {
            return Ok(state);
        }
        let loaded = self.store.loader.load::<A>(stream).await?;
        self.seen.0.insert(stream.clone(), (loaded.version, Folded::of(&loaded)));
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

    /// The event that began what stands of that kind in a stream and has an end; none where nothing stands, or without an
    /// end. Read after the stream was loaded, it is what the loaded version says: else the append finds the stream moved.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begun_by(&mut self, kind: &str, stream: &Stream) -> Result<Option<EventId>, StoreError> {
        let begun =
            sqlx::query_scalar!("select event_id from endings where kind = $1 and aggregate_id = $2", kind, stream.id);
        Ok(begun.fetch_optional(&self.store.pool).await?.map(EventId))
    }

    /// Holds the version of what is to be changed against the client's `If-Match`, where there is one.
    ///
    /// # Errors
    /// [`Stop::VersionMismatch`].
    pub fn require_version<R>(&mut self, version: i64) -> Result<(), Stop<R>> {
        self.compared = true;
        match self.request.if_match {
            Some(expected) if expected != version => Err(Stop::VersionMismatch { version }),
            _ => Ok(()),
        }
    }

    /// Holds what is made against the client's `If-Match`: it was at no version.
    pub(super) fn require_new<R>(&mut self) -> Result<(), Stop<R>> {
        if self.compared { Ok(()) } else { self.require_version(0) }
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
        if let Some((_, folded)) = self.seen.0.get_mut(stream) {
            *folded = Folded::of(&after);
        }
        Ok(after)
    }

    /// As [`Self::handle`], of a stream that the command begins. That it is not there yet is not looked up at first: the
    /// append finds out, and the next attempt reads what is there after all.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub async fn begin<A: Stored>(
        &mut self,
        stream: &Stream,
        command: A::Command,
        facts: &A::Services,
    ) -> Result<Arc<Loaded<A>>, Stop<A::Error>> {
        if !self.again && !self.store.loader.remembers(stream) && !self.seen.0.contains_key(stream) {
            let nothing = Arc::new(Loaded { state: A::default(), version: 0 });
            self.seen.0.insert(stream.clone(), (0, Folded::of(&nothing)));
        }
        self.handle(stream, command, facts).await
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

    /// What the attempt wants appended, and what it read.
    pub(super) fn into_append(self, receipt: Option<Receipt>) -> Result<(Append, Seen), StoreError> {
        let metadata = serde_json::to_string(&Metadata {
            actor: self.request.actor,
            correlation_id: self.request.correlation_id,
            causation_id: self.request.causation_id,
            traceparent: self.request.traceparent.clone(),
            occurred_at: self.request.occurred_at,
        })?;
        if !self.events.is_empty() && matches!(self.home, Home::Nowhere) {
            return Err(StoreError::Rejected("the operation did not say where its events belong".to_owned()));
        }
        let (shard, community) = self.home.lane();
        let unconfirmed = self.events.is_empty() && breaks(Promise::Unconfirmed);
        let append = Append {
            shard,
            community,
            checks: if unconfirmed { Vec::new() } else { self.seen.versions() },
            events: self.events,
            metadata,
            claims: self.claims,
            private: self.private,
            receipt,
        };
        Ok((append, self.seen))
    }

    /// What a refusal rests on, and nothing to write; and what was read.
    pub(super) fn into_confirmation(self, receipt: Option<Receipt>) -> (Append, Seen) {
        let (shard, community) = self.home.lane();
        let append = Append {
            shard,
            community,
            checks: if breaks(Promise::Unconfirmed) { Vec::new() } else { self.seen.versions() },
            events: Vec::new(),
            metadata: String::new(),
            claims: Vec::new(),
            private: Vec::new(),
            receipt,
        };
        (append, self.seen)
    }
}

impl Seen {
    fn versions(&self) -> Vec<(Stream, i64)> {
        self.0.iter().map(|(stream, (read, _))| (stream.clone(), *read)).collect()
    }

    /// What another attempt will concern: the same, most likely.
    pub(super) fn concerns(self) -> Concerns {
        let purpose = |(read, after): (i64, Folded)| if after.version == read { Use::Reads } else { Use::Writes };
        self.0.into_iter().map(|(stream, seen)| (stream, purpose(seen))).collect()
    }

    /// The states that no cache has: those that the attempt changed, and those of streams that are not there, which whoever
    /// came to an end with them is likely to need again (a stranger's membership).
    pub(super) fn news(self) -> impl Iterator<Item = (Stream, i64, Folded)> {
        let news = |(_, (read, after)): &(Stream, (i64, Folded))| after.version != *read || *read == 0;
        self.0.into_iter().filter(news).map(|(stream, (read, after))| (stream, read, after))
    }

    /// The stream of that name, and the version at which it was read.
    pub(super) fn named(&self, name: &str) -> Option<(&Stream, i64)> {
        let named = |stream: &Stream| name.split_once('/') == Some((&stream.aggregate, &stream.id));
        self.0.iter().find(|(stream, _)| named(stream)).map(|(stream, (read, _))| (stream, *read))
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

fn new_event(stream: &Stream, sequence: i64, event: &Event) -> Result<NewEvent, StoreError> {
    let payload = event.payload()?;
    let bytes = payload.get().len();
    if bytes > limits::EVENT_BYTES {
        return Err(StoreError::TooLarge { name: event.name(), bytes });
    }
    let (name, version) = (event.name(), event.version());
    Ok(NewEvent { stream: stream.clone(), sequence, event_id: EventId::new(), name, version, payload })
}
