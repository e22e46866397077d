"""
Workers times concurrency: as many items at once as was asked for and no more, whatever the handler is; and what a worker has for itself.

That items run at once is shown by a gate that opens when all of them stand before it; that no more do, by the order of what they noted.
"""

from __future__ import annotations

import collections
import re

from tests.crash.processes import eventually
from tests.scenarios.stage import ended, innocent_faults

WORKERS, CONCURRENCY = 2, 4


def most_at_once(stage) -> int:
    """Return how many items were at most between their ``begin`` and their ``end``, by the order of the notes."""
    now = most = 0
    for word, *_ in stage.notes():
        now += {"begin": 1, "end": -1}.get(word, 0)
        most = max(most, now)
    return most


# -- at once ------------------------------------------------------------------------------------------------------------------

THREADS = """
def work(item):
    note("begin", item)
    wait_at("gate")
    note("end", item)
    return item
"""
COROUTINES = """
async def work(item):
    note("begin", item)
    while not os.path.exists("go"):
        await asyncio.sleep(0.005)
    note("end", item)
    return item
"""
SCRIPT = """
note begin "$1"
wait_at gate
note end "$1"
echo "$1"
"""


#: What is run, with this concurrency.
KINDS = {"threads": CONCURRENCY, "commands": CONCURRENCY, "coroutines": 25}


def test_so_many_items_run_at_once_and_no_more(stages):
    """``--workers`` times ``--concurrency`` items stand at the gate together; the next ones come when it lets some through, and never more."""
    runs, keys, children = stages(*KINDS), {}, {}
    for kind, stage in runs.items():
        at_once = WORKERS * KINDS[kind]
        keys[kind] = [f"i{number}" for number in range(3 * at_once)]
        stage.items(keys[kind])
        stage.gate()
        stage.script(SCRIPT)
        stage.jobs(COROUTINES if kind == "coroutines" else THREADS)
        words = ("-j", str(WORKERS), "--concurrency", str(KINDS[kind]))
        children[kind] = stage.exec(*words) if kind == "commands" else stage.run("work", *words)
    for kind, stage in runs.items():
        stage.wait_for("begin", WORKERS * KINDS[kind])
        (stage.folder / "go").touch()
        stage.gates[0].let(len(keys[kind]))
        ended(children[kind], 0)
        assert most_at_once(stage) == WORKERS * KINDS[kind]
        assert innocent_faults(stage, keys[kind]) == []
        assert sorted(stage.noted("begin")) == sorted(keys[kind])


def test_without_a_wish_coroutines_run_a_hundred_at_once_and_functions_alone(stages):
    """The default of ``--concurrency`` is 1 for a function and 100 for a coroutine function."""
    runs, most, children = stages("functions", "coroutines"), {"functions": 1, "coroutines": 100}, {}
    for name, stage in runs.items():
        stage.jobs(THREADS if name == "functions" else COROUTINES)
        stage.gate().open()
        stage.items(f"i{number}" for number in range(150))
        children[name] = stage.run("work", "-j", "1")
    for name, stage in runs.items():
        stage.wait_for("begin", most[name])
        (stage.folder / "go").touch()
        ended(children[name], 0)
        assert most_at_once(stage) == most[name]


def test_nothing_waits_behind_a_slow_item_while_a_worker_is_idle(stage):
    """One item of two workers stands at the gate: all others are done by the other worker, those that stood behind it in the same dispatch too."""
    gate = stage.gate()
    stage.jobs("""
        def work(item):
            if item == "waits":
                wait_at("gate")
            if item == "again" and not os.path.exists("again"):
                pathlib.Path("again").touch()
                raise durabatch.Snooze(0.3)
            return item
    """)
    keys = [f"i{number}" for number in range(30)]
    stage.items(["waits", "again", *keys])
    child = stage.run("work")
    others = [*keys, "again"]
    eventually(lambda: list(stage.states().values()).count("succeeded") == len(others), "the others", within_s=10)
    assert stage.states()["waits"] == "running"
    gate.open()
    ended(child, 0)
    assert innocent_faults(stage, keys) == []


# -- what a worker has for itself ---------------------------------------------------------------------------------------------

RESOURCES = """
import contextlib


class Session:
    def __init__(self, kind):
        self.kind = kind
        note("open", kind, os.getpid())

    def close(self):
        note("close", self.kind, os.getpid())


def set_up(): return Session("own")
def tear_down(session): session.close()


@contextlib.contextmanager
def table():
    made = Session("table")
    try:
        yield made
    finally:
        made.close()


@handler(setup=set_up, teardown=tear_down, resources={"table": table, "mail": lambda: Session("mail"), "unused": lambda: Session("unused")})
def work(item, ctx):
    found = [ctx.resource(), ctx.resource("table"), ctx.resource("mail")]
    note("begin", item)
    wait_at("gate")
    assert [one is other for one, other in zip(found, [ctx.resource(), ctx.resource("table"), ctx.resource("mail")])] == [True] * 3
    if item == "bad":
        raise ValueError(item)
    return [id(one) for one in found], os.getpid()


async def aset_up(): return Session("own")
async def atear_down(session): session.close()


@contextlib.asynccontextmanager
async def atable():
    with table() as made:
        await asyncio.sleep(0.01)
        yield made


@handler(setup=aset_up, teardown=atear_down, resources={"table": atable})
async def awork(item, ctx):
    found = [ctx.resource(), await ctx.resource("table")]
    note("begin", item)
    while not os.path.exists("go"):
        await asyncio.sleep(0.005)
    if item == "bad":
        raise ValueError(item)
    return [id(one) for one in found], os.getpid()
"""


def lives_of_resources(stage) -> dict[str, list[str]]:
    """Return by worker and kind what happened to a resource, in order."""
    lives = collections.defaultdict(list)
    for word, *rest in stage.notes():
        if word in ("open", "close"):
            lives[" ".join(rest)].append(word)
    return dict(lives)


def test_a_worker_has_one_of_each_resource_and_closes_it(stages):
    """However many items use it at once: opened once per worker that uses it, the same for all its items, closed once at its end; unused ones never."""
    runs, children = stages("work", "awork"), {}
    keys = [f"i{number}" for number in range(3 * WORKERS * CONCURRENCY)]
    for function, stage in runs.items():
        stage.jobs(RESOURCES)
        stage.gate()
        stage.items([*keys, "bad"])
        children[function] = stage.run(function, "-j", str(WORKERS), "--concurrency", str(CONCURRENCY))
    for function, stage in runs.items():
        stage.wait_for("begin", WORKERS * CONCURRENCY)
        (stage.folder / "go").touch()
        stage.gates[0].open()
        ended(children[function], 1)
        assert innocent_faults(stage, keys) == []
        # One set of objects for each process.
        assert len({stage.values()[key] for key in keys}) == WORKERS
        lives = lives_of_resources(stage)
        assert sorted(kind.split()[0] for kind in lives) == sorted(["own", "table", *(["mail"] if function == "work" else [])] * WORKERS)
        assert set(map(tuple, lives.values())) == {("open", "close")}
        # The last one opened is the first one closed.
        for pid in {kind.split()[1] for kind in lives}:
            opened, closed = ([kind for kind, who in map(str.split, stage.noted(word)) if who == pid] for word in ("open", "close"))
            assert closed == opened[::-1]


def test_a_worker_is_replaced_after_its_share(stage):
    """``--max-items-per-worker``: no process runs more than that, each closes what it had, and no item pays for it."""
    stage.jobs("""
        def set_up():
            note("open", "own", os.getpid())
            return os.getpid()

        def tear_down(pid):
            note("close", "own", pid)

        @handler(setup=set_up, teardown=tear_down)
        def work(item, ctx):
            return ctx.resource()
    """)
    keys = [f"i{number}" for number in range(11)]
    stage.items(keys)
    ended(stage.run("work", "-j", "1", "--max-items-per-worker", "4"), 0)
    assert innocent_faults(stage, keys) == []
    shares = collections.Counter(stage.values().values())
    assert sorted(shares.values()) == [3, 4, 4]
    assert set(map(tuple, lives_of_resources(stage).values())) == {("open", "close")}
    assert len(lives_of_resources(stage)) == 3


# -- starts that fail ---------------------------------------------------------------------------------------------------------


def test_workers_that_cannot_start_lower_their_number(stage):
    """Where one of three workers can live, the others are given up after three tries each, with a word to the person, and the one does everything."""
    stage.jobs("""
        def set_up():
            note("start", os.getpid())
            try:
                os.close(os.open("seat", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                sys.stderr.write("no licence left")
                sys.stderr.flush()
                os._exit(3)

        @handler(setup=set_up)
        def work(item):
            note("begin", item, os.getpid())
            wait_at("gate")
            return item
    """)
    gate = stage.gate()
    keys = [f"i{number}" for number in range(20)]
    stage.items(keys)
    child = stage.run("work", "-j", "3")
    stage.wait_for("start", 1 + 3 + 3)
    eventually(lambda: child.stderr().count("could not be started") >= 2, "word of it")
    gate.open()
    said = ended(child, 0)
    assert len(re.findall(r"worker \d could not be started (?:three|3) times; going on with [12]", said)) == 2
    assert innocent_faults(stage, keys) == []
    assert len(stage.noted("start")) == 7
    assert len({line.split()[1] for line in stage.noted("begin")}) == 1


def test_a_run_whose_workers_cannot_start_is_halted_with_what_they_said(stage):
    """None can be started: exit code 3, the worker's own words and the way to see more; with the cause gone the same command ends the run."""
    stage.jobs("""
        def set_up():
            note("start", os.getpid())
            if not os.path.exists("licence"):
                sys.stderr.write("no licence left")
                sys.stderr.flush()
                os._exit(3)

        @handler(setup=set_up)
        def work(item):
            return item
    """)
    stage.items(["one", "two"])
    said = ended(stage.run("work", "-j", "1"), 3)
    assert "no licence left" in said
    assert "--workers 0" in said
    assert len(stage.noted("start")) == 3
    assert set(stage.states().values()) == {"pending"}
    stage.check_nobody_left()
    (stage.folder / "licence").touch()
    ended(stage.run("work"), 0)
    assert innocent_faults(stage, ["one", "two"]) == []


def test_a_setup_that_raises_is_told_of_before_any_item(stage):
    """An error in ``setup`` is one of the handler: one line that names it, exit code 2, and nothing was begun."""
    stage.jobs("""
        def set_up():
            raise RuntimeError("no such database")

        @handler(setup=set_up)
        def work(item):
            note("begin", item)
    """)
    stage.items(["one", "two"])
    said = ended(stage.run("work"), 2)
    assert "setup" in said
    assert "RuntimeError: no such database" in said
    assert said.count("\n") == 1
    assert not stage.noted("begin")
    stage.check_nobody_left()
