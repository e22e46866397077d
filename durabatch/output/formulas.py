"""
Text that a spreadsheet program would take for a formula, made harmless: whoever opens a table runs nothing that came from an item.

A cell that begins with one of ``= + - @``, a tab or a line end gets an apostrophe in front, as OWASP advises
(https://owasp.org/www-community/attacks/CSV_Injection). Plain numbers, which no program evaluates, stay as they are.
"""

from __future__ import annotations

import re

__all__ = ["guarded"]

#: What formulas begin with, in the forms of other scripts, too.
OPENING = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def guarded(text: str) -> str:
    """Return *text* as it is when it is harmless in a cell, else with an apostrophe in front."""
    if OPENING.match(text) is None or NUMBER.fullmatch(text) is not None:
        return text
    return f"'{text}"
