"""Configuration files that are wrong, hostile, or written with other editors: rows 31 to 38 and 42 of the list of bad inputs."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durabatch.config import files
from durabatch.config.files import config_files, user_file
from durabatch.config.resolving import resolve
from durabatch.config.toml_files import parse_toml, toml_text
from durabatch.errors import UsageError

quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# one\n\n\n\n\n\nretries 3\n", "durabatch.toml:7: expected '=' after a key in a key/value pair"),
        ("retries = \n", "durabatch.toml:1: invalid value"),
        ("name = '''\n\nx", "durabatch.toml:3: expected \"'''\""),
        ("retires = 3\n", "durabatch.toml:1: unknown key 'retires'. Did you mean 'retries'?"),
        ("retries = 3\nzzz = 1\n", "durabatch.toml:2: unknown key 'zzz'. `durabatch init` writes them all."),
        ("\nworkers = 'many'\n", "durabatch.toml:2: workers: expected a number, 'auto' or 'N%', got text 'many'"),
        ("retries = -1", "durabatch.toml:1: retries: '-1' is not a whole number >= 0. Use 0 to 1,000,000."),
        ("retries = 9223372036854775808", "durabatch.toml:1: retries: '9223372036854775808' is more than 1,000,000. Use 0 to 1,000,000."),
        (f"retries = {'9' * 5000}", "durabatch.toml: a number has too many digits"),
        ("backoff_factor = nan", "durabatch.toml:1: backoff_factor: 'nan' is not a number from 1 to 100"),
        ("retries = 1\n\nretries = 2\n", "durabatch.toml:3: 'retries' stands here and on line 1"),
        ("retries = 1\n\nretries = 2", "durabatch.toml:3: 'retries' stands here and on line 1"),
        ("batch_size = 1\nbatch-size = 2\n", "durabatch.toml:2: 'batch_size' stands here and on line 1"),
        ("[profile.a]\nretries = 1\n[budget]\nusd = 1\n[profile.a]\n", "durabatch.toml:5: 'profile.a' stands here and on line 1"),
        ("budget = { usd = 1 }\nbudget.tokens = 2\n", "durabatch.toml:2: 'budget.tokens' stands here and on line 1"),
        ("[budget]\nusd = 1\n[budget.usd]\nx = 1\n", "durabatch.toml:3: 'budget.usd' stands here and on line 2"),
        ("[budget]\nusd = 5\ntokens = 'x'\n", "durabatch.toml:1: budget: 'tokens=x' is not UNIT=AMOUNT. Use usd=5"),
        ("profile = 3\n", "durabatch.toml:1: profile is not a table of profiles. Write [profile.NAME], and its settings below."),
        ("[profile]\na = 3\n", "durabatch.toml:1: profile is not a table of profiles."),
        ("\n[profile.a]\nprofile = 'b'\n", "durabatch.toml:3: unknown key 'profile'"),
        ("[profile.a]\n\nretires = 1\n", "durabatch.toml:3: unknown key 'retires'. Did you mean 'retries'?"),
        ("[[retries]]\n", "durabatch.toml:1: retries: expected a whole number, got a list"),
        (f"a = {'[' * 5000}", "durabatch.toml: values are nested too deeply"),
        ("handler = 'a.b'\n", "durabatch.toml:1: handler: 'a.b' is not 'module:function' or 'file.py:function'. Did you mean 'a:b'?"),
        ("param = { x = [1, 2], y = 1, 'a b' = 2 }", "durabatch.toml:1: param: 'a b=' is not NAME=VALUE"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(text, sentence, toml, refusal):
    """One sentence that says where, what, and what to do."""
    toml(text)
    assert refusal().startswith(sentence)
    assert "\n" not in refusal()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"name = 'a'\nkey = '\xe4'\n", "durabatch.toml:2: not UTF-8 at byte 18. Save it as UTF-8."),
        (b"\xef\xbb\xbfname = '\xe4'\n", "durabatch.toml:1: not UTF-8 at byte 11"),
        ("name = 'a'".encode("utf-16"), "durabatch.toml:1: not UTF-8 at byte 0"),
        (b"#" * (1 << 20) + b"\n", "durabatch.toml: larger than 1 MiB"),
        (b"name = '\x01'\n", "durabatch.toml:1: found invalid character '\\x01'"),
    ],
)
def test_a_file_that_is_no_text_is_refused(data, sentence, toml, refusal):
    """Other encodings are named by the first byte that shows them; a huge file is not read."""
    toml(data)
    assert refusal().startswith(sentence)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf# nothing"])
def test_an_empty_file_means_defaults(data, toml):
    """A file may say nothing."""
    toml(data)
    assert resolve({}).found == {}


def test_a_byte_order_mark_and_carriage_returns_are_accepted(toml, refusal):
    """As some editors write them; lines are counted all the same."""
    toml(b"\xef\xbb\xbfretries = 3\r\nname = 'a'\r\n")
    assert resolve({})["retries"] == 4
    toml(b"\xef\xbb\xbfretries = 3\r\n\r\nnaem = 'a'\r\n")
    assert refusal().startswith("durabatch.toml:3: unknown key 'naem'")


def test_what_is_no_plain_file_is_refused(here, toml, refusal):
    """A directory, a pipe that would be waited for, a device."""
    (here / "durabatch.toml").mkdir()
    assert refusal() == "durabatch.toml: is a directory"
    (here / "durabatch.toml").rmdir()
    os.mkfifo(here / "durabatch.toml")
    assert refusal() == "durabatch.toml: is not a plain file"
    (here / "durabatch.toml").unlink()
    (here / "durabatch.toml").symlink_to("/dev/zero")
    assert refusal() == "durabatch.toml: is not a plain file"


def test_a_file_that_may_not_be_read_is_refused(toml, refusal, monkeypatch):
    """It is not passed over: what stands there may matter."""
    toml("retries = 1")

    def deny(path, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", deny)
    assert refusal() == "durabatch.toml: permission denied. Make it readable, or move it away."


# -- which files --------------------------------------------------------------------------------------------------------------


def test_the_table_in_pyproject_counts(toml, refusal):
    """[tool.durabatch] is read, with the lines of the whole file; other tables are nobody's business here."""
    toml("[tool.ruff]\nline-length = 'x'\n\n[tool.durabatch]\nretries = 2\n\n[tool.durabatch.profile.a]\nworkers = 1\n", "pyproject.toml")
    wishes = resolve({"profile": "a"})
    assert (wishes["retries"], wishes.source("retries"), wishes.source("workers")) == (3, "pyproject.toml:5", "pyproject.toml:8 (a)")
    toml("[tool.durabatch]\nretires = 2\n", "pyproject.toml")
    assert refusal().startswith("pyproject.toml:2: unknown key 'retires'")
    toml("[tool]\ndurabatch = 2\n", "pyproject.toml")
    assert refusal() == "pyproject.toml:2: [tool.durabatch] is not a table"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[project]\nname = 'x'\n",
        "[tool.ruff]\nselect = ['durabatch']\n",
        "tool = 3 # durabatch\n",
        "broken [",
        "\xe4".encode("latin-1"),
    ],
)
def test_a_pyproject_without_our_table_says_nothing(text, toml):
    """Also one that is broken and does not mention us: it is not ours to judge."""
    toml(text, "pyproject.toml")
    assert resolve({}).found == {}


def test_yaml_is_read_with_lines(toml, refusal):
    """The same keys, types and refusals."""
    toml("retries: 2\nbudget: {usd: 5}\nretry_on:\n  - ConnectionError\nprofile:\n  night:\n    workers: 1\n", "durabatch.yaml")
    wishes = resolve({"profile": "night"})
    assert (wishes["retries"], wishes["budget"], wishes["retry_on"]) == (3, {"usd": 5.0}, ("ConnectionError",))
    assert (wishes.source("budget"), wishes.source("workers")) == ("durabatch.yaml:2", "durabatch.yaml:7 (night)")
    for text, sentence in (
        ("a: [1\nb: 2", "durabatch.yaml:2: "),
        ("retires: 1", "durabatch.yaml:1: unknown key 'retires'. Did you mean 'retries'?"),
        ("retries: 1\nname: a\nretries: 2", "durabatch.yaml:3: 'retries' stands here and on line 1"),
        ("\ntimeout: 1:30", "durabatch.yaml:2: timeout: expected a duration such as '30s', or a percentage, got the number 90"),
        ("timeout:", "durabatch.yaml:1: timeout: expected a duration such as '30s', or a percentage, got nothing"),
        ("- a", "durabatch.yaml:1: expected keys with values"),
        ("just a text", "durabatch.yaml:1: expected keys with values"),
        ("a: 1\n--- \nb: 2", "durabatch.yaml:2: "),
        ("a: !!python/object/apply:os.system [id]", "durabatch.yaml:1: could not determine a constructor"),
        ("name: a\nkey: \x01", "durabatch.yaml:2: a character that YAML does not allow (U+0001)"),
        ("a: &a [*a]", "durabatch.yaml:1: "),
        ("name: " + "[" * 1000, "durabatch.yaml"),
        ("1: 2", "durabatch.yaml:1: unknown key '1'"),
        ("? [a, b]\n: 1", "durabatch.yaml:1: "),
        ("? {a: b}\n: 1", "durabatch.yaml:1: "),
    ):
        toml(text, "durabatch.yaml")
        assert refusal().startswith(sentence), text
    toml("", "durabatch.yaml")
    assert resolve({}).found == {}


def test_a_yaml_file_that_multiplies_itself_is_refused(toml, refusal):
    """Forty lines could stand for more than fits into memory."""
    lines = ["param:", "  a0: &a0 [x, x]", *(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40))]
    toml("\n".join(lines), "durabatch.yaml")
    assert refusal() == "durabatch.yaml:3: aliases (*a0) are not read. Write the value out."


def test_yaml_without_its_package_names_the_extra(toml, refusal, monkeypatch):
    """One line with the command that helps."""
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    toml("retries: 2\n", "durabatch.yaml")
    assert refusal() == "durabatch.yaml: the package that reads YAML is missing. pip install 'durabatch[yaml]', or use durabatch.toml."


def test_the_users_own_file_is_found_where_the_system_says(here, own_file, monkeypatch, tmp_path):
    """XDG_CONFIG_HOME when it is absolute, else ~/.config."""
    own_file("retries = 5\n")
    assert resolve({}).source("retries") == "~/.config/durabatch/config.toml:1"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert resolve({})["retries"] == 6
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert user_file() == str(tmp_path / "other" / "durabatch" / "config.toml")
    assert resolve({}).found == {}


# -- whose word it is ---------------------------------------------------------------------------------------------------------

GUARDED = [
    ("handler = 'jobs.py:work'", "handler", "its handler is not imported"),
    ("input = 'words.txt'", "input", "its input is not used"),
    ("preflight = 'jobs.py:check'", "preflight", "its preflight is not used"),
    ("retry_on = ['evil.Error']", "retry_on", "its retry_on is not used"),
    ("give_up_on = ['evil.Error']", "give_up_on", "its give_up_on is not used"),
    ("batch_strategy = 'evil'", "batch_strategy", "its batch_strategy is not used"),
]


@pytest.mark.parametrize(("line", "key", "sentence"), GUARDED)
def test_a_file_that_others_can_write_names_no_code(line, key, sentence, toml):
    """What would be imported or read is refused when it is asked for; other settings of the file count."""
    toml(f"retries = 2\n{line}\n").chmod(0o666)
    wishes = resolve({})
    assert wishes["retries"] == 3
    with pytest.raises(
        UsageError, match=rf"durabatch\.toml:2: durabatch\.toml is writable by others; {sentence}\. Own the file and run `chmod"
    ):
        wishes[key]


def test_what_the_command_line_names_is_used_all_the_same(toml):
    """The file's word does not matter then."""
    toml("handler = 'evil:work'\n").chmod(0o666)
    assert resolve({"handler": "jobs:work"})["handler"] == "jobs:work"


def test_a_file_of_another_user_names_no_code(toml, monkeypatch):
    """Root's word is the machine's own, anybody else's is not."""
    path = toml("handler = 'jobs.py:work'\n")
    monkeypatch.setattr(files.os, "geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid == 0:
        assert resolve({})["handler"] == "jobs.py:work"
        os.chown(path, 12345, -1)
    with pytest.raises(UsageError, match=r"durabatch\.toml belongs to another user; its handler is not imported"):
        resolve({})["handler"]


@pytest.mark.parametrize(
    ("group", "members", "trusted"), [("me", [], True), ("me", ["me"], True), ("me", ["you"], False), ("users", [], False)]
)
def test_a_file_for_a_group_is_trusted_only_if_the_group_is_the_user(group, members, trusted, toml, monkeypatch):
    """Many systems give each user a group of the same name, and a umask that lets it write."""
    import grp
    import pwd
    from types import SimpleNamespace

    path = toml("handler = 'jobs.py:work'\n")
    path.chmod(0o664)
    gid = path.stat().st_gid
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="me", pw_gid=gid))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=group, gr_mem=members))
    assert (config_files()[0].distrust == "") is trusted


# -- lines and words ----------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORDS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)


@given(VALUES)
def test_what_is_written_as_toml_reads_back(value):
    """Texts with quotes, control characters and other letters; lists and tables inside each other."""
    assert parse_toml(f"x = {toml_text(value)}", "f")[0] == {"x": value}


@given(
    st.lists(
        st.tuples(WORDS, VALUES, st.sampled_from(["", "# [x] = '\"\n", "\n\n"]), st.booleans()), max_size=6, unique_by=lambda row: row[0]
    )
)
def test_every_key_is_found_on_its_line(rows):
    """Whatever stands in texts, comments and lists over several lines."""
    text, wanted = "", {}
    for name, value, before, in_lines in rows:
        text += before
        wanted[name] = text.count("\n") + 1
        text += f"{toml_text(name)} = {f'[{chr(10)}  {toml_text(value)}, # ]{chr(10)}]' if in_lines else toml_text(value)}\n"
    values, lines = parse_toml(text, "f")
    assert {path[0]: line for path, line in lines.items() if len(path) == 1} == wanted
    assert list(values) == [name for name, *_ in rows]


def test_lines_are_known_behind_texts_of_many_lines(toml):
    """Quotes, brackets and equals signs in a text are text."""
    text = 'a = """\n[x]\nb = 1\n\\""" "" """\nb = \'\'\'\nc = 1\'\'\'\'\nc = "\\"#[" # "\n[d."e.f"] # g\n"h i" = [\n [1], # ]\n]\n'
    _, lines = parse_toml(text, "f")
    assert lines == {("a",): 1, ("b",): 5, ("c",): 7, ("d",): 8, ("d", "e.f"): 8, ("d", "e.f", "h i"): 9}


@quick
@given(st.binary(max_size=60) | st.text(st.sampled_from("retis=[]{}\"'#\n.-_1 \t\\"), max_size=60).map(str.encode))
def test_no_bytes_make_a_traceback(toml, data):
    """Any file is settings or one sentence."""
    for name in ("durabatch.toml", "durabatch.yaml"):
        path = toml(data, name)
        try:
            resolve({})
        except UsageError as error:
            assert str(error).startswith(name)
            assert "\n" not in str(error)
        path.unlink()
