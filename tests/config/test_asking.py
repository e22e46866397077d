"""Settings as Python callers give them, down to the request."""

from __future__ import annotations

import datetime

import pytest

import durabatch
from durabatch.errors import UsageError
from durabatch.options import usable_cores
from durabatch.runner.asking import ask, ask_again
from durabatch.settings import RunSettings


class ApiError(Exception):
    """An error of the handler's module."""


@durabatch.handler(max_attempts=3, timeout="30s", retry_on=[ApiError], give_up_on=ValueError)
def careful(item):
    return item


def plain(item):
    return item


def settings_of(handler, **settings) -> RunSettings:
    return ask(handler, ["a"], key=None, settings=settings, ledger="x.db").settings


def refused(handler, **settings) -> str:
    with pytest.raises(UsageError) as caught:
        settings_of(handler, **settings)
    return str(caught.value)


def test_numbers_texts_classes_and_functions_become_settings(here):
    """What a program has at hand is what it gives."""
    found = settings_of(
        plain, workers=2, timeout=30, backoff_s=datetime.timedelta(seconds=2), memory_limit_bytes="2GiB", retry_on=[ApiError, ConnectionError],
        budget={"usd": 5}, halt="soon,fail=10%", tolerate=3, preflight=plain, keep_order=True, output=here / "out", rate=None,
    )  # fmt: skip
    assert found == RunSettings(
        workers=2, timeout="30s", backoff_s=2.0, memory_limit_bytes=2 << 30, retry_on=(f"{__name__}.ApiError", "ConnectionError"), budget={"usd": 5.0},
        halt="soon,fail=10%", tolerate="3", preflight=found.preflight, keep_order=True, output=str(here / "out"),
    )  # fmt: skip
    assert found.preflight["target"].endswith(":plain")


def test_the_caller_counts_more_than_the_handler_and_that_more_than_the_defaults(here):
    """Files and variables do not count at all: what a program does is written in the program."""
    (here / "durabatch.toml").write_text("retries = 9\n")
    found = settings_of(careful, timeout="1m")
    assert (found.timeout, found.max_attempts, found.workers) == ("1m", 3, usable_cores())
    assert (found.retry_on, found.give_up_on) == ((f"{__name__}.ApiError",), ("ValueError",))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"timeout": "5x"}, "timeout: '5x' is not a duration. Use 30s, 5m, 1h30m."),
        ({"retries": 3}, "unknown setting 'retries'. In Python --retries is max_attempts."),
        ({"memory_limit": 3}, "unknown setting 'memory_limit'. In Python --memory-limit is memory_limit_bytes."),
        ({"timeuot": 3}, "unknown setting 'timeuot'. Did you mean 'timeout'?"),
        ({"fresh_": 3}, "unknown setting 'fresh_'. There are: workers, concurrency, "),
        ({"batch_strategy": "fix"}, "batch_strategy: 'fix' is not one of bytes, fixed, memory, time. Did you mean 'fixed'?"),
        ({"retry_on": "ApiEror"}, "retry_on: there is no exception 'ApiEror'. Did you mean 'ApiError'?"),
        ({"halt": "now"}, "halt: 'now' is not a halt rule. Use now,fail=N"),
        ({"order": "size"}, "order: 'size' is not one of input, smallest, largest, newest, oldest, kind"),
        ({"preflight": lambda item: True}, "preflight: '<lambda>' has no importable name. Put the check into a module."),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(settings, sentence, here):
    """By the name that the caller used."""
    assert refused(plain, **settings).startswith(sentence)
    assert list(here.iterdir()) == []


def test_a_call_on_a_run_on_record_gives_only_what_it_says(here):
    """The rest stays as recorded."""
    asked = ask_again("resume", None, {"timeout": 10, "workers": None}, ledger="x.db", run_id=1)
    assert asked.overrides == {"timeout": "10s"}
