//! One flush on its way to the database: the commands as columns, and what became of each.

use std::collections::HashMap;

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

/// What the function says: first of all where its flush begins, then of each command that did not simply stand.
struct Row {
    command: i32,
    verdict: String,
    detail: Option<String>,
    version: Option<i64>,
    history: Uuid,
    shard: Option<i16>,
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
            "there" | "confirmed" => {
                Verdict::Appended { history, position: self.position?, recorded_at: self.recorded_at }
            }
            "replayed" => Verdict::Replayed(Replay {
                history,
                shard: Shard::try_from(self.shard?).ok()?,
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

/// A verdict for each command, in order: those that the rows do not name stand, each behind the one before it.
fn verdicts(commands: &[&Append], rows: Vec<Row>) -> Option<Vec<Verdict>> {
    let mut rows = rows.into_iter();
    let head = rows.next().filter(|row| row.verdict == "head")?;
    let mut told: HashMap<i32, Row> = rows.map(|row| (row.command, row)).collect();
    let mut last = head.position?;
    let verdict = |(number, command): (i32, &&Append)| {
        if let Some(row) = told.remove(&number) {
            return row.into_verdict();
        }
        last += i64::try_from(command.events.len()).ok().filter(|many| *many > 0)?;
        Some(Verdict::Appended { history: HistoryId(head.history), position: last, recorded_at: head.recorded_at })
    };
    (1..).zip(commands).map(verdict).collect()
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
    let mut checked = HashMap::new();
    for (number, command) in (1..).zip(commands) {
        columns.push(number, command, &mut checked);
    }
    let rows = columns.call(connection, resend).await?;
    verdicts(commands, rows).ok_or_else(|| sqlx::Error::Protocol("append() did not answer for each command".to_owned()))
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
    checks: CheckColumns { kind: String, id: String, version: i64, }
    rests: RestColumns { command: i32, check: i32, }
    events: EventColumns {
        command: i32, nth: i32, kind: String, id: String, sequence: i64, name: String, version: String,
        payload: String, metadata: String, event_id: Uuid, community: Option<Uuid>, shard: i16,
    }
    confirmations: ConfirmationColumns { command: i32, shard: i16, }
    claims: ClaimColumns { command: i32, kind: String, value: String, owner: String, release: bool, }
    private: PrivateColumns { command: i32, owner: Uuid, kind: String, value: Option<String>, }
    receipts: ReceiptColumns {
        command: i32, owner: Uuid, key: String, fingerprint: Vec<u8>, status: Option<i16>, answer: Option<String>,
        nth: Option<i32>, shard: i16,
    }
}

impl Columns {
    /// `checked` says which check it is that a version has already.
    fn push<'a>(&mut self, number: i32, append: &'a Append, checked: &mut HashMap<(&'a Stream, i64), i32>) {
        let shard = append.shard.into();
        for (stream, version) in &append.checks {
            let next = i32::try_from(checked.len() + 1).unwrap_or(i32::MAX);
            let check = *checked.entry((stream, *version)).or_insert_with(|| {
                self.checks.kind.push(stream.aggregate.clone());
                self.checks.id.push(stream.id.clone());
                self.checks.version.push(*version);
                next
            });
            self.rests.command.push(number);
            self.rests.check.push(check);
        }
        let before = i32::try_from(self.events.nth.len()).unwrap_or(i32::MAX);
        for (nth, event) in (before + 1..).zip(&append.events) {
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
            it.shard.push(shard);
        }
        if append.events.is_empty() {
            self.confirmations.command.push(number);
            self.confirmations.shard.push(shard);
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
            it.nth.push(self.events.nth.last().copied().filter(|_| !append.events.is_empty()));
            it.shard.push(shard);
        }
    }

    async fn call(&self, connection: &mut PgConnection, resend: bool) -> Result<Vec<Row>, sqlx::Error> {
        let Self { checks, rests, events, confirmations, claims, private, receipts } = self;
        sqlx::query_as!(
            Row,
            r#"
            select command as "command!", verdict as "verdict!", detail, version, history as "history!", shard, position,
                recorded_at as "recorded_at!", fingerprint, status, answer, unchanged
            from append(
                $1,
                $2, $3, $4,
                $5, $6,
                $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20,
                $21, $22, $23, $24, $25,
                $26, $27, $28, $29,
                $30, $31, $32, $33, $34, $35, $36, $37
            )
            "#,
            resend,
            &checks.kind,
            &checks.id,
            &checks.version,
            &rests.command,
            &rests.check,
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
            &events.shard,
            &confirmations.command,
            &confirmations.shard,
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
            &receipts.nth as &[Option<i32>],
            &receipts.shard,
        )
        .fetch_all(connection)
        .await
    }
}
