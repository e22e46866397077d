-- result_history: results of before. Written by redo, withdraw and retry when an item that had succeeded runs again or leaves the input.

-- The results of these items as they are, with the payload that they were made of. They are removed from result by the next statement.
-- name: result_history_move
INSERT INTO result_history (item_id, number, digest, value, segment_id, segment_offset, raw_bytes, moved_at_us, cause)
SELECT item.item_id, item.attempt_count, item.digest, result.value, result.segment_id, result.segment_offset, result.raw_bytes, ?2, ?3
FROM item JOIN result USING (item_id)
WHERE item.item_id IN carray(?1);

-- The result that an attempt returned, if the item has another one now, or none.
-- name: result_history_get
SELECT value, segment_id, segment_offset, raw_bytes FROM result_history WHERE item_id = ?1 AND number = ?2;

-- The results of before of an item, oldest first; an inline value by its size alone.
-- name: result_history_list
SELECT number, cause, moved_at_us, coalesce(raw_bytes, length(CAST(value AS BLOB))) FROM result_history WHERE item_id = ?1 ORDER BY number;

-- Results of before that no success returned, or that are the present one as well: what `verify` lists.
-- name: result_history_list_mismatch
SELECT result_history.item_id, result_history.number, coalesce(attempt.outcome, 'missing')
FROM result_history
JOIN item USING (item_id)
LEFT JOIN attempt ON attempt.item_id = result_history.item_id AND attempt.number = result_history.number
WHERE attempt.outcome IS NOT 'succeeded' OR (item.state = 'succeeded' AND item.attempt_count = result_history.number)
LIMIT 20;

-- Slices that reach beyond their segment: what `verify` lists.
-- name: result_history_list_out_of_bounds
SELECT result_history.item_id, result_history.segment_id
FROM result_history JOIN segment USING (segment_id)
WHERE result_history.segment_offset < 0 OR result_history.raw_bytes < 0
   OR result_history.segment_offset + result_history.raw_bytes > segment.raw_bytes
LIMIT 20;

-- Inline values as bytes: are they JSON?
-- name: result_history_list_inline
SELECT item_id, CAST(value AS BLOB) FROM result_history WHERE value IS NOT NULL ORDER BY item_id, number;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: result_history_list_impossible
SELECT item_id FROM result_history
WHERE cause NOT IN ('redone', 'changed', 'gone', 'undone')
   OR (segment_id IS NULL) <> (value IS NOT NULL)
   OR (segment_id IS NULL) <> (segment_offset IS NULL)
   OR (segment_id IS NULL) <> (raw_bytes IS NULL)
LIMIT 20;
