"""Undo actions: known by name, one function each, and called with what was recorded."""

from __future__ import annotations

import pytest

import durabatch
from durabatch import actions
from durabatch.errors import UndoError, UsageError
from durabatch.importing import import_place


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    """No test sees the actions of another."""
    monkeypatch.setattr(actions, "_actions", {})


def gone(url):
    return not url


def test_an_action_is_found_by_its_name_and_stays_a_function():
    """The decorator changes nothing about the function; what is said about it is kept beside it."""

    @durabatch.undo_action("delete_site", verify=gone)
    def delete_site(url):
        return url

    assert delete_site("u") == "u"
    assert actions.find("delete_site") == ("delete_site", delete_site, gone, False)
    assert durabatch.undo_action("mail", irreversible=True)(print) is print
    assert actions.find("mail").irreversible
    assert list(actions.registered()) == ["delete_site", "mail"]


def test_an_unknown_action_is_one_line_with_a_guess():
    """Nobody is left to search for a name that differs by a letter."""
    with pytest.raises(UndoError, match=r"^no undo action 'delete_site' is registered. Register it: @durabatch.undo_action\(\"delete_site\"\)"):
        actions.find("delete_site")
    durabatch.undo_action("delete_site")(gone)
    with pytest.raises(UndoError, match=r"Did you mean 'delete_site'\?"):
        actions.find("delete_sites")
    with pytest.raises(UndoError, match="There is: delete_site"):
        actions.find("xyz")


@pytest.mark.parametrize(
    ("name", "options", "function", "words"),
    [
        ("", {}, gone, "'' is not a name"),
        (gone, {}, gone, "is not a name"),
        ("a\nb", {}, gone, "is not a name"),
        ("files.write", {}, gone, "those of ctx.files"),
        ("a", {"verify": "gone"}, gone, "verify='gone' is not a function"),
        ("a", {}, "gone", "'gone' is not a function"),
        ("a", {}, dict, "is not a function"),
    ],
)
def test_what_cannot_be_an_action_is_refused_when_it_is_registered(name, options, function, words):
    """A mistake shows at import, long before something has to be undone."""
    with pytest.raises(UsageError, match=words):
        durabatch.undo_action(name, **options)(function)
    assert actions.registered() == {}


def test_a_name_belongs_to_one_function(tmp_path):
    """Another function is refused; the same one, imported again or under another name, takes its own place."""
    source = tmp_path / "hub.py"
    source.write_text("import durabatch\n@durabatch.undo_action('drop')\ndef drop(name): return VERSION\nVERSION = 1\n")
    first = import_place(f"{source}:drop")
    code = compile(source.read_text(), str(source), "exec")
    again = {"__name__": "__main__", "VERSION": 2}
    exec(code, again)
    assert actions.find("drop").function is again["drop"] is not first.drop
    with pytest.raises(UsageError, match="the name is taken by __main__:drop"):
        durabatch.undo_action("drop")(gone)
    durabatch.undo_action("one")(lambda: 1)
    with pytest.raises(UsageError, match="the name is taken by"):
        durabatch.undo_action("one")(lambda: 2)


@pytest.mark.parametrize(
    ("function", "arguments", "wrong"),
    [
        (lambda url: 0, {"url": 1}, None),
        (lambda url, ctx: 0, {"url": 1}, None),
        (lambda url, *, size=0, **more: 0, {"url": 1, "x": 2}, None),
        (lambda: 0, {}, None),
        (lambda url: 0, {"uri": 1}, ("takes no", "uri")),
        (lambda url, name: 0, {"url": 1}, ("needs", "name")),
        (lambda url, ctx=None: 0, {"url": 1, "ctx": 2}, ("takes no", "ctx")),
        (lambda url, /: 0, {"url": 1}, ("takes no", "url")),
        (dict.get, {"url": 1}, ("takes no", "url")),
        (max, {"url": 1}, None),
    ],
)
def test_arguments_are_compared_with_what_the_action_takes(function, arguments, wrong):
    """What could not be called later is found before the effect; the context is no argument."""
    assert actions.misfit(actions.Action("a", function, None, False), arguments) == wrong


def test_the_context_is_given_where_it_is_wanted():
    """An action gets all arguments, its verify those that it names, and each the context if it has a parameter for it."""
    given = {"url": 1, "name": 2}
    assert actions.arguments_for(lambda url, name, ctx: 0, given, "c", all_of_them=True) == {"url": 1, "name": 2, "ctx": "c"}
    assert actions.arguments_for(lambda **all_of_it: 0, given, "c", all_of_them=True) == given
    assert actions.arguments_for(lambda url: 0, given, "c", all_of_them=False) == {"url": 1}
    assert actions.arguments_for(lambda *, ctx, **rest: 0, given, "c", all_of_them=False) == {**given, "ctx": "c"}
