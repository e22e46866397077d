"""The rules that hold for every verb of the command line; a new verb is covered the day it appears."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@functools.cache
def command_group():
    """The click group of the command line; None as long as there is none."""
    if not (ROOT / "durabatch" / "cli" / "main.py").exists():
        return None
    return importlib.import_module("durabatch.cli.main").cli


def context():
    return command_group().make_context("durabatch", [], resilient_parsing=True)


def verbs() -> list[str]:
    return sorted(command_group().list_commands(context())) if command_group() else []


def test_every_verb_has_help_and_is_in_the_readme():
    """A verb says in a line what it does, each of its options too, and the README names it."""
    wanting = []
    for verb in verbs():
        command = command_group().get_command(context(), verb)
        wanting += [] if command.help else [f"{verb}: no help"]
        wanting += [f"{verb} {option.name}: no help" for option in command.params if option.param_type_name == "option" and not option.help]
        wanting += [] if re.search(rf"durabatch {verb}\b|`{verb}\b", README) else [f"{verb}: not in the README"]
    assert wanting == []


def test_every_verb_has_its_own_module():
    """``durabatch VERB`` stands in durabatch/cli/VERB.py, so that it is found by its name."""
    homes = {path.stem for path in (ROOT / "durabatch" / "cli").glob("*.py")}
    assert [verb for verb in verbs() if not {verb.replace("-", "_"), f"{verb.replace('-', '_')}_"} & homes] == []
