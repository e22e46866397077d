"""What settings name: exceptions of retries, and what a handler declares about itself."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from durabatch.config.declaring import FIELDS, declared_fields
from durabatch.config.exception_names import OWN_NAMES, settled
from durabatch.config.keys import by_field
from durabatch.decorator import HandlerSpec, handler, spec_of
from durabatch.errors import UsageError
from durabatch.importing import import_target
from durabatch.settings import RunSettings

HANDLERS = """
from json import JSONDecodeError


class ApiError(Exception):
    class Inner(Exception):
        pass


def work(item):
    return item


NotAnError = 3
"""


@pytest.fixture
def jobs(here, monkeypatch):
    """Give the reference of a handler in a file."""
    (here / "h3jobs.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(here))
    yield {"kind": "python", "target": "h3jobs:work"}
    sys.modules.pop("h3jobs", None)


def names(reference, *wanted):
    return settled(RunSettings(retry_on=wanted), reference).retry_on


def refused(reference, **wanted) -> str:
    with pytest.raises(UsageError) as caught:
        settled(RunSettings(**wanted), reference)
    return str(caught.value)


def test_names_become_those_that_failures_carry(jobs):
    """Built-in ones as they are; others by the module that defines them, wherever they were found."""
    wanted = (
        "ConnectionError",
        "ApiError",
        "JSONDecodeError",
        "json.JSONDecodeError",
        "h3jobs.ApiError",
        "h3jobs.ApiError.Inner",
        *OWN_NAMES,
    )
    assert names(jobs, *wanted) == (
        "ConnectionError",
        "h3jobs.ApiError",
        "json.decoder.JSONDecodeError",
        "h3jobs.ApiError.Inner",
        *OWN_NAMES,
    )


def test_settled_names_stay_as_they_are(jobs):
    """A resume may check them again."""
    once = settled(RunSettings(retry_on=("ApiError",), give_up_on=("ValueError", "ResultError")), jobs)
    assert settled(once, jobs) == once


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ConectionError", "--retry-on: there is no exception 'ConectionError'. Did you mean 'ConnectionError'?"),
        ("ApiEror", "--retry-on: there is no exception 'ApiEror'. Did you mean 'ApiError'?"),
        (
            "Zzz",
            "--retry-on: there is no exception 'Zzz'. Give a built-in one, one that the handler's module has, or package.module.Error.",
        ),
        ("int", "--retry-on: there is no exception 'int'."),
        ("NotAnError", "--retry-on: there is no exception 'NotAnError'."),
        ("json.loads", "--retry-on: 'json.loads' is no exception class."),
        (
            "json.JSONDecodeEror",
            "--retry-on: there is no exception 'json.JSONDecodeEror': json has no 'JSONDecodeEror'. Did you mean 'JSONDecodeError'?",
        ),
        ("nowhere.Error", "--retry-on: there is no exception 'nowhere.Error': cannot import nowhere: no module 'nowhere'"),
    ],
)
def test_a_name_that_no_exception_has_is_refused(name, sentence, jobs):
    """Before the run starts: it would never match, silently."""
    assert refused(jobs, retry_on=(name,)).startswith(sentence)


def test_the_option_that_is_wrong_is_named(jobs):
    """Both are checked."""
    assert refused(jobs, retry_on=("ValueError",), give_up_on=("Valueerror",)).startswith(
        "--give-up-on: there is no exception 'Valueerror'"
    )


def test_a_command_has_no_module_to_look_in():
    """Built-in names, dotted ones and those of durabatch are known all the same."""
    command = {"kind": "command", "argv": ["true"], "shell": False, "parse": "none"}
    assert names(command, "CommandError", "TimeoutError") == ("CommandError", "TimeoutError")
    assert "there is no exception 'ApiError'" in refused(command, retry_on=("ApiError",))


def test_a_function_at_hand_is_not_imported_again():
    """Its module is where its exceptions are."""
    assert settled(RunSettings(retry_on=("JSONDecodeError",)), None, json.loads).retry_on == ("json.decoder.JSONDecodeError",)


def test_without_names_nothing_is_imported():
    """The usual case costs nothing."""
    assert settled(RunSettings(), {"kind": "python", "target": "nowhere:work"}) == RunSettings()


def check(item):
    return True


def test_a_handler_declares_settings_in_its_own_words():
    """What it leaves open is left out."""

    @handler(
        max_attempts=3, timeout=30, backoff="2s", retry_on=[ConnectionError], give_up_on="ValueError", concurrency=4, preflight="jobs:check"
    )
    def work(item):
        return item

    assert declared_fields(spec_of(work)) == {
        "max_attempts": 3,
        "timeout": "30s",
        "backoff_s": 2.0,
        "retry_on": ("ConnectionError",),
        "give_up_on": ("ValueError",),
        "concurrency": 4,
        "preflight": {"kind": "python", "target": "jobs:check"},
    }
    assert declared_fields(HandlerSpec()) == {}


def test_a_declared_check_is_found_by_its_name():
    """A function becomes the reference by which workers find it; one without an importable name is refused."""
    found = declared_fields(HandlerSpec(preflight=check))["preflight"]
    assert import_target(found["target"]) is check
    with pytest.raises(UsageError, match=r"@handler: preflight: '.*<lambda>' has no importable name\. Put the check into a module\."):
        declared_fields(HandlerSpec(preflight=lambda item: True))


def test_every_declaration_is_a_setting():
    """The names of the handler's settings are fields of the settings of a run."""
    assert set(FIELDS) <= {one.name for one in dataclasses.fields(HandlerSpec)}
    assert set(FIELDS.values()) <= set(by_field())
