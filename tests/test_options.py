from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durabatch import options
from durabatch.errors import UsageError

fast = settings(max_examples=100, deadline=None)


def refusal(function, text, **settings):
    with pytest.raises(UsageError) as caught:
        function(text, **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800), ("1w", 604800), ("500us", 0.0005), ("0", 0), ("0s", 0)],
)
def test_a_duration_is_seconds(text, seconds):
    """Every unit counts, alone and in a row."""
    assert options.parse_duration(text, option="--backoff") == seconds


@pytest.mark.parametrize("text", ["5x", "-3s", "nan", "1e400", "", "30", "s", "1.s", ".5s", "1 s", "٣s", "inf", "1h30"])
def test_a_text_that_is_no_duration_is_refused_with_examples(text):
    """The message shows the option, the text and what to write."""
    assert refusal(options.parse_timeout, text) == f"--timeout: {text!r} is not a duration. Use 30s, 5m, 1h30m."


def test_a_duration_has_an_end():
    """Sums of an instant and a duration stay dates."""
    assert options.parse_duration("3650d", option="--backoff") == options.MAX_DURATION_S
    for text in ("3651d", "9" * 400 + "s"):
        assert "is longer than ten years" in refusal(options.parse_duration, text, option="--backoff")


def test_a_timeout_of_nothing_is_refused():
    """It would end every item at once."""
    for text in ("0", "0s", "0h0m"):
        assert refusal(options.parse_timeout, text) == "--timeout: 0 would end every item at once. Leave it out for no timeout."
    assert options.parse_timeout("1ms") == 0.001


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("64kB", 64_000),
        ("64k", 64_000),
        ("64Ki", 65536),
        ("4096", 4096),
        ("4096B", 4096),
        ("1 GiB", 1 << 30),
        ("1TB", 10**12),
        ("1mib", 1 << 20),
        ("1125899906842624", 1 << 50),
    ],
)
def test_a_size_is_bytes(text, size):
    """Units with an i count in 1,024s, the others in 1,000s."""
    assert options.parse_size(text, option="--max-item-bytes") == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1.5B", "1e9", "nan", "1PiBs", "MiB", "1,000", "0x10"])
def test_a_text_that_is_no_size_is_refused_with_examples(text):
    """The message shows the option, the text and what to write."""
    assert refusal(options.parse_size, text, option="--max-item-bytes") == (
        f"--max-item-bytes: {text!r} is not a size. Use 64KiB, 512MiB, 2GiB."
    )


def test_a_size_out_of_range_is_refused_with_the_range():
    """Both ends are named."""
    for text in ("0", "1025TiB", "9" * 400, "2TiB"):
        assert refusal(options.parse_size, text, option="--x", maximum=1 << 40) == (
            f"--x: {text!r} is out of range. Use 1 to 1,099,511,627,776 bytes."
        )


def test_workers_follow_the_cores_this_process_may_use(monkeypatch):
    """A share is rounded down but never to nothing; a container's limits count, not the machine's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert options.usable_cores() == 6
    read = {text: options.parse_workers(text) for text in ("4", "50%", "1%", "100%", "200%", "auto", "0", "4096", "33.4%")}
    assert read == {"4": 4, "50%": 3, "1%": 1, "100%": 6, "200%": 12, "auto": 6, "0": 0, "4096": 4096, "33.4%": 2}


def test_usable_cores_fall_back_to_all_of_them(monkeypatch):
    """Where the system has no such thing as affinity, the machine's cores count."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert options.usable_cores() == 1


@pytest.mark.parametrize("text", ["-1", "abc", "1e9", "", "4097", "1.5", "0%", "-5%", "999999%", "%", "nan%", "9" * 400])
def test_a_text_that_is_no_number_of_workers_is_refused(text):
    """The message shows all the forms there are."""
    assert refusal(options.parse_workers, text) == (
        f"--workers: {text!r} is not a number of workers. Use 1 to 4096, 'auto' or 'N%'; 0 runs items in this process."
    )


def test_a_count_is_a_whole_number_in_its_range():
    """Signs, fractions and words are refused, and so is what lies outside."""
    assert [options.parse_count(text, option="--retries") for text in ("0", "7", "+7", "2147483647")] == [0, 7, 7, 2**31 - 1]
    for text in ("-1", "1.5", "", "x", "1_000", "١", "1e3", "9" * 5000):
        assert refusal(options.parse_count, text, option="--retries").startswith(
            f"--retries: {text!r} is not a whole number >= 0. Use 0 to"
        )
    assert refusal(options.parse_count, "0", option="--batch-size", minimum=1, maximum=1_000_000) == (
        "--batch-size: '0' is not a whole number >= 1. Use 1 to 1,000,000."
    )
    assert refusal(options.parse_count, "1000000000000", option="--batch-size", minimum=1, maximum=1_000_000) == (
        "--batch-size: '1000000000000' is more than 1,000,000. Use 1 to 1,000,000."
    )


def test_params_keep_their_text_and_their_order():
    """The value is everything behind the first equals sign."""
    assert options.parse_params(["b=1", "a=x=y", "c=", "größe=ä"]) == {"b": "1", "a": "x=y", "c": "", "größe": "ä"}
    assert list(options.parse_params(["b=1", "a=2"])) == ["b", "a"]


@pytest.mark.parametrize("text", ["A", "=1", "a b=1", "1a=1", "a\0=1", "", "a-b=1"])
def test_a_param_without_a_name_or_a_value_is_refused(text):
    """The message says which form is wanted."""
    assert f"--param: {text!r} is not NAME=VALUE." in refusal(options.parse_param, text)


def test_a_param_given_twice_or_with_nul_is_refused():
    """Neither the first nor the last silently wins."""
    assert refusal(options.parse_params, ["a=1", "a=2"]) == "--param: 'a' is given twice. Give each name once."
    assert "NUL" in refusal(options.parse_param, "a=\0")


@fast
@given(st.text(max_size=12))
def test_any_text_gives_a_value_or_a_usage_error(text):
    """No option ends in a traceback, whatever is typed."""
    for parse in (options.parse_timeout, options.parse_workers, options.parse_param):
        try:
            parse(text)
        except UsageError as error:
            assert error.exit_code == 2
    for parse in (options.parse_size, options.parse_count, options.parse_duration):
        try:
            parse(text, option="--x")
        except UsageError as error:
            assert error.what.startswith("--x: ")


def test_a_deadline_leaves_some_time():
    """Nothing, and less than can be kept, are refused."""
    assert options.parse_deadline("1h", option="--deadline") == 3600
    assert refusal(options.parse_deadline, "0", option="--deadline") == "--deadline: 0 leaves no time at all. Leave it out for no limit."
    assert (
        refusal(options.parse_deadline, "1ms", option="--cpu-limit", minimum_s=1) == "--cpu-limit: '1ms' is less than 1 s. Use 1s or more."
    )


def test_seconds_may_be_a_plain_number():
    """Where the name of the option says the unit."""
    assert [options.parse_seconds(text, option="--x") for text in ("10", "2.5", "1m")] == [10, 2.5, 60]
    assert "is not a duration" in refusal(options.parse_seconds, "1e3", option="--x")


def test_a_share_is_a_percentage_or_a_fraction():
    """Above nothing, up to all."""
    assert [options.parse_share(text, option="--x") for text in ("80%", "0.8", "1", "100%")] == [0.8, 0.8, 1, 1]
    for text in ("0", "0%", "80", "101%", "-1%", "x", "", "nan"):
        assert refusal(options.parse_share, text, option="--x") == f"--x: {text!r} is not a share. Use 1% to 100%."


def test_a_number_has_bounds_and_may_have_a_fraction():
    """Signs, exponents and words are none."""
    assert options.parse_number("1.5", option="--x", minimum=1, maximum=2) == 1.5
    for text in ("0.9", "2.1", "-1", "1e0", "inf", "", "x", "9" * 400):
        assert refusal(options.parse_number, text, option="--x", minimum=1, maximum=2) == f"--x: {text!r} is not a number from 1 to 2"


def test_a_switch_has_the_words_people_use():
    """In any case of letters."""
    assert [options.parse_switch(text, option="--x") for text in ("1", "TRUE", "yes", "On", "0", "False", "no", "off")] == [True] * 4 + [
        False
    ] * 4
    for text in ("", "2", "y", "maybe"):
        assert refusal(options.parse_switch, text, option="--x") == f"--x: {text!r} is neither yes nor no. Use true or false."


def test_names_and_codes_are_kept_once_and_in_order():
    """What is no name or no exit code is refused."""
    assert options.parse_names(["B", "a.C", "B"], option="--x") == ("B", "a.C")
    assert options.parse_codes(["111", "75", "111"], option="--x") == (111, 75)
    for text in ("", "a b", "a..b", ".a", "1a", "a:b"):
        assert f"--x: {text!r} is not the name of an exception" in refusal(options.parse_names, [text], option="--x")
    for text in ("0", "256", "-1", "x", ""):
        assert refusal(options.parse_codes, [text], option="--x").startswith(f"--x: {text!r} is ")


@fast
@given(st.integers(0, options.MAX_SIZE_BYTES))
def test_a_size_shown_is_the_size_read(size):
    """In the largest unit that leaves a whole number."""
    assert options.parse_size(options.shown_size(size), option="--x", minimum=0) == size
    assert options.shown_size(16 << 20) == "16MiB"


def test_the_nearest_name_is_offered():
    """Only when one is near."""
    assert options.did_you_mean("retires", ["retries", "rate"]) == "Did you mean 'retries'?"
    assert options.did_you_mean("zzz", ["retries", "rate"]) == ""
    assert options.nearest("zzz", []) is None
