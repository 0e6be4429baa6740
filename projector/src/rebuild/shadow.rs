//! The schema that is built in: tables like the live ones.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{Phase, Rebuild, SHADOW, Watch};
use crate::{READ, checkpoint};

/// Indexes that folding looks up by, besides primary keys. All others are made when the rows are there.
const FOLDED_BY: [&str; 2] = ["category_by_community", "thread_post_by_thread"];
/// How far the folds have come, and what was to be built.
const KEPT_BESIDE: [&str; 2] = ["checkpoint", "parked"];

/// Indexes that are made at once: each takes one core.
const INDEXES_AT_ONCE: usize = 2;
/// What the planner is told at first is made of a tenth of the rows that are looked at otherwise. As columns are named, it
/// does not count as the table's analysis, and autovacuum makes that within a minute or so.
const ROUGHLY: &str = "set default_statistics_target = 10";

/// An index of a live table.
#[derive(sqlx::FromRow)]
struct Index {
    name: String,
    /// `CREATE INDEX … ON read.…`.
    definition: String,
    /// `PRIMARY KEY (…)`, where it is that.
    key: Option<String>,
}

impl Rebuild {
    /// Makes the tables, unless they are there from a rebuild of the same that was killed.
    pub(super) async fn make_shadow(&self) -> anyhow::Result<()> {
        let wanted = self.description().await?;
        let mut connection = self.shadow.acquire().await?;
        let mut transaction = connection.begin().await?;
        let begun: bool =
            sqlx::query_scalar("select to_regclass('rebuild.build') is not null").fetch_one(&mut *transaction).await?;
        if begun {
            let found: String = sqlx::query_scalar("select what from build").fetch_one(&mut *transaction).await?;
            if found == wanted {
                return Ok(());
            }
        }
        execute(&mut transaction, &format!("drop schema if exists {SHADOW} cascade; create schema {SHADOW}")).await?;
        for table in KEPT_BESIDE {
            execute(&mut transaction, &format!("create table {table} (like {READ}.{table} including all)")).await?;
        }
        for table in self.tables() {
            self.make_table(table, &mut transaction).await?;
        }
        execute(&mut transaction, "create table build (what text not null)").await?;
        sqlx::query("insert into build values ($1)").bind(&wanted).execute(&mut *transaction).await?;
        let versions = checkpoint::versions(&self.projections);
        checkpoint::ensure(&mut *transaction, versions, self.store.history().await?).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// What is built and what for, of which history and shape, by which build: a rebuild goes on, and takes the place of
    /// the live tables, only where all of that is the same.
    pub(super) async fn description(&self) -> anyhow::Result<String> {
        let migrated: i64 =
            sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(&self.live).await?;
        let history = self.store.history().await?;
        Ok(json!({
            "projections": self.names(),
            "shard": self.what.shard,
            "history": history,
            "migration": migrated,
            "purpose": self.what.purpose,
            "build": self.build,
        })
        .to_string())
    }

    pub(super) fn tables(&self) -> Vec<&'static str> {
        self.projections.iter().flat_map(|projection| projection.tables()).map(|kept| kept.name).collect()
    }

    async fn make_table(&self, table: &str, on: &mut PgConnection) -> anyhow::Result<()> {
        let like = format!(
            "create table {table} (like {READ}.{table} including defaults including constraints including generated \
             including storage including comments)"
        );
        execute(on, &like).await?;
        let options: Option<Vec<String>> =
            sqlx::query_scalar("select reloptions from pg_class where oid = $1::text::regclass")
                .bind(format!("{READ}.{table}"))
                .fetch_one(&mut *on)
                .await?;
        if let Some(options) = options {
            execute(on, &format!("alter table {table} set ({})", options.join(", "))).await?;
        }
        for index in indexes(table, on).await? {
            if let Some(key) = index.key {
                execute(on, &format!("alter table {table} add constraint {} {key}", index.name)).await?;
            } else if FOLDED_BY.contains(&&*index.name) {
                execute(on, &here(&index.definition)).await?;
            }
        }
        Ok(())
    }

    /// Makes the indexes that are not there yet, and tells the planner about the tables.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn make_indexes(&self, watch: &dyn Watch) -> anyhow::Result<()> {
        let mut connection = self.shadow.acquire().await?;
        let mut missing = Vec::new();
        for table in self.tables() {
            missing.extend(indexes(table, &mut connection).await?.into_iter().filter(|index| index.key.is_none()));
        }
        watch.begins(Phase::Indexing, missing.len() as u64, 0);
        let making = stream::iter(missing).map(async |index| {
            let once = here(&index.definition).replacen("INDEX ", "INDEX IF NOT EXISTS ", 1);
            execute(&mut *self.shadow.acquire().await?, &once).await?;
            watch.done(1);
            Ok::<_, sqlx::Error>(())
        });
        making.buffer_unordered(INDEXES_AT_ONCE).try_collect::<()>().await?;
        let tables = sqlx::query_scalar(
            "select format('%s (%s)', attrelid::regclass, string_agg(quote_ident(attname), ', ')) from pg_attribute
            where attrelid = any($1::text[]::regclass[]) and attnum > 0 and not attisdropped group by attrelid",
        );
        let tables: Vec<String> = tables.bind(self.tables()).fetch_all(&mut *connection).await?;
        execute(&mut connection, &format!("{ROUGHLY}; analyze {}", tables.join(", "))).await?;
        Ok(())
    }

    pub(super) async fn drop_shadow(&self) -> sqlx::Result<()> {
        execute(&mut *self.live.acquire().await?, &format!("drop schema if exists {SHADOW} cascade")).await
    }
}

/// The indexes of a live table.
async fn indexes(table: &str, on: &mut PgConnection) -> sqlx::Result<Vec<Index>> {
    let found = sqlx::query_as(
        "select c.relname::text as name, pg_get_indexdef(i.indexrelid) as definition,
            (select pg_get_constraintdef(oid) from pg_constraint where conindid = i.indexrelid and contype = 'p') as key
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = $1::text::regclass order by i.indexrelid",
    );
    found.bind(format!("{READ}.{table}")).fetch_all(on).await
}

/// The same index of the table in this schema.
fn here(definition: &str) -> String {
    definition.replacen(&format!(" ON {READ}."), &format!(" ON {SHADOW}."), 1)
}

/// Runs statements that take no parameters.
pub(super) async fn execute(on: &mut PgConnection, statements: &str) -> sqlx::Result<()> {
    on.execute(sqlx::raw_sql(statements)).await?;
    Ok(())
}
