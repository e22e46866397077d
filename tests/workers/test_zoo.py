"""Handlers that do what no handler should: each hurts its own item and nothing else."""

from __future__ import annotations

import json
import os
import signal

import pytest

from durabatch.workers import protocol
from durabatch.workers.protocol import Failure, Stop


def failure(worker, payload="1"):
    """Run one item that fails, and check that the worker still works."""
    found = worker.only(payload)
    assert isinstance(found, Failure), found
    assert found.outcome == "failed"
    return found


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("def __str__(self): raise RuntimeError", "(message not available)"),
        ("def __str__(self): raise SystemExit", "(message not available)"),
        ("def __str__(self): return 5", "(message not available)"),
        ("def __repr__(self): raise RuntimeError", "plain"),
        ("def __str__(self): return 'x' * 10**8", "x" * 8192 + " [cut, 100,000,000 characters in all]"),
        ("def __str__(self): return chr(0xd800)", "\\ud800"),
    ],
    ids=["raises", "exits", "number", "repr raises", "huge", "surrogate"],
)
def test_an_exception_that_cannot_speak_is_recorded_all_the_same(start, method, message):
    """Row 66: whatever the exception's methods do, type and a message of bounded size are recorded."""
    worker = start(f"class BadError(Exception):\n    {method}\ndef work(item): raise BadError('plain')")
    found = failure(worker)
    assert (found.error_type, found.message) == ("BadError", message)
    assert len(found.traceback) < 20_000


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('b')", "StopIteration()"])
def test_exceptions_that_mean_something_else_elsewhere_fail_the_item(start, raised):
    """Row 67: no exception ends the worker or passes for success."""
    worker = start(f"def work(item):\n    if item: raise {raised}\n    return 'fine'")
    worker.dispatch(1, "1", "0")
    outcomes = worker.outcomes(1)
    assert outcomes[1].error_type == raised.partition("(")[0]
    assert outcomes[2] == '"fine"'


def test_the_traceback_begins_in_the_users_file(start, folder):
    """Frames of durabatch are left out, causes are kept, and source lines are shown."""
    worker = start(
        """
        def deeper(item):
            return 1 / item

        def work(item):
            try:
                deeper(item)
            except ZeroDivisionError as error:
                raise ValueError("bad") from error
        """
    )
    found = failure(worker, "0")
    lines = found.traceback.splitlines()
    assert lines[1].strip().startswith(f'File "{folder}/jobs.py"')
    assert "durabatch/" not in found.traceback
    assert "return 1 / item" in found.traceback
    assert "The above exception was the direct cause" in found.traceback
    assert lines[-1] == "ValueError: bad"


def test_a_deep_recursion_is_one_failed_item(start):
    """The traceback of a recursion is bounded, and the next item runs."""
    worker = start("def work(item): return work(item) if item else 'fine'")
    found = failure(worker)
    assert found.error_type == "RecursionError"
    assert len(found.traceback.encode()) <= 17_000
    assert worker.only("0") == '"fine"'


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ("os._exit(0)", 0),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.abort()", -signal.SIGABRT),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
    ],
    ids=["exit", "kill", "abort", "segfault"],
)
def test_a_dead_worker_leaves_its_item_in_the_cell(start, act, status):
    """Rows 68 and 69: the finished neighbour may be sent or not, the deadly item is in the cell, others are not in it."""
    worker = start(f"import ctypes, os\ndef work(item):\n    if item: {act}\n    return item")
    worker.dispatch(1, "1")
    assert worker.is_gone()
    assert worker.wait() == status
    assert worker.at().item_id == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{'rows': [1, {'f': lambda: 0}]}", "$.rows[1].f"),
        ("(n for n in [1])", "generator"),
        ("float('nan')", "$"),
        ("{'a': {1, 2}}", "$.a"),
        ("b'x'", "bytes"),
        ("{1: 2}", "$"),
        ("loop()", "$"),
        ("deep()", "$"),
        ("Nasty()", "Nasty"),
    ],
    ids=["lambda", "generator", "nan", "set", "bytes", "number key", "cycle", "depth", "reduce"],
)
def test_a_value_that_cannot_be_stored_is_a_result_error(start, value, words):
    """Rows 71 and 73: the error names what and where, and the worker goes on."""
    worker = start(
        f"""
        class Nasty:
            def __reduce__(self): raise RuntimeError

        def loop():
            rows = []
            rows.append(rows)
            return rows

        def deep():
            rows = []
            for _ in range(100_000): rows = [rows]
            return rows

        def work(item): return {value} if item else "fine"
        """
    )
    found = failure(worker)
    assert found.error_type == "ResultError"
    assert words in found.message
    assert worker.only("0") == '"fine"'


def test_a_value_that_is_too_large_is_named(start):
    """Row 72: size, limit and option are in the message."""
    worker = start("def work(item): return 'x' * (2 << 20)")
    found = failure(worker)
    assert found.error_type == "ResultTooLarge"
    assert "--max-result-bytes" in found.message


def test_conversions_are_the_documented_ones(start):
    """Row 73: dates, decimals and tuples become text and lists."""
    worker = start("import datetime, decimal\ndef work(item): return [(1, 2), datetime.date(2024, 2, 29), decimal.Decimal('1.10')]")
    assert worker.only() == '[[1,2],"2024-02-29","1.10"]'


@pytest.mark.parametrize(
    "act",
    [
        "print('x' * 10_000_000)",
        "sys.stdout.buffer.write(bytes(range(256)) * 100)",
        "sys.stdout.buffer.write(struct.pack('<III', 0xD5BA7C41, 4, 0) + b'junk'); sys.stdout.flush()",
        "os.close(1); os.close(2)",
        "sys.stdout.close(); sys.stderr.close()",
        "print(chr(0xd800))",
        "os.write(1, b'x'); os.write(2, b'y')",
    ],
    ids=["much", "binary", "magic", "closed descriptors", "closed files", "surrogate", "raw"],
)
def test_printing_does_not_disturb_the_protocol(start, act):
    """Row 74: what a handler does to its standard streams touches no frame."""
    worker = start(f"import os, struct, sys\ndef work(item):\n    if item == 1: {act}\n    return item")
    worker.dispatch(1, "1", "2")
    assert worker.outcomes(1) == {1: "1", 2: "2"}


def test_a_handler_that_closes_all_descriptors_loses_its_worker_only(start):
    """Row 75: the worker is gone as crashed; its neighbour works on."""
    victim = start("import os, time\ndef work(item):\n    if item: os.closerange(3, 4096); time.sleep(600)\n    return item")
    neighbour = start("def work(item): return item")
    victim.dispatch(1, "1")
    assert victim.is_gone()
    os.killpg(victim.pid, signal.SIGKILL)
    assert victim.wait() != 0
    assert victim.at().item_id == 1
    assert neighbour.only("7") == "7"


def test_a_handler_that_writes_everywhere_is_found_out(start):
    """Row 75: junk in the pipe is no frame; cells of others stay as they were."""
    victim = start(
        """
        import os
        def work(item):
            for descriptor in range(3, 1024):
                try:
                    os.write(descriptor, b"junk" * 64)
                except OSError:
                    continue
            return item
        """
    )
    neighbour = start("def work(item): return item")
    victim.dispatch(1, "1")
    with pytest.raises((protocol.ProtocolError, EOFError)):
        victim.receive()
    assert neighbour.only("7") == "7"
    assert neighbour.at().pid == neighbour.pid


def test_a_forked_copy_records_nothing(start):
    """Row 76: of a handler that forks and returns twice only the worker's own return counts, and each item runs once."""
    worker = start("import os\ndef work(item):\n    child = os.fork()\n    return [item, child == 0]")
    worker.dispatch(1, "1", "2")
    assert worker.outcomes(1) == {1: "[1,false]", 2: "[2,false]"}
    worker.send(Stop())
    assert worker.is_gone()
    assert worker.wait() == 0


def test_a_forked_child_that_raises_records_nothing(start):
    """Row 76: an exception in the copy is no outcome either."""
    worker = start("import os\ndef work(item):\n    if os.fork() == 0: raise ValueError\n    os.wait()\n    return item")
    assert worker.only("3") == "3"


def test_a_surviving_child_does_not_hold_the_pipe(start, folder, eventually):
    """Row 76: a child that outlives the worker keeps the coordinator waiting for nothing."""
    worker = start(
        """
        import os, pathlib, time
        def work(item):
            if os.fork() == 0:
                pathlib.Path("child").touch()
                time.sleep(600)
            return item
        """
    )
    assert worker.only("3") == "3"
    eventually((folder / "child").exists)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.is_gone()
    os.killpg(worker.pid, signal.SIGKILL)


def test_processes_of_multiprocessing_work(start):
    """A handler may use a pool of its own, with either way to start processes."""
    worker = start(
        """
        import multiprocessing
        def twice(n): return n * 2
        def work(method):
            with multiprocessing.get_context(method).Pool(2) as pool:
                return pool.map(twice, [1, 2, 3])
        """
    )
    worker.dispatch(1, '"fork"', '"spawn"')
    assert worker.outcomes(1) == {1: "[2,4,6]", 2: "[2,4,6]"}


def test_surroundings_are_clean_for_the_next_item(start, folder):
    """Row 80: directory, umask and recursion limit are those of the start again, also when the directory is gone."""
    worker = start(
        """
        import os, sys
        def work(item):
            found = [os.getcwd(), os.umask(0o777), sys.getrecursionlimit()]
            os.mkdir(f"gone{item}", 0o700)
            os.chdir(f"gone{item}")
            os.rmdir(os.getcwd())
            sys.setrecursionlimit(10**9)
            return found
        """
    )
    worker.dispatch(1, "1", "2", "3")
    outcomes = worker.outcomes(1)
    assert outcomes[1] == outcomes[2] == outcomes[3]
    assert str(folder) in outcomes[1]


def test_a_handler_that_asks_gets_no_answer(start):
    """Row 83: there is no standard input, and the message says so."""
    found = failure(start("def work(item): return input('Continue? ')"))
    assert found.error_type == "EOFError"
    assert found.message == "EOF when reading a line (a handler has no standard input)"


UNDONE = """
    import datetime, pathlib
    import durabatch

    @durabatch.undo_action("delete_site")
    def delete_site(url): pass

    def work(item, ctx):
        wrong = {
            "unknown": lambda: ctx.undo("delete_sight", url="u"),
            "function": lambda: ctx.undo(delete_site, url="u"),
            "builtin": lambda: ctx.undo("files.write", path="/etc/passwd"),
            "set": lambda: ctx.undo("delete_site", url={1}),
            "nan": lambda: ctx.undo("delete_site", url=[0.0, float("nan")]),
            "object": lambda: ctx.undo("delete_site", url=ctx),
            "large": lambda: ctx.undo("delete_site", url="x" * 70_000),
            "other": lambda: ctx.undo("delete_site", uri="u"),
            "missing": lambda: ctx.undo("delete_site"),
        }
        wrong[item]()
        pathlib.Path(item).touch()
"""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_undo_entry_that_could_not_be_undone_is_refused_at_once(start, folder, is_async):
    """Row 82: an action that is not registered, or arguments that are not JSON or not its own: nothing is sent, and no effect happens."""
    worker = start(UNDONE.replace("def work", "async def work").replace("wrong[item]()", "await wrong[item]()") if is_async else UNDONE)
    said = {
        "unknown": "no undo action 'delete_sight' is registered. Did you mean 'delete_site'?",
        "function": "is not the name of an action",
        "builtin": "ctx.undo('files.write'): file actions are recorded by ctx.files itself. Call that instead.",
        "set": "ctx.undo('delete_site'): set at $.url cannot be stored",
        "nan": "ctx.undo('delete_site'): ",
        "object": "Context at $.url cannot be stored",
        "large": "ctx.undo('delete_site'): arguments of 68.4 KiB, an undo entry holds 64 KiB",
        "other": "ctx.undo('delete_site'): the action takes no 'uri'. It is jobs:delete_site.",
        "missing": "ctx.undo('delete_site'): the action needs 'url'. It is jobs:delete_site.",
    }
    worker.dispatch(1, *map(json.dumps, said))
    outcomes = worker.outcomes(1)
    assert {outcome.error_type for outcome in outcomes.values()} == {"UndoError"}
    for item, words in enumerate(said.values(), 1):
        assert words in outcomes[item].message
        assert not (folder / list(said)[item - 1]).exists()
