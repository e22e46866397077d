"""
``ctx.files``: changes of files that can be taken back.

Every change is planned without touching anything, recorded with what takes it back, and made only then. A change is made under a scratch
name beside its place and appears there by one rename that never replaces what it does not know. As long as the scratch name ``new`` is there,
the change has not happened: so it is left behind where another program was quicker, and undoing leaves what that one made alone.
What becomes of it all after a crash is decided by :mod:`durabatch.workers.file_undo`, from what stands on disk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from durabatch.codec import frame_digest
from durabatch.errors import UndoError
from durabatch.workers.disk import (
    Look,
    make_folders,
    missing_folders,
    read_pieces,
    remove_tree,
    rename_new,
    stat_of,
    sync_directory,
    write_new,
)
from durabatch.workers.file_names import PathLike, name_from_json, name_to_json, new_token, place_of, scratch
from durabatch.workers.trees import copy_tree, is_same, packed, survey, too_large

__all__ = ["AsyncFiles", "Files", "transfer"]

Promise = Callable[[str, dict[str, Any], bytes | None], None]
#: How often parents are made again that the undoing of another item took away in between.
PARENT_TRIES = 5


class Files:
    """
    Changes of files, each recorded before it is made: it is taken back when the attempt does not succeed, and by ``durabatch rollback``.

    Relative paths start at the current directory; ``~`` is a name like any other. Every method returns when its change is on disk. It raises
    what the operating system says (:class:`OSError`), or :class:`~durabatch.errors.UndoError` when the change cannot be recorded; nothing
    was touched then, unless it says so.

    Args:
        promise: Records an action by name, with its arguments and old content; returns once that is on disk.
        max_undo_bytes: Most bytes of old content that one entry may keep.
        run: The run. Directories that it makes on the way carry this name, so that the last of several users drops them.
    """

    def __init__(self, promise: Promise, max_undo_bytes: int, run: str = "") -> None:
        self._promise = promise
        self._max_undo_bytes = max_undo_bytes
        self._run = run

    def write(self, path: PathLike, data: bytes | str) -> None:
        """
        Make a file at *path* with this content (text as UTF-8) and missing directories above it.

        Raises:
            FileExistsError: Something stands there; it is as it was.
        """
        content, place = _bytes_of(data), place_of(path)
        _refuse_taken(place)
        arguments = self._planned(place) | {"size": len(content), "digest": frame_digest(content).hex()}
        self._promise("files.write", arguments, None)
        with _unfinished(place, arguments) as new:
            self._make(arguments, lambda: write_new(new, (content,)))
            rename_new(new, place)

    def replace(self, path: PathLike, data: bytes | str) -> None:
        """
        Put this content (text as UTF-8) in place of that of the file at *path*; mode and owner stay. Of a link: the file it leads to.

        Readers see the old content or the new one. Other hard links of the file keep the old content.

        Raises:
            UndoError: The old content is larger than an entry keeps, or another program was changing the file; it is as it was.
            FileNotFoundError: There is none.
        """
        content, place = _bytes_of(data), os.path.realpath(place_of(path))
        before = os.stat(place)
        old = self._old_content(place, before)
        arguments: dict[str, Any] = {"path": name_to_json(place), "token": new_token(), "look": list(Look.of(before))}
        arguments |= {"size": len(content), "digest": frame_digest(content).hex()}
        self._promise("files.replace", arguments, old)
        with _unfinished(place, arguments) as new:
            write_new(new, (content,), Look.of(before)._replace(atime_ns=(now := time.time_ns()), mtime_ns=now))
            if _identity(stat_of(place)) != _identity(before):
                raise _changed(place)
            os.rename(new, place)
            sync_directory(os.path.dirname(place))

    def move(self, source: PathLike, target: PathLike) -> None:
        """
        Move the file, directory or link (as such) from *source* to *target*, also to another file system, and make missing directories above it.

        Raises:
            FileExistsError: Something stands at *target*; everything is as it was.
            FileNotFoundError: There is nothing at *source*.
        """
        origin, place = place_of(source), place_of(target)
        before = os.lstat(origin)
        if stat.S_ISDIR(before.st_mode) and place.startswith(f"{origin}/"):
            raise OSError(errno.EINVAL, "a directory cannot be moved into itself", origin, None, place)
        _refuse_taken(place)
        arguments = self._planned(place)
        if before.st_dev != os.stat(os.path.dirname(arguments["parents"][0] if arguments["parents"] else place)).st_dev:
            survey(origin)
        arguments["source"], arguments["kind"] = name_to_json(origin), stat.S_IFMT(before.st_mode)
        arguments["was"] = [before.st_ino, before.st_ctime_ns]
        self._promise("files.move", arguments, None)
        new, trash = scratch(place, arguments["token"], "new"), scratch(origin, arguments["token"], "old")
        try:
            self._make(arguments, lambda: transfer(origin, place, temp=new, trash=trash))
        except (FileExistsError, FileNotFoundError) as error:
            if isinstance(error, FileExistsError) or not os.path.lexists(place):
                _mark(new)
            raise

    def mkdir(self, path: PathLike) -> None:
        """
        Make a directory at *path*, and missing ones above it.

        Raises:
            FileExistsError: Something stands there; it is as it was.
        """
        place = place_of(path)
        _refuse_taken(place)
        arguments = self._planned(place)
        self._promise("files.mkdir", arguments, None)
        with _unfinished(place, arguments) as new:
            self._make(arguments, lambda: os.mkdir(new))
            rename_new(new, place)

    def remove(self, path: PathLike) -> None:
        """
        Remove the file, directory (with all that is in it) or link (as such) at *path*; contents, modes and times are kept in the ledger.

        Raises:
            UndoError: It is larger than an entry keeps, has a socket, FIFO or device in it, or another program was changing it; it is as it was.
            FileNotFoundError: There is nothing.
        """
        place = place_of(path)
        before, nodes = os.lstat(place), survey(place)
        old = packed(place, nodes, self._max_undo_bytes)
        token = new_token()
        arguments = {"path": name_to_json(place), "token": token, "was": [before.st_ino, before.st_ctime_ns]}
        self._promise("files.remove", arguments, old)
        new, trash = scratch(place, token, "new"), scratch(place, token, "old")
        try:
            rename_new(place, trash)
        except FileNotFoundError:
            _mark(new)
            raise
        if not is_same(nodes, trash):
            _mark(new)
            rename_new(trash, place)
            raise _changed(place)
        remove_tree(trash)

    def _planned(self, place: str) -> dict[str, Any]:
        """Return what every new thing at *place* records."""
        parents = missing_folders(place, self._run)
        return {"path": name_to_json(place), "token": new_token(), "parents": [name_to_json(folder) for folder in parents]}

    def _make(self, arguments: dict[str, Any], make: Callable[[], None]) -> None:
        """Call *make* once the recorded parents are there; they may be dropped by the undoing of another item at any moment."""
        parents = [name_from_json(folder) for folder in arguments["parents"]]
        for tries_left in reversed(range(PARENT_TRIES)):
            make_folders(parents, self._run)
            try:
                return make()
            except FileNotFoundError:
                if not tries_left or not parents:
                    raise
        return None

    def _old_content(self, place: str, before: os.stat_result) -> bytes:
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place)
        if not stat.S_ISREG(before.st_mode):
            raise UndoError(f"ctx.files.replace: {place!r} is no file but a socket, a FIFO or a device", "Nothing was touched.")
        if before.st_size > self._max_undo_bytes:
            raise too_large(place, before.st_size, self._max_undo_bytes)
        old = b"".join(read_pieces(place))
        if _identity(os.lstat(place)) != _identity(before) or len(old) != before.st_size:
            raise _changed(place)
        return old


class AsyncFiles:
    """
    The same for async handlers: each method begins at once, in a thread, and returns what is to be awaited.

    Args:
        files: Makes the changes.
        wrap: Runs a function of that name in a thread, and returns what waits for its end.
    """

    def __init__(self, files: Files, wrap: Callable[[str, Callable[[], None]], Awaitable[None]]) -> None:
        self._files = files
        self._wrap = wrap

    def write(self, path: PathLike, data: bytes | str) -> Awaitable[None]:
        """As :meth:`Files.write`."""
        return self._wrap("files.write", functools.partial(self._files.write, place_of(path), data))

    def replace(self, path: PathLike, data: bytes | str) -> Awaitable[None]:
        """As :meth:`Files.replace`."""
        return self._wrap("files.replace", functools.partial(self._files.replace, place_of(path), data))

    def move(self, source: PathLike, target: PathLike) -> Awaitable[None]:
        """As :meth:`Files.move`."""
        return self._wrap("files.move", functools.partial(self._files.move, place_of(source), place_of(target)))

    def mkdir(self, path: PathLike) -> Awaitable[None]:
        """As :meth:`Files.mkdir`."""
        return self._wrap("files.mkdir", functools.partial(self._files.mkdir, place_of(path)))

    def remove(self, path: PathLike) -> Awaitable[None]:
        """As :meth:`Files.remove`."""
        return self._wrap("files.remove", functools.partial(self._files.remove, place_of(path)))


def transfer(source: str, target: str, *, temp: str, trash: str) -> None:
    """
    Give *source* the name *target*, where nothing may stand; on another file system by a copy that is made as *temp*.

    What is left at *source* then is renamed to *trash* and removed: at any moment one of the two places has all of it.

    Raises:
        FileExistsError: Something stands at *target*. Both are as they were, a copy may be left as *temp*.
        OSError: It failed. *source* or *target* is whole.
    """
    try:
        rename_new(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        remove_tree(temp)
        copy_tree(source, temp)
        rename_new(temp, target)
        rename_new(source, trash)
        remove_tree(trash)


@contextlib.contextmanager
def _unfinished(place: str, arguments: dict[str, Any]) -> Iterator[str]:
    """
    Give the scratch name under which a change is made.

    It is cleared when the body fails, unless another program was quicker: then something small is left there, which says that the change
    never happened.
    """
    new = scratch(place, arguments["token"], "new")
    try:
        yield new
    except (FileExistsError, UndoError):
        _mark(new)
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(new)
        raise


def _mark(new: str) -> None:
    """Leave at *new* something small, which says that the change never happened: what stands there, emptied, or an empty file."""
    info = stat_of(new)
    if info is None:
        with contextlib.suppress(FileNotFoundError):
            write_new(new, ())
    elif stat.S_ISREG(info.st_mode):
        os.truncate(new, 0)
    elif stat.S_ISDIR(info.st_mode):
        for name in os.listdir(new):
            remove_tree(os.path.join(new, name))


def _changed(place: str) -> UndoError:
    return UndoError(
        f"ctx.files: {place!r} was changed by another program meanwhile", "Have only one item, and no other program, change it."
    )


def _bytes_of(data: bytes | str) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"the content of a file is bytes or text, not {type(data).__name__}")
    return bytes(data)


def _refuse_taken(place: str) -> None:
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place)


def _identity(info: os.stat_result | None) -> tuple[int, ...]:
    """Return what differs as soon as another program writes to a file, removes it, or puts another one in its place."""
    return () if info is None else (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
