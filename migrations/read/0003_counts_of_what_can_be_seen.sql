-- Every count counts what can be seen, replies to a post too; an accepted answer that cannot be seen is shown as none;
-- and a thread that its author deleted is told from one that a moderator deleted.
--
-- Old rows do not say it: the tables of these projections are made again from the event store. Checkpoints first, as
-- every writer of a shard does: who waits for whom is always the same.
update checkpoint set position = 0, event_id = null where projection in ('thread_list', 'thread_page');
delete from parked where projection in ('thread_list', 'thread_page');
truncate thread, thread_post, category_count, community_count, account_count;
truncate post, post_revision, thread_numbers, reaction;

alter table post
    -- Direct replies, whatever became of them: as many as a page has to show, place-holders among them.
    add column children integer not null;
comment on column post.replies is 'Direct replies that can be seen.';

alter table thread
    -- The accepted answer, whatever became of it.
    add column accepted_id uuid,
    -- author, who may restore it, or moderator; null where it is not deleted.
    add column deleted_by text;
comment on column thread.answer_id is 'The accepted answer, while it can be seen.';

create index thread_deleted on thread (community_id) where deleted;

-- Who is invited, banned or silenced, for moderators.
create index member_invited on member (community_id, rank desc, account_id desc) where status = 'invited';
create index member_banned on member (community_id, rank desc, account_id desc) where banned;
create index member_silenced on member (community_id, rank desc, account_id desc) where silenced_until is not null;
