"""
A tree of 500 files, changed by handlers through ``ctx.files``, killed at moments drawn by lot, and rolled back: it is as it was.

The moments are system calls that change files, and commits, counted over all processes of a life. One seed; 100 with ``--long``.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from durabatch.api import Ledger
from tests.crash.dying import lives

FOLDERS, FILES = 50, 500
OLD_NS = 1_500_000_000_123_456_789

#: Each item changes its folder, in ways drawn by lot from what stands there, and moves some of it to places that all share.
JOBS = """
import os
import random
from pathlib import Path

from durabatch.workers import disk, file_undo, files, trees
from tests.crash.dying import reach

CALLS = "open write fsync mkdir rmdir unlink rename symlink chmod utime truncate setxattr".split()


def counted(call):
    def counting(*args, **kwargs):
        reach("any")
        return call(*args, **kwargs)

    return counting


class Counting:
    def __getattr__(self, name):
        found = getattr(os, name)
        return counted(found) if name in CALLS else found


if disk.os is os:
    for module in (disk, files, file_undo, trees):
        module.os = Counting()
    disk._rename_noreplace = counted(disk._rename_noreplace)


def change(made, folder, rng, number):
    below = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.exists())
    plain = [path for path in below if path.is_file() and not path.is_symlink()]
    links, folders = [path for path in below if path.is_symlink()], [path for path in below if path.is_dir() and not path.is_symlink()]
    what = rng.choice(("replace", "replace", "replace a link", "move", "move out", "move a folder", "remove", "remove a link", "remove a folder", "mkdir", "write"))
    if what == "replace" and plain:
        made.replace(rng.choice(plain), rng.randbytes(rng.choice((0, 10, 20_000))))
    elif what == "replace a link" and any(path.is_file() for path in links):
        made.replace(rng.choice([path for path in links if path.is_file()]), "by a link")
    elif what == "move" and plain:
        made.move(rng.choice(plain), folder / f"new {number}" / "deep" / "moved")
    elif what == "move out" and below:
        made.move(rng.choice(below), Path("tree/shared") / str(number) / rng.choice("ab") / f"{folder.name}-{number}")
    elif what == "move a folder" and folders:
        made.move(rng.choice(folders), folder / f"renamed {number}")
    elif what == "remove" and plain:
        made.remove(rng.choice(plain))
    elif what == "remove a link" and links:
        made.remove(rng.choice(links))
    elif what == "remove a folder" and folders:
        made.remove(rng.choice(folders))
    elif what == "mkdir":
        made.mkdir(Path("tree/made") / rng.choice("ab") / f"{folder.name}-{number}")
    else:
        made.write(folder / f"more {number}" / "file", rng.randbytes(100))


def work(item, ctx):
    rng, folder = random.Random(f"{item} {ctx.attempt}"), Path("tree") / item.split()[0]
    for number in range(7):
        change(ctx.files, folder, rng, number)
    if item.endswith("7") or (item.endswith("3") and ctx.attempt == 1):
        raise ValueError("bad")
"""


@pytest.fixture(scope="module")
def lived():
    """Give lives."""
    with lives() as made:
        yield made


@pytest.fixture
def folder():
    """Give a folder, in memory where that is possible, gone with the test."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None, prefix="durabatch-tree-") as place:
        yield Path(place) / "place"


def set_up(folder: Path, seed: int) -> None:
    """Make the tree, an item for each folder in it, and the handlers."""
    rng = random.Random(seed)
    (folder / "tree/kept").mkdir(parents=True)
    for number in range(FILES):
        place = folder / "tree" / f"f{number % FOLDERS:02}" / rng.choice(("", "inner", "inner/most", "other"))
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"file {number}"
        path.write_bytes(rng.randbytes(rng.choice((0, 7, 300, 5000))))
        path.chmod(rng.choice((0o600, 0o644, 0o444, 0o755, 0o4711)))
        if rng.random() < 0.1:
            (place / f"link {number}").symlink_to(rng.choice((path.name, "nowhere", "../..")))
    for place, _, names in os.walk(folder / "tree"):
        for name in names:
            os.utime(os.path.join(place, name), ns=(OLD_NS, OLD_NS + rng.randrange(10**12)), follow_symlinks=False)
        os.chmod(place, rng.choice((0o755, 0o700, 0o2755)))
    (folder / "jobs.py").write_text(JOBS)
    (folder / "items.txt").write_text("".join(f"f{number:02} {seed} {number}\n" for number in range(FOLDERS)))


def tree(folder: Path) -> dict[str, tuple]:
    """Return everything in the tree with kind, mode, owner, content, and time of change (but of directories)."""
    found = {}
    for place, folders, names in os.walk(folder / "tree"):
        for path in [place, *(os.path.join(place, name) for name in (*names, *folders))]:
            info = os.lstat(path)
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
            content = os.readlink(path) if stat.S_ISLNK(info.st_mode) else content
            time_ns = None if stat.S_ISDIR(info.st_mode) else info.st_mtime_ns
            found[os.path.relpath(path, folder)] = (stat.filemode(info.st_mode), info.st_uid, content, time_ns)
    return found


def odd(before: dict[str, tuple], after: dict[str, tuple]) -> dict[str, tuple]:
    """Return what differs, a few of it."""
    different = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    return {path: (before.get(path), after.get(path)) for path in different[:5]}


def faults_of_seed(lived, folder: Path, seed: int, workers: int) -> tuple[int, list]:
    """Have a run die at most three times and its rollback four times; return how many deaths there were, and what is wrong at the end."""
    rng, deaths, wrong = random.Random(seed), 0, []
    set_up(folder, seed)
    before, who = tree(folder), ("self", "both", "coordinator") if workers else ("self",)
    # A life has some 8,000 moments, and so has its undoing.
    for _ in range(rng.choice((1, 1, 2, 3))):
        told = lived.run(folder, workers=workers, die=f"any:{rng.randint(1, 9000)}:{rng.choice(who)}")
        deaths += told["has_died"]
    changed = odd(before, tree(folder))
    for _ in range(rng.choice((0, 1, 2, 4))):
        told = lived.rollback(folder, workers=workers, die=f"any:{rng.randint(1, 6000)}:{rng.choice(who)}")
        deaths += told["has_died"]
    last = lived.rollback(folder, workers=workers)
    if last["code"] or last["rolled_back"]["left"]:
        wrong.append(last)
    second = lived.rollback(folder, workers=workers)
    if second["rolled_back"]["ran"] or second["rolled_back"]["steps"]:
        wrong.append(second)
    wrong += [str(one) for one in Ledger(folder / "l.db").verify()]
    wrong += [different] if (different := odd(before, tree(folder))) else []
    return deaths, wrong if changed or deaths else [*wrong, "nothing was changed"]


def test_a_tree_that_is_killed_and_rolled_back_is_as_it_was(lived, folder, seed, long):
    """Contents, modes, owners, links and times, whatever was killed, at whatever system call or commit, and the rollback as well."""
    deaths = 0
    for number in range(seed, seed + (100 if long else 1)):
        died, wrong = faults_of_seed(lived, folder, number, workers=number % 2 * 2)
        deaths += died
        assert (number, wrong) == (number, [])
        shutil.rmtree(folder)
    assert not long or deaths >= 100


def test_whatever_differs_in_a_tree_is_found(folder):
    """Sabotage: content, mode, time of change and target of a link, an entry too many and one too few, each shows."""
    set_up(folder, 1)
    before = tree(folder)
    files = sorted(path for path in (folder / "tree").rglob("file *"))
    link = next(path for path in (folder / "tree").rglob("link *"))
    files[0].chmod(0o640)
    files[1].write_bytes(b"changed")
    os.utime(files[2], ns=(OLD_NS, OLD_NS - 1))
    files[3].unlink()
    (folder / "tree/more").mkdir()
    link.unlink()
    link.symlink_to("elsewhere")
    after = tree(folder)
    different = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert different == {str(path.relative_to(folder)) for path in (*files[:4], folder / "tree/more", link)}
