-- The read tables: what the events say, shaped by the pages that show it. All of it can be rebuilt from the event
-- store. A table belongs to one projection, named above it; no projection reads another's. No foreign keys: rows of
-- different projections and shards arrive in no order.
--
-- `version` is the version of the stream that the row shows (what If-Match compares); `position` is the position of
-- the last event that changed the row.

-- How far each projection has come in each shard. Beside the position: the event there, and the history it is of.
create table checkpoint (
    projection text not null,
    shard smallint not null constraint checkpoint_shard_below_64 check (shard between 0 and 63),
    history uuid not null,
    position bigint not null default 0,
    event_id uuid,
    primary key (projection, shard)
) with (fillfactor = 20);

-- Shards in which a projection stopped at an event that it could not fold.
create table parked (
    projection text not null,
    shard smallint not null,
    position bigint not null,
    event_id uuid not null,
    reason text not null,
    parked_at timestamptz not null default clock_timestamp(),
    primary key (projection, shard)
);

-- Events that an operator let a projection pass by: on record, and true for rebuilds too.
create table skipped (
    projection text not null,
    event_id uuid not null,
    position bigint not null,
    reason text not null,
    skipped_at timestamptz not null default clock_timestamp(),
    primary key (projection, event_id)
);

-- Projection: account.
create table account (
    account_id uuid primary key,
    username text not null,
    display_name text not null,
    about text,
    about_html text,
    location text,
    website text,
    imported boolean not null,
    created_at timestamptz not null,
    version bigint not null,
    position bigint not null
);
create index account_by_username on account (lower(username));

-- Projection: community.
create table community (
    community_id uuid primary key,
    slug text not null,
    name text not null,
    description text not null,
    visibility text not null,
    -- active, suspended or archived.
    status text not null,
    -- Kinds of reaction besides up, down and like.
    reactions jsonb not null,
    owners jsonb not null,
    created_at timestamptz not null,
    version bigint not null,
    position bigint not null
);
-- Not unique: a slug given up in one shard and taken in another may be seen twice for a moment; the later position wins.
create index community_by_slug on community (slug, position desc);

-- Projection: category_tree.
create table category (
    category_id uuid primary key,
    community_id uuid not null,
    parent_id uuid,
    slug text not null,
    name text not null,
    description text not null,
    -- Its place among its siblings, from 0.
    place integer not null,
    archived boolean not null,
    created_at timestamptz not null,
    -- The tree's, after the last event that concerned this category; the tree's own is the greatest of its rows.
    version bigint not null,
    position bigint not null
);
create index category_by_community on category (community_id, parent_id, place);

-- Projection: membership.
create table member (
    community_id uuid not null,
    account_id uuid not null,
    -- member, invited or none (left, or never joined but banned).
    status text not null,
    -- The role that counts: member, moderator, admin or owner; and the same as a number, 0 to 3, to sort by.
    role text not null,
    rank smallint not null,
    -- The role assigned in the membership; ownership is on top of it.
    assigned text not null,
    owner boolean not null,
    joined_at timestamptz,
    banned boolean not null,
    banned_until timestamptz,
    ban_reason text,
    silenced_until timestamptz,
    silence_reason text,
    version bigint not null,
    position bigint not null,
    primary key (community_id, account_id)
);
create index member_by_role on member (community_id, rank desc, account_id) where status = 'member';
create index member_by_account on member (account_id, community_id);

create table member_count (
    community_id uuid primary key,
    members bigint not null
) with (fillfactor = 50);

-- Projection: moderation_log.
create table moderation_log (
    community_id uuid not null,
    position bigint not null,
    -- The event's name: thread.locked, membership.banned, …
    action text not null,
    actor_id uuid,
    at timestamptz not null,
    thread_id uuid,
    post_id uuid,
    account_id uuid,
    category_id uuid,
    -- What the event said besides: reason, until, role, title, ….
    detail jsonb not null,
    primary key (community_id, position)
);

-- Projection: thread_list.
create table thread (
    thread_id uuid primary key,
    community_id uuid not null,
    category_id uuid not null,
    title text not null,
    tags jsonb not null,
    author_id uuid,
    opening_post_id uuid not null,
    created_at timestamptz not null,
    -- The newest post that can be seen; the opening post where there is no other.
    last_post_id uuid not null,
    last_post_at timestamptz not null,
    last_author_id uuid,
    -- Posts that can be seen, without the opening post.
    replies integer not null,
    -- Of the opening post: up and like count 1, down -1, imported votes too.
    score integer not null,
    -- What of it came with an import.
    imported_score integer not null,
    -- sign(s)·log10(max(|s|,1)) + t/45000, t the time of creation in seconds since 1970.
    hot double precision not null,
    pinned boolean not null,
    pinned_until timestamptz,
    locked boolean not null,
    deleted boolean not null,
    answer_id uuid,
    version bigint not null,
    position bigint not null
) with (fillfactor = 80);
create index thread_active on thread (community_id, pinned desc, last_post_at desc, thread_id desc) where not deleted;
create index thread_new on thread (community_id, pinned desc, created_at desc, thread_id desc) where not deleted;
create index thread_hot on thread (community_id, pinned desc, hot desc, thread_id desc) where not deleted;
create index thread_top on thread (community_id, pinned desc, score desc, thread_id desc) where not deleted;
create index thread_replies on thread (community_id, pinned desc, replies desc, thread_id desc) where not deleted;
create index thread_by_category on thread (category_id, last_post_at desc, thread_id desc) where not deleted;
create index thread_by_author on thread (author_id, created_at desc, thread_id desc);
create index thread_by_tag on thread using gin (tags);

-- The posts of each thread, no wider than the counts and the last post need.
create table thread_post (
    post_id uuid primary key,
    thread_id uuid not null,
    author_id uuid,
    written_at timestamptz not null,
    written_position bigint not null,
    deleted boolean not null,
    hidden boolean not null
);
create index thread_post_by_thread on thread_post (thread_id, written_position desc);

-- Counts of what can be seen: threads that are not deleted; in them, posts that are neither deleted nor hidden
-- (opening posts included).
create table category_count (
    category_id uuid primary key,
    community_id uuid not null,
    threads bigint not null,
    posts bigint not null
) with (fillfactor = 50);
create table community_count (
    community_id uuid primary key,
    threads bigint not null,
    posts bigint not null,
    -- The newest last_post_at among its threads ever; for the list of communities by activity.
    last_activity_at timestamptz
) with (fillfactor = 50);
create index community_count_by_activity on community_count (last_activity_at desc, community_id desc);
create table account_count (
    account_id uuid not null,
    community_id uuid not null,
    threads bigint not null,
    posts bigint not null,
    primary key (account_id, community_id)
) with (fillfactor = 50);

-- Projection: thread_page.
create table post (
    post_id uuid primary key,
    thread_id uuid not null,
    community_id uuid not null,
    -- From 1 (the opening post) in order of position, never reused.
    number integer not null,
    parent_id uuid,
    depth smallint not null,
    -- The numbers from the opening post's child down to itself: preorder, oldest first. Empty for the opening post.
    path integer[] not null,
    author_id uuid,
    created_at timestamptz not null,
    -- The number of the text shown, in post_revision, and its time where that is not the first.
    revision integer not null,
    edited_at timestamptz,
    -- Direct replies, whatever became of them.
    replies integer not null,
    -- Reactions by kind: {"like": 3}; imported votes stand beside them.
    reactions jsonb not null,
    imported_up integer not null,
    imported_down integer not null,
    -- up and like count 1, down -1, imported votes too; other kinds do not count.
    score integer not null,
    deleted boolean not null,
    hidden boolean not null,
    version bigint not null,
    position bigint not null
) with (fillfactor = 80);
create unique index post_by_number on post (thread_id, number);
create index post_by_path on post (thread_id, path);
create index post_best on post (parent_id, score desc, number);
create index post_by_author on post (author_id, created_at desc, post_id desc);

-- Every text that a post ever had; rendered once, when projected.
create table post_revision (
    post_id uuid not null,
    revision integer not null,
    body text not null,
    body_html text not null,
    format text not null,
    editor_id uuid,
    written_at timestamptz not null,
    reason text,
    primary key (post_id, revision)
);

-- How many numbers each thread has given out.
create table thread_numbers (
    thread_id uuid primary key,
    posts integer not null
) with (fillfactor = 50);

create table reaction (
    post_id uuid not null,
    account_id uuid not null,
    kind text not null,
    set_at timestamptz not null,
    primary key (post_id, account_id)
);
