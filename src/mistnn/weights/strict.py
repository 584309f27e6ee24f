"""Configurations as JSON, read strictly: no unknown key, no missing key, no silently converted value.

A model, step or data configuration is stored with its ``kind``, and read by the class of that kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.v import transform_error

from mistnn import data
from mistnn.interfaces import DataConfig, ModelConfig, TrainingStepConfig
from mistnn.papers import modules

T = TypeVar("T")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}

BASES = (ModelConfig, TrainingStepConfig, DataConfig)
"""The classes whose subclasses are stored with their kind."""


@functools.cache
def classes_of(base: type) -> Mapping[str, type]:
    """The configuration classes of all papers or data sets by their kind; ``base`` is one of ``BASES``.

    Raises:
        ValueError: if two classes have the same kind.
    """
    found = list(data.KINDS)
    if base is not DataConfig:
        papers = modules("mistnn.models")
        found = [kind for each in papers for kind in (each.MODELS if base is ModelConfig else each.STEPS)]
    by_kind = {each.kind: each for each in found}
    if len(by_kind) < len(found):
        twice = [f"{each.__name__} ({each.kind!r})" for each in found if by_kind[each.kind] is not each]
        raise ValueError(f"kinds must be unique among all papers: give another kind to {', '.join(twice)}")
    return by_kind


@functools.cache
def strict_converter() -> cattrs.Converter:
    """The converter between configuration classes and JSON. It is shared: do not register hooks on it.

    Convention: an extra key is an error. A plain value must have exactly the type of its field, except that a whole
    number may stand for a float. (By default cattrs reads the text "false" as the truth value true.)
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, functools.partial(_plain, kind))
    converter.register_structure_hook_factory(_has_kind, functools.partial(_reader, converter))
    converter.register_unstructure_hook_factory(_has_kind, functools.partial(_writer, converter))
    return converter


def structure_whole(content: Any, kind: type[T]) -> T:
    """Reads a stored configuration in which no field may be missing: defaults are for people, not for files.

    Raises:
        cattrs.BaseValidationError: on an unknown key or a value of another type.
        ValueError: on a missing key, with its name.
    """
    converter = strict_converter()
    read = converter.structure(content, kind)
    if missing := next(_missing(content, converter.unstructure(read), ""), None):
        raise ValueError(f"missing key {missing!r}")
    return read


def explain(error: BaseException) -> str:
    """The complaints of a failed ``structure`` in one line, each with the place that it is about."""
    found = transform_error(error, "$", _message) if isinstance(error, cattrs.BaseValidationError) else [str(error)]
    # cattrs marks the place by "@ $.field"; a reader of JSON needs no "$".
    return "; ".join(" ".join(each.replace(" @ $.", " at ").removesuffix(" @ $").split()) for each in found)


def _has_kind(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BASES)


def _reader(converter: cattrs.Converter, declared: type) -> Callable[[Any, Any], Any]:
    """Reads a configuration by the class of its kind."""

    def read(content: Any, _: Any) -> Any:
        if not isinstance(content, Mapping) or "kind" not in content:
            raise ValueError("missing key 'kind'" if isinstance(content, Mapping) else f"{content!r} is not an object")
        base = next(base for base in BASES if issubclass(declared, base))
        known = {declared.kind: declared} if declared not in BASES else classes_of(base)
        if (kind := known.get(content["kind"])) is None:
            raise ValueError(f"kind {content['kind']!r} is unknown: this version knows {', '.join(sorted(known))}")
        fields = {name: value for name, value in content.items() if name != "kind"}
        return make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)(fields, kind)

    return read


def _writer(converter: cattrs.Converter, declared: type) -> Callable[[Any], dict[str, Any]]:
    """Writes a configuration with the kind of its own class, which may be a subclass of the declared one."""

    def write(value: Any) -> dict[str, Any]:
        return {"kind": value.kind, **make_dict_unstructure_fn(type(value), converter)(value)}

    return write


def _missing(content: Any, whole: Any, place: str) -> Iterator[str]:
    if isinstance(whole, dict) and isinstance(content, dict):
        yield from (place + name for name in whole if name not in content)
        for key in (name for name in whole if name in content):
            yield from _missing(content[key], whole[key], f"{place}{key}.")


def _plain(kind: type, value: Any, _: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r} is not {_WORDS[kind]}")
    return value


def _message(error: BaseException, _: Any) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown key {', '.join(repr(name) for name in sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return f"missing key {error.args[0]!r}"
    if isinstance(error, AttributeError):  # cattrs iterates over something that is not an object
        return f"{error.obj!r} is not an object"
    return str(error)
