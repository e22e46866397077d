-- event: what happened to the ledger and its runs. Written by every verb that a person would want to find later.

-- name: event_insert
INSERT INTO event (run_id, kind, happened_at_us, detail)
VALUES (:run_id, :kind, :happened_at_us, :detail)
RETURNING event_id;

-- Has another coordinator opened the ledger after the event *?1*?
-- name: event_opened_after
SELECT 1 FROM event WHERE event_id > ?1 AND kind = 'opened' LIMIT 1;

-- Who opened the ledger first: what it says of its maker decides whether its handlers may be imported.
-- name: event_first_opened
SELECT detail FROM event WHERE kind = 'opened' ORDER BY event_id LIMIT 1;

-- What happened before the last event, which is that the ledger was opened.
-- name: event_before_last
SELECT kind FROM event WHERE event_id < (SELECT max(event_id) FROM event) ORDER BY event_id DESC LIMIT 1;

-- Details that are no JSON: what `verify` lists.
-- name: event_list_not_json
SELECT event_id FROM event WHERE NOT json_valid(detail) LIMIT 20;
