"""Where a value comes from, and what counts more."""

from __future__ import annotations

import pytest

from durabatch.config.resolving import resolve
from durabatch.errors import UsageError
from durabatch.options import usable_cores

#: One setting, from the most important source to the least, as it is set there and as it is shown.
SOURCES = ("--retries", "DURABATCH_RETRIES", "durabatch.toml:4 (night)", "~/.config/durabatch/config.toml:3 (night)", "durabatch.toml:1",
           "pyproject.toml:2", "durabatch.yaml:1", "~/.config/durabatch/config.toml:1", "@handler", "default")  # fmt: skip


@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_the_more_important_source_wins(first, toml, own_file, monkeypatch):
    """Flags, variables, the chosen profile, the project's files in their order, the user's own, the handler, the default."""
    value = {source: number for number, source in enumerate(SOURCES, 1) if number > first}
    get = lambda index: value.get(SOURCES[index])
    line = lambda index: f"retries = {get(index)}\n" if get(index) else "\n"
    if get(1):
        monkeypatch.setenv("DURABATCH_RETRIES", str(get(1)))
    toml(f"{line(4)}\n[profile.night]\n{line(2)}")
    toml(f"[tool.durabatch]\n{line(5)}", "pyproject.toml")
    toml(f"retries: {get(6)}\n" if get(6) else "", "durabatch.yaml")
    own_file(f"{line(7)}[profile.night]\n{line(3)}")
    wishes = resolve({"profile": "night", **({"retries": get(0)} if get(0) else {})})
    wishes = wishes.with_declared({"max_attempts": get(8)} if get(8) else {}, "@handler")
    assert wishes.source("retries") == SOURCES[first]
    given_as_attempts = first in (0, 8, 9)
    assert wishes["retries"] == (1 if first == 9 else first + 1 if given_as_attempts else first + 2)


def test_without_any_source_all_is_at_its_default(here):
    """Nothing is found, and each setting has a value all the same."""
    wishes = resolve({})
    assert wishes.found == {}
    assert (wishes["workers"], wishes["batch_size"], wishes["retries"], wishes["timeout"]) == (usable_cores(), 100, 1, None)
    assert (wishes["ledger"], wishes["progress"], wishes.fields()) == ("durabatch.db", "auto", {})


def test_a_value_may_be_turned_back(toml):
    """A flag says no where a file says yes."""
    toml("keep_order = true\nfresh = true\n")
    assert resolve({})["fresh"] is True
    assert resolve({"keep_order": False}).fields() == {"keep_order": False}


def test_tables_are_joined_by_name(toml, own_file, monkeypatch):
    """A limit of the user's own file stays when the project sets another; the same name is overridden."""
    own_file("budget = { usd = 1, tokens = 2 }\n")
    toml("[budget]\nusd = 3\n[param]\nmark = 'a'\nlimit = 1\n")
    monkeypatch.setenv("DURABATCH_PARAM", "limit=2")
    wishes = resolve({"param": {"site": "b"}})
    assert wishes["budget"] == {"usd": 3.0, "tokens": 2.0}
    assert wishes["param"] == {"mark": "a", "limit": "2", "site": "b"}
    assert wishes.source("param") == "--param, DURABATCH_PARAM, durabatch.toml:3"


def test_a_check_is_not_joined_with_another(toml, own_file):
    """It is one thing, though it is kept as names and values."""
    own_file("preflight = 'ping {}'\n")
    toml("preflight = 'jobs.check:ready'\n")
    assert resolve({})["preflight"] == {"kind": "python", "target": "jobs.check:ready"}


# -- variables ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("DURABATCH_WORKERS", "", "DURABATCH_WORKERS: is set but empty. Unset it, or give it a value."),
        ("DURABATCH_WORKERS", "many", "DURABATCH_WORKERS: 'many' is not a number of workers. Use 1 to 4096, 'auto' or 'N%'"),
        ("DURABATCH_LEDGER", "", "DURABATCH_LEDGER: is set but empty."),
        ("DURABATCH_KEEP_ORDER", "maybe", "DURABATCH_KEEP_ORDER: 'maybe' is neither yes nor no. Use true or false."),
        ("DURABATCH_HANDLER", "a.b", "DURABATCH_HANDLER: 'a.b' is not 'module:function' or 'file.py:function'."),
        ("DURABATCH_PROFILE", "x", "DURABATCH_PROFILE: there is no profile 'x'. No configuration file here has profiles."),
    ],
)
def test_a_wrong_variable_is_named(name, text, sentence, here, refusal, monkeypatch):
    """The variable is the source, so the message begins with it."""
    monkeypatch.setenv(name, text)
    assert refusal().startswith(sentence)


def test_a_variable_for_every_setting(here, monkeypatch):
    """Texts as on the command line; the key of items has another name, since commands are told theirs by DURABATCH_KEY."""
    monkeypatch.setenv("DURABATCH_BATCH_SIZE", "7")
    monkeypatch.setenv("DURABATCH_RETRY_ON", "ConnectionError,TimeoutError")
    monkeypatch.setenv("DURABATCH_KEY_FIELD", "host")
    monkeypatch.setenv("DURABATCH_KEY", "the key of an item")
    monkeypatch.setenv("DURABATCH_VALUE_0", "a value of an item")
    wishes = resolve({})
    assert (wishes["batch_size"], wishes["retry_on"], wishes["key"]) == (7, ("ConnectionError", "TimeoutError"), "host")
    assert (wishes.source("key"), wishes.notes) == ("DURABATCH_KEY_FIELD", ())


def test_a_variable_that_looks_like_a_setting_is_noted(here, monkeypatch):
    """It may be another program's, so it is no error; one that looks like nothing of ours is none of our business."""
    monkeypatch.setenv("DURABATCH_RETIRES", "3")
    monkeypatch.setenv("DURABATCH_SOMETHING_ELSE_ENTIRELY", "3")
    assert resolve({}).notes == ("the variable DURABATCH_RETIRES is no setting. Did you mean DURABATCH_RETRIES?",)


# -- profiles -----------------------------------------------------------------------------------------------------------------


def test_a_profile_that_does_not_exist_lists_those_that_do(toml, own_file, refusal):
    """Of all files."""
    toml("[profile.night]\nworkers = 1\n[profile.day]\nworkers = 2\n")
    own_file("[profile.laptop]\nworkers = 1\n[profile.day]\nretries = 1\n")
    assert refusal(profile="nigth") == "--profile: there is no profile 'nigth'. There are: night, day, laptop."


def test_a_profile_that_is_not_chosen_is_checked_and_not_used(toml, refusal):
    """A mistake in it is found before the night in which it is used."""
    toml("workers = 3\n[profile.night]\nworkers = 1\n")
    assert resolve({})["workers"] == 3
    toml("workers = 3\n[profile.night]\nworkers = 'x'\n")
    assert refusal().startswith("durabatch.toml:3: workers: expected a number")


def test_a_profile_may_be_chosen_by_variable(toml, monkeypatch):
    """As every setting."""
    toml("[profile.night]\nworkers = 1\n")
    monkeypatch.setenv("DURABATCH_PROFILE", "night")
    assert resolve({})["workers"] == 1


def test_only_what_this_call_asks_for_changes_a_run_on_record(toml, monkeypatch):
    """Flags, and a profile that a flag names; variables and files were there when the run was started, and count for that."""
    toml("retries = 2\n[profile.night]\nworkers = 1\nprogress = 'none'\n")
    monkeypatch.setenv("DURABATCH_RATE", "5/s")
    assert resolve({"batch_size": 5}).asked_fields() == {"batch_size": 5}
    assert resolve({"batch_size": 5, "profile": "night"}).asked_fields() == {"batch_size": 5, "workers": 1}
    monkeypatch.setenv("DURABATCH_PROFILE", "night")
    assert resolve({}).asked_fields() == {}


def test_what_stands_here_is_known_apart_from_the_command_line(toml):
    """So that a command that is suggested names the ledger only where it must."""
    toml("ledger = 'a.db'\n")
    wishes = resolve({"ledger": "b.db"})
    assert (wishes["ledger"], wishes.standing("ledger")) == ("b.db", "a.db")


def test_a_guarded_table_stays_guarded_when_it_is_joined(toml, own_file):
    """A profile of a file that others can write does not become trusted by way of another file."""
    toml("[profile.a]\nhandler = 'evil:work'\n").chmod(0o666)
    own_file("[profile.a]\nworkers = 1\n")
    wishes = resolve({"profile": "a"})
    assert wishes["workers"] == 1
    with pytest.raises(UsageError, match="is writable by others; its handler is not imported"):
        wishes["handler"]
