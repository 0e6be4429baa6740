//! `agora demo`

use std::sync::Arc;

use clap::Args;

use super::target::Target;
use crate::{
    config::Config,
    demo::{self, Options, PLAIN_SEED},
};

/// Make up a lively forum, posted through the API; the same seed again writes nothing twice
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora demo
  agora demo --size 50000          a larger one adds to a smaller one, which it leaves as it is
  agora demo --seed 7              another forum, beside the first")]
pub struct Demo {
    /// Posts in all
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    size: u64,
    /// What everything follows from
    #[arg(long, value_name = "S", default_value_t = PLAIN_SEED)]
    seed: u64,
    #[command(flatten)]
    target: Target,
}

impl Demo {
    /// Posts it.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let Self { size, seed, target } = self;
        let _telemetry = super::quiet_logs(&config)?;
        let work = async move {
            let client = Arc::new(target.client(config).await?);
            let address = client.reads().to_owned();
            Ok((demo::run(Options { size, seed }, client).await?, address))
        };
        let (summary, address) = super::block_on_until_told(work, "the same command goes on where it was")?;
        Ok(super::print(&format!("{summary}\n\n{}\n", look_at(&summary, &address)))?)
    }
}

/// Where to look.
fn look_at(summary: &demo::Summary, address: &str) -> String {
    let first = summary.communities.first().map_or("", String::as_str);
    format!(
        "Look at it:\n  curl '{address}/v2/communities'\n  curl '{address}/v2/communities/{first}/threads?sort=hot'\n  \
         curl '{address}/v2/threads/{}/posts?view=tree'",
        summary.thread
    )
}
