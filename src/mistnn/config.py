"""Configuration classes that check themselves: each field's rule stands beside its type.

A leaf of the package. A configuration is a frozen dataclass that inherits from ``Config``::

    @dataclass(frozen=True)
    class HeatmapConfig(Config):
        section: ClassVar[str] = "model.heatmap"
        channels: Annotated[int, at_least(1)] = 32
        network: Literal["paper", "released"] = "paper"

Creating one with ``channels=0`` raises ``MistError("model.heatmap.channels=0 must be 1 or more")``.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from mistnn.errors import MistError


class Rule(NamedTuple):
    """What a value must be.

    Attributes:
        holds: whether a value obeys the rule.
        words: completes "must be ..." in the error message.
    """

    holds: Callable[[Any], bool]
    words: str


def at_least(low: float, hint: str = "") -> Rule:
    """The value must be ``low`` or more. ``hint`` is appended to the error message after a colon."""
    return Rule(lambda value: value >= low, _words(f"{low:g} or more", hint))


def above(low: float, hint: str = "") -> Rule:
    """The value must be greater than ``low``."""
    return Rule(lambda value: value > low, _words(f"above {low:g}", hint))


def below(high: float, hint: str = "") -> Rule:
    """The value must be less than ``high``."""
    return Rule(lambda value: value < high, _words(f"below {high:g}", hint))


def between(low: float, high: float, hint: str = "") -> Rule:
    """The value must be from ``low`` to ``high``, both included."""
    return Rule(lambda value: low <= value <= high, _words(f"from {low:g} to {high:g}", hint))


def odd(high: int, hint: str = "") -> Rule:
    """The value must be an odd whole number from 1 to ``high``: a window needs a central pixel."""
    return Rule(lambda value: 1 <= value <= high and value % 2 == 1, _words(f"odd, from 1 to {high}", hint))


def one_of(*choices: object) -> Rule:
    """The value must be one of a few."""
    return Rule(lambda value: value in choices, " or ".join(map(str, choices)))


@dataclass(frozen=True)
class Config:
    """Base of all configuration classes.

    Every field is checked when an instance is created. Without any declaration, a float must be finite and a field of
    a ``Literal`` type must hold one of its values. ``Annotated[type, rule, ...]`` adds rules. Rules apply to each
    element of a tuple; an optional field that is ``None`` is not checked.

    Attributes:
        section: the dotted name under which the user sets the fields, such as "model.heatmap"; used in messages.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Checks each field's rules, then ``check``.

        Raises:
            MistError: naming the field, its value and what it must be.
        """
        for name, rules in _rules(type(self)):
            self._check_value(name, getattr(self, name), rules)
        self.check()

    def check(self) -> None:
        """Checks rules that concern several fields; subclasses override it.

        Raises:
            MistError: naming the fields, their values and the fix.
        """

    def name_of(self, field: str) -> str:
        """The dotted name of a field, as the user writes it."""
        return f"{self.section}.{field}" if self.section else field

    def _check_value(self, name: str, value: Any, rules: tuple[Rule, ...]) -> None:
        if value is None:
            return
        for element in value if isinstance(value, tuple) else (value,):
            for rule in rules:
                if not rule.holds(element):
                    shown = repr(value) if isinstance(value, str) else value
                    raise MistError(f"{self.name_of(name)}={shown} must be {rule.words}")


def _words(words: str, hint: str) -> str:
    return f"{words}: {hint}" if hint else words


@functools.cache
def _rules(kind: type) -> tuple[tuple[str, tuple[Rule, ...]], ...]:
    """The fields of a configuration class that have rules."""
    hints = get_type_hints(kind, include_extras=True)
    fields = getattr(kind, "__dataclass_fields__", {})
    found = ((name, tuple(_rules_of(hints[name]))) for name in fields if get_origin(hints[name]) is not ClassVar)
    return tuple((name, rules) for name, rules in found if rules)


_FINITE = Rule(lambda value: not isinstance(value, float) or math.isfinite(value), "a finite number")


def _rules_of(hint: Any) -> Iterator[Rule]:
    """The rules in a type hint; those of a tuple's elements and of an optional value included."""
    origin = get_origin(hint)
    if hint is float:
        yield _FINITE
    elif origin is Literal:
        yield one_of(*get_args(hint))
    elif origin is Annotated:
        inner, *extras = get_args(hint)
        yield from _rules_of(inner)
        yield from (extra for extra in extras if isinstance(extra, Rule))
    elif origin is tuple or origin is Union or origin is types.UnionType:
        for part in dict.fromkeys(get_args(hint)):
            if part is not Ellipsis and part is not type(None):
                yield from _rules_of(part)
