-- The processes that run: which event versions each can read and writes, and when it was last heard of. Who goes in order
-- takes its row along; of one that was killed it goes stale. Each writes its own row every few seconds.
create table instances (
    instance uuid primary key,
    service text not null,
    host text not null,
    process integer not null,
    release text not null,
    -- Each as `post.written version 1`.
    reads text[] not null,
    writes text[] not null,
    -- Whether it may write: all that it writes was known to all who ran when it began to.
    writing boolean not null,
    started_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp()
) with (fillfactor = 25);
