-- Views for people: the stable surface for ad-hoc SQL. Columns may be added, never renamed or removed.
-- Instants are ISO-8601 text in UTC. Values of more than about a kilobyte are packed; `durabatch sql` reads them with item_value(item_id).

-- One row a run.
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

-- One row an item, with its result and, where its last attempt did not succeed, what was wrong.
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

-- One row a try.
CREATE VIEW v_attempt AS
SELECT item.run_id, run.name AS run, item.key, attempt.number, attempt.worker, attempt.outcome, attempt.error_type, attempt.error_message,
       attempt.error_group, attempt.remedy, attempt.traceback, attempt.exit_code, attempt.signal, attempt.stdout_tail, attempt.stderr_tail,
       attempt.peak_rss_bytes, attempt.spent, attempt.is_cached,
       strftime('%Y-%m-%dT%H:%M:%fZ', attempt.started_at_us / 1e6, 'unixepoch') AS started_at,
       attempt.duration_us / 1e3 AS duration_ms
FROM attempt
JOIN item USING (item_id)
JOIN run USING (run_id);

-- One row a batch.
CREATE VIEW v_batch AS
SELECT run.name AS run, batch.run_id, batch.number AS batch, batch.item_count AS items, batch.ended_count AS ended, batch.failed_count AS failed,
       batch.finished_at_us IS NOT NULL AS is_finished, batch.result_bytes, batch.digest,
       strftime('%Y-%m-%dT%H:%M:%fZ', batch.opened_at_us / 1e6, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', batch.finished_at_us / 1e6, 'unixepoch') AS finished_at,
       (batch.finished_at_us - batch.opened_at_us) / 1e6 AS seconds
FROM batch
JOIN run USING (run_id);

-- Results that items had before they were run again, undone, or taken out of the input; one row each.
CREATE VIEW v_result_history AS
SELECT item.run_id, run.name AS run, item.key, result_history.number, result_history.value, result_history.segment_id IS NOT NULL AS is_packed,
       result_history.cause, strftime('%Y-%m-%dT%H:%M:%fZ', result_history.moved_at_us / 1e6, 'unixepoch') AS moved_at
FROM result_history
JOIN item USING (item_id)
JOIN run USING (run_id);

-- What went wrong, one row for each kind of error of a run, with one of its messages.
CREATE VIEW v_error AS
SELECT run.name AS run, item.run_id, attempt.error_type, attempt.error_message, count(*) AS items, min(item.key) AS example_key,
       attempt.error_group
FROM item
JOIN run USING (run_id)
JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE item.state IN ('failed', 'quarantined')
GROUP BY item.run_id, attempt.error_type, coalesce(attempt.error_group, attempt.error_message);

-- What can be undone, or was: one row an entry, in the order in which the entries were recorded.
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

-- What people asked of running coordinators, one row an order.
CREATE VIEW v_control AS
SELECT control.control_id, run.name AS run, control.run_id, control.verb, control.argument, control.asked_by,
       strftime('%Y-%m-%dT%H:%M:%fZ', control.asked_at_us / 1e6, 'unixepoch') AS asked_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', control.applied_at_us / 1e6, 'unixepoch') AS applied_at, control.outcome
FROM control
JOIN run USING (run_id);
