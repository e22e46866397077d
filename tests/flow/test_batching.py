from __future__ import annotations

import itertools
import random
import sys

import pytest

from durabatch.errors import UsageError
from durabatch.flow.batching import (
    BatchSettings,
    BatchStrategy,
    ByteBatches,
    Filled,
    FixedBatches,
    Measured,
    MemoryBatches,
    TimeBatches,
    strategy,
    strategy_names,
)
from durabatch.flow.batching.bytes import cut_by_bytes
from durabatch.flow.batching.memory import next_size
from durabatch.flow.batching.time import fitting_size

EMPTY = Filled()


def batches_of(one, sizes, pieces=(7,), already=EMPTY):
    """Let items join batches the way the engine does, some at a time, and return the batches as lists of sizes; the last may be open."""
    batches, filled, start, turn = [[]], already, 0, 0
    while start < len(sizes):
        if one.is_full(filled):
            batches.append([])
            filled = EMPTY
        piece = sizes[start : start + pieces[turn % len(pieces)]]
        at = 0
        for count, fills in one.cut(piece, filled):
            assert count >= 1
            part = piece[at : at + count]
            batches[-1] += part
            filled = Filled(filled.items + count, filled.bytes + sum(part))
            at += count
            assert fills or at == len(piece)
            if fills:
                batches.append([])
                filled = EMPTY
        assert at == len(piece)
        start += len(piece)
        turn += 1
    return [batch for batch in batches if batch]


class Learning:
    """A strategy that learns something before each claim."""

    def __init__(self, one, rng):
        self.one = one
        self.rng = rng
        self.cut = one.cut

    def is_full(self, filled):
        used = self.rng.choice([None, 0.1, 0.7, 0.99])
        self.one.learn(Measured(self.rng.randint(0, 50), self.rng.choice([0.0, 0.1, 100.0]), used))
        return self.one.is_full(filled)


# -- what holds for all -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "fixed", "memory", "time"])
def test_a_strategy_is_what_it_says(name):
    """The built-in ones follow the interface that packages are held to."""
    assert isinstance(strategy(name, BatchSettings()), BatchStrategy)
    assert name in strategy_names()


@pytest.mark.parametrize("name", ["bytes", "fixed", "memory", "time"])
def test_every_item_joins_one_batch_whatever_is_learned(name, seed, scaled):
    """Pieces add up, none is empty, only the last batch stays open, and sizes stay within their bounds."""
    rng = random.Random(seed)
    for _ in range(scaled(200)):
        asked = rng.choice([1, 2, 10, 100])
        one = strategy(name, BatchSettings(asked, rng.choice([0.001, 1.0, 60.0]), 0.8))
        sizes = [rng.choice([1, 10, 1000, 10**6]) for _ in range(rng.randint(0, 400))]
        batches = batches_of(Learning(one, rng), sizes, pieces=[rng.randint(1, 50) for _ in range(5)])
        assert [size for batch in batches for size in batch] == sizes
        if name != "time":
            assert all(len(batch) <= 10 * asked for batch in batches)


# -- fixed --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(1,), (7,), (10,), (11,), (1000,), (3, 50)])
def test_fixed_batches_hold_so_many_items(pieces):
    """Batch k holds items (k-1)N+1 to kN, however they are claimed."""
    assert [len(batch) for batch in batches_of(FixedBatches(10), [5] * 34, pieces)] == [10, 10, 10, 4]


def test_fixed_batches_learn_nothing():
    """They are equal by their size alone."""
    one = FixedBatches(10)
    one.learn(Measured(1000, 1e6, 1.0))
    assert one == FixedBatches(10)


def test_a_batch_that_is_larger_than_batches_are_now_takes_no_more():
    """After a resume with a smaller size the open batch is simply full."""
    assert FixedBatches(10).is_full(Filled(25, 0))
    assert not FixedBatches(10).is_full(Filled(9, 10**9))
    assert list(FixedBatches(10).cut([1] * 12, Filled(7, 0))) == [(3, True), (9, False)]
    assert list(FixedBatches(10).cut([], Filled(7, 0))) == []


# -- memory -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "memory_used", "after"),
    [
        (100, 0.80, 50),
        (100, 0.73, 50),
        (100, 0.71, 100),
        (100, 0.56, 100),
        (100, 0.55, 125),
        (1, 0.99, 1),
        (1, 0.1, 2),
        (3, 0.1, 4),
        (900, 0.1, 1000),
        (1000, 0.1, 1000),
    ],
)
def test_sizes_follow_the_memory_in_use(size, memory_used, after):
    """Half near the threshold, a quarter more far below it, the same in between; from 1 to ten times what was asked for."""
    assert next_size(size, memory_used, threshold=0.8, asked=100) == after


def test_memory_batches_follow_a_recorded_series():
    """A machine that fills up, is pressed, and recovers."""
    one, sizes = MemoryBatches(100, 0.8), []
    for used in [0.50, 0.60, 0.65, 0.73, 0.79, 0.85, 0.74, 0.66, 0.60, 0.50, 0.40, 0.35]:
        one.learn(Measured(one.size, 1.0, used))
        sizes.append(one.size)
    assert sizes == [125, 125, 125, 62, 31, 15, 7, 7, 7, 8, 10, 12]


def test_a_step_needs_a_batchs_worth_of_items():
    """Many small measurements within one batch are one sign, and the highest of them counts."""
    one = MemoryBatches(100, 0.8)
    for _ in range(99):
        one.learn(Measured(1, 0.1, 0.1))
    assert one.size == 100
    one.learn(Measured(1, 0.1, 0.75))
    assert one.size == 50
    for used in (0.75, 0.1):
        one.learn(Measured(25, 0.1, used))
    assert one.size == 25


def test_unmeasured_memory_leaves_the_size_as_it_is():
    """Without a probe these are fixed batches."""
    one = MemoryBatches(100, 0.8)
    for _ in range(50):
        one.learn(Measured(1000, 1.0, None))
    assert one.size == 100


def test_an_open_batch_follows_a_size_that_shrank():
    """It is full then, with what it has."""
    one = MemoryBatches(100, 0.8)
    one.learn(Measured(100, 1.0, 0.9))
    assert one.is_full(Filled(60, 0))
    assert list(one.cut([1] * 60, EMPTY)) == [(50, True), (10, False)]


# -- time ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds_per_item", "before", "after"),
    [
        (0.1, 100, 100),
        (0.1, 60, 100),
        (0.1, 10, 20),
        (1.0, 100, 10),
        (100.0, 100, 1),
        (0.0, 100, 200),
        (1e-12, 900_000, 1_000_000),
        (3.0, 100, 3),
    ],
)
def test_as_many_items_as_fit_the_time(seconds_per_item, before, after):
    """At most twice as many as before, one at least, a million at most."""
    assert fitting_size(seconds_per_item, 10.0, before) == after


def test_time_batches_follow_a_recorded_series():
    """Items that become ten times as slow make batches a tenth as long."""
    one, sizes = TimeBatches(100, 10.0), []
    for seconds_per_item in [0.01] * 5 + [0.1] * 20:
        one.learn(Measured(50, 50 * seconds_per_item))
        sizes.append(one.size)
    assert sizes[:5] == [200, 400, 800, 1000, 1000]
    assert sizes[-1] == pytest.approx(100, rel=0.05)
    assert all(later <= sooner for sooner, later in itertools.pairwise(sizes[5:]))


def test_one_odd_item_does_not_turn_the_size_over():
    """Measurements weigh by their items."""
    one = TimeBatches(100, 10.0)
    for _ in range(10):
        one.learn(Measured(100, 10.0))
    one.learn(Measured(1, 5.0))
    assert 85 < one.size <= 100
    one.learn(Measured(0, 100.0))
    assert 85 < one.size <= 100


# -- bytes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "already", "pieces"),
    [
        ([10] * 5, EMPTY, [(2, True), (2, True), (1, False)]),
        ([10] * 5, Filled(1, 10), [(1, True), (2, True), (2, True)]),
        ([100, 1, 1], EMPTY, [(1, True), (2, False)]),
        ([1] * 7, EMPTY, [(5, True), (2, False)]),
        ([1], Filled(4, 4), [(1, True)]),
        ([], Filled(1, 10), []),
    ],
)
def test_bytes_are_cut_where_a_batch_is_full(sizes, already, pieces):
    """At 20 bytes or 5 items here; the item that reaches it is in it."""
    assert list(cut_by_bytes(sizes, already, 20, 5)) == pieces


def test_equal_items_make_the_batches_of_the_fixed_strategy():
    """So many times the mean is so many items when all are alike."""
    assert [len(batch) for batch in batches_of(ByteBatches(10), [50] * 34)] == [10, 10, 10, 4]


def test_batches_have_about_the_same_bytes(seed):
    """Items of very different size: the batches differ by no more than the largest item."""
    rng = random.Random(seed)
    sizes = [rng.choice([100, 1000, 20_000]) for _ in range(5000)]
    totals = [sum(batch) for batch in batches_of(ByteBatches(100), sizes)]
    mean = sum(sizes) / len(sizes)
    assert all(abs(total - 100 * mean) < 0.2 * 100 * mean + 20_000 for total in totals[5:-1])


def test_tiny_items_do_not_make_endless_batches():
    """After one huge item the mean is far above the rest; ten times the size is the end."""
    batches = batches_of(ByteBatches(10), [10**9] + [1] * 1000)
    assert max(len(batch) for batch in batches) == 100


def test_before_the_first_item_a_batch_goes_by_number():
    """A resumed run has an open batch and has seen no item yet."""
    one = ByteBatches(10)
    assert one.is_full(Filled(10, 1))
    assert not one.is_full(Filled(9, 10**12))
    one.learn(Measured(5, 1.0, 0.9))
    assert not one.is_full(Filled(9, 10**12))


# -- by name ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [("fixd", " Did you mean 'fixed'?"), ("memroy", " Did you mean 'memory'?"), ("qqq", ""), ("", ""), ("Fixed", " Did you mean 'fixed'?")],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name, hint):
    """One line, with the nearest name when there is one near."""
    with pytest.raises(UsageError) as raised:
        strategy(name, BatchSettings())
    assert str(raised.value).rstrip(".") == f"--batch-strategy: {name!r} is not one of bytes, fixed, memory, time.{hint}".rstrip(".")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Give a function that installs a package with entry points and a module ``their_batches``, for this test."""

    def install(points, code):
        info = tmp_path / "their_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[durabatch.batching]", *lines]) + "\n")
        (tmp_path / "their_batches.py").write_text(code)
        monkeypatch.delitem(sys.modules, "their_batches", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("their_batches", None)


def test_a_package_may_bring_a_strategy(package):
    """Found by its entry point, made with the settings of the run, and listed."""
    package(
        {"pairs": "their_batches:Pairs"},
        "class Pairs:\n"
        "    def __init__(self, settings): self.size = 2 * settings.size\n"
        "    def is_full(self, filled): return filled.items >= self.size\n"
        "    def cut(self, sizes, already): yield from ()\n"
        "    def learn(self, measured): self.learned = measured\n",
    )
    made = strategy("pairs", BatchSettings(size=21))
    assert (type(made).__name__, made.size) == ("Pairs", 42)
    assert strategy_names() == ["bytes", "fixed", "memory", "pairs", "time"]
    with pytest.raises(UsageError, match=r"bytes, fixed, memory, pairs, time\. Did you mean 'pairs'\?"):
        strategy("pair", BatchSettings())


def test_a_package_does_not_take_our_names(package):
    """``fixed`` is ours, whoever else claims it."""
    package({"fixed": "their_batches:Other"}, "Other = None\n")
    assert strategy("fixed", BatchSettings()) == FixedBatches(100)


@pytest.mark.parametrize(
    ("value", "code", "why"),
    [
        ("no_such_module:Thing", "", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("their_batches:Missing", "", "AttributeError: module 'their_batches' has no attribute 'Missing'"),
        ("their_batches:broken", "def broken(settings): raise ValueError('not\\n today')\n", "ValueError: not today"),
        ("their_batches:empty", "def empty(settings): return object()\n", "object lacks is_full, cut or learn"),
        ("their_batches:number", "number = 3\n", "TypeError: 'int' object is not callable"),
        ("their_batches:Thing", "syntax error here\n", "SyntaxError: "),
    ],
)
def test_a_strategy_that_does_not_work_is_its_packages_fault(package, value, code, why):
    """One line that names strategy, package and what is wrong, and what there is instead."""
    package({"theirs": value}, code)
    with pytest.raises(UsageError) as raised:
        strategy("theirs", BatchSettings())
    text = str(raised.value)
    assert text.startswith(f"--batch-strategy: 'theirs' of their-package ({value}) cannot be used: {why}")
    assert text.endswith("Use bytes, fixed, memory, time, or mend the package.")
    assert "\n" not in text
