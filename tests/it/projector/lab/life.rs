//! Made-up histories: everything happens, to everybody.

use std::collections::BTreeMap;

use events::{
    AccountEvent, AccountId, CategoryEvent, CategoryId, CommunityEvent, CommunityId, Event, MembershipEvent, PostEvent,
    PostId, ReactionEvent, Stream, ThreadEvent, ThreadId, account, category, community, membership, post, reaction,
    thread,
};

use super::recorded::{Recorded, settings};

impl Recorded {
    /// A history of that many events at least, the same for the same seed but for its ids: all kinds of them, in three
    /// communities.
    pub(crate) fn history(seed: u64, many: usize) -> Vec<Self> {
        let mut life = Life { seed, history: Vec::new(), people: Vec::new(), places: Vec::new() };
        life.begin();
        while life.history.len() < many {
            life.go_on();
        }
        life.history
    }
}

/// Makes histories up.
struct Life {
    seed: u64,
    history: Vec<Recorded>,
    people: Vec<AccountId>,
    places: Vec<Place>,
}

struct Place {
    community: CommunityId,
    categories: [CategoryId; 2],
    threads: Vec<Talk>,
}

struct Talk {
    id: ThreadId,
    deleted: bool,
    posts: Vec<Said>,
}

struct Said {
    id: PostId,
    depth: u8,
    revision: u32,
    deleted: bool,
    hidden: bool,
    reactions: BTreeMap<AccountId, &'static str>,
}

impl Life {
    /// Knuth's MMIX generator.
    fn dice(&mut self, sides: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).expect("31 bits") % sides
    }

    fn add(&mut self, community: Option<CommunityId>, actor: AccountId, stream: Stream, event: impl Into<Event>) {
        self.history.push(Recorded::new(community, Some(actor), stream, event));
    }

    fn begin(&mut self) {
        for n in 0..4 {
            let id = AccountId::new();
            let profile = account::Profile { display_name: format!("Person {n}"), ..account::Profile::default() };
            let registered = account::Registered { username: format!("person-{n}"), profile };
            self.add(None, id, Stream::account(id), AccountEvent::Registered(registered));
            self.people.push(id);
        }
        for n in 0..3 {
            let (id, owner, categories) = (CommunityId::new(), self.people[n], [CategoryId::new(), CategoryId::new()]);
            let created = community::Created { settings: settings(&format!("place-{n}")), owner };
            self.add(Some(id), owner, Stream::community(id), CommunityEvent::Created(created));
            for category in categories {
                let created =
                    category::Created { category, parent: None, presentation: category::Presentation::default() };
                self.add(Some(id), owner, Stream::category_tree(id), CategoryEvent::Created(created));
            }
            let member = self.people[3];
            let joined = MembershipEvent::Joined(membership::Joined { account: member });
            self.add(Some(id), member, Stream::membership(id, member), joined);
            self.places.push(Place { community: id, categories, threads: Vec::new() });
        }
    }

    fn go_on(&mut self) {
        let (place, person, what) = (self.dice(3), self.dice(4), self.dice(100));
        let (community, author) = (self.places[place].community, self.people[person]);
        let threads = self.places[place].threads.len();
        if threads == 0 || what < 10 {
            return self.start(place, author);
        }
        let talk = self.dice(threads);
        let thread = self.places[place].threads[talk].id;
        let number = self.dice(self.places[place].threads[talk].posts.len());
        match what {
            10..50 => self.reply(place, talk, number, author),
            50..70 => self.react(place, talk, number, author),
            70..85 => self.moderate(place, talk, number, author),
            85..90 => {
                let to = self.places[place].categories[self.history.len() % 2];
                let moved = ThreadEvent::Moved(thread::Moved { from: CategoryId::new(), to });
                self.add(Some(community), author, Stream::thread(thread), moved);
            }
            90..93 => {
                let talk = &mut self.places[place].threads[talk];
                talk.deleted = !talk.deleted;
                let event = if talk.deleted {
                    ThreadEvent::Deleted(thread::Deleted { reason: None, moderated: true })
                } else {
                    ThreadEvent::Restored(thread::Restored { moderated: true })
                };
                self.add(Some(community), author, Stream::thread(thread), event);
            }
            93..96 => {
                let pinned = ThreadEvent::Pinned(thread::Pinned { until: None });
                self.add(Some(community), author, Stream::thread(thread), pinned);
            }
            _ => {
                let order = [1, 0].map(|n: usize| self.places[place].categories[n]).to_vec();
                let reordered = CategoryEvent::Reordered(category::Reordered { parent: None, order });
                self.add(Some(community), author, Stream::category_tree(community), reordered);
            }
        }
    }

    fn start(&mut self, place: usize, author: AccountId) {
        let Place { community, categories, .. } = self.places[place];
        let (id, opening_post) = (ThreadId::new(), PostId::new());
        let (title, tags) = (format!("Thread {}", self.history.len()), vec!["tea".to_owned()]);
        let category = categories[self.history.len() % 2];
        let started = thread::Started { category, title, tags, author: Some(author), opening_post };
        self.add(Some(community), author, Stream::thread(id), ThreadEvent::Started(started));
        self.places[place].threads.push(Talk { id, deleted: false, posts: Vec::new() });
        let talk = self.places[place].threads.len() - 1;
        self.say(place, talk, opening_post, None, author);
    }

    fn reply(&mut self, place: usize, talk: usize, number: usize, author: AccountId) {
        let parent = &self.places[place].threads[talk].posts[number];
        let parent = (parent.id, parent.depth);
        self.say(place, talk, PostId::new(), Some(parent), author);
    }

    fn say(&mut self, place: usize, talk: usize, id: PostId, parent: Option<(PostId, u8)>, author: AccountId) {
        let (community, thread) = (self.places[place].community, self.places[place].threads[talk].id);
        let body = format!("Post *{}*", self.history.len());
        self.history.push(Recorded::written(community, thread, id, parent, Some(author), &body));
        let depth = parent.map_or(0, |(_, depth)| depth + 1);
        let said = Said { id, depth, revision: 1, deleted: false, hidden: false, reactions: BTreeMap::new() };
        self.places[place].threads[talk].posts.push(said);
    }

    fn react(&mut self, place: usize, talk: usize, number: usize, account: AccountId) {
        let kind = ["up", "down", "like", "heart"][self.dice(4)];
        let Place { community, threads, .. } = &mut self.places[place];
        let (community, thread) = (*community, threads[talk].id);
        let said = &mut threads[talk].posts[number];
        let post = said.id;
        if self.history.len().is_multiple_of(7) {
            let imported = reaction::ScoreImported { thread, post, up: 3, down: 1 };
            let stream = Stream::imported_score(post);
            return self.add(Some(community), account, stream, ReactionEvent::ScoreImported(imported));
        }
        let event = match said.reactions.insert(account, kind) {
            Some(before) if before == kind => {
                said.reactions.remove(&account);
                ReactionEvent::Cleared(reaction::Cleared { thread, post, account, kind: kind.to_owned() })
            }
            replaced => {
                let (kind, replaced) = (kind.to_owned(), replaced.map(str::to_owned));
                ReactionEvent::Set(reaction::Set { thread, post, account, kind, replaced })
            }
        };
        self.add(Some(community), account, Stream::reaction(post, account), event);
    }

    /// Edits, deletes, hides, and takes that back.
    fn moderate(&mut self, place: usize, talk: usize, number: usize, actor: AccountId) {
        let what = self.dice(3);
        let Place { community, threads, .. } = &mut self.places[place];
        let (community, thread) = (*community, threads[talk].id);
        let said = &mut threads[talk].posts[number];
        let event = match what {
            0 => {
                said.revision += 1;
                let body = "better said".to_owned();
                let (revision, format, reason) = (said.revision, post::Format::Html, None);
                PostEvent::Edited(post::Edited { thread, revision, body, format, reason, moderated: true })
            }
            1 => {
                said.deleted = !said.deleted;
                if said.deleted {
                    PostEvent::Deleted(post::Deleted { thread, reason: None, moderated: true })
                } else {
                    PostEvent::Restored(post::Restored { thread, moderated: true })
                }
            }
            _ => {
                said.hidden = !said.hidden;
                if said.hidden {
                    PostEvent::Hidden(post::Hidden { thread, reason: Some("rude".to_owned()) })
                } else {
                    PostEvent::Unhidden(post::Unhidden { thread })
                }
            }
        };
        let stream = Stream::post(said.id);
        self.add(Some(community), actor, stream, event);
    }
}
