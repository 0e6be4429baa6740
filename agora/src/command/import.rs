//! `agora import`

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Subcommand};

use super::target::Target;
use crate::{
    config::Config,
    import::{self, Options},
};

/// Bring over what another forum wrote
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "clap takes the words of what is inside")]
pub enum Import {
    Stackexchange(Stackexchange),
}

/// Bring over a Stack Exchange dump, with its times and names; run again, it goes on or writes nothing
///
/// Questions become threads, answers posts, comments replies; votes become imported scores, users accounts that nobody
/// can log in to, and whoever is gone shows as deleted. Everything is posted through the API as an operator.
#[derive(Debug, Args)]
#[command(after_help = "\
The same again writes nothing twice. That rests on receipts, which are kept for a week (jobs.receipts_kept): later, who has
left the community since would be made a member again.

Examples:
  agora import stackexchange ~/dumps/french-meta
  agora import stackexchange ~/dumps/french-meta --community meta-francais
  AGORA_TOKEN=… agora import stackexchange ~/dumps/french-meta --server https://forum.example")]
pub struct Stackexchange {
    /// The dump: a directory with Users.xml, Posts.xml, Comments.xml and Votes.xml
    #[arg(value_name = "DIR")]
    dump: PathBuf,
    /// The community's name in addresses; by default the directory's name
    #[arg(long, value_name = "SLUG")]
    community: Option<String>,
    /// Print what it came to as JSON, to stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Import {
    /// Imports.
    ///
    /// # Errors
    /// Where it is no dump or not a whole one, or the server cannot be reached.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let Self::Stackexchange(Stackexchange { dump, community, json, target }) = self;
        let _telemetry = super::quiet_logs(&config)?;
        let options = Options { dump, community, work: config.data_dir.clone() };
        let work = async move {
            let client = Arc::new(target.client(config).await?);
            import::run(options, client).await
        };
        let summary = super::block_on_until_told(work, "the same command goes on where it was")?;
        let said = if json { serde_json::to_string_pretty(&summary)? } else { summary.to_string() };
        super::print(&format!("{said}\n"))?;
        Ok(())
    }
}
