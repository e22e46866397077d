"""
Processes that die at a named point: in the coordinator around its commits, in a worker around effects and the actions that take them back.

    reach     a point that handlers and actions name, too: the process dies there, or lives on
    Lives     starts lives, one after the other, and tells how each has ended; used by tests
    main      the program behind it: it loads everything once and forks off each life

A life dies once: at the n-th time that any process of it reaches its point. The environment says which (``DIE=POINT:N:WHO``).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["BETWEEN", "ONCE", "POINTS", "Lives", "counted", "lives", "reach"]

ROOT = Path(__file__).resolve().parents[2]
#: Patience with one life.
LIFE_S = 120

#: What is done in a transaction dies before its commit (``uncommitted``) or behind it (``after``).
POINTS = {
    "run": (
        "before_undo_recorded", "undo_recorded_uncommitted", "after_undo_recorded", "after_undo_answered",
        "after_undo_returned", "in_effect", "after_effect", "after_file_effect", "item_failed_uncommitted", "after_item_failed",
    ),
    "both": (
        "step_claimed_uncommitted", "after_step_claimed", "after_step_sent", "before_undo_action", "in_undo_action", "after_undo_action",
        "undo_marked_uncommitted", "after_undo_marked", "item_moved_on_uncommitted", "after_item_moved_on",
        "before_conclude", "conclude_uncommitted", "after_conclude",
    ),
    "rollback": ("rollback_chosen_uncommitted", "after_rollback_chosen"),
    "failing rollback": ("given_up_uncommitted", "after_given_up"),
    "transaction": (
        "after_step_begun", "before_undo_recorded", "undo_recorded_uncommitted", "after_undo_recorded", "after_undo_returned", "in_effect",
        "after_effect", "after_file_effect", "after_step_ended", "before_transaction_committed", "transaction_committed_uncommitted",
    ),
}  # fmt: skip
#: Those that a life reaches once.
ONCE = frozenset(
    {
        "before_conclude",
        "conclude_uncommitted",
        "after_conclude",
        *POINTS["rollback"],
        *POINTS["failing rollback"],
        *POINTS["transaction"][-2:],
    }
)
#: Those that there are between processes alone.
BETWEEN = frozenset({"after_undo_answered"})


def reach(point: str) -> None:
    """Die here if this is the point of this life, and its turn; ``any`` is every point. A worker may take the coordinator along, or in its place."""
    wanted, _, rest = os.environ.get("DIE", "").partition(":")
    if wanted not in (point, "any"):
        return
    count, who = rest.split(":")
    life, coordinator = os.environ["LIFE"].split(":")
    if counted(f"reached-{life}") == int(count):
        counted(f"died-{life}")
        if who != "self":
            os.kill(int(coordinator), signal.SIGKILL)
        if who != "coordinator":
            os.kill(os.getpid(), signal.SIGKILL)


def counted(name: str) -> int:
    """Count one more in a file that all processes of a life share, and return which it was."""
    descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, b".")
    # Where the own byte ends, whoever else has written since.
    number = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.close(descriptor)
    return number


# -- the program --------------------------------------------------------------------------------------------------------------


def around(owner, name, *, before=None, after=None) -> None:
    """Have *before* and *after* called around a function, *after* with what it returns and its arguments."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args, **kwargs):
        if before is not None:
            before(*args)
        value = inner(*args, **kwargs)
        if after is not None:
            after(value, *args)
        return value

    setattr(owner, name, outer)


def plant() -> None:
    """Put the points of the coordinator into its code."""
    from durabatch.engine import steps
    from durabatch.runner import coordinator, ending, handling, opening, pools, rolling_back, session, transacting, undoing

    done: list[str] = []

    def uncommitted(name, when=lambda *_: True):
        def look(value, *args):
            if when(value, *args):
                reach(f"{name}_uncommitted")
                done.append(name)

        return look

    def committed(*_):
        names = done[:]
        done.clear()
        reach("commit")
        for name in names:
            reach(f"after_{name}")

    def point(name, when=lambda *_: True):
        return lambda *args: reach(name) if when(*args) else None

    around(handling, "record", before=point("before_undo_recorded"), after=uncommitted("undo_recorded"))
    around(pools, "record", before=point("before_undo_recorded"), after=uncommitted("undo_recorded"))
    around(pools, "answered", before=committed)
    around(handling, "finish", after=uncommitted("item_failed", lambda _value, _ledger, _active, returned: bool(returned.failed)))
    around(transacting, "record", before=point("before_undo_recorded"), after=point("undo_recorded_uncommitted"))
    around(transacting.Transacting, "record", after=point("after_undo_recorded"))
    around(transacting.Transacting, "begin", after=point("after_step_begun"))
    around(transacting.Transacting, "succeed", after=point("after_step_ended"))
    around(transacting.Transacting, "commit", before=point("before_transaction_committed"))
    around(transacting.Transacting, "conclude", after=point("transaction_committed_uncommitted"))
    around(undoing.Undoing, "claim", after=uncommitted("step_claimed", lambda value, *_: value is not None))
    around(undoing.Undoing, "finish", after=uncommitted("undo_marked"))
    around(undoing.Undoing, "give_up", after=uncommitted("given_up"))
    around(steps, "move_on_when_free", after=uncommitted("item_moved_on"))
    around(coordinator.Coordinator, "commit", before=lambda *_: done.clear(), after=committed)
    answers = lambda _value, _self, now: bool(now.recorded_promises)
    around(coordinator.Coordinator, "acknowledge", after=point("after_undo_answered", answers))
    steps_of = lambda _value, _self, now: any(made.dispatch_id < 0 for _, made, _ in now.outgoing)
    around(coordinator.Coordinator, "send", after=point("after_step_sent", steps_of))
    around(opening, "recover_steps", before=point("before_recovery"), after=point("after_recovery"))
    around(rolling_back, "mark", after=point("rollback_chosen_uncommitted"))
    around(session, "choose_rollback", after=point("after_rollback_chosen"))
    around(session, "write_end", before=point("before_conclude"), after=point("after_conclude"))
    around(ending, "conclude", after=point("conclude_uncommitted"))


def live(life: dict) -> int:
    """
    Do what a life is for, in its folder, and return its exit code.

    ``python FILE`` is a program, other words are a command; without any it is a rollback, which leaves in a file what it did.
    """
    from durabatch.cli.main import main as command
    from durabatch.engine.rollback import Scope
    from durabatch.runner.request import RunRequest
    from durabatch.runner.session import execute

    sys.path.insert(0, os.getcwd())
    if life["words"][:1] == ["python"]:
        runpy.run_path(life["words"][1], run_name="__main__")
        return 0
    if life["words"]:
        command(life["words"])
    summary = execute(RunRequest(verb="rollback", ledger="l.db", scope=Scope(), **life["how"]))
    done = summary.rolled_back
    Path("rolled_back").write_text(json.dumps({"steps": done.steps, "ran": done.ran, "left": done.unresolved_count}))
    return summary.exit_code


def forked(life: dict) -> dict:
    """Live it in a process of its own, and tell how it ended."""
    folder, told = Path(life["folder"]), Path(life["folder"], "rolled_back")
    told.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            os.environ.update(DIE=life["die"] or "", LIFE=f"{life['number']}:{os.getpid()}")
            errors = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            code = live(life)
        except SystemExit as end:
            code = end.code
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"Traceback: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reached = folder / f"reached-{life['number']}"
    return {
        "code": status,
        "has_died": (folder / f"died-{life['number']}").exists(),
        "reached": reached.stat().st_size if reached.exists() else 0,
        "said": (folder / "stderr").read_text(errors="replace"),
        "rolled_back": json.loads(told.read_text()) if told.exists() else None,
    }


def main() -> None:
    """Live what comes, line by line."""
    plant()
    import durabatch.runner.session  # noqa: F401 - loaded once, for all lives

    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


# -- its caller ---------------------------------------------------------------------------------------------------------------


class Lives:
    """Lives on ledgers named ``l.db``, with the handlers ``jobs.py`` and the input ``items.txt`` beside them."""

    def __init__(self) -> None:
        self.count = 0
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("COV_CORE_", "COVERAGE_"))}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**plain, "PYTHONPATH": str(ROOT)}
        )

    def live(self, folder, *words, die=None, **how) -> dict:
        """Have one life lived: ``live`` says of what, ``forked`` what is told of it. *die* is POINT:N:WHO."""
        self.count += 1
        life = {"number": self.count, "folder": str(folder), "words": list(map(str, words)), "die": die, "how": how}
        print(json.dumps(life), file=self.process.stdin, flush=True)
        told = json.loads(self.process.stdout.readline())
        assert "Traceback" not in told["said"], told["said"]
        return told

    def run(self, folder, *words, workers=0, die=None, function="work") -> dict:
        """Run the items, or go on with that."""
        common = ("--ledger", "l.db", "--progress", "none", "-j", workers, "--backoff", "1ms", "--retries", "2")
        return self.live(folder, "run", f"jobs.py:{function}", "items.txt", *common, *words, die=die)

    def resume(self, folder, *, workers=0, die=None) -> dict:
        """Go on with whatever was cut off."""
        return self.live(folder, "resume", "--ledger", "l.db", "--progress", "none", "-j", workers, die=die)

    def rollback(self, folder, *, workers=0, die=None, **how) -> dict:
        """Roll back, or go on with that."""
        return self.live(folder, die=die, overrides={"workers": workers}, **how)

    def close(self) -> None:
        """End the program."""
        self.process.stdin.close()
        self.process.wait(LIFE_S)
        self.process.stdout.close()


@contextlib.contextmanager
def lives():
    """Give lives, ended with the body."""
    made = Lives()
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    main()
