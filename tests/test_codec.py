from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import types
import uuid
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durabatch import codec
from durabatch.errors import ResultError, ResultTooLargeError

LIMIT = 64 << 20

scalars = (
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5))
fast = settings(max_examples=150, deadline=None)


def encode(value: object) -> str:
    return codec.encode_value(value, limit_bytes=LIMIT)


def refusal(value: object) -> str:
    with pytest.raises(ResultError) as caught:
        encode(value)
    assert "\n" not in str(caught.value)
    return caught.value.what


def fault(line: bytes) -> str:
    with pytest.raises(codec.InvalidJsonError) as caught:
        codec.parse_item(line)
    return str(caught.value)


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Row:
    name: str
    when: object = None


class Model(pydantic.BaseModel):
    when: datetime.date = datetime.date(2024, 5, 6)
    secret: pydantic.SecretStr = pydantic.SecretStr("hidden")
    anything: Any = None
    number: float | None = 0.5


@fast
@given(values)
def test_a_plain_value_comes_back_as_it_was(value):
    """What the parser reads from the text equals the value, and the text is strict JSON for any other reader, too."""
    text = encode(value)
    assert codec.decode_value(text) == value
    assert json.loads(text, parse_constant=pytest.fail) == value


@fast
@given(values)
def test_the_walk_and_the_round_trip_write_the_same_text(value):
    """A plain value has one text, whichever of the two checks it took."""
    assert codec.to_json(codec.plain(value)).decode() == encode(value)


@fast
@given(values, st.sampled_from([None, 2]), st.booleans())
def test_an_item_has_one_canonical_text(value, indent, ascii_only):
    """Spaces, line ends and escapes in the input do not change the stored text."""
    line = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    parsed, text = codec.parse_item(line)
    assert parsed == value
    assert text == encode(value)
    assert codec.parse_item(text.encode()) == (value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2,)), "[1,[2]]"),
        (Point(1, 2), "[1,2]"),
        (datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC), '"2024-05-06T07:08:09+00:00"'),
        (datetime.date(2024, 5, 6), '"2024-05-06"'),
        (datetime.time(7, 8), '"07:08:00"'),
        (datetime.timedelta(days=1, seconds=1.5), '"P1DT1.5S"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (pathlib.Path("/a/b"), '"/a/b"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (Color.RED, '"red"'),
        (Color.PAIR, "[1,2]"),
        (Level.HIGH, "3"),
        (Word.YES, '"yes"'),
        (Row("a", datetime.date(2024, 5, 6)), '{"name":"a","when":"2024-05-06"}'),
        (types.MappingProxyType({"a": 1}), '{"a":1}'),
        (Model(), '{"when":"2024-05-06","secret":"**********","anything":null,"number":0.5}'),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (2**70, str(2**70)),
        ("é\u2028", '"é\u2028"'),
    ],
)
def test_a_documented_conversion_is_the_same_at_every_depth(value, text):
    """A value converts alone as it does inside of lists and objects."""
    assert encode(value) == text
    assert encode({"a": [value]}) == f'{{"a":[{text}]}}'


def test_text_keys_of_an_enum_are_keys():
    """A StrEnum member names a field as its value does."""
    assert encode({Word.YES: 1, "set": (1,)}) == '{"yes":1,"set":[1]}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rows": [1, 2, 3, {"v": math.nan}]}, "NaN at $.rows[3].v cannot be stored"),
        (-math.inf, "-Infinity at $ cannot be stored"),
        ({"é b": [math.inf]}, 'Infinity at $["\\u00e9 b"][0] cannot be stored'),
        ({1: 2}, "key 1 of type int at $ cannot be stored"),
        ({"a": {None: 2}}, "key None of type NoneType at $.a cannot be stored"),
        ({"a": {(1, 2): 2}}, "key (1, 2) of type tuple at $.a cannot be stored"),
        (types.MappingProxyType({Color.RED: 1, "red": 2}), 'key "red", twice, at $ cannot be stored'),
        ({"a": b"x"}, "bytes at $.a cannot be stored"),
        ({"a": {1, 2}}, "set at $.a cannot be stored"),
        ("\ud800", "text with a lone surrogate at $ cannot be stored"),
        ({"a\udc00": 1}, "text with a lone surrogate at $ cannot be stored"),
        (pathlib.Path("\udcff"), "text with a lone surrogate at $ cannot be stored"),
        ([10**4300], "whole number of more than 4,300 digits at $[0] cannot be stored"),
        (decimal.Decimal("nan"), "Decimal NaN at $ cannot be stored"),
        ({"rows": [0, {"f": lambda: 1}]}, "<lambda> at $.rows[1].f cannot be stored"),
        ([encode], "<function encode> at $[0] cannot be stored"),
        ([Row], "<class Row> at $[0] cannot be stored"),
        ((i for i in [1]), "generator at $ cannot be stored"),
        ({"a": (i for i in [1])}, "generator at $.a cannot be stored"),
        (1 + 2j, "complex at $ cannot be stored"),
        (decimal.Context(), "decimal.Context at $ cannot be stored"),
        (Model(number=math.nan), "NaN at $.number cannot be stored"),
        ({"m": Model(anything={"x": [math.nan]})}, "NaN at $.m.anything.x[0] cannot be stored"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value, message):
    """Nothing turns into null, text or a list silently; the message says what stands where."""
    assert refusal(value) == message


def test_cycles_and_endless_depth_are_refused():
    """A value that contains itself is an error of the item, not a crash of the worker."""
    ring: dict[str, Any] = {}
    ring["a"] = [ring]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested deeper than 200 levels" in refusal(ring)
    assert "nested deeper than 200 levels" in refusal(deep)


def test_everything_that_can_be_written_can_be_read():
    """The deepest value and the longest number allowed come back; one more is refused by writer and reader alike."""
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert codec.decode_value(encode(deep)) == deep
    assert codec.decode_value(encode((deep[0],))) == deep
    assert codec.decode_value(encode([10**4299, -(10**4299)])) == [10**4299, -(10**4299)]
    assert "deeper" in refusal([deep])
    assert "deeper" in fault(b"[" * 201 + b"1" + b"]" * 201)
    assert "number too long" in fault(b"1" * 4301)


def test_a_value_whose_methods_raise_is_refused_in_one_line():
    """A repr that raises does not hide which key was wrong."""

    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

        def __eq__(self, other):
            raise RuntimeError("no")

        __hash__ = object.__hash__

    assert refusal({Rude(): 1}) == "key <Rude> of type Rude at $ cannot be stored"
    assert "Rude at $.a cannot be stored" in refusal({"a": Rude()})


def test_a_model_that_cannot_dump_itself_is_refused_with_the_reason():
    """An exception inside a serializer of the user's becomes the item's error."""

    class Broken(pydantic.BaseModel):
        x: int = 1

        @pydantic.field_serializer("x")
        def fail(self, value: int) -> int:
            raise RuntimeError("broken\nhere")

    assert "Broken at $[0] cannot be stored" in refusal([Broken()])
    assert "broken here" in refusal([Broken()])


def test_a_value_over_the_limit_is_refused_with_both_sizes():
    """The limit counts UTF-8 bytes of the text; the message names the option."""
    assert codec.encode_value("é", limit_bytes=4) == '"é"'
    with pytest.raises(ResultTooLargeError, match=r"3 MiB, limit 1.5 MiB \(--max-result-bytes\)") as caught:
        codec.encode_value("x" * ((3 << 20) - 2), limit_bytes=3 << 19)
    assert caught.value.size_bytes == 3 << 20


def test_a_big_plain_value_is_checked_without_a_second_copy():
    """Above the size for round trips the walk takes over, with the same text and the same refusals."""
    rows: list[Any] = ["x" * 1_000_000] * 5
    assert codec.decode_value(encode(rows)) == rows
    assert refusal([*rows, math.nan]) == "NaN at $[5] cannot be stored"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a":1,"a":2}', 'key "a" stands twice in one object at column 8'),
        (b'{"a":1,"\\u0061":2}', 'key "\\u0061" stands twice in one object at column 8'),
        (b'{"a":"\\u003a","a":1}', 'key "a" stands twice in one object at column 15'),
        (b'{"a":{"b":1,"b":2}}', 'key "b" stands twice in one object at column 13'),
        (b'{"k":"a\\"b:","k":1}', 'key "k" stands twice in one object at column 14'),
        (b'[1, {"x": 1e999}]', "1e999 is too large for a number at column 11"),
        (b"-1e400", "-1e400 is too large for a number at column 1"),
        (b"[NaN]", "NaN is not a JSON number at column 2"),
        (b"Infinity", "Infinity is not a JSON number at column 1"),
        (b'{"a":x}', "not JSON: expected value, found 'x' at column 6"),
        (b'["\xc3\xa9", "\xff"]', "not UTF-8 (byte 0xff) at column 9"),
        (b'"\\ud800"', "lone surrogate, cannot be stored as text at column 8"),
        (b'"\\udc00"', "lone surrogate, cannot be stored as text at column 7"),
        (b" ", "not JSON: empty at column 1"),
        (b'{"a":1', "not JSON: it ends in the middle at column 6"),
        (b"1 2", "not JSON: more text after the value at column 3"),
        (b"{'a':1}", 'not JSON: key must be a string, found "\'" at column 2'),
    ],
)
def test_input_that_is_no_strict_json_is_refused_with_its_column(line, message):
    """Also what most parsers let through: equal keys, numbers that overflow, lone surrogates."""
    assert fault(line) == message


def test_a_fault_in_a_later_line_is_placed_there():
    """A document of several lines tells line and column apart."""
    for line in (b'{"a":\n 1,\n "a":2}', b'{"a":\n 1,\n x"a":2}'):
        with pytest.raises(codec.InvalidJsonError) as caught:
            codec.parse_item(line)
        assert (caught.value.line_offset, caught.value.column) == (2, 2)


@pytest.mark.parametrize("line", [b'{"a":"Infinity"}', b'[{"a":1},{"a":1}]', b'{ "a:":"\\u003a" }', b'{"a":{"a":1},"b":["a","a"]}', b"-0"])
def test_input_that_only_looks_suspicious_is_taken(line):
    """The second look finds faults, not likenesses of them."""
    assert codec.parse_item(line)[0] == json.loads(line)


@fast
@given(st.dictionaries(st.text(max_size=4), scalars, min_size=1, max_size=4), st.data())
def test_an_equal_key_is_always_found(value, data):
    """However keys and values are written, an object with one key twice is never taken."""
    key = data.draw(st.sampled_from(sorted(value)))
    ascii_only = data.draw(st.booleans())
    body = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
    again = json.dumps({key: data.draw(scalars)}, ensure_ascii=not ascii_only)[1:-1]
    assert "stands twice" in fault(f"{{{body},{again}}}".encode())


def test_digests_are_those_of_the_named_algorithms():
    """Another program can compute them: BLAKE2b-128 and SHA-256."""
    assert codec.payload_digest("").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert codec.frame_digest(b"").hex().startswith("e3b0c44298fc1c14")
    assert len(codec.payload_digest("é")) == 16


def test_key_hashes_stay_as_they_are():
    """They are stored in ledgers: the same key has the same hash for ever."""
    assert codec.key_hash("") == 0
    assert codec.key_hash("host-0001") == 3549739045898724808
    assert codec.key_hash("host-0001", 1) == 3480571468186091955


@fast
@given(st.text(max_size=30), st.integers(0, 1000))
def test_a_key_hash_is_a_signed_64_bit_number_that_ends_differently_with_each_probe(key, probe):
    """It fits an SQLite integer; a probe moves it."""
    first, second = codec.key_hash(key, probe), codec.key_hash(key, probe + 1)
    assert -(2**63) <= first < 2**63
    assert first != second


def test_keys_that_differ_at_the_end_lie_side_by_side():
    """A thousand neighbours share the high bits, so that intake touches few pages of the index."""
    assert len({codec.key_hash(f"/data/file-{number:06}") >> 32 for number in range(1000)}) == 1
    assert len({codec.key_hash(f"/data/file-{number:06}") for number in range(1000)}) == 1000


@fast
@given(st.binary(max_size=500))
def test_a_frame_holds_what_was_packed(raw):
    """Any bytes come back, none included."""
    digest = codec.frame_digest(raw)
    assert codec.unpack_frame(codec.pack_frame(raw), raw_bytes=len(raw), limit_bytes=500, digest=digest) == raw


@pytest.mark.parametrize("raw", [b"", b"x", b'{"a":1}' * 40, bytes(range(256))])
def test_a_frame_with_one_flipped_bit_is_never_read_wrongly(raw):
    """Every single flip is found, or leaves the content as it was; the checksum alone does it, the digest is a second guard."""
    frame = codec.pack_frame(raw)
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert codec.unpack_frame(bytes(flipped), raw_bytes=len(raw), limit_bytes=LIMIT) == raw
        except ResultError as error:
            assert "damaged" in error.what


@fast
@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame_are_damage(data):
    """Whatever stands in the place of a frame, the answer is one error that names the next step."""
    with pytest.raises(ResultError, match="durabatch verify"):
        codec.unpack_frame(data, raw_bytes=7, limit_bytes=LIMIT)


def test_a_frame_is_measured_before_it_is_unpacked():
    """A frame of another length, one above the limit, a cut one and one with bytes after its end are refused."""
    raw = b"\0" * 1_000_000
    frame = codec.pack_frame(raw)
    assert len(frame) < 200
    with pytest.raises(ResultTooLargeError):
        codec.unpack_frame(frame, raw_bytes=len(raw), limit_bytes=1000)
    for data, length in ((frame, 999_999), (frame[:-1], len(raw)), (frame + b"x", len(raw))):
        with pytest.raises(ResultError, match="damaged"):
            codec.unpack_frame(data, raw_bytes=length, limit_bytes=LIMIT)
    with pytest.raises(ResultError, match="damaged"):
        codec.unpack_frame(frame, raw_bytes=len(raw), limit_bytes=LIMIT, digest=b"\0" * 32)
