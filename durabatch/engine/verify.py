"""
Does the ledger hold together? Every rule that its rows must keep, tried on all of them.

A rule has a name and a sentence. What breaks it becomes a finding; where a part cannot be read at all, that is the finding, and the
other rules are tried all the same. Memory does not grow with the ledger: walks hold a row or a segment at a time, and a rule lists at
most :data:`durabatch.ledger.inspection.LIMIT` of what breaks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from pydantic_core import from_json

from durabatch.codec import payload_digest, unpack_frame
from durabatch.engine.results import MAX_SEGMENT_BYTES
from durabatch.engine.submit import locate
from durabatch.engine.verify_undo import kept_promises, sound_contents, true_promises, waiting_for_undo
from durabatch.errors import LedgerDamagedError, ResultError
from durabatch.ledger import cache, export, inspection, result, run
from durabatch.ledger.executor import Executor
from durabatch.ledger.paths import shown
from durabatch.models import Finding

__all__ = ["RULES", "Rule", "refuse_broken", "verify"]

#: (where, what was found)
Broken = tuple[str, str]
#: Keys whose hashes meet are moved on to the next probe; as many in a row do not happen.
MOST_PROBES = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One thing that is true of every ledger.

    Attributes:
        sentence: It, in words.
        broken: Yields what breaks it.
        at_start: It reads no item, so that every start of a run can afford it.
    """

    name: str
    sentence: str
    broken: Callable[[Executor], Generator[Broken]]
    at_start: bool = False


def verify(ledger: Executor) -> list[Finding]:
    """
    Return what is wrong with the ledger, by rule; nothing when every rule of :data:`RULES` holds.

    All rules see one state of the ledger, also while a coordinator works on it. Nothing is changed.

    Raises:
        LedgerError: The storage failed, or somebody keeps the ledger locked: nothing can be said.
    """
    findings: list[Finding] = []
    with ledger.snapshot():
        for rule in RULES:
            findings += findings_of(ledger, rule)
    return findings


def refuse_broken(ledger: Executor) -> None:
    """
    Return when the rules that read no item hold: a run may go on.

    Raises:
        LedgerDamagedError: They do not. Nothing was changed.
    """
    findings = [finding for rule in RULES if rule.at_start for finding in findings_of(ledger, rule)]
    if findings:
        name, first = shown(ledger.files.ledger), findings[0]
        rules = len({finding.rule for finding in findings})
        raise LedgerDamagedError(
            name, f"breaks {rules} {'rule' if rules == 1 else 'rules'} ({first.where}: {first.detail})", f"See `durabatch verify --ledger {name}`."
        )


def findings_of(ledger: Executor, rule: Rule) -> list[Finding]:
    """Return what breaks one rule."""
    found: list[Finding] = []
    try:
        # Closed at once: a walk that ends early must let go of its cursor before the snapshot ends.
        with closing(rule.broken(ledger)) as broken:
            for where, detail in islice(broken, inspection.LIMIT):
                found.append(Finding(rule.name, where, detail))
    except LedgerDamagedError as error:
        found.append(Finding(rule.name, "ledger", f"cannot be read to its end: {error.what}"))
    if len(found) == inspection.LIMIT:
        found.append(Finding(rule.name, "ledger", f"there may be more: {inspection.LIMIT} are listed"))
    return found


def sound_file(ledger: Executor) -> Generator[Broken]:
    """Ask SQLite for damage."""
    yield from (("file", line) for line in inspection.damage(ledger))


def possible_rows(ledger: Executor) -> Generator[Broken]:
    """Look for rows that their table forbids."""
    yield from ((f"{table} {row_id}", "is as its table forbids") for table, row_id in inspection.impossible(ledger))


def whole_families(ledger: Executor) -> Generator[Broken]:
    """Find rows without their parent."""
    for table, row_id, parent in inspection.orphans(ledger):
        yield table if row_id is None else f"{table} {row_id}", f"its {parent} is missing"


def true_run_counters(ledger: Executor) -> Generator[Broken]:
    """Count the rows of each run."""
    for run_id, differing in inspection.counters(ledger):
        for name, (said, found) in differing.items():
            yield f"run {run_id}", f"{name} is {said}, the rows say {found}"


def true_batch_counters(ledger: Executor) -> Generator[Broken]:
    """Count the rows of each batch."""
    for batch_id, said, found in inspection.batch_mismatches(ledger):
        yield f"batch {batch_id}", f"items, ended, failed are {said}, the rows say {found}"


def agreeing_sums(ledger: Executor) -> Generator[Broken]:
    """Compare the counters of runs with sums over their spans and batches."""
    for run_id, total, in_spans, batches, rows, ended, in_batches in inspection.sums_differing(ledger):
        said = f"{total} items, {batches} batches, {ended} ended"
        yield f"run {run_id}", f"says {said}; spans and batches say {in_spans}, {rows}, {in_batches}"


def numbered_batches(ledger: Executor) -> Generator[Broken]:
    """Look for gaps between batches."""
    for run_id, count, highest in inspection.batch_gaps(ledger):
        yield f"run {run_id}", f"{count} batches, the highest number is {highest}"


def sealed_batches(ledger: Executor) -> Generator[Broken]:
    """Look for batches that should be closed."""
    for batch_id, run_id, number in inspection.batches_left_open(ledger):
        yield f"batch {batch_id}", f"number {number} of run {run_id} is still open"


def bounded_batches(ledger: Executor) -> Generator[Broken]:
    """Look for items far from their batch."""
    for item_id, batch_id in inspection.outside_batch(ledger):
        yield f"item {item_id}", f"is not between the bounds of its batch {batch_id}, or of another run"


def whole_spans(ledger: Executor) -> Generator[Broken]:
    """Count the items of each span."""
    for span_id, run_id, first, last in inspection.spans_broken(ledger):
        yield f"span {span_id}", f"{first} to {last} are not all items of run {run_id}, or belong to another span, too"


def items_in_spans(ledger: Executor) -> Generator[Broken]:
    """Look for items without a span."""
    yield from ((f"item {item_id}", "is in no span of its run") for item_id in inspection.outside_spans(ledger))


def nothing_passed_by(ledger: Executor) -> Generator[Broken]:
    """Look for fresh items that no claim would find."""
    for item_id, watermark in inspection.passed_by(ledger):
        yield f"item {item_id}", f"is fresh, the watermark {watermark} has passed it"


def known_dispatches(ledger: Executor) -> Generator[Broken]:
    """Look for dispatches that were never made."""
    for item_id, dispatch_id, last in inspection.unknown_dispatches(ledger):
        yield f"item {item_id}", f"is with dispatch {dispatch_id}, the last one was {last}"


def numbered_attempts(ledger: Executor) -> Generator[Broken]:
    """Count the attempts of each item."""
    for item_id, said, found, highest in inspection.attempt_mismatches(ledger):
        yield f"item {item_id}", f"attempt_count is {said}, there are {found} with the highest number {highest}"


def states_as_attempted(ledger: Executor) -> Generator[Broken]:
    """Compare states with last attempts."""
    for item_id, state, outcome in inspection.outcome_mismatches(ledger):
        yield f"item {item_id}", f"is {state}, its last attempt {outcome}"


def results_of_successes(ledger: Executor) -> Generator[Broken]:
    """Compare states with results."""
    for item_id, state, has_result in inspection.result_mismatches(ledger):
        yield f"item {item_id}", f"is {state} and has {'a' if has_result else 'no'} result"


def slices_in_segments(ledger: Executor) -> Generator[Broken]:
    """Compare slices with segments."""
    for item_id, segment_id in inspection.slices_out_of_bounds(ledger):
        yield f"item {item_id}", f"its result is not inside segment {segment_id} of its batch"
    for item_id, segment_id in inspection.past_slices_out_of_bounds(ledger):
        yield f"item {item_id}", f"an earlier result is not inside segment {segment_id}"


def true_history(ledger: Executor) -> Generator[Broken]:
    """Compare results of before with attempts."""
    for item_id, number, outcome in inspection.past_mismatches(ledger):
        yield f"item {item_id}", f"attempt {number} ({outcome}) has an earlier result, but did not succeed or has the present result"


def lost_items(ledger: Executor) -> Generator[Broken]:
    """Look for items that the input has lost and that may run."""
    for item_id, state in inspection.lost_mismatches(ledger):
        yield f"item {item_id}", f"is {state}, and stands nowhere in the input"


def known_successes(ledger: Executor) -> Generator[Broken]:
    """Look for attempts in the cache that returned nothing, and count those that it answered."""
    yield from ((f"cache of item {item_id}", f"attempt {number} is no success of a handler") for item_id, number in cache.list_broken(ledger))
    for run_id, said, found in cache.count_mismatches(ledger):
        yield f"run {run_id}", f"cached_count is {said}, its attempts say {found}"


def sound_segments(ledger: Executor) -> Generator[Broken]:
    """Unpack every segment."""
    for segment_id in inspection.segment_ids(ledger):
        raw_bytes, digest, data = result.get_segment(ledger, segment_id) or (None, None, None)
        try:
            if not (isinstance(raw_bytes, int) and isinstance(data, bytes)):
                yield f"segment {segment_id}", "its size or its data is missing"
            else:
                unpack_frame(data, raw_bytes=raw_bytes, limit_bytes=MAX_SEGMENT_BYTES, digest=digest or b"")
        except ResultError as error:
            yield f"segment {segment_id}", error.what


def json_values(ledger: Executor) -> Generator[Broken]:
    """Parse every inline value."""
    for item_id, value in inspection.inline_values(ledger):
        if not is_json(value):
            yield f"item {item_id}", "its result is not JSON in UTF-8"


def json_columns(ledger: Executor) -> Generator[Broken]:
    """Parse what runs, events and orders say of themselves."""
    yield from ((f"{table} {row_id}", "a column of it that holds JSON does not") for table, row_id in inspection.not_json(ledger))


def true_spending(ledger: Executor) -> Generator[Broken]:
    """Add up what attempts have spent."""
    broken, sums = inspection.spending(ledger)
    yield from ((f"item {item_id}", "what an attempt at it spent is not JSON") for item_id in broken)
    for row in run.list_all(ledger):
        found = sums.get(row.run_id, {})
        for unit in sorted({*row.spent, *found}):
            said, counted = row.spent.get(unit, 0.0), found.get(unit, 0.0)
            if not math.isclose(said, counted, rel_tol=1e-6, abs_tol=1e-6):
                yield f"run {row.run_id}", f"says that it spent {said:g} {unit}, its attempts {counted:g}"


def open_suspects(ledger: Executor) -> Generator[Broken]:
    """Look for suspects that are set apart for nothing."""
    for item_id, state in inspection.suspects_misplaced(ledger):
        yield f"suspect {item_id}", f"is set apart, its item is {state} or of another run"


def true_digests(ledger: Executor) -> Generator[Broken]:
    """Compute the digest of every payload, and the hash of every key, again."""
    for item_id, key, run_id, payload, digest in inspection.contents(ledger):
        if key is None or payload is None:
            yield f"item {item_id}", "its key or its payload is missing"
            continue
        try:
            if locate(ledger, run_id, key.decode()) != item_id:
                yield f"item {item_id}", "it is not found by its key"
            if payload_digest(payload.decode()) != digest:
                yield f"item {item_id}", "its digest is not that of its payload"
        except UnicodeDecodeError:
            yield f"item {item_id}", "its text is not UTF-8"


def is_json(text: bytes) -> bool:
    """Tell whether *text* is strict JSON in UTF-8."""
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


#: Cheap ones about the file first: they tell how far the others can be trusted.
def possible_exports(ledger: Executor) -> Generator[Broken]:
    """Compare what left with what there was."""
    for export_id, item_id in export.mismatches(ledger):
        yield f"export {export_id}", f"cannot have got item {item_id} as it says"


RULES = (
    Rule("sound_file", "SQLite finds no damage in pages, indexes and types", sound_file),
    Rule("possible_rows", "no row is in a state that its table forbids", possible_rows),
    Rule("whole_families", "every row that names another one finds it", whole_families),
    Rule("true_run_counters", "the counters of a run are what its items, attempts and batches add up to", true_run_counters),
    Rule("true_batch_counters", "the counters of a batch are what its items add up to", true_batch_counters),
    Rule("agreeing_sums", "runs, spans and batches agree on how many items there are and how many have ended", agreeing_sums, at_start=True),
    Rule("numbered_batches", "the batches of a run are numbered from 1 without a gap", numbered_batches, at_start=True),
    Rule("sealed_batches", "only the newest batch of a run takes items, and none is open once the run has finished", sealed_batches),
    Rule("bounded_batches", "the items of a batch are of its run and between its first and last id", bounded_batches),
    Rule("whole_spans", "a span holds items of its run alone, without a gap, and shares none with another span", whole_spans),
    Rule("items_in_spans", "every item is in a span of its run", items_in_spans),
    Rule("nothing_passed_by", "no fresh item stands before the watermark of its run", nothing_passed_by),
    Rule("known_dispatches", "running items are with a dispatch that was made", known_dispatches),
    Rule("numbered_attempts", "the attempts of an item are numbered from 1 to its count", numbered_attempts),
    Rule("states_as_attempted", "an item that succeeded, failed or was skipped did so in its last attempt", states_as_attempted),
    Rule("results_of_successes", "an item has a result exactly when it succeeded", results_of_successes),
    Rule("true_history", "an earlier result is what a success of its item returned, and not the present one", true_history),
    Rule("lost_items", "an item that the input has lost is cancelled", lost_items),
    Rule("slices_in_segments", "a packed result lies inside a segment of its item's batch, or is one of the cache", slices_in_segments),
    Rule("known_successes", "the cache names attempts that succeeded, and runs count what it answered", known_successes),
    Rule("possible_exports", "what an export has got is an item of its run, as of an attempt that there was", possible_exports),
    Rule("sound_segments", "every segment unpacks to the size and SHA-256 that were recorded", sound_segments),
    Rule("json_values", "every inline result is JSON", json_values),
    Rule("json_columns", "handlers, sources, settings, events and orders are JSON", json_columns, at_start=True),
    Rule("true_spending", "a run has spent what its attempts have spent together", true_spending),
    Rule("open_suspects", "an item that is set apart as a suspect has not ended, and is of the run that suspects it", open_suspects),
    Rule("true_promises", "an undo entry is of its item's run, of an attempt that there was, and counted; its arguments are a JSON object", true_promises),
    Rule("waiting_for_undo", "an item waits for something to be undone exactly when something of it is to be", waiting_for_undo),
    Rule("kept_promises", "nothing is left of an item that is undone, nor of failed attempts at one that waits for the next", kept_promises),
    Rule("sound_contents", "every content of before unpacks to what was recorded, and is kept only until it is back", sound_contents),
    Rule("true_digests", "digests and key hashes are those of the payloads and keys", true_digests),
)
