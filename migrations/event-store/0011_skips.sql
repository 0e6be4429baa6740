-- Events that operators let projections pass by: on record here, with the history, as nobody could make them again from it.
create table skips (
    projection text not null,
    event_id uuid not null,
    position bigint not null,
    reason text not null,
    -- Null where an older release did not ask.
    skipped_by text,
    skipped_at timestamptz not null default clock_timestamp(),
    primary key (projection, event_id)
);

-- They were beside the read tables before, which may be in another database: then they stay there, to be repeated by hand.
do $$
begin
    if to_regclass('read.skipped') is not null then
        insert into skips (projection, event_id, position, reason, skipped_at)
            select projection, event_id, position, reason, skipped_at from read.skipped;
    end if;
end
$$;
