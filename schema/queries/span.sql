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

-- Those that end at the item *?2* or behind it.
-- name: span_list_from
SELECT first_item_id, last_item_id FROM span WHERE run_id = ?1 AND last_item_id >= ?2 ORDER BY last_item_id;

-- Spans that lack items, hold items of another run, or overlap the span before them: what `verify` lists.
-- name: span_list_broken
SELECT span_id, run_id, first_item_id, last_item_id
FROM (SELECT *, coalesce(max(last_item_id) OVER (ORDER BY first_item_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before FROM span)
         AS span
WHERE before >= first_item_id
   OR last_item_id < first_item_id
   OR last_item_id - first_item_id + 1 <> (
       SELECT count(*) FROM item WHERE item.item_id BETWEEN span.first_item_id AND span.last_item_id AND +item.run_id = span.run_id)
LIMIT 20;
