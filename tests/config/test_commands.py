"""Settings as the command line uses them: flags, files that make `run` work without arguments, `init` and `check`."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib

import pytest

from durabatch.cli import starting
from durabatch.config.keys import SETTINGS, for_verb
from durabatch.config.template import template
from durabatch.intake.spec import InputSpec
from durabatch.options import usable_cores
from durabatch.settings import RunSettings

HANDLERS = """
import durabatch


class ApiError(Exception):
    pass


def check(item):
    return True


def work(item, *, mark=""):
    return item + mark


@durabatch.handler(max_attempts=3, timeout="30s", retry_on=[ApiError], concurrency=2, preflight=check)
def careful(item):
    return item


@durabatch.handler(retry_on="ApiEror")
def careless(item):
    return item
"""

FLAGS = {
    "--workers": ("3", {"workers": 3}),
    "--concurrency": ("5", {"concurrency": 5}),
    "--batch-size": ("7", {"batch_size": 7}),
    "--batch-strategy": ("time", {"batch_strategy": "time"}),
    "--batch-seconds": ("20", {"batch_seconds": 20.0}),
    "--pipeline-depth": ("1", {"pipeline_depth": 1}),
    "--retries": ("2", {"max_attempts": 3}),
    "--backoff": ("2s", {"backoff_s": 2.0}),
    "--backoff-factor": ("3", {"backoff_factor": 3.0}),
    "--backoff-cap": ("1m", {"backoff_cap_s": 60.0}),
    "--retry-on": ("ConnectionError,TimeoutError", {"retry_on": ("ConnectionError", "TimeoutError")}),
    "--give-up-on": ("ValueError", {"give_up_on": ("ValueError",)}),
    "--max-deaths": ("2", {"max_deaths": 2}),
    "--atomic": ("batch", {"atomic": "batch"}),
    "--max-undo-bytes": ("1MiB", {"max_undo_bytes": 1 << 20}),
    "--timeout": ("200%", {"timeout": "200%"}),
    "--item-deadline": ("1h", {"item_deadline_s": 3600.0}),
    "--deadline": ("8h", {"deadline_s": 28800.0}),
    "--memory-limit": ("2GiB", {"memory_limit_bytes": 2 << 30}),
    "--cpu-limit": ("10s", {"cpu_limit_s": 10.0}),
    "--max-items-per-worker": ("100", {"max_items_per_worker": 100}),
    "--halt": ("now,fail=3", {"halt": "now,fail=3"}),
    "--tolerate": ("1%", {"tolerate": "1%"}),
    "--canary": ("10", {"canary": 10}),
    "--breaker": ("same=10", {"breaker": "same=10"}),
    "--rate": ("50/1m", {"rate": "50/1m"}),
    "--memory-threshold": ("70%", {"memory_threshold": 0.7}),
    "--min-free-disk": ("1GiB", {"min_free_disk_bytes": 1 << 30}),
    "--max-load": ("1.5", {"max_load": 1.5}),
    "--max-item-bytes": ("1MiB", {"max_item_bytes": 1 << 20}),
    "--max-result-bytes": ("2MiB", {"max_result_bytes": 2 << 20}),
    "--term-grace": ("1s", {"term_grace_s": 1.0}),
    "--drain": ("10s", {"drain_s": 10.0}),
    "--cache-ttl": ("7d", {"cache_ttl_s": 604800.0}),
    "--cache-size": ("2GiB", {"cache_bytes": 2 << 30}),
    "--output-format": ("jsonl.zst", {"output_format": "jsonl.zst"}),
    "--on-batch": ("./load.sh", {"batch_command": "./load.sh"}),
    "--on-end": ("./tell.sh", {"end_command": "./tell.sh"}),
}


@pytest.fixture
def jobs(here):
    """Give a directory with handlers and an input."""
    (here / "jobs.py").write_text(HANDLERS)
    (here / "words.txt").write_text("one\ntwo\n")
    return here


@pytest.fixture
def asked(jobs, command, monkeypatch):
    """Give a function from the words of a command to the request that it makes; nothing is run."""
    requests = []

    def take(request, wishes):
        requests.append(request)
        return 0

    monkeypatch.setattr(starting, "carry_out", take)

    def ask(*words):
        done = command(*words)
        assert (done.code, done.err) == (0, "")
        return requests.pop()

    return ask


def test_every_flag_reaches_the_settings_of_the_run(asked):
    """On run, exec, resume and retry alike, and nothing else changes."""
    words = [word for flag, (text, _) in FLAGS.items() for word in (flag, text)]
    words += ["--keep-order", "--cache", "--budget", "usd=5", "--budget", "tokens=1000", "--output", "out"]
    wanted = {name: value for _, fields in FLAGS.values() for name, value in fields.items()}
    wanted |= {"keep_order": True, "cache": True, "budget": {"usd": 5.0, "tokens": 1000.0}, "output": os.path.abspath("out")}
    started = ["--priority", "p", "--order", "smallest", "--preflight", "jobs.py:check", "--on-bad-input", "skip", "--dedupe", "last"]
    check = {"kind": "python", "target": os.path.abspath("jobs.py:check")}
    more = {"priority": "p", "order": "smallest", "preflight": check, "on_bad_input": "skip", "dedupe": "last"}
    idle, idle_for = ["--idle-exit", "60s"], {"idle_exit_s": 60.0}
    assert asked("run", "jobs.py:work", "words.txt", *words, *started, *idle, "--param", "mark=!").settings == RunSettings(
        **wanted, **more, **idle_for, params={"mark": "!"}
    )
    assert asked("exec", "words.txt", *words, *started, *idle, "--retry-exit", "75,111", "--undo-command", "rm {args.path}", "--", "true").settings == (
        RunSettings(**wanted, **more, **idle_for, retry_exit=(75, 111), undo_command="rm {args.path}")
    )
    assert asked("run", "jobs.py:work", "words.txt", "--shuf", "7").settings.shuf == 7
    assert asked("resume", *words, *idle, "--retry-exit", "1").overrides == {**wanted, **idle_for, "retry_exit": (1,)}
    assert asked("work", "nightly", *words, *idle).overrides == {**wanted, **idle_for}
    assert asked("retry", *words).overrides == wanted
    of = {name: {one.flag for one in for_verb(name) if one.field} for name in ("run", "resume", "work", "retry")}
    assert of["retry"] == {*FLAGS, "--keep-order", "--cache", "--budget", "--output", "--retry-exit", "--undo-command"}
    assert of["resume"] - of["retry"] == {"--idle-exit"}
    assert of["resume"] - of["work"] == {"--retry-exit", "--undo-command"}
    assert of["run"] - of["resume"] == {"--priority", "--order", "--preflight", "--on-bad-input", "--dedupe", "--shuf", "--param"}


def test_every_flag_of_the_input_reaches_the_spec(asked):
    """Under its own name, on run, exec and plan alike; what a setting is called, a field of the spec is called."""
    words = {
        "--format": "chunks", "--encoding": "latin-1", "--include": "*.md", "--exclude": "build/*", "--min-size": "1KiB", "--max-size": "1MiB",
        "--chunk-size": "2KiB", "--overlap": "64", "--group-by": "path", "--range": "2:9", "--limit": "5", "--select": "a,b", "--sample": "3",
    }  # fmt: skip
    given = [word for pair in words.items() for word in pair] + ["--no-hidden"]
    stored = asked("run", "jobs.py:work", ".", *given).source_spec
    assert stored == asked("exec", ".", *given, "--", "true").source_spec
    assert stored == dataclasses.asdict(
        InputSpec(
            inputs=(".",), format="chunks", encoding="latin-1", include=("*.md",), exclude=("build/*",), hidden=False, min_size=1024,
            max_size=1 << 20, chunk_size=2048, overlap=64, group_by="path", range="2:9", limit=5, select=("a", "b"), sample=3,
        )
    )  # fmt: skip
    records = ["--key", "id", "--delimiter", ";", "--format", "csv"]
    assert asked("run", "jobs.py:work", "words.txt", *records).source_spec == dataclasses.asdict(
        InputSpec(inputs=("words.txt",), format="csv", key="id", delimiter=";")
    )
    assert asked("run", "jobs.py:work", "words.txt", "--files").source_spec["files"] is True
    assert asked("run", "jobs.py:work", "words.txt", "--null").source_spec["null"] is True
    assert asked("run", "jobs.py:work", "words.txt", "--format", "jsonl", "--numbers", "text").source_spec["numbers"] == "text"
    assert asked("run", "jobs.py:work", "words.txt", "--format", "xlsx", "--sheet", "Two").source_spec["sheet"] == "Two"


def test_without_flags_a_run_has_the_defaults(asked):
    """Workers are the usable cores; a resume changes nothing."""
    assert asked("run", "jobs.py:work", "words.txt").settings == RunSettings(workers=usable_cores())
    assert asked("resume").overrides == {}


def test_what_a_handler_declares_stands_below_everything_else(asked, toml):
    """Its own wishes count where nobody else has any."""
    request = asked("run", "jobs.py:careful", "words.txt")
    wanted = {"max_attempts": 3, "timeout": "30s", "concurrency": 2}
    assert {name: getattr(request.settings, name) for name in wanted} == wanted
    assert request.settings.retry_on[0].endswith(".ApiError")
    assert request.settings.preflight["target"].endswith(":check")
    toml("retries = 4\n")
    assert asked("run", "jobs.py:careful", "words.txt", "--timeout", "1m").settings.max_attempts == 5


def test_retry_passes_on_what_it_chooses(asked):
    """By error, group, expression, state and key; states and keys may be several."""
    request = asked("retry", "nightly", "--error", "E", "--group", "E: <n>", "--where", "1", "--state", "skipped", "--state", "failed", "--key", "a",
                    "--key", "b", "--trust-ledger", "--handler", "jobs.py:work")  # fmt: skip
    assert (request.verb, request.run, request.error_type, request.group, request.where) == ("retry", "nightly", "E", "E: <n>", "1")
    assert (request.states, request.keys, request.trust_ledger) == (("skipped", "failed"), ("a", "b"), True)
    assert request.handler == {"kind": "python", "target": os.path.abspath("jobs.py:work")}
    assert (asked("retry").states, asked("retry").keys) == ((), ())


def test_a_state_that_nothing_is_taken_back_from_is_refused(jobs, command):
    """With the states there are."""
    done = command("retry", "--state", "succeded")
    assert (done.code, done.err) == (2, "durabatch: --state: 'succeded' is not one of failed, quarantined, skipped, cancelled, undone.\n")


def test_flags_of_one_call_reach_the_request(asked):
    """They are no settings of the run."""
    request = asked(
        "run", "jobs.py:work", "words.txt", "--fresh", "--retry-failed", "--preflight-only", "--preflight", "true", "--name", "n"
    )
    assert (request.fresh, request.retry_failed, request.preflight_only, request.series) == (True, True, True, "n")
    assert request.settings.preflight == {"kind": "command", "argv": ["true"], "shell": False, "parse": "none"}


def test_a_file_may_wish_undoing_for_whatever_runs_again(asked, toml):
    """Then it is meant where something does; typed, it is always said to the run, which refuses it where nothing would run again."""
    toml("\nundo = true\n")
    words = ("run", "jobs.py:work", "words.txt")
    assert [asked(*words, *more).undo for more in ((), ("--from-batch", "2"), ("--on-change", "merge"), ("--undo",))] == [False, True, True, True]


def test_an_exception_of_the_handlers_module_is_known_by_its_short_name(asked):
    """It gets the name that failures carry."""
    assert asked("run", "jobs.py:work", "words.txt", "--retry-on", "ApiError").settings.retry_on[0].endswith(".ApiError")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--retry-on", "ApiEror"), "--retry-on: there is no exception 'ApiEror'. Did you mean 'ApiError'?"),
        (("--batch-strategy", "fix"), "--batch-strategy: 'fix' is not one of bytes, fixed, memory, time. Did you mean 'fixed'?"),
        (("--preflight-only",), "--preflight-only: there is no check. Give one with --preflight, or @handler(preflight=...)."),
        (("--profile", "night"), "--profile: there is no profile 'night'. No configuration file here has profiles."),
    ],
)
def test_what_is_named_must_exist(words, sentence, jobs, command):
    """Before anything is written."""
    done = command("run", "jobs.py:work", "words.txt", *words)
    assert (done.code, done.err) == (2, f"durabatch: {sentence}\n")
    assert not (jobs / "durabatch.db").exists()


def test_a_name_that_does_not_exist_is_sought_where_it_stands(jobs, toml, command):
    """The message begins with the file, the variable or the handler that says it."""
    toml("\nretry_on = ['ApiEror']\n")
    assert command("run", "jobs.py:work", "words.txt").err.startswith(
        "durabatch: durabatch.toml:2: retry_on: there is no exception 'ApiEror'."
    )
    toml("\nbatch_strategy = 'fix'\n")
    assert command("run", "jobs.py:work", "words.txt").err.startswith("durabatch: durabatch.toml:2: batch_strategy: 'fix' is not one of")
    toml("")
    assert command("run", "jobs.py:careless", "words.txt").err.startswith("durabatch: @handler: retry_on: there is no exception 'ApiEror'.")


# -- files --------------------------------------------------------------------------------------------------------------------


def test_run_needs_no_arguments_where_a_file_has_them(asked, toml):
    """Handler, input, parameters and name; an argument counts more."""
    toml("handler = 'jobs.py:work'\ninput = ['words.txt']\nname = 'daily'\nparam = { mark = '!' }\nworkers = 1\n")
    request = asked("run")
    assert (request.handler["target"], request.source_spec["inputs"]) == (os.path.abspath("jobs.py:work"), ("words.txt",))
    assert (request.series, request.settings) == ("daily", RunSettings(workers=1, params={"mark": "!"}))
    request = asked("run", "jobs.py:work", "jobs.py", "--param", "mark=?")
    assert (request.source_spec["inputs"], request.settings.params) == (("jobs.py",), {"mark": "?"})


def test_what_is_of_functions_alone_does_not_disturb_a_command(asked, toml):
    """One file serves run and exec."""
    toml("handler = 'jobs.py:work'\nparam = { mark = '!' }\nretry_exit = [75]\nworkers = 1\n")
    assert asked("exec", "words.txt", "--", "true").settings == RunSettings(workers=1, retry_exit=(75,))
    assert asked("run", "jobs.py:work", "words.txt").settings == RunSettings(workers=1, params={"mark": "!"})


def test_run_without_a_handler_anywhere_says_so(jobs, command):
    """As before there were files."""
    done = command("run")
    assert (done.code, done.err) == (2, "durabatch: HANDLER is missing. Try `durabatch run --help`.\n")


def test_a_handler_in_a_file_of_others_is_not_imported(jobs, toml, command):
    """Neither by run nor by check; one on the command line is."""
    (jobs / "trap.py").write_text("open('sprung', 'w').close()\ndef work(item): return item\n")
    toml("handler = 'trap.py:work'\ninput = 'words.txt'\n").chmod(0o646)
    for verb in ("run", "check"):
        done = command(verb)
        assert done.code == 2
        assert done.err.startswith(
            "durabatch: durabatch.toml:1: durabatch.toml is writable by others; its handler is not imported. Own the file"
        )
    assert not (jobs / "sprung").exists()
    assert not (jobs / "durabatch.db").exists()
    assert "its input is not used" in command("run", "jobs.py:work").err


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        ("a.b", "durabatch.toml:1: handler: 'a.b' is not 'module:function' or 'file.py:function'. Did you mean 'a:b'?"),
        ("os:system", "durabatch.toml:1: handler: os:system is not a durabatch handler. Use `durabatch exec` for commands."),
        ("jobs.py:wrok", "durabatch.toml:1: handler: jobs.py has no 'wrok'. Did you mean 'work'?"),
    ],
)
def test_a_wrong_handler_in_a_file_is_named_with_its_line(handler, sentence, jobs, toml, command):
    """Row 41 of the bad inputs."""
    toml(f"handler = '{handler}'\ninput = 'words.txt'\n")
    for verb in ("run", "check"):
        assert (command(verb).code, command(verb).err) == (2, f"durabatch: {sentence}\n")


def test_the_ledger_of_a_file_is_everybodys(jobs, toml, command):
    """What run writes, status looks for; the flag counts more."""
    toml("ledger = 'here.db'\n")
    assert command("status").err.startswith("durabatch: here.db: there is no such ledger.")
    assert command("status", "--ledger", "other.db").err.startswith("durabatch: other.db: there is no such ledger.")


def test_color_may_stand_in_a_file(jobs, toml, command):
    """As any setting."""
    toml("color = 'always'\n")
    assert "\x1b[" in command("status").err
    assert "\x1b[" not in command("status", "--color", "never").err


def test_a_wrong_file_stops_every_verb_that_would_use_it(jobs, toml, command):
    """To go on without it would be to do something else than was asked; help and init do without."""
    toml("retires = 1\n")
    for verb in (["status"], ["run", "jobs.py:work", "words.txt"], ["check"], ["resume"]):
        assert command(*verb).err == "durabatch: durabatch.toml:1: unknown key 'retires'. Did you mean 'retries'?\n"
    for words in (["--help"], ["run", "--help"], ["--version"], ["init", "--force"]):
        assert command(*words).code == 0


def test_a_variable_that_is_no_setting_is_noted(jobs, command, monkeypatch):
    """On stderr, and by check."""
    monkeypatch.setenv("DURABATCH_RETIRES", "1")
    assert command("check").err == "durabatch: the variable DURABATCH_RETIRES is no setting. Did you mean DURABATCH_RETRIES?\n"


# -- check --------------------------------------------------------------------------------------------------------------------


def test_check_shows_every_value_and_where_it_comes_from(jobs, toml, command, monkeypatch):
    """Flags, variables, files, the handler and defaults, in one table."""
    toml("handler = 'jobs.py:careful'\nrate = '50/1m'\n[profile.night]\nworkers = 1\n")
    monkeypatch.setenv("DURABATCH_BATCH_SIZE", "7")
    done = command("check", "--profile", "night", "--backoff", "2s", "--keep-order")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.out.splitlines()[1:]}
    assert (done.code, list(rows)) == (0, list(SETTINGS))
    assert rows["handler"] == ["jobs.py:careful", "durabatch.toml:1"]
    assert rows["workers"] == ["1", "durabatch.toml:4 (night)"]
    assert rows["batch_size"] == ["7", "DURABATCH_BATCH_SIZE"]
    assert rows["backoff"] == ["2s", "--backoff"]
    assert rows["keep_order"] == ["true", "--keep-order"]
    assert rows["timeout"] == ["30s", "@handler of jobs.py:careful"]
    assert rows["retries"] == ["2", "@handler of jobs.py:careful"]
    assert rows["drain"] == ["30s", "default"]
    assert rows["halt"] == ["-", "default"]


def test_check_as_json_has_the_same(jobs, toml, command):
    """With flag and variable of each; --set leaves defaults out."""
    toml("retries = 2\nbudget = { usd = 5 }\n")
    document = json.loads(command("check", "--json", "--set").out)
    assert document["schema_version"] == 1
    assert document["files"] == [{"path": "durabatch.toml", "trusted": True}]
    assert [(one["key"], one["value"], one["source"]) for one in document["settings"]] == [
        ("retries", 2, "durabatch.toml:1"), ("budget", {"usd": 5.0}, "durabatch.toml:2"),
    ]  # fmt: skip
    assert {"flag": "--retries", "variable": "DURABATCH_RETRIES", "group": "Failures"}.items() <= document["settings"][0].items()
    assert len(json.loads(command("check", "--json").out)["settings"]) == len(SETTINGS)


def test_check_finds_what_run_would_refuse(jobs, command):
    """Names of exceptions and strategies, the handler, the check."""
    for words in (
        ["jobs.py:careless"],
        ["jobs.py:work", "--preflight", "jobs.py:chek"],
        ["jobs.py:work", "--batch-strategy", "x"],
        ["jobs:x"],
    ):
        assert command("check", *words).code == 2
    assert command("check", "jobs.py:work", "--preflight", "jobs.py:check").code == 0


# -- init ---------------------------------------------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^# (?=\w+ = |\[)", "", text)


def test_init_writes_every_setting_as_a_comment(jobs, command, asked):
    """The file changes nothing; each of its comments is valid when the mark is taken away."""
    done = command("init")
    assert (done.code, done.out) == (0, "")
    text = (jobs / "durabatch.toml").read_text()
    assert tomllib.loads(text) == {}
    assert set(tomllib.loads(uncommented(text))) == set(SETTINGS)
    (jobs / "durabatch.toml").write_text(uncommented(text).replace("{ limit = 10 }", '{ mark = "!" }'))
    assert command("check", "--set", "--json").code == 0
    assert tomllib.loads(uncommented(text))["profile"] == {"gentle": {"workers": 1, "rate": "50/1m"}}


def test_init_puts_handler_and_input_in_force(jobs, command, asked):
    """Run works then without arguments."""
    assert command("init", "jobs.py:work", "words.txt").code == 0
    assert asked("run").source_spec["inputs"] == ("words.txt",)
    assert command("init", "jobs").err.startswith("durabatch: handler: 'jobs' is not 'module:function'")


def test_init_replaces_nothing_unless_told(jobs, command):
    """A file of that name, or even a link, is somebody's work."""
    path = jobs / "durabatch.toml"
    path.write_text("broken [")
    done = command("init")
    assert (done.code, done.err) == (2, "durabatch: durabatch.toml exists. Use --force to replace it.\n")
    assert path.read_text() == "broken ["
    assert command("init", "--force").code == 0
    assert path.read_text() == template({})
    path.unlink()
    path.symlink_to("elsewhere")
    assert command("init").code == 2


def test_lines_of_the_file_are_short_enough_to_read():
    """Explanations wrap."""
    assert max(map(len, template({}).splitlines())) <= 140


# -- all together -------------------------------------------------------------------------------------------------------------


def test_a_configured_directory_needs_no_words(jobs, command, toml):
    """Run, status, results and retry find handler, input and ledger by the file alone; what they suggest names the ledger only if it must."""
    (jobs / "jobs.py").write_text("def work(item):\n    if item == 'two': raise ConnectionError(item)\n    return item\n")
    toml("handler = 'jobs.py:work'\ninput = 'words.txt'\nledger = 'here.db'\nworkers = 1\nretries = 1\nbackoff = '0'\nprogress = 'none'\n")
    done = command("run")
    assert done.code == 1
    assert "`durabatch retry`" in done.err
    assert json.loads(command("results").out) == {"key": "one", "value": "one"}
    assert command("items", "--state", "failed", "--json").code == 0
    assert (jobs / "here.db").exists()
    assert not (jobs / "durabatch.db").exists()
    attempts = command("attempts", "two", "--json")
    assert len(json.loads(attempts.out)["attempts"]) == 2
    other = command("run", "--ledger", "durabatch.db")
    assert "`durabatch retry --ledger durabatch.db`" in other.err
