-- How often a rebuild has put other rows in the place of those that this checkpoint is of. What was made of the rows
-- before, in memory or in a cache, is over with them, though the position may be the same.
alter table checkpoint add column built integer not null default 0;
