//! One Postgres for all tests of a process, and a database of its own for each.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use agora::{config::Config, embedded::EmbeddedPostgres, stack};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;

use crate::reaper::{Reaper, quoted};

/// Both schemas, migrated once.
const TEMPLATE: &str = "template_agora";

/// Tests lose nothing in a crash, and each brings pools of its own.
const SETTINGS: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("max_connections", "500"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
];

static SERVER: OnceCell<Server> = OnceCell::const_new();

struct Server {
    postgres: EmbeddedPostgres,
    _reaper: Reaper,
}

/// The URL of a new, migrated database that nobody else uses. The first call of a process starts the server.
pub async fn fresh_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server().await;
    execute(server.postgres.url(), &format!("create database {name} template {TEMPLATE}")).await;
    server.postgres.url_of(&name)
}

/// The URL of a new database without any schema.
pub async fn empty_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("empty_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server().await;
    execute(server.postgres.url(), &format!("create database {name}")).await;
    server.postgres.url_of(&name)
}

async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            let postgres = tokio::task::spawn_blocking(start).await.expect("the test server starts");
            execute(postgres.postgres.url(), &format!("create database {TEMPLATE}")).await;
            let template = Config::default().with_database(&postgres.postgres.url_of(TEMPLATE));
            stack::migrate(&template).await.expect("the migrations apply");
            postgres
        })
        .await
}

fn start() -> Server {
    let dir = temporary_directory("postgres");
    let postgres = EmbeddedPostgres::start_with(&dir, &SETTINGS).expect("Postgres starts");
    let reaper = Reaper::new(&format!(
        "pid=$(head -n 1 {data}/postmaster.pid) && kill -QUIT $pid; \
         while kill -0 $pid; do sleep 0.1; done; rm -rf {dir}",
        data = quoted(&postgres.data_directory()),
        dir = quoted(&dir),
    ));
    Server { postgres, _reaper: reaper }
}

/// A directory that the servers' system users can pass through; whoever asks for it removes it.
pub fn temporary_directory(name: &str) -> PathBuf {
    tempfile::Builder::new()
        .prefix(&format!("agora-test-{name}-"))
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .expect("a temporary directory")
        .keep()
}

async fn execute(url: &str, sql: &str) {
    connect(url).await.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the test server answers")
}
