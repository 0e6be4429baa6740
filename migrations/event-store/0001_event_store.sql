-- The event store. Streams are readable by postgres-es 0.5: the first seven columns of `events` are the ones it
-- expects, under the names and types it expects.

create table events (
    aggregate_type text not null,
    aggregate_id text not null,
    sequence bigint not null constraint events_sequence_from_1 check (sequence >= 1),
    event_type text not null,
    event_version text not null,
    -- json, not jsonb: kept byte for byte.
    payload json not null constraint events_payload_at_most_256_kib check (octet_length(payload::text) <= 262144),
    metadata json not null,
    position bigint not null constraint events_position_unique unique,
    shard smallint not null constraint events_shard_below_64 check (shard between 0 and 63),
    event_id uuid not null constraint events_event_id_unique unique,
    community_id uuid,
    recorded_at timestamptz not null,
    constraint events_stream primary key (aggregate_type, aggregate_id, sequence)
);

create index events_by_shard on events (shard, position);

-- History is never edited, by nobody.
create function refuse_edit_of_history() returns trigger language plpgsql as $$
begin
    raise exception 'the event history is append-only: % is refused', tg_op using errcode = 'restrict_violation';
end
$$;

create trigger events_append_only before update or delete or truncate on events
    for each statement execute function refuse_edit_of_history();

-- The one row that every append moves: where history stands.
create table store_head (
    only_row boolean primary key default true constraint store_head_one_row check (only_row),
    history uuid not null default gen_random_uuid(),
    position bigint not null default 0,
    recorded_at timestamptz not null default '-infinity'
) with (fillfactor = 10);

insert into store_head default values;

-- Unique values (username, email, slug) and unique ids that name their home (category), taken and released with events.
create table claims (
    kind text not null,
    value text not null,
    owner text not null,
    constraint claims_unique primary key (kind, value)
);

-- What must never be in an event: password hashes, e-mail addresses. Deletable.
create table private_data (
    owner uuid not null,
    kind text not null,
    value text not null,
    primary key (owner, kind)
);

-- What was answered under an idempotency key: every 2xx, never a refusal, never a secret.
create table receipts (
    owner uuid not null,
    key text not null,
    -- The first half of a SHA-256 of the request.
    fingerprint bytea not null,
    status smallint not null,
    answer text not null,
    shard smallint not null,
    position bigint not null,
    recorded_at timestamptz not null,
    primary key (owner, key)
);

-- For their expiry; brin, as they are written in order of time.
create index receipts_by_time on receipts using brin (recorded_at);

-- How far the relay has brought the store's events to Kafka; behind by what a crash may send again.
create table relay (
    topic text primary key,
    history uuid not null,
    position bigint not null default 0
) with (fillfactor = 10);
