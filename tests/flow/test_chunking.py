from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durabatch.errors import UsageError
from durabatch.flow.chunking import Chunking


def cut(text: bytes, size, overlap=0):
    """Return (start, end) of all chunks of *text*."""
    chunking, places, start = Chunking(size, overlap), [], 0
    while (end := chunking.end(text, start, is_last=True)) > start:
        places.append((start, end))
        if end == len(text):
            break
        start = chunking.next_start(text, end)
    return places


def pieces(text: str, size, overlap=0):
    data = text.encode()
    return [data[start:end].decode() for start, end in cut(data, size, overlap)]


# -- where ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_", "worse"),
    [
        ("\n\n", ". a! b\n"),
        ("\r\n\r\n", "x. y\r\nz "),
        (". ", "a\nb c"),
        ("!\r\n", "a\nb c"),
        ("?” ", "a\nb c"),
        (".)\n", "a\nb c"),
        ("。", "a\nb c"),
        ("？」", "a\nb c"),
        ("\n", "a b\tc"),
        (" ", "abc"),
        ("\t", "abc"),
        ("\u3000", "abc"),
    ],
)
def test_the_best_break_near_the_end_is_taken(break_, worse):
    """Paragraph before sentence before line before word, each with what ends it; a lesser break behind it does not matter."""
    text = "x" * 80 + break_ + worse + "y" * 100
    assert pieces(text, 100)[0] == "x" * 80 + break_


def test_the_last_of_equal_breaks_is_taken():
    """Chunks are as long as their breaks allow, and a break that ends exactly at the limit counts."""
    assert pieces("One. Two. Three. Four. Five", 23)[0] == "One. Two. Three. Four. "
    assert pieces("a" * 15 + "\n" + "b" * 15, 16) == ["a" * 15 + "\n", "b" * 15]


def test_without_a_break_near_the_end_a_chunk_is_full():
    """Breaks in the first three quarters are not looked at; characters and line breaks of two bytes stay whole."""
    assert pieces("a. b\n\n" + "x" * 94 + "y" * 50, 100) == ["a. b\n\n" + "x" * 94, "y" * 50]
    assert pieces("x" * 99 + "é" + "y" * 50, 100) == ["x" * 99, "é" + "y" * 50]
    assert pieces("x" * 97 + "😀" + "y" * 50, 100) == ["x" * 97, "😀" + "y" * 50]
    assert pieces("x" * 99 + "\r\n" + "y" * 50, 100) == ["x" * 99, "\r\n" + "y" * 50]


def test_what_fits_is_one_chunk():
    """Also to the byte; nothing at all has none."""
    assert pieces("a b\n\nc. d", 16) == ["a b\n\nc. d"]
    assert pieces("x" * 16, 16) == ["x" * 16]
    assert pieces("", 16) == []


def test_an_overlap_begins_at_a_word():
    """At the first one within reach; without one in the first half where it may begin at all, but never inside a character."""
    assert pieces("x" * 70 + " one two three " + "y" * 60, 100, 14) == ["x" * 70 + " one two three ", "one two three " + "y" * 60]
    assert pieces("x" * 70 + " one two three " + "y" * 60, 100, 12)[1] == "two three " + "y" * 60
    assert pieces("x" * 150, 100, 10) == ["x" * 100, "x" * 60]
    assert pieces("é" * 75, 100, 11) == ["é" * 50, "é" * 30]


def test_sizes_without_progress_are_refused():
    """Each chunk goes beyond the one before it."""
    with pytest.raises(UsageError, match="--chunk-size 15 is too small"):
        Chunking(15)
    with pytest.raises(UsageError, match="--overlap 9 is more than half of --chunk-size 16"):
        Chunking(16, 9)


# -- what is true of all texts ------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from('ab. !?\n\r\t"é。\u3000😀”') | st.characters(codec="utf-8"), max_size=400)


@given(text=TEXTS, size=st.integers(16, 80), share=st.floats(0, 0.5))
def test_chunks_hold_the_whole_text(text, size, share):
    """No gap, no chunk over the size, no split character or line break, no more overlap than asked for, always forwards."""
    data, overlap = text.encode(), int(size * share)
    places = cut(data, size, overlap)
    assert (places[0][0], places[-1][1]) == (0, len(data)) if data else places == []
    for start, end in places:
        assert 0 < end - start <= size
        data[start:end].decode()
        assert data[end - 1 : end + 1] != b"\r\n"
        assert start == 0 or data[start - 1 : start + 1] != b"\r\n"
    for (_, before), (start, end) in itertools.pairwise(places):
        assert before - overlap <= start <= before < end


@given(text=TEXTS, size=st.integers(16, 80), overlap=st.integers(0, 8), data=st.data())
def test_a_cut_depends_on_what_follows_it_alone(text, size, overlap, data):
    """Gone on with at any chunk, and told as soon as enough was read, all later places are the same."""
    whole = text.encode()
    places = cut(whole, size, overlap)
    chunking = Chunking(size, overlap)
    for start, end in places:
        assert [(begin + start, stop + start) for begin, stop in cut(whole[start:], size, overlap)] == [p for p in places if p[0] >= start]
        read = data.draw(st.integers(start, len(whole)))
        early = chunking.end(whole[:read], start, is_last=False)
        assert early == (end if read > start + size else None)
