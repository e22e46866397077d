"""
What is done to files, one step at a time, each of them on disk when it returns: what :mod:`durabatch.workers.files` and its undoing rest on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

__all__ = [
    "Look",
    "digest_of_file",
    "drop_folders",
    "give_look",
    "make_folders",
    "missing_folders",
    "read_pieces",
    "remove_tree",
    "rename_new",
    "stat_of",
    "sync_directory",
    "write_new",
]

PIECE_BYTES = 1 << 20
AT_FDCWD = -100
RENAME_NOREPLACE = 1
#: What renameat2 answers on a kernel or a file system that cannot refuse to replace.
CANNOT_REFUSE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
#: What removing a directory answers when it is in use, no directory (any more), or not there.
NOT_DROPPED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR, errno.ENOENT})
#: Stands on directories that a run made as parents, with the run as its value.
MADE_BY = "user.durabatch.run"


class Look(NamedTuple):
    """What a file has besides its content."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> Look:
        """Return the look that *info* shows."""
        return cls(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_atime_ns, info.st_mtime_ns)


def stat_of(path: str) -> os.stat_result | None:
    """Return what stands at *path*, a link as such; None when there is nothing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


# -- contents -----------------------------------------------------------------------------------------------------------------


def write_new(path: str, pieces: Iterable[bytes | memoryview], look: Look | None = None) -> None:
    """
    Make a file at *path*, where nothing may stand, with the content *pieces* and the given look; without one, as new files look.

    Raises:
        OSError: It could not be made or written; what was made of it is left.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666 if look is None else 0o600)
    try:
        for piece in pieces:
            _write_all(descriptor, memoryview(piece))
        if look is not None:
            give_look(descriptor, look)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[:PIECE_BYTES]) :]


def read_pieces(path: str) -> Iterator[bytes]:
    """
    Give the content of the regular file at *path*, piece by piece; a link is not followed. Its owner leaves no trace of having read it.

    Raises:
        OSError: It is not there, no regular file, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        descriptor = os.open(path, flags)
    try:
        while piece := os.read(descriptor, PIECE_BYTES):
            yield piece
    finally:
        os.close(descriptor)


def digest_of_file(path: str) -> bytes:
    """Return the SHA-256 of the content of the regular file at *path*."""
    digest = hashlib.sha256()
    for piece in read_pieces(path):
        digest.update(piece)
    return digest.digest()


def give_look(target: int | str, look: Look, *, is_link: bool = False) -> None:
    """Give a file (a descriptor or a path) owner, mode and times of *look*. Who may not give files away keeps what is its own, without setuid."""
    mode = look.mode if _give_owner(target, look) else look.mode & ~(stat.S_ISUID | stat.S_ISGID)
    if not is_link:
        os.chmod(target, mode)
    os.utime(target, ns=(look.atime_ns, look.mtime_ns), follow_symlinks=isinstance(target, int))


def _give_owner(target: int | str, look: Look) -> bool:
    """Set owner and group, the group at least; tell whether both are right now."""
    follow = isinstance(target, int)
    for uid in (look.uid, -1):
        with contextlib.suppress(PermissionError):
            os.chown(target, uid, look.gid, follow_symlinks=follow)
            break
    info = os.stat(target, follow_symlinks=follow)
    return (info.st_uid, info.st_gid) == (look.uid, look.gid)


# -- names --------------------------------------------------------------------------------------------------------------------


def sync_directory(folder: str, look: Look | None = None) -> None:
    """Make the names in *folder* outlive a power cut, and the *look* that it is given."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if look is not None:
            give_look(descriptor, look)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(source: str, target: str) -> None:
    """
    Give *source* the name *target*, where nothing may stand, and have that on disk.

    Where the kernel or the file system cannot refuse to replace (NFS), looking and renaming are two steps.

    Raises:
        FileExistsError: Something stands at *target*. Nothing was changed.
        OSError: It cannot be renamed, with EXDEV to another file system. Nothing was changed.
    """
    code = _rename_noreplace(source, target)
    if code in CANNOT_REFUSE:
        code = errno.EEXIST if os.path.lexists(target) else 0
        if not code:
            os.rename(source, target)
    if code:
        raise OSError(code, os.strerror(code), source, None, target)
    for folder in {os.path.dirname(source), os.path.dirname(target)}:
        sync_directory(folder)


def _rename_noreplace(source: str, target: str) -> int:
    """Return 0, or the error number."""
    ctypes.set_errno(0)
    return ctypes.get_errno() if _renameat2()(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) else 0


@functools.cache
def _renameat2() -> Callable[..., int]:
    library = ctypes.CDLL(None, use_errno=True)
    try:
        call: Callable[..., int] = library.renameat2
    except AttributeError:
        return _no_renameat2
    return call


def _no_renameat2(*_: object) -> int:
    """Answer as a kernel without the call does."""
    ctypes.set_errno(errno.ENOSYS)
    return -1


def remove_tree(path: str) -> bool:
    """Remove what stands at *path*, with all that is in it; tell whether there was anything. Modes that forbid it are changed."""
    if stat_of(path) is None:
        return False
    folders, rest = [], [path]
    while rest:
        here = rest.pop()
        info = os.lstat(here)
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(here)
            continue
        if info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(here, stat.S_IRWXU)
        folders.append(here)
        rest += [os.path.join(here, name) for name in os.listdir(here)]
    for folder in reversed(folders):
        os.rmdir(folder)
    sync_directory(os.path.dirname(path))
    return True


# -- directories on the way ---------------------------------------------------------------------------------------------------


def missing_folders(path: str, run: str) -> list[str]:
    """
    Return the directories above *path* that are not there, or were made for the same *run* and are in use, outermost first.

    Of several users of a directory the last to go drops it. One that is empty was left so, and is left so again.

    Raises:
        NotADirectoryError: Something else stands on the way.
    """
    found: list[str] = []
    folder = os.path.dirname(path)
    while stat_of(folder) is None or (run and _made_by(folder) == run.encode() and os.listdir(folder)):
        found.append(folder)
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    return found[::-1]


def make_folders(folders: Iterable[str], run: str) -> None:
    """Make those of *folders* that are not there, outermost first, and have them carry *run* where the file system can."""
    for folder in folders:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
            if run:
                with contextlib.suppress(OSError):
                    os.setxattr(folder, MADE_BY, run.encode())
            sync_directory(os.path.dirname(folder))


def drop_folders(folders: Iterable[str]) -> bool:
    """Remove those of *folders* (outermost first) that are empty now, innermost first; tell whether there were any."""
    has_dropped = False
    for folder in reversed(list(folders)):
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno not in NOT_DROPPED:
                raise
            continue
        has_dropped = True
        sync_directory(os.path.dirname(folder))
    return has_dropped


def _made_by(folder: str) -> bytes:
    try:
        return os.getxattr(folder, MADE_BY, follow_symlinks=False)
    except OSError:
        return b""
