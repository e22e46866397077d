from __future__ import annotations

import importlib
import resource
import subprocess
import sys

import pytest

from durabatch.cli.main import NAMES, VERBS


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["resmue"], "unknown command 'resmue'. Did you mean 'resume'? Try `durabatch --help`."),
        (["zzz"], "unknown command 'zzz'. Try `durabatch --help`."),
        (
            ["--ledger", "x", "status"],
            "unknown option '--ledger'. Options stand behind the verb, as in `durabatch status --ledger`. Try `durabatch --help`.",
        ),
        (["run", "--retires", "3"], "unknown option '--retires'. Did you mean '--retries'? Try `durabatch run --help`."),
        (["run"], "HANDLER is missing. Try `durabatch run --help`."),
        (["run", "a:b", "--name"], "option '--name' requires an argument. Try `durabatch run --help`."),
        (["status", "a", "b"], "got unexpected extra argument (b). Try `durabatch status --help`."),
        (
            ["run", "a:b", "-j", "-1"],
            "--workers: '-1' is not a number of workers. Use 1 to 4096, 'auto' or 'N%'; 0 runs items in this process.",
        ),
        (["run", "a:b", "--retries", "1.5"], "--retries: '1.5' is not a whole number >= 0. Use 0 to 1,000,000."),
        (["run", "a:b", "--batch-size", "0"], "--batch-size: '0' is not a whole number >= 1. Use 1 to 1,000,000."),
        (["run", "a:b", "--pipeline-depth", "6"], "--pipeline-depth: '6' is more than 5. Use 1 to 5."),
        (["run", "a:b", "--term-grace", "5x"], "--term-grace: '5x' is not a duration. Use 30s, 5m, 1h30m."),
        (["run", "a:b", "--max-item-bytes", "x"], "--max-item-bytes: 'x' is not a size. Use 64KiB, 512MiB, 2GiB."),
        (["run", "a:b", "--progress", "baar"], "--progress: 'baar' is not one of auto, bar, plain, json, none. Did you mean 'bar'?"),
        (["run", "a:b", "--durability", "none"], "--durability: 'none' is not one of power, process."),
        (["status", "--color", "blue"], "--color: 'blue' is not one of auto, always, never."),
        (["items", "--state", "broken"], "--state: 'broken' is not one of pending, scheduled,"),
        (["sql", "select 1", "--csv", "--json"], "--csv, --tsv and --json exclude each other. Choose one."),
        (["status", "--ledger", ""], "--ledger: empty path. Give a file, e.g. durabatch.db."),
        (["status", "--ledger", ":memory:"], "--ledger: ':memory:' cannot be resumed. Give a file path."),
        (["exec", "words.txt"], "no command is given. Put it behind --, as in: durabatch exec hosts.txt -- ping -c1 {}."),
        (["exec", "words.txt", "--", "no-such-program"], "cannot run 'no-such-program': no such program."),
        (["run", "jobs.py:ecoh", "words.txt"], "jobs.py has no 'ecoh'. Did you mean 'echo'?"),
        (["run", "jobs", "words.txt"], "handler: 'jobs' is not 'module:function' or 'file.py:function'."),
        (["run", "jobs.py:echo", "wrods.txt"], "cannot read wrods.txt: no such file. Did you mean 'words.txt'?"),
        (["run", "jobs.py:echo", "words.txt", "--param", "mark"], "--param: 'mark' is not NAME=VALUE."),
        (["run", "jobs.py:echo", "words.txt", "--param", "no=1"], "jobs.py:echo takes no param 'no'."),
        (["run", "jobs.py:echo", "words.txt", "--format", "xml"], "unknown format 'xml'; formats: lines, csv,"),
        (["run", "jobs.py:echo", "words.txt", "--files", "--format", "csv"], "--files and --format csv contradict each other."),
        (["resume", "--handler", "nope"], "handler: 'nope' is not 'module:function' or 'file.py:function'."),
        (
            ["run", "a:b", "-j", "1e9"],
            "--workers: '1e9' is not a number of workers. Use 1 to 4096, 'auto' or 'N%'; 0 runs items in this process.",
        ),
        (
            ["run", "a:b", "--workers", ""],
            "--workers: '' is not a number of workers. Use 1 to 4096, 'auto' or 'N%'; 0 runs items in this process.",
        ),
        (["exec", "--timeout", "5x", "--", "true"], "--timeout: '5x' is not a duration. Use 30s, 5m, 1h30m."),
        (["resume", "--timeout", "0"], "--timeout: 0 would end every item at once. Leave it out for no timeout."),
        (["retry", "--timeout", "1e400"], "--timeout: '1e400' is not a duration. Use 30s, 5m, 1h30m."),
        (["run", "a:b", "--rate", "50"], "--rate: '50' lacks a period. Use 50/1m."),
        (
            ["run", "a:b", "--halt", "now,fail="],
            "--halt: 'now,fail=' is not a halt rule. Use now,fail=N, now,fail=N%, soon,fail=N or soon,fail=N%.",
        ),
        (
            ["run", "a:b", "--tolerate", "101%"],
            "--tolerate: '101%' is not a number of items or a share. Use N, 0 or more, or N%, up to 100%.",
        ),
        (["run", "a:b", "--budget", "usd"], "--budget: 'usd' is not UNIT=AMOUNT. Use usd=5 or tokens=1000000;"),
        (
            ["run", "a:b", "--breaker", "50"],
            "--breaker: '50' is not a breaker. Use N%, same=N, or both, and wait=T, as in 50%,same=10,wait=30s.",
        ),
        (["run", "a:b", "--order", "size"], "--order: 'size' is not one of input, smallest, largest, newest, oldest, kind."),
        (["exec", "--retry-exit", "256", "--", "true"], "--retry-exit: '256' is more than 255. Use 1 to 255."),
        (["run", "a:b", "--retry-exit", "75"], "unknown option '--retry-exit'. Did you mean '--retry-on'? Try `durabatch run --help`."),
        (
            ["run", "a:b", "--retry-on", "a b"],
            "--retry-on: 'a b' is not the name of an exception. Use ConnectionError, or package.module.Error.",
        ),
        (["run", "a:b", "--profile", "x"], "--profile: there is no profile 'x'. No configuration file here has profiles."),
        (["retry", "--state", "running"], "--state: 'running' is not one of failed, quarantined, skipped, cancelled, undone."),
        (["retry", "--order", "kind"], "unknown option '--order'."),
        (["init", "--ledger", "x"], "unknown option '--ledger'."),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(words, line, here, command):
    """Answered before anything is written: what, why, and the way out, on stderr alone."""
    done = command(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"durabatch: {line}")
    assert done.err.count("\n") == 1
    assert not (here / "durabatch.db").exists()


def test_no_verb_is_a_short_usage_and_code_2(command):
    """Two lines: the shape of a command, and where to read more."""
    done = command()
    assert (done.code, len(done.err.splitlines())) == (2, 2)
    assert done.err.endswith("Try `durabatch --help`.\n")


def test_help_names_the_verbs_examples_and_exit_codes(command):
    """The help of the group is enough to begin with, and has the frozen exit codes."""
    done = command("--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in NAMES)
    assert "Exit codes:" in done.out
    assert "129, 130, 143" in done.out


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_shows_examples(name, command):
    """Each help ends with command lines of that verb."""
    done = command(name, "-h")
    assert done.code == 0
    examples = done.out.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all(f"durabatch {name}" in line for line in examples)


@pytest.mark.parametrize("verb", ["status", "runs", "results", "items", "errors", "sql", "verify", "resume", "retry"])
def test_a_missing_ledger_is_code_4(verb, here, command):
    """A verb that only looks or goes on makes no ledger."""
    done = command(verb, *(["SELECT 1"] if verb == "sql" else []))
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("durabatch: durabatch.db: there is no such ledger.")
    assert not (here / "durabatch.db").exists()


def test_the_summaries_of_the_group_are_those_of_the_verbs():
    """They are written down once more, so that --help imports no verb; they say the same."""
    for verbs in VERBS.values():
        for name, summary in verbs.items():
            command = importlib.import_module(f"durabatch.cli.{name.replace('-', '_')}").command
            assert command.get_short_help_str(90) == summary


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_version_and_help_come_at_once(word, plain_environ):
    """In less than 150 ms of processor time, and without importing a verb, whatever stands in configuration files."""
    statement = f"from durabatch.cli.main import main\nimport contextlib\nwith contextlib.suppress(SystemExit): main([{word!r}])"
    unwanted = ("durabatch.config", "durabatch.cli.run", "durabatch.models", "tomllib")
    assert not {name for name in loaded(statement, plain_environ) if name.startswith(unwanted)}

    def spent() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "durabatch", word], env=plain_environ, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(spent() for _ in range(5)) < 0.15


def loaded(statement: str, environ: dict[str, str] | None = None) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_finding_a_verb_loads_neither_the_ledger_nor_rich():
    """The command answers quickly: --version needs click and nothing else of weight."""
    assert not loaded("import durabatch.cli.main") & {"apsw", "rich", "pydantic", "pydantic_core", "msgspec", "psutil"}


def test_status_loads_neither_the_runner_nor_rich(finished):
    """A look from another terminal costs as little as can be."""
    statement = "import contextlib\nfrom durabatch.cli.main import main\nwith contextlib.suppress(SystemExit): main(['status', '--json'])"
    assert not {name.partition(".")[0] for name in loaded(statement)} & {"rich", "pydantic", "psutil"}
    assert not [name for name in loaded(statement) if name.startswith("durabatch.runner")]
