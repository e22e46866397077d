"""The cells file: what it says after a death, and what it says when it is no cells file."""

from __future__ import annotations

import os
import stat
import struct

import pytest

from durabatch.workers.cells import CELL, HEADER, WORK, WORK_OFFSET, Cell, Cells


@pytest.fixture
def cells(tmp_path):
    return Cells.create(tmp_path / "cells", 3, "boot-1", 7)


def test_fresh_cells_are_empty(cells, tmp_path):
    """A new file shows no process and no item, and only its owner may read it."""
    assert cells.read() == []
    assert (cells.count, cells.run_id) == (3, 7)
    assert stat.S_IMODE((tmp_path / "cells").stat().st_mode) == 0o600


def test_another_process_sees_what_runs(cells, tmp_path):
    """What is entered through one mapping is read through another."""
    other = Cells.open(tmp_path / "cells", "boot-1")
    cells.occupy(1, 42, 900)
    cells.enter(1, 5, 6, 2, 1_000, 77)
    assert other.read() == [Cell(1, 42, 900, 5, 6, 2, 1_000, 77)]
    cells.leave(1)
    assert other.at(1) == Cell(1, 42, 900, None, 0, 0, 0)


def test_a_new_owner_starts_without_an_item(cells):
    """A cell that is given to another process forgets the item of the one before."""
    cells.occupy(0, 42, 900)
    cells.enter(0, 5, 6, 1, 1_000)
    cells.occupy(0, 43, 901)
    assert cells.at(0) == Cell(0, 43, 901, None, 0, 0, 0)


def test_the_window_is_the_cell(cells):
    """What a worker writes through its window is what the cell shows."""
    cells.occupy(2, 42, 900)
    WORK.pack_into(cells.window(2), 0, 5, 6, 1, 1_000, 77, 5)
    assert cells.at(2) == Cell(2, 42, 900, 5, 6, 1, 1_000, 77)


def test_a_half_written_cell_is_empty(cells):
    """A writer killed in the middle of a cell leaves no item behind, whichever field it had come to."""
    cells.occupy(0, 42, 900)
    cells.enter(0, 5, 6, 1, 1_000, 77)
    fresh = WORK.pack(8, 9, 1, 2_000, 88, 8)
    for written in range(8, WORK.size, 8):
        cells.window(0)[:written] = fresh[:written]
        assert cells.at(0).item_id is None
    cells.window(0)[:] = fresh
    assert cells.at(0) == Cell(0, 42, 900, 8, 9, 1, 2_000, 88)


def test_cells_of_another_boot_are_empty(cells, tmp_path):
    """After a restart of the machine nothing of what the file says is true."""
    cells.occupy(0, 42, 900)
    assert Cells.open(tmp_path / "cells", "boot-2").read() == []


@pytest.mark.parametrize(
    "content",
    [b"", b"dbcells\0", b"\xff" * 4096, HEADER.pack(b"dbcells\0", 2, 2**31, b"", 1, 1), HEADER.pack(b"dbcells\0", 99, 0, b"", 1, 1)],
    ids=["empty", "cut", "noise", "count beyond the file", "other version"],
)
def test_garbage_reads_as_no_cells(tmp_path, content):
    """A file that is no cells file stops nobody: it has no cells."""
    (tmp_path / "cells").write_bytes(content)
    assert Cells.open(tmp_path / "cells", "").read() == []


def test_garbage_inside_a_cell_reads_as_empty(cells, tmp_path):
    """Noise in the cells themselves is no item."""
    path = tmp_path / "cells"
    path.write_bytes(path.read_bytes()[: HEADER.size] + bytes(range(256))[: 3 * CELL.size])
    assert all(cell.item_id is None for cell in Cells.open(path, "boot-1").read())


def test_a_missing_file_a_directory_and_a_link_have_no_cells(tmp_path):
    """Nothing at the path, a directory, or a symbolic link: no cells and no error."""
    Cells.create(tmp_path / "real", 1, "b", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [Cells.open(tmp_path / name, "b").count for name in ("absent", ".", "link", "real")] == [0, 0, 0, 1]


def test_a_process_with_the_old_file_cannot_write_into_the_new_one(cells, tmp_path):
    """A stray worker of an earlier run writes into cells that nobody reads."""
    fresh = Cells.create(tmp_path / "cells", 3, "boot-1", 8)
    cells.occupy(0, 42, 900)
    assert fresh.read() == []


def test_writes_to_the_descriptor_reach_no_cell(cells, tmp_path):
    """A handler that writes to every descriptor it finds makes the file longer and leaves the cells alone."""
    cells.occupy(0, 42, 900)
    target = (tmp_path / "cells").stat().st_ino
    written = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.fstat(int(name)).st_ino == target:
                written += os.write(int(name), b"junk" * 100)
        except OSError:
            continue
    assert written > 0
    assert Cells.open(tmp_path / "cells", "boot-1").read() == cells.read() == [Cell(0, 42, 900, None, 0, 0, 0)]


def test_a_cell_that_is_not_there_cannot_be_written(cells):
    """Writing beyond the end is an error; reading there is an empty cell; a closed file has no cells."""
    with pytest.raises(IndexError):
        cells.occupy(3, 1, 1)
    assert cells.at(3).pid == 0
    cells.close()
    assert cells.read() == []
    with pytest.raises(IndexError):
        cells.leave(0)


def test_a_worker_has_a_row_of_cells(tmp_path):
    """Of a worker's cells those are told that show an item; a worker beyond the file has none."""
    cells = Cells.create(tmp_path / "cells", 6, "boot-1", 7, 3)
    for index in range(6):
        cells.occupy(index, 42 + index // 3, 900)
    for index in (1, 3, 5):
        cells.enter(index, 10 + index, 6, 1, 1_000, 5)
    other = Cells.open(tmp_path / "cells", "boot-1")
    assert other.per_worker == 3
    assert [[cell.index for cell in other.of_worker(number)] for number in (0, 1, 2, 3)] == [[], [1], [3, 5], []]
    assert other.of_worker(1) == [other.at(1)]


def test_cells_are_added_while_others_are_in_use(cells, tmp_path):
    """The new cells are empty even where junk was; old and new mappings, and windows held meanwhile, show the same."""
    worker = Cells.open(tmp_path / "cells", "boot-1")
    window = worker.window(0)
    held = cells.window(1)
    with (tmp_path / "cells").open("ab") as file:
        file.write(b"junk" * 40)
    cells.grow(5)
    assert (cells.count, Cells.open(tmp_path / "cells", "boot-1").count, worker.count) == (5, 5, 3)
    cells.occupy(4, 77, 1)
    WORK.pack_into(window, 0, 5, 6, 1, 1_000, 2, 5)
    WORK.pack_into(held, 0, 8, 6, 1, 1_000, 2, 8)
    assert [cells.at(index).item_id for index in range(5)] == [5, 8, None, None, None]
    assert [cell.pid for cell in Cells.open(tmp_path / "cells", "boot-1").read()] == [77]


def test_cells_never_become_fewer(cells, tmp_path):
    """Growing to what is there changes nothing; without the file it is an error and the cells stay."""
    cells.grow(2)
    assert cells.count == 3
    (tmp_path / "cells").unlink()
    with pytest.raises(OSError, match="No such file"):
        cells.grow(4)
    cells.occupy(2, 42, 900)
    assert (cells.count, cells.at(2).pid) == (3, 42)


def test_fields_are_stored_whole():
    """A cell is one cache line, and all of its fields are 8 bytes at multiples of 8, so none is ever half written."""
    assert (HEADER.size, CELL.size, WORK_OFFSET) == (64, 64, 16)
    assert struct.calcsize("q") == 8
