-- Questions to SQLite about the ledger itself.

-- What stands in the catalogue, to be compared with what we would make.
-- name: schema_list
SELECT type, name, sql FROM sqlite_schema;

-- Damage to pages, indexes and constraints as SQLite sees it; one row 'ok' when there is none.
-- name: schema_integrity
PRAGMA integrity_check(20);

-- Rows whose parent row is missing.
-- name: schema_orphans
PRAGMA foreign_key_check;

-- How an older ledger is read without changing it: views and tables of this connection alone, which stand before those of the file. *:name*,
-- *:columns* and *:definition* are put in as text, from the schema of the present version.
-- name: schema_columns
SELECT name, type, dflt_value FROM pragma_table_info(?1, ?2) ORDER BY cid;

-- A table that has fewer columns than now.
-- name: schema_make_lens
CREATE TEMP VIEW :name AS SELECT :columns FROM main.:name;

-- A table that is not there.
-- name: schema_make_missing
CREATE TEMP TABLE :name (:columns);

-- A view that says something else than now, or is not there.
-- name: schema_make_view
CREATE TEMP VIEW :definition;
