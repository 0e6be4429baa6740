//! What one event cannot tell: rules over the history, that two commands at once could break.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use events::{
    AccountEvent, AccountId, CategoryEvent, CommunityEvent, CommunityId, Envelope, Event, PostEvent, ReactionEvent,
    Shard, ThreadEvent, account, category, community, post, reaction, thread,
};
use store_reader::Unreadable;
use uuid::Uuid;

use super::{Checked, Readable};

/// Kind, value and owner of a unique name.
pub(super) type Claim = (String, String, String);

/// The rules, and what was read so far of what they need.
pub(super) struct Rules {
    readable: Checked,
    shards: Checked,
    owned: Checked,
    unique: Checked,
    claimed: Checked,
    reactions: Checked,
    revisions: Checked,
    answers: Checked,
    strays: Checked,
    places: Checked,
    /// Streams of which an event cannot be read: what it said is not known, so nothing that rests on it is judged.
    gaps: HashSet<String>,
    owners: HashMap<Uuid, HashSet<AccountId>>,
    /// Who has which name, by what kind of name it is.
    names: HashMap<(&'static str, String), Uuid>,
    slugs: HashMap<Uuid, String>,
    reacted: HashMap<(Uuid, AccountId), String>,
    /// The last revision of each post, its depth, and its thread.
    posts: HashMap<Uuid, (u32, u8, Uuid)>,
    /// The community of each category, thread and post.
    homes: HashMap<Uuid, Option<CommunityId>>,
    /// The opening post of each thread.
    threads: HashMap<Uuid, Uuid>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            readable: Checked::new("every event can be read"),
            shards: Checked::new("every event is of its community's shard, or its account's"),
            owned: Checked::new("a community always has an owner"),
            unique: Checked::new("no two accounts or communities have one name at a time"),
            claimed: Checked::new("a name is claimed by who has it, and by nobody else"),
            reactions: Checked::new("a reaction replaces or ends the one that was there"),
            revisions: Checked::new("the revisions of a post are numbered without a gap"),
            answers: Checked::new("a reply is below a post of its own thread"),
            strays: Checked::new("every event is of the stream that it is in"),
            places: Checked::new("posts, threads and categories that belong together are of one community"),
            gaps: HashSet::new(),
            owners: HashMap::new(),
            names: HashMap::new(),
            slugs: HashMap::new(),
            reacted: HashMap::new(),
            posts: HashMap::new(),
            homes: HashMap::new(),
            threads: HashMap::new(),
        }
    }
}

impl Rules {
    /// Takes the next event.
    pub(super) fn look(&mut self, (envelope, events): &Readable) {
        self.shard(envelope);
        for event in events {
            if !envelope.stream.takes(event) {
                self.strays.breaks(|| place(envelope));
            }
            self.event(event, envelope);
        }
    }

    /// Takes an event that nobody can read, left out or not.
    pub(super) fn gap(&mut self, event: &Unreadable) {
        self.gaps.insert(event.stream.id.clone());
    }

    /// Of those, one that nobody left out.
    pub(super) fn unreadable(&mut self, event: &Unreadable) {
        self.readable.breaks(|| event.to_string());
    }

    /// The names that somebody has, each with its kind.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.names.keys().map(|(kind, name)| ((*kind).to_owned(), name.clone())).collect()
    }

    /// What was found, with the claims as they are now.
    pub(super) fn end(mut self, claims: Vec<Claim>) -> Vec<Checked> {
        self.claims(claims);
        self.belong_together();
        vec![
            self.readable,
            self.shards,
            self.owned,
            self.unique,
            self.claimed,
            self.reactions,
            self.revisions,
            self.answers,
            self.strays,
            self.places,
        ]
    }

    fn shard(&mut self, envelope: &Envelope) {
        let expected = match (envelope.community, envelope.stream.uuid()) {
            (Some(community), _) => Shard::of_community(community),
            (None, Ok(account)) => Shard::of_account(AccountId(account)),
            (None, Err(_)) => return self.shards.breaks(|| format!("{}: whose is it?", place(envelope))),
        };
        if expected != envelope.shard {
            self.shards.breaks(|| format!("{}: in shard {}, not {expected}", place(envelope), envelope.shard));
        }
    }

    fn event(&mut self, event: &Event, envelope: &Envelope) {
        let Ok(id) = envelope.stream.uuid() else { return };
        match event {
            Event::Account(
                AccountEvent::Registered(account::Registered { username, .. })
                | AccountEvent::Imported(account::Imported { username, .. }),
            ) => {
                self.take("username", username.to_lowercase(), id, envelope);
            }
            Event::Community(event) => self.community(event, id, envelope),
            Event::Category(CategoryEvent::Created(category::Created { category, .. })) => {
                self.homes.insert(category.0, envelope.community);
            }
            Event::Thread(ThreadEvent::Started(thread::Started { category, opening_post, .. })) => {
                self.homes.insert(id, envelope.community);
                self.threads.insert(id, opening_post.0);
                self.category(category.0, envelope);
            }
            Event::Thread(ThreadEvent::Moved(thread::Moved { to, .. })) => self.category(to.0, envelope),
            Event::Post(event) => self.post(event, id, envelope),
            Event::Reaction(event) => self.reaction(event, envelope),
            _ => {}
        }
    }

    /// Somebody has a name from now on.
    fn take(&mut self, kind: &'static str, name: String, owner: Uuid, envelope: &Envelope) {
        match self.names.entry((kind, name)) {
            Entry::Vacant(free) => {
                free.insert(owner);
            }
            Entry::Occupied(taken) if *taken.get() == owner => {}
            Entry::Occupied(taken) => {
                let name = &taken.key().1;
                self.unique.breaks(|| format!("{}: the {kind} {name} is {}'s", place(envelope), taken.get()));
            }
        }
    }

    fn community(&mut self, event: &CommunityEvent, id: Uuid, envelope: &Envelope) {
        match event {
            CommunityEvent::Created(community::Created { settings, owner }) => {
                self.owners.entry(id).or_default().insert(*owner);
                self.slug(settings.slug.clone(), id, envelope);
            }
            CommunityEvent::SettingsChanged(community::SettingsChanged { settings }) => {
                self.slug(settings.slug.clone(), id, envelope);
            }
            CommunityEvent::OwnerAdded(community::OwnerAdded { account }) => {
                self.owners.entry(id).or_default().insert(*account);
            }
            CommunityEvent::OwnerRemoved(community::OwnerRemoved { account }) => {
                let owners = self.owners.entry(id).or_default();
                owners.remove(account);
                if owners.is_empty() && !self.gaps.contains(&envelope.stream.id) {
                    self.owned.breaks(|| format!("{}: {} has none", place(envelope), CommunityId(id)));
                }
            }
            _ => {}
        }
    }

    fn slug(&mut self, slug: String, id: Uuid, envelope: &Envelope) {
        if let Some(before) = self.slugs.insert(id, slug.clone())
            && self.names.get(&("slug", before.clone())) == Some(&id)
        {
            self.names.remove(&("slug", before));
        }
        self.take("slug", slug, id, envelope);
    }

    fn post(&mut self, event: &PostEvent, id: Uuid, envelope: &Envelope) {
        match event {
            PostEvent::Written(post::Written { thread, parent, depth, .. }) => {
                let above = parent.map(|parent| self.posts.get(&parent.0));
                let fits = match above {
                    None => *depth == 0,
                    Some(None) => parent.is_some_and(|parent| self.gaps.contains(&parent.to_string())),
                    Some(Some((_, above, its))) => *its == thread.0 && *depth == above + 1,
                };
                if !fits {
                    self.answers.breaks(|| format!("{}: below {parent:?} at depth {depth}", place(envelope)));
                }
                self.posts.insert(id, (1, *depth, thread.0));
                self.homes.insert(id, envelope.community);
            }
            PostEvent::Edited(post::Edited { revision, .. }) => {
                let last = self.posts.get_mut(&id).map(|(last, ..)| std::mem::replace(last, *revision));
                if last.is_none_or(|last| last + 1 != *revision) && !self.gaps.contains(&envelope.stream.id) {
                    self.revisions.breaks(|| format!("{}: revision {revision} after {last:?}", place(envelope)));
                }
            }
            _ => {}
        }
    }

    fn reaction(&mut self, event: &ReactionEvent, envelope: &Envelope) {
        let (stands, said) = match event {
            ReactionEvent::Set(reaction::Set { post, account, kind, replaced, .. }) => {
                (self.reacted.insert((post.0, *account), kind.clone()), replaced.clone())
            }
            ReactionEvent::Cleared(reaction::Cleared { post, account, kind, .. }) => {
                (self.reacted.remove(&(post.0, *account)), Some(kind.clone()))
            }
            ReactionEvent::ScoreImported(_) => return,
        };
        if stands != said && !self.gaps.contains(&envelope.stream.id) {
            self.reactions.breaks(|| format!("{}: {stands:?} was there, not {said:?}", place(envelope)));
        }
    }

    /// A thread is in a category from now on.
    fn category(&mut self, category: Uuid, envelope: &Envelope) {
        // Its stream is its community's tree.
        let is_gap = envelope.community.is_some_and(|community| self.gaps.contains(&community.to_string()));
        if self.homes.get(&category) != Some(&envelope.community) && !is_gap {
            self.places.breaks(|| format!("{}: in category {category}", place(envelope)));
        }
    }

    /// Whether posts are in threads of their community, and threads have their opening posts.
    fn belong_together(&mut self) {
        for (post, (.., thread)) in &self.posts {
            if self.homes.get(thread) != self.homes.get(post) && !self.gaps.contains(&thread.to_string()) {
                self.places.breaks(|| format!("post {post} is in thread {thread}"));
            }
        }
        for (thread, opening) in &self.threads {
            let is_there = self.posts.get(opening).is_some_and(|(.., its)| its == thread);
            if !is_there && !self.gaps.contains(&opening.to_string()) {
                self.places.breaks(|| format!("thread {thread} has the opening post {opening}"));
            }
        }
    }

    fn claims(&mut self, claims: Vec<Claim>) {
        let mut claimed: HashMap<(String, String), String> =
            claims.into_iter().map(|(kind, value, owner)| ((kind, value), owner)).collect();
        for ((kind, name), owner) in &self.names {
            let (found, owner) = (claimed.remove(&((*kind).to_owned(), name.clone())), owner.to_string());
            if found.as_ref() != Some(&owner) && !self.gaps.contains(&owner) {
                self.claimed.breaks(|| format!("the {kind} {name} of {owner} is claimed by {found:?}"));
            }
        }
        for ((kind, name), owner) in claimed {
            if (kind == "username" || kind == "slug") && !self.gaps.contains(&owner) {
                self.claimed.breaks(|| format!("the {kind} {name} is claimed by {owner}, who does not have it"));
            }
        }
    }
}

/// Where an event stands.
fn place(envelope: &Envelope) -> String {
    format!("position {}, {} of {}", envelope.position, envelope.name, envelope.stream)
}
