//! Who reads: what was acknowledged shows, and nobody is shown less than before.

use std::{collections::BTreeMap, time::Duration};

use events::PositionToken;
use rand::{RngExt as _, rngs::ChaCha8Rng, seq::IndexedRandom as _};
use serde_json::Value;

use super::{Order, Person, World, lock, nobody, reflected};

/// When what was acknowledged is looked for, at the latest: notices have come by then, or the next change.
const LATER: Duration = Duration::from_millis(700);
/// The same where it changes all the time: what was read when this was acknowledged is still on its way.
const MEANWHILE: Duration = Duration::from_millis(150);

impl World {
    /// What was acknowledged shows at once to who brings its position.
    pub(super) async fn read_back(
        &self,
        me: &Person,
        post: &str,
        order: &Order,
        position: PositionToken,
        dice: &mut ChaCha8Rng,
    ) {
        let answer = self.get(&format!("/v2/posts/{post}"), me, &position.to_string(), dice).await;
        let Some((status, _, body)) = answer else { return };
        let shown = body["body"].as_str().is_some_and(|body| body.contains(&order.mark()));
        // The revision after it may be there already, by nobody but ourselves: so it must be this one.
        if status != 503 && !(status == 200 && shown) {
            self.history.note_broken(format!("{order} was acknowledged at {position}, and shown as {status} {body}"));
        }
    }

    /// A read at any query-service; what it reflects, and what it shows.
    async fn get(
        &self,
        path: &str,
        who: &Person,
        seen: &str,
        dice: &mut ChaCha8Rng,
    ) -> Option<(u16, Vec<PositionToken>, Value)> {
        let address = self.queries.choose(dice)?;
        let mut request = self.client.get(format!("http://{address}{path}")).header("prefer", "wait=2");
        if !who.bearer.is_empty() {
            request = request.bearer_auth(&who.bearer);
        }
        if !seen.is_empty() {
            request = request.header("agora-position", seen);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        if status == 500 {
            self.history.note_broken(format!("GET {path}: answered 500"));
        }
        let reflects = reflected(&answer);
        let body = answer.json().await.ok()?;
        if status == 200 {
            self.history.note_read();
        }
        Some((status, reflects, body))
    }

    pub(super) fn replied(&self, thread: &str, position: PositionToken) {
        lock(&self.replies).entry(thread.to_owned()).or_default().push(position);
    }

    /// How many replies to a thread were acknowledged up to a position, as far as is known.
    fn replies_up_to(&self, thread: &str, position: PositionToken) -> u64 {
        let replies = lock(&self.replies);
        let positions = replies.get(thread).into_iter().flatten();
        positions.filter(|reply| reply.position <= position.position).count() as u64
    }

    /// Whoever brings the position up to which replies were acknowledged is shown all of them, a while later too, by
    /// whatever was cached meanwhile; and all those before the position that the answer says it reflects.
    async fn expects(&self, thread: &str, within: Duration, dice: &mut ChaCha8Rng) {
        let furthest =
            |positions: &Vec<PositionToken>| positions.iter().copied().max_by_key(|position| position.position);
        let Some(position) = lock(&self.replies).get(thread).and_then(furthest) else { return };
        tokio::time::sleep(within.mul_f64(dice.random())).await;
        let path = format!("/v2/threads/{thread}");
        let Some((200, reflects, body)) = self.get(&path, &nobody(), &position.to_string(), dice).await else { return };
        let same = reflects.iter().find(|token| token.shard == position.shard);
        let upto = same.copied().filter(|token| token.position > position.position).unwrap_or(position);
        let many = self.replies_up_to(thread, upto);
        if body["replies"].as_u64().is_none_or(|shown| shown < many) {
            self.history.note_broken(format!(
                "GET {path} with {position} showed {} replies, where {many} were acknowledged up to {upto}, \
                 reflecting {reflects:?}",
                body["replies"]
            ));
        }
    }

    /// Reads what is written to all the time.
    pub(super) async fn watches(&self, mut dice: ChaCha8Rng) {
        while !self.is_over() {
            self.expects(&self.chat.0, MEANWHILE, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sees more and more, never less.
    pub(super) async fn reads(&self, mut dice: ChaCha8Rng) {
        let nobody = nobody();
        let mut seen: BTreeMap<i16, PositionToken> = BTreeMap::new();
        let mut shown: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        while !self.is_over() {
            let (_, thread) = self.thread(0.75, &mut dice);
            if dice.random_bool(0.5) {
                self.expects(&thread, LATER, &mut dice).await;
                continue;
            }
            let tokens: Vec<String> = seen.values().map(ToString::to_string).collect();
            // Signed in or not, one sees what one saw.
            let who = if dice.random_bool(0.5) { &nobody } else { &self.posters[0] };
            let (path, field) = if dice.random_bool(0.5) {
                (format!("/v2/threads/{thread}"), "replies")
            } else {
                (format!("/v2/threads/{thread}/posts?limit=100"), "items")
            };
            let Some((status, reflects, body)) = self.get(&path, who, &tokens.join(","), &mut dice).await else {
                continue;
            };
            let many = match &body[field] {
                Value::Array(items) => items.len() as u64,
                count => count.as_u64().unwrap_or(0),
            };
            let version = body["version"].as_u64().unwrap_or(0);
            let before = shown.entry(path.clone()).or_default();
            let less = status == 200 && (many < before.0 || version < before.1);
            if less || status == 404 && *before != (0, 0) || status == 410 {
                self.history.note_broken(format!(
                    "GET {path} with {tokens:?} showed {before:?} (many, version) before, and then {status}: \
                     {many}, version {version}, reflecting {reflects:?}"
                ));
            }
            if status == 200 {
                *before = (many, version);
                for token in reflects {
                    let known = seen.entry(i16::from(token.shard)).or_insert(token);
                    if token.position > known.position {
                        *known = token;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
