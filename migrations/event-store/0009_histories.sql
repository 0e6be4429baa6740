-- When and why another line of positions began: found out by a projector, or decided by a person. The first one of a
-- store is not here.
create table histories (
    history uuid primary key,
    -- The one that it took the place of.
    replaced uuid not null,
    -- Positions up to here are those of the restored store; what either line has behind it, the other does not.
    position bigint not null,
    reason text not null,
    begun_by text not null,
    begun_at timestamptz not null default clock_timestamp()
);
