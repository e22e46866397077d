from __future__ import annotations

import pytest
from pydantic_core import from_json

from durabatch import errors
from durabatch.engine import active as actives
from durabatch.engine.conclude import conclude
from durabatch.engine.note_limit import note_limit
from durabatch.engine.pause import pause, unpause
from durabatch.engine.start import resume_run
from durabatch.engine.status import status
from durabatch.engine.steer import expire, open_orders, order, orders_of_run, outcome_of, settle
from durabatch.ledger import run
from durabatch.ledger.locks import Ownership
from durabatch.ledger.opening import open_ledger
from durabatch.ledger.reader import Reader
from durabatch.states import RunState
from tests import factory
from tests.factory import NOW

ME = {"user": "me", "pid": 7}


def events(ledger):
    """Return kind and detail of every event."""
    return [(kind, from_json(detail)) for kind, detail in ledger.raw.execute("SELECT kind, detail FROM event ORDER BY event_id")]


def test_an_order_reaches_the_coordinator_and_its_answer_comes_back(ledger, path):
    """Another connection asks, the coordinator finds it, carries it out and says so; who asked for what stays."""
    jobs = factory.run_of(ledger, 1)
    other = open_ledger(path)
    asked = order(other, jobs.run_id, "scale", {"workers": 3}, by=ME, now_us=NOW)
    (found,) = open_orders(ledger, jobs.run_id)
    assert (found.control_id, found.verb, found.argument, found.asked_by, found.outcome) == (asked, "scale", {"workers": 3}, ME, None)
    with Reader(path) as reader:
        assert outcome_of(reader, asked) is None
        assert settle(ledger, asked, "3 workers", NOW + 5)
        assert outcome_of(reader, asked) == "3 workers"
        assert [(one.verb, one.asked_at_us, one.applied_at_us) for one in orders_of_run(reader, jobs.run_id)] == [("scale", NOW, NOW + 5)]
    assert open_orders(ledger, jobs.run_id) == []
    other.close()


def test_orders_come_oldest_first_and_for_their_run(ledger):
    """Each run has its own."""
    jobs, other = factory.run_of(ledger, 1), factory.run_of(ledger, 1, series="other")
    for target, verb in ((jobs, "pause"), (other, "cancel"), (jobs, "unpause")):
        order(ledger, target.run_id, verb, {}, by=ME, now_us=NOW)
    assert [one.verb for one in open_orders(ledger, jobs.run_id)] == ["pause", "unpause"]
    assert [one.verb for one in open_orders(ledger, other.run_id)] == ["cancel"]


def test_what_became_of_an_order_is_said_once(ledger):
    """The first word stays."""
    jobs = factory.run_of(ledger, 1)
    asked = order(ledger, jobs.run_id, "drain", {}, by=ME, now_us=NOW)
    assert settle(ledger, asked, "draining", NOW)
    assert not settle(ledger, asked, "refused", NOW + 1)
    assert outcome_of(ledger, asked) == "draining"


def test_orders_to_a_coordinator_that_is_gone_are_not_carried_out_by_the_next(ledger):
    """Taking a run up again settles what was left open; what was settled keeps its answer."""
    jobs = factory.run_of(ledger, 1)
    first, second = (order(ledger, jobs.run_id, "pause", {}, by=ME, now_us=NOW) for _ in range(2))
    settle(ledger, first, "paused", NOW)
    resume_run(ledger, jobs.run_id, handler=factory.HANDLER, settings={}, fingerprint=None, now_us=NOW)
    assert (outcome_of(ledger, first), outcome_of(ledger, second)) == ("paused", "not carried out: the coordinator had ended")
    assert expire(ledger, jobs.run_id, NOW) == 0


def test_an_unknown_order_and_an_unknown_verb_are_errors(ledger):
    """The table refuses a verb that it does not know, and nothing is left of it."""
    jobs = factory.run_of(ledger, 1)
    with pytest.raises(errors.NotFoundError):
        outcome_of(ledger, 5)
    with pytest.raises(errors.LedgerError):
        order(ledger, jobs.run_id, "fly", {}, by=ME, now_us=NOW)
    assert orders_of_run(ledger, jobs.run_id) == []


def test_a_damaged_order_is_a_damaged_ledger(worked):
    """Not a traceback."""
    factory.sabotage(worked, "UPDATE control SET argument = '7'")
    with Reader(worked) as reader, pytest.raises(errors.LedgerDamagedError, match="order 1"):
        open_orders(reader, 2)


def test_a_pause_is_shown_with_its_reason_and_leaves_events(ledger):
    """The run is paused until it is running again; both stand among the events."""
    jobs = factory.run_of(ledger, 1)
    ownership = Ownership(ledger.files, {"run": "jobs"})
    pause(ledger, jobs, "asked for by me", NOW)
    assert (status(ledger, 1).state, status(ledger, 1).reason) == ("paused", "asked for by me")
    unpause(ledger, jobs, NOW + 1)
    assert (status(ledger, 1).state, status(ledger, 1).reason) == ("running", None)
    ownership.release()
    assert events(ledger)[1:] == [("paused", {"reason": "asked for by me"}), ("unpaused", {})]


def test_what_binds_a_run_is_shown_while_it_works(ledger):
    """Each change is an event with its measurements; after the run has stopped nothing binds it."""
    jobs = factory.run_of(ledger, 1)
    ownership = Ownership(ledger.files, {"run": "jobs"})
    note_limit(ledger, jobs, "memory", "2 of 4 workers: 91% of the memory is in use", NOW, used=0.91)
    assert status(ledger, 1).binding_limit == "memory"
    assert events(ledger)[-1] == ("limit", {"binding": "memory", "text": "2 of 4 workers: 91% of the memory is in use", "used": 0.91})
    note_limit(ledger, jobs, None, "4 workers", NOW)
    assert status(ledger, 1).binding_limit is None
    note_limit(ledger, jobs, "disk", "1 worker", NOW)
    ownership.release()
    assert status(ledger, 1).binding_limit is None
    conclude(ledger, jobs, RunState.HALTED, reason="drained", exit_code=3, elapsed_us=1, now_us=NOW)
    assert run.get(ledger, 1).binding_limit is None


def test_what_limits_remember_outlives_the_coordinator(ledger):
    """The words on the row are those of the last commit."""
    jobs = factory.run_of(ledger, 1)
    run.set_flow(ledger, jobs.run_id, {"preflight": 7, "rate": {"tokens": 0.5}})
    assert run.get(ledger, actives.load(ledger, 1).run_id).flow == {"preflight": 7, "rate": {"tokens": 0.5}}
