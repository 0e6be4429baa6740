-- What must happen at a time: what ends by itself and when, and which due times of which job were worked off.

-- The bans, silences and pins that stand and have an end: what is due is found here by its time, whatever the size of
-- the history. Kept by the trigger below in the transaction of every append, so it is never behind the events, as read
-- tables may be.
create table endings (
    kind text not null constraint endings_kind check (kind in ('ban', 'silence', 'pin')),
    -- The stream: of a membership, or of a thread.
    aggregate_id text not null,
    community_id uuid not null,
    -- The event that began it: what the command names that ends it.
    event_id uuid not null,
    ends_at timestamptz not null,
    constraint endings_one_of_a_kind primary key (kind, aggregate_id)
);

create index endings_by_time on endings (kind, ends_at, event_id);

-- The latest event of a kind in a stream says what stands: one that begins it with an end, or without, or ends it.
create function keep_endings() returns trigger language plpgsql as $$
declare
    its_kind constant text := case
        when new.event_type in ('membership.banned', 'membership.ban_lifted') then 'ban'
        when new.event_type in ('membership.silenced', 'membership.silence_lifted') then 'silence'
        else 'pin'
    end;
    its_end constant timestamptz := new.payload->>'until';
begin
    if new.event_version <> '1' then
        raise exception 'endings are not kept for version % of %: a migration has to teach them', new.event_version, new.event_type;
    end if;
    if its_end is null then
        delete from endings where kind = its_kind and aggregate_id = new.aggregate_id;
    else
        insert into endings (kind, aggregate_id, community_id, event_id, ends_at)
        values (its_kind, new.aggregate_id, new.community_id, new.event_id, its_end)
        on conflict on constraint endings_one_of_a_kind do update
        set community_id = excluded.community_id, event_id = excluded.event_id, ends_at = excluded.ends_at;
    end if;
    return null;
end
$$;

-- Every other event costs one comparison: the function is called for these only.
create trigger events_keep_endings after insert on events for each row
    when (new.event_type in (
        'membership.banned', 'membership.ban_lifted', 'membership.silenced', 'membership.silence_lifted',
        'thread.pinned', 'thread.unpinned'
    ))
    execute function keep_endings();

-- What stood before. Nobody appends meanwhile: the trigger's making holds them up until this is committed, for as long as
-- it takes to read all events once.
insert into endings (kind, aggregate_id, community_id, event_id, ends_at)
select kind, aggregate_id, community_id, event_id, ends_at
from (
    select distinct on (e.aggregate_id, k.kind)
        k.kind, e.aggregate_id, e.community_id, e.event_id, (e.payload->>'until')::timestamptz as ends_at
    from events e
    join (values
        ('membership.banned', 'ban'), ('membership.ban_lifted', 'ban'),
        ('membership.silenced', 'silence'), ('membership.silence_lifted', 'silence'),
        ('thread.pinned', 'pin'), ('thread.unpinned', 'pin')
    ) k (event_type, kind) using (event_type)
    order by e.aggregate_id, k.kind, e.sequence desc
) last
where ends_at is not null;

-- The jobs as the leader runs them.
create table jobs (
    job text primary key,
    -- A cron expression, and the IANA time zone that it is meant in.
    schedule text not null,
    time_zone text not null,
    -- The last due time that was worked off, with all before it; none before the first.
    done_through timestamptz
) with (fillfactor = 10);

-- What came of their runs. Of those that found nothing to do only the last one is kept, of all together some.
create table job_runs (
    run bigint generated always as identity primary key,
    job text not null,
    -- The time whose work it did; by hand, the time at which it was asked for.
    due timestamptz not null,
    by_hand boolean not null,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    -- What it did: bans ended, rows deleted, claims reported.
    done bigint not null,
    -- Why it did not do all.
    failure text
);

-- A due time is worked off once, whoever else thought that it led.
create unique index job_runs_done_once on job_runs (job, due) where failure is null;
create index job_runs_by_job on job_runs (job, run);
