"""
A program for test_files.py: it has every change of files, and its undoing, end by ``os._exit`` before each of its system calls.

``file_program.py FOLDER FOLDER_ELSEWHERE full|chain`` prints JSON: case to {"changes": calls of the change, "deaths": how many, "faults": [...]}.
A death of the change is followed by tries to undo it: ``full`` has one die at each of its calls, then one that ends; ``chain`` has them die one
after the other, each a few calls later than the one before, until one ends, and leaves out some calls of long changes.
"""

import gc
import json
import os
import shutil
import stat
import sys

from durabatch.workers import disk
from durabatch.workers.file_undo import UNDO
from durabatch.workers.files import Files

CALLS = ("open", "write", "fsync", "mkdir", "rmdir", "unlink", "rename", "symlink", "chmod", "chown", "utime", "truncate", "setxattr")
#: Calls between the deaths of a chain.
STEP = 6
OLD_NS, OLDER_NS = 1_500_000_000_123_456_789, 1_400_000_000_987_654_321


def snapshot(*folders, times=True):
    """What stands in the folders; times of directories where nothing is put or taken by a change, that is below ``kept``."""
    found = {}
    for folder in folders:
        for here, folders_in, files in os.walk(folder):
            for path in [
                here,
                *(os.path.join(here, name) for name in [*files, *(n for n in folders_in if os.path.islink(os.path.join(here, n)))]),
            ]:
                info = os.lstat(path)
                has_time = times and (not stat.S_ISDIR(info.st_mode) or "/kept" in path)
                found[path] = [stat.filemode(info.st_mode), info.st_uid, info.st_mtime_ns if has_time else None, content(path, info)]
    return found


def content(path, info):
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            return file.read().hex()
    return os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""


def plant(here, there):
    """Make a small world in two folders, the same each time."""
    for folder in (here, there):
        for name in os.listdir(folder):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.makedirs(f"{here}/d/kept/inner")
    with open(f"{here}/d/f", "wb") as file:
        file.write(b"what was there before")
    with open(f"{here}/d/kept/g", "wb") as file:
        file.write(b"g" * 20)
    with open(f"{here}/d/kept/inner/empty", "wb"):
        pass
    os.symlink("g", f"{here}/d/kept/link")
    os.symlink("f", f"{here}/d/link")
    os.chmod(f"{here}/d/f", 0o640)
    os.chmod(f"{here}/d/kept/inner", 0o2750)
    for path in ("d/kept/link", "d/kept/inner/empty", "d/kept/g", "d/f", "d/link", "d/kept/inner", "d/kept"):
        os.utime(f"{here}/{path}", ns=(OLDER_NS, OLD_NS), follow_symlinks=False)


CASES = {
    "write": lambda files, here, there: files.write(f"{here}/d/new", b"something quite new"),
    "write below new directories": lambda files, here, there: files.write(f"{here}/n1/n2/new", b"deep"),
    "replace": lambda files, here, there: files.replace(f"{here}/d/link", b"what is there now"),
    "replace with the same": lambda files, here, there: files.replace(f"{here}/d/f", b"what was there before"),
    "mkdir": lambda files, here, there: files.mkdir(f"{here}/n1/n2"),
    "remove a file": lambda files, here, there: files.remove(f"{here}/d/f"),
    "remove a link": lambda files, here, there: files.remove(f"{here}/d/link"),
    "remove a tree": lambda files, here, there: files.remove(f"{here}/d/kept"),
    "move a file": lambda files, here, there: files.move(f"{here}/d/f", f"{here}/n1/f"),
    "move a tree": lambda files, here, there: files.move(f"{here}/d/kept", f"{here}/kept"),
    "move a file elsewhere": lambda files, here, there: files.move(f"{here}/d/f", f"{there}/n1/f"),
    "move a link elsewhere": lambda files, here, there: files.move(f"{here}/d/link", f"{there}/link"),
    "move a tree elsewhere": lambda files, here, there: files.move(f"{here}/d/kept", f"{there}/kept"),
}


class Calls:
    """Counts the system calls that change something, and ends the process before one of them."""

    def __init__(self):
        self.count, self.last = 0, None
        for name in CALLS:
            setattr(os, name, self.counted(name, getattr(os, name)))
        disk._rename_noreplace = self.counted("renameat2", disk._rename_noreplace)

    def counted(self, name, call):
        def counting(*args, **kwargs):
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **kwargs)
            if self.count == self.last:
                os._exit(99)
            self.count += 1
            # A kill loses nothing that the system was told; and a write may be cut in two.
            return None if name == "fsync" else call(args[0], args[1][:9]) if name == "write" else call(*args, **kwargs)

        return counting


def in_child(work, report, last=None):
    """Run *work* in a process that ends before its call number *last*; return the number of its calls, or None when it died."""
    child = os.fork()
    if not child:
        calls.count, calls.last = 0, last
        try:
            work()
            calls.last = None
            with open(report, "w") as file:
                file.write(str(calls.count))
        except BaseException as error:  # noqa: BLE001
            calls.last = None
            with open(report, "w") as file:
                file.write(f"{type(error).__name__}: {error}")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 99:
        return None
    with open(report) as file:
        text = file.read()
    if status or not text.isdigit():
        raise RuntimeError(f"{status} {text}")
    return int(text)


class World:
    """One case: its change, what it recorded, and its undoing."""

    def __init__(self, change, here, there, entry):
        self.change, self.here, self.there, self.entry = change, here, there, entry
        plant(here, there)
        self.before = snapshot(here, there)
        self.deaths, self.faults = 0, []

    def promise(self, action, arguments, old):
        counted, calls.last = calls.last, None
        with open(self.entry, "w") as file:
            json.dump([action, arguments, None if old is None else old.hex()], file)
        calls.count, calls.last = 0, counted

    def changed(self, last=None):
        plant(self.here, self.there)
        if os.path.exists(self.entry):
            os.unlink(self.entry)
        return in_child(lambda: self.change(Files(self.promise, 1 << 20, "run"), self.here, self.there), self.entry + ".report", last)

    def undo(self):
        with open(self.entry) as file:
            action, arguments, old = json.load(file)
        return UNDO[action](arguments, None if old is None else bytes.fromhex(old), is_forced=False)

    def undone(self, last=None):
        return in_child(self.undo, self.entry + ".report", last)

    def check(self, what):
        """Undo to the end; everything is as before then, and a further undoing finds nothing to do."""
        try:
            self.undo()
            if self.undo():
                self.faults.append(f"{what}: undone twice")
        except Exception as error:  # noqa: BLE001
            self.faults.append(f"{what}: {error}")
        after = snapshot(self.here, self.there)
        if after != self.before:
            odd = {
                path: (self.before.get(path), after.get(path))
                for path in {*after, *self.before}
                if self.before.get(path) != after.get(path)
            }
            self.faults.append(f"{what}: {odd}")

    def chain(self, last):
        """Have the change die, then undo it, each try dying a few calls later; the first one earlier or later."""
        self.deaths += self.changed(last) is None
        calls = last % STEP
        while self.undone(calls) is None:
            calls += STEP
            self.deaths += 1
        self.check(f"change {last}, the last try undone by call {calls}")

    def full(self, last):
        """Have the change die, and an undoing of it, at each of its calls."""
        tries = 0
        while True:
            self.changed(last)
            died = self.undone(tries) is None
            self.deaths += died
            self.check(f"change {last}, undo {tries}")
            if not died:
                return
            tries += 1

    def play(self, *, is_full):
        count = self.changed()
        if snapshot(self.here, self.there) == self.before and "same" not in self.entry:
            self.faults.append("nothing was changed")
        self.check("no death")
        for last in range(0, count, 1 if is_full else 1 + count // 12):
            (self.full if is_full else self.chain)(last)
        self.full(None)
        return {"changes": count, "deaths": self.deaths, "faults": self.faults[:3]}


if __name__ == "__main__":
    here, there, mode = sys.argv[1:]
    calls = Calls()
    gc.disable()
    gc.freeze()
    print(
        json.dumps(
            {
                name: World(change, here, there, f"{here}.{name.replace(' ', '-')}").play(is_full=mode == "full")
                for name, change in CASES.items()
            }
        )
    )
