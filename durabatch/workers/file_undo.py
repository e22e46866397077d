"""
Taking back what ``ctx.files`` changed.

Nobody can say how far a change came when its process was killed, nor how far an earlier try to take it back. So each function looks at what
stands on disk, decides from that alone, acts, and looks again; it may be killed at any step and called any number of times. Beside the
place of a change there may be

    new     the change, not made yet: as long as it is there, nothing has happened
    old     what was in the way, renamed first and removed then: it is of no further use, unless it is all there is
    back    what was there before, being made again
    gone    a copy that was moved back, renamed first and removed then

What was changed since by somebody else is left alone, unless the step is forced; a directory is never removed for another thing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Literal

from durabatch.codec import frame_digest
from durabatch.errors import UndoError
from durabatch.workers.disk import (
    Look,
    digest_of_file,
    drop_folders,
    make_folders,
    missing_folders,
    remove_tree,
    rename_new,
    stat_of,
    sync_directory,
    write_new,
)
from durabatch.workers.file_names import name_from_json, scratch
from durabatch.workers.files import transfer
from durabatch.workers.trees import is_part, is_same, nodes_of, restored, same_content

__all__ = ["UNDO", "is_to_take_back", "undo_mkdir", "undo_move", "undo_remove", "undo_replace", "undo_write"]

#: What stands in a place: as before the change, as the change left it, or something of somebody else's.
Standing = Literal["before", "changed", "other", "folder"]


class Entry:
    """What an undo entry says, and its scratch names."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.path = name_from_json(arguments["path"])
        self.new, self.old, self.back = (scratch(self.path, arguments["token"], kind) for kind in ("new", "old", "back"))

    def is_unfinished(self) -> bool:
        """Whether the change is known not to have happened."""
        return os.path.lexists(self.new)

    def is_untouched(self, info: os.stat_result | None) -> bool:
        """Whether *info* shows the very thing that stood there before, never renamed or written to."""
        return info is not None and [info.st_ino, info.st_ctime_ns] == self.arguments["was"]

    def cleared(self, *paths: str) -> bool:
        """Remove what is left at scratch names, and parents that are empty; tell whether there was anything."""
        # The change that never happened last: it is what this was decided by.
        found = [remove_tree(path) for path in (*paths, self.new)]
        return any([*found, drop_folders([name_from_json(folder) for folder in self.arguments.get("parents", [])])])


def is_to_take_back(standing: Standing, path: str, *, is_unfinished: bool, is_forced: bool) -> bool:
    """
    Decide by what stands at *path* whether the change is to be taken back; False: there is none (any more).

    Raises:
        UndoError: Something of somebody else's stands there.
    """
    if is_unfinished or standing == "before":
        return False
    if standing == "changed" or (standing == "other" and is_forced):
        return True
    raise _changed_since(path, is_forceable=standing == "other")


def undo_write(arguments: dict[str, Any], old: bytes | None, *, is_forced: bool) -> bool:  # noqa: ARG001 - nothing stood there
    """
    Remove a file that was written; tell whether there was anything to do. So do all functions here.

    Raises:
        UndoError: The file was changed since. So do all functions here; a further try would find the same.
        OSError: The system refused. So do all functions here; a further try goes on where this one ended.
    """
    entry = Entry(arguments)
    is_there = is_to_take_back(_written(entry), entry.path, is_unfinished=entry.is_unfinished(), is_forced=is_forced)
    if is_there:
        os.unlink(entry.path)
        sync_directory(os.path.dirname(entry.path))
    return entry.cleared() or is_there


def undo_replace(arguments: dict[str, Any], old: bytes | None, *, is_forced: bool) -> bool:
    """Put the old content back, with mode, owner and times."""
    entry, content = Entry(arguments), _kept(old, arguments)
    before = frame_digest(content)
    is_there = is_to_take_back(_replaced(entry, before), entry.path, is_unfinished=entry.is_unfinished(), is_forced=is_forced)
    is_cleared = remove_tree(entry.back)
    if is_there:
        _make_way(entry.path)
        write_new(entry.back, (content,), Look(*arguments["look"]))
        os.rename(entry.back, entry.path)
        sync_directory(os.path.dirname(entry.path))
        _expect(digest_of_file(entry.path) == before, entry.path)
    return entry.cleared() or is_there or is_cleared


def undo_mkdir(arguments: dict[str, Any], old: bytes | None, *, is_forced: bool) -> bool:  # noqa: ARG001 - nothing stood there
    """Remove a directory that was made, if it is empty; forced, one that is not stays, and counts as undone."""
    entry, is_there = Entry(arguments), False
    info = stat_of(entry.path)
    if info is not None and not entry.is_unfinished():
        is_there = _drop_folder(entry.path, info, is_forced=is_forced)
    return entry.cleared() or is_there


def undo_remove(arguments: dict[str, Any], old: bytes | None, *, is_forced: bool) -> bool:
    """Put back what was removed: contents, modes, owners, times and links."""
    entry, blob = Entry(arguments), _kept(old, arguments)
    if entry.is_unfinished() and os.path.lexists(entry.old):
        # It was not what had been kept, and was about to get its name again.
        rename_new(entry.old, entry.path)
    standing = _removed(entry, blob)
    is_there = is_to_take_back(standing, entry.path, is_unfinished=entry.is_unfinished(), is_forced=is_forced)
    is_cleared = remove_tree(entry.back)
    if is_there:
        _put_back(entry, blob, standing)
    return entry.cleared(entry.old) or is_there or is_cleared


def undo_move(arguments: dict[str, Any], old: bytes | None, *, is_forced: bool) -> bool:  # noqa: ARG001 - it lives on in the new place
    """Move it back."""
    entry, source = Entry(arguments), name_from_json(arguments["source"])
    trash, back = (scratch(source, arguments["token"], kind) for kind in ("old", "back"))
    gone = scratch(entry.path, arguments["token"], "gone")
    standing = "before" if entry.is_unfinished() else _moved(entry, source)
    is_there = is_to_take_back(standing, source, is_unfinished=entry.is_unfinished(), is_forced=is_forced)
    if is_there and same_content(source, entry.path):
        rename_new(entry.path, gone)
    elif is_there:
        _make_way(source)
        if standing == "other":
            remove_tree(trash)
            rename_new(source, trash)
        transfer(entry.path, source, temp=back, trash=gone)
    return entry.cleared(trash, back, gone) or is_there


#: The function of each action.
UNDO: dict[str, Callable[..., bool]] = {
    "files.write": undo_write,
    "files.replace": undo_replace,
    "files.move": undo_move,
    "files.mkdir": undo_mkdir,
    "files.remove": undo_remove,
}


def _kept(old: bytes | None, arguments: dict[str, Any]) -> bytes:
    if old is None:
        raise UndoError(f"what stood at {name_from_json(arguments['path'])!r} is not in the ledger", "Run `durabatch verify`.")
    return old


# -- looking ------------------------------------------------------------------------------------------------------------------


def _written(entry: Entry) -> Standing:
    info = stat_of(entry.path)
    return "before" if info is None else _foreign(info) or ("changed" if _is_new_content(entry, info) else "other")


def _replaced(entry: Entry, before: bytes) -> Standing:
    info = stat_of(entry.path)
    if info is None:
        return "other"
    if foreign := _foreign(info):
        return foreign
    is_new = _is_new_content(entry, info)
    if is_new and (entry.arguments["digest"] != before.hex() or info.st_mtime_ns != Look(*entry.arguments["look"]).mtime_ns):
        return "changed"
    return "before" if is_new or digest_of_file(entry.path) == before else "other"


def _removed(entry: Entry, blob: bytes) -> Standing:
    info = stat_of(entry.path)
    if info is None:
        return "changed"
    if entry.is_untouched(info) or is_same(nodes_of(blob), entry.path):
        return "before"
    return _foreign(info) or "other"


def _moved(entry: Entry, source: str) -> Standing:
    """Return what stands at *source*: "other" means that forced, it makes room for what was moved."""
    here, there = stat_of(source), stat_of(entry.path)
    if there is None:
        if here is None:
            raise UndoError(f"{source!r} was moved to {entry.path!r}, and now it is at neither place", "It cannot be moved back.")
        return "before"
    if here is None:
        if stat.S_IFMT(there.st_mode) != entry.arguments["kind"]:
            raise _changed_since(entry.path, is_forceable=False)
        return "changed"
    if same_content(source, entry.path):
        return "changed"
    if entry.is_untouched(here) and here.st_dev == there.st_dev:
        return "before"
    return "folder" if stat.S_ISDIR(here.st_mode) or stat.S_IFMT(there.st_mode) != entry.arguments["kind"] else "other"


def _foreign(info: os.stat_result) -> Standing | None:
    if stat.S_ISREG(info.st_mode):
        return None
    return "folder" if stat.S_ISDIR(info.st_mode) else "other"


def _is_new_content(entry: Entry, info: os.stat_result) -> bool:
    return bool(info.st_size == entry.arguments["size"] and digest_of_file(entry.path).hex() == entry.arguments["digest"])


# -- acting -------------------------------------------------------------------------------------------------------------------


def _make_way(path: str) -> None:
    """Make the directories above *path* that somebody has taken away: another item, in its own undoing, since they were empty."""
    make_folders(missing_folders(path, ""), "")


def _drop_folder(path: str, info: os.stat_result, *, is_forced: bool) -> bool:
    """Remove the directory at *path*; tell whether it is gone."""
    try:
        if not stat.S_ISDIR(info.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        os.rmdir(path)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        if is_forced:
            return False
        what = "no directory any more" if error.errno == errno.ENOTDIR else "not empty"
        raise UndoError(f"the directory {path!r} was made, and is {what}", "--force leaves it there.") from error
    sync_directory(os.path.dirname(path))
    return True


def _put_back(entry: Entry, blob: bytes, standing: Standing) -> None:
    """Have what *blob* keeps at the path again, by its old name if that is whole, and otherwise built beside it."""
    nodes = nodes_of(blob)
    _make_way(entry.path)
    is_left = os.path.lexists(entry.old)
    if standing == "other":
        os.unlink(entry.path)
    if is_left and (is_same(nodes, entry.old) or not is_part(nodes, entry.old)):
        # Whole, or changed before it was looked at: its removal had not begun.
        rename_new(entry.old, entry.path)
        return
    restored(blob, entry.back)
    rename_new(entry.back, entry.path)
    _expect(is_same(nodes, entry.path), entry.path)


def _expect(is_so: bool, path: str) -> None:
    if not is_so:
        raise UndoError(f"{path!r} was put back, and is not as it was before", "Is another program changing it?")


def _changed_since(path: str, *, is_forceable: bool) -> UndoError:
    way_out = (
        "`durabatch rollback --force` overwrites what is there." if is_forceable else "Move away what is there; --force does not remove it."
    )
    return UndoError(f"{path!r} was changed since", way_out)
