"""``map``: a loop over results that can be left, killed and begun again."""

from __future__ import annotations

import os
import re

import pytest

import durabatch
from tests.api.handlers import bulky, double, name_of, picky, shifted, slow, third_time
from tests.crash.processes import children


def workers_left() -> list[int]:
    """Return the child processes of this one that are workers."""
    return [pid for pid in children(os.getpid()) if b"durabatch/workers" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_every_item_yields_its_value_or_its_error(here):
    """One result per item; a failed one has its error and no value, and does not end the loop."""
    results = {one.key: one for one in durabatch.map(picky, range(30), workers=2)}
    assert sorted(results, key=int) == [str(number) for number in range(30)]
    good = {key: one.value for key, one in results.items() if one.ok}
    assert good == {str(number): number * 2 for number in range(30) if number % 10 != 7}
    assert {(one.state, one.error, one.attempts) for one in results.values() if not one.ok} == {("failed", "ValueError: not 7", 1)}
    with pytest.raises(durabatch.ItemFailedError, match=r"item '7' is failed: ValueError: not 7\. "):
        _ = results["7"].value
    assert workers_left() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_ordered_yields_in_input_order(here, workers):
    """With ordered=True the results come as the items stand in the input, however they finish, also on a second call."""
    items = [f"i{number}" for number in range(60)]
    for _ in range(2):
        results = list(durabatch.map(double, items, workers=workers, batch_size=7, ordered=True))
        assert [(one.key, one.value) for one in results] == [(item, item * 2) for item in items]


@pytest.mark.parametrize(("workers", "ordered"), [(0, False), (2, False), (2, True)])
def test_a_loop_that_is_left_drains_and_the_same_call_goes_on(here, workers, ordered):
    """After a break nothing runs and the run is halted; the same call yields first what is recorded, and calls the handler only for the rest."""
    for one in durabatch.map(slow, range(60), workers=workers, ordered=ordered):
        first = one.key
        break
    assert workers_left() == []
    run = durabatch.Ledger().latest()
    status = run.status()
    assert (status.state, status.reason, status.counts.running) == ("halted", "the caller left", 0)
    recorded = [one.key for one in run.items(state="succeeded")]
    assert first in recorded
    assert sorted(here.calls()) == sorted(recorded)
    assert 0 < len(recorded) < 60
    again = [one.key for one in durabatch.map(slow, range(60), workers=workers, ordered=ordered)]
    assert again[: len(recorded)] == recorded or ordered
    assert sorted(again, key=int) == [str(number) for number in range(60)]
    assert sorted(here.calls(), key=int) == [str(number) for number in range(60)]


def test_a_finished_call_yields_all_again_and_calls_nothing(here):
    """The same call again answers from the ledger, failed items too."""
    first = list(durabatch.map(picky, range(30), workers=1))
    calls = here.calls()
    again = list(durabatch.map(picky, range(30), workers=1))
    assert again == sorted(first, key=lambda one: int(one.key))
    assert here.calls() == calls


def test_an_error_in_the_loop_body_leaves_a_run_that_goes_on(here):
    """An exception of the caller's own comes through, ends the workers, and costs nothing that was recorded."""
    with pytest.raises(ZeroDivisionError):
        for one in durabatch.map(slow, range(40), workers=2):
            _ = 1 / one.value if one.value == 0 else 1 / 0
    assert workers_left() == []
    assert len(list(durabatch.map(slow, range(40), workers=2))) == 40
    assert sorted(here.calls(), key=int) == [str(number) for number in range(40)]


@pytest.mark.parametrize("form", ["list", "generator", "spec", "path", "pathlike"])
def test_items_come_from_iterables_specs_and_paths(here, form):
    """A list, a generator, an input spec and a path give the same items."""
    (here.path / "words.txt").write_text("a\nb\nc\n")
    items = {
        "list": ["a", "b", "c"], "generator": (word for word in "abc"), "spec": durabatch.lines("words.txt"),
        "path": "words.txt", "pathlike": here.path / "words.txt",
    }  # fmt: skip
    assert {one.key: one.value for one in durabatch.map(double, items[form], workers=0)} == {"a": "aa", "b": "bb", "c": "cc"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([1, 2, 3], [1, 2, 4], "1 new (4), 1 gone (3)"), ([1, 2, 3], [0, 1, 2, 3], "1 new (0), 0 gone"), ([1, 2, 3], [1, 2], "0 new, 1 gone (3)"),
        ([1, 2, 3], [1, 2, 3, 4], "1 new (4), 0 gone"),
    ],
)  # fmt: skip
def test_a_changed_list_is_refused(here, before, after, told):
    """Another item, one more at either end, or one less: nothing is run, the message says what differs, and fresh=True starts anew."""
    assert len(list(durabatch.map(double, before, workers=0))) == 3
    with pytest.raises(durabatch.InputChangedError, match=re.escape(f"list has changed since run double was started: 0 changed, {told}")):
        list(durabatch.map(double, after, workers=0))
    assert len(here.calls()) == 3
    assert len(list(durabatch.map(double, after, workers=0, fresh=True))) == len(after)
    assert [run.name for run in durabatch.Ledger().runs()] == ["double", "double#2"]
    with pytest.raises(durabatch.InputChangedError):
        list(durabatch.map(double, before, workers=0))
    results = durabatch.map(double, before, workers=0, on_change="source")
    assert sorted(one.value for one in results if one.ok) == sorted(2 * item for item in before)


def test_records_are_known_by_their_key_field(here):
    """The field that key= names, else one called key or id, else the place in the input."""
    people = [{"name": "ann", "id": 7}, {"name": "bob", "id": 8}]
    assert {one.key: one.value for one in durabatch.map(name_of, people, workers=0, key="name", name="named")} == {
        "ann": "ann",
        "bob": "bob",
    }
    assert {one.key for one in durabatch.map(name_of, people, workers=0, name="by id")} == {"7", "8"}
    nameless = [{"name": "ann"}, {"name": "ann"}]
    assert len({one.key for one in durabatch.map(name_of, nameless, workers=0, name="by place")}) == 2
    with pytest.raises(durabatch.InputError, match=r"key 'ann' was already on line 1"):
        list(durabatch.map(name_of, nameless, workers=0, key="name", name="twice"))
    with pytest.raises(durabatch.NotFoundError):
        durabatch.Ledger()["twice"]


def test_params_reach_the_handler(here):
    """Python values stay what they are; an unknown or missing one is refused before anything is written."""
    values = [one.value for one in durabatch.map(shifted, [1, 2], workers=1, params={"by": 3, "label": "7"}, ordered=True)]
    assert values == ["47", "57"]
    with pytest.raises(durabatch.UsageError, match="takes no param 'bye'"):
        list(durabatch.map(shifted, [1], ledger="other.db", workers=0, params={"bye": 3}))
    with pytest.raises(durabatch.UsageError, match="by"):
        list(durabatch.map(shifted, [1], ledger="other.db", workers=0))
    assert not os.path.exists("other.db")


def test_tries_are_declared_by_the_handler_or_given(here):
    """@handler(max_attempts=3) gives three tries; the caller's own number wins; a result counts its tries."""
    (good,) = durabatch.map(third_time, ["a"], workers=1, name="r", backoff_s=0)
    assert (good.value, good.attempts) == ([3, "a", "r"], 3)
    (bad,) = durabatch.map(third_time, ["a"], workers=0, name="fewer", max_attempts=2, backoff_s=0)
    assert (bad.state, bad.error, bad.attempts) == ("failed", "OSError: try 2", 2)
    tries = durabatch.Ledger()["r"].attempts("a")
    assert [(one.number, one.outcome, one.error) for one in tries] == [
        (1, "failed", "OSError: try 1"), (2, "failed", "OSError: try 2"), (3, "succeeded", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"worker": 2}, "unknown setting 'worker'. Did you mean 'workers'?"),
        ({"zzz": 2}, "unknown setting 'zzz'. There are: workers, concurrency, "),
        ({"workers": -1}, "workers=-1 is not a whole number from 0 to 4,096"),
        ({"workers": "2"}, "workers='2' is not a whole number from 0 to 4,096"),
        ({"workers": True}, "workers=True is not a whole number from 0 to 4,096"),
        ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 to 1,000,000"),
        ({"pipeline_depth": 6}, "pipeline_depth=6 is not a whole number from 1 to 5"),
        ({"max_attempts": 0}, "max_attempts=0 is not a whole number from 1 to 1,000,001"),
        ({"drain_s": float("nan")}, "drain_s=nan is not a number of seconds, 0 or more"),
        ({"params": ["by"]}, "params=['by'] is not a mapping of names to values"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(here, settings, words):
    """A name that is no setting, or a value that is none for it, is a UsageError that says what there is."""
    with pytest.raises(durabatch.UsageError) as caught:
        list(durabatch.map(double, [1], **{"workers": 0, **settings}))
    assert str(caught.value).startswith(words)
    assert os.listdir() == []


def test_a_lambda_runs_in_this_process_alone(here):
    """What no worker can import runs with workers=0, by default too, and is refused with workers; it resumes by the same call, not without it."""
    seen = []
    triple = lambda item: seen.append(item) or item * 3
    for _ in durabatch.map(triple, range(9), batch_size=2):
        break
    with pytest.raises(durabatch.UsageError, match="no importable name, so worker processes cannot find it"):
        list(durabatch.map(triple, range(9), workers=2))
    run = durabatch.Ledger().latest()
    with pytest.raises(durabatch.UsageError, match="no importable name, so only its own program can call it"):
        run.resume()
    assert run.status().state == "halted"
    assert run.resume(handler=triple).counts.succeeded == 9
    assert [one.value for one in durabatch.map(triple, range(9))] == [item * 3 for item in range(9)]
    assert sorted(seen) == list(range(9))


def test_a_halted_run_raises_after_its_results(here):
    """Input that turns bad: the items before it are yielded, then RunHaltedError says why; when it begins badly, nothing is run."""

    def items(count):
        yield from range(count)
        raise OSError("the line is dead")

    found = []
    with pytest.raises(durabatch.RunHaltedError, match="bad input: generator: ended by OSError: the line is dead after 1,000 items"):
        found.extend(one.value for one in durabatch.map(double, items(1000), workers=0))
    assert sorted(found) == [number * 2 for number in range(1000)]
    with pytest.raises(durabatch.InputError, match="ended by OSError: the line is dead after 5 items"):
        list(durabatch.map(double, items(5), workers=0, name="other"))
    assert len(durabatch.Ledger().runs()) == 1


def test_packed_values_are_yielded_like_others(here):
    """Values that do not stand in the row come whole, from workers, from this process, and from the ledger."""
    for workers in (2, 0):
        for _ in range(2):
            found = {one.key: one.value["text"] for one in durabatch.map(bulky, range(20), workers=workers, name=f"w{workers}")}
            assert found == {str(number): f"{number}," * 1000 for number in range(20)}
    ((segments,),) = durabatch.Ledger().sql("SELECT count(*) FROM segment")[1]
    assert segments > 0
