"""A directory of its own for each test, in which handlers leave their calls."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.processes import Child

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Here:
    """The directory of a test."""

    path: Path

    def calls(self) -> list[str]:
        """Return the items that handlers were called with so far, in that order."""
        notes = self.path / "calls"
        return notes.read_text().split() if notes.exists() else []

    def script(self, text: str, *arguments: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run *text* as a program of its own."""
        path = self.path / "program.py"
        path.write_text(text)
        return subprocess.run(
            [sys.executable, path, *arguments], cwd=self.path, env=environ(), capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def start(self, text: str) -> Child:
        """Start *text* as a program of its own in its own process group."""
        path = self.path / "program.py"
        path.write_text(text)
        return Child([sys.executable, path], folder=self.path)


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Here:
    """Stand in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return Here(tmp_path)
