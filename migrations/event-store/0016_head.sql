-- Where history stands is where its last event stands, and no row that every append moves. As long as somebody's snapshot
-- is open (a backup, a long report) Postgres clears away no version of such a row, and whoever reads it passes all of them:
-- after ten seconds of that a flush took twice as long, and ever longer.

alter table store_head rename to history_line;
alter table history_line drop column position, drop column recorded_at;

-- Where history stands: its line, and its last event's position (0 without any) and time.
create view store_head as
select l.only_row, l.history, coalesce(h.position, 0) as position, coalesce(h.recorded_at, '-infinity') as recorded_at
from history_line l
left join lateral (select e.position, e.recorded_at from events e order by e.position desc limit 1) h on true;

-- The append() of the release before moves it, and runs beside this one while Agora is upgraded. Its events have.
create function leave_store_head() returns trigger language plpgsql as $$
begin
    update history_line set history = new.history where history <> new.history;
    return new;
end
$$;

create trigger store_head_follows_events instead of update on store_head
    for each row execute function leave_store_head();

-- Appends one flush: many commands, in order, each standing or falling alone.
--
-- It promises: positions rise in commit order without a gap; a command is appended only where every version that it
-- names is current, every claim free, and its idempotency key new; `recorded_at` never falls. Commands of one flush
-- do not depend on one another: the appender sees to that, so that every check is one statement for all of them.
--
-- Alone in its transaction, at read committed. It takes the lock in a statement of its own: a statement that locks
-- and checks at once would check against a snapshot older than the lock it waited for.
--
-- `resend`: the answer of this very flush was lost; commands already in are recognised by their events' ids, or by
-- their receipt.
create or replace function append(
    resend boolean, new_checks append_check[], new_events append_event[], confirmations append_confirmation[],
    new_claims append_claim[], new_private append_private[], new_receipts append_receipt[]
) returns table (
    -- First of all, as command 0: 'head', where the flush begins, and the time of all that it appends. Then, in no order, the
    -- commands that are not simply appended, each behind the one before it: 'replayed' (the receipt follows), 'moved'
    -- (detail: the stream), 'claimed' (detail: the kind); 'there' (resent, and in already) and 'confirmed' (it has no
    -- events) say a position.
    command integer, verdict text, detail text, version bigint,
    history uuid, shard smallint, "position" bigint, recorded_at timestamptz,
    fingerprint bytea, status smallint, answer text, unchanged boolean
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    head_position bigint;
    appended bigint := coalesce(array_length(new_events, 1), 0);
    clear boolean;
    -- By command, where any fell: whether it did, and how many events up to it will not be.
    fallen boolean[];
    missing integer[];
    -- By command, of those without events: their shard's last position.
    confirmed bigint[];
    moved record;
    found_row record;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'append runs at read committed only, not at %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state';
    end if;

    -- The same for every database of a server's: advisory locks are per database. 'agora' in ASCII.
    perform pg_advisory_xact_lock(418463542881);

    select l.history, coalesce(h.position, 0), greatest(h.recorded_at, clock_timestamp()),
        not exists (
            select from unnest(new_checks) c
            where c.version <> coalesce((
                select e.sequence from events e
                where e.aggregate_type = c.type and e.aggregate_id = c.id
                order by e.sequence desc limit 1
            ), 0)
        ) and not exists (
            select from unnest(new_receipts) r
            cross join lateral (select from receipts s where s.owner = r.owner and s.key = r.key) s
        )
        into strict history, head_position, recorded_at, clear
        from history_line l
        left join lateral (select e.position, e.recorded_at from events e order by e.position desc limit 1) h on true;
    command := 0; verdict := 'head'; position := head_position;
    return next;

    if resend or not clear then
        for found_row in
            select r.command, s.*
            from unnest(new_receipts) r
            cross join lateral (select * from receipts s where s.owner = r.owner and s.key = r.key) s
        loop
            command := found_row.command; verdict := 'replayed'; fallen[command] := true;
            shard := found_row.shard; position := found_row.position; fingerprint := found_row.fingerprint;
            status := found_row.status; answer := found_row.answer; unchanged := found_row.unchanged;
            return next;
        end loop;

        if resend then
            for found_row in
                select e.command, max(s.position) as position
                from unnest(new_events) e
                cross join lateral (select s.position from events s where s.event_id = e.event_id) s
                where fallen[e.command] is null
                group by e.command
            loop
                command := found_row.command; verdict := 'there'; fallen[command] := true;
                position := found_row.position;
                return next;
            end loop;
        end if;

        for moved in
            select c.type, c.id, c.commands, a.version
            from unnest(new_checks) c
            cross join lateral (select coalesce((
                select e.sequence from events e
                where e.aggregate_type = c.type and e.aggregate_id = c.id
                order by e.sequence desc limit 1
            ), 0) as version) a
            where a.version <> c.version
        loop
            foreach command in array moved.commands loop
                continue when fallen[command];
                verdict := 'moved'; fallen[command] := true;
                detail := moved.type || '/' || moved.id; version := moved.version;
                return next;
            end loop;
        end loop;
    end if;

    if array_length(new_claims, 1) > 0 then
        for found_row in
            select c.command, c.kind
            from unnest(new_claims) c
            where not c.release
                and exists (
                    select from claims t where t.kind = c.kind and t.value = c.value and t.owner <> c.owner
                )
        loop
            continue when fallen[found_row.command];
            command := found_row.command; verdict := 'claimed'; fallen[command] := true;
            detail := found_row.kind;
            return next;
        end loop;
    end if;

    if fallen is not null then
        -- In order of commands, as events are.
        for found_row in
            select e.command, count(*) filter (where fallen[e.command]) as many
            from unnest(new_events) e group by e.command order by e.command
        loop
            appended := appended - found_row.many;
            missing[found_row.command] := array_length(new_events, 1) - appended;
        end loop;
    end if;

    for nth in 1..coalesce(array_length(confirmations, 1), 0) loop
        command := (confirmations[nth]).command;
        continue when fallen[command];
        verdict := 'confirmed'; shard := (confirmations[nth]).shard;
        position := coalesce((
            select e.position from events e
            where (e.shard, e.position) >= ((confirmations[nth]).shard, 0::bigint)
                and (e.shard, e.position) <= ((confirmations[nth]).shard, head_position)
            order by e.shard desc, e.position desc limit 1
        ), 0);
        confirmed[command] := position;
        return next;
    end loop;

    if appended > 0 or array_length(new_receipts, 1) > 0 then
        with appended_events as (
            insert into events (
                aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                position, shard, event_id, community_id, recorded_at
            )
            select
                e.type, e.id, e.sequence, e.name, e.version, e.payload::json, e.metadata::json,
                head_position + e.nth - coalesce(missing[e.command], 0), e.shard, e.event_id, e.community, recorded_at
            from unnest(new_events) e
            where fallen[e.command] is null
        )
        insert into receipts (owner, key, fingerprint, status, answer, unchanged, shard, position, recorded_at)
        select r.owner, r.key, r.fingerprint, r.status, r.answer, r.nth is null, r.shard,
            coalesce(head_position + r.nth - coalesce(missing[r.command], 0), confirmed[r.command]), recorded_at
        from unnest(new_receipts) r
        where fallen[r.command] is null and r.status is not null;
    end if;

    if array_length(new_claims, 1) > 0 then
        delete from claims t
        using unnest(new_claims) c
        where fallen[c.command] is null and c.release and t.kind = c.kind and t.value = c.value and t.owner = c.owner;

        insert into claims (kind, value, owner)
        select c.kind, c.value, c.owner
        from unnest(new_claims) c
        where fallen[c.command] is null and not c.release
            and not exists (
                select from claims t where t.kind = c.kind and t.value = c.value and t.owner = c.owner
            );
    end if;

    if array_length(new_private, 1) > 0 then
        delete from private_data t
        using unnest(new_private) p
        where fallen[p.command] is null and p.value is null and t.owner = p.owner and t.kind = p.kind;

        insert into private_data (owner, kind, value)
        select p.owner, p.kind, p.value
        from unnest(new_private) p
        where fallen[p.command] is null and p.value is not null
        on conflict (owner, kind) do update set value = excluded.value;
    end if;
end
$$;
