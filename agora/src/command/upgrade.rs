//! `agora upgrade`

use std::{collections::BTreeSet, fmt::Write as _};

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
runs who does not know an event version that this release writes: a command-service of it would refuse the commands that do.

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
    /// Those that are written now, and unknown to this release: no process of it starts.
    unknown_here: Vec<Unknown>,
    /// Who reads events.
    readers: Vec<Instance>,
}

/// An event version, and who does not know it, or writes it.
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
            ensure!(
                found.ready,
                "this release cannot run, or refuses commands that write those versions, until they are replaced or stopped"
            );
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
        let readable = catalogue::readable();
        let newer: BTreeSet<&String> = readers.iter().flat_map(|it| &it.writes).collect();
        let by = |version: &String| {
            let writers = readers.iter().filter(|it| it.writes.contains(version));
            writers.map(Instance::words).collect::<Vec<_>>()
        };
        let newer = newer.into_iter().filter(|version| !readable.contains(version));
        let unknown_here: Vec<_> = newer.map(|version| Unknown { to: by(version), version: version.clone() }).collect();
        let ready = unknown.is_empty() && unknown_here.is_empty();
        Self { release: env!("CARGO_PKG_VERSION"), ready, writes, unknown, unknown_here, readers }
    }

    fn words(&self) -> String {
        let Self { release, ready, writes, unknown, unknown_here, readers } = self;
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
        for Unknown { version, to } in unknown_here {
            let _ = writeln!(
                text,
                "\n{version} is unknown to this release, no process of which starts while these write it:\n  {}",
                to.join("\n  ")
            );
        }
        if *ready && !readers.is_empty() {
            let _ = writeln!(
                text,
                "\nthey know all {writes} event versions that release {release} writes: it may take all commands"
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
    fn what_is_written_now_and_unknown_here_is_named_with_who_writes_it() {
        let newer = || vec!["post.written version 99".to_owned()];
        let mut writer = projector([catalogue::readable(), newer()].concat());
        (writer.service, writer.writes) = ("command-service".to_owned(), newer());
        let found = Found::of(vec![writer.clone()]);
        assert!(!found.ready);
        let said = found.words();
        assert!(
            said.contains("post.written version 99 is unknown to this release, no process of which starts"),
            "{said}"
        );
        assert!(said.ends_with("\n  command-service 0.1.0 (process 7 on web-1)\n"), "{said}");
        assert!(Found::of(vec![Instance { writes: vec![], ..writer }]).ready, "it holds that back");
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
