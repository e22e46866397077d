from __future__ import annotations

import pytest

from durabatch.errors import InputError, OutputError
from durabatch.intake.plan_file import PlanRow, PlanWriter, read_plan

D1, D2 = b"\x01" * 16, b"\x02" * 16
ROWS = [
    ("redo", "r10", "changed", 10, D1),
    ("add", 'a "key",\nof two lines', "new", 11, D2),
    ("add", "", "new", 12, D1),
    ("add", "", "new", 13, D1),
    ("keep", "=1+1", "gone", 0, b""),
]


def written(path, rows=ROWS):
    """Write a plan and return its path."""
    with PlanWriter(path) as writer:
        for row in rows:
            writer.write(*row)
    return str(path)


def edited(path, text):
    """Write a plan by hand and return its path."""
    path.write_text(text, newline="")
    return str(path)


def test_what_is_written_is_read(tmp_path):
    """Keys with anything in them, rows with and without keys, as they are."""
    plan = read_plan(written(tmp_path / "plan.csv"))
    found = [plan.find(key, position, digest) for _, key, _, position, digest in ROWS]
    assert [(one.action, one.key, one.status, one.position, one.digest) for one in found] == ROWS
    assert plan.find("r11", 11, D1) is None
    assert plan.find("", 12, D2) is None
    assert [one.line for one in plan.unused()] == [2, 4, 5, 6, 7]


@pytest.mark.parametrize("change", ["\ufeff{}", "{}\r\n\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_a_spreadsheet_makes_of_it_is_read(tmp_path, change, separator):
    """A byte order mark, other separators, other line ends, columns in another order, capitals and blanks around words."""
    text = separator.join(["key", "Action ", "digest", "position", "status"]) + "\r\n" + separator.join(["r1", " Redo", D1.hex().upper(), "5", "changed"])
    path = edited(tmp_path / "plan.csv", change.format(text))
    assert read_plan(path).find("r1", 5, D1) == PlanRow(2, "redo", "r1", "changed", 5, D1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("action,key,status,position,digest\nkeep,a,same,1,\ndelete,b,same,2,\n", "plan.csv:3: action 'delete' is not one of add, redo, keep, cancel"),
        ("action,key,status,position,digest\nredoo,b,same,2,\n", "Did you mean 'redo'?"),
        ("action,key,status,position\n", "plan.csv:1: there is no column 'digest'"),
        ("action,key,status,position,digest,why\n", "plan.csv:1: 'why' is no column of a plan"),
        ("action,key,key,status,position,digest\n", "plan.csv:1: 'key' is no column of a plan, or stands twice"),
        ("", "plan.csv:1: there is no column 'action'"),
        ("action,key,status,position,digest\nkeep,a,same\n", "plan.csv:2: 3 fields, the head has 5"),
        ("action,key,status,position,digest\nkeep,a,same,first,\n", "plan.csv:2: position 'first' is no number"),
        ("action,key,status,position,digest\nkeep,a,same,1,xyz\n", "plan.csv:2: digest 'xyz' is none"),
        ("action,key,status,position,digest\nkeep,a,same,1,ff\n", "plan.csv:2: digest 'ff' is none"),
        ("action,key,status,position,digest\nadd,,new,1,\n", "plan.csv:2: neither a key nor a digest"),
        ("action,key,status,position,digest\nkeep,a,same,1,\n\nredo,a,same,1,\n", "plan.csv:4: there is a row for 'a' on line 2 already"),
        ('action,key,status,position,digest\nkeep,"a,same,1,\n', "is no CSV"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, monkeypatch, text, message):
    """What is wrong in it, by its number."""
    monkeypatch.chdir(tmp_path)
    edited(tmp_path / "plan.csv", text)
    with pytest.raises(InputError) as caught:
        read_plan("plan.csv")
    assert message in f"{caught.value.what} {caught.value.hint}"


def test_files_that_are_none_are_errors(tmp_path):
    """A missing one, a directory, one that is not UTF-8."""
    (tmp_path / "latin.csv").write_bytes(b"action,key,status,position,digest\nkeep,\xff,same,1,\n")
    for name in ("missing.csv", ".", "latin.csv"):
        with pytest.raises(InputError, match=r"cannot read|is not UTF-8"):
            read_plan(str(tmp_path / name))


@pytest.mark.parametrize(
    ("action", "fits"),
    [("add", {"new", "back"}), ("redo", {"changed", "same"}), ("keep", {"new", "back", "changed", "same", "gone"}), ("cancel", {"changed", "same", "gone"})],
)
def test_an_action_fits_what_makes_sense(tmp_path, action, fits):
    """Everything else is told with its line, and why."""
    plan = read_plan(written(tmp_path / "plan.csv", [(action, "k", "changed", 3, D1)]))
    for status in ("new", "back", "changed", "same", "gone"):
        misfits: list[str] = []
        plan.check("k", status, 3, D1, misfits)
        assert bool(misfits) == (status not in fits)
        assert all(one.startswith(f"line 2: {action} k: ") for one in misfits)
    assert list(plan.unused()) == []


def test_a_payload_that_changed_again_does_not_fit(tmp_path):
    """What was decided about one payload says nothing about another one, unless nothing of it is taken."""
    plan = read_plan(written(tmp_path / "plan.csv", [("redo", "a", "changed", 3, D1), ("keep", "b", "changed", 4, D1)]))
    misfits: list[str] = []
    plan.check("a", "changed", 3, D2, misfits)
    plan.check("b", "changed", 4, D2, misfits)
    plan.check("a", "repeated", 9, D2, misfits)
    assert misfits == ["line 2: redo a: the input has another payload for it than when the plan was made"]


def test_a_gone_item_may_be_redone_if_the_plan_knew_that_it_was_gone(tmp_path):
    """With what the ledger has of it; not when the row was there when the plan was made."""
    plan = read_plan(written(tmp_path / "plan.csv", [("redo", "a", "gone", 0, b""), ("redo", "b", "changed", 4, D1)]))
    misfits: list[str] = []
    plan.check("a", "gone", 0, b"", misfits)
    plan.check("b", "gone", 0, b"", misfits)
    assert misfits == ["line 3: redo b: the input no longer has it"]


def test_a_plan_appears_whole_or_not_at_all(tmp_path):
    """What was there stays when writing fails, and nothing is left beside it."""
    path = tmp_path / "plan.csv"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), PlanWriter(path) as writer:
        writer.write(*ROWS[0])
        raise ZeroDivisionError
    assert [one.name for one in tmp_path.iterdir()] == ["plan.csv"]
    assert path.read_text() == "before"
    with pytest.raises(OutputError, match="cannot be written"), PlanWriter(tmp_path / "no" / "plan.csv"):
        pass
