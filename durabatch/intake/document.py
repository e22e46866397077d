"""
One document as chunks: read forwards and cut as it comes. In memory is one chunk and what was read ahead of it, however long the document.
"""

from __future__ import annotations

from durabatch.errors import InputError
from durabatch.flow.chunking import Chunking
from durabatch.intake.opening import open_stream
from durabatch.intake.problems import printable
from durabatch.intake.streams import BrokenStreamError, BrokenTextError
from durabatch.intake.text import BLOCK_BYTES

__all__ = ["Document"]

#: A file with a NUL among its first bytes is no text at all, as git sees it.
HEAD_BYTES = 8 << 10
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Document:
    """
    One text, cut from a place on.

    Args:
        path: The file, packed or not.
        encoding: Its encoding.
        chunking: How it is cut.
        start: Where the first chunk begins.

    Raises:
        InputError: It cannot be read, is no text, or is shorter than it was.
    """

    def __init__(self, path: str, encoding: str, chunking: Chunking, start: int) -> None:
        self.start = start
        self._path = path
        self._encoding = encoding
        self._chunking = chunking
        self._stream = open_stream(path, encoding)
        self._text = b""
        self._before = 0
        self._is_last = False
        self._failure: InputError | BrokenTextError | BrokenStreamError | None = None
        try:
            self._go_to(start)
        except BaseException:
            self.close()
            raise

    def cut(self, number: int) -> tuple[int, int, str] | None:
        """
        Return start, end and text of the next chunk, None when there is none.

        Args:
            number: Chunks before it.

        Raises:
            InputError: What comes next cannot be read or is no text. The place stays before it.
        """
        begin = self.start - self._before
        while (end := self._chunking.end(self._text, begin, is_last=self._is_last)) is None:
            if self._failure is not None:
                raise self._sentence(self._failure, number)
            self._fill(self._chunking.size)
            begin = self.start - self._before
        if begin >= end:
            return None
        text = self._decoded(begin, end)
        start, is_over = self.start, self._is_last and end == len(self._text)
        self.start = self._before + (end if is_over else self._chunking.next_start(self._text, end))
        return start, self._before + end, text

    def _decoded(self, begin: int, end: int) -> str:
        data = self._text[begin:end]
        if b"\0" in data:
            raise self._no_text(data.index(b"\0") + self.start)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            place = f"byte 0x{data[error.start]:02x} at offset {self.start + error.start:,}"
            raise InputError(printable(self._path), f"not {self._encoding.upper()} ({place})", "Use --encoding.") from None

    def _go_to(self, start: int) -> None:
        """Have the text from *start* on before us; at the beginning, make sure that it is one."""
        if start and self._stream.seekable:
            self._stream.seek(start)
            self._before = start
        self._fill(HEAD_BYTES)
        while self._before + len(self._text) < start and not self._is_last and self._failure is None:
            self._fill(BLOCK_BYTES)
        if self._is_last and self._before + len(self._text) < start:
            raise InputError(
                printable(self._path), f"it became shorter: {self._before + len(self._text):,} bytes, {start:,} were read before"
            )
        if start:
            return
        nul = self._text.find(b"\0", 0, HEAD_BYTES)
        if nul >= 0:
            raise self._no_text(nul)
        if self._text.startswith(UTF8_MARK):
            self.start = len(UTF8_MARK)

    def _fill(self, size: int) -> None:
        """Read at least *size* bytes more, up to the end, and let go of what lies before the chunk that comes next."""
        pieces = [self._text[max(0, self.start - self._before) :]]
        self._before += len(self._text) - len(pieces[0])
        wanted = max(size, BLOCK_BYTES)
        while wanted > 0 and not self._is_last and self._failure is None:
            try:
                data = self._stream.read(wanted)
            except (InputError, BrokenTextError, BrokenStreamError) as error:
                self._failure = error
                break
            self._is_last = data == b""
            pieces.append(data or b"")
            wanted -= len(data or b"")
        self._text = b"".join(pieces)

    def _no_text(self, place: int) -> InputError:
        marked = self._before == 0 and self._text.startswith(UTF16_MARKS)
        hint = "Use --encoding utf-16." if marked else "Leave it out with --include or --exclude, or use --on-bad-input skip."
        return InputError(printable(self._path), f"not a text: NUL byte at offset {place:,}", hint)

    def _sentence(self, failure: InputError | BrokenTextError | BrokenStreamError, number: int) -> InputError:
        if isinstance(failure, BrokenStreamError):
            return failure.at(printable(self._path), number)
        if isinstance(failure, InputError):
            return failure
        place = f"{failure.fault} behind offset {self._before + len(self._text):,}"
        return InputError(printable(self._path), f"not {self._encoding.upper()} ({place})", "Use --encoding.")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
