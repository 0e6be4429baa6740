//! What an analyst does: `agora events replay` and `show`, and `agora stream`, on a forum that was made up.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use events::{Delivered, kafka};
use serde_json::{Map, Value, json};
use sqlx::{Executor as _, Row as _};

use crate::{
    agora::{Agora, Up},
    postgres, tables,
};

/// A server with some events.
pub(crate) struct Forum {
    pub(crate) agora: Agora,
    pub(crate) database: String,
    pub(crate) up: Up,
}

impl Forum {
    pub(crate) async fn made() -> Self {
        let (agora, database) = (Agora::new(), postgres::fresh_database().await);
        let up = Up::start(agora.up_on(&database));
        agora.prints(&["demo", "--size", "60", "--seed", "7"]);
        Self { agora, database, up }
    }

    fn replay(&self, arguments: &[&str]) -> String {
        self.agora.prints(&[&["events", "replay"][..], arguments].concat())
    }

    /// The positions that a condition holds for, in order.
    async fn positions(&self, condition: &str) -> Vec<i64> {
        let query = format!("select position from events where {condition} order by position");
        sqlx::query_scalar(&query).fetch_all(&mut tables::connect(&self.database).await).await.expect("positions")
    }
}

/// Lines as the messages that they were in Kafka.
fn messages(lines: &str) -> Vec<Delivered> {
    let message = |line: &str| {
        let mut attributes: Map<String, Value> = serde_json::from_str(line).expect("JSON");
        let data = attributes.remove("data").expect("a payload").to_string();
        let text = |(name, value): (String, Value)| (format!("ce_{name}"), value.as_str().expect("text").to_owned());
        let headers: Vec<(String, String)> = attributes.into_iter().map(text).collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        kafka::decode(headers, data.as_bytes()).expect("an event")
    };
    lines.lines().map(message).collect()
}

fn positions(lines: &str) -> Vec<i64> {
    messages(lines).iter().map(|event| event.envelope.position).collect()
}

#[tokio::test]
async fn a_replay_is_the_history_and_its_parts_are_what_was_asked_for() {
    let forum = Forum::made().await;
    let all = forum.positions("true").await;
    let whole = messages(&forum.replay(&[]));
    assert_eq!(whole.iter().map(|event| event.envelope.position).collect::<Vec<_>>(), all);
    for (nth, event) in whole.iter().enumerate() {
        let before = whole[..nth].iter().rev().find(|before| before.envelope.shard == event.envelope.shard);
        assert_eq!(event.previous, before.map_or(0, |before| before.envelope.position));
    }

    assert_eq!(positions(&forum.replay(&["--from", "20", "--to", "30"])), (21..=30).collect::<Vec<i64>>());
    let posts = "event_type in ('post.written', 'post.edited')";
    let asked = ["--type", "post.written", "--type", "post.edited"];
    assert_eq!(positions(&forum.replay(&asked)), forum.positions(posts).await);
    assert_eq!(forum.replay(&["--type", "post.written,post.edited"]), forum.replay(&asked));
    let slug = "select value, owner from claims where kind = 'slug' order by value limit 1";
    let (slug, id): (String, String) =
        sqlx::query_as(slug).fetch_one(&mut tables::connect(&forum.database).await).await.expect("a community");
    let community = forum.replay(&["--community", &slug, "--from", "20"]);
    assert_eq!(positions(&community), forum.positions(&format!("community_id = '{id}' and position > 20")).await);
    assert_eq!(community, forum.replay(&["--community", &id, "--from", "20"]));
    // However little of the history is read, an event says the same.
    assert!(messages(&community).iter().all(|event| whole.contains(event)));
    let middle = &whole[whole.len() / 2].envelope;
    let since = middle.recorded_at.to_rfc3339();
    let later = forum.positions(&format!("recorded_at >= '{since}'")).await;
    assert!(!later.is_empty() && later.len() < all.len());
    assert_eq!(positions(&forum.replay(&["--since", &since])), later);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_in_words() {
    let forum = Forum::made().await;
    let refused = |arguments: &[&str]| forum.agora.refuses(&[&["events", "replay"][..], arguments].concat());
    let said = refused(&["--type", "post.writen"]);
    assert!(said.contains("--type: there is no event `post.writen`: did you mean `post.written`?"), "{said}");
    assert!(refused(&["--community", "nowhere"]).contains("--community: there is no community `nowhere`"));
    for flag in ["--from", "--to"] {
        let said = refused(&[flag, "1000000"]);
        assert!(said.contains(&format!("{flag}: there is no position 1000000 yet: the event store is at ")), "{said}");
    }
    assert!(refused(&["--from", "5", "--to", "3"]).contains("--to 3 is before --from 5"));
    let said = refused(&["--to-file", "/dev/full"]);
    assert!(said.contains("--to-file: /dev/full is a device or a pipe") && said.contains("`> /dev/full`"), "{said}");
    for follow in [&[][..], &["--follow"]] {
        let said = forum.agora.refuses(&[&["events", "tail", "--from", "1000000"][..], follow].concat());
        assert!(said.contains("--from: there is no position 1000000 yet: the event store is at "), "{said}");
    }
    fs::write(forum.agora.path().join("letter"), "dear").expect("written");
    for (to, why) in [
        ("letter", "letter is a file: an export goes into a directory"),
        ("/dev/null", "/dev/null is a device or a pipe: an export goes into a directory"),
        ("s3://", "s3:// names no bucket"),
        ("", "nothing is named: it is a directory or s3://bucket/prefix"),
    ] {
        let said = forum.agora.refuses(&["events", "export", "--to", to]);
        assert!(said.contains(&format!("--to: {why}")), "{said}");
    }
    let said = refused(&["--kafka-topic", "agora.events", "--kafka-brokers", "127.0.0.1:1"]);
    assert!(said.contains("the topic agora.events is Agora's own"), "{said}");
    assert!(refused(&["--kafka-topic", "mine"]).contains("no Kafka is configured"));
}

#[tokio::test]
async fn a_file_goes_on_where_it_was_left() {
    let forum = Forum::made().await;
    let path = forum.agora.path().join("history.ndjson");
    forum.replay(&["--to-file", "history.ndjson", "--to", "25"]);
    let part = fs::read_to_string(&path).expect("a file");
    assert_eq!(positions(&part), (1..=25).collect::<Vec<i64>>());
    // Killed while it wrote.
    fs::write(&path, format!("{part}{}\n{{\"specversion\":\"1", part.lines().last().expect("a line")))
        .expect("written");
    let cut = fs::metadata(&path).expect("a file").len() - u64::try_from(part.len()).expect("few");
    let again = forum.agora.run(&["events", "replay", "--to-file", "history.ndjson"]);
    let said = String::from_utf8(again.stderr).expect("text");
    assert!(again.status.success() && said.contains(&format!("cut off {cut} bytes behind position 25, ")), "{said}");
    assert_eq!(fs::read_to_string(&path).expect("a file"), forum.replay(&[]));
    let said = forum.agora.refuses(&["events", "replay", "--to-file", "history.ndjson", "--type", "post.written"]);
    assert!(said.contains("answers another question"), "{said}");
}

/// What a full disk took is there: the next run does not begin anew.
#[tokio::test]
async fn a_file_goes_on_behind_what_a_full_disk_took() {
    let forum = Forum::made().await;
    let path = forum.agora.path().join("history.ndjson");
    let replay = forum.agora.command(&["events", "replay", "--to-file", "history.ndjson"]);
    // A file may have 51,200 bytes; the system says so as it says that a disk is full.
    let limited = "ulimit -f 100; trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", limited]).arg(replay.get_program()).args(replay.get_args());
    shell.current_dir(replay.get_current_dir().expect("its own"));
    for (name, value) in replay.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let full = shell.output().expect("it runs");
    let said = String::from_utf8(full.stderr).expect("text");
    assert!(full.status.code() == Some(1) && said.contains("cannot write history.ndjson: File too large"), "{said}");
    let whole = forum.replay(&[]);
    let kept = fs::read_to_string(&path).expect("a file");
    assert!(kept.len() > 10_000 && kept.len() < whole.len() && whole.starts_with(&kept), "{} bytes", kept.len());

    let again = forum.agora.run(&["events", "replay", "--to-file", "history.ndjson"]);
    let said = String::from_utf8(again.stderr).expect("text");
    // The last whole line is written again.
    let missing = whole.lines().count() - kept.matches('\n').count() + 1;
    assert!(again.status.success() && said.contains(&format!("\n{missing} events up to position ")), "{said}");
    assert_eq!(fs::read_to_string(&path).expect("a file"), whole);
}

#[tokio::test]
async fn an_event_that_nobody_can_read_stops_there_and_can_be_looked_at() {
    let forum = Forum::made().await;
    let mut database = tables::connect(&forum.database).await;
    // As a newer release would write it, and one that is older did not expect it.
    let sung =
        "insert into events select aggregate_type, aggregate_id, sequence + 1000, 'post.sung', '1', '{\"key\": 1}',
            metadata, head.position + 1, shard, gen_random_uuid(), community_id, head.recorded_at
        from events, store_head head where events.position = 1 returning event_id::text, position, aggregate_id";
    let row = sqlx::query(sung).fetch_one(&mut database).await.expect("inserted");
    let (id, position, account): (String, i64, String) = (row.get(0), row.get(1), row.get(2));

    let why = "this release cannot read it: unknown event post.sung version 1: written by a newer release?";
    let tail = forum.agora.prints(&["events", "tail"]);
    assert!(tail.ends_with(&format!("({why})\n")), "{tail}");
    let stream = forum.agora.prints(&["stream", "account", &account]);
    assert!(stream.contains("  post.sung by ") && stream.contains(&format!("\n      ({why})\n")), "{stream}");

    let output = forum.agora.run(&["events", "replay"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains(&format!("go on with --from {}\n", position - 1)), "{said}");
    let why = format!("the event {id} at position {position} cannot be read: unknown event post.sung version 1");
    assert!(said.contains(&why), "{said}");
    let lines = String::from_utf8(output.stdout).expect("text");
    assert_eq!(positions(&lines), (1..position).collect::<Vec<i64>>(), "all that precedes it");

    let shown = forum.agora.run(&["events", "show", &id]);
    assert_eq!(shown.status.code(), Some(1));
    let [text, said] = [shown.stdout, shown.stderr].map(|text| String::from_utf8(text).expect("text"));
    assert!(text.starts_with("post.sung version 1\n") && text.contains("\"key\": 1"), "{text}");
    assert!(said.starts_with("agora: this event cannot be read: unknown event post.sung"), "{said}");
}

#[tokio::test]
async fn an_event_that_nobody_can_read_is_left_out_of_all_that_is_taken_elsewhere() {
    let forum = Forum::made().await;
    let mut database = tables::connect(&forum.database).await;
    // Not even its row can be read.
    let damaged = "insert into events select aggregate_type, aggregate_id,
            (select max(sequence) + 1 from events all_of_it where all_of_it.aggregate_id = events.aggregate_id), event_type, '1', payload,
            '{}', head.position + 1, shard, gen_random_uuid(), community_id, head.recorded_at
        from events, store_head head where events.position = 1 returning event_id::text, position, aggregate_id";
    let row = sqlx::query(damaged).fetch_one(&mut database).await.expect("inserted");
    let (id, position, account): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
    let way_out = format!("`agora events skip {id} --reason WHY` leaves it out for every reader");
    let readers = [
        &["events", "replay"][..],
        &["events", "export", "--to", "history"],
        &["events", "tail"],
        &["stream", "account", &account],
    ];
    for reader in readers {
        let output = forum.agora.run(reader);
        assert_eq!(output.status.code(), Some(1), "{reader:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains(&way_out) && said.contains("its metadata: missing field"), "{reader:?}: {said}");
    }
    let skip = ["events", "skip", &id, "--reason", "damaged by a test", "--by", "ada"];
    let said = forum.agora.prints(&skip);
    let begins = format!("every reader leaves out event {id}, at position {position}, from now on; ada said so");
    assert!(said.starts_with(&begins) && said.contains("it cannot be read: its metadata: "), "{said}");
    for reader in readers {
        let output = forum.agora.run(reader);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{reader:?}: {said}");
        let taken_elsewhere = ["replay", "export"].contains(&reader[1]);
        let counted = said.contains("1 that nobody can read is left out: `agora projections skips`");
        assert_eq!(counted, taken_elsewhere, "{reader:?}: {said}");
    }
    assert_eq!(positions(&forum.replay(&[])), (1..position).collect::<Vec<i64>>());
    let listed = forum.agora.prints(&["projections", "skips"]);
    assert!(
        listed.starts_with(&format!("every reader leaves out event {id} (position {position}), said ada")),
        "{listed}"
    );
    forum.agora.prints(&["check"]);

    let first: String = sqlx::query_scalar("select event_id::text from events where position = 1")
        .fetch_one(&mut database)
        .await
        .expect("an event");
    let said = forum.agora.refuses(&["events", "skip", &first, "--reason", "I do not like it"]);
    assert!(said.contains(&format!("event {first} can be read: it is account.")), "{said}");
    let said = forum.agora.refuses(&["events", "skip", "0191e2b8-7c00-7000-8000-000000000001", "--reason", "x"]);
    assert!(said.contains("there is no event 0191e2b8-7c00-7000-8000-000000000001"), "{said}");
}

#[tokio::test]
async fn a_damaged_event_is_repaired_with_what_a_replay_had_of_it() {
    let forum = Forum::made().await;
    let mut database = tables::connect(&forum.database).await;
    let before = forum.agora.prints(&["events", "replay", "--to", "1"]);
    database.execute("alter table events disable trigger events_repaired_on_record").await.expect("unguarded");
    let id: String =
        sqlx::query_scalar("update events set payload = '{\"broken\": 1}' where position = 1 returning event_id::text")
            .fetch_one(&mut database)
            .await
            .expect("damaged");
    let skip = forum.agora.refuses(&["events", "skip", &id, "--reason", "damaged"]);
    assert!(skip.contains(&format!("event {id} begins account/")) && skip.contains("`agora events repair`"), "{skip}");
    let shown = forum.agora.run(&["events", "show", &id, "--json"]);
    assert_eq!(shown.status.code(), Some(1));
    let file = forum.agora.path().join("event.json");
    let mut repair = vec!["events", "repair", &id, "--with", "event.json", "--reason", "from a replay", "--by", "ada"];
    std::fs::write(&file, shown.stdout).expect("written");
    let said = forum.agora.refuses(&repair);
    assert!(said.contains("cannot be read with that either: event account."), "{said}");
    std::fs::write(&file, &before).expect("written");
    let said = forum.agora.prints(&repair);
    assert!(
        said.starts_with(&format!("event {id}, at position 1, is account.")) && said.contains("ada said so"),
        "{said}"
    );
    assert_eq!(forum.agora.prints(&["events", "replay", "--to", "1"]), before);
    let listed = forum.agora.prints(&["events", "repairs"]);
    assert!(listed.starts_with(&format!("event {id} (position 1), which was account.")), "{listed}");
    let listed: Value = serde_json::from_str(&forum.agora.prints(&["events", "repairs", "--json"])).expect("JSON");
    assert_eq!((&listed[0]["payload"], &listed[0]["reason"]), (&json!("{\"broken\": 1}"), &json!("from a replay")));
    forum.agora.prints(&["check"]);
    repair[2] = "0191e2b8-7c00-7000-8000-000000000001";
    assert!(forum.agora.refuses(&repair).contains(&format!("--with event.json: it is of event {id}")));
}

#[tokio::test]
async fn one_event_and_one_stream_are_shown() {
    let forum = Forum::made().await;
    let mut database = tables::connect(&forum.database).await;
    let started = "select event_id::text, aggregate_id, payload->>'title' from events
        where event_type = 'thread.started' order by position limit 1";
    let row = sqlx::query(started).fetch_one(&mut database).await.expect("a thread");
    let [event, thread, title]: [String; 3] = [row.get(0), row.get(1), row.get(2)];

    let page = forum.agora.prints(&["events", "show", &event]);
    assert!(page.starts_with("thread.started version 1\n"), "{page}");
    assert!(page.contains(&format!("thread/{thread}, its event 1")) && page.contains(&title), "{page}");
    assert!(!page.contains("read as"), "it is in the newest version: {page}");
    let json = forum.agora.prints(&["events", "show", &event, "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["event_id"], &json["payload"]["title"]), (&event.as_str().into(), &title.as_str().into()));

    let text = forum.agora.prints(&["stream", "thread", &thread.to_uppercase()]);
    let [head, fields @ ..] = &text.lines().collect::<Vec<_>>()[..] else { panic!("nothing") };
    assert!(head.starts_with("   1  ") && head.contains("thread.started by "), "{text}");
    assert!(fields.iter().any(|line| line.trim_start().starts_with("title ") && line.ends_with(&title)), "{text}");
    let many: i64 = sqlx::query_scalar("select count(*) from events where aggregate_id = $1")
        .bind(&thread)
        .fetch_one(&mut database)
        .await
        .expect("a count");
    let lines = forum.agora.prints(&["stream", "thread", &thread, "--json"]);
    assert_eq!(i64::try_from(lines.lines().count()).expect("few"), many);

    let nobody = "0191e2b8-7c00-7000-8000-000000000001";
    assert!(forum.agora.refuses(&["events", "show", nobody]).contains(&format!("there is no event {nobody}")));
    let (id, last): (String, i64) =
        sqlx::query_as("select event_id::text, position from events order by position desc limit 1")
            .fetch_one(&mut database)
            .await
            .expect("an event");
    let by = |name: &str| forum.agora.prints(&["events", "show", name]);
    assert_eq!(by(&last.to_string()), by(&id));
    let said = forum.agora.refuses(&["events", "show", &(last + 1).to_string()]);
    assert!(said.contains(&format!("no event at position {}: they are at 1 to {last}", last + 1)), "{said}");
    let said = forum.agora.refuses(&["stream", "thread", nobody]);
    assert!(said.contains(&format!("there is no stream thread/{nobody}")), "{said}");
    let said = forum.agora.refuses(&["stream", "thread", "tea"]);
    assert!(said.contains("`tea` does not name the stream of a thread: it is an id such as "), "{said}");
}

#[tokio::test]
async fn a_stream_is_found_by_what_a_person_has_at_hand_and_says_what_changed() {
    let forum = Forum::made().await;
    let mut database = tables::connect(&forum.database).await;
    let member = "select slug.value, name.value, slug.owner, name.owner from events e
        join claims slug on slug.kind = 'slug' and slug.owner = split_part(aggregate_id, '.', 1)
        join claims name on name.kind = 'username' and name.owner = split_part(aggregate_id, '.', 2)
        where aggregate_type = 'membership' order by position limit 1";
    let (slug, name, community, account): (String, String, String, String) =
        sqlx::query_as(member).fetch_one(&mut database).await.expect("a member");
    for (aggregate, named, id) in [
        ("account", name.to_uppercase(), account.clone()),
        ("community", slug.clone(), community.clone()),
        ("category_tree", slug.clone(), community.clone()),
        ("membership", format!("{slug}.{name}"), format!("{community}.{account}")),
        ("membership", format!("{community}.{name}"), format!("{community}.{account}")),
    ] {
        let lines = forum.agora.prints(&["stream", aggregate, &named, "--json"]);
        assert!(lines.starts_with('{') && lines.contains(&format!("{aggregate}/{id}")), "{aggregate} {named}: {lines}");
    }
    for (aggregate, named, why) in [
        ("account", "nobody", "no account is called `nobody`"),
        ("community", "nowhere", "no community is called `nowhere`"),
        ("membership", "nowhere.ada", "no community is called `nowhere`"),
        ("membership", &slug, "does not name the stream of a membership: it is <community>.<account>"),
        ("account", "", "does not name the stream of an account: it is a username"),
        ("reaction", "tea.ada", "does not name the stream of a reaction"),
    ] {
        let said = forum.agora.refuses(&["stream", aggregate, named]);
        assert!(said.contains(why), "{said}");
    }

    let edited = "insert into events
        select aggregate_type, aggregate_id, 1000, 'thread.retitled', '1', '{\"title\": \"Anew\"}', metadata,
            head.position + 1, shard, gen_random_uuid(), community_id, head.recorded_at
        from events, store_head head where event_type = 'thread.started' order by events.position limit 1
        returning aggregate_id, (select payload->>'title' from events before
            where before.aggregate_id = events.aggregate_id and sequence = 1)";
    let (thread, title): (String, String) = sqlx::query_as(edited).fetch_one(&mut database).await.expect("a thread");
    let text = forum.agora.prints(&["stream", "thread", &thread]);
    assert!(text.contains(&format!("      title  {title} → Anew\n")), "{text}");
}

#[test]
fn what_is_no_position_or_time_is_said_with_its_flag() {
    let agora = crate::agora::Agora::new();
    for (arguments, why) in [
        (&["replay", "--from", "-1"][..], "'-1' for '--from <POSITION>': positions begin at 1"),
        (&["replay", "--to", "x"], "'x' for '--to <POSITION>': a position is a whole number"),
        (&["replay", "--since", "x"], "'x' for '--since <TIME>': must be a time as in RFC 3339"),
        (&["show", "-1"], "'-1' for '<ID_OR_POSITION>': positions begin at 1"),
        (&["show", "tea"], "'tea' for '<ID_OR_POSITION>': it is neither an event's id, such as "),
        (&["tail", "--from", "-1"], "'-1' for '--from <POSITION>': positions begin at 1"),
        (&["export", "--to", "x", "--through", "-1"], "'-1' for '--through <POSITION>': positions begin at 1"),
    ] {
        let output = agora.run(&[&["events"][..], arguments].concat());
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.code() == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_of_a_history_is_no_error() {
    let forum = Forum::made().await;
    let mut replay = forum.agora.command(&["events", "replay"]);
    let mut child = replay.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
