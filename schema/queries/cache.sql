-- cache: results that may be used again for equal payloads, and what they depend on besides. Written by finish and claim.

-- name: cache_scope_insert
INSERT OR IGNORE INTO cache_scope (identity) VALUES (?1);

-- name: cache_scope_get
SELECT cache_scope_id FROM cache_scope WHERE identity = ?1;

-- What the cache has for these items, whatever their order: one row for each whose digest it knows, as (item, source, number of its attempt,
-- where the value is: 1 in its result, 2 in the history, 0 nowhere, last use, segment, end of the slice). A value nowhere is too old, gone, taken
-- back, or the item's own from before somebody asked to run it again. What is not in the history is the result: nothing leaves that otherwise.
-- name: cache_list_known
SELECT item.item_id, cache.item_id, cache.number,
       CASE WHEN cache.made_at_us < ?3 THEN 0
            WHEN item.earlier_count > 0 AND EXISTS (
                SELECT 1 FROM result_history AS own
                WHERE own.item_id = item.item_id AND own.digest = item.digest AND own.cause IN ('redone', 'undone')) THEN 0
            WHEN past.cause IS NULL THEN result.item_id IS NOT NULL
            WHEN past.cause = 'undone' THEN 0
            ELSE 2 END,
       cache.used_at_us,
       CASE WHEN past.cause IS NULL THEN result.segment_id ELSE past.segment_id END,
       CASE WHEN past.cause IS NULL THEN result.segment_offset + result.raw_bytes ELSE past.segment_offset + past.raw_bytes END
FROM item
JOIN cache ON cache.cache_scope_id = ?2 AND cache.digest = item.digest
LEFT JOIN result ON result.item_id = cache.item_id
LEFT JOIN result_history AS past ON past.item_id = cache.item_id AND past.number = cache.number
WHERE item.item_id IN carray(?1);

-- New results of items, in the order of their digests: random ones then touch each page of the table once. The newest of equal items stays.
-- name: cache_insert
INSERT OR REPLACE INTO cache (cache_scope_id, digest, item_id, number, value_bytes, made_at_us, used_at_us)
SELECT ?2, item.digest, item.item_id, item.attempt_count, coalesce(result.raw_bytes, octet_length(result.value)), ?3, ?3
FROM item JOIN result ON result.item_id = item.item_id
WHERE item.item_id IN carray(?1) AND coalesce(result.raw_bytes, octet_length(result.value)) <= ?4
ORDER BY item.digest;

-- The payloads of these items were answered again.
-- name: cache_touch
UPDATE cache SET used_at_us = ?3
WHERE cache_scope_id = ?2 AND digest IN (SELECT digest FROM item WHERE item_id IN carray(?1));

-- What stands for the payloads of these items cannot be used.
-- name: cache_delete_of_items
DELETE FROM cache
WHERE cache_scope_id = ?2 AND digest IN (SELECT digest FROM item WHERE item_id IN carray(?1))
RETURNING value_bytes;

-- name: cache_sum
SELECT coalesce(sum(value_bytes), 0) FROM cache;

-- The least recently used.
-- name: cache_list_oldest
SELECT cache_scope_id, digest, value_bytes FROM cache ORDER BY used_at_us, cache_scope_id, digest LIMIT ?1;

-- name: cache_delete
DELETE FROM cache WHERE cache_scope_id = ?1 AND digest = ?2;

-- Cached attempts that are not a success on record: what `verify` lists.
-- name: cache_list_broken
SELECT cache.item_id, cache.number FROM cache
LEFT JOIN attempt ON attempt.item_id = cache.item_id AND attempt.number = cache.number
WHERE attempt.outcome IS NOT 'succeeded' OR attempt.is_cached
LIMIT 20;

-- Runs that say another number of answers of the cache than their attempts.
-- name: cache_list_count_mismatch
WITH answered AS (
    SELECT item.run_id, count(*) AS attempts FROM attempt JOIN item ON item.item_id = attempt.item_id WHERE attempt.is_cached GROUP BY item.run_id)
SELECT run.run_id, run.cached_count, coalesce(answered.attempts, 0) FROM run LEFT JOIN answered USING (run_id)
WHERE run.cached_count <> coalesce(answered.attempts, 0)
LIMIT 20;
