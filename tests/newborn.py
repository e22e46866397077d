"""
The program of a nursery (see tests/nursery.py): loads modules once, and forks off a process for every program that is to be started.

    newborn.py LINE MODULE...

It imports little itself: what a worker has loaded is among the things under test.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import socket
import sys
import types
from collections.abc import Sequence

MOST_BYTES, MOST_DESCRIPTORS = 1 << 20, 16


def serve(line: socket.socket) -> None:
    """Fork a process for each order until nobody is there any more; in such a process, be the program and return when it is over."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(line, MOST_BYTES, MOST_DESCRIPTORS)
        if not data:
            return
        order = json.loads(data)
        if "wait" in order:
            line.send(str(os.waitpid(order["wait"], 0)[1]).encode())
        elif not os.fork():
            try:
                settle(order, descriptors)
            finally:
                # Not before it leads its session: whoever waits for the answer may want to kill that.
                line.send(str(os.getpid()).encode())
                line.close()
            run([*order["argv"], *map(str, descriptors[3:])])
            return
        for descriptor in descriptors:
            os.close(descriptor)


def settle(order: dict, descriptors: Sequence[int]) -> None:
    """Take the session, descriptors, directory and environment of the new process."""
    os.setsid()
    gc.unfreeze()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(descriptors[number], number)
        os.close(descriptors[number])
        setattr(sys, name, opened(number, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    for descriptor in descriptors[3:]:
        os.set_inheritable(descriptor, True)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])


def opened(number: int, before: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the text stream that Python opens on a standard descriptor when it starts, as it has opened the one *before*."""
    mode = "w" if number else "r"
    raw = io.FileIO(number, mode, closefd=False)
    buffer = raw if isinstance(before.buffer, io.FileIO) else io.BufferedWriter(raw) if number else io.BufferedReader(raw)
    made = io.TextIOWrapper(
        buffer,
        before.encoding,
        before.errors,
        newline="\n" if number else None,
        line_buffering=number == 2 or raw.isatty(),
        write_through=before.write_through,
    )
    raw.name, made.mode = before.name, mode
    return made


def run(argv: list[str]) -> None:
    """Do what ``python ARGV`` does."""
    if argv[0] == "-m":
        sys.argv[:], sys.path[:0] = ["-m", *argv[2:]], [os.getcwd()]
        importlib.import_module("runpy").run_module(argv[1], run_name="__main__", alter_sys=True)
        return
    file = os.path.abspath(argv[0])
    sys.argv[:] = argv
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(file))
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = file
    with open(file, "rb") as source:
        code = compile(source.read(), file, "exec")
    exec(code, vars(main))


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The directory of this file.
        del sys.path[0]
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
