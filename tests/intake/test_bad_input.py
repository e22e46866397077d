import errno
import gzip
import io
import os
import pty
import signal
import socket
import sys
import threading

import pytest

from durabatch.intake import opening, streams

KEY_RULE = "a key must be text or a whole number of at most 512 bytes, not"
GZIPPED = gzip.compress("".join(f"line {n} {n * 7919 % 1000003}\n" for n in range(20_000)).encode())

#: Contents of a file, its name, options, exit code, and what is said.
CASES = {
    "empty": (b"", "a.txt", "", 5, "no items in a.txt. Check the input."),
    "blank": (b"\n \r\n\n", "a.txt", "", 5, "no items in a.txt. Check the input."),
    "only a header": (b"id,b\n", "a.csv", "", 5, "no items in a.csv. Check the input."),
    "bad line": (b'{"a":1}\n{"b": 1x}\n', "a.jsonl", "", 2, "a.jsonl:2: not JSON: expected `,` or `}`, found 'x' at column 8."),
    "no object": (b'{"id":1}\n7\n', "a.jsonl", "--key id", 2, "a.jsonl:2: key 'id' is missing."),
    "no key": (b'{"id":1}\n{"id":2}\n{"ID":3}\n', "a.jsonl", "", 2, "a.jsonl:3: key 'id' is missing."),
    "duplicate": (b"id\n42\n7\n42\n", "a.csv", "", 2, "a.csv:4: key '42' was already on line 2."),
    "null key": (b'{"id":1}\n{"id":null}\n', "a.jsonl", "", 2, f"a.jsonl:2: key 'id': {KEY_RULE} null."),
    "empty key": (b'{"id":1}\n{"id":""}\n', "a.jsonl", "", 2, f"a.jsonl:2: key 'id': {KEY_RULE} empty."),
    "long key": (b'{"id":1}\n{"id":"%s"}\n' % (b"x" * 10_000), "a.jsonl", "", 2, f"a.jsonl:2: key 'id': {KEY_RULE} 10,000 bytes."),
    "boolean key": (b'{"id":1}\n{"id":true}\n', "a.jsonl", "", 2, f"a.jsonl:2: key 'id': {KEY_RULE} true."),
    "nested key": (b'{"id":1}\n{"id":{"a":1}}\n', "a.jsonl", "", 2, f"a.jsonl:2: key 'id': {KEY_RULE} an object."),
    "ragged": (b"a,b\n1,2\n1,2,3\n", "a.csv", "", 2, "a.csv:3: 3 fields, the header has 2."),
    "no header": (b"1,,3\n1,2,3\n", "a.csv", "", 2, "a.csv:1: column 2 of the header has no name."),
    "column twice": (b"a,b,a\n", "a.csv", "", 2, "a.csv:1: the header has two columns named 'a'."),
    "open quote": (b'a,b\n1,"2\n', "a.csv", "", 2, "a.csv:2: the quote that opens in this row is never closed."),
    "NUL": (b"a,b\n1,\0\n", "a.csv", "", 2, "a.csv:2: it holds a NUL byte; is this a text file?"),
    "delimiter": (
        b"a;b\n1;2\n", "a.csv", "--delimiter ,", 2,
        "a.csv:1: the header has one column, 'a;b'; columns must be separated by ','. Use --delimiter ';'.",
    ),
    "cut in the middle": (b'{"a":1}\n{"a":', "a.jsonl", "", 2, "a.jsonl:2: not JSON: it ends in the middle at column 5."),
    "not UTF-8": (b"ok\nab\xc3\xa9\xff\n", "a.txt", "", 2, "a.txt:2: not UTF-8 (byte 0xff at column 4). Use --encoding."),
    "lone surrogate": (
        b'{"a":"\\ud800"}\n', "a.jsonl", "", 2, "a.jsonl:1: lone surrogate, cannot be stored as text at column 13.",
    ),
    "deep": (b"[" * 100_000, "a.jsonl", "", 2, "a.jsonl:1: nested deeper than 200 levels at column 202."),
    "long number": (b"9" * 1_000_000, "a.jsonl", "", 2, "number too long (more than 4,300 digits)"),
    "overflow": (b'{"v":1e999}', "a.jsonl", "", 2, "a.jsonl:1: 1e999 is too large for a number at column 6. Use --numbers text to keep its text."),
    "NaN": (b'{"v":NaN}', "a.jsonl", "", 2, "a.jsonl:1: NaN is not a JSON number at column 6. Use --numbers text to keep its text."),
    "Infinity": (b'{"v":-Infinity}', "a.jsonl", "", 2, "-Infinity is not a JSON number at column 6. Use --numbers text to keep its text."),
    "truncated": (GZIPPED[: len(GZIPPED) // 99], "a.gz", "", 2, "a.gz: ends in the middle (item "),
    "bomb": (gzip.compress(b"\n" * (8 << 20)), "a.gz", "", 2, "a.gz: expands more than 1,000 times."),
    "array": (b'{"id": 1}', "a.json", "", 2, "a.json:1: the top level is an object, not an array of items. For one value a line use --format jsonl"),
}  # fmt: skip


@pytest.fixture
def go(tmp_path, monkeypatch, command):
    """Give a function that runs a handler that returns its item over an input in the test's own directory."""
    (tmp_path / "jobs.py").write_text("def work(item):\n    return item\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DURABATCH_LEDGER", raising=False)
    return lambda *words: command("run", "jobs.py:work", *words, "-j", "1", "--progress", "none")


@pytest.fixture
def patience(monkeypatch):
    """Shorten the time that a pipe may give nothing."""
    monkeypatch.setattr(streams, "PATIENCE_S", 0.05)


def results(command):
    return command("results").out.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line_and_nothing_is_written(tmp_path, go, case):
    """What is wrong, where, and what to do; met in the first page, it leaves no ledger behind."""
    content, name, options, code, sentence = CASES[case]
    (tmp_path / name).write_bytes(content)
    done = go(name, *options.split(), *(["--format", "lines"] if name == "a.gz" else []))
    assert done.code == code
    assert done.err.startswith("durabatch: ")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "durabatch.db").exists()


def test_a_missing_file_or_a_directory_of_lists_is_refused(tmp_path, go):
    """One line each, with the nearest name when there is one."""
    (tmp_path / "hosts.txt").write_text("a\n")
    done = go("host.txt")
    assert (done.code, done.err) == (2, "durabatch: cannot read host.txt: no such file. Did you mean 'hosts.txt'?\n")
    (tmp_path / "lists").mkdir()
    done = go("lists", "--format", "csv")
    assert done.code == 2
    assert done.err.startswith("durabatch: lists is a directory, which gives one item per file")


def test_an_unreadable_file_is_refused(tmp_path, go, not_run):
    """One line."""
    if os.geteuid() == 0:
        not_run("root may read everything")
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "a.txt").chmod(0)
    done = go("a.txt")
    assert (done.code, done.err) == (2, "durabatch: cannot read a.txt: permission denied.\n")


def test_bad_lines_may_be_left_out(tmp_path, go, command):
    """They are counted, and the others are run."""
    (tmp_path / "a.jsonl").write_text('{"id":1}\n{oops\n{"no":1}\n{"id":2}\n')
    done = go("a.jsonl", "--on-bad-input", "skip")
    assert done.code == 0
    assert "2 lines that cannot be items" in done.err
    assert results(command) == ['{"key":"1","value":{"id":1}}', '{"key":"2","value":{"id":2}}']


def test_keys_that_nearly_meet_are_two_items_and_a_note(tmp_path, go, command):
    """Only equal letters are equal."""
    (tmp_path / "a.txt").write_text("Alpha\nalpha\n")
    done = go("a.txt")
    assert done.code == 0
    assert "a.txt:2: key 'alpha' differs only by case from 'Alpha' (a.txt:1): these are two items\n" in done.err
    assert len(results(command)) == 2


def test_a_last_line_without_a_newline_is_a_line(tmp_path, go, command):
    """Many editors leave it out."""
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert go("a.txt").code == 0
    assert len(results(command)) == 2


def test_a_line_of_two_gigabytes_is_not_read(tmp_path, go):
    """Reading stops at the limit of an item."""
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(2 << 30)
    done = go("a.txt")
    assert (done.code, done.err) == (2, "durabatch: a.txt:1: item larger than 16 MiB (--max-item-bytes).\n")


def test_numbers_that_cannot_be_kept_are_kept_as_text_on_demand(tmp_path, go, command):
    """Without the option whole numbers are exact however long, minus zero is itself, and what overflows is refused."""
    (tmp_path / "a.jsonl").write_text('{"id":1,"v":[123456789012345678901234567890,-0.0]}\n')
    assert go("a.jsonl").code == 0
    assert results(command) == ['{"key":"1","value":{"id":1,"v":[123456789012345678901234567890,-0.0]}}']
    (tmp_path / "b.jsonl").write_text('{"id":1,"v":[123456789012345678901234567890,1e999,NaN,Infinity,-0.0,7]}\n')
    assert go("b.jsonl", "--numbers", "text", "--ledger", "b.db").code == 0
    out = command("results", "--ledger", "b.db").out
    assert out == '{"key":"1","value":{"id":1,"v":["123456789012345678901234567890","1e999","NaN","Infinity",-0.0,7]}}\n'


@pytest.mark.parametrize("damage", ["cut", "checksum"])
def test_a_damaged_archive_keeps_the_items_before_the_damage(tmp_path, go, command, damage):
    """Met behind the first page, it halts the run, which goes on with the whole file."""
    packed = gzip.compress("".join(f"line {n}\n" for n in range(1000)).encode())
    text = packed[: len(packed) * 2 // 3] if damage == "cut" else packed[:-8] + b"\0\0\0\0" + packed[-4:]
    (tmp_path / "a.txt.gz").write_bytes(text)
    done = go("a.txt.gz")
    count = len(results(command))
    assert done.code == 3
    assert 300 < count <= 1000
    why = "ends in the middle" if damage == "cut" else "is damaged, its checksum differs"
    assert f"a.txt.gz: {why} (item {count + 1:,})" in done.err
    (tmp_path / "a.txt.gz").write_bytes(packed)
    assert go("a.txt.gz").code == 0
    assert len(results(command)) == 1000


def test_a_terminal_where_nothing_is_typed_gets_a_hint(go, monkeypatch, patience, command):
    """The items typed then are items."""
    theirs, ours = pty.openpty()
    say = streams.PipeStream._say
    monkeypatch.setattr(streams.PipeStream, "_say", lambda *words: (say(*words), os.write(theirs, b"one\ntwo\n\x04")))
    with open(ours, "rb") as terminal:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(terminal))
        done = go("-")
    os.close(theirs)
    assert done.code == 0
    assert "reading items from the terminal; end with Ctrl-D\n" in done.err
    assert len(results(command)) == 2


def test_standard_input_that_ends_by_error_is_incomplete(go, monkeypatch, command):
    """What came before is kept and run; the run says that it is not all."""
    ours, theirs = socket.socketpair()
    ours.send(b"never read")
    theirs.sendall(b"".join(b"%d\n" % number for number in range(300)))
    theirs.close()
    with ours.makefile("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        done = go("-")
    ours.close()
    assert done.code == 3
    assert f"stdin: input ended by error after 300 items: {os.strerror(errno.ECONNRESET).lower()}" in done.err
    assert len(results(command)) == 300


@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_a_file_that_changes_while_it_is_read_counts_as_it_was_opened(tmp_path, go, monkeypatch, command, change):
    """What is added belongs to the next reading; what is missing is not taken for the end."""

    class Changing(streams.FileStream):
        def seek(self, offset):
            super().seek(offset)
            if change == "grows":
                with open(self.path, "a") as file:
                    file.write("late\n")
            else:
                os.truncate(self.path, 1000)

    (tmp_path / "a.txt").write_text("".join(f"{number}\n" for number in range(300)))
    monkeypatch.setattr(opening, "FileStream", Changing)
    done = go("a.txt")
    if change == "grows":
        assert done.code == 0
        assert "a.txt grew while it was read: what was added since it was opened is left to the next reading\n" in done.err
        assert len(results(command)) == 300
    else:
        assert done.code == 3
        assert "a.txt: it became shorter while it was read: 1,000 of 1,090 bytes are left" in done.err


def test_names_with_newlines_need_the_option(tmp_path, go, command):
    """What find -print0 writes is read with --null; without it the error says so."""
    (tmp_path / "names").write_bytes(b"a\nb\0c\0")
    done = go("names")
    assert done.code == 2
    assert done.err.endswith("it holds a NUL byte. Is this a text file? For lists that end each name with NUL use --null.\n")
    assert go("names", "--null").code == 0
    assert results(command) == ['{"key":"a\\nb","value":"a\\nb"}', '{"key":"c","value":"c"}']


def test_a_named_pipe_waits_for_its_writer_and_says_so(tmp_path, go, monkeypatch, patience, command):
    """Whatever is written then are the items."""
    os.mkfifo(tmp_path / "pipe")
    threads = []

    def write():
        with open(tmp_path / "pipe", "w") as file:
            file.write("one\ntwo\n")

    say = streams.PipeStream._say

    def say_and_write(*words):
        say(*words)
        threads.append(threading.Thread(target=write))
        threads[0].start()

    monkeypatch.setattr(streams.PipeStream, "_say", say_and_write)
    done = go("pipe")
    threads[0].join()
    assert done.code == 0
    assert "waiting for a program that writes to pipe\n" in done.err
    assert len(results(command)) == 2


def test_a_named_pipe_that_nobody_writes_to_ends_by_a_signal(tmp_path, go, monkeypatch, patience):
    """Nothing was started, nothing is left."""
    os.mkfifo(tmp_path / "pipe")
    say = streams.PipeStream._say
    monkeypatch.setattr(streams.PipeStream, "_say", lambda *words: (say(*words), signal.raise_signal(signal.SIGINT)))
    done = go("pipe")
    assert done.code == 130
    assert "waiting for a program that writes to pipe\n" in done.err
    assert not (tmp_path / "durabatch.db").exists()
