-- scratch: tables of an anonymous database on disk, for what may be as many as items. They are made when they are first needed and gone
-- with their connection; a ledger has none of them.

-- What one export takes: each item as it stood at one moment.
-- name: scratch_make_taken
CREATE TABLE taken (
    item_id             INTEGER PRIMARY KEY,
    state               TEXT    NOT NULL,
    attempt_count       INTEGER NOT NULL,
    charged_count       INTEGER NOT NULL
) STRICT;

-- name: scratch_take
INSERT INTO taken (item_id, state, attempt_count, charged_count) VALUES (?1, ?2, ?3, ?4);

-- name: scratch_count_taken
SELECT state, count(*) FROM taken GROUP BY state;

-- name: scratch_list_taken
SELECT item_id, state, attempt_count, charged_count FROM taken WHERE item_id > ?1 ORDER BY item_id LIMIT ?2;

-- The items of a run that no row of a source has met yet, by content. *rank* is the item's id, with a high bit for those that the input
-- had lost before: they come last. The index is made once the rows are there, which is quicker by far than row by row.
-- name: scratch_make_unmet
CREATE TABLE unmet (digest BLOB NOT NULL, rank INTEGER NOT NULL) STRICT;

-- name: scratch_add_unmet
INSERT INTO unmet (digest, rank) VALUES (?1, ?2);

-- name: scratch_index_unmet
CREATE INDEX unmet_by_digest ON unmet (digest, rank);

-- The first item with this content, which is then no longer there.
-- name: scratch_pop_unmet
DELETE FROM unmet
WHERE digest = ?1 AND rank = (SELECT rank FROM unmet WHERE digest = ?1 ORDER BY rank LIMIT 1)
RETURNING rank;

-- Keys of rows that no item has, by hash: which of them came before, and where.
-- name: scratch_make_new_key
CREATE TABLE new_key (
    key_hash            INTEGER NOT NULL,
    key                 TEXT    NOT NULL,
    position            INTEGER NOT NULL,
    PRIMARY KEY (key_hash, key)
) STRICT, WITHOUT ROWID;

-- name: scratch_add_new_key
INSERT INTO new_key (key_hash, key, position) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING;

-- name: scratch_list_new_keys
SELECT key, position FROM new_key WHERE key_hash IN carray(?1);

-- Where the rows stand that met an item, if elsewhere than the ledger says. Without an index: it is asked once, for an error.
-- name: scratch_make_met
CREATE TABLE met (item_id INTEGER NOT NULL, position INTEGER NOT NULL) STRICT;

-- name: scratch_add_met
INSERT INTO met (item_id, position) VALUES (?1, ?2);

-- name: scratch_position_met
SELECT position FROM met WHERE item_id = ?1;

-- The last number given to a repeated key.
-- name: scratch_make_repeat
CREATE TABLE repeat (key TEXT PRIMARY KEY, occurrence INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- name: scratch_get_repeat
SELECT occurrence FROM repeat WHERE key = ?1;

-- name: scratch_set_repeat
INSERT INTO repeat (key, occurrence) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET occurrence = excluded.occurrence;

-- name: scratch_leave
DELETE FROM taken WHERE item_id = ?1;

-- The rows of an edited plan, by what they are about: a key, or place and content of a row without one.
-- name: scratch_make_plan
CREATE TABLE planned (
    line                INTEGER PRIMARY KEY,
    identity            TEXT    NOT NULL,
    action              TEXT    NOT NULL,
    key                 TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    position            INTEGER NOT NULL,
    digest              BLOB    NOT NULL,
    is_used             INTEGER NOT NULL DEFAULT 0
) STRICT;

-- name: scratch_add_planned
INSERT INTO planned (identity, line, action, key, status, position, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: scratch_index_planned
CREATE INDEX planned_by_identity ON planned (identity, line);

-- name: scratch_repeated_planned
SELECT later.line, later.key, earlier.line
FROM planned AS later JOIN planned AS earlier ON earlier.identity = later.identity AND earlier.line < later.line
ORDER BY later.line LIMIT 1;

-- name: scratch_get_planned
SELECT line, action, key, status, position, digest FROM planned WHERE identity = ?1;

-- name: scratch_use_planned
UPDATE planned SET is_used = 1 WHERE identity = ?1;

-- name: scratch_list_unused_planned
SELECT line, action, key, status, position, digest FROM planned WHERE line > ?1 AND NOT is_used ORDER BY line LIMIT ?2;
