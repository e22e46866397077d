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
    batch_count       = batch_count       + :batches,
    cached_count      = cached_count      + :cached,
    gone_count        = gone_count        + :gone,
    undo_count        = undo_count        + :undo
WHERE run_id = :run_id;

-- Stop a run, or end it, with its reason.
-- name: run_conclude
UPDATE run
SET state = :state, reason = :reason, exit_code = :exit_code, finished_at_us = :finished_at_us, items_per_s = :items_per_s,
    binding_limit = NULL
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
INSERT INTO run (name, series, handler, source, fingerprint, settings, provenance, is_open, is_transaction, created_at_us)
VALUES (:name, :series, :handler, :source, :fingerprint, :settings, :provenance, :is_open, :is_transaction, :created_at_us)
RETURNING run_id;

-- The run that works now, else the one that was touched last; transactions are meant by their ids alone.
-- name: run_id_latest
SELECT run_id FROM run WHERE NOT is_transaction ORDER BY (state IN ('running', 'paused')) DESC, run_id DESC LIMIT 1;

-- name: run_list
SELECT * FROM run ORDER BY run_id;

-- name: run_list_transactions
SELECT * FROM run WHERE is_transaction ORDER BY run_id;

-- Transactions that are neither committed nor rolled back.
-- name: run_list_open_transactions
SELECT run_id, name FROM run WHERE is_transaction AND state NOT IN ('finished', 'rolled_back') ORDER BY run_id;

-- Take a stopped run up again, with the settings of this call.
-- name: run_reopen
UPDATE run
SET state = 'running', reason = NULL, exit_code = NULL, finished_at_us = NULL, binding_limit = NULL, handler = :handler, settings = :settings,
    fingerprint = coalesce(:fingerprint, fingerprint), source = coalesce(:source, source), provenance = coalesce(:provenance, provenance)
WHERE run_id = :run_id;

-- Where intake stands after a page.
-- name: run_set_intake
UPDATE run
SET source_position = :source_position, intake_complete = :intake_complete, intake = :intake
WHERE run_id = :run_id;

-- The watermark and the last number given to a dispatch, after a claim.
-- name: run_set_claimed
UPDATE run
SET next_item_id = :next_item_id, dispatch_count = :dispatch_count, started_at_us = coalesce(started_at_us, :now_us)
WHERE run_id = :run_id;

-- How far fresh items were ended without being claimed.
-- name: run_set_watermark
UPDATE run SET next_item_id = ?2 WHERE run_id = ?1;

-- name: run_set_spent
UPDATE run SET spent = ?2 WHERE run_id = ?1;

-- What limits must remember over a resume.
-- name: run_set_flow
UPDATE run SET flow = ?2 WHERE run_id = ?1;

-- What holds the run back now; NULL when nothing does.
-- name: run_set_binding_limit
UPDATE run SET binding_limit = ?2 WHERE run_id = ?1;

-- A coordinator hands nothing out, or does again.
-- name: run_set_state
UPDATE run SET state = ?2, reason = ?3 WHERE run_id = ?1;

-- The items of a run are being brought in line with another input: until that is done, no input is the recorded one.
-- name: run_forget_fingerprint
UPDATE run SET fingerprint = NULL WHERE run_id = ?1;

-- A batch that is in the output file is open again: the file, which stays known as ours, is to be written anew.
-- name: run_restart_output
UPDATE run SET output = json_patch('{}', json_object('path', output ->> '$.path', 'failures', output -> '$.failures'))
WHERE run_id = ?1 AND output <> '{}';

-- What is remembered of the output.
-- name: run_get_output
SELECT output FROM run WHERE run_id = ?1;

-- How far the output file has grown.
-- name: run_set_output
UPDATE run SET output = ?2 WHERE run_id = ?1;

-- Whether items may come from any process, and, once they may not, whether any will come.
-- name: run_set_open
UPDATE run SET is_open = :is_open, intake_complete = :intake_complete WHERE run_id = :run_id;

-- The input files as they stand now, when it was we who changed them.
-- name: run_set_fingerprint
UPDATE run SET fingerprint = ?2 WHERE run_id = ?1;

-- name: run_set_pace
UPDATE run SET elapsed_us = :elapsed_us, items_per_s = :items_per_s WHERE run_id = :run_id;

-- The counters as the items and batches have them: what `verify` compares. A walk along the spans, since those lie in the table's order.
-- name: run_recount
SELECT
    count(*),
    coalesce(sum(item.state = 'pending'), 0),
    coalesce(sum(item.state = 'scheduled'), 0),
    coalesce(sum(item.state = 'running'), 0),
    coalesce(sum(item.state = 'succeeded'), 0),
    coalesce(sum(item.state = 'failed'), 0),
    coalesce(sum(item.state = 'skipped'), 0),
    coalesce(sum(item.state = 'cancelled'), 0),
    coalesce(sum(item.state = 'quarantined'), 0),
    coalesce(sum(item.state = 'undone'), 0),
    coalesce(sum(item.attempt_count), 0),
    (SELECT count(*) FROM batch WHERE batch.run_id = ?1),
    coalesce(sum(item.state = 'cancelled' AND item.source_position = 0), 0)
FROM span
JOIN item ON item.item_id BETWEEN span.first_item_id AND span.last_item_id AND item.run_id = span.run_id
WHERE span.run_id = ?1;

-- The counters as they stand.
-- name: run_list_counters
SELECT run_id, total_count, pending_count, scheduled_count, running_count, succeeded_count, failed_count, skipped_count, cancelled_count,
       quarantined_count, undone_count, attempt_count, batch_count, gone_count
FROM run ORDER BY run_id;

-- Runs whose batches are not numbered from 1 to their count.
-- name: run_list_batch_gaps
SELECT run.run_id, count(batch.number) AS found, coalesce(max(batch.number), 0) AS highest, coalesce(min(batch.number), 1) AS lowest
FROM run LEFT JOIN batch USING (run_id)
GROUP BY run.run_id
HAVING found <> highest OR lowest <> 1
LIMIT 20;

-- Runs of which a column that holds JSON does not.
-- name: run_list_not_json
SELECT run_id FROM run
WHERE NOT (json_valid(handler) AND json_valid(source) AND json_valid(settings) AND coalesce(json_valid(fingerprint), 1)
           AND json_valid(spent) AND json_valid(flow) AND json_valid(intake) AND json_valid(provenance) AND json_valid(output))
LIMIT 20;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: run_list_impossible
SELECT run_id FROM run
WHERE state NOT IN ('running', 'paused', 'halted', 'cancelled', 'finished', 'rolled_back')
   OR (finished_at_us IS NOT NULL) <> (state IN ('cancelled', 'finished', 'rolled_back'))
   OR total_count <> pending_count + scheduled_count + running_count + succeeded_count + failed_count
                     + skipped_count + cancelled_count + quarantined_count + undone_count
   OR min(pending_count, scheduled_count, running_count, succeeded_count, failed_count, skipped_count, cancelled_count,
          quarantined_count, undone_count, batch_count, attempt_count, dispatch_count) < 0
   OR (state = 'finished' AND NOT (intake_complete AND pending_count + scheduled_count + running_count = 0))
   OR intake_complete NOT IN (0, 1)
LIMIT 20;

-- Runs whose counters, batches and spans contradict each other, as (run, (items, in spans), (batches, rows), (ended, in batches)):
-- reads no item. Skipped and cancelled items may have ended without ever joining a batch.
-- name: run_list_sum_mismatch
WITH batches AS (SELECT run_id, count(*) AS rows, sum(ended_count) AS ended FROM batch GROUP BY run_id),
     spans AS (SELECT run_id, sum(last_item_id - first_item_id + 1) AS items FROM span GROUP BY run_id),
     sums AS (
        SELECT run.run_id, run.total_count, coalesce(spans.items, 0) AS items, run.batch_count, coalesce(batches.rows, 0) AS rows,
               run.succeeded_count + run.failed_count + run.quarantined_count + run.undone_count AS worked,
               run.skipped_count + run.cancelled_count AS left_out, coalesce(batches.ended, 0) AS ended
        FROM run LEFT JOIN spans USING (run_id) LEFT JOIN batches USING (run_id))
SELECT run_id, total_count, items, batch_count, rows, worked + left_out, ended
FROM sums
WHERE total_count <> items OR batch_count <> rows OR ended NOT BETWEEN worked AND worked + left_out;
