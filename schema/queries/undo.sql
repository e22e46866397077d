-- undo, undo_blob and undoing: promises to take effects back, what that needs, and the items that wait for it. Written by promise, owing and
-- steps. An item that is owed waits at 2^61: its attempt did not succeed, and what it did is undone first.

-- An effect may happen from now on, where the dispatch still holds its item and this is the attempt that is going on; else no row comes back.
-- name: undo_insert
INSERT INTO undo (run_id, item_id, number, sequence, action, arguments, state, recorded_at_us)
SELECT run_id, item_id, :number, :sequence, :action, :arguments, :state, :now_us FROM item
WHERE item_id = :item_id AND run_id = :run_id AND dispatch_id = :dispatch_id AND attempt_count = :number - 1
ON CONFLICT (item_id, number, sequence) DO NOTHING
RETURNING undo_id;

-- name: undo_insert_blob
INSERT INTO undo_blob (undo_id, raw_bytes, digest, data) VALUES (?1, ?2, ?3, ?4);

-- What an attempt did is to be undone.
-- name: undo_want_attempt
UPDATE undo SET wanted_at_us = ?3 WHERE item_id = ?1 AND number = ?2 AND state = 'recorded';

-- What is not with a worker of an item is not to be undone any more; what had failed before has failed still.
-- name: undo_unwant
UPDATE undo
SET wanted_at_us = NULL, due_at_us = NULL,
    ended_at_us = CASE WHEN error IS NOT NULL THEN ?2 END,
    state = CASE WHEN error IS NULL THEN 'recorded' ELSE 'failed' END
WHERE item_id = ?1 AND wanted_at_us IS NOT NULL AND dispatch_id IS NULL
RETURNING is_in_order;

-- name: undo_has_wanted
SELECT 1 FROM undo WHERE item_id = ?1 AND wanted_at_us IS NOT NULL LIMIT 1;

-- Can something that an item did not be undone, in the attempts after *?2*? The first such action.
-- name: undo_first_irreversible
SELECT action FROM undo WHERE item_id = ?1 AND number > ?2 AND state = 'irreversible' ORDER BY number, sequence LIMIT 1;

-- An item whose effects are to be undone, and what becomes of it then.
-- name: undo_insert_undoing
INSERT INTO undoing (item_id, run_id, then_state, then_due_at_us) VALUES (?1, ?2, ?3, ?4);

-- Items of *?1* some of whose effects are being undone are to run once that is done, whatever was to become of them.
-- name: undo_let_run
UPDATE undoing
SET then_state = 'pending', then_due_at_us = CASE WHEN then_due_at_us >= 1152921504606846976 THEN then_due_at_us ELSE 0 END
WHERE item_id IN carray(?1);

-- Items that wait, and that are cancelled once everything is undone. Two forms: of a run, and of *?1*.
-- name: undo_cancel_of_run
UPDATE undoing SET then_state = 'cancelled', then_due_at_us = NULL WHERE run_id = ?1 AND then_state IN ('pending', 'scheduled');

-- name: undo_cancel_some
UPDATE undoing SET then_state = 'cancelled', then_due_at_us = NULL WHERE item_id IN carray(?1) AND then_state IN ('pending', 'scheduled');

-- Items that were cancelled stay so when everything that they did is undone.
-- name: undo_stay_cancelled
UPDATE undoing SET then_state = 'cancelled', then_due_at_us = NULL WHERE item_id IN carray(?1);

-- Items of a stretch of ids that are owed and are not to run for now once everything is undone; and that they may run again.
-- name: undo_hold
UPDATE undoing SET then_due_at_us = 1152921504606846976 + coalesce(then_due_at_us + 1, 0)
WHERE item_id BETWEEN ?1 AND ?2 AND then_state IN ('pending', 'scheduled') AND coalesce(then_due_at_us, 0) < 1152921504606846976;

-- name: undo_let_go
UPDATE undoing SET then_due_at_us = max(0, then_due_at_us - 1152921504606846976 - 1) WHERE run_id = ?1 AND then_due_at_us >= 1152921504606846976;

-- name: undo_get_undoing
SELECT then_state, then_due_at_us FROM undoing WHERE item_id = ?1;

-- name: undo_list_undoing
SELECT item_id FROM undoing WHERE item_id IN carray(?1);

-- name: undo_remove_undoing
DELETE FROM undoing WHERE item_id = ?1;

-- How many entries of a run are to be undone, of them in an order over all items; and how many items wait for that.
-- name: undo_count_wanted
SELECT count(*), coalesce(sum(is_in_order), 0) FROM undo WHERE run_id = ?1 AND wanted_at_us IS NOT NULL;

-- name: undo_count_undoing
SELECT count(*) FROM undoing WHERE run_id = ?1;

-- How many steps are with workers.
-- name: undo_count_out
SELECT count(*) FROM undo
WHERE run_id = ?1 AND state IN ('undoing', 'failed', 'irreversible') AND state = 'undoing' AND dispatch_id IS NOT NULL;

-- When the next step is due that waits for a further try.
-- name: undo_next_due
SELECT min(due_at_us) FROM undo
WHERE run_id = ?1 AND state IN ('undoing', 'failed', 'irreversible') AND state = 'undoing' AND dispatch_id IS NULL AND due_at_us > ?2;

-- What is to be undone, newest first, as (entry, item, bytes that a worker needs of it; NULL while it is with one, or waits). The first row of an
-- item is the one whose turn it is. Two forms: what has no order over all items, and the newest of what has.
-- name: undo_list_wanted
SELECT undo_id, item_id,
       CASE WHEN dispatch_id IS NULL AND coalesce(due_at_us, 0) <= ?2
            THEN length(arguments) + coalesce((SELECT length(data) FROM undo_blob WHERE undo_blob.undo_id = undo.undo_id), 0) END
FROM undo
WHERE run_id = ?1 AND is_in_order = 0 AND wanted_at_us IS NOT NULL
ORDER BY undo_id DESC;

-- name: undo_first_in_order
SELECT undo_id, item_id, dispatch_id IS NULL AND coalesce(due_at_us, 0) <= ?2
FROM undo
WHERE run_id = ?1 AND is_in_order = 1 AND wanted_at_us IS NOT NULL
ORDER BY undo_id DESC LIMIT 1;

-- Of these items, the newest entry that is to be undone, whether it has an order or not.
-- name: undo_newest_wanted
SELECT max(undo_id) FROM undo WHERE item_id IN carray(?1) AND wanted_at_us IS NOT NULL GROUP BY item_id;

-- What a worker needs of these steps, newest first.
-- name: undo_list_claimed
SELECT undo.undo_id, undo.try_count + 1, item.key, undo.action, undo.arguments,
       run.name || '/' || item.key || '/' || undo.number || '/' || undo.sequence, undo_blob.data
FROM undo
JOIN item USING (item_id)
JOIN run ON run.run_id = undo.run_id
LEFT JOIN undo_blob USING (undo_id)
WHERE undo.undo_id IN carray(?1)
ORDER BY undo.undo_id DESC;

-- name: undo_claim
UPDATE undo SET state = 'undoing', dispatch_id = ?2, due_at_us = NULL WHERE undo_id IN carray(?1);

-- A step that a dispatch holds.
-- name: undo_get_held
SELECT undo.undo_id, undo.item_id, item.key, undo.action, undo.try_count, undo.is_in_order
FROM undo JOIN item USING (item_id)
WHERE undo.undo_id = ?1 AND undo.dispatch_id = ?2;

-- Its effect is taken back.
-- name: undo_finish
UPDATE undo
SET state = 'undone', wanted_at_us = NULL, dispatch_id = NULL, error = NULL, try_count = try_count + 1, ended_at_us = ?2
WHERE undo_id = ?1;

-- name: undo_remove_blob
DELETE FROM undo_blob WHERE undo_id = ?1;

-- A try has failed or was cut off, and another one follows.
-- name: undo_put_off
UPDATE undo SET dispatch_id = NULL, due_at_us = ?2, error = coalesce(?3, error), try_count = try_count + ?4 WHERE undo_id = ?1;

-- The last try has failed, or there never is one: its effect remains. *?2* says which.
-- name: undo_give_up
UPDATE undo
SET state = ?2, wanted_at_us = NULL, dispatch_id = NULL, due_at_us = NULL, error = ?3, try_count = try_count + 1, ended_at_us = ?4
WHERE undo_id = ?1;

-- Steps handed out but not begun.
-- name: undo_release
UPDATE undo SET dispatch_id = NULL WHERE undo_id IN carray(?1) AND dispatch_id = ?2;

-- Steps that were with workers when a coordinator died, in whatever run: they are taken again.
-- name: undo_recover
UPDATE undo SET dispatch_id = NULL
WHERE state IN ('undoing', 'failed', 'irreversible') AND state = 'undoing' AND dispatch_id IS NOT NULL;

-- Running items whose attempt has promised something: it had begun. Two forms: of a run, and those of *?1*, which
-- a dispatch holds where one is given.
-- name: undo_list_begun
SELECT DISTINCT item.item_id
FROM batch
CROSS JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
CROSS JOIN undo ON undo.item_id = item.item_id AND undo.number = item.attempt_count + 1
WHERE batch.run_id = ?1 AND batch.finished_at_us IS NULL AND item.state = 'running'
ORDER BY item.item_id;

-- name: undo_list_begun_of
SELECT DISTINCT item.item_id
FROM item JOIN undo ON undo.item_id = item.item_id AND undo.number = item.attempt_count + 1
WHERE item.item_id IN carray(?1) AND item.state = 'running' AND (?2 IS NULL OR item.dispatch_id = ?2)
ORDER BY item.item_id;

-- What `verify` lists, at most twenty of a kind. Runs that say another number of entries than there are:
-- name: undo_list_count_mismatch
WITH entries AS (SELECT run_id, count(*) AS count FROM undo GROUP BY run_id)
SELECT run.run_id, run.undo_count, coalesce(entries.count, 0) FROM run LEFT JOIN entries USING (run_id)
WHERE run.undo_count <> coalesce(entries.count, 0)
LIMIT 20;

-- Entries of another run than their item, of an attempt that there was not, or whose arguments are no JSON object.
-- name: undo_list_misplaced
SELECT undo.undo_id,
       CASE WHEN undo.run_id <> item.run_id THEN 'is of another run than its item'
            WHEN undo.number NOT BETWEEN 1 AND item.attempt_count + (item.state = 'running') THEN 'is of an attempt that there was not'
            WHEN CASE WHEN json_valid(undo.arguments) THEN json_type(undo.arguments) = 'object' ELSE 0 END THEN NULL
            ELSE 'its arguments are no JSON object' END AS fault
FROM undo JOIN item USING (item_id)
WHERE fault IS NOT NULL
LIMIT 20;

-- Items that wait for something to be undone and have nothing that is, or that do not wait, or do not become what ended items can.
-- name: undo_list_undoing_misplaced
SELECT undoing.item_id,
       CASE WHEN undoing.run_id <> item.run_id THEN 'is of another run than its item'
            WHEN NOT EXISTS (SELECT 1 FROM undo WHERE undo.item_id = item.item_id AND undo.wanted_at_us IS NOT NULL)
                THEN 'nothing of its item is to be undone'
            WHEN NOT CASE WHEN item.state IN ('pending', 'scheduled', 'running') THEN item.due_at_us IS 2305843009213693952
                          ELSE undoing.then_state IN ('undone', item.state) END
                THEN 'its item is ' || item.state || ', and is to become ' || undoing.then_state END AS fault
FROM undoing JOIN item USING (item_id)
WHERE fault IS NOT NULL
LIMIT 20;

-- Entries that are to be undone though nothing waits for that, and items that wait for it forever.
-- name: undo_list_unclaimed_mismatch
SELECT undo.undo_id FROM undo
WHERE undo.wanted_at_us IS NOT NULL AND NOT EXISTS (SELECT 1 FROM undoing WHERE undoing.item_id = undo.item_id)
LIMIT 20;

-- name: undo_list_stranded_mismatch
SELECT item.item_id FROM run
JOIN item ON item.run_id = run.run_id AND item.due_at_us >= 2305843009213693952
WHERE NOT EXISTS (SELECT 1 FROM undoing WHERE undoing.item_id = item.item_id)
LIMIT 20;

-- Effects that nobody takes back any more: of a waiting item that nobody asked to run again since, or of one that says that it is undone.
-- name: undo_list_forgotten_mismatch
SELECT undo.undo_id, item.state
FROM undo JOIN item USING (item_id)
WHERE undo.wanted_at_us IS NULL AND undo.state IN ('recorded', 'undoing', 'failed')
  AND (item.state = 'undone' OR (item.state IN ('pending', 'scheduled') AND undo.number > item.earlier_count))
LIMIT 20;

-- Contents of before with what they must unpack to, a walk over all of them.
-- name: undo_list_contents_inline
SELECT undo_blob.undo_id, undo.state, undo_blob.raw_bytes, undo_blob.digest, undo_blob.data FROM undo_blob LEFT JOIN undo USING (undo_id) ORDER BY undo_blob.undo_id;

-- Rows that the tables' CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: undo_list_impossible
SELECT undo_id FROM undo
WHERE CASE state
          WHEN 'recorded'     THEN dispatch_id IS NOT NULL OR ended_at_us IS NOT NULL
          WHEN 'undoing'      THEN wanted_at_us IS NULL OR ended_at_us IS NOT NULL
          WHEN 'undone'       THEN wanted_at_us IS NOT NULL OR dispatch_id IS NOT NULL OR ended_at_us IS NULL
          WHEN 'failed'       THEN wanted_at_us IS NOT NULL OR dispatch_id IS NOT NULL OR ended_at_us IS NULL
          WHEN 'irreversible' THEN wanted_at_us IS NOT NULL OR dispatch_id IS NOT NULL
          ELSE 1
      END
LIMIT 20;

-- name: undo_undoing_list_impossible
SELECT item_id FROM undoing
WHERE then_state NOT IN ('pending', 'scheduled', 'failed', 'skipped', 'cancelled', 'quarantined', 'undone')
   OR (then_due_at_us IS NOT NULL AND then_state NOT IN ('pending', 'scheduled'))
LIMIT 20;

-- How many entries of a run there are in each state, found by its items.
-- name: undo_count_states
SELECT undo.state, count(*)
FROM span
JOIN undo ON undo.item_id BETWEEN span.first_item_id AND span.last_item_id AND undo.run_id = span.run_id
WHERE span.run_id = ?1
GROUP BY undo.state;
