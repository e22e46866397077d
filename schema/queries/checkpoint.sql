-- checkpoint: every finished batch is one, and holds what had ended when it finished. Only marks are written here, by people.

-- THE definition, and the only one: what checkpoint *:number*, made at *:finished_at_us*, does not hold of a stretch of ids. It holds an item that
-- has ended and, as it is now, had ended then: with its batch, if that is of this number or before and had finished by then; else by its last
-- attempt. *:ended* leaves out what has not ended: the rest is what a rollback to the checkpoint takes back.
-- name: checkpoint_list_outside
SELECT item.item_id, item.key, item.state
FROM item
LEFT JOIN batch ON batch.batch_id = item.batch_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE item.item_id BETWEEN :first_item_id AND :last_item_id
  AND CASE
          WHEN item.state IN ('pending', 'scheduled', 'running') THEN NOT :ended
          WHEN batch.number <= :number AND batch.finished_at_us <= :finished_at_us THEN 0
          ELSE coalesce(batch.number, 0) >= :number OR coalesce(attempt.started_at_us + attempt.duration_us > :finished_at_us, 1)
      END
ORDER BY item.item_id
LIMIT :limit;

-- When the ended items of a batch had ended, those without an attempt left out: what a checkpoint holds of a batch that finished after it.
-- name: checkpoint_list_ends
SELECT attempt.started_at_us + attempt.duration_us
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE batch.batch_id = ?1 AND item.state NOT IN ('pending', 'scheduled', 'running')
ORDER BY 1;

-- The same for ended items that are in no batch, since a check refused them before.
-- name: checkpoint_list_ends_without_batch
SELECT attempt.started_at_us + attempt.duration_us
FROM span
JOIN item ON item.item_id BETWEEN span.first_item_id AND span.last_item_id
JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count
WHERE span.run_id = ?1 AND item.batch_id IS NULL AND item.state NOT IN ('pending', 'scheduled', 'running')
ORDER BY 1;

-- The batches of a run, those that have not finished among them.
-- name: checkpoint_list_batches
SELECT batch_id, number, item_count, ended_count, failed_count, finished_at_us, result_bytes, digest FROM batch WHERE run_id = ?1 ORDER BY number;

-- name: checkpoint_last
SELECT batch_id, number, item_count, ended_count, failed_count, finished_at_us, result_bytes, digest
FROM batch WHERE run_id = ?1 AND finished_at_us IS NOT NULL ORDER BY finished_at_us DESC, number DESC LIMIT 1;

-- What the digest of a batch is made of: the results of its items. Inline values as bytes, since text may be damaged.
-- name: checkpoint_list_inline
SELECT result.item_id, CAST(result.value AS BLOB)
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
JOIN result ON result.item_id = item.item_id
WHERE batch.batch_id = ?1 AND result.segment_id IS NULL;

-- Of packed ones their places, and what their segment has; a segment that is missing has nothing.
-- name: checkpoint_list_packed
SELECT result.item_id, coalesce(segment.digest, x''), result.segment_offset, result.raw_bytes
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
JOIN result ON result.item_id = item.item_id
LEFT JOIN segment ON segment.segment_id = result.segment_id
WHERE batch.batch_id = ?1 AND result.segment_id IS NOT NULL;

-- The segments that results of a batch lie in, each with one of the items.
-- name: checkpoint_list_segments
SELECT result.segment_id, min(item.key)
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
JOIN result ON result.item_id = item.item_id
WHERE batch.batch_id = ?1 AND result.segment_id IS NOT NULL
GROUP BY result.segment_id;

-- Items of a batch that succeeded and have no result, or have one and did not succeed.
-- name: checkpoint_list_result_mismatch
SELECT item.key, item.state
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
LEFT JOIN result ON result.item_id = item.item_id
WHERE batch.batch_id = ?1 AND (item.state = 'succeeded') <> (result.item_id IS NOT NULL)
ORDER BY item.item_id
LIMIT ?2;

-- Batches that have finished and whose digest is not known.
-- name: checkpoint_list_unknown
SELECT batch_id FROM batch WHERE run_id = ?1 AND finished_at_us IS NOT NULL AND digest IS NULL ORDER BY batch_id;

-- name: checkpoint_set_digest
UPDATE batch SET result_bytes = ?2, digest = ?3 WHERE batch_id = ?1;

-- The counters of a batch as its rows have them: items, ended, failed.
-- name: checkpoint_recount
SELECT count(item.item_id),
       coalesce(sum(item.state NOT IN ('pending', 'scheduled', 'running')), 0),
       coalesce(sum(item.state IN ('failed', 'cancelled', 'quarantined', 'undone')), 0)
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
WHERE batch.batch_id = ?1;

-- Entries of the items of batches up to *?2* that do not fit what became of their attempts. An effect stands exactly when the attempt that had it
-- is a success that was not taken back: its entry is recorded, or irreversible. Everything else should be undone, and nothing should be half way.
-- name: checkpoint_list_undo_mismatch
SELECT batch.number, item.key, item.state, undo.number, attempt.outcome, undo.action, undo.state, undo.wanted_at_us IS NOT NULL
FROM batch
JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
JOIN undo ON undo.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = undo.item_id AND attempt.number = undo.number
WHERE batch.run_id = ?1 AND batch.number <= ?2 AND item.state NOT IN ('pending', 'scheduled', 'running')
  AND (undo.wanted_at_us IS NOT NULL
       OR undo.state IN ('undoing', 'failed')
       OR (undo.state = 'undone' AND item.state = 'succeeded' AND undo.number = item.attempt_count)
       OR (undo.state = 'recorded' AND (attempt.outcome <> 'succeeded' OR item.state = 'undone')))
ORDER BY batch.number, undo.undo_id
LIMIT ?3;

-- Entries of a run: what it says that it has recorded.
-- name: checkpoint_undo_recount
SELECT count(*) FROM undo WHERE run_id = ?1;

-- name: checkpoint_insert_mark
INSERT INTO mark (run_id, label, batch_number, marked_at_us) VALUES (?1, ?2, ?3, ?4);

-- name: checkpoint_get_mark
SELECT batch_number FROM mark WHERE run_id = ?1 AND label = ?2;

-- name: checkpoint_list_marks
SELECT batch_number, label FROM mark WHERE run_id = ?1 ORDER BY batch_number, marked_at_us, label;
