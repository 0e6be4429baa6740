//! `agora demo`: the same seed makes the same forum, wherever and however often.

use chrono::Utc;
use serde_json::Value;

use crate::{
    agora::{Agora, Up},
    client::Client,
    postgres, tables,
};

/// A server with the demo of a seed.
struct Demo {
    agora: Agora,
    database: String,
    up: Up,
    said: String,
}

const SEED: [&str; 5] = ["demo", "--size", "200", "--seed", "7"];

impl Demo {
    async fn made() -> Self {
        let (agora, database) = (Agora::new(), postgres::fresh_database().await);
        let up = Up::start(agora.up_on(&database));
        let said = agora.prints(&SEED);
        Self { agora, database, up, said }
    }
}

#[tokio::test]
async fn the_same_seed_makes_the_same_forum_on_two_servers() {
    // Times are reckoned from the day on which a demo is first made: two of one day are wanted.
    let (one, other) = loop {
        let day = Utc::now().date_naive();
        let two = (Demo::made().await, Demo::made().await);
        if day == Utc::now().date_naive() {
            break two;
        }
    };
    let (rows, others) = (tables::all_rows(&one.database).await, tables::all_rows(&other.database).await);
    assert!(rows["post"].len() == 200 && rows["reaction"].len() > 50 && rows["moderation_log"].len() > 5);
    tables::assert_same_rows(&rows, &others);

    // Reads at an address of their own are where to look afterwards.
    let reads = one.up.url.replace("127.0.0.1", "localhost");
    let apart = ["--server", &one.up.url, "--read-server", &reads, "--database-url", &one.database];
    let again = one.agora.prints(&[&SEED[..], &apart].concat());
    assert!(again.contains("nothing was written"), "{again}");
    assert!(again.contains(&format!("curl '{reads}/v2/communities'")) && !again.contains(&one.up.url), "{again}");
    tables::assert_same_rows(&rows, &tables::all_rows(&one.database).await);
    assert_eq!(shown(&one).await, shown(&other).await);
}

#[tokio::test]
async fn a_larger_one_adds_to_a_smaller_one_that_has_ended() {
    let Demo { agora, database, up: _up, .. } = Demo::made().await;
    let rows = tables::all_rows(&database).await;
    let ended = |rows: &str| rows.contains("category.archived");
    assert!(rows["moderation_log"].iter().any(|row| ended(&format!("{row:?}"))), "{:?}", rows["moderation_log"]);
    // Nothing that it says is refused: each would be a line of its own.
    let output = agora.command(&["demo", "--size", "1000", "--seed", "7"]).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && !said.contains("/v2/"), "{said}");
    assert_eq!(tables::all_rows(&database).await["post"].len(), 1_000);
}

/// The pages that it says to look at: each shows something.
async fn shown(demo: &Demo) -> Vec<Value> {
    let client = Client::of(&demo.up);
    let paths = demo.said.split('\'').filter_map(|words| words.strip_prefix(&demo.up.url));
    let mut pages = vec![];
    for path in paths {
        let page = client.get(path).await;
        assert!(page["items"].as_array().is_some_and(|items| !items.is_empty()), "{path}: {page}");
        pages.push(page["items"].clone());
    }
    assert_eq!(pages.len(), 3, "{}", demo.said);
    pages
}
