-- queue: what other processes than the coordinator do to the items of an open run. Written by add (adding) and close.

-- Where a run stands, as far as those who add to it must know, and the coordinator of what they have added.
-- name: queue_standing
SELECT name, state, is_open, intake_complete, total_count, pending_count, scheduled_count FROM run WHERE run_id = ?1;

-- Which of these hashes (*?1*) belong to items of the run, and to which keys?
-- name: queue_list_taken
SELECT item_key.key_hash, item.key
FROM item_key JOIN item ON item.item_id = item_key.item_id
WHERE item_key.run_id = ?2 AND item_key.key_hash IN carray(?1);

-- A stretch of new items waits for its time.
-- name: queue_schedule
UPDATE item SET state = 'scheduled' WHERE item_id BETWEEN ?1 AND ?2;
