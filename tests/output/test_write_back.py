from __future__ import annotations

import re
import shutil
import subprocess
import zipfile

import pytest

import durabatch
from durabatch import errors
from durabatch.api import Ledger
from durabatch.output.workbook_parts import lost_parts

openpyxl = pytest.importorskip("openpyxl")

#: What the handler returns, by the name in the row; the others fail.
FINDINGS = {
    "alpha": "clean",
    "beta": 3,
    "gamma": {"cve": ["X-1"]},
    "delta": "=1+1",
    "eps": "a\x01b_x0041_",
    "eta": 2**60,
    "theta": True,
    "iota": None,
}


def check(item):
    """Return what was found."""
    return FINDINGS[item["name"]]


def make_workbook(path):
    """Write a workbook with two sheets, formats and formulas; the header stands in the third row, and there is an empty row below it."""
    from openpyxl.styles import Alignment, Font, PatternFill

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Packages"
    for column, heading in enumerate(("name", "size", "sum"), 2):
        cell = sheet.cell(3, column, heading)
        cell.font, cell.fill = Font(bold=True, color="FF0000"), PatternFill("solid", fgColor="DDDDDD")
    for row, name in enumerate([*FINDINGS, "broken"], 5):
        sheet.cell(row, 2, name)
        sheet.cell(row, 3, row * 1.5).number_format = "0.00"
        sheet.cell(row, 4, f"=C{row}*2")
    sheet.column_dimensions["B"].width = 33
    sheet.freeze_panes = "A4"
    sheet.merge_cells("G5:H6")
    sheet["G5"].alignment = Alignment(wrap_text=True)
    book.create_sheet("Notes")["A1"] = "keep me"
    book.save(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in a directory with a workbook."""
    monkeypatch.chdir(tmp_path)
    make_workbook(tmp_path / "w.xlsx")
    return tmp_path


@pytest.fixture
def run(here):
    """Give a run over the workbook: eight rows succeeded, one failed."""
    ledger = Ledger("l.db")
    assert ledger.run(check, durabatch.xlsx("w.xlsx", key="name"), name="scan", workers=0).exit_code == 1
    return ledger["scan"]


def column_of(path, letter, sheet="Packages"):
    """Return the values of the rows of items."""
    return [openpyxl.load_workbook(path)[sheet][f"{letter}{row}"].value for row in range(5, 14)]


def looks(path):
    """Return all that is to stay as it was: values and formats of every old cell, sheets, widths, panes, merged cells."""
    book = openpyxl.load_workbook(path)
    cells = {
        (sheet.title, cell.coordinate): (cell.value, cell.number_format, cell.font.b, cell.fill.fgColor.rgb, cell.alignment.wrap_text)
        for sheet in book
        for row in sheet.iter_rows(max_col=4)
        for cell in row
    }
    sheet = book["Packages"]
    return cells, book.sheetnames, sheet.column_dimensions["B"].width, sheet.freeze_panes, str(sheet.merged_cells)


def test_results_come_into_the_rows_of_their_items(run, here):
    """A new column behind the last one holds each value beside its item, formulas being made harmless; all else stays, a copy of the workbook, too."""
    before, looked = (here / "w.xlsx").read_bytes(), looks(here / "w.xlsx")
    done = run.write_back("w.xlsx", "finding")
    assert (done.count, done.sheet, done.lost, done.backup.read_bytes()) == (8, "Packages", (), before)
    assert re.fullmatch(r"w\.\d{8}-\d{6}\.bak\.xlsx", done.backup.name)
    assert column_of(here / "w.xlsx", "E") == [
        "clean", 3, '{"cve":["X-1"]}', "'=1+1", "a_x0001_b_x005F_x0041_", "1152921504606846976", True, None, None
    ]  # fmt: skip
    assert looks(here / "w.xlsx") == looked
    heading = openpyxl.load_workbook(here / "w.xlsx")["Packages"]["E3"]
    assert (heading.value, heading.font.b, heading.fill.fgColor.rgb) == ("finding", True, "00DDDDDD")


def test_a_workbook_that_we_have_changed_counts_as_unchanged(run, here):
    """The run goes on as before, and results that come later go into the same column; the backups of both times stay."""
    run.write_back("w.xlsx", "finding")
    assert run.ledger.run(check, durabatch.xlsx("w.xlsx", key="name"), name="scan", workers=0).executed == 0
    run.retry(handler=lambda item: f"mended {item['name']}", workers=0)
    assert run.write_back("w.xlsx", "finding").count == 9
    assert column_of(here / "w.xlsx", "E")[-1] == "mended broken"
    assert len(list(here.glob("w.*.bak.xlsx"))) == 2
    assert run.ledger.verify() == []


def test_a_column_of_the_workbook_is_filled(run, here):
    """A heading that is there is used, wherever it stands; items without a result leave what was in their cells."""
    run.write_back("w.xlsx", "size")
    assert column_of(here / "w.xlsx", "C")[:2] == ["clean", 3]
    assert column_of(here / "w.xlsx", "C")[-1] == 19.5


def touched(path):
    book = openpyxl.load_workbook(path)
    book["Packages"]["C5"] = 77
    book.save(path)


def with_part(*names):
    def add(path):
        with zipfile.ZipFile(path, "a") as archive:
            for name in names:
                archive.writestr(name, b"<x/>")

    return add


def with_lock(name):
    return lambda path: path.with_name(name).touch()


@pytest.mark.parametrize(
    ("spoil", "sentence", "lost"),
    [
        (with_lock("~$w.xlsx"), r"w.xlsx is open in another program \(~\$w.xlsx is there\)", ()),
        (with_lock(".~lock.w.xlsx#"), r"w.xlsx is open in another program \(.~lock.w.xlsx# is there\)", ()),
        (touched, "w.xlsx has changed since run scan read it", ()),
    ],
)
def test_a_workbook_that_is_open_or_changed_is_left_alone_without_force(run, here, spoil, sentence, lost):
    """One line says what is wrong and what there is to choose; nothing is written. With force it is done."""
    spoil(here / "w.xlsx")
    before = {path.name: path.read_bytes() for path in here.glob("*w.*")}
    with pytest.raises(errors.UsageError, match=f"{sentence}.*--force"):
        run.write_back("w.xlsx", "finding")
    assert {path.name: path.read_bytes() for path in here.glob("*w.*")} == before
    assert (run.write_back("w.xlsx", "finding", force=True).count, column_of(here / "w.xlsx", "E")[0]) == (8, "clean")


def test_what_would_be_lost_is_named(here):
    """Each kind of part that the library does not keep has the refusal name it, once; force goes on and says what is gone."""
    with_part("xl/charts/chart1.xml", "xl/charts/style1.xml", "xl/media/image1.png", "xl/vbaProject.bin", "xl/odd.bin")(here / "w.xlsx")
    ledger = Ledger("l.db")
    ledger.run(check, durabatch.xlsx("w.xlsx", key="name"), name="scan", workers=0)
    with pytest.raises(errors.UsageError, match=r"w.xlsx has what would be lost: charts, images, macros, xl/odd.bin.*--force"):
        ledger["scan"].write_back("w.xlsx", "finding")
    done = ledger["scan"].write_back("w.xlsx", "finding", force=True)
    assert done.lost == ("charts", "images", "macros", "xl/odd.bin")
    assert lost_parts(here / "w.xlsx") == []


def test_parts_are_known_in_real_workbooks(here):
    """Charts, comments, tables and validations by the library, and extensions of a sheet wherever in it they stand: what is kept is not called lost."""
    from openpyxl.chart import BarChart, Reference
    from openpyxl.comments import Comment
    from openpyxl.worksheet.table import Table

    book = openpyxl.load_workbook("w.xlsx")
    sheet = book["Packages"]
    sheet["B5"].comment = Comment("look", "me")
    sheet.add_table(Table(displayName="T", ref="B3:D13"))
    book.save("kept.xlsx")
    assert lost_parts(here / "kept.xlsx") == []
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=3, min_row=5, max_row=9))
    sheet.add_chart(chart, "K1")
    book.save("chart.xlsx")
    assert set(lost_parts(here / "chart.xlsx")) == {"charts", "drawings"}
    filling = b"<c/>" * (1 << 18)
    for mark, kind in ((b"x14:conditionalFormattings", "conditional formats of Excel 2010"), (b"x14ac:odd", "extensions of a sheet")):
        with zipfile.ZipFile("ext.xlsx", "w") as archive:
            archive.writestr("xl/worksheets/sheet1.xml", b"<s>" + filling + b"<extLst><ext><" + mark + b"/></ext></extLst></s>")
        assert lost_parts(here / "ext.xlsx") == [kind]


def test_other_files_and_runs_are_refused(run, here):
    """A file that the run did not read, one that is no workbook, a missing one, and a run whose rows are no items."""
    shutil.copy("w.xlsx", "copy.xlsx")
    (here / "w.csv").write_text("name\nalpha\n")
    for name, sentence in (
        ("copy.xlsx", "has not read copy.xlsx row by row; its input was w.xlsx"),
        ("w.csv", "is no .xlsx file"),
        ("no.xlsx", "no file no.xlsx"),
    ):
        with pytest.raises(errors.UsageError, match=sentence):
            run.write_back(name, "finding", force=True)
    run.ledger.run(lambda item: 1, durabatch.csv("w.csv", key="name"), name="other", workers=0)
    with pytest.raises(errors.UsageError, match=r"its input was w.csv"):
        run.ledger["other"].write_back("w.xlsx", "finding")


def test_a_value_that_no_cell_holds_stops_it(run, here):
    """The item is named, and nothing is written: neither the workbook nor a backup; so it is with a cell that is a part of a merged one."""
    before = sorted(here.iterdir())
    with pytest.raises(errors.UsageError, match=r"cell H5 of w.xlsx is a part of a merged cell"):
        merged_heading(here)
        run.write_back("w.xlsx", "late", force=True)
    run.retry(handler=lambda item: "x" * 40_000, workers=0)
    with pytest.raises(errors.OutputError, match="the result of item 'broken' has 40,000 characters, a cell holds 32,767"):
        run.write_back("w.xlsx", "finding", force=True)
    assert sorted(here.iterdir()) == before


def merged_heading(here):
    """Put a heading over the merged cells."""
    book = openpyxl.load_workbook("w.xlsx")
    book["Packages"]["H3"] = "late"
    book.save("w.xlsx")


def test_a_failure_in_writing_leaves_the_workbook(run, here, monkeypatch):
    """Whether saving fails or somebody else saves meanwhile: the workbook is what it was, or what they made of it, and nothing half is left."""
    before = (here / "w.xlsx").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("openpyxl.workbook.workbook.Workbook.save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.write_back("w.xlsx", "finding")
    assert (here / "w.xlsx").read_bytes() == before
    with monkeypatch.context() as patch:
        save = openpyxl.workbook.workbook.Workbook.save

        def saved_by_two(book, part):
            touched(here / "w.xlsx") if "part" in str(part) else None
            save(book, part)

        patch.setattr(
            "openpyxl.workbook.workbook.Workbook.save",
            lambda book, part: saved_by_two(book, part) if ".part" in str(part) else save(book, part),
        )
        with pytest.raises(errors.UsageError, match="was changed meanwhile"):
            run.write_back("w.xlsx", "finding")
    assert column_of(here / "w.xlsx", "C")[0] == 77
    assert list(here.glob(".*.part")) == []


def test_libreoffice_wrote_it_and_reads_it(here, long, not_run):
    """A workbook that LibreOffice saved loses nothing, and LibreOffice finds the results in what is written back."""
    office = shutil.which("soffice")
    if office is None or not long:
        not_run("there is no LibreOffice" if office is None else "LibreOffice takes seconds to start: --long")
    convert = [office, f"-env:UserInstallation=file://{here}/profile", "--headless", "--convert-to"]
    subprocess.run([*convert, "xlsx:Calc MS Excel 2007 XML", "--outdir", "saved", "w.xlsx"], check=True, capture_output=True, timeout=120)
    shutil.copy("saved/w.xlsx", "w.xlsx")
    ledger = Ledger("l.db")
    ledger.run(check, durabatch.xlsx("w.xlsx", key="name"), name="scan", workers=0)
    assert ledger["scan"].write_back("w.xlsx", "finding").count == 8
    subprocess.run([*convert, "csv", "--outdir", "read", "w.xlsx"], check=True, capture_output=True, timeout=120)
    text = (here / "read" / "w.csv").read_text()
    assert ("alpha,7.5,15,clean" in text, "delta,12,24,'=1+1" in text) == (True, True)
