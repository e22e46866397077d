"""
A file, a link or a whole directory as one blob, and back: what is kept of something before it is removed.

    8 bytes     length of the list, big endian
    list        JSON: one [name, kind, mode, uid, gid, atime_ns, mtime_ns, size, target] each, a directory before what is in it
    contents    of the files, in the order of the list

Modes, owners and times are kept; hard links become files of their own; extended attributes are not kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pydantic_core import from_json, to_json

from durabatch.errors import UndoError
from durabatch.sizes import size_text
from durabatch.workers.disk import Look, digest_of_file, give_look, read_pieces, stat_of, sync_directory, write_new
from durabatch.workers.file_names import name_from_json, name_to_json

__all__ = ["Node", "copy_tree", "is_part", "is_same", "nodes_of", "packed", "restored", "same_content", "survey", "too_large"]

HEAD_BYTES = 8
#: Nanoseconds that file systems round times down to, finest first.
GRAINS = (1, 100, 1000, 10**6, 10**7, 10**9, 2 * 10**9)


class Node(NamedTuple):
    """One file, directory or link of a tree; ``name`` is its path below the top, which itself is ''."""

    name: str
    kind: str
    look: Look
    size: int
    target: str


def survey(path: str) -> list[Node]:
    """
    Return what stands at *path*, a directory before what is in it, names in order.

    Raises:
        UndoError: There is a socket, a FIFO or a device in it, or another file system is mounted there.
        OSError: It is not there, or cannot be looked at.
    """
    found, rest, device = [], [""], os.lstat(path).st_dev
    while rest:
        name = rest.pop()
        here = _below(path, name)
        node = _node(here, name, device)
        found.append(node)
        if node.kind == "folder":
            rest += [os.path.join(name, inner) for inner in sorted(os.listdir(here), reverse=True)]
    return found


def _node(here: str, name: str, device: int) -> Node:
    info = os.lstat(here)
    if info.st_dev != device:
        raise UndoError(f"{here!r}: another file system is mounted there, which cannot be kept", "Leave it out.")
    if stat.S_ISREG(info.st_mode):
        return Node(name, "file", Look.of(info), info.st_size, "")
    if stat.S_ISDIR(info.st_mode):
        return Node(name, "folder", Look.of(info), 0, "")
    if stat.S_ISLNK(info.st_mode):
        return Node(name, "link", Look.of(info), 0, os.readlink(here))
    raise UndoError(f"{here!r} is a socket, a FIFO or a device, which cannot be kept", "Leave it out.")


# -- blobs --------------------------------------------------------------------------------------------------------------------


def packed(path: str, nodes: list[Node], limit_bytes: int) -> bytes:
    """
    Return the tree at *path*, which a survey found to be *nodes*, as one blob.

    Raises:
        UndoError: It is larger than *limit_bytes* (nothing was read then), or a file was changed meanwhile.
    """
    listed = to_json([[name_to_json(node.name), node.kind, *node.look, node.size, name_to_json(node.target)] for node in nodes])
    size_bytes = HEAD_BYTES + len(listed) + sum(node.size for node in nodes)
    if size_bytes > limit_bytes:
        raise too_large(path, size_bytes, limit_bytes)
    pieces = [len(listed).to_bytes(HEAD_BYTES, "big"), listed]
    pieces += [_content(_below(path, node.name), node) for node in nodes if node.kind == "file"]
    return b"".join(pieces)


def _content(here: str, node: Node) -> bytes:
    content = b"".join(read_pieces(here))
    info = os.lstat(here)
    if (len(content), info.st_size, info.st_mtime_ns) != (node.size, node.size, node.look.mtime_ns):
        raise UndoError(f"{here!r} was changed while its content was kept", "Have only one item, and no other program, change it.")
    return content


def nodes_of(blob: bytes) -> list[Node]:
    """Return the list at the head of a blob."""
    listed = from_json(memoryview(blob)[HEAD_BYTES : _contents_at(blob)].tobytes())
    return [Node(name_from_json(name), kind, Look(*look), size, name_from_json(target)) for name, kind, *look, size, target in listed]


def restored(blob: bytes, path: str) -> None:
    """
    Make the tree of *blob* at *path*, where nothing may stand; it is on disk then.

    Raises:
        OSError: It could not be made; what was made of it is left.
    """
    nodes, at, contents = nodes_of(blob), _contents_at(blob), {}
    for node in nodes:
        contents[node.name] = memoryview(blob)[at : at + node.size]
        at += node.size
    _build(path, nodes, lambda node: (contents[node.name],))


def copy_tree(source: str, path: str) -> None:
    """
    Make a copy of the tree *source* at *path*, where nothing may stand; it is on disk then.

    Raises:
        UndoError: There is something in it that cannot be copied. Nothing was made.
        OSError: It could not be made; what was made of it is left.
    """
    _build(path, survey(source), lambda node: read_pieces(_below(source, node.name)))


def _build(path: str, nodes: list[Node], content: Callable[[Node], Iterable[bytes | memoryview]]) -> None:
    for node in nodes:
        here = _below(path, node.name)
        if node.kind == "folder":
            os.mkdir(here, stat.S_IRWXU)
        elif node.kind == "link":
            os.symlink(node.target, here)
            give_look(here, node.look, is_link=True)
        else:
            write_new(here, content(node), node.look)
    for node in reversed(nodes):
        if node.kind == "folder":
            sync_directory(_below(path, node.name), node.look)
    sync_directory(os.path.dirname(path))


def _contents_at(blob: bytes) -> int:
    return HEAD_BYTES + int.from_bytes(blob[:HEAD_BYTES], "big")


# -- comparing ----------------------------------------------------------------------------------------------------------------


def is_same(nodes: list[Node], path: str) -> bool:
    """Tell whether what stands at *path* is *nodes*, by names, kinds, sizes, modes, targets and times."""
    found = _surveyed(path)
    return found is not None and len(found) == len(nodes) and all(map(_is_alike, nodes, found))


def is_part(nodes: list[Node], path: str) -> bool:
    """Tell whether every file and link at *path* is one of *nodes*, unchanged, and every directory too: some may be missing."""
    known, found = {node.name: node for node in nodes}, _surveyed(path)
    return found is not None and all(
        node.name in known and (node.kind == known[node.name].kind == "folder" or _is_alike(known[node.name], node)) for node in found
    )


def same_content(one: str, other: str) -> bool:
    """Tell whether two trees have the same names, kinds, targets and contents, and their tops the same time of change."""
    nodes, found = _surveyed(one), _surveyed(other)
    if nodes is None or found is None or [_shape(node) for node in nodes] != [_shape(node) for node in found]:
        return False
    files = [node.name for node in nodes if node.kind == "file"]
    return _is_same_time(nodes[0].look.mtime_ns, found[0].look.mtime_ns) and all(
        digest_of_file(_below(one, name)) == digest_of_file(_below(other, name)) for name in files
    )


def _surveyed(path: str) -> list[Node] | None:
    """Return a survey; None when nothing stands there, or something that no survey of ours ever had."""
    try:
        return None if stat_of(path) is None else survey(path)
    except UndoError:
        return None


def _is_alike(kept: Node, found: Node) -> bool:
    # Owners, and with them setuid, come back only where this user may give files away.
    has_mode = kept.kind == "link" or kept.look.mode & 0o1777 == found.look.mode & 0o1777
    return has_mode and _shape(kept) == _shape(found) and _is_same_time(kept.look.mtime_ns, found.look.mtime_ns)


def _shape(node: Node) -> tuple[str, str, int, str]:
    return node.name, node.kind, node.size, node.target


def _is_same_time(one_ns: int, other_ns: int) -> bool:
    """Tell whether two times are the same, or one is the other as a coarser file system keeps it."""
    early, late = sorted((one_ns, other_ns))
    return any(late // grain * grain == early for grain in GRAINS)


# -- words --------------------------------------------------------------------------------------------------------------------


def too_large(path: str, size_bytes: int, limit_bytes: int) -> UndoError:
    """Return the error for what is too large to be kept."""
    return UndoError(
        f"{path!r} has {size_text(size_bytes)}, more than one undo entry keeps: {size_text(limit_bytes)} (--max-undo-bytes)",
        "Nothing was touched: raise the limit, or record an undo action of your own.",
    )


def _below(path: str, name: str) -> str:
    return os.path.join(path, name) if name else path
