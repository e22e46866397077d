"""What users install: the wheel, in an environment that holds nothing else of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from durabatch.version import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Build sdist and wheel, the wheel from the sdist as an installer would."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory) -> Path:
    """Install the wheel into an empty environment; the packages that it needs are borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", *map(str, dist.glob("*.whl"))], check=True, capture_output=True)
    return folder


def output_of(installed: Path, *command: str) -> str:
    environ = {"PATH": os.defpath, "PYTHONPATH": sysconfig.get_path("purelib")}
    return subprocess.run(command, cwd=installed, env=environ, check=True, capture_output=True, text=True).stdout


def test_the_wheel_holds_the_schema_the_types_and_the_licence(dist):
    """Everything that is read at run time is in the wheel, and nothing of the tests."""
    names = zipfile.ZipFile(*dist.glob("*.whl")).namelist()
    schema = {f"durabatch/schema/{path.relative_to(ROOT / 'schema')}" for path in (ROOT / "schema").rglob("*.sql")}
    assert {"durabatch/py.typed", "durabatch/recipes/python_ast.py", *schema} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "schema/", "tools/"))]


def test_the_sdist_holds_what_is_needed_to_test_it(dist):
    """Schema, tests and tools travel with the source."""
    with tarfile.open(*dist.glob("*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/test_house.py", "tools/test"} <= names
    assert {f"schema/{path.relative_to(ROOT / 'schema')}" for path in (ROOT / "schema").rglob("*.sql")} <= names


def test_the_installed_package_is_the_one_that_was_built(installed):
    """Imports come from the environment, and the version is the one in the source."""
    where, version = output_of(installed, "bin/python", "-c", "import durabatch as d; print(d.__file__); print(d.__version__)").split()
    assert Path(where).is_relative_to(installed)
    assert version == __version__


def test_the_installed_command_does_a_job_from_start_to_end(installed, not_run):
    """The console script runs a recipe over a directory and prints a result per file."""
    if not (ROOT / "durabatch" / "cli" / "main.py").exists():
        not_run("there is no command line yet")
    (installed / "sources").mkdir()
    (installed / "sources" / "one.py").write_text("import os\n")
    assert __version__ in output_of(installed, "bin/durabatch", "--version")
    output_of(installed, "bin/durabatch", "run", "durabatch.recipes.python_ast:analyse", "sources", "--ledger", "code.db")
    assert '"imports":["os"]' in output_of(installed, "bin/durabatch", "results", "--ledger", "code.db").replace(": ", ":")


def test_the_changelog_is_in_order():
    """Keep a Changelog: what is not released stands first, and a release has a heading with its date."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])
    released = [heading.split("]")[0][1:] for heading in headings[1:]]
    assert __version__ in released or ".dev" in __version__
