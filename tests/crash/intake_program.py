"""
Takes input in through a gate: ``intake_program.py PAGE_ITEMS SABOTAGE WORD...`` is ``durabatch WORD...``, or a program with a generator.

A page is handed on for each byte that the FIFO ``gate`` holds. A sabotage, which is a function of this module, breaks what makes intake
durable; ``nothing`` breaks nothing. On its end the program leaves its greatest memory in ``peak``, in KiB.
"""

from __future__ import annotations

import itertools
import json
import os
import sys

import durabatch
from durabatch.cli.main import main
from durabatch.intake import opened
from durabatch.ledger import run
from durabatch.runner import feeding, settling

PAGES = opened.OpenedInput.pages


def gated(self, position=None):
    """Yield the pages of an input as the gate lets them through."""
    gate = os.open("gate", os.O_RDONLY)
    for page in PAGES(self, position):
        os.read(gate, 1)
        yield page


def records():
    """Yield the items of ``items.jsonl``, as a program would that computes them."""
    with open("items.jsonl") as lines:
        yield from map(json.loads, lines)


def nothing():
    """Leave intake as it is."""


def position_late():
    """Write with each page the position before it, as if its own were lost with a transaction of its own."""
    real, positions = feeding.encode_position, ["null"]

    def late(at, skip):
        positions.append(real(at, skip))
        return positions[-2]

    feeding.encode_position = late


def position_early():
    """Write with each page the position behind the next, as if that had been written in a transaction before its items."""
    real = feeding.Feeder.feed

    def early(self):
        ahead = list(itertools.islice(self.pages, 2))
        if len(ahead) == 2:
            ahead[0].position = ahead[1].position
        self.pages = itertools.chain(ahead, self.pages)
        real(self)

    feeding.Feeder.feed = early


def fingerprint_early():
    """Record the files as those that the items came from before the items are in line with them."""
    real = settling.apply

    def early(ledger, feeder, *rest, **more):
        run.forget_fingerprint = lambda ledger, run_id: run.set_fingerprint(ledger, run_id, feeder.source.fingerprint())
        real(ledger, feeder, *rest, **more)

    settling.apply = early


if __name__ == "__main__":
    page_items, sabotage, *words = sys.argv[1:]
    opened.PAGE_ITEMS, opened.OpenedInput.pages = int(page_items), gated
    sys.path.insert(0, os.getcwd())
    globals()[sabotage]()
    try:
        if words[0] != "generator":
            main(words)
        summary = durabatch.Ledger("l.db").run("jobs:work", records(), name="kill", workers=int(words[1]), max_attempts=99)
        sys.exit(summary.exit_code)
    finally:
        with open("/proc/self/status") as status, open("peak", "w") as peak:
            peak.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
