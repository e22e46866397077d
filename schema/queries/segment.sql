-- segment: compressed frames of results, one or more for a batch. Written by finish.

-- name: segment_get
SELECT raw_bytes, digest, data FROM segment WHERE segment_id = ?1;

-- name: segment_insert
INSERT INTO segment (batch_id, raw_bytes, digest, data) VALUES (?1, ?2, ?3, ?4) RETURNING segment_id;

-- name: segment_list_ids
SELECT segment_id FROM segment ORDER BY segment_id;

-- Bytes of results as they lie in the ledger: packed ones compressed, inline ones as text.
-- name: segment_bytes_of_run
SELECT coalesce(sum(length(segment.data)), 0) FROM segment JOIN batch USING (batch_id) WHERE batch.run_id = ?1;
