//! What the read tables hold and what readers are shown, compared with what the dump must come to.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, postgres::PgRow};
use uuid::Uuid;

use super::forum::{Account, Forum, Post, Thread};
use crate::{client::Client, tables};

const ACCOUNTS: &str = "
    select a.account_id as id, a.display_name, a.created_at, m.role,
        coalesce(c.threads, 0) as threads, coalesce(c.posts, 0) as posts
    from account a
    join member m on m.account_id = a.account_id and m.status = 'member' and m.joined_at = a.created_at
    left join account_count c on c.account_id = a.account_id and c.community_id = m.community_id
    where a.imported";

const THREADS: &str = "
    select thread_id as id, title, array(select jsonb_array_elements_text(tags)) as tags, author_id as author,
        created_at, opening_post_id as opening_post, last_post_id as last_post, last_post_at, replies, score,
        answer_id as answer
    from thread where not (deleted or locked or pinned)";

const POSTS: &str = "
    select p.post_id as id, thread_id as thread, number, parent_id as parent, depth, author_id as author, created_at,
        imported_up as up, imported_down as down, score, replies, format, body
    from post p join post_revision r on r.post_id = p.post_id and r.revision = p.revision and p.revision = 1
    where not (deleted or hidden) and reactions = '{}'";

/// What is counted of the whole: threads, posts, and the newest post where that is kept.
const COUNTS: &str = "
    select 'community' as what, threads, posts, last_activity_at as last from community_count
    union all select 'category', threads, posts, null from category_count
    union all select 'members', members, 0, null from member_count
    union all select 'numbers', count(*), sum(posts)::bigint, null from thread_numbers
    union all select 'thread_post', count(distinct thread_id), count(*), null from thread_post
    union all select 'rows', (select count(*) from account), (select count(*) from post_revision), null";

/// Every row and every count of the read tables.
pub(crate) async fn assert_tables_hold(database_url: &str, forum: &Forum) {
    let mut database = tables::caught_up(database_url).await;
    let accounts: Vec<Account> = all(&mut database, ACCOUNTS).await;
    let threads: Vec<Thread> = all(&mut database, THREADS).await;
    let posts: Vec<Post> = all(&mut database, POSTS).await;
    assert_same("account", &forum.accounts, accounts.into_iter().map(|account| (account.id, account)));
    assert_same("thread", &forum.threads, threads.into_iter().map(|thread| (thread.id, thread)));
    assert_same("post", &forum.posts, posts.into_iter().map(|post| (post.id, post)));

    let counts: Vec<(String, i64, i64, Option<DateTime<Utc>>)> = all(&mut database, COUNTS).await;
    let counts: BTreeMap<_, _> =
        counts.into_iter().map(|(what, one, other, last)| (what, (one, other, last))).collect();
    let many = |things: usize| i64::try_from(things).expect("not so many");
    let (accounts, threads, posts) = (many(forum.accounts.len()), many(forum.threads.len()), many(forum.posts.len()));
    let last = forum.threads.values().map(|thread| thread.last_post_at).max();
    let expected = [
        ("category", (threads, posts, None)),
        ("community", (threads, posts, last)),
        ("members", (accounts, 0, None)),
        ("numbers", (threads, posts, None)),
        ("rows", (accounts, posts, None)),
        ("thread_post", (threads, posts, None)),
    ];
    assert!(
        expected.iter().map(|(what, counts)| (*what, counts)).eq(counts.iter().map(|(what, it)| (&**what, it))),
        "{counts:#?}"
    );
}

async fn all<T: Send + Unpin + for<'r> FromRow<'r, PgRow>>(database: &mut PgConnection, query: &str) -> Vec<T> {
    sqlx::query_as(query).fetch_all(database).await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn assert_same<T: Debug + PartialEq>(what: &str, expected: &BTreeMap<Uuid, T>, found: impl Iterator<Item = (Uuid, T)>) {
    let found: BTreeMap<Uuid, T> = found.collect();
    for (id, thing) in expected {
        assert_eq!(found.get(id), Some(thing), "{what} (found, as the dump says)");
    }
    assert_eq!(found.len(), expected.len(), "{what}: more than the dump has");
}

/// The pages, as a guest is shown them.
pub(crate) async fn assert_pages_show(client: &Client, slug: &str, forum: &Forum) {
    let at = format!("/v2/communities/{slug}");
    let community = client.get(&at).await;
    let whole = json!([forum.accounts.len(), forum.threads.len(), forum.posts.len()]);
    assert_eq!(json!([community["members"], community["threads"], community["posts"]]), whole);
    let categories = client.get(&format!("{at}/categories")).await;
    let category = &categories["items"][0];
    assert_eq!(json!([category["threads"], category["posts"]]), json!([forum.threads.len(), forum.posts.len()]));

    let shown = client.list(&format!("{at}/threads?sort=new")).await;
    assert_eq!(shown.len(), forum.threads.len());
    for shown in &shown {
        let thread = &forum.threads[&id(&shown["id"])];
        assert_eq!(
            line(shown),
            [
                json!(thread.title),
                json!(thread.tags),
                json!(thread.author),
                json!(thread.replies),
                json!(thread.score),
                json!(thread.last_post),
                json!(thread.answer)
            ]
        );
        assert_thread_shows(client, thread, forum).await;
    }
    let unanswered = client.list(&format!("{at}/threads?unanswered=true")).await;
    assert_eq!(unanswered.len(), forum.threads.values().filter(|thread| thread.answer.is_none()).count());
    assert_tags_show(client, &at, forum).await;
    assert_members_show(client, &at, forum).await;
}

fn line(shown: &Value) -> [Value; 7] {
    let [last, author] = [&shown["last_post"]["id"], &shown["author"]["id"]];
    [&shown["title"], &shown["tags"], author, &shown["replies"], &shown["score"], last, &shown["answer_id"]]
        .map(Value::clone)
}

async fn assert_thread_shows(client: &Client, thread: &Thread, forum: &Forum) {
    let shown = client.list(&format!("/v2/threads/{}/posts", thread.id)).await;
    assert_eq!(shown.len(), usize::try_from(thread.replies + 1).expect("a count"));
    for (number, shown) in (1..).zip(&shown) {
        let post = &forum.posts[&id(&shown["id"])];
        assert_eq!((post.thread, post.number), (thread.id, number));
        assert_eq!(shown["body"], post.body);
        let counts = json!([post.score, post.replies, post.depth, Some(post.id) == thread.answer]);
        assert_eq!(json!([shown["score"], shown["replies"], shown["depth"], shown["accepted"]]), counts, "{shown}");
    }
}

async fn assert_tags_show(client: &Client, at: &str, forum: &Forum) {
    let mut tags: HashMap<&str, usize> = HashMap::new();
    forum.threads.values().flat_map(|thread| &thread.tags).for_each(|tag| *tags.entry(tag).or_default() += 1);
    let shown = client.list(&format!("{at}/tags")).await;
    assert_eq!(shown.len(), tags.len());
    for shown in &shown {
        assert_eq!(shown["threads"], tags[shown["tag"].as_str().expect("a tag")], "{shown}");
    }
}

async fn assert_members_show(client: &Client, at: &str, forum: &Forum) {
    let shown = client.list(&format!("{at}/members")).await;
    assert_eq!(shown.len(), forum.accounts.len());
    for shown in &shown {
        let account = &forum.accounts[&id(&shown["account"]["id"])];
        assert_eq!(
            (&shown["role"], &shown["account"]["display_name"]),
            (&json!(account.role), &json!(account.display_name))
        );
    }
    for account in forum.accounts.values().filter(|account| account.posts > 0) {
        let card = client.get(&format!("/v2/accounts/{}", account.id)).await;
        assert_eq!(json!([card["threads"], card["posts"]]), json!([account.threads, account.posts]), "{card}");
    }
}

fn id(value: &Value) -> Uuid {
    value.as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{value} is no id"))
}
