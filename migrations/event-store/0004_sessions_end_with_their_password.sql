-- Whoever changes a password ends every session that was begun with the old one, in the same transaction: no crash comes
-- between.
create function end_sessions() returns trigger language plpgsql as $$
begin
    update sessions set ended_at = clock_timestamp() where account = old.owner and ended_at is null;
    return null;
end
$$;

create trigger private_data_password after update or delete on private_data
    for each row when (old.kind = 'password') execute function end_sessions();
