"""
The registry of settings: every option of ``run`` and ``exec``, once.

A setting has one name in four forms: the flag ``--batch-size``, the key ``batch_size`` in a file (``batch-size`` means the same), the
variable ``DURABATCH_BATCH_SIZE``, and, when the run records it, the field of RunSettings that Python callers give. Command line, files,
variables, ``init``, ``check`` and Python all read it here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from durabatch import options
from durabatch.config.compounds import Amounts, Check, Codes, Inputs, ItemKeys, Names, Params, Patterns, Target
from durabatch.config.kinds import (
    Directory,
    Grammar,
    Kind,
    Number,
    Retries,
    Seconds,
    Share,
    Size,
    Switch,
    Text,
    TimeLimit,
    Whole,
    Word,
    Workers,
)
from durabatch.limits import Breaker, Halt, Limit, Rate, Timeout
from durabatch.settings import RunSettings
from durabatch.undo_template import UndoTemplate

__all__ = ["GROUPS", "PREFIX", "SETTINGS", "Setting", "by_field", "by_variable", "for_verb", "named"]

RUN, EXEC, PLAN, RESUME, RETRY, WORK, SUBMIT, ROLLBACK = "run", "exec", "plan", "resume", "retry", "work", "submit", "rollback"
ALL = (RUN, EXEC, PLAN, RESUME, RETRY, WORK)
#: Those, and the verb that undoes what they did.
CALLING = (*ALL, ROLLBACK)
#: Those, and the verb that only adds items.
WRITING = (*CALLING, SUBMIT)
STARTING = (RUN, EXEC, PLAN)
#: Verbs that read an input.
READING = (*STARTING, SUBMIT)
PREFIX = "DURABATCH_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """
    One setting.

    Attributes:
        key: Its name in a file.
        kind: How its values are written.
        group: Heading under which it is shown.
        help: One line; the default is added where it is shown.
        metavar: What stands behind the flag.
        field: Field of RunSettings; None for what is no part of the run's record.
        fallback: Value when it is given nowhere, for settings without a field.
        default: What help says of the default in the place of the value itself.
        example: A value as a file would hold it, where the default is none.
        short: Short form of the flag.
        verbs: Verbs that have the flag.
        is_argument: It is an argument of the verb, without a flag.
        is_repeatable: The flag may stand several times.
        is_guarded: It names code or data to be taken up, so a file that others can write does not name it.
        variable: Name of the environment variable.
    """

    key: str
    kind: Kind
    group: str
    help: str
    metavar: str = ""
    field: str | None = None
    fallback: Any = None
    default: str = ""
    example: Any = None
    short: str | None = None
    verbs: tuple[str, ...] = ALL
    is_argument: bool = False
    is_repeatable: bool = False
    is_guarded: bool = False
    variable: str = ""

    @property
    def flag(self) -> str:
        """The option, as typed."""
        return f"--{self.key.replace('_', '-')}"

    @property
    def default_value(self) -> Any:
        """The value when nothing gives another."""
        if self.key == "workers":
            return options.usable_cores()
        return self.fallback if self.field is None else getattr(RunSettings(), self.field)

    @property
    def help_text(self) -> str:
        """Help with the default."""
        return self.help if not self.default_text else f"{self.help} [default: {self.default_text}]"

    @property
    def default_text(self) -> str:
        """The default for people, empty when there is none."""
        if self.default:
            return self.default
        shown = self.default_value
        return "" if shown in (None, False, (), {}) else str(self.kind.show(shown))


def setting(key: str, kind: Kind, help: str, metavar: str = "", **rest: Any) -> Setting:
    """Return a setting whose group is filled in by the table it stands in."""
    return Setting(key=key, kind=kind, help=help, metavar=metavar, group="", **{"variable": PREFIX + key.upper(), **rest})


def duration(least: float = 0.0) -> Seconds:
    """Return the kind of a duration that may be nothing."""
    return Seconds(options.parse_duration, least)


def time_limit(least: float = 0.0) -> Seconds:
    """Return the kind of a duration that ends something."""
    return Seconds(lambda text, *, option: options.parse_deadline(text, option=option, minimum_s=least), least, is_open=True)


ORDERS = ("input", "smallest", "largest", "newest", "oldest", "kind")

TABLE: dict[str, tuple[Setting, ...]] = {
    "What": (
        setting("handler", Target(), "Function to run: module:function or file.py:function.", "HANDLER", is_argument=True,
                is_guarded=True, example="jobs.py:work", verbs=(RUN, PLAN)),
        setting("input", Inputs(), "Lists, directories or patterns.", "INPUT", is_argument=True, is_guarded=True, fallback=(),
                example=["items.csv"], verbs=READING),
        setting("param", Params(), "A keyword-only parameter of the handler; env:NAME and file:PATH are read by workers only.",
                "NAME=VALUE", field="params", is_repeatable=True, verbs=(RUN, PLAN), example={"limit": 10}),
        setting("name", Text(), "Name of the run.", "NAME", default="HANDLER's function:INPUT", verbs=STARTING, example="nightly"),
        setting("fresh", Switch(), "Start a new run of that name instead of going on with the last one.", fallback=False, verbs=STARTING),
        setting("shell", Switch(), "COMMAND is one text for sh -c; what is put in is quoted.", fallback=False, verbs=(EXEC,)),
        setting("parse", Word(("none", "json", "lines")), "What becomes of its stdout: kept as it is, or the result itself as JSON or as "
                "a list of lines.", "none|json|lines", fallback="none", verbs=(EXEC,)),
        setting("profile", Text(), "Settings of [profile.NAME] in the configuration files.", "NAME", verbs=WRITING),
    ),
    "Input": (
        setting("format", Text(), "lines, csv, tsv, jsonl, json, xlsx, files, chunks, or one of a package.", "FORMAT", default="by suffix",
                verbs=READING, example="csv"),
        setting("key", Text(), "Field that identifies an item.", "FIELD", default="key or id, else the content", verbs=READING,
                variable="DURABATCH_KEY_FIELD", example="host"),
        setting("delimiter", Text(), "What separates columns.", "CHAR", default="sniffed", verbs=READING, example=";"),
        setting("sheet", Text(), "Sheet of a workbook.", "NAME", default="the first", verbs=READING, example="Packages"),
        setting("encoding", Text(), "Encoding of lists.", "NAME", fallback="utf-8", verbs=READING),
        setting("null", Switch(), "Lines end with NUL, as find -print0 writes them.", fallback=False, verbs=READING),
        setting("numbers", Word(("exact", "text")), "Numbers of JSON that cannot be kept exactly: an error, or their text.", "exact|text",
                fallback="exact", verbs=READING),
        setting("files", Switch(), "A plain file is an item too, not a list.", fallback=False, verbs=READING),
        setting("include", Patterns(), "Only files of that name in directories; may be repeated.", "PATTERN", is_repeatable=True,
                fallback=(), verbs=READING, example=["*.py"]),
        setting("exclude", Patterns(), "No files or directories of that name or path; may be repeated.", "PATTERN", is_repeatable=True,
                fallback=(), verbs=READING, example=["*.bak", "build/*"]),
        setting("hidden", Switch(), "Files and directories whose names begin with a dot are taken, too.", fallback=True, default="yes", verbs=READING),
        setting("gitignore", Switch(), "Leave out what .gitignore files name.", fallback=False, verbs=READING),
        setting("min_size", Size(0), "Only files of at least so many bytes.", "SIZE", verbs=READING, example="1KiB"),
        setting("max_size", Size(0), "Only files of at most so many bytes.", "SIZE", verbs=READING, example="10MiB"),
        setting("chunk_size", Size(16), "Longest chunk of a document, in bytes of UTF-8.", "SIZE", fallback=4096, verbs=READING),
        setting("overlap", Size(0), "Bytes that a chunk repeats of the one before it.", "SIZE", fallback=0, verbs=READING),
        setting("group_by", Text(), "One item for each value of that field, with all the items that have it.", "FIELD", verbs=READING,
                example="region"),
        setting("range", Text(), "Only the items from A to B, both included, counted from 1.", "A:B", verbs=READING, example="1:1000"),
        setting("limit", Whole(1, 2**62), "Only the first N items.", "N", verbs=READING, example=100),
        setting("select", ItemKeys(), "Only the items with these keys; may be repeated.", "KEY,KEY", is_repeatable=True, fallback=(),
                verbs=READING, example=["r0010", "r0020"]),
        setting("sample", Whole(1, 10_000_000), "Only N items, chosen at random; the same ones each time.", "N", verbs=READING, example=50),
        setting("shuf", Whole(0, 2**62), "Run the items in a random order that this number determines; reads the whole input first.", "SEED",
                field="shuf", verbs=STARTING, example=1),
        setting("on_bad_input", Word(("stop", "skip")), "A line that cannot be an item: stop before it, or leave it out and count it.",
                "stop|skip", field="on_bad_input", verbs=READING),
        setting("dedupe", Word(("error", "first", "last", "keep")), "A key that comes again: an error, the first or the last item counts, "
                "or both are kept, as KEY and KEY#2.", "error|first|last|keep", field="dedupe", verbs=STARTING),
        setting("max_item_bytes", Size(), "Largest item.", "SIZE", field="max_item_bytes", verbs=(*ALL, SUBMIT)),
        setting("priority", Text(), "Field with an item's priority, a whole number; higher ones first.", "FIELD", field="priority",
                verbs=STARTING, example="priority"),
        setting("order", Word(ORDERS), "Which items come first; all but input read the whole input before the first item starts.",
                "|".join(ORDERS), field="order", verbs=STARTING),
        setting("preflight", Check(), "A check that all items pass before the first is run: module:function, or a command.", "CHECK",
                field="preflight", is_guarded=True, verbs=STARTING, example="jobs.py:check"),
        setting("preflight_only", Switch(), "Check the items and end; nothing is run.", fallback=False, verbs=STARTING),
    ),
    "Changed input": (
        setting("on_change", Text(), "When the input or the handler's version has changed: finish what the ledger holds, add what is new and "
                "redo what has changed, also cancel what is gone, or do what an edited plan says.", "ledger|merge|source|PLANFILE",
                verbs=(*STARTING, RESUME), example="merge"),
        setting("from_item", Text(), "Run again from this item on, whatever has become of it; those before it stay as they are.", "KEY|N",
                verbs=(RUN, EXEC, PLAN, RESUME), example="r0500"),
        setting("from_batch", Whole(1, 2**31 - 1), "Run again from this batch on; those before it stay as they are.", "N",
                verbs=(RUN, EXEC, PLAN, RESUME), example=7),
        setting("undo", Switch(), "Undo first what items did that run again or are cancelled.", fallback=False, verbs=(RUN, EXEC, PLAN, RESUME)),
        setting("dry_run", Switch(), "Show the plan, and run nothing.", fallback=False, verbs=(RUN, EXEC)),
    ),
    "Queue and cache": (
        setting("open", Switch(), "Wait for more items, which `durabatch submit` adds, until `durabatch close`.", fallback=False,
                verbs=(RUN, EXEC)),
        setting("idle_exit", time_limit(), "Leave an open run when nothing has come for so long.", "T", field="idle_exit_s", example="60s",
                verbs=(RUN, EXEC, RESUME, WORK)),
        setting("cache", Switch(), "Use results of equal items again, of this and earlier runs in this ledger.", field="cache",
                verbs=(RUN, EXEC, PLAN, RESUME, RETRY, WORK)),
        setting("cache_ttl", time_limit(), "Use no result that is older.", "T", field="cache_ttl_s", example="7d"),
        setting("cache_size", Size(0), "Forget the least recently used results beyond so many bytes.", "SIZE", field="cache_bytes"),
    ),
    "Workers": (
        setting("workers", Workers(0, options.MAX_WORKERS), "Worker processes; 0 runs items in this process.", "N|N%", field="workers",
                short="-j", default="usable cores", example="50%", verbs=CALLING),
        setting("concurrency", Whole(1, 10_000), "Items at once in each worker.", "C", field="concurrency",
                default="1; 100 for an async handler", example=4, verbs=CALLING),
        setting("pipeline_depth", Whole(1, 5), "Dispatches a worker holds at once, 1 to 5.", "D", field="pipeline_depth"),
        setting("max_items_per_worker", Whole(1, 2**31 - 1), "Replace a worker by a fresh one after so many items.", "N",
                field="max_items_per_worker", example=10_000),
        setting("memory_limit", Size(16 << 20), "Kill a worker that holds more, with its children.", "SIZE", field="memory_limit_bytes",
                example="2GiB", verbs=CALLING),
        setting("term_grace", duration(), "From asking a worker to end to killing it.", "T", field="term_grace_s", verbs=CALLING),
        setting("drain", duration(), "Time a first Ctrl-C leaves to running items.", "T", field="drain_s", verbs=CALLING),
    ),
    "Batches and output": (
        setting("batch_size", Whole(1, 1_000_000), "Items in a batch, the unit of --output files.", "N", field="batch_size"),
        setting("batch_strategy", Text(), "fixed, memory, time, bytes, or one of a package.", "NAME", field="batch_strategy",
                is_guarded=True),
        setting("batch_seconds", Seconds(options.parse_seconds, is_open=True), "Worker seconds that a batch should take, for "
                "--batch-strategy time.", "T", field="batch_seconds"),
        setting("output", Directory(), "A directory for batch_0001.json ... and summary.json, or a file: .jsonl, .csv, .parquet, .xlsx, .db.",
                "PATH", field="output", example="out", verbs=(RUN, EXEC, RESUME, RETRY, WORK)),
        setting("output_format", Word(("json", "jsonl", "csv", "jsonl.zst")), "Format of the batch files.", "json|jsonl|csv|jsonl.zst",
                field="output_format"),
        setting("on_batch", Text(), "Command that is run after each finished batch, with it on its stdin as JSON lines.", "COMMAND",
                field="batch_command", is_guarded=True, example="./load.sh"),
        setting("on_end", Text(), "Command that is run at the end, with the summary on its stdin as JSON.", "COMMAND", field="end_command",
                is_guarded=True, example="./tell.sh"),
        setting("keep_order", Switch(), "Batches leave in input order.", field="keep_order"),
        setting("max_result_bytes", Size(), "Largest result as JSON.", "SIZE", field="max_result_bytes"),
    ),
    "Failures": (
        setting("retries", Retries(1, 1_000_001), "Further tries for an item that fails.", "N", field="max_attempts", verbs=CALLING),
        setting("backoff", duration(), "Longest wait before the second try.", "T", field="backoff_s", verbs=CALLING),
        setting("backoff_factor", Number(1, 100), "Each further try waits so many times as long.", "X", field="backoff_factor", verbs=CALLING),
        setting("backoff_cap", duration(), "Longest wait before any try.", "T", field="backoff_cap_s", verbs=CALLING),
        setting("retry_on", Names(), "Try again after these exceptions alone.", "A,B", field="retry_on", is_guarded=True,
                example=["ConnectionError", "TimeoutError"]),
        setting("give_up_on", Names(), "Never try again after these exceptions.", "A,B", field="give_up_on", is_guarded=True,
                example=["ValueError"]),
        setting("retry_exit", Codes(), "Try again after these exit codes of a command alone.", "75,111", field="retry_exit",
                verbs=(EXEC, RESUME, RETRY), example=[75, 111]),
        setting("max_deaths", Whole(1, 1000), "Deaths of a worker after which an item that runs alone is put aside.", "N",
                field="max_deaths"),
        setting("retry_failed", Switch(), "Run the failed items of the last run again, too.", fallback=False, verbs=STARTING),
    ),
    "Undo": (
        setting("atomic", Word(("item", "batch", "run")), "What a failure for good undoes: the item, its batch, or (also a halt, a cancel) the run.",
                "WHAT", field="atomic"),
        setting("undo_command", Grammar(UndoTemplate), "Command that undoes what a command has logged: words, with {action}, {args.NAME} and {key}.",
                "COMMAND", field="undo_command", is_guarded=True, verbs=(EXEC, RESUME, RETRY, ROLLBACK), example="rm -rf -- {args.path}"),
        setting("max_undo_bytes", Size(), "Most bytes of old content that an undo entry keeps.", "SIZE", field="max_undo_bytes"),
    ),
    "Time": (
        setting("timeout", TimeLimit(Timeout), "Longest time of a try; N% is of the median so far.", "T|N%", field="timeout", example="30s", verbs=CALLING),
        setting("item_deadline", time_limit(), "Longest time from the first start of an item to its last end.", "T",
                field="item_deadline_s", example="1h"),
        setting("deadline", time_limit(), "Halt after that time; the same command goes on.", "T", field="deadline_s", example="8h"),
        setting("cpu_limit", time_limit(1.0), "Processor time of a try.", "T", field="cpu_limit_s", example="10m"),
    ),
    "Stopping": (
        setting("halt", Grammar(Halt), "Halt at so many failures: now,fail=N|N% or soon,fail=N|N%.", "WHEN,fail=N|N%", field="halt",
                example="soon,fail=10%"),
        setting("tolerate", Grammar(Limit, (str, int)), "Failures with which the exit code is still 0.", "N|N%", field="tolerate",
                example="1%"),
        setting("canary", Whole(0, 2**31 - 1), "Run so many items first; halt if one of them fails.", "N", field="canary", default="off",
                example=10),
        setting("budget", Amounts(), "Halt when so much is spent; may be repeated.", "UNIT=AMOUNT", field="budget", is_repeatable=True,
                example={"usd": 5}),
        setting("breaker", Grammar(Breaker), "Pause when so many of the latest tries failed, or N in a row with the same error.",
                "N%,same=N,wait=T", field="breaker", example="50%,same=10,wait=30s"),
    ),
    "Machine": (
        setting("rate", Grammar(Rate), "Start at most so many items.", "N/T", field="rate", example="50/1m", verbs=CALLING),
        setting("memory_threshold", Share(), "Memory in use above which fewer workers get items.", "N%", field="memory_threshold", verbs=CALLING),
        setting("min_free_disk", Size(0), "Free disk at the ledger below which one worker alone gets items.", "SIZE",
                field="min_free_disk_bytes", verbs=CALLING),
        setting("max_load", Number(0.1, 1000), "Load per core above which fewer workers get items.", "X", field="max_load", default="off",
                example=1.5, verbs=CALLING),
    ),
    "Ledger and display": (
        setting("ledger", Text(may_be_empty=True), "The SQLite file that holds the runs; also $DURABATCH_LEDGER.", "PATH", fallback="durabatch.db",
                verbs=WRITING),
        setting("durability", Word(("power", "process")), "What a commit survives: a power cut, or only the death of processes.",
                "power|process", fallback="power", verbs=WRITING),
        setting("allow_network_fs", Switch(), "Accept a ledger on a network file system that only this host uses.", fallback=False,
                verbs=WRITING),
        setting("progress", Word(("auto", "bar", "plain", "json", "none")), "On stderr; auto: a bar on a terminal, else a line every 30 s.",
                "auto|bar|plain|json|none", fallback="auto", verbs=CALLING),
        setting("color", Word(("auto", "always", "never")), "Color; auto: on a terminal, unless NO_COLOR is set.", "auto|always|never",
                fallback="auto", verbs=WRITING),
    ),
}  # fmt: skip

GROUPS = tuple(TABLE)
#: Every setting by its key, in the order in which people meet them.
SETTINGS = {one.key: replace(one, group=group) for group, settings in TABLE.items() for one in settings}


def named(name: str) -> Setting | None:
    """Return the setting of that key, however its words are joined; None when there is none."""
    return SETTINGS.get(name.replace("-", "_"))


def for_verb(verb: str) -> tuple[Setting, ...]:
    """Return the settings that have a flag or an argument of *verb*."""
    return tuple(one for one in SETTINGS.values() if verb in one.verbs)


@cache
def by_field() -> dict[str, Setting]:
    """Return the settings that the run records, by field of RunSettings and in its order."""
    found = {one.field: one for one in SETTINGS.values() if one.field is not None}
    return {part.name: found[part.name] for part in fields(RunSettings)}


@cache
def by_variable() -> dict[str, Setting]:
    """Return the settings by the name of their variable."""
    return {one.variable: one for one in SETTINGS.values()}
