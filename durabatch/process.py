"""
Who a process is, beyond its number: numbers are used again, start times within one boot are not.

On systems without ``/proc`` nothing can be told for sure; every answer is then the careful one (not the same process).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["boot_id", "host_name", "is_same_process", "machine_id", "start_ticks"]

PROC = Path("/proc")
#: Where the machine's id is kept, in the order in which they are tried.
MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
#: Place of the start time among the fields of ``/proc/PID/stat`` that follow the process name.
START_TICKS_FIELD = 19


@functools.cache
def boot_id() -> str:
    """Return the id of this boot of the machine, another one after every start; empty where the system has none."""
    return _first_line(PROC / "sys/kernel/random/boot_id")


@functools.cache
def machine_id() -> str:
    """Return the id of this installation; empty where the system has none, which must never count as equal to anything."""
    return next(filter(None, map(_first_line, MACHINE_ID_FILES)), "")


def host_name() -> str:
    """Return the name by which the machine calls itself; for people, never for decisions."""
    return os.uname().nodename


def start_ticks(pid: int) -> int | None:
    """Return when process *pid* was started, in clock ticks since boot; None when there is no such process or no way to know."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The process name stands in parentheses and may itself hold blanks and parentheses.
    return int(stat[stat.rindex(b")") + 2 :].split()[START_TICKS_FIELD])


def is_same_process(pid: int, ticks: int) -> bool:
    """
    Return whether *pid* is still the process that was started at *ticks* of this boot.

    True also for one that has ended and waits for its parent: its number is not given to anybody else until then.
    """
    return pid > 0 and start_ticks(pid) == ticks


def _first_line(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
