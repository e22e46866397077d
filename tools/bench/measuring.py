"""
One measurement: a function in a process of its own, in a directory of its own, watched from outside.

The child is ``child.py MODULE.FUNCTION ARGUMENTS``; its last line of output is a JSON object with ``value`` and whatever else is worth a column.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import checkout

__all__ = ["Sample", "Watch", "measure"]

#: What one measurement found: ``value`` in the unit of its case, and other numbers by name; or ``problem``, a text.
Sample = dict[str, Any]

CHILD = Path(__file__).with_name("child.py")
MIB = 1 << 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Seconds between two looks at memory and log.
LOOK_S = 0.05


class Watch(threading.Thread):
    """
    Looks at a process and everything below it while it runs.

    Attributes:
        tree_bytes: The most memory that all of them had together at one look, shared pages counted in each.
        wal_bytes: The largest write-ahead log in the directory.
    """

    def __init__(self, pid: int, directory: Path) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.directory = directory
        self.tree_bytes = 0
        self.wal_bytes = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Look until told that it is over."""
        while not self.over.wait(LOOK_S):
            self.tree_bytes = max(self.tree_bytes, sum(map(resident_bytes, family(self.pid))))
            self.wal_bytes = max([self.wal_bytes, *map(size_of, self.directory.glob("*-wal"))])


def family(pid: int) -> list[int]:
    """Return *pid* and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in family(int(child)))]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def size_of(path: Path) -> int:
    """Return the size of a file, 0 when it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def environment(root: str | None) -> dict[str, str]:
    """Return the environment of a child that measures the checkout *root*: bytecode is kept, as it is where a package was installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept if root is None else {**kept, checkout.VARIABLE: root}


def children_cpu_s() -> float:
    """Return the processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(function: str, arguments: dict[str, Any], parent: Path, root: str | None = None) -> Sample:
    """
    Return what *function* measured in a fresh process with a fresh directory below *parent*.

    Args:
        root: The checkout whose durabatch is measured; None for the one that is found here.
    """
    with tempfile.TemporaryDirectory(dir=parent) as made:
        argv = [sys.executable, str(CHILD), function, json.dumps({"directory": made, **arguments})]
        cpu_before_s = children_cpu_s()
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, cwd=made, env=environment(root), process_group=0)
        watch = Watch(process.pid, Path(made))
        watch.start()
        try:
            output, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            watch.over.set()
            watch.join()
        if process.returncode:
            return {"problem": (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]}
        sample: Sample = json.loads(output.strip().splitlines()[-1])
        cpu_s = children_cpu_s() - cpu_before_s
    return {**sample, "cpu_s": cpu_s, "tree_mib": watch.tree_bytes / MIB, "wal_mib": watch.wal_bytes / MIB}
