-- What reading asks for beside the tables: which positions an answer reflects, and indexes whose columns all run the
-- same way, so that a page resumes by one row comparison.

-- The position that a view joining `projections` reflects, for each of `shards` in their order: the least of the
-- projections' checkpoints of the history `line`, 0 where one is missing. As a part of the statement that reads the
-- rows, it sees the same snapshot. Inlined by the planner: it costs one look at the checkpoints for a statement.
create function reflected(projections text[], shards smallint[], line uuid) returns table (positions bigint[])
language sql stable as $$
    select array(
        select case when count(c.position) = cardinality(projections) then min(c.position) else 0 end
        from unnest(shards) with ordinality s (shard, n)
        left join checkpoint c on c.projection = any (projections) and c.shard = s.shard and c.history = line
        group by s.n
        order by s.n
    )
$$;

-- Whether a community is in sight of a reader who sees the private ones among `private`, or with `everything` all of
-- them. One it does not know the visibility of counts as private. Inlined.
create function in_sight(community uuid, visibility text, everything boolean, private uuid[]) returns boolean
language sql immutable as $$
    select visibility in ('public', 'restricted') or everything or community = any (private)
$$;

create index community_new on community (created_at desc, community_id desc);
create index community_by_name on community (lower(name), community_id);

drop index member_by_role;
create index member_by_role on member (community_id, rank desc, account_id desc) where status = 'member';

-- Replies to a post, oldest first.
create index post_by_parent on post (parent_id, number);
