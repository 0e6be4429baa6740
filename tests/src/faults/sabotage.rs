//! Promises of the store that are broken on purpose, by editing its own functions. The others are broken in the services,
//! by a build that can (`platform::sabotage`).

use anyhow::{Context as _, ensure};
use platform::sabotage::PROMISES;
use sqlx::PgPool;

/// Each with a passage of `append()` and what is put in its place.
const OF_THE_STORE: [(&str, &[(&str, &str)]); 3] = [
    // What it checks is as old as before the lock that it waits for.
    (
        "lock-and-check-at-once",
        &[
            ("perform pg_advisory_xact_lock(418463542881);", ""),
            (
                "if appended > 0 or",
                "perform pg_sleep(0.002);\n    perform pg_advisory_xact_lock(418463542881);
    select h.position, greatest(h.recorded_at, clock_timestamp()) into strict head_position, recorded_at from store_head h;
    if appended > 0 or",
            ),
        ],
    ),
    // Only the streams that are written are checked, not those that were read.
    (
        "no-guards",
        &[(
            "where a.version <> c.version",
            "where a.version <> c.version and c.id in (select e.id from unnest(new_events) e)",
        )],
    ),
    ("no-receipt", &[("where fallen[r.command] is null and r.status is not null", "where false")]),
];

/// All of them.
pub(crate) fn names() -> Vec<&'static str> {
    OF_THE_STORE.map(|(name, _)| name).into_iter().chain(PROMISES.map(|(name, _)| name)).collect()
}

/// Breaks it, where it is one of the store's.
///
/// # Errors
/// Where the passage is not there any more.
pub(crate) async fn of_the_store(pool: &PgPool, name: &str) -> anyhow::Result<()> {
    let Some((_, edits)) = OF_THE_STORE.iter().find(|(known, _)| *known == name) else {
        ensure!(names().contains(&name), "no sabotage {name}; there are {}", names().join(", "));
        return Ok(());
    };
    // The one of the release before may be beside it.
    let oid = "select pg_get_functiondef(oid) from pg_proc
        where proname = 'append' and pronamespace = 'store'::regnamespace order by oid desc limit 1";
    let mut definition: String = sqlx::query_scalar(oid).fetch_one(pool).await.context("append() is not there")?;
    for (from, to) in *edits {
        ensure!(definition.contains(from), "append() has no `{from}`: the sabotage {name} must be written anew");
        definition = definition.replacen(from, to, 1);
    }
    sqlx::raw_sql(&definition).execute(pool).await?;
    Ok(())
}
