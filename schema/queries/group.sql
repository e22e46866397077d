-- group: items on their way into groups, in an anonymous database on disk (see scratch.sql). A group is known by its first member, and
-- stands where that one does.

-- name: group_make
CREATE TABLE member (
    member_id           INTEGER PRIMARY KEY,
    key                 TEXT    NOT NULL,
    value               TEXT    NOT NULL,
    source_position     INTEGER NOT NULL,
    payload             TEXT    NOT NULL
) STRICT;

-- name: group_add
INSERT INTO member (key, value, source_position, payload) VALUES (?1, ?2, ?3, ?4);

-- All members of the groups behind the one that begins with that member. No index: two sorts on disk are ten times as quick.
-- name: group_list_behind
SELECT first_id, payload
FROM (
    SELECT first_value(member_id) OVER (PARTITION BY key ORDER BY member_id ROWS UNBOUNDED PRECEDING) AS first_id, member_id, payload
    FROM member
)
WHERE first_id > ?1
ORDER BY first_id, member_id;

-- name: group_get
SELECT key, value, source_position FROM member WHERE member_id = ?1;
