"""
Kill -9 at every point of undo and rollback: around what is recorded, the effect, the action that takes it back, and what is recorded of that.

Whatever dies, and wherever: going on ends with the effects of the items that have succeeded, rolling back ends with the world as it was, and
rolling back once more calls nothing. ``--long`` visits every point with worker processes too, each in several ways.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from durabatch.api import Ledger
from durabatch.ledger.reader import Reader
from tests.crash.dying import BETWEEN, ONCE, POINTS, lives

KEYS = [f"k{number}" for number in range(6)]
#: ``k2`` never succeeds, ``k4`` does so at its second attempt.
SUCCEEDING = [key for key in KEYS if key != "k2"]

JOBS = """
import os
from pathlib import Path

import durabatch
from tests.crash.dying import counted, reach

WORLD = Path("world")


def is_unmade(name):
    return not (WORLD / name).exists() and not (WORLD / f"{name}.conf").exists()


def note(*words):
    descriptor = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(words) + "\\n").encode())
    os.close(descriptor)


@durabatch.undo_action("unmake", verify=is_unmade)
def unmake(name, ctx):
    reach("before_undo_action")
    if os.path.exists("broken") and name == "k3":
        raise durabatch.Fail("broken")
    note("called", ctx.idempotency_key)
    (WORLD / name).unlink(missing_ok=True)
    reach("in_undo_action")
    (WORLD / f"{name}.conf").unlink(missing_ok=True)
    reach("after_undo_action")


@durabatch.undo_action("leave")
def leave(name, ctx):
    reach("before_undo_action")
    note("called", ctx.idempotency_key)
    (WORLD / "hub" / name).unlink(missing_ok=True)
    reach("after_undo_action")


def work(item, ctx):
    ctx.undo("unmake", name=item)
    reach("after_undo_returned")
    (WORLD / item).write_text("site")
    reach("in_effect")
    (WORLD / f"{item}.conf").write_text(f"attempt {ctx.attempt}")
    reach("after_effect")
    ctx.files.replace(WORLD / "pages" / item, f"new page of {item}")
    reach("after_file_effect")
    ctx.undo("leave", name=item)
    reach("after_undo_returned")
    (WORLD / "hub" / item).touch()
    reach("after_effect")
    return judged(item)


async def awork(item, ctx):
    await ctx.undo("unmake", name=item)
    reach("after_undo_returned")
    (WORLD / item).write_text("site")
    reach("in_effect")
    (WORLD / f"{item}.conf").write_text(f"attempt {ctx.attempt}")
    reach("after_effect")
    await ctx.files.replace(WORLD / "pages" / item, f"new page of {item}")
    reach("after_file_effect")
    await ctx.undo("leave", name=item)
    reach("after_undo_returned")
    (WORLD / "hub" / item).touch()
    reach("after_effect")
    return judged(item)


def judged(item):
    if item == "k2" or (item == "k4" and counted("times") == 1):
        raise ValueError("bad")
    return item
"""
#: The same as a transaction; with a file ``fails`` its block ends with an error.
PROGRAM = """
import os

import durabatch
import jobs

try:
    with durabatch.Ledger("l.db").transaction("T-1") as tx:
        for key in open("items.txt").read().split():
            if key not in ("k2", "k4"):
                tx.do(jobs.work, key)
        if os.path.exists("fails"):
            raise RuntimeError("no")
except RuntimeError:
    print("rolled back")
"""


@pytest.fixture(scope="module")
def lived():
    """Give lives."""
    with lives() as made:
        yield made


@pytest.fixture
def folders():
    """Give a function that makes folders, in memory where that is possible, gone with the test."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="durabatch-undo-") as place:
        yield lambda name: Path(place) / name


def set_up(folder: Path) -> None:
    """Have handlers, input and a world in a folder."""
    for name in ("world/hub", "world/pages"):
        (folder / name).mkdir(parents=True)
    for key in KEYS:
        (folder / "world/pages" / key).write_text(f"old page of {key}")
    (folder / "jobs.py").write_text(JOBS)
    (folder / "items.txt").write_text("".join(f"{key}\n" for key in KEYS))


def world(folder: Path) -> dict[str, str]:
    """Return what stands in the world."""
    return {str(path.relative_to(folder / "world")): path.read_text() for path in (folder / "world").rglob("*") if path.is_file()}


def expected(done) -> dict[str, str]:
    """Return what stands there when these items have succeeded; which attempt did it is left out."""
    made = {name: text for key in done for name, text in ((key, "site"), (f"{key}.conf", ""), (f"hub/{key}", ""))}
    return made | {f"pages/{key}": f"{'new' if key in done else 'old'} page of {key}" for key in KEYS}


def faults(folder: Path, done=None) -> list[str]:
    """Return what is wrong when these items should have succeeded, and no others; None: whichever have."""
    with Reader(folder / "l.db") as reader:
        found = {row[0] for row in reader.raw.execute("SELECT key FROM item WHERE state = 'succeeded'")}
    done = found if done is None else set(done)
    return faults_of_world(folder, done) + ([] if found == done else [f"succeeded: {sorted(found)}"])


def faults_of_world(folder: Path, done) -> list[str]:
    """Return what is wrong with world and ledger when these items, and no others, are to have effects."""
    stands = {name: "" if name.endswith(".conf") else text for name, text in world(folder).items()}
    wrong = sorted(stands.items() ^ expected(done).items())
    return [str(one) for one in Ledger(folder / "l.db").verify()] + ([f"the world: {wrong}"] if wrong else [])


def entries(folder: Path, state: str) -> set[str]:
    """Return the idempotency keys of the entries in a state."""
    with Reader(folder / "l.db") as reader:
        return {row[0] for row in reader.raw.execute("SELECT idempotency_key FROM v_undo WHERE state = ?", (state,))}


def calls(folder: Path) -> Counter[str]:
    """Return how often the action of which entry was called."""
    notes = folder / "notes"
    lines = notes.read_text().splitlines() if notes.exists() else ()
    return Counter(line.split()[1] for line in lines if line.startswith("called"))


def gone_on(lived, folder: Path, workers: int, how: str, **options) -> dict:
    """Go on until nothing is to be done any more; what was undone when it began is not undone again."""
    undone, before = entries(folder, "undone"), calls(folder)
    told = getattr(lived, how)(folder, workers=workers, **options)
    again = {key for key in calls(folder) - before if key in undone}
    assert again == set(), (again, told["said"])
    return told


def check_rollback(lived, folder: Path, workers: int) -> list[str]:
    """Roll back, and once more; return what is wrong."""
    wrong = []
    first = gone_on(lived, folder, workers, "rollback")
    if first["code"] or first["rolled_back"]["left"]:
        wrong.append(f"rollback: {first}")
    before = calls(folder)
    second = lived.rollback(folder, workers=workers)
    done = second["rolled_back"]
    if second["code"] or done["ran"] or done["steps"] or calls(folder) != before:
        wrong.append(f"the second rollback: {second}")
    return wrong + faults(folder, [])


def faults_of_death_in_run(lived, folder: Path, point: str, count: int, who: str, workers: int, function: str) -> list[str]:
    """Have a run die, go on with it, and roll it back; return what is wrong."""
    set_up(folder)
    first = lived.run(folder, workers=workers, die=f"{point}:{count}:{who}", function=function)
    if not first["has_died"]:
        return [f"{point} was not reached: {first}"]
    told = gone_on(lived, folder, workers, "run", function=function)
    wrong = [] if told["code"] == 1 else [f"going on: {told}"]
    return wrong + faults(folder, SUCCEEDING) + check_rollback(lived, folder, workers)


def faults_of_death_in_rollback(lived, base: Path, folder: Path, point: str, count: int, who: str, workers: int, then: str) -> list[str]:
    """Have the rollback of a finished run die, and go on with it; return what is wrong."""
    # Files are put back where they were, so it must be the same place each time.
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    first = lived.rollback(folder, workers=workers, die=f"{point}:{count}:{who}")
    if not first["has_died"]:
        return [f"{point} was not reached: {first}"]
    wrong = [str(one) for one in Ledger(folder / "l.db").verify()]
    if then == "resume":
        told = gone_on(lived, folder, workers, "resume")
        wrong += [] if told["code"] in (0, 1) else [f"resume: {told}"]
    return wrong + check_rollback(lived, folder, workers)


def cases(points, *, seed, long):
    """Yield (point, which time, who, workers) of the deaths to die: some of them, all with ``--long``."""
    rng = random.Random(seed)
    if not long:
        inline = [point for point in points if point not in BETWEEN]
        yield from ((point, 1 if point in ONCE else rng.choice((1, 2, 3)), "self", 0) for point in rng.sample(inline, 2))
        yield rng.choice(points), 1, rng.choice(("self", "both")), 2
        return
    for point in points:
        counts = (1,) if point in ONCE else (1, 2, 3)
        yield from ((point, count, "self", 0) for count in counts if point not in BETWEEN)
        yield from ((point, count, who, 2) for count in counts[:2] for who in ("self", "both", "coordinator"))


def test_a_run_that_dies_anywhere_around_undo_goes_on_and_can_be_rolled_back(lived, folders, seed, long):
    """What had succeeded by then and since has its effects, nothing else has any; rolled back, the world is as it was."""
    rng, wrong = random.Random(seed), {}
    deaths = list(cases(POINTS["run"] + POINTS["both"], seed=seed, long=long))
    functions = ("work", "awork")
    for number, case in enumerate((*one, function) for one in deaths for function in (functions if long else [rng.choice(functions)])):
        if found := faults_of_death_in_run(lived, folders(f"run{number}"), *case):
            wrong[case] = found
    assert wrong == {}


def test_a_rollback_that_dies_anywhere_goes_on_and_takes_nothing_back_twice(lived, folders, seed, long):
    """Rolled back again, or resumed and then rolled back: the world is as it was, and what was on record as undone is not touched again."""
    rng, folder, base, wrong = random.Random(seed + 1), folders("finished"), folders("base"), {}
    set_up(folder)
    assert lived.run(folder)["code"] == 1
    shutil.copytree(folder, base)
    for case in cases(POINTS["both"] + POINTS["rollback"], seed=seed + 1, long=long):
        then = rng.choice(("rollback", "resume"))
        if found := faults_of_death_in_rollback(lived, base, folder, *case, then):
            wrong[*case, then] = found
    assert wrong == {}


@pytest.mark.parametrize("point", POINTS["failing rollback"])
def test_a_rollback_that_dies_while_it_gives_up_can_be_done_again(lived, folders, point):
    """An action fails for good, the rollback ends by that and dies: mended, the next one takes back the rest."""
    folder = folders("failing")
    set_up(folder)
    assert lived.run(folder)["code"] == 1
    (folder / "broken").touch()
    assert lived.rollback(folder, die=f"{point}:1:self")["has_died"]
    assert [str(one) for one in Ledger(folder / "l.db").verify()] == []
    (folder / "broken").unlink()
    assert check_rollback(lived, folder, 0) == []


def one_storm(lived, folder: Path, rng: random.Random, workers: int) -> tuple[int, list[str]]:
    """Have a run and its rollback die again and again, the recovery too; return how often, and what is wrong at the end."""
    set_up(folder)
    deaths, wrong, verb, told = 0, [], "run", {}
    for life in range(100):
        who = rng.choice(("self", "both", "coordinator")) if workers else "self"
        told = getattr(lived, verb)(folder, workers=workers, die=f"any:{rng.randint(1, 20 * (life + 1))}:{who}")
        deaths += told["has_died"]
        if not (folder / "l.db").exists() or told["code"] < 0:
            continue
        wrong += faults(folder, None if verb == "run" else [])
        if verb == "rollback":
            break
        verb = "rollback"
    return deaths, [*wrong, *([] if told["code"] == 0 else [f"the end: {told}"]), *check_rollback(lived, folder, workers)]


def test_a_storm_of_deaths_ends_with_the_world_as_it_was(lived, folders, seed, scaled, long):
    """Run, recovery and rollback die one after the other, at points drawn by lot, until each has come to its end."""
    rng, deaths = random.Random(seed), 0
    for number in range(scaled(100) if long else 1):
        died, wrong = one_storm(lived, folders(f"storm{number}"), rng, workers=number % 2 * 2)
        deaths += died
        assert wrong == []
    assert deaths >= (200 if long else 2)


def faults_of_death_in_transaction(lived, folder: Path, point: str, count: int, fails: bool) -> list[str]:
    """Have a transaction die, and one of two things done then: it is begun again, or rolled back; return what is wrong."""
    set_up(folder)
    (folder / "program.py").write_text(PROGRAM)
    if fails:
        (folder / "fails").touch()
    first = lived.live(folder, "python", "program.py", die=f"{point}:{count}:self")
    if not first["has_died"]:
        return [f"{point} was not reached: {first}"]
    wrong, roll = [], ("rollback", "--transaction", "T-1", "--ledger", "l.db", "--progress", "none", "--yes")
    if not fails:
        told = lived.live(folder, "python", "program.py")
        wrong = [f"again: {told}"] if told["code"] else faults_of_world(folder, [key for key in KEYS if key not in ("k2", "k4")])
    told = lived.live(folder, *roll)
    wrong += [f"rollback: {told}"] if told["code"] else faults_of_world(folder, [])
    before = calls(folder)
    return wrong if lived.live(folder, *roll)["code"] == 0 and calls(folder) == before else [*wrong, "undone twice"]


def test_a_transaction_that_dies_anywhere_is_all_or_nothing(lived, folders, seed, long):
    """Begun again it is rolled back first, and done; rolled back it has never been; a rollback of its own that dies is gone on with."""
    rng, wrong = random.Random(seed), {}
    cases = [(point, count, False) for point in POINTS["transaction"] for count in ((1,) if point in ONCE else (1, 2, 3))]
    cases += [(point, count, True) for point in (*POINTS["both"], *POINTS["rollback"]) for count in ((1,) if point in ONCE else (1, 3))]
    # The first one has begun a step, and recorded nothing.
    for number, case in enumerate(cases if long else [cases[0], rng.choice(cases[1:])]):
        if found := faults_of_death_in_transaction(lived, folders(f"transaction{number}"), *case):
            wrong[case] = found
    assert wrong == {}


def test_what_is_not_undone_is_found(lived, folders):
    """Sabotage: an action that says it has worked and has not, and one effect that was never recorded: the checks find both."""
    folder = folders("sabotaged")
    set_up(folder)
    jobs = folder / "jobs.py"
    jobs.write_text(jobs.read_text().replace('(WORLD / "hub" / name).unlink(missing_ok=True)', "note('forgot', name)"))
    assert lived.run(folder)["code"] == 1
    assert faults(folder, SUCCEEDING) == ["the world: [('hub/k2', '')]"]
    assert check_rollback(lived, folder, 0) == [f"the world: {sorted((f'hub/{key}', '') for key in KEYS)}"]
