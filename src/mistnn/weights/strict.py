"""Configurations on disk, read strictly: no unknown key, no missing key, no silently converted value."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.v import transform_error

from mistnn.weights.added import ADDED

T = TypeVar("T")


@functools.cache
def strict_converter() -> cattrs.Converter:
    """The converter between configuration classes and JSON; do not register hooks on it, it is shared.

    Convention: an extra key is an error. A plain value has to be of the very type its field has, except that a whole
    number may stand for a float: by default cattrs would read the text "false" as the truth value true.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, functools.partial(_plain, kind))
    converter.register_structure_hook_factory(_is_choice, functools.partial(_choice_hook, converter))
    return converter


def _is_choice(kind: Any) -> bool:
    """Whether a type is one configuration class or another."""
    parts = get_args(kind)
    return len(parts) > 1 and all(dataclasses.is_dataclass(part) for part in parts)


def _choice_hook(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """Reads one of several configuration classes: the one whose fields differ least from what is stored.

    An unknown or missing key is then complained about as one of that class.
    """
    parts = get_args(kind)

    def read(content: Any, _: Any) -> Any:
        return converter.structure(content, _nearest(content, parts))

    return read


def _nearest(content: Any, parts: Sequence[type]) -> type:
    """Of several configuration classes the one whose fields differ least from what is stored."""
    keys = set(content) if isinstance(content, dict) else set()
    return min(parts, key=lambda part: len(keys ^ _names(part)))


def _names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def structure_whole(content: Any, kind: type[T]) -> T:
    """Reads a stored configuration in which every field must be: a default is for people, not for files.

    A field that a class gained later may be missing, see ``mistnn.weights.added``.

    Raises:
        cattrs.BaseValidationError: on an unknown key or a value of another type.
        ValueError: on a missing key, naming it.
    """
    converter = strict_converter()
    content = completed(content, kind)
    read = converter.structure(content, kind)
    missing = _missing(content, converter.unstructure(read), "")
    if missing:
        raise ValueError(f"missing key {missing[0]!r}")
    return read


def completed(content: Any, kind: Any) -> Any:
    """A stored configuration with the fields that its classes have gained since, at the values that change nothing.

    Args:
        content: as JSON has it; anything that is no configuration comes back as it is.
        kind: its class, or several of which it is one.
    """
    if _is_choice(kind):
        kind = _nearest(content, get_args(kind))
    if not isinstance(content, dict) or not dataclasses.is_dataclass(kind):
        return content
    hints = get_type_hints(kind)
    whole = {**ADDED.get(getattr(kind, "__name__", ""), {}), **content}
    return {name: completed(value, hints.get(name)) for name, value in whole.items()}


def _missing(content: Any, whole: Any, place: str) -> list[str]:
    if not isinstance(whole, dict) or not isinstance(content, dict):
        return []
    absent = [place + name for name in whole if name not in content]
    return absent + [
        name for key in whole if key in content for name in _missing(content[key], whole[key], f"{place}{key}.")
    ]


def _plain(kind: type, value: Any, _: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def explain(error: cattrs.BaseValidationError) -> str:
    """What a failed ``structure`` complains about, in one line, each complaint with the place it is about."""
    # cattrs marks the place by "@ $.field"; a reader of JSON needs no "$".
    found = (message.replace(" @ $.", " at ").removesuffix(" @ $") for message in transform_error(error, "$", _say))
    return "; ".join(" ".join(message.split()) for message in found)


def _say(error: BaseException, _: Any) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown key {', '.join(repr(name) for name in sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return f"missing key {error.args[0]!r}"
    if isinstance(error, AttributeError):  # cattrs walks an object that is none
        return f"{error.obj!r} is no object with keys"
    return str(error)
