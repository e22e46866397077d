"""Changes of files through ``ctx.files``, and taking them back: also after a death at any system call, and after somebody else was there."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic_core import from_json, to_json

from durabatch.errors import UndoError
from durabatch.workers import disk
from durabatch.workers.file_undo import UNDO
from durabatch.workers.files import AsyncFiles, Files
from tests.workers.file_program import CASES, plant, snapshot

PROGRAM = Path(__file__).with_name("file_program.py")


class Log:
    """What is recorded, as the ledger has it: JSON and bytes. ``meanwhile`` is called before a promise is kept."""

    def __init__(self, *, limit=1 << 20, run="run"):
        self.entries, self.meanwhile = [], None
        self.files = Files(self.promise, limit, run)

    def promise(self, action, arguments, old):
        self.entries.append((action, to_json(arguments), old))
        if self.meanwhile:
            self.meanwhile()

    def undo(self, *, is_forced=False):
        """Undo the newest entry, which stays when that fails."""
        action, arguments, old = self.entries[-1]
        has_run = UNDO[action](from_json(arguments), old, is_forced=is_forced)
        self.entries.pop()
        return has_run


@pytest.fixture
def log():
    """Give an undo log."""
    return Log()


@pytest.fixture
def world(tmp_path):
    """Give a folder with a few files, and be in it."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    plant(str(tmp_path / "near"), str(tmp_path / "far"))
    before = os.getcwd()
    os.chdir(tmp_path / "near")
    yield tmp_path / "near"
    os.chdir(before)


# -- deaths -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deaths(request, tmp_path_factory):
    """Have every change, and its undoing, die everywhere; give what came of each case. None without a second file system."""
    there = tmp_path_factory.mktemp("deaths")
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == there.stat().st_dev:
        return None
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        found, here = {}, f"{folder}/here"
        os.mkdir(here)
        for mode in ("chain", "full") if request.config.getoption("--long") else ("chain",):
            argv = [sys.executable, str(PROGRAM), here, str(there), mode]
            done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            assert done.returncode == 0, done.stderr
            found[mode] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_death_at_any_system_call_leaves_what_undoing_takes_back(case, deaths, not_run):
    """The change dies before each of its calls, then tries to undo it die, too: in the end all is as before, and nothing is left to do."""
    if deaths is None:
        not_run("there is no second file system: /dev/shm and the temporary directory are one")
    for found in deaths.values():
        assert found[case]["faults"] == []
        assert found[case]["changes"] >= 3
        assert found[case]["deaths"] > found[case]["changes"]


def test_what_is_made_is_on_disk_before_it_appears(world, log, monkeypatch):
    """Content is synced before the rename that shows it, the directory afterwards, and nothing happens before the promise."""
    seen = []
    for name in ("fsync", "mkdir", "rename", "unlink"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, call=call, **k: (seen.append((name, fd_kind(a[0]))), call(*a, **k))[1])
    rename = disk._rename_noreplace
    monkeypatch.setattr(disk, "_rename_noreplace", lambda *a: (seen.append(("rename", "")), rename(*a))[1])
    log.meanwhile = lambda: seen.append(("promise", ""))
    log.files.write("n/new", "text")
    made = [("promise", ""), ("mkdir", ""), ("fsync", "folder")]
    assert seen == [*made, ("fsync", "file"), ("rename", ""), ("fsync", "folder")]
    seen.clear()
    log.files.replace("d/f", "text")
    assert seen == [("promise", ""), ("fsync", "file"), ("rename", ""), ("fsync", "folder")]


def fd_kind(target):
    return "" if not isinstance(target, int) else "folder" if stat.S_ISDIR(os.fstat(target).st_mode) else "file"


# -- refusals -----------------------------------------------------------------------------------------------------------------

REFUSED = [
    (lambda files: files.write("d/f", "x"), FileExistsError),
    (lambda files: files.write("d/link", "x"), FileExistsError),
    (lambda files: files.write("d/f/below", "x"), NotADirectoryError),
    (lambda files: files.write("", "x"), ValueError),
    (lambda files: files.write("nul\0", "x"), ValueError),
    (lambda files: files.write("new", 5), TypeError),
    (lambda files: files.write("new", "\ud800"), UnicodeEncodeError),
    (lambda files: files.replace("missing", "x"), FileNotFoundError),
    (lambda files: files.replace("d", "x"), IsADirectoryError),
    (lambda files: files.replace("fifo", "x"), UndoError),
    (lambda files: files.move("missing", "new"), FileNotFoundError),
    (lambda files: files.move("d/f", "d/link"), FileExistsError),
    (lambda files: files.move("d", "d/kept/deep/d"), OSError),
    (lambda files: files.mkdir("d"), FileExistsError),
    (lambda files: files.mkdir("d/f"), FileExistsError),
    (lambda files: files.remove("missing"), FileNotFoundError),
    (lambda files: files.remove("fifo"), UndoError),
    (lambda files: files.remove("."), UndoError),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_be_done_is_refused_before_anything_is_recorded_or_touched(number, world, log):
    """There is no entry, and not even a directory was made."""
    os.mkfifo("fifo")
    before = snapshot(world)
    change, error = REFUSED[number]
    with pytest.raises(error):
        change(log.files)
    assert (log.entries, snapshot(world)) == ([], before)


def test_old_content_over_the_limit_is_refused_before_anything_is_touched(world):
    """The message has both sizes and the option; a byte less is kept, and a promise that is refused leaves all as it is."""
    small, before = Log(limit=20), snapshot(world)
    for change in (lambda: small.files.replace("d/f", "x"), lambda: small.files.remove("d/f"), lambda: small.files.remove("d")):
        with pytest.raises(UndoError, match=r"bytes, more than one undo entry keeps: 20 bytes \(--max-undo-bytes\)"):
            change()
    assert (small.entries, snapshot(world)) == ([], before)
    Log(limit=21).files.replace("d/f", "x")

    def refused(*_):
        raise UndoError("the promise was refused")

    before = snapshot(world)
    files = Files(refused, 1 << 20)
    for name, change in CASES.items():
        with pytest.raises(UndoError, match="the promise was refused"):
            change(files, str(world), str(world.parent / "far"))
        assert snapshot(world) == before, name


# -- somebody else ------------------------------------------------------------------------------------------------------------

CHANGED = {
    # name: the change, what somebody else does then, what that leaves when undoing is forced
    "write": (lambda files: files.write("n/new", "x"), lambda: Path("n/new").write_text("mine"), {}),
    "replace": (lambda files: files.replace("d/f", "x"), lambda: Path("d/f").write_text("mine"), {}),
    "replace, gone": (lambda files: files.replace("d/f", "x"), lambda: os.unlink("d/f"), {}),
    "remove": (lambda files: files.remove("d/f"), lambda: Path("d/f").write_text("mine"), {}),
    "remove a tree": (lambda files: files.remove("d/kept"), lambda: Path("d/kept").write_text("mine"), {}),
    "move": (lambda files: files.move("d/f", "n/f"), lambda: Path("d/f").write_text("mine"), {}),
    "mkdir": (lambda files: files.mkdir("n"), lambda: Path("n/f").write_text("mine"), {"n", "n/f"}),
    "mkdir, a file": (lambda files: files.mkdir("n"), lambda: (os.rmdir("n"), Path("n").write_text("mine")), {"n"}),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_was_changed_since_stays_unless_forced(case, world, log):
    """Undoing fails for good and touches nothing; forced, the old state comes back, but no directory that has something in it goes."""
    change, meanwhile, left = CHANGED[case]
    before = snapshot(world)
    change(log.files)
    meanwhile()
    changed = snapshot(world)
    with pytest.raises(UndoError, match=r"was changed since|not empty|no directory") as caught:
        log.undo()
    assert not caught.value.retryable
    assert snapshot(world) == changed
    assert log.undo(is_forced=True) is (not left)
    after = snapshot(world)
    assert {os.path.relpath(path, world) for path in after.keys() - before.keys()} == set(left)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("case", ["write", "replace", "remove", "move"])
def test_no_directory_is_removed_even_when_forced(case, world, log):
    """A directory that somebody made in the place of a file stays, with a word about it."""
    change = CHANGED[case][0]
    change(log.files)
    place = "n/new" if case == "write" else "d/f"
    Path(place).unlink(missing_ok=True)
    os.mkdir(place)
    changed = snapshot(world)
    for is_forced in (False, True):
        with pytest.raises(UndoError, match="Move away what is there"):
            log.undo(is_forced=is_forced)
        assert snapshot(world) == changed


def test_undoing_a_move_follows_the_thing(world, log):
    """What was edited in its new place moves back as it is; what is nowhere any more is said to be so."""
    log.files.move("d/f", "n/f")
    Path("n/f").write_text("edited")
    assert log.undo()
    assert Path("d/f").read_text() == "edited"
    assert not Path("n").exists()
    log.files.move("d/f", "n/f")
    os.unlink("n/f")
    with pytest.raises(UndoError, match="neither place"):
        log.undo(is_forced=True)


MEANWHILE = {
    "write": (lambda files: files.write("n/new", "x"), lambda: (os.mkdir("n"), Path("n/new").write_text("x")), FileExistsError),
    "replace": (lambda files: files.replace("d/f", "x"), lambda: Path("d/f").write_text("x"), UndoError),
    "replace, gone": (lambda files: files.replace("d/f", "x"), lambda: os.unlink("d/f"), UndoError),
    "mkdir": (lambda files: files.mkdir("n"), lambda: os.mkdir("n"), FileExistsError),
    "remove": (lambda files: files.remove("d/kept"), lambda: Path("d/kept/more").write_text("x"), UndoError),
    "remove, gone": (lambda files: files.remove("d/f"), lambda: os.unlink("d/f"), FileNotFoundError),
    "move": (lambda files: files.move("d/f", "n"), lambda: Path("n").write_bytes(Path("d/f").read_bytes()), FileExistsError),
    "move, gone": (lambda files: files.move("d/f", "n"), lambda: os.unlink("d/f"), FileNotFoundError),
}


@pytest.mark.parametrize("case", MEANWHILE)
def test_who_is_quicker_keeps_what_is_theirs(case, world, log):
    """Another item does the same between promise and effect, even with the same content: the effect fails, and undoing leaves theirs alone."""
    change, meanwhile, error = MEANWHILE[case]
    theirs = []
    log.meanwhile = lambda: (meanwhile(), theirs.append(snapshot(world)))
    with pytest.raises(error):
        change(log.files)
    log.undo()
    assert snapshot(world) == theirs[0]


def test_an_effect_that_fails_in_the_middle_leaves_nothing_beside_it(world, log, monkeypatch):
    """The disk is full while the new content is written: the old content stays and no scratch file does; undoing has nothing to do."""

    def full(*_):
        raise OSError(28, "No space left on device")

    before = snapshot(world)
    monkeypatch.setattr(os, "write", full)
    for change in (lambda: log.files.write("d/new", "x"), lambda: log.files.replace("d/f", "x")):
        with pytest.raises(OSError, match="No space"):
            change()
        assert snapshot(world) == before
        assert log.undo() is False


def test_items_that_share_a_new_directory_drop_it_in_any_order(world):
    """The first to undo leaves the directory to the other; an unrelated run's directory stays, even when it is empty."""
    before, first, second = snapshot(world), Log(), Log()
    first.files.write("n/m/one", "1")
    second.files.write("n/m/two", "2")
    if not os.listxattr("n"):
        assert second.undo()
        assert first.undo()
    else:
        assert first.undo()
        assert Path("n/m/two").exists()
        assert second.undo()
    assert snapshot(world) == before
    Log(run="yesterday").files.mkdir("n/m")
    first.files.write("n/m/one", "1")
    assert first.undo()
    assert Path("n/m").is_dir()


def test_a_directory_that_another_undoing_took_away_is_made_again(world):
    """Between promise and effect the shared directory goes: the effect makes it again, since it is recorded to be dropped."""
    before, first, second = snapshot(world), Log(), Log()
    second.meanwhile = lambda: first.entries and first.undo()
    first.files.write("n/m/one", "1")
    if not os.listxattr("n"):
        second.meanwhile = None
    second.files.write("n/m/two", "2")
    assert Path("n/m/two").read_text() == "2"
    second.undo()
    if first.entries:
        first.undo()
    assert snapshot(world) == before


# -- what comes back ----------------------------------------------------------------------------------------------------------


def test_contents_modes_times_and_links_come_back(world, log):
    """After a tree was removed and rebuilt, to the nanosecond; so for a file that was replaced through a link, which stays one."""
    os.chmod("d/f", 0o4711)
    os.utime("d/f", ns=(1, 2))
    Path("d/kept/big").write_bytes(os.urandom(3 << 20))
    os.link("d/kept/big", "d/kept/again")
    os.utime("d/kept", ns=(3, 1_234_567_890_987_654_321))
    before = snapshot(world)
    os.utime("d/f", ns=(1, 2))
    roomy = Log(limit=10 << 20)
    roomy.files.remove("d/kept")
    log.files.replace("d/link", b"\0\xff")
    assert not Path("d/kept").exists()
    assert Path("d/f").read_bytes() == b"\0\xff"
    assert Path("d/link").is_symlink()
    assert stat.S_IMODE(os.stat("d/f").st_mode) == 0o4711
    assert os.stat("d/f").st_mtime_ns > 2
    assert roomy.undo()
    assert log.undo()
    assert os.stat("d/f").st_atime_ns == 1
    assert snapshot(world) == before


def test_names_are_kept_whatever_they_are(world, log):
    """Bytes that are no UTF-8, new lines, links on the way that are turned since, and a current directory that changes."""
    odd = b"\xff\xfe\n'\" $x"
    before = snapshot(world, times=False)
    os.symlink("kept", "d/way")
    log.files.mkdir(odd)
    log.files.write(os.path.join(odd, odd), "x")
    log.files.write("d/way/new", "x")
    log.files.move(os.path.join(odd, odd), os.path.join(odd, b"\xfd"))
    log.files.remove(os.fsdecode(odd))
    log.files.write(b"~", "x")
    os.unlink("d/way")
    os.symlink("elsewhere", "d/way")
    os.chdir("/")
    while log.entries:
        assert log.undo()
    os.unlink(world / "d/way")
    assert snapshot(world, times=False) == before


def test_without_renameat2_the_same_is_refused(world, log, monkeypatch):
    """On a kernel or file system that cannot refuse to replace, it is looked at first."""
    monkeypatch.setattr(disk, "_renameat2", lambda: disk._no_renameat2)
    before = snapshot(world)
    log.files.write("new", "x")
    log.files.move("d/kept", "kept")
    log.meanwhile = lambda: Path("other").write_text("x")
    with pytest.raises(FileExistsError):
        log.files.write("other", "x")
    assert log.undo()
    assert Path("other").read_text() == "x"
    os.unlink("other")
    assert [log.undo(), log.undo()] == [True, True]
    assert snapshot(world) == before


def test_a_user_without_rights_gets_back_what_can_be_had(world, log, monkeypatch):
    """Who may not give files away keeps content, mode and times; setuid goes with the owner."""

    def forbidden(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", forbidden)
    log.files.replace("d/f", "x")
    log.files.remove("d/kept")
    action, arguments, old = log.entries[0]
    look = from_json(arguments)["look"]
    look[0], look[1] = 0o4755, look[1] + 1
    log.entries[0] = action, to_json({**from_json(arguments), "look": look}), old
    assert [log.undo(), log.undo()] == [True, True]
    assert stat.S_IMODE(os.stat("d/f").st_mode) == 0o755
    assert Path("d/kept/g").read_bytes() == b"g" * 20


def test_the_async_face_names_each_change_and_settles_its_paths_at_the_call(world):
    """Nothing is done before the wrapper says so, and a change of directory in between changes nothing."""
    log, begun = Log(), []
    files = AsyncFiles(log.files, lambda name, work: begun.append((name, work)))
    before = snapshot(world)
    files.write("a", "x")
    files.replace("a", "y")
    files.move("a", "b")
    files.mkdir("c")
    files.remove("b")
    assert snapshot(world) == before
    os.chdir("/")
    for name, work in begun:
        work()
        assert log.entries[-1][0] == name
    assert len(log.entries) == 5
    while log.entries:
        assert log.undo()
    assert snapshot(world) == before


def test_an_entry_without_its_content_is_not_undone(world, log):
    """A blob that is missing is never taken for an empty one."""
    log.files.replace("d/f", "x")
    log.files.remove("d/kept")
    log.entries = [(action, arguments, None) for action, arguments, _ in log.entries]
    for _ in range(2):
        with pytest.raises(UndoError, match="is not in the ledger"):
            log.undo(is_forced=True)
        log.entries.pop()
    assert Path("d/f").read_text() == "x"


PLACES = st.sampled_from(["a", "b", "d", "d/f", "d/g", "d/kept", "d/kept/g", "d/kept/inner", "d/link", "n/x", "n/m/y"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.sampled_from(["", "x", "yy"])),
    st.tuples(st.just("replace"), PLACES, st.sampled_from(["", "x", "what was there before"])),
    st.tuples(st.just("move"), PLACES, PLACES),
    st.tuples(st.just("mkdir"), PLACES),
    st.tuples(st.just("remove"), PLACES),
)


@given(st.lists(STEPS, max_size=12))
def test_any_program_of_changes_is_undone_newest_first(steps):
    """Whatever handlers do one after the other, and whatever is refused on the way: undone, the world is the same."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        near, far = f"{folder}/near", f"{folder}/far"
        os.mkdir(near)
        os.mkdir(far)
        plant(near, far)
        before, log = snapshot(near, times=False), Log()
        for name, *arguments in steps:
            places = [f"{near}/{place}" for place in arguments[: 2 if name == "move" else 1]]
            try:
                getattr(log.files, name)(*places, *arguments[len(places) :])
            except OSError:
                assert not any(".durabatch-" in path for path in snapshot(folder))
        while log.entries:
            log.undo()
        assert snapshot(near, times=False) == before
