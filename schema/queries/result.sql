-- result: what handlers returned. Written by finish; removed only by redoing or undoing an item.

-- Small values, inline.
-- name: result_insert_inline
INSERT INTO result (item_id, value) VALUES (?1, ?2);

-- The same for a stretch of items, at once: *?2* holds their values.
-- name: result_insert_stretch
INSERT OR FAIL INTO result (item_id, value) SELECT ?1 + rowid - 1, value FROM carray(?2);

-- name: result_insert_packed
INSERT INTO result (item_id, segment_id, segment_offset, raw_bytes) VALUES (?1, ?2, ?3, ?4);

-- name: result_get
SELECT value, segment_id, segment_offset, raw_bytes FROM result WHERE item_id = ?1;

-- Slices that reach beyond their segment, or lie in one of another batch: what `verify` lists.
-- name: result_list_out_of_bounds
SELECT result.item_id, result.segment_id
FROM result JOIN segment USING (segment_id) JOIN item ON item.item_id = result.item_id
WHERE result.segment_offset < 0 OR result.raw_bytes < 0 OR result.segment_offset + result.raw_bytes > segment.raw_bytes
   OR segment.batch_id IS NOT item.batch_id
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
