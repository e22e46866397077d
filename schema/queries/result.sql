-- result: what handlers returned. Written by finish; removed only by redoing or undoing an item.

-- Small values, inline; the parameters are the fields of a success as the worker sends it.
-- name: result_insert_inline
INSERT INTO result (item_id, value) VALUES (?1, ?6);

-- name: result_insert_packed
INSERT INTO result (item_id, segment_id, segment_offset, raw_bytes) VALUES (?1, ?2, ?3, ?4);

-- name: result_get
SELECT value, segment_id, segment_offset, raw_bytes FROM result WHERE item_id = ?1;

-- Slices that reach beyond their segment: what `verify` lists.
-- name: result_list_out_of_bounds
SELECT result.item_id FROM result JOIN segment USING (segment_id)
WHERE result.segment_offset < 0 OR result.raw_bytes < 0 OR result.segment_offset + result.raw_bytes > segment.raw_bytes LIMIT 20;

-- Inline values that are no JSON.
-- name: result_list_not_json
SELECT item_id FROM result WHERE value IS NOT NULL AND NOT json_valid(value) LIMIT 20;
