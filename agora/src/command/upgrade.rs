//! `agora upgrade`

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::ensure;
use chrono::Utc;
use clap::{Args, Subcommand};
use events::{Position, catalogue};
use indicatif::HumanDuration;
use platform::instances::{self, Instance};
use serde::Serialize;
use sqlx::PgPool;
use store_reader::EVERY_READER;

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
    /// Those that stand in the history, and are unknown to this release: it stops at them.
    unknown_in_history: Vec<Stored>,
    /// Who reads events.
    readers: Vec<Instance>,
}

/// An event version in the history.
#[derive(Serialize)]
struct Stored {
    version: String,
    /// How many there are that not every reader leaves out.
    events: i64,
    /// The position of the first.
    first: Position,
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
            let found = Found::of(instances::running(&store).await?, unknown_in_history(&store).await?);
            super::print(&if json { serde_json::to_string_pretty(&found)? + "\n" } else { found.words() })?;
            ensure!(found.ready, "this release cannot run, or not with all commands: see above");
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

/// Every event is looked at, which takes a second for some millions of them.
async fn unknown_in_history(store: &PgPool) -> sqlx::Result<Vec<Stored>> {
    let readable = catalogue::readable();
    sqlx::query_as!(
        Stored,
        r#"select event_type || ' version ' || event_version as "version!", count(*) as "events!",
            min(position) as "first!"
        from events e
        where event_type || ' version ' || event_version <> all($1)
            and not exists (select from skips s where s.projection = $2 and s.event_id = e.event_id)
        group by event_type, event_version order by 1"#,
        &readable,
        EVERY_READER,
    )
    .fetch_all(store)
    .await
}

impl Found {
    fn of(readers: Vec<Instance>, unknown_in_history: Vec<Stored>) -> Self {
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
        let ready = unknown.is_empty() && unknown_here.is_empty() && unknown_in_history.is_empty();
        Self { release: env!("CARGO_PKG_VERSION"), ready, writes, unknown, unknown_here, unknown_in_history, readers }
    }

    fn words(&self) -> String {
        let Self { release, ready, writes, unknown, unknown_here, unknown_in_history, readers } = self;
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
        for Stored { version, events, first } in unknown_in_history {
            let _ = writeln!(
                text,
                "\n{version} is unknown to this release, and stands in the history ({events} times, first at position \
                 {first}): it would stop there, and so would a rebuild"
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
        let found = Found::of(vec![projector(catalogue::readable()), projector(some)], vec![]);
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
        let found = Found::of(vec![writer.clone()], vec![]);
        assert!(!found.ready);
        let said = found.words();
        assert!(
            said.contains("post.written version 99 is unknown to this release, no process of which starts"),
            "{said}"
        );
        assert!(said.ends_with("\n  command-service 0.1.0 (process 7 on web-1)\n"), "{said}");
        assert!(Found::of(vec![Instance { writes: vec![], ..writer }], vec![]).ready, "it holds that back");
    }

    #[test]
    fn what_stands_in_the_history_and_is_unknown_here_is_named() {
        let stored = Stored { version: "post.written version 99".to_owned(), events: 3, first: 7 };
        let found = Found::of(vec![], vec![stored]);
        assert!(!found.ready);
        let said = found.words();
        assert!(
            said.contains("post.written version 99 is unknown to this release, and stands in the history (3 times")
        );
    }

    #[test]
    fn where_all_is_known_it_is_said_so() {
        let found = Found::of(vec![projector(catalogue::readable())], vec![]);
        assert!(
            found.ready && found.words().contains("0.1.0 (process 7 on web-1), heard 0 seconds ago\n\nthey know all")
        );
        let nobody = Found::of(vec![], vec![]);
        assert!(nobody.ready && nobody.words().starts_with("nobody reads events"));
    }
}
