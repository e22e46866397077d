from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from durabatch import process


def waiting_child(program: str = sys.executable) -> subprocess.Popen[bytes]:
    """Start a process that says when it is there and ends when its stdin is closed."""
    child = subprocess.Popen(
        [program, "-c", "import sys; print('up', flush=True); sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    return child


def test_a_process_is_itself_until_its_number_is_free():
    """Number and start time name a living process, and one that has ended but was not waited for; not one that is gone."""
    with waiting_child() as child:
        ticks = process.start_ticks(child.pid)
        assert ticks is not None
        assert process.is_same_process(child.pid, ticks)
        assert not process.is_same_process(child.pid, ticks - 1)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.is_same_process(child.pid, ticks)
    assert process.start_ticks(child.pid) is None
    assert not process.is_same_process(child.pid, ticks)


def test_later_processes_have_later_start_times():
    """This process was started before its child."""
    with waiting_child() as child:
        own, later = process.start_ticks(os.getpid()), process.start_ticks(child.pid)
        child.communicate()
    assert own is not None
    assert later is not None
    assert own <= later


def test_a_program_name_with_blanks_and_parentheses_is_no_trouble(tmp_path):
    """The name stands in the middle of the line that is parsed."""
    (tmp_path / "odd) S 1 (x").symlink_to(sys.executable)
    with waiting_child(str(tmp_path / "odd) S 1 (x")) as child:
        ticks = process.start_ticks(child.pid)
        own = process.start_ticks(os.getpid())
        child.communicate()
    assert ticks is not None
    assert own is not None
    assert ticks >= own


def test_numbers_that_are_no_process_are_never_the_same():
    """Zero and negative numbers mean process groups elsewhere; here they mean nobody."""
    assert not any(process.is_same_process(pid, 0) for pid in (0, -1, 2**22 + 1))


def test_the_boot_has_one_id():
    """It is the kernel's, a UUID."""
    assert str(uuid.UUID(process.boot_id())) == process.boot_id()
    assert process.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_machine_id_is_the_first_that_is_there(tmp_path, monkeypatch):
    """Missing and empty files are passed over; without any the id is empty."""
    (tmp_path / "empty").write_text("")
    (tmp_path / "full").write_text("0123abcd\n")
    for names, expected in ((("none", "empty", "full"), "0123abcd"), (("none", "empty"), "")):
        monkeypatch.setattr(process, "MACHINE_ID_FILES", tuple(tmp_path / name for name in names))
        process.machine_id.cache_clear()
        assert process.machine_id() == expected
    process.machine_id.cache_clear()


def test_without_proc_nothing_is_claimed(tmp_path, monkeypatch):
    """Where start times cannot be known, no process counts as the same."""
    monkeypatch.setattr(process, "PROC", tmp_path)
    process.boot_id.cache_clear()
    assert process.boot_id() == ""
    assert not process.is_same_process(os.getpid(), 1)
    process.boot_id.cache_clear()


def test_the_host_has_a_name():
    """It is the one that programs like hostname show."""
    assert process.host_name() == os.uname().nodename
