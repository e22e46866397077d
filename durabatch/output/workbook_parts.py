"""
What stands in a workbook that would not survive being read and written again by the library, by the names that people know.

A workbook is a zip of parts. Some the library writes anew, all others are lost: better to say so than to save half a workbook. Its macros
are kept when the file is one that may have them.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from durabatch.errors import UsageError

__all__ = ["lost_parts"]

#: Parts that are written again, or that nobody misses (settings of printers, the order of calculation, a preview).
KEPT = re.compile(
    r"\[Content_Types\]\.xml|_rels/\.rels|docProps/(core|app|custom)\.xml|docProps/thumbnail\.\w+"
    r"|xl/(_rels/)?workbook\.xml(\.rels)?|xl/(styles|sharedStrings|calcChain)\.xml|xl/theme/.*"
    r"|xl/worksheets/(_rels/)?sheet\w*\.xml(\.rels)?|xl/tables/(_rels/)?table\w*\.xml(\.rels)?"
    r"|xl/comments\w*\.xml|xl/comments/comment\w*\.xml|xl/drawings/(commentsDrawing|vmlDrawing)\w*\.(xml|vml)"
    r"|xl/externalLinks/.*|xl/printerSettings/.*|.*/",
    re.IGNORECASE,
)
#: Beginnings of the names of other parts, and what they are.
KINDS = {
    "xl/vbaProject": "macros", "xl/charts/": "charts", "xl/chartsheets/": "chart sheets", "xl/media/": "images", "xl/drawings/": "drawings",
    "xl/pivotTables/": "pivot tables", "xl/pivotCache/": "pivot tables", "xl/slicer": "slicers", "xl/timeline": "timelines",
    "xl/ctrlProps/": "form controls", "xl/activeX/": "form controls", "xl/embeddings/": "embedded objects",
    "xl/threadedComments/": "threaded comments", "xl/persons/": "threaded comments", "xl/queryTables/": "data connections",
    "xl/connections": "data connections", "xl/model/": "the data model", "xl/metadata": "cell metadata", "xl/richData/": "cell metadata",
    "customXml/": "custom XML", "xl/macrosheets/": "macro sheets", "xl/dialogsheets/": "dialog sheets",
}  # fmt: skip
#: What the extensions of a sheet are.
EXTENSIONS = {
    b"conditionalFormatting": "conditional formats of Excel 2010",
    b"dataValidation": "validations of Excel 2010",
    b"sparkline": "sparklines",
}
EXTENSION = re.compile(rb"<(?:\w+:)?extLst[\s>]")
CHUNK_BYTES = 1 << 20


def lost_parts(path: Path) -> list[str]:
    """
    Return what the library would not keep of the workbook at *path*, each kind once.

    Raises:
        UsageError: It is no workbook.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = [kind_of(name) for name in names if not is_kept(name, path)]
            for name in names:
                if name.startswith("xl/worksheets/sheet"):
                    found += extensions(archive, name)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as a workbook ({error})", "Save it as .xlsx in a spreadsheet program.") from error
    return list(dict.fromkeys(found))


def is_kept(name: str, path: Path) -> bool:
    """Tell whether a part survives."""
    is_macro = name.startswith("xl/vbaProject") and path.suffix.lower() == ".xlsm"
    return is_macro or KEPT.fullmatch(name) is not None


def kind_of(name: str) -> str:
    """Return what a part is, its name when that is not known."""
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), name)


def extensions(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Return the kinds of extensions in a sheet, which is read in pieces: it may be large."""
    found: set[str] = set()
    is_extended, before = False, b""
    with archive.open(name) as part:
        while piece := part.read(CHUNK_BYTES):
            text = before + piece
            start = EXTENSION.search(text)
            if is_extended or start is not None:
                inside = text if is_extended or start is None else text[start.start() :]
                found |= {kind for mark, kind in EXTENSIONS.items() if mark in inside}
                is_extended = True
            before = text[-64:]
    return sorted(found) or (["extensions of a sheet"] if is_extended else [])
