//! `agora jobs`, beside an `agora up`.

use serde_json::Value;

use crate::agora::{Agora, Up};

fn json(agora: &Agora, arguments: &[&str]) -> Value {
    serde_json::from_str(&agora.prints(arguments)).expect("JSON")
}

#[test]
fn jobs_are_listed_run_and_remembered() {
    let agora = Agora::new();
    let said = agora.refuses(&["jobs", "list"]);
    assert!(said.contains("no `agora up` runs in"), "{said}");
    let mut up = agora.up();
    up.env("AGORA__JOBS__TIME_ZONE", "Europe/Berlin").env("AGORA__JOBS__PURGE_SESSIONS", "0 0 0 1 1 * 2999");
    up.env("AGORA__TELEMETRY__LOG", "warn,command_service=info");
    let mut up = Up::start(up);
    let leads = "this process runs the jobs";
    if !up.said.iter().any(|line| line.contains(leads)) {
        up.wait_for(leads);
    }

    // As the `up` was set up, whatever this command's settings are.
    let listed = json(&agora, &["jobs", "list", "--json"]);
    let purge = listed["jobs"].as_array().expect("jobs").iter().find(|job| job["job"] == "purge_sessions");
    let purge = purge.expect("it is listed");
    assert_eq!((&purge["schedule"], &purge["time_zone"]), (&"0 0 0 1 1 * 2999".into(), &"Europe/Berlin".into()));
    assert_eq!(purge["next_due"], "2998-12-31T23:00:00Z");
    assert!(listed["leader"]["process"].is_number(), "{listed}");
    let words = agora.prints(&["jobs", "list"]);
    assert!(words.starts_with("run by process ") && words.contains("\nend_bans "), "{words}");

    assert!(agora.prints(&["jobs", "run", "purge_sessions"]).starts_with("purge_sessions: nothing to do, in "));
    let run = json(&agora, &["jobs", "run", "purge_sessions", "--json"]);
    assert_eq!((&run["by_hand"], &run["done"], &run["failure"]), (&true.into(), &0.into(), &Value::Null));
    let runs = json(&agora, &["jobs", "history", "purge_sessions", "--json"]);
    assert_eq!((runs.as_array().map(Vec::len), &runs[0]), (Some(2), &run));
    assert!(agora.prints(&["jobs", "history"]).contains("by hand"));

    let unknown = agora.run(&["jobs", "run", "tea"]);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(2) && said.contains("possible values: end_bans, "), "{said}");
    assert!(up.end_by("INT").0.success());
}
