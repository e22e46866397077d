from __future__ import annotations

import datetime
import math

import pytest

import durabatch
from durabatch import decorator
from durabatch.config.declaring import declared_fields
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


class OddError(Exception):
    """An exception with a module."""


def test_limits_are_kept_in_the_form_of_options():
    """Seconds and timedeltas become the text that an option takes; exception classes become the names that failures carry."""
    inner = type("InnerError", (Exception,), {"__module__": "__main__"})
    spec = spec_of(
        handler(
            timeout=datetime.timedelta(minutes=2), backoff=0.5, retry_on=[ConnectionError, OddError, "x.Y"], give_up_on=inner, concurrency=8
        )(lambda item: item)
    )
    assert (spec.timeout, spec.backoff, spec.concurrency) == ("2m", "500ms", 8)
    assert spec.retry_on == ("ConnectionError", f"{__name__}.OddError", "x.Y")
    assert spec.give_up_on == ("InnerError",)
    assert [spec_of(handler(timeout=value)(lambda item: item)).timeout for value in ("200%", "1m30s", 30)] == ["200%", "1m30s", "30s"]
    assert spec_of(handler(backoff=0)(lambda item: item)).backoff == "0"


def test_declarations_fit_the_settings():
    """Whatever form a limit is declared in, the settings of a run accept it."""

    @handler(max_attempts=3, timeout=30, backoff="2s", retry_on=OddError, concurrency=4)
    def work(item):
        return item

    fields = declared_fields(spec_of(work))
    assert (fields["max_attempts"], fields["timeout"], fields["backoff_s"], fields["concurrency"]) == (3, "30s", 2.0, 4)
    assert fields["retry_on"] == (f"{__name__}.OddError",)


def test_what_belongs_to_a_worker_is_kept_as_it_is():
    """Functions for set-up, tear-down, resources and the check stay functions."""
    spec = spec_of(handler(setup=dict, teardown=print, resources={"a": list}, preflight="jobs:check")(lambda item: item))
    assert (spec.setup, spec.teardown, spec.resources, spec.preflight) == (dict, print, {"a": list}, "jobs:check")
    assert spec_of(handler(preflight=len)(lambda item: item)).preflight is len


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
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": [1]},
        {"backoff": -1},
        {"retry_on": 5},
        {"retry_on": [int]},
        {"give_up_on": []},
        {"concurrency": 0},
        {"concurrency": 10_001},
        {"setup": 3},
        {"teardown": "close"},
        {"resources": [dict]},
        {"resources": {"a": 1}},
        {"resources": {"": dict}},
        {"preflight": 3},
        {"preflight": ""},
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(declared):
    """The import fails in the line of the decorator; the message names the argument and its value."""
    name = next(iter(declared))
    with pytest.raises(UsageError, match=f"@handler: {name}="):
        handler(**declared)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"timeout": "5x"}, "@handler: timeout: '5x' is not a duration"),
        ({"timeout": 0}, "@handler: timeout: 0 would end every item at once"),
        ({"timeout": "50%"}, "@handler: timeout: '50%' of the median is out of range"),
        ({"backoff": "5x"}, "@handler: backoff: '5x' is not a duration"),
        ({"setup": dict, "resources": {"default": dict}}, "make the same resource"),
    ],
)
def test_a_declaration_of_another_form_is_refused_as_the_option_is(declared, words):
    """The words are those of the command line."""
    with pytest.raises(UsageError, match=words):
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
