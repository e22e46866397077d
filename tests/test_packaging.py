"""What users install: the wheel, in an environment that holds nothing else of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from durabatch.version import __version__
from tests.crash.processes import Child, eventually

ROOT = Path(__file__).resolve().parent.parent
#: A place as people have them: spaces, letters beyond ASCII, characters that mean something to a shell or to SQLite's URIs.
PLACE = "für später – 100% 'neu' #1?"
NEWER = [(3, minor) for minor in range(sys.version_info.minor + 1, 20)]

HANDLER = """
import os, time

def work(item):
    calls = os.open("calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(calls, f"{item}\\n".encode())
    os.close(calls)
    time.sleep(0.003)
    return item + "!"
"""


def interpreters() -> dict[str, str]:
    """Return the running interpreter and one of each newer version on this machine, by version: of pyenv, or on PATH if it really runs."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for major, minor in NEWER:
        name = f"python{major}.{minor}"
        candidates = [*sorted(map(str, pyenv.glob(f"{major}.{minor}.*/bin/{name}")), reverse=True), *filter(None, [shutil.which(name)])]
        running = (one for one in candidates if subprocess.run([one, "-c", ""], capture_output=True, check=False).returncode == 0)
        if first := next(running, None):
            found[f"{major}.{minor}"] = first
    return found


INTERPRETERS = interpreters()


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


def test_the_installed_command_does_a_job_from_start_to_end(installed):
    """The console script runs a recipe over a directory and prints a result per file."""
    (installed / "sources").mkdir()
    (installed / "sources" / "one.py").write_text("import os\n")
    assert __version__ in output_of(installed, "bin/durabatch", "--version")
    output_of(installed, "bin/durabatch", "run", "durabatch.recipes.python_ast:analyse", "sources", "--ledger", "code.db")
    assert '"imports":["os"]' in output_of(installed, "bin/durabatch", "results", "--ledger", "code.db").replace(": ", ":")


@pytest.fixture
def place(tmp_path) -> Path:
    """Give an empty directory with a difficult name."""
    folder = tmp_path / PLACE
    folder.mkdir()
    return folder


def lend(needed: list[str], site: Path) -> None:
    """Have *site* hold the packages of this environment that are *needed*, those that they need in turn, and nothing else."""
    todo, lent = list(needed), set()
    while todo:
        wanted = Requirement(todo.pop())
        if wanted.name in lent or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        lent.add(wanted.name)
        package = metadata.distribution(wanted.name)
        todo += package.requires or []
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            (site / name).symlink_to(package.locate_file(name))


def environment_with_the_wheel(python: str, dist: Path, place: Path, not_run) -> Path:
    """Return the ``bin`` of a new environment of *python* that holds the wheel and what it says that it needs: lent by this one, or from the package index."""
    subprocess.run([python, "-m", "venv", "--without-pip", place / "venv"], check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(place / "venv" / "bin" / "python"), "install", "--quiet", "--no-compile"]
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if python == sys.executable:
        lend(needed, *(place / "venv" / "lib").glob("*/site-packages"))
    elif (got := subprocess.run([*pip, *needed], capture_output=True, text=True, check=False)).returncode:
        not_run(f"pip cannot get what durabatch needs for {python}: {' '.join(got.stderr.split())[-300:]}")
    # Without an index: what is there must be enough.
    subprocess.run([*pip, "--no-index", *map(str, dist.glob("*.whl"))], check=True, capture_output=True)
    return place / "venv" / "bin"


@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_wheel_does_the_main_job_with_every_newer_python(version, dist, place, long, not_run):
    """In an empty environment, from a directory with spaces and other letters: a tree of sources is parsed, and a killed run goes on, with each Python from the running one on."""
    if not long and INTERPRETERS[version] != sys.executable and version != max(INTERPRETERS):
        not_run("it is between the oldest and the newest; --long does it")
    programs = environment_with_the_wheel(INTERPRETERS[version], dist, place, not_run)
    home = place / "work"
    (home / "sources" / "größer als").mkdir(parents=True)
    (home / "sources" / "größer als" / "ein modul.py").write_text("import os, json\n\ndef f():\n    return 'é'\n")
    (home / "sources" / "broken.py").write_text("def f(:\n")
    (home / "sources" / "notes.txt").write_text("no source\n")

    def durabatch(*words: str, code: int = 0) -> str:
        environ = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        done = subprocess.run([programs / "durabatch", *words], cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    assert durabatch("--version") == f"durabatch {__version__}\n"
    durabatch("run", "durabatch.recipes.python_ast:analyse", "sources", "--ledger", "code ü.db", code=1)
    results = {one["key"]: one["value"] for one in map(json.loads, durabatch("results", "--ledger", "code ü.db").splitlines())}
    assert {key: value["imports"] for key, value in results.items()} == {"sources/größer als/ein modul.py": ["json", "os"]}
    assert "SyntaxError" in durabatch("errors", "--ledger", "code ü.db")
    durabatch("verify", "--ledger", "code ü.db")
    check_a_killed_run_goes_on(programs, home)


def check_a_killed_run_goes_on(programs: Path, home: Path) -> None:
    """Kill all processes of a run in the middle, and have the same command do the rest."""
    (home / "häufig.py").write_text(HANDLER)
    (home / "items.txt").write_text("".join(f"k{number}\n" for number in range(200)))
    calls = home / "calls"

    def start() -> Child:
        return Child([programs / "durabatch", "run", "häufig.py:work", "items.txt", "-j", "2"], folder=home, environ={"PYTHONPATH": ""})

    first = start()
    eventually(lambda: first.process.poll() is not None or (calls.exists() and len(calls.read_text().split()) > 60), "calls")
    assert first.process.poll() is None, first.stderr()
    first.destroy()
    second = start()
    assert second.end() == 0, second.stderr()
    assert re.search(r"resuming: \d+ done, 0 failed, \d+ left", second.stderr())
    called = calls.read_text().split()
    assert set(called) == {f"k{number}" for number in range(200)}
    assert len(called) < 300
    done = subprocess.run([programs / "durabatch", "results"], cwd=home, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"key": f"k{number}", "value": f"k{number}!"} for number in range(200)]


def test_the_changelog_is_in_order():
    """Keep a Changelog: what is not released stands first, and a release has a heading with its date."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])
    released = [heading.split("]")[0][1:] for heading in headings[1:]]
    assert __version__ in released or ".dev" in __version__
