"""
The worker's side of ``durabatch undo-log``: one socket for each command, served by whoever waits for the command's end.

A request goes to the coordinator at once, and its answer back to the one who asked when the entry is on disk, while others ask. Nothing here
waits. See :mod:`durabatch.undo_client` for what is spoken.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from durabatch.codec import InvalidJsonError, encode_value, parse_item
from durabatch.errors import ResultError, UndoError
from durabatch.undo_client import MAX_ARGUMENTS_BYTES, answer_line, check_action, door_text
from durabatch.undo_template import UndoTemplate
from durabatch.workers.protocol import Recorded
from durabatch.workers.surroundings import set_aside

__all__ = ["Log", "UndoSocket"]

READ_BYTES = 64 * 1024
#: Most bytes of a request: arguments, and what surrounds them.
MAX_REQUEST_BYTES = 4 * MAX_ARGUMENTS_BYTES
#: Descriptors that one message may bring; all but the first are closed.
MAX_DESCRIPTORS = 16

Answered = Callable[[Recorded], None]


class Log(Protocol):
    """What records entries."""

    def __call__(self, action: str, arguments: str, answered: Answered, *, is_irreversible: bool) -> None:
        """Send an entry, its arguments as JSON text; *answered* is called once, from whatever thread. UndoError: it cannot be recorded."""
        ...


class Request(NamedTuple):
    """What a client asks for."""

    action: str
    arguments: dict[str, Any]
    is_irreversible: bool


class UndoSocket:
    """
    Where one run of a command logs its effects.

    Args:
        log: What records them.
        template: What will undo them: an entry that it cannot take is refused.
        key: Key of the item.

    Attributes:
        descriptor: The command's end, to be inherited by it under this number.
    """

    def __init__(self, log: Log, template: UndoTemplate, key: str) -> None:
        self._log = log
        self._template = template
        self._key = key
        self._own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.descriptor = set_aside(theirs.detach())
        self._own.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._own, selectors.EVENT_READ, self._accept)
        self._clients: list[Client] = []

    @property
    def variable(self) -> str:
        """The value of the variable by which the command finds it."""
        return door_text(self.descriptor)

    def fileno(self) -> int:
        """Return what becomes readable when somebody asks."""
        return self._selector.fileno()

    def serve(self) -> None:
        """Take in what was asked; nothing is waited for."""
        for selected, _ in self._selector.select(0):
            selected.data()

    def close(self) -> list[str]:
        """Let go of everything and return the actions whose entries were asked for and not answered: whoever asked did not wait."""
        unanswered = [client.waits_for for client in self._clients if client.waits_for is not None]
        for client in self._clients:
            client.close()
        self._selector.close()
        self._own.close()
        os.close(self.descriptor)
        return unanswered

    def _accept(self) -> None:
        """Take a client's socket from the datagram that brings it."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._own, 1, MAX_DESCRIPTORS, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        except (BlockingIOError, ConnectionError):
            return
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        stream = stream_of(descriptors[0]) if descriptors else None
        if stream is not None:
            client = Client(stream, self._ask)
            self._clients.append(client)
            self._selector.register(stream, selectors.EVENT_READ, partial(self._read, client))

    def _read(self, client: Client) -> None:
        if not client.read():
            self._selector.unregister(client.stream)
            if client.waits_for is None:
                self._clients.remove(client)
                client.close()

    def _ask(self, line: bytes, answered: Answered) -> str:
        """Send on what a line asks for, and return the action; UndoError when it cannot be recorded."""
        try:
            request = read_request(line)
            if not request.is_irreversible:
                self._template.render(request.action, request.arguments, self._key)
            text = encode_value(request.arguments, limit_bytes=MAX_ARGUMENTS_BYTES)
        except (ResultError, InvalidJsonError) as error:
            raise UndoError(f"the request cannot be read: {error}") from error
        self._log(request.action, text, answered, is_irreversible=request.is_irreversible)
        return request.action


class Client:
    """
    One who logs, over a socket of its own: one request at a time.

    Attributes:
        waits_for: The action whose entry is on its way to the disk.
    """

    def __init__(self, stream: socket.socket, ask: Callable[[bytes, Answered], str]) -> None:
        self.stream = stream
        self.waits_for: str | None = None
        self._ask = ask
        self._bytes = bytearray()
        self._is_closed = False
        #: The answer may come in another thread.
        self._turn = threading.Lock()

    def read(self) -> bool:
        """Take in what has come; return whether more may come."""
        try:
            data = self.stream.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._bytes += data
        line, end, rest = self._bytes.partition(b"\n")
        if len(line) > MAX_REQUEST_BYTES or rest or (end and self.waits_for is not None):
            self._answer("the request is too long, or one of several at once")
            return False
        if end:
            self._bytes.clear()
            self._take(bytes(line))
        return bool(data)

    def close(self) -> None:
        """Let go of the socket; an answer that comes later goes nowhere."""
        with self._turn:
            self._is_closed = True
            self.stream.close()

    def _take(self, line: bytes) -> None:
        # Before the answer, which may come within the call.
        self.waits_for = ""
        try:
            action = self._ask(line, self._answered)
        except UndoError as error:
            self._answer(str(error))
            return
        with self._turn:
            if self.waits_for is not None:
                self.waits_for = action

    def _answered(self, recorded: Recorded) -> None:
        self._answer(recorded.refusal)

    def _answer(self, refusal: str | None) -> None:
        with self._turn:
            self.waits_for = None
            if not self._is_closed:
                # Whoever asked may be gone, or a line may not fit since nothing is read: then nobody waits for it.
                with contextlib.suppress(OSError):
                    self.stream.send(answer_line(refusal))


def stream_of(descriptor: int) -> socket.socket | None:
    """Return the stream socket of a descriptor, not blocking; None, and the descriptor closed, when it is something else."""
    try:
        stream = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if stream.family != socket.AF_UNIX or stream.type != socket.SOCK_STREAM:
        stream.close()
        return None
    stream.setblocking(False)
    return stream


def read_request(line: bytes) -> Request:
    """Return what a line asks for; UndoError or InvalidJsonError when it is no request."""
    found, _ = parse_item(line)
    if not isinstance(found, dict) or found.keys() != set(Request._fields) or not isinstance(found["is_irreversible"], bool):
        raise UndoError(f"the request is no object with {', '.join(Request._fields)}")
    request = Request(**found)
    check_action(request.action)
    if not isinstance(request.arguments, dict):
        raise UndoError("the arguments are no JSON object", 'Give one, as in: {"path": "/srv/site"}.')
    return request
