-- suspect: items that ran when their worker or, several times, their coordinator died. Written by accuse, recover, finish and retry.

-- A worker died while it ran.
-- name: suspect_add_death
INSERT INTO suspect (item_id, run_id, death_count) VALUES (?1, ?2, 1)
ON CONFLICT (item_id) DO UPDATE SET death_count = death_count + 1;

-- A coordinator died while it ran.
-- name: suspect_add_interruption
INSERT INTO suspect (item_id, run_id, interruption_count) VALUES (?1, ?2, 1)
ON CONFLICT (item_id) DO UPDATE SET interruption_count = interruption_count + 1
RETURNING interruption_count;

-- They left their group: they ended, or ended a try without harm.
-- name: suspect_acquit
UPDATE suspect SET group_number = NULL WHERE item_id IN carray(?1) AND group_number IS NOT NULL;

-- Those whose items have ended meanwhile.
-- name: suspect_acquit_ended
UPDATE suspect SET group_number = NULL
WHERE run_id = ?1 AND group_number IS NOT NULL
  AND (SELECT state FROM item WHERE item.item_id = suspect.item_id) NOT IN ('pending', 'scheduled', 'running');

-- name: suspect_deaths
SELECT death_count FROM suspect WHERE item_id = ?1;

-- The group that runs next: the first one of which an item waits.
-- name: suspect_first_group
SELECT suspect.group_number FROM suspect JOIN item USING (item_id)
WHERE suspect.run_id = ?1 AND suspect.group_number IS NOT NULL AND item.state = 'pending' AND coalesce(item.due_at_us, 0) < 1152921504606846976
ORDER BY suspect.group_number LIMIT 1;

-- (in groups, of them waiting)
-- name: suspect_count
SELECT count(*), coalesce(sum(item.state = 'pending' AND coalesce(item.due_at_us, 0) < 1152921504606846976), 0) FROM suspect JOIN item USING (item_id)
WHERE suspect.run_id = ?1 AND suspect.group_number IS NOT NULL;

-- Those of *?1* that are in a group.
-- name: suspect_list_grouped
SELECT item_id FROM suspect WHERE item_id IN carray(?1) AND group_number IS NOT NULL ORDER BY item_id;

-- Set apart as one group; *?2* is its number.
-- name: suspect_group
UPDATE suspect SET group_number = ?2 WHERE item_id IN carray(?1);

-- name: suspect_last_group
SELECT coalesce(max(group_number), 0) FROM suspect WHERE run_id = ?1 AND group_number IS NOT NULL;

-- Their deaths are forgotten: they run again because somebody asked for it.
-- name: suspect_remove
DELETE FROM suspect WHERE item_id IN carray(?1);

-- Suspects that are set apart though their item has ended, or that belong to another run than their item: what `verify` lists.
-- name: suspect_list_misplaced
SELECT suspect.item_id, item.state
FROM suspect JOIN item USING (item_id)
WHERE suspect.run_id <> item.run_id
   OR (suspect.group_number IS NOT NULL AND item.state NOT IN ('pending', 'scheduled', 'running'))
LIMIT 20;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: suspect_list_impossible
SELECT item_id FROM suspect WHERE min(death_count, interruption_count, coalesce(group_number, 0)) < 0 LIMIT 20;
