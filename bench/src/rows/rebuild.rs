//! `agora projections rebuild --all`, on a database that is up to date, beside what Postgres itself takes to give the same
//! events out and to take the same rows in.

use std::path::PathBuf;

use sqlx::PgPool;

use crate::{
    lab::{Lab, connect},
    pairs::Pairs,
    process::timed,
    psql::psql,
    report::{Bound, Report, Unit},
    standing::events,
};

/// What stands beside the read tables and is no row of theirs.
const NO_ROWS: [&str; 4] = ["_sqlx_migrations", "checkpoint", "parked", "skipped"];

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let bed = Bed::new(lab, lab.options.size).await?;
    bed.dump().await?;
    let pairs = Pairs::take(lab.options.pairs, || bed.rebuild(), || bed.copy()).await?;
    let name = "rebuild, all projections: events";
    report.alone(name, Unit::PerSecond, pairs.ours(), Some(Bound::Least(50_000.)));
    report.beside(name, Unit::PerSecond, &pairs, "COPY out and in", Some(Bound::Least(0.25)));
    bed.end().await
}

/// Seconds from the start of the process to its end.
async fn rebuild(lab: &Lab, database: &str) -> anyhow::Result<f64> {
    lab.checkpoint().await?;
    let rebuild = ["projections", "rebuild", "--all", "--json", "--database-url", database];
    Ok(timed(lab.program(&rebuild)).await?.as_secs_f64())
}

/// A database that is up to date.
pub(super) struct Bed<'a> {
    lab: &'a Lab,
    database: String,
    pool: PgPool,
    events: f64,
    /// Its read tables.
    tables: Vec<String>,
}

impl<'a> Bed<'a> {
    /// With so many posts.
    pub(super) async fn new(lab: &'a Lab, size: u64) -> anyhow::Result<Self> {
        let database = lab.filled(size).await?;
        let pool = connect(&database, 1).await?;
        let tables = sqlx::query_scalar(
            "select tablename::text from pg_tables where schemaname = 'read' and tablename <> all ($1) order by tablename",
        );
        let tables = tables.bind(&NO_ROWS[..]).fetch_all(&pool).await?;
        Ok(Self { lab, database, events: events(&pool).await?, pool, tables })
    }

    /// Events a second of a rebuild, from the start of the process to its end.
    pub(super) async fn rebuild(&self) -> anyhow::Result<f64> {
        Ok(self.events / rebuild(self.lab, &self.database).await?)
    }

    /// ms of a rebuild for a thousand events, less what one of `nothing` takes.
    pub(super) async fn thousand(&self, nothing: &str) -> anyhow::Result<f64> {
        let takes = rebuild(self.lab, &self.database).await? - rebuild(self.lab, nothing).await?;
        Ok(1_000_000. * takes / self.events)
    }

    /// The rows as files, to be taken in.
    async fn dump(&self) -> anyhow::Result<()> {
        let out = |table: &String| format!(r"\copy read.{table} to '{}'", self.file(table).display());
        psql(&self.database, &self.tables.iter().map(out).collect::<Vec<_>>()).await.map(drop)
    }

    /// Events a second of `COPY`: all of them out, and the rows made of them into tables with the same indexes.
    async fn copy(&self) -> anyhow::Result<f64> {
        let mut tables = vec!["drop schema if exists baseline cascade".to_owned(), "create schema baseline".to_owned()];
        tables.extend(
            self.tables.iter().map(|table| format!("create table baseline.{table} (like read.{table} including all)")),
        );
        psql(&self.database, &tables).await?;
        self.lab.checkpoint().await?;
        let mut copy = vec![format!(r"\copy store.events to '{}'", self.file("events").display())];
        copy.extend(
            self.tables.iter().map(|table| format!(r"\copy baseline.{table} from '{}'", self.file(table).display())),
        );
        let took = psql(&self.database, &copy).await?;
        psql(&self.database, &["drop schema baseline cascade".to_owned()]).await?;
        Ok(self.events / took.as_secs_f64())
    }

    fn file(&self, table: &str) -> PathBuf {
        self.lab.dir().join(format!("{table}.copy"))
    }

    /// Takes it away.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        for table in self.tables.iter().map(String::as_str).chain(["events"]) {
            // Only where it was dumped.
            std::fs::remove_file(self.file(table)).ok();
        }
        self.pool.close().await;
        self.lab.drop(&self.database).await
    }
}
