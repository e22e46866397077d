-- item_key: which item has a key. Written by submit, a page of input at once.

-- The hashes of a stretch of items (*?3*), in their own order. OR FAIL: SQLite keeps no copy of the pages it touches; what was added before
-- a hash that is taken is removed by the next statement.
-- name: item_key_insert_stretch
INSERT OR FAIL INTO item_key (run_id, key_hash, item_id) SELECT ?1, value, ?2 + rowid - 1 FROM carray(?3) ORDER BY value;

-- name: item_key_remove
DELETE FROM item_key WHERE run_id = ?1 AND item_id >= ?2 AND key_hash IN carray(?3);
