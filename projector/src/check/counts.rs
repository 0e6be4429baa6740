//! Counts in a view always equal the rows they count: what can be seen, which is neither deleted nor hidden.

use sqlx::PgPool;

/// A promise, the projections whose tables say it, and the rows that break it. A row with a `post_id` breaks nothing where
/// one of these projections does without an event of that post, on record: see [`passed_by`].
pub(super) type Compared = (&'static str, &'static [&'static str], &'static str);

const LIST: &[&str] = &["thread_list"];
const PAGE: &[&str] = &["thread_page"];

/// What the read tables say of each thing, beside what is counted there: rows that differ are wrong. `{visible}` are the
/// posts that can be seen, of threads that are not deleted.
pub(super) const COUNTS: [Compared; 11] = [
    (
        "a thread counts its replies, and knows its last post",
        LIST,
        "select t.thread_id, t.replies, n.replies as counted_replies, t.last_post_id,
            coalesce(n.last_post_id, t.opening_post_id) as counted_last_post_id
         from thread t
         cross join lateral (
            select count(*) filter (where p.post_id <> t.opening_post_id)::integer as replies,
                (array_agg(p.post_id order by p.written_position desc))[1] as last_post_id
            from thread_post p
            where p.thread_id = t.thread_id and not p.deleted and not p.hidden
         ) n
         where (t.replies, t.last_post_id)
            is distinct from (n.replies, coalesce(n.last_post_id, t.opening_post_id))",
    ),
    (
        "a category counts its threads and posts",
        LIST,
        "select * from (select category_id, threads, posts from category_count where (threads, posts) <> (0, 0)) c
         full join (
            select t.category_id, count(distinct t.thread_id), count(p.post_id)
            from thread t left join visible p using (thread_id) where not t.deleted group by 1
         ) n (category_id, counted_threads, counted_posts) using (category_id)
         where (c.threads, c.posts) is distinct from (n.counted_threads, n.counted_posts)",
    ),
    (
        "a community counts its threads and posts",
        LIST,
        "select * from (select community_id, threads, posts from community_count where (threads, posts) <> (0, 0)) c
         full join (
            select t.community_id, count(distinct t.thread_id), count(p.post_id)
            from thread t left join visible p using (thread_id) where not t.deleted group by 1
         ) n (community_id, counted_threads, counted_posts) using (community_id)
         where (c.threads, c.posts) is distinct from (n.counted_threads, n.counted_posts)",
    ),
    (
        "an account's threads are counted",
        LIST,
        "select * from (select account_id, community_id, threads from account_count where threads <> 0) c
         full join (
            select author_id, community_id, count(*) from thread
            where not deleted and author_id is not null group by 1, 2
         ) n (account_id, community_id, counted_threads) using (account_id, community_id)
         where c.threads is distinct from n.counted_threads",
    ),
    (
        "an account's posts are counted",
        LIST,
        "select * from (select account_id, community_id, posts from account_count where posts <> 0) c
         full join (
            select p.author_id, t.community_id, count(*)
            from visible p join thread t using (thread_id) where p.author_id is not null group by 1, 2
         ) n (account_id, community_id, counted_posts) using (account_id, community_id)
         where c.posts is distinct from n.counted_posts",
    ),
    (
        "a tag counts its threads",
        LIST,
        "select * from (select community_id, tag, threads from tag_count where threads <> 0) c
         full join (
            select community_id, tag, count(*)
            from thread cross join lateral jsonb_array_elements_text(tags) e (tag) where not deleted group by 1, 2
         ) n (community_id, tag, counted_threads) using (community_id, tag)
         where c.threads is distinct from n.counted_threads",
    ),
    (
        "a community counts its members",
        &["membership"],
        "select * from (select community_id, members from member_count where members <> 0) c
         full join (
            select community_id, count(*) from member where status = 'member' group by 1
         ) n (community_id, counted_members) using (community_id)
         where c.members is distinct from n.counted_members",
    ),
    (
        "an accepted answer is shown while it can be seen",
        LIST,
        "select t.thread_id, t.accepted_id as post_id, t.answer_id, p.deleted, p.hidden from thread t
         left join thread_post p on p.post_id = t.accepted_id
         where t.answer_id is distinct from case when not p.deleted and not p.hidden then t.accepted_id end",
    ),
    (
        "a post counts its replies",
        PAGE,
        "select p.post_id, p.replies, p.children, n.* from post p
         cross join lateral (
            select count(*) filter (where not c.deleted and not c.hidden) as counted_replies,
                count(*) as counted_children
            from post c where c.parent_id = p.post_id
         ) n
         where (p.replies, p.children) <> (n.counted_replies, n.counted_children)",
    ),
    (
        "a post counts its reactions",
        PAGE,
        "select p.post_id, p.reactions, n.reactions as counted_reactions, p.score,
            n.score + p.imported_up - p.imported_down as counted_score from post p
         cross join lateral (
            select coalesce(jsonb_object_agg(kind, many), '{}') as reactions, coalesce(sum(worth), 0) as score
            from (select kind, count(*) as many,
                    count(*) * case when kind in ('up', 'like') then 1 when kind = 'down' then -1 else 0 end as worth
                from reaction r where r.post_id = p.post_id group by kind) k
         ) n
         where p.reactions <> n.reactions or p.score <> n.score + p.imported_up - p.imported_down",
    ),
    (
        "the posts of a thread are numbered from 1 without a gap",
        PAGE,
        "select thread_id, n.posts, p.counted_posts, p.first, p.last from thread_numbers n
         full join (select thread_id, count(*) as counted_posts, max(number) as last, min(number) as first from post group by 1) p
            using (thread_id)
         where (n.posts, n.posts, 1) is distinct from (p.counted_posts, p.last, p.first)",
    ),
];

/// What [`APART`] projections say of the same things: true where both have passed the same events.
pub(super) const OF_BOTH: [Compared; 2] = [
    (
        "a thread has its opening post's score",
        &["thread_list", "thread_page"],
        "select t.thread_id, p.post_id, t.score, p.score as score_of_the_post from thread t join post p on p.post_id = t.opening_post_id
         where t.score <> p.score",
    ),
    (
        "lists and pages know the same posts",
        &["thread_list", "thread_page"],
        "select post_id, l.thread_id as listed_thread_id, p.thread_id, l.author_id as listed_author_id, p.author_id,
            l.deleted as listed_deleted, p.deleted, l.hidden as listed_hidden, p.hidden from thread_post l full join post p using (post_id)
         where (l.thread_id, l.author_id, l.deleted, l.hidden)
            is distinct from (p.thread_id, p.author_id, p.deleted, p.hidden)",
    ),
];

/// The projections of [`OF_BOTH`], and a shard in which one of them is ahead of the other.
pub(super) const APART: &str =
    "select 'thread_list and thread_page stand at ' || l.position || ' and ' || p.position ||
        ' of shard ' || l.shard || ': `agora projections status` says why'
    from checkpoint l join checkpoint p using (shard)
    where l.projection = 'thread_list' and p.projection = 'thread_page' and l.position <> p.position limit 1";

/// The query that finds what is wrong, and says it in words: `thread_id …, replies 4, counted_replies 5`. Of the posts of
/// `$1` it only says how many there are; of the others, so many places at most.
pub(super) fn query(wrong: &str, most: usize) -> String {
    format!(
        "with visible as (
            select p.* from thread_post p join thread t using (thread_id)
            where not t.deleted and not p.deleted and not p.hidden
         ), wrong as ({wrong}), told as materialized (
            select row_to_json(wrong) as place, coalesce(row_to_json(wrong)->>'post_id' = any($1), false) as passed_by
            from wrong
         )
         select array(
            select (select string_agg(key || ' ' || coalesce(value, 'none'), ', ') from json_each_text(place))
            from told where not passed_by limit {most}
         ), (select count(*) from told where passed_by)"
    )
}

/// A projection, and a post of which it passes by an event, as an operator let it.
pub(super) struct PassedBy {
    pub(super) projection: String,
    pub(super) post: String,
}

/// All of them: what the event changed of the post is in the other projection's tables only. What every reader leaves out
/// is in neither's.
pub(super) async fn passed_by(store: &PgPool) -> sqlx::Result<Vec<PassedBy>> {
    // A reaction's stream is named by the post, and by whose it is.
    let posts = sqlx::query_as!(
        PassedBy,
        r#"select s.projection, split_part(e.aggregate_id, '.', 1) as "post!" from skips s join events e using (event_id)
        where s.projection in ('thread_list', 'thread_page') and e.aggregate_type in ('post', 'reaction')"#
    );
    posts.fetch_all(store).await
}
