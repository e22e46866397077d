-- Intake and output: what was read and what results depend on, results of before, the cache, exports.
-- Ends with the same schema as ledger.sql and views.sql, comments and white space apart.

ALTER TABLE run ADD COLUMN intake TEXT NOT NULL DEFAULT '{}';
ALTER TABLE run ADD COLUMN provenance TEXT NOT NULL DEFAULT '{}';
ALTER TABLE run ADD COLUMN output TEXT NOT NULL DEFAULT '{}';
ALTER TABLE run ADD COLUMN is_open INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN gone_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN cached_count INTEGER NOT NULL DEFAULT 0;

ALTER TABLE batch ADD COLUMN delivered_at_us INTEGER;
CREATE INDEX batch_undelivered ON batch (run_id, batch_id) WHERE finished_at_us IS NOT NULL AND delivered_at_us IS NULL;

ALTER TABLE attempt ADD COLUMN is_cached INTEGER NOT NULL DEFAULT 0;

-- A result that an item had before it was run again, undone, or taken out of the input.
CREATE TABLE result_history (
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt that returned it
    digest              BLOB    NOT NULL,                   -- of the payload that it was made of
    value               TEXT,
    segment_id          INTEGER REFERENCES segment (segment_id),
    segment_offset      INTEGER,
    raw_bytes           INTEGER,
    moved_at_us         INTEGER NOT NULL,
    cause               TEXT    NOT NULL,
    PRIMARY KEY (item_id, number),
    CONSTRAINT cause_known CHECK (cause IN ('redone', 'changed', 'gone', 'undone')),
    CONSTRAINT inline_or_packed CHECK (
        CASE WHEN segment_id IS NULL THEN value IS NOT NULL AND segment_offset IS NULL AND raw_bytes IS NULL
             ELSE value IS NULL AND segment_offset IS NOT NULL AND raw_bytes IS NOT NULL END)
) STRICT, WITHOUT ROWID;

-- What the results in the cache depend on besides the payload: handler, version, parameters.
CREATE TABLE cache_scope (
    cache_scope_id      INTEGER PRIMARY KEY,
    identity            TEXT    NOT NULL UNIQUE             -- JSON
) STRICT;

-- A result that may be used again: the attempt that returned it. The value stands where it always did, in result or result_history.
CREATE TABLE cache (
    cache_scope_id      INTEGER NOT NULL REFERENCES cache_scope (cache_scope_id),
    digest              BLOB    NOT NULL,                   -- of the payload
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt
    value_bytes         INTEGER NOT NULL,
    made_at_us          INTEGER NOT NULL,
    used_at_us          INTEGER NOT NULL,
    PRIMARY KEY (cache_scope_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX cache_used ON cache (used_at_us);

-- Where the results of a run were exported to, for exports of what is new.
CREATE TABLE export (
    export_id           INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    target              TEXT    NOT NULL,                   -- absolute path, or - for standard output
    exported_at_us      INTEGER NOT NULL,
    UNIQUE (run_id, target)
) STRICT;

-- What a target has got: an item as of that many attempts.
CREATE TABLE exported (
    export_id           INTEGER NOT NULL REFERENCES export (export_id),
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    attempt_count       INTEGER NOT NULL,
    PRIMARY KEY (export_id, item_id)
) STRICT, WITHOUT ROWID;

DROP VIEW v_run;
DROP VIEW v_attempt;

CREATE VIEW v_run AS
SELECT run_id, name, series, state, reason, exit_code,
       total_count AS total, pending_count AS pending, scheduled_count AS scheduled, running_count AS running,
       succeeded_count AS succeeded, failed_count AS failed, skipped_count AS skipped, cancelled_count AS cancelled,
       quarantined_count AS quarantined, undone_count AS undone, batch_count, attempt_count, intake_complete,
       round(items_per_s, 1) AS items_per_s, round(elapsed_us / 1e6, 3) AS elapsed_s, handler, source, settings,
       binding_limit, spent, is_open, cached_count AS cached, gone_count AS gone, intake, provenance,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at_us / 1e6, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_us / 1e6, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_us / 1e6, 'unixepoch') AS finished_at
FROM run;

CREATE VIEW v_attempt AS
SELECT item.run_id, run.name AS run, item.key, attempt.number, attempt.worker, attempt.outcome, attempt.error_type, attempt.error_message,
       attempt.error_group, attempt.remedy, attempt.traceback, attempt.exit_code, attempt.signal, attempt.stdout_tail, attempt.stderr_tail,
       attempt.peak_rss_bytes, attempt.spent, attempt.is_cached,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempt.started_at_us / 1e6, 'unixepoch') AS started_at,
       attempt.duration_us / 1e3 AS duration_ms
FROM attempt
JOIN item USING (item_id)
JOIN run USING (run_id);

CREATE VIEW v_result_history AS
SELECT item.run_id, run.name AS run, item.key, result_history.number, result_history.value, result_history.segment_id IS NOT NULL AS is_packed,
       result_history.cause, strftime('%Y-%m-%dT%H:%M:%fZ', result_history.moved_at_us / 1e6, 'unixepoch') AS moved_at
FROM result_history
JOIN item USING (item_id)
JOIN run USING (run_id);
