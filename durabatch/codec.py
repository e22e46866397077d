"""
How values become bytes and back: strict JSON text, digests, and checked frames of compressed text.

Nothing is changed silently. What JSON cannot hold exactly (NaN, infinities, keys that are not text, bytes, sets, lone surrogates, cycles)
is refused with the path inside the value; the conversions there are stand in :func:`encode_value`. Whatever is written here can be
read here: depth and length of numbers are bounded by what the parser takes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b, sha256
from struct import Struct
from typing import Any, Protocol
from zlib import crc32

from pydantic_core import from_json, to_json

from durabatch.errors import ResultError, ResultTooLargeError
from durabatch.strictness import NUMBERS_HINT, JsonFault, find_fault, is_about_number, plain, quoted_numbers, syntax_fault

__all__ = [
    "FrameError",
    "FrameUnpacker",
    "InvalidJsonError",
    "decode_value",
    "encode_value",
    "frame_digest",
    "inline_digests",
    "is_sound_frame",
    "key_hash",
    "key_hashes",
    "pack_frame",
    "packed_digests",
    "parse_item",
    "parse_items",
    "payload_digest",
    "payload_digests",
    "stream_packer",
    "unpack_frame",
]

#: Types whose JSON is compared with the value after a round trip in C, several times faster than a walk in Python.
ROUND_TRIP_TYPES = frozenset({dict, list, str, int, float, bool, type(None)})
#: Texts longer than this are checked by the walk instead, which copies lists and dicts but no texts.
ROUND_TRIP_BYTES = 4 << 20
ZSTD_LEVEL = 3
#: Where a packed value lies: the first half of its segment's SHA-256, offset, bytes.
PLACE = Struct("<16sqq")
#: What stands between the lines that are parsed together.
BETWEEN_VALUE = os.urandom(12).hex()
BETWEEN_TEXT = f',"{BETWEEN_VALUE}",'
BETWEEN = BETWEEN_TEXT.encode()


class InvalidJsonError(ValueError):
    """
    A piece of input is no strict JSON. Intake turns it into an :class:`~durabatch.errors.InputError` that names the file.

    Args:
        message: What is wrong, without the place.
        line_offset: Lines between the start of the parsed bytes and the fault; 0 in the first line.
        column: Column of the fault in its line, in bytes from 1.
        hint: What to do; may be empty.
    """

    def __init__(self, message: str, line_offset: int, column: int, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        self.line_offset = line_offset
        self.column = column
        super().__init__(f"{message} at column {column}")


def encode_value(value: object, *, limit_bytes: int) -> str:
    """
    Return *value* as strict, compact JSON text; dict order is kept, no ASCII escapes.

    Exact: None, bool, int (up to 4,300 digits), finite float, text, and lists and dicts of them with text keys. Converted: tuple to list;
    datetime, date and time to ISO 8601 text; timedelta to an ISO 8601 duration; UUID, path and Decimal to text; an Enum member to its
    value; dataclasses to objects; pydantic models as ``model_dump(mode="json")`` does, except that NaN and infinities in them are refused.

    Args:
        value: What a handler returned. It is not changed.
        limit_bytes: Most bytes the text may have in UTF-8.

    Raises:
        ResultError: Something in it cannot be stored; the message names it and its path, such as ``$.rows[3].v``.
        ResultTooLargeError: The text is longer than *limit_bytes*.
    """
    encoded = None
    if type(value) in ROUND_TRIP_TYPES:
        try:
            encoded = to_json(value)
            # Whatever to_json changed (a set, a number as key, NaN) or the parser refuses comes back unequal or not at all.
            if len(encoded) > ROUND_TRIP_BYTES or from_json(encoded, allow_inf_nan=False) != value:
                encoded = None
        except Exception:  # noqa: BLE001 - the walk finds the cause and its path, or knows a conversion.
            encoded = None
    if encoded is None:
        encoded = to_json(plain(value))
    if len(encoded) > limit_bytes:
        raise ResultTooLargeError(len(encoded), limit_bytes)
    return encoded.decode()


def decode_value(text: str | bytes) -> Any:
    """Return the value that :func:`encode_value` wrote as *text*."""
    return from_json(text)


def parse_item(line: bytes, *, numbers_as_text: bool = False) -> tuple[Any, str]:
    """
    Return the value of the JSON document *line* and its text as it is stored: compact, as :func:`encode_value` writes it.

    Whole numbers are exact up to 4,300 digits; other numbers become the nearest double. With *numbers_as_text* whole numbers beyond 64
    bits, numbers that overflow, NaN and Infinity become their text.

    Raises:
        InvalidJsonError: No JSON, not UTF-8, or JSON that two programs may read differently: equal keys in one object, NaN or Infinity,
            numbers that overflow to infinity, lone surrogates, more than 200 levels.
    """
    quotes: list[int] = []
    if numbers_as_text:
        line, quotes = quoted_numbers(line)
    try:
        value = from_json(line, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise _invalid(line, syntax_fault(line, str(error)), quotes) from None
    encoded = to_json(value)
    # The parser drops all but the last of equal keys, and with each a colon, unless colons are written as \u003a.
    if encoded != line and (encoded.count(b":") != line.count(b":") or b"Infinity" in encoded or b"\\u003" in line):
        fault = find_fault(line)
        if fault is not None:
            raise _invalid(line, fault, quotes)
    return value, encoded.decode()


def parse_items(lines: Sequence[bytes]) -> tuple[list[Any], list[str]] | None:
    """
    Return the values and texts of *lines* as :func:`parse_item` does for each, several times faster; None when one needs a closer look.

    They are parsed as one list, with an element between them that nobody can guess: it stands between any two only when every line is
    one value.
    """
    joined = b"[" + BETWEEN.join(lines) + b"]"
    try:
        values = from_json(joined, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    encoded = to_json(values)
    # As in parse_item: a key that was dropped took a colon with it, and no other line can have made up for that.
    if encoded != joined and (encoded.count(b":") != joined.count(b":") or b"Infinity" in encoded or b"\\u003" in joined):
        return None
    # Decoding the lines costs a third of taking the text apart again.
    texts = list(map(bytes.decode, lines)) if encoded == joined else encoded[1:-1].decode().split(BETWEEN_TEXT)
    if len(values) != 2 * len(lines) - 1 or len(texts) != len(lines) or values[1::2] != [BETWEEN_VALUE] * (len(lines) - 1):
        return None
    return values[::2], texts


def payload_digest(payload: str) -> bytes:
    """Return the 16 bytes of BLAKE2b-128 over the UTF-8 bytes of *payload*."""
    return payload_digests((payload,))[0]


def payload_digests(payloads: Iterable[str]) -> list[bytes]:
    """Return :func:`payload_digest` of each of *payloads*; a page at once costs a third less than one by one."""
    return [blake2b(payload.encode(), digest_size=16).digest() for payload in payloads]


def key_hashes(keys: Iterable[str]) -> list[int]:
    """Return :func:`key_hash` of each of *keys*."""
    return [(crc32(data[:-3]) >> 1) << 32 | crc32(data[::-1]) for data in map(str.encode, keys)]


def key_hash(key: str, probe: int = 0) -> int:
    """
    Return the signed 64 bit hash of *key* for the key index.

    The high bits come from the key without its last 3 bytes, so that keys which differ at the end lie side by side in the index and
    intake touches few of its pages. The low 32 bits are the CRC of the whole key, read backwards so that it does not follow from the
    high bits when all keys end alike: two keys of one length that differ only in their last 4 bytes never meet (a CRC-32 finds every burst
    of up to 32 bits), and others meet so rarely that the further probes cost nothing.

    Args:
        key: Text without lone surrogates.
        probe: 0 at first; the next number gives another place when a different key has the same hash.
    """
    if probe:
        return int.from_bytes(blake2b(key.encode(), digest_size=8, salt=probe.to_bytes(4, "big")).digest(), "big", signed=True)
    # 31 high bits, so that the number is never negative.
    return key_hashes((key,))[0]


def pack_frame(raw: bytes | bytearray) -> bytes:
    """Return *raw* as one zstd frame that holds its own length and a checksum."""
    # Imported here: half of all workers and coordinators never see a big result, and it costs 15 ms at start.
    import zstandard

    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, write_content_size=True).compress(raw)


class StreamPacker(Protocol):
    """Compresses what is written to a file, a piece at a time."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what comes out for *data*; it may be nothing yet."""
        ...

    def flush(self) -> bytes:
        """Return the rest and the end; nothing can be compressed after it."""
        ...


def stream_packer(compression: str) -> StreamPacker | None:
    """Return what compresses one stream as ``gzip`` or ``zstd``, the same bytes for the same data; None for empty *compression*."""
    if compression == "gzip":
        return zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return None


def unpack_frame(data: bytes, *, raw_bytes: int | None, limit_bytes: int, digest: bytes | None = None) -> bytes:
    """
    Return the bytes packed in *data*. Nothing is unpacked before the frame's own length was found equal to *raw_bytes*.

    Args:
        data: What :func:`pack_frame` returned.
        raw_bytes: Length of the result, as recorded; None leaves it to the frame.
        limit_bytes: Most bytes to unpack.
        digest: SHA-256 of the result, as recorded; None leaves it to the frame's own checksum.

    Raises:
        ResultError: The frame is damaged, of another length, or larger than *limit_bytes*.
    """
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(data)
        raw_bytes = parameters.content_size if raw_bytes is None else raw_bytes
        if parameters.content_size != raw_bytes or not parameters.has_checksum:
            raise _damaged("its header differs from what was recorded")
        if raw_bytes > limit_bytes:
            raise ResultTooLargeError(raw_bytes, limit_bytes)
        raw = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _damaged(str(error)) from error
    if len(raw) != raw_bytes or (digest is not None and frame_digest(raw) != digest):
        raise _damaged("its content differs from what was recorded")
    return raw


class FrameError(ValueError):
    """A zstd frame that is read piece by piece is damaged."""


class FrameUnpacker:
    """
    One zstd frame of whatever program, unpacked piece by piece.

    Attributes:
        eof: The frame is complete.
        unused_data: What was given of the bytes behind it.
    """

    def __init__(self) -> None:
        import zstandard

        self.eof = False
        self.unused_data = b""
        self._error = zstandard.ZstdError
        self._inner = zstandard.ZstdDecompressor().decompressobj()

    def unpack(self, data: bytes, max_bytes: int) -> tuple[bytes, bytes]:  # noqa: ARG002 - as gzip has it
        """
        Return what the next piece *data* of the frame unpacks to, at most 32 KiB for each byte of it, and that all of it was used.

        Raises:
            FrameError: The frame is damaged. It is of no further use.
        """
        try:
            made = self._inner.decompress(data)
        except self._error as error:
            raise FrameError(str(error)) from error
        self.eof, self.unused_data = self._inner.eof, self._inner.unused_data
        return made, b""


def is_sound_frame(data: bytes, *, raw_bytes: int) -> bool:
    """Tell whether :func:`unpack_frame` would find *data* sound, by the frame's own checksum; unpacks it a piece at a time and keeps none."""
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.content_size != raw_bytes or not parameters.has_checksum:
            return False
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            unpacked_bytes = 0
            while piece := reader.read(zstandard.DECOMPRESSION_RECOMMENDED_OUTPUT_SIZE):
                unpacked_bytes += len(piece)
        return unpacked_bytes == raw_bytes
    except (zstandard.ZstdError, TypeError):
        return False


def frame_digest(raw: bytes | bytearray) -> bytes:
    """Return the 32 bytes of SHA-256 over *raw*."""
    return sha256(raw).digest()


def inline_digests(item_ids: Iterable[int], values: Iterable[bytes]) -> Iterator[int]:
    """
    Return what each result adds to the digest of its batch: the CRC-32 of its JSON that begins with its item's id.

    Sums of them are the same in whatever order results come, and another one when two items change their values for each other's.
    """
    return map(crc32, values, item_ids)


def packed_digests(item_ids: Iterable[int], segments: Iterable[bytes], offsets: Iterable[int], sizes: Iterable[int]) -> Iterator[int]:
    """Return the same for results that lie in segments, of which the SHA-256 says what stands there."""
    return map(crc32, map(PLACE.pack, segments, offsets, sizes), item_ids)


def _damaged(why: str) -> ResultError:
    return ResultError(f"stored results are damaged: {why}", "Run `durabatch verify`.")


def _invalid(line: bytes, fault: JsonFault, quotes: list[int]) -> InvalidJsonError:
    """Return the error about *line*, to which *quotes* were added at these offsets."""
    message, position = fault
    start = line.rfind(b"\n", 0, position) + 1
    column = position - start + 1 - sum(start <= at < position for at in quotes)
    hint = NUMBERS_HINT if is_about_number(message) else ""
    return InvalidJsonError(message, line.count(b"\n", 0, position), column, hint)
