//! Bringing over what another forum wrote: a Stack Exchange dump, posted through the command endpoints as any client
//! would, with the original times.
//!
//! A dump may be far larger than memory. The first pass ([`mod@scan`]) reads each table once and brings together on disk
//! what belongs together; then accounts are sent, and threads, side by side, each thread in order of time. Ids, keys
//! and names come from the dump alone: an import that was interrupted is simply run again.

pub mod accounts;
pub mod index;
pub mod origin;
pub mod report;
pub mod rows;
pub mod scan;
pub mod spill;
pub mod tables;
pub mod thread;
mod workdir;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use events::{AccountId, PostId, community::Visibility, limits};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    accounts::Account,
    origin::Origin,
    report::{At, Rows, Skip, Summary, Table},
    scan::{Scan, Scanned},
    spill::Buckets,
    tables::User,
    thread::{Place, Record, Step, Thread},
    workdir::WorkDir,
};
use crate::{
    client::{
        Client, LANES, Outcome, Refusal,
        command::{Behalf, Command, NewCategory, NewCommunity},
        lanes,
    },
    slug::{slug, title},
    terminal::{Progress, Unit},
};

/// What is to be imported, and into what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The dump's directory.
    pub dump: PathBuf,
    /// The community's slug; the directory's name unless told.
    pub community: Option<String>,
    /// Where working files go, about as large as the dump.
    pub work: PathBuf,
}

/// Imports a dump.
///
/// # Errors
/// Where it is no dump, or the server cannot be reached or refuses as a whole. A row that is refused is counted, and
/// the rest goes on.
pub async fn run(options: Options, client: Arc<Client>) -> anyhow::Result<Summary> {
    let dump = open(&options.dump)?;
    let site = slug(&dump.file_name().unwrap_or_default().to_string_lossy(), limits::NAME_CHARS);
    let community = options.community.unwrap_or_else(|| site.clone());
    if community.is_empty() || community != slug(&community, limits::NAME_CHARS) {
        bail!("`{community}` is no name for a community: lower-case letters, digits and hyphens, see --community");
    }
    client.knock().await?;
    let origin = Origin::new(&site, &community);
    let work = WorkDir::claim(&options.work, &community)?;
    let report = Arc::new(Rows::default());

    // Before anything is sent: what a dump that was cut off has wrong could not be put right by the whole one.
    let scanned = scan(&dump, &origin, &work, &report).await.context("nothing was written")?;
    let place = Place { community: origin.community(scanned.since), category: origin.category(scanned.since), origin };
    let progress = Progress::start("posting", scanned.commands + 1, Unit::Things("commands"));
    let (owner, since) = (scanned.first.1.id, scanned.since);
    let owner_account = place.origin.account(owner, since);
    let import = Arc::new(Import { client, place, owner, owner_account, report, progress });
    import.make_place(&community, &site, scanned.first).await?;
    import.send_accounts(scanned.users).await?;
    import.send_threads(scanned.threads).await?;
    import.finish(community).await
}

/// The directory, where it is one and holds the tables.
fn open(dump: &Path) -> anyhow::Result<PathBuf> {
    let dir = fs::canonicalize(dump).with_context(|| format!("cannot open {}", dump.display()))?;
    let tables = [Table::Users, Table::Posts, Table::Comments, Table::Votes];
    let missing: Vec<_> = tables.iter().map(|table| table.file()).filter(|file| !dir.join(file).is_file()).collect();
    if !missing.is_empty() {
        bail!("{} is not a Stack Exchange dump: it has no {}", dump.display(), missing.join(", no "));
    }
    Ok(dir)
}

async fn scan(dump: &Path, origin: &Origin, work: &WorkDir, report: &Arc<Rows>) -> anyhow::Result<Scanned> {
    let tables = [Table::Users, Table::Posts, Table::Comments, Table::Votes];
    let bytes =
        tables.iter().map(|table| Ok(fs::metadata(dump.join(table.file()))?.len())).sum::<std::io::Result<_>>()?;
    let (dump, origin, dir, report) = (dump.to_owned(), origin.clone(), work.path().to_owned(), Arc::clone(report));
    // Where the import is dropped, the thread ends as well.
    let (stop, _stopping) = stop();
    let scanning = tokio::task::spawn_blocking(move || {
        let progress = Progress::start("reading", bytes, Unit::Bytes);
        Scan { dump: &dump, origin: &origin, report: &report, progress: &progress, stop: &stop }.run(&dir)
    });
    scanning.await?
}

fn stop() -> (CancellationToken, DropGuard) {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    (stop, guard)
}

/// An import that has been read and is being sent.
struct Import {
    client: Arc<Client>,
    place: Place,
    /// The user that owns the community, sent before all others.
    owner: i64,
    owner_account: AccountId,
    report: Arc<Rows>,
    progress: Progress,
}

impl Import {
    /// The first account, which owns the community; the community; its category.
    async fn make_place(&self, slug: &str, site: &str, (at, user): (At, User)) -> anyhow::Result<()> {
        let origin = &self.place.origin;
        let since = user.created;
        let owner = Behalf::Account(self.owner_account);
        for account in accounts::name(origin, vec![(at, user)]) {
            self.send_account(account).await?;
        }
        let name = title(slug);
        let description = format!("Brought over from the Stack Exchange dump {site}.");
        let visibility = Visibility::Public;
        let community = NewCommunity { id: self.place.community, slug: slug.to_owned(), name, description, visibility };
        let command = Command::create_community(&community, origin.context("community", 0, owner, since));
        if let Outcome::Refused(refusal) = self.send(&command).await? {
            if refusal.pointer == "#/slug" {
                bail!(
                    "there is a community {slug} already, which is not from a dump in a folder `{site}`: give another name \
                     with --community (a dump is known by its folder's name)"
                );
            }
            bail!("the community cannot be made: {refusal}");
        }
        let category = NewCategory {
            id: self.place.category,
            parent_id: None,
            slug: "questions".to_owned(),
            name: "Questions".to_owned(),
            description: "All that was asked.".to_owned(),
        };
        let context = origin.context("category", 0, owner, since);
        match self.send(&Command::create_category(self.place.community, &category, context)).await? {
            Outcome::Refused(refusal) => bail!("the category cannot be made: {refusal}"),
            Outcome::Written | Outcome::AlreadyThere => Ok(()),
        }
    }

    async fn send_accounts(self: &Arc<Self>, users: Buckets) -> anyhow::Result<()> {
        let origin = self.place.origin.clone();
        let (queue, feeding) = feed(users, move |users| accounts::name(&origin, users));
        let import = Arc::clone(self);
        let send = move |account| {
            let import = Arc::clone(&import);
            async move { import.send_member(account).await }
        };
        fed(lanes::run(LANES, queue, send).await, feeding).await
    }

    async fn send_threads(self: &Arc<Self>, threads: Buckets) -> anyhow::Result<()> {
        let (queue, feeding) = feed(threads, by_thread);
        let import = Arc::clone(self);
        let send = move |(question, records)| {
            let import = Arc::clone(&import);
            async move { import.send_thread(import.place.thread(question, records)).await }
        };
        fed(lanes::run(LANES, queue, send).await, feeding).await
    }

    /// The account, and its membership. The owner was sent with the community, and is a member by making it.
    async fn send_member(&self, account: Account) -> anyhow::Result<()> {
        let origin = &self.place.origin;
        let (at, id, created) = (account.at, account.user.id, account.user.created);
        if id == self.owner || !self.send_account(account).await? {
            return Ok(());
        }
        let account = origin.account(id, created);
        let context = origin.context("member", id, Behalf::Account(account), created);
        let outcome = self.send(&Command::join(self.place.community, account, context)).await?;
        self.note(at, outcome);
        Ok(())
    }

    /// Under the first of its usernames that nobody else has. Whether it is there now.
    async fn send_account(&self, account: Account) -> anyhow::Result<bool> {
        let origin = &self.place.origin;
        let mut tries = account.usernames.iter().enumerate().peekable();
        while let Some((nth, username)) = tries.next() {
            // Another body under the same key would be refused.
            let what = if nth == 0 { "user".to_owned() } else { format!("user-{nth}") };
            let context = origin.account_context(&what, account.user.id, account.user.created);
            let command = Command::import_account(&account.new_account(origin, username), context);
            let outcome = self.client.send_uncounted(&command).await?;
            let taken = matches!(&outcome, Outcome::Refused(refusal) if refusal.pointer == "#/username");
            if !taken || tries.peek().is_none() {
                self.client.tally.count(command.kind, &outcome);
                self.progress.add(1);
                return Ok(self.note(account.at, outcome));
            }
        }
        Ok(false)
    }

    /// In order, each after the answer to the one before. What hangs on something refused is not sent.
    async fn send_thread(&self, thread: Thread) -> anyhow::Result<()> {
        for (at, skip) in thread.skipped {
            self.skip(at, skip);
        }
        let mut gone: HashSet<PostId> = HashSet::new();
        for Step { at, needs, makes, command } in thread.steps {
            let sent = if needs.is_some_and(|post| gone.contains(&post)) {
                // Only posts are rows of their own.
                if makes.is_some() {
                    self.skip(at, Skip::quietly("what it hangs on was refused"));
                }
                false
            } else {
                let outcome = self.send(&command).await?;
                self.note(at, outcome)
            };
            if !sent {
                gone.extend(makes);
            }
        }
        Ok(())
    }

    async fn send(&self, command: &Command) -> anyhow::Result<Outcome> {
        let outcome = self.client.send(command).await?;
        self.progress.add(1);
        Ok(outcome)
    }

    /// Whether what was sent is there now. A refusal is shown with its row.
    fn note(&self, at: At, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Written | Outcome::AlreadyThere => true,
            Outcome::Refused(Refusal { name, detail, .. }) => {
                self.skip(at, Skip::because(format!("the server refused it ({name})"), detail));
                false
            }
        }
    }

    fn skip(&self, at: At, skip: Skip) {
        if let Some(line) = self.report.skip(at, skip) {
            self.progress.say(line);
        }
    }

    /// Waits until every view of the community shows all of it.
    async fn finish(&self, community: String) -> anyhow::Result<Summary> {
        let at = format!("/v2/communities/{}", self.place.community);
        let views = ["", "/threads?limit=1", "/categories", "/members?limit=1", "/moderation-log?limit=1"];
        let mut paths: Vec<String> = views.iter().map(|view| format!("{at}{view}")).collect();
        paths.push(format!("/v2/accounts/{}", self.owner_account));
        let caught_up = self.client.wait_for_reads(&paths).await?;
        let (read, skipped) = self.report.counted();
        let sent = self.client.tally.sent();
        Ok(Summary { community, read, skipped, sent, caught_up_seconds: caught_up.as_secs_f64() })
    }
}

/// Takes bucket by bucket from disk, on a thread of its own, as fast as the lanes take what is in them.
fn feed<T, I>(
    mut buckets: Buckets,
    mut sort_out: impl FnMut(Vec<T>) -> Vec<I> + Send + 'static,
) -> (mpsc::Receiver<I>, JoinHandle<anyhow::Result<()>>)
where
    T: DeserializeOwned + Send + 'static,
    I: Send + 'static,
{
    let (sender, queue) = mpsc::channel(LANES);
    let feeding = tokio::task::spawn_blocking(move || {
        while let Some(records) = buckets.take().context("cannot read a working file")? {
            for item in sort_out(records) {
                if sender.blocking_send(item).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    });
    (queue, feeding)
}

/// The lanes' failure comes first: the feeding ends because of it.
async fn fed(lanes: anyhow::Result<()>, feeding: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    lanes?;
    feeding.await?
}

/// The records of one bucket, thread by thread, in the order of the questions.
fn by_thread(records: Vec<(i64, Record)>) -> Vec<(i64, Vec<Record>)> {
    let mut threads: BTreeMap<i64, Vec<Record>> = BTreeMap::new();
    for (question, record) in records {
        threads.entry(question).or_default().push(record);
    }
    threads.into_iter().collect()
}

#[cfg(test)]
mod tests;
