-- item: one unit of input. Written by submit, claim, finish, accuse, release, recover, skip, cancel, retry, redo, withdraw and hold; each
-- move has one statement. An item that the input has lost is cancelled, with source_position 0; one that is held back is due at 2^60 or
-- later, one that waits until what it did is undone at 2^61.

-- Hand a stretch of fresh items to a dispatch; they join a batch here.
-- name: item_claim_fresh
UPDATE item
SET state = 'running', batch_id = :batch_id, dispatch_id = :dispatch_id
WHERE item_id BETWEEN :first_item_id AND :last_item_id AND state = 'pending' AND due_at_us IS NULL;

-- Hand items that stand outside the input order to a dispatch. *:pairs* is a JSON array of [item_id, batch_id].
-- name: item_claim_due
UPDATE item
SET state = 'running', dispatch_id = :dispatch_id, due_at_us = NULL, batch_id = json_extract(pair.value, '$[1]')
FROM json_each(:pairs) AS pair
WHERE item.item_id = json_extract(pair.value, '$[0]');

-- Record the end of items that succeeded, where this dispatch still holds them. Two forms: a stretch of ids, and any ids.
-- name: item_succeed_range
UPDATE item
SET state = 'succeeded', dispatch_id = NULL, attempt_count = attempt_count + 1
WHERE item_id BETWEEN ?1 AND ?2 AND dispatch_id = ?3;

-- name: item_succeed_some
UPDATE item
SET state = 'succeeded', dispatch_id = NULL, attempt_count = attempt_count + 1
WHERE item_id IN carray(?1) AND dispatch_id = ?2;

-- End waiting items by a value that is known already, without a dispatch. Two forms: a stretch of fresh items, and any that wait.
-- name: item_answer_range
UPDATE item
SET state = 'succeeded', batch_id = ?3, attempt_count = attempt_count + 1
WHERE item_id BETWEEN ?1 AND ?2 AND state = 'pending' AND due_at_us IS NULL;

-- name: item_answer_some
UPDATE item
SET state = 'succeeded', batch_id = ?2, due_at_us = NULL, attempt_count = attempt_count + 1
WHERE item_id IN carray(?1) AND state IN ('pending', 'scheduled');

-- Record an attempt that did not succeed, where this dispatch still holds the item; the new state was decided in flow/.
-- name: item_end_attempt
UPDATE item
SET state = :state, dispatch_id = NULL, due_at_us = :due_at_us,
    attempt_count = attempt_count + 1, uncharged_count = uncharged_count + :uncharged
WHERE item_id = :item_id AND dispatch_id = :dispatch_id;

-- Which of these items does this dispatch still hold?
-- name: item_list_held
SELECT item_id FROM item WHERE item_id IN carray(?1) AND dispatch_id = ?2;

-- name: item_get
SELECT item_id, run_id, key, payload, digest, state, batch_id, attempt_count, uncharged_count, source_position, due_at_us, earlier_count
FROM item WHERE item_id = ?1;

-- One probe of the key table: keys whose hashes meet are told apart by their text.
-- name: item_get_by_hash
SELECT item.item_id, item.key, item.digest, item.source_position
FROM item_key JOIN item ON item.item_id = item_key.item_id
WHERE item_key.run_id = ?1 AND item_key.key_hash = ?2;

-- A new item; most are added many at once, by this statement with its row repeated.
-- name: item_insert
INSERT INTO item (item_id, run_id, key, payload, digest, source_position) VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- The same for items that have a place of their own: ?7 is their priority, ?8 the due time that puts them outside the input order.
-- name: item_insert_placed
INSERT INTO item (item_id, run_id, key, payload, digest, source_position, priority, due_at_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- name: item_last_id
SELECT coalesce(max(item_id), 0) FROM item;

-- Items that stand outside the input order and are due, in the order in which they run. Suspects in a group are claimed by themselves.
-- name: item_list_due
SELECT item_id, attempt_count + 1, key, payload, batch_id, state
FROM item
WHERE run_id = :run_id AND due_at_us IS NOT NULL AND due_at_us <= :now_us AND priority >= :lowest AND priority <= :highest
  AND NOT EXISTS (SELECT 1 FROM suspect WHERE suspect.item_id = item.item_id AND suspect.group_number IS NOT NULL)
ORDER BY priority DESC, due_at_us, item_id
LIMIT :limit;

-- The same for one priority: those that wait for a later time are not looked at.
-- name: item_list_due_of_priority
SELECT item_id, attempt_count + 1, key, payload, batch_id, state
FROM item
WHERE run_id = :run_id AND priority = :priority AND due_at_us IS NOT NULL AND due_at_us <= :now_us
  AND NOT EXISTS (SELECT 1 FROM suspect WHERE suspect.item_id = item.item_id AND suspect.group_number IS NOT NULL)
ORDER BY due_at_us, item_id
LIMIT :limit;

-- The highest priority up to *?2* that items outside the input order have.
-- name: item_highest_priority
SELECT priority FROM item WHERE run_id = ?1 AND priority <= ?2 AND due_at_us IS NOT NULL ORDER BY priority DESC LIMIT 1;

-- Pending items from an id on, whatever their place, those left out that are held back: what a preflight check reads.
-- name: item_list_pending
SELECT item_id, attempt_count + 1, key, payload
FROM item
WHERE item_id BETWEEN :first_item_id AND :last_item_id AND state = 'pending' AND coalesce(due_at_us, 0) < 1152921504606846976
ORDER BY item_id
LIMIT :limit;

-- The items of a group of suspects that wait.
-- name: item_list_suspects
SELECT item.item_id, item.attempt_count + 1, item.key, item.payload, item.batch_id, item.state
FROM suspect JOIN item USING (item_id)
WHERE suspect.run_id = :run_id AND suspect.group_number = :group_number AND item.state = 'pending' AND coalesce(item.due_at_us, 0) < 1152921504606846976
ORDER BY item.item_id;

-- Fresh items from the watermark on, in input order.
-- name: item_list_fresh
SELECT item_id, attempt_count + 1, key, payload
FROM item
WHERE item_id BETWEEN :first_item_id AND :last_item_id AND state = 'pending' AND due_at_us IS NULL
ORDER BY item_id
LIMIT :limit;

-- Does any item that stands outside the input order still lack a batch? Those that are held back join none now.
-- name: item_has_due_without_batch
SELECT 1 FROM item WHERE run_id = ?1 AND due_at_us < 1152921504606846976 AND batch_id IS NULL LIMIT 1;

-- When the next item outside the input order is due; a due time that has passed means that one is ready.
-- name: item_next_due
SELECT due_at_us FROM item
WHERE run_id = ?1 AND due_at_us < 1152921504606846976
  AND NOT EXISTS (SELECT 1 FROM suspect WHERE suspect.item_id = item.item_id AND suspect.group_number IS NOT NULL)
ORDER BY due_at_us LIMIT 1;

-- When the first item is due that waits for a time of its own: ranks and returned items were due before the run was made.
-- name: item_next_waiting
SELECT item.due_at_us FROM run
JOIN item ON item.run_id = run.run_id AND item.due_at_us > run.created_at_us AND item.due_at_us < 1152921504606846976
WHERE run.run_id = ?1 ORDER BY item.due_at_us LIMIT 1;

-- Up to *?2* items outside the input order, and up to *?3* fresh ones of a stretch of ids: what `cancel` ends. Owed items are undone first.
-- name: item_list_due_to_cancel
SELECT item_id, state, batch_id FROM item WHERE run_id = ?1 AND due_at_us < 2305843009213693952 ORDER BY due_at_us LIMIT ?2;

-- name: item_list_fresh_to_cancel
SELECT item_id, state, batch_id FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND state = 'pending' AND due_at_us IS NULL ORDER BY item_id LIMIT ?3;

-- name: item_cancel
UPDATE item SET state = 'cancelled', due_at_us = NULL WHERE item_id IN carray(?1) AND state IN ('pending', 'scheduled');

-- An item that a check refused before it ran, where nobody has tried it since.
-- name: item_skip
UPDATE item SET state = 'skipped', due_at_us = NULL, attempt_count = attempt_count + 1
WHERE item_id = ?1 AND run_id = ?2 AND state = 'pending' AND attempt_count = ?3
RETURNING batch_id;

-- Items handed out but not started: pending again, as if they had never been claimed, except that they keep their batch.
-- name: item_release
UPDATE item
SET state = 'pending', dispatch_id = NULL, due_at_us = 0
WHERE item_id IN (SELECT value FROM json_each(:item_ids)) AND dispatch_id = :dispatch_id;

-- All items that were handed out when a coordinator died: pending again; those that had started carry one attempt more, uncharged.
-- name: item_recover
UPDATE item
SET state = 'pending', dispatch_id = NULL, due_at_us = 0,
    attempt_count   = attempt_count + (item_id IN (SELECT json_extract(value, '$[0]') FROM json_each(:started))),
    uncharged_count = uncharged_count + (item_id IN (SELECT json_extract(value, '$[0]') FROM json_each(:started)))
WHERE item_id IN (
    SELECT item.item_id FROM batch
    JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
    WHERE batch.run_id = :run_id AND batch.finished_at_us IS NULL AND item.state = 'running'
);

-- Ended items that a person wants to run again: whatever they may take is counted anew.
-- name: item_retry
UPDATE item
SET state = 'pending', due_at_us = 0, uncharged_count = attempt_count, earlier_count = attempt_count
WHERE item_id IN carray(?1);

-- Items that wait, and of which something is being undone, are not to run before that is done.
-- name: item_wait_for_undo
UPDATE item SET due_at_us = 2305843009213693952
WHERE item_id IN carray(?1) AND state = 'pending' AND EXISTS (SELECT 1 FROM undoing WHERE undoing.item_id = item.item_id);

-- What they did is undone, or cannot be: *:attempts* is 1 where that makes an attempt of its own, which is not charged.
-- name: item_end_undo
UPDATE item
SET state = :state, due_at_us = :due_at_us, attempt_count = attempt_count + :attempts, uncharged_count = uncharged_count + :attempts
WHERE item_id = :item_id AND due_at_us = 2305843009213693952;

-- What these items did is undone, whatever they were; their batches have counted them.
-- name: item_undo
UPDATE item SET state = 'undone', due_at_us = NULL WHERE item_id IN carray(?1);

-- A page of the failed items of a run.
-- name: item_list_failed_ids
SELECT item_id FROM item WHERE run_id = ?1 AND item_id > ?2 AND state IN ('failed', 'quarantined') ORDER BY item_id LIMIT ?3;

-- A page of the items of a stretch of ids that ended in any way but by success.
-- name: item_list_ended_ids
SELECT item_id FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND state IN ('failed', 'quarantined', 'skipped', 'cancelled', 'undone') ORDER BY item_id LIMIT ?3;

-- Which of these items are to run again? *:states* is a JSON array; *:error_type* and *:error_group* of the last attempt, NULL for any.
-- name: item_list_again
SELECT item.item_id, item.state
FROM item
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE item.item_id IN (SELECT value FROM json_each(:item_ids)) AND item.run_id = :run_id
  AND item.state IN (SELECT value FROM json_each(:states))
  AND NOT (item.state = 'cancelled' AND item.source_position = 0)
  AND (:error_type IS NULL OR attempt.error_type = :error_type)
  AND (:error_group IS NULL OR coalesce(attempt.error_group, attempt.error_type || ': ' || attempt.error_message) = :error_group)
ORDER BY item.item_id;

-- Failed items grouped by what went wrong, biggest group first. Attempts of before there were groups stand with their message.
-- name: item_list_error_groups
SELECT coalesce(attempt.error_group, attempt.error_type || ': ' || attempt.error_message) AS name,
       count(*) AS item_count, min(item.item_id), max(item.item_id)
FROM item
JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE item.run_id = ?1 AND item.state IN ('failed', 'quarantined')
GROUP BY attempt.error_type, name
ORDER BY item_count DESC, min(item.item_id)
LIMIT ?2;

-- Skipped items grouped by reason and remedy, biggest group first.
-- name: item_list_skipped_groups
SELECT attempt.error_message, attempt.remedy, count(*) AS item_count, min(item.item_id)
FROM attempt
JOIN item ON item.item_id = attempt.item_id AND item.attempt_count = attempt.number
WHERE attempt.outcome = 'skipped' AND attempt.error_message IS NOT NULL AND item.run_id = ?1 AND item.state = 'skipped'
GROUP BY attempt.error_message, attempt.remedy
ORDER BY item_count DESC, min(item.item_id)
LIMIT ?2;

-- A page of the items of a batch with their results and last errors, in input order.
-- name: item_list_of_batch
SELECT item.item_id, item.key, item.state, item.attempt_count - item.uncharged_count AS charged_count,
       attempt.error_type, attempt.error_message,
       result.value, result.segment_id, result.segment_offset, result.raw_bytes
FROM batch
JOIN item ON item.item_id BETWEEN max(batch.first_item_id, :after + 1) AND batch.last_item_id AND item.batch_id = batch.batch_id
LEFT JOIN result ON result.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count AND item.state <> 'succeeded'
WHERE batch.batch_id = :batch_id
ORDER BY item.item_id
LIMIT :limit;

-- A page of the items of a span, in input order, with results and last errors.
-- name: item_list_page
SELECT item.item_id, item.key, item.state, item.attempt_count - item.uncharged_count AS charged_count,
       attempt.error_type, attempt.error_message,
       result.value, result.segment_id, result.segment_offset, result.raw_bytes
FROM item
LEFT JOIN result ON result.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count AND item.state <> 'succeeded'
WHERE item.item_id BETWEEN :first_item_id AND :last_item_id
ORDER BY item.item_id
LIMIT :limit;

-- The same for given items, in the given order.
-- name: item_list_chosen
SELECT item.item_id, item.key, item.state, item.attempt_count - item.uncharged_count AS charged_count,
       attempt.error_type, attempt.error_message,
       result.value, result.segment_id, result.segment_offset, result.raw_bytes
FROM json_each(:item_ids) AS chosen
JOIN item ON item.item_id = chosen.value
LEFT JOIN result ON result.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count AND item.state <> 'succeeded'
ORDER BY chosen.key;

-- Items of a stretch of ids that the input has, as far as is known: what a source that is read again is compared with, row by row. Those that
-- were submitted stand at negative positions.
-- name: item_list_known
SELECT item_id, key, digest, state, source_position
FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND source_position > 0
ORDER BY item_id LIMIT ?3;

-- The same and, too, items that the input had lost and that were kept.
-- name: item_list_known_and_kept
SELECT item_id, key, digest, state, source_position
FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND (source_position > 0 OR source_position = -4611686018427387904)
ORDER BY item_id LIMIT ?3;

-- The same for items whose keys have these hashes (*?1*), those included that the input had lost. CROSS: SQLite keeps this order of the loops.
-- name: item_list_by_hash
SELECT hash.value, item.item_id, item.key, item.digest, item.state, item.source_position
FROM carray(?1) AS hash
CROSS JOIN item_key ON item_key.run_id = ?2 AND item_key.key_hash = hash.value
CROSS JOIN item ON item.item_id = item_key.item_id;

-- name: item_get_known
SELECT item_id, key, digest, state, source_position FROM item WHERE item_id = ?1;

-- Contents of a stretch of items, and whether the input had lost them; not of those that were submitted.
-- name: item_list_contents
SELECT item_id, digest, source_position <= 0
FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND (source_position >= 0 OR source_position = -4611686018427387904)
ORDER BY item_id LIMIT ?3;

-- Those of these items that may run again, with their states: ended ones that the input has.
-- name: item_list_ended
SELECT item_id, state FROM item
WHERE item_id IN carray(?1) AND run_id = ?2 AND state NOT IN ('pending', 'scheduled', 'running')
  AND NOT (state = 'cancelled' AND source_position = 0)
ORDER BY item_id;

-- A page of the ended items of a stretch of ids that the input has; *?4* is a JSON array of states.
-- name: item_list_ended_in
SELECT item_id FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND state IN (SELECT value FROM json_each(?4)) AND NOT (state = 'cancelled' AND source_position = 0)
ORDER BY item_id LIMIT ?3;

-- States of items of a run whose input may have changed, and whether the input had lost them.
-- name: item_list_states
SELECT item_id, state, state = 'cancelled' AND source_position = 0 FROM item WHERE item_id IN carray(?1) AND run_id = ?2 ORDER BY item_id;

-- The input has another payload for an item, which waits or is to wait: whatever it may take is counted anew, and nothing is waited for.
-- A dispatch that holds it is forgotten, so that what comes back of that changes nothing.
-- name: item_amend
UPDATE item
SET payload = :payload, digest = :digest, source_position = :source_position, priority = coalesce(:priority, priority), state = 'pending',
    due_at_us = CASE
        WHEN state = 'pending' AND due_at_us IS NULL THEN :due_at_us
        WHEN state = 'pending' OR due_at_us >= 1152921504606846976 THEN due_at_us
        ELSE 0 END,
    dispatch_id = NULL, uncharged_count = attempt_count, earlier_count = attempt_count
WHERE item_id = :item_id;

-- The row of an item stands elsewhere in the input.
-- name: item_reposition
UPDATE item SET source_position = ?2 WHERE item_id = ?1 AND NOT (state = 'cancelled' AND source_position = 0);

-- These items are out; *?2* says that the input no longer has them.
-- name: item_withdraw
UPDATE item
SET state = 'cancelled', due_at_us = NULL, source_position = CASE WHEN ?2 THEN 0 ELSE source_position END
WHERE item_id IN carray(?1);

-- Waiting items of a stretch of ids are not to run for now: due after the end of time, from where the due time that they had can be told.
-- name: item_hold
UPDATE item SET due_at_us = 1152921504606846976 + coalesce(due_at_us + 1, 0)
WHERE item_id BETWEEN ?1 AND ?2 AND state IN ('pending', 'scheduled') AND coalesce(due_at_us, 0) < 1152921504606846976;

-- They may run again, each at its time; those that the watermark has passed meanwhile are due at once.
-- name: item_let_go
UPDATE item
SET due_at_us = CASE
        WHEN due_at_us > 1152921504606846976 THEN due_at_us - 1152921504606846976 - 1
        WHEN item_id < (SELECT next_item_id FROM run WHERE run.run_id = ?1) THEN 0 END
WHERE run_id = ?1 AND due_at_us >= 1152921504606846976 AND due_at_us < 2305843009213693952;

-- name: item_count_held
SELECT count(*) FROM item WHERE run_id = ?1 AND due_at_us >= 1152921504606846976 AND due_at_us < 2305843009213693952;

-- name: item_list_held_keys
SELECT key FROM item WHERE run_id = ?1 AND due_at_us >= 1152921504606846976 AND due_at_us < 2305843009213693952 ORDER BY item_id LIMIT ?2;

-- What `verify` lists, at most twenty of a kind. Items outside every span of their run:
-- name: item_list_outside_spans
SELECT item.item_id FROM item
WHERE NOT EXISTS (
    SELECT 1 FROM span WHERE span.run_id = item.run_id AND span.last_item_id >= item.item_id AND span.first_item_id <= item.item_id)
LIMIT 20;

-- Items outside the bounds of their batch, or in a batch of another run.
-- name: item_list_outside_batch
SELECT item.item_id, item.batch_id
FROM item JOIN batch USING (batch_id)
WHERE item.run_id <> batch.run_id OR item.item_id NOT BETWEEN batch.first_item_id AND batch.last_item_id
LIMIT 20;

-- Fresh items that the watermark has passed: nobody would ever claim them.
-- name: item_list_passed_by
SELECT item.item_id, run.next_item_id
FROM item JOIN run USING (run_id)
WHERE item.state = 'pending' AND item.due_at_us IS NULL AND item.item_id < run.next_item_id
LIMIT 20;

-- Items that the input has lost and that are not cancelled.
-- name: item_list_lost_mismatch
SELECT item_id, state FROM item WHERE source_position = 0 AND state <> 'cancelled' LIMIT 20;

-- Running items of a dispatch that was never made.
-- name: item_list_unknown_dispatch
SELECT item.item_id, item.dispatch_id, run.dispatch_count
FROM item JOIN run USING (run_id)
WHERE item.dispatch_id NOT BETWEEN 1 AND run.dispatch_count
LIMIT 20;

-- Succeeded items without a result, and results of items that did not succeed.
-- name: item_list_result_mismatch
SELECT item.item_id, item.state, result.item_id IS NOT NULL
FROM item LEFT JOIN result ON result.item_id = item.item_id
WHERE (item.state = 'succeeded') <> (result.item_id IS NOT NULL)
LIMIT 20;

-- Items whose attempts are not numbered from 1 to their count.
-- name: item_list_attempt_mismatch
SELECT item.item_id, item.attempt_count, count(attempt.number) AS found, coalesce(max(attempt.number), 0) AS highest
FROM item LEFT JOIN attempt ON attempt.item_id = item.item_id
GROUP BY item.item_id
HAVING item.attempt_count <> found OR item.attempt_count <> highest
LIMIT 20;

-- Ended items whose last attempt tells of another end.
-- name: item_list_outcome_mismatch
SELECT item.item_id, item.state, attempt.outcome
FROM item JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE (item.state = 'succeeded' AND attempt.outcome <> 'succeeded')
   OR (item.state = 'skipped' AND attempt.outcome <> 'skipped')
   OR (item.state IN ('failed', 'quarantined') AND attempt.outcome NOT IN ('failed', 'timed_out', 'crashed'))
LIMIT 20;

-- Keys and payloads with what was computed of them, in input order: what `verify` recomputes. As bytes, since text may be damaged.
-- name: item_list_digests
SELECT item_id, CAST(key AS BLOB), run_id, CAST(payload AS BLOB), digest FROM item ORDER BY item_id;

-- The items of a run (?1) in a state (?2, NULL for any) for which an expression of the user's over v_item holds; it is put in for *:where*,
-- outside of the choice of the run, so that nothing in it can widen that.
-- name: item_list_where
SELECT item_id
FROM (SELECT * FROM v_item WHERE run_id = ?1 AND (?2 IS NULL OR state = ?2))
WHERE (:where)
ORDER BY item_id;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: item_list_impossible
SELECT item_id FROM item
WHERE uncharged_count NOT BETWEEN 0 AND attempt_count
   OR earlier_count NOT BETWEEN 0 AND uncharged_count
   OR (state = 'running') <> (dispatch_id IS NOT NULL)
   OR CASE
          WHEN state = 'pending' THEN 0
          WHEN state = 'scheduled' THEN due_at_us IS NULL
          WHEN state IN ('skipped', 'cancelled') THEN due_at_us IS NOT NULL
          WHEN state IN ('running', 'succeeded', 'failed', 'quarantined', 'undone') THEN due_at_us IS NOT NULL OR batch_id IS NULL
          ELSE 1
      END
LIMIT 20;
