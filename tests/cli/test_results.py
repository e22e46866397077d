from __future__ import annotations

import json

import pytest


def keys(done):
    return [json.loads(line)["key"] for line in done.out.splitlines()]


@pytest.mark.parametrize("words", [("r03",), ("r21", "r03"), ("double:items.jsonl", "r03"), ("1", "r21", "r03")])
def test_single_items_are_printed_in_the_order_in_which_they_are_named(finished, command, words):
    """The first word may be a run, by name or id; all others are keys."""
    done = command("results", *words)
    assert (done.code, keys(done)) == (0, [word for word in words if word.startswith("r")])
    document = json.loads(command("results", *words, "--json").out)
    assert [one["key"] for one in document["results"]] == keys(done)


def test_a_word_that_is_neither_run_nor_key_is_an_error(finished, command):
    """Nothing is printed, also when it is the second one."""
    done = command("results", "nobody")
    assert (done.code, done.out) == (2, "")
    assert "no run 'nobody' in this ledger" in done.err
    done = command("results", "r03", "nobody")
    assert (done.code, done.out, done.err) == (
        2,
        "",
        "durabatch: no item 'nobody' in run double:items.jsonl. `durabatch items` lists them.\n",
    )


def test_an_item_without_a_value_says_why(finished, command):
    """It failed: its error on stderr and exit code 1; with --all it is a line like the others."""
    done = command("results", "r03", "r07")
    assert (done.code, keys(done)) == (1, ["r03"])
    assert done.err == "durabatch: item 'r07' is failed: ValueError: could not convert string to float: 'N/A'.\n"
    assert keys(command("results", "r07", "--all")) == ["r07"]


def test_keys_and_an_expression_do_not_go_together(finished, command):
    """Both say which items."""
    done = command("results", "r03", "--where", "batch = 1")
    assert (done.code, done.err) == (2, "durabatch: --where goes without KEY: one of them says which items. Leave one out.\n")
