-- run: one execution of a handler over one input. Counters change in the transaction that changes the rows they count.

-- One tick's changes of the counters, as differences.
-- name: run_add
UPDATE run
SET total_count       = total_count       + :total,
    pending_count     = pending_count     + :pending,
    scheduled_count   = scheduled_count   + :scheduled,
    running_count     = running_count     + :running,
    succeeded_count   = succeeded_count   + :succeeded,
    failed_count      = failed_count      + :failed,
    skipped_count     = skipped_count     + :skipped,
    cancelled_count   = cancelled_count   + :cancelled,
    quarantined_count = quarantined_count + :quarantined,
    undone_count      = undone_count      + :undone,
    attempt_count     = attempt_count     + :attempts,
    batch_count       = batch_count       + :batches
WHERE run_id = :run_id;

-- Stop a run, or end it, with its reason.
-- name: run_conclude
UPDATE run
SET state = :state, reason = :reason, exit_code = :exit_code, finished_at_us = :finished_at_us, items_per_s = :items_per_s
WHERE run_id = :run_id;

-- name: run_get
SELECT * FROM run WHERE run_id = ?1;

-- name: run_id_by_name
SELECT run_id FROM run WHERE name = ?1;

-- The newest run of a series: what the same command goes on with.
-- name: run_id_newest_of_series
SELECT run_id FROM run WHERE series = ?1 ORDER BY run_id DESC LIMIT 1;

-- name: run_count_of_series
SELECT count(*) FROM run WHERE series = ?1;

-- name: run_insert
INSERT INTO run (name, series, handler, source, fingerprint, settings, created_at_us)
VALUES (:name, :series, :handler, :source, :fingerprint, :settings, :created_at_us)
RETURNING run_id;

-- The run that works now, else the one that was touched last.
-- name: run_id_latest
SELECT run_id FROM run ORDER BY (state IN ('running', 'paused')) DESC, run_id DESC LIMIT 1;

-- name: run_list
SELECT * FROM run ORDER BY run_id;

-- Take a stopped run up again, with the settings of this call.
-- name: run_reopen
UPDATE run
SET state = 'running', reason = NULL, exit_code = NULL, finished_at_us = NULL, handler = :handler, settings = :settings
WHERE run_id = :run_id;

-- Where intake stands after a page.
-- name: run_set_intake
UPDATE run
SET source_position = :source_position, intake_complete = :intake_complete
WHERE run_id = :run_id;

-- The watermark and the last number given to a dispatch, after a claim.
-- name: run_set_claimed
UPDATE run
SET next_item_id = :next_item_id, dispatch_count = :dispatch_count, started_at_us = coalesce(started_at_us, :now_us)
WHERE run_id = :run_id;

-- name: run_set_pace
UPDATE run SET elapsed_us = :elapsed_us, items_per_s = :items_per_s WHERE run_id = :run_id;

-- The counters as the rows have them: what `verify` compares.
-- name: run_recount
SELECT
    count(*),
    coalesce(sum(state = 'pending'), 0),
    coalesce(sum(state = 'scheduled'), 0),
    coalesce(sum(state = 'running'), 0),
    coalesce(sum(state = 'succeeded'), 0),
    coalesce(sum(state = 'failed'), 0),
    coalesce(sum(state = 'skipped'), 0),
    coalesce(sum(state = 'cancelled'), 0),
    coalesce(sum(state = 'quarantined'), 0),
    coalesce(sum(state = 'undone'), 0),
    coalesce(sum(attempt_count), 0)
FROM item
WHERE run_id = ?1;
