-- What decides who may see, for a batch of questions, from current rows: for each question one row, in any order.
--
-- It promises one look-up by index for each thing asked about, whatever the planner thinks of `unnest`: each is a
-- lateral subquery with a limit, and what a question does not ask about is not looked up at all.
select
    q.n as "n!",
    c.community_id as "community_id?",
    c.visibility as "visibility?",
    c.owner as "owner?",
    m.status as "status?",
    m.assigned as "assigned?",
    coalesce(m.banned, false) as "banned!",
    m.banned_until as "banned_until?",
    t.thread_id as "thread_id?",
    t.deleted as "thread_deleted?",
    t.deleted_by as "thread_deleted_by?",
    t.author_id as "thread_author?",
    p.author_id as "post_author?",
    p.hidden as "post_hidden?",
    k.category_id as "category_id?",
    a.account_id as "account_id?",
    case when q.kind in ('everywhere', 'account', 'username') then array(
        select m.community_id
        from member m
        join community c on c.community_id = m.community_id and not in_sight(c.community_id, c.visibility, false, '{}')
        where m.account_id = q.reader
            and (c.owners ? q.reader::text or m.status = 'member')
            and not (m.banned and (m.banned_until is null or m.banned_until > now()))
        order by m.community_id
    ) end as "private?",
    case when a.account_id = q.reader then array(
        select m.community_id
        from member m
        join community c on c.community_id = m.community_id and c.visibility in ('public', 'restricted', 'private')
        where m.account_id = q.reader and m.status = 'invited'
            and not (m.banned and (m.banned_until is null or m.banned_until > now()))
        order by m.community_id
    ) end as "invitations?"
from unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[]) with ordinality q (kind, id, name, reader, n)
left join lateral (
    select p.thread_id, p.author_id, p.hidden from post p where q.kind = 'post' and p.post_id = q.id limit 1
) p on true
left join lateral (
    select t.thread_id, t.community_id, t.deleted, t.deleted_by, t.author_id from thread t
    where t.thread_id = case q.kind when 'thread' then q.id when 'post' then p.thread_id end
    limit 1
) t on true
left join lateral (
    select k.category_id, k.community_id from category k where q.kind = 'category' and k.category_id = q.id limit 1
) k on true
left join lateral (
    select s.community_id from community s where q.kind = 'slug' and s.slug = q.name order by s.position desc limit 1
) s on true
left join lateral (
    select c.community_id, c.visibility, c.owners ? q.reader::text as owner from community c
    where c.community_id
        = case q.kind when 'community' then q.id else coalesce(t.community_id, k.community_id, s.community_id) end
    limit 1
) c on true
left join lateral (
    select
        m.status, m.assigned, m.banned and (m.banned_until is null or m.banned_until > now()) as banned,
        case when m.banned_until > now() then m.banned_until end as banned_until
    from member m
    where m.community_id = c.community_id and m.account_id = q.reader
    limit 1
) m on true
left join lateral (
    (select a.account_id from account a where q.kind = 'account' and a.account_id = q.id)
    union all
    (select a.account_id from account a where q.kind = 'username' and lower(a.username) = lower(q.name)
     order by a.position desc limit 1)
    limit 1
) a on true
