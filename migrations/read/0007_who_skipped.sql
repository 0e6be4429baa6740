-- Who let a projection pass by an event; null where an older release did not ask.
alter table skipped add column skipped_by text;
