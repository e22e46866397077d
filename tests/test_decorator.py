from __future__ import annotations

import math

import pytest

import durabatch
from durabatch import decorator
from durabatch.decorator import HandlerSpec, handler, spec_of
from durabatch.errors import UsageError


def test_a_bare_mark_declares_nothing():
    """The function is the same object as before, with an empty spec."""

    def work(item):
        return item

    assert handler(work) is work
    assert spec_of(work) == HandlerSpec()
    assert work(3) == 3


def test_declarations_are_kept_with_the_function():
    """One pattern and several, a number and a text as version: all end up in one form."""

    @handler(max_attempts=3, format="files", include="*.py", version=2)
    def one(item):
        return item

    @handler(include=["*.md", "*.rst"], version="b")
    def two(item):
        return item

    assert spec_of(one) == HandlerSpec(max_attempts=3, format="files", include=("*.py",), version="2")
    assert spec_of(two) == HandlerSpec(include=("*.md", "*.rst"), version="b")


def test_a_function_without_a_mark_has_an_empty_spec():
    """Builtins and objects with an attribute of that name are no exception."""
    odd = type("Odd", (), {decorator.SPEC_ATTRIBUTE: 7})()
    assert [spec_of(thing) for thing in (len, lambda item: item, odd)] == [HandlerSpec()] * 3


@pytest.mark.parametrize(
    "declared",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"format": ""},
        {"format": 3},
        {"version": 1.5},
        {"include": 3},
        {"include": [""]},
        {"include": [1]},
        {"include": b"*.py"},
        {"version": True},
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(declared):
    """The import fails in the line of the decorator; the message names the argument and its value."""
    name = next(iter(declared))
    with pytest.raises(UsageError, match=f"@handler: {name}="):
        handler(**declared)


def test_only_functions_can_be_marked():
    """The usual slip, an argument without its name, is explained; so is a builtin."""
    with pytest.raises(UsageError, match="marks functions, not int"):
        handler(3)
    with pytest.raises(UsageError, match="cannot mark <built-in function sqrt>"):
        handler(math.sqrt)


def test_this_process_is_no_worker():
    """Only a worker sets the flag; and the public name is the decorator itself."""
    assert decorator.in_worker is False
    assert durabatch.handler is handler
