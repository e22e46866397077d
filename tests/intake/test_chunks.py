import gzip
import json
import random
import tracemalloc

import pytest

from durabatch.errors import UsageError
from durabatch.intake.open import open_source

WORDS = ("alpha", "beta", "größe", "delta", "漢字", "x")


@pytest.fixture
def chunked(read):
    """Reads documents in chunks of 64 bytes."""
    return lambda *inputs, **options: read(*inputs, **{"format": "chunks", "chunk_size": 64, **options})


def prose(seed, size):
    """Return about *size* bytes of sentences in paragraphs."""
    rng, parts, length = random.Random(seed), [], 0
    while length < size:
        parts.append(" ".join(rng.choices(WORDS, k=rng.randrange(3, 15))) + rng.choice([". ", "! ", ".\n", ".\r\n\r\n"]))
        length += len(parts[-1].encode())
    return "".join(parts)


def test_a_chunk_knows_its_place(tmp_path, chunked):
    """The key counts the chunks of a document, the payload says where in the file its text stands."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_text("é one two three.\n\n" * 5)
    (tmp_path / "d/empty.txt").write_text("")
    (tmp_path / "d/z.txt").write_text("short")
    got = chunked("d")
    assert got.keys == ["d/a.txt#1", "d/a.txt#2", "d/z.txt#1"]
    assert got.positions == [1, 2, 3]
    assert got.values[0] == {"path": "d/a.txt", "chunk": 1, "start": 0, "end": 57, "text": "é one two three.\n\n" * 3}
    assert got.values[1] == {"path": "d/a.txt", "chunk": 2, "start": 57, "end": 95, "text": "é one two three.\n\n" * 2}
    assert got.values[2] == {"path": "d/z.txt", "chunk": 1, "start": 0, "end": 5, "text": "short"}
    assert got.done
    assert chunked("d", include=("z*",)).keys == ["d/z.txt#1"]


@pytest.mark.parametrize(("max_items", "max_bytes"), [(1, 1 << 20), (7, 1 << 20), (1000, 300)])
def test_reading_goes_on_at_the_next_chunk(tmp_path, chunked, read_with_crashes, seed, max_items, max_bytes):
    """A crash after every page changes nothing: plain, packed and of another encoding, with overlaps."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + prose(seed, 2000).encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(prose(seed + 1, 2000).encode()))
    for options in ({}, {"overlap": 20}):
        got = chunked("a.txt", "b.txt.gz", **options)
        again = read_with_crashes("a.txt", "b.txt.gz", max_items=max_items, max_bytes=max_bytes, format="chunks", chunk_size=64, **options)
        assert (got.rows, got.done) == (again.rows, True)
    (tmp_path / "c.txt").write_bytes(prose(seed, 1000).encode("utf-16"))
    options = {"format": "chunks", "chunk_size": 64, "encoding": "utf-16"}
    assert read_with_crashes("c.txt", max_items=max_items, **options).rows == chunked("c.txt", encoding="utf-16").rows


def test_chunks_put_together_are_the_document(tmp_path, chunked, seed):
    """Whatever the kind of file; places are bytes of UTF-8 without the mark at the start of the file being lost to them."""
    text = prose(seed, 5000)
    (tmp_path / "a").write_bytes(text.encode())
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "c").write_bytes(gzip.compress(text.encode()))
    for name, mark in (("a", 0), ("b", 3), ("c", 0)):
        values = chunked(name).values
        assert "".join(value["text"] for value in values) == text
        assert [value["end"] - mark for value in values[:-1]] == [value["start"] - mark for value in values[1:]]
        assert (values[0]["start"], values[-1]["end"]) == (mark, mark + len(text.encode()))
    for value in chunked("a", overlap=30).values:
        assert text.encode()[value["start"] : value["end"]].decode() == value["text"]
    (tmp_path / "d").write_bytes(text.encode("utf-16"))
    assert "".join(value["text"] for value in chunked("d", encoding="utf-16").values) == text


def test_memory_is_that_of_a_chunk(tmp_path, read):
    """A document of 20 MB is never in memory, packed or not."""
    text = prose(1, 1 << 20).encode() * 20
    (tmp_path / "big.txt").write_bytes(text)
    (tmp_path / "big.gz").write_bytes(gzip.compress(text, 1))
    del text
    for name in ("big.txt", "big.gz"):
        source = open_source(name, format="chunks", chunk_size=65_536)
        tracemalloc.start()
        count = sum(len(page.rows) for page in source.pages(None, max_items=200, max_bytes=1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > 300
        assert peak < 8 << 20


def test_what_is_no_text_is_named_with_its_place(tmp_path, chunked):
    """A binary file gives no chunk at all, a byte that is wrong later ends the document behind the last good chunk."""
    (tmp_path / "prog").write_bytes(b"\x7fELF" + b"x" * 200 + b"\0" * 9)
    got = chunked("prog")
    assert (got.rows, got.done) == ([], False)
    assert str(got.problem).startswith("prog: not a text: NUL byte at offset 204. Leave it out with --include or --exclude")
    (tmp_path / "wide.txt").write_bytes("wide".encode("utf-16"))
    assert str(chunked("wide.txt").problem) == "wide.txt: not a text: NUL byte at offset 3. Use --encoding utf-16."
    (tmp_path / "old.txt").write_bytes(b"x" * 100 + b" caf\xe9 " + b"y" * 100)
    got = chunked("old.txt")
    assert [value["end"] for value in got.values] == [64]
    assert str(got.problem) == "old.txt: not UTF-8 (byte 0xe9 at offset 104). Use --encoding."
    assert "".join(value["text"] for value in chunked("old.txt", encoding="latin-1").values).count("é") == 1
    (tmp_path / "late.txt").write_bytes(b"x" * 9000 + b"\0" + b"y" * 100)
    got = chunked("late.txt")
    assert (len(got.rows), "NUL byte at offset 9,000" in str(got.problem)) == (9000 // 64, True)
    (tmp_path / "odd.txt").write_bytes("x".encode("utf-16-le") * 100 + b"\x00\xd8\x00\x00")
    assert str(chunked("odd.txt", encoding="utf-16-le").problem).startswith("odd.txt: not UTF-16-LE (byte 0x00 behind offset 100)")


def test_a_packed_document_that_is_cut_ends_behind_its_last_whole_chunk(tmp_path, chunked):
    """What could be unpacked is kept, and the file is named."""
    packed = gzip.compress(prose(2, 20_000).encode())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    got = chunked("cut.gz")
    assert len(got.rows) > 10
    assert str(got.problem).startswith(f"cut.gz: ends in the middle (item {len(got.rows) + 1:,})")


def test_bad_documents_can_be_passed_over(tmp_path, chunked):
    """From the bad place on the document is left out, and told; the next ones are read."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"\0" * 10)
    (tmp_path / "d/b").write_bytes(b"x" * 64 + b"\xff" + b"y" * 500)
    (tmp_path / "d/c").write_text("fine")
    told = []
    got = chunked("d", skip_bad=lambda error: told.append(error.what) or True)
    assert (got.keys, got.done) == (["d/b#1", "d/c#1"], True)
    assert [what.split(":")[0] for what in told] == ["d/a", "d/b"]


def test_a_document_may_change_between_two_readings(tmp_path, chunked):
    """Gone: the next one follows. Shorter than what was read of it: said. Mended behind the place: gone on with."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("x" * 200)
    (tmp_path / "d/b").write_text("b")
    source = chunked("d").source
    position = next(source.pages(None, max_items=2, max_bytes=1 << 20)).position
    assert json.loads(position)["state"]["document"] == {"path": "d/a", "start": 128, "chunk": 2}

    def rest():
        return [(page.rows, page.problem) for page in source.pages(position, max_items=9, max_bytes=1 << 20)]

    (tmp_path / "d/a").write_text("x" * 100)
    assert [str(problem) for _, problem in rest()] == ["d/a: it became shorter: 100 bytes, 128 were read before"]
    (tmp_path / "d/a").write_text("z" * 130)
    assert [row[0] for rows, _ in rest() for row in rows] == ["d/a#3", "d/b#1"]
    (tmp_path / "d/a").unlink()
    assert [row[0] for rows, _ in rest() for row in rows] == ["d/b#1"]


def test_one_document_tells_whether_it_changed(tmp_path, chunked):
    """A long document that is as it was is not read again; what stands in directories may always have changed."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "d").mkdir()
    assert [entry["bytes"] for entry in chunked("a.txt").source.fingerprint()] == [1]
    assert chunked("d").source.fingerprint() is None
    assert chunked("a.txt").source.repeatable


def test_chunks_that_cannot_be_items_are_refused(tmp_path, chunked):
    """Sizes that make no sense before anything is read; keys and payloads that grow too long with the chunk that they are of."""
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UsageError, match=r"--overlap 40 is more than half of --chunk-size 64"):
        chunked("a.txt", overlap=40)
    with pytest.raises(UsageError, match=r"--chunk-size 2KiB is larger than an item may be, 1KiB"):
        chunked("a.txt", chunk_size=2048, max_item_bytes=1024)
    (tmp_path / "controls.txt").write_text("\1" * 64)
    assert "item larger than 100 bytes" in str(chunked("controls.txt", max_item_bytes=100).problem)
    folder = tmp_path / ("x" * 255)
    folder.mkdir()
    (folder / ("y" * 255)).write_text("z")
    assert "at most 512 bytes" in str(chunked("x" * 255).problem)
