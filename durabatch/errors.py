"""
Everything that can go wrong, as one tree. An error knows its facts, writes its own sentence, and carries the exit code of the command line.

    DurabatchError                     base
    ├── UsageError              2      wrong options, names, handlers, input that changed
    │   ├── HandlerImportError         the handler cannot be imported or called
    │   ├── InputError                 a bad, duplicate or oversized piece of input, with file and line
    │   ├── InputChangedError          the input is not the one the run was started with
    │   └── NotFoundError              no such run, batch or item
    ├── RunHaltedError          3      the run stopped before its end and can be resumed
    ├── LedgerError             4      the ledger cannot be used
    │   ├── LedgerMissingError         there is no ledger at this path
    │   ├── LedgerPathError            the path is not a place for a ledger
    │   ├── NotALedgerError            a file of another program
    │   ├── LedgerVersionError         written by a newer (or impossible) version
    │   ├── LedgerDamagedError         SQLite or our own rules find the file broken
    │   ├── LedgerInUseError           another coordinator holds it
    │   ├── LedgerTakenOverError       another coordinator took it over while we ran
    │   ├── LedgerLostError            deleted, replaced or cut while open
    │   ├── LedgerBusyError            another program keeps it locked
    │   ├── LedgerFullError            no room on the disk
    │   ├── LedgerStorageError         the disk answered with an error; the outcome of the last commit is unknown
    │   ├── ForkedConnectionError      a connection was used in another process or thread than its own
    │   └── StrayWorkersError          workers of an earlier run are alive and cannot be ended
    ├── OutputError             4      a file of the output cannot be written
    │   └── OutputFullError     4      ... for want of room
    ├── NoItemsError            5      the input holds no items
    ├── UndoError               1      an effect cannot be recorded for undoing, or not be undone
    ├── SqlError                2      a query of the user's is refused or wrong
    ├── ResultError             1      a value cannot be stored
    │   └── ResultTooLargeError        it is larger than a result may be
    └── ItemFailedError         1      raised by ``Result.value`` of an item that did not succeed

The message has the form "what: why" and ``hint`` says what to do next; the command line prints both on one line.
"""

from __future__ import annotations

from durabatch.sizes import size_text

__all__ = [
    "DurabatchError",
    "ForkedConnectionError",
    "HandlerImportError",
    "InputChangedError",
    "InputError",
    "ItemFailedError",
    "LedgerBusyError",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
    "LedgerInUseError",
    "LedgerLostError",
    "LedgerMissingError",
    "LedgerPathError",
    "LedgerStorageError",
    "LedgerTakenOverError",
    "LedgerVersionError",
    "NoItemsError",
    "NotALedgerError",
    "NotFoundError",
    "OutputError",
    "OutputFullError",
    "ResultError",
    "ResultTooLargeError",
    "RunHaltedError",
    "SqlError",
    "StrayWorkersError",
    "UndoError",
    "UsageError",
]


class DurabatchError(Exception):
    """
    Base of all errors of durabatch.

    Args:
        what: What failed and why, without a final full stop.
        hint: What to do next, a sentence or two; may be empty.
    """

    exit_code = 70

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what}. {hint}" if hint else what)


class UsageError(DurabatchError):
    """Wrong use: options, names, configuration. Nothing was started and nothing written."""

    exit_code = 2


class HandlerImportError(UsageError):
    """The handler cannot be imported, is not a function, or takes the wrong parameters. Nothing was started."""


class InputError(UsageError):
    """
    A piece of input cannot become an item. Items before it may have been taken in; the message names file and line.

    Args:
        where: ``FILE:LINE``, ``FILE`` or a description of the source.
        why: What is wrong there.
        hint: What to do next.
    """

    def __init__(self, where: str, why: str, hint: str = "") -> None:
        self.where = where
        super().__init__(f"{where}: {why}", hint)

    def at(self, place: str) -> InputError:
        """Return the same error, with the place in the input before its words."""
        return InputError(place, self.what, self.hint)


class InputChangedError(UsageError):
    """The input differs from what the run was started with. Nothing was run; the ledger is unchanged."""


class NotFoundError(UsageError):
    """No such run, batch or item. Nothing was changed."""


class RunHaltedError(DurabatchError):
    """The run stopped before its end. What finished is recorded; the same call goes on with the rest."""

    exit_code = 3


class LedgerError(DurabatchError):
    """The ledger cannot be used. What was committed before stays as it is."""

    exit_code = 4

    def __init__(self, path: object, why: str, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(f"{path}: {why}", hint)


class LedgerMissingError(LedgerError):
    """There is no file at this path, and the verb does not create one."""


class LedgerPathError(LedgerError):
    """The path cannot hold a ledger: a directory, a device, in memory, unsafe permissions, several names."""


class NotALedgerError(LedgerError):
    """The file is no SQLite database, or one of another program. It was not touched."""


class LedgerVersionError(LedgerError):
    """The ledger's schema version is newer than this program knows, or impossible. It was not touched."""


class LedgerDamagedError(LedgerError):
    """SQLite or our own rules find the file broken. Nothing was written by the call that found it."""


class LedgerInUseError(LedgerError):
    """Another coordinator holds the ledger. Nothing was changed."""


class LedgerTakenOverError(LedgerError):
    """Another coordinator opened the ledger while this one ran. The transaction that noticed was rolled back."""


class LedgerLostError(LedgerError):
    """The ledger or its write-ahead log was deleted, replaced or cut while it was open. Later commits go nowhere."""


class LedgerBusyError(LedgerError):
    """Another program keeps the ledger locked. The transaction was not begun."""


class LedgerFullError(LedgerError):
    """No room on the disk. The transaction was rolled back; everything committed before is there."""


class LedgerStorageError(LedgerError):
    """The storage answered with an error. Whether the last commit happened is unknown until the ledger is opened again."""


class ForkedConnectionError(LedgerError):
    """A connection was used by another process or thread than the one that opened it. Nothing was executed."""


class StrayWorkersError(LedgerError):
    """Workers of an earlier run are alive and could not be ended. Nothing was dispatched."""


class OutputError(DurabatchError):
    """A file of the output cannot be written. No part of it is left, and every recorded result is in the ledger."""

    exit_code = 4

    def __init__(self, path: object, why: str, hint: str = "") -> None:
        self.path = str(path)
        super().__init__(f"{path}: {why}", hint)


class OutputFullError(OutputError):
    """There is no room on the disk of an output file; what stood there before is there still. A run waits for room, as it does for its ledger."""


class NoItemsError(DurabatchError):
    """The input holds no items. Nothing was written."""

    exit_code = 5


class UndoError(DurabatchError):
    """
    An effect cannot be recorded for undoing, or not be undone. Before an effect: nothing was touched. Afterwards the effect remains, and is listed.

    Args:
        retryable: Of a failed undo: a further try makes sense.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "", *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(what, hint)


class SqlError(DurabatchError):
    """A query of the user's is wrong, tries to write, or took too long. Nothing was changed."""

    exit_code = 2


class ResultError(DurabatchError):
    """A value cannot be stored as strict JSON; the message names the path inside the value. The attempt fails."""

    exit_code = 1


class ResultTooLargeError(ResultError):
    """A value is larger than a result may be. It was not stored; the attempt fails."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"{size_text(size_bytes)}, limit {size_text(limit_bytes)} (--max-result-bytes)", "Write it to a file and return the path."
        )


class ItemFailedError(DurabatchError):
    """Raised by ``Result.value`` of an item that did not succeed; the recorded error is in the message."""

    exit_code = 1
