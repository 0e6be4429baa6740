//! `agora up`'s own Postgres: what it does when its owner dies, and what it refuses.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
};

use agora::embedded::EmbeddedPostgres;
use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

const HELD: &str = "AGORA_TEST_HOLD_POSTGRES_IN";

/// As `.agora` would be, where the server's user can pass.
fn directory() -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    Ok(builder.prefix("agora-embedded-").permissions(fs::Permissions::from_mode(0o711)).tempdir()?)
}

async fn number(url: &str, sql: &str) -> anyhow::Result<i32> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop_and_a_start() -> anyhow::Result<()> {
    let dir = directory()?;
    let first = EmbeddedPostgres::start(dir.path())?;
    assert_eq!(number(first.url(), "create table kept as select 7 as n").await.ok(), None);
    assert!(!first.adopted());
    first.stop()?;
    let second = EmbeddedPostgres::start(dir.path())?;
    assert_eq!(number(second.url(), "select n from kept").await?, 7);
    second.stop()
}

#[tokio::test]
async fn it_is_durable_private_and_no_superuser() -> anyhow::Result<()> {
    let dir = directory()?;
    let postgres = EmbeddedPostgres::start(dir.path())?;
    let mut connection = PgConnection::connect(postgres.url()).await?;
    for (setting, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("is_superuser", "off"),
    ] {
        let set: String =
            sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut connection).await?;
        assert_eq!(set, value, "{setting}");
    }
    let home = postgres.data_directory().parent().context("a parent")?.to_owned();
    assert_eq!(fs::metadata(&home)?.mode() & 0o777, 0o700);
    assert_ne!(fs::metadata(postgres.data_directory().join("postmaster.pid"))?.uid(), 0, "runs as root");
    Ok(())
}

#[tokio::test]
async fn a_second_start_on_the_same_directory_is_refused_by_name() -> anyhow::Result<()> {
    let dir = directory()?;
    let first = EmbeddedPostgres::start(dir.path())?;
    let refusal = EmbeddedPostgres::start(dir.path()).expect_err("held by the first").to_string();
    assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
    assert_eq!(number(first.url(), "select 1").await?, 1, "the first is not disturbed");
    Ok(())
}

#[tokio::test]
async fn a_server_whose_owner_was_killed_is_adopted_with_its_data() -> anyhow::Result<()> {
    let dir = directory()?;
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "--nocapture", "embedded::hold_a_server_until_killed"])
        .env(HELD, dir.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(owner.stdout.take().context("its output")?).lines();
    let url = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("held at ").map(str::to_owned))
        .context("the owner ended early")?;
    number(&url, "create table kept as select 7 as n").await.ok();
    owner.kill()?;
    owner.wait()?;

    let adopted = EmbeddedPostgres::start(dir.path())?;
    assert!(adopted.adopted());
    assert_eq!(number(adopted.url(), "select n from kept").await?, 7);
    adopted.stop()
}

/// Not a test: the process that the test above kills.
#[test]
#[ignore = "run by a test of its own"]
fn hold_a_server_until_killed() {
    let Some(dir) = std::env::var_os(HELD) else {
        return;
    };
    let postgres = EmbeddedPostgres::start(Path::new(&dir)).expect("Postgres starts");
    println!("held at {}", postgres.url());
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn a_server_that_was_killed_itself_recovers_what_was_committed() -> anyhow::Result<()> {
    let dir = directory()?;
    let first = EmbeddedPostgres::start(dir.path())?;
    number(first.url(), "create table kept as select 7 as n").await.ok();
    let pid = fs::read_to_string(first.data_directory().join("postmaster.pid"))?;
    let pid = pid.lines().next().context("a process id")?;
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status()?.success());
    drop(first);
    let second = EmbeddedPostgres::start(dir.path())?;
    assert_eq!(number(second.url(), "select n from kept").await?, 7);
    second.stop()
}

#[tokio::test]
async fn a_lock_file_with_a_number_given_out_again_is_no_obstacle() -> anyhow::Result<()> {
    let dir = directory()?;
    let first = EmbeddedPostgres::start(dir.path())?;
    let file = first.data_directory().join("postmaster.pid");
    let text = fs::read_to_string(&file)?;
    first.stop()?;
    let rest = text.split_once('\n').context("several lines")?.1;
    fs::write(&file, format!("{}\n{rest}", std::process::id()))?;
    EmbeddedPostgres::start(dir.path())?.stop()
}

#[test]
fn a_set_up_that_was_cut_short_is_done_again() -> anyhow::Result<()> {
    let dir = directory()?;
    EmbeddedPostgres::start(dir.path())?.stop()?;
    let home = dir.path().join("postgres");
    fs::rename(home.join("data"), home.join("data.new.1"))?;
    EmbeddedPostgres::start(dir.path())?.stop()?;
    assert!(!home.join("data.new.1").exists());
    Ok(())
}

#[test]
fn a_path_too_long_for_a_socket_works() -> anyhow::Result<()> {
    let dir = directory()?;
    let long = dir.path().join("x".repeat(120));
    fs::create_dir(&long)?;
    EmbeddedPostgres::start(&long)?.stop()
}

#[test]
fn data_of_a_version_that_is_not_installed_says_which() -> anyhow::Result<()> {
    let dir = directory()?;
    EmbeddedPostgres::start(dir.path())?.stop()?;
    fs::write(dir.path().join("postgres/data/PG_VERSION"), "14\n")?;
    let refusal = EmbeddedPostgres::start(dir.path()).expect_err("14 is not supported").to_string();
    assert!(refusal.contains("written by PostgreSQL 14"), "{refusal}");
    Ok(())
}
