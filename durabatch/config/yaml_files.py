"""
YAML: read with the line of every key, with the package of the extra ``yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from durabatch.config.toml_files import Lines, Place, first_lines
from durabatch.errors import UsageError

__all__ = ["parse_yaml"]

#: Keys are looked into so far: ``profile``, the name of a profile, its settings, and the names in their tables.
DEPTH = 4


def parse_yaml(text: str, shown: str) -> tuple[dict[str, Any], Lines]:
    """
    Return the values of a YAML file, and where its keys stand.

    Raises:
        UsageError: It is no YAML, a key stands twice, or the package that reads YAML is not there.
    """
    try:
        import yaml
    except ImportError as error:
        raise UsageError(
            f"{shown}: the package that reads YAML is missing", "pip install 'durabatch[yaml]', or use durabatch.toml."
        ) from error
    try:
        refuse_aliases(yaml.scan(text, Loader=yaml.SafeLoader), shown)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        lines = first_lines(places(loader, node, (), shown))
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(f"{shown}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UsageError(f"{shown}:{line}: a character that YAML does not allow (U+{ord(text[error.position]):04X})") from error
    except RecursionError as error:
        raise UsageError(f"{shown}: values are nested too deeply") from error
    if not isinstance(values, dict):
        raise UsageError(f"{shown}:1: expected keys with values")
    return values, lines


def refuse_aliases(pieces: Iterable[Any], shown: str) -> None:
    """Refuse values that stand for other values: a few lines of them can stand for more than fits into memory."""
    for piece in pieces:
        if piece.id == "<alias>":
            raise UsageError(f"{shown}:{piece.start_mark.line + 1}: aliases (*{piece.value}) are not read", "Write the value out.")


def places(loader: Any, node: Any, above: tuple[str, ...], shown: str) -> Iterator[Place]:
    """Yield the path of every key below *node*, with its line; UsageError when one stands twice."""
    if node.id != "mapping" or len(above) >= DEPTH:
        return
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        name, line = str(key_node.value), key_node.start_mark.line + 1
        if name in seen:
            raise UsageError(f"{shown}:{line}: {name!r} stands here and on line {seen[name]}")
        seen[name] = line
        yield (*above, name), line
        yield from places(loader, value_node, (*above, name), shown)
