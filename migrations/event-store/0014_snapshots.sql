-- What a long stream folds to, so that who decides on it need not read all of it. Only ever a shortcut: the table may be
-- emptied at any time.
create table snapshots (
    aggregate_type text not null,
    aggregate_id text not null,
    -- How many of the stream's events are in it, and the last of them: where another one stands there, or none, it is of
    -- another line of history.
    sequence bigint not null,
    event_id uuid not null,
    -- The number that the aggregate has in code: what the state looks like, and how events were folded.
    schema integer not null,
    -- json, as payloads are: nothing looks into it, and jsonb would refuse some of what they may say.
    state json not null,
    taken_at timestamptz not null default clock_timestamp(),
    primary key (aggregate_type, aggregate_id)
);

-- Streams of which an event was repaired, or is left out by every reader: they are always read whole. What was folded before
-- says something else, and may be written later.
create table mended_streams (
    aggregate_type text not null,
    aggregate_id text not null,
    primary key (aggregate_type, aggregate_id)
);

create trigger mended_streams_append_only before update or delete or truncate on mended_streams
    for each statement execute function refuse_edit_of_history();

create function note_mended_stream() returns trigger language plpgsql as $$
begin
    insert into store.mended_streams (aggregate_type, aggregate_id)
    select aggregate_type, aggregate_id from store.events where event_id = new.event_id
    on conflict do nothing;
    return null;
end
$$;

create trigger skips_mend_streams after insert on skips for each row
    when (new.projection = '*') execute function note_mended_stream();
create trigger repairs_mend_streams after insert on repairs for each row execute function note_mended_stream();

insert into mended_streams (aggregate_type, aggregate_id)
select distinct aggregate_type, aggregate_id from events
where event_id in (select event_id from skips where projection = '*' union select event_id from repairs);

-- A stream as postgres-es reads it from its table of events, but that its snapshot stands in place of the events which are in
-- it: with the schema for its version, or none where it is not true. One statement sees all of that. It is a part of the
-- one that calls it, for the planner too; the event is looked up by a subquery, as a join would look at all of the stream.
create function stream_from_snapshot(of_type text, of_id text) returns table (
    aggregate_type text, aggregate_id text, sequence bigint, event_type text, event_version text, payload json, metadata json
) language sql stable as $$
    select s.aggregate_type, s.aggregate_id, s.sequence, 'snapshot',
        case when s.event_id = (
            select e.event_id from store.events e
            where e.aggregate_type = s.aggregate_type and e.aggregate_id = s.aggregate_id and e.sequence = s.sequence
        ) and not exists (
            select from store.mended_streams m
            where m.aggregate_type = s.aggregate_type and m.aggregate_id = s.aggregate_id
        ) then s.schema::text else '' end,
        s.state, '{}'::json
    from store.snapshots s where s.aggregate_type = of_type and s.aggregate_id = of_id
    union all
    select e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version, e.payload, e.metadata
    from store.events e
    where e.aggregate_type = of_type and e.aggregate_id = of_id and e.sequence > coalesce((
        select s.sequence from store.snapshots s where s.aggregate_type = of_type and s.aggregate_id = of_id
    ), 0)
$$;
