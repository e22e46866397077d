"""``ledger.transaction``: steps that a program does itself, all of them or none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest

import durabatch
from durabatch.errors import LedgerFullError
from durabatch.runner import transacting
from tests.factory import rows

#: Where effects happen: names that are there, in the order in which they came.
WORLD: list[str] = []
#: Names that cannot be taken out, what is called before one is, and what was taken out.
STUCK: set[str] = set()
TAKEN: list[str] = []
QUICK = {"backoff_s": 0.0}


@durabatch.undo_action("tx-drop")
def drop(name):
    if name in STUCK:
        raise ConnectionError(f"no way to {name}")
    TAKEN.append(name)
    if name in WORLD:
        WORLD.remove(name)


@durabatch.undo_action("tx-mail", irreversible=True)
def unsend(to):
    raise AssertionError(to)


def make(name, ctx):
    ctx.undo("tx-drop", name=name)
    WORLD.append(name)
    return {"made": name}


def make_badly(name, *, ctx):
    make(name, ctx)
    raise ValueError(f"bad {name}")


async def make_later(name, ctx):
    await ctx.undo("tx-drop", name=name)
    await asyncio.sleep(0)
    WORLD.append(name)
    return name


@pytest.fixture
def ledger(here):
    """Give a ledger in a directory of its own, and an empty world."""
    for one in (WORLD, STUCK, TAKEN):
        one.clear()
    return durabatch.Ledger("l.db", durability="process")


def states(ledger):
    return {one.name: one.state for one in ledger.transactions()}


# -- commit ---------------------------------------------------------------------------------------------------------------------


def test_a_commit_keeps_effects_results_and_the_log(ledger):
    """Steps are items of a run that is called by the id; values are kept where JSON can hold them, and the log can still undo all of it."""
    with ledger.transaction("T") as tx:
        assert tx.do(make, "a") == {"made": "a"}
        assert tx.do(lambda ctx, one, two=2: [ctx.item_key, ctx.idempotency_key, one, two], 1, two={3}) == ["2:<lambda>", "T/2:<lambda>", 1, {3}]
        thing = tx.do(object)
        assert isinstance(thing, object)
        tx.files.write("f.txt", "text")
        tx.undo("tx-drop", name="b")
        WORLD.append("b")
        assert [(one.name, one.state, one.owner["pid"]) for one in ledger.transactions()] == [("T", "open", os.getpid())]
    assert (WORLD, Path("f.txt").read_text()) == (["a", "b"], "text")
    run = ledger["T"]
    assert [(one.key, one.state, one.value) for one in run.results()] == [
        ("1:make", "succeeded", {"made": "a"}), ("2:<lambda>", "succeeded", None), ("3:object", "succeeded", None),
        ("4:files.write", "succeeded", None), ("5:undo", "succeeded", None),
    ]  # fmt: skip
    payloads = [json.loads(row[0]) for row in rows("l.db", "SELECT payload FROM item ORDER BY item_id")]
    assert payloads == [["a", {}], [1, {"two": "{3}"}], {}, ["f.txt", {}], ["tx-drop", {"name": "b"}]]
    notes = [json.loads(row[0]) for row in rows("l.db", "SELECT detail FROM event WHERE kind = 'value_left_out'")]
    assert [note["key"] for note in notes] == ["2:<lambda>", "3:object"]
    assert (run.status().state, run.status().batch_count, run.status().exit_code) == ("finished", 5, 0)
    assert ledger.transactions()[0].entries == {"recorded": 3}
    assert ledger.verify() == []
    with pytest.raises(durabatch.UsageError, match=r"transaction 'T' is committed"), ledger.transaction("T"):
        pytest.fail("a committed transaction was opened again")
    summary = run.rollback(workers=0)
    assert (summary.exit_code, summary.rolled_back.steps, summary.status.state) == (0, 3, "rolled_back")
    assert (WORLD, TAKEN, Path("f.txt").exists()) == ([], ["b", "a"], False)


def test_an_empty_transaction_commits_and_one_that_fails_at_once_is_dropped(ledger):
    """Nothing was done, and nothing has to be undone."""
    with ledger.transaction("T"):
        assert ledger.transactions()[0].state == "open"
    with pytest.raises(KeyError), ledger.transaction("U"):
        raise KeyError("at once")
    assert states(ledger) == {"T": "committed", "U": "rolled_back"}
    assert ledger.verify() == []


# -- roll back ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_undoes_everything_in_reverse_and_goes_on(ledger, error):
    """Newest first over all steps, also what the block recorded itself; the same exception comes out, without a note. The id is free again."""
    with pytest.raises(type(error)) as caught, ledger.transaction("T", **QUICK) as tx:
        tx.do(make, "a")
        tx.files.mkdir("d")
        tx.do(make, name="b")
        tx.files.write("d/f.txt", b"1")
        tx.undo("tx-drop", name="never")
        raise error
    assert caught.value is error
    assert getattr(error, "__notes__", []) == []
    assert (WORLD, TAKEN, Path("d").exists()) == ([], ["never", "b", "a"], False)
    with ledger.transaction("T") as tx:
        assert tx.name == "T#2"
    assert states(ledger) == {"T": "rolled_back", "T#2": "committed"}
    assert {one.state for one in ledger["T"].results()} <= {"undone", "succeeded"}
    assert ledger.verify() == []


def test_what_remains_stands_in_a_note_and_keeps_the_id(ledger):
    """A step that cannot be undone stops the rollback; opening the id again tries again, and begins anew once nothing is left."""
    STUCK.add("a")
    with pytest.raises(ValueError, match="no") as caught, ledger.transaction("T", **QUICK) as tx:
        tx.do(make, "a")
        tx.do(make, "b")
        tx.undo("tx-mail", to="ann")
        raise ValueError("no")
    (note,) = caught.value.__notes__
    assert "'tx-drop' of step 1:make (failed, ConnectionError: no way to a)" in note
    assert "`durabatch rollback --transaction T --ledger l.db` tries again" in note
    assert (WORLD, states(ledger)) == (["a"], {"T": "halted"})
    with pytest.raises(durabatch.UndoError, match=r"'T' was left open, and effects remain: .*no way to a"), ledger.transaction("T", **QUICK):
        pytest.fail("it was opened though effects remain")
    STUCK.clear()
    with ledger.transaction("T") as tx:
        assert (WORLD, tx.name) == ([], "T#2")
    assert ledger.transactions()[0].entries == {"undone": 2, "irreversible": 1}
    assert states(ledger) == {"T": "rolled_back", "T#2": "committed"}


def test_a_step_that_fails_without_effects_can_be_caught(ledger):
    """The block goes on, and the transaction is committed with a failed step."""
    with ledger.transaction("T") as tx:
        with pytest.raises(ZeroDivisionError):
            tx.do(divmod, 1, 0)
        Path("there").touch()
        with pytest.raises(FileExistsError):
            tx.files.write("there", "")
        with pytest.raises(durabatch.UndoError, match="no undo action 'tx-drob'"):
            tx.undo("tx-drob", name="a")
        tx.do(make, "a")
    assert [one.state for one in ledger["T"].results()] == ["failed", "failed", "failed", "succeeded"]
    assert (WORLD, states(ledger), ledger.verify()) == (["a"], {"T": "committed"}, [])


def test_a_step_that_fails_with_effects_dooms_the_transaction(ledger):
    """Though it was caught, no further step begins, and the end of the block rolls back and says why."""
    with pytest.raises(durabatch.UndoError, match=r"step 2:make_badly has failed with effects .* 'T' was rolled back"):  # noqa: SIM117
        with ledger.transaction("T", **QUICK) as tx:
            tx.do(make, "a")
            with pytest.raises(ValueError, match="bad b"):
                tx.do(make_badly, "b")
            with pytest.raises(durabatch.UndoError, match="can only be rolled back"):
                tx.do(make, "c")
    assert (WORLD, TAKEN, states(ledger)) == ([], ["b", "a"], {"T": "rolled_back"})
    assert [one.state for one in ledger["T"].results()] == ["undone", "failed"]
    assert ledger.verify() == []


def test_steps_stand_in_a_row(ledger):
    """A step inside of a step, a coroutine function in a plain block, and an entry of a step that is over are refused; nothing is left behind."""
    kept = []

    def nested(ctx):
        kept.append(ctx)
        with pytest.raises(durabatch.UsageError, match=r"step 1:nested is running"):
            tx.do(make, "b")

    with ledger.transaction("T") as tx:
        tx.do(nested)
        with pytest.raises(durabatch.UsageError, match=r"make_later is a coroutine function.*async with"):
            tx.do(make_later, "a")
        with pytest.raises(durabatch.UsageError, match=r"returned something to be awaited"):
            tx.do(lambda ctx: make_later("a", ctx))
        with pytest.raises(durabatch.UndoError, match="was not recorded"):
            kept[0].undo("tx-drop", name="late")
        with pytest.raises(durabatch.LedgerInUseError, match=f"in use by pid {os.getpid()}"), durabatch.Ledger("l.db").transaction("U"):
            pytest.fail("two transactions were open at once")
    assert (WORLD, ledger.transactions()[0].entries) == ([], {})


@pytest.mark.parametrize(
    "function",
    [
        lambda ctx, one, *, two: (ctx, one, two),
        lambda one, ctx, *, two: (ctx, one, two),
        lambda one, *, two, ctx: (ctx, one, two),
    ],
)  # fmt: skip
def test_the_context_goes_where_ctx_stands(ledger, function):
    """Before, between or behind the arguments; what the caller gives by that name is the caller's."""

    def annotated(one, where: durabatch.Context, two):
        return where, one, two

    with ledger.transaction("T") as tx:
        for called in (function, annotated):
            context, one, two = tx.do(called, 1, two=2)
            assert (type(context), one, two) == (durabatch.Context, 1, 2)
        assert tx.do(function, 1, two=2, ctx=3) == (3, 1, 2) if function.__code__.co_varnames[0] != "ctx" else True


def test_a_commit_that_fails_says_that_the_transaction_may_be_open(ledger, monkeypatch):
    """The error comes out with a note; the ledger is free, and the transaction is listed as left open."""
    with pytest.raises(LedgerFullError) as caught, ledger.transaction("T") as tx:
        tx.do(make, "a")

        def full():
            raise LedgerFullError("l.db", "the disk is full")

        monkeypatch.setattr(tx.core, "commit", full)
    assert caught.value.__notes__ == ["transaction 'T' may be open still: `durabatch transactions` shows it"]
    assert states(ledger) == {"T": "abandoned"}


@pytest.mark.parametrize("verb", ["submit", "claim", "record", "finish"])
def test_a_ledger_that_cannot_be_written_for_a_moment_harms_one_step_at_most(ledger, monkeypatch, verb):
    """Before its effect a step is as if it had never been, and the block may go on; behind it, everything is rolled back. The counters stay true."""
    whole = getattr(transacting, verb)
    times = []

    def full(*arguments, **rest):
        times.append(verb)
        if len(times) == 2:
            raise LedgerFullError("l.db", "the disk is full")
        return whole(*arguments, **rest)

    monkeypatch.setattr(transacting, verb, full)
    expected = contextlib.nullcontext() if verb != "finish" else pytest.raises(durabatch.UndoError, match="step 2:make has not ended")
    with expected, ledger.transaction("T", **QUICK) as tx:
        tx.do(make, "a")
        with pytest.raises(LedgerFullError):
            tx.do(make, "b")
        if verb != "finish":
            tx.do(make, "c")
    assert (WORLD, states(ledger)) == (([], {"T": "rolled_back"}) if verb == "finish" else (["a", "c"], {"T": "committed"}))
    assert [one.state for one in ledger["T"].results()] == {
        "submit": ["succeeded"] * 2, "claim": ["succeeded"] * 2, "record": ["succeeded", "failed", "succeeded"], "finish": ["undone", "pending"],
    }[verb]  # fmt: skip
    assert ledger.verify() == []


def test_a_forked_child_neither_commits_nor_rolls_back(ledger):
    """It leaves the block with an exception; its parent goes on, and what was done stays."""
    with ledger.transaction("T") as tx:
        tx.do(make, "a")
        child = os.fork()
        if child == 0:
            try:
                tx.__class__.end(tx, ValueError("in the child"))
            finally:
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        tx.do(make, "b")
    assert (WORLD, TAKEN, states(ledger)) == (["a", "b"], [], {"T": "committed"})


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201])
def test_an_id_is_a_short_text(ledger, name):
    """What cannot be typed or listed is refused, before there is a ledger."""
    with pytest.raises(durabatch.UsageError, match="this is no id"), ledger.transaction(name):
        pytest.fail("it was opened")


def test_runs_and_transactions_keep_their_names_apart(ledger):
    """The name of a run is no id; resume, retry, run, cancel and pause are not for transactions; no name at all never means one."""
    ledger.run(make_nothing, [1], name="R", workers=0)
    with pytest.raises(durabatch.UsageError, match=r"transaction 'R': is a run"), ledger.transaction("R"):
        pytest.fail("it was opened")
    with pytest.raises(durabatch.UsageError, match=r"unknown setting 'wrokers'"):
        ledger.transaction("T", wrokers=1)
    with ledger.transaction("T"), pytest.raises(durabatch.UsageError, match="T is a transaction, and pause is for runs"):
        ledger["T"].pause()
    for verb in ("resume", "retry", "cancel"):
        with pytest.raises(durabatch.UsageError, match=f"T is a transaction, and {verb} is for runs"):
            getattr(ledger["T"], verb)()
    with pytest.raises(durabatch.UsageError, match="T is a transaction, and run is for runs"):
        ledger.run(make_nothing, [1], name="T", workers=0)
    assert ledger.latest().status().name == "R"


def make_nothing(item):
    return item


# -- after a crash --------------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys
import durabatch

@durabatch.undo_action("rmdir")
def rmdir(path):
    if os.path.isdir(path):
        os.rmdir(path)

def make(path, ctx):
    ctx.undo("rmdir", path=os.path.abspath(path))
    os.mkdir(path)
    if path == sys.argv[1]:
        os._exit(9)

if __name__ == "__main__":
    with durabatch.Ledger("l.db").transaction("T") as tx:
        for path in ("a", "b", "c"):
            tx.do(make, path)
"""


def test_a_crash_leaves_it_open_until_the_same_id_is_opened(here):
    """Killed in the middle of a step, nothing is undone by itself; the same program again undoes it first, then does all of it as T#2."""
    assert here.script(PROGRAM, "b").returncode == 9
    ledger = durabatch.Ledger("l.db")
    (left,) = ledger.transactions()
    assert (left.state, left.steps.succeeded, left.steps.running, left.entries, left.owner) == ("abandoned", 1, 1, {"recorded": 2}, None)
    assert {"a", "b"} <= {path.name for path in here.path.iterdir()}
    again = here.script(PROGRAM, "none")
    assert (again.returncode, again.stderr) == (0, "")
    assert states(ledger) == {"T": "rolled_back", "T#2": "committed"}
    assert {path.name for path in here.path.iterdir() if path.is_dir()} == {"a", "b", "c"}
    assert ledger.verify() == []
    # From another process than the one that did it: the run names the module.
    summary = ledger["T"].rollback()
    assert (summary.exit_code, {path.name for path in here.path.iterdir() if path.is_dir()}) == (0, set())


@pytest.mark.parametrize("moment", ["before the first step", "in a step without effects"])
def test_a_crash_without_effects_needs_nothing_but_its_end(ledger, moment):
    """What died before it did anything is rolled back like any other, by opening its id."""
    child = os.fork()
    if child == 0:
        with ledger.transaction("T") as tx:
            tx.do(lambda: os._exit(9)) if moment != "before the first step" else os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert states(ledger) == {"T": "abandoned"}
    with ledger.transaction("T"):
        assert states(ledger) == {"T": "rolled_back", "T#2": "open"}
    assert ledger.verify() == []


# -- async ----------------------------------------------------------------------------------------------------------------------


def test_async_steps_are_done_one_after_the_other(ledger):
    """Coroutine functions, plain ones in a thread, files and entries of the block; awaited together they still stand in a row."""

    async def main():
        async with ledger.transaction("T") as tx:
            values = await asyncio.gather(tx.do(make_later, "a"), tx.do(make, "b"), tx.do(make_later, name="c"))
            await tx.files.write("f.txt", "text")
            await tx.undo("tx-drop", name="d")
            return values, tx.name

    assert asyncio.run(main()) == (["a", {"made": "b"}, "c"], "T")
    assert (WORLD, Path("f.txt").read_text(), states(ledger)) == (["a", "b", "c"], "text", {"T": "committed"})
    assert [one.key for one in ledger["T"].results()] == ["1:make_later", "2:make", "3:make_later", "4:files.write", "5:undo"]


@pytest.mark.parametrize("how", ["raise", "cancel", "forget", "nest"])
def test_an_async_transaction_rolls_back(ledger, how):
    """After an exception, a cancel in the middle of a step, a step that nobody awaited, and one inside of another."""

    async def hang(ctx):
        await ctx.undo("tx-drop", name="hang")
        WORLD.append("hang")
        await asyncio.sleep(60)

    async def main():
        async with ledger.transaction("T", **QUICK) as tx:
            await tx.do(make_later, "a")
            await tx.do(make, "b")
            if how == "raise":
                raise ValueError("no")
            if how == "cancel":
                await asyncio.wait_for(tx.do(hang), 0.05)
            if how == "forget":
                tx.do(make_later, "c")
            if how == "nest":
                await tx.do(lambda: tx.do(make_later, "d"))

    expected = {"raise": (ValueError, "no"), "cancel": (TimeoutError, None), "forget": (durabatch.UndoError, r"tx\.do\(make_later\) was not awaited"),
                "nest": (durabatch.UsageError, "inside of a step")}  # fmt: skip
    with pytest.raises(expected[how][0], match=expected[how][1]):
        asyncio.run(main())
    assert (WORLD, TAKEN[-2:], states(ledger)) == ([], ["b", "a"], {"T": "rolled_back"})
    assert ledger.verify() == []


def test_an_async_transaction_that_is_cancelled_while_it_begins_holds_nothing(ledger):
    """The ledger is free afterwards, and the transaction is over."""

    async def main():
        async with ledger.transaction("T"):
            pytest.fail("it was begun")

    async def cancelled():
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    with ledger.transaction("T") as tx:
        assert tx.name == "T#2"
    assert states(ledger) == {"T": "rolled_back", "T#2": "committed"}


def test_an_async_step_that_forgets_to_await_its_entry_fails(ledger):
    """The effect may have come before its entry: the step fails, and everything is rolled back."""

    async def careless(ctx):
        ctx.undo("tx-drop", name="x")

    async def main():
        async with ledger.transaction("T", **QUICK) as tx:
            await tx.do(careless)

    with pytest.raises(durabatch.UndoError, match=r"ctx\.undo\('tx-drop'\) was not awaited"):
        asyncio.run(main())
    assert (TAKEN, states(ledger)) == (["x"], {"T": "rolled_back"})
