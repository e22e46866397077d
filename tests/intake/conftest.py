"""
Readings of sources: in one go, and with a crash behind every page.
"""

import dataclasses
import json

import pytest

from durabatch.intake.open import open_source


@dataclasses.dataclass
class Reading:
    """What a source gave."""

    rows: list
    problem: object
    done: bool
    source: object

    @property
    def keys(self):
        return [key for key, _, _ in self.rows]

    @property
    def values(self):
        return [json.loads(payload) for _, payload, _ in self.rows]

    @property
    def positions(self):
        return [position for _, _, position in self.rows]


def read_all(source, *, position=None, max_items=1000, max_bytes=1 << 20):
    rows, page = [], None
    for page in source.pages(position, max_items=max_items, max_bytes=max_bytes):
        rows += page.rows
    return Reading(rows, page.problem, page.done, source)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads inputs in the test's own directory."""
    monkeypatch.chdir(tmp_path)
    return lambda *inputs, **options: read_all(open_source(inputs, **options))


@pytest.fixture
def read_with_crashes(tmp_path, monkeypatch):
    """Reads inputs page by page, each page with a source that was opened anew from the position before."""
    monkeypatch.chdir(tmp_path)

    def reading(*inputs, max_items, max_bytes=1 << 20, **options):
        rows, position = [], None
        while True:
            source = open_source(inputs, **options)
            pages = source.pages(position, max_items=max_items, max_bytes=max_bytes)
            page = next(pages)
            pages.close()
            rows += page.rows
            position = page.position
            if page.done or page.problem is not None:
                return Reading(rows, page.problem, page.done, source)

    return reading
