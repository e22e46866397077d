"""The examples of README.md, executed as they stand there; the servers are local ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks in *language*, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands(block: str) -> list[str]:
    """Return what is typed in a console block, without comments."""
    return [line.removeprefix("$ ").partition("  #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]


@contextlib.contextmanager
def server():
    """Answer every connection with a banner; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(b"220 ready\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        # Wakes the thread where closing alone would not.
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def example(tmp_path):
    """Give a directory with audit.py of the README and a list of six servers, and ``durabatch`` on PATH."""
    audit, program = blocks("python")[:2]
    (tmp_path / "audit.py").write_text(audit)
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "durabatch").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m durabatch "$@"\n')
    (tmp_path / "bin" / "durabatch").chmod(0o755)
    with server() as port:
        # All of 127.0.0.0/8 is this machine.
        (tmp_path / "servers.csv").write_text("host,port\n" + "".join(f"127.0.0.{number},{port}\n" for number in range(1, 7)))
        yield tmp_path


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a reader of the README types it."""
    environ = {**os.environ, "DURABATCH_BACKOFF": "0s", "PYTHONPATH": str(ROOT), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_of_the_example_do_what_they_say(example):
    """Run, the same again, status, results and retry: the banner of each server that answers, and the failed again."""
    run, again, status, results, retry = commands(blocks("console")[1])
    assert run == again
    first = shell(example, run)
    # Only 127.0.0.1 has a server; what answers elsewhere depends on the machine.
    assert first.returncode == 1, first.stderr
    assert "6 items, 1 succeeded, 5 failed" in first.stderr
    second = shell(example, again)
    assert (second.returncode, second.stderr) == (1, "nothing to do: 1 succeeded, 5 failed; `durabatch retry` tries the failed again\n")
    assert "audit:servers.csv" in shell(example, status).stdout
    assert shell(example, results).returncode == 0
    (line,) = (example / "results.jsonl").read_text().splitlines()
    assert json.loads(line) == {"key": "127.0.0.1", "value": {"banner": "220 ready\r\n"}}
    failed = shell(example, retry)
    assert failed.returncode == 1
    assert "1 succeeded, 5 failed" in failed.stderr.splitlines()[-1]


def test_the_python_example_runs(example):
    """map yields a line for each server, run sums up, and the same program again has nothing to do."""
    for _ in range(2):
        done = shell(example, f"{shlex.quote(sys.executable)} program.py")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 7
        assert [line for line in lines if line.endswith("{'banner': '220 ready\\r\\n'}")] == ["127.0.0.1 {'banner': '220 ready\\r\\n'}"]
        assert sum("ConnectionRefusedError" in line for line in lines) == 5
        assert "succeeded=1" in lines[6]
        assert "name='nightly'" in lines[6]
        assert done.stderr == ""


def test_the_sql_examples_run(example, not_run):
    """The queries of the README work on a ledger, through durabatch and through the sqlite3 shell."""
    shell(example, commands(blocks("console")[1])[0])
    own, stock = commands(next(block for block in blocks("console") if "durabatch sql" in block))
    shown = shell(example, own)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"failed\s+5", shown.stdout)
    if shell(example, "command -v sqlite3").returncode:
        not_run("there is no sqlite3 shell on this machine")
    listed = shell(example, stock)
    assert (listed.returncode, listed.stderr, len(listed.stdout.splitlines())) == (0, "", 5)


def test_the_undo_example_does_what_it_says(example):
    """40 sites are made, in part and in all undone, and made again; the transaction makes two and a list, and is undone by its id."""
    actions, transaction = (block for block in blocks("python") if "create_site" in block)
    (example / "sites.py").write_text(actions)
    (example / "transact.py").write_text(transaction)
    (example / "sites.csv").write_text("name,title\n" + "".join(f"site-{number},Title\n" for number in range(40)))

    def sites() -> int:
        return len(list((example / "sites").glob("*/index.html")))

    found = []
    for command in commands(next(block for block in blocks("console") if "sites.csv" in block)):
        done = shell(example, f"{command} -j 2" if " run " in command else command)
        assert done.returncode == 0, done.stderr
        found.append(sites())
    assert found == [40, 40, 30, 0, 40]
    shell(example, "durabatch rollback --yes")
    done = shell(example, f"{shlex.quote(sys.executable)} transact.py")
    assert (done.returncode, done.stderr, sites()) == (0, "", 2)
    assert (example / "sites" / "list.txt").read_text() == "hub, spoke"
    undone = shell(example, "durabatch rollback --transaction TRANS-001 --ledger sites.db --yes")
    assert (undone.returncode, sites(), list((example / "sites").iterdir())) == (0, 0, []), undone.stderr


def test_the_changed_input_example_does_what_it_says(example):
    """Refused and shown; then the new are added."""
    refused, merged = commands(next(block for block in blocks("console") if "--on-change merge" in block))
    shell(example, refused)
    servers = example / "servers.csv"
    servers.write_text(servers.read_text() + "127.0.0.7,1\n")
    done = shell(example, refused)
    assert done.returncode == 2
    assert "servers.csv has changed since run audit:servers.csv was started: 0 changed, 1 new (127.0.0.7), 0 gone, 6 same" in done.stderr
    assert "7 items, 1 succeeded, 6 failed" in shell(example, merged).stderr


def test_the_queue_example_runs_to_its_end(example):
    """Items are submitted while the run waits, and it ends when it is closed."""
    (example / "thumbs.py").write_text("def make(path):\n    return path\n")
    (example / "new").mkdir()
    for name in ("a.png", "b.png"):
        (example / "new" / name).write_text("")
    run, submit, close = commands(next(block for block in blocks("console") if "durabatch submit" in block))
    is_working = 'durabatch status thumbs --json 2>/dev/null | grep -q \'"state":"running"\''
    done = shell(example, f"{run.removesuffix('&')} -j 1 2> run.txt & until {is_working}; do :; done; {submit} && {close}; wait")
    assert done.returncode == 0, done.stderr
    assert "thumbs: 2 items, 2 succeeded, 0 failed" in (example / "run.txt").read_text()


def test_every_verb_and_exit_code_of_the_readme_is_that_of_the_command(example):
    """The table of verbs is the list of verbs, and the table of exit codes that of --help."""
    section = README.partition("## Command line")[2].partition("\n## ")[0]
    verbs, codes = section.partition("| exit code | |")[::2]
    named = {name for row in re.findall(r"^\| (`.*?) \|", verbs, re.M) for name in re.findall(r"`([\w-]+)", row)}
    listed = shell(example, "durabatch --help").stdout
    assert named == set(re.findall(r"^  ([\w-]+)  ", listed.partition("Run:")[2].partition("Examples:")[0], re.M))
    assert {code for row in re.findall(r"^\| ([\d, ]+) \|", codes, re.M) for code in row.split(", ")} == {
        code for row in re.findall(r"^  (\d[\d, ]*?)  ", listed.partition("Exit codes:")[2], re.M) for code in row.split(", ")
    }
