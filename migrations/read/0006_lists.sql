-- Lists in proportion to what they show, whatever the community holds.

-- Projection: thread_list. How many threads that are not deleted bear a tag.
create table tag_count (
    community_id uuid not null,
    tag text not null,
    threads bigint not null,
    primary key (community_id, tag)
) with (fillfactor = 50);

-- Nobody writes threads between their being counted and the commit.
lock table thread in share row exclusive mode;
insert into tag_count (community_id, tag, threads)
select t.community_id, e.tag, count(*)
from thread t cross join lateral jsonb_array_elements_text(t.tags) e (tag)
where not t.deleted
group by 1, 2;
create index tag_count_by_threads on tag_count (community_id, threads desc, tag) where threads > 0;

-- Where few have an answer, or few have none, these few are found at once.
create index thread_answered on thread (community_id) where not deleted and answer_id is not null;
create index thread_unanswered on thread (community_id) where not deleted and answer_id is null;

-- What an account wrote in each community by itself, so that what a reader does not see is not read. Under names of their
-- own first: to drop the old ones keeps readers out, and comes last.
create index post_by_author_new on post (author_id, community_id, created_at desc, post_id desc)
    where not deleted and not hidden;
create index thread_by_author_new on thread (author_id, community_id, created_at desc, thread_id desc) where not deleted;
drop index post_by_author, thread_by_author;
alter index post_by_author_new rename to post_by_author;
alter index thread_by_author_new rename to thread_by_author;

-- Small tables that plans hang on: autovacuum would not look at them until they have changed 50 times, and Postgres takes
-- what it knows nothing of for much larger.
alter table community set (autovacuum_analyze_threshold = 1);
alter table category set (autovacuum_analyze_threshold = 1);
