//! One flush on its way to the database: the commands as rows, and what became of each.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use events::{CommunityId, EventId, HistoryId, Position, Shard, Stream};
use serde_json::value::RawValue;
use sqlx::{
    PgConnection, Postgres,
    postgres::{PgHasArrayType, PgTypeInfo},
};
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
    let rows = Rows::of(commands).call(connection, resend).await?;
    verdicts(commands, rows).ok_or_else(|| sqlx::Error::Protocol("append() did not answer for each command".to_owned()))
}

/// Declares rows that `append()` takes, each of the composite type of its name.
macro_rules! rows {
    ($($row:ident($name:literal) { $($column:ident: $type:ty,)+ })+) => {$(
        #[derive(sqlx::Encode)]
        struct $row<'a> { $($column: $type,)+ }

        impl sqlx::Type<Postgres> for $row<'_> {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        }

        impl PgHasArrayType for $row<'_> {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::array_of($name)
            }
        }
    )+};
}

rows! {
    CheckRow("append_check") { kind: &'a str, id: &'a str, version: i64, commands: Vec<i32>, }
    EventRow("append_event") {
        command: i32, nth: i32, kind: &'a str, id: &'a str, sequence: i64, name: &'a str, version: String,
        payload: &'a str, metadata: &'a str, event_id: Uuid, community: Option<Uuid>, shard: i16,
    }
    ClaimRow("append_claim") { command: i32, kind: &'a str, value: &'a str, owner: &'a str, release: bool, }
    PrivateRow("append_private") { command: i32, owner: Uuid, kind: &'a str, value: Option<&'a str>, }
    ReceiptRow("append_receipt") {
        command: i32, owner: Uuid, key: &'a str, fingerprint: &'a [u8], status: Option<i16>, answer: Option<&'a str>,
        nth: Option<i32>, shard: i16,
    }
}

/// A command without events.
#[derive(sqlx::Type)]
#[sqlx(type_name = "append_confirmation")]
struct ConfirmationRow {
    command: i32,
    shard: i16,
}

/// A flush, as `append()` takes it.
#[derive(Default)]
struct Rows<'a> {
    checks: Vec<CheckRow<'a>>,
    events: Vec<EventRow<'a>>,
    confirmations: Vec<ConfirmationRow>,
    claims: Vec<ClaimRow<'a>>,
    private: Vec<PrivateRow<'a>>,
    receipts: Vec<ReceiptRow<'a>>,
}

impl<'a> Rows<'a> {
    fn of(commands: &[&'a Append]) -> Self {
        let mut rows = Self::default();
        // Where the check of a version is that others rest on too.
        let mut checked = HashMap::new();
        for (command, append) in (1..).zip(commands) {
            rows.push(command, append, &mut checked);
        }
        rows
    }

    fn push(&mut self, command: i32, append: &'a Append, checked: &mut HashMap<(&'a Stream, i64), usize>) {
        let shard = append.shard.into();
        for (stream, version) in &append.checks {
            let check = *checked.entry((stream, *version)).or_insert_with(|| {
                let (kind, id, commands) = (stream.aggregate.as_str(), stream.id.as_str(), Vec::new());
                self.checks.push(CheckRow { kind, id, version: *version, commands });
                self.checks.len() - 1
            });
            self.checks[check].commands.push(command);
        }
        let before = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        self.events.extend((before + 1..).zip(&append.events).map(|(nth, event)| EventRow {
            command,
            nth,
            kind: &event.stream.aggregate,
            id: &event.stream.id,
            sequence: event.sequence,
            name: event.name,
            version: event.version.to_string(),
            payload: event.payload.get(),
            metadata: &append.metadata,
            event_id: event.event_id.0,
            community: append.community.map(Uuid::from),
            shard,
        }));
        if append.events.is_empty() {
            self.confirmations.push(ConfirmationRow { command, shard });
        }
        self.claims.extend(append.claims.iter().map(|claim| {
            let Claim { kind, value, owner, release } = claim;
            ClaimRow { command, kind, value, owner, release: *release }
        }));
        self.private.extend(append.private.iter().map(|datum| {
            let PrivateData { owner, kind, value } = datum;
            PrivateRow { command, owner: *owner, kind, value: value.as_deref() }
        }));
        self.receipts.extend(append.receipt.iter().map(|receipt| ReceiptRow {
            command,
            owner: receipt.owner,
            key: &receipt.key,
            fingerprint: &receipt.fingerprint,
            status: receipt.answer.as_ref().and_then(|(status, _)| i16::try_from(*status).ok()),
            answer: receipt.answer.as_ref().map(|(_, body)| body.as_str()),
            nth: self.events.last().map(|event| event.nth).filter(|_| !append.events.is_empty()),
            shard,
        }));
    }

    async fn call(self, connection: &mut PgConnection, resend: bool) -> Result<Vec<Row>, sqlx::Error> {
        let Self { checks, events, confirmations, claims, private, receipts } = self;
        sqlx::query_as!(
            Row,
            r#"
            select command as "command!", verdict as "verdict!", detail, version, history as "history!", shard, position,
                recorded_at as "recorded_at!", fingerprint, status, answer, unchanged
            from append($1, $2, $3, $4, $5, $6, $7)
            "#,
            resend,
            checks as _,
            events as _,
            confirmations as _,
            claims as _,
            private as _,
            receipts as _,
        )
        .fetch_all(connection)
        .await
    }
}
