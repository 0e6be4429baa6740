//! Sentences made of phrases.

use std::collections::BTreeMap;

use anyhow::Context as _;
use rand::{rngs::ChaCha8Rng, seq::IndexedRandom as _};

/// Phrases within phrases: more than any list of ours goes.
const DEEPEST: u32 = 8;

/// Lists of phrases by name, by topic.
pub(super) struct Grammar(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Grammar {
    /// Ours.
    ///
    /// # Errors
    /// Where the file was broken.
    pub(super) fn load() -> anyhow::Result<Self> {
        toml::from_str(include_str!("phrases.toml")).map(Self).context("the demo's phrases are broken")
    }

    /// One of the phrases called `name`, with all phrases in it, on a topic.
    pub(super) fn say(&self, topic: &str, name: &str, rng: &mut ChaCha8Rng) -> String {
        let mut text = String::new();
        self.expand(topic, name, rng, DEEPEST, &mut text);
        text
    }

    /// The phrases called `name`, on a topic; the shared ones where it has none of its own.
    pub(super) fn list(&self, topic: &str, name: &str) -> &[String] {
        let own = self.0.get(topic).and_then(|lists| lists.get(name));
        own.or_else(|| self.0.get("shared")?.get(name)).map_or(&[], Vec::as_slice)
    }

    fn expand(&self, topic: &str, name: &str, rng: &mut ChaCha8Rng, depth: u32, text: &mut String) {
        let Some(phrase) = self.list(topic, name).choose(rng).filter(|_| depth > 0) else { return };
        let mut rest = phrase.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let Some((inner, after)) = after.split_once('}') else { break };
            text.push_str(before);
            self.expand(topic, inner, rng, depth - 1, text);
            rest = after;
        }
        text.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn every_phrase_is_made_of_phrases_that_are_there() -> anyhow::Result<()> {
        let grammar = Grammar::load()?;
        let topics: Vec<_> = grammar.0.keys().filter(|topic| *topic != "shared").cloned().collect();
        assert_eq!(topics.len(), 4);
        for lists in grammar.0.values() {
            for phrase in lists.values().flatten() {
                let inner = phrase.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(inner, _)| inner);
                for name in inner {
                    for topic in &topics {
                        assert!(!grammar.list(topic, name).is_empty(), "{topic} has no {name}, of `{phrase}`");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn sentences_end() -> anyhow::Result<()> {
        let grammar = Grammar::load()?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1_000 {
            for name in ["title", "opening", "reply", "about"] {
                let text = grammar.say("workbench", name, &mut rng);
                assert!(!text.trim().is_empty() && !text.contains(['{', '}']), "{text}");
            }
        }
        Ok(())
    }
}
