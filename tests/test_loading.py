from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from durabatch import loading
from durabatch.decorator import HandlerSpec
from durabatch.errors import HandlerImportError, UsageError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory that comes first on the module path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def refusal(call, *args) -> str:
    with pytest.raises(HandlerImportError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(target: str, **params: object) -> str:
    return refusal(loading.check, loading.parse_target(target), params)


def bound(function, **params):
    """Return the keyword arguments that *function* gets."""
    seen = {}
    loaded = loading.from_function(functools.partial(function, seen), params)
    loaded.call("1", None)
    return seen


def test_a_target_is_kept_as_typed_but_for_its_path(here):
    """Modules stay names, files become absolute; a colon in a directory is no trouble."""
    assert loading.parse_target("a.b:work") == {"kind": "python", "target": "a.b:work"}
    assert loading.parse_target("x/jobs.py:work") == {"kind": "python", "target": f"{here}/x/jobs.py:work"}
    assert loading.parse_target("x:y/jobs.py:Group.work") == {"kind": "python", "target": f"{here}/x:y/jobs.py:Group.work"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.b", "handler: 'a.b' is not 'module:function' or 'file.py:function'. Did you mean 'a:b'?"),
        ("jobs.py", "handler: 'jobs.py' is not 'module:function' or 'file.py:function'. Example: jobs:work."),
        ("jobs:", "handler: 'jobs:' is not 'module:function' or 'file.py:function'. Example: jobs:work."),
        (":work", "handler: ':work' is not 'module:function' or 'file.py:function'. Example: jobs:work."),
        ("jobs:wo rk", "handler: 'jobs:wo rk' is not 'module:function' or 'file.py:function'. Example: jobs:work."),
        ("a/b:work", "handler: 'a/b' in 'a/b:work' is neither a module name nor a .py file. Use 'module:function' or 'file.py:function'."),
    ],
)
def test_a_text_of_another_form_is_refused_with_an_example(text, message):
    """Nothing is imported to find that out."""
    assert refusal(loading.parse_target, text) == message


def test_a_module_a_package_and_a_file_are_loaded(here):
    """Also a file that no import statement could reach, and a method of an object."""
    write(here / "jobs.py", "def work(item): return ['module', item]")
    write(here / "pkg/__init__.py", "")
    write(here / "pkg/part.py", "from . import __name__ as up\nclass Box:\n    def work(self, item): return [up, item]\nbox = Box()")
    write(here / "some dir/odd-name.py", "def work(item): return ['file', item]")
    results = [
        loading.load(loading.parse_target(target), {}).call('{"a":1}', None)
        for target in ("jobs:work", "pkg.part:box.work", "some dir/odd-name.py:work", "jobs.py:work")
    ]
    assert results == [["module", {"a": 1}], ["pkg", {"a": 1}], ["file", {"a": 1}], ["module", {"a": 1}]]


def test_a_file_is_one_module_however_it_is_named(here):
    """Its code runs once: as file, as module, and as file again; the directory of a file is not put on the module path."""
    write(here / "jobs.py", "def work(item): return id(work)")
    write(here / "sub/far.py", "import dataclasses\n@dataclasses.dataclass\nclass Row:\n    x: 'int'\ndef work(item): return id(work)")
    write(here / "sub/json.py", "def work(item): return __name__")
    path = list(sys.path)
    for targets in (("jobs:work", "jobs.py:work"), ("sub/far.py:work", "./sub/../sub/far.py:work")):
        assert len({loading.load(loading.parse_target(target), {}).call("1", None) for target in targets}) == 1
    assert loading.load(loading.parse_target("sub/json.py:work"), {}).call("1", None).startswith("json_")
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n\ndef work(:", "cannot import jobs: SyntaxError at jobs.py:3: invalid syntax"),
        ("import missing_thing", "cannot import jobs: ModuleNotFoundError at jobs.py:1: No module named 'missing_thing'"),
        ("x = 1\nraise ValueError('a\\nb')", "cannot import jobs: ValueError at jobs.py:2: a b"),
        ("import json\njson.loads('x')", "cannot import jobs: JSONDecodeError at jobs.py:2: Expecting value: line 1 column 1 (char 0)"),
        (
            "import sys\nsys.exit(3)",
            'cannot import jobs: SystemExit at jobs.py:2: 3. Guard what must not run at import: if __name__ == "__main__".',
        ),
        (
            "from . import x",
            (
                "cannot import jobs: ImportError at jobs.py:1: attempted relative import with no known parent package. "
                "Give the handler as package.module:function."
            ),
        ),
        (
            "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
            "cannot import jobs: E at jobs.py:3: message not available",
        ),
        (
            "from durabatch.errors import UsageError\nraise UsageError('a run cannot be started here', 'Guard it.')",
            "cannot import jobs: a run cannot be started here. Guard it.",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_explained_in_one_line(here, source, message):
    """The line names the user's file and line, not ours; the real exception stays attached; a file says the same as a module."""
    write(here / "jobs.py", source)
    assert check("jobs:work") == message
    write(here / "x/jobs-2.py", source)
    assert check("x/jobs-2.py:work") == message.replace("import jobs", "import x/jobs-2.py").replace("jobs.py", "x/jobs-2.py")
    with pytest.raises(HandlerImportError) as caught:
        loading.load(loading.parse_target("jobs:work"), {})
    assert caught.value.__cause__ is not None
    assert not [name for name in sys.modules if name.startswith("jobs-2_")]


def test_a_module_that_is_not_there_is_told_apart_from_one_that_it_imports(here):
    """The message says where was looked."""
    assert check("jobz:work") == f"cannot import jobz: no module 'jobz' in {here} or on the module path. There is no jobz.py here."
    assert check("jobz.py:work") == "cannot import jobz.py: no such file. Give the path of a Python file."
    (here / "dir.py").mkdir()
    assert check("dir.py:work") == "cannot import dir.py: is a directory. Give the path of a Python file."


def test_ctrl_c_during_an_import_is_not_swallowed(here):
    """It is the user who wants to stop, not a fault of the module; the half-made module is gone."""
    write(here / "x/slow.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loading.check(loading.parse_target("x/slow.py:work"), {})
    assert not [name for name in sys.modules if name.startswith("slow_")]


def test_a_name_that_is_not_there_is_answered_with_what_is(here):
    """A near miss is guessed, else the functions of the module are listed, not those it imported."""
    write(here / "jobs.py", "from json import dumps\ndef audit(item): ...\ndef _own(item): ...\ndef scan(item): ...")
    write(here / "empty.py", "")
    assert check("jobs:audti") == "jobs has no 'audti'. Did you mean 'audit'?"
    assert check("jobs:zzz") == "jobs has no 'zzz'. There is: audit, scan."
    assert check("empty.py:zzz") == "empty.py has no 'zzz'. It defines no functions."
    assert check("jobs:audit.zzz") == "jobs has no 'audit.zzz'. It defines no functions."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def work(): ...", "jobs:work takes 0 arguments, durabatch passes 1 or 2 (item, ctx). Give it a parameter for the item."),
        ("def work(*, a=1): ...", "jobs:work takes 0 arguments, durabatch passes 1 or 2 (item, ctx). Give it a parameter for the item."),
        (
            "def work(a, b, c): ...",
            (
                "jobs:work takes 3 arguments, durabatch passes 1 or 2 (item, ctx). "
                "Make c keyword-only (after a *) and give --param, or give a default."
            ),
        ),
        ("work = 3", "jobs:work is of type int, not a function"),
        ("class work: ...", "jobs:work is a class."),
        ("async def work(item): yield", "jobs:work is an async generator (it has a yield)."),
        ("def work(item): yield", "jobs:work is a generator (it has a yield)."),
        (
            "import functools\ndef inner(a, item): yield\nwork = functools.partial(inner, 1)",
            "jobs:work is a generator (it has a yield).",
        ),
        (
            "class Box:\n    async def __call__(self, item): yield\nwork = Box()",
            "jobs:work is an async generator (it has a yield).",
        ),
        ("from os import system as work", "jobs:work is not a durabatch handler. Use `durabatch exec` for commands."),
        ("work = eval", "jobs:work is not a durabatch handler. Use `durabatch exec` for commands."),
        ("work = max", "jobs:work: its parameters cannot be found out. Wrap it in a def of your own."),
        ("def work(item: 'Nowhere'): ...", "jobs:work: the annotation 'Nowhere' of item cannot be resolved: NameError"),
        ("class Odd: ...\ndef work(item: Odd): ...", "jobs:work: the annotation of item is no type that pydantic can check: "),
    ],
)
def test_a_handler_that_cannot_be_called_with_an_item_is_refused(here, source, message):
    """Before any item, by the early check and by the worker alike."""
    write(here / "jobs.py", source)
    assert check("jobs:work").startswith(message)
    assert refusal(loading.load, loading.parse_target("jobs:work"), {}).startswith(message)


@pytest.mark.parametrize(
    ("source", "is_async"),
    [
        ("async def work(item): return [item]", True),
        ("class Box:\n    async def __call__(self, item): return [item]\nwork = Box()", True),
        ("import functools\nasync def inner(a, item): return [item]\nwork = functools.partial(inner, 1)", True),
        ("def work(item): return [item]", False),
    ],
)
def test_coroutine_functions_are_told_apart(here, source, is_async):
    """Check and loading say whether what the handler returns is to be awaited; it is then the value."""
    write(here / "jobs.py", source)
    ref = loading.parse_target("jobs:work")
    loaded = loading.load(ref, {})
    assert (loading.check(ref, {}).is_async, loaded.is_async, loading.check_function(loaded.function, {}).is_async) == (is_async,) * 3
    returned = loaded.call("7", None)
    assert (asyncio.run(returned) if is_async else returned) == [7]


def test_a_set_up_gets_the_params_that_it_names(here):
    """Set-up and resources are ready to be called: with those params, converted, that they name as keyword-only parameters."""
    write(
        here / "jobs.py",
        """
        import durabatch
        def connect(*, port=1): return ["setup", port]
        def model(size=2): return ["model", size]
        @durabatch.handler(setup=connect, resources={"model": model, "dict": dict})
        def work(item, *, port: int, size: int): return item
        """,
    )
    spec = loading.load(loading.parse_target("jobs:work"), {"port": "80", "size": "5"}).spec
    assert (spec.setup(), spec.resources["model"](), spec.resources["dict"]()) == (["setup", 80], ["model", 2], {})


def test_a_preflight_check_gets_the_params_that_it_names(here):
    """A check is a handler with a choice of the params; one that needs others is refused."""
    write(here / "jobs.py", "def check(item, *, port: int): return port\nasync def later(item): ...\ndef odd(item, *, needed): ...")
    ref = loading.parse_target("jobs:check")
    assert loading.check_preflight(ref, {"port": "80", "size": "5"}).name == "check"
    assert loading.load_check(ref, {"port": "80", "size": "5"}).call("1", None) == 80
    assert loading.check_preflight(loading.parse_target("jobs:later"), {}).is_async
    assert "needs a value for needed" in refusal(loading.check_preflight, loading.parse_target("jobs:odd"), {"port": "80"})
    assert loading.check_preflight(loading.command_ref(["echo"], shell=False, parse="none"), {"port": "80"}).name == "echo"


def test_a_usable_handler_is_checked_without_being_called(here):
    """The check returns its name and what it declares."""
    write(here / "jobs.py", "import durabatch\n@durabatch.handler(max_attempts=3)\ndef work(item): raise SystemExit\n")
    assert loading.check(loading.parse_target("jobs.py:work"), {}) == loading.CheckedHandler(HandlerSpec(max_attempts=3), "work")
    assert loading.check_function(test_ctrl_c_during_an_import_is_not_swallowed, {}).name.startswith("test_ctrl_c")


class Doubler:
    def __call__(self, item):
        return item * 2

    def method(self, item, ctx):
        return [item, ctx]


def passes_through(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def with_session(function):
    @functools.wraps(function)
    def inner(item):
        return function(item, "session")

    return inner


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (lambda item: item, 2),
        (lambda item, ctx: (item, ctx), (2, "CTX")),
        (lambda item, anything: (item, anything), (2, "CTX")),
        (lambda item, times=3: item * times, 6),
        (lambda item, ctx=None: (item, ctx), (2, "CTX")),
        (lambda *items: items, (2,)),
        (lambda item, /, **rest: rest, {}),
        (Doubler(), 4),
        (Doubler().method, [2, "CTX"]),
        (functools.partial(pow, 10), 100),
        (passes_through(lambda item, ctx: (item, ctx)), (2, "CTX")),
        (with_session(lambda item, session: (item, session)), (2, "session")),
        (abs, 2),
    ],
)
def test_the_context_goes_only_to_those_who_ask_for_it(function, result):
    """A second parameter with a default of its own is left alone, unless it is called ctx; decorated handlers work."""
    loaded = loading.from_function(function, {})
    assert loaded.call("2", "CTX") == result
    assert loaded.takes_context == ("CTX" in result if isinstance(result, tuple | list) else False)


def test_an_item_is_validated_when_its_parameter_is_annotated(here):
    """Models, dataclasses and nested types come as what they say; plain types are checked without loading pydantic."""
    write(
        here / "jobs.py",
        """
        from __future__ import annotations
        import dataclasses, datetime, pydantic
        class Server(pydantic.BaseModel):
            host: str
            port: int = 22
        @dataclasses.dataclass
        class Row:
            when: datetime.date
        def model(item: Server): return item
        def row(item: Row): return item
        def number(item: int): return item
        def rows(item: list[dict[str, int]]): return item
        def anything(item: object): return item
        """,
    )

    def call(name, payload):
        return loading.load(loading.parse_target(f"jobs:{name}"), {}).call(payload, None)

    assert call("model", '{"host":"a","port":"23"}').port == 23
    assert call("row", '{"when":"2024-05-06"}').when.year == 2024
    assert call("number", '"42"') == 42
    assert call("rows", '[{"a":"1"}]') == [{"a": 1}]
    assert call("anything", '[{"a":"1"}]') == [{"a": "1"}]
    for name, payload in (("model", '{"port":1}'), ("row", '"x"'), ("number", '"x"'), ("number", "1.5")):
        with pytest.raises(ValueError, match="validation error"):
            call(name, payload)


@pytest.mark.parametrize(
    ("annotation", "payload", "item"),
    [
        (dict, '{"a":1}', {"a": 1}),
        (list, "[1]", [1]),
        (str, '"a"', "a"),
        (bool, "true", True),
        (float, "1", 1.0),
        (list[int], '["1"]', [1]),
        (dict[str, str], '{"a":"b"}', {"a": "b"}),
        (dict[str, object], '{"a":[1]}', {"a": [1]}),
    ],
)
def test_plain_annotations_are_checked_strictly_enough(annotation, payload, item):
    """The usual types take what they should and nothing else."""

    def work(item):
        return item

    work.__annotations__ = {"item": annotation}
    call = loading.from_function(work, {}).call
    assert call(payload, None) == item
    with pytest.raises(ValueError, match="validation error"):
        call('{"a":{}}' if annotation == dict[str, str] else "null", None)


def test_a_worker_of_plain_types_does_not_load_pydantic(here):
    """Half of its memory and start time would go there."""
    write(here / "jobs.py", "def work(item: dict[str, object], ctx, *, a: int = 1, b: list[str] = []): return item")
    program = "import sys; from durabatch import loading; loading.load({'kind':'python','target':'jobs:work'}, {'a': '2'}); "
    program += "print([name for name in ('pydantic', 'zstandard', 'apsw', 'click', 'rich', 'psutil') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=os.environ | {"PYTHONPATH": f"{here}:{ROOT}"})
    assert (done.stdout, done.stderr) == (b"[]\n", b"")


def test_params_become_what_the_annotation_says():
    """Text stays text for str; everything else is read from its text, or taken as the Python value it is."""

    def work(seen, item, *, s: str = "", i: int = 0, f: float = 0, b: bool = False, many: list[str] | None = None, p: Path = Path()):
        seen.update(s=s, i=i, f=f, b=b, many=many, p=p)

    given = {"s": "123", "i": "7", "f": "2.5", "b": "yes", "many": '["x","y"]', "p": "/a"}
    expected = {"s": "123", "i": 7, "f": 2.5, "b": True, "many": ["x", "y"], "p": Path("/a")}
    assert bound(work, **given) == expected
    assert bound(work, **expected | {"p": "/a"}) == expected
    assert bound(work, many="null")["many"] is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2.5e3", -2500.0),
        ("true", True),
        ("null", None),
        ('{"a":[1]}', {"a": [1]}),
        ("[1]", [1]),
        ('"x"', '"x"'),
        ("eu-1", "eu-1"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("1_000", "1_000"),
        ("True", "True"),
        ("", ""),
        ("1e999x", "1e999x"),
        ("é", "é"),
    ],
)
def test_a_param_without_annotation_is_json_only_where_that_is_plain(text, value):
    """Numbers, true, false, null, lists and objects; all else stays text, leading zeros included."""

    def work(seen, item, *, a, **rest):
        seen.update(a=a, **rest)

    assert bound(work, a=text, other=text) == {"a": value, "other": value}


def test_python_texts_survive_being_stored_as_params():
    """What looks like a number stays the text it was; references stay references; other values are stored as JSON."""

    def work(seen, item, **params):
        seen.update(params)

    values = {"a": "123", "b": "plain", "c": [1, "2"], "d": 5, "e": "null", "f": None}
    stored = json.loads(json.dumps(loading.quote_params(values)))
    assert bound(work, **stored) == values
    assert loading.quote_params({"key": "env:TOKEN"}) == {"key": "env:TOKEN"}
    with pytest.raises(UsageError, match=r"param 'x': set at \$ cannot be stored"):
        loading.quote_params({"x": {1}})


def test_secrets_are_read_by_the_worker_only(here, monkeypatch):
    """The check looks whether they are there; the value stays text as it is, without the last line end of a file."""

    def work(seen, item, *, token, key: str, limit: int):
        seen.update(token=token, key=key, limit=limit)

    monkeypatch.setenv("TOKEN", "12e5")
    monkeypatch.setenv("LIMIT", "12")
    write(here / "key.txt", "s3cret\n\n")
    assert bound(work, token="env:TOKEN", key="file:key.txt", limit="env:LIMIT") == {"token": "12e5", "key": "s3cret\n", "limit": 12}
    monkeypatch.setenv("LIMIT", "hunter2")
    partial = functools.partial(work, {})
    params = {"token": "env:TOKEN", "key": "file:key.txt", "limit": "env:LIMIT"}
    loading.check_function(partial, params)
    said = refusal(loading.from_function, partial, params)
    assert said == "partial: param 'limit': its value does not fit: int_parsing"
    for reference, message in (("env:NO", "the environment has no variable 'NO'. Set NO."), ("file:no", "no is not a readable file.")):
        assert message in refusal(loading.check_function, partial, params | {"token": reference})
    (here / "binary").write_bytes(b"\xff")
    assert "cannot be read as text" in refusal(loading.from_function, partial, params | {"limit": "1", "key": "file:binary"})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "jobs:work needs a value for region. Give --param region=...."),
        ({"region": "eu", "limt": "3"}, "jobs:work takes no param 'limt'. Did you mean 'limit'?"),
        ({"region": "eu", "zzz": "3"}, "jobs:work takes no param 'zzz'. It takes: region, limit."),
        ({"region": "eu", "item": "3"}, "jobs:work takes no param 'item'."),
        ({"region": "eu", "limit": "many"}, "jobs:work: param 'limit': 'many' does not fit: Input should be a valid integer"),
        ({"region": 3}, "jobs:work: param 'region': 3 does not fit: Input should be a valid string"),
    ],
)
def test_params_that_do_not_fit_are_refused_before_any_item(here, params, message):
    """Missing, unknown and wrong ones, each with what there is."""
    write(here / "jobs.py", "def work(item, *, region: str, limit: int = 3): ...")
    assert check("jobs:work", **params).startswith(message)


def test_broken_json_without_annotation_is_refused():
    """A bracket that is never closed is a slip, not a text."""

    def work(item, *, a=1):
        return a

    assert "is no JSON" in refusal(loading.check_function, work, {"a": "[1,"})
    assert "It has no keyword-only parameters." in refusal(loading.check_function, lambda item: item, {"a": "1"})


def test_a_function_is_described_by_the_name_that_leads_to_it(here):
    """Importable functions, methods of classes and builtins; what has no such name is None."""
    write(here / "jobs.py", "class Box:\n    @staticmethod\n    def work(item): ...\ndef work(item): ...")
    write(here / "x/far-off.py", "def work(item): return 'far'")
    import jobs

    assert loading.describe_function(jobs.work) == {"kind": "python", "target": "jobs:work"}
    assert loading.describe_function(jobs.Box.work) == {"kind": "python", "target": "jobs:Box.work"}
    assert loading.describe_function(abs) == {"kind": "python", "target": "builtins:abs"}
    far = loading.load(loading.parse_target("x/far-off.py:work"), {}).function
    assert loading.describe_function(far) == {"kind": "python", "target": f"{here}/x/far-off.py:work"}
    renamed = functools.partial(jobs.work)
    hidden = jobs.work
    jobs.work = None
    for nameless in (lambda item: item, renamed, hidden, Doubler(), 3):
        assert loading.describe_function(nameless) is None


def test_a_function_of_the_started_program_is_described_by_its_file_or_module(here):
    """A script by its path, a module started with -m by its name, typed code not at all; and the worker finds what was described."""
    source = "import json\nfrom durabatch import loading\ndef work(item): return [__name__, item]\n"
    source += "if __name__ == '__main__': print(json.dumps(loading.describe_function(work)))\n"
    script = write(here / "pkg/script.py", source)
    environment = os.environ | {"PYTHONPATH": f"{here}:{ROOT}"}

    def described(*arguments):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, env=environment, check=True)
        return json.loads(done.stdout)

    assert described(str(script)) == {"kind": "python", "target": f"{script}:work"}
    assert described("-m", "pkg.script") == {"kind": "python", "target": "pkg.script:work"}
    assert described("-c", source) is None
    name, item = loading.load({"kind": "python", "target": f"{script}:work"}, {}).call("1", None)
    assert name != "__main__"
    assert item == 1


def test_a_command_is_described_and_checked(here):
    """The program must be there and executable; the name is the program's."""
    ref = loading.command_ref(["/bin/echo", "{}"], shell=False, parse="none")
    assert ref == {"kind": "command", "argv": ["/bin/echo", "{}"], "shell": False, "parse": "none"}
    assert loading.check(ref, {}) == loading.CheckedHandler(HandlerSpec(), "echo")
    shell = loading.command_ref(["wc -l {} | sort"], shell=True, parse="lines")
    assert loading.check(shell, {}).name == "wc"
    write(here / "plain.txt", "x")
    for program, message in (
        ("no-such-program", "cannot run 'no-such-program': no such program. Give its path, or put it on PATH."),
        ("./plain.txt", "cannot run './plain.txt': is not executable. Mark it as executable."),
    ):
        assert refusal(loading.check, loading.command_ref([program], shell=False, parse="none"), {}) == message
    assert "a command takes no --param" in refusal(loading.check, ref, {"a": "1"})
    assert "are not imported" in refusal(loading.load, ref, {})


@pytest.mark.parametrize(
    ("argv", "shell", "parse", "message"),
    [
        ([], False, "none", "no command is given"),
        ([""], False, "none", "no command is given"),
        (["a", "b"], True, "none", "--shell takes one text, not 2"),
        (["a\0"], False, "none", "the command holds a NUL character"),
        (["a"], False, "xml", "--parse: 'xml' is not one of none, json, lines"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(argv, shell, parse, message):
    """Before anything is started or stored."""
    with pytest.raises(UsageError, match=message):
        loading.command_ref(argv, shell=shell, parse=parse)
