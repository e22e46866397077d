"""
Thousands of items through all decisions at once, under a manual clock and without a process.

``Session`` is a coordinator in small: it hands out, lets attempts end, buries workers and waits, and asks ``flow/`` for everything that is to
be decided. What a session leaves behind is what a ledger would hold, and the next session goes on from that.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from durabatch.flow.breaker import BreakerState
from durabatch.flow.halting import HaltRule
from durabatch.flow.pressure import Measurement, PressureLimits, Window
from durabatch.flow.rating import SharedPause, TokenBucket
from durabatch.flow.retrying import MAX_SNOOZES, AttemptEnd, ItemHistory, RetryPolicy, after_attempt
from durabatch.flow.sizing import DispatchSize
from durabatch.flow.suspecting import MAX_INTERRUPTIONS, regroup
from durabatch.flow.timing import AttemptLimit
from durabatch.limits import Breaker, Halt, Rate, Timeout
from durabatch.settings import RunSettings
from durabatch.states import ENDED_ITEM_STATES, AttemptOutcome, ItemState

START_US = 1_700_000_000_000_000
NEVER = float("inf")
#: No run here may take longer than that, by its own clock.
PATIENCE_S = 200_000.0
#: What an item does at its n-th start, which begins at 0; None never comes back, "die" kills its worker.
KINDS = {
    "good": lambda rng, start: "ok",
    "flaky": lambda rng, start: "ok" if rng.random() < 0.5 else "fail",
    "third time": lambda rng, start: "ok" if start >= 2 else "fail",
    "bad": lambda rng, start: "fail",
    "stuck": lambda rng, start: None,
    "poison": lambda rng, start: "die",
    "skipper": lambda rng, start: "skip",
    "sleeper": lambda rng, start: "ok" if start >= 5 else "snooze",
    "dreamer": lambda rng, start: "snooze",
    "limited": lambda rng, start: "ok" if start >= 2 else "later",
}
ENDS = {"skip": AttemptOutcome.SKIPPED, "snooze": AttemptOutcome.SNOOZED, "fail": AttemptOutcome.FAILED, "later": AttemptOutcome.FAILED}


@dataclass
class Item:
    """What a ledger would know of an item."""

    kind: str
    state: ItemState = ItemState.PENDING
    due_at_us: int = 0
    starts: int = 0
    charged: int = 0
    snoozes: int = 0
    deaths: int = 0
    interruptions: int = 0
    first_started_at_us: int | None = None
    outcomes: list = field(default_factory=list)


@dataclass
class Worker:
    """A process: its slots, and the group of suspects that it runs alone."""

    running: dict = field(default_factory=dict)
    group: list = field(default_factory=list)
    is_reserved: bool = False


class Run:
    """What outlives a session: items, groups of suspects, the bucket, the clock, and a log of starts."""

    def __init__(self, rng, shares, count, **settings):
        self.rng = rng
        self.settings = RunSettings(**settings)
        self.items = [Item(kind) for kind in rng.choices(list(shares), weights=list(shares.values()), k=count)]
        self.groups = []
        self.stored_bucket = None
        self.now_s = 0.0
        self.starts_s = []

    def all_of(self, kind):
        return [item for item in self.items if item.kind == kind]

    @property
    def is_over(self):
        return all(item.state in ENDED_ITEM_STATES for item in self.items)


class Session:
    """One coordinator's life: from its start to the end of the run, a stop, or its own death."""

    def __init__(self, run, machine=lambda rng, now_s: {}):
        settings = run.settings
        self.run, self.rng, self.machine = run, run.rng, machine
        self.policy = RetryPolicy.of(settings)
        self.halting = HaltRule(Halt.parse(settings.halt) if settings.halt else None, settings.canary)
        self.breaker = BreakerState(Breaker.parse(settings.breaker)) if settings.breaker else None
        self.bucket = TokenBucket(Rate.parse(settings.rate)) if settings.rate else None
        if self.bucket:
            self.bucket.restore(run.stored_bucket, self.now_us)
        self.pause = SharedPause()
        self.limit = AttemptLimit(Timeout.parse(settings.timeout) if settings.timeout else None)
        self.window = Window(settings.workers, PressureLimits.of(settings))
        self.size = DispatchSize()
        self.concurrency = settings.concurrency or 1
        self.workers = [Worker() for _ in range(settings.workers)]
        self.widest = 0
        self.measured_s = -1.0
        suspects = {item_id for group in run.groups for item_id in group}
        open_items = [item_id for item_id, item in enumerate(run.items) if item.state not in ENDED_ITEM_STATES and item_id not in suspects]
        self.pending = deque(item_id for item_id in open_items if run.items[item_id].state is ItemState.PENDING)
        self.scheduled = [
            (run.items[item_id].due_at_us, item_id) for item_id in open_items if run.items[item_id].state is ItemState.SCHEDULED
        ]
        heapq.heapify(self.scheduled)

    @property
    def now_s(self):
        return self.run.now_s

    @property
    def now_us(self):
        return START_US + round(self.run.now_s * 1e6)

    @property
    def out(self):
        return sum(len(worker.running) for worker in self.workers)

    def go(self, *, dies_after_s=NEVER):
        """Run to the end, to a stop, which is returned, or to the coordinator's own death."""
        deadline_s = self.now_s + dies_after_s
        while not self.run.is_over:
            assert self.now_s < PATIENCE_S, "the run does not end"
            self.measure()
            self.supervise()
            self.finish()
            stop = self.halting.verdict({})
            if stop is not None:
                return self.wind_up(stop)
            self.hand_out()
            self.advance()
            if self.now_s >= deadline_s:
                return self.die()
        return None

    # -- the machine and the clock

    def measure(self):
        """Ask the probe once a second."""
        if self.now_s - self.measured_s >= 1:
            self.measured_s = self.now_s
            self.window.decide(Measurement(self.now_s, **self.machine(self.rng, self.now_s)))
            assert 1 <= self.window.allowed <= len(self.workers)

    def advance(self):
        """Set the clock to when something may happen next."""
        limit_s = self.limit.seconds or NEVER
        times = [time for worker in self.workers for since_s, ends_s, _ in worker.running.values() for time in (ends_s, since_s + limit_s)]
        times += [self.measured_s + 1, (self.scheduled[0][0] - START_US) / 1e6 if self.scheduled else NEVER]
        times += [self.now_s + self.bucket.wait_s(self.now_us)] if self.bucket else []
        times += [self.breaker.opens_again_s] if self.breaker and self.breaker.opens_again_s else []
        self.run.now_s = min((time for time in times if time > self.now_s + 1e-6), default=self.now_s + 1) + 1e-6

    # -- handing out

    def leave(self):
        """Return how many items may be handed out."""
        if self.pause.left_s(self.now_s):
            return 0
        is_due = bool(self.scheduled) and self.scheduled[0][0] <= self.now_us
        limits = [
            self.halting.canary_left(self.out + len(self.scheduled), self.halting.ended, is_due=is_due),
            self.breaker.allowed(self.now_s, self.out) if self.breaker else None,
            self.bucket.allowed(self.now_us) if self.bucket else None,
        ]
        return min((limit for limit in limits if limit is not None), default=10**9)

    def hand_out(self):
        """Fill the slots of the workers in the window, those of a reserved one with its group alone."""
        self.isolate()
        takers = [worker for worker in self.workers if not worker.is_reserved][: self.window.allowed]
        for worker in takers:
            room = self.concurrency - len(worker.running)
            waiting = len(self.pending) + len(self.scheduled)
            count = self.size.for_worker(waiting=waiting, workers=len(takers), least=room, cap=min(room, self.leave()))
            for _ in range(count):
                item_id = self.next_ready()
                if item_id is None:
                    return
                self.start(worker, item_id)
        self.widest = max(self.widest, self.out)

    def isolate(self):
        """Have the first group of suspects run on a worker that has nothing else; the first one is kept free for it."""
        worker = self.workers[0]
        if not worker.is_reserved and self.run.groups:
            worker.is_reserved = True
        if worker.is_reserved and not worker.running and not worker.group:
            worker.is_reserved = bool(self.run.groups)
            worker.group = self.run.groups.pop(0) if self.run.groups else []
        while worker.group and len(worker.running) < self.concurrency and self.leave() > 0:
            self.start(worker, worker.group.pop(0))

    def next_ready(self):
        """Return the next item: one that is due, else the next in order."""
        if self.scheduled and self.scheduled[0][0] <= self.now_us:
            return heapq.heappop(self.scheduled)[1]
        return self.pending.popleft() if self.pending else None

    def start(self, worker, item_id):
        """Begin an attempt."""
        item = self.run.items[item_id]
        does = KINDS[item.kind](self.rng, item.starts)
        takes_s = self.rng.expovariate(20) + 1e-3
        worker.running[item_id] = (self.now_s, NEVER if does is None else self.now_s + takes_s, does)
        item.starts += 1
        item.state = ItemState.RUNNING
        item.first_started_at_us = item.first_started_at_us or self.now_us
        self.run.starts_s.append(self.now_s)
        if self.bucket:
            self.bucket.take(1)

    # -- ends

    def supervise(self):
        """End what runs for too long; its worker dies of it and the others on it go back."""
        limit_s = self.limit.seconds
        for worker in self.workers if limit_s is not None else []:
            late = [item_id for item_id, (since_s, _, _) in worker.running.items() if self.now_s - since_s >= limit_s]
            if late:
                for item_id in list(worker.running):
                    self.end(worker, item_id, AttemptOutcome.TIMED_OUT if item_id in late else AttemptOutcome.INTERRUPTED)

    def finish(self):
        """Let attempts end whose time has come."""
        for worker in self.workers:
            done = sorted((ends_s, item_id) for item_id, (_, ends_s, _) in worker.running.items() if ends_s <= self.now_s)
            for _, item_id in done:
                if item_id in worker.running:
                    since_s, ends_s, does = worker.running[item_id]
                    if does == "die":
                        self.bury(worker)
                    elif does == "ok":
                        self.succeed(worker, item_id, ends_s - since_s)
                    else:
                        after_s = {"snooze": 3.0, "later": 8.0}.get(does)
                        self.end(worker, item_id, ENDS[does], after_s=after_s)

    def succeed(self, worker, item_id, took_s):
        """Record a result."""
        del worker.running[item_id]
        item = self.run.items[item_id]
        item.state = ItemState.SUCCEEDED
        item.charged += 1
        item.outcomes.append(AttemptOutcome.SUCCEEDED)
        self.limit.observe(took_s)
        self.size.measure(1, took_s)
        self.halting.observe(ended=1, failed=0)
        if self.breaker:
            self.breaker.observe(True, None, self.now_s)

    def end(self, worker, item_id, outcome, *, after_s=None, alone=False):
        """Record another end of an attempt, and do with the item what is decided."""
        del worker.running[item_id]
        item = self.run.items[item_id]
        history = ItemHistory(item.charged, item.snoozes, item.deaths, item.first_started_at_us)
        decision = after_attempt(
            AttemptEnd(outcome, after_s=after_s, alone=alone), history, self.policy, now_us=self.now_us, luck=self.rng.random()
        )
        item.outcomes.append(outcome)
        item.charged += decision.charged
        item.snoozes += outcome is AttemptOutcome.SNOOZED
        item.deaths += outcome is AttemptOutcome.CRASHED
        item.state, item.due_at_us = decision.state, decision.due_at_us
        self.learn(item, outcome, after_s)
        if item.state is ItemState.SCHEDULED:
            heapq.heappush(self.scheduled, (item.due_at_us, item_id))
        elif item.state is ItemState.PENDING and outcome is not AttemptOutcome.CRASHED:
            self.pending.appendleft(item_id)

    def learn(self, item, outcome, after_s):
        """Tell the rules what happened."""
        if item.state in ENDED_ITEM_STATES:
            self.halting.observe(ended=1, failed=int(item.state in (ItemState.FAILED, ItemState.QUARANTINED)))
        if self.breaker and outcome in (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.CRASHED):
            self.breaker.observe(False, item.kind, self.now_s)
        if outcome is AttemptOutcome.FAILED and after_s is not None:
            self.pause.observe(after_s, self.now_s)

    def bury(self, worker):
        """A worker died: what it ran is under suspicion."""
        died = list(worker.running)
        group = [*died, *worker.group] if worker.is_reserved else []
        for item_id in died:
            self.end(worker, item_id, AttemptOutcome.CRASHED, alone=len(died) == 1)
        died = [item_id for item_id in died if self.run.items[item_id].state is ItemState.PENDING]
        group = [item_id for item_id in group if self.run.items[item_id].state is ItemState.PENDING]
        self.run.groups[:0] = regroup(group, died) if died else [group] if group else []
        worker.group = []

    # -- the end of the session

    def wind_up(self, stop):
        """Halt: running items end, or are interrupted."""
        while self.out and not stop.now:
            self.supervise()
            self.finish()
            self.advance()
        for worker in self.workers:
            for item_id in list(worker.running):
                self.end(worker, item_id, AttemptOutcome.INTERRUPTED)
        self.leave_behind()
        return stop

    def die(self):
        """The coordinator is killed: what ran is interrupted, and suspect when that happened too often."""
        suspects = []
        for worker in self.workers:
            for item_id in list(worker.running):
                self.end(worker, item_id, AttemptOutcome.INTERRUPTED)
                self.run.items[item_id].interruptions += 1
                if self.run.items[item_id].interruptions >= MAX_INTERRUPTIONS:
                    suspects.append(item_id)
        self.run.groups += [suspects] if suspects else []
        self.leave_behind()

    def leave_behind(self):
        """Put groups that were begun back, and keep what the rate must know."""
        for worker in self.workers:
            self.run.groups += [worker.group] if worker.group else []
            worker.group = []
        self.run.stored_bucket = self.bucket.as_json() if self.bucket else None


def assert_ended_well(run):
    """Whatever happened to a run: every item has ended, within its budgets, and each as its kind must."""
    policy = RetryPolicy.of(run.settings)
    for item in run.items:
        outcomes = item.outcomes
        assert item.state in ENDED_ITEM_STATES
        assert item.charged <= policy.max_attempts
        assert item.snoozes <= MAX_SNOOZES + 1
        assert (item.state is ItemState.QUARANTINED) is (item.kind == "poison")
        assert item.charged == sum(outcome in ("succeeded", "failed", "timed_out", "skipped") for outcome in outcomes) + (
            item.kind == "poison"
        )
        assert outcomes.count("succeeded") == (item.state is ItemState.SUCCEEDED)
    ended_as = {
        "good": {"succeeded"}, "sleeper": {"succeeded"}, "skipper": {"skipped"}, "bad": {"failed"}, "stuck": {"failed"}, "dreamer": {"failed"},
    }  # fmt: skip
    for kind, states in ended_as.items():
        assert {item.state for item in run.all_of(kind)} <= states
    assert all(item.charged == 1 for item in run.all_of("good"))
    assert all(item.charged == policy.max_attempts for item in run.all_of("bad"))
    if policy.max_attempts >= 3:
        assert {item.state for item in run.all_of("third time") + run.all_of("limited")} <= {"succeeded"}


def assert_within_rate(run):
    """In no stretch of time did more items start than the rate and one burst."""
    rate = Rate.parse(run.settings.rate)
    per_s = rate.items / rate.period_s
    for first in run.rng.sample(range(len(run.starts_s)), min(300, len(run.starts_s))):
        for length_s in (0.001, 1.0, 10.0, 300.0):
            last = bisect.bisect_right(run.starts_s, run.starts_s[first] + length_s)
            assert last - first <= per_s * length_s + max(1, per_s) + 0.01


MIX = {
    "good": 80,
    "flaky": 6,
    "third time": 4,
    "bad": 3,
    "skipper": 2,
    "sleeper": 2,
    "limited": 2,
    "dreamer": 0.1,
    "poison": 1,
    "stuck": 0.5,
}
PLAIN = {"workers": 4, "max_attempts": 4, "timeout": "5s", "backoff_cap_s": 20.0}


def stormy(rng, now_s):
    """A machine on which now this and now that runs short, calm in between."""
    wave = rng.random() if int(now_s / 40) % 2 else 0.0
    return {
        "memory_used": 0.95 if wave > 0.6 else 0.5,
        "free_disk_bytes": 1 << 20 if 0.5 < wave < 0.6 else 1 << 40,
        "commit_lag_s": 5.0 if 0.3 < wave < 0.5 else 0.0,
        "load_per_core": 9.0 if 0 < wave < 0.3 else 0.1,
    }


def strained(_rng, _now_s):
    """A machine that is never calm."""
    return {"memory_used": 0.99, "free_disk_bytes": 0, "commit_lag_s": 60.0, "load_per_core": 100.0}


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize(
    ("machine", "settings"),
    [
        (None, {}),
        (None, {"max_attempts": 1}),
        (None, {"rate": "1200/1m"}),
        (None, {"breaker": "50%,same=6,wait=5s"}),
        (stormy, {"max_load": 2.0}),
        (strained, {"max_load": 2.0}),
        (None, {"workers": 1}),
        (stormy, {"rate": "40/1s", "breaker": "60%,wait=2s", "max_load": 2.0, "max_attempts": 6}),
    ],
    ids=["plain", "one try", "rate", "breaker", "stormy", "strained", "one worker", "all"],
)
def test_every_item_ends_as_its_kind_must(machine, settings, concurrency, seed, scaled):
    """
    Good beside bad, stuck, sleeping and deadly items, whatever limits the run: all of them end, nobody pays for a neighbour, no budget is
    exceeded, and exactly the deadly ones are quarantined.
    """
    run = Run(random.Random(seed), MIX, scaled(6000), **{**PLAIN, "concurrency": concurrency, **settings})
    session = Session(run, machine or (lambda rng, now_s: {}))
    assert session.go() is None
    assert_ended_well(run)
    assert session.widest <= run.settings.workers * concurrency
    if "rate" in settings:
        assert_within_rate(run)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_run_whose_coordinator_keeps_dying_ends_all_the_same(concurrency, seed, scaled):
    """What ran is interrupted, uncharged, and after three times a suspect; due times and rate survive; the result is the same as without."""
    rng = random.Random(seed)
    run = Run(rng, MIX, scaled(4000), **{**PLAIN, "concurrency": concurrency, "rate": "3000/1m"})
    lives = 0
    while not run.is_over:
        lives += 1
        assert lives < 5000
        Session(run).go(dies_after_s=0.1 if lives < 5 else rng.choice([0.1, 2.0, 20.0]))
    assert_ended_well(run)
    assert_within_rate(run)
    assert lives > 3


def test_only_suspects_run_apart(seed, scaled):
    """In a run without deaths nobody is ever suspected; with them, of the innocents only those that ran beside a guilty one have died."""
    rng = random.Random(seed)
    peaceful = Run(rng, {**MIX, "poison": 0}, scaled(3000), **PLAIN, concurrency=4)
    Session(peaceful).go()
    assert sum(item.deaths for item in peaceful.items) == 0
    run = Run(rng, MIX, scaled(6000), **PLAIN, concurrency=4)
    Session(run).go()
    guilty = len(run.all_of("poison"))
    deaths = sum(item.deaths for item in run.items if item.kind != "poison")
    assert all(item.deaths == 3 or "crashed" in item.outcomes for item in run.all_of("poison"))
    assert deaths <= guilty * 3 * 3


@pytest.mark.parametrize("halt", ["now,fail=5", "soon,fail=5", "soon,fail=10%", "now,fail=10%"])
def test_a_halted_run_ends_by_being_resumed(halt, seed, scaled):
    """Each session stops soon after its limit, loses nothing, and the last one has nothing left to do."""
    rng = random.Random(seed)
    run = Run(rng, {**MIX, "bad": 20}, scaled(4000), **PLAIN, concurrency=4, halt=halt)
    stops = []
    while not run.is_over:
        session = Session(run)
        stop = session.go()
        stops += [stop] if stop else []
        assert stop is None or stop.reason.endswith(f"failed (--halt {halt})")
        assert session.halting.failed <= (5 if "%" not in halt else max(2, 0.5 * session.halting.ended)) + 16
        assert len(stops) < len(run.items)
    assert stops
    assert_ended_well(run)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_broken_handler_harms_the_canary_alone(retries, seed, scaled):
    """Nothing works: no more than the canary's items were ever started, retries or not, and the run stops."""
    run = Run(random.Random(seed), {"bad": 1}, scaled(1000), **{**PLAIN, "max_attempts": retries + 1, "canary": 7}, concurrency=8)
    stop = Session(run).go()
    assert stop.reason.endswith(" of the first 7 items failed (--canary 7)")
    assert sum(item.starts > 0 for item in run.items) <= 7


@pytest.mark.parametrize("kind", ["good", "third time", "skipper", "sleeper", "limited"])
def test_a_canary_that_passes_lets_the_others_follow(kind, seed, scaled):
    """Whatever the first ones do before they succeed: the run never waits for a canary that cannot end."""
    run = Run(random.Random(seed), {kind: 1}, scaled(500), **{**PLAIN, "canary": 7, "workers": 3}, concurrency=2)
    assert Session(run).go() is None
    assert_ended_well(run)


def test_a_canary_of_a_resumed_run_does_not_wait_for_ever(seed, scaled):
    """Items that wait from an earlier session take up its places until they are due, and then make way one by one."""
    run = Run(random.Random(seed), {"third time": 9, "poison": 1}, scaled(500), **PLAIN, concurrency=4)
    Session(run).go(dies_after_s=0.3)
    assert sum(item.state is ItemState.SCHEDULED for item in run.items) > 3
    run.settings = dataclasses.replace(run.settings, canary=3)
    while not run.is_over:
        Session(run).go()
    assert_ended_well(run)


def test_a_service_that_is_down_is_left_alone_and_found_again(seed, scaled):
    """While everything fails the breaker lets single probes through; once it works again the run goes on at full width."""
    rng = random.Random(seed)
    run = Run(rng, {"outage": 1}, scaled(3000), **{**PLAIN, "max_attempts": 50, "breaker": "50%,wait=10s"}, concurrency=4)
    KINDS["outage"] = lambda _rng, _start: "ok" if run.now_s > 600 or run.now_s < 1 else "fail"
    session = Session(run)
    session.go()
    KINDS.pop("outage")
    started_while_down = sum(5 < at_s < 600 for at_s in run.starts_s)
    assert {item.state for item in run.items} == {"succeeded"}
    assert started_while_down < 40
    assert run.now_s < 600 + 300 + 600


def test_the_share_of_a_median_ends_what_is_stuck(seed, scaled):
    """Without a fixed time: once twenty have succeeded, what takes many times as long as they do is ended and nobody else is."""
    run = Run(random.Random(seed), {"good": 95, "stuck": 1}, scaled(3000), **{**PLAIN, "timeout": "10000%"}, concurrency=25)
    assert Session(run).go() is None
    assert_ended_well(run)
    assert all("timed_out" not in item.outcomes for item in run.all_of("good"))


def test_an_items_deadline_bounds_its_life(seed, scaled):
    """No attempt begins once the time of an item over all its attempts is up."""
    run = Run(random.Random(seed), MIX, scaled(3000), **{**PLAIN, "max_attempts": 1000, "item_deadline_s": 60.0}, concurrency=2)
    Session(run).go()
    assert {item.state for item in run.all_of("bad") + run.all_of("stuck") + run.all_of("dreamer")} <= {"failed"}
    assert all(item.due_at_us is None for item in run.items if item.state is ItemState.FAILED)
    assert max(item.charged for item in run.items) < 1000
