"""
The configuration file that ``init`` writes: every setting, explained, with its default, as a comment until somebody wants it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from durabatch.config.keys import GROUPS, SETTINGS, Setting
from durabatch.config.toml_files import toml_text

__all__ = ["template"]

HEAD = """\
# Settings of durabatch for the runs that are started in this directory.
#
# A flag of the command line counts more than a variable (DURABATCH_WORKERS=4), that more than a profile, that more than this file, and
# this file more than ~/.config/durabatch/config.toml. `durabatch check` shows what is in force and where it comes from.
# Lines with one # are settings at their default, or examples where there is no default.
"""
TAIL = """
# ---- Profiles: other values, chosen with --profile NAME

# [profile.gentle]
# workers = 1
# rate = "50/1m"
"""
#: What makes no sense for every run of a directory.
LEFT_OUT = ("profile",)
WIDTH = 120


def template(given: Mapping[str, Any]) -> str:
    """Return the text of the file; the settings *given*, by key and as a file holds them, are in force."""
    return "".join((HEAD, *(piece for group in GROUPS for piece in section(group, given)), TAIL))


def section(group: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pieces of one group of settings."""
    yield f"\n# ---- {group}\n"
    for one in SETTINGS.values():
        if one.group == group and one.key not in LEFT_OUT:
            yield from ("\n", *(f"## {line}\n" for line in textwrap.wrap(one.help_text, WIDTH - 3)))
            yield f"{one.key} = {toml_text(given[one.key])}\n" if one.key in given else f"# {one.key} = {toml_text(shown_value(one))}\n"


def shown_value(one: Setting) -> Any:
    """Return the value that stands in the comment."""
    if one.example is not None:
        return one.example
    return one.kind.show(one.default_value)
