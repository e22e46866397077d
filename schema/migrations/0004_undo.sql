-- Undo: promises to take effects back, what waits for that, transactions, and checkpoints with a digest and a name.
-- Ends with the same schema as ledger.sql and views.sql, comments and white space apart.

ALTER TABLE run ADD COLUMN is_transaction INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN undo_count INTEGER NOT NULL DEFAULT 0;

ALTER TABLE batch ADD COLUMN result_bytes INTEGER;
ALTER TABLE batch ADD COLUMN digest INTEGER;

-- A promise to take an effect back: on disk before the effect happens, so that no effect is ever unknown. It is kept newest first.
-- `wanted_at_us` is set while the entry is to be undone, and then only; a worker that undoes it holds it by a dispatch number below zero.
CREATE TABLE undo (
    undo_id             INTEGER PRIMARY KEY,                -- ascends in the order in which entries were recorded
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt that recorded it
    sequence            INTEGER NOT NULL,                   -- from 1 in its attempt
    action              TEXT    NOT NULL,                   -- a name, never code
    arguments           TEXT    NOT NULL,                   -- JSON
    state               TEXT    NOT NULL DEFAULT 'recorded',
    recorded_at_us      INTEGER NOT NULL,
    wanted_at_us        INTEGER,
    is_in_order         INTEGER NOT NULL DEFAULT 0,         -- undone one at a time, after every newer one of the run that is so, too
    due_at_us           INTEGER,                            -- not before: a try has failed
    dispatch_id         INTEGER,
    try_count           INTEGER NOT NULL DEFAULT 0,
    error               TEXT,                               -- of the last try
    ended_at_us         INTEGER,
    CONSTRAINT each_state_has_its_facts CHECK (
        CASE state
            WHEN 'recorded'     THEN dispatch_id IS NULL AND ended_at_us IS NULL
            WHEN 'undoing'      THEN wanted_at_us IS NOT NULL AND ended_at_us IS NULL
            WHEN 'undone'       THEN wanted_at_us IS NULL AND dispatch_id IS NULL AND ended_at_us IS NOT NULL
            WHEN 'failed'       THEN wanted_at_us IS NULL AND dispatch_id IS NULL AND ended_at_us IS NOT NULL
            WHEN 'irreversible' THEN wanted_at_us IS NULL AND dispatch_id IS NULL
            ELSE 0
        END)
) STRICT;

CREATE UNIQUE INDEX undo_of_item ON undo (item_id, number, sequence);
CREATE INDEX undo_wanted ON undo (run_id, is_in_order, undo_id) WHERE wanted_at_us IS NOT NULL;
CREATE INDEX undo_unresolved ON undo (run_id, state) WHERE state IN ('undoing', 'failed', 'irreversible');

-- What stood in the place of an effect before: the old content of a file. Removed once it is back.
CREATE TABLE undo_blob (
    undo_id             INTEGER PRIMARY KEY REFERENCES undo (undo_id),
    raw_bytes           INTEGER NOT NULL,
    digest              BLOB    NOT NULL,                   -- SHA-256 of the raw bytes
    data                BLOB    NOT NULL                    -- one zstd frame
) STRICT;

-- An item some of whose effects are being undone, and what becomes of it then. One that is not over waits so long, due at 2^61.
CREATE TABLE undoing (
    item_id             INTEGER PRIMARY KEY REFERENCES item (item_id),
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    then_state          TEXT    NOT NULL,
    then_due_at_us      INTEGER,
    CONSTRAINT then_known CHECK (then_state IN ('pending', 'scheduled', 'failed', 'skipped', 'cancelled', 'quarantined', 'undone')),
    CONSTRAINT due_only_when_waiting CHECK (then_due_at_us IS NULL OR then_state IN ('pending', 'scheduled'))
) STRICT;

CREATE INDEX undoing_of_run ON undoing (run_id, item_id);

-- A checkpoint that was given a name: a finished batch.
CREATE TABLE mark (
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    label               TEXT    NOT NULL,
    batch_number        INTEGER NOT NULL,
    marked_at_us        INTEGER NOT NULL,
    PRIMARY KEY (run_id, label)
) STRICT, WITHOUT ROWID;

DROP VIEW v_run;
DROP VIEW v_batch;

CREATE VIEW v_run AS
SELECT run_id, name, series, state, reason, exit_code,
       total_count AS total, pending_count AS pending, scheduled_count AS scheduled, running_count AS running,
       succeeded_count AS succeeded, failed_count AS failed, skipped_count AS skipped, cancelled_count AS cancelled,
       quarantined_count AS quarantined, undone_count AS undone, batch_count, attempt_count, intake_complete,
       round(items_per_s, 1) AS items_per_s, round(elapsed_us / 1e6, 3) AS elapsed_s, handler, source, settings,
       binding_limit, spent, is_open, cached_count AS cached, gone_count AS gone, intake, provenance, is_transaction, undo_count AS undo_entries,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at_us / 1e6, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_us / 1e6, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_us / 1e6, 'unixepoch') AS finished_at
FROM run;

CREATE VIEW v_batch AS
SELECT run.name AS run, batch.run_id, batch.number AS batch, batch.item_count AS items, batch.ended_count AS ended, batch.failed_count AS failed,
       batch.finished_at_us IS NOT NULL AS is_finished, batch.result_bytes, batch.digest,
       strftime('%Y-%m-%dT%H:%M:%fZ', batch.opened_at_us / 1e6, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', batch.finished_at_us / 1e6, 'unixepoch') AS finished_at,
       (batch.finished_at_us - batch.opened_at_us) / 1e6 AS seconds
FROM batch
JOIN run USING (run_id);

CREATE VIEW v_undo AS
SELECT undo.undo_id, undo.run_id, run.name AS run, batch.number AS batch, undo.item_id, item.key, undo.number AS attempt,
       CASE WHEN run.is_transaction THEN run.name END AS transaction_id, undo.sequence, undo.action, undo.arguments,
       run.name || '/' || item.key || '/' || undo.number || '/' || undo.sequence AS idempotency_key,
       undo.state, undo.wanted_at_us IS NOT NULL AS is_wanted, undo.try_count AS tries, undo.error,
       strftime('%Y-%m-%dT%H:%M:%fZ', undo.recorded_at_us / 1e6, 'unixepoch') AS recorded_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', undo.ended_at_us / 1e6, 'unixepoch') AS ended_at
FROM undo
JOIN run USING (run_id)
JOIN item USING (item_id)
LEFT JOIN batch ON batch.batch_id = item.batch_id;
