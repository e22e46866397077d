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
