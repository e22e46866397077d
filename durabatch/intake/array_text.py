"""
The elements of one JSON array, cut out of a stream as they stand: only brackets and quotes are looked at here.

Memory is bounded by a piece of the stream and the largest item, however long the array is.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from durabatch.errors import InputError
from durabatch.intake.problems import not_text
from durabatch.intake.streams import BrokenStreamError, BrokenTextError, ByteStream
from durabatch.intake.text import BLOCK_BYTES, too_large

__all__ = ["ArrayText"]

STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: From anywhere outside a string to the next bracket, and to the next comma or bracket.
INNER = re.compile(rb'(?:[^"\[\]{}]++|%s)*+([\[\]{}])' % STRING, re.S)
OUTER = re.compile(rb'(?:[^"\[\]{},]++|%s)*+([\[\]{},])' % STRING, re.S)
#: An object without lists and objects in it, and the comma behind it: most elements.
FLAT = re.compile(rb"(\s*+\{(?:[^\"\[\]{}]++|%s)*+\}\s*+)," % STRING, re.S)
#: Whatever is sure to have no bracket, comma or open quote.
DULL = re.compile(rb'(?:[^"\[\]{},]++|%s)*+' % STRING, re.S)
OPEN, COMMA, END = b"[{", ord(","), ord("]")
MARK = b"\xef\xbb\xbf"
KINDS = {"{": "an object", '"': "a text"}


class Phase(StrEnum):
    """What comes next: the array, its first element or its end, an element, nothing more; or all was read."""

    HEAD = "head"
    FIRST = "first"
    NEXT = "next"
    TAIL = "tail"
    DONE = "done"


class ArrayText:
    """
    Hands out the elements of the array that *stream* is.

    Args:
        stream: Where the bytes come from, at its start.
        where: What messages call it.
        limit_bytes: The longest element.

    Attributes:
        item: Elements taken so far.
    """

    def __init__(self, stream: ByteStream, where: str, *, limit_bytes: int) -> None:
        self.where = where
        self.item = 0
        self.waits = stream.waits
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._phase = Phase.HEAD
        self._failure: InputError | None = None
        #: The failure is one element that is too large and goes on from here.
        self._is_long = False
        self._stream_ended = False
        self._buffer = b""
        # Where the next element begins: in the buffer, in the stream, in lines; and how far it was looked through, how deep.
        self._at = self._offset = self._line = self._line_start = 0
        self._seen = self._depth = 0

    @property
    def ended(self) -> bool:
        """True when all was read."""
        return self._phase == Phase.DONE and self._failure is None

    def ready(self) -> bool:
        """Return False when taking elements would wait."""
        return self._stream_ended or self._failure is not None or self._stream.ready()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def state(self) -> dict[str, Any]:
        """Return the place behind the elements taken."""
        return {"offset": self._offset, "item": self.item, "line": self._line, "start": self._line_start, "phase": str(self._phase)}

    def go_to(self, state: dict[str, Any]) -> None:
        """Go to a place that :meth:`state` gave, at once in plain files, by skipping elements elsewhere."""
        if self._stream.seekable:
            self._stream.seek(state["offset"])
            self._buffer, self._at, self._seen, self._depth = b"", 0, 0, 0
            self._offset, self._line, self._line_start = state["offset"], state["line"], state["start"]
            self.item, self._phase = state["item"], Phase(state["phase"])
        while self.item < state["item"] and not self.ended:
            try:
                self.take(state["item"] - self.item, BLOCK_BYTES)
            except InputError:
                if not self.can_step_over:
                    raise
                self.step_over()

    def take(self, max_items: int, max_bytes: int) -> list[bytes]:
        """
        Return the next elements with the blanks about them; more than *max_bytes* only by the last one.

        Returns:
            At least one, unless the array ended or waits in the middle of one.

        Raises:
            InputError: The next element cannot be read. See ``can_step_over``.
        """
        found = self._cut(max_items, max_bytes)
        while not found and not self.ended:
            if self._failure is not None:
                raise self._failure
            self._read()
            found = self._cut(max_items, max_bytes)
            if self._stream.waits:
                break
        return found

    def place_of(self, taken: list[bytes], index: int) -> tuple[int, int]:
        """Return the line in which ``taken[index]`` begins, from 1, and the bytes before it in that line; *taken* are the last ones."""
        line, line_start, offset = self._place_before(taken, index)
        return line + 1, offset - line_start

    def give_back(self, taken: list[bytes], index: int) -> None:
        """Set the place to before ``taken[index]``, where *taken* are the last ones. Only the place: nothing is read after a problem."""
        self._line, self._line_start, self._offset = self._place_before(taken, index)
        self.item -= len(taken) - index
        self._phase = Phase.NEXT if self.item else Phase.FIRST

    def _place_before(self, taken: list[bytes], index: int) -> tuple[int, int, int]:
        line, line_start, offset = self._taken_from
        text = b"".join(part + b"," for part in taken[:index])
        breaks = text.count(b"\n")
        return line + breaks, offset + text.rfind(b"\n") + 1 if breaks else line_start, offset + len(text)

    @property
    def can_step_over(self) -> bool:
        """True after an error of :meth:`take` about one element only."""
        return self._is_long

    def step_over(self) -> None:
        """Leave out the element that was too large; only when it can be stepped over."""
        assert self._is_long
        self._failure, self._is_long = None, False
        end = self._end()
        while end is None and self._failure is None:
            self._drop()
            if self._stream_ended:
                self._failure = self._cut_off()
            else:
                self._read()
                end = self._end()
        if end is not None and self._ends_element(end):
            self._pass(end)

    def _cut(self, max_items: int, max_bytes: int) -> list[bytes]:
        """Return elements that are whole in the buffer, up to a fault, which becomes the failure."""
        if self._phase == Phase.HEAD:
            self._enter()
        self._taken_from = self._line, self._line_start, self._offset
        found = self._cut_flat(max_items, max_bytes) if self._phase in {Phase.FIRST, Phase.NEXT} and self._failure is None else []
        size = self._offset - self._taken_from[2]
        while self._phase in {Phase.FIRST, Phase.NEXT} and self._failure is None and len(found) < max_items and size < max_bytes:
            end = self._end()
            if end is None:
                self._refuse_incomplete()
                break
            element = self._buffer[self._at : end]
            if self._is_sound(element, end):
                size += len(element) + 1
                found.append(element)
                self._pass(end)
        if self._phase == Phase.TAIL and self._failure is None:
            self._leave()
        return found

    def _cut_flat(self, max_items: int, max_bytes: int) -> list[bytes]:
        """Return the flat objects that come next, as far as they follow one another and are small enough."""
        found: list[bytes] = []
        buffer, at, stop, limit = self._buffer, self._at, self._at + max_bytes, self._limit_bytes
        while len(found) < max_items and at < stop and (flat := FLAT.match(buffer, at)) is not None and flat.end() - at <= limit:
            found.append(flat[1])
            at = flat.end()
        if found:
            self.item += len(found)
            self._phase = Phase.NEXT
            self._move(at)
        return found

    def _end(self) -> int | None:
        """Return where in the buffer the comma or bracket behind the next element is, None when it has not been read yet."""
        while (found := (INNER if self._depth else OUTER).match(self._buffer, self._seen)) is not None:
            if found[1] in OPEN:
                self._depth += 1
            elif not self._depth:
                return found.start(1)
            else:
                self._depth -= 1
            self._seen = found.end()
        return None

    def _is_sound(self, element: bytes, end: int) -> bool:
        """Tell whether *element*, which ends at *end*, is one; else it is the failure, or it is none because the array is empty."""
        if len(element) > self._limit_bytes:
            self._failure, self._is_long = too_large(self._here(), self._limit_bytes), True
        elif not self._ends_element(end):
            return False
        elif not element.strip():
            if self._phase == Phase.FIRST and self._buffer[end] == END:
                self._move(end + 1)
                self._phase = Phase.TAIL
                return False
            self._failure = self._unexpected(end, "an element is missing before")
        return self._failure is None

    def _ends_element(self, end: int) -> bool:
        if self._buffer[end] not in {COMMA, END}:
            self._failure = self._unexpected(end, "not JSON: expected ',' or ']', found")
        return self._failure is None

    def _pass(self, end: int) -> None:
        """Go behind an element and the comma or bracket at *end*."""
        self._phase = Phase.NEXT if self._buffer[end] == COMMA else Phase.TAIL
        self.item += 1
        self._move(end + 1)

    def _move(self, end: int) -> None:
        """Go to *end* in the buffer, counting lines."""
        breaks = self._buffer.count(b"\n", self._at, end)
        if breaks:
            self._line += breaks
            self._line_start = self._offset + self._buffer.rfind(b"\n", self._at, end) + 1 - self._at
        self._offset += end - self._at
        self._at = self._seen = end
        self._depth = 0

    def _enter(self) -> None:
        """Go behind the bracket that opens the array; something else is the failure."""
        blanks = len(self._buffer) - len(self._buffer.lstrip())
        first = self._buffer[blanks : blanks + 1].decode("latin-1")
        if first == "[":
            self._move(blanks + 1)
            self._phase = Phase.FIRST
        elif self._buffer[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            self._failure = not_text(f"{self.where}:1", self._buffer, 0, "utf-8")
        elif first:
            self._move(blanks)
            kind = KINDS.get(first, "a single value" if first in "-0123456789tfn" else "no JSON")
            hint = "For one value a line use --format jsonl; such files are best called .jsonl."
            self._failure = InputError(self._here(), f"the top level is {kind}, not an array of items", hint)
        elif self._stream_ended:
            self._phase = Phase.DONE

    def _leave(self) -> None:
        """Make sure that nothing stands behind the array."""
        rest = self._buffer[self._at :].lstrip()
        if rest:
            self._failure = self._unexpected(len(self._buffer) - len(rest), "more text after the end of the array:")
        elif self._stream_ended:
            self._phase = Phase.DONE

    def _refuse_incomplete(self) -> None:
        if self._stream_ended:
            self._failure = self._cut_off()
        elif len(self._buffer) - self._at > self._limit_bytes:
            self._failure, self._is_long = too_large(self._here(), self._limit_bytes), True

    def _cut_off(self) -> InputError:
        return BrokenStreamError("ends in the middle (item {item})").at(self.where, self.item)

    def _here(self) -> str:
        """Return ``FILE:LINE`` of the next element."""
        blanks = len(self._buffer) - self._at - len(self._buffer[self._at :].lstrip())
        breaks = self._buffer.count(b"\n", self._at, self._at + blanks)
        return f"{self.where}:{self._line + 1 + breaks}"

    def _unexpected(self, at: int, why: str) -> InputError:
        """Return the error about the character at *at* in the buffer."""
        line = self._line + 1 + self._buffer.count(b"\n", self._at, at)
        last = self._buffer.rfind(b"\n", self._at, at)
        column = at - last if last >= 0 else self._offset - self._line_start + at - self._at + 1
        found = self._buffer[at : at + 4].decode(errors="ignore")[:1]
        return InputError(f"{self.where}:{line}", f"{why} {found!r} at column {column}")

    def _read(self) -> None:
        """Read more into the buffer; what cannot be read is the failure."""
        unread = self._buffer[self._at :]
        try:
            data = self._stream.read(max(BLOCK_BYTES, len(unread)))
        except InputError as error:
            self._failure = error
        except BrokenStreamError as error:
            self._failure = error.at(self.where, self.item)
        except BrokenTextError as error:
            self._failure = InputError(self.where, f"not text of its encoding ({error.fault} in item {self.item + 1:,})", "Use --encoding.")
        else:
            if data is None:
                return
            self._stream_ended = not data
            if not self._offset and not unread and data.startswith(MARK):
                data, self._offset, self._line_start = data[len(MARK) :], len(MARK), len(MARK)
            self._buffer, self._seen, self._at = unread + data, self._seen - self._at, 0

    def _drop(self) -> None:
        """Forget the part of an element that was looked through; of a text that goes on, only that it does is kept."""
        dull = DULL.match(self._buffer, self._seen)
        end = dull.end() if dull is not None else self._seen
        rest = self._buffer[end:]
        kept = rest
        if rest[:1] == b'"':
            slashes = len(rest) - len(rest.rstrip(b"\\"))
            kept = b'"\\' if slashes % 2 else b'"'
        depth = self._depth
        self._move(len(self._buffer) - len(kept))
        self._buffer, self._at, self._seen, self._depth = kept, 0, 0, depth
