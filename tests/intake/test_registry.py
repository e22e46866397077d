"""Formats that installed packages bring."""

import sys

import pytest

from durabatch.errors import InputError, UsageError
from durabatch.intake.open import open_source
from durabatch.intake.registry import format_names

COUNTDOWN = """
from durabatch.errors import InputError
from durabatch.intake.source import Batch

class Countdown:
    path = None
    repeatable = True

    def __init__(self, spec, argument):
        if argument == "bad":
            raise InputError(argument, "is no number")
        self.start = int(argument)
        self.key = spec.key

    def open(self, state, base):
        return Reader(self, state or {"done": 0}, base)

class Reader:
    waits = False

    def __init__(self, part, state, base):
        self.part, self.done, self.base = part, state["done"], base

    def read(self, max_items, max_bytes):
        rows = []
        while self.done < self.part.start and len(rows) < max_items:
            self.done += 1
            left = self.part.start - self.done
            rows.append((f"{self.part.key}{left}", str(left), self.base + self.done))
        return Batch(rows, ended=self.done == self.part.start)

    def state(self):
        return {"done": self.done}

    def position(self):
        return self.base + self.done

    def ready(self):
        return True

    def close(self):
        return None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Give a function that installs a package with entry points and a module ``their_source``, for this test."""
    monkeypatch.chdir(tmp_path)

    def install(points, code=COUNTDOWN):
        info = tmp_path / "site" / "their_package-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[durabatch.sources]", *lines]) + "\n")
        (tmp_path / "site" / "their_source.py").write_text(code)
        monkeypatch.delitem(sys.modules, "their_source", raising=False)
        monkeypatch.syspath_prepend(tmp_path / "site")

    yield install
    sys.modules.pop("their_source", None)


def test_a_package_may_bring_a_format(package, read, read_with_crashes):
    """Found by its entry point; inputs need not be paths, all settings are the package's, and the chain is as with any other."""
    package({"countdown": "their_source:Countdown"})
    assert format_names()[-1] == "countdown"
    got = read("3", "2", format="countdown", key="k", sheet="whatever")
    assert (got.keys, got.positions) == (["k2", "k1", "k0", "k1", "k0"], [1, 2, 3, 4, 5])
    assert read_with_crashes("3", "2", format="countdown", key="k", max_items=1).rows == got.rows
    with pytest.raises(UsageError, match=r"files, chunks, countdown\. Did you mean 'countdown'\?"):
        open_source(["3"], format="cuntdown")
    with pytest.raises(InputError, match="bad: is no number"):
        open_source(["bad"], format="countdown")


def test_a_package_does_not_take_our_names(package, read, tmp_path):
    """``lines`` is ours, whoever else claims it; standard input is for our own formats."""
    package({"lines": "their_source:Countdown", "countdown": "their_source:Countdown"})
    (tmp_path / "list").write_text("a\n")
    assert read("list", format="lines").keys == ["a"]
    assert format_names().count("lines") == 1
    with pytest.raises(UsageError, match="standard input cannot be read as countdown"):
        open_source(["-"], format="countdown", stdin=sys.stdin)


@pytest.mark.parametrize(
    ("value", "code", "why"),
    [
        ("no_such_module:Thing", "", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("their_source:Thing", "", "AttributeError: module 'their_source' has no attribute 'Thing'"),
        ("their_source:Thing", "def Thing(spec, argument): return int(argument)", "ValueError: invalid literal for int"),
        ("their_source:Thing", "def Thing(spec, argument): return argument", "str lacks path, repeatable, open"),
    ],
)
def test_a_format_that_does_not_work_is_the_packages_fault(package, value, code, why):
    """One line names the package, and what to do."""
    package({"theirs": value}, code)
    with pytest.raises(UsageError) as caught:
        open_source(["x"], format="theirs")
    assert str(caught.value).startswith(f"--format: 'theirs' of their-package ({value}) cannot be used: {why}")
    assert str(caught.value).endswith("or mend the package.")
