//! `agora upgrade`

use std::fmt::Write as _;

use anyhow::ensure;
use chrono::Utc;
use clap::{Args, Subcommand};
use events::catalogue;
use indicatif::HumanDuration;
use platform::instances::{self, Instance};
use serde::Serialize;
use sqlx::PgPool;

use crate::{config::Config, stack};

/// See whether this release may take the place of the one that runs
#[derive(Debug, Subcommand)]
pub enum Upgrade {
    /// Compare what this release writes with what everybody who reads events now can read
    #[command(after_help = "\
Run it with the new release, after `agora migrate` and before its command-services take commands. It fails where somebody
runs who does not know an event version that this release writes: a command-service of it would wait.

Example:
  agora upgrade check --database-url postgres://agora@db/agora")]
    Check(Check),
}

/// How to show it.
#[derive(Debug, Args)]
pub struct Check {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Serialize)]
struct Found {
    /// This release.
    release: &'static str,
    /// Whether it may take commands.
    ready: bool,
    /// How many event versions it writes.
    writes: usize,
    /// Those that not everybody knows.
    unknown: Vec<Unknown>,
    /// Who reads events.
    readers: Vec<Instance>,
}

/// An event version, and who does not know it.
#[derive(Serialize)]
struct Unknown {
    version: String,
    to: Vec<String>,
}

impl Upgrade {
    /// Does it, in the database that is configured, or that of the `agora up` that runs here.
    ///
    /// # Errors
    /// Where somebody does not know what this release writes, or there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let Self::Check(Check { json }) = self;
        super::with_store(config, async |config, store| {
            stack::require(&config).await?;
            let found = Found::of(instances::running(&store).await?);
            super::print(&if json { serde_json::to_string_pretty(&found)? + "\n" } else { found.words() })?;
            ensure!(found.ready, "this release takes no commands until those are replaced or stopped");
            Ok(())
        })
    }
}

/// Who does not know all that this release writes.
pub(super) async fn behind(store: &PgPool) -> sqlx::Result<Vec<Instance>> {
    let written = catalogue::written();
    let mut running = instances::running(store).await?;
    running.retain(|reader| !reader.lacks(&written).is_empty());
    Ok(running)
}

impl Found {
    fn of(readers: Vec<Instance>) -> Self {
        let written = catalogue::written();
        let writes = written.len();
        let to = |version: &String| {
            let lacking = readers.iter().filter(|reader| !reader.reads.contains(version));
            lacking.map(Instance::words).collect::<Vec<_>>()
        };
        let unknown = written.into_iter().map(|version| Unknown { to: to(&version), version });
        let unknown: Vec<_> = unknown.filter(|unknown| !unknown.to.is_empty()).collect();
        Self { release: env!("CARGO_PKG_VERSION"), ready: unknown.is_empty(), writes, unknown, readers }
    }

    fn words(&self) -> String {
        let Self { release, ready, writes, unknown, readers } = self;
        let mut text = match readers.len() {
            0 => "nobody reads events of this database now\n".to_owned(),
            _ => "these read events of this database now:\n".to_owned(),
        };
        for reader in readers {
            let ago = (Utc::now() - reader.seen_at).to_std().unwrap_or_default();
            let _ = writeln!(text, "  {}, heard {} ago", reader.words(), HumanDuration(ago));
        }
        for Unknown { version, to } in unknown {
            let _ = writeln!(text, "\n{version} is unknown to\n  {}", to.join("\n  "));
        }
        if *ready && !readers.is_empty() {
            let _ = writeln!(
                text,
                "\nthey know all {writes} event versions that release {release} writes: it may take commands"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn projector(reads: Vec<String>) -> Instance {
        Instance {
            instance: Uuid::nil(),
            service: "projector".to_owned(),
            host: "web-1".to_owned(),
            process: 7,
            release: "0.1.0".to_owned(),
            reads,
            writes: vec![],
            writing: false,
            started_at: Utc::now(),
            seen_at: Utc::now(),
        }
    }

    #[test]
    fn what_somebody_does_not_know_is_named_with_who_that_is() {
        let mut some = catalogue::readable();
        some.retain(|version| !version.starts_with("post.written "));
        let found = Found::of(vec![projector(catalogue::readable()), projector(some)]);
        assert!(!found.ready);
        let said = found.words();
        assert!(
            said.ends_with("\npost.written version 1 is unknown to\n  projector 0.1.0 (process 7 on web-1)\n"),
            "{said}"
        );
    }

    #[test]
    fn where_all_is_known_it_is_said_so() {
        let found = Found::of(vec![projector(catalogue::readable())]);
        assert!(
            found.ready && found.words().contains("0.1.0 (process 7 on web-1), heard 0 seconds ago\n\nthey know all")
        );
        let nobody = Found::of(vec![]);
        assert!(nobody.ready && nobody.words().starts_with("nobody reads events"));
    }
}
