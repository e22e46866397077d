"""One item at a time, in the calling process: the same code that workers run."""

from __future__ import annotations

import os

from durabatch import loading
from durabatch.workers.cells import Cells
from durabatch.workers.item_runner import ItemRunner, load_handler
from durabatch.workers.protocol import Start


def start(**changes):
    settings = {
        "worker": 0,
        "run_id": 1,
        "run_name": "r",
        "handler": {},
        "params": {},
        "sys_path": [],
        "cells_path": "",
        "cell": 0,
        "inline_bytes": 100,
        "max_result_bytes": 1000,
        "term_grace_s": 1.0,
    }
    return Start(**settings | changes)


def runner_of(function, **settings):
    return ItemRunner(start(), loading.from_function(function, {}), **settings)


def test_items_run_inline():
    """Success and failure of a function at hand are outcomes, and the process is left as the handler left it."""

    def work(item, ctx):
        return [ctx.item_key, ctx.item_id, 1 / item]

    runner = runner_of(work)
    runner.begin(4)
    runner.run(2, (7, 1, "a", "2"))
    runner.run(2, (8, 3, "b", "0"))
    flush = runner.outcomes.take(4, finished=True)
    assert [(success[0], success[5]) for success in flush.succeeded] == [(7, '["a",7,0.5]')]
    assert [(failed.item_id, failed.number, failed.error_type) for failed in flush.failed] == [(8, 3, "ZeroDivisionError")]


def test_the_cell_shows_the_item_until_it_is_left(tmp_path):
    """An item stands in the cell while its handler runs and until the next one, or nothing, takes its place."""
    cells = Cells.create(tmp_path / "cells", 1, "boot", 1)
    cells.occupy(0, os.getpid(), 1)
    seen = []
    runner = runner_of(lambda item: seen.append(cells.at(0)), window=cells.window(0))
    runner.begin(4)
    runner.run(2, (7, 3, "a", "2"))
    assert [(cell.item_id, cell.dispatch_id, cell.number) for cell in seen] == [(7, 4, 3)]
    assert cells.at(0) == seen[0]
    runner.leave()
    assert cells.at(0).item_id is None


def test_commands_run_inline_too():
    """A command needs no worker process; what it leaves behind is not waited for and, here, not killed."""
    ref = {"kind": "command", "argv": ["echo", "{}"], "shell": False, "parse": "lines"}
    runner = ItemRunner(start(handler=ref), load_handler(start(handler=ref)))
    runner.begin(1)
    runner.run(1, (7, 1, "a", '"hello"'))
    assert runner.outcomes.take(1, finished=True).succeeded[0][5] == '["hello"]'
