//! Every kind of page, without a cache: of a large forum, beside the same of a small one.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use platform::identity::{IdentityConfig, mint_operator};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    forum::{get, in_turn},
    lab::{Lab, connect},
    load::{Load, Pace},
    pairs::Pairs,
    process::{Agora, Place},
    report::{Report, Unit},
    rows::uncached::{NO_CACHE, read},
};

/// Pages of a kind, any of which is asked for.
const PAGES: i64 = 200;
/// Of the time that other measurements last: there are many kinds.
const SHARE: f64 = 0.2;
/// Connections, as far as each can ask for another page in either forum: of one page, there would be one load for all.
const CONNECTIONS: usize = 8;
/// How long the operator's token is good for: longer than all of it takes.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);
/// Threads that have a full page.
const THREADS: &str = "select thread_id from thread join c using (community_id) where not deleted and replies >= 10";

/// What the id in a path is of: in public communities, where a page of it is full in a small forum too.
const IDS: [(&str, &str); 10] = [
    ("thread", THREADS),
    ("post", "select post_id from seen where number > 1"),
    ("parent", "select post_id from seen where replies >= 5"),
    ("community", "select community_id from community_count join c using (community_id) where threads >= 10"),
    (
        "account",
        "select account_id from account_count join c using (community_id)
        group by 1 having sum(threads) >= 2 and sum(posts) >= 10",
    ),
    ("joined", "select distinct account_id from member join c using (community_id) where status = 'member'"),
    (
        "member",
        "select community_id || '/members/' || account_id from member join c using (community_id) where status = 'member'",
    ),
    ("category", "select category_id from category join c using (community_id) where not archived"),
    ("edited", "select post_id from seen join post_revision r using (post_id) where r.revision = 2"),
    (
        "moderated",
        "select community_id from moderation_log join c using (community_id) group by 1 having count(*) >= 10",
    ),
];

/// Paths under `/v2/`, by what they show.
const PATHS: [(&str, &str); 22] = [
    ("a thread", "threads/{thread}"),
    ("a page of a thread", "threads/{thread}/posts?limit=10"),
    ("a page of a thread as a tree", "threads/{thread}/posts?view=tree&limit=10"),
    ("the best of a thread", "threads/{thread}/posts?view=tree&sort=best&limit=10"),
    ("a post", "posts/{post}"),
    ("replies to a post", "posts/{parent}/replies?limit=5"),
    ("communities", "communities?limit=10"),
    ("a community", "communities/{community}"),
    ("categories", "communities/{community}/categories"),
    ("members", "communities/{community}/members?limit=10"),
    ("tags", "communities/{community}/tags?limit=10"),
    ("active threads", "communities/{community}/threads?limit=10"),
    ("top threads", "communities/{community}/threads?sort=top&period=ever&limit=10"),
    ("an account", "accounts/{account}"),
    ("posts of an account", "accounts/{account}/posts?limit=10"),
    ("threads of an account", "accounts/{account}/threads?limit=2"),
    ("communities of an account", "accounts/{joined}/communities?limit=1"),
    ("a member", "communities/{member}"),
    ("a category", "categories/{category}"),
    ("the texts of a post", "posts/{edited}/revisions"),
    (LOG, "communities/{moderated}/moderation-log?limit=10"),
    (EVENTS, "events?community={community}&limit=10"),
];
/// What is for an operator, and not for guests.
const LOG: &str = "what moderators did";
/// The same, and is never kept: it is in the store.
const EVENTS: &str = "events of a community";

/// Of both databases, the larger first.
pub(super) async fn measure(
    lab: &Lab,
    databases: [&str; 2],
    beside: &impl Fn(&str) -> String,
    baseline: &'static str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (large, small) = (Forum::open(lab, databases[0]).await?, Forum::open(lab, databases[1]).await?);
    for (what, path) in PATHS {
        let (of_large, of_small) = (large.requests(what, path), small.requests(what, path));
        let connections = of_large.len().min(of_small.len()).min(CONNECTIONS);
        let lasts = lab.options.lasts.mul_f64(SHARE);
        let ask = async |up: &Agora, requests: &Vec<_>| match what {
            EVENTS => Ok(load(up, requests.clone(), connections, lasts).send().await?.all_good()?.rate()),
            _ => pages(up, requests.clone(), connections, lasts).await,
        };
        let (larger, smaller) = (|| ask(&large.up, &of_large), || ask(&small.up, &of_small));
        let pairs = Pairs::take(lab.options.pairs, larger, smaller).await?;
        report.beside(beside(what), Unit::PerSecond, &pairs, baseline, Some(super::FLAT));
    }
    large.up.stop()?;
    small.up.stop()
}

struct Forum {
    up: Agora,
    token: String,
    ids: Vec<Vec<String>>,
}

impl Forum {
    async fn open(lab: &Lab, database: &str) -> anyhow::Result<Self> {
        let pool = connect(database, 1).await?;
        let mut ids = vec![];
        for (what, query) in IDS {
            ids.push(find(&pool, query).await?);
            ensure!(ids.last().is_some_and(|ids| !ids.is_empty()), "the forum has no {what} with a full page");
        }
        let token = mint_operator(&pool, &IdentityConfig::default(), Uuid::nil(), TOKEN_LIFE).await?;
        pool.close().await;
        Ok(Self { up: uncached(lab, database).await?, token, ids })
    }

    /// For each page that the path may be of.
    fn requests(&self, what: &str, path: &str) -> Vec<Vec<u8>> {
        let token = [LOG, EVENTS].contains(&what).then_some(&*self.token);
        let all = IDS.iter().zip(&self.ids).find(|((what, _), _)| path.contains(&format!("{{{what}}}")));
        let paths = match all {
            Some(((what, _), ids)) => ids.iter().map(|id| path.replace(&format!("{{{what}}}"), id)).collect(),
            None => vec![path.to_owned()],
        };
        paths.iter().map(|path| get(&format!("/v2/{path}"), token)).collect()
    }
}

/// Some of them, from all over the forum.
async fn find(pool: &PgPool, query: &str) -> anyhow::Result<Vec<String>> {
    let query = format!(
        "with c as (
            select community_id from community where visibility = 'public' and status = 'active'
        ), seen as (
            select p.* from post p join thread t using (thread_id) join c on c.community_id = p.community_id
            where not (p.deleted or p.hidden or t.deleted)
        )
        select id::text from ({query}) found (id) order by md5(id::text) limit $1"
    );
    Ok(sqlx::query_scalar(&query).bind(PAGES).fetch_all(pool).await?)
}

/// Agora that keeps no answers.
pub(super) async fn uncached(lab: &Lab, database: &str) -> anyhow::Result<Agora> {
    let place = Place { database: database.to_owned(), kafka: None, core: None };
    lab.run("up", &place, &NO_CACHE).await
}

/// Answers a second, where these are asked for by turns.
pub(super) async fn pages(
    up: &Agora,
    requests: Vec<Vec<u8>>,
    connections: usize,
    lasts: Duration,
) -> anyhow::Result<f64> {
    Ok(read(up, load(up, requests, connections, lasts)).await?.rate())
}

fn load(up: &Agora, requests: Vec<Vec<u8>>, connections: usize, lasts: Duration) -> Load {
    let requests = Arc::new(move |nth| in_turn(&requests, nth).clone());
    Load { to: up.address, connections, pace: Pace::Flat, lasts, requests }
}
