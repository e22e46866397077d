"""
One subprocess: started, listened to, ended at its limit, and what is left of it afterwards.

It is over when its process ends. A process that it left behind and that still holds its output is killed, where the command has a process
group of its own; one that does not is killed when the worker ends. At the limit the whole group gets SIGTERM and, after the grace time,
SIGKILL; processes that left the group are found by the item's marker in their environment, where the system shows that.
"""

from __future__ import annotations

import errno
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from durabatch.workers.allowance import End
from durabatch.workers.capture import Capture
from durabatch.workers.command_error import CommandError
from durabatch.workers.failure import timeout_text
from durabatch.workers.outcomes import RSS_UNIT
from durabatch.workers.surroundings import end_marked

__all__ = ["Child", "Ended", "Service"]

READ_BYTES = 256 * 1024
#: How long output is waited for after the command has ended and its leftovers were killed.
DRAIN_S = 0.5
#: How often to look whether the command has ended, on systems that cannot say so by themselves.
LOOK_S = 0.05
#: How often to look whether there is another limit.
LIMIT_LOOK_S = 1.0
#: How much is read at most of what was in the pipes at the end: a leftover may go on printing for ever.
MAX_REST_BYTES = 8 * 1024 * 1024
#: Processor seconds beyond its limit after which a program that does not heed SIGXCPU is killed.
CPU_GRACE_S = 2
#: Limits itself, then becomes the program. A limit that is stricter already stays.
WITH_LIMIT = 'ulimit -S -t "$1" 2>&-; ulimit -H -t "$2" 2>&-; shift 2; exec "$@"'


@dataclass(frozen=True, slots=True)
class Ended:
    """
    How a command ended.

    Attributes:
        status: Exit status, negative for the number of the signal that ended it.
        peak_rss_bytes: The most memory it had, or the worker when it was started.
        ended_by: Which limit ended it, in words; None when it ended by itself.
    """

    status: int
    peak_rss_bytes: int
    ended_by: str | None


class Service(Protocol):
    """What a command may ask for while it runs."""

    @property
    def descriptor(self) -> int:
        """The end of it that the command inherits, under this number."""
        ...

    def fileno(self) -> int:
        """Return what becomes readable when something is asked."""
        ...

    def serve(self) -> None:
        """Take in what was asked, without waiting."""
        ...


class Child:
    """
    A command that was started.

    Args:
        argv: Program and arguments.
        environment: Its environment, with the item's *marker* in it.
        stdout: Takes what it prints.
        stderr: Takes what it prints there.
        marker: By which processes are found that left its group.
        cpu_limit_s: Processor seconds it may take.
        own_group: It leads a process group. Otherwise what it leaves behind is left alone.
        service: What it may ask for.

    Raises:
        CommandError: It could not be started.
    """

    def __init__(
        self,
        argv: list[str],
        environment: dict[str, str],
        stdout: Capture,
        stderr: Capture,
        *,
        marker: str,
        cpu_limit_s: float | None,
        own_group: bool,
        service: Service | None = None,
    ) -> None:
        self._marker = marker
        self._cpu_limit_s = cpu_limit_s
        self._own_group = own_group
        self._service = service
        inherited = () if service is None else (service.descriptor,)
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        full = argv if cpu_limit_s is None else limited(argv, cpu_limit_s, environment.get("PATH"))
        try:
            self._process = subprocess.Popen(
                full, env=environment, stdin=null, stdout=pipe, stderr=pipe, bufsize=0, process_group=0 if own_group else None,
                pass_fds=inherited,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot start {argv[0]}: {getattr(error, 'strerror', None) or error}") from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._captures = {self._process.stdout.fileno(): stdout, self._process.stderr.fileno(): stderr}
        self._poll = select.poll()
        for descriptor in self._captures:
            self._poll.register(descriptor, select.POLLIN)
        if service is not None:
            self._poll.register(service.fileno(), select.POLLIN)

    def run(self, limit: Callable[[], End | None] | None, grace_s: float) -> Ended:
        """
        Wait for its end and read what it prints.

        Args:
            limit: Says when it has to end; asked again and again.
            grace_s: Seconds between asking it to end and killing it.
        """
        with self._process:
            ended_fd = os.pidfd_open(self._process.pid) if sys.platform == "linux" else None
            try:
                ended_by = self._wait(ended_fd, limit, grace_s)
                self._read_to_the_end(is_late=ended_by is not None)
            except BaseException:
                self._signal(signal.SIGKILL)
                raise
            finally:
                if ended_fd is not None:
                    os.close(ended_fd)
            return self._reap(ended_by)

    def _wait(self, ended_fd: int | None, limit: Callable[[], End | None] | None, grace_s: float) -> str | None:
        """Wait for the end of the process, bringing it about when its time is up; return which limit did, in words."""
        late = self._read_until_exit(ended_fd, limit)
        if late is None:
            return None
        self._signal(signal.SIGTERM)
        until_s = time.monotonic() + grace_s
        if self._read_until_exit(ended_fd, lambda: (until_s, grace_s, False)) is None:
            return late
        self._signal(signal.SIGKILL)
        self._read_until_exit(ended_fd, None)
        return f"{late} (SIGKILL needed)"

    def _read_until_exit(self, ended_fd: int | None, limit: Callable[[], End | None] | None) -> str | None:
        """Read what the process prints until it ends; when its time is up before that, return by which limit, in words."""
        if ended_fd is not None:
            self._poll.register(ended_fd, select.POLLIN)
        try:
            while ended_fd is not None or not has_ended(self._process.pid):
                wait_s = LIMIT_LOOK_S if ended_fd is not None else LOOK_S
                end = limit() if limit is not None else None
                if end is not None:
                    wait_s = min(wait_s, end[0] - time.monotonic())
                    if wait_s <= 0:
                        return timeout_text(end[1], deadline=end[2])
                ready = [descriptor for descriptor, _ in self._poll.poll(math.ceil(wait_s * 1000))]
                self._read(ready)
                if self._service is not None and self._service.fileno() in ready:
                    self._service.serve()
                if ended_fd in ready:
                    return None
            return None
        finally:
            if ended_fd is not None:
                self._poll.unregister(ended_fd)

    def _read_to_the_end(self, *, is_late: bool) -> None:
        """Read what is there when the process has ended, and end what it left behind."""
        if self._service is not None:
            self._poll.unregister(self._service.fileno())
        self._read_rest(0.0)
        if not (self._captures or is_late):
            return
        if self._own_group:
            # The process was not waited for yet, so its group's number is still its own.
            signal_group(self._process.pid, signal.SIGKILL)
        if self._own_group or is_late:
            end_marked(self._marker)
        self._read_rest(DRAIN_S)

    def _read_rest(self, wait_s: float) -> None:
        """Read what is there already, and what comes within *wait_s*; a stream that is still open then is no longer listened to."""
        until = time.monotonic() + wait_s
        bytes_left = MAX_REST_BYTES
        while self._captures and bytes_left > 0:
            ready = self._poll.poll(max(0.0, until - time.monotonic()) * 1000)
            if not ready:
                return
            bytes_left -= self._read([descriptor for descriptor, _ in ready])

    def _read(self, ready: list[int]) -> int:
        """Read once from each stream in *ready* and return how many bytes came. Streams at their end are dropped."""
        count = 0
        for descriptor in self._captures.keys() & set(ready):
            data = os.read(descriptor, READ_BYTES)
            self._captures[descriptor].add(data)
            count += len(data)
            if not data:
                self._poll.unregister(descriptor)
                del self._captures[descriptor]
        return count

    def _signal(self, number: int) -> None:
        """Send a signal to the command, with its group if it leads one."""
        if self._own_group:
            signal_group(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def _reap(self, ended_by: str | None) -> Ended:
        _, waited, usage = os.wait4(self._process.pid, 0)
        status = self._process.returncode = os.waitstatus_to_exitcode(waited)
        if ended_by is None and self._cpu_limit_s is not None and is_cpu_end(status, usage.ru_utime + usage.ru_stime, self._cpu_limit_s):
            ended_by = f"cpu limit of {self._cpu_limit_s:g} s"
        return Ended(status, usage.ru_maxrss * RSS_UNIT, ended_by)


def limited(argv: list[str], limit_s: float, path: str | None) -> list[str]:
    """
    Return a command that runs *argv* with so many processor seconds, rounded up, for its process and for each one that it starts.

    The limit has to be there before the program is, or what that starts at once would escape it.

    Raises:
        CommandError: There is no such program, which the shell would say in its own words.
    """
    if shutil.which(argv[0], path=path) is None:
        raise CommandError(f"cannot start {argv[0]}: {os.strerror(errno.EACCES if os.path.exists(argv[0]) else errno.ENOENT)}")
    soft = math.ceil(limit_s)
    return ["/bin/sh", "-c", WITH_LIMIT, "sh", str(soft), str(soft + CPU_GRACE_S), *argv]


def is_cpu_end(status: int, used_s: float, limit_s: float) -> bool:
    """Return whether a command was ended by its limit of processor time; a shell reports its program's signal as 128 and more."""
    return status in (-signal.SIGXCPU, 128 + signal.SIGXCPU) or (status in (-signal.SIGKILL, 128 + signal.SIGKILL) and used_s >= limit_s)


def has_ended(pid: int) -> bool:
    """Return whether a child has ended, without waiting for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group; one that is gone already is fine."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
