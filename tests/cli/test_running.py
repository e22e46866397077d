from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


#: Runs several commands one after the other, and prints their exit codes at the end.
SEVERAL = """
import json, sys
from durabatch.cli.main import main

codes = []
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        codes.append(end.code)
print(*codes)
"""


def results(command, *words) -> dict[str, object]:
    lines = command("results", *words).out.splitlines()
    return {one["key"]: one["value"] for one in map(json.loads, lines)}


def test_a_run_with_failures_ends_with_1_and_the_way_on(process, command, here):
    """stdout stays empty; stderr ends with failures, results, next command and verdict; the same command again has nothing to do."""
    done = process("run", "jobs.py:double", "items.jsonl", "-j", "1", "--batch-size", "10", "--output", "out")
    assert (done.code, done.out) == (1, "")
    *_, failed, group, place, hint, verdict = done.err.splitlines()
    assert failed == "failed:"
    assert group == "  ValueError: could not convert string to float: 'N/A' - 4 items, first r07, last r37"
    assert place == f"results: `durabatch results`; batches and summary.json in {here / 'out'}"
    assert hint.startswith("next:    `durabatch errors`")
    assert verdict.startswith("double:items.jsonl: 40 items, 36 succeeded, 4 failed in ")
    assert sorted(os.listdir("out")) == [*(f"batch_000{number}.json" for number in range(1, 5)), "summary.json"]
    again = command("run", "jobs.py:double", "items.jsonl")
    assert (again.code, again.err) == (1, "nothing to do: 36 succeeded, 4 failed; `durabatch retry` tries the failed again\n")


def test_mending_the_handler_and_retry_heals_the_run(process, command, here):
    """retry runs the failed alone, without the input file; nothing is listed afterwards, and the code is 0."""
    process("run", "jobs.py:double", "items.jsonl", "-j", "1")
    (here / "jobs.py").write_text("def double(item):\n    return 0\n")
    (here / "items.jsonl").unlink()
    none = command("retry", "--error", "KeyError")
    assert (none.code, none.err.partition(":")[0]) == (1, "nothing to retry")
    done = command("retry", "--error", "ValueError", "-j", "1")
    assert done.code == 0
    assert ", 40 succeeded, 0 failed in " in done.err
    assert ", 36 done before" in done.err
    assert command("errors").err == "no failed items\n"
    assert results(command)["r07"] == 0
    assert command("retry").err == "nothing to retry: 40 succeeded, 0 failed\n"


def test_ctrl_c_ends_with_130_and_resume_does_the_rest(process, command, here):
    """The signal is told in a line, is no failure, and costs no attempt; resume needs no further words."""
    (here / "many.txt").write_text("".join(f"{number}\n" for number in range(1, 400)))
    done = process("run", "jobs.py:stop_us", "many.txt", "-j", "1", "--progress", "none")
    assert done.code == 130
    note, *_, verdict = done.err.splitlines()
    assert note.startswith("durabatch: stopping after the items in flight, within 30s (again: at once); ")
    assert verdict.startswith("stop_us:many.txt: stopped by SIGINT; ")
    assert verdict.endswith("; the same command goes on")
    assert "Traceback" not in done.err
    assert "`durabatch resume` goes on" in command("status").out
    (here / "jobs.py").write_text("def stop_us(item):\n    return item\n")
    rest = command("resume", "--progress", "none")
    assert rest.code == 0
    assert len(results(command)) == 399
    assert {json.loads(line)["attempts"] for line in command("results", "--all").out.splitlines()} == {1}


def test_json_progress_is_all_that_is_on_stderr(command, here):
    """Every line is an event; the last one has the exit code and the status."""
    done = command("run", "jobs.py:echo", "words.txt", "-j", "1", "--progress", "json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert [event["event"] for event in events][-1] == "end"
    assert events[-1]["exit_code"] == done.code == 0
    assert events[-1]["run"]["counts"]["succeeded"] == 3


def test_params_names_and_fresh_runs(command, here):
    """--param reaches the handler, --name names the run, --fresh starts the next of that name."""
    assert command("run", "jobs.py:echo", "words.txt", "-j0", "--name", "nightly", "--param", "mark=!").code == 0
    assert results(command)["one"] == "one!"
    assert command("run", "jobs.py:echo", "words.txt", "-j0", "--name", "nightly", "--fresh").code == 0
    assert [run["name"] for run in json.loads(command("runs", "--json").out)["runs"]] == ["nightly", "nightly#2"]
    assert results(command, "nightly#2")["one"] == "one"


def test_retries_reach_the_items(command, here):
    """--retries N means N tries after the first."""
    done = command("run", "jobs.py:fail", "words.txt", "-j0", "--retries", "2", "--backoff", "0s")
    assert done.code == 1
    assert {json.loads(line)["attempts"] for line in command("results", "--all").out.splitlines()} == {3}


def test_exec_runs_commands_without_a_shell(command, here):
    """Words after -- are the command, options among them too; a non-zero exit code is a failed item."""
    done = command("exec", "words.txt", "-j", "1", "--", "sh", "-c", 'test "$1" != two && echo "-$1-"', "sh", "{}")
    assert done.code == 1
    assert results(command)["one"] == {"exit_code": 0, "stdout": "-one-\n", "stderr": ""}
    assert "CommandError: exit code 1 - 1 item, two" in done.err
    (run,) = json.loads(command("runs", "--json").out)["runs"]
    program, inputs, digest = run["name"].split(":")
    assert (program, inputs, len(digest)) == ("sh", "words.txt", 8)


def test_a_command_that_names_an_unknown_column_is_code_2_before_the_first_item(command, here):
    """The columns that are there stand in the message, and no ledger is left behind."""
    (here / "rows.csv").write_text("host,port\na,1\n")
    done = command("exec", "rows.csv", "--", "echo", "{hots}")
    assert done.code == 2
    assert "names {hots}, which the first item does not have; available: host, port" in done.err
    assert not (here / "durabatch.db").exists()


def test_exec_parses_output_and_reads_standard_input(process, command):
    """--parse json makes the output the result; - is standard input."""
    done = process("exec", "-", "-j", "1", "--shell", "--parse", "json", "--name", "wrap", "--", "echo '[1,'{}']'", stdin="2\n3\n")
    assert done.code == 0
    assert results(command) == {"2": [1, 2], "3": [1, 3]}


def test_an_input_without_items_is_code_5(command, here):
    """Nothing is written."""
    (here / "empty.txt").write_text("")
    done = command("run", "jobs.py:echo", "empty.txt")
    assert (done.code, done.err) == (5, "durabatch: no items in empty.txt. Check the input.\n")
    assert not (here / "durabatch.db").exists()


def test_a_changed_input_is_code_2_and_nothing_runs(command, here):
    """Which file has changed, and the two ways on."""
    assert command("run", "jobs.py:echo", "words.txt", "-j0").code == 0
    (here / "words.txt").write_text("one\nfour\n")
    done = command("run", "jobs.py:echo", "words.txt", "-j0")
    assert done.code == 2
    assert "words.txt has changed since run echo:words.txt was started" in done.err


def test_a_foreign_file_is_code_4(command, here):
    """A ledger that is none is not touched."""
    before = (here / "words.txt").read_bytes()
    done = command("run", "jobs.py:echo", "items.jsonl", "--ledger", "words.txt", "-j0")
    assert done.code == 4
    assert (here / "words.txt").read_bytes() == before


@pytest.mark.parametrize(
    "environ", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_an_ascii_terminal_shows_everything(command, here, environ):
    """No text can end a command, nor steer a terminal; data is UTF-8 all the same."""
    (here / "odd.txt").write_text("é\u202e\x1b]52;c;x\x07\nbad\n")
    commands = [["run", "jobs.py:echo", "odd.txt", "-j0"], ["items"], ["errors"], ["attempts", "bad"], ["status"], ["runs"]]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "1 0 0 0 0 0"
    assert "\\u202e\\x1b]52;c;x\\x07" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "\u202e" not in done.stdout + done.stderr
    assert results(command) == {"é\u202e\x1b]52;c;x\x07": "é\u202e\x1b]52;c;x\x07"}


@pytest.mark.parametrize("verb", ["results", "items"])
def test_a_reader_that_has_enough_ends_the_command_quietly(verb, command, here):
    """`| head -1` is code 0, with nothing on stderr."""
    (here / "many.txt").write_text("".join(f"{number}\n" for number in range(5_000)))
    assert command("run", "jobs.py:echo", "many.txt", "-j0").code == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "durabatch", verb],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child.stdout.readline()
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=30), errors) == (0, b"")


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 4), (">&-", 4), (">&- 2>&-", 4)])
def test_a_stdout_that_cannot_be_written_to_is_code_4(redirect, code, command, here):
    """A full disk or a closed stdout is said in a line, where one can be said."""
    command("run", "jobs.py:echo", "words.txt", "-j0")
    script = f"exec {sys.executable} -m durabatch results {redirect}"
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith("durabatch: cannot write to stdout: ") or "2>" in redirect


def test_a_run_survives_a_stderr_that_is_closed(command, here):
    """Progress that nobody can read costs nothing."""
    script = f"exec {sys.executable} -m durabatch run jobs.py:echo words.txt -j1 --progress plain 2>&- >&- <&-"
    done = subprocess.run(["sh", "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0
    assert len(results(command)) == 3


def test_the_directory_of_the_command_comes_first_on_the_module_path(process, command):
    """A module beside the command is found by its name, by coordinator and workers."""
    assert process("run", "jobs:echo", "words.txt", "-j", "1").code == 0
    assert len(results(command)) == 3


def test_the_handler_says_what_it_eats_and_options_win(command, here):
    """A declared format and number of tries are used; --format and --retries override them."""
    (here / "declared.py").write_text(
        "import durabatch\n\n@durabatch.handler(format='files', include='*.txt', max_attempts=2)\n"
        "def work(item):\n    return item['path'] if isinstance(item, dict) else 1 / 0\n"
    )
    assert command("run", "declared.py:work", ".", "-j0", "--name", "files").code == 0
    assert results(command) == {"./words.txt": "./words.txt"}
    assert command("run", "declared.py:work", "words.txt", "-j0", "--name", "lines", "--format", "lines").code == 1
    assert {json.loads(line)["attempts"] for line in command("results", "lines", "--all").out.splitlines()} == {2}
    assert command("run", "declared.py:work", "words.txt", "-j0", "--name", "once", "--format", "lines", "--retries", "0").code == 1
    assert {json.loads(line)["attempts"] for line in command("results", "once", "--all").out.splitlines()} == {1}
