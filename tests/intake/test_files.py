import json
import os
import subprocess
import sys

import pytest

from durabatch.errors import InputError, UsageError
from durabatch.intake import walking


@pytest.fixture
def tree(tmp_path):
    """A small source tree."""
    for name in (
        "src/a.py",
        "src/b.txt",
        "src/a/z.py",
        "src/a/b/deep.py",
        "src/.hidden.py",
        "src/.git/config",
        "src/.github/ci.py",
        "src/c/.svn/x.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_a_directory_gives_one_item_per_file(tree, read):
    """The key is the path as reached from the argument; the payload adds size and time in seconds."""
    os.utime(tree / "src/a.py", (1_700_000_000, 1_700_000_000.5))
    got = read("src")
    assert got.keys == ["src/.github/ci.py", "src/.hidden.py", "src/a/b/deep.py", "src/a/z.py", "src/a.py", "src/b.txt"]
    assert got.positions == [1, 2, 3, 4, 5, 6]
    assert got.rows[4][1] == '{"path":"src/a.py","bytes":8,"mtime":1700000000.5}'
    assert got.done
    assert read("src/").keys == got.keys
    assert read(str(tree / "src")).keys == [str(tree / key) for key in got.keys]
    assert read(".").keys[0] == "./src/.github/ci.py"


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("src/*.py", ["src/a.py"]),
        ("src/.*.py", ["src/.hidden.py"]),
        ("src/**/*.py", ["src/a/b/deep.py", "src/a/z.py", "src/a.py"]),
        ("**/deep.py", ["src/a/b/deep.py"]),
        ("src/*/*.py", ["src/a/z.py"]),
        ("src/**/b/*", ["src/a/b/deep.py"]),
        ("src/a/**", ["src/a/b/deep.py", "src/a/z.py"]),
        ("s?c/[ab].???", ["src/b.txt"]),
        ("src/**/**/z.py", ["src/a/z.py"]),
        ("src/*.rs", []),
    ],
)
def test_a_pattern_takes_what_a_shell_would(tree, read, pattern, keys):
    """Wildcards stop at slashes and leave hidden names out; ** stands for any number of directories, also none."""
    assert read(pattern).keys == keys
    assert read(str(tree / pattern)).keys == [str(tree / key) for key in keys]


def test_include_looks_at_names(tree, read):
    """One of the patterns must match the name of a file; directories are all searched."""
    assert read("src", include=("*.txt", "z*")).keys == ["src/a/z.py", "src/b.txt"]
    assert read("src/b.txt", "src/a.py", files=True, include=("*.py",)).keys == ["src/a.py"]
    with pytest.raises(UsageError, match="compared with the name alone"):
        read("src", include=("a/*.py",))


@pytest.mark.parametrize("max_items", [1, 2, 3])
def test_reading_goes_on_behind_the_last_path(tree, read, read_with_crashes, max_items):
    """A crash after every page changes nothing, over several arguments too."""
    inputs = ("src", "src/a/*.py", "src/b.txt")
    got = read_with_crashes(*inputs, files=True, max_items=max_items)
    assert got.rows == read(*inputs, files=True).rows
    assert got.keys[-2:] == ["src/a/z.py", "src/b.txt"]


def test_the_last_path_may_be_gone(tree, read):
    """Going on needs no file that was read before; what vanishes while it is read is no item."""
    source = read("src").source
    pages = source.pages(None, max_items=3, max_bytes=1 << 20)
    first = next(pages)
    (tree / "src/a/b/deep.py").unlink()
    (tree / "src/a/b").rmdir()
    (tree / "src/a/z.py").unlink()
    rest = [row[0] for page in source.pages(first.position, max_items=9, max_bytes=1 << 20) for row in page.rows]
    assert rest == ["src/a.py", "src/b.txt"]


def test_the_ledger_and_the_output_are_never_items(tree, read):
    """Excluded paths are left out as files, as directories with all below, by links and as arguments."""
    (tree / "src/link.db").symlink_to(tree / "src/b.txt")
    never = {str(tree / "src/b.txt"), str(tree / "src/a")}
    assert read("src", never=never).keys == ["src/.github/ci.py", "src/.hidden.py", "src/a.py"]
    assert read("src/b.txt", "src/a", files=True, never=never).keys == []


def test_links_count_as_files_and_never_loop(tree, read):
    """A link to a file is an item under its own name; links to directories and dead links are not followed."""
    (tree / "src/c/loop").symlink_to(tree / "src")
    (tree / "src/c/dead").symlink_to(tree / "nowhere")
    (tree / "src/c/link.py").symlink_to(tree / "src/a.py")
    assert read("src/c").keys == ["src/c/link.py"]
    (tree / "top").symlink_to(tree / "src/a")
    assert read("top").keys == ["top/b/deep.py", "top/z.py"]


def test_what_is_no_file_is_left_out(tree, read):
    """A named pipe in a directory does not stop the walk."""
    os.mkfifo(tree / "src/c/pipe")
    assert read("src/c").keys == []


def test_a_deep_tree_is_walked(tmp_path, read):
    """Depth is bounded by the system, not by us."""
    path = tmp_path / "d"
    for _ in range(120):
        path /= "d"
    path.mkdir(parents=True)
    (path / "f").write_text("")
    assert read("d").keys == ["d/" + "d/" * 120 + "f"]


def test_a_name_that_is_not_utf8_is_refused(tree, read):
    """The name is shown with its bytes escaped; files before it are read."""
    open(os.fsencode(tree) + b"/src/a/caf\xe9.txt", "w").close()
    got = read("src/a")
    assert got.keys == ["src/a/b/deep.py"]
    assert str(got.problem).startswith(r"src/a/caf\xe9.txt: the name of the file is not UTF-8")


def test_a_path_too_long_for_a_key_is_refused(tmp_path, read):
    """A key has at most 512 bytes."""
    path = tmp_path / ("x" * 200) / ("y" * 200) / ("z" * 200)
    path.mkdir(parents=True)
    (path / "f").write_text("")
    assert "512 bytes" in str(read("x" * 200).problem)


def test_names_with_newlines_are_kept(tmp_path, read):
    """A file's name is its name."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a\nb").write_text("")
    assert read("d").keys == ["d/a\nb"]
    assert read("d").values[0]["path"] == "d/a\nb"


def test_an_unreadable_directory_is_a_problem(tree, read, monkeypatch):
    """A folder that may not be listed is named, not passed over."""
    scandir = os.scandir

    def refusing(path):
        if path.endswith("src/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(walking.os, "scandir", refusing)
    got = read("src")
    assert got.keys == ["src/.github/ci.py", "src/.hidden.py"]
    assert str(got.problem) == "cannot read src/a: permission denied"


def test_an_existing_name_is_no_pattern(tmp_path, read):
    """A file whose name has brackets is read as the list that it is."""
    (tmp_path / "data[1].txt").write_text("x\n")
    assert read("data[1].txt").keys == ["x"]


def test_pages_of_files_keep_to_their_bytes(tree, read):
    """max_bytes bounds pages of paths, too."""
    source = read("src").source
    assert {len(page.rows) for page in source.pages(None, max_items=9, max_bytes=1)} == {1, 0}


def test_positions_are_text(tree, read):
    """What stands in the ledger is JSON."""
    page = next(read("src").source.pages(None, max_items=2, max_bytes=1 << 20))
    assert json.loads(page.position)["state"] == {"root": 0, "after": ".hidden.py", "count": 2}


def test_a_file_gone_before_its_turn_is_a_problem(tree, read):
    """An argument was named, so that its absence is said, unlike that of a file found by walking."""
    source = read("src/b.txt", files=True).source
    (tree / "src/b.txt").unlink()
    page = next(source.pages(None, max_items=2, max_bytes=1 << 20))
    assert isinstance(page.problem, InputError)
    assert "no such file" in str(page.problem)


def test_excluded_names_and_paths_are_left_out(tree, read):
    """A pattern without a slash is a name anywhere, one with a slash a path below the argument; directories go with all below."""
    everything = read("src").keys
    cases = {
        ("*.txt",): ["src/b.txt"],
        ("b",): ["src/a/b/deep.py"],
        ("a/*.py",): ["src/a/z.py"],
        ("/a.py", "b.txt"): ["src/a.py", "src/b.txt"],
        ("**/b/*.py",): ["src/a/b/deep.py"],
        ("a/**",): ["src/a/b/deep.py", "src/a/z.py"],
        ("a/**/z.py", "./a/*/deep.py"): ["src/a/b/deep.py", "src/a/z.py"],
        ("a.py/", "z.p[!x]"): ["src/a/z.py"],
        ("a/",): ["src/a/b/deep.py", "src/a/z.py"],
        ("[z-a].py", "A", "?"): ["src/a/b/deep.py", "src/a/z.py"],
        (".*",): ["src/.github/ci.py", "src/.hidden.py"],
    }
    for exclude, gone in cases.items():
        assert read("src", exclude=exclude).keys == [key for key in everything if key not in gone], exclude
    assert read("src/**/*.py", exclude=("z.*",)).keys == ["src/a/b/deep.py", "src/a.py"]
    assert read("src/b.txt", "src/a.py", files=True, exclude=("*.txt",)).keys == ["src/a.py"]
    for useless in ("../x", "/", ""):
        with pytest.raises(UsageError, match="matches nothing"):
            read("src", exclude=(useless,))


def test_hidden_names_can_be_left_out(tree, read):
    """Files and directories that begin with a dot, but not what was named, as an argument or in its pattern."""
    assert read("src", hidden=False).keys == ["src/a/b/deep.py", "src/a/z.py", "src/a.py", "src/b.txt"]
    assert read("src/.github", "src/.hidden.py", "src/.git*/*", files=True, hidden=False).keys == [
        "src/.github/ci.py",
        "src/.hidden.py",
        "src/.github/ci.py",
    ]


def test_sizes_are_bounds(tree, read):
    """Both bounds are included; an empty range of sizes is refused."""
    sizes = {value["path"]: value["bytes"] for value in read("src").values}
    assert read("src", min_size=10, max_size=12).keys == [path for path, size in sizes.items() if 10 <= size <= 12]
    assert read("src", max_size=0).keys == []
    with pytest.raises(UsageError, match="no file is both"):
        read("src", min_size=2, max_size=1)


def test_what_git_ignores_is_left_out(tmp_path, read, monkeypatch):
    """The files of all directories of the repository count, the nearest first; git itself says what is right."""
    pytest.importorskip("pathspec")
    ignored = {
        "top/.gitignore": "*.log\r\n/build\nsub/deep/\n!keep.log\n# no pattern\n\n!\n",
        "top/sub/.gitignore": "\ufeff!b.log\n*.tmp\n/only.txt\n",
        "top/sub/in/.gitignore": "!x.tmp\n*/\n",
    }
    for name in (
        *("top/a.log", "top/keep.log", "top/a.txt", "top/build/x", "top/sub/build/x", "top/sub/b.log", "top/sub/deep/x", "top/sub/a.tmp"),
        *("top/sub/only.txt", "top/sub/in/only.txt", "top/sub/in/x.tmp", "top/sub/in/y.tmp", "top/sub/in/below/x.tmp", "top/sub/e.log"),
        *ignored,
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ignored.get(name, name))
    git = ["git", "-C", str(tmp_path / "top")]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = subprocess.run([*git, "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True).stdout.split()
    assert read("top", gitignore=True).keys == sorted((f"top/{name}" for name in listed), key=lambda path: path.split("/"))
    assert read("top/sub", gitignore=True).keys == [key for key in read("top", gitignore=True).keys if key.startswith("top/sub/")]
    assert read("top/sub/deep", "top/a.log", files=True, gitignore=True).keys == ["top/sub/deep/x", "top/a.log"]
    monkeypatch.setitem(sys.modules, "pathspec", None)
    with pytest.raises(UsageError, match="needs the package pathspec"):
        read("top", gitignore=True)


def test_bad_names_can_be_passed_over(tree, read):
    """With a hook that agrees, what cannot be an item is told and left out: names that are not UTF-8, and what cannot be read."""
    open(os.fsencode(tree) + b"/src/a/caf\xe9.txt", "w").close()
    (tree / "src/c/loop").symlink_to("loop")
    told = []
    got = read("src", skip_bad=lambda error: told.append(str(error)) or True)
    assert got.done
    assert got.keys == ["src/.github/ci.py", "src/.hidden.py", "src/a/b/deep.py", "src/a/z.py", "src/a.py", "src/b.txt"]
    assert len(told) == 1
    assert "not UTF-8" in told[0]


def test_many_files_are_listed(tmp_path, read, long):
    """Three thousand files (with --long a hundred thousand) in pages, each once and in order."""
    count = 100_000 if long else 3_000
    for folder in range(count // 1000):
        os.mkdir(tmp_path / f"{folder:03}")
        for number in range(1000):
            os.close(os.open(tmp_path / f"{folder:03}" / f"{number:04}.py", os.O_CREAT | os.O_WRONLY))
    got = read(".", include=("*.py",), exclude=("x/**", "*.pyc"))
    assert len(got.rows) == count
    assert got.keys == sorted(got.keys)
