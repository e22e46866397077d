import json

import pytest


def test_a_line_is_payload_and_key(tmp_path, read):
    """The text of a line is its key and its payload; positions are line numbers, blank lines count only there."""
    (tmp_path / "hosts.txt").write_bytes(b"alpha\n\n  \r\nbeta \r\ncaf\xc3\xa9")
    got = read("hosts.txt")
    assert got.rows == [("alpha", '"alpha"', 1), ("beta ", '"beta "', 4), ("café", '"café"', 5)]
    assert got.done
    assert got.problem is None


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "tab\there", '",', "\x01\x1f", "\x7f", "…\u2028", "%s", "😀"])
def test_payloads_are_the_json_of_the_text(tmp_path, read, text):
    """Whatever a line holds, its payload is what a JSON reader turns back into it."""
    (tmp_path / "a.txt").write_text(f"plain\n{text}\n", encoding="utf-8", newline="")
    assert read("a.txt").values == ["plain", text]


def test_a_mark_at_the_start_is_no_text(tmp_path, read):
    """A byte order mark is accepted and left out, in UTF-8 and UTF-16."""
    (tmp_path / "a.txt").write_text("alpha\nbeta\n", encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text("alpha\nbeta\n", encoding="utf-16")
    assert read("a.txt").keys == read("b.txt", encoding="utf-16").keys == ["alpha", "beta"]


@pytest.mark.parametrize("max_items", [1, 2, 3, 1000])
@pytest.mark.parametrize("content", [b"a\nb\n\nc\nd", b"\xef\xbb\xbfa\r\nb\r\n\r\nc\r\nd\r\n", b"\n\na\nb\nc\nd\n\n\n"])
def test_reading_goes_on_from_every_page(tmp_path, read, read_with_crashes, content, max_items):
    """A reading that is cut after every page gives the same rows as one in one go."""
    (tmp_path / "a.txt").write_bytes(content)
    assert read_with_crashes("a.txt", max_items=max_items).rows == read("a.txt").rows
    assert read("a.txt").keys == ["a", "b", "c", "d"]


def test_reading_goes_on_in_other_encodings(tmp_path, read_with_crashes):
    """Files that are not UTF-8 go on by lines instead of bytes."""
    (tmp_path / "a.txt").write_text("é\nü\nß\n", encoding="utf-16")
    got = read_with_crashes("a.txt", encoding="utf-16", max_items=1)
    assert got.rows == [("é", '"é"', 1), ("ü", '"ü"', 2), ("ß", '"ß"', 3)]


def test_a_line_that_is_not_utf8_is_named_with_byte_and_column(tmp_path, read):
    """Items before it are read; the error names line, byte and column, counted in characters."""
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xc3\xa9ab\xff\nfour\n")
    got = read("a.txt")
    assert got.keys == ["one", "two"]
    assert str(got.problem) == "a.txt:3: not UTF-8 (byte 0xff at column 4). Use --encoding."
    assert not got.done


def test_utf16_without_an_option_is_recognised(tmp_path, read):
    """The mark of UTF-16 makes the hint exact."""
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-16")
    assert str(read("a.txt").problem) == "a.txt:1: not UTF-8 (byte 0xff at column 1). Use --encoding utf-16."


@pytest.mark.parametrize(
    ("encoding", "content", "place"),
    [("cp1252", b"one\nab\x81\n", "0x81 at column 3"), ("utf-16-le", b"o\0\n\0\0\xd8", "0x00 at column 1")],
)
def test_bytes_that_do_not_decode_are_named_in_every_encoding(tmp_path, read, encoding, content, place):
    """Also in a given encoding the lines before are read and the faulty byte is named."""
    (tmp_path / "a.txt").write_bytes(content)
    got = read("a.txt", encoding=encoding)
    assert len(got.rows) == 1
    assert str(got.problem) == f"a.txt:2: not {encoding.upper()} (byte {place}). Use --encoding."


def test_a_corrected_file_goes_on_at_the_bad_line(tmp_path, read):
    """The position of a page with a problem stands right before it."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\xff\nthree\n")
    source = read("a.txt").source
    page = next(source.pages(None, max_items=10, max_bytes=1000))
    path.write_bytes(b"one\ntwo\nthree\n")
    rest = next(source.pages(page.position, max_items=10, max_bytes=1000))
    assert [row[0] for row in page.rows + rest.rows] == ["one", "two", "three"]


def test_a_huge_line_is_not_read_to_its_end(tmp_path, read):
    """A line larger than an item may be stops the reading there; the file behind it is never in memory."""
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"ok\n")
        file.truncate(1 << 40)
    got = read("a.txt", max_item_bytes=1 << 20)
    assert got.keys == ["ok"]
    assert str(got.problem) == "a.txt:2: item larger than 1 MiB (--max-item-bytes)"


def test_a_long_line_among_others_is_found(tmp_path, read):
    """The limit holds for lines that lie whole in one piece of the file, too."""
    (tmp_path / "a.txt").write_text("a\nb\n" + "x" * 11 + "\nc\n")
    got = read("a.txt", max_item_bytes=10)
    assert got.keys == ["a", "b"]
    assert str(got.problem) == "a.txt:3: item larger than 10 bytes (--max-item-bytes)"


def test_a_line_of_exactly_the_limit_is_read(tmp_path, read):
    """The limit itself is allowed."""
    (tmp_path / "a.txt").write_text("x" * 10 + "\n")
    assert read("a.txt", max_item_bytes=10).keys == ["x" * 10]


def test_a_line_too_long_for_a_key_says_what_to_do(tmp_path, read):
    """A line is its own key, so 512 bytes are the end."""
    (tmp_path / "a.txt").write_text("x" * 512 + "\n" + "é" * 257 + "\nz\n")
    got = read("a.txt")
    assert got.positions == [1]
    assert got.problem.where == "a.txt:2"
    assert "at most 512 bytes, not 514" in str(got.problem)
    assert "--format jsonl" in got.problem.hint


def test_a_nul_byte_points_to_the_option(tmp_path, read):
    """A list made by find -print0 is recognised."""
    (tmp_path / "a.txt").write_bytes(b"good\na\0b\n")
    got = read("a.txt")
    assert got.keys == ["good"]
    assert "a.txt:2: it holds a NUL byte" in str(got.problem)
    assert "--null" in got.problem.hint


def test_names_that_end_with_nul_keep_everything_else(tmp_path, read, read_with_crashes):
    """With --null blanks and newlines belong to the name, and reading goes on from every name."""
    (tmp_path / "a.txt").write_bytes(b"a b\0 \0line\nline\r\0\0last")
    assert read("a.txt", null=True).keys == ["a b", " ", "line\nline\r", "last"]
    assert read_with_crashes("a.txt", null=True, max_items=1).keys == ["a b", " ", "line\nline\r", "last"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \n\r\n", b"\xef\xbb\xbf"])
def test_a_file_without_items_is_read_to_its_end(tmp_path, read, content):
    """Nothing, blank lines, a lone mark: no rows, and done, so that the caller can say so."""
    (tmp_path / "a.txt").write_bytes(content)
    got = read("a.txt")
    assert got.rows == []
    assert got.done


def test_pages_keep_to_their_bounds(tmp_path, read):
    """The first page is small, others have at most max_items; max_bytes bounds pages, and a longer line comes alone."""
    (tmp_path / "a.txt").write_text("".join(f"{n:09}\n" for n in range(2000)))
    source = read("a.txt").source
    sizes = [len(page.rows) for page in source.pages(None, max_items=700, max_bytes=1 << 20)]
    assert sizes[:3] == [200, 700, 700]
    assert sum(sizes) == 2000
    sizes = [len(page.rows) for page in source.pages(None, max_items=700, max_bytes=95)]
    assert set(sizes[:-1]) == {10}
    assert {len(page.rows) for page in source.pages(None, max_items=700, max_bytes=5)} == {1, 0}


def test_what_is_appended_while_reading_waits(tmp_path, read):
    """A file is read up to the size that it had when reading began."""
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n}\n" for n in range(300)))
    pages = read("a.txt").source.pages(None, max_items=1000, max_bytes=1 << 20)
    first = next(pages)
    with path.open("a") as file:
        file.write("late\n")
    assert [row[0] for row in first.rows + next(pages).rows] == [str(n) for n in range(300)]


def test_a_file_that_shrinks_is_a_problem(tmp_path, read):
    """A file that became shorter than what was read of it does not count as read to its end."""
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    source = read("a.txt").source
    position = json.dumps({"input": 0, "base": 0, "state": {"offset": 8, "line": 2}})
    path.write_text("one\n")
    page = next(source.pages(position, max_items=10, max_bytes=100))
    assert "a.txt: it became shorter: 4 bytes, 8 were read before" in str(page.problem)


def test_an_encoding_that_needs_a_mark_says_so(tmp_path, read):
    """UTF-16 without its mark is not guessed at."""
    (tmp_path / "a.txt").write_bytes(b"a\0b\0\n\0")
    got = read("a.txt", encoding="utf-16")
    assert str(got.problem).startswith("a.txt:1: not UTF-16 (")


def test_a_line_that_is_half_written_at_the_end_is_left_to_the_next_reading(tmp_path, read):
    """When the file goes on behind the size that it had, its last line may be half of one."""
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n}\n" for n in range(300)) + "hal")
    notes = []
    pages = read("a.txt", notes=notes.append).source.pages(None, max_items=1000, max_bytes=1 << 20)
    first = next(pages)
    with path.open("a") as file:
        file.write("f\n")
    assert [row[0] for page in (first, *pages) for row in page.rows] == [str(n) for n in range(300)]
    assert notes == ["a.txt grew while it was read: what was added since it was opened is left to the next reading"]
    assert read("a.txt").keys[-1] == "half"


LINES = (b"x" * 513, b"a\0b", b"\xff", b"y" * 2000)


@pytest.mark.parametrize("max_items", [1, 3, 1000])
def test_bad_lines_are_left_out_on_demand(tmp_path, read, read_with_crashes, max_items):
    """Each line that cannot be an item is told of once, the ones about it are read; so it is with a crash behind every page."""
    (tmp_path / "a.txt").write_bytes(b"ok\n" + b"".join(line + b"\n\nk%d\r\n" % n for n, line in enumerate(LINES)) + b"z" * 3000)
    bad = []
    got = read("a.txt", max_item_bytes=1000, skip_bad=lambda error: not bad.append(error.where))
    assert got.done
    assert got.keys == ["ok", "k0", "k1", "k2", "k3"]
    assert got.positions == [1, 4, 7, 10, 13]
    assert bad == ["a.txt:2", "a.txt:5", "a.txt:8", "a.txt:11", "a.txt:14"]
    assert read_with_crashes("a.txt", max_item_bytes=1000, max_items=max_items, skip_bad=lambda _: True).rows == got.rows


def test_a_line_longer_than_a_read_is_stepped_over(tmp_path, read, read_with_crashes):
    """Its end is looked for without keeping it, and positions behind it are right."""
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"one\n" + b"x" * (5 << 20) + b"\ntwo\nthree\n")
    got = read("a.txt", max_item_bytes=1000, skip_bad=lambda _: True)
    assert list(zip(got.keys, got.positions, strict=True)) == [("one", 1), ("two", 3), ("three", 4)]
    assert read_with_crashes("a.txt", max_item_bytes=1000, max_items=1, skip_bad=lambda _: True).rows == got.rows


def test_keys_that_nearly_meet_are_two_keys_and_are_spoken_of_once_a_kind(tmp_path, read):
    """Case, blanks at the end and Unicode form make different keys, but few people mean that."""
    (tmp_path / "a.txt").write_text("Alpha\nalpha\nALPHA\nbeta\nbeta \ncaf\u00e9\ncafe\u0301\n", encoding="utf-8")
    notes = []
    got = read("a.txt", notes=notes.append)
    assert len(set(got.keys)) == 7
    assert notes == [
        "a.txt:2: key 'alpha' differs only by case from 'Alpha' (a.txt:1): these are two items",
        "a.txt:5: key 'beta ' differs only by blanks at the end from 'beta' (a.txt:4): these are two items",
        "a.txt:7: key 'cafe\u0301' differs only by Unicode form from 'caf\u00e9' (a.txt:6): these are two items",
    ]
