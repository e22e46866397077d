import dataclasses
import gzip
import io
import json
import os
import threading

import pytest
import zstandard

import durabatch.intake.spec as spec
from durabatch.config.keys import SETTINGS
from durabatch.errors import InputError, UsageError
from durabatch.intake.open import open_items, open_source
from durabatch.intake.source import Source
from durabatch.intake.spec import InputSpec


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with one list of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "hosts.txt").write_text("alpha\nbeta\n")
    (tmp_path / "servers.csv").write_text("id,b\n2,x\n")
    (tmp_path / "servers.tsv").write_text("id\tb\n3\tx\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "options", "keys"),
    [
        (["items.jsonl"], {}, ["1"]),
        (["hosts.txt"], {}, ["alpha", "beta"]),
        (["servers.csv"], {}, ["2"]),
        (["servers.tsv"], {}, ["3"]),
        (["d"], {}, ["d/f.txt"]),
        (["d/*.txt"], {}, ["d/f.txt"]),
        (["hosts.txt"], {"files": True}, ["hosts.txt"]),
        (["hosts.txt"], {"format": "files"}, ["hosts.txt"]),
        (["items.jsonl"], {"format": "lines"}, ['{"id": 1}']),
        (["hosts.txt", "d", "hosts.txt"], {}, ["alpha", "beta", "d/f.txt", "alpha", "beta"]),
        (["items.jsonl", "servers.csv", "servers.tsv"], {"key": "id"}, ["1", "2", "3"]),
    ],
)
def test_suffix_kind_and_flags_decide(read, inputs, options, keys):
    """Lists are read by their suffix or the format named; directories and patterns give files."""
    assert read(*inputs, **options).keys == keys


def test_positions_increase_over_several_inputs(read, read_with_crashes):
    """Lines count on from one input to the next, so that the order is one; messages name the line in its own file."""
    inputs = ("hosts.txt", "d", "servers.csv", "hosts.txt")
    assert read(*inputs).positions == [1, 2, 3, 5, 6, 7]
    assert read_with_crashes(*inputs, max_items=1).rows == read(*inputs).rows
    with open("hosts.txt", "ab") as file:
        file.write(b"\xff\n")
    assert read("servers.csv", "hosts.txt").problem.where == "hosts.txt:3"


def test_pages_go_over_the_borders_of_inputs(read):
    """Many small files do not make many small pages."""
    source = read("hosts.txt", "servers.csv", "hosts.txt").source
    assert [len(page.rows) for page in source.pages(None, max_items=99, max_bytes=1 << 20)] == [5]


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        (["item.jsonl"], {}, "cannot read item.jsonl: no such file. Did you mean 'items.jsonl'?"),
        (["nowhere/x.csv"], {}, "cannot read nowhere/x.csv: no such file"),
        (["nowhere/*.csv"], {}, "cannot read nowhere/*.csv: no such file"),
        (["hosts.txt/x"], {}, "cannot read hosts.txt/x: not a directory"),
        (["a\0b"], {}, "cannot read"),
        (
            ["hosts.txt"],
            {"format": "cvs"},
            "unknown format 'cvs'; formats: lines, csv, tsv, jsonl, json, xlsx, files, chunks. Did you mean 'csv'?",
        ),
        (["hosts.txt"], {"encoding": "utf-99"}, "unknown encoding 'utf-99'"),
        (["hosts.txt"], {"encoding": "base64"}, "unknown encoding 'base64'"),
        (["hosts.txt"], {"key": "id"}, "--key 'id' needs records: hosts.txt is read as lines, each its own key"),
        (["d"], {"key": "id"}, "--key 'id' needs records: a file item is known by its path"),
        (["items.jsonl"], {"key": ""}, "--key is empty"),
        (["d"], {"format": "csv"}, "d is a directory, which gives one item per file: --format csv reads lists"),
        (["*.csv"], {"format": "csv"}, "*.csv is a pattern, which gives one item per file"),
        (["servers.csv"], {"null": True}, "--null is for lines, the input is csv"),
        (["hosts.txt"], {"include": ("*.py",)}, "--include is for files as items"),
        (["hosts.txt"], {"delimiter": ";"}, "--delimiter is for csv and tsv"),
        (["servers.csv"], {"delimiter": "::"}, "is not one character"),
        (["servers.csv"], {"delimiter": '"'}, "is not one character"),
        (["servers.csv"], {"files": True, "format": "csv"}, "--files and --format csv contradict each other"),
        (["servers.csv"], {"sheet": "x"}, "--sheet is for xlsx, the input is csv"),
        (["servers.csv"], {"numbers": "text"}, "--numbers is for json and jsonl, the input is csv"),
        (["items.jsonl"], {"numbers": "all"}, "--numbers 'all' is neither exact nor text"),
        (["hosts.txt"], {"hidden": False}, "--no-hidden is for files as items, the input is lines"),
        (["d"], {"overlap": 10}, "--overlap is for chunks, the input is files"),
        (["d"], {"encoding": "latin-1"}, "--encoding is for text, the input is files"),
        (["d"], {"format": "chunks", "key": "id"}, "--key 'id' needs records: a chunk is known by its path and number"),
        (["d"], {"format": "chunks", "chunk_size": 100, "overlap": 60}, "is more than half of --chunk-size"),
        (["d"], {"format": "chunks", "chunk_size": 9}, "--chunk-size 9 is not a whole number of 16 or more"),
        (["hosts.txt"], {"limit": 0}, "--limit 0 is not a whole number of 1 or more"),
        (["hosts.txt"], {"sample": "5"}, "--sample '5' is not a whole number of 1 or more"),
        (["hosts.txt"], {"range": "5"}, "--range: '5' is not A:B"),
        (["hosts.txt"], {"select": ("a", "")}, "--select is empty"),
        (["hosts.txt"], {"group_by": ""}, "--group-by is empty"),
        (["d"], {"min_size": 5, "max_size": 4}, "is more than --max-size"),
        (["-"], {"stdin": io.BytesIO(), "format": "chunks"}, "standard input is a list, it cannot be read as chunks"),
        (["-", "-"], {"stdin": io.BytesIO()}, "standard input ('-') can be read only once"),
        (["-"], {"stdin": io.BytesIO(), "format": "files"}, "standard input is a list, it cannot be read as files"),
        ([], {}, "no input"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(inputs, options, sentence):
    """Wrong use ends with exit code 2 and says what is wrong."""
    with pytest.raises(UsageError) as caught:
        open_source(inputs, **options)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["a.zip", "a.ods", "a.tar.gz", "a.PARQUET"])
def test_files_that_are_no_lists_are_not_read_as_lines(folder, read, name):
    """An archive is no list of lines, unless the user says so or wants the file itself."""
    (folder / name).write_text("x\n")
    with pytest.raises(UsageError, match="is no list"):
        read(name)
    assert read(name, format="lines").keys == ["x"]
    assert read(name, files=True).keys == [name]


def test_an_unreadable_file_is_refused(monkeypatch):
    """Permission is asked before the run starts, and again when the file is opened."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"cannot read hosts\.txt: permission denied"):
        open_source(["hosts.txt"])


def test_a_file_that_vanishes_before_its_turn_is_a_problem(folder, read):
    """What was read before it counts, and reading goes on there once it is back."""
    source = open_source(["hosts.txt", "items.jsonl"])
    (folder / "items.jsonl").rename("gone")
    page = next(source.pages(None, max_items=9, max_bytes=1 << 20))
    assert len(page.rows) == 2
    assert "cannot read items.jsonl: no such file" in str(page.problem)
    (folder / "gone").rename("items.jsonl")
    rest = next(source.pages(page.position, max_items=9, max_bytes=1 << 20))
    assert [row[0] for row in rest.rows] == ["1"]
    assert rest.done


def test_a_position_of_another_input_is_refused():
    """A position with more inputs than there are belongs to another command."""
    with pytest.raises(UsageError, match="differs in kind"):
        next(open_source(["hosts.txt"]).pages('{"input": 2, "base": 0}', max_items=1, max_bytes=1))


def test_plain_files_have_a_fingerprint(folder):
    """Path, size and time of every list; nothing when one input is a directory, a pipe or standard input."""
    status = os.stat("hosts.txt")
    prints = open_source(["hosts.txt", "servers.csv"]).fingerprint()
    assert prints[0] == {"path": str(folder / "hosts.txt"), "bytes": 11, "mtime_ns": status.st_mtime_ns}
    assert len(prints) == 2
    assert open_source(["hosts.txt", "d"]).fingerprint() is None
    assert open_source(["-"], stdin=io.BytesIO()).fingerprint() is None


def test_a_fingerprint_of_a_missing_file_says_so(folder):
    """A file that is gone has none."""
    source = open_source(["hosts.txt"])
    (folder / "hosts.txt").unlink()
    with pytest.raises(InputError, match="no such file"):
        source.fingerprint()


def test_standard_input_is_lines_unless_told(read):
    """Also without any input; other formats by flag; it has no path."""
    assert read("-", stdin=io.BytesIO(b"a\nb\n")).keys == ["a", "b"]
    assert read(stdin=io.BytesIO(b"a\nb")).keys == ["a", "b"]
    assert read("-", format="csv", stdin=io.BytesIO(b"id,b\n7,x\n")).keys == ["7"]
    assert read("-", encoding="latin-1", stdin=io.BytesIO(b"\xe9\n")).keys == ["é"]
    assert read("-", format="jsonl", stdin=io.BytesIO(b'{"id": 1x}')).problem.where == "stdin:1"
    assert open_source([], stdin=io.BytesIO()).description == "-"


def test_standard_input_read_again_passes_over_what_was_read():
    """A position on a pipe is a number of lines: they are read and left out."""
    content = b"id,b\n" + b"".join(b'%d,"x\ny"\n' % n for n in range(9))
    page = next(open_source(["-"], format="csv", stdin=io.BytesIO(content)).pages(None, max_items=4, max_bytes=1 << 20))
    rest = open_source(["-"], format="csv", stdin=io.BytesIO(content)).pages(page.position, max_items=99, max_bytes=1 << 20)
    rows = [row for later in rest for row in later.rows]
    assert [row[0] for row in page.rows + rows] == [str(n) for n in range(9)]


def test_a_pipe_hands_on_what_is_there():
    """Items of a slow producer are seen at once, the half of a line waits, and ready says whether the next page would wait."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin:
        source = open_source(["-"], stdin=stdin)
        pages = source.pages(None, max_items=99, max_bytes=1 << 20)
        os.write(writing, b"one\ntw")
        assert [row[0] for row in next(pages).rows] == ["one"]
        assert not source.ready()
        os.write(writing, b"o\n")
        assert source.ready()
        assert [row[0] for row in next(pages).rows] == ["two"]
        os.close(writing)
        assert source.ready()
        last = next(pages)
        assert (last.rows, last.done) == ([], True)


def test_a_named_pipe_is_read_like_standard_input(folder):
    """What a shell makes of <(command) is a list, too, without a fingerprint."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: (folder / "pipe").write_text("a\nb\n"))
    source = open_source(["pipe"])
    assert source.fingerprint() is None
    writer.start()
    rows = [row for page in source.pages(None, max_items=9, max_bytes=99) for row in page.rows]
    writer.join()
    assert [row[0] for row in rows] == ["a", "b"]


def test_a_pipe_behind_a_file_keeps_nobody_waiting(folder):
    """What stands before it is handed on; the source is not ready until somebody writes."""
    os.mkfifo("pipe")
    source = open_source(["hosts.txt", "pipe"])
    pages = source.pages(None, max_items=9, max_bytes=99)
    assert [row[0] for row in next(pages).rows] == ["alpha", "beta"]
    assert not source.ready()
    writer = threading.Thread(target=lambda: (folder / "pipe").write_text("last\n"))
    writer.start()
    rows = [row for page in pages for row in page.rows]
    writer.join()
    assert [row[0] for row in rows] == ["last"]


def test_python_users_name_inputs_by_functions(tmp_path):
    """Each function gives a spec that opens as its name says, from text and paths alike."""

    def keys(wanted):
        return [row[0] for page in open_source(wanted).pages(None, max_items=9, max_bytes=1 << 20) for row in page.rows]

    assert keys(spec.lines("hosts.txt", "d/f.txt")) == ["alpha", "beta"]
    assert keys(spec.csv(tmp_path / "servers.csv", key="b")) == ["x"]
    assert keys(spec.csv("servers.tsv", key="b", delimiter="\t")) == ["x"]
    assert keys(spec.jsonl("items.jsonl", key="id")) == ["1"]
    (tmp_path / "items.json").write_text('[{"id": 1},{"id": 2}]')
    assert keys(spec.json("items.json", key="id", range="2:")) == ["2"]
    assert keys(spec.chunks("hosts.txt", "d", chunk_size="16", overlap=0)) == ["hosts.txt#1"]
    assert spec.xlsx("book.xlsx", sheet="Two", key="id") == InputSpec(inputs=("book.xlsx",), format="xlsx", sheet="Two", key="id")
    assert keys(spec.files("d", "*.csv", include="*.txt")) == ["d/f.txt"]
    assert keys(spec.files(tmp_path / "d", include=["*.py"])) == []
    assert spec.csv("a b", "c").description == "a b c"


def test_what_items_are_chosen_counts_groups_where_there_are_groups(folder, read):
    """Range, keys, sample and limit are of what the run has: items, or groups."""
    (folder / "rows.csv").write_text("id,region\n1,north\n2,south\n3,north\n4,west\n5,east\n")
    assert read("rows.csv", range="2:4", limit=2).keys == ["2", "3"]
    assert read("rows.csv", select=("5", "1")).keys == ["1", "5"]
    assert len(read("rows.csv", sample=2).rows) == 2
    assert read("rows.csv", group_by="region", limit=2).keys == ["north", "south"]
    assert [len(value["items"]) for value in read("rows.csv", group_by="region", select=("north",)).values] == [2]
    assert str(read("rows.csv", group_by="region", select=("1",)).problem) == "--select: no item has the key 1"


def test_compressed_lists_are_read_by_the_name_without_its_suffix(folder, read):
    """What is inside counts, whatever the file is called."""
    (folder / "more.csv.gz").write_bytes(gzip.compress(b"id,b\n8,x\n"))
    (folder / "more.zst").write_bytes(zstandard.compress(b"gamma\n"))
    assert read("more.csv.gz").keys == ["8"]
    assert read("more.zst").keys == ["gamma"]


def test_neighbouring_arguments_are_one_walk(read):
    """Of files and of chunks alike."""
    assert read("hosts.txt", "d", "servers.csv", files=True).keys == ["hosts.txt", "d/f.txt", "servers.csv"]
    got = read("hosts.txt", "items.jsonl", "d", format="chunks", chunk_size=16)
    assert got.keys == ["hosts.txt#1", "items.jsonl#1"]
    assert [value["text"] for value in got.values] == ["alpha\nbeta\n", '{"id": 1}\n']


def test_a_spec_on_record_opens_as_it_was_given(read):
    """Through JSON and back, where tuples are lists; one of an earlier version has fewer fields."""
    spec_given = spec.files("d", ".", include=("*.txt", "*.csv"), exclude="servers.*", max_size="1KiB", hidden=False, limit=2)
    stored = json.loads(json.dumps(dataclasses.asdict(spec_given)))
    assert InputSpec.from_json(stored) == spec_given
    assert (spec_given.max_size, spec_given.exclude) == (1024, ("servers.*",))
    assert InputSpec.from_json({"inputs": ["hosts.txt"], "format": None, "key": None}) == InputSpec(inputs=("hosts.txt",))


def test_the_fields_of_a_spec_are_the_settings_of_an_input():
    """Each setting that says how an input is read has a field of its name, with the same default."""
    own = {"input": "inputs"}
    elsewhere = {"shuf", "on_bad_input", "dedupe", "max_item_bytes", "priority", "order", "preflight", "preflight_only"}
    settings = [one for one in SETTINGS.values() if one.group == "Input" and one.key not in elsewhere] + [SETTINGS["input"]]
    fields = {field.name: field.default for field in dataclasses.fields(InputSpec)}
    assert {own.get(one.key, one.key) for one in settings} == set(fields)
    assert [one.key for one in settings if one.key != "input" and one.default_value != fields[one.key]] == []


def test_one_text_is_one_input():
    """A path alone is not taken for a list of letters."""
    assert open_source("hosts.txt").description == "hosts.txt"


def test_every_source_is_a_source():
    """Both kinds keep to the protocol."""
    sources: list[Source] = [open_source(["hosts.txt"]), open_items([1])]
    assert all(source.key_note is None and source.ready() for source in sources)
