//! `agora import stackexchange` against an `agora up`: what a dump comes to, whatever interrupts it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    agora::{Agora, Up, fixture},
    client::Client,
    postgres, tables,
};

mod cut;
mod dump;
mod forum;
mod shown;

use cut::Cut;
use forum::Forum;

/// A server on a database of its own.
struct Place {
    agora: Agora,
    database: String,
    up: Up,
}

impl Place {
    async fn new() -> Self {
        let (agora, database) = (Agora::new(), postgres::fresh_database().await);
        let up = Up::start(agora.up_on(&database));
        Self { agora, database, up }
    }

    /// What importing comes to, as `--json` says it.
    fn import(&self, dump: &Path) -> Value {
        let said = self.agora.prints(&["import", "stackexchange", dump.to_str().expect("a plain path"), "--json"]);
        serde_json::from_str(&said).expect("JSON")
    }

    /// An import that reaches the server in another way.
    fn import_through(&self, way: &Cut, dump: &Path) -> Command {
        let mut published = self.agora.published();
        published["address"] = way.url.clone().into();
        let dir = self.agora.path().join("elsewhere");
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("up.json"), published.to_string()).expect("written");
        let dump = dump.to_str().expect("a plain path");
        let mut command = self.agora.command(&["import", "stackexchange", dump, "--json", "--dir", "elsewhere"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Dumps that are not in the tree: `AGORA_TEST_DUMPS`, or beside the clone.
fn dump(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("AGORA_TEST_DUMPS").unwrap_or_else(|| "../../shared/data/stackexchange".into());
    let dump = Path::new(&dir).join(name).canonicalize().ok().filter(|dump| dump.join("Posts.xml").is_file());
    if dump.is_none() {
        println!("skipped: there is no dump {name} in {} (AGORA_TEST_DUMPS names a place)", dir.display());
    }
    dump
}

#[tokio::test]
async fn the_tiny_dump_becomes_what_its_xml_says() {
    becomes_what_its_xml_says(&fixture("tiny")).await;
}

#[tokio::test]
async fn conlang_meta_becomes_what_its_xml_says() {
    if let Some(dump) = dump("conlang-meta") {
        becomes_what_its_xml_says(&dump).await;
    }
}

#[tokio::test]
async fn french_meta_becomes_what_its_xml_says() {
    if let Some(dump) = dump("french-meta") {
        becomes_what_its_xml_says(&dump).await;
    }
}

async fn becomes_what_its_xml_says(dump: &Path) {
    let (place, forum) = (Place::new().await, Forum::of(dump));
    let summary = place.import(dump);
    assert_every_row_is_accounted_for(&summary, dump, &forum);
    shown::assert_tables_hold(&place.database, &forum).await;
    let slug = summary["community"].as_str().expect("a slug");
    shown::assert_pages_show(&Client::of(&place.up), slug, &forum).await;

    let events = tables::events(&place.database).await;
    let again = place.agora.prints(&["import", "stackexchange", dump.to_str().expect("a plain path")]);
    assert!(again.contains(&format!("nothing was written: {slug} has all of it already")), "{again}");
    assert_eq!(tables::events(&place.database).await, events, "nothing was written");
}

fn is_kept(post: &dump::Row) -> bool {
    matches!(post.id("PostTypeId"), Some(1 | 2))
}

/// Rows broken in every way that a file can be, and whole ones between and after them.
const BROKEN: [(&str, &str); 15] = [
    ("Users.xml row 3", "it does not end in />"),
    ("Users.xml row 4", "Id is `x3`, which is no id"),
    ("Users.xml row 5", "which is no time since 1970"),
    ("Users.xml row 6", "its Id 1 stood in a row before"),
    ("Posts.xml row 2", "it is not well-formed"),
    ("Posts.xml row 3", "it does not end in />"),
    ("Posts.xml row 4", "it has no Title"),
    ("Posts.xml row 6", "unrecognized entity `bogus`"),
    ("Posts.xml row 7", "it has no ParentId"),
    ("Posts.xml row 8", "it has no Body"),
    ("Posts.xml row 9", "its title is too long"),
    ("Comments.xml row 3", "it has no Text"),
    ("Comments.xml row 5", "it is not UTF-8"),
    ("Votes.xml row 3", "VoteTypeId is `two`"),
    ("Votes.xml row 4", "it does not end in />"),
];

#[tokio::test]
async fn a_broken_row_is_said_with_file_row_and_reason_and_the_rest_goes_on() {
    let (place, dump) = (Place::new().await, fixture("broken"));
    let output = place.agora.run(&["import", "stackexchange", dump.to_str().expect("a plain path"), "--json"]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    for (row, reason) in BROKEN {
        let line = said.lines().find(|line| line.starts_with(&format!("{row}: ")));
        assert!(line.is_some_and(|line| line.contains(reason)), "{row}: {reason} is not in:\n{said}");
    }
    assert_eq!(said.lines().count(), BROKEN.len(), "and nothing else:\n{said}");

    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["read"], json!({"Users.xml": 7, "Posts.xml": 10, "Comments.xml": 5, "Votes.xml": 4}));
    let broken = summary["skipped"].as_array().expect("a list").iter();
    let broken = broken.filter(|skipped| skipped["reason"] == "the row is broken").map(|skipped| &skipped["rows"]);
    assert_eq!(broken.collect::<Vec<_>>(), [4, 6, 2, 2]);

    let client = Client::of(&place.up);
    let community = client.get("/v2/communities/broken").await;
    assert_eq!(json!([community["members"], community["threads"], community["posts"]]), json!([3, 1, 4]));
    let thread = &client.get("/v2/communities/broken/threads").await["items"][0];
    let posts = client.list(&format!("/v2/threads/{}/posts", thread["id"].as_str().expect("an id"))).await;
    let shown: Vec<&str> = posts.iter().filter_map(|post| post["body"].as_str()).skip(1).collect();
    assert_eq!(shown, ["Which loom is it?", "<p>Whole, after all that was not.</p>", "Whole."]);
}

/// What is missing from it could not be put right later: the same command would bring something else.
#[tokio::test]
async fn of_a_dump_that_was_cut_off_nothing_is_written() {
    let (place, whole) = (Place::new().await, fixture("tiny"));
    let cut = place.agora.path().join("tiny");
    std::fs::create_dir(&cut).expect("a directory");
    for file in std::fs::read_dir(&whole).expect("a dump").map(|file| file.expect("a file")) {
        std::fs::copy(file.path(), cut.join(file.file_name())).expect("copied");
    }
    let votes = std::fs::read(cut.join("Votes.xml")).expect("a table");
    std::fs::write(cut.join("Votes.xml"), &votes[..votes.len() / 2]).expect("cut off");
    let output = place.agora.run(&["import", "stackexchange", cut.to_str().expect("a plain path")]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let reason = format!("nothing was written: cannot read {}/Votes.xml: it ends before </votes>", cut.display());
    assert!(said.contains(&reason) && said.contains("fetch it again"), "{said}");
    assert_eq!(Client::of(&place.up).get("/v2/communities").await["items"], json!([]));

    std::fs::write(cut.join("Votes.xml"), &votes).expect("fetched again");
    let again = place.import(&cut)["total"].clone();
    assert_eq!(again, Place::new().await.import(&whole)["total"]);
}

#[tokio::test]
async fn a_tiny_import_killed_anywhere_and_run_again_is_as_one_that_ran_through() {
    // In the accounts, in the threads, and at the last command of the 47.
    killed_and_run_again_is_as_one_that_ran_through(&fixture("tiny"), &[1, 15, 30, 47]).await;
}

#[tokio::test]
async fn a_large_import_killed_anywhere_and_run_again_is_as_one_that_ran_through() {
    if let Some(dump) = dump("conlang-meta") {
        killed_and_run_again_is_as_one_that_ran_through(&dump, &[600]).await;
    }
}

async fn killed_and_run_again_is_as_one_that_ran_through(dump: &Path, kills: &[usize]) {
    let whole = Place::new().await;
    let total = whole.import(dump)["total"]["written"].as_u64().expect("a count");
    let rows = tables::all_rows(&whole.database).await;
    for &commands in kills {
        let place = Place::new().await;
        let way = Cut::after(commands, &place.up.url).await;
        let mut import = place.import_through(&way, dump).spawn().expect("it runs");
        way.happened().await;
        import.kill().expect("it runs");
        import.wait().expect("ours");
        let summary = place.import(dump);
        let [written, already_there] =
            ["written", "already_there"].map(|count| summary["total"][count].as_u64().expect("a count"));
        assert!(already_there >= commands as u64 && written + already_there == total, "{summary}");
        tables::assert_same_rows(&rows, &tables::all_rows(&place.database).await);
    }
}

#[tokio::test]
async fn an_import_whose_server_is_killed_goes_on_with_the_next_one() {
    let dump = fixture("tiny");
    let whole = Place::new().await;
    whole.import(&dump);
    let place = Place::new().await;
    let way = Cut::after(25, &place.up.url).await;
    let import = place.import_through(&way, &dump).spawn().expect("it runs");
    way.happened().await;
    let Place { agora, database, up } = place;
    up.end_by("KILL");
    let next = Up::start(agora.up_on(&database));
    way.go_on(&next.url);
    let output = tokio::task::spawn_blocking(|| import.wait_with_output()).await.expect("it ends").expect("ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (rows, others) = (tables::all_rows(&whole.database).await, tables::all_rows(&database).await);
    tables::assert_same_rows(&rows, &others);
}

/// Each row of each table was carried over, or is counted with a reason.
fn assert_every_row_is_accounted_for(summary: &Value, dump: &Path, forum: &Forum) {
    let (comments, posts): (Vec<_>, Vec<_>) = forum.posts.values().partition(|post| post.format == "markdown");
    // Votes up, down, and for the accepted answer, on posts that there are.
    let there: HashSet<_> =
        dump::rows(dump, "Posts").iter().filter(|post| is_kept(post)).map(|post| post.id("Id")).collect();
    let votes = dump::rows(dump, "Votes");
    let votes =
        votes.iter().filter(|vote| matches!(vote.id("VoteTypeId"), Some(1..=3)) && there.contains(&vote.id("PostId")));
    let carried_over = [
        ("Users", forum.accounts.len()),
        ("Posts", posts.len()),
        ("Comments", comments.len()),
        ("Votes", votes.count()),
    ];
    for (table, carried_over) in carried_over {
        let file = format!("{table}.xml");
        assert_eq!(summary["read"][&file], dump::rows(dump, table).len(), "{file}");
        let skipped = summary["skipped"].as_array().expect("a list").iter().filter(|skipped| skipped["table"] == *file);
        // A question is carried over without an accepted answer that is not there.
        let skipped = skipped.filter(|skipped| skipped["reason"] != "its accepted answer is not in the dump");
        let skipped: u64 = skipped.map(|skipped| skipped["rows"].as_u64().expect("a count")).sum();
        assert_eq!(summary["read"][&file], carried_over as u64 + skipped, "{file}: {summary:#}");
    }
    assert_eq!(summary["total"]["refused"], 0);
}
