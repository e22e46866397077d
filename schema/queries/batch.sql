-- batch: numbered groups of items. Written by claim (opening, filling, sealing) and finish (ending).

-- Some items of a batch have ended; the last one of a sealed batch finishes it. NULL for *:bytes* and *:digest*: what their results come to is
-- not known, nor is then what all of the batch come to.
-- name: batch_add_ended
UPDATE batch
SET ended_count    = ended_count + :ended,
    failed_count   = failed_count + :failed,
    result_bytes   = result_bytes + :bytes,
    digest         = digest + :digest,
    finished_at_us = CASE WHEN sealed AND ended_count + :ended = item_count THEN :now_us END
WHERE batch_id = :batch_id
RETURNING CASE WHEN finished_at_us IS NOT NULL AND digest IS NULL THEN batch_id END;

-- More items have joined; *:sealed* says that they are the last.
-- name: batch_add_items
UPDATE batch
SET item_count     = item_count + :count,
    first_item_id  = min(first_item_id, :first_item_id),
    last_item_id   = max(last_item_id, :last_item_id),
    sealed         = :sealed,
    finished_at_us = CASE WHEN :sealed AND ended_count = item_count + :count THEN :now_us END
WHERE batch_id = :batch_id;

-- name: batch_insert
INSERT INTO batch (run_id, number, item_count, sealed, first_item_id, last_item_id, opened_at_us, result_bytes, digest)
VALUES (:run_id, :number, :count, :sealed, :first_item_id, :last_item_id, :now_us, 0, 0)
RETURNING batch_id;

-- How the finished batches went, for the summary: failed ones, and seconds from opening to end.
-- name: batch_list_finished
SELECT number, failed_count, (finished_at_us - opened_at_us) / 1e6 FROM batch WHERE run_id = ?1 AND finished_at_us IS NOT NULL ORDER BY number;

-- name: batch_list
SELECT batch_id, number, item_count, ended_count, failed_count, sealed, first_item_id, last_item_id, opened_at_us, finished_at_us
FROM batch WHERE run_id = ?1 ORDER BY number;

-- Finished batches whose file is not written yet; those wait of which something is being undone.
-- name: batch_list_unpublished
SELECT batch_id, number FROM batch
WHERE run_id = :run_id AND finished_at_us IS NOT NULL AND published_at_us IS NULL
  AND NOT EXISTS (
      SELECT 1 FROM undoing CROSS JOIN item USING (item_id)
      WHERE undoing.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id)
ORDER BY batch_id LIMIT :limit;

-- Finished batches that nobody was called about yet; those alone whose file is written, where files are wanted (*:published*). Here, too,
-- those wait of which something is being undone.
-- name: batch_list_undelivered
SELECT batch_id, number, item_count FROM batch
WHERE run_id = :run_id AND finished_at_us IS NOT NULL AND delivered_at_us IS NULL AND (published_at_us IS NOT NULL OR NOT :published)
  AND NOT EXISTS (
      SELECT 1 FROM undoing CROSS JOIN item USING (item_id)
      WHERE undoing.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id)
ORDER BY batch_id LIMIT :limit;

-- name: batch_count_published
SELECT count(*) FROM batch WHERE run_id = ?1 AND published_at_us IS NOT NULL;

-- The first batch that has not finished: where batches leave in their order, none behind it may.
-- name: batch_first_open
SELECT number FROM batch WHERE run_id = ?1 AND finished_at_us IS NULL ORDER BY batch_id LIMIT 1;

-- Every file is to be written again: the output goes to another place.
-- name: batch_mark_all_unpublished
UPDATE batch SET published_at_us = NULL WHERE run_id = ?1 AND published_at_us IS NOT NULL;

-- Every batch of a run stands in the one file that was written at its end.
-- name: batch_mark_all_published
UPDATE batch SET published_at_us = ?2 WHERE run_id = ?1 AND finished_at_us IS NOT NULL AND published_at_us IS NULL;

-- name: batch_list_of_items
SELECT DISTINCT batch_id FROM item WHERE item_id IN carray(?1) AND batch_id IS NOT NULL;

-- name: batch_mark_delivered
UPDATE batch SET delivered_at_us = :now_us WHERE batch_id = :batch_id AND finished_at_us IS NOT NULL;

-- name: batch_mark_published
UPDATE batch SET published_at_us = :now_us WHERE batch_id = :batch_id AND finished_at_us IS NOT NULL;

-- Nobody joins any more: intake is complete and nothing fresh is left.
-- name: batch_seal_last
UPDATE batch
SET sealed = 1, finished_at_us = CASE WHEN ended_count = item_count THEN :now_us END
WHERE run_id = :run_id AND finished_at_us IS NULL AND NOT sealed
RETURNING batch_id;

-- The one batch that still takes items, if there is one, with the characters of payload in it.
-- name: batch_unsealed
SELECT batch_id, number, item_count, (
    SELECT coalesce(sum(length(item.payload)), 0) FROM item
    WHERE item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id)
FROM batch WHERE run_id = ?1 AND finished_at_us IS NULL AND NOT sealed;

-- Items that had ended are to run again: their batches are open again.
-- name: batch_reopen_retried
UPDATE batch
SET ended_count     = ended_count - again.count,
    failed_count    = failed_count - again.failed,
    finished_at_us  = NULL,
    published_at_us = NULL,
    delivered_at_us = NULL,
    result_bytes    = CASE WHEN again.taken = 0 THEN result_bytes END,
    digest          = CASE WHEN again.taken = 0 THEN digest END
FROM (
    SELECT batch_id, count(*) AS count, sum(state NOT IN ('succeeded', 'skipped')) AS failed, sum(state = 'succeeded') AS taken FROM item
    WHERE item_id IN carray(?1) AND batch_id IS NOT NULL GROUP BY batch_id
) AS again
WHERE batch.batch_id = again.batch_id;

-- The input no longer has these items, or what they did is undone: they end as cancelled or undone, whatever they were, and their batches are
-- another thing to publish.
-- name: batch_withdraw
UPDATE batch
SET ended_count     = ended_count + gone.waiting,
    failed_count    = failed_count + gone.failing,
    finished_at_us  = CASE WHEN sealed AND ended_count + gone.waiting = item_count THEN coalesce(finished_at_us, ?2) END,
    published_at_us = NULL,
    delivered_at_us = NULL,
    result_bytes    = CASE WHEN gone.taken = 0 THEN result_bytes END,
    digest          = CASE WHEN gone.taken = 0 THEN digest END
FROM (
    SELECT batch_id, sum(state IN ('pending', 'scheduled')) AS waiting, sum(state IN ('pending', 'scheduled', 'succeeded', 'skipped')) AS failing,
           sum(state = 'succeeded') AS taken
    FROM item WHERE item_id IN carray(?1) AND batch_id IS NOT NULL GROUP BY batch_id
) AS gone
WHERE batch.batch_id = gone.batch_id;

-- Is one of these items in a batch whose output is written?
-- name: batch_any_published
SELECT 1 FROM item JOIN batch USING (batch_id) WHERE item.item_id IN carray(?1) AND batch.published_at_us IS NOT NULL LIMIT 1;

-- name: batch_standing
SELECT number, finished_at_us IS NOT NULL FROM batch WHERE batch_id = ?1;

-- Where a batch begins: its first item.
-- name: batch_first_item
SELECT min(item.item_id)
FROM batch JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
WHERE batch.run_id = ?1 AND batch.number = ?2;

-- The counters as the rows have them, where they differ: what `verify` lists. Items outside the bounds of their batch are another rule.
-- name: batch_recount
SELECT batch.batch_id, batch.item_count, batch.ended_count, batch.failed_count,
       count(item.item_id) AS items,
       coalesce(sum(item.state NOT IN ('pending', 'scheduled', 'running')), 0) AS ended,
       coalesce(sum(item.state IN ('failed', 'cancelled', 'quarantined', 'undone')), 0) AS failed
FROM batch
LEFT JOIN item ON item.item_id BETWEEN batch.first_item_id AND batch.last_item_id AND item.batch_id = batch.batch_id
GROUP BY batch.batch_id
HAVING batch.item_count <> items OR batch.ended_count <> ended OR batch.failed_count <> failed
LIMIT 20;

-- Batches that still take items though a later one was opened, or though their run is finished.
-- name: batch_list_left_open
SELECT batch.batch_id, run.run_id, batch.number
FROM batch JOIN run USING (run_id)
WHERE batch.finished_at_us IS NULL
  AND (run.state = 'finished'
       OR (NOT batch.sealed AND EXISTS (SELECT 1 FROM batch AS later WHERE later.run_id = batch.run_id AND later.number > batch.number)))
LIMIT 20;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: batch_list_impossible
SELECT batch_id FROM batch
WHERE failed_count NOT BETWEEN 0 AND ended_count
   OR ended_count > item_count
   OR (finished_at_us IS NOT NULL) <> (sealed AND ended_count = item_count)
   OR (published_at_us IS NOT NULL AND finished_at_us IS NULL)
LIMIT 20;
