import gzip
import io
import json
import os
import random
import shutil
import subprocess
import zlib

import pytest
import zstandard

from durabatch.intake.compressed import bare_name
from durabatch.intake.open import open_source

LINES = [f"line {n} {n * 7919 % 1000003}" for n in range(20_000)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def zstd(data: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


PACK = {"gzip": gzip.compress, "zstd": zstd}


@pytest.mark.parametrize(
    ("path", "bare"),
    [("a.csv.gz", "a.csv"), ("d/a.JSONL.ZST", "d/a.JSONL"), ("a.txt.zstd", "a.txt"), ("a.gz", "a"), ("a.csv", "a.csv"), (".gz", ".gz")],
)
def test_the_bare_name_tells_the_format(path, bare):
    """One suffix of a compressed file is taken off."""
    assert bare_name(path) == bare


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_compressed_lists_are_read_whatever_they_are_called(tmp_path, read, kind, name):
    """The first bytes decide, and members or frames behind one another are one text."""
    middle = len(TEXT) // 2
    (tmp_path / name).write_bytes(PACK[kind](TEXT[:middle]) + PACK[kind](b"") + PACK[kind](TEXT[middle:]))
    got = read(name)
    assert got.keys == LINES
    assert got.done


@pytest.mark.parametrize(
    ("program", "suffix"), [(["gzip", "-9"], ".gz"), (["gzip", "-1", "--no-name"], ".gz"), (["zstd", "-q", "-19"], ".zst")], ids=" ".join
)
def test_what_other_programs_pack_is_read(tmp_path, read, not_run, program, suffix):
    """A table, packed by the program that everybody has, is a table."""
    if shutil.which(program[0]) is None:
        not_run(f"there is no {program[0]} here")
    (tmp_path / "a.csv").write_text("id;v\n1;a\n2;b\n")
    subprocess.run([*program, "a.csv"], cwd=tmp_path, check=True)
    assert read(f"a.csv{suffix}").values == [{"id": "1", "v": "a"}, {"id": "2", "v": "b"}]


def test_padding_and_frames_to_skip_are_no_text(tmp_path, read):
    """Tapes end with zeros, and parallel programs write frames for themselves."""
    (tmp_path / "a").write_bytes(gzip.compress(b"one\n") + b"\0" * 1000)
    (tmp_path / "b").write_bytes(b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(b"two\n") + b"\x5f\x2a\x4d\x18\0\0\0\0" + zstd(b"three\n"))
    assert read("a", "b").keys == ["one", "two", "three"]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("lines", b"a\n\nb\nc\n"),
        ("csv", b'id,v\n1,"x\ny"\n2,b\n'),
        ("jsonl", b'{"id":1}\n{"id":2}\n'),
        ("json", b'[{"id":1},\n{"id":[]},{"id":2}]'),
    ],
)
def test_reading_goes_on_from_every_page(tmp_path, read, read_with_crashes, kind, format, text):
    """Places in compressed input are lines and elements; each page starts behind the one before."""
    (tmp_path / "a").write_bytes(PACK[kind](text))
    (tmp_path / "b").write_bytes(text)
    packed = read_with_crashes("a", format=format, max_items=1, skip_bad=lambda _: True)
    assert packed.rows == read("b", format=format, skip_bad=lambda _: True).rows != []


def test_other_encodings_may_be_inside(tmp_path, read):
    """First unpacked, then decoded."""
    (tmp_path / "a").write_bytes(gzip.compress("é\nü\n".encode("utf-16")))
    assert read("a", encoding="utf-16").keys == ["é", "ü"]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(("format", "head"), [("lines", 0), ("csv", 1)])
def test_a_file_that_ends_in_the_middle_says_in_which_item(tmp_path, read, read_with_crashes, kind, format, head):
    """What stands before is read; so it is, with the same number, after crashes. The whole file goes on there."""
    packed = PACK[kind](TEXT)
    (tmp_path / "a.gz").write_bytes(packed[: len(packed) // 2])
    got = read("a.gz", format=format)
    count = len(got.rows)
    assert 5000 < count < 15_000
    assert str(got.problem) == f"a.gz: ends in the middle (item {count + 1:,})"
    crashed = read_with_crashes("a.gz", format=format, max_items=3000)
    assert (crashed.rows, str(crashed.problem)) == (got.rows, str(got.problem))
    (tmp_path / "a.gz").write_bytes(packed)
    pages = got.source.pages(None, max_items=3000, max_bytes=1 << 20)
    assert len(next(pages).rows) == 200
    assert len(read("a.gz", format=format).rows) == 20_000 - head


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", PACK)
def test_damage_is_never_taken_for_text(tmp_path, read, kind, seed):
    """One wrong byte anywhere behind the head, and the reading ends with an error about it; rows before it are right."""
    luck = random.Random(seed)
    packed = bytearray(PACK[kind](TEXT[:50_000]))
    packed[luck.randrange(12, len(packed))] ^= 1 << luck.randrange(8)
    (tmp_path / "a").write_bytes(packed)
    got = read("a")
    assert not got.done
    assert "a: " in str(got.problem) or "a:" in got.problem.where
    if "checksum" not in str(got.problem):
        assert len(got.rows) < 5000


def test_a_wrong_checksum_is_named_behind_the_items(tmp_path, read):
    """All items are there, but nobody can rely on them."""
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    (tmp_path / "a.gz").write_bytes(packed)
    got = read("a.gz")
    assert got.keys == LINES
    assert str(got.problem) == "a.gz: is damaged, its checksum differs (item 20,001)"


def test_bytes_behind_the_end_are_no_text(tmp_path, read):
    """Nobody knows what they are."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one\ntwo\n") + b"three\n")
    got = read("a.gz")
    assert got.keys == ["one", "two"]
    assert str(got.problem) == "a.gz: is damaged, it cannot be unpacked further (item 3)"


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_refused_long_before_it_is_unpacked(tmp_path, read, kind):
    """What becomes megabytes of blank lines is given up after the first."""
    packer = zlib.compressobj(9, wbits=31) if kind == "gzip" else zstandard.ZstdCompressor(level=3).compressobj()
    blank = b"\n" * (1 << 20)
    (tmp_path / "a.gz").write_bytes(packer.compress(b"one\ntwo\n") + b"".join(packer.compress(blank) for _ in range(40)) + packer.flush())
    got = read("a.gz")
    assert got.keys == ["one", "two"]
    assert str(got.problem) == "a.gz: expands more than 1,000 times"


def test_what_compresses_well_is_no_bomb(tmp_path, read):
    """A mebibyte is free, and text of one line again and again stays below a thousand times."""
    (tmp_path / "a").write_bytes(zstd(b"\n" * (1 << 20)))
    (tmp_path / "b").write_bytes(gzip.compress(json.dumps(["same"] * 50_000).encode(), 9))
    assert read("a").done
    assert len(read("b", format="json").rows) == 50_000


@pytest.mark.parametrize("kind", PACK)
def test_standard_input_may_be_compressed(tmp_path, read, kind):
    """A pipe tells by its first bytes, too."""
    assert read("-", stdin=io.BytesIO(PACK[kind](TEXT))).keys == LINES
    assert read("-", stdin=io.BytesIO(b"(a\n")).keys == ["(a"]
    assert read("-", stdin=io.BytesIO(b"")).keys == []


@pytest.mark.parametrize("kind", PACK)
def test_a_pipe_is_unpacked_as_it_comes(tmp_path, read, kind):
    """What was written is there before the rest comes, and while nothing comes it is not ready."""
    text = TEXT[: TEXT.index(b"\n", 100_000) + 1]
    half = PACK[kind](text[: len(text) // 2])
    packed = half + PACK[kind](text[len(text) // 2 :])
    cut = len(half) + 9
    receive, send = os.pipe()
    with open(receive, "rb") as file:
        source = open_source("-", stdin=file)
        pages = source.pages(None, max_items=100_000, max_bytes=1 << 24)
        os.write(send, packed[:2])
        assert next(pages).rows == []
        assert not source.ready()
        os.write(send, packed[2:cut])
        rows = next(pages).rows
        while source.ready():
            rows += next(pages).rows
        assert rows
        os.write(send, packed[cut:])
        os.close(send)
        rows += [row for page in pages for row in page.rows]
        assert [row[0] for row in rows] == text.decode().splitlines()
