"""
What every test can ask for: sizes, seeds, and a way to say that something was not run.

    long, scaled     whether ``--long`` was given, and sizes that follow it
    seed             a fresh seed for each test, shown when the test fails; ``--seed N`` repeats it
    command          runs the command in this process
    not_run          ends the test with a reason that is listed under "not run" at the end
    plain_environ    the environment without the measuring of coverage, for figures of time and memory
    unmeasured, measured_children   what coverage looks at
"""

from __future__ import annotations

import compileall
import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from tests import nursery
from tests.done import Done

hypothesis.settings.register_profile("short", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000, print_blob=True)

PACKAGE = Path(__file__).resolve().parents[1] / "durabatch"
#: What has coverage follow into child processes. It doubles what the start of one costs, and most tests start the same code.
MEASURING: dict[str, str] = {}


def pytest_addoption(parser):
    """Add ``--long`` and ``--seed``."""
    group = parser.getgroup("durabatch")
    group.addoption("--long", action="store_true", help="full sizes of storms, sweeps and random walks")
    group.addoption("--seed", type=int, help="the seed of every test that asks for one (default: a fresh one for each)")


def pytest_configure(config):
    """Let hypothesis and the nursery follow ``--long``, and have what the children of tests inherit."""
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")
    nursery.is_open = not config.getoption("--long")
    # Whoever starts the tests in the background, or by nohup, has them ignore what many tests send.
    for number, handler in {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    if not hasattr(config, "workerinput"):
        # Hundreds of processes are started, and each would compile what it does not find compiled.
        compileall.compile_dir(PACKAGE, quiet=2)
    if config.getoption("numprocesses", None):
        # The tests are run by processes that come after this one.
        return
    # Coverage follows into those alone whose tests ask for it.
    MEASURING.update({name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_")})
    # Tests edit handlers within a second and to the same length, which the cache of compiled modules does not notice.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_collection_finish(session):
    """Compile nothing for later from here on, for the same reason; the tests themselves are compiled."""
    sys.dont_write_bytecode = True


@pytest.fixture(autouse=True)
def no_modules_left(tmp_path_factory):
    """Forget modules that a test imported from its own directory: the next one may have others of the same name."""
    base, before, path = str(tmp_path_factory.getbasetemp()), set(sys.modules), sys.path[:]
    yield
    for name in sys.modules.keys() - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(base):
            del sys.modules[name]
    if sys.path != path:
        sys.path[:] = path


@pytest.fixture
def long(request) -> bool:
    """Say whether the full sizes are wanted."""
    return request.config.getoption("--long")


@pytest.fixture
def scaled(long):
    """Give a function from the full size of a test to the size to run now: all of it with ``--long``, else a tenth, at least 5."""
    return lambda full: full if long else max(5, full // 10)


@pytest.fixture
def seed(request) -> int:
    """Give a seed that stands in the report when the test fails."""
    given = request.config.getoption("--seed")
    value = random.SystemRandom().randrange(2**32) if given is None else given
    request.node.user_properties.append(("seed", value))
    return value


@pytest.fixture
def not_run(request):
    """Give a function that ends the test here, with a reason that is listed at the end of the whole run."""

    def end(reason: str) -> None:
        request.node.user_properties.append(("not_run", reason))
        pytest.skip(reason)

    return end


@pytest.fixture
def plain_environ() -> dict[str, str]:
    """Give the environment for a child process that is timed or weighed: coverage does not follow it there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_CORE_", "COVERAGE_"))}


@pytest.fixture
def unmeasured():
    """Have coverage look away: the test does over and over what others have covered, and measuring doubles what that costs."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture
def measured_children(monkeypatch):
    """Have coverage follow into the child processes of the test: what they do is what it is about."""
    for name, value in MEASURING.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def command(capsys):
    """Give a function that runs the command in this process."""
    from durabatch.cli.main import main

    def run(*words: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        streams = capsys.readouterr()
        return Done(end.value.code, streams.out, streams.err)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Show the seed of a failed test, with the way to repeat it."""
    report = yield
    for name, value in item.user_properties:
        if name == "seed" and report.failed:
            report.sections.append(("seed", f"{value}    repeat with: pytest {item.nodeid.split('[')[0]} --seed {value}"))
    return report


def pytest_terminal_summary(terminalreporter):
    """List what was not run, and why: a check that quietly does nothing protects nobody."""
    for report in terminalreporter.stats.get("skipped", []):
        reasons = [value for name, value in report.user_properties if name == "not_run"] or [report.longrepr[-1].removeprefix("Skipped: ")]
        terminalreporter.write_line(f"not run: {report.nodeid}: {reasons[0]}", yellow=True)
