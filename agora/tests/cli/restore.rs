//! A restored backup of which nobody remembers what came behind it, as docs/operations.md has it.

use serde_json::{Value, json};

use crate::{
    agora::{Agora, Up},
    client::Client,
    postgres, tables,
};

async fn community(client: &Client, slug: &str) {
    client.post("/v2/communities", &json!({"slug": slug, "name": slug, "description": ""})).await;
}

#[tokio::test]
async fn a_restored_backup_that_nobody_else_remembers_begins_a_new_history() {
    let agora = Agora::new();
    let lived = postgres::fresh_database().await;
    let up = Up::start(agora.up_on(&lived));
    let ada = Client::of(&up).register("ada").await;
    community(&ada, "tea").await;
    ada.get("/v2/communities/tea").await;
    up.end_by("INT");
    let backup = postgres::copy_of(&lived).await;
    let up = Up::start(agora.up_on(&lived));
    let ada = ada.at(&up);
    community(&ada, "lost").await;
    ada.get("/v2/communities/lost").await;
    up.end_by("INT");

    let on_it = |arguments: &[&'static str]| [arguments, &["--database-url", &*backup.clone().leak()]].concat();
    assert!(agora.prints(&on_it(&["events", "histories"])).starts_with("this store has the history that it began"));
    let new = ["events", "new-history", "--reason", "the backup of Monday", "--by", "ada"];
    let said = agora.prints(&on_it(&new));
    assert!(said.contains("ada said so") && said.contains("once a projector runs, the read tables are made"), "{said}");

    let up = Up::start(agora.up_on(&backup));
    let ada = ada.at(&up);
    let (status, body) = ada.ask("/v2/communities/tea").await;
    let problem: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &problem["type"]), (410, &json!("/problems/history-lost")), "{body}");
    tables::caught_up(&backup).await;
    let anew = Client::of(&up);
    anew.get("/v2/communities/tea").await;
    assert_eq!(anew.ask("/v2/communities/lost").await.0, 404);

    // What runs is not taken by surprise.
    let refused = agora.refuses(&on_it(&["events", "new-history", "--reason", "again"]));
    assert!(refused.contains("services run on this database (") && refused.contains("agora-projector"), "{refused}");
    let said = agora.prints(&on_it(&["events", "new-history", "--reason", "again", "--while-services-run"]));
    assert!(said.contains("now, the read tables are made anew"), "{said}");
    let listed = agora.prints(&on_it(&["events", "histories", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let reasons: Vec<_> = listed.as_array().expect("a list").iter().map(|it| &it["reason"]).collect();
    assert_eq!(reasons, ["again", "the backup of Monday"]);
    assert_eq!(listed[0]["replaced"], listed[1]["history"]);
    assert_eq!(listed[1]["by"], "ada");
}
