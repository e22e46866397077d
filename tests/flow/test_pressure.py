from __future__ import annotations

import random

import pytest

from durabatch.flow.pressure import Change, Measurement, PressureLimits, Window
from durabatch.settings import RunSettings

LIMITS = PressureLimits(memory_threshold=0.8, min_free_disk_bytes=200 << 20, max_load=2.0)
CALM = {"memory_used": 0.3, "free_disk_bytes": 10 << 30, "load_per_core": 0.5, "commit_lag_s": 0.01}
PRESSED = {
    "memory": {"memory_used": 0.9},
    "disk": {"free_disk_bytes": 100 << 20},
    "load": {"load_per_core": 3.0},
    "commit lag": {"commit_lag_s": 2.5},
}


class Machine:
    """A window with a clock: each look is a second after the one before."""

    def __init__(self, workers=8, limits=LIMITS):
        self.window = Window(workers, limits)
        self.now_s = 0.0

    def look(self, *, after_s=1.0, **measured):
        """Measure once; what is not given is calm."""
        self.now_s += after_s
        return self.window.decide(Measurement(self.now_s, **{**CALM, **measured}))

    def allowed(self, times, **measured):
        """Return how wide the window is after each of some equal measurements."""
        seen = []
        for _ in range(times):
            self.look(**measured)
            seen.append(self.window.allowed)
        return seen


def test_a_calm_machine_changes_nothing():
    """All workers get items, and nobody is told anything."""
    machine = Machine()
    assert [machine.look() for _ in range(5)] == [None] * 5
    assert (machine.window.allowed, machine.window.binding) == (8, None)


def test_short_memory_is_first_met_by_collecting_garbage():
    """Only when the next measurement is as bad does the window halve, step by step down to one worker."""
    machine = Machine()
    first = machine.look(memory_used=0.9, workers_memory_bytes=3 << 30)
    assert first == Change(8, None, True, "90% of memory in use, workers hold 3,072 MiB (--memory-threshold 80%): workers collect garbage")
    second = machine.look(memory_used=0.9)
    assert second == Change(4, "memory", False, "90% of memory in use (--memory-threshold 80%): 4 of 8 workers get items")
    assert machine.allowed(4, memory_used=0.9) == [2, 1, 1, 1]
    assert machine.look(memory_used=0.9) is None


def test_garbage_that_helped_leaves_the_window_wide():
    """A first sign that is gone again narrows nothing, and the next one is a first sign again."""
    machine = Machine()
    assert machine.look(memory_used=0.9).collect
    assert machine.look() is None
    assert machine.look(memory_used=0.9).collect
    assert machine.window.allowed == 8


@pytest.mark.parametrize(("cause", "widths"), [("disk", [1, 1, 1]), ("load", [4, 2, 1]), ("commit lag", [4, 2, 1])])
def test_other_pressure_narrows_at_once(cause, widths):
    """Little disk leaves one worker, the others halve; the limit has a name."""
    machine = Machine()
    assert machine.allowed(3, **PRESSED[cause]) == widths
    assert machine.window.binding == cause


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("disk", "100 MiB free at the ledger (--min-free-disk 200MiB): 1 of 8 workers get items"),
        ("load", "load is 3.0 per core (--max-load 2): 4 of 8 workers get items"),
        ("commit lag", "a commit took 2.5 s: 4 of 8 workers get items"),
    ],
)
def test_the_change_is_told_in_a_sentence(cause, text):
    """What was measured, against which limit, and what comes of it."""
    assert Machine().look(**PRESSED[cause]).text == text


@pytest.mark.parametrize("cause", PRESSED)
def test_the_window_widens_by_one_for_each_calm_second(cause):
    """Up to all of them; the limit is named until then."""
    machine = Machine(4)
    machine.allowed(4, **PRESSED[cause])
    assert (machine.window.allowed, machine.window.binding) == (1, cause)
    changes = [machine.look() for _ in range(4)]
    assert [change and (change.allowed, change.binding) for change in changes] == [(2, cause), (3, cause), (4, None), None]
    assert changes[0].text == f"{cause} is calm again: 2 of 4 workers get items"


@pytest.mark.parametrize(
    "band",
    [{"memory_used": 0.78}, {"free_disk_bytes": 210 << 20}, {"load_per_core": 1.95}, {"commit_lag_s": 1.9}],
    ids=lambda band: str(*band),
)
def test_between_pressed_and_calm_nothing_changes(band):
    """A value that has just fallen below its limit does not widen the window, or it would swing."""
    machine = Machine()
    machine.look(load_per_core=3.0)
    assert machine.allowed(20, **band) == [4] * 20
    assert machine.allowed(2) == [5, 6]


def test_measurements_that_follow_too_closely_make_one_step():
    """Halving by the second, however often somebody looks."""
    machine = Machine(64)
    assert machine.look(commit_lag_s=9.0).allowed == 32
    assert [machine.look(after_s=0.1, commit_lag_s=9.0) for _ in range(8)] == [None] * 8
    assert machine.look(after_s=0.2, commit_lag_s=9.0).allowed == 16
    assert [machine.look(after_s=0.1) for _ in range(8)] == [None] * 8
    assert machine.look(after_s=0.2).allowed == 17


def test_a_calm_second_begins_when_the_last_value_became_calm():
    """Time spent in between does not count as calm."""
    machine = Machine()
    machine.look(load_per_core=3.0)
    machine.look(after_s=5.0, load_per_core=1.95)
    assert machine.look(after_s=0.3) is None
    assert machine.look(after_s=0.7).allowed == 5


def test_a_full_disk_waits_for_no_second():
    """What was just narrowed for another reason goes down to one worker at once."""
    machine = Machine()
    machine.look(load_per_core=3.0)
    assert machine.look(after_s=0.1, free_disk_bytes=0).allowed == 1


def test_of_several_pressures_the_harshest_is_named():
    """A full disk goes before all others; when it is gone, the next one has the say."""
    machine = Machine()
    everything = {name: value for values in PRESSED.values() for name, value in values.items()}
    assert machine.look(**everything).binding == "disk"
    everything["free_disk_bytes"] = CALM["free_disk_bytes"]
    assert machine.look(**everything).collect
    assert machine.look(**everything) == Change(
        1, "memory", False, "90% of memory in use (--memory-threshold 80%): 1 of 8 workers get items"
    )


def test_the_load_is_no_limit_unless_asked_for():
    """A busy machine is what a batch is for."""
    machine = Machine(limits=PressureLimits.of(RunSettings()))
    assert machine.look(load_per_core=500.0) is None
    assert machine.window.allowed == 8


def test_limits_are_read_from_the_settings():
    """Each by its name."""
    settings = RunSettings(memory_threshold=0.5, min_free_disk_bytes=7, max_load=1.5)
    assert PressureLimits.of(settings) == PressureLimits(0.5, 7, 1.5)


@pytest.mark.parametrize(
    "limits", [PressureLimits(memory_threshold=0.01), PressureLimits(memory_threshold=1.0), PressureLimits(min_free_disk_bytes=0)]
)
def test_extreme_limits_can_be_calm_too(limits):
    """No setting narrows the window for good."""
    machine = Machine(2, limits)
    machine.allowed(3, memory_used=1.0, free_disk_bytes=0)
    assert machine.allowed(3, memory_used=0.001)[-1] == 2


def test_one_worker_is_never_narrowed():
    """Nothing binds it, however hard the machine is pressed; garbage it does collect."""
    machine = Machine(1)
    assert machine.look(free_disk_bytes=0) is None
    assert machine.look(memory_used=0.9).collect
    assert machine.look(memory_used=0.9) is None
    assert (machine.window.allowed, machine.window.binding) == (1, None)


def test_no_workers_count_as_one():
    """Items that run in the calling process have a window of one."""
    machine = Machine(0)
    assert machine.window.allowed == 1
    machine.window.resize(0)
    assert machine.window.allowed == 1


def test_a_wide_window_follows_the_number_of_workers():
    """Scaled up or down, all of them get items."""
    machine = Machine(4)
    for workers in (9, 2):
        machine.window.resize(workers)
        assert (machine.window.allowed, machine.window.binding) == (workers, None)


def test_a_narrowed_window_stays_as_narrow():
    """More workers do not undo the pressure; they are let in by the calm second, like the others."""
    machine = Machine(8)
    machine.look(load_per_core=3.0)
    machine.window.resize(16)
    assert (machine.window.allowed, machine.window.binding) == (4, "load")
    machine.window.resize(3)
    assert (machine.window.allowed, machine.window.binding) == (3, None)
    assert machine.look() is None


def test_a_window_is_never_shut_and_always_opens_again(seed, scaled):
    """Whatever is measured, whatever the scale: from one worker to all, and all of them again after as many calm seconds."""
    rng = random.Random(seed)
    machine = Machine(8)
    for _ in range(scaled(20_000)):
        if rng.random() < 0.01:
            machine.window.resize(rng.randint(0, 40))
        pressed = [name for name in PRESSED if rng.random() < 0.15]
        values = {name: value for cause in pressed for name, value in PRESSED[cause].items()}
        before = machine.window.allowed, machine.window.binding
        change = machine.look(after_s=rng.choice([0.05, 1.0, 1.0, 60.0]), **values)
        window = machine.window
        assert 1 <= window.allowed <= window.workers
        assert (window.binding is None) is (window.allowed == window.workers)
        assert (change is None) or change.collect or (change.allowed, change.binding) != before
        assert change is not None or (window.allowed, window.binding) == before
        if rng.random() < 0.01:
            assert machine.allowed(window.workers + 1)[-1] == window.workers
