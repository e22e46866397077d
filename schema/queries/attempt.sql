-- attempt: one try at an item, written once when it has ended. Written by finish, accuse, skip, recover, release and steps.

-- An attempt that did not succeed. Only while the dispatch held the item (its row was just moved on).
-- name: attempt_insert_failed
INSERT INTO attempt (
    item_id, number, worker, outcome, started_at_us, duration_us, error_type, error_message, traceback, exit_code, stdout_tail, stderr_tail,
    error_group, remedy, peak_rss_bytes, spent, signal)
VALUES (
    :item_id, :number, :worker, :outcome, :started_at_us, :duration_us, :error_type, :error_message, :traceback, :exit_code, :stdout_tail, :stderr_tail,
    :error_group, :remedy, :peak_rss_bytes, :spent, :signal);

-- What was running when a coordinator died, as the cells show it: one row each, no error, no charge.
-- *:started* is a JSON array of [item_id, dispatch_id, worker, started_at_us].
-- name: attempt_insert_interrupted
INSERT INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us)
SELECT item.item_id, item.attempt_count + 1, json_extract(cell.value, '$[2]'), 'interrupted',
       json_extract(cell.value, '$[3]'), max(0, :now_us - json_extract(cell.value, '$[3]'))
FROM json_each(:started) AS cell
JOIN item ON item.item_id = json_extract(cell.value, '$[0]') AND item.dispatch_id = json_extract(cell.value, '$[1]')
WHERE item.run_id = :run_id AND item.state = 'running'
RETURNING item_id;

-- Attempts that were not seen running when their worker or coordinator died, and that have promised something: from then on they had begun.
-- name: attempt_insert_begun
INSERT INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us)
SELECT item.item_id, item.attempt_count + 1, 0, 'interrupted', min(undo.recorded_at_us), max(undo.recorded_at_us) - min(undo.recorded_at_us)
FROM item JOIN undo ON undo.item_id = item.item_id AND undo.number = item.attempt_count + 1
WHERE item.item_id IN carray(?1) AND item.state = 'running'
GROUP BY item.item_id;

-- Successes; the parameters are the fields of a success as the worker sends it, and the peak of its memory.
-- name: attempt_insert_succeeded
INSERT INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us, peak_rss_bytes) VALUES (?1, ?2, ?3, 'succeeded', ?4, ?5, ?6);

-- The same for first tries at a stretch of items, at once. *?4* holds their times: microseconds after *?3* in the upper 32 bits, duration
-- in the lower. OR FAIL: a failure ends the whole tick, so nothing need be kept to undo a part of it.
-- name: attempt_insert_stretch
INSERT OR FAIL INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us, peak_rss_bytes)
SELECT ?1 + rowid - 1, 1, ?2, 'succeeded', ?3 + (value >> 32), value & 0xFFFFFFFF, ?5 FROM carray(?4);

-- The last attempts of items that were just ended by a value that was known already.
-- name: attempt_insert_cached
INSERT OR FAIL INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us, is_cached)
SELECT item_id, attempt_count, 0, 'succeeded', ?2, 0, 1 FROM item WHERE item_id IN carray(?1);

-- What the attempt that was just recorded as a success has spent.
-- name: attempt_set_spent
UPDATE attempt SET spent = ?3 WHERE item_id = ?1 AND number = ?2;

-- What limits must know of the tries since somebody asked to run the item again: how often it was snoozed, and when it was first started.
-- name: attempt_history
SELECT coalesce(sum(outcome = 'snoozed'), 0), min(started_at_us) FROM attempt WHERE item_id = ?1 AND number > ?2;

-- When these items were first started, not counting tries from before somebody asked to run them again.
-- name: attempt_list_first_started
SELECT item.item_id, min(attempt.started_at_us)
FROM item JOIN attempt ON attempt.item_id = item.item_id AND attempt.number > item.earlier_count
WHERE item.item_id IN carray(?1)
GROUP BY item.item_id;

-- name: attempt_list_of_item
SELECT number, worker, outcome, started_at_us, duration_us, error_type, error_message, traceback, exit_code, stdout_tail, stderr_tail,
       error_group, remedy, peak_rss_bytes, spent, signal, is_cached
FROM attempt WHERE item_id = ?1 ORDER BY number;

-- name: attempt_get
SELECT number, worker, outcome, started_at_us, duration_us, error_type, error_message, traceback, exit_code, stdout_tail, stderr_tail,
       error_group, remedy, peak_rss_bytes, spent, signal, is_cached
FROM attempt WHERE item_id = ?1 AND number = ?2;

-- What the attempts of each run have spent, unit by unit: what `verify` compares with the run.
-- name: attempt_sum_spent
SELECT item.run_id, amount.key, sum(amount.value)
FROM attempt
JOIN item USING (item_id)
JOIN json_each(CASE WHEN json_valid(attempt.spent) THEN attempt.spent END) AS amount
WHERE attempt.spent IS NOT NULL
GROUP BY item.run_id, amount.key;

-- What an attempt spent that is no JSON.
-- name: attempt_list_not_json
SELECT item_id FROM attempt WHERE NOT json_valid(spent) LIMIT 20;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: attempt_list_impossible
SELECT item_id FROM attempt
WHERE CASE
          WHEN outcome IN ('failed', 'timed_out', 'crashed') THEN error_type IS NULL
          WHEN outcome IN ('succeeded', 'interrupted', 'snoozed', 'skipped', 'cancelled') THEN error_type IS NOT NULL
          ELSE 1
      END
LIMIT 20;
