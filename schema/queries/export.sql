-- export: where results went, and what is there. Written by export, without owning the ledger; also the questions of an export.

-- name: export_find
SELECT export_id FROM export WHERE run_id = ?1 AND target = ?2;

-- name: export_put
INSERT INTO export (run_id, target, exported_at_us) VALUES (?1, ?2, ?3)
ON CONFLICT (run_id, target) DO UPDATE SET exported_at_us = excluded.exported_at_us
RETURNING export_id;

-- What a target has got now: an item (?2) as of so many attempts (?3).
-- name: export_put_item
INSERT INTO exported (export_id, item_id, attempt_count) VALUES (?1, ?2, ?3)
ON CONFLICT (export_id, item_id) DO UPDATE SET attempt_count = excluded.attempt_count;

-- The items of a stretch of ids in one of *:states* (a JSON array), without those that the target *:export_id* (NULL: none) has got as they are.
-- name: export_list_stretch
SELECT item_id, state, attempt_count, attempt_count - uncharged_count
FROM item
WHERE item_id BETWEEN :first_item_id AND :last_item_id AND state IN (SELECT value FROM json_each(:states))
  AND NOT EXISTS (
    SELECT 1 FROM exported
    WHERE exported.export_id = :export_id AND exported.item_id = item.item_id AND exported.attempt_count = item.attempt_count);

-- The same for given items, a JSON array of ids.
-- name: export_list_chosen
SELECT item_id, state, attempt_count, attempt_count - uncharged_count
FROM item
WHERE item_id IN (SELECT value FROM json_each(:item_ids)) AND state IN (SELECT value FROM json_each(:states))
  AND NOT EXISTS (
    SELECT 1 FROM exported
    WHERE exported.export_id = :export_id AND exported.item_id = item.item_id AND exported.attempt_count = item.attempt_count);

-- Given items as they stand now, with their results and last errors.
-- name: export_list_now
SELECT item.item_id, item.key, item.state, item.attempt_count - item.uncharged_count AS charged_count,
       attempt.error_type, attempt.error_message,
       result.value, result.segment_id, result.segment_offset, result.raw_bytes, item.attempt_count
FROM item
LEFT JOIN result ON result.item_id = item.item_id
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = item.attempt_count AND item.state <> 'succeeded'
WHERE item.item_id IN carray(?1)
ORDER BY item.item_id;

-- An item as it stood after its attempt *?2*, the result that it had then being one of the past; state and charged attempts are asked for elsewhere.
-- name: export_get_earlier
SELECT item.item_id, item.key, '', 0, attempt.error_type, attempt.error_message,
       result_history.value, result_history.segment_id, result_history.segment_offset, result_history.raw_bytes
FROM item
LEFT JOIN result_history ON result_history.item_id = item.item_id AND result_history.number = ?2
LEFT JOIN attempt ON attempt.item_id = item.item_id AND attempt.number = ?2 AND attempt.outcome <> 'succeeded'
WHERE item.item_id = ?1;

-- Payloads of given items, and where they stand in the input.
-- name: export_list_payloads
SELECT item_id, payload FROM item WHERE item_id IN carray(?1) ORDER BY item_id;

-- name: export_list_positions
SELECT item_id, source_position FROM item WHERE item_id IN carray(?1) ORDER BY item_id;

-- What targets are said to have got and cannot have: items of another run, or as of more attempts than there were. What `verify` lists.
-- name: export_list_mismatch
SELECT exported.export_id, exported.item_id
FROM exported JOIN export USING (export_id) JOIN item USING (item_id)
WHERE item.run_id <> export.run_id OR exported.attempt_count NOT BETWEEN 0 AND item.attempt_count
LIMIT 20;
