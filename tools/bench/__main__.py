"""
The benchmark of durabatch: every figure beside the bare operation, measured in the same run, and beside peers when asked.

    tools/bench/run                         in .venv, which it makes; about 20 minutes
    tools/bench/run --quick                 a tenth of every size
    tools/bench/run --only noop,resume      cases whose names contain one of these words
    tools/bench/run --peers huey,litequeue  peers that are installed
    tools/bench/run --against HEAD~3        what changes cost: this checkout and another one by turns; about 15 minutes
    python tools/bench                      in the present environment

Each measurement has a process and a directory of its own, on the disk of ``--dir``: take a real one. The sides of a case take turns
(A B A B), and medians are compared, since machines are noisy. A ratio says how many times better the first side is than another; where
the ranges of both are wider than the difference, take more rounds. Rates of durabatch are over the run's own clock, from the first
dispatch to the last commit; the time before stands beside them. Text goes to stderr as it comes, the table to stdout, all numbers to
``--json``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401 - comes before whatever imports durabatch
import report
from against import NoCheckoutError, checked_out, compiled, here, versus
from case import Case
from cases import all_cases, plain_cases
from inputs import Inputs
from measuring import Sample, measure
from peers import HINT, PEERS, peer_case

#: Measurements of each side; what two checkouts differ by is small beside what one measurement differs from the next by.
ROUNDS, AGAINST_ROUNDS = 3, 9


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="tools/bench", description="Measure durabatch beside the bare operations.")
    made.add_argument("--quick", action="store_true", help="a tenth of every size, but for those cases that take a second anyway")
    made.add_argument("--big", action="store_true", help="also an input of 10,000,000 lines: its first result, and all of it taken in")
    made.add_argument("--only", default="", metavar="WORDS", help="cases whose names contain one of these, separated by commas")
    made.add_argument("--list", action="store_true", help="print the names of the cases and end")
    made.add_argument("--peers", default="", metavar="NAMES", help=f"measure these, too, where they can be imported: {', '.join(PEERS)}")
    made.add_argument(
        "--against", metavar="COMMIT|DIR", help="measure the plain cases with this checkout and with that one, by turns, and nothing else"
    )
    made.add_argument(
        "--rounds", type=int, metavar="N", help=f"measurements of each side (default {ROUNDS}, with --against {AGAINST_ROUNDS})"
    )
    made.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes of every side (default 2)")
    made.add_argument("--dir", default=".", metavar="DIR", help="where inputs and ledgers go, on the disk to measure (default: here)")
    made.add_argument("--json", default="bench.json", metavar="FILE", help="where all numbers go (default bench.json)")
    return made


def chosen(cases: Sequence[Case], words: str) -> list[Case]:
    """Return the cases whose names contain one of *words*."""
    wanted = [word for word in words.split(",") if word]
    return [case for case in cases if not wanted or any(word in case.name for word in wanted)]


def run_case(case: Case, rounds: int, directory: Path) -> dict[str, list[Sample]]:
    """Return the samples of each side of a case, which take turns."""
    samples: dict[str, list[Sample]] = {side.label: [] for side in case.sides}
    for _ in range(max(1, rounds)):
        for side in case.sides:
            sample = measure(side.function, side.arguments, directory, side.root)
            samples[side.label].append(sample)
            print(
                f"  {case.name:24} {side.label:36} {report.shown(case.unit, sample.get('value'))} {report.problem(sample)}",
                file=sys.stderr,
                flush=True,
            )
    return samples


def wanted(options: argparse.Namespace, inputs: Inputs) -> list[Case]:
    """Return the cases that were asked for."""
    scale = 0.1 if options.quick else 1.0
    if options.against is not None:
        return chosen(plain_cases(inputs, scale=scale, workers=options.workers), options.only)
    cases = chosen(all_cases(inputs, scale=scale, workers=options.workers, big=options.big), options.only)
    peers = [peer_case(options.peers.split(","), inputs, scale=scale, workers=options.workers)] if options.peers else []
    return [*cases, *peers]


def measured(options: argparse.Namespace, cases: Sequence[Case], directory: Path) -> tuple[list[Case], dict[str, dict[str, list[Sample]]]]:
    """Return the cases as they were measured, and their samples."""
    if options.against is None:
        return list(cases), {case.name: run_case(case, options.rounds, directory) for case in cases}
    with checked_out(options.against, directory) as other:
        checkouts = here(), other
        compiled(checkouts)
        compared = [versus(case, checkouts) for case in cases]
        return compared, {case.name: run_case(case, options.rounds, directory) for case in compared}


def main() -> int:
    """Measure what was asked for, print the table, write the numbers."""
    # Whatever ends this program, what it made goes first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    made = parser()
    options = made.parse_args()
    if options.against is not None and (options.peers or options.big):
        made.error("--against goes with neither --peers nor --big")
    if options.rounds is None:
        options.rounds = ROUNDS if options.against is None else AGAINST_ROUNDS
    with tempfile.TemporaryDirectory(prefix="durabatch-bench-", dir=os.path.abspath(options.dir)) as parent:
        cases = wanted(options, Inputs(Path(parent) / "inputs"))
        if options.list:
            print(*(case.name for case in cases), sep="\n")
            return 0
        try:
            cases, found = measured(options, cases, Path(parent))
        except NoCheckoutError as error:
            made.error(f"--against {options.against}: {error}")
    print(report.table(cases, found))
    if options.peers:
        print(HINT)
    document = report.document(cases, found, vars(options), cores=len(os.sched_getaffinity(0)))
    Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(any(report.problem(sample) for sides in found.values() for samples in sides.values() for sample in samples))


if __name__ == "__main__":
    sys.exit(main())
