//! The README's tour, pasted into bash as it stands there, with the address of a server of the test's.

use std::process::Command;

use serde_json::Value;

use crate::{
    agora::{Agora, Up},
    postgres,
};

/// What a command of the tour answered.
struct Step {
    command: String,
    answer: String,
}

impl Step {
    /// The JSON that was answered.
    fn json(&self) -> Value {
        let body = self.answer.trim().lines().last().unwrap_or_default();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// As a person would see it.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}", self.command, self.answer)
    }
}

/// The lines of the README's tour that are no comments.
fn tour() -> Vec<String> {
    let readme = std::fs::read_to_string("../README.md").expect("the README");
    let tour = readme.split_once("\n## A tour by curl\n").expect("the tour").1;
    let block = tour.split_once("\n```sh\n").expect("its block").1.split_once("\n```\n").expect("its end").0;
    block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The variable that a line sets.
fn sets(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    name.bytes().all(|byte| byte.is_ascii_uppercase()).then_some(name)
}

/// Pastes line by line. What a line sets, and not prints, counts as its answer.
fn paste(lines: &[String]) -> Vec<Step> {
    const END: &str = "---- the next line ----\n";
    let pasted = |line: &String| {
        let shown = sets(line).map_or(String::new(), |name| format!("printf '%s\\n' \"${name}\"\n"));
        format!("{line}\n{shown}printf '%s' '{END}'\n")
    };
    let script = lines.iter().map(pasted).collect::<Vec<_>>().concat();
    let output = Command::new("bash").args(["-u", "-c", &script]).output().expect("bash");
    let [said, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    assert_eq!(errors, "", "a tour without errors:\n{said}");
    let answers = said.split(END);
    lines.iter().zip(answers).map(|(line, answer)| Step { command: line.clone(), answer: answer.to_owned() }).collect()
}

#[tokio::test]
async fn the_tour_works_when_pasted_line_by_line() {
    let agora = Agora::new();
    let up = Up::start(agora.up_on(&postgres::fresh_database().await));
    let mut lines = tour();
    assert_eq!(lines[0], "API=http://localhost:8080/v2");
    lines[0] = format!("API={}/v2", up.url);
    let steps = paste(&lines);
    assert_eq!(steps.len(), lines.len());
    let find = |words: &str| {
        let mut found = steps.iter().filter(|step| step.command.contains(words));
        (found.next().unwrap_or_else(|| panic!("no {words} in the tour")), found.next())
    };

    // Every line that sets something sets it, and nothing is refused but what the end is about.
    for step in &steps {
        assert!(sets(&step.command).is_none() || !step.answer.trim().is_empty(), "{step:?}");
    }
    let (last, all) = steps.split_last().expect("steps");
    assert!(!all.iter().any(|step| step.answer.contains("/problems/")), "{steps:#?}");
    assert_eq!((&last.json()["status"], &last.json()["type"]), (&422.into(), &"/problems/own-post".into()));

    // Sent twice, written once.
    let (reply, again) = find("idempotency-key: my-first-reply");
    let again = again.expect("sent twice");
    assert_eq!(again.json()["id"], reply.answer.trim());
    assert!(again.answer.contains("idempotency-replayed: true"), "{again:?}");

    // All of it is read back at once.
    let posts = find("$POSITION\" $API/threads/$THREAD/posts").0.json();
    let bodies: Vec<&Value> = posts["items"].as_array().expect("items").iter().map(|post| &post["body"]).collect();
    assert_eq!(bodies, ["How long do *you* let it steep?", "Two minutes."]);
    assert_eq!(posts["items"][1]["reactions"], serde_json::json!({"like": 1}));
    let threads = find("sort=new").0.json();
    assert_eq!((&threads["items"][0]["title"], &threads["items"][0]["replies"]), (&"How long?".into(), &1.into()));
    let community = find("$POSITION\" $API/communities/tea").0.json();
    assert_eq!((&community["name"], &community["posts"]), (&"Tea".into(), &2.into()));
}
