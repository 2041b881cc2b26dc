"""Reading dataclasses from JSON or TOML that may be hand-edited or damaged."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Union

from restorert.errors import InputError, printable

Scalar = str | int | float | None
Facts = dict[str, Scalar | list[Scalar]]
"""A table of scalars and lists of scalars."""


def read_record(
    record: type,
    raw: object,
    *,
    converters: Mapping[str, Callable[[Any], Any]] | None = None,
    keys: Mapping[str, str] | None = None,
    prefix: str = "",
    ignore: tuple[str, ...] | None = (),
) -> dict[str, Any]:
    """A dataclass's constructor arguments from a mapping, each checked against its annotation.

    Args:
        record: the dataclass. Its annotations are str, int, float, None, tables and lists of them.
        raw: the parsed JSON or TOML.
        converters: field -> function that converts the raw value, used instead of the check; it
            raises InputError.
        keys: field -> its key in ``raw``, if the two differ.
        prefix: prepended to keys in messages.
        ignore: further keys that are allowed; None allows any.

    Raises:
        InputError: not a mapping, or a key is missing, unknown or has a value of the wrong type;
            the message names the key.
    """
    if not isinstance(raw, dict):
        raise InputError(f"{prefix.removesuffix('.') or 'it'} must be a table")
    known = {(keys or {}).get(f.name, f.name): f for f in dataclasses.fields(record)}
    for key in raw:
        if key not in known and ignore is not None and key not in ignore:
            shown = printable(repr(prefix + key)[:60])
            raise InputError(f"unknown key {shown}; expected {', '.join(sorted(known))}")
    hints = typing.get_type_hints(record)
    values: dict[str, Any] = {}
    for key, field in known.items():
        if key not in raw:
            if field.default is field.default_factory is dataclasses.MISSING:
                raise InputError(f"key {prefix + key!r} is missing")
            continue
        value, hint = raw[key], hints[field.name]
        if converters and field.name in converters:
            values[field.name] = converters[field.name](value)
        else:
            check_value(value, hint, prefix + key)
            values[field.name] = tuple(value) if typing.get_origin(hint) is tuple else value
    return values


def check_value(value: object, hint: Any, key: str) -> None:
    """Raise InputError, naming ``key``, unless ``value`` is of the annotated type."""
    if typing.get_origin(hint) is dict and isinstance(value, dict):
        item_hint = typing.get_args(hint)[1]
        for item, inner in value.items():
            check_value(inner, item_hint, f"{key}.{item}")
    elif not _fits(value, hint):
        raise InputError(f"{printable(key[:100])} must be {_words(hint)}")


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, arguments[1]) for v in value.values())
    if isinstance(value, bool):  # a subclass of int
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


_WORDS = {str: "a string", int: "a whole number", float: "a number", dict: "a table"}


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        said = dict.fromkeys(_words(a) for a in arguments if a is not type(None))
        return " or ".join(said)
    if origin in (list, tuple):
        return f"a list in which each item is {_words(arguments[0])}"
    return _WORDS.get(origin or hint, "a table")
