-- What an event said that nobody could read, kept when something that can be read is put in its place.
create table repairs (
    event_id uuid not null,
    position bigint not null,
    event_type text not null,
    event_version text not null,
    payload json not null,
    metadata json not null,
    reason text not null,
    repaired_by text not null,
    repaired_at timestamptz not null default clock_timestamp(),
    -- The transaction that kept it, and that alone may put something else in its place.
    repaired_in xid8 not null default pg_current_xact_id(),
    primary key (event_id, repaired_at)
);

create trigger repairs_append_only before update or delete or truncate on repairs
    for each statement execute function refuse_edit_of_history();
create trigger skips_append_only before update or delete or truncate on skips
    for each statement execute function refuse_edit_of_history();

-- What is kept is what stands there, and why.
create function refuse_false_record() returns trigger language plpgsql as $$
begin
    if new.reason = '' or new.repaired_in <> pg_current_xact_id() or not exists (
        select from store.events e
        where e.event_id = new.event_id and e.position = new.position and e.event_type = new.event_type
            and e.event_version = new.event_version and e.payload::text = new.payload::text
            and e.metadata::text = new.metadata::text
    ) then
        raise exception 'a repair is recorded with what stands there, and why: % is refused', tg_op
            using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger repairs_are_true before insert on repairs
    for each row execute function refuse_false_record();

-- History is still never deleted. It is edited by a repair alone, which keeps what stood there, and touches nothing of
-- when, where and whose event it is.
drop trigger events_append_only on events;
create trigger events_append_only before delete or truncate on events
    for each statement execute function refuse_edit_of_history();

create function refuse_edit_off_the_record() returns trigger language plpgsql as $$
declare
    kept store.events := old;
begin
    kept.event_type := new.event_type;
    kept.event_version := new.event_version;
    kept.payload := new.payload;
    kept.metadata := new.metadata;
    if kept::text is distinct from new::text or not exists (
        select from store.repairs r
        where r.event_id = old.event_id and r.repaired_in = pg_current_xact_id() and r.position = old.position
            and r.event_type = old.event_type and r.event_version = old.event_version
            and r.payload::text = old.payload::text and r.metadata::text = old.metadata::text
    ) then
        raise exception 'the event history is append-only: % is refused', tg_op using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger events_repaired_on_record before update on events
    for each row execute function refuse_edit_off_the_record();

-- Which of the things that end at their time an event begins or ends.
create function ending_kind(event_type text) returns text language sql immutable as $$
    select case
        when event_type in ('membership.banned', 'membership.ban_lifted') then 'ban'
        when event_type in ('membership.silenced', 'membership.silence_lifted') then 'silence'
        when event_type in ('thread.pinned', 'thread.unpinned') then 'pin'
    end
$$;

-- What an event of that type says of an end, noted anew from what the stream says now that one of its events is repaired or
-- left out. What the last one says that nobody can read stays as it was noted.
create function keep_ending_anew(stream text, of_type text) returns void language plpgsql as $$
declare
    its_kind constant text := store.ending_kind(of_type);
    last store.events;
    its_end timestamptz;
begin
    if its_kind is null then
        return;
    end if;
    select e.* into last from store.events e
    where e.aggregate_type = case its_kind when 'pin' then 'thread' else 'membership' end and e.aggregate_id = stream
        and store.ending_kind(e.event_type) = its_kind
        and not exists (select from store.skips s where s.projection = '*' and s.event_id = e.event_id)
    order by e.sequence desc limit 1;
    if last.event_version <> '1' then
        return;
    end if;
    its_end := last.payload->>'until';
    delete from store.endings where kind = its_kind and aggregate_id = stream;
    if its_end is not null then
        insert into store.endings (kind, aggregate_id, community_id, event_id, ends_at)
        values (its_kind, stream, last.community_id, last.event_id, its_end);
    end if;
exception when data_exception then
    return;
end
$$;
