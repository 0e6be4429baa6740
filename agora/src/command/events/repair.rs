//! `agora events repair`, `agora events repairs`

use std::{fmt::Write as _, io::Read as _, path::PathBuf};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use events::{AccountId, EventId, Metadata, Position};
use projector::{RepairWith, Repaired, Said};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use crate::{
    command::{
        self,
        who::{Who, words},
    },
    config::Config,
};

/// Put what can be read in the place of an event that nobody can: on record, with what stood there
///
/// What it is to say comes from a file, in one of two forms: as `agora events show --json` prints an event, of a restored
/// backup or edited by hand, or as `agora events replay` does. What the file leaves out stays as it is stored. An event
/// that can be read is refused, but where it was repaired before; and so is what cannot be read either, is of another
/// event, or breaks a promise that `agora check` looks at. When, where and whose event it is stays. Projections that stand
/// at it try again within two seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events show 0191e2b8-7c00-7000-8000-000000000001 --json --database-url postgres://…/restored > event.json
  agora events repair 0191e2b8-7c00-7000-8000-000000000001 --with event.json --reason 'from the backup of Monday'
  agora events repairs")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Repair {
    /// The event's id
    #[arg(value_name = "ID")]
    id: EventId,
    /// What it is to say: a file with one JSON object, or - for standard input
    #[arg(long, value_name = "FILE")]
    with: PathBuf,
    /// Why it is right to
    #[arg(long, value_name = "WHY", value_parser = words)]
    reason: String,
    /// Also where a newer release wrote it: none is to read it ever
    #[arg(long)]
    unknown: bool,
    #[command(flatten)]
    who: Who,
}

/// List the events that were repaired: what stood there, since when, why, and who said so
#[derive(Debug, Args)]
pub struct Repairs {
    /// Print them as JSON, with all that stood there
    #[arg(long)]
    json: bool,
}

/// An event in either form.
#[derive(Deserialize)]
struct Printed {
    #[serde(alias = "id")]
    event_id: Option<EventId>,
    #[serde(alias = "type")]
    event_type: Option<String>,
    #[serde(alias = "version", default, deserialize_with = "number_or_text")]
    event_version: Option<u64>,
    #[serde(alias = "data")]
    payload: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    #[serde(alias = "subject")]
    stream: Option<String>,
    #[serde(default, deserialize_with = "number_or_text")]
    position: Option<u64>,
    actor: Option<AccountId>,
    correlationid: Option<Uuid>,
    causationid: Option<Uuid>,
    traceparent: Option<String>,
    occurredat: Option<DateTime<Utc>>,
}

/// `CloudEvents` has text where a row has a number.
fn number_or_text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    let text = match Value::deserialize(value)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    text.parse().map(Some).map_err(|_| D::Error::custom(format!("`{text}` is no whole number")))
}

impl Printed {
    fn metadata(&mut self) -> anyhow::Result<Option<Metadata>> {
        let metadata = self.metadata.take().map(|metadata| serde_json::from_str(metadata.get()));
        let metadata = metadata.transpose().context("its metadata")?;
        let (actor, causation_id, occurred_at) = (self.actor, self.causationid, self.occurredat);
        let traceparent = self.traceparent.take();
        let attributes = |correlation_id| Metadata { actor, correlation_id, causation_id, traceparent, occurred_at };
        Ok(metadata.or_else(|| self.correlationid.map(attributes)))
    }
}

impl Repair {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let Self { id, with, reason, unknown, who } = self;
        let said = said(&with, id).with_context(|| format!("--with {}", with.display()))?;
        let (store, by) = (command::history(&config).await?, who.name());
        let repair = RepairWith { event: id, said, reason: &reason, by: &by, unknown };
        let Repaired { position, what } = projector::repair(&store, repair).await?;
        Ok(command::print(&format!(
            "event {id}, at position {position}, is {what} from now on; {by} said so, and what stood there is on record \
             (`agora events repairs`)\n  projections that stood at it try again within two seconds. Look at it, and repair \
             it again where it is not what it should be:\n  agora events show {id}\n  where it says something else than \
             tables have of it, they get that by\n  agora projections rebuild --all\n"
        ))?)
    }
}

/// What is in the file, for this event.
fn said(file: &std::path::Path, id: EventId) -> anyhow::Result<Said> {
    let text = if file == std::path::Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(file)?
    };
    let mut printed: Printed = serde_json::from_str(&text).context("it is not one event as JSON")?;
    let other = printed.event_id.filter(|of| *of != id);
    ensure!(other.is_none(), "it is of event {}", other.unwrap_or(id));
    let metadata = printed.metadata()?;
    let version = printed.event_version.map(u32::try_from).transpose().context("its version")?;
    let position = printed.position.map(Position::try_from).transpose().context("its position")?;
    let Printed { event_type: name, payload, stream, .. } = printed;
    let said = Said { name, version, payload, metadata, stream, position };
    ensure!(
        said.name.is_some() || said.version.is_some() || said.payload.is_some() || said.metadata.is_some(),
        "it says nothing: neither `payload` nor `data`, for one"
    );
    Ok(said)
}

impl Repairs {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let repairs = projector::repairs(&command::store(&config).await?).await?;
        let text = if self.json { serde_json::to_string_pretty(&repairs)? + "\n" } else { list(&repairs) };
        Ok(command::print(&text)?)
    }
}

/// Two lines each: a reason may be long.
fn list(repairs: &[projector::Repair]) -> String {
    if repairs.is_empty() {
        return "no event was repaired\n".to_owned();
    }
    let mut text = String::new();
    for projector::Repair { event_id, position, event_type, event_version, reason, by, at, .. } in repairs {
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let _ = writeln!(
            text,
            "event {event_id} (position {position}), which was {event_type} version {event_version}, said {by} at {at}:"
        );
        let _ = writeln!(text, "  {reason}");
    }
    text + "\nwhat stood there: agora events repairs --json\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0191e2b8-7c00-7000-8000-000000000001";

    fn read(text: &str) -> anyhow::Result<Said> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        said(file.path(), ID.parse()?)
    }

    #[test]
    fn an_event_is_taken_as_it_is_shown_and_as_it_is_replayed() {
        let shown = format!(
            r#"{{"position": 7, "event_id": "{ID}", "event_type": "thread.locked", "event_version": 1,
                "metadata": {{"correlation_id": "{ID}"}}, "payload": {{"reason": "spam"}}}}"#
        );
        let replayed = format!(
            r#"{{"specversion": "1.0", "id": "{ID}", "type": "thread.locked", "version": "1", "position": "7",
                "correlationid": "{ID}", "data": {{"reason": "spam"}}}}"#
        );
        for text in [shown, replayed] {
            let said = read(&text).expect("an event");
            assert_eq!((said.name.as_deref(), said.version), (Some("thread.locked"), Some(1)));
            assert_eq!(said.payload.expect("a payload").get(), r#"{"reason": "spam"}"#);
            assert_eq!(said.metadata.expect("metadata").correlation_id.to_string(), ID);
        }
        let said = read(r#"{"payload": {"reason": "spam"}}"#).expect("what is to change");
        assert!(said.name.is_none() && said.version.is_none() && said.metadata.is_none());
    }

    #[test]
    fn what_is_no_event_or_another_is_refused() {
        let refused = |text: &str| format!("{:#}", read(text).expect_err("refused"));
        assert!(refused("{").starts_with("it is not one event as JSON: EOF"));
        assert!(refused(r#"{"position": 7}"#).starts_with("it says nothing"));
        let other = ID.replace("001", "002");
        assert_eq!(refused(&format!(r#"{{"id": "{other}", "data": {{}}}}"#)), format!("it is of event {other}"));
        assert!(refused(r#"{"version": "one", "data": {}}"#).contains("`one` is no whole number"));
    }
}
