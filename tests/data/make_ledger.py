"""
Make ``ledger_v<schema>.db``, a small ledger as this version writes it. Later versions must read it, go on with it, and not lose any of it.

    python tests/data/make_ledger.py

Made once for each version of the schema and then kept as it is: a ledger of the past cannot be made by the program of today. Before the
first release the schema may still change, and the file is made anew.

    done        12 items: k1 .. k9 succeeded, among them k5 whose value is packed; k10 .. k12 failed, at the second try
    changed     from schema 3 on, 4 items: h1 had another payload once, h3 was taken out when the input lost it, h4 came later
    cached      from schema 3 on, the 3 items that the input then had, all of them answered by the cache
    limits      from schema 2 on, 4 items: l1 spent half a dollar, l2 was skipped, l3 and l4 wait for a second try in the year 2286
    effects     from schema 4 on, 4 items in two batches, the first one marked "half"; rolled back to that, e1 and e2 keep their effects, the one of
                e3 could not be undone, e4 is undone but for a mail; TRANS-001 is a committed transaction that keeps an old content,
                TRANS-002 one that a crash left open
    cut         8 items, the coordinator killed by the fifth: the four before it are recorded, the fifth had begun
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

JOBS = """
import os, signal, time
import durabatch

def limits(item, ctx):
    if item == "l1":
        ctx.spend(usd=0.5)
        return "paid"
    if item == "l2":
        raise durabatch.Skip("nothing in it", remedy="Put something in.")
    raise ConnectionError(f"no answer from {item}")

@durabatch.undo_action("forget")
def forget(what):
    if what == "e3":
        raise OSError("cannot forget")

@durabatch.undo_action("mail", irreversible=True)
def mail():
    raise RuntimeError("nobody calls this")

def effects(item, ctx):
    ctx.undo("forget", what=item)
    if item == "e4":
        ctx.undo("mail")
    return f"{item}!"

def rewrite(path, ctx):
    ctx.files.replace(path, "new")
    return path

def rack(item):
    return item["rack"] + "!"

def work(item):
    if item == "k5":
        return {"item": item, "text": "packed " * 500}
    if item in ("k10", "k11", "k12"):
        raise ValueError(f"no {item}")
    return f"{item}!"

def cut(item):
    if item == "c5":
        # Long enough for the results before this one to be recorded.
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return f"{item}!"
"""

#: Ends in the middle of a transaction.
ABANDONING = """
import os
import durabatch, ledger_jobs

with durabatch.Ledger("l.db").transaction("TRANS-002") as tx:
    tx.do(ledger_jobs.effects, "t1")
    os._exit(0)
"""

PROGRAM = """
import subprocess, sys
import durabatch, ledger_jobs

if __name__ == "__main__":
    ledger = durabatch.Ledger("l.db")
    done = ledger.run("ledger_jobs:work", [f"k{number}" for number in range(1, 13)], name="done", workers=1, batch_size=5, max_attempts=2)
    assert (done.counts.succeeded, done.counts.failed) == (9, 3), done
    ledger.run("ledger_jobs:limits", [f"l{number}" for number in range(1, 5)], name="limits", workers=1, max_attempts=2, backoff_s=1000, backoff_cap_s=1000, deadline_s=2)
    settings = {"name": "changed", "workers": 1, "cache": True, "batch_size": 2}
    with open("in.csv", "w") as file:
        file.write("host,rack\\nh1,1\\nh2,2\\nh3,3\\n")
    ledger.run("ledger_jobs:rack", durabatch.csv("in.csv", key="host"), **settings)
    with open("in.csv", "w") as file:
        file.write("host,rack\\nh1,9\\nh2,2\\nh4,4\\n")
    changed = ledger.run("ledger_jobs:rack", durabatch.csv("in.csv", key="host"), on_change="source", **settings)
    assert (changed.counts.succeeded, changed.counts.cancelled) == (3, 1), changed
    again = ledger.run("ledger_jobs:rack", durabatch.csv("in.csv", key="host"), name="cached", workers=1, cache=True)
    assert again.status.cached == 3, again
    ledger.run("ledger_jobs:effects", [f"e{number}" for number in range(1, 5)], name="effects", workers=1, batch_size=2, backoff_s=0)
    ledger["effects"].mark("half", 1)
    undone = ledger["effects"].rollback(to_batch=1, keep_going=True)
    assert (undone.counts.undone, undone.counts.succeeded, undone.exit_code) == (1, 3, 1), undone
    with open("kept.txt", "w") as file:
        file.write("old")
    with ledger.transaction("TRANS-001") as tx:
        tx.do(ledger_jobs.rewrite, "kept.txt")
    subprocess.run([sys.executable, "abandoning.py"], check=True)
    ledger.run("ledger_jobs:cut", [f"c{number}" for number in range(1, 9)], name="cut", workers=1, batch_size=5)
"""

#: Whose machine it was made on is nobody's business, and must not be ours when it is used.
ANONYMOUS = (
    "UPDATE event SET detail = json_set(detail, '$.host', 'elsewhere', '$.machine', '0123456789abcdef0123456789abcdef', '$.boot', 'a boot')"
    " WHERE json_extract(detail, '$.host') IS NOT NULL"
)
#: A wait that is over when the ledger is read for the first time would be none.
LATER = "UPDATE item SET due_at_us = 9999999999000000 WHERE state = 'scheduled'"


def main() -> None:
    """Make the ledger in an empty directory and put it beside this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ledger_jobs.py").write_text(JOBS)
        (folder / "program.py").write_text(PROGRAM)
        (folder / "abandoning.py").write_text(ABANDONING)
        ended = subprocess.run([sys.executable, "program.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE.parents[1])}, check=False)
        if ended.returncode != -9:
            sys.exit(f"the program ended with {ended.returncode}, and should have been killed")
        with contextlib.closing(sqlite3.connect(folder / "l.db", isolation_level=None)) as ledger:
            ledger.execute(ANONYMOUS)
            ledger.execute(LATER)
            ledger.execute("VACUUM")
            ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            version = ledger.execute("PRAGMA user_version").fetchone()[0]
        (HERE / f"ledger_v{version}.db").write_bytes((folder / "l.db").read_bytes())


if __name__ == "__main__":
    main()
