//! `agora events new-history`

use anyhow::ensure;
use clap::Args;
use projector::history::{self, Begun};

use crate::{
    command::{
        self,
        who::{Who, words},
    },
    config::Config,
    terminal::count,
};

/// Begin a new history, after a backup was restored and nothing remembers what came behind it
#[derive(Debug, Args)]
#[command(after_help = "\
A store that was put back to an earlier state gives positions anew that it has given before. Projectors notice by
themselves where Kafka or the read tables remember them; where all was restored together, only you know. Read tables are
then made anew, and clients with a position of the lost future are told so (410 history-lost). No event is changed.

Examples:
  agora events new-history --reason 'the backup of Monday' --database-url postgres://agora@db/agora_restored
  agora events histories")]
pub struct NewHistory {
    /// What was restored, and why
    #[arg(long, value_name = "WHY", value_parser = words)]
    reason: String,
    #[command(flatten)]
    who: Who,
    /// Do so though services run on this database: reads show nothing until their tables are made anew
    #[arg(long)]
    while_services_run: bool,
}

impl NewHistory {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::store(&config).await?;
        let serving = history::serving(&store).await?;
        ensure!(
            serving.is_empty() || self.while_services_run,
            "services run on this database ({}): stop them first, or say --while-services-run where their read tables may \
             be empty until they are made anew",
            serving.join(", ")
        );
        let begun = history::begin(&store, &self.reason, &self.who.name()).await?;
        command::print(&said(&begun, !serving.is_empty()))?;
        Ok(())
    }
}

/// What was done, and what happens next.
fn said(begun: &Begun, serving: bool) -> String {
    let Begun { history, replaced, position, by, .. } = begun;
    let events = count(position.unsigned_abs());
    let when = if serving { "now" } else { "once a projector runs" };
    format!(
        "history {history} begins behind position {events}, in place of {replaced}; {by} said so, on record \
         (`agora events histories`)\n\
         \x20 {when}, the read tables are made anew from {events} events: `agora projections status` shows how far they are\n\
         \x20 a client that shows a position of the old history is answered 410 history-lost, and begins without one\n\
         \x20 what Kafka has of the old history is dropped; an export of it goes on in a directory of its own\n"
    )
}
