"""
The disk is full: files may not grow beyond a limit, which the kernel answers like a file system without room.
"""

from __future__ import annotations

import os
import resource
import signal

import pytest

from tests.crash.processes import is_alive


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
