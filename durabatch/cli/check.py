"""
``durabatch check``: what is in force here, and where each value comes from. Nothing is started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from durabatch.cli import printing
from durabatch.cli.options import json_option, verb
from durabatch.cli.starting import checked_handler, find_modules_here, run_settings
from durabatch.config.keys import SETTINGS, Setting
from durabatch.config.resolving import Effective

__all__ = ["command"]


@verb("check", "durabatch check", "durabatch check audit.py:audit --profile night -j 4", "durabatch check --set --json", settings="run")
@click.option("--set", "only_set", is_flag=True, help="Leave out what is at its default.")
@json_option
def command(only_set: bool, as_json: bool, wishes: Effective) -> int:
    """
    Show each setting in force here and where it comes from.

    HANDLER, INPUT and options are those of `durabatch run`; with a handler its declarations count, too. All files and variables are
    checked, and the handler is imported, but nothing is run.
    """
    wishes = with_handler(wishes)
    shown = [one for one in SETTINGS.values() if not only_set or one.key in wishes.found]
    if as_json:
        files = [{"path": one.shown, "trusted": not one.distrust} for one in wishes.files]
        printing.emit_json({"files": files, "notes": list(wishes.notes), "settings": [as_json_object(one, wishes) for one in shown]})
        return 0
    for line in printing.table(("setting", "value", "source"), rows(shown, wishes)):
        printing.emit(line)
    for note in wishes.notes:
        printing.say(f"durabatch: {printing.clean(note)}")
    return 0


def with_handler(wishes: Effective) -> Effective:
    """Return the settings with those that the handler declares, all of them found to be usable."""
    from durabatch.config.declaring import declared_fields
    from durabatch.loading import check_preflight, parse_target

    if wishes["handler"] is None:
        return wishes
    find_modules_here()
    reference = parse_target(wishes["handler"])
    spec = checked_handler(reference, wishes).spec
    settings = run_settings(wishes, reference, spec)
    if settings.preflight is not None:
        check_preflight(settings.preflight, settings.params)
    return wishes.with_declared(declared_fields(spec), f"@handler of {wishes['handler']}")


def rows(settings: list[Setting], wishes: Effective) -> Iterator[tuple[str, str, str]]:
    """Yield setting, value and source of each."""
    for one in settings:
        value = shown_value(one, wishes)
        yield (
            one.key,
            "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            wishes.source(one.key),
        )


def shown_value(one: Setting, wishes: Effective) -> Any:
    """Return the value as a file would hold it, None when there is none."""
    value = wishes[one.key]
    return None if value is None else one.kind.show(value)


def as_json_object(one: Setting, wishes: Effective) -> dict[str, Any]:
    """Return what is known of a setting."""
    value, source = shown_value(one, wishes), wishes.source(one.key)
    flag = None if one.is_argument else one.flag
    return {"key": one.key, "value": value, "source": source, "group": one.group, "flag": flag, "variable": one.variable, "help": one.help}
