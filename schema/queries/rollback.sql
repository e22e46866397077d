-- rollback: which items are to be undone, and what remains of what they did, over the tables item, undo and undoing. Written by rollback,
-- retry and redo. An item that waits until its effects are undone is due at 2^61; the effects that can be undone are those whose entries are
-- recorded, undoing or failed.

-- A page of the items of a stretch of ids, and of batch *?4* (NULL: of any), that are in one of the states *?3* (a JSON array) or have effects
-- that can be undone; none that a worker has. With each its state and whether it waits for its effects to be undone.
-- name: rollback_list_items
SELECT item_id, state, coalesce(due_at_us, 0) >= 2305843009213693952
FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND (?4 IS NULL OR batch_id = ?4) AND state <> 'running'
  AND ((state IN (SELECT value FROM json_each(?3)) AND NOT (state = 'cancelled' AND source_position = 0))
       OR EXISTS (SELECT 1 FROM undo WHERE undo.item_id = item.item_id AND undo.state IN ('recorded', 'undoing', 'failed')))
ORDER BY item_id LIMIT ?5;

-- The same of some ids.
-- name: rollback_list_chosen
SELECT item_id, state, coalesce(due_at_us, 0) >= 2305843009213693952
FROM item
WHERE item_id IN carray(?1) AND run_id = ?2 AND (?4 IS NULL OR batch_id = ?4) AND state <> 'running'
  AND ((state IN (SELECT value FROM json_each(?3)) AND NOT (state = 'cancelled' AND source_position = 0))
       OR EXISTS (SELECT 1 FROM undo WHERE undo.item_id = item.item_id AND undo.state IN ('recorded', 'undoing', 'failed')))
ORDER BY item_id;

-- Those of some items of a run (?1; ?2 is a JSON array of ids) for which an expression of the user's over v_item holds, put in for *:where*.
-- name: rollback_list_where
SELECT item_id
FROM (SELECT * FROM v_item WHERE run_id = ?1 AND item_id IN (SELECT value FROM json_each(?2)))
WHERE (:where);

-- Have the effects of items undone that still can be; *?4* says whether also those of attempts that succeeded. One row an entry.
-- name: rollback_want
UPDATE undo
SET wanted_at_us = coalesce(wanted_at_us, ?2), is_in_order = ?3, ended_at_us = NULL,
    try_count = CASE WHEN state = 'failed' THEN 0 ELSE try_count END,
    state     = CASE WHEN state = 'failed' THEN 'recorded' ELSE state END
WHERE item_id IN carray(?1) AND state IN ('recorded', 'undoing', 'failed')
  AND (?4 OR NOT EXISTS (
      SELECT 1 FROM attempt WHERE attempt.item_id = undo.item_id AND attempt.number = undo.number AND attempt.outcome = 'succeeded'))
RETURNING item_id;

-- What becomes of items once nothing of theirs is to be undone any more: those that have ended are undone, those that wait go on as they do now,
-- and those that the input has lost stay out.
-- name: rollback_defer
INSERT INTO undoing (item_id, run_id, then_state, then_due_at_us)
SELECT item_id, run_id,
       CASE WHEN state IN ('pending', 'scheduled') OR (state = 'cancelled' AND source_position = 0) THEN state ELSE 'undone' END,
       CASE WHEN state IN ('pending', 'scheduled') THEN coalesce(nullif(due_at_us, 2305843009213693952), 0) END
FROM item WHERE item_id IN carray(?1)
ON CONFLICT (item_id) DO UPDATE SET then_state = excluded.then_state, then_due_at_us = excluded.then_due_at_us;

-- Items that wait do not run before their effects are undone.
-- name: rollback_set_aside
UPDATE item SET state = 'pending', due_at_us = 2305843009213693952 WHERE item_id IN carray(?1) AND state IN ('pending', 'scheduled');

-- Items that were to run again once their effects are undone are undone themselves then.
-- name: rollback_doom
UPDATE undoing SET then_state = 'undone', then_due_at_us = NULL WHERE item_id IN carray(?1) AND then_state IN ('pending', 'scheduled');

-- name: rollback_count_irreversible
SELECT count(*) FROM undo WHERE item_id IN carray(?1) AND state = 'irreversible';

-- A batch by its number, with its bounds.
-- name: rollback_get_batch
SELECT batch_id, first_item_id, last_item_id, finished_at_us FROM batch WHERE run_id = ?1 AND number = ?2;

-- The bounds of a batch of which an item has failed for good.
-- name: rollback_broken_batch
SELECT first_item_id, last_item_id FROM batch
WHERE batch_id = ?1 AND failed_count > 0
  AND EXISTS (
      SELECT 1 FROM item
      WHERE item.run_id = batch.run_id AND item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
        AND item.state IN ('failed', 'quarantined'));

-- The batches of a run in which something has succeeded and something else has not: each of them may be broken.
-- name: rollback_list_mixed_batches
SELECT batch_id FROM batch
WHERE run_id = ?1 AND failed_count > 0 AND failed_count < item_count
  AND EXISTS (
      SELECT 1 FROM item
      WHERE item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id AND item.state = 'succeeded')
ORDER BY batch_id;

-- A page of the items of a broken batch that are not to stay: succeeded ones, and those that wait and are not held back. None whose effects are
-- being undone already, or could not be.
-- name: rollback_list_broken_items
SELECT item_id, state, coalesce(due_at_us, 0) >= 2305843009213693952
FROM item
WHERE item_id BETWEEN ?1 AND ?2 AND batch_id = ?3 AND state IN ('succeeded', 'pending', 'scheduled')
  AND NOT coalesce(due_at_us, 0) BETWEEN 1152921504606846976 AND 2305843009213693951
  AND NOT EXISTS (SELECT 1 FROM undoing WHERE undoing.item_id = item.item_id AND undoing.then_state = 'undone')
  AND NOT EXISTS (SELECT 1 FROM undo WHERE undo.item_id = item.item_id AND undo.state = 'failed')
ORDER BY item_id LIMIT ?4;

-- A page of the items whose rollback is given up: none of which a worker undoes a step, and none that is half undone beside others.
-- name: rollback_list_given_up
SELECT undoing.item_id
FROM undoing JOIN item USING (item_id)
WHERE undoing.run_id = ?1 AND undoing.item_id > ?2 AND undoing.then_state = 'undone' AND item.state NOT IN ('pending', 'scheduled', 'running')
  AND NOT EXISTS (SELECT 1 FROM undo WHERE undo.item_id = undoing.item_id AND undo.dispatch_id IS NOT NULL)
  AND NOT EXISTS (
      SELECT 1 FROM undo JOIN undo AS before USING (item_id)
      WHERE undo.item_id = undoing.item_id AND undo.wanted_at_us IS NOT NULL AND NOT undo.is_in_order
        AND before.state = 'undone' AND before.ended_at_us >= undo.wanted_at_us)
ORDER BY undoing.item_id LIMIT ?3;

-- The newest effect that is left of each of these items that is half undone: it remains, and is listed as such.
-- name: rollback_fail_half_undone
UPDATE undo
SET state = 'failed', error = 'the rollback ended before it', wanted_at_us = NULL, due_at_us = NULL, ended_at_us = ?2
WHERE item_id IN carray(?1) AND wanted_at_us IS NOT NULL
  AND EXISTS (
      SELECT 1 FROM undo AS before
      WHERE before.item_id = undo.item_id AND before.state = 'undone' AND before.ended_at_us >= undo.wanted_at_us)
  AND NOT EXISTS (
      SELECT 1 FROM undo AS newer
      WHERE newer.item_id = undo.item_id AND newer.undo_id > undo.undo_id AND newer.wanted_at_us IS NOT NULL);

-- The other effects of these items stay, as if nobody had wanted to undo them.
-- name: rollback_unwant
UPDATE undo SET state = 'recorded', wanted_at_us = NULL, due_at_us = NULL, is_in_order = 0
WHERE item_id IN carray(?1) AND wanted_at_us IS NOT NULL;

-- name: rollback_keep_items
DELETE FROM undoing WHERE item_id IN carray(?1);

-- A page of the entries before *?2* of a run that are not undone, newest first: of items from *?3* on, of batch *?4* (NULL: any), and of the
-- items *?5* (a JSON array of ids; NULL: any).
-- name: rollback_list_planned
SELECT undo.undo_id, undo.item_id, item.key, batch.number, undo.number, undo.action, undo.arguments, undo.state, undo.recorded_at_us
FROM undo
JOIN item ON item.item_id = undo.item_id
LEFT JOIN batch ON batch.batch_id = item.batch_id
WHERE undo.undo_id < ?2 AND +undo.run_id = ?1 AND undo.state <> 'undone' AND undo.item_id >= ?3
  AND (?4 IS NULL OR batch.number = ?4) AND (?5 IS NULL OR undo.item_id IN (SELECT value FROM json_each(?5)))
ORDER BY undo.undo_id DESC LIMIT ?6;

-- What remains though it was to be undone, newest first, and how much that is: what failed, what nobody is at, what cannot be undone of items
-- that did not succeed, and what stands before an effect that could not be undone. Each term on the states is that of the index, to be found by it.
-- name: rollback_list_unresolved
WITH known (undo_id, item_id, number, state) AS (
    SELECT undo_id, item_id, number, state FROM undo WHERE run_id = ?1 AND state IN ('undoing', 'failed', 'irreversible')),
remaining (undo_id) AS (
    SELECT undo_id FROM known WHERE state <> 'irreversible'
    UNION
    SELECT known.undo_id FROM known JOIN item ON item.item_id = known.item_id WHERE known.state = 'irreversible' AND item.state <> 'succeeded'
    UNION
    SELECT older.undo_id FROM known JOIN undo AS older ON older.item_id = known.item_id AND older.number = known.number
    WHERE known.state = 'failed' AND older.state = 'recorded' AND older.wanted_at_us IS NULL)
SELECT item.key, batch.number, undo.number, undo.action, undo.arguments, undo.state, undo.error, count(*) OVER ()
FROM remaining
JOIN undo ON undo.undo_id = remaining.undo_id
JOIN item ON item.item_id = undo.item_id
LEFT JOIN batch ON batch.batch_id = item.batch_id
ORDER BY undo.undo_id DESC LIMIT ?2;

-- Entries that could not be undone and, where *?2* says that nobody works, those at which somebody was.
-- name: rollback_count_unresolved
SELECT count(*) FROM undo
WHERE run_id = ?1 AND state IN ('undoing', 'failed', 'irreversible') AND (state = 'failed' OR (?2 AND state = 'undoing'));

-- Is something being undone that had succeeded?
-- name: rollback_is_begun
SELECT 1 FROM undoing WHERE run_id = ?1 AND then_state = 'undone' LIMIT 1;

-- What an item has recorded so that it can be undone, oldest first.
-- name: rollback_list_of_item
SELECT action, state, wanted_at_us IS NOT NULL, number, try_count, error, recorded_at_us, ended_at_us FROM undo WHERE item_id = ?1 ORDER BY undo_id;
