"""
Big values: what they cost the coordinator, the log and the ledger, and how one of them is read.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests import factory

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
#: Values that compress to three quarters (text of random bytes), to a seventh, and small ones beside a big one.
HANDLERS = """
import base64, random

def noise(item):
    return base64.b64encode(random.Random(item["n"]).randbytes(item["size"] * 3 // 4)).decode()

chance = random.Random(1)
TEXT = " ".join(chance.choice(["alpha", "beta", "gamma", str(chance.random())]) for _ in range(20_000))

def words(item):
    return TEXT[item["n"]:] + TEXT * (item["size"] // len(TEXT))

def mixed(item):
    return "s" * 10_000 if item["n"] % 20 else "b" * 1_000_000 + str(item["n"])
"""
#: Runs and prints the peak of the coordinator's memory and of its log, in bytes.
SCRIPT = """
import json, os, sys
import durabatch

path, handler, count, size = "big.db", sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = [0]

def look(progress):
    log.append(os.path.getsize(path + "-wal"))

items = ({"n": number, "size": size} for number in range(count))
summary = durabatch.Ledger(path).run(f"jobs.py:{handler}", items, key="n", workers=2, on_progress=look)
memory = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"code": summary.exit_code, "memory": memory, "log": max(log), "ledger": os.path.getsize(path)}))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Give a directory with the handlers."""
    (tmp_path / "jobs.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place, environ, handler, count, size=0):
    """Return the figures of a run in a process of its own."""
    argv = [sys.executable, "-c", SCRIPT, handler, str(count), str(size)]
    done = subprocess.run(
        argv, cwd=place, env={**environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def only_segment_of(path, key):
    """Have all segments but that of one item broken meanwhile."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        others = "segment_id <> (SELECT segment_id FROM result JOIN item USING (item_id) WHERE key = ?)"
        kept = other.execute(f"SELECT data, segment_id FROM segment WHERE {others}", (key,)).fetchall()
        other.execute(f"UPDATE segment SET data = x'00' WHERE {others}", (key,))
        yield
        other.executemany("UPDATE segment SET data = ? WHERE segment_id = ?", kept)


@pytest.mark.parametrize("handler", ["noise", "words"])
def test_values_of_five_megabytes_cost_what_they_compress_to(place, plain_environ, scaled, handler):
    """The coordinator stays under 100 MiB, the log under 64 MiB and a transaction, the ledger near the size of the frames."""
    count, size = scaled(200), 5_000_000
    found = run(place, plain_environ, handler, count, size)
    frames = factory.rows(place / "big.db", "SELECT count(*), sum(length(data)), min(raw_bytes) FROM segment")[0]
    assert found["code"] == 0
    assert (frames[0], frames[2] > 0.9 * size) == (count, True)
    assert found["memory"] < 100 * MIB
    assert found["log"] < 64 * MIB + 3 * size
    assert frames[1] < found["ledger"] < 1.1 * frames[1] + MIB


def test_one_value_is_read_without_its_neighbours(place, plain_environ, command):
    """Frames hold no more than 256 KiB, unless one value alone is larger; with all other frames broken, the values of one are still read."""
    assert run(place, plain_environ, "mixed", 200)["code"] == 0
    sizes = [row[0] for row in factory.rows("big.db", "SELECT raw_bytes FROM segment")]
    assert sum(size > 1_000_000 for size in sizes) == 10
    assert all(size <= 256 * 1024 for size in sizes if size < 1_000_000)
    for key, size in (("40", 1_000_004), ("41", 10_002)):
        with only_segment_of(place / "big.db", key):
            done = command("results", key, "--ledger", "big.db")
            assert (done.code, len(json.dumps(json.loads(done.out)["value"]))) == (0, size)
            assert command("results", "61" if key == "40" else "40", "--ledger", "big.db").code == 4
    assert command("verify", "--ledger", "big.db").code == 0
