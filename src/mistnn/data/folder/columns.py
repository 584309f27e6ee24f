"""Which columns of a table hold counts: spreadsheets also have sizes, numbers of rows, places and times.

Convention: a column is judged by its name and by its values. A name with the word "count" is always that of a class.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

FILE_WORDS = ("file", "filename", "image", "imagename", "name")
"""Names of the column with the images. A further column with such a name is no class."""

MEASURES = frozenset(
    "area circularity concentration confluence confluency coordinate cost depth diameter feret filename height id "
    "identifier idx index intensity latitude length longitude percent percentage perimeter price radius resolution "
    "size solidity std timestamp uuid unnamed viability volume width".split()
)
"""A column with one of these words, or a percent sign, in its name is no class (our choice)."""

CONTEXTS = frozenset(
    "acquisition age angle aspect batch block channel col column date datetime day dilution dose experiment "
    "exposure field file fold folder fov frame gain hour iso lab lane magnification max mean median minute month "
    "passage path patient ph plate plot position quality rating rep replicate row run sample scale scan score sequence "
    "series session sex site slice slide stage station subject temp temperature threshold time transect tray version "
    "weight well year zoom".split()
)
"""A column whose name has only these words and ``QUALIFIERS`` is no class (our choice)."""

MARKS = frozenset(
    "blurred blurry check checked discard done exclude excluded flag flagged include included ok qc reviewed usable "
    "valid".split()
)
"""The same for columns that say whether an image is to be used (our choice)."""

IMAGES = frozenset("field file frame image img photo photograph picture shot tile".split())
"""What a count may be given per: a column with "per" and another word, such as "cells per ml", is no class."""

THINGS = frozenset({"block", "plate", "slide", "station", "tray", "well"})
"""Those of ``CONTEXTS`` that may also be objects in an image."""

QUALIFIERS = frozenset(
    "a average avg c celsius cm first h image img in kg last m min mm ms name no nr num number of per px pixel s sec "
    "taken the total um x y z".split()
)

AXES = frozenset({"x", "y", "z", "w", "h"})
"""Columns of one letter are no classes if at least two of them are these, and none is another letter (our choice)."""

TOTALS = frozenset({"all", "altogether", "combined", "count", "n", "number", "object", "overall", "sum", "total"})
MISSING = frozenset({"", "-", "?", "n/a", "na", "nan", "none", "null", "unknown"})

FEW_ROWS = 5
"""With fewer rows, whole numbers are taken for counts whatever they are (our choice)."""
CONSTANT_LEAST = 10
"""A number that stands in every row is no count from here on (our choice): it is a size or a setting."""
GROUPS_LEAST = 3
"""Fewer numbers that grow from row to row may be counts (our choice)."""
COUNT_DIGITS = 6
"""A larger number is an identifier or a date (our choice)."""

LIKELY = 0.01
"""Two classes agree by chance if that is more likely than this, for all that are compared together (our choice)."""
CLOSE_LEAST = 8
"""In fewer images, two classes may have close numbers by chance (our choice)."""
CLOSE_SHARE = 0.8
"""Of the images, for two classes that are close, or one that is a sum (our choice)."""
CLOSE_BY_CHANCE = 0.5
"""Small numbers are close anyway: the share of images, paired at random, up to which closeness says something."""
MOST_SUMMED = 8
"""With more classes, sums of some of them are not looked for: there are too many (our choice)."""
SUM_LEAST = 5
"""In fewer images, a class may be the sum of some others by chance (our choice)."""

_PER_UNIT = re.compile(
    r"(?:[^\W\d_]{3,}\W*|[0-9]\s*)/\s*[0-9.,]*\s*"
    r"(?:[kcdmµμun]?m(?:\^?[23]|[²³])|[kcdmµμun][lgm]|[lghms]|ha|hpa|sec|second|min|minute|hr|hour|day|week|month|year)s?"
    r"(?![^\W_])",
    re.IGNORECASE,
)  # cells/ml, CFU / 100 µl, 10^6/l, colonies/cm2; but not live/dead, f/m, cells/image
_COUNT = re.compile(r"\+?([0-9]+)(?:[.,]0*)?")
_FRACTION = re.compile(r"[+-]?[0-9]*[.,][0-9]+(?:e[+-]?[0-9]+)?|[+-]?[0-9]+e[+-]?[0-9]+", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")


def not_counts(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The columns that hold no counts, each with the reason; the values are as written, one per row.

    Left out are: columns whose name is that of a measure, an identifier, a place, a time or an image; columns without a
    value; columns where two values or more, and a fifth of them, are no counts (text, fractions, negative or huge
    numbers); columns of consecutive numbers; of groups numbered 1, 1, 2, 2, 2, 3; of one number in every row; and a
    total of the other columns. The last four need ``FEW_ROWS``, and no column is left out for its values if none would
    remain: the values themselves are then refused.
    """
    letters = {name for name in columns if len(name) == 1 and name.isalpha()}
    axes = letters if len(letters) > 1 and all(name.lower() in AXES for name in letters) else set()
    left = {name: _by_its_name(name, columns[name]) for name in columns if name in axes or named_otherwise(name)}
    others = {name: values for name, values in columns.items() if name not in left}
    judged = {name: values for name, values in others.items() if "count" not in _words(name)}
    bad = {name: why for name, values in judged.items() if (why := _no_counts(values))}
    if len(bad) == len(others):
        return left
    others = {name: values for name, values in others.items() if name not in bad}
    odd = {name: why for name in others if name in judged and (why := _no_variable(others[name]))}
    if len(odd) == len(others):
        odd = {}
    others = {name: values for name, values in others.items() if name not in odd}
    total = total_of(others)
    found = left | bad | odd | ({} if total is None else {total: "the sum of the others"})
    return {name: found[name] for name in columns if name in found}


def explained(left: Mapping[str, str], example: str) -> str:
    """The columns that are left out and how to keep one, for a message."""
    listing = ", ".join(f"{name!r} ({why})" for name, why in left.items())
    return f"{listing}; to keep one, call it {f'{next(iter(left))} count'!r}, or write rows of {example}"


def _words(name: str) -> list[str]:
    """The words of a name in lower case; also of "imageWidth" and "width_px". A plural becomes a singular."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", apart.lower())
    return [word[:-1] if word.endswith("s") and word not in MEASURES else word for word in words]


def named_otherwise(name: str) -> bool:
    """Whether a name is that of a measure, an identifier, a place, a time or an image."""
    words = _words(name)
    if "count" in words:
        return False
    telling = [word for word in words if word not in QUALIFIERS and not word.isdigit()]
    of_images = bool(words) and set(FILE_WORDS).issuperset(words)
    per = any(one == "per" and other not in IMAGES for one, other in itertools.pairwise(words))
    amount = per or "%" in name or _PER_UNIT.search(name) is not None
    return (
        amount or of_images or bool(MEASURES & set(words)) or (bool(telling) and (CONTEXTS | MARKS).issuperset(telling))
    )


def _by_its_name(name: str, values: Sequence[str]) -> str:
    """The reason, which says so if the values could be counts and the name that of ``THINGS``, such as trays."""
    varied = bool(THINGS & set(_words(name))) and len(values) >= FEW_ROWS and len(set(values)) > 1
    could = varied and not _no_counts(values) and not _no_variable(values)
    return "by its name, although its values could be counts" if could else "by its name"


def _no_counts(values: Sequence[str]) -> str:
    """Why the values of a column are no counts; empty if they are."""
    filled = [value for value in values if value.lower() not in MISSING]
    if not filled:
        return "empty"
    whys = [(value, _no_count(value)) for value in filled]
    if any(why == "a fraction" for _, why in whys):  # then 1.234 isn't 1234 either
        whys = [(value, "a fraction" if _THOUSANDS.fullmatch(value) else why) for value, why in whys]
    bad = [(value, why) for value, why in whys if why]
    if len(bad) == len(filled) or (len(bad) > 1 and 5 * len(bad) >= len(filled)):
        value, why = bad[0]
        return f"{value[:20]!r} is {why}"
    return ""


def _no_count(value: str) -> str:
    if match := _COUNT.fullmatch(value):
        return "" if len(match.group(1).lstrip("0")) <= COUNT_DIGITS else "too large"
    if _THOUSANDS.fullmatch(value):
        return ""
    if value.startswith("-") and (_FRACTION.fullmatch(value) or value[1:].isdigit()):
        return "negative"
    return "a fraction" if _FRACTION.fullmatch(value) else "text"


def _no_variable(values: Sequence[str]) -> str:
    """Why whole numbers are no counts of objects; empty if they may be."""
    matches = [_COUNT.fullmatch(value) for value in values]
    numbers = [int(match.group(1)) for match in matches if match is not None]
    if len(numbers) < max(FEW_ROWS, len(values)):
        return ""
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return "consecutive numbers"
    if _are_groups(numbers):
        return "numbers of groups"
    return f"{numbers[0]} in every row" if len(set(numbers)) == 1 and numbers[0] >= CONSTANT_LEAST else ""


def _are_groups(numbers: Sequence[int]) -> bool:
    """Whether whole numbers are those of groups of rows: they begin with 0 or 1, grow by 1, and each is repeated."""
    sizes = [(number, len(list(rows))) for number, rows in itertools.groupby(numbers)]
    first = sizes[0][0]
    in_order = first in (0, 1) and [number for number, _ in sizes] == list(range(first, first + len(sizes)))
    return in_order and len(sizes) >= GROUPS_LEAST and all(size > 1 for _, size in sizes[:-1])


def total_of(columns: Mapping[str, Sequence[str]]) -> str | None:
    """The column that is called a total and is the sum of the others, in ``FEW_ROWS`` or more, of values as written."""
    return next((name for name in columns if _is_total(name, columns)), None)


def _is_total(name: str, columns: Mapping[str, Sequence[str]]) -> bool:
    if len(columns) < 3 or not TOTALS.intersection(_words(name)):
        return False
    matches = {one: [_COUNT.fullmatch(value) for value in values] for one, values in columns.items()}
    if not all(all(row) for row in matches.values()) or len(columns[name]) < FEW_ROWS:
        return False
    numbers = {one: [int(match.group(1)) for match in row if match] for one, row in matches.items()}
    return numbers.pop(name) == [sum(row) for row in zip(*numbers.values(), strict=True)]


class Agreement(NamedTuple):
    """How often a class has the number, or nearly the number, of another class or of a sum."""

    classes: tuple[int, ...]  #: The other classes.
    same: int  #: In how many images.
    images: int  #: Of how many, that hold any of the classes.


def closeness(first: Int[np.ndarray, " images"], second: Int[np.ndarray, " images"], compared: int) -> Agreement | None:
    """Whether two classes have close numbers more often than by chance, as of two people who counted the same objects.

    Close are numbers that are 1 or 10 % apart (our choice). By chance means: if the numbers of one class are given to
    other images. ``compared`` is how many pairs of classes are.
    """
    held = (first > 0) | (second > 0)
    first, second = first[held], second[held]
    close = np.abs(first - second) <= np.maximum(1, 0.1 * np.maximum(first, second))
    if len(first) < CLOSE_LEAST or close.mean() < CLOSE_SHARE or len(np.unique(first[close])) <= 3:
        return None
    (one, one_many), (other, other_many) = (np.unique(values, return_counts=True) for values in (first, second))
    may = np.abs(one[:, None] - other) <= np.maximum(1, 0.1 * np.maximum(one[:, None], other))
    paired = int((may * one_many[:, None] * other_many).sum())
    chance = _chance(paired - int(close.sum()), len(first))
    likely = _tail(int(close.sum()), len(first), chance) * compared > LIKELY
    return None if chance > CLOSE_BY_CHANCE or likely else Agreement((), int(close.sum()), len(first))


def sum_of_some(numbers: Int[np.ndarray, "images classes"], place: int) -> Agreement | None:
    """The other classes, some but not all, that the class at a place is the sum of.

    Of several sums, it is that which fits most images, of the fewest classes. Sums that fit by chance are none.
    """
    many = numbers.shape[1]
    others = [one for one in range(many) if one != place]
    if not 3 < many <= MOST_SUMMED or (numbers[:, place] > 0).sum() < SUM_LEAST:
        return None
    found = []
    subsets = [some for size in range(2, many - 1) for some in itertools.combinations(others, size)]
    for some in subsets:
        parts, whole = numbers[:, some], numbers[:, place]
        sums = parts.sum(axis=1)
        held, same = (sums > 0) | (whole > 0), (sums == whole) & (whole > 0)
        fits = int(same.sum())
        if fits < max(SUM_LEAST, CLOSE_SHARE * held.sum()) or not (parts[same] > 0).any(axis=0).all():
            continue
        if len(set(whole[same].tolist())) > 2 and ((parts[same] > 0).sum(axis=1) > 1).any():
            pairs = Counter(sums[held].tolist())
            paired = sum(pairs[one] for one in whole[held].tolist())
            chance = _chance(paired - fits, int(held.sum()))
            if _tail(fits, int(held.sum()), chance) * len(subsets) * many <= LIKELY:
                found.append(Agreement(some, fits, int(held.sum())))
    return max(found, key=lambda one: (one.same / one.images, -len(one.classes)), default=None)


def _chance(agreeing: int, images: int) -> float:
    """The share of all pairs of different images that agree, with one more: a few images don't prove that none does."""
    pairs = images * (images - 1)
    return min(1.0, (agreeing + 1) / (pairs + 1))


def _tail(successes: int, trials: int, chance: float) -> float:
    """The probability of at least so many successes."""
    if chance >= 1:
        return 1.0
    log = [math.lgamma(trials + 1) - math.lgamma(n + 1) - math.lgamma(trials - n + 1) for n in range(trials + 1)]
    terms = (log[n] + n * math.log(chance) + (trials - n) * math.log1p(-chance) for n in range(successes, trials + 1))
    return sum(map(math.exp, terms))
