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
        select from store.repairs where event_id = old.event_id and repaired_in = pg_current_xact_id()
    ) then
        raise exception 'the event history is append-only: % is refused', tg_op using errcode = 'restrict_violation';
    end if;
    return new;
end
$$;

create trigger events_repaired_on_record before update on events
    for each row execute function refuse_edit_off_the_record();
