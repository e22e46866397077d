from random import Random

import pytest

OPTIONS = (
    {"format": "lines"},
    {"format": "jsonl"},
    {"format": "csv"},
    {"format": "lines", "null": True},
    {"format": "csv", "encoding": "cp1252"},
    {"format": "lines", "encoding": "utf-16"},
    {"format": "lines", "max_item_bytes": 5},
    {"format": "csv", "max_item_bytes": 7},
    {"format": "json"},
    {"format": "json", "max_item_bytes": 7},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(25))
def test_rubbish_ends_the_same_with_and_without_crashes(tmp_path, read, read_with_crashes, seed, options):
    """Random bytes give the same rows and positions in one go and with a crash behind every page, and no error but ours."""
    random = Random(seed)
    data = bytes(random.choices(b'ab,"\n\r1' * 9 + b"\n\x00\xff\xc3\xa9{}:[] ", k=random.randint(0, 60)))
    (tmp_path / "r").write_bytes(b"[" + data if options["format"] == "json" else data)
    if random.random() < 0.5:
        options = {**options, "skip_bad": lambda _: True}
    got = read("r", **options)
    crashed = read_with_crashes("r", max_items=random.randint(1, 5), max_bytes=random.choice([1, 20, 1 << 20]), **options)
    assert crashed.rows == got.rows
    assert (crashed.problem is None) == (got.problem is None) == got.done
    assert got.positions == sorted(set(got.positions))
