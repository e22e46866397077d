"""
The disk is full: files may not grow beyond a limit, which ends the run cleanly; or a small disk has no room left, which is a pause.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.processes import children, eventually, is_alive
from tests.scenarios.stage import ended, innocent_faults


def limited(kib):
    """Return what makes a child process unable to let a file grow beyond *kib*; without the signal that would kill it."""

    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10))

    return prepare


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """Coverage could not write its own file either, and would say so on the stderr that is looked at."""
    for name in [name for name in os.environ if name.startswith(("COV_CORE_", "COVERAGE_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kib", [16, 100, 180, 300, 500])
def test_a_full_disk_ends_the_run_cleanly_and_the_same_command_goes_on(place, kib):
    """The run ends with status 4, whatever it was writing; what was recorded is there, no item failed of it, and with room again it goes on."""
    keys = [f"k{n}" for n in range(6000)]
    place.items(f"{key} 0" for key in keys)
    (place.folder / "notes").symlink_to("/dev/null")
    child = place.run(preexec=limited(kib))
    assert child.end() == 4, child.stderr()
    assert "Traceback" not in child.stderr()
    assert not any(is_alive(*worker) for worker in child.workers().items())
    before = place.results()
    assert set(before.values()) <= {"succeeded"}
    assert len(before) < len(keys)
    again = place.run()
    assert again.end() == 0, again.stderr()
    assert place.results() == dict.fromkeys(keys, "succeeded")


# -- a small disk -------------------------------------------------------------------------------------------------------------

#: Mounts a disk of its own, does there what it is told, and keeps the ledger: the disk goes with it.
SMALL_DISK = """
mount -t tmpfs -o size=$1 none disk || exit 99
shift
"$@"
code=$?
cp -r disk/* .
exit $code
"""
DISK_MIB = 16


class SmallDisk:
    """A run whose ledger lies on a disk of its own, and whose items wait at a gate."""

    def __init__(self, stage, keys, *words) -> None:
        (stage.folder / "disk").mkdir()
        stage.jobs("def work(item):\n    note('begin', item)\n    wait_at('gate')\n    return os.urandom(300).hex()")
        stage.items(keys)
        self.stage, self.gate = stage, stage.gate()
        run = [
            sys.executable,
            "-m",
            "durabatch",
            "run",
            "jobs.py:work",
            "items.txt",
            "--ledger",
            "disk/l.db",
            "--progress",
            "none",
            "-j",
            "2",
            *words,
        ]
        self.child = stage.start_program(["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", f"{DISK_MIB}m", *run])
        stage.wait_for("begin", 2)
        # As the child sees it: the disk is mounted for nobody else.
        self.folder = Path(f"/proc/{self.child.pid}/root{stage.folder}/disk")

    def fill(self, free_kib: int) -> None:
        """Take all the room there is, and give so many KiB of it back; the run goes on meanwhile."""
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                continue
        os.truncate(ballast, ballast.stat().st_size - (free_kib << 10))

    def make_room(self) -> None:
        """Take the ballast away."""
        (self.folder / "ballast").unlink()

    def wait_until_full(self) -> None:
        """Wait until the run has said that the disk is full."""
        eventually(lambda: "is full" in self.child.stderr() or self.child.process.poll() is not None, "word of the full disk")
        assert self.child.process.poll() is None, self.child.stderr()


@pytest.fixture
def mountable(tmp_path, not_run):
    """Make sure that a disk can be mounted here."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False).returncode:
        not_run("needs to be allowed to mount a tmpfs in a namespace of its own")


def test_a_disk_without_room_pauses_the_run(stages, mountable):
    """The run says that the disk is full, and waits; with room again it says that too, goes on, and every item succeeds with one attempt."""
    keys = [f"i{number:04}" for number in range(1000)]
    runs = {
        free_kib: SmallDisk(stage, keys) for free_kib, stage in zip((0, 64, 500), stages("none", "little", "some").values(), strict=True)
    }
    for free_kib, disk in runs.items():
        disk.fill(free_kib)
        disk.gate.open()
    for disk in runs.values():
        disk.wait_until_full()
        disk.make_room()
        said = ended(disk.child, 0)
        assert said.count("is full") == 1
        assert said.count("there is room on the disk again") == 1
        assert innocent_faults(disk.stage, keys) == []
        disk.stage.check_nobody_left()


def test_batch_files_are_whole_and_complete_after_a_full_disk(stage, mountable):
    """With ``--output`` on the same disk the run waits when the ledger has no room, and ends with 4 when a file has none; in the end there is every file, whole."""
    keys = [f"i{number:04}" for number in range(1000)]
    disk = SmallDisk(stage, keys, "--output", "disk/out", "--batch-size", "10")
    disk.fill(300)
    disk.gate.open()
    eventually(lambda: "is full" in disk.child.stderr() or disk.child.process.poll() is not None, "word of the full disk")
    if disk.child.process.poll() is None:
        disk.make_room()
    code = disk.child.end()
    assert code in (0, 4), disk.child.stderr()
    assert "Traceback" not in disk.child.stderr()
    if code:
        ended(stage.run("work", "--output", "out", "--batch-size", "10"), 0)
    assert innocent_faults(stage, keys, tries=None) == []
    files = sorted((stage.folder / "out").iterdir())
    written = [json.loads(path.read_text()) for path in files if path.name.startswith("batch_")]
    assert [item["key"] for batch in written for item in batch["items"]] == keys
    assert [path.name for path in files if not path.name.startswith("batch_")] == ["summary.json"]


def test_a_signal_ends_the_wait_for_room(stage, mountable):
    """Ctrl-C while the disk is full: the run ends without a traceback, no process is left, and elsewhere the same command ends it, nobody charged."""
    keys = [f"i{number:04}" for number in range(1000)]
    disk = SmallDisk(stage, keys)
    disk.fill(64)
    disk.gate.open()
    disk.wait_until_full()
    for pid in children(disk.child.pid):
        os.kill(pid, signal.SIGINT)
    assert disk.child.end() == 4, disk.child.stderr()
    assert "Traceback" not in disk.child.stderr()
    stage.check_nobody_left()
    ended(stage.run("work"), 0)
    assert innocent_faults(stage, keys, tries=None) == []
