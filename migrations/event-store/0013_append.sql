-- append() again, for many more commands a second:
--  * it answers the head that it appended behind, and a row for each command only that did not simply stand: whoever asks
--    knows by itself which position each of the others has. The row for every command took time that rose with the square of
--    a flush's size;
--  * a version that many commands of a flush rest on (their thread's, their community's tree) is looked up once;
--  * a position is the head's, and how many events of the flush come before; nothing is worked out command by command.
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
    -- Versions that must be current, of streams read or written, each once; and which command, from 1, rests on which of
    -- them, from 1.
    check_type text[], check_id text[], check_version bigint[],
    rest_command integer[], rest_check integer[],
    -- nth: which event of the flush it is, from 1.
    event_command integer[], event_nth integer[], event_stream_type text[], event_stream_id text[],
    event_sequence bigint[], event_name text[], event_version text[], event_payload text[], event_metadata text[],
    event_event_id uuid[], event_community uuid[], event_shard smallint[],
    -- Commands without any event.
    confirm_command integer[], confirm_shard smallint[],
    -- Without an owner: released.
    claim_command integer[], claim_kind text[], claim_value text[], claim_owner text[], claim_release boolean[],
    -- Without a value: deleted.
    private_command integer[], private_owner uuid[], private_kind text[], private_value text[],
    receipt_command integer[], receipt_owner uuid[], receipt_key text[], receipt_fingerprint bytea[],
    -- Without a status: only looked up, for a refusal.
    receipt_status smallint[], receipt_answer text[],
    -- The command's last event, as in nth; none where it has none.
    receipt_nth integer[], receipt_shard smallint[]
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
    head_position bigint;
    appended bigint := coalesce(array_length(event_nth, 1), 0);
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

    select h.history, h.position, greatest(h.recorded_at, clock_timestamp())
        into strict history, head_position, recorded_at from store_head h;
    command := 0; verdict := 'head'; position := head_position;
    return next;

    if array_length(receipt_command, 1) > 0 then
        for found_row in
            select r.command, s.*
            from unnest(receipt_command, receipt_owner, receipt_key) r (command, owner, key)
            cross join lateral (select * from receipts s where s.owner = r.owner and s.key = r.key) s
        loop
            command := found_row.command; verdict := 'replayed'; fallen[command] := true;
            shard := found_row.shard; position := found_row.position; fingerprint := found_row.fingerprint;
            status := found_row.status; answer := found_row.answer; unchanged := found_row.unchanged;
            return next;
        end loop;
    end if;

    if resend then
        for found_row in
            select e.command, max(s.position) as position
            from unnest(event_command, event_event_id) e (command, event_id)
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
        select c.nth, c.type, c.id, a.version
        from unnest(check_type, check_id, check_version) with ordinality c (type, id, expected, nth)
        cross join lateral (select coalesce((
            select e.sequence from events e
            where e.aggregate_type = c.type and e.aggregate_id = c.id
            order by e.sequence desc limit 1
        ), 0) as version) a
        where a.version <> c.expected
    loop
        for found_row in select r.command from unnest(rest_command, rest_check) r (command, nth) where r.nth = moved.nth loop
            continue when fallen[found_row.command];
            command := found_row.command; verdict := 'moved'; fallen[command] := true;
            detail := moved.type || '/' || moved.id; version := moved.version;
            return next;
        end loop;
    end loop;

    if array_length(claim_command, 1) > 0 then
        for found_row in
            select c.command, c.kind
            from unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
                c (command, kind, value, owner, release)
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
            from unnest(event_command) e (command) group by e.command order by e.command
        loop
            appended := appended - found_row.many;
            missing[found_row.command] := array_length(event_nth, 1) - appended;
        end loop;
    end if;

    for nth in 1..coalesce(array_length(confirm_command, 1), 0) loop
        continue when fallen[confirm_command[nth]];
        command := confirm_command[nth]; verdict := 'confirmed'; shard := confirm_shard[nth];
        position := coalesce((
            select e.position from events e
            where (e.shard, e.position) >= (confirm_shard[nth], 0::bigint)
                and (e.shard, e.position) <= (confirm_shard[nth], head_position)
            order by e.shard desc, e.position desc limit 1
        ), 0);
        confirmed[command] := position;
        return next;
    end loop;

    if appended > 0 then
        insert into events (
            aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
            position, shard, event_id, community_id, recorded_at
        )
        select
            e.stream_type, e.stream_id, e.sequence, e.name, e.version, e.payload::json, e.metadata::json,
            head_position + e.nth - coalesce(missing[e.command], 0), e.shard, e.event_id, e.community, recorded_at
        from unnest(
            event_command, event_nth, event_stream_type, event_stream_id, event_sequence, event_name, event_version,
            event_payload, event_metadata, event_event_id, event_community, event_shard
        ) e (command, nth, stream_type, stream_id, sequence, name, version, payload, metadata, event_id, community, shard)
        where fallen[e.command] is null;

        update store_head set position = head_position + appended, recorded_at = append.recorded_at;
    end if;

    if array_length(claim_command, 1) > 0 then
        delete from claims t
        using unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
            c (command, kind, value, owner, release)
        where fallen[c.command] is null and c.release and t.kind = c.kind and t.value = c.value and t.owner = c.owner;

        insert into claims (kind, value, owner)
        select c.kind, c.value, c.owner
        from unnest(claim_command, claim_kind, claim_value, claim_owner, claim_release)
            c (command, kind, value, owner, release)
        where fallen[c.command] is null and not c.release
            and not exists (
                select from claims t where t.kind = c.kind and t.value = c.value and t.owner = c.owner
            );
    end if;

    if array_length(private_command, 1) > 0 then
        delete from private_data t
        using unnest(private_command, private_owner, private_kind, private_value) p (command, owner, kind, value)
        where fallen[p.command] is null and p.value is null and t.owner = p.owner and t.kind = p.kind;

        insert into private_data (owner, kind, value)
        select p.owner, p.kind, p.value
        from unnest(private_command, private_owner, private_kind, private_value) p (command, owner, kind, value)
        where fallen[p.command] is null and p.value is not null
        on conflict (owner, kind) do update set value = excluded.value;
    end if;

    if array_length(receipt_command, 1) > 0 then
        insert into receipts (owner, key, fingerprint, status, answer, unchanged, shard, position, recorded_at)
        select r.owner, r.key, r.fingerprint, r.status, r.answer, r.nth is null, r.shard,
            coalesce(head_position + r.nth - coalesce(missing[r.command], 0), confirmed[r.command]), recorded_at
        from unnest(
            receipt_command, receipt_owner, receipt_key, receipt_fingerprint, receipt_status, receipt_answer, receipt_nth,
            receipt_shard
        ) r (command, owner, key, fingerprint, status, answer, nth, shard)
        where fallen[r.command] is null and r.status is not null;
    end if;
end
$$;
