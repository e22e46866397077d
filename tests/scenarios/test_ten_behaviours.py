"""
One job through the real command line, from the first start to the last retry, with everything that goes wrong on the way.

The job: JSON lines ``{"id", "amount"}`` and a plain function that sleeps a millisecond; 20 lines hold ``"N/A"``, which it cannot convert.
Every call is counted in a file. The file has 400 lines, 2,000 with ``--long``.
"""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from durabatch.api import Ledger
from tests.crash.processes import ROOT, Child, eventually, is_alive
from tests.done import Done

#: As a user writes it, who never heard of us.
HANDLER = """
import os
import time

CALLS = os.open("calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def work(item):
    os.write(CALLS, f"{item['id']}\\n".encode())
    time.sleep(0.001)
    return float(item["amount"]) * 2
"""
COMMAND = ("run", "handler.py:work", "items.jsonl")
#: Verbs that need no process of their own: they import no handler and start nobody.
LOOKING = {"attempts", "errors", "items", "results", "runs", "sql", "status", "verify"}


class Job:
    """The directory of the job."""

    def __init__(self, folder, count, command) -> None:
        self.folder, self.count, self.command = folder, count, command
        self.started: list[Child] = []
        self.write("handler.py", HANDLER)
        self.lines = [json.dumps({"id": f"r{number:04}", "amount": "N/A" if self.is_bad(number) else number}) for number in range(count)]
        self.write_items(self.lines)

    def is_bad(self, number: int) -> bool:
        """Tell which 20 items fail."""
        return number % (self.count // 20) == 7

    @property
    def bad(self) -> list[str]:
        """The keys of the items that fail."""
        return [f"r{number:04}" for number in range(self.count) if self.is_bad(number)]

    def write(self, name, text) -> None:
        (self.folder / name).write_text(text)

    def write_items(self, lines) -> None:
        self.write("items.jsonl", "".join(f"{line}\n" for line in lines))

    def mend(self) -> None:
        """Repair the function."""
        self.write("handler.py", HANDLER.replace('item["amount"]', '0 if item["amount"] == "N/A" else item["amount"]'))

    def calls(self) -> list[str]:
        """Return the ids that the function was called with."""
        calls = self.folder / "calls"
        return calls.read_text().split() if calls.exists() else []

    def start(self, *words, **options) -> Child:
        """Start ``durabatch WORDS``."""
        child = Child([sys.executable, "-m", "durabatch", *words], folder=self.folder, **options)
        self.started.append(child)
        return child

    def do(self, *words, code: int = 0) -> tuple[str, str]:
        """Run ``durabatch WORDS`` to its end and return what it printed; its exit code must be *code*. Nobody is started just to look, or to be refused."""
        done = self.command(*words) if words[0] in LOOKING or code in (2, 4) else self.done(*words)
        assert done.code == code, (words, done.err)
        assert "Traceback" not in done.err
        return done.out, done.err

    def done(self, *words) -> Done:
        """Run ``durabatch WORDS`` as a process of its own."""
        child = self.start(*words)
        return Done(child.end(), child.printed.decode(), child.stderr())

    def start_until(self, calls: int, *words) -> Child:
        """Start the job and return when the function was called so often."""
        before = len(self.calls())
        child = self.start(*COMMAND, *words)
        eventually(lambda: len(self.calls()) >= before + calls or child.process.poll() is not None, "calls")
        assert child.process.poll() is None, child.stderr()
        return child

    def counts(self) -> dict[str, int]:
        """Return the items of the run by state, those that there are."""
        (run,) = json.loads(self.do("status", "--json")[0])["runs"]
        counts = {state: number for state, number in run["counts"].items() if number}
        assert counts.pop("total") == sum(counts.values()) == self.count
        return counts

    def results(self, *words) -> dict[str, object]:
        """Return the values by key, as exported."""
        rows = [json.loads(line) for line in self.do("results", *words)[0].splitlines()]
        assert len({row["key"] for row in rows}) == len(rows)
        return {row["key"]: row["value"] for row in rows}

    def files(self) -> list[dict]:
        """Return the files of ``--output out``; none is torn."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "out").glob("*.json"))]

    def close(self) -> None:
        for child in self.started:
            child.destroy() if child.process.poll() is None else child.end()


@pytest.fixture
def job(tmp_path, long, command, monkeypatch):
    """Give the job, nothing of it done yet, and stand in its directory."""
    monkeypatch.chdir(tmp_path)
    made = Job(tmp_path, 2000 if long else 400, command)
    yield made
    made.close()


def test_killed_resumed_failed_mended_retried(job):
    """kill -9 of all processes in the middle; the same command goes on with the rest and nothing else; only the failed are retried, and then nothing is listed as failed."""
    child = job.start_until(job.count // 2, "--output", "out", "--batch-size", "20")
    child.destroy()

    # Whatever the moment: every item is in one state, and a success has its value.
    counts = job.counts()
    done, failed = counts["succeeded"], counts.get("failed", 0)
    assert 0 < done + failed < job.count
    recorded = job.results()
    assert len(recorded) == done
    assert "0 rules" not in job.do("verify")[1]
    already_failed = [row["key"] for row in map(json.loads, job.do("results", "--all")[0].splitlines()) if row["state"] == "failed"]
    assert len(already_failed) == failed
    assert all(item["key"] in {*recorded, *already_failed} for batch in job.files() for item in batch.get("items", ()))
    before = job.calls()

    # The same command again says what it does, and does only that.
    _, told = job.do(*COMMAND, "--output", "out", "--batch-size", "20", code=1)
    assert f"resuming: {done:,} done, {failed:,} failed, {job.count - done - failed:,} left" in told
    *_, heading, group, place, following, verdict = told.splitlines()
    assert heading == "failed:"
    assert group == f"  ValueError: could not convert string to float: 'N/A' - 20 items, first {job.bad[0]}, last {job.bad[-1]}"
    assert place == f"results: `durabatch results`; batches and summary.json in {job.folder / 'out'}"
    assert "`durabatch retry` tries the failed again" in following
    assert verdict.startswith(f"work:items.jsonl: {job.count:,} items, {job.count - 20:,} succeeded, 20 failed in ")
    assert "\r" not in told
    assert "\x1b" not in told
    # Nothing that was recorded is called again; what is, was in flight or finished in the last 50 ms.
    calls = collections.Counter(job.calls())
    assert set(calls) == {f"r{number:04}" for number in range(job.count)}
    assert not {key for key in [*recorded, *already_failed] if calls[key] > 1}
    assert len(job.calls()) - job.count <= 150
    assert set(job.calls()[len(before) :]) == set(calls) - set(recorded) - set(already_failed)
    assert job.counts() == {"succeeded": job.count - 20, "failed": 20}
    written = [item["key"] for batch in job.files() for item in batch.get("items", ())]
    assert written == sorted(calls)

    # Finished and unchanged: one line, at once, and no call.
    started_s, number = time.monotonic(), len(job.calls())
    _, told = job.do(*COMMAND, code=1)
    assert time.monotonic() - started_s < 3
    assert told == f"nothing to do: {job.count - 20:,} succeeded, 20 failed; `durabatch retry` tries the failed again\n"
    assert len(job.calls()) == number

    # Mended, without the input: the failed ones alone, their results in the same place.
    job.mend()
    (job.folder / "items.jsonl").rename(job.folder / "away.jsonl")
    job.do("retry", "--error", "KeyError", code=1)
    assert len(job.calls()) == number
    _, told = job.do("retry", "--error", "ValueError")
    assert f"{job.count:,} succeeded, 0 failed" in told.splitlines()[-1]
    assert sorted(job.calls()[number:]) == job.bad
    assert job.counts() == {"succeeded": job.count}
    assert job.results() == {f"r{number:04}": 0.0 if job.is_bad(number) else number * 2.0 for number in range(job.count)}
    assert job.do("errors") == ("", "no failed items\n")
    assert job.do("items", "--state", "failed")[0].count("r0") == 0
    assert [item["key"] for batch in job.files() for item in batch.get("items", ()) if item["state"] != "succeeded"] == []
    assert job.do("retry")[1] == f"nothing to retry: {job.count:,} succeeded, 0 failed\n"


def test_failures_are_a_place_to_work_in(job):
    """Grouped by error with the user's own keys; for one of them the tries, with the traceback from the user's file on."""
    job.do(*COMMAND, code=1)
    shown = job.do("errors")[0]
    assert "could not convert string to float: 'N/A'" in shown
    assert re.search(rf"\b20\b.*\b{job.bad[0]}\b.*\b{job.bad[-1]}\b", shown, re.DOTALL)
    tries = job.do("attempts", job.bad[0])[0]
    assert "handler.py" in tries
    assert "float(item[" in tries
    assert f"{ROOT}/durabatch" not in tries
    listed = json.loads(job.do("items", "--state", "failed", "--json")[0])
    assert [item["key"] for item in listed["items"]] == job.bad
    table = json.loads(job.do("sql", "SELECT state, count(*) AS items FROM v_item GROUP BY state ORDER BY 1", "--json")[0])
    assert (table["columns"], table["rows"]) == (["state", "items"], [["failed", 20], ["succeeded", job.count - 20]])
    assert f"{job.count}" in job.do("runs")[0].replace(",", "")


def test_no_item_stops_the_others(job):
    """A handler that exits, one that kills itself, one that returns what is no JSON: each harms its own item, the others finish in the same run."""
    ways = ("os._exit(0)", "os.kill(os.getpid(), 9)", "return {1, 2}", "sys.exit('bye')", "raise KeyboardInterrupt", "ctypes.string_at(0)")
    body = "".join(f"    if item['id'] == 'r{10 * number:04}':\n        {way}\n" for number, way in enumerate(ways, 1))
    job.write("handler.py", f"import ctypes, os, sys\n\n\ndef work(item):\n{body}    return item['id']\n")
    _, told = job.do(*COMMAND, "-j", "2", code=1)
    # Half of them end their worker, three times each.
    assert job.counts() == {"succeeded": job.count - len(ways), "failed": 3, "quarantined": 3}
    failed = {
        row["key"]: row["error"] for row in map(json.loads, job.do("results", "--all")[0].splitlines()) if row["state"] != "succeeded"
    }
    assert sorted(failed) == [f"r{10 * number:04}" for number in range(1, len(ways) + 1)]
    assert all(failed.values())
    assert f"{len(ways)} failed" in told.splitlines()[-1]


@pytest.mark.parametrize("moment", ["interrupted", "finished"])
@pytest.mark.parametrize("where", ["line", "top", "end"])
def test_a_changed_input_is_refused(job, where, moment):
    """
    One changed line, new ones at the top or at the end, of a run at rest or cut off: nothing is run, exit code 2, the ways on are named.

    With --on-change source the results are exactly those of the input, and the earlier ones are history.
    """
    if moment == "interrupted":
        job.start_until(40).destroy()
    else:
        job.do(*COMMAND, code=1)
    counts, calls = job.counts(), job.calls()
    ended = {state: counts[state] for state in ("succeeded", "failed") if state in counts}
    new = [json.dumps({"id": f"new{number}", "amount": number}) for number in range(5)]
    changed = {"line": [json.dumps({"id": "r0000", "amount": 9}), *job.lines[1:]], "top": new + job.lines, "end": job.lines + new}[where]
    job.write_items(changed)
    _, told = job.do(*COMMAND, code=2)
    assert told.count("\n") == 1
    assert "items.jsonl has changed since run work:items.jsonl was started" in told
    assert "--fresh" in told
    for way in ("--on-change merge", "source", "ledger", "`durabatch plan"):
        assert way in told
    assert ended.items() <= job.counts().items()
    assert job.calls() == calls
    job.do(*COMMAND, "--on-change", "source", code=1)
    results = [json.loads(line)["key"] for line in job.do("results")[0].splitlines()]
    assert len(results) == len(set(results)) == len(changed) - 20
    assert set(results) <= {json.loads(line)["id"] for line in changed}
    if where == "line":
        assert json.loads(job.do("sql", "SELECT count(*) AS kept FROM v_result_history", "--json")[0])["rows"] in ([[1]], [{"kept": 1}])


def test_a_second_copy_is_refused_and_readers_work(job):
    """In one line that names the process and the verbs that work meanwhile, exit code 4; nothing is run twice."""
    first = job.start_until(10)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        _, told = job.do(*COMMAND, code=4)
        assert told.count("\n") == 1
        assert f"in use by pid {first.pid} " in told
        assert "run work:items.jsonl" in told
        assert "`durabatch status`" in told
        for verb in (["status"], ["runs"], ["items"], ["results"], ["errors"], ["sql", "SELECT 1"]):
            job.do(*verb)
        job.do("retry", code=4)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.end() == 1
    assert len(job.calls()) == job.count


def test_no_worker_outlives_a_killed_coordinator(job):
    """kill -9 of the coordinator alone: its workers are gone within a second, and the same command takes the ledger at once."""
    child = job.start_until(40)
    workers = child.workers()
    assert workers
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(*worker) for worker in workers.items()), "the end of the workers", within_s=1)
    child.end()
    assert "interrupted" in job.do("status")[0]
    job.do(*COMMAND, code=1)
    assert job.counts() == {"succeeded": job.count - 20, "failed": 20}


def test_ctrl_c_stops_with_one_line(job):
    """The signal of the terminal: one line with what is done, exit code 130, no traceback, nothing counted as failed, nothing lost and nothing repeated."""
    child = job.start_until(40)
    os.killpg(child.pid, signal.SIGINT)
    assert child.end() == 130
    told = child.stderr()
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if "stopping" in line]
    assert re.fullmatch(
        rf"durabatch: stopping after the items in flight, within 30s \(again: at once\); \d+ of {job.count:,} done, the same command goes on",
        line,
    )
    counts = job.counts()
    assert {"succeeded", "pending"} <= set(counts) <= {"succeeded", "pending", "failed"}
    assert f"{job.count - counts['pending']:,} of {job.count:,} done" in told.splitlines()[-1]
    assert told.splitlines()[-1].endswith("the same command goes on")
    job.do(*COMMAND, code=1)
    assert sorted(job.calls()) == [f"r{number:04}" for number in range(job.count)]
    assert {row["attempts"] for row in map(json.loads, job.do("results", "--all")[0].splitlines())} == {1}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "handler.py:work", "itmes.jsonl"], r"cannot read itmes\.jsonl: no such file\. Did you mean 'items\.jsonl'\?"),
        (["run", "handler.py:work", "items.jsonl", "--wrokers", "2"], r"unknown option '--wrokers'\. Did you mean '--workers'\?.*"),
        (["run", "jobs:work", "items.jsonl"], r"cannot import jobs: no module 'jobs' in .+ or on the module path.*"),
        (
            ["run", "broken.py:work", "items.jsonl"],
            r"cannot import broken: ModuleNotFoundError at broken\.py:1: No module named 'nowhere'.*",
        ),
        (["run", "torn.py:work", "items.jsonl"], r"cannot import torn: SyntaxError at torn\.py:1: .+"),
        (["run", "handler.py:wrok", "items.jsonl"], r"handler\.py has no 'wrok'\. Did you mean 'work'\?"),
        (["run", "handler.py:missing", "items.jsonl"], r"handler\.py has no 'missing'\. There is: work\."),
        (
            ["run", "handler.py:work", "rows.csv", "--key", "amonut"],
            r"key column 'amonut' is missing from rows\.csv; available: id, amount\. Did you mean 'amount'\?",
        ),
        (["run", "handler.py:work", "bad.jsonl"], r"bad\.jsonl:2: .+"),
        (["run", "handler.py:work", "twice.jsonl"], r"twice\.jsonl:3: key 'a' was already on line 1\..*"),
        (["retry", "--eror", "ValueError"], r"unknown option '--eror'\. Did you mean '--error'\?.*"),
        (["exec", "items.jsonl", "--", "no-such-program", "{}"], r"cannot run 'no-such-program': no such program\..*"),
    ],
)
def test_wrong_use_is_answered_before_the_first_item(job, words, line):
    """One line that says what, where and the way out, exit code 2; no call, no ledger."""
    job.write("broken.py", "import nowhere\n\n\ndef work(item):\n    return item\n")
    job.write("torn.py", "def work(item:\n")
    job.write("rows.csv", "id,amount\na,1\nb,2\n")
    job.write("bad.jsonl", '{"id": "a", "amount": 1}\n{"id": "b", "amount": }\n')
    job.write("twice.jsonl", '{"id": "a"}\n{"id": "b"}\n{"id": "a"}\n')
    out, told = job.do(*words, code=2)
    assert out == ""
    assert re.fullmatch(f"durabatch: {line}\n", told), told
    assert job.calls() == []
    assert not (job.folder / "durabatch.db").exists()


def test_a_file_that_is_no_ledger_is_refused(job):
    """Exit code 4 in one line; the file stays as it is."""
    _, told = job.do(*COMMAND, "--ledger", "handler.py", code=4)
    assert told.count("\n") == 1
    assert "handler.py: is not a durabatch ledger" in told
    assert (job.folder / "handler.py").read_text() == HANDLER


def test_output_that_nobody_reads_ends_quietly(job):
    """`durabatch results | head` and worse: nothing on stderr, exit code 0, results to a file whole."""
    job.do(*COMMAND, code=1)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for verb, reader in (("results", "head -n 1"), ("results --all", "true"), ("items", "head -n 1"), ("sql 'SELECT * FROM v_item'", "true")):
        pipe = f"{sys.executable} -m durabatch {verb} | {reader}"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), pipe
    assert len(Ledger(job.folder / "durabatch.db").runs()) == 1
