-- Failure and flow: what attempts spend and what they have in common, suspects, orders from other terminals, and what limits remember.
-- Ends with the same schema as ledger.sql and views.sql, comments and white space apart.

ALTER TABLE run ADD COLUMN spent TEXT NOT NULL DEFAULT '{}';
ALTER TABLE run ADD COLUMN binding_limit TEXT;
ALTER TABLE run ADD COLUMN flow TEXT NOT NULL DEFAULT '{}';

ALTER TABLE item ADD COLUMN earlier_count INTEGER NOT NULL DEFAULT 0;
CREATE INDEX item_waiting ON item (run_id, due_at_us) WHERE due_at_us IS NOT NULL;

ALTER TABLE attempt ADD COLUMN error_group TEXT;
ALTER TABLE attempt ADD COLUMN remedy TEXT;
ALTER TABLE attempt ADD COLUMN peak_rss_bytes INTEGER;
ALTER TABLE attempt ADD COLUMN spent TEXT;
ALTER TABLE attempt ADD COLUMN signal INTEGER;
CREATE INDEX attempt_explained ON attempt (outcome, item_id, number) WHERE error_message IS NOT NULL;

-- An item that ran when its worker died, or several times when its coordinator did. While it is in a group it runs with that group alone.
CREATE TABLE suspect (
    item_id             INTEGER PRIMARY KEY REFERENCES item (item_id),
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    group_number        INTEGER,                            -- NULL: not set apart now
    death_count         INTEGER NOT NULL DEFAULT 0,         -- workers that died while it ran
    interruption_count  INTEGER NOT NULL DEFAULT 0,         -- coordinators that died while it ran
    CONSTRAINT counted_from_zero CHECK (min(death_count, interruption_count, coalesce(group_number, 0)) >= 0)
) STRICT;

CREATE INDEX suspect_group ON suspect (run_id, group_number, item_id) WHERE group_number IS NOT NULL;

-- Orders to the coordinator of a run from other terminals, and what became of them: who asked, and when.
CREATE TABLE control (
    control_id          INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    verb                TEXT    NOT NULL,
    argument            TEXT    NOT NULL DEFAULT '{}',      -- JSON
    asked_by            TEXT    NOT NULL,                   -- JSON
    asked_at_us         INTEGER NOT NULL,
    applied_at_us       INTEGER,
    outcome             TEXT,                               -- in words, once it was carried out or refused
    CONSTRAINT verb_known CHECK (verb IN ('pause', 'unpause', 'scale', 'set', 'drain', 'cancel')),
    CONSTRAINT outcome_iff_applied CHECK ((applied_at_us IS NULL) = (outcome IS NULL))
) STRICT;

CREATE INDEX control_open ON control (run_id, control_id) WHERE applied_at_us IS NULL;

DROP VIEW v_run;
DROP VIEW v_item;
DROP VIEW v_attempt;
DROP VIEW v_error;

CREATE VIEW v_run AS
SELECT run_id, name, series, state, reason, exit_code,
       total_count AS total, pending_count AS pending, scheduled_count AS scheduled, running_count AS running,
       succeeded_count AS succeeded, failed_count AS failed, skipped_count AS skipped, cancelled_count AS cancelled,
       quarantined_count AS quarantined, undone_count AS undone, batch_count, attempt_count, intake_complete,
       round(items_per_s, 1) AS items_per_s, round(elapsed_us / 1e6, 3) AS elapsed_s, handler, source, settings,
       binding_limit, spent,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at_us / 1e6, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at_us / 1e6, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at_us / 1e6, 'unixepoch') AS finished_at
FROM run;

CREATE VIEW v_item AS
SELECT item.item_id, item.run_id, run.name AS run, item.key, item.state, batch.number AS batch,
       item.attempt_count - item.uncharged_count AS attempts, item.priority, item.source_position, item.payload,
       result.value, result.segment_id IS NOT NULL AS is_packed,
       attempt.outcome AS last_outcome, attempt.error_type, attempt.error_message, attempt.error_group, attempt.remedy,
       strftime('%Y-%m-%dT%H:%M:%fZ', CASE item.state WHEN 'scheduled' THEN item.due_at_us / 1e6 END, 'unixepoch') AS due_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', (attempt.started_at_us + attempt.duration_us) / 1e6, 'unixepoch') AS last_ended_at,
       attempt.duration_us / 1e3 AS last_duration_ms
FROM item
JOIN run USING (run_id)
LEFT JOIN batch ON batch.batch_id = item.batch_id
LEFT JOIN result ON result.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count;

CREATE VIEW v_attempt AS
SELECT item.run_id, run.name AS run, item.key, attempt.number, attempt.worker, attempt.outcome, attempt.error_type, attempt.error_message,
       attempt.error_group, attempt.remedy, attempt.traceback, attempt.exit_code, attempt.signal, attempt.stdout_tail, attempt.stderr_tail,
       attempt.peak_rss_bytes, attempt.spent,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempt.started_at_us / 1e6, 'unixepoch') AS started_at,
       attempt.duration_us / 1e3 AS duration_ms
FROM attempt
JOIN item USING (item_id)
JOIN run USING (run_id);

CREATE VIEW v_error AS
SELECT run.name AS run, item.run_id, attempt.error_type, attempt.error_message, count(*) AS items, min(item.key) AS example_key,
       attempt.error_group
FROM item
JOIN run USING (run_id)
JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE item.state IN ('failed', 'quarantined')
GROUP BY item.run_id, attempt.error_type, coalesce(attempt.error_group, attempt.error_message);

CREATE VIEW v_control AS
SELECT control.control_id, run.name AS run, control.run_id, control.verb, control.argument, control.asked_by,
       strftime('%Y-%m-%dT%H:%M:%fZ', control.asked_at_us / 1e6, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', control.applied_at_us / 1e6, 'unixepoch') AS applied_at, control.outcome
FROM control
JOIN run USING (run_id);
