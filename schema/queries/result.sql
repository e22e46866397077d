-- result: what handlers returned. Written by finish; removed only by redoing or undoing an item.

-- Small values, inline.
-- name: result_insert_inline
INSERT INTO result (item_id, value) VALUES (?1, ?2);

-- The same for a stretch of items, at once: *?2* holds their values.
-- name: result_insert_stretch
INSERT OR FAIL INTO result (item_id, value) SELECT ?1 + rowid - 1, value FROM carray(?2);

-- name: result_insert_packed
INSERT INTO result (item_id, segment_id, segment_offset, raw_bytes) VALUES (?1, ?2, ?3, ?4);

-- The results of other items once more: those of a stretch (?1 to ?2) for the items ?3 behind them, and one by one. Packed values are shared.
-- name: result_copy_stretch
INSERT OR FAIL INTO result (item_id, value, segment_id, segment_offset, raw_bytes)
SELECT item_id + ?3, value, segment_id, segment_offset, raw_bytes FROM result WHERE item_id BETWEEN ?1 AND ?2;

-- name: result_copy_one
INSERT INTO result (item_id, value, segment_id, segment_offset, raw_bytes)
SELECT ?1, value, segment_id, segment_offset, raw_bytes FROM result WHERE item_id = ?2;

-- The same for a result that an item had before.
-- name: result_copy_past
INSERT INTO result (item_id, value, segment_id, segment_offset, raw_bytes)
SELECT ?1, value, segment_id, segment_offset, raw_bytes FROM result_history WHERE item_id = ?2 AND number = ?3;

-- What was moved to result_history.
-- name: result_remove
DELETE FROM result WHERE item_id IN carray(?1);

-- name: result_get
SELECT value, segment_id, segment_offset, raw_bytes FROM result WHERE item_id = ?1;

-- Slices that reach beyond their segment, or lie in one of another batch though no other item was asked: what `verify` lists.
-- name: result_list_out_of_bounds
SELECT result.item_id, result.segment_id
FROM result JOIN segment USING (segment_id) JOIN item ON item.item_id = result.item_id
WHERE result.segment_offset < 0 OR result.raw_bytes < 0 OR result.segment_offset + result.raw_bytes > segment.raw_bytes
   OR (segment.batch_id IS NOT item.batch_id AND NOT EXISTS (
           SELECT 1 FROM attempt WHERE attempt.item_id = item.item_id AND attempt.number = item.attempt_count AND attempt.is_cached))
LIMIT 20;

-- Inline values as bytes, in input order: are they JSON?
-- name: result_list_inline
SELECT item_id, CAST(value AS BLOB) FROM result WHERE value IS NOT NULL ORDER BY item_id;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: result_list_impossible
SELECT item_id FROM result
WHERE (segment_id IS NULL) <> (value IS NOT NULL)
   OR (segment_id IS NULL) <> (segment_offset IS NULL)
   OR (segment_id IS NULL) <> (raw_bytes IS NULL)
LIMIT 20;
