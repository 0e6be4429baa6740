//! `agora events skip`

use clap::Args;
use events::EventId;

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
/// what it says is history, and another event says otherwise. Try a newer release first.
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
    #[command(flatten)]
    who: Who,
}

impl Skip {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::history(&config).await?;
        let (id, by) = (self.id, self.who.name());
        let (position, why) = projector::leave_out(&store, id, &self.reason, &by).await?;
        Ok(command::print(&format!(
            "every reader leaves out event {id}, at position {position}, from now on; {by} said so, on record (`agora \
             projections skips`)\n  it cannot be read: {why}\n  projections that stand at it go on within two seconds\n"
        ))?)
    }
}
