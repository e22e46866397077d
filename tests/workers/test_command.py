"""Commands as handlers: what they are given, what is kept of what they say, how their end is judged."""

from __future__ import annotations

import json
import signal

import pytest

from durabatch import process
from durabatch.errors import HandlerImportError
from durabatch.workers.allowance import Allowance
from durabatch.workers.capture import MAX_CAPTURE_BYTES, TAIL_BYTES, Capture
from durabatch.workers.command import load
from durabatch.workers.protocol import Failure, Interrupt


def value(worker, payload='"x"'):
    found = worker.only(payload)
    assert isinstance(found, str), found
    return json.loads(found)


def failure(worker, payload='"x"'):
    found = worker.only(payload)
    assert isinstance(found, Failure), found
    assert found.error_type == "CommandError"
    assert found.traceback == ""
    return found


def test_the_value_is_what_the_command_printed(command):
    """Exit code and both streams are the value, as text."""
    worker = command("sh", "-c", 'echo "out $0"; echo err >&2', "{}")
    assert value(worker, '"é"') == {"exit_code": 0, "stdout": "out é\n", "stderr": "err\n"}


@pytest.mark.parametrize(
    ("template", "payload", "printed"),
    [
        ("{}", '"plain"', "plain"),
        ("{}", '{"a":[1,2]}', '{"a":[1,2]}'),
        ("{}", '{"path":"a b.py","bytes":3,"mtime":4}', "a b.py"),
        ("{}", '{"path":"-rf","bytes":3,"mtime":4}', "./-rf"),
        ("<{host}>", '{"host":"h1"}', "<h1>"),
        ("{a.b}/{#}/{key}", '{"a":{"b":5}}', "5/1/k1"),
        ("{a.b}", '{"a.b":"flat"}', "flat"),
        ("{{{}}}", "7", "{7}"),
        ("{{print $1}}", "7", "{print $1}"),
        ("{Server Name}", '{"Server Name":"s"}', "s"),
        ("{}", '"$(touch pwned) `touch pwned`; touch pwned"', "$(touch pwned) `touch pwned`; touch pwned"),
        ("--name={}", '"-x"', "--name=-x"),
    ],
)
def test_placeholders_become_one_argument(command, folder, template, payload, printed):
    """Whatever a value holds, it becomes (part of) one argument."""
    worker = command("sh", "-c", 'printf "%s|" "$@"', "sh", "first", template, parse="lines")
    assert value(worker, payload) == [f"first|{printed}|"]
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("argv", "payload", "words"),
    [
        (("echo", "{}"), '"-n"', "would be read as an option"),
        (("echo", "{}"), '"a\\u0000b"', "NUL"),
        (("echo", "{nam}"), '{"name":1}', "no field 'nam'"),
        (("echo", "{a.b.c}"), '{"a":{"b":1}}', "no field 'a.b.c'"),
        (("echo", "{name}"), '"text"', "no field 'name'"),
    ],
)
def test_a_value_that_cannot_be_passed_fails_its_item(command, argv, payload, words):
    """An option in disguise, a NUL and a missing field are errors of the item; nothing is run and the next item is."""
    worker = command(*argv)
    found = failure(worker, payload)
    assert words in found.message
    assert found.exit_code is None
    assert value(worker, '{"name":"fine","a":{"b":{"c":"fine"},"nam":1},"nam":"fine"}')["exit_code"] == 0


def test_a_double_dash_lets_options_pass(command):
    """After -- a value may begin with a dash: no option can stand there."""
    worker = command("printf", "--", "%s", "{}", parse="lines")
    assert value(worker, '"-n"') == ["-n"]


@pytest.mark.parametrize(
    ("script", "payload", "printed"),
    [
        ("printf %s {} | tr a-z A-Z", '"a  b"', "A  B"),
        ('printf %s "<{}>"', '"a  $(touch pwned) `touch pwned` \\" b"', '<a  $(touch pwned) `touch pwned` " b>'),
        ("printf %s {}", "\"'; touch pwned; '\"", "'; touch pwned; '"),
        ("printf %s \"$(printf '%s|' {} '\"')\"", '"$(touch pwned)"', '$(touch pwned)|"|'),
        ('printf %s "`printf %s {}`"', '"`touch-pwned`"', "`touch-pwned`"),
        ("case x in x) printf %s {};; esac", '"a b"', "a b"),
        ("f() {{ printf %s {}; }}; f other", '"mine"', "mine"),
        ("# it's {}\nprintf %s x", '"a\\ntouch pwned"', "x"),
        ("cat <<END\n{}\nEND", '"$(touch pwned)"', '"$(touch pwned)"'),
        ("printf %s -- {}", '"-n"', "---n"),
        ("printf '%s' {a}{b}", '{"a":"1","b":"2"}', "12"),
    ],
)
def test_a_shell_never_reads_a_value_as_code(command, folder, script, payload, printed):
    """In a script a value stays one word, quoted or not, also in substitutions, functions, comments and here-documents."""
    worker = command(script, shell=True, parse="lines")
    assert "\n".join(value(worker, payload)) == printed
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo '{}'", "inside single quotes"), ("echo \\{}", "after a backslash"), ('echo "\\{}"', "after a backslash"), ("  ", "no command")],
)
def test_a_script_that_hides_a_placeholder_is_refused(script, words):
    """Where the shell would not put the value in, or would take it apart, the template is refused before any item."""
    with pytest.raises(HandlerImportError, match=words):
        load({"kind": "command", "argv": [script], "shell": True, "parse": "none"}, Allowance(), max_output_bytes=100)


def test_a_shell_guards_the_places_where_options_stand(command):
    """At the beginning of a word a value with a dash is refused; a path gets ./ there."""
    worker = command("printf %s {}", shell=True, parse="lines")
    assert "would be read as an option" in failure(worker, '"-v"').message
    assert value(worker, '{"path":"-v","bytes":1,"mtime":1}') == ["./-v"]


@pytest.mark.parametrize(
    ("argv", "words"), [([], "no command"), (["{}"], "would come from the item"), (["echo", "{"], "lone '{'"), (["a", "}"], "lone '}'")]
)
def test_a_wrong_template_is_refused(argv, words):
    """Templates are checked before any item."""
    with pytest.raises(HandlerImportError, match=words):
        load({"kind": "command", "argv": argv, "shell": False, "parse": "none"}, Allowance(), max_output_bytes=100)


def test_an_unknown_parse_is_refused():
    """The error names what there is."""
    with pytest.raises(HandlerImportError, match="not one of none, json, lines"):
        load({"kind": "command", "argv": ["echo"], "shell": False, "parse": "xml"}, Allowance(), max_output_bytes=100)


def test_the_item_stands_in_the_environment(command):
    """Commands know key, attempt and idempotency key by their environment."""
    worker = command("sh", "-c", "echo $DURABATCH_KEY $DURABATCH_ATTEMPT $DURABATCH_IDEMPOTENCY_KEY", parse="lines")
    assert value(worker) == ["k1 1 nightly/k1"]


def test_an_exit_status_is_a_failure_with_the_last_line(command):
    """The message has status and last line of stderr, the ends of both streams are kept."""
    found = failure(command("sh", "-c", "echo out; echo first >&2; echo 'no such host' >&2; echo >&2; exit 3"))
    assert found.message == "exit code 3: no such host"
    assert (found.exit_code, found.stdout_tail, found.stderr_tail) == (3, "out\n", "first\nno such host\n\n")


def test_a_signal_is_a_failure_with_its_name(command):
    """A command that was killed is told apart from one that exited."""
    found = failure(command("sh", "-c", "kill -TERM $$"))
    assert (found.message, found.exit_code) == ("killed by signal 15 (SIGTERM)", -signal.SIGTERM)


def test_a_command_that_cannot_be_started_fails_its_item(command):
    """Not found, not executable and too long arguments say so."""
    assert failure(command("no-such-program-anywhere")).message == "cannot start no-such-program-anywhere: No such file or directory"
    assert "cannot start" in failure(command("/etc/passwd")).message
    assert "Argument list too long" in failure(command("echo", "{}"), json.dumps("x" * 200_000)).message


def test_output_is_capped_and_read_to_its_end(command):
    """A command that prints without end is not blocked and not kept whole; the cut is noted."""
    worker = command("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/zero | tr '\\0' y >&2", inline_bytes=1 << 20)
    found = value(worker)
    assert found["stdout"] == "x" * MAX_CAPTURE_BYTES + "\n[cut, 3,000,000 bytes in all]"
    assert found["stderr"] == "y" * MAX_CAPTURE_BYTES + "\n[cut, 100,000 bytes in all]"


def test_the_end_of_a_long_output_is_kept_for_failures(command):
    """What a failed command said last is what is recorded."""
    found = failure(command("sh", "-c", "seq 100000 >&2; echo last >&2; exit 1"))
    assert found.message == "exit code 1: last"
    assert found.stderr_tail.endswith("100000\nlast\n")
    assert len(found.stderr_tail) <= TAIL_BYTES


def test_bytes_that_are_no_text_are_replaced(command):
    """Binary output becomes text with U+FFFD, which any JSON can hold."""
    assert value(command("printf", r"a\377b"))["stdout"] == "a�b"


def test_json_is_the_value(command):
    """With --parse json the printed value is the result, whatever its size up to the limit of results."""
    assert value(command("printf", "%s", ' {{"a": [1, 2]}}\n', parse="json")) == {"a": [1, 2]}
    worker = command("sh", "-c", "printf '['; seq -s, 30000; printf ']'", parse="json", inline_bytes=1 << 20)
    assert value(worker) == list(range(1, 30001))


@pytest.mark.parametrize(("printed", "words"), [("", "stdout is empty"), ("nope", "stdout is no JSON"), ("NaN", "stdout is no JSON")])
def test_what_is_no_json_is_a_failure(command, printed, words):
    """Output that cannot be parsed is an error of the item with the output in it."""
    found = failure(command("printf", "%s", printed, parse="json"))
    assert words in found.message
    assert (found.exit_code, found.stdout_tail) == (0, printed)


def test_output_beyond_the_limit_of_results_is_too_large(command):
    """A value that is parsed is never cut."""
    worker = command("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' 1", parse="json", max_result_bytes=100_000)
    found = worker.only()
    assert found.error_type == "ResultTooLarge"


def test_lines_are_a_list(command):
    """With --parse lines the value is the list of lines, without line ends; no output is no line."""
    assert value(command("printf", r"a\r\n\nb", parse="lines")) == ["a", "", "b"]
    assert value(command("true", parse="lines")) == []


def test_a_command_has_no_standard_input(command):
    """A command that reads gets the end of its input at once."""
    assert value(command("cat"))["stdout"] == ""


def test_an_item_ends_with_its_command(command, folder, eventually):
    """A process left in the background that holds the output is killed, and the item does not wait for it."""
    worker = command("sh", "-c", "sleep 600 & echo $! > pid; echo done")
    assert value(worker)["stdout"] == "done\n"
    pid = int((folder / "pid").read_text())
    eventually(lambda: process.start_ticks(pid) is None)


def test_an_interruption_ends_the_command(command, folder, eventually):
    """The command that runs is killed with the worker and its item is not recorded as failed."""
    worker = command("sh", "-c", "echo $$ > pid.new; mv pid.new pid; sleep 600")
    worker.dispatch(1, '"x"')
    eventually((folder / "pid").exists)
    pid = int((folder / "pid").read_text())
    worker.send(Interrupt())
    assert worker.is_gone()
    assert worker.wait() == 0
    assert worker.at().item_id == 1
    eventually(lambda: process.start_ticks(pid) is None)


def test_a_capture_keeps_both_ends():
    """Beginning and end of a stream are kept whatever the sizes of its pieces."""
    capture = Capture(10)
    for piece in (b"0123", b"456789abc", b"x" * 20_000, b"end"):
        capture.add(piece)
    assert (bytes(capture.head), capture.total_bytes) == (b"0123456789", 20_016)
    assert capture.tail() == "x" * (TAIL_BYTES - 3) + "end"
