"""
Configuration files: where they are looked for, and how they are read with suspicion.

    ./durabatch.toml
    ./pyproject.toml, its table [tool.durabatch]
    ./durabatch.yaml
    $XDG_CONFIG_HOME/durabatch/config.toml, the user's own

A file that others can write may set how things are done, never what is done: see :attr:`ConfigFile.distrust`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Any

from durabatch.config.toml_files import Lines, line_of, parse_toml
from durabatch.config.yaml_files import parse_yaml
from durabatch.errors import UsageError

__all__ = ["PROJECT_FILE", "ConfigFile", "config_files", "user_file"]

PROJECT_FILE = "durabatch.toml"
#: Files of the project, most important first, with the table that is ours.
PROJECT_FILES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (PROJECT_FILE, ()),
    ("pyproject.toml", ("tool", "durabatch")),
    ("durabatch.yaml", ()),
)
#: A configuration is no place for data.
MAX_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """
    A configuration file, read.

    Attributes:
        shown: Its name in messages.
        values: Its table of settings.
        distrust: Why it may not name a handler, an input, or other code: ``is writable by others``; empty when it may.
        table: Where its settings stand in the file.
    """

    shown: str
    values: dict[str, Any]
    distrust: str = ""
    table: tuple[str, ...] = ()
    lines: Lines = field(default_factory=dict, repr=False)

    def place(self, *path: str) -> str:
        """Return ``FILE:LINE`` of a key."""
        return f"{self.shown}:{line_of(self.lines, (*self.table, *path))}"


def config_files() -> list[ConfigFile]:
    """
    Return the files there are, most important first.

    Raises:
        UsageError: One of them cannot be read, or is not what its name says.
    """
    found = [read_config(name, name, table) for name, table in PROJECT_FILES]
    own = user_file()
    found.append(read_config(own, shown_path(own), ()))
    return [one for one in found if one is not None]


def user_file() -> str:
    """Return the path of the user's own configuration file."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path there is to be ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    return os.path.join(folder if os.path.isabs(folder) else os.path.expanduser("~/.config"), "durabatch", "config.toml")


def shown_path(path: str) -> str:
    """Return *path* with ``~`` for the home directory."""
    home = os.path.join(os.path.expanduser("~"), "")
    return f"~/{path.removeprefix(home)}" if path.startswith(home) and len(home) > 1 else path


def read_config(path: str, shown: str, table: tuple[str, ...]) -> ConfigFile | None:
    """Return the settings of one file; None when it is not there or says nothing about durabatch."""
    read = read_file(path, shown)
    # A file of others that does not mention us is none of our business, mistakes included.
    if read is None or not all(part.encode() in read[0] for part in table):
        return None
    text = decoded(read[0], shown)
    values, lines = parse_yaml(text, shown) if path.endswith(".yaml") else parse_toml(text, shown)
    own: Any = values
    for part in table:
        own = own.get(part) if isinstance(own, dict) else None
    if own is None:
        return None
    if not isinstance(own, dict):
        raise UsageError(f"{shown}:{line_of(lines, table)}: [{'.'.join(table)}] is not a table")
    return ConfigFile(shown, own, distrust_of(read[1]), table, lines)


def read_file(path: str, shown: str) -> tuple[bytes, os.stat_result] | None:
    """
    Return what is in a file, and its facts; None when there is none.

    Raises:
        UsageError: It is no readable, plain file of a sane size.
    """
    try:
        # A named pipe must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{shown}: {(error.strerror or str(error)).lower()}", "Make it readable, or move it away.") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{shown}: is {'a directory' if stat.S_ISDIR(facts.st_mode) else 'not a plain file'}")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{shown}: larger than 1 MiB", "A configuration holds settings, no data.")
    return data, facts


def decoded(data: bytes, shown: str) -> str:
    """Return *data* as text, without the mark that some editors put before it."""
    plain = data.removeprefix(BOM)
    try:
        return plain.decode()
    except UnicodeDecodeError as error:
        position = error.start + len(data) - len(plain)
        line = data[:position].count(b"\n") + 1
        raise UsageError(f"{shown}:{line}: not UTF-8 at byte {position}", "Save it as UTF-8.") from error


def distrust_of(facts: os.stat_result) -> str:
    """Return why a file with these *facts* may be the word of another user, empty when it cannot be; root's word is the machine's own."""
    if facts.st_uid not in {os.geteuid(), 0}:
        return "belongs to another user"
    if facts.st_mode & stat.S_IWOTH or (facts.st_mode & stat.S_IWGRP and not is_private_group(facts.st_uid, facts.st_gid)):
        return "is writable by others"
    return ""


def is_private_group(uid: int, gid: int) -> bool:
    """Return whether the group is the user's own, of the same name and without other members, as many systems make one for each user."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
