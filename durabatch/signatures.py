"""
What a handler's parameters say: where the item goes, whether the context is wanted, and what its params become.

    def work(item, ctx, *, region, limit: int = 10)
             │     │       └── params: keyword-only, by name
             │     └── context: second, without a default (or named ctx, or annotated Context)
             └── item: validated when annotated

The common annotations are checked by pydantic_core alone; pydantic is imported when another one asks for it.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, from_json

from durabatch.errors import HandlerImportError

__all__ = ["LITERAL", "HandlerSignature", "bind_params", "check_params", "item_validator", "looks_like_json", "read_signature"]

#: Marks a stored param as exactly this text, whatever it looks like: ``{"$text": "123"}``.
LITERAL = "$text"

Parameter = inspect.Parameter
#: Without an annotation a text is read as JSON when it is one of these, and stays text otherwise.
JSON_TEXT = re.compile(r"\s*(?:[{\[].*|true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*", re.DOTALL | re.ASCII)
REFERENCE = re.compile(r"(env|file):(.+)", re.DOTALL)

#: Annotations that need no pydantic, as schemas of pydantic_core.
SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "str"},
    int: {"type": "int"},
    float: {"type": "float", "allow_inf_nan": False},
    bool: {"type": "bool"},
    dict: {"type": "dict", "keys_schema": {"type": "str"}},
    list: {"type": "list"},
}
UNCHECKED = (Parameter.empty, Any, object)


class HandlerSignature(typing.NamedTuple):
    """The parameters of a handler that durabatch fills."""

    takes_context: bool
    item: inspect.Parameter
    params: dict[str, inspect.Parameter]
    takes_any_param: bool
    function: Callable[..., object]


def read_signature(function: Callable[..., object], name: str) -> HandlerSignature:
    """
    Return what *function*, called *name* in messages, takes.

    Raises:
        HandlerImportError: It cannot be called with one item, or with an item and a context.
    """
    try:
        described, parameters = _described(function)
    except (TypeError, ValueError) as error:
        raise HandlerImportError(f"{name}: its parameters cannot be found out", "Wrap it in a def of your own.") from error
    positional = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    variadic = [p for p in parameters if p.kind is Parameter.VAR_POSITIONAL]
    required = [p for p in positional if p.default is Parameter.empty]
    if not positional and not variadic:
        raise HandlerImportError(f"{name} takes 0 arguments, durabatch passes 1 or 2 (item, ctx)", "Give it a parameter for the item.")
    if len(required) > 2:
        names = ", ".join(p.name for p in required[2:])
        hint = f"Make {names} keyword-only (after a *) and give --param, or give a default."
        raise HandlerImportError(f"{name} takes {len(required)} arguments, durabatch passes 1 or 2 (item, ctx)", hint)
    return HandlerSignature(
        takes_context=len(positional) > 1 and _is_context(positional[1]),
        item=(positional or variadic)[0],
        params={p.name: p for p in parameters if p.kind is Parameter.KEYWORD_ONLY},
        takes_any_param=any(p.kind is Parameter.VAR_KEYWORD for p in parameters),
        function=described,
    )


def check_params(signature: HandlerSignature, params: Mapping[str, Any], name: str) -> None:
    """Raise HandlerImportError unless *params* fit: known, complete, convertible; of references only that they lead somewhere."""
    for param, value in params.items():
        _known(signature, param, name)
        if _reference(value) is None:
            _convert(signature, param, value, name)
        else:
            _resolve(param, value, read=False)
    missing = [p.name for p in signature.params.values() if p.default is Parameter.empty and p.name not in params]
    if missing:
        given = " ".join(f"--param {param}=..." for param in missing)
        raise HandlerImportError(f"{name} needs a value for {', '.join(missing)}", f"Give {given}.")


def bind_params(signature: HandlerSignature, params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values to call the handler with, references resolved; HandlerImportError as in :func:`check_params`."""
    check_params(signature, params, name)
    return {param: _convert(signature, param, value, name) for param, value in params.items()}


def item_validator(signature: HandlerSignature, name: str) -> Callable[[str], Any] | None:
    """Return what makes an item of its JSON text, None when the item's parameter asks for no check."""
    annotation = _annotation(signature, signature.item, name)
    return None if annotation in UNCHECKED else _validators(annotation, signature.item.name, name)[1]


def looks_like_json(text: str) -> bool:
    """Return whether *text*, as the value of a param without annotation, is read as JSON."""
    return JSON_TEXT.fullmatch(text) is not None


def _described(function: Callable[..., object]) -> tuple[Callable[..., object], list[inspect.Parameter]]:
    """Return *function* with its parameters; of a wrapper that takes anything, the wrapped one with its own."""
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    wrapped = getattr(function, "__wrapped__", None)
    if callable(wrapped) and all(p.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for p in parameters):
        return _described(wrapped)
    return function, parameters


def _is_context(parameter: inspect.Parameter) -> bool:
    annotated = parameter.annotation if isinstance(parameter.annotation, str) else getattr(parameter.annotation, "__name__", "")
    return parameter.default is Parameter.empty or parameter.name in ("ctx", "context") or "Context" in annotated


def _annotation(signature: HandlerSignature, parameter: inspect.Parameter, name: str) -> Any:
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    inner = inspect.unwrap(getattr(signature.function, "func", signature.function))
    inner = inner if hasattr(inner, "__globals__") or inspect.ismethod(inner) else type(inner).__call__
    holder = type("Annotated", (), {"__annotations__": {parameter.name: parameter.annotation}})
    try:
        return typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)[parameter.name]
    except Exception as error:
        what = f"{name}: the annotation {parameter.annotation!r} of {parameter.name} cannot be resolved: {type(error).__name__}: {error}"
        raise HandlerImportError(what, "Define or import it where the module can see it, not under TYPE_CHECKING.") from error


def _validators(annotation: Any, parameter: str, name: str) -> tuple[Callable[[Any], Any], Callable[[str], Any]]:
    """Return the functions that check a Python value and a JSON text against *annotation*."""
    schema = _simple_schema(annotation)
    if schema is not None:
        validator = SchemaValidator(typing.cast("Any", schema))
        return validator.validate_python, validator.validate_json
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(annotation)
    except Exception as error:
        what = f"{name}: the annotation of {parameter} is no type that pydantic can check: {str(error).splitlines()[0]}"
        raise HandlerImportError(what, "Annotate it with a model, a dataclass or a plain type, or not at all.") from error
    return adapter.validate_python, adapter.validate_json


def _simple_schema(annotation: Any) -> dict[str, Any] | None:
    try:
        known = SIMPLE.get(annotation)
    except TypeError:
        return None
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is list and arguments[0] in SIMPLE:
        return {"type": "list", "items_schema": SIMPLE[arguments[0]]}
    if typing.get_origin(annotation) is dict and arguments[0] is str and (arguments[1] in SIMPLE or arguments[1] in UNCHECKED):
        return {"type": "dict", "keys_schema": SIMPLE[str], "values_schema": SIMPLE.get(arguments[1], {"type": "any"})}
    return known


def _known(signature: HandlerSignature, param: str, name: str) -> None:
    if param in signature.params or signature.takes_any_param:
        return
    close = difflib.get_close_matches(param, signature.params, n=1)
    known = ", ".join(signature.params)
    hint = f"Did you mean '{close[0]}'?" if close else f"It takes: {known}." if known else "It has no keyword-only parameters."
    raise HandlerImportError(f"{name} takes no param {param!r}", hint)


def _convert(signature: HandlerSignature, param: str, value: Any, name: str) -> Any:
    """Return *value* as the annotation of *param* wants it; secrets and literals that nothing is said about stay text."""
    secret = _reference(value) is not None
    literal = isinstance(value, dict) and value.keys() == {LITERAL}
    plain = _resolve(param, value, read=True) if secret else value[LITERAL] if literal else value
    parameter = signature.params.get(param)
    annotation = Parameter.empty if parameter is None else _annotation(signature, parameter, name)
    if annotation in UNCHECKED:
        return _guess(plain, param, name) if isinstance(plain, str) and not secret and not literal else plain
    if annotation is str and isinstance(plain, str):
        return plain
    from_python, from_text = _validators(annotation, param, name)
    try:
        return from_python(plain)
    except ValidationError as error:
        try:
            # A text may be the JSON of what is wanted: a list, an object, null.
            return from_text(plain) if isinstance(plain, str) else from_python(plain)
        except ValidationError:
            shown = "its value" if secret else repr(plain)[:100]
            why = error.errors(include_url=False, include_input=False)[0]
            reason = why["type"] if secret else why["msg"]
            raise HandlerImportError(f"{name}: param {param!r}: {shown} does not fit: {reason}") from None


def _guess(text: str, param: str, name: str) -> Any:
    if not looks_like_json(text):
        return text
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise HandlerImportError(f"{name}: param {param!r}: {text[:100]!r} is no JSON: {error}", "Annotate the parameter as str.") from None


def _reference(value: Any) -> re.Match[str] | None:
    return REFERENCE.fullmatch(value) if isinstance(value, str) else None


def _resolve(param: str, value: str, *, read: bool) -> str:
    """Return the text behind ``env:NAME`` or ``file:PATH`` (without its last line end), or only make sure that it is there."""
    match = _reference(value)
    assert match is not None
    kind, place = match.groups()
    if kind == "env":
        if place not in os.environ:
            raise HandlerImportError(f"param {param!r}: the environment has no variable {place!r}", f"Set {place}.")
        return os.environ[place]
    try:
        if not os.path.isfile(place) or not os.access(place, os.R_OK):
            raise HandlerImportError(f"param {param!r}: {place} is not a readable file", "Relative paths start in the working directory.")
        with open(place, encoding="utf-8") as file:
            return file.read().removesuffix("\n") if read else ""
    except (OSError, ValueError) as error:
        raise HandlerImportError(f"param {param!r}: {place!r} cannot be read as text: {type(error).__name__}") from None
