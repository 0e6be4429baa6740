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
use sqlx::{Connection as _, Executor as _, PgConnection};

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
    static NEXT: AtomicU32 = AtomicU32::new(1);
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(start);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(server.postgres.url()).await.expect("the test server answers");
    connection.execute(&*format!("create database {name}")).await.expect("a database");
    server.postgres.url_of(&name)
}

fn start() -> Server {
    let passable = Permissions::from_mode(0o711);
    let dir = tempfile::Builder::new().prefix("agora-cli-").permissions(passable).tempdir().expect("a directory");
    let dir = dir.keep();
    let reaper = Reaper::of(&dir);
    Server { postgres: EmbeddedPostgres::start_with(&dir, &SETTINGS).expect("Postgres starts"), _reaper: reaper }
}
