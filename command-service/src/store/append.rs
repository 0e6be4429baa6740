//! One flush on its way to the database: the commands as columns, and what became of each.

use chrono::{DateTime, Utc};
use events::{CommunityId, EventId, HistoryId, Position, Shard, Stream};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

/// An event to be appended.
#[derive(Debug)]
pub struct NewEvent {
    /// Where.
    pub stream: Stream,
    /// As which of the stream's events, from 1.
    pub sequence: i64,
    /// Its id: what recognises it where the flush is sent again.
    pub event_id: EventId,
    /// `aggregate.past_participle`.
    pub name: &'static str,
    /// The version it is written in.
    pub version: u32,
    /// Its payload.
    pub payload: Box<RawValue>,
}

/// A unique value, taken or given up.
#[derive(Debug)]
pub struct Claim {
    /// `username`, `email`, `slug`, `category`.
    pub kind: &'static str,
    /// The value, normalised.
    pub value: String,
    /// Who takes it, or held it.
    pub owner: String,
    /// Whether it is given up.
    pub release: bool,
}

/// A value that must never be in an event.
#[derive(Debug)]
pub struct PrivateData {
    /// The account that it is about.
    pub owner: Uuid,
    /// `password`, `email`.
    pub kind: &'static str,
    /// The value; none deletes it.
    pub value: Option<String>,
}

/// What is remembered under an idempotency key.
#[derive(Debug)]
pub struct Receipt {
    /// Whose key.
    pub owner: Uuid,
    /// The key.
    pub key: String,
    /// The first half of a SHA-256 of the request.
    pub fingerprint: [u8; 16],
    /// The status and the body that were answered. None only looks whether there is a receipt: for a refusal.
    pub answer: Option<(u16, String)>,
}

/// One command, decided: all or nothing of it is appended.
#[derive(Debug)]
pub struct Append {
    /// The lane of all its events, and of the position that it answers.
    pub shard: Shard,
    /// The community of its events; none for an account's own.
    pub community: Option<CommunityId>,
    /// Every stream that the decision read or writes, with the version that it rests on.
    pub checks: Vec<(Stream, i64)>,
    /// In order; none only confirms the versions.
    pub events: Vec<NewEvent>,
    /// [`events::Metadata`], as JSON.
    pub metadata: String,
    /// Unique values.
    pub claims: Vec<Claim>,
    /// Private data.
    pub private: Vec<PrivateData>,
    /// The idempotency key, if there is one.
    pub receipt: Option<Receipt>,
}

impl Append {
    /// About how many bytes it adds to a flush.
    pub(crate) fn bytes(&self) -> usize {
        let events: usize = self.events.iter().map(|event| event.payload.get().len() + self.metadata.len() + 200).sum();
        events + self.checks.len() * 100 + 500
    }
}

/// The first answer given under an idempotency key.
#[derive(Debug)]
pub struct Replay {
    /// The history that the position is of.
    pub history: HistoryId,
    /// The shard that it answered.
    pub shard: Shard,
    /// The position that it answered.
    pub position: Position,
    /// The fingerprint of the request.
    pub fingerprint: Vec<u8>,
    /// Its status.
    pub status: u16,
    /// Its body.
    pub answer: String,
    /// Whether there was nothing to do.
    pub unchanged: bool,
}

/// What became of one command.
#[derive(Debug)]
pub enum Verdict {
    /// It is on disk; or, without events, its versions are current.
    Appended {
        /// The history that the position is of.
        history: HistoryId,
        /// Its last event; without events, its shard's.
        position: Position,
        /// When.
        recorded_at: DateTime<Utc>,
    },
    /// Its idempotency key was used before.
    Replayed(Replay),
    /// A stream that it rests on is at another version.
    Moved {
        /// Which, as `type/id`.
        stream: String,
        /// The version it is at.
        version: i64,
    },
    /// A unique value is somebody else's.
    Claimed {
        /// The kind of value.
        kind: String,
    },
    /// The database refused a value of it.
    Rejected(String),
}

struct Row {
    verdict: String,
    detail: Option<String>,
    version: Option<i64>,
    history: Uuid,
    shard: i16,
    position: Option<i64>,
    recorded_at: DateTime<Utc>,
    fingerprint: Option<Vec<u8>>,
    status: Option<i16>,
    answer: Option<String>,
    unchanged: Option<bool>,
}

impl Row {
    /// None where the function answered what it never answers.
    fn into_verdict(self) -> Option<Verdict> {
        let history = HistoryId(self.history);
        Some(match self.verdict.as_str() {
            "appended" => Verdict::Appended { history, position: self.position?, recorded_at: self.recorded_at },
            "replayed" => Verdict::Replayed(Replay {
                history,
                shard: Shard::try_from(self.shard).ok()?,
                position: self.position?,
                fingerprint: self.fingerprint?,
                status: u16::try_from(self.status?).ok()?,
                answer: self.answer?,
                unchanged: self.unchanged?,
            }),
            "moved" => Verdict::Moved { stream: self.detail?, version: self.version? },
            "claimed" => Verdict::Claimed { kind: self.detail? },
            _ => return None,
        })
    }
}

/// Appends a flush of commands that do not depend on one another, in a transaction of its own unless the connection
/// is in one already; the answer has a verdict for each command, in order.
///
/// `resend` where the answer of this very flush was lost: what is already in is recognised.
///
/// # Errors
/// [`sqlx::Error`] where the flush as a whole failed: then nothing of it is in, or its answer was lost.
pub async fn append(
    connection: &mut PgConnection,
    resend: bool,
    commands: &[&Append],
) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut columns = Columns::default();
    for (index, command) in commands.iter().enumerate() {
        columns.push(i32::try_from(index + 1).unwrap_or(i32::MAX), command);
    }
    let rows = columns.call(connection, resend).await?;
    let verdicts: Vec<_> = rows.into_iter().filter_map(Row::into_verdict).collect();
    if verdicts.len() == commands.len() {
        Ok(verdicts)
    } else {
        Err(sqlx::Error::Protocol("append() did not answer for each command".to_owned()))
    }
}

macro_rules! columns {
    ($($group:ident: $row:ident { $($column:ident: $type:ty,)+ })+) => {
        $(#[derive(Default)]
        struct $row { $($column: Vec<$type>,)+ })+

        #[derive(Default)]
        struct Columns { $($group: $row,)+ }
    };
}

columns! {
    commands: CommandColumns { shard: i16, events: i32, }
    checks: CheckColumns { command: i32, kind: String, id: String, version: i64, }
    events: EventColumns {
        command: i32, nth: i32, kind: String, id: String, sequence: i64, name: String, version: String,
        payload: String, metadata: String, event_id: Uuid, community: Option<Uuid>,
    }
    claims: ClaimColumns { command: i32, kind: String, value: String, owner: String, release: bool, }
    private: PrivateColumns { command: i32, owner: Uuid, kind: String, value: Option<String>, }
    receipts: ReceiptColumns {
        command: i32, owner: Uuid, key: String, fingerprint: Vec<u8>, status: Option<i16>, answer: Option<String>,
    }
}

impl Columns {
    fn push(&mut self, number: i32, append: &Append) {
        self.commands.shard.push(append.shard.into());
        self.commands.events.push(i32::try_from(append.events.len()).unwrap_or(i32::MAX));
        for (stream, version) in &append.checks {
            self.checks.command.push(number);
            self.checks.kind.push(stream.aggregate.clone());
            self.checks.id.push(stream.id.clone());
            self.checks.version.push(*version);
        }
        for (nth, event) in (1..).zip(&append.events) {
            let it = &mut self.events;
            it.command.push(number);
            it.nth.push(nth);
            it.kind.push(event.stream.aggregate.clone());
            it.id.push(event.stream.id.clone());
            it.sequence.push(event.sequence);
            it.name.push(event.name.to_owned());
            it.version.push(event.version.to_string());
            it.payload.push(event.payload.get().to_owned());
            it.metadata.push(append.metadata.clone());
            it.event_id.push(event.event_id.0);
            it.community.push(append.community.map(Uuid::from));
        }
        for claim in &append.claims {
            self.claims.command.push(number);
            self.claims.kind.push(claim.kind.to_owned());
            self.claims.value.push(claim.value.clone());
            self.claims.owner.push(claim.owner.clone());
            self.claims.release.push(claim.release);
        }
        for datum in &append.private {
            self.private.command.push(number);
            self.private.owner.push(datum.owner);
            self.private.kind.push(datum.kind.to_owned());
            self.private.value.push(datum.value.clone());
        }
        if let Some(receipt) = &append.receipt {
            let it = &mut self.receipts;
            it.command.push(number);
            it.owner.push(receipt.owner);
            it.key.push(receipt.key.clone());
            it.fingerprint.push(receipt.fingerprint.to_vec());
            it.status.push(receipt.answer.as_ref().and_then(|(status, _)| i16::try_from(*status).ok()));
            it.answer.push(receipt.answer.as_ref().map(|(_, body)| body.clone()));
        }
    }

    async fn call(&self, connection: &mut PgConnection, resend: bool) -> Result<Vec<Row>, sqlx::Error> {
        let Self { commands, checks, events, claims, private, receipts } = self;
        sqlx::query_as!(
            Row,
            r#"
            select verdict as "verdict!", detail, version, history as "history!", shard as "shard!", position,
                recorded_at as "recorded_at!", fingerprint, status, answer, unchanged
            from append(
                $1, $2, $3,
                $4, $5, $6, $7,
                $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22, $23,
                $24, $25, $26, $27,
                $28, $29, $30, $31, $32, $33
            )
            "#,
            resend,
            &commands.shard,
            &commands.events,
            &checks.command,
            &checks.kind,
            &checks.id,
            &checks.version,
            &events.command,
            &events.nth,
            &events.kind,
            &events.id,
            &events.sequence,
            &events.name,
            &events.version,
            &events.payload,
            &events.metadata,
            &events.event_id,
            &events.community as &[Option<Uuid>],
            &claims.command,
            &claims.kind,
            &claims.value,
            &claims.owner,
            &claims.release,
            &private.command,
            &private.owner,
            &private.kind,
            &private.value as &[Option<String>],
            &receipts.command,
            &receipts.owner,
            &receipts.key,
            &receipts.fingerprint,
            &receipts.status as &[Option<i16>],
            &receipts.answer as &[Option<String>],
        )
        .fetch_all(connection)
        .await
    }
}
