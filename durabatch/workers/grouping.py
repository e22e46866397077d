"""
Errors that are the same but for numbers, names and places, brought to one text: what a person would call one error.

    HTTPError: 503 for https://h1/users/17?page=2       HTTPError: <n> for https://h1/users/<n>
    KeyError: 'Gustav'                                  KeyError: <text>
    cannot open /srv/in/0815.csv                        cannot open <path>
"""

from __future__ import annotations

import re

__all__ = ["MAX_GROUP_CHARACTERS", "group_of"]

MAX_GROUP_CHARACTERS = 300
#: Of a long message this much is looked at.
MAX_LOOK_CHARACTERS = 2000

#: What varies, tried in this order at each place of a text.
VARIABLE = re.compile(
    r"""
      (?P<url>   \b[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+ )
    | (?P<text>  (?<!\w)'(?:[^'\\]|\\.)*'(?!\w) | "(?:[^"\\]|\\.)*" | `[^`]*` )
    | (?P<id>    \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b )
    | (?P<hex>   \b0x[0-9a-f]+\b | \b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{8,}\b )
    | (?P<path>  (?<![\w<>/])(?:~|\.{1,2}|[a-z]:)?[/\\][^\s'",:;)\]]+ )
    | (?P<n>     (?<![a-z_])[+-]?\d(?:[\d.,]*\d)?(?:e[+-]?\d+)? | (?<=[a-z_])\d+ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: A part of a path in a URL that names one of many.
NAMES_ONE = re.compile(r"\d|%[0-9a-f]{2}", re.IGNORECASE)


def group_of(error_type: str, message: str) -> str:
    """Return the text that *message* shares with others of its kind, after the type; at most 300 characters."""
    plain = " ".join(message[:MAX_LOOK_CHARACTERS].split())
    folded = VARIABLE.sub(_placeholder, plain)
    return f"{error_type}: {folded}"[:MAX_GROUP_CHARACTERS] if folded else error_type[:MAX_GROUP_CHARACTERS]


def _placeholder(match: re.Match[str]) -> str:
    return _url(match[0]) if match.lastgroup == "url" else f"<{match.lastgroup}>"


def _url(url: str) -> str:
    """Return a URL without its query and fragment, and with those parts of its path folded that hold a number or an escape."""
    ending = url[len(url.rstrip(".,;:!?")) :]
    place = re.split(r"[?#]", url.removesuffix(ending) if ending else url, maxsplit=1)[0]
    scheme, _, rest = place.partition("://")
    host, *parts = rest.rpartition("@")[2].split("/")
    return "/".join([f"{scheme}://{host}", *("<n>" if NAMES_ONE.search(part) else part for part in parts)]) + ending
