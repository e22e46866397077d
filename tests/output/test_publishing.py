from __future__ import annotations

import contextlib
import errno
import json

import pytest

from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.errors import OutputFullError, UsageError
from durabatch.ledger import run as run_table
from durabatch.ledger.opening import open_ledger
from durabatch.output import text_file
from durabatch.output.one_file import GrowingFile
from durabatch.runner.delivering import Deliverer
from durabatch.runner.publishing import AT_ONCE, Publisher
from durabatch.settings import RunSettings
from durabatch.states import RunState
from tests import factory
from tests.factory import answer, give_back, take
from tests.output.reading import read_back


@pytest.fixture
def ledger(tmp_path):
    """Give an open ledger."""
    with contextlib.closing(open_ledger(tmp_path / "l.db", create=True)) as opened:
        yield opened


class Rounds:
    """A publisher that is closed with the test, and the numbers of the batches that somebody was called about."""

    def __init__(self, ledger, run, *, keep_order=True, output=None, **settings):
        self.numbers = []
        deliverer = Deliverer((lambda batch: self.numbers.append(batch.number),))
        settings = RunSettings(output=output and str(output), keep_order=keep_order, **settings)
        self.publisher = Publisher(ledger, run.run_id, run.name, settings, deliverer)

    def publish(self):
        """Write what has finished, have it delivered, and return what was told so far."""
        while self.publisher.publish() or not self.publisher.is_delivered:
            self.publisher.wait(5)
        return list(self.numbers)

    def finish(self):
        """End a session."""
        self.publish()
        self.publisher.finish()
        self.publisher.close()
        return list(self.numbers)


def handed_out(ledger, count, size=1):
    """Return a run whose items are all with workers, a dispatch for each batch."""
    run = factory.run_of(ledger, count)
    return run, [take(ledger, run, size, size=size) for _ in range(count // size)]


def test_batches_leave_as_they_finish(ledger):
    """Without keep_order nobody waits for a slower neighbour."""
    run, made = handed_out(ledger, 3)
    rounds = Rounds(ledger, run, keep_order=False)
    for index in (2, 0, 1):
        give_back(ledger, run, answer(made[index]))
        rounds.publish()
    assert rounds.finish() == [3, 1, 2]


def test_with_keep_order_a_batch_waits_for_all_lower_numbers(ledger, tmp_path):
    """Files and calls come in the order of the numbers, whatever order the batches finish in."""
    run, made = handed_out(ledger, 5)
    rounds, seen = Rounds(ledger, run, output=tmp_path / "out"), []
    for index in (2, 0, 4, 1, 3):
        give_back(ledger, run, answer(made[index]))
        seen.append(rounds.publish())
    assert seen == [[], [1], [1], [1, 2, 3], [1, 2, 3, 4, 5]]
    assert rounds.finish() == [1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "out" / "batch_0005.json").read_text())["batch"] == 5


def test_a_batch_that_waits_for_a_retry_holds_the_later_ones(ledger):
    """Open is open: an item of batch 1 that is tried again keeps batch 2 back until it has ended."""
    run, made = handed_out(ledger, 4, size=2)
    rounds = Rounds(ledger, run)
    give_back(ledger, run, answer(made[0], failing={"k1"}), max_attempts=2)
    give_back(ledger, run, answer(made[1]))
    assert rounds.publish() == []
    give_back(ledger, run, answer(take(ledger, run, 1, now_us=factory.NOW + 10**9)), max_attempts=2)
    assert rounds.finish() == [1, 2]


def test_what_waits_at_the_end_leaves_when_the_run_goes_on(ledger):
    """Finishing a stopped run ends though batches wait; the next session publishes them behind the one that held them."""
    run, made = handed_out(ledger, 3)
    rounds = Rounds(ledger, run)
    for index in (1, 2):
        give_back(ledger, run, answer(made[index]))
    assert rounds.finish() == []
    again = actives.load(ledger, run.run_id)
    rounds = Rounds(ledger, again)
    give_back(ledger, again, answer(made[0]))
    assert rounds.finish() == [1, 2, 3]


def test_a_batch_in_the_middle_that_is_open_again_holds_nothing_that_has_left(ledger):
    """After a retry of batch 2 only that batch leaves again, and what finishes behind it comes after it."""
    run, made = handed_out(ledger, 4)
    rounds = Rounds(ledger, run)
    for index in (0, 1, 2):
        give_back(ledger, run, answer(made[index]))
    rounds.publish()
    ledger.raw.execute(
        "UPDATE batch SET ended_count = 0, finished_at_us = NULL, published_at_us = NULL, delivered_at_us = NULL WHERE number = 2"
    )
    give_back(ledger, run, answer(made[3]))
    assert rounds.publish() == [1, 2, 3]
    ledger.raw.execute("UPDATE batch SET ended_count = 1, finished_at_us = 1 WHERE number = 2")
    assert rounds.finish() == [1, 2, 3, 2, 4]


@pytest.mark.parametrize("held", [False, True])
def test_more_batches_than_leave_at_once_all_leave(ledger, held):
    """A long line is worked off in turns, in order, and a line that is held does not turn forever."""
    count = 2 * AT_ONCE + 3
    run, made = handed_out(ledger, count)
    rounds = Rounds(ledger, run)
    for one in made[int(held) :]:
        give_back(ledger, run, answer(one))
    assert rounds.finish() == ([] if held else list(range(1, count + 1)))


# -- one file for all ---------------------------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def concluded(ledger, run, state=RunState.FINISHED):
    conclude(ledger, run, state, reason=None, exit_code=0, elapsed_us=1, now_us=factory.NOW)


def test_a_file_grows_under_another_name_and_gets_its_own_at_the_end(ledger, tmp_path):
    """While the run is on the finished batches stand in FILE.partial; then FILE has all succeeded items, and the failed ones lie beside it as input."""
    run, made = handed_out(ledger, 4, size=2)
    path = tmp_path / "sub" / "all.jsonl"
    rounds = Rounds(ledger, run, output=path)
    give_back(ledger, run, answer(made[0], failing={"k2"}))
    rounds.publish()
    assert lines(tmp_path / "sub" / "all.jsonl.partial") == [{"key": "k1", "value": "k1!"}]
    give_back(ledger, run, answer(made[1], packed={"k3"}))
    rounds.publish()
    concluded(ledger, run)
    rounds.finish()
    assert sorted(one.name for one in path.parent.iterdir()) == ["all.jsonl", "all.jsonl.failures.jsonl"]
    assert lines(path) == [{"key": key, "value": f"{key}!"} for key in ("k1", "k3", "k4")]
    assert lines(path.with_name("all.jsonl.failures.jsonl")) == ["k2"]


def test_a_file_that_has_grown_beyond_what_the_ledger_knows_is_cut_back(ledger, tmp_path):
    """What a crash left behind the recorded end is taken away, and the missing batches follow: nothing twice, nothing half."""
    run, made = handed_out(ledger, 3)
    path = tmp_path / "all.csv"
    for number, tail in ((0, "half a li"), (1, "k9,whole\n"), (2, "")):
        rounds = Rounds(ledger, run, output=path)
        give_back(ledger, run, answer(made[number]))
        rounds.publish()
        rounds.publisher.close()
        with (tmp_path / "all.csv.partial").open("a") as part:
            part.write(tail)
    concluded(ledger, run)
    Rounds(ledger, run, output=path).finish()
    assert path.read_text() == "key,value\nk1,k1!\nk2,k2!\nk3,k3!\n"


@pytest.mark.parametrize("harm", ["retry", "lost", "short", "elsewhere"])
def test_a_file_that_no_longer_holds_what_it_should_is_written_anew(ledger, tmp_path, harm):
    """A batch is open again, the file is lost or shorter than known, or it is to have another name: every batch is written once more."""
    run, made = handed_out(ledger, 3)
    path, part = tmp_path / "all.jsonl", tmp_path / "all.jsonl.partial"
    rounds = Rounds(ledger, run, output=path)
    for one in made[:2]:
        give_back(ledger, run, answer(one))
    rounds.publish()
    rounds.publisher.close()
    if harm == "retry":
        run_table.restart_output(ledger, run.run_id)
        ledger.raw.execute("UPDATE batch SET published_at_us = NULL WHERE number = 1")
    elif harm == "lost":
        part.unlink()
    elif harm == "short":
        part.write_text("{")
    path = tmp_path / "other.jsonl" if harm == "elsewhere" else path
    give_back(ledger, run, answer(made[2]))
    concluded(ledger, run)
    Rounds(ledger, run, output=path).finish()
    assert [one["key"] for one in lines(path)] == ["k1", "k2", "k3"]


def test_a_finished_file_grows_again_when_more_comes(ledger, tmp_path):
    """The old one stays under its name until the new one takes its place; done again without news it is left alone."""
    run, made = handed_out(ledger, 2)
    path = tmp_path / "all.jsonl"
    rounds = Rounds(ledger, run, output=path)
    give_back(ledger, run, answer(made[0]))
    rounds.publish()
    ledger.raw.execute("UPDATE run SET state = 'cancelled', finished_at_us = 1")
    rounds.finish()
    ledger.raw.execute("UPDATE run SET state = 'running', finished_at_us = NULL")
    rounds = Rounds(ledger, run, output=path)
    give_back(ledger, run, answer(made[1]))
    rounds.publish()
    assert [len(lines(one)) for one in (path, tmp_path / "all.jsonl.partial")] == [1, 2]
    concluded(ledger, run)
    rounds.finish()
    assert [one["key"] for one in lines(path)] == ["k1", "k2"]
    before = path.stat()
    Rounds(ledger, run, output=path).finish()
    assert (path.stat(), (tmp_path / "all.jsonl.partial").exists()) == (before, False)


def test_a_crash_between_record_and_name_gives_the_file_its_name(ledger, tmp_path, monkeypatch):
    """The ledger says done before the file is renamed; the next session renames it, and takes no copy that had begun to grow for it."""
    run, made = handed_out(ledger, 1)
    path, part = tmp_path / "all.jsonl", tmp_path / "all.jsonl.partial"
    rounds = Rounds(ledger, run, output=path)
    give_back(ledger, run, answer(made[0]))
    concluded(ledger, run)
    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "put_in_place", lambda self: None)
        rounds.finish()
    assert (path.exists(), part.exists()) == (False, True)
    Rounds(ledger, run, output=path).finish()
    assert (len(lines(path)), part.exists()) == (1, False)
    part.write_text("half")
    Rounds(ledger, run, output=path).finish()
    assert len(lines(path)) == 1


@pytest.mark.parametrize("name", ["all.jsonl", "all.db"])
def test_a_file_of_somebody_else_is_not_replaced(ledger, tmp_path, name):
    """What stands at the place before the first session is not ours, nor does it become so."""
    run, _ = handed_out(ledger, 1)
    (tmp_path / name).write_text("precious")
    for _ in range(2):
        with pytest.raises(UsageError, match=rf"--output: .*{name} exists"):
            Rounds(ledger, run, output=tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"


def test_two_runs_do_not_write_into_one_file(ledger, tmp_path):
    """The second one is told so, and the first goes on."""
    run, made = handed_out(ledger, 1)
    other, others = handed_out(ledger, 1)
    rounds, late = (Rounds(ledger, one, output=tmp_path / "all.jsonl") for one in (run, other))
    for one, back in ((run, made), (other, others)):
        give_back(ledger, one, answer(back[0]))
    rounds.publish()
    with pytest.raises(UsageError, match="is being written by another run"):
        late.publish()
    late.publisher.close()
    concluded(ledger, run)
    rounds.finish()
    assert len(lines(tmp_path / "all.jsonl")) == 1


def test_a_write_that_fails_is_made_again_from_the_recorded_end(ledger, tmp_path, monkeypatch):
    """No room in the middle of a batch: the run waits and tries again, and in the end every line stands there once."""
    run, made = handed_out(ledger, 6, size=3)
    path = tmp_path / "all.jsonl"
    rounds = Rounds(ledger, run, output=path)
    give_back(ledger, run, answer(made[0]))
    rounds.publish()
    give_back(ledger, run, answer(made[1]))
    with monkeypatch.context() as patch:
        patch.setattr(text_file.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        for _ in range(3):
            with pytest.raises(OutputFullError, match="no room on the disk"):
                rounds.publisher.publish()
    rounds.publish()
    concluded(ledger, run)
    rounds.finish()
    assert [one["key"] for one in lines(path)] == [f"k{number}" for number in range(1, 7)]


@pytest.mark.parametrize("name", ["all.db", "all.parquet", "all.xlsx", "all.json"])
def test_a_file_that_cannot_grow_is_written_at_the_end(ledger, tmp_path, name):
    """Nothing stands there before; then all succeeded items, in input order; it is not written again without news."""
    run, made = handed_out(ledger, 3)
    path = tmp_path / name
    rounds = Rounds(ledger, run, output=path, keep_order=False)
    for index in (2, 0, 1):
        give_back(ledger, run, answer(made[index], failing={"k2"}))
    rounds.publish()
    rounds.publisher.finish()
    assert list(tmp_path.glob("all*")) == []
    concluded(ledger, run)
    rounds.finish()
    assert read_back(path) == [("k1", "k1!"), ("k3", "k3!")]
    before = path.stat()
    Rounds(ledger, run, output=path).finish()
    assert path.stat() == before


def test_other_forms_of_batch_files_replace_those_of_before(ledger, tmp_path):
    """The format changes between sessions: every batch is written in the new one."""
    run, made = handed_out(ledger, 2)
    give_back(ledger, run, answer(made[0]))
    Rounds(ledger, run, output=tmp_path / "out").finish()
    give_back(ledger, run, answer(made[1]))
    Rounds(ledger, run, output=tmp_path / "out", output_format="csv").finish()
    assert sorted(one.name for one in (tmp_path / "out").glob("*.csv")) == ["batch_0001.csv", "batch_0002.csv"]
    assert (tmp_path / "out" / "batch_0002.csv").read_text() == "key,state,value,error,attempts\nk2,succeeded,k2!,,1\n"
