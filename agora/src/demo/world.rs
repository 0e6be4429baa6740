//! Who and what there is before anybody says a word: people and communities, each from its number alone, so that a
//! larger demo holds every smaller one of the same seed.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use events::{AccountId, CategoryId, CommunityId, community::Visibility};
use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::grammar::Grammar;
use crate::{
    client::command::{Behalf, Context, NewAccount, NewCategory, NewCommunity},
    derive,
    slug::slug,
};

/// Days from the founding to the first thread, and to the end of all.
const SETTLING_DAYS: i64 = 30;
/// See [`SETTLING_DAYS`].
pub(super) const DAYS: i64 = 90;

/// People in the smallest demo.
const FEWEST_PEOPLE: u64 = 24;
/// People in the largest.
const MOST_PEOPLE: u64 = 20_000;
/// How many threads bring one more person.
const THREADS_A_PERSON: u64 = 3;

/// What is closed in the end has threads among the first so many only, and who gets banned talks in these only: so whatever
/// a larger demo adds to a smaller one, which has ended, goes to what is still open. Smaller ones than that do not end.
pub(super) const EARLY_THREADS: u64 = 30;
/// The share of early members that get banned, in the communities that strangers see.
const BANNED: f64 = 0.1;

/// The seed whose names have no number behind them.
pub const PLAIN_SEED: u64 = 1;

/// A made-up world.
pub(super) struct World {
    pub(super) seed: u64,
    /// When it began: the first community's age.
    pub(super) founded: DateTime<Utc>,
    pub(super) grammar: Grammar,
}

/// A community as it is set up.
pub(super) struct Blueprint {
    pub(super) topic: &'static str,
    name: &'static str,
    description: &'static str,
    pub(super) visibility: Visibility,
    /// In percent of all threads.
    pub(super) share: u32,
    /// How likely a person is a member.
    pub(super) members: f64,
    pub(super) categories: &'static [Category],
}

/// A category: what it is called, what belongs there, the place of the one it is below, and whether answers are
/// accepted there.
pub(super) struct Category {
    name: &'static str,
    description: &'static str,
    parent: Option<usize>,
    pub(super) answers: bool,
    /// Made read-only in the end, see [`EARLY_THREADS`].
    pub(super) archived: bool,
}

const fn category(name: &'static str, description: &'static str, parent: Option<usize>) -> Category {
    Category { name, description, parent, answers: false, archived: false }
}

const fn help(name: &'static str, description: &'static str, parent: Option<usize>) -> Category {
    Category { answers: true, ..category(name, description, parent) }
}

pub(super) const BLUEPRINTS: [Blueprint; 4] = [
    Blueprint {
        topic: "allotment",
        name: "The Allotment",
        description: "Growing things to eat, whatever the weather.",
        visibility: Visibility::Public,
        share: 45,
        members: 0.85,
        categories: &[
            category("General", "Whatever grows.", None),
            help("Help", "Questions, and answers that worked.", None),
            help("Pests and diseases", "What is eating it, and what to do.", Some(1)),
            help("Slugs", "They deserve a place of their own.", Some(2)),
            category("Show and tell", "Harvests, sheds, failures.", None),
            Category { archived: true, ..category("Seed swap 2019", "Closed, kept to look things up.", None) },
        ],
    },
    Blueprint {
        topic: "workbench",
        name: "The Workbench",
        description: "Making and mending, in wood and metal and wire.",
        visibility: Visibility::Public,
        share: 30,
        members: 0.6,
        categories: &[
            help("Questions", "Ask before you cut.", None),
            help("Electrics", "Unplug it first.", Some(0)),
            category("Projects", "From the first sketch to the last coat.", None),
            category("Off topic", "Everything else.", None),
        ],
    },
    Blueprint {
        topic: "night-sky",
        name: "Night Sky Club",
        description: "Anyone may read; members report what they saw.",
        visibility: Visibility::Restricted,
        share: 17,
        members: 0.35,
        categories: &[
            category("Observations", "What you saw, where, and with what.", None),
            help("Equipment", "Questions about glass and mounts.", None),
            category("Meetings", "When and where we meet.", None),
        ],
    },
    Blueprint {
        topic: "committee",
        name: "The Committee",
        description: "Nobody else learns that this is here.",
        visibility: Visibility::Private,
        share: 8,
        members: 0.15,
        categories: &[
            category("Agenda", "What we have to decide.", None),
            category("Minutes", "What we decided.", None),
        ],
    },
];

impl World {
    /// The source of all that is random about one thing: the same for the same seed and number.
    pub(super) fn rng(&self, what: &str, nth: u64) -> ChaCha8Rng {
        let seed = Sha256::digest(format!("demo/{}/{what}/{nth}", self.seed).as_bytes());
        ChaCha8Rng::from_seed(seed.into())
    }

    /// The id of something made at that moment.
    pub(super) fn id(&self, what: &str, name: &str, at: DateTime<Utc>) -> Uuid {
        derive::id(at, &self.key(what, name))
    }

    /// What a command is sent with: done by a person, at a time.
    pub(super) fn context(&self, what: &str, name: &str, person: u64, at: DateTime<Utc>) -> Context {
        Context { key: self.key(what, name), behalf: Some(Behalf::Account(self.account(person))), at }
    }

    fn key(&self, what: &str, name: &str) -> String {
        format!("demo/{}/{what}/{name}", self.seed)
    }

    /// When the first thread may be started, and the end of all.
    pub(super) fn talking(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.founded + Duration::days(SETTLING_DAYS), self.founded + Duration::days(DAYS))
    }

    /// How many people there are when the `thread`th thread is started.
    pub(super) fn people(thread: u64) -> u64 {
        (FEWEST_PEOPLE + thread / THREADS_A_PERSON).min(MOST_PEOPLE)
    }

    /// When a person came: before the first thread.
    pub(super) fn came(&self, person: u64) -> DateTime<Utc> {
        let minutes = i64::try_from(person % MOST_PEOPLE).unwrap_or(0) + 1;
        self.founded + Duration::minutes(minutes)
    }

    pub(super) fn account(&self, person: u64) -> AccountId {
        self.id("person", &person.to_string(), self.came(person)).into()
    }

    /// A person's account, under the first of several usernames that nobody else has.
    pub(super) fn new_account(&self, person: u64) -> (NewAccount, Vec<String>) {
        let (first, last) = (self.grammar.list("", "first_name"), self.grammar.list("", "last_name"));
        // Every pair once before any comes again, in an order of the seed's own.
        let pairs = (first.len() * last.len()) as u64;
        let start = self.rng("names", 0).random_range(0..pairs);
        let pair = usize::try_from((start + person * 389) % pairs).unwrap_or(0);
        let display_name = format!("{} {}", first[pair % first.len()], last[pair / first.len()]);
        let round = person / pairs;
        let again = if round == 0 { String::new() } else { format!("-{}", round + 1) };
        let plain = slug(&display_name, 40) + &again + &self.suffix();
        let id = self.account(person);
        let more = id.to_string();
        let usernames = vec![plain.clone(), format!("{plain}-{}", &more[more.len() - 6..])];

        let mut rng = self.rng("profile", person);
        let topic = BLUEPRINTS[rng.random_range(0..BLUEPRINTS.len())].topic;
        let about = rng.random_bool(0.7).then(|| self.grammar.say(topic, "about", &mut rng));
        let location = rng.random_bool(0.5).then(|| self.grammar.say(topic, "town", &mut rng));
        let website = rng.random_bool(0.1).then(|| format!("https://{plain}.example"));
        let source = self.key("person", &person.to_string());
        let account = NewAccount { id, username: plain, display_name, about, location, website, source };
        (account, usernames)
    }

    /// The first people own the communities, the next ones keep order in them.
    pub(super) fn owner(community: usize) -> u64 {
        community as u64
    }

    /// See [`Self::owner`].
    pub(super) fn moderator(community: usize) -> u64 {
        (BLUEPRINTS.len() + community) as u64
    }

    pub(super) fn is_member(&self, community: usize, person: u64) -> bool {
        let staff = person == Self::owner(community) || person == Self::moderator(community);
        staff || self.rng(BLUEPRINTS[community].topic, person).random_bool(BLUEPRINTS[community].members)
    }

    /// Those who get banned in the end.
    pub(super) fn banned(&self, community: usize) -> impl Iterator<Item = u64> {
        (0..Self::people(EARLY_THREADS)).filter(move |person| self.is_banned(community, *person))
    }

    fn is_banned(&self, community: usize, person: u64) -> bool {
        let staff = 2 * BLUEPRINTS.len() as u64;
        (staff..Self::people(EARLY_THREADS)).contains(&person)
            && BLUEPRINTS[community].visibility != Visibility::Private
            && self.is_member(community, person)
            && self.rng("banned", person * 10 + community as u64).random_bool(BANNED)
    }

    /// The category of a thread.
    pub(super) fn some_category(community: usize, thread: u64, rng: &mut ChaCha8Rng) -> usize {
        let categories = BLUEPRINTS[community].categories;
        loop {
            let category = rng.random_range(0..categories.len());
            if thread < EARLY_THREADS || !categories[category].archived {
                return category;
            }
        }
    }

    /// A member who talks in a thread, early ones more often: a forum has its regulars.
    pub(super) fn some_member(&self, community: usize, thread: u64, rng: &mut ChaCha8Rng) -> u64 {
        let people = Self::people(thread);
        loop {
            let skewed = rng.random::<f64>().powi(2);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let person = (skewed * people as f64) as u64;
            if self.is_member(community, person) && (thread < EARLY_THREADS || !self.is_banned(community, person)) {
                return person;
            }
        }
    }

    /// Several members, each once, none of them `not`.
    pub(super) fn some_members(
        &self,
        community: usize,
        thread: u64,
        not: u64,
        many: usize,
        rng: &mut ChaCha8Rng,
    ) -> BTreeSet<u64> {
        let drawn = (0..many * 2).map(|_| self.some_member(community, thread, rng));
        drawn.filter(|person| *person != not).take(many).collect()
    }

    pub(super) fn community(&self, community: usize) -> NewCommunity {
        let Blueprint { topic, name, description, visibility, .. } = &BLUEPRINTS[community];
        NewCommunity {
            id: self.community_id(community),
            slug: format!("{topic}{}", self.suffix()),
            name: (*name).to_owned(),
            description: (*description).to_owned(),
            visibility: *visibility,
        }
    }

    pub(super) fn community_id(&self, community: usize) -> CommunityId {
        self.id("community", BLUEPRINTS[community].topic, self.founded).into()
    }

    pub(super) fn category_id(&self, community: usize, category: usize) -> CategoryId {
        self.id("category", &format!("{community}/{category}"), self.founded).into()
    }

    pub(super) fn category(&self, community: usize, nth: usize) -> NewCategory {
        let Category { name, description, parent, .. } = &BLUEPRINTS[community].categories[nth];
        NewCategory {
            id: self.category_id(community, nth),
            parent_id: parent.map(|parent| self.category_id(community, parent)),
            slug: slug(name, 40),
            name: (*name).to_owned(),
            description: (*description).to_owned(),
        }
    }

    /// The longest thread of the first community: something to look at.
    pub(super) fn longest_public_thread(&self, threads: &[u64]) -> String {
        let public = (0..).zip(threads).filter(|(nth, _)| self.community_of(*nth) == 0);
        let longest = public.max_by_key(|(_, length)| **length).map_or(0, |(nth, _)| nth);
        self.thread_id(longest).to_string()
    }

    /// Other seeds have names of their own.
    fn suffix(&self) -> String {
        if self.seed == PLAIN_SEED { String::new() } else { format!("-{}", self.seed) }
    }
}
