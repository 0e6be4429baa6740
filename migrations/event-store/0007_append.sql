-- append() again, as of now:
--  * a shard's last position is looked up by a row comparison, which only events_by_shard can answer: with `shard = …
--    order by position desc` the planner may walk back over everybody's events, and a shard without any has it read
--    them all under the lock;
--  * two commands of a flush that take one claim fail it, as two that append to one stream always did;
--  * a receipt remembers that nothing changed, so that the answer is the same again.
alter table receipts add column unchanged boolean not null default false;

drop function append;

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
create function append(
    resend boolean,
    -- By command, from 1.
    command_shard smallint[], command_events integer[],
    -- Versions that must be current, of streams read or written.
    check_command integer[], check_type text[], check_id text[], check_version bigint[],
    event_command integer[], event_nth integer[], event_stream_type text[], event_stream_id text[],
    event_sequence bigint[], event_name text[], event_version text[], event_payload text[], event_metadata text[],
    event_event_id uuid[], event_community uuid[],
    -- Without an owner: released.
    claim_command integer[], claim_kind text[], claim_value text[], claim_owner text[], claim_release boolean[],
    -- Without a value: deleted.
    private_command integer[], private_owner uuid[], private_kind text[], private_value text[],
    receipt_command integer[], receipt_owner uuid[], receipt_key text[], receipt_fingerprint bytea[],
    -- Without a status: only looked up, for a refusal.
    receipt_status smallint[], receipt_answer text[]
) returns table (
    -- 'appended', 'replayed' (the receipt follows), 'moved' (detail: the stream), 'claimed' (detail: the kind).
    command integer, verdict text, detail text, version bigint,
    history uuid, shard smallint, "position" bigint, recorded_at timestamptz,
    fingerprint bytea, status smallint, answer text, unchanged boolean
)
language plpgsql volatile
-- Plans made on empty tables stay, and unnest is overestimated: look up by index whatever the statistics say.
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    commands constant integer := coalesce(array_length(command_shard, 1), 0);
    verdicts text[] := array_fill('appended'::text, array[commands]);
    fresh boolean[] := array_fill(true, array[commands]);
    details text[] := array_fill(null::text, array[commands]);
    versions bigint[] := array_fill(null::bigint, array[commands]);
    firsts bigint[] := array_fill(null::bigint, array[commands]);
    positions bigint[] := array_fill(null::bigint, array[commands]);
    head_history uuid;
    head_position bigint;
    head_time timestamptz;
    found_row record;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'append runs at read committed only, not at %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state';
    end if;

    -- The same for every database of a server's: advisory locks are per database. 'agora' in ASCII.
    perform pg_advisory_xact_lock(418463542881);

    select h.history, h.position, greatest(h.recorded_at, clock_timestamp())
        into strict head_history, head_position, head_time from store_head h;

    for found_row in
        select r.command from unnest(receipt_command, receipt_owner, receipt_key) r (command, owner, key)
        where exists (select from receipts s where s.owner = r.owner and s.key = r.key)
    loop
        verdicts[found_row.command] := 'replayed';
        fresh[found_row.command] := false;
    end loop;

    if resend then
        for found_row in
            select e.command, s.position
            from unnest(event_command, event_event_id) e (command, event_id)
            cross join lateral (select s.position from events s where s.event_id = e.event_id) s
        loop
            if verdicts[found_row.command] = 'appended' then
                fresh[found_row.command] := false;
                positions[found_row.command] :=
                    greatest(coalesce(positions[found_row.command], 0), found_row.position);
            end if;
        end loop;
    end if;

    for found_row in
        select c.command, c.type, c.id, a.version
        from unnest(check_command, check_type, check_id, check_version) c (command, type, id, expected)
        cross join lateral (select coalesce((
            select e.sequence from events e
            where e.aggregate_type = c.type and e.aggregate_id = c.id
            order by e.sequence desc limit 1
        ), 0) as version) a
        where a.version <> c.expected
    loop
        if fresh[found_row.command] then
            verdicts[found_row.command] := 'moved';
            fresh[found_row.command] := false;
            details[found_row.command] := found_row.type || '/' || found_row.id;
            versions[found_row.command] := found_row.version;
        end if;
    end loop;

    for found_row in
        select c.command, c.kind
        from unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
            c (command, kind, value, owner, release)
        where not c.release
            and exists (
                select from claims t where t.kind = c.kind and t.value = c.value and t.owner <> c.owner
            )
    loop
        if fresh[found_row.command] then
            verdicts[found_row.command] := 'claimed';
            fresh[found_row.command] := false;
            details[found_row.command] := found_row.kind;
        end if;
    end loop;

    -- Each standing command's events get the next positions; a command without any names its shard's last.
    for n in 1..commands loop
        if fresh[n] and command_events[n] > 0 then
            firsts[n] := head_position;
            head_position := head_position + command_events[n];
            positions[n] := head_position;
        elsif fresh[n] then
            positions[n] := coalesce((
                select e.position from events e
                where (e.shard, e.position) >= (command_shard[n], 0::bigint)
                    and (e.shard, e.position) <= (command_shard[n], head_position)
                order by e.shard desc, e.position desc limit 1
            ), 0);
        end if;
    end loop;

    insert into events (
        aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
        position, shard, event_id, community_id, recorded_at
    )
    select
        e.stream_type, e.stream_id, e.sequence, e.name, e.version, e.payload::json, e.metadata::json,
        firsts[e.command] + e.nth, command_shard[e.command], e.event_id, e.community, head_time
    from unnest(
        event_command, event_nth, event_stream_type, event_stream_id, event_sequence, event_name, event_version,
        event_payload, event_metadata, event_event_id, event_community
    ) e (command, nth, stream_type, stream_id, sequence, name, version, payload, metadata, event_id, community)
    where fresh[e.command];

    if array_length(claim_command, 1) > 0 then
        delete from claims t
        using unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
            c (command, kind, value, owner, release)
        where fresh[c.command] and c.release and t.kind = c.kind and t.value = c.value and t.owner = c.owner;

        insert into claims (kind, value, owner)
        select c.kind, c.value, c.owner
        from unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
            c (command, kind, value, owner, release)
        where fresh[c.command] and not c.release
            and not exists (
                select from claims t where t.kind = c.kind and t.value = c.value and t.owner = c.owner
            );
    end if;

    if array_length(private_command, 1) > 0 then
        delete from private_data t
        using unnest(private_command, private_owner, private_kind, private_value) p (command, owner, kind, value)
        where fresh[p.command] and p.value is null and t.owner = p.owner and t.kind = p.kind;

        insert into private_data (owner, kind, value)
        select p.owner, p.kind, p.value
        from unnest(private_command, private_owner, private_kind, private_value) p (command, owner, kind, value)
        where fresh[p.command] and p.value is not null
        on conflict (owner, kind) do update set value = excluded.value;
    end if;

    insert into receipts (owner, key, fingerprint, status, answer, unchanged, shard, position, recorded_at)
    select r.owner, r.key, r.fingerprint, r.status, r.answer, command_events[r.command] = 0,
        command_shard[r.command], positions[r.command], head_time
    from unnest(
        receipt_command, receipt_owner, receipt_key, receipt_fingerprint, receipt_status, receipt_answer
    ) r (command, owner, key, fingerprint, status, answer)
    where fresh[r.command] and r.status is not null;

    update store_head set position = head_position, recorded_at = head_time where position <> head_position;

    return query
    select n, verdicts[n], details[n], versions[n],
        head_history, coalesce(s.shard, command_shard[n]), coalesce(s.position, positions[n]), head_time,
        s.fingerprint, s.status, s.answer, s.unchanged
    from generate_series(1, commands) n
    left join unnest(receipt_command, receipt_owner, receipt_key) r (command, owner, key)
        on verdicts[n] = 'replayed' and r.command = n
    left join receipts s on verdicts[n] = 'replayed' and s.owner = r.owner and s.key = r.key
    order by n;
end
$$;
