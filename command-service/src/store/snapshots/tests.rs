//! What is kept of each aggregate looks, and is folded, as its schema's number says.

use std::{fmt::Debug, fs};

use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{
    account::Account, category::CategoryTree, community::Community, membership::Membership, post::Post,
    reaction::Reaction, thread::Thread,
};

/// What the states were when their schemas got their numbers: after each sample of their events, a line.
const KEPT: &str = "src/store/snapshots/states.ndjson";

/// An aggregate as it is after each of the samples of its events, of every version, one folded after the other. What is read
/// of it is what was written.
fn states<A: Stored + PartialEq + Debug>() -> (&'static str, i32, Vec<Value>) {
    let (mut state, mut states) = (A::default(), Vec::new());
    for entry in events::catalogue::catalogue() {
        for version in 1..=entry.version {
            let Ok(sample) = fs::read(format!("../events/samples/{}.{version}.json", entry.name)) else { continue };
            let payload: Box<RawValue> = serde_json::from_slice(&sample).expect("JSON");
            let events = events::decode(entry.name, version, &payload).expect("a sample");
            let Ok(events) = events.into_iter().map(A::Event::try_from).collect::<Result<Vec<_>, _>>() else {
                continue;
            };
            for event in events {
                state.apply(event);
            }
            let kept = serde_json::to_value(&state).expect("JSON");
            assert_eq!(A::deserialize(&kept).expect("what was written"), state);
            let event = format!("{} version {version}", entry.name);
            states.push(json!({"aggregate": A::TYPE, "schema": A::SCHEMA, "event": event, "state": kept}));
        }
    }
    (A::TYPE, A::SCHEMA, states)
}

#[test]
fn a_state_of_another_shape_or_fold_has_another_schema() {
    let now = [
        states::<Account>(),
        states::<CategoryTree>(),
        states::<Community>(),
        states::<Membership>(),
        states::<Post>(),
        states::<Reaction>(),
        states::<Thread>(),
    ];
    let kept = fs::read_to_string(KEPT).expect(KEPT);
    let before: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (aggregate, schema, states) in &now {
        let before: Vec<_> = before.iter().filter(|state| state["aggregate"] == *aggregate).collect();
        assert!(
            states.iter().eq(before.iter().copied()) || before.iter().all(|state| state["schema"] != *schema),
            "the same events make another `{aggregate}` than in {KEPT}: raise its number in `aggregate!`, or snapshots from \
             before will be taken for what it is now"
        );
    }
    let lines: Vec<_> = now.iter().flat_map(|(_, _, states)| states).map(Value::to_string).collect();
    let written = lines.join("\n") + "\n";
    if written != kept {
        fs::write(KEPT, written).expect("written");
        panic!("{KEPT} says now what the new numbers mean: commit it");
    }
}
