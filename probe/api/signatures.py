"""What a function of the API is given, against what its signature says: a wrong type is refused at the door, where its parameter has a name."""

from __future__ import annotations

import collections.abc
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from probe.errors import InputError, too_long

F = TypeVar("F", bound=Callable[..., Any])

# Names that annotations use and modules import for type checkers only: they are imported when a value is held against them.
_HOMES = {
    "Callable": "collections.abc",
    "Criterion": "probe.results.diff",
    "Engine": "probe.engine.engine",
    "Model": "probe.model.model",
    "Runner": "probe.runners.protocol",
    "RunnerOptions": "probe.runners.protocol",
    "Selector": "probe.engine.tuning.selector",
}

# What to try, by parameter; others are told what they take.
_EXAMPLES = {
    "accept": 'accept=["cosine>=0.999", "range_rel<=0.01 @ logits"]',
    "actual": 'a path, an open recording, or arrays by name, such as {"logits": array}',
    "allow": 'allow=["winograd_.* @ ^conv1"]',
    "custom_op_libs": 'custom_op_libs=["ops.so"]',
    "deny": 'deny=["winograd_.* @ ^conv1"]',
    "golden": 'a path, or arrays by name, such as {"logits": array}',
    "held_out": 'held_out="more/"',
    "input_shapes": 'input_shapes={"x": [1, 3, 224, 224]}',
    "inputs": 'inputs="photo.npz", or inputs={"x": array}',
    "keep": 'keep=["norm2/Pow"]',
    "model": '"model.onnx", or what probe.load("model.onnx") returned',
    "name_map": 'name_map={"name in actual": "name in golden"}',
    "precision": 'precision="fp16"',
    "val_range": 'val_range={"x": (0, 1)}',
}

_WORDS = {
    bool: "True or False", float: "a number", int: "a whole number", str: "a text", types.NoneType: "None",
    Path: "a path", re.Pattern: "a compiled regular expression", collections.abc.Callable: "a function",
}  # fmt: skip


def as_annotated(function: F) -> F:
    """Refuse arguments that are not of the types in the signature, before anything is read or made.

    A function's own checks say whether the values make sense; what they would do with a number in place of a path is an error from deep inside.
    Of what is iterated once only, elements are not looked at.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        bound = signature.bind(
            *given, **named
        )  # its TypeError says which argument is missing or unknown, as Python's own
        for name, value in bound.arguments.items():
            _check(function, name, value, _annotations(function)[name])
            if isinstance(value, (np.bool_, np.number)):  # -np.uint8(2) is 254
                bound.arguments[name] = value.item()
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            if (said := too_long(error)) is not None:
                raise said from error
            raise

    return cast("F", checked)


@functools.cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters; those of the standard library and of this module are read in its own names, others by ``_HOMES``."""
    names = _Names(function.__globals__)
    parameters = inspect.signature(function).parameters
    return {name: eval(one.annotation, {}, names) for name, one in parameters.items()}  # noqa: S307 - annotations of our own source


class _Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        if name not in _HOMES:
            raise KeyError(name)  # a builtin
        return getattr(importlib.import_module(_HOMES[name]), name)


def _check(function: Callable[..., Any], name: str, value: Any, annotation: Any) -> None:
    if name in ("inputs", "held_out") and hasattr(value, "__array__"):
        return  # an array without its name is refused where the names of the inputs are known
    if (wrong := _unlike(value, annotation)) is None:
        if isinstance(value, (str, Path)) and Path in typing.get_args(annotation) and "\0" in str(value):
            raise InputError(f"{function.__name__}() cannot use {name}: no path holds a NUL character")
        if _is(value, float) and not name.endswith("seed") and not cast("float", value) >= 0:
            raise InputError(f"{function.__name__}() cannot use {name}: {value}", hint="0 or more")
        return
    place, found = wrong
    takes = _in_words(annotation)
    raise InputError(
        f"{function.__name__}() cannot use {name}{place}: {_shown(found)}",
        where=f"{name} takes {takes}",
        hint=_EXAMPLES.get(name, f"help({_home(function)}.{function.__name__}) says what it is for"),
    )


def _home(function: Callable[..., Any]) -> str:
    """Where users find it."""
    room = function.__module__.rpartition(".")[2]
    if room in ("networks", "recordings", "precision"):
        return "probe"
    return "probe.tactics" if room in ("tactics", "blaming") else function.__module__


def _unlike(value: Any, annotation: Any) -> tuple[str, Any] | None:
    """Where in ``value`` something is not of the type, and what; None where all of it is."""
    if annotation is Any:
        return None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        tried = [_unlike(value, one) for one in arguments]
        if None in tried:
            return None
        return max(tried, key=lambda one: bool(one and one[0]))  # what is of the right kind, but for an element
    if origin is Literal:
        return None if isinstance(value, str) else ("", value)
    if origin is tuple:
        return _unlike_tuple(value, arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _unlike_mapping(value, arguments)
    if origin in (Iterable, Sequence):
        return _unlike_sequence(value, origin, arguments)
    return None if _is(value, origin or annotation) else ("", value)


def _unlike_tuple(value: Any, arguments: Sequence[Any]) -> tuple[str, Any] | None:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)) or len(value) != len(arguments):
        return "", value
    return _first((f"[{at}]", one, inner) for at, (one, inner) in enumerate(zip(value, arguments, strict=True)))


def _unlike_mapping(value: Any, arguments: Sequence[Any]) -> tuple[str, Any] | None:
    if not isinstance(value, Mapping):
        return "", value
    if not arguments or (arguments[1] is Any and all(isinstance(key, str) for key in value)):
        return None  # values are not read: those of a recording lie on disk
    keys = next(((": the name", key) for key in value if _unlike(key, arguments[0]) is not None), None)
    return keys or _first((f"[{key!r}]", one, arguments[1]) for key, one in value.items())


def _unlike_sequence(value: Any, origin: Any, arguments: Sequence[Any]) -> tuple[str, Any] | None:
    if isinstance(value, str) and origin is Iterable:
        return _unlike(value, arguments[0])  # one name is not a sequence of its letters
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, (origin, set, frozenset, np.ndarray)):
        return "", value
    if isinstance(value, Iterator):
        return None
    return _first((f"[{at}]", one, arguments[0]) for at, one in enumerate(value))


def _first(parts: Iterable[tuple[str, Any, Any]]) -> tuple[str, Any] | None:
    for place, one, inner in parts:
        if (wrong := _unlike(one, inner)) is not None:
            return place + wrong[0], wrong[1]
    return None


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if getattr(kind, "_is_protocol", False):
        return not isinstance(value, type) and all(hasattr(value, member) for member in _members(kind))
    return isinstance(value, kind)


def _members(protocol: Any) -> list[str]:
    return [name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")]


def _in_words(annotation: Any) -> str:
    """A type as it would be said: ``a text, a path or None``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        *most, last = dict.fromkeys(_in_words(one) for one in arguments)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        return f"a pair of {' and '.join(_in_words(one) for one in arguments)}"
    if origin is not None and origin not in _WORDS and issubclass(origin, Mapping):
        return f"a dict {{{_bare(arguments[0])}: {_bare(arguments[1])}}}"
    if origin in (Iterable, Sequence):
        return f"a list [{_bare(arguments[0])}, ...]"
    kind = types.NoneType if annotation is None else origin or annotation
    return "anything" if kind is Any else _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _bare(annotation: Any) -> str:
    return _in_words(annotation).removeprefix("a ").replace(" a ", " ")


def _shown(value: Any) -> str:
    """A value with its type, short: an array's or a module's text may be pages long."""
    kind = type(value).__name__
    if value is None:
        return "None"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - an object whose own text fails is shown by its type
        return f"of type {kind}"
    return f"{text if len(text) <= 60 else text[:57] + '...'}, of type {kind}"
