-- Renews a session for a refresh token that is shown, in one statement: no lock of a row waits for a client. A changed
-- password ends sessions within append(), under the lock that every append waits for: a process that froze between two
-- statements of a refresh would hold up all of them.
--
-- No row: the token is unknown or over, or its session is. `reused`: it was used longer ago than an answer may take to
-- be lost, or too often, so its session was ended.
--
-- It locks the session before the token, as everybody does who locks both.
create function refresh_session(
    shown bytea,
    -- The SHA-256 of the token that goes on.
    next bytea,
    -- How long that one, and the session with it, is good.
    good_for interval,
    -- For how long after its first use, and how often, a token may be used.
    reusable_for interval, max_uses smallint
) returns table (session uuid, account uuid, operator boolean, reused boolean)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    the_session sessions;
    the_token refresh_tokens;
begin
    select s.* into the_session from sessions s
    where s.session = (select t.session from refresh_tokens t where t.token_hash = shown)
    for no key update;
    -- Two who show it at once are judged one after the other: here, not above, it is seen as the first left it.
    select t.* into the_token from refresh_tokens t where t.token_hash = shown for no key update;
    if the_session.session is null or the_token.session is null or the_session.ended_at is not null
        or least(the_session.expires_at, the_token.expires_at) <= now()
    then
        return;
    end if;

    if the_token.used_at < now() - reusable_for or the_token.uses >= max_uses then
        update sessions s set ended_at = clock_timestamp() where s.session = the_session.session;
        return query select the_session.session, the_session.account, false, true;
        return;
    end if;

    update refresh_tokens t set used_at = coalesce(t.used_at, now()), uses = t.uses + 1 where t.token_hash = shown;
    insert into refresh_tokens (token_hash, session, expires_at) values (next, the_session.session, now() + good_for);
    update sessions s set expires_at = now() + good_for where s.session = the_session.session;
    return query select the_session.session, the_session.account,
        exists (select from operators o where o.account = the_session.account), false;
end
$$;
