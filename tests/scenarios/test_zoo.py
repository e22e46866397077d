"""
The handler zoo, through the real command line: items that do what no item should, beside innocent ones. Each hurts itself and nothing else.

Several guilty ones share a run. The numbers are rows of the table in which they are listed: what does not answer to a time is in
test_timeouts.py, and what a worker alone can show in tests/workers/test_zoo.py.
"""

from __future__ import annotations

import json
import re
import signal

import pytest

from durabatch.api import Ledger
from tests.scenarios.stage import ended, innocent_faults, make_stage

INNOCENT, INNOCENT_LONG = 20, 200
MEMORY_LIMIT_MIB = 200

#: ``work`` does what the item is called; everything else is innocent and returns what its surroundings are.
JOBS = """
import ctypes, datetime, decimal, socket, sqlite3, struct, atexit


class Mute(Exception):
    def __str__(self): raise RuntimeError


class Endless(Exception):
    def __str__(self): return "x" * 10**8


class Nasty:
    def __reduce__(self): raise RuntimeError


def raises(what):
    raise what


def loop():
    rows = []
    rows.append(rows)
    return rows


def prints(data):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    return "said"


def closes_streams():
    os.close(1), os.close(2)
    return "closed"


def closes_all():
    os.closerange(3, 4096)
    signal.pause()


def both_return():
    return ["parent", "child"][os.fork() == 0]


def surviving_child():
    if os.fork() == 0:
        note("survivor", os.getpid())
        signal.pause()
    while not pathlib.Path(NOTES).exists() or "survivor" not in pathlib.Path(NOTES).read_text():
        time.sleep(0.001)
    return "parent"


def endless_thread():
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return "threaded"


def hanging_exit():
    atexit.register(signal.pause)
    return "registered"


def hoards():
    kept = bytearray(MEMORY_LIMIT_MIB * 2 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    signal.pause()


def soils():
    os.umask(0o777)
    os.mkdir("gone", 0o700)
    os.chdir("gone")
    os.rmdir(os.getcwd())
    sys.setrecursionlimit(10**9)
    return "soiled"


def writes_the_ledger():
    with sqlite3.connect("l.db", timeout=5) as ledger:
        ledger.execute("INSERT INTO event (kind, happened_at_us, detail) VALUES ('mine', 0, '{}')")
    return "written"


DEEDS = {
    "mute": lambda: raises(Mute()),
    "endless": lambda: raises(Endless()),
    "exits": lambda: sys.exit(0),
    "interrupts": lambda: raises(KeyboardInterrupt()),
    "generator-exit": lambda: raises(GeneratorExit()),
    "base": lambda: raises(BaseException("b")),
    "lambda": lambda: {"rows": [0, 1, 2, {"f": lambda: 0}]},
    "socket": lambda: [socket.socket()],
    "generator": lambda: (n for n in [1]),
    "nasty": lambda: Nasty(),
    "loop": loop,
    "nan": lambda: {"x": float("nan")},
    "bytes": lambda: b"x",
    "large": lambda: "x" * (2 << 20),
    "exact": lambda: [decimal.Decimal("1.10"), datetime.date(2024, 2, 29), (1, 2)],
    "much": lambda: prints(b"x" * PRINTED),
    "binary": lambda: prints(bytes(range(256)) * 100),
    "magic": lambda: prints(struct.pack("<III", 0xD5BA7C41, 4, 0) + b"junk"),
    "closes-streams": closes_streams,
    "both-return": both_return,
    "surviving-child": surviving_child,
    "endless-thread": endless_thread,
    "hanging-exit": hanging_exit,
    "soils": soils,
    "writes-the-ledger": writes_the_ledger,
    "asks": lambda: input("Continue? "),
    "leaves": lambda: os._exit(0),
    "kills-itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfaults": lambda: ctypes.string_at(0),
    "aborts": os.abort,
    "closes-all": closes_all,
    "hoards": hoards,
}


def work(item):
    deed = DEEDS.get(item)
    if deed:
        return deed()
    umask = os.umask(0o22)
    os.umask(umask)
    return [os.getcwd(), umask, sys.getrecursionlimit()]
"""

#: Rows of the table, the item, and what its last attempt says.
FAILING = [
    (66, "mute", r"Mute: \(message not available\)"),
    (66, "endless", r"Endless: x{8192} \[cut, 100,000,000 characters in all\]"),
    (67, "exits", r"SystemExit: 0"),
    (67, "interrupts", r"KeyboardInterrupt: .*"),
    (67, "generator-exit", r"GeneratorExit: .*"),
    (67, "base", r"BaseException: b"),
    (71, "lambda", r"ResultError: .*\$\.rows\[3\]\.f.*"),
    (71, "socket", r"ResultError: .*\$\[0\].*"),
    (71, "generator", r"ResultError: .*generator.*"),
    (71, "nasty", r"ResultError: .*Nasty.*"),
    (71, "loop", r"ResultError: .+"),
    (72, "large", r"ResultTooLarge: .*2(\.0)? MiB.*1 MiB.*--max-result-bytes.*"),
    (73, "nan", r"ResultError: .*\$\.x.*"),
    (73, "bytes", r"ResultError: .*bytes.*"),
    (83, "asks", r"EOFError: EOF when reading a line \(a handler has no standard input\)"),
]
#: Those that do something odd and succeed all the same, with the value that counts.
SUCCEEDING = [
    (73, "exact", ["1.10", "2024-02-29", [1, 2]]),
    (74, "much", "said"),
    (74, "binary", "said"),
    (74, "magic", "said"),
    (74, "closes-streams", "closed"),
    (76, "both-return", "parent"),
    (76, "surviving-child", "parent"),
    (77, "endless-thread", "threaded"),
    (77, "hanging-exit", "registered"),
    (80, "soils", "soiled"),
    (81, "writes-the-ledger", "written"),
]
#: Those that end their worker each time: what is recorded, the signal or the status, and a part of what the worker said last.
DEADLY = [
    (78, "hoards", rf"crashed: out of memory \(\d+ MiB, limit {MEMORY_LIMIT_MIB} MiB\)", -signal.SIGKILL, ""),
    (68, "leaves", r"ended with status 0 and no result", 0, ""),
    (69, "kills-itself", r"signal 9 \(SIGKILL\)", -signal.SIGKILL, ""),
    (69, "segfaults", r"signal 11 \(SIGSEGV\)", -signal.SIGSEGV, "Segmentation fault"),
    (69, "aborts", r"signal 6 \(SIGABRT\)", -signal.SIGABRT, "Aborted"),
    (75, "closes-all", r".+", None, ""),
]


def rows_of(table) -> list:
    """Return the rows of a table as parameters with readable names."""
    return [pytest.param(*rest, id=f"{number} {rest[0]}") for number, *rest in table]


class Zoo:
    """A run of guilty items among innocent ones, that has ended."""

    def __init__(self, folder, guilty, innocent, *words, printed=1 << 24) -> None:
        self.stage = make_stage(folder)
        self.stage.jobs(f"MEMORY_LIMIT_MIB, PRINTED = {MEMORY_LIMIT_MIB}, {printed}\n{JOBS}")
        self.innocent = [f"i{number:03}" for number in range(innocent)]
        self.guilty = [name for _, name, *_ in guilty]
        # Evenly mixed, and an innocent one is the last.
        places = {name: (n + 0.25) / len(self.guilty) for n, name in enumerate(self.guilty)}
        places |= {key: (n + 0.5) / innocent for n, key in enumerate(self.innocent)}
        self.stage.items(sorted(places, key=places.__getitem__))
        child = self.stage.run("work", *words)
        try:
            self.said = ended(child, 1, within_s=60)
            self.stage.check_nobody_left()
            assert Ledger(self.stage.ledger_path).verify() == []
            self.standing, self.tries, self.values = self.stage.standing(), self.stage.tries(), self.stage.values()
        finally:
            self.stage.close()


@pytest.fixture(scope="module")
def innocent(request) -> int:
    """Give the number of innocent items beside the guilty ones."""
    return INNOCENT_LONG if request.config.getoption("--long") else INNOCENT


@pytest.fixture(scope="module")
def harmless(tmp_path_factory, request, innocent):
    """Give the run of those that cannot end their worker; they all share one with the innocent."""
    printed = 1 << (30 if request.config.getoption("--long") else 24)
    words = ("-j", "1", "--max-result-bytes", "1MiB", "--term-grace", "300ms")
    return Zoo(tmp_path_factory.mktemp("harmless"), [*FAILING, *SUCCEEDING], innocent, *words, printed=printed)


@pytest.fixture(scope="module")
def deadly(tmp_path_factory, innocent):
    """Give the run of those that end their worker."""
    return Zoo(tmp_path_factory.mktemp("deadly"), DEADLY, innocent, "--memory-limit", f"{MEMORY_LIMIT_MIB}MiB")


# -- beside the guilty --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoo", ["harmless", "deadly"])
def test_the_innocent_all_succeed_at_their_first_try(zoo, request):
    """Rows 66 to 83: beside them every other item succeeds, with exactly one charged attempt; sabotage: a guilty one among them is found."""
    run = request.getfixturevalue(zoo)
    assert innocent_faults(run.stage, run.innocent) == []
    assert innocent_faults(run.stage, [*run.innocent, run.guilty[0]])


@pytest.mark.parametrize("zoo", ["harmless", "deadly"])
def test_the_innocent_find_clean_surroundings(zoo, request):
    """Row 80: whatever ran before them in the same worker, directory, umask and recursion limit are those of the start."""
    run = request.getfixturevalue(zoo)
    found = {run.values[key] for key in run.innocent}
    assert len(found) == 1
    assert json.loads(found.pop())[0] == str(run.stage.folder)


AT_ONCE = """
def dies(item):
    if item == "leaves":
        os._exit(0)
    if item == "kills-itself":
        os.kill(os.getpid(), signal.SIGKILL)


def threads(item):
    time.sleep(0.02)
    dies(item)
    return item


async def coroutines(item):
    await asyncio.sleep(0.02)
    dies(item)
    return item
"""


# -- the guilty ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "error"), rows_of(FAILING))
def test_what_fails_is_recorded_with_its_reason(harmless, name, error):
    """One failed attempt, charged, with type and message."""
    (only,) = harmless.tries[name]
    assert harmless.standing[name][:2] == ("failed", 1)
    assert only.outcome == "failed"
    assert re.fullmatch(error, only.error, re.DOTALL), only.error


@pytest.mark.parametrize(("name", "value"), rows_of(SUCCEEDING))
def test_what_is_odd_and_returns_succeeds(harmless, name, value):
    """The value of the worker's own return, and nothing else of what the item did."""
    assert innocent_faults(harmless.stage, [name]) == []
    assert json.loads(harmless.values[name]) == value


@pytest.mark.parametrize(("name", "message", "status", "last_words"), rows_of(DEADLY))
def test_what_ends_its_worker_three_times_is_put_aside(deadly, name, message, status, last_words):
    """Quarantined after three deaths, the last one charged, with signal or status, peak memory and what the worker said last."""
    tries = deadly.tries[name]
    assert deadly.standing[name][:2] == ("quarantined", 1)
    assert [(one.number, one.outcome, one.error_type) for one in tries] == [(n, "crashed", "WorkerCrashed") for n in (1, 2, 3)]
    for one in tries:
        assert re.search(message, one.message), one.message
        assert status is None or (one.exit_code, one.signal) == (status, -status if status < 0 else None)
        assert last_words in (one.stderr_tail or "")
        assert one.peak_rss_bytes is None or one.peak_rss_bytes > 1 << 20
    assert tries[-1].peak_rss_bytes is not None
    assert "3" in tries[-1].message
    assert name != "hoards" or tries[-1].peak_rss_bytes > MEMORY_LIMIT_MIB << 20


def test_the_deadly_are_found_among_those_that_run_at_once(stages, innocent):
    """Rows 68 and 69: of many items in a worker that dies nobody knows which one it was; they run apart, in ever smaller groups, and only the guilty are put aside."""
    guilty = {"threads": "leaves", "coroutines": "kills-itself"}
    runs, children, keys = stages(*guilty), {}, [f"i{number:03}" for number in range(2 * innocent)]
    for kind, stage in runs.items():
        stage.jobs(AT_ONCE)
        stage.items([*keys[:innocent], guilty[kind], *keys[innocent:]])
        children[kind] = stage.run(kind, "--concurrency", "8")
    for kind, stage in runs.items():
        ended(children[kind], 1)
        stage.check_nobody_left()
        assert stage.standing()[guilty[kind]][:2] == ("quarantined", 1)
        assert {one.exit_code for one in stage.tries()[guilty[kind]]} == {0 if kind == "threads" else -signal.SIGKILL}
        assert innocent_faults(stage, keys, tries=None) == []


def test_what_damages_the_result_pipe_is_put_aside(stage, innocent):
    """Row 75: one that writes into every descriptor and returns, and the coordinator sees it only when its worker has long gone on to quick ones."""
    stage.jobs("""
        def work(item):
            if item == "junk":
                subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -CONT {os.getppid()}"])
                os.kill(os.getppid(), signal.SIGSTOP)
                for descriptor in range(3, 1024):
                    try:
                        os.write(descriptor, b"junk" * 64)
                    except OSError:
                        continue
            return item
    """)
    keys = [f"i{number:03}" for number in range(innocent)]
    stage.items([*keys[: innocent // 2], "junk", *keys[innocent // 2 :]])
    ended(stage.run("work"), 1)
    assert stage.standing()["junk"][:2] == ("quarantined", 1)
    assert {one.outcome for one in stage.tries()["junk"]} == {"crashed"}
    # What a worker was at when its pipe was damaged is suspected until it has succeeded apart: that costs nothing.
    assert innocent_faults(stage, keys, tries=None) == []


def test_the_summary_names_what_was_put_aside(deadly):
    """A person who looks at the end of the run sees how many items were put aside."""
    assert f"{len(DEADLY)} quarantined" in deadly.said or f"{len(DEADLY)} failed" in deadly.said


# -- before the first item ----------------------------------------------------------------------------------------------------

REFUSED = {
    "raises.py:work": (
        "raise ValueError('at import')\ndef work(item): return item",
        r"cannot import raises: ValueError at raises\.py:\d+: at import",
    ),
    "leaves.py:work": ("sys.exit(0)\ndef work(item): return item", r"cannot import leaves: SystemExit.*"),
    "jobs.py:number": ("number = 5", r"(/.*/)?jobs\.py:number is of type int, not a function"),
    "jobs.py:Kind": ("class Kind: pass", r"jobs\.py:Kind is a class"),
    "jobs.py:nothing": ("def nothing(): return 1", r"jobs\.py:nothing takes 0 arguments.*durabatch passes 1 or 2 \(item, ctx\)"),
    "jobs.py:three": ("def three(a, b, c): return 1", r"jobs\.py:three .*3.*"),
    "jobs.py:rows": ("def rows(item): yield item", r"jobs\.py:rows is a generator.*"),
    "jobs.py:arows": ("async def arows(item): yield item", r"jobs\.py:arows is an async generator.*"),
}


def test_what_cannot_be_a_handler_is_refused_before_any_item(stage):
    """Rows 64 and 65: one line that says what and where, exit code 2, no ledger."""
    codes = {}
    for target, (code, _) in REFUSED.items():
        codes.setdefault(target.partition(":")[0], []).append(code)
    for name, texts in codes.items():
        stage.jobs("\n\n".join(texts), name)
    stage.items(["one"])
    children_of = {target: stage.start("run", target, "items.txt", "--ledger", f"{n}.db") for n, target in enumerate(REFUSED)}
    for number, (target, child) in enumerate(children_of.items()):
        said = ended(child, 2)
        assert re.match(f"durabatch: {REFUSED[target][1]}", said), said
        assert said.count("\n") == 1
        assert not (stage.folder / f"{number}.db").exists()


def test_a_slow_import_is_told_of(stage, long, not_run):
    """Row 64: a worker that is not ready after five seconds is told about, and the run then goes on."""
    if not long:
        not_run("waits six seconds; --long does it")
    stage.jobs("from durabatch import decorator\nif decorator.in_worker: time.sleep(6)\ndef work(item): return item")
    stage.items(["one"])
    assert "still starting after 5 s" in ended(stage.run("work", "-j", "1"), 0)


# -- the coordinator ----------------------------------------------------------------------------------------------------------


def test_a_handler_that_kills_the_coordinator_keeps_the_run_for_a_resume(stage, innocent):
    """Row 70: nothing of the run is left two seconds later, and the same command ends it: no innocent item lost, failed or charged twice."""
    stage.jobs("""
        def work(item):
            if item == "kills" and not os.path.exists("once"):
                pathlib.Path("once").touch()
                note("here", os.getpid())
                wait_at("gate")
                os.kill(os.getppid(), signal.SIGKILL)
                # A signal that ends a pause would have the item succeed, and the next one begin.
                while True:
                    signal.pause()
            return item
    """)
    gate, keys = stage.gate(), [f"i{number}" for number in range(innocent)]
    stage.items([*keys[: innocent // 2], "kills", *keys[innocent // 2 :]])
    child = stage.run("work")
    # Sabotage: as long as the run works, the search for what is left of it finds the coordinator and its workers.
    (worker,) = stage.wait_for("here", 1)
    assert {child.pid, int(worker)} <= set(stage.marked())
    gate.open()
    assert child.end() == -signal.SIGKILL
    stage.check_nobody_left()
    before = stage.tries()
    ended(stage.run("work"), 0)
    # An item whose result had not come yet when the coordinator died ran, and is run again: uncharged.
    assert innocent_faults(stage, [*keys, "kills"], tries=None) == []
    assert [one.outcome for one in stage.tries()["kills"]] == ["interrupted", "succeeded"]
    assert all(stage.tries()[key][: len(tries)] == tries for key, tries in before.items())
