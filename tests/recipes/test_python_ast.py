"""The recipe that measures a tree of Python files."""

from __future__ import annotations

import ast
import json
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import durabatch
from durabatch.recipes.python_ast import analyse, measure


def measured(source: str) -> dict:
    return measure(textwrap.dedent(source).encode())


def item(path: Path) -> dict:
    return {"path": str(path), "bytes": path.stat().st_size, "mtime": path.stat().st_mtime}


def levels(node: ast.AST) -> int:
    return 1 + max((levels(child) for child in ast.iter_child_nodes(node)), default=0)


def test_nodes_and_depth_agree_with_ast_walk_on_real_files():
    """Counts and depth are what the standard library's own walk finds, for modules of every style."""
    for module in (ast, json, textwrap, durabatch):
        source = Path(module.__file__).read_bytes()
        tree = ast.parse(source)
        value = measure(source)
        kinds = Counter(type(node).__name__ for node in ast.walk(tree))
        assert value["nodes"] == kinds
        assert value["node_count"] == kinds.total()
        assert value["max_depth"] == levels(tree)
        assert value["functions"] == len(value["complexity"]) == kinds["FunctionDef"] + kinds["AsyncFunctionDef"]


def test_analyse_reads_the_file_of_the_item(tmp_path):
    """The value of a file item holds its size, its lines with or without a final newline, and its definitions."""
    path = tmp_path / "small.py"
    path.write_bytes(b"class A:\n    def m(self): ...\n\n\nasync def f(): ...")
    value = analyse(item(path))
    assert (value["bytes"], value["lines"], value["functions"], value["classes"]) == (path.stat().st_size, 5, 2, 1)
    assert value["complexity"] == {"A.m": 1, "f": 1}


def test_an_empty_file_is_a_module_and_nothing_else(tmp_path):
    """A file of no bytes has no lines, one node and one level."""
    path = tmp_path / "__init__.py"
    path.touch()
    value = analyse(item(path))
    assert value == {
        "bytes": 0,
        "lines": 0,
        "node_count": 1,
        "nodes": {"Module": 1},
        "functions": 0,
        "classes": 0,
        "imports": [],
        "max_depth": 1,
        "complexity": {},
    }


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("return 1", 1),
        ("if x: pass\nelif y: pass\nelse: pass", 3),
        ("return 1 if x else 2", 2),
        ("for i in x:\n    while i: pass", 3),
        ("return x and y and z or w", 4),
        ("return [i for i in x if i if y]", 4),
        ("try: pass\nexcept A: pass\nexcept B: pass\nfinally: pass", 3),
        ("match x:\n    case 1: pass\n    case _: pass", 3),
        ("assert x", 2),
        ("with x: pass", 1),
        ("return lambda: x or y", 2),
        ("class C:\n    if x: pass", 2),
        ("def g():\n    if x: pass", 1),
    ],
)
def test_complexity_is_one_more_than_the_branches(body, paths):
    """Each branch opens one path; what stands in a function inside counts there, in a class or lambda inside it counts here."""
    assert measured(f"def f():\n{textwrap.indent(body, '    ')}")["complexity"]["f"] == paths


def test_names_are_qualified_as_python_qualifies_them_in_the_order_of_the_source():
    """Methods, local functions, local classes and definitions made twice can be told apart."""
    value = measured(
        """
        def deep():
            def inner():
                class K:
                    def m(self): ...
        class A:
            @property
            def p(self): ...
            @p.setter
            def p(self, value):
                if value: ...
        def last(): ...
        """
    )
    assert list(value["complexity"].items()) == [
        ("deep", 1),
        ("deep.<locals>.inner", 1),
        ("deep.<locals>.inner.<locals>.K.m", 1),
        ("A.p", 1),
        ("A.p#2", 2),
        ("last", 1),
    ]


def test_imports_are_the_modules_named_once_each_and_sorted():
    """Relative imports keep their dots, also those that name no module; imports inside functions count."""
    source = "import os, a.b as c\nfrom x import y\nfrom . import z\nfrom ..up import v\ndef f():\n    import os\n    import zlib"
    assert measured(source)["imports"] == [".", "..up", "a.b", "os", "x", "zlib"]


@pytest.mark.parametrize(
    "source",
    [b"# -*- coding: latin-1 -*-\ncaf\xe9 = 1\n", b"\xef\xbb\xbfcaf\xc3\xa9 = 1\n", "café = 1\r\n".encode()],
    ids=["coding line", "byte order mark", "utf-8"],
)
def test_source_is_decoded_as_python_decodes_it(source):
    """A coding line and a byte order mark are honoured, everything else is UTF-8."""
    assert measure(source)["nodes"]["Assign"] == 1


@pytest.mark.parametrize(
    ("source", "line"),
    [(b"x = 1\ndef f(:\n", 2), (b"if x:\npass\n", 2), (b"a = 1\n\nb = (\n", 3)],
    ids=["syntax", "indentation", "never closed"],
)
def test_a_file_that_does_not_parse_raises_with_its_name_and_line(tmp_path, source, line):
    """The item fails with an error that a person can follow to the place."""
    path = tmp_path / "broken.py"
    path.write_bytes(source)
    with pytest.raises(SyntaxError, match=rf"broken\.py, line {line}"):
        analyse(item(path))


@pytest.mark.parametrize("source", [b"caf\xe9 = 1\n", b"a\0b", b"# coding: klingon\n"], ids=["bytes", "zero byte", "unknown coding"])
def test_bytes_that_are_no_text_raise(source):
    """What Python would not read as source is an error, never an empty measure."""
    with pytest.raises((SyntaxError, ValueError)):
        measure(source)


def test_an_invalid_escape_is_measured_without_a_warning(recwarn):
    """A file with a doubtful escape is measured like any other, and nothing is written to stderr for it."""
    assert measure(b"x = '\\d'\n")["nodes"]["Assign"] == 1
    assert not recwarn.list


def test_the_value_is_json_and_the_same_each_time():
    """Keys and order do not depend on hashes, so that equal files have equal values, byte for byte."""
    source = Path(ast.__file__).read_bytes()
    assert json.dumps(measure(source)) == json.dumps(measure(source))


def test_analyse_declares_what_it_eats():
    """A directory as input gives one item per .py file, without further options."""
    from durabatch.decorator import spec_of

    assert (spec_of(analyse).format, spec_of(analyse).include) == ("files", ("*.py",))
