//! One Postgres for all tests that are not about the embedded one, and a database of its own for each.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ::agora::embedded::EmbeddedPostgres;
use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};

use crate::reaper::Reaper;

/// Tests lose nothing in a crash of the machine, and each brings pools of its own.
const SETTINGS: [(&str, &str); 4] =
    [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off"), ("max_connections", "400")];

struct Server {
    postgres: EmbeddedPostgres,
    _reaper: Reaper,
}

/// The URL of a new database. The first call starts the server.
pub(crate) async fn fresh_database() -> String {
    let name = free_name();
    execute(&format!("create database {name}")).await;
    server().postgres.url_of(&name)
}

/// The URL of a copy of a database, in which nobody is: as a dump of it is restored.
pub(crate) async fn copy_of(url: &str) -> String {
    let from: PgConnectOptions = url.parse().expect("a URL");
    let name = free_name();
    execute(&format!("create database {name} template {}", from.get_database().expect("a name"))).await;
    server().postgres.url_of(&name)
}

fn free_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn execute(sql: &str) {
    let mut connection = PgConnection::connect(server().postgres.url()).await.expect("the test server answers");
    connection.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> Server {
    let passable = Permissions::from_mode(0o711);
    let dir = tempfile::Builder::new().prefix("agora-cli-").permissions(passable).tempdir().expect("a directory");
    let dir = dir.keep();
    let reaper = Reaper::of(&dir);
    Server { postgres: EmbeddedPostgres::start_with(&dir, &SETTINGS).expect("Postgres starts"), _reaper: reaper }
}
