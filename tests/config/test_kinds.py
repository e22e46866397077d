"""How values are written: as text, in a file, in Python."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durabatch.config.keys import SETTINGS, by_field
from durabatch.errors import DurabatchError, UsageError
from durabatch.signatures import LITERAL


def parse(key, text):
    return SETTINGS[key].kind.parse(text, option=SETTINGS[key].flag)


def read(key, value):
    return SETTINGS[key].kind.read(value, option=f"durabatch.toml:1: {key}")


def accept(field, value):
    return by_field()[field].kind.accept(value, name=field)


def refused(call, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("workers", "4", 4),
        ("concurrency", "100", 100),
        ("batch_strategy", "time", "time"),
        ("batch_seconds", "10", 10.0),
        ("batch_seconds", "1m", 60.0),
        ("retries", "0", 1),
        ("retries", "3", 4),
        ("backoff", "250ms", 0.25),
        ("backoff", "0", 0.0),
        ("backoff_factor", "1.5", 1.5),
        ("retry_on", "ConnectionError,requests.Timeout", ("ConnectionError", "requests.Timeout")),
        ("retry_on", "A, B,A", ("A", "B")),
        ("retry_exit", "75,111", (75, 111)),
        ("timeout", "30s", "30s"),
        ("timeout", "200%", "200%"),
        ("item_deadline", "1h30m", 5400.0),
        ("cpu_limit", "10s", 10.0),
        ("memory_limit", "2GiB", 2 << 30),
        ("halt", "now,fail=1", "now,fail=1"),
        ("tolerate", "2.5%", "2.5%"),
        ("budget", "usd=5,tokens=1000000", {"usd": 5.0, "tokens": 1000000.0}),
        ("budget", '{"usd": 0.5}', {"usd": 0.5}),
        ("breaker", "50%,same=10,wait=1m", "50%,same=10,wait=1m"),
        ("rate", "50/m", "50/m"),
        ("memory_threshold", "80%", 0.8),
        ("min_free_disk", "0", 0),
        ("max_load", "1.5", 1.5),
        ("order", "kind", "kind"),
        ("undo_command", "rm -r -- {args.path}", "rm -r -- {args.path}"),
        ("keep_order", "yes", True),
        ("keep_order", "0", False),
        ("include", "*.py,*.pyi", ("*.py", "*.pyi")),
        ("select", "r-1, 7,r-1", ("r-1", "7")),
        ("input", "a, b.csv", ("a, b.csv",)),
        ("param", "limit=10,mark=a=b", {"limit": "10", "mark": "a=b"}),
        ("param", '{"limit": 10, "mark": "10"}', {"limit": 10, "mark": {LITERAL: "10"}}),
        ("preflight", "jobs:check", {"kind": "python", "target": "jobs:check"}),
        ("preflight", "ping -c1 '{}'", {"kind": "command", "argv": ["ping", "-c1", "{}"], "shell": False, "parse": "none"}),
    ],
)
def test_a_text_is_a_value(key, text, value):
    """On a command line and in a variable."""
    assert parse(key, text) == value


def test_params_are_shown_as_they_were_given():
    """The mark that keeps a text a text is ours alone."""
    assert SETTINGS["param"].kind.show(parse("param", '{"limit": 10, "mark": "10"}')) == {"limit": 10, "mark": "10"}


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("select", "a,,b", "--select: a key is empty"),
        ("workers", "0x2", "--workers: '0x2' is not a number of workers. Use 1 to 4096, 'auto' or 'N%'; 0 runs items in this process."),
        ("concurrency", "0", "--concurrency: '0' is not a whole number >= 1. Use 1 to 10,000."),
        ("retries", "-1", "--retries: '-1' is not a whole number >= 0. Use 0 to 1,000,000."),
        ("batch_seconds", "0", "--batch-seconds: 0 leaves no time at all. Leave it out for no limit."),
        ("batch_seconds", "nan", "--batch-seconds: 'nan' is not a duration. Use 30s, 5m, 1h30m."),
        ("backoff_factor", "0.5", "--backoff-factor: '0.5' is not a number from 1 to 100"),
        ("retry_on", "a b", "--retry-on: 'a b' is not the name of an exception. Use ConnectionError, or package.module.Error."),
        ("retry_on", "", "--retry-on: '' is not the name of an exception. Use ConnectionError, or package.module.Error."),
        ("retry_exit", "0", "--retry-exit: '0' is not a whole number >= 1. Use 1 to 255."),
        ("undo_command", "rm {path}", "--undo-command: unknown placeholder {path}. Did you mean 'args.path'? There are {action}, {args.NAME}, {args} and {key}."),
        ("retry_exit", "75,x", "--retry-exit: 'x' is not a whole number >= 1. Use 1 to 255."),
        ("timeout", "5x", "--timeout: '5x' is not a duration. Use 30s, 5m, 1h30m."),
        ("timeout", "0", "--timeout: 0 would end every item at once. Leave it out for no timeout."),
        ("timeout", "50%", "--timeout: '50%' of the median is out of range. Use 110% to 100000%, or a duration such as 30s."),
        ("item_deadline", "0s", "--item-deadline: 0 leaves no time at all. Leave it out for no limit."),
        ("cpu_limit", "500ms", "--cpu-limit: '500ms' is less than 1 s. Use 1s or more."),
        ("memory_limit", "1MiB", "--memory-limit: '1MiB' is out of range. Use 16,777,216 to 1,125,899,906,842,624 bytes."),
        ("halt", "now,fail=", "--halt: 'now,fail=' is not a halt rule. Use now,fail=N, now,fail=N%, soon,fail=N or soon,fail=N%."),
        ("tolerate", "101%", "--tolerate: '101%' is not a number of items or a share. Use N, 0 or more, or N%, up to 100%."),
        ("budget", "usd=5,usd=6", "--budget: 'usd' is given twice. Give each unit once."),
        ("budget", "{usd", "--budget: text '{usd' is no JSON object. Use NAME=VALUE, or a JSON object."),
        ("rate", "50", "--rate: '50' lacks a period. Use 50/1m."),
        ("memory_threshold", "0%", "--memory-threshold: '0%' is not a share. Use 1% to 100%."),
        ("memory_threshold", "8", "--memory-threshold: '8' is not a share. Use 1% to 100%."),
        ("max_load", "inf", "--max-load: 'inf' is not a number from 0.1 to 1000"),
        ("order", "smalest", "--order: 'smalest' is not one of input, smallest, largest, newest, oldest, kind. Did you mean 'smallest'?"),
        ("keep_order", "maybe", "--keep-order: 'maybe' is neither yes nor no. Use true or false."),
        ("priority", "", "--priority: is empty"),
        ("include", "*.py,,", "--include: a pattern is empty"),
        ("preflight", "ping 'x", '--preflight: text "ping \'x" is no command: no closing quotation'),
        ("preflight", " ", "--preflight: is empty. Give module:function, or a command."),
        ("handler", "a.b", "--handler: 'a.b' is not 'module:function' or 'file.py:function'. Did you mean 'a:b'?"),
        ("output", "", "--output: '' is no path"),
    ],
)
def test_a_wrong_text_is_one_sentence_with_the_way_out(key, text, sentence):
    """What, why, and what to write instead."""
    assert refused(parse, key, text) == sentence


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("workers", "many", "expected a number, 'auto' or 'N%', got text 'many'"),
        ("workers", [1], "expected a number, 'auto' or 'N%', got a list"),
        ("workers", 2**63, "'9223372036854775808' is not a number of workers"),
        ("workers", 10**400, "expected a number, 'auto' or 'N%', got a number beyond all bounds"),
        ("workers", float("nan"), "expected a number, 'auto' or 'N%', got the number nan"),
        ("retries", "3", "expected a whole number, got text '3'"),
        ("retries", -1, "'-1' is not a whole number >= 0"),
        ("retries", True, "expected a whole number, got true"),
        ("retries", 1.0, "expected a whole number, got the number 1.0"),
        ("retries", None, "expected a whole number, got nothing"),
        ("backoff_factor", float("nan"), "'nan' is not a number from 1 to 100"),
        ("memory_threshold", float("inf"), "'inf' is not a share"),
        ("timeout", 30, "expected a duration such as '30s', or a percentage, got the number 30"),
        ("backoff", 30, "'30' is not a duration. Use 30s, 5m, 1h30m."),
        ("backoff", datetime.time(1), "expected a duration such as '30s', got a time"),
        ("memory_limit", {}, "expected a size such as '16MiB', got a table"),
        ("keep_order", "yes", "expected true or false, got text 'yes'"),
        ("keep_order", 1, "expected true or false, got the number 1"),
        ("select", [1.5], "expected a list of keys, got the number 1.5"),
        ("retry_on", [1], "expected a list of exception names, got the number 1"),
        ("retry_on", 3, "expected a list of exception names, got the number 3"),
        ("retry_exit", ["75"], "expected a list of exit codes, got text '75'"),
        ("budget", {"usd": "5"}, None),
        ("budget", {"usd": -1}, "'usd=-1' is not UNIT=AMOUNT"),
        ("budget", {"usd": float("nan")}, "'usd=nan' is not UNIT=AMOUNT"),
        ("budget", 5, "expected a table of names and values, got the number 5"),
        ("param", {"a b": 1}, "'a b=' is not NAME=VALUE"),
        ("param", {"a": float("nan")}, "param 'a': "),
        ("name", "", "is empty"),
        ("name", "x" * 5000, "is longer than 4,096"),
        ("name", "a\0b", "holds a NUL character"),
        ("name", 3, "expected a text, got the number 3"),
        ("name", "x" * 100, None),
        ("handler", 3, "expected a text 'module:function', got the number 3"),
    ],
)
def test_a_wrong_value_in_a_file_names_what_is_expected(key, value, expected):
    """Types are kept apart: a text that looks like a number is none, true is no 1."""
    if expected is None:
        read(key, value)
    else:
        assert f"durabatch.toml:1: {key}: {expected}" in refused(read, key, value)


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("workers", 0, 0),
        ("max_attempts", 3, 3),
        ("timeout", 30, "30s"),
        ("timeout", 0.25, "250ms"),
        ("timeout", "200%", "200%"),
        ("timeout", datetime.timedelta(minutes=5), "5m"),
        ("backoff_s", 0, 0),
        ("backoff_s", "5s", 5.0),
        ("item_deadline_s", datetime.timedelta(hours=1), 3600.0),
        ("memory_limit_bytes", "2GiB", 2 << 30),
        ("memory_limit_bytes", 1 << 30, 1 << 30),
        ("memory_threshold", 0.9, 0.9),
        ("max_load", 2, 2.0),
        ("tolerate", 5, "5"),
        ("retry_on", [ConnectionError, "requests.Timeout", json.JSONDecodeError],
         ("ConnectionError", "requests.Timeout", "json.decoder.JSONDecodeError")),
        ("retry_on", ConnectionError, ("ConnectionError",)),
        ("give_up_on", "ValueError", ("ValueError",)),
        ("retry_exit", 75, (75,)),
        ("retry_exit", (75, 111), (75, 111)),
        ("budget", {"usd": 5, "tokens": 1.5e6}, {"usd": 5.0, "tokens": 1_500_000.0}),
        ("keep_order", True, True),
        ("preflight", "jobs:check", {"kind": "python", "target": "jobs:check"}),
        ("preflight", json.loads, {"kind": "python", "target": "json:loads"}),
        ("params", {"limit": 3}, {"limit": 3}),
    ],
)  # fmt: skip
def test_python_gives_numbers_texts_and_classes(field, value, stored):
    """What reads well in a program is accepted, and stored as the command line would."""
    assert accept(field, value) == stored


def test_an_output_may_be_a_path_object(tmp_path, monkeypatch):
    """It is kept absolute: a resume may be started elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert accept("output", Path("out")) == accept("output", "out") == parse("output", "out") == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("workers", "2", "workers='2' is not a whole number from 0 to 4,096"),
        ("drain_s", float("nan"), "drain_s=nan is not a number of seconds, 0 or more"),
        ("drain_s", True, "drain_s=True is not a number of seconds, 0 or more"),
        ("deadline_s", 0, "deadline_s=0 is not a number of seconds, above 0"),
        ("cpu_limit_s", 0.5, "cpu_limit_s=0.5 is not a number of seconds, above 0"),
        ("timeout", 0, "timeout=0 is not a number of seconds, above 0"),
        ("timeout", [1], "timeout=[1] is not a number of seconds, above 0"),
        ("memory_limit_bytes", 5, "memory_limit_bytes=5 is not a whole number from 16,777,216 to 1,125,899,906,842,624"),
        ("retry_on", [int], "retry_on: expected a list of exception names, got a value of type type"),
        ("budget", ["usd"], "budget=['usd'] is not a mapping of names to values"),
        ("keep_order", 1, "keep_order: expected true or false, got the number 1"),
        ("preflight", 3, "preflight: expected a text 'module:function', or a command, got the number 3"),
        ("preflight", lambda item: True, "preflight: '<lambda>' has no importable name. Put the check into a module."),
    ],
)
def test_a_wrong_value_in_python_is_one_sentence(field, value, sentence):
    """The name as the caller wrote it, the value, and what it should be."""
    assert refused(accept, field, value) == sentence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(SETTINGS)), JSON)
def test_any_value_in_a_file_is_a_value_or_a_refusal(key, value):
    """No file ends in a traceback, whatever its values are."""
    try:
        found = read(key, value)
    except DurabatchError as error:
        assert error.exit_code == 2
    else:
        json.dumps(SETTINGS[key].kind.show(found))


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=12))
def test_any_text_is_a_value_or_a_refusal(key, text):
    """No flag and no variable ends in a traceback."""
    try:
        parse(key, text)
    except DurabatchError as error:
        assert error.exit_code == 2
        assert str(error).startswith(SETTINGS[key].flag) or key in {"param", "preflight"}


@given(st.sampled_from(sorted(by_field())), JSON)
def test_any_value_of_a_program_is_a_value_or_a_refusal(field, value):
    """No call ends in another error than ours."""
    try:
        accept(field, value)
    except DurabatchError as error:
        assert error.exit_code in {1, 2}
