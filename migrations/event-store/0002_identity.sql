-- Who is logged in, and the keys that sign their tokens. Nothing here refers to another table: an account is named by
-- its id only. Expired rows are deleted by `platform::identity::purge_expired`.

-- The keys that sign access tokens (Ed25519, RFC 8032), shared by all instances. The newest signs, all of them verify.
create table signing_keys (
    -- The `kid` of a token's header (RFC 7515, 4.1.4).
    kid text primary key,
    public_key bytea not null,
    -- The private key's seed. Who can read this table can sign tokens.
    seed bytea not null,
    created_at timestamptz not null,
    -- From then on a newer key signs.
    retires_at timestamptz not null,
    -- From then on it verifies nothing any more.
    expires_at timestamptz not null,
    constraint signing_keys_ed25519 check (octet_length(public_key) = 32 and octet_length(seed) = 32),
    constraint signing_keys_order check (created_at < retires_at and retires_at < expires_at)
);

-- One log-in, on one device: the family of its refresh tokens.
create table sessions (
    session uuid primary key,
    account uuid not null,
    created_at timestamptz not null,
    -- Moves on with each refresh.
    expires_at timestamptz not null,
    ended_at timestamptz
);
create index sessions_account on sessions (account) where ended_at is null;
create index sessions_expires_at on sessions (expires_at);
-- What instances poll to learn which sessions ended.
create index sessions_ended_at on sessions (ended_at) where ended_at is not null;

-- Refresh tokens, by their SHA-256 only. Used ones stay until they expire, so that using one twice shows.
create table refresh_tokens (
    token_hash bytea primary key,
    session uuid not null references sessions on delete cascade,
    expires_at timestamptz not null,
    used_at timestamptz,
    -- How often it was used; more than once where the first answer was lost.
    uses smallint not null default 0,
    constraint refresh_tokens_sha256 check (octet_length(token_hash) = 32),
    constraint refresh_tokens_used check ((used_at is null) = (uses = 0))
);
create index refresh_tokens_session on refresh_tokens (session);
create index refresh_tokens_expires_at on refresh_tokens (expires_at);

-- Who runs the platform: their tokens carry the claim `operator`.
create table operators (
    account uuid primary key,
    added_at timestamptz not null default now()
);
