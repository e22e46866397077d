"""Commands that log what undoes their effects, and the command that undoes them."""

from __future__ import annotations

import json
import os
import socket
import sys
import textwrap
from pathlib import Path

import pytest

import durabatch
from durabatch.errors import UndoError, UsageError
from durabatch.undo_client import UNDO_VARIABLE, door_text
from durabatch.undo_template import UndoTemplate
from durabatch.workers import undo_command
from durabatch.workers.allowance import Allowance
from durabatch.workers.command import load
from durabatch.workers.command_error import CommandError
from durabatch.workers.context import Context
from durabatch.workers.protocol import Dispatch, Failure, Group, Promise, Recorded, Tune

ROOT = Path(__file__).resolve().parents[2]
UNDO = "rm -r -- {args.path}"
LOG = "import sys, json, durabatch; durabatch.undo_log(sys.argv[1], **json.loads(sys.argv[2]))"
#: Several processes of one command at once, each for itself.
MANY = """
import os, durabatch
from concurrent.futures import ThreadPoolExecutor
children = []
for child in range(3):
    children.append(os.fork())
    if not children[-1]:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: durabatch.undo_log("remove", path=f"{child}/{number}"), range(8)))
        os._exit(0)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
"""


class Attempt(Context):
    """An attempt whose entries are answered as the test says: at once, unless it keeps the answers back."""

    __slots__ = ("answers", "entries", "keeps", "refusal")

    def __init__(self, *, refusal=None, keeps=False):
        super().__init__(7, "k7", 2, "nightly")
        self.entries, self.answers, self.refusal, self.keeps = [], [], refusal, keeps

    def _promise(self, action, arguments, answered, *, is_irreversible=False):
        self.entries.append((action, arguments))
        if self.keeps:
            self.answers.append(answered)
        else:
            answered(Recorded(len(self.entries), len(self.entries), self.refusal))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let commands import the package from wherever they are started."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def ref(*argv):
    return {"kind": "command", "argv": list(argv), "shell": False, "parse": "none"}


def run(attempt, script, *words, undo=UNDO, **settings):
    """Run a Python program as the command of an attempt and return what it printed."""
    argv = [word.replace("{", "{{").replace("}", "}}") for word in (sys.executable, "-c", textwrap.dedent(script), *words)]
    handler = load(ref(*argv), Allowance(), max_output_bytes=1000, undo_command=undo, **settings)
    return handler.call('"item"', attempt)["stdout"]


def undo(text, action="remove", arguments=None, *, key="k7", **settings):
    """Run the undo command for a step."""
    step = {"action": action, "arguments": arguments or {}, "key": "nightly/k7/1/1"}
    return undo_command.load(text, Allowance(**settings)).call(json.dumps(step), Context(-3, key, 1, "nightly"))


def open_files():
    return sorted(os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}"))


# -- the template ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rm -r -- {args.path}", ["rm", "-r", "--", "/srv/a b"]),
        ("./undo.sh '{action}' {key} {args.n}", ["./undo.sh", "remove site", "k 7", "7"]),
        ("x --all={args}", ["x", '--all={"path":"/srv/a b","n":7,"in":{"deep":[1]},"odd":"-rf"}']),
        ("x {args.in.deep} {{}}", ["x", "[1]", "{}"]),
        ("x -- {args.odd}", ["x", "--", "-rf"]),
    ],
)
def test_values_become_parts_of_words(text, words):
    """The words are split before anything is put in, so no value can become two words or an option."""
    arguments = {"path": "/srv/a b", "n": 7, "in": {"deep": [1]}, "odd": "-rf"}
    assert UndoTemplate.parse(text).render("remove site", arguments, "k 7") == words
    assert str(UndoTemplate.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rm {path}", "unknown placeholder {path}. Did you mean 'args.path'?"),
        ("rm {arg}", "unknown placeholder {arg}. Did you mean 'args'?"),
        ("rm {}", "unknown placeholder {}. There are {action}, {args.NAME}, {args} and {key}."),
        ("rm {args.}", "unknown placeholder {args.}."),
        ("undo-{action} x", "the program would come from {action}."),
        ("rm '{args.path}", "no closing quotation"),
        ("rm {args.path", "lone '{'"),
        ("   ", "names no program"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_the_start(text, sentence):
    """Before anything is run, and with the option in front."""
    with pytest.raises(UsageError) as caught:
        UndoTemplate.parse(text)
    assert str(caught.value).startswith("--undo-command: ")
    assert sentence in str(caught.value)


def test_a_program_that_is_not_there_is_refused_at_the_start():
    """An undo command that could never run is no undo command."""
    UndoTemplate.parse(UNDO).check_program()
    with pytest.raises(UsageError, match="cannot run 'remove-it-all': no such program"):
        UndoTemplate.parse("remove-it-all {args.path}").check_program()


# -- logging --------------------------------------------------------------------------------------------------------------------


def test_an_entry_is_on_disk_before_the_command_goes_on():
    """The call returns when the answer is there, and not before; arguments arrive as strict JSON."""
    script = """
    import durabatch
    durabatch.undo_log("remove", path="/srv/ü", mode=7)
    print("effect")
    durabatch.undo_log("forget", path="x")
    """
    attempt = Attempt()
    assert run(attempt, script) == "effect\n"
    assert attempt.entries == [("remove", '{"path":"/srv/ü","mode":7}'), ("forget", '{"path":"x"}')]


def test_many_processes_of_one_command_log_at_once():
    """Each client has a socket of its own: 24 entries on their way at the same time, and each answer goes to the one who asked."""

    class Grouped(Attempt):
        __slots__ = ("most",)

        def _promise(self, action, arguments, answered, *, is_irreversible=False):
            super()._promise(action, arguments, answered)
            if len(self.answers) == 24:
                # As when the last of them comes with a tick: one commit answers all.
                while self.answers:
                    self.answers.pop()(Recorded(0))

    attempt = Grouped(keeps=True)
    run(attempt, MANY)
    assert sorted(json.loads(arguments)["path"] for _, arguments in attempt.entries) == sorted(f"{a}/{b}" for a in range(3) for b in range(8))


@pytest.mark.parametrize(
    ("attempt", "undo", "settings", "action", "arguments", "sentence"),
    [
        (Attempt(refusal="the run was taken over"), UNDO, {}, "remove", '{"path":"x"}', "'remove' is not recorded: the run was taken over"),
        (Attempt(), UNDO, {}, "remove", '{"pth":"x"}', "names {args.path}, and the entry has no such argument. Its arguments: pth."),
        (Attempt(), "rm {args.path}", {}, "remove", '{"path":"-rf"}', "would be read as an option. Put -- before"),
        (Attempt(), None, {}, "remove", '{"path":"x"}', "nothing can be logged: this run has no command that undoes effects. Give one"),
        (Attempt(), UNDO, {"is_check": True}, "remove", '{"path":"x"}', "nothing can be logged: this is the preflight check"),
        (Attempt(), UNDO, {}, "re\nmove", '{"path":"x"}', "is not the name of an action"),
        (Attempt(), UNDO, {}, "remove", json.dumps({"path": "x" * 65536}), "cannot be stored"),
    ],
    ids=["refused", "no argument", "option", "no undo command", "check", "name", "size"],
)
def test_what_could_not_be_undone_is_refused_before_the_effect(attempt, undo, settings, action, arguments, sentence):
    """The error says why; the command decides what to do about it, here: fail."""
    with pytest.raises(CommandError) as caught:
        run(attempt, LOG, action, arguments, undo=undo, **settings)
    assert sentence in caught.value.stderr_tail.splitlines()[-1]
    assert len(attempt.entries) == (attempt.refusal is not None)


HASTY = """
import os, socket, sys, time
from durabatch import undo_client
own, theirs = socket.socketpair()
socket.send_fds(socket.socket(fileno=os.dup(undo_client.door())), [b"u"], [theirs.fileno()])
own.sendall(undo_client.request_line("remove", {"path": "x"}))
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
"""


def test_a_command_that_does_not_wait_for_its_entry_fails(tmp_path):
    """Whether the entry came before the effect is not known then."""
    asked = tmp_path / "asked"

    class Slow(Attempt):
        __slots__ = ()

        def _promise(self, action, arguments, answered, *, is_irreversible=False):
            super()._promise(action, arguments, answered)
            asked.touch()

    attempt, before = Slow(keeps=True), open_files()
    with pytest.raises(UndoError, match=r"ended before its entry 'remove' was on disk\. Let it wait"):
        run(attempt, HASTY, str(asked))
    # The answer comes all the same, to nobody.
    attempt.answers[0](Recorded(1))
    assert open_files() == before


ODD = """
import os, socket, sys, array
from durabatch import undo_client
door = undo_client.door()
shared = socket.socket(fileno=os.dup(door))
good = undo_client.request_line("remove", {"path": "x"})

def said(data):
    own, theirs = socket.socketpair()
    with own, theirs:
        socket.send_fds(shared, [b"u"], [theirs.fileno()])
        theirs.close()
        own.sendall(data)
        own.shutdown(socket.SHUT_WR)
        return own.recv(1000).decode().strip()

null = os.open(os.devnull, os.O_RDONLY)
shared.send(b"")
shared.send(b"nothing with it")
socket.send_fds(shared, [b"u"], [null] * 16)
socket.send_fds(shared, [b"u"], [shared.fileno()])
for data in [b"", b"half a line", b"[1]\\n", b"{\\n", b'{"action":"a","arguments":[],"is_irreversible":false}\\n', b'{"action":"a","arguments":{},"arguments":{}}\\n', good + b"x", good]:
    print(said(data))
os.set_blocking(door, False)
try:
    while True:
        shared.send(b"u")
except BlockingIOError:
    print("full")
"""


def test_whatever_comes_over_the_socket_hurts_nobody_else():
    """Other descriptors, no descriptors, half a line, no JSON: refused or dropped, and the next good request is recorded."""
    attempt, before = Attempt(), open_files()
    answers = run(attempt, ODD).splitlines()
    assert answers[:2] == ["", ""]
    assert all("refusal" in answer for answer in answers[2:7])
    assert answers[7:] == ['{"recorded":true}', "full"]
    assert attempt.entries == [("remove", '{"path":"x"}')]
    assert open_files() == before


def test_outside_of_a_command_there_is_one_clear_line(monkeypatch, tmp_path):
    """No variable, a variable of somebody else's, and a descriptor that was closed or is another by now."""
    monkeypatch.delenv(UNDO_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="this is no command that durabatch runs"):
        durabatch.undo_log("remove", path="x")
    for value in ("5", "no", "5:", ":5", "-1:5", "५:5"):
        monkeypatch.setenv(UNDO_VARIABLE, value)
        with pytest.raises(UsageError, match="this is no command that durabatch runs"):
            durabatch.undo_log("remove", path="x")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other = (tmp_path / "file").open("w")
    for value in (f"{ours.fileno()}:1", f"{2**40}:1", f"{other.fileno()}:{os.fstat(other.fileno()).st_ino}"):
        monkeypatch.setenv(UNDO_VARIABLE, value)
        with pytest.raises(UsageError, match="was closed on the way to here"):
            durabatch.undo_log("remove", path="x")
    monkeypatch.setenv(UNDO_VARIABLE, door_text(ours.fileno()))
    theirs.close()
    with pytest.raises(UndoError, match="'remove' is not recorded: no answer from the run"):
        durabatch.undo_log("remove", path="x")
    ours.close()
    other.close()


# -- steps ----------------------------------------------------------------------------------------------------------------------


def test_a_step_runs_the_undo_command_with_what_was_logged(tmp_path):
    """Its words and its environment say what is to be undone; ending with 0 is success."""
    place = tmp_path / "a b"
    place.mkdir()
    script = 'printf "%s|" "$@" "$DURABATCH_KEY" "$DURABATCH_IDEMPOTENCY_KEY" "$DURABATCH_UNDO_ACTION" "$DURABATCH_UNDO_ARGS" "$DURABATCH_UNDO_FD" > "$1"/said'
    text = f"sh -c '{script}' sh {{args.path}} {{action}} {{key}}"
    assert undo(text, arguments={"path": str(place)}) == {"ran": True}
    assert (place / "said").read_text().split("|")[:-1] == [
        str(place), "remove", "k7", "k7", "nightly/k7/1/1", "remove", json.dumps({"path": str(place)}, separators=(",", ":")), "in-undo-command",
    ]  # fmt: skip


def test_a_step_fails_with_what_the_command_said_last():
    """As a command of the run would: exit code, end of stderr, time limit; and what cannot be tried says so."""
    with pytest.raises(CommandError, match="exit code 3: no such site") as caught:
        undo("sh -c 'echo no such site >&2; exit 3'")
    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "no such site\n")
    with pytest.raises(CommandError, match="cannot start remove-it-all: No such file"):
        undo("remove-it-all")
    with pytest.raises(UndoError, match=r"names {args\.path}, and the entry has no such argument\. Its arguments: url\.") as caught:
        undo(UNDO, arguments={"url": "x"})
    assert not caught.value.retryable
    with pytest.raises(UndoError, match="'remove' was logged by a command, and there is no --undo-command"):
        undo(None)


# -- in a worker ----------------------------------------------------------------------------------------------------------------


LOGGING = "import sys, durabatch; durabatch.undo_log('remove', path=sys.argv[1]); durabatch.undo_log('remove', path='2')"


def step(number, action="remove", **arguments):
    return -number, 1, "k1", json.dumps({"action": action, "arguments": arguments, "key": f"nightly/k1/1/{number}"})


@pytest.mark.parametrize("cpu_limit_s", [None, 60.0])
def test_a_worker_waits_for_the_coordinator(command, cpu_limit_s):
    """Its promises name item, attempt and place in the attempt; the command goes on when they are recorded, also behind a limit."""
    worker = command(sys.executable, "-c", LOGGING, "{}", undo_command=UNDO, cpu_limit_s=cpu_limit_s)
    worker.dispatch(4, '"a"', number=3)
    for sequence, path in ((1, "a"), (2, "2")):
        promise = worker.receive(Promise)
        assert (promise.dispatch_id, promise.item_id, promise.number, promise.sequence) == (4, 1, 3, sequence)
        assert (promise.action, promise.arguments, promise.is_irreversible) == ("remove", json.dumps({"path": path}, separators=(",", ":")), False)
        assert worker.shown() == [1]
        worker.send(Recorded(promise.token, sequence))
    assert json.loads(worker.outcomes(4)[1])["exit_code"] == 0


def test_a_refused_entry_fails_the_command_and_a_check_has_none(command):
    """The reason of the coordinator stands in what the command said; in a preflight check nothing is asked for."""
    argv = (sys.executable, "-c", LOGGING, "{}")
    worker = command(*argv, undo_command=UNDO, preflight={"kind": "command", "argv": list(argv), "shell": False, "parse": "none"})
    worker.dispatch(1, '"a"')
    worker.send(Recorded(worker.receive(Promise).token, refusal="the run was taken over"))
    failure = worker.outcomes(1)[1]
    assert isinstance(failure, Failure)
    assert failure.message == "exit code 1: durabatch.errors.UndoError: 'remove' is not recorded: the run was taken over"
    worker.dispatch(2, '"a"', task="check")
    assert "this is the preflight check" in worker.outcomes(2)[1].message


def test_a_worker_undoes_steps_with_the_command_and_its_time_limit(command, folder):
    """Steps end as items do: a value, a failure with exit code and tails, or a timeout."""
    script = 'case "$2" in slow) exec sleep 60;; fail) echo no >&2; exit 3;; *) rm -r -- "$1";; esac'
    worker = command("true", undo_command=f"sh -c '{script}' sh {{args.path}} {{action}}")
    (folder / "made").mkdir()
    worker.send(Tune(0.5, 1))
    steps = [step(3, path=str(folder / "made")), step(2, "fail", path="x"), step(1, "slow", path="x"), step(4, url="x")]
    worker.send(Dispatch(-1, [Group(0, steps)], task="undo"))
    ended = worker.outcomes(-1)
    assert json.loads(ended[-3]) == {"ran": True}
    assert not (folder / "made").exists()
    assert (ended[-2].outcome, ended[-2].exit_code, ended[-2].message, ended[-2].retryable) == ("failed", 3, "exit code 3: no", True)
    assert (ended[-1].outcome, ended[-1].message) == ("timed_out", "timeout after 0.5 s")
    assert (ended[-4].error_type, ended[-4].retryable) == ("UndoError", False)
