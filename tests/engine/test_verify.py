from __future__ import annotations

import contextlib
import random
import shutil
import tracemalloc

import pytest

from durabatch import errors
from durabatch.engine.verify import RULES, refuse_broken, verify
from durabatch.errors import LedgerDamagedError
from durabatch.ledger import inspection
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from tests import factory

#: Lets two indexes have each other's pages: rows are missing from both.
SWAPPED_INDEXES = (
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema "
    "WHERE name IN ('item_due', 'item_failed')) - rootpage WHERE name IN ('item_due', 'item_failed')"
)
#: Gives an item that succeeded an entry.
PROMISED = "INSERT INTO undo (undo_id, run_id, item_id, number, sequence, action, arguments, recorded_at_us) VALUES (2, 1, 5, 1, 1, 'drop', '{}', 1)"
#: For each rule, changes that break it, and where the finding must point.
SABOTAGE = [
    ("sound_file", SWAPPED_INDEXES, "file"),
    *(("possible_exports", f"INSERT INTO export VALUES (3, 1, '-', 1); INSERT INTO exported VALUES (3, {what})", "export 3") for what in ("5, 9", "26, 0")),
    ("possible_rows", "UPDATE item SET state = 'lost' WHERE item_id = 5", "item 5"),
    *(("possible_rows", f"UPDATE item SET {change} WHERE item_id = 5", "item 5") for change in (
        "dispatch_id = 1", "due_at_us = 0", "batch_id = NULL", "state = 'running'", "state = 'scheduled'", "uncharged_count = 2", "uncharged_count = -1",
        "state = 'skipped', due_at_us = 1", "state = 'pending', dispatch_id = 1", "earlier_count = -1", "earlier_count = 1",
    )),
    *(("possible_rows", f"UPDATE run SET {change} WHERE run_id = 1", "run 1") for change in (
        "state = 'odd'", "state = 'cancelled'", "finished_at_us = 5", "total_count = 3", "pending_count = -1, total_count = total_count - 1",
        "intake_complete = 2", "intake_complete = 0, state = 'finished', finished_at_us = 1", "dispatch_count = -1",
    )),
    *(("possible_rows", f"UPDATE batch SET {change} WHERE batch_id = 5", "batch 5") for change in (
        "failed_count = -1", "failed_count = 9", "ended_count = 9, failed_count = 0", "finished_at_us = 5", "published_at_us = 5", "sealed = 1, ended_count = item_count",
    )),
    *(("possible_rows", f"UPDATE attempt SET {change} WHERE item_id = 5", "attempt 5") for change in ("outcome = 'odd'", "error_type = 'E'", "outcome = 'failed'")),
    *(("possible_rows", f"UPDATE result SET {change}", where) for change, where in (
        ("value = NULL WHERE item_id = 5", "result 5"), ("value = '1' WHERE item_id = 2", "result 2"),
        ("raw_bytes = NULL WHERE item_id = 2", "result 2"), ("segment_offset = 1 WHERE item_id = 5", "result 5"),
    )),
    ("possible_rows", "INSERT INTO suspect (item_id, run_id, death_count) VALUES (33, 2, -1)", "suspect 33"),
    ("possible_rows", "INSERT INTO suspect (item_id, run_id, group_number) VALUES (33, 2, -1)", "suspect 33"),
    ("possible_rows", "UPDATE control SET verb = 'fly' WHERE control_id = 1", "control 1"),
    ("possible_rows", "UPDATE control SET outcome = 'done' WHERE control_id = 1", "control 1"),
    ("open_suspects", "INSERT INTO suspect (item_id, run_id, group_number) VALUES (5, 1, 1)", "suspect 5"),
    ("open_suspects", "INSERT INTO suspect (item_id, run_id) VALUES (33, 1)", "suspect 33"),
    ("true_spending", "UPDATE run SET spent = '{\"usd\":2}' WHERE run_id = 1", "run 1"),
    ("true_spending", "UPDATE attempt SET spent = '{\"usd\":2}' WHERE item_id = 27", "run 2"),
    ("true_spending", "UPDATE attempt SET spent = 'usd' WHERE item_id = 5", "item 5"),
    ("whole_families", "DELETE FROM segment WHERE segment_id = 1", "result 2"),
    ("whole_families", "INSERT INTO attempt (item_id, number, worker, outcome, started_at_us, duration_us) VALUES (99, 1, 1, 'succeeded', 0, 0)", "attempt"),
    ("true_run_counters", "UPDATE run SET succeeded_count = succeeded_count - 1, failed_count = failed_count + 1 WHERE run_id = 1", "run 1"),
    ("true_run_counters", "UPDATE run SET attempt_count = 7 WHERE run_id = 2", "run 2"),
    ("true_run_counters", "UPDATE run SET batch_count = 9 WHERE run_id = 2", "run 2"),
    ("true_batch_counters", "UPDATE batch SET failed_count = 0 WHERE batch_id = 1", "batch 1"),
    ("true_batch_counters", "UPDATE batch SET item_count = 11, ended_count = 11 WHERE batch_id = 2", "batch 2"),
    ("numbered_batches", "UPDATE batch SET number = 7 WHERE batch_id = 3", "run 1"),
    ("numbered_batches", "UPDATE batch SET number = 0 WHERE batch_id = 1", "run 1"),
    ("sealed_batches", "UPDATE batch SET sealed = 0, finished_at_us = NULL WHERE batch_id = 1", "batch 1"),
    (
        "sealed_batches",
        "UPDATE batch SET sealed = 0, finished_at_us = NULL WHERE batch_id = 3; UPDATE run SET state = 'finished', finished_at_us = 1 WHERE run_id = 1",
        "batch 3",
    ),
    ("bounded_batches", "UPDATE item SET batch_id = 1 WHERE item_id = 12", "item 12"),
    ("bounded_batches", "UPDATE batch SET run_id = 2, number = 99 WHERE batch_id = 3", "item 21"),
    ("whole_spans", "UPDATE span SET last_item_id = last_item_id + 1 WHERE span_id = 1", "span 1"),
    ("whole_spans", "INSERT INTO span (run_id, first_item_id, last_item_id) VALUES (1, 3, 4)", "span 3"),
    ("whole_spans", "DELETE FROM item WHERE item_id = 37", "span 2"),
    ("whole_spans", "INSERT INTO span (run_id, first_item_id, last_item_id) VALUES (1, 50, 49)", "span 3"),
    ("agreeing_sums", "DELETE FROM span WHERE span_id = 2", "run 2"),
    ("agreeing_sums", "DELETE FROM batch WHERE run_id = 1", "run 1"),
    ("agreeing_sums", "UPDATE run SET succeeded_count = succeeded_count - 1, total_count = total_count - 1 WHERE run_id = 1", "run 1"),
    ("items_in_spans", "UPDATE span SET last_item_id = last_item_id - 1 WHERE span_id = 2", "item 37"),
    ("nothing_passed_by", "UPDATE run SET next_item_id = 38 WHERE run_id = 2", "item 33"),
    ("known_dispatches", "UPDATE item SET dispatch_id = 3 WHERE item_id = 31", "item 31"),
    ("numbered_attempts", "DELETE FROM attempt WHERE item_id = 6", "item 6"),
    ("numbered_attempts", "UPDATE attempt SET number = 2 WHERE item_id = 7", "item 7"),
    ("numbered_attempts", "UPDATE item SET attempt_count = 3 WHERE item_id = 8", "item 8"),
    ("states_as_attempted", "UPDATE attempt SET outcome = 'interrupted' WHERE item_id = 9", "item 9"),
    ("states_as_attempted", "UPDATE attempt SET outcome = 'succeeded', error_type = NULL WHERE item_id = 4", "item 4"),
    ("states_as_attempted", "UPDATE item SET state = 'skipped' WHERE item_id = 4", "item 4"),
    ("results_of_successes", "DELETE FROM result WHERE item_id = 10", "item 10"),
    ("results_of_successes", "INSERT INTO result (item_id, value) VALUES (4, '1')", "item 4"),
    ("slices_in_segments", "UPDATE result SET segment_offset = 9 WHERE item_id = 3", "item 3"),
    ("slices_in_segments", "UPDATE result SET raw_bytes = -1 WHERE item_id = 3", "item 3"),
    ("slices_in_segments", "UPDATE segment SET batch_id = 3 WHERE segment_id = 2", "item 12"),
    ("known_successes", "INSERT INTO cache_scope VALUES (1, '{}'); INSERT INTO cache VALUES (1, x'00', 4, 1, 1, 1, 1)", "cache of item 4"),
    ("known_successes", "INSERT INTO cache_scope VALUES (1, '{}'); INSERT INTO cache VALUES (1, x'00', 5, 2, 1, 1, 1)", "cache of item 5"),
    ("known_successes", "UPDATE attempt SET is_cached = 1 WHERE item_id = 5", "run 1"),
    ("known_successes", "UPDATE run SET cached_count = 1 WHERE run_id = 2", "run 2"),
    ("sound_segments", "UPDATE segment SET data = x'28B52FFD' WHERE segment_id = 1", "segment 1"),
    ("sound_segments", "UPDATE segment SET digest = zeroblob(32) WHERE segment_id = 2", "segment 2"),
    ("sound_segments", "UPDATE segment SET raw_bytes = 1 << 45 WHERE segment_id = 2", "segment 2"),
    ("sound_segments", "UPDATE segment SET data = CAST(data || x'00' AS BLOB) WHERE segment_id = 2", "segment 2"),
    ("json_values", "UPDATE result SET value = '{' WHERE item_id = 11", "item 11"),
    ("json_values", "UPDATE result SET value = 'NaN' WHERE item_id = 11", "item 11"),
    ("json_values", "UPDATE result SET value = CAST(x'22ff22' AS TEXT) WHERE item_id = 11", "item 11"),
    ("json_columns", "UPDATE run SET handler = 'os.system' WHERE run_id = 2", "run 2"),
    ("json_columns", "UPDATE run SET flow = '{' WHERE run_id = 2", "run 2"),
    ("json_columns", "UPDATE event SET detail = '' WHERE event_id = 1", "event 1"),
    ("json_columns", "UPDATE control SET argument = '' WHERE control_id = 1", "control 1"),
    ("true_run_counters", "UPDATE run SET gone_count = 1 WHERE run_id = 1", "run 1"),
    ("true_history", "UPDATE result_history SET number = 2", "item 20"),
    ("true_history", "UPDATE result_history SET number = 3", "item 20"),
    ("lost_items", "UPDATE item SET source_position = 0 WHERE item_id = 13", "item 13"),
    ("slices_in_segments", "UPDATE result_history SET value = NULL, segment_id = 1, segment_offset = 9999, raw_bytes = 1", "item 20"),
    ("json_values", "UPDATE result_history SET value = '{'", "item 20"),
    ("possible_rows", "UPDATE result_history SET cause = 'odd'", "result_history 20"),
    ("possible_rows", "UPDATE result_history SET value = NULL", "result_history 20"),
    *(("possible_rows", f"{PROMISED}; UPDATE undo SET {change} WHERE undo_id = 2", "undo 2") for change in (
        "state = 'odd'", "dispatch_id = -1", "ended_at_us = 1", "state = 'undoing'", "state = 'undone'", "state = 'failed'",
        "state = 'failed', ended_at_us = 1, wanted_at_us = 1", "state = 'irreversible', wanted_at_us = 1",
    )),
    *(("possible_rows", f"INSERT INTO undoing VALUES (5, 1, {then})", "undoing 5") for then in ("'odd', NULL", "'failed', 1")),
    ("true_promises", "UPDATE run SET undo_count = 1 WHERE run_id = 2", "run 2"),
    ("true_promises", PROMISED, "run 1"),
    *(("true_promises", f"{PROMISED}; UPDATE undo SET {change} WHERE undo_id = 2", "undo 2") for change in (
        "run_id = 2", "number = 2", "number = 0", "arguments = '[]'", "arguments = '{'", "item_id = 31, run_id = 2, number = 2",
    )),
    ("waiting_for_undo", f"{PROMISED}; UPDATE undo SET wanted_at_us = 1 WHERE undo_id = 2", "undo 2"),
    ("waiting_for_undo", "INSERT INTO undoing VALUES (5, 1, 'undone', NULL)", "undoing 5"),
    *(("waiting_for_undo", f"{PROMISED}; UPDATE undo SET wanted_at_us = 1 WHERE undo_id = 2; INSERT INTO undoing VALUES ({row})", "undoing 5") for row in (
        "5, 2, 'undone', NULL", "5, 1, 'failed', NULL", "5, 1, 'pending', 0",
    )),
    ("waiting_for_undo", "INSERT INTO undoing VALUES (33, 2, 'pending', 0)", "undoing 33"),
    ("waiting_for_undo", "UPDATE item SET due_at_us = 1 << 61 WHERE item_id = 33", "item 33"),
    ("kept_promises", f"{PROMISED}; UPDATE item SET state = 'undone' WHERE item_id = 5", "undo 2"),
    ("kept_promises", f"{PROMISED}; UPDATE item SET state = 'pending', due_at_us = 0 WHERE item_id = 5", "undo 2"),
    *(("sound_contents", f"{PROMISED}; INSERT INTO undo_blob VALUES (2, 3, x'00', {data})", "undo_blob 2") for data in ("x'28B52FFD'", "x''")),
    ("sound_contents", f"{PROMISED}; UPDATE undo SET state = 'undone', ended_at_us = 1 WHERE undo_id = 2; INSERT INTO undo_blob VALUES (2, 3, x'00', x'00')", "undo_blob 2"),
    ("true_digests", "UPDATE item SET payload = '\"k99\"' WHERE item_id = 13", "item 13"),
    ("true_digests", "UPDATE item SET key = 'k99' WHERE item_id = 13", "item 13"),
    ("true_digests", "UPDATE item SET key = CAST(x'6bff' AS TEXT) WHERE item_id = 13", "item 13"),
    ("true_digests", "UPDATE item SET payload = CAST(x'22ff22' AS TEXT) WHERE item_id = 14", "item 14"),
]


AT_START = {rule.name for rule in RULES if rule.at_start}


def test_a_worked_ledger_breaks_no_rule(worked):
    """Finished and half done runs are sound, through the reader and through the writer."""
    with Reader(worked) as reader:
        assert verify(reader) == []
    with contextlib.closing(open_ledger(worked)) as ledger:
        assert verify(ledger) == []


@pytest.mark.parametrize(("rule", "texts", "where"), SABOTAGE, ids=[f"{one[0]}-{number}" for number, one in enumerate(SABOTAGE)])
def test_each_rule_finds_what_breaks_it(worked, rule, texts, where):
    """One changed row, and the rule says which; what other rules say of it does not hide that."""
    factory.sabotage(worked, *texts.split("; "))
    with Reader(worked) as reader:
        found = [(one.rule, one.where) for one in verify(reader)]
    assert (rule, where) in found


@pytest.mark.parametrize(("rule", "texts"), [one[:2] for one in SABOTAGE if one[0] in AT_START])
def test_a_run_does_not_start_on_a_ledger_that_breaks_a_cheap_rule(worked, rule, texts):
    """What costs no look at the items is looked at before every run, and the ledger refused as it is."""
    factory.sabotage(worked, *texts.split("; "))
    with Reader(worked) as reader, pytest.raises(LedgerDamagedError, match=r"breaks . rule") as caught:
        refuse_broken(reader)
    assert caught.value.exit_code == 4
    assert "durabatch verify" in caught.value.hint


def test_a_sound_ledger_is_not_refused(worked):
    """The cheap rules let every ledger in that the engine wrote."""
    with Reader(worked) as reader:
        assert refuse_broken(reader) is None


def test_every_rule_has_a_sabotage_a_name_and_a_sentence():
    """No rule without a proof that it bites."""
    assert {one[0] for one in SABOTAGE} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(len(rule.sentence.split()) > 4 for rule in RULES)


def test_of_much_damage_a_part_is_listed(path, ledger):
    """A rule that is broken a hundred times lists some and says that there is more."""
    jobs = factory.run_of(ledger, 100)
    factory.work_off(ledger, jobs, limit=50)
    ledger.raw.execute("UPDATE item SET digest = zeroblob(16)")
    found = verify(ledger)
    assert len(found) == inspection.LIMIT + 1
    assert "there may be more" in found[-1].detail
    ledger.raw.execute("DELETE FROM result")
    ledger.raw.execute("DELETE FROM attempt")
    ledger.raw.execute("DELETE FROM item")
    ledger.raw.execute("DELETE FROM span")
    ledger.raw.execute("DELETE FROM batch")
    ledger.raw.execute("UPDATE run SET total_count = 0, succeeded_count = 0, attempt_count = 0, batch_count = 0")


def test_a_ledger_at_work_is_seen_in_one_state(path, ledger):
    """While a coordinator commits between two rules, the reader keeps what it saw first: no false finding."""
    jobs = factory.run_of(ledger, 300)
    with Reader(path) as reader, reader.snapshot():
        assert reader.value("item_last_id") == 300
        factory.work_off(ledger, jobs, limit=40, failing={"k7"}, packed={"k9"})
        assert verify(reader) == []
        assert reader.raw.execute("SELECT count(*) FROM result").fetchone() == (0,)
    with Reader(path) as reader:
        assert verify(reader) == []
        assert reader.raw.execute("SELECT count(*) FROM result").fetchone() == (299,)


def test_damaged_pages_are_findings_and_never_a_traceback(worked, tmp_path, seed, scaled):
    """Bits flipped anywhere in the file: the ledger is refused with our error, or verified to the end."""
    chance, whole = random.Random(seed), worked.read_bytes()
    seen = []
    # Most of the file is room, and what hits the schema is refused: go on until a finding was among what was seen.
    while len(seen) < scaled(1000) or (True not in seen and len(seen) < 2000):
        copy = tmp_path / "copy.db"
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 200))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        copy.write_bytes(damaged)
        try:
            with Reader(copy) as reader:
                seen.append(bool(verify(reader)))
        except errors.LedgerError as error:
            seen.append(type(error))
        for beside in tmp_path.glob("copy.db-*"):
            beside.unlink()
    assert True in seen


def test_a_page_full_of_noise_does_not_hide_the_rest(worked, tmp_path):
    """The attempts cannot be read; what is wrong with the segments is found all the same."""
    factory.sabotage(worked, "UPDATE segment SET digest = zeroblob(32) WHERE segment_id = 2")
    copy = shutil.copy(worked, tmp_path / "copy.db")
    (root,) = factory.rows(worked, "SELECT rootpage FROM sqlite_schema WHERE name = 'attempt'")[0]
    (size,) = factory.rows(worked, "PRAGMA page_size")[0]
    with open(copy, "r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)
    with Reader(copy) as reader:
        found = {(one.rule, one.where) for one in verify(reader)}
    assert {("numbered_attempts", "ledger"), ("sound_segments", "segment 2")} <= found


def test_memory_does_not_grow_with_the_ledger(path, ledger):
    """Twenty times the items cost no more at the peak than a small ledger does."""
    peaks = []
    for count in (200, 4000):
        factory.add(ledger, factory.new_run(ledger), [None] * count, payload=lambda key: '"' + "x" * 500 + '"')
        tracemalloc.start()
        assert verify(ledger) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000
