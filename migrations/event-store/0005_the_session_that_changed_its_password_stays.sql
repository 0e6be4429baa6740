-- Whoever changes a password stays logged in where it was changed: a client whose answer was lost can ask again. Its
-- session stands beside the new password for this one change (private_data, `kept_session`), and is gone after it. No
-- other session stays.
create or replace function end_sessions() returns trigger language plpgsql as $$
declare
    kept text;
begin
    delete from private_data where owner = old.owner and kind = 'kept_session' returning value into kept;
    update sessions set ended_at = clock_timestamp()
    where account = old.owner and ended_at is null and session::text is distinct from kept;
    return null;
end
$$;
