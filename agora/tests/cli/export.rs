//! `agora events export`: Parquet that says what the store does, the same bytes however they came to be written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    process::Command,
};

use ::agora::history::export::{Target, export};
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::RowAccessor as _,
};
use serde_json::{Value, json};
use sqlx::{
    Connection as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use store_reader::StoreReader;
use tokio_util::bytes::Bytes;

use crate::{client::Client, history::Forum, tables};

/// So few bytes that the events of a test are several segments.
const SEGMENT: usize = 20_000;

/// Every file below a directory, by its path there.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(at).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below it").to_str().expect("plain").to_owned();
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

/// What each event in the files says, by position.
fn events(dir: &Path) -> BTreeMap<i64, Value> {
    let mut found = BTreeMap::new();
    for path in files(dir).into_keys().filter(|path| path != "_manifest.json") {
        let parts: Vec<&str> = path.split('/').collect();
        let [month, name, _] = parts[..] else { panic!("{path}") };
        let (month, name) =
            (month.strip_prefix("month=").expect("a month"), name.strip_prefix("type=").expect("a type"));
        let reader = SerializedFileReader::new(File::open(dir.join(&path)).expect("a file")).expect("Parquet");
        for row in reader.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let text = |column| row.get_string(column).ok().cloned();
            let payload: Value = serde_json::from_str(row.get_string(13).expect("a payload")).expect("JSON");
            let event = json!([
                month,
                name,
                text(1),
                text(2),
                text(3),
                row.get_long(4).expect("a sequence"),
                text(6),
                text(7),
                row.get_timestamp_micros(10).expect("a time"),
                row.get_int(12).expect("a version"),
                payload,
            ]);
            assert!(found.insert(row.get_long(0).expect("a position"), event).is_none(), "{path}: twice");
        }
    }
    found
}

/// The same of the store.
async fn stored(database: &str) -> BTreeMap<i64, Value> {
    let query =
        "select position, json_build_array(to_char(recorded_at at time zone 'utc', 'YYYY-MM'), event_type, event_id,
            aggregate_type, aggregate_id, sequence, community_id, metadata->>'actor',
            (extract(epoch from recorded_at) * 1000000)::bigint, event_version::int, payload)
        from events";
    let rows: Vec<(i64, Value)> =
        sqlx::query_as(query).fetch_all(&mut tables::connect(database).await).await.expect("rows");
    rows.into_iter().collect()
}

async fn store(database: &str) -> StoreReader {
    let options: PgConnectOptions = database.parse().expect("a URL");
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options.options([("search_path", "store")])).await;
    StoreReader::new(pool.expect("it answers"))
}

#[tokio::test]
async fn what_is_exported_is_what_is_stored_and_what_came_since_is_added() {
    let forum = Forum::made().await;
    // Somebody with a password, an e-mail address and tokens.
    Client::of(&forum.up).register("grace").await;
    let dir = forum.agora.path().join("history");
    let said = forum.agora.prints(&["events", "export", "--to", "history", "--through", "30"]);
    assert!(said.starts_with("30 events in ") && said.ends_with("history reaches up to position 30\n"), "{said}");
    let first = files(&dir);
    forum.agora.prints(&["events", "export", "--to", "history"]);
    let all = stored(&forum.database).await;
    let exported = events(&dir);
    assert_eq!(exported.len(), all.len());
    for (position, event) in &all {
        assert_eq!(&exported[position], event, "at {position}");
    }
    let second = files(&dir);
    assert!(first.iter().filter(|(path, _)| path.ends_with(".parquet")).all(|(path, bytes)| second[path] == *bytes));
    let said = forum.agora.prints(&["events", "export", "--to", "history"]);
    assert!(said.starts_with("0 events in 0 new files: "), "{said}");

    let secrets = "select value from private_data union select value from claims where kind = 'email'";
    let secrets: Vec<String> =
        sqlx::query_scalar(secrets).fetch_all(&mut tables::connect(&forum.database).await).await.expect("secrets");
    assert!(secrets.iter().any(|secret| secret.contains("argon2")) && secrets.iter().any(|it| it.contains('@')));
    let text = format!("{exported:?}{}", forum.agora.prints(&["events", "replay"])).to_lowercase();
    assert!(text.contains("grace"), "she is there");
    assert!(secrets.iter().all(|secret| !text.contains(&secret.to_lowercase())), "no secret leaves the store");
    assert!(!text.contains("argon2") && !text.contains("\"eyj"), "no hash and no token");
    duckdb_reads(&dir, &all);
}

/// With the Python of `AGORA_TEST_PYTHON`, where that has `DuckDB`; `./dev test` sees to it.
fn duckdb_reads(dir: &Path, all: &BTreeMap<i64, Value>) {
    let python = std::env::var("AGORA_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = |script: &str| Command::new(&python).args(["-c", script]).current_dir(dir).output();
    if !run("import duckdb").is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no DuckDB");
        return;
    }
    let output = run("import duckdb
print(duckdb.execute(\"\"\"
    select count(*), count(distinct position), count(*) filter (type = 'post.written'), max(recorded_at)::text like '20%',
        min(payload::json->>'$.body') filter (type = 'post.written')
    from '*/*/*.parquet'\"\"\").fetchone())")
    .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let posts: Vec<&Value> = all.values().filter(|event| event[1] == "post.written").collect();
    let start = format!("({0}, {0}, {1}, True, ", all.len(), posts.len());
    assert!(said.starts_with(&start), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_interrupted_export_goes_on_to_the_same_bytes() {
    let forum = Forum::made().await;
    let store = store(&forum.database).await;
    let one = forum.agora.path().join("one");
    let target = |dir: &Path| Target::parse(dir.to_str().expect("plain")).expect("a directory");
    let done = export(&store, &target(&one), None, SEGMENT).await.expect("exports");
    let whole = files(&one);
    let ends: BTreeSet<i64> = {
        let name = |path: &String| path.strip_suffix(".parquet")?.rsplit_once('-')?.1.parse().ok();
        whole.keys().filter_map(name).collect()
    };
    let ends: Vec<i64> = ends.into_iter().collect();
    let [first, second, .., last] = ends[..] else { panic!("several segments: {ends:?}") };
    let groups =
        |bytes: &Vec<u8>| SerializedFileReader::new(Bytes::from(bytes.clone())).expect("Parquet").num_row_groups();
    assert!(
        whole.iter().any(|(path, bytes)| path.ends_with(".parquet") && groups(bytes) > 1),
        "files of several groups"
    );
    let manifest: Value = serde_json::from_slice(&whole["_manifest.json"]).expect("JSON");
    assert_eq!((&manifest["through"], &manifest["target"]), (&last.into(), &last.into()));
    assert_eq!(manifest["event"], event_at(&forum.database, last).await);
    assert_eq!(manifest["target_event"], manifest["event"]);

    // Killed in the middle of the second segment: some of its files are there, one by half, and not yet by its name. And
    // the same of a release that noted no events, and where the run would have ended.
    let mut stood = manifest.clone();
    (stood["through"], stood["event"]) = (first.into(), event_at(&forum.database, first).await);
    let mut before = stood.clone();
    (stood["target"], stood["target_event"]) = (second.into(), event_at(&forum.database, second).await);
    for name in ["event", "target_event"] {
        before.as_object_mut().expect("an object").remove(name);
    }
    for (name, stood, asked) in [("other", &stood, None), ("before", &before, None), ("asked", &stood, Some(first + 1))]
    {
        let other = forum.agora.path().join(name);
        for (path, bytes) in &whole {
            let end = path.strip_suffix(".parquet").and_then(|path| path.rsplit_once('-')?.1.parse::<i64>().ok());
            let later = end.is_some_and(|end| end != first);
            if end.is_some_and(|end| end > second) || later && path.contains("thread.") {
                continue;
            }
            let path = other.join(if later { format!("{path}#1") } else { path.clone() });
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, if later { &bytes[..bytes.len() / 2] } else { bytes }).expect("written");
        }
        fs::write(other.join("_manifest.json"), stood.to_string()).expect("written");
        let again = export(&store, &target(&other), asked, SEGMENT).await.expect("goes on");
        let reached = asked.map_or(done.through, |_| second);
        let ended_first = if name == "before" { last } else { second };
        assert_eq!((again.through, again.ended_first), (reached, Some(ended_first)), "{name}");
        assert_eq!(again.events, u64::try_from(reached - first).expect("positive"));
        if asked.is_some() {
            export(&store, &target(&other), None, SEGMENT).await.expect("goes on");
        }
        assert!(files(&other) == whole, "{name}: the same bytes");
    }
}

async fn event_at(database: &str, position: i64) -> Value {
    let id = sqlx::query_scalar("select event_id::text from events where position = $1").bind(position);
    let id: String = id.fetch_one(&mut tables::connect(database).await).await.expect("an event");
    id.into()
}

#[tokio::test]
async fn what_precedes_an_event_that_nobody_can_read_is_written() {
    let forum = Forum::made().await;
    let dir = forum.agora.path().join("history");
    let mut database = tables::connect(&forum.database).await;
    let position: i64 = {
        let sung = "insert into events select aggregate_type, aggregate_id, sequence + 1000, 'post.sung', '1', '{}',
                metadata, head.position + 1, shard, gen_random_uuid(), community_id, head.recorded_at
            from events, store_head head where events.position = 1 returning position";
        sqlx::query_scalar(sung).fetch_one(&mut database).await.expect("inserted")
    };
    let more =
        "insert into events select aggregate_type, aggregate_id, sequence + 2000, event_type, event_version, payload,
            metadata, head.position + 2, shard, gen_random_uuid(), community_id, head.recorded_at
        from events, store_head head where events.position = 1";
    sqlx::query(more).execute(&mut database).await.expect("done");
    let exported = |arguments: &[&str]| {
        let output = forum.agora.run(&[&["events", "export", "--to", "history"][..], arguments].concat());
        let [said, why] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
        (output.status.code(), said, why)
    };
    let before = position - 1;
    let through = before / 2;
    assert_eq!(exported(&["--through", &through.to_string()]).0, Some(0));
    let (code, said, why) = exported(&[]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with(&format!("{} events in ", before - through)), "{said}");
    assert!(said.ends_with(&format!("history reaches up to position {before}\n")), "{said}");
    assert!(why.contains(&format!("at position {position} cannot be read: unknown event post.sung")), "{why}");
    assert_eq!(events(&dir).into_keys().collect::<Vec<_>>(), (1..position).collect::<Vec<_>>());

    // It begins there again, and less may be asked for.
    let written = files(&dir);
    assert_eq!(exported(&[]).0, Some(1));
    assert_eq!(exported(&["--through", &through.to_string()]).0, Some(0));
    assert!(files(&dir) == written);
    forum.agora.prints(&[
        "events",
        "skip",
        &position_id(&forum.database, position).await,
        "--reason",
        "of a test",
        "--unknown",
    ]);
    let (code, said, why) = exported(&[]);
    assert!(code == Some(0) && said.starts_with("1 events in 1 new files: "), "{said}{why}");
    assert_eq!(events(&dir).len(), usize::try_from(position).expect("few"));
}

async fn position_id(database: &str, position: i64) -> String {
    event_at(database, position).await.as_str().expect("text").to_owned()
}

#[tokio::test]
async fn two_exports_to_one_place_are_one_at_a_time() {
    let forum = Forum::made().await;
    let store = store(&forum.database).await;
    let dir = forum.agora.path().join("one");
    let target = Target::parse(dir.to_str().expect("plain")).expect("a directory");
    let same = Target::parse(dir.join("../one").to_str().expect("plain")).expect("the same directory");
    let mut other = tables::connect(&forum.database).await;
    let taken = "select pg_advisory_lock(hashtextextended('export to ' || $1, 0))";
    sqlx::query(taken).bind(target.place()).execute(&mut other).await.expect("taken");
    let refused = export(&store, &same, None, SEGMENT).await.expect_err("the other is at it").to_string();
    assert_eq!(refused, format!("another export to {} is running: one at a time", target.place()));
    other.close().await.expect("it ends");
    let (one, two) = tokio::join!(export(&store, &target, None, SEGMENT), export(&store, &same, None, SEGMENT));
    let written = [one.expect("written").events, two.expect("after it, nothing is left").events];
    assert!(written[0].min(written[1]) == 0 && written[0].max(written[1]) > 0, "{written:?}");
}

#[tokio::test]
async fn what_is_no_export_of_this_history_is_left_alone() {
    let forum = Forum::made().await;
    let dir = forum.agora.path().join("letters");
    fs::create_dir(&dir).expect("made");
    fs::write(dir.join("letter"), "Dear Ada").expect("written");
    let refused = || forum.agora.refuses(&["events", "export", "--to", "letters"]);
    assert!(refused().contains("letters is not empty, and holds no export"), "{}", refused());
    fs::remove_file(dir.join("letter")).expect("removed");
    forum.agora.prints(&["events", "export", "--to", "letters"]);
    let mut database = tables::connect(&forum.database).await;
    sqlx::query("update history_line set history = gen_random_uuid()").execute(&mut database).await.expect("restored");
    assert!(refused().contains("letters holds another history"), "{}", refused());
    let said = forum.agora.refuses(&["events", "export", "--to", "ftp://example.org/x"]);
    assert!(said.contains("is neither a directory nor s3://bucket/prefix"), "{said}");
}
