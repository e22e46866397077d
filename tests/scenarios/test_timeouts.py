"""
A timeout ends the work, whatever the work is: within the timeout, the grace time and one second, with everything that was started for it.

Times are those of the attempt rows. Beside the guilty ones there are always innocent ones, which are not charged for them.
"""

from __future__ import annotations

import re

import pytest

from tests.crash.processes import eventually
from tests.scenarios.stage import ended, innocent_faults

#: Of an attempt, from asking to killing, and what is granted on top of both.
TIMEOUT_S, GRACE_S, MARGIN_S = 0.5, 0.3, 1.0
LIMITS = ("--timeout", f"{TIMEOUT_S}s", "--term-grace", f"{GRACE_S}s")


def late_faults(stage, guilty, *, timeout_s=TIMEOUT_S, message=r"timeout after (500 ?ms|0\.5 ?s)\b") -> list[str]:
    """Return what is wrong with items that must have been ended by the timeout: state, outcome, text, time."""
    standing, tries, faults = stage.standing(), stage.tries(), []
    for key in guilty:
        (only,) = tries.get(key, [None])
        if only is None or standing[key][:2] != ("failed", 1) or only.outcome != "timed_out" or only.error_type != "ItemTimeoutError":
            faults.append(f"{key}: {standing.get(key)}, {only}")
        elif not re.match(message, only.message):
            faults.append(f"{key}: {only.message}")
        elif not timeout_s <= only.seconds <= timeout_s + GRACE_S + MARGIN_S:
            faults.append(f"{key}: took {only.seconds} s")
    return faults


def mixed(guilty, innocent) -> list[str]:
    """Return the guilty spread among the innocent."""
    each = max(1, len(innocent) // len(guilty))
    return [*(key for n, one in enumerate(guilty) for key in (*innocent[n * each : (n + 1) * each], one)), *innocent[len(guilty) * each :]]


@pytest.fixture
def innocent(scaled) -> list[str]:
    """Give the keys of the innocent items."""
    return [f"i{number:03}" for number in range(scaled(200))]


# -- functions ----------------------------------------------------------------------------------------------------------------

SYNC_JOBS = """
import re

SLEEP = ["sleep", "600"]


def in_a_c_call(): hashlib.pbkdf2_hmac("sha256", b"p", b"s", 10**9)
def in_a_regex(): re.match("(a+)+$", "a" * 64 + "b")
def holding_the_lock(): sum(range(10**13))


def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def blocking_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Event().wait()


def catching_all():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            continue


def with_child(**options):
    child = subprocess.Popen(SLEEP, **options)
    note("child", child.pid)
    child.wait()


DEEDS = {
    "sleeps": lambda: time.sleep(600),
    "in-a-c-call": in_a_c_call,
    "in-a-regex": in_a_regex,
    "holding-the-lock": holding_the_lock,
    "deaf": deaf,
    "blocking-signals": blocking_signals,
    "catching-all": catching_all,
    "with-child": with_child,
    "with-child-in-a-group": lambda: with_child(process_group=0),
    "with-child-in-a-session": lambda: with_child(start_new_session=True),
}


def work(item):
    deed = DEEDS.get(item)
    return deed() if deed else item
"""
SYNC_GUILTY = [
    "sleeps",
    "in-a-c-call",
    "in-a-regex",
    "holding-the-lock",
    "deaf",
    "blocking-signals",
    "catching-all",
    "with-child",
    "with-child-in-a-group",
    "with-child-in-a-session",
]


def test_functions_that_do_not_end_are_ended(stage, innocent):
    """Row 79: asleep, in one call into C, deaf to SIGTERM, blocking all signals, with children near and far: each is timed out in time, alone, and nothing is left."""
    stage.jobs(SYNC_JOBS)
    stage.items(mixed(SYNC_GUILTY, innocent))
    ended(stage.run("work", "-j", "5", *LIMITS), 1, within_s=60)
    stage.check_nobody_left()
    assert late_faults(stage, SYNC_GUILTY) == []
    assert innocent_faults(stage, innocent) == []
    assert {key for key in SYNC_GUILTY if "SIGKILL needed" in stage.tries()[key][0].message} == {"deaf"}
    assert len(stage.noted("child")) == 3
    # Sabotage: an innocent one was not timed out, and is found.
    assert late_faults(stage, innocent[:1])


def test_a_timed_out_item_is_tried_again(stage):
    """A timeout charges one attempt and no more: with tries left the item runs again, on another worker process."""
    stage.jobs("""
        def work(item):
            note("run", os.getpid())
            if len(pathlib.Path(NOTES).read_text().split()) < 4:
                time.sleep(600)
            return item
    """)
    stage.items(["one"])
    ended(stage.run("work", "-j", "1", *LIMITS, "--retries", "1", "--backoff", "0"), 0)
    assert stage.standing()["one"][:2] == ("succeeded", 2)
    assert [one.outcome for one in stage.tries()["one"]] == ["timed_out", "succeeded"]
    assert len(set(stage.noted("run"))) == 2


def test_a_share_of_the_median_counts_from_the_20th_success(stage):
    """``--timeout N%``: before 20 successes nothing is too long; from then on N percent of their median is."""
    stage.jobs("""
        def work(item):
            if item == "early":
                while not os.path.exists(NOTES) or pathlib.Path(NOTES).read_text().count("done") < 15:
                    time.sleep(0.01)
            elif item == "late":
                time.sleep(600)
            else:
                time.sleep(0.05)
                note("done", item)
            return item
    """)
    keys = [f"i{number}" for number in range(24)]
    stage.items(["early", *keys, "late"])
    ended(stage.run("work", "--timeout", "500%", "--term-grace", f"{GRACE_S}s"), 1)
    assert innocent_faults(stage, ["early", *keys]) == []
    tries = stage.tries()
    assert tries["early"][0].seconds > 0.5
    assert late_faults(stage, ["late"], timeout_s=0.25, message="timeout after ") == []


def test_the_deadline_of_an_item_counts_all_its_tries(stages, innocent):
    """``--item-deadline``: an item that fails again and again, and one that never returns, are ended that long after they began."""
    runs, words = stages("fails", "hangs"), ("--item-deadline", "1s", "--retries", "1000", "--backoff", "100ms", "--backoff-factor", "1")
    children = {}
    for guilty, stage in runs.items():
        stage.jobs("""
            def work(item):
                if item == "fails":
                    raise ValueError("again")
                if item == "hangs":
                    time.sleep(600)
                return item
        """)
        stage.items(mixed([guilty], innocent))
        children[guilty] = stage.run("work", *words, "--term-grace", f"{GRACE_S}s")
    for guilty, stage in runs.items():
        ended(children[guilty], 1)
        assert innocent_faults(stage, innocent) == []
        assert stage.states()[guilty] == "failed"
        tries = stage.tries()[guilty]
        assert 0.5 < tries[-1].ended_s - tries[0].started_s <= 1 + GRACE_S + MARGIN_S
    failures, (hung,) = runs["fails"].tries()["fails"], runs["hangs"].tries()["hangs"]
    assert len(failures) > 3
    assert "item deadline of 1s" in failures[-1].error
    assert hung.outcome == "timed_out"


def test_the_deadline_of_a_run_halts_it(stage):
    """``--deadline``: what runs then ends, nothing more is started, exit code 3 with the reason; the same command goes on."""
    stage.jobs("""
        def work(item):
            note("begin", item)
            if not os.path.exists("quick"):
                time.sleep(0.1)
            return item
    """)
    keys = [f"i{number}" for number in range(60)]
    stage.items(keys)
    said = ended(stage.run("work", "--deadline", "1s"), 3)
    row = stage.row()
    assert (row["state"], row["exit_code"]) == ("halted", 3)
    assert "deadline of 1s" in row["reason"]
    assert row["reason"] in said
    done = [key for key, state in stage.states().items() if state == "succeeded"]
    assert 0 < len(done) < 30
    assert sorted(done) == sorted(stage.noted("begin"))
    stage.check_nobody_left()
    (stage.folder / "quick").touch()
    ended(stage.run("work", "--deadline", "1m"), 0)
    assert innocent_faults(stage, keys) == []
    assert len(stage.noted("begin")) == len(keys)


def test_processor_time_is_limited(stage, innocent):
    """``--cpu-limit``: an item that computes for longer is timed out; several in the same worker that together compute for longer are not."""
    stage.jobs("""
        def compute(seconds):
            until = time.process_time() + seconds
            while time.process_time() < until:
                sum(range(1000))

        def work(item):
            if item == "burns":
                compute(600)
            elif item.startswith("busy"):
                compute(0.6)
            return item
    """)
    calm = ["busy0", "busy1", *innocent]
    stage.items([*calm[:6], "burns", *calm[6:]])
    ended(stage.run("work", "-j", "1", "--cpu-limit", "1s"), 1)
    assert innocent_faults(stage, calm) == []
    (burns,) = stage.tries()["burns"]
    assert (stage.states()["burns"], burns.outcome) == ("failed", "timed_out")
    assert re.match(r"cpu limit of 1 ?s\b", burns.message)
    # A part of a second less is a matter of how the kernel counts.
    assert burns.seconds > 0.9


def test_memory_of_children_counts(stage, innocent):
    """``--memory-limit``: a worker whose child takes too much is killed with it, as out of memory; further tries are those of deaths."""
    stage.jobs("""
        HOARD = "import signal; kept = bytearray(300 << 20); kept[::4096] = b'x' * len(kept[::4096]); signal.pause()"

        def work(item):
            if item == "hoards":
                subprocess.run([sys.executable, "-c", HOARD])
            return item
    """)
    stage.items(mixed(["hoards"], innocent))
    ended(stage.run("work", "--memory-limit", "200MiB", "--max-deaths", "2"), 1)
    stage.check_nobody_left()
    assert innocent_faults(stage, innocent) == []
    assert stage.standing()["hoards"][:2] == ("quarantined", 1)
    assert [one.outcome for one in stage.tries()["hoards"]] == ["crashed", "crashed"]
    assert all(re.search(r"out of memory \(\d+ MiB, limit 200 MiB\)", one.message) for one in stage.tries()["hoards"])


# -- commands -----------------------------------------------------------------------------------------------------------------

SCRIPT = r"""
case $1 in
    sleeps) exec sleep 600 ;;
    grandchild) sleep 600 & note child; wait ;;
    grandchild-in-a-session) setsid sleep 600 & note child; wait ;;
    deaf) trap '' TERM; while :; do sleep 600; done ;;
    deaf-grandchild) (trap '' TERM; exec sleep 600) & note child; wait ;;
    computes) while :; do :; done ;;
    *) echo "$1" ;;
esac
"""
COMMANDS = ["sleeps", "grandchild", "grandchild-in-a-session", "deaf", "deaf-grandchild", "computes"]


def test_commands_that_do_not_end_are_ended_with_their_children(stages, innocent):
    """Asleep, with grandchildren in the group, in a session of their own or deaf, or computing: each is timed out in time, alone, and nothing is left."""
    runs, children = stages("1", "3"), {}
    for concurrency, stage in runs.items():
        stage.script(SCRIPT)
        stage.items(mixed(COMMANDS, innocent))
        children[concurrency] = stage.exec("-j", "3", *LIMITS, "--concurrency", concurrency)
    for concurrency, stage in runs.items():
        ended(children[concurrency], 1, within_s=60)
        stage.check_nobody_left()
        assert late_faults(stage, COMMANDS) == []
        assert innocent_faults(stage, innocent) == []
        assert "SIGKILL needed" in stage.tries()["deaf"][0].message
        assert len(stage.noted("child")) == 3


def test_what_a_timed_out_command_started_is_gone_before_the_next_try(stage):
    """Also what left its group and session: found by the mark of the item, and ended while the run goes on."""
    stage.script("""
        if [ -f first ]; then
            grep -qs '^State:.[^Z]' "/proc/$(cat first)/status" && note alive || note gone
        else
            setsid sleep 600 &
            echo $! > first
            wait
        fi
    """)
    stage.items(["one"])
    ended(stage.exec("-j", "1", *LIMITS, "--retries", "1", "--backoff", "0"), 0)
    assert [one.outcome for one in stage.tries()["one"]] == ["timed_out", "succeeded"]
    assert stage.notes() == [["gone"]]


def test_a_command_that_ended_keeps_no_children(stage, innocent):
    """What a command leaves running in its group is ended with it, while its neighbours in the same worker go on."""
    gate = stage.gate()
    stage.script("""
        case $1 in
            leaves) sleep 600 & note left $! ;;
            waits) note waits; wait_at gate; echo "$1" ;;
            *) echo "$1" ;;
        esac
    """)
    stage.items(["waits", "leaves", *innocent])
    child = stage.exec("-j", "1", "--concurrency", "2")
    stage.wait_for("waits", 1)
    eventually(lambda: stage.states().get("leaves") == "succeeded", "the end of the command")
    eventually(lambda: not any("sleep 600" in line for line in stage.marked().values()), "the end of its child", within_s=2)
    gate.open()
    ended(child, 0)
    assert innocent_faults(stage, ["waits", "leaves", *innocent]) == []


# -- coroutines ---------------------------------------------------------------------------------------------------------------

ASYNC_JOBS = """
async def in_a_thread(item):
    await asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)


async def blocks(item): time.sleep(600)
async def blocks_in_c(item): hashlib.pbkdf2_hmac("sha256", b"p", b"s", 10**9)
async def sleeps(item): await asyncio.sleep(600)


DEEDS = {"sleeps": sleeps, "blocks": blocks, "blocks-in-c": blocks_in_c, "in-a-thread": in_a_thread}


async def work(item):
    if item in DEEDS:
        # Its mates are at work by now.
        await asyncio.sleep(0.1)
        await DEEDS[item](item)
    if item.startswith("mate"):
        note("mate", item)
        while not os.path.exists("open"):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    return item
"""


def test_coroutines_that_do_not_end_are_ended(stages, innocent):
    """One that awaits is cancelled at the timeout, and its worker lives; one that never gives the loop back is ended with its worker; nobody else is charged."""
    runs = stages("cancelled", "killed")
    guilty = {"cancelled": ["sleeps", "in-a-thread"], "killed": ["blocks-in-c"]}
    children = {}
    for name, stage in runs.items():
        stage.jobs(ASYNC_JOBS + "\n\nnote('process', os.getpid())\n")
        stage.items(mixed(guilty[name], innocent))
        children[name] = stage.run("work", "-j", "1", "--concurrency", "5", *LIMITS)
    for name, stage in runs.items():
        ended(children[name], 1)
        stage.check_nobody_left()
        assert late_faults(stage, guilty[name]) == []
        assert innocent_faults(stage, innocent, tries=1 if name == "cancelled" else None) == []
    # The coordinator imports the handler, too, and one worker did all of it.
    assert len(runs["cancelled"].noted("process")) == 2
    assert {one.outcome for key in innocent for one in runs["killed"].tries()[key]} <= {"succeeded", "interrupted"}


#: One holds its place on the loop until it is time for the mate, whose own time then ends later than that of the guilty one and of its worker.
MATES = """
async def guilty():
    pathlib.Path("begun").touch()
    while BLOCKS:
        await asyncio.sleep(0.01)
        if os.path.exists("mate"):
            time.sleep(600)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue


async def work(item):
    if item == "guilty":
        await guilty()
    elif item == "stopgap":
        while not os.path.exists("begun"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.9)
    elif not os.path.exists("mate"):
        pathlib.Path("mate").touch()
        await asyncio.sleep(600)
    return item
"""


def test_the_mates_of_a_coroutine_that_does_not_let_go_are_not_charged(stages):
    """It swallows the cancellation, or blocks the loop: a mate that still has time when their worker is killed is interrupted, run again, and charged once."""
    runs, children = stages("swallows", "blocks"), {}
    for name, stage in runs.items():
        stage.jobs(f"BLOCKS = {name == 'blocks'}\n{MATES}")
        stage.items(["guilty", "stopgap", "mate"])
        children[name] = stage.run("work", "-j", "1", "--concurrency", "2", "--timeout", "1s", "--term-grace", "100ms")
    for name, stage in runs.items():
        ended(children[name], 1)
        stage.check_nobody_left()
        assert late_faults(stage, ["guilty"], timeout_s=1.0, message=r"timeout after 1 ?s\b") == []
        assert innocent_faults(stage, ["stopgap", "mate"], tries=None) == []
        assert [one.outcome for one in stage.tries()["mate"]] == ["interrupted", "succeeded"]


def test_mates_that_a_blocked_loop_made_late_are_not_charged(stage):
    """One blocks the loop: its mates, which began before it and cannot go on, are late through no fault of their own."""
    stage.jobs(ASYNC_JOBS)
    mates = [f"mate{number}" for number in range(4)]
    stage.items([*mates, "blocks"])
    child = stage.run("work", "-j", "1", "--concurrency", "5", *LIMITS)
    eventually(lambda: "blocks" in stage.tries(), "the end of the guilty one")
    (stage.folder / "open").touch()
    ended(child, 1)
    assert late_faults(stage, ["blocks"]) == []
    assert innocent_faults(stage, mates, tries=None) == []
