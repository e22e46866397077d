-- The ledger of durabatch: everything the engine knows, as rows.
--
-- A run is one execution of a handler over one input. Intake turns the input into items, page by page; each uninterrupted stretch of
-- intake is a span, so that the item ids of a span are consecutive and all of one run. A claim hands items to a worker: fresh items in
-- input order by a range of ids from the run's watermark on, the others (released, waiting for a retry, prioritised) through a small
-- index of exceptions. At its first claim an item joins a batch, and stays in it. What a worker sends back becomes one attempt row per
-- try and one result row per item that succeeded; big values lie together in compressed segments of their batch. Items that a worker died
-- of are suspects, and run apart from the others in ever smaller groups until the guilty one stands alone. Who steers a run from another
-- terminal leaves an order for its coordinator in control. What an item is run again for moves its result into result_history; results that
-- may be used again for equal payloads are listed in cache, and what left the ledger in export.
--
-- Before a handler changes the world it promises how to take that back: a row of undo, on disk before the effect happens. The promises of
-- an attempt that did not succeed are redeemed before anything else becomes of its item, which waits meanwhile (undoing says what for);
-- those of a success when somebody rolls it back. Within an item the newest comes first. What had to be kept for that stands in undo_blob
-- until then. A transaction is a run whose items are the steps of a program. Every finished batch is a checkpoint: what had ended when it
-- finished; mark gives names to some.
--
-- All that happens between two waits of the coordinator is one transaction; counters on the run change in the same transaction as the
-- rows they count. So a checkpoint is a commit, resume is a query for unfinished items, and status reads one row.
--
--                     claim                       finish
--      pending ────────────────▶ running ──┬──▶ succeeded | failed | skipped | cancelled | quarantined ──rollback──▶ undone
--        ▲  ▲                      │ │     │         │                                                                 │
--        │  └── release, recover ──┘ │     │         │ retry, redo                                                     │ retry
--        │                           ▼     │         │                                                                 │
--        │                       scheduled ┘         │                                                                 │
--        └───────────────────────────────────────────┴─────────────────────────────────────────────────────────────────┘
--
--      an undo entry:  recorded ──claim──▶ undoing ──finish──▶ undone | failed ──rollback, retry──▶ recorded;  or irreversible
--
-- Instants are UTC microseconds (`_at_us`), durations `_us`, sizes `_bytes`, counts `_count`. Nothing newer than SQLite 3.40 stands here,
-- so that any SQL tool can read a ledger; views for people are in views.sql.

-- One execution of a handler over one input. Written by every verb; one row a run, so `status` costs nothing.
CREATE TABLE run (
    run_id              INTEGER PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,            -- the series, from the second run on with '#2', '#3' ...
    series              TEXT    NOT NULL,
    state               TEXT    NOT NULL DEFAULT 'running',
    reason              TEXT,                               -- why it is not running, in words
    exit_code           INTEGER,                            -- of the command line, once the run has stopped
    handler             TEXT    NOT NULL,                   -- JSON reference: what to import or which argv, never code
    source              TEXT    NOT NULL,                   -- JSON: the input as typed and how it is read
    fingerprint         TEXT,                               -- JSON: path, bytes, mtime of the input files; NULL when it has none
    settings            TEXT    NOT NULL,                   -- JSON: what a resume needs to go on in the same way
    source_position     TEXT,                               -- where intake goes on; NULL before the first page
    intake_complete     INTEGER NOT NULL DEFAULT 0,
    next_item_id        INTEGER NOT NULL DEFAULT 1,         -- the watermark: no fresh item of this run stands before it
    dispatch_count      INTEGER NOT NULL DEFAULT 0,
    batch_count         INTEGER NOT NULL DEFAULT 0,
    attempt_count       INTEGER NOT NULL DEFAULT 0,
    total_count         INTEGER NOT NULL DEFAULT 0,
    pending_count       INTEGER NOT NULL DEFAULT 0,
    scheduled_count     INTEGER NOT NULL DEFAULT 0,
    running_count       INTEGER NOT NULL DEFAULT 0,
    succeeded_count     INTEGER NOT NULL DEFAULT 0,
    failed_count        INTEGER NOT NULL DEFAULT 0,
    skipped_count       INTEGER NOT NULL DEFAULT 0,
    cancelled_count     INTEGER NOT NULL DEFAULT 0,
    quarantined_count   INTEGER NOT NULL DEFAULT 0,
    undone_count        INTEGER NOT NULL DEFAULT 0,
    items_per_s         REAL    NOT NULL DEFAULT 0,         -- of late, while it runs; over all when it has stopped
    elapsed_us          INTEGER NOT NULL DEFAULT 0,         -- time under a coordinator, all its sessions together
    created_at_us       INTEGER NOT NULL,
    started_at_us       INTEGER,                            -- first dispatch
    finished_at_us      INTEGER,
    spent               TEXT    NOT NULL DEFAULT '{}',      -- JSON: what its attempts have spent, amounts by unit
    binding_limit       TEXT,                               -- what holds it back now: memory, disk, load ...; NULL when nothing does
    flow                TEXT    NOT NULL DEFAULT '{}',      -- JSON: what its limits must remember over a resume
    intake              TEXT    NOT NULL DEFAULT '{}',      -- JSON: what was read of the input: rows, their digest, lines left out, its end
    provenance          TEXT    NOT NULL DEFAULT '{}',      -- JSON: what results depend on besides the input: version, code, parameters ...
    output              TEXT    NOT NULL DEFAULT '{}',      -- JSON: the output file that grows, and how far it has
    is_open             INTEGER NOT NULL DEFAULT 0,         -- takes items from any process until it is closed
    gone_count          INTEGER NOT NULL DEFAULT 0,         -- items cancelled because the input no longer has them
    cached_count        INTEGER NOT NULL DEFAULT 0,         -- attempts that the cache answered
    is_transaction      INTEGER NOT NULL DEFAULT 0,         -- a program does its items itself, as steps, and all of them or none
    undo_count          INTEGER NOT NULL DEFAULT 0,         -- undo entries that were recorded
    CONSTRAINT state_known CHECK (state IN ('running', 'paused', 'halted', 'cancelled', 'finished', 'rolled_back')),
    CONSTRAINT finished_iff_over CHECK ((finished_at_us IS NOT NULL) = (state IN ('cancelled', 'finished', 'rolled_back'))),
    CONSTRAINT counts_add_up CHECK (
        total_count = pending_count + scheduled_count + running_count + succeeded_count + failed_count
                    + skipped_count + cancelled_count + quarantined_count + undone_count),
    CONSTRAINT counts_not_negative CHECK (
        min(pending_count, scheduled_count, running_count, succeeded_count, failed_count, skipped_count, cancelled_count,
            quarantined_count, undone_count, batch_count, attempt_count, dispatch_count) >= 0),
    CONSTRAINT nothing_open_when_finished CHECK (state <> 'finished' OR (intake_complete AND pending_count + scheduled_count + running_count = 0)),
    CONSTRAINT intake_complete_is_boolean CHECK (intake_complete IN (0, 1))
) STRICT;

-- One uninterrupted stretch of intake: the ids from first to last are all items of this run.
CREATE TABLE span (
    span_id             INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    first_item_id       INTEGER NOT NULL UNIQUE,
    last_item_id        INTEGER NOT NULL,
    CONSTRAINT not_empty CHECK (last_item_id >= first_item_id)
) STRICT;

CREATE INDEX span_of_run ON span (run_id, last_item_id);

-- A numbered group of items; finished when it is sealed (nobody joins any more) and every item of it has ended.
CREATE TABLE batch (
    batch_id            INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    number              INTEGER NOT NULL,                   -- from 1 in its run
    item_count          INTEGER NOT NULL DEFAULT 0,
    ended_count         INTEGER NOT NULL DEFAULT 0,
    failed_count        INTEGER NOT NULL DEFAULT 0,         -- ended otherwise than succeeded or skipped
    sealed              INTEGER NOT NULL DEFAULT 0,
    first_item_id       INTEGER NOT NULL,                   -- its items lie between these two ids (others may, too)
    last_item_id        INTEGER NOT NULL,
    opened_at_us        INTEGER NOT NULL,
    finished_at_us      INTEGER,
    published_at_us     INTEGER,                            -- its output file, as of the last finish, is on disk
    delivered_at_us     INTEGER,                            -- whoever wanted to be called about it, as of the last finish, has been
    result_bytes        INTEGER,                            -- of its results as JSON; NULL: not known, and counted when it finishes
    digest              INTEGER,                            -- of its results, whatever their order; NULL: not known, and computed when it finishes
    UNIQUE (run_id, number),
    CONSTRAINT ended_within_count CHECK (failed_count BETWEEN 0 AND ended_count AND ended_count <= item_count),
    CONSTRAINT finished_iff_all_ended CHECK ((finished_at_us IS NOT NULL) = (sealed AND ended_count = item_count)),
    CONSTRAINT published_after_finish CHECK (published_at_us IS NULL OR finished_at_us IS NOT NULL)
) STRICT;

CREATE INDEX batch_open ON batch (run_id, batch_id) WHERE finished_at_us IS NULL;
CREATE INDEX batch_unpublished ON batch (run_id, batch_id) WHERE finished_at_us IS NOT NULL AND published_at_us IS NULL;
CREATE INDEX batch_undelivered ON batch (run_id, batch_id) WHERE finished_at_us IS NOT NULL AND delivered_at_us IS NULL;

-- One unit of input. `due_at_us` is set while the item stands outside the input order (released, retried, prioritised), and then only.
CREATE TABLE item (
    item_id             INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    key                 TEXT    NOT NULL,
    payload             TEXT    NOT NULL,                   -- JSON
    digest              BLOB    NOT NULL,                   -- BLAKE2b-128 of the payload's bytes
    priority            INTEGER NOT NULL DEFAULT 0,         -- higher = sooner
    source_position     INTEGER NOT NULL,                   -- line, row or path order in the input; 0: lost, and cancelled; below: submitted, or lost and kept
    state               TEXT    NOT NULL DEFAULT 'pending',
    batch_id            INTEGER REFERENCES batch (batch_id),
    dispatch_id         INTEGER,                            -- the fence: only the dispatch that stands here may record an end
    attempt_count       INTEGER NOT NULL DEFAULT 0,         -- attempt rows
    uncharged_count     INTEGER NOT NULL DEFAULT 0,         -- those of them that do not count against the limit
    due_at_us           INTEGER,
    earlier_count       INTEGER NOT NULL DEFAULT 0,         -- attempt rows from before somebody asked to run it again: no limit counts them
    CONSTRAINT each_state_has_its_facts CHECK (
        CASE state
            WHEN 'pending'     THEN dispatch_id IS NULL
            WHEN 'running'     THEN dispatch_id IS NOT NULL AND due_at_us IS NULL AND batch_id IS NOT NULL
            WHEN 'succeeded'   THEN dispatch_id IS NULL AND due_at_us IS NULL AND batch_id IS NOT NULL
            WHEN 'scheduled'   THEN dispatch_id IS NULL AND due_at_us IS NOT NULL
            WHEN 'failed'      THEN dispatch_id IS NULL AND due_at_us IS NULL AND batch_id IS NOT NULL
            WHEN 'quarantined' THEN dispatch_id IS NULL AND due_at_us IS NULL AND batch_id IS NOT NULL
            WHEN 'undone'      THEN dispatch_id IS NULL AND due_at_us IS NULL AND batch_id IS NOT NULL
            WHEN 'skipped'     THEN dispatch_id IS NULL AND due_at_us IS NULL
            WHEN 'cancelled'   THEN dispatch_id IS NULL AND due_at_us IS NULL
            ELSE 0
        END),
    CONSTRAINT uncharged_within_attempts CHECK (uncharged_count BETWEEN 0 AND attempt_count)
) STRICT;

CREATE INDEX item_due ON item (run_id, priority DESC, due_at_us, item_id) WHERE due_at_us IS NOT NULL;
CREATE INDEX item_failed ON item (run_id, item_id) WHERE state IN ('failed', 'quarantined');
CREATE INDEX item_waiting ON item (run_id, due_at_us) WHERE due_at_us IS NOT NULL;

-- Which item has this key? One row an item. Not an index of the item table, so that a page of input goes into it in the order of the
-- hashes: random keys then touch each of its pages once a page of input instead of once an item.
CREATE TABLE item_key (
    run_id              INTEGER NOT NULL,
    key_hash            INTEGER NOT NULL,                   -- 64 bits of the key; keys that meet are told apart by further probes
    item_id             INTEGER NOT NULL,
    PRIMARY KEY (run_id, key_hash)
) STRICT, WITHOUT ROWID;

-- One try at an item, written when it has ended and never changed.
CREATE TABLE attempt (
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- from 1 for its item
    worker              INTEGER NOT NULL,                   -- number of the worker in its run, 0 = inline
    outcome             TEXT    NOT NULL,
    started_at_us       INTEGER NOT NULL,
    duration_us         INTEGER NOT NULL,
    error_type          TEXT,
    error_message       TEXT,
    traceback           TEXT,
    exit_code           INTEGER,                            -- of a command; negative: the signal that ended it
    stdout_tail         TEXT,
    stderr_tail         TEXT,
    error_group         TEXT,                               -- type and message without numbers, names and paths: what many attempts have in common
    remedy              TEXT,                               -- what to do about it, in words
    peak_rss_bytes      INTEGER,                            -- most memory that its process ever held, up to its end
    spent               TEXT,                               -- JSON: amounts by unit; NULL when it spent nothing
    signal              INTEGER,                            -- that ended its process
    is_cached           INTEGER NOT NULL DEFAULT 0,         -- nothing was run: the cache had the result
    PRIMARY KEY (item_id, number),
    CONSTRAINT an_error_iff_it_failed CHECK (
        CASE outcome
            WHEN 'succeeded'   THEN error_type IS NULL
            WHEN 'failed'      THEN error_type IS NOT NULL
            WHEN 'timed_out'   THEN error_type IS NOT NULL
            WHEN 'crashed'     THEN error_type IS NOT NULL
            WHEN 'interrupted' THEN error_type IS NULL
            WHEN 'snoozed'     THEN error_type IS NULL
            WHEN 'skipped'     THEN error_type IS NULL
            WHEN 'cancelled'   THEN error_type IS NULL
            ELSE 0
        END)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempt_explained ON attempt (outcome, item_id, number) WHERE error_message IS NOT NULL;

-- An item that ran when its worker died, or several times when its coordinator did. While it is in a group it runs with that group alone.
CREATE TABLE suspect (
    item_id             INTEGER PRIMARY KEY REFERENCES item (item_id),
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    group_number        INTEGER,                            -- NULL: not set apart now
    death_count         INTEGER NOT NULL DEFAULT 0,         -- workers that died while it ran
    interruption_count  INTEGER NOT NULL DEFAULT 0,         -- coordinators that died while it ran
    CONSTRAINT counted_from_zero CHECK (min(death_count, interruption_count, coalesce(group_number, 0)) >= 0)
) STRICT;

CREATE INDEX suspect_group ON suspect (run_id, group_number, item_id) WHERE group_number IS NOT NULL;

-- Encoded results of one batch, back to back in one zstd frame.
CREATE TABLE segment (
    segment_id          INTEGER PRIMARY KEY,
    batch_id            INTEGER NOT NULL REFERENCES batch (batch_id),
    raw_bytes           INTEGER NOT NULL,
    digest              BLOB    NOT NULL,                   -- SHA-256 of the raw bytes
    data                BLOB    NOT NULL
) STRICT;

-- The one result of an item that succeeded: inline as JSON, or a slice of a segment.
CREATE TABLE result (
    item_id             INTEGER PRIMARY KEY REFERENCES item (item_id),
    value               TEXT,
    segment_id          INTEGER REFERENCES segment (segment_id),
    segment_offset      INTEGER,
    raw_bytes           INTEGER,
    CONSTRAINT inline_or_packed CHECK (
        CASE WHEN segment_id IS NULL THEN value IS NOT NULL AND segment_offset IS NULL AND raw_bytes IS NULL
             ELSE value IS NULL AND segment_offset IS NOT NULL AND raw_bytes IS NOT NULL END)
) STRICT;

-- A result that an item had before it was run again, undone, or taken out of the input.
CREATE TABLE result_history (
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt that returned it
    digest              BLOB    NOT NULL,                   -- of the payload that it was made of
    value               TEXT,
    segment_id          INTEGER REFERENCES segment (segment_id),
    segment_offset      INTEGER,
    raw_bytes           INTEGER,
    moved_at_us         INTEGER NOT NULL,
    cause               TEXT    NOT NULL,
    PRIMARY KEY (item_id, number),
    CONSTRAINT cause_known CHECK (cause IN ('redone', 'changed', 'gone', 'undone')),
    CONSTRAINT inline_or_packed CHECK (
        CASE WHEN segment_id IS NULL THEN value IS NOT NULL AND segment_offset IS NULL AND raw_bytes IS NULL
             ELSE value IS NULL AND segment_offset IS NOT NULL AND raw_bytes IS NOT NULL END)
) STRICT, WITHOUT ROWID;

-- A promise to take an effect back: on disk before the effect happens, so that no effect is ever unknown. It is kept newest first.
-- `wanted_at_us` is set while the entry is to be undone, and then only; a worker that undoes it holds it by a dispatch number below zero.
CREATE TABLE undo (
    undo_id             INTEGER PRIMARY KEY,                -- ascends in the order in which entries were recorded
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt that recorded it
    sequence            INTEGER NOT NULL,                   -- from 1 in its attempt
    action              TEXT    NOT NULL,                   -- a name, never code
    arguments           TEXT    NOT NULL,                   -- JSON
    state               TEXT    NOT NULL DEFAULT 'recorded',
    recorded_at_us      INTEGER NOT NULL,
    wanted_at_us        INTEGER,
    is_in_order         INTEGER NOT NULL DEFAULT 0,         -- undone one at a time, after every newer one of the run that is so, too
    due_at_us           INTEGER,                            -- not before: a try has failed
    dispatch_id         INTEGER,
    try_count           INTEGER NOT NULL DEFAULT 0,
    error               TEXT,                               -- of the last try
    ended_at_us         INTEGER,
    CONSTRAINT each_state_has_its_facts CHECK (
        CASE state
            WHEN 'recorded'     THEN dispatch_id IS NULL AND ended_at_us IS NULL
            WHEN 'undoing'      THEN wanted_at_us IS NOT NULL AND ended_at_us IS NULL
            WHEN 'undone'       THEN wanted_at_us IS NULL AND dispatch_id IS NULL AND ended_at_us IS NOT NULL
            WHEN 'failed'       THEN wanted_at_us IS NULL AND dispatch_id IS NULL AND ended_at_us IS NOT NULL
            WHEN 'irreversible' THEN wanted_at_us IS NULL AND dispatch_id IS NULL
            ELSE 0
        END)
) STRICT;

CREATE UNIQUE INDEX undo_of_item ON undo (item_id, number, sequence);
CREATE INDEX undo_wanted ON undo (run_id, is_in_order, undo_id) WHERE wanted_at_us IS NOT NULL;
CREATE INDEX undo_unresolved ON undo (run_id, state) WHERE state IN ('undoing', 'failed', 'irreversible');

-- What stood in the place of an effect before: the old content of a file. Removed once it is back.
CREATE TABLE undo_blob (
    undo_id             INTEGER PRIMARY KEY REFERENCES undo (undo_id),
    raw_bytes           INTEGER NOT NULL,
    digest              BLOB    NOT NULL,                   -- SHA-256 of the raw bytes
    data                BLOB    NOT NULL                    -- one zstd frame
) STRICT;

-- An item some of whose effects are being undone, and what becomes of it then. One that is not over waits so long, due at 2^61.
CREATE TABLE undoing (
    item_id             INTEGER PRIMARY KEY REFERENCES item (item_id),
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    then_state          TEXT    NOT NULL,
    then_due_at_us      INTEGER,
    CONSTRAINT then_known CHECK (then_state IN ('pending', 'scheduled', 'failed', 'skipped', 'cancelled', 'quarantined', 'undone')),
    CONSTRAINT due_only_when_waiting CHECK (then_due_at_us IS NULL OR then_state IN ('pending', 'scheduled'))
) STRICT;

CREATE INDEX undoing_of_run ON undoing (run_id, item_id);

-- A checkpoint that was given a name: a finished batch.
CREATE TABLE mark (
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    label               TEXT    NOT NULL,
    batch_number        INTEGER NOT NULL,
    marked_at_us        INTEGER NOT NULL,
    PRIMARY KEY (run_id, label)
) STRICT, WITHOUT ROWID;

-- What the results in the cache depend on besides the payload: handler, version, parameters.
CREATE TABLE cache_scope (
    cache_scope_id      INTEGER PRIMARY KEY,
    identity            TEXT    NOT NULL UNIQUE             -- JSON
) STRICT;

-- A result that may be used again: the attempt that returned it. The value stands where it always did, in result or result_history.
CREATE TABLE cache (
    cache_scope_id      INTEGER NOT NULL REFERENCES cache_scope (cache_scope_id),
    digest              BLOB    NOT NULL,                   -- of the payload
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    number              INTEGER NOT NULL,                   -- the attempt
    value_bytes         INTEGER NOT NULL,
    made_at_us          INTEGER NOT NULL,
    used_at_us          INTEGER NOT NULL,
    PRIMARY KEY (cache_scope_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX cache_used ON cache (used_at_us);

-- Where the results of a run were exported to, for exports of what is new.
CREATE TABLE export (
    export_id           INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    target              TEXT    NOT NULL,                   -- absolute path, or - for standard output
    exported_at_us      INTEGER NOT NULL,
    UNIQUE (run_id, target)
) STRICT;

-- What a target has got: an item as of that many attempts.
CREATE TABLE exported (
    export_id           INTEGER NOT NULL REFERENCES export (export_id),
    item_id             INTEGER NOT NULL REFERENCES item (item_id),
    attempt_count       INTEGER NOT NULL,
    PRIMARY KEY (export_id, item_id)
) STRICT, WITHOUT ROWID;

-- Orders to the coordinator of a run from other terminals, and what became of them: who asked, and when.
CREATE TABLE control (
    control_id          INTEGER PRIMARY KEY,
    run_id              INTEGER NOT NULL REFERENCES run (run_id),
    verb                TEXT    NOT NULL,
    argument            TEXT    NOT NULL DEFAULT '{}',      -- JSON
    asked_by            TEXT    NOT NULL,                   -- JSON
    asked_at_us         INTEGER NOT NULL,
    applied_at_us       INTEGER,
    outcome             TEXT,                               -- in words, once it was carried out or refused
    CONSTRAINT verb_known CHECK (verb IN ('pause', 'unpause', 'scale', 'set', 'drain', 'cancel')),
    CONSTRAINT outcome_iff_applied CHECK ((applied_at_us IS NULL) = (outcome IS NULL))
) STRICT;

CREATE INDEX control_open ON control (run_id, control_id) WHERE applied_at_us IS NULL;

-- What happened to the ledger and its runs, in order. An 'opened' row is the first thing a coordinator commits: nothing is read for
-- acting on before it, and a coordinator that sees a later one has been replaced and stops.
CREATE TABLE event (
    event_id            INTEGER PRIMARY KEY,
    run_id              INTEGER REFERENCES run (run_id),
    kind                TEXT    NOT NULL,
    happened_at_us      INTEGER NOT NULL,
    detail              TEXT    NOT NULL DEFAULT '{}'       -- JSON
) STRICT;
