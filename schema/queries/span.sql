-- span: uninterrupted stretches of intake. Written by submit.

-- name: span_extend
UPDATE span SET last_item_id = :last_item_id WHERE span_id = :span_id;

-- name: span_insert
INSERT INTO span (run_id, first_item_id, last_item_id) VALUES (:run_id, :first_item_id, :last_item_id);

-- The newest span of a run: a page that follows it without a gap extends it.
-- name: span_last
SELECT span_id, last_item_id FROM span WHERE run_id = ?1 ORDER BY span_id DESC LIMIT 1;

-- The span in which the watermark *:item_id* of a run lies, or the next one after it.
-- name: span_at
SELECT first_item_id, last_item_id FROM span WHERE run_id = :run_id AND last_item_id >= :item_id ORDER BY last_item_id LIMIT 1;

-- name: span_list
SELECT first_item_id, last_item_id FROM span WHERE run_id = ?1 ORDER BY first_item_id;
