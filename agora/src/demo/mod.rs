//! A lively forum, made up from a seed and posted through the command endpoints as any client would.
//!
//! Everything about a person or a thread follows from the seed and its number. So the same demo run twice writes
//! nothing twice, one that was interrupted goes on, and a larger one adds to a smaller one.

mod grammar;
mod thread;
mod world;

use std::{fmt, sync::Arc};

use anyhow::bail;
use chrono::{DateTime, Duration, NaiveTime, Utc};
use events::community::Visibility;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use self::world::PLAIN_SEED;
use self::{
    grammar::Grammar,
    world::{BLUEPRINTS, DAYS, EARLY_THREADS, World},
};
use crate::{
    client::{
        Client, LANES, Outcome,
        command::{Command, Kind},
        lanes,
        tally::Sent,
    },
    terminal::{Progress, Unit},
};

/// What is to be made up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Posts in all.
    pub size: u64,
    /// What everything follows from.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The slugs of the communities.
    pub communities: Vec<String>,
    /// A thread that anyone may read.
    pub thread: String,
    /// Commands sent, and what became of them.
    pub sent: Sent,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sent)?;
        let communities = self.communities.join(", ");
        match self.sent.total.written {
            0 => write!(f, "nothing was written: {communities} have all of it already"),
            _ => write!(f, "{communities} are complete"),
        }
    }
}

/// Makes it up, and posts it.
///
/// # Errors
/// Where the server cannot be reached, or the communities cannot be made.
pub async fn run(options: Options, client: Arc<Client>) -> anyhow::Result<Summary> {
    client.knock().await?;
    let Options { size, seed } = options;
    let mut world = World { seed, founded: days_ago(DAYS), grammar: Grammar::load()? };
    if let Some(founded) = founded_before(&client, &world).await? {
        world.founded = founded;
    }
    let threads = threads(&world, size);
    let progress = Progress::start("posting", size, Unit::Things("posts"));
    let demo = Arc::new(Demo { client, world, threads, progress });
    demo.make_places().await?;
    demo.side_by_side(World::people(demo.threads.len() as u64), |demo, person| async move {
        demo.send_person(person).await
    })
    .await?;
    demo.side_by_side(demo.threads.len() as u64, |demo, nth| async move { demo.send_thread(nth).await }).await?;
    demo.close().await?;
    demo.finish().await
}

fn days_ago(days: i64) -> DateTime<Utc> {
    let midnight = Utc::now().with_time(NaiveTime::MIN).single();
    midnight.unwrap_or_else(Utc::now) - Duration::days(days)
}

/// When a run before this one put the founding: times hang on it, and ids on times.
async fn founded_before(client: &Client, world: &World) -> anyhow::Result<Option<DateTime<Utc>>> {
    let community = client.read(&format!("/v2/communities/{}", world.community(0).slug)).await?;
    Ok(community.and_then(|community| community.get("created_at")?.as_str()?.parse().ok()))
}

/// How many posts each thread has, so that there are `size` of them in all.
fn threads(world: &World, size: u64) -> Vec<u64> {
    let mut left = size;
    let mut threads = Vec::new();
    for nth in 0.. {
        if left == 0 {
            break;
        }
        let length = world.length(nth).min(left);
        left -= length;
        threads.push(length);
    }
    threads
}

struct Demo {
    client: Arc<Client>,
    world: World,
    /// How long each is.
    threads: Vec<u64>,
    progress: Progress,
}

impl Demo {
    /// The owners and moderators, their communities and categories: one after the other, as they hang on one another.
    async fn make_places(&self) -> anyhow::Result<()> {
        for (nth, blueprint) in BLUEPRINTS.iter().enumerate() {
            let (owner, founded) = (World::owner(nth), self.world.founded);
            self.send_account(owner).await?;
            let community = self.world.community(nth);
            let context = self.world.context("community", blueprint.topic, owner, founded);
            match self.client.send(&Command::create_community(&community, context)).await? {
                Outcome::Refused(refusal) if refusal.pointer == "#/slug" => {
                    bail!("there is another community {} already: try another --seed", community.slug);
                }
                Outcome::Refused(refusal) => bail!("the community {} cannot be made: {refusal}", community.slug),
                Outcome::Written | Outcome::AlreadyThere => {}
            }
            for category in 0..blueprint.categories.len() {
                let context = self.world.context("category", &format!("{nth}/{category}"), owner, founded);
                let new = self.world.category(nth, category);
                self.send(Command::create_category(community.id, &new, context)).await?;
            }
        }
        Ok(())
    }

    /// An account, and what it is a member of.
    async fn send_person(&self, person: u64) -> anyhow::Result<()> {
        // Owners were sent with their communities.
        if person >= BLUEPRINTS.len() as u64 {
            self.send_account(person).await?;
        }
        let (account, came) = (self.world.account(person), self.world.came(person));
        for (nth, blueprint) in BLUEPRINTS.iter().enumerate() {
            let (community, owner) = (self.world.community_id(nth), World::owner(nth));
            // Whoever makes a community is a member of it.
            if person == owner || !self.world.is_member(nth, person) {
                continue;
            }
            let name = format!("{nth}/{person}");
            if blueprint.visibility == Visibility::Private {
                let context = self.world.context("invited", &name, owner, came);
                self.send(Command::invite(community, account, context)).await?;
            }
            let context = self.world.context("member", &name, person, came);
            self.send(Command::join(community, account, context)).await?;
            if person == World::moderator(nth) {
                let context = self.world.context("moderator", &name, owner, came);
                let role = json!({"role": "moderator"});
                self.send(Command::member(community, account, "/role", role, context)).await?;
            }
        }
        Ok(())
    }

    async fn send_account(&self, person: u64) -> anyhow::Result<()> {
        let (mut account, usernames) = self.world.new_account(person);
        let last = usernames.len() - 1;
        for (nth, username) in usernames.into_iter().enumerate() {
            account.username = username;
            // Another body under the same key would be refused.
            let mut context =
                self.world.context("account", &format!("{person}/{nth}"), person, self.world.came(person));
            context.behalf = None;
            let command = Command::import_account(&account, context);
            let outcome = self.client.send_uncounted(&command).await?;
            let taken = matches!(&outcome, Outcome::Refused(refusal) if refusal.pointer == "#/username");
            if !taken || nth == last {
                self.client.tally.count(Kind::Account, &outcome);
                self.show(&command, &outcome);
                break;
            }
        }
        Ok(())
    }

    async fn send_thread(&self, nth: u64) -> anyhow::Result<()> {
        let length = usize::try_from(nth).ok().and_then(|nth| self.threads.get(nth)).copied().unwrap_or_default();
        for command in self.world.thread(nth, length) {
            let is_post = matches!(command.kind, Kind::Thread | Kind::Answer | Kind::Comment);
            self.send(command).await?;
            self.progress.add(u64::from(is_post));
        }
        Ok(())
    }

    /// What comes last: bans, and categories that are closed. Not before all that they would refuse was said.
    async fn close(&self) -> anyhow::Result<()> {
        if self.threads.len() as u64 <= EARLY_THREADS {
            return Ok(());
        }
        let (_, end) = self.world.talking();
        for (nth, blueprint) in BLUEPRINTS.iter().enumerate() {
            let (community, moderator) = (self.world.community_id(nth), World::moderator(nth));
            for person in self.world.banned(nth) {
                let name = format!("{nth}/{person}");
                let mut rng = self.world.rng("ban_reason", person * 10 + nth as u64);
                let reason = self.world.grammar.say(blueprint.topic, "ban_reason", &mut rng);
                let context = self.world.context("banned", &name, moderator, end);
                let account = self.world.account(person);
                self.send(Command::member(community, account, "/ban", json!({"reason": reason}), context)).await?;
            }
            for category in (0..blueprint.categories.len()).filter(|category| blueprint.categories[*category].archived)
            {
                let context = self.world.context("archived", &format!("{nth}/{category}"), World::owner(nth), end);
                let path = format!("/v2/categories/{}", self.world.category_id(nth, category));
                self.send(Command::change(Method::DELETE, path, Value::Null, context)).await?;
            }
        }
        Ok(())
    }

    async fn finish(&self) -> anyhow::Result<Summary> {
        let communities: Vec<String> = (0..BLUEPRINTS.len()).map(|nth| self.world.community(nth).slug).collect();
        let thread = self.world.longest_public_thread(&self.threads);
        let mut paths: Vec<String> =
            communities.iter().map(|slug| format!("/v2/communities/{slug}/threads?limit=1")).collect();
        paths.extend(["/v2/communities".to_owned(), format!("/v2/threads/{thread}/posts")]);
        self.client.wait_for_reads(&paths).await?;
        Ok(Summary { communities, thread, sent: self.client.tally.sent() })
    }

    async fn side_by_side<F, W>(self: &Arc<Self>, many: u64, work: F) -> anyhow::Result<()>
    where
        F: Fn(Arc<Self>, u64) -> W + Clone + Send + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(LANES);
        tokio::spawn(async move {
            for nth in 0..many {
                if sender.send(nth).await.is_err() {
                    break;
                }
            }
        });
        let demo = Arc::clone(self);
        lanes::run(LANES, queue, move |nth| work(Arc::clone(&demo), nth)).await
    }

    async fn send(&self, command: Command) -> anyhow::Result<()> {
        let outcome = self.client.send(&command).await?;
        self.show(&command, &outcome);
        Ok(())
    }

    /// Nothing that is made up should be refused: where it is, the person should see it.
    fn show(&self, command: &Command, outcome: &Outcome) {
        if let Outcome::Refused(refusal) = outcome {
            self.progress.say(format_args!("{} {}: {refusal}", command.method(), command.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::command::Behalf;

    fn world(seed: u64) -> World {
        let founded = "2025-01-01T00:00:00Z".parse().expect("a time");
        World { seed, founded, grammar: Grammar::load().expect("ours") }
    }

    fn all(world: &World, size: u64) -> Vec<Command> {
        (0..).zip(threads(world, size)).flat_map(|(nth, length)| world.thread(nth, length)).collect()
    }

    fn posts(commands: &[Command]) -> usize {
        commands.iter().filter(|command| matches!(command.kind, Kind::Thread | Kind::Answer | Kind::Comment)).count()
    }

    #[test]
    fn there_are_as_many_posts_as_asked_for() {
        for size in [0, 1, 7, 500] {
            assert_eq!(posts(&all(&world(1), size)) as u64, size);
        }
    }

    #[test]
    fn the_same_seed_says_the_same_and_another_something_else() {
        assert_eq!(all(&world(7), 300), all(&world(7), 300));
        assert_ne!(all(&world(7), 300), all(&world(8), 300));
    }

    #[test]
    fn a_larger_demo_holds_the_smaller_one() {
        let (small, large) = (all(&world(1), 400), all(&world(1), 1_000));
        let large: std::collections::HashMap<_, _> = large.iter().map(|command| (command.key(), command)).collect();
        assert!(small.iter().all(|command| large.get(command.key()) == Some(&command)));
        assert!(large.len() > small.len());
    }

    #[test]
    fn what_a_larger_demo_adds_goes_to_what_is_still_open() {
        let world = world(1);
        let banned: Vec<Vec<_>> =
            (0..BLUEPRINTS.len()).map(|nth| world.banned(nth).map(|person| world.account(person)).collect()).collect();
        assert!(banned.iter().flatten().count() > 1 && banned[3].is_empty(), "{banned:?}");
        let archived = BLUEPRINTS[0].categories.iter().position(|category| category.archived).expect("one");
        let archived = world.category_id(0, archived).to_string();
        let (mut early, lengths) = (0, threads(&world, 5_000));
        for (nth, length) in (0..).zip(lengths) {
            let community = world.community_of(nth);
            for command in world.thread(nth, length) {
                let by_banned =
                    matches!(command.behalf(), Some(Behalf::Account(it)) if banned[community].contains(&it));
                let closed = by_banned || command.body()["category_id"] == archived.as_str();
                assert!(!closed || nth < EARLY_THREADS, "thread {nth}: {command:?}");
                early += u64::from(closed);
            }
        }
        assert!(early > 10, "some of it was said before: {early}");
    }

    #[test]
    fn every_key_names_one_command_and_every_time_is_within_the_demo() {
        let world = world(1);
        let commands = all(&world, 2_000);
        let keys: std::collections::HashSet<_> = commands.iter().map(Command::key).collect();
        assert_eq!(keys.len(), commands.len());
        let (from, until) = world.talking();
        assert!(commands.iter().all(|command| (from..=until).contains(&command.at())));
        assert!(commands.iter().all(|command| command.key().len() <= 255));
    }

    #[test]
    fn it_is_lively() {
        let commands = all(&world(1), 2_000);
        let of = |kind: Kind| commands.iter().filter(|command| command.kind == kind).count();
        let counts = [Kind::Thread, Kind::Answer, Kind::Comment, Kind::Reaction, Kind::Accepted, Kind::Change].map(of);
        let [threads, answers, comments, reactions, accepted, changes] = counts;
        assert!((100..600).contains(&threads), "{counts:?}");
        assert!(answers > 400 && comments > 400, "{counts:?}");
        assert!((800..6_000).contains(&reactions), "{counts:?}");
        assert!(accepted > 10 && changes > 50, "{counts:?}");
        let ends = ["/lock", "/pin", "/hide"];
        for end in ends {
            assert!(commands.iter().any(|command| command.path().ends_with(end)), "no {end}");
        }
    }

    #[test]
    fn people_have_names_of_their_own() {
        let world = world(3);
        let names: std::collections::HashSet<_> = (0..3_000).map(|nth| world.new_account(nth).0.username).collect();
        assert_eq!(names.len(), 3_000);
    }

    #[test]
    fn nobody_reacts_to_their_own_post() {
        let world = world(1);
        for (nth, length) in (0..).zip(threads(&world, 1_000)) {
            let mut author = None;
            for command in world.thread(nth, length) {
                match command.kind {
                    Kind::Thread | Kind::Answer | Kind::Comment => author = command.behalf(),
                    Kind::Reaction => assert_ne!(command.behalf(), author),
                    _ => {}
                }
            }
        }
    }
}
