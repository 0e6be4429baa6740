-- Which version of its projection has made the rows of this checkpoint: one of a release that makes others is built
-- beside them, and swapped in. Until then they are nobody's to write but of those that made them.
alter table checkpoint add column version integer not null default 1;
