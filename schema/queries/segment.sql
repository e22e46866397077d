-- segment: compressed frames of results, one or more for a batch. Written by finish.

-- name: segment_get
SELECT raw_bytes, digest, data FROM segment WHERE segment_id = ?1;

-- name: segment_insert
INSERT INTO segment (batch_id, raw_bytes, digest, data) VALUES (?1, ?2, ?3, ?4) RETURNING segment_id;

-- name: segment_list_ids
SELECT segment_id FROM segment ORDER BY segment_id;
