-- control: orders to a running coordinator. Written by steer, in other processes (asking) and in the coordinator (settling).

-- name: control_insert
INSERT INTO control (run_id, verb, argument, asked_by, asked_at_us) VALUES (:run_id, :verb, :argument, :asked_by, :asked_at_us) RETURNING control_id;

-- Orders that nobody has carried out or refused, oldest first.
-- name: control_list_open
SELECT control_id, run_id, verb, argument, asked_by, asked_at_us, applied_at_us, outcome
FROM control WHERE run_id = ?1 AND applied_at_us IS NULL ORDER BY control_id;

-- name: control_get
SELECT control_id, run_id, verb, argument, asked_by, asked_at_us, applied_at_us, outcome FROM control WHERE control_id = ?1;

-- The audit trail of a run, oldest first.
-- name: control_list
SELECT control_id, run_id, verb, argument, asked_by, asked_at_us, applied_at_us, outcome FROM control WHERE run_id = ?1 ORDER BY control_id;

-- name: control_last
SELECT control_id, run_id, verb, argument, asked_by, asked_at_us, applied_at_us, outcome
FROM control WHERE run_id = ?1 ORDER BY control_id DESC LIMIT 1;

-- name: control_settle
UPDATE control SET applied_at_us = ?2, outcome = ?3 WHERE control_id = ?1 AND applied_at_us IS NULL;

-- Orders that are left over from a coordinator that is gone.
-- name: control_settle_all
UPDATE control SET applied_at_us = ?2, outcome = ?3 WHERE run_id = ?1 AND applied_at_us IS NULL;

-- Arguments and askers that are no JSON: what `verify` lists.
-- name: control_list_not_json
SELECT control_id FROM control WHERE NOT (json_valid(argument) AND json_valid(asked_by)) LIMIT 20;

-- Rows that the table's CHECKs forbid: SQLite leaves them unchecked in a database that is opened to be read.
-- name: control_list_impossible
SELECT control_id FROM control
WHERE verb NOT IN ('pause', 'unpause', 'scale', 'set', 'drain', 'cancel') OR (applied_at_us IS NULL) <> (outcome IS NULL)
LIMIT 20;
