"""Programs of users, as processes of their own: guards, signals, forks, typed handlers."""

from __future__ import annotations

import os
import signal

import durabatch
from tests.api.typed import bill
from tests.crash.processes import eventually, is_alive

UNGUARDED = """
import os, durabatch

os.write(os.open("imports", os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"x")

def work(item):
    return item * 2

print([one.value for one in durabatch.map(work, range(5), workers=2, ordered=True)])
"""

GUARDED = """
import durabatch

def work(item):
    return item * 2

if __name__ == "__main__":
    print([one.value for one in durabatch.map(work, range(5), workers=2, ordered=True)])
"""

LONG = """
import os, sys, time
import durabatch

def work(item):
    os.write(os.open("calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT), f"{item}\\n".encode())
    time.sleep(0.01)
    return item

if __name__ == "__main__":
    try:
        for one in durabatch.map(work, range(300), workers=2):
            os.write(1, f"{one.key}\\n".encode())
    except KeyboardInterrupt:
        os.write(1, b"interrupted\\n")
        sys.exit(9)
"""

STUCK = """
import os, re, time
import durabatch

def work(item):
    if item == "stuck":
        open("begun", "w").close()
        # In C, without letting another thread of the worker run.
        return bool(re.match("(a+)+$", "a" * 60 + "b"))
    return item

if __name__ == "__main__":
    for one in durabatch.map(work, ["quick", "stuck"], workers=2, drain_s=0.2, term_grace_s=0.2):
        # Both were handed out in the same round.
        while not os.path.exists("begun"):
            time.sleep(0.01)
        break
    run = durabatch.Ledger().latest()
    print(one.key, run.status().state, [(one.outcome, one.error) for one in run.attempts("stuck")], run.status().counts.pending)
"""

FORKS = """
import os, sys, time
import durabatch

def work(item):
    time.sleep(0.005)
    return item

if __name__ == "__main__":
    count = 0
    for one in durabatch.map(work, range(100), workers=2, batch_size=10):
        count += 1
        if count in (5, 10):
            child = os.fork()
            if child == 0:
                sys.exit(0)    # ends as programs do: what is open is torn down, this loop with it
            os.waitpid(child, 0)
        if count == 20:
            lives_on = os.fork()
            if lives_on == 0:
                try:
                    durabatch.Ledger().latest().status()    # an opening of its own is in order
                finally:
                    time.sleep(60)
                    os._exit(0)
    # The child that lives on does not keep the ledger.
    again = sum(1 for _ in durabatch.map(work, range(100), workers=2, batch_size=10))
    retried = durabatch.Ledger().run(work, range(3), workers=1, name="next").counts.succeeded
    os.kill(lives_on, 9)
    os.waitpid(lives_on, 0)
    print(count, again, retried, durabatch.Ledger().verify())
"""


def test_a_script_without_the_guard_is_shown_it(here):
    """Workers import the script once each; the run in it is refused there, the script ends with an error that shows the guard, and nothing is spawned on and on."""
    done = here.script(UNGUARDED)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert "a run was started while a worker imported the handler's module" in done.stderr
    # The script itself and at most one look by each worker.
    assert 1 < len((here.path / "imports").read_text()) <= 3
    done = here.script(GUARDED)
    assert (done.returncode, done.stdout) == (0, "[0, 2, 4, 6, 8]\n"), done.stderr


def test_a_handler_of_the_script_itself_runs_in_workers(here):
    """With the guard, a function of __main__ is found by the workers in the script's file, also when the same script goes on later."""
    for _ in range(2):
        done = here.script(GUARDED)
        assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 2, 4, 6, 8]\n", "")
    (run,) = durabatch.Ledger().runs()
    assert (run.handler, run.name) == (f"{here.path}/program.py:work", "work")


def test_an_interrupted_loop_raises_keyboard_interrupt_after_draining(here):
    """SIGINT: running items are finished and yielded, then KeyboardInterrupt; the same program again does the rest, and nothing twice."""
    child = here.start(LONG)
    eventually(lambda: child.read(0.1) and len(child.lines()) > 10, "some results")
    workers = child.workers()
    child.signal(signal.SIGINT)
    assert child.end() == 9, child.stderr()
    *printed, last = child.lines()
    assert last == "interrupted"
    assert sorted(printed) == sorted(here.calls())
    assert len(printed) < 300
    assert not any(is_alive(*worker) for worker in workers.items())
    status = durabatch.Ledger().latest().status()
    assert (status.state, status.reason, status.exit_code) == ("halted", "stopped by SIGINT", 130)
    again = here.start(LONG)
    assert again.end() == 0, again.stderr()
    assert sorted(again.lines(), key=int) == sorted(here.calls(), key=int) == [str(number) for number in range(300)]


def test_a_program_that_only_ends_gets_its_signal_back(here):
    """Outside of the loop Ctrl-C is Python's own again."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert [one.value for one in durabatch.map(abs, [-1], workers=0)] == [1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        # Ignored, when the tests run in the background of a script.
        signal.signal(signal.SIGINT, before)


def test_leaving_the_loop_ends_a_worker_that_cannot_hear(here):
    """A handler that is stuck in C is interrupted, then killed, within the drain and the grace time; its item is uncharged and waits."""
    done = here.script(STUCK, timeout_s=20)
    assert done.stdout.strip() == "quick halted [('interrupted', None)] 1", done.stderr


def test_a_forked_child_leaves_the_run_to_its_parent(here):
    """Children forked in the middle of the loop: one that ends does not touch the run, one that lives on does not keep the ledger."""
    done = here.script(FORKS)
    assert (done.returncode, done.stdout.strip()) == (0, "100 100 3 []"), done.stderr


def test_typed_items_and_results(here):
    """An item is validated into the model of the annotation, a returned model is stored by its fields; one that does not fit is a failed item."""
    orders = [{"id": "a", "amount": "10.5", "day": "2026-01-31"}, {"id": "b", "amount": "much", "day": "2026-01-31"}]
    for workers in (1, 0):
        good, bad = durabatch.map(bill, orders, workers=workers, ordered=True, name=f"w{workers}")
        assert good.value == {"total": 15.75, "due": "2026-03-02"}
        assert (bad.key, bad.state) == ("b", "failed")
        assert bad.error.startswith("ValidationError: ")
        assert "amount" in bad.error


def test_a_worker_that_dies_with_the_program_is_gone_at_once(here):
    """kill -9 of the program that loops: its workers end by themselves within a second, and the same program again does the rest."""
    child = here.start(LONG)
    eventually(lambda: child.read(0.1) and len(child.lines()) > 10, "some results")
    workers = child.workers()
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(*worker) for worker in workers.items()), "the end of the workers", within_s=1)
    child.end()
    again = here.start(LONG)
    assert again.end() == 0, again.stderr()
    assert sorted(again.lines(), key=int) == [str(number) for number in range(300)]
    # At most what two workers had in flight ran twice, and what was finished in the last moments.
    assert len(here.calls()) - 300 <= 30
