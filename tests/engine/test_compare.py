from __future__ import annotations

import random
from collections import Counter

import pytest

from durabatch.bits import Bits
from durabatch.engine import compare
from durabatch.engine import submit as submitted
from durabatch.engine.compare import Comparison, Kind
from durabatch.engine.redo import reposition
from durabatch.engine.withdraw import withdraw
from durabatch.ledger import changing, item
from tests import factory
from tests.factory import NOW


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Compare and walk in pages of a few rows, so that every border is met."""
    monkeypatch.setattr(compare, "PAGE", 4)
    monkeypatch.setattr(compare, "NEAR", 2)
    monkeypatch.setattr(compare, "WALK", 3)


def rows_of(words, *, keyed=True):
    """Return the rows of an input: each word is its key and payload, ``key=payload`` says both, without keys it is the payload."""
    pairs = [word.partition("=")[::2] for word in words]
    return [(key if keyed else None, f'"{payload or key}"', number) for number, (key, payload) in enumerate(pairs, 1)]


def items(ledger, words, *, keyed=True):
    """Return a run that holds these items, in several spans."""
    jobs = factory.new_run(ledger)
    rows = rows_of(words, keyed=keyed)
    for start in range(0, len(rows), 5):
        page = rows[start : start + 5]
        factory.add(ledger, jobs, [row[0] for row in page], payload=lambda _key, page=page: page.pop(0)[1], complete=start + 5 >= len(rows))
        factory.add(ledger, factory.new_run(ledger, "other"), ["between"])
    return jobs


def compared(ledger, jobs, rows, *, dedupe="error", step=3):
    """Return what becomes of *rows*, read in pages of *step*, as ``kind``, or ``kind item``; and the keys that are gone."""
    with Comparison(ledger, jobs.run_id, dedupe=dedupe) as comparison:
        made = [one for start in range(0, len(rows), step) for one in comparison.page(rows[start : start + step])]
        gone = [key for page in comparison.gone() for _, key, _ in page]
        assert comparison.met_all == (not gone)
    return [str(one.kind) if one.item_id is None else f"{one.kind} {item.get(ledger, one.item_id).key}" for one in made], gone


def test_an_unchanged_input_is_the_same(ledger):
    """Row beside item, over all spans; nothing is gone."""
    jobs = items(ledger, "abcdefghijklm")
    assert compared(ledger, jobs, rows_of("abcdefghijklm")) == ([f"same {key}" for key in "abcdefghijklm"], [])


def test_keyed_items_are_found_wherever_they_stand(ledger):
    """New, changed, moved and gone rows are told apart, in any order."""
    jobs = items(ledger, "abcdefgh")
    kinds, gone = compared(ledger, jobs, rows_of(["x", "y", "a", "c=1", "h", "b", "z", "e"]))
    assert kinds == ["new", "new", "same a", "changed c", "same h", "same b", "new", "same e"]
    assert gone == ["d", "f", "g"]


def test_rows_without_keys_are_matched_by_content(ledger):
    """Five rows at the top are five new ones; a changed row is a new one, and its item gone."""
    words = [f"v{number}" for number in range(1, 12)]
    jobs = items(ledger, words, keyed=False)
    kinds, gone = compared(ledger, jobs, rows_of([*"ABCDE", *words], keyed=False))
    assert (kinds, gone) == (["new"] * 5 + [f"same {number}" for number in range(1, 12)], [])
    words[6] = "other"
    assert compared(ledger, jobs, rows_of(words, keyed=False)) == ([*(f"same {n}" for n in range(1, 7)), "new", *(f"same {n}" for n in range(8, 12))], ["7"])


def test_equal_payloads_are_items_of_their_own(ledger):
    """As many as the ledger has are the same; one more is new, one less is gone."""
    jobs = items(ledger, "aabaca", keyed=False)
    assert compared(ledger, jobs, rows_of("caaaaa", keyed=False))[0] == ["same 5", "same 1", "same 2", "same 4", "same 6", "new"]
    assert compared(ledger, jobs, rows_of("baa", keyed=False)) == (["same 3", "same 1", "same 2"], ["4", "5", "6"])


@pytest.mark.parametrize(("keyed", "dedupe"), [(True, "error"), (True, "keep"), (False, "error")])
def test_any_change_is_told_as_a_dictionary_would(ledger, seed, scaled, keyed, dedupe):
    """Random inputs beside random items: kinds and gone ones are those that sets and counters say, whatever the order."""
    chance = random.Random(seed)
    for _ in range(scaled(300)):
        words = [f"{chance.choice('abcdefgh')}{chance.randrange(4)}={chance.randrange(3)}" for _ in range(chance.randrange(1, 25))]
        before = [*{word.partition("=")[0]: word for word in words}.values()] if keyed else words
        jobs = items(ledger, before, keyed=keyed)
        after = [word for word in before if chance.random() < 0.8]
        for _ in range(chance.randrange(4)):
            after.insert(chance.randrange(len(after) + 1), f"{chance.choice('abcxyz')}{chance.randrange(4)}={chance.randrange(3)}")
        if chance.random() < 0.3:
            chance.shuffle(after)
        found, gone = compared(ledger, jobs, rows_of(after, keyed=keyed), dedupe=dedupe, step=chance.randrange(1, 9))
        if keyed:
            check_keyed(rows_of(before), rows_of(after), found, gone, keeps=dedupe == "keep")
        else:
            check_keyless(rows_of(before, keyed=False), rows_of(after, keyed=False), found, gone)


def check_keyed(before, after, found, gone, *, keeps):
    """Compare with what a dictionary says."""
    known, seen = {key: payload for key, payload, _ in before}, Counter()
    for (key, payload, _), kind in zip(after, found, strict=True):
        seen[key] += 1
        if seen[key] > 1 and keeps:
            assert kind == "new"
        elif seen[key] > 1:
            assert kind == (f"repeated {key}" if key in known else "repeated")
        else:
            assert kind == ("new" if key not in known else f"{'same' if known[key] == payload else 'changed'} {key}")
    assert gone == [key for key in known if key not in seen]


def check_keyless(before, after, found, gone):
    """Compare with what counting payloads says; an item is met once."""
    have, want = Counter(row[1] for row in before), Counter(row[1] for row in after)
    assert Counter(kind.partition(" ")[0] for kind in found) == +Counter({"same": (have & want).total(), "new": (want - have).total()})
    assert len({kind for kind in found if kind != "new"}) == (have & want).total()
    assert len(gone) == (have - want).total()
    for row, kind in zip(after, found, strict=True):
        assert kind == "new" or before[int(kind.partition(" ")[2]) - 1][1] == row[1]


def test_a_repeated_key_names_the_row_before(ledger):
    """Whether that was new, an item in its place, or an item that has moved."""
    jobs = items(ledger, "abcdefg")
    for words, expected in ((["x", "b", "x"], 1), (["a", "b", "c", "b"], 2), (["n1", "n2", "n3", "n4", "n5", "b", "c", "d", "d"], 8)):
        with Comparison(ledger, jobs.run_id) as comparison:
            made = [one for start in range(0, len(words), 2) for one in comparison.page(rows_of(words)[start : start + 2])]
            assert [(one.kind, one.first_position) for one in made if one.kind is Kind.REPEATED] == [(Kind.REPEATED, expected)]


def test_repeated_keys_that_are_kept_have_numbers(ledger):
    """The second row with a key is KEY#2, the third KEY#3, also beside an item with such a key; the ledger's are found by them."""
    jobs = items(ledger, ["a", "a#2=y", "b"])
    with Comparison(ledger, jobs.run_id, dedupe="keep") as comparison:
        made = comparison.page(rows_of(["a", "b", "a=y", "a", "b=z"])) + comparison.page(rows_of(["b", "c", "c"]))
    assert [(str(one.kind), one.key) for one in made] == [
        ("same", "a"), ("same", "b"), ("same", "a#2"), ("new", "a#3"), ("new", "b#2"), ("new", "b#3"), ("new", "c"), ("new", "c#2"),
    ]  # fmt: skip


def test_rows_that_were_taken_in_are_found_in_the_ledger(ledger):
    """Their keys need not be remembered twice; they are no gone items."""
    jobs = items(ledger, "ab")
    with Comparison(ledger, jobs.run_id) as comparison:
        rows = rows_of(["a", "x", "b"])
        first = item.last_id(ledger) + 1
        assert [one.kind for one in comparison.page(rows)] == [Kind.SAME, Kind.NEW, Kind.SAME]
        factory.add(ledger, jobs, ["x"])
        comparison.took(range(first, first + 1), [rows[1]])
        assert [(one.kind, one.item_id, one.is_equal) for one in comparison.page(rows_of(["x", "x=other"]))] == [
            (Kind.REPEATED, first, True), (Kind.REPEATED, first, False),
        ]  # fmt: skip
        assert list(comparison.gone()) == []


def test_keys_that_collide_are_still_two_keys(ledger, monkeypatch):
    """Where every key has the same hash, known ones, new ones and repeated ones are told apart by their text."""
    monkeypatch.setattr(submitted, "key_hash", lambda key, probe=0: probe)
    for module in (submitted, compare):
        monkeypatch.setattr(module, "key_hashes", lambda keys: [0 for _ in keys])
    jobs = items(ledger, "abc")
    assert compared(ledger, jobs, rows_of(["c", "x", "a=1", "x", "b", "y", "c"])) == (
        ["same c", "new", "changed a", "repeated", "same b", "new", "repeated c"], [],
    )  # fmt: skip
    assert compared(ledger, jobs, rows_of("ccb"), dedupe="keep") == (["same c", "new", "same b"], ["a"])


def test_what_was_withdrawn_comes_back_and_is_not_gone_again(ledger):
    """A withdrawn item is BACK when its row is; another one with the same content goes first; it is nothing that is missing."""
    jobs = items(ledger, "abcab", keyed=False)
    withdraw(ledger, jobs.run_id, [1, 2], now_us=NOW)
    assert compared(ledger, jobs, rows_of("cab", keyed=False)) == (["same 3", "same 4", "same 5"], [])
    assert compared(ledger, jobs, rows_of("cabab", keyed=False)) == (["same 3", "same 4", "same 5", "back 1", "back 2"], [])
    named = items(ledger, "xyz")
    withdraw(ledger, named.run_id, [submitted.locate(ledger, named.run_id, "x")], now_us=NOW)
    assert compared(ledger, named, rows_of("yz")) == (["same y", "same z"], [])
    assert compared(ledger, named, rows_of(["y", "x", "z=1"])) == (["same y", "back x", "changed z"], [])


def test_kept_and_submitted_items_are_not_missed(ledger):
    """What was gone and kept is told only to whoever asks for it; what was submitted is no part of the input."""
    jobs = items(ledger, "abcd")
    reposition(ledger, [(2, changing.KEPT), (3, -1)])
    with Comparison(ledger, jobs.run_id) as comparison:
        comparison.page(rows_of("ad"))
        assert comparison.met_all
        assert list(comparison.gone(kept=True)) == [[(2, "b", "pending")]]
        assert [(one.kind, one.position) for one in comparison.page(rows_of("b"))] == [(Kind.SAME, changing.KEPT)]


def test_a_run_that_is_not_there_has_no_items():
    """Every row is new, a repeated one is repeated."""
    with Comparison(None, 0) as comparison:
        assert [one.kind for one in comparison.page(rows_of("aba"))] == [Kind.NEW, Kind.NEW, Kind.REPEATED]
        assert comparison.page(rows_of("zb"))[1].first_position == 2
        assert (list(comparison.gone()), comparison.met_all) == ([], True)


def test_memory_is_a_bit_an_item(ledger, monkeypatch):
    """Six times the rows, shuffled, cost no more memory at the peak than a few thousand do."""
    import tracemalloc

    monkeypatch.setattr(compare, "PAGE", 500)
    peaks = []
    for count in (1000, 6000):
        jobs = factory.new_run(ledger)
        rows = [(None, f'"{number}"', number) for number in range(1, count + 1)]
        for start in range(0, count, 1000):
            with factory.tick(ledger, jobs):
                submitted.submit(ledger, jobs, rows[start : start + 1000], position=None, complete=False)
        random.Random(1).shuffle(rows)
        tracemalloc.start()
        with Comparison(ledger, jobs.run_id) as comparison:
            for start in range(0, count, 500):
                assert {one.kind for one in comparison.page(rows[start : start + 500])} == {Kind.SAME}
            assert comparison.met_all
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_bits_hold_what_was_added(seed):
    """Numbers one by one and in stretches, over the borders of bytes."""
    chance = random.Random(seed)
    bits, expected = Bits(200), set()
    for _ in range(60):
        first = chance.randrange(200)
        count = min(chance.choice((1, 3, 8, 9, 17)), 200 - first)
        if not expected.intersection(range(first, first + count)):
            bits.add_stretch(first, count)
            expected.update(range(first, first + count))
        number = chance.randrange(200)
        assert bits.add(number) == (number not in expected)
        expected.add(number)
    assert [number for number in range(200) if number in bits] == sorted(expected)
    assert (bits.count, bits.end) == (len(expected), max(expected) + 1)
