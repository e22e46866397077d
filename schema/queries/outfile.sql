-- outfile: a database of results for other programs; no part of a ledger.

-- The columns follow from the results.
-- name: outfile_create
CREATE TABLE result (:columns) STRICT;

-- name: outfile_insert
INSERT INTO result VALUES (:places);
