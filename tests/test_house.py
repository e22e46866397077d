"""
The rules of this house, executable. They check what exists: a new module, table, error or verb is covered the day it appears.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import durabatch
from durabatch import errors, states

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "durabatch"
README = (ROOT / "README.md").read_text()

#: Who may import whom, nearest first; everything may import the hall, and every room itself. ``workers`` is the runner's own.
BELOW = {
    "cli": ["recipes", "api", "runner", "output", "intake", "engine", "flow", "ledger", "config"],
    "recipes": ["front door", "api", "runner", "output", "intake", "engine", "flow", "ledger"],
    "api": ["runner", "output", "intake", "engine", "flow", "ledger", "workers"],
    "runner": ["output", "intake", "engine", "flow", "ledger", "config", "workers"],
    "output": ["engine", "flow", "ledger"],
    "intake": ["engine", "flow", "ledger"],
    "engine": ["flow", "ledger"],
    "flow": [],
    "config": [],
    "ledger": [],
    "workers": [],
    "hall": [],
}
#: The one home of each package. ``pydantic`` is slow to import and has its home inside functions.
HOMES = {
    "apsw": "durabatch.ledger",
    "click": "durabatch.cli",
    "openpyxl": "durabatch.output",
    "psutil": "durabatch.runner.probe",
    "pyarrow": "durabatch.output.parquet_file",
    "python_calamine": "durabatch.intake.workbook",
    "rich": "durabatch.cli",
    "yaml": "durabatch.config",
    "zstandard": "durabatch.codec",
}
#: Other ways to a database or out of one's own data, closed to everybody.
NOWHERE = {"marshal", "pickle", "shelve", "sqlite3"}
#: What neither a worker nor the bare ``import durabatch`` may load.
HEAVY = {"apsw", "click", "psutil", "pydantic", "rich"}
SQL = re.compile(r"^\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX|VIEW)|PRAGMA\s+\w+)\b", re.I | re.S)


# -- what there is ------------------------------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


class Modules(Mapping):
    """The modules of the package, by name, each parsed when it is asked for."""

    def __init__(self) -> None:
        self.paths = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

    @functools.cache  # noqa: B019 - there is one, for as long as the tests run
    def __getitem__(self, module: str) -> ast.Module:
        return ast.parse(self.paths[module].read_text())

    def __iter__(self):
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, module: object) -> bool:
        return module in self.paths

    def __hash__(self) -> int:
        return id(self)


MODULES = Modules()
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
QUERIES = sorted((ROOT / "schema" / "queries").glob("*.sql"))
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def room(module: str) -> str:
    first, *rest = module.split(".")[1:] or ["front door"]
    return first if rest or first in {"api", "front door"} or (PACKAGE / first).is_dir() else "hall"


@functools.cache
def nodes_of(module: str) -> list[ast.AST]:
    """Every node of *module*."""
    return list(ast.walk(MODULES[module]))


@functools.cache
def imports(module: str) -> list[tuple[str, int, bool]]:
    """Every import in *module*, wherever it stands: the module or package meant, its line, and whether it is at the top level."""
    tree = MODULES[module]
    anchor = module.split(".") if path_of(module).name == "__init__.py" else module.split(".")[:-1]
    found = []
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*anchor[: len(anchor) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module
            found += [(f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base, node.lineno, node in tree.body) for alias in node.names]
    return found


def taken_names(module: str) -> list[tuple[str, str, int]]:
    """The names that *module* takes from other modules of the package, by ``from x import name`` or as ``x.name``."""
    taken, modules = [], {}
    nodes = nodes_of(module)
    for node in nodes:
        for alias in node.names if isinstance(node, ast.ImportFrom) else []:
            whole = f"{node.module}.{alias.name}"
            if whole in MODULES:
                modules[alias.asname or alias.name] = whole
            elif node.module in MODULES:
                taken.append((node.module, alias.name, node.lineno))
    uses = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    taken += [(modules[node.value.id], node.attr, node.lineno) for node in uses if node.value.id in modules]
    return taken


def rooms_crossed() -> list[tuple[str, str, int]]:
    """The imports between modules of the package; the front door and what ``python -m`` starts may name everything."""
    return [
        (module, target, line)
        for module in MODULES
        if module != "durabatch" and not module.endswith("__main__")
        for target, line, _ in imports(module)
        if target in MODULES and target != module
    ]


def is_public(node: ast.stmt) -> bool:
    return isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_")


def names_in_all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def docstring_missing(tree: ast.AST, where: str) -> list[str]:
    """Public classes, functions and methods below *tree* without a docstring; overloads are documented by their function."""
    missing = []
    for node in tree.body:
        if is_public(node) and not any(re.search(r"overload|setter", ast.unparse(mark)) for mark in node.decorator_list):
            missing += [] if ast.get_docstring(node) else [f"{where}:{node.lineno} {node.name}"]
            missing += docstring_missing(node, where) if isinstance(node, ast.ClassDef) else []
    return missing


def statements(path: Path) -> list[str]:
    return re.findall(r"^-- name:\s*(\w+)", path.read_text(), re.M)


def loaded_after(statement: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after *statement*."""
    script = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


# -- imports ------------------------------------------------------------------------------------------------------------------


def test_imports_go_downward():
    """No module imports from a room above or beside its own, not even for types or inside a function."""
    upward = [
        f"{path_of(module).relative_to(ROOT)}:{line} {room(module)} -> {target}"
        for module, target, line in rooms_crossed()
        if room(target) not in {"hall", room(module), *BELOW[room(module)]}
    ]
    assert upward == []


def test_every_room_is_on_the_plan():
    """A new room has a place in the order of the rooms, and every room says in one line what it is for."""
    rooms = sorted(path for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py")))
    assert [path.name for path in rooms if path.name not in BELOW or not (path / "__init__.py").exists()] == []


def test_imports_have_no_cycles():
    """Taking away, again and again, the modules that import nothing that is left takes away all of them."""
    below = {module: set() for module in MODULES}
    for module, target, _ in rooms_crossed():
        below[module].add(target)
    while free := {module for module, targets in below.items() if not targets - {"durabatch"}}:
        below = {module: targets - free for module, targets in below.items() if module not in free}
    assert below == {}


def test_each_package_has_one_home():
    """apsw is known to the ledger alone, and so on: a change of a package is a change of one room."""
    strangers = []
    for module in MODULES:
        for target, line, at_top in imports(module):
            package = target.partition(".")[0]
            home = HOMES.get(package, "")
            inside = module == home or module.startswith(f"{home}.") or not home
            if not inside or package in NOWHERE or (package == "pydantic" and at_top):
                strangers.append(f"{path_of(module).relative_to(ROOT)}:{line} {target}")
    assert strangers == []


def test_importing_durabatch_loads_nothing_heavy():
    """The front door opens at once; what is behind it is loaded by use."""
    assert loaded_after("import durabatch") & {*HEAVY, "asyncio", "msgspec", "pydantic_core", "zstandard"} == set()


def test_a_worker_never_loads_what_only_the_coordinator_needs():
    """All of the workers' room, imported in one process, leaves the ledger, the command line and the probe out."""
    modules = [module for module in MODULES if room(module) == "workers" and not module.endswith("__main__")]
    assert loaded_after("; ".join(f"import {module}" for module in modules)) & HEAVY == set()


# -- names and words ----------------------------------------------------------------------------------------------------------


def kind_and_name(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the rest."""
    return 0 if re.fullmatch(r"[A-Z][A-Z0-9_]+", name) else 1 if name[0].isupper() else 2, name


def test_all_is_sorted_and_complete():
    """A module with definitions has a sorted ``__all__`` without doubles, and in it every name that another module takes from it."""
    faults = []
    for module, tree in MODULES.items():
        names = names_in_all(tree)
        if names is None and any(map(is_public, tree.body)):
            faults.append(f"{module} has no __all__")
        if names and names != sorted(set(names), key=kind_and_name):
            faults.append(f"{module}: __all__ is not sorted")
        for home, name, line in taken_names(module):
            if name not in (names_in_all(MODULES[home]) or []):
                faults.append(f"{path_of(module).relative_to(ROOT)}:{line} takes {name}, which is not in __all__ of {home}")
    assert faults == []


def test_the_front_door_leads_to_every_public_name():
    """Each name of ``durabatch.__all__`` is loaded from its home, is what type checkers see there, and has a docstring."""
    front = MODULES["durabatch"]
    seen_by_checkers = {
        alias.name: node.module
        for block in front.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*seen_by_checkers, "__version__"} == set(durabatch.__all__)
    undocumented = []
    for name, home in seen_by_checkers.items():
        if home in MODULES:
            assert getattr(durabatch, name) is getattr(importlib.import_module(home), name)
            undocumented += [] if inspect.getdoc(getattr(durabatch, name)) else [name]
    assert undocumented == []


def test_the_front_door_knows_no_other_names():
    """A misspelt name is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="no attribute 'hanlder'"):
        _ = durabatch.hanlder


def test_no_submodule_takes_the_place_of_a_public_name():
    """Importing a module never changes what ``durabatch.NAME`` is."""
    assert {module.split(".")[1] for module in MODULES if module.count(".")} & set(durabatch.__all__) == set()


def test_public_names_are_in_the_readme():
    """Whoever reads the README meets every public name; of the errors, the base."""
    names = [name for name in durabatch.__all__ if name not in errors.__all__ and not name.startswith("_")]
    assert [name for name in [*names, "DurabatchError"] if not re.search(rf"\b{name}\b", README)] == []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_thing_has_a_docstring(module):
    """Modules, public classes, functions and methods say what is true of them."""
    tree = MODULES[module]
    missing = [] if ast.get_docstring(tree) else [f"{module} itself"]
    assert missing + docstring_missing(tree, module) == []


def test_every_error_is_in_the_drawn_tree():
    """The tree at the top of errors.py shows each class once, under its base, with its exit code where it changes."""
    drawn, above = {}, {}
    for line in errors.__doc__.splitlines():
        if found := re.match(r"^    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+Error)\s+(\d*)", line):
            depth = len(line[4:]) - len(line[4:].lstrip("│├└─ "))
            name, code = found[2], found[3]
            parent = above.get(depth // 4 - 1)
            assert name not in drawn
            drawn[name] = parent
            above[depth // 4] = name
            assert code in {"", str(getattr(errors, name).exit_code)}
            assert code or parent is None or getattr(errors, name).exit_code == getattr(errors, parent).exit_code
    classes = {name: kind.__base__.__name__ for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert drawn == {**classes, "DurabatchError": None}
    assert sorted(drawn) == errors.__all__


def test_errors_of_ours_are_defined_in_one_place():
    """A class below DurabatchError stands in errors.py, so that the tree is whole."""
    tree_names = set(errors.__all__)
    elsewhere = [
        f"{module}:{node.lineno} {node.name}"
        for module in MODULES
        if module != "durabatch.errors"
        for node in nodes_of(module)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] in tree_names for base in node.bases)
    ]
    assert elsewhere == []


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [("run", "state", states.RunState), ("item", "state", states.ItemState), ("attempt", "outcome", states.AttemptOutcome)],
)
def test_states_equal_the_check_strings(table, column, words, not_run):
    """The words in Python and the words that SQLite accepts are the same."""
    schema = ROOT / "schema" / "ledger.sql"
    if not schema.exists():
        not_run("there is no schema/ledger.sql yet")
    body = re.search(rf"CREATE TABLE (?:IF NOT EXISTS )?{table}\s*\((.*?)\n\)", schema.read_text(), re.S)[1]
    lists = re.findall(rf"\b{column}\s+IN\s*\(([^)]*)\)", body) + re.findall(rf"\bCASE {column}\s(.*?)\bELSE 0\s+END", body, re.S)
    assert max((set(re.findall(r"(?:WHEN |[(,] ?|^)'(\w+)'", found)) for found in lists), key=len) == {str(word) for word in words}


# -- SQL ----------------------------------------------------------------------------------------------------------------------


def test_python_holds_no_sql():
    """Statements stand in schema/, where they can be read, checked and pasted into a shell."""
    found = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]
    assert found == []


def test_every_statement_is_named_after_its_table_and_used():
    """A statement starts with the name of its file, is defined once, and is called by its name somewhere in the ledger room."""
    code = "\n".join(path.read_text() for path in sorted((PACKAGE / "ledger").glob("*.py")))
    misnamed = [f"{path.name}: {name}" for path in QUERIES for name in statements(path) if not name.startswith(f"{path.stem}_")]
    unused = [f"{path.name}: {name}" for path in QUERIES for name in statements(path) if not re.search(rf"\b{name}\b", code)]
    names = [name for path in QUERIES for name in statements(path)]
    assert (misnamed, unused) == ([], [])
    assert len(names) == len(set(names))


# -- sizes and loose ends -----------------------------------------------------------------------------------------------------


def test_no_function_is_over_60_lines_and_no_module_over_400():
    """What does not fit on a screen is taken apart."""
    functions = [
        f"{module}:{node.lineno} {node.name} {size}"
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, FUNCTION) and (size := node.end_lineno - node.lineno + 1) > 60
    ]
    modules = [f"{module} {size}" for module in MODULES if (size := len(path_of(module).read_text().splitlines())) > 400]
    assert (functions, modules) == ([], [])


def test_nothing_is_left_unfinished():
    """No note to oneself, no function that only says that it does nothing yet, no path of somebody's machine."""
    loose = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b|(?<![\w.])/(home/(?!me\b)\w+|root|work)/\w")
    files = [path for folder in (PACKAGE, ROOT / "schema") for path in folder.rglob("*") if path.suffix in {".py", ".sql"}]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if loose.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_every_test_states_a_promise_and_checks_it(path):
    """A test has a docstring, and asserts, expects an exception, or calls a helper that is named for checking."""
    checks = re.compile(r"raises|warns|assert|expect|check|verify|fail|run_state_machine", re.I)
    wanting = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, FUNCTION) and node.name.startswith("test_"):
            calls = (ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call))
            asserts = any(isinstance(part, ast.Assert) for part in ast.walk(node)) or any(map(checks.search, calls))
            wanting += [] if ast.get_docstring(node) and asserts else [f"line {node.lineno}: {node.name}"]
    assert wanting == []
