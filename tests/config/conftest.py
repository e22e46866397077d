"""
What tests of settings share: a directory without any settings but those of the test, and the command in this process.
"""

from __future__ import annotations

import os

import pytest

from durabatch.config.resolving import resolve
from durabatch.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Give an empty directory, stand in it, and see to it that neither variables nor the user's own file play a part."""
    for name in [one for one in os.environ if one.startswith("DURABATCH_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def toml(here):
    """Give a function that writes durabatch.toml, as its user's umask would."""

    def write(text: str | bytes, name: str = "durabatch.toml"):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def own_file(here, toml):
    """Give a function that writes the user's own file."""
    return lambda text: toml(text, "../home/.config/durabatch/config.toml")


@pytest.fixture
def refusal():
    """Give a function from flags to the sentence with which they, or what stands here, are refused."""

    def refused(**flags) -> str:
        with pytest.raises(UsageError) as caught:
            resolve(flags)
        return str(caught.value)

    return refused
