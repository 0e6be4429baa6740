//! One made-up thread, from its number alone: who said what when, and what became of it.

use chrono::{DateTime, Duration, Utc};
use events::{PostId, ThreadId, limits, post::Format};
use rand::{RngExt as _, rngs::ChaCha8Rng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{BLUEPRINTS, World};
use crate::client::command::{Command, NewPost, NewThread, Text};

/// Posts in the longest thread.
const LONGEST: u64 = 300;
/// Reactions to the most liked post.
const MOST_REACTIONS: usize = 60;

/// What a thread is about, before anything is said in it.
pub(super) struct Thread<'a> {
    world: &'a World,
    nth: u64,
    community: usize,
    category: usize,
    id: ThreadId,
    author: u64,
    /// How much it stirs people: most threads little, some a lot.
    heat: f64,
    posts: Vec<Post>,
    rng: ChaCha8Rng,
    commands: Vec<Command>,
}

#[derive(Clone, Copy)]
struct Post {
    id: PostId,
    author: u64,
    at: DateTime<Utc>,
    depth: u8,
    replies: u32,
}

impl World {
    /// How many posts the `nth` thread has.
    pub(super) fn length(&self, nth: u64) -> u64 {
        let mut rng = self.rng("length", nth);
        if rng.random_bool(0.15) {
            return 1;
        }
        // A heavy tail: half of the threads have up to three replies, a few a hundred.
        let tail = 2.5 * (rng.random_range(f64::EPSILON..1.0).powf(-0.7) - 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let replies = tail as u64 + 1;
        (1 + replies).min(LONGEST)
    }

    /// Where the `nth` thread is.
    pub(super) fn community_of(&self, nth: u64) -> usize {
        let mut drawn = self.rng("place", nth).random_range(0..100);
        for (nth, blueprint) in BLUEPRINTS.iter().enumerate() {
            if drawn < blueprint.share {
                return nth;
            }
            drawn -= blueprint.share;
        }
        0
    }

    pub(super) fn thread_id(&self, nth: u64) -> ThreadId {
        self.id("thread", &nth.to_string(), self.started(nth)).into()
    }

    fn started(&self, nth: u64) -> DateTime<Utc> {
        let (from, until) = self.talking();
        from + seconds((until - from).as_seconds_f64() * self.rng("time", nth).random::<f64>())
    }

    /// The commands of the `nth` thread, with its first `length` posts, in order.
    pub(super) fn thread(&self, nth: u64, length: u64) -> Vec<Command> {
        let mut thread = Thread::new(self, nth);
        thread.open();
        for reply in 1..length {
            thread.reply(reply);
        }
        // What is done later hangs on the whole thread: one that was cut short is only talk.
        if length == self.length(nth) {
            thread.settle();
        }
        thread.commands
    }
}

impl<'a> Thread<'a> {
    fn new(world: &'a World, nth: u64) -> Self {
        let (community, at, id) = (world.community_of(nth), world.started(nth), world.thread_id(nth));
        let mut rng = world.rng("thread", nth);
        let category = World::some_category(community, nth, &mut rng);
        let author = world.some_member(community, nth, &mut rng);
        let heat = rng.random_range(0.02_f64..1.0).powf(-0.5);
        let opening = Post { id: post_id(world, nth, 0, at), author, at, depth: 0, replies: 0 };
        let (posts, commands) = (vec![opening], vec![]);
        Self { world, nth, community, category, id, author, heat, posts, rng, commands }
    }

    fn open(&mut self) {
        let topic = BLUEPRINTS[self.community].topic;
        let grammar = &self.world.grammar;
        let mut title = capitalised(&grammar.say(topic, "title", &mut self.rng));
        if self.rng.random_bool(0.01) {
            // Somebody always writes one that goes on and on.
            title = [title.as_str(); 6].join(" And: ").chars().take(limits::TITLE_CHARS).collect();
        }
        let mut tags: Vec<String> = grammar.list(topic, "tags").to_vec();
        while tags.len() > 3 || (!tags.is_empty() && self.rng.random_bool(0.4)) {
            tags.swap_remove(self.rng.random_range(0..tags.len()));
        }
        let body = grammar.say(topic, "opening", &mut self.rng);
        let Post { id, at, .. } = self.posts[0];
        let new = NewThread {
            id: self.id,
            category_id: self.world.category_id(self.community, self.category),
            title,
            tags,
            opening_post_id: id,
            text: Text { body, format: Format::Markdown },
        };
        let context = self.world.context("thread", &self.nth.to_string(), self.author, at);
        self.commands.push(Command::start_thread(self.world.community_id(self.community), &new, context));
        self.react(0, 2.0);
    }

    fn reply(&mut self, nth: u64) {
        let parent = self.pick_parent();
        // Those who talk already talk on; else somebody new comes in.
        let author = match self.posts.choose(&mut self.rng) {
            Some(post) if self.rng.random_bool(0.45) => post.author,
            _ => self.world.some_member(self.community, self.nth, &mut self.rng),
        };
        let last = self.posts.last().map_or(self.world.founded, |post| post.at);
        let pause = seconds(30.0 * self.rng.random_range(0.0005_f64..1.0).powf(-0.9));
        let at = (last + pause).min(self.world.talking().1);
        let id = post_id(self.world, self.nth, nth, at);
        let body = self.world.grammar.say(BLUEPRINTS[self.community].topic, "reply", &mut self.rng);
        let new = NewPost { id, text: Text { body, format: Format::Markdown } };
        let context = self.world.context("post", &format!("{}/{nth}", self.nth), author, at);
        self.commands.push(match parent {
            0 => Command::answer(self.id, &new, context),
            parent => Command::comment(self.posts[parent].id, &new, context),
        });
        self.posts[parent].replies += 1;
        let depth = self.posts[parent].depth + 1;
        self.posts.push(Post { id, author, at, depth, replies: 0 });
        self.react(self.posts.len() - 1, 0.7);
    }

    /// The thread itself, or one of the last posts that is not too deep.
    fn pick_parent(&mut self) -> usize {
        if self.rng.random_bool(0.5) {
            return 0;
        }
        let recent = self.posts.len().saturating_sub(6);
        let parent = self.rng.random_range(recent..self.posts.len());
        if self.posts[parent].depth < limits::POST_DEPTH { parent } else { 0 }
    }

    /// Most posts get none, the best of a hot thread get dozens.
    fn react(&mut self, nth: usize, more: f64) {
        let Post { id, author, at, .. } = self.posts[nth];
        let drawn = more * self.heat * (self.rng.random_range(0.02_f64..1.0).powf(-0.6) - 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let many = (drawn as usize).min(MOST_REACTIONS);
        for person in self.world.some_members(self.community, self.nth, author, many, &mut self.rng) {
            let kind = ["like", "like", "like", "up", "up", "up", "up", "up", "down"].choose(&mut self.rng);
            let when = (at + Duration::minutes(self.rng.random_range(1..3_000))).min(self.world.talking().1);
            let context = self.world.context("reaction", &format!("{}/{nth}/{person}", self.nth), person, when);
            self.commands.push(Command::react(id, kind.unwrap_or(&"like"), context));
        }
    }

    /// What happens when all was said: an answer is accepted, posts are edited or deleted, moderators look in.
    fn settle(&mut self) {
        let after = |post: &Post, end: DateTime<Utc>| (post.at + Duration::minutes(7)).min(end);
        let end = self.world.talking().1;
        let last = self.posts.last().map_or(end, |post| after(post, end));
        for nth in 0..self.posts.len() {
            if self.rng.random_bool(0.05) {
                self.edit(nth, after(&self.posts[nth], end));
            }
        }
        let direct: Vec<PostId> = self.posts.iter().filter(|post| post.depth == 1).map(|post| post.id).collect();
        let settles = BLUEPRINTS[self.community].categories[self.category].answers && self.rng.random_bool(0.6);
        if let Some(answer) = direct.choose(&mut self.rng).filter(|_| settles) {
            let context = self.world.context("accepted", &self.nth.to_string(), self.author, last);
            self.commands.push(Command::accept(self.id, *answer, context));
        }
        for nth in 1..self.posts.len() {
            // An accepted answer stays; what has replies is deleted less often.
            let likely = if self.posts[nth].replies > 0 { 0.01 } else { 0.03 };
            if !direct.contains(&self.posts[nth].id) && self.rng.random_bool(likely) {
                let reason = in_a_query(&self.say("delete_reason"));
                let path = format!("/v2/posts/{}?reason={reason}", self.posts[nth].id);
                self.by_moderator(&format!("deleted/{nth}"), Method::DELETE, path, Value::Null, last);
            } else if !direct.contains(&self.posts[nth].id) && self.rng.random_bool(0.01) {
                let body = json!({"reason": self.say("delete_reason")});
                let path = format!("/v2/posts/{}/hide", self.posts[nth].id);
                self.by_moderator(&format!("hidden/{nth}"), Method::PUT, path, body, last);
            }
        }
        let thread = format!("/v2/threads/{}", self.id);
        if self.rng.random_bool(0.02) {
            self.by_moderator("pinned", Method::PUT, format!("{thread}/pin"), json!({}), last);
        }
        if self.rng.random_bool(0.04) {
            let reason = self.say("lock_reason");
            self.by_moderator("locked", Method::PUT, format!("{thread}/lock"), json!({"reason": reason}), last);
        }
        if self.rng.random_bool(0.01) {
            let path = format!("{thread}?reason={}", in_a_query(&self.say("delete_reason")));
            self.by_moderator("gone", Method::DELETE, path, Value::Null, last);
        }
    }

    fn edit(&mut self, nth: usize, at: DateTime<Utc>) {
        let Post { id, author, .. } = self.posts[nth];
        let topic = BLUEPRINTS[self.community].topic;
        let list = if nth == 0 { "opening" } else { "reply" };
        let text = self.world.grammar.say(topic, list, &mut self.rng);
        let body = format!("{text}\n\n{}", self.say("edit_note"));
        let reason = self.say("edit_reason");
        let body = json!({"base_revision": 1, "body": body, "format": "markdown", "reason": reason});
        let context = self.world.context("edited", &format!("{}/{nth}", self.nth), author, at);
        self.commands.push(Command::change(Method::PATCH, format!("/v2/posts/{id}"), body, context));
    }

    fn by_moderator(&mut self, what: &str, method: Method, path: String, body: Value, at: DateTime<Utc>) {
        let moderator = World::moderator(self.community);
        let context = self.world.context("moderated", &format!("{}/{what}", self.nth), moderator, at);
        self.commands.push(Command::change(method, path, body, context));
    }

    fn say(&mut self, name: &str) -> String {
        self.world.grammar.say(BLUEPRINTS[self.community].topic, name, &mut self.rng)
    }
}

fn post_id(world: &World, thread: u64, nth: u64, at: DateTime<Utc>) -> PostId {
    world.id("post", &format!("{thread}/{nth}"), at).into()
}

/// To the second: what is made up needs no more.
#[allow(clippy::cast_possible_truncation)]
fn seconds(seconds: f64) -> Duration {
    Duration::seconds(seconds as i64)
}

/// Our phrases need no more escaping than this.
fn in_a_query(text: &str) -> String {
    text.replace(' ', "%20")
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
