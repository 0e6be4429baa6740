//! `agora events skip`

use clap::Args;
use events::EventId;
use projector::{LeaveOut, LeftOut};

use crate::{
    command::{
        self,
        who::{Who, words},
    },
    config::Config,
};

/// Leave an event that nobody can read out for every reader: on record, and for good
///
/// Projections that stand at it go on within two seconds, and rebuilds pass it by; so do replays and exports, pages and
/// streams of events, `agora check`, and the commands on its stream. An event that this release can read is refused:
/// what it says is history, and another event says otherwise. So is one that begins a thread, a post, an account or a
/// community. Try a newer release first, and `agora events repair` with what a backup or an export has of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events show 0191e2b8-7c00-7000-8000-000000000001
  agora events skip 0191e2b8-7c00-7000-8000-000000000001 --reason 'its payload was damaged, see ticket 123'
  agora projections skips")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Skip {
    /// The event's id
    #[arg(value_name = "ID")]
    id: EventId,
    /// Why it is right to
    #[arg(long, value_name = "WHY", value_parser = words)]
    reason: String,
    /// Also where a newer release wrote it: none is to read it ever
    #[arg(long)]
    unknown: bool,
    #[command(flatten)]
    who: Who,
}

impl Skip {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::history(&config).await?;
        let Self { id, reason, unknown, who } = self;
        let by = who.name();
        let what = LeaveOut { event: id, reason: &reason, by: &by, unknown };
        let LeftOut { position, why, before } = projector::leave_out(&store, what).await?;
        let begin = if before {
            format!("event {id}, at position {position}, was left out before: what was said then stands")
        } else {
            format!("every reader leaves out event {id}, at position {position}, from now on; {by} said so")
        };
        Ok(command::print(&format!(
            "{begin} (`agora projections skips`)\n  it cannot be read: {why}\n  projections that stand at it go on \
             within two seconds. Tables that have it already, from before it was damaged, lose it by\n  agora projections \
             rebuild --all\n"
        ))?)
    }
}
