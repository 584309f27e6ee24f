"""Which attribute of VIA holds the class of an object, where none is called so.

Convention: the attributes of an object are texts; an empty one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mistnn.data.folder.columns import FEW_ROWS, named_otherwise
from mistnn.data.text_files import listed

CLASS_WORDS = ("class", "label", "name", "type")
"""An attribute with one of these names holds the class; the first one counts."""

Attributes = Mapping[str, str]  #: Of an object: name -> value.


def class_attribute(images: Sequence[Sequence[Attributes]]) -> tuple[str, str]:
    """The attribute that is taken for the class, and a note; both may be empty.

    Left out are attributes that number the objects: by consecutive numbers in each image, or by a value of its own for
    each object. Fewer than ``FEW_ROWS`` objects prove nothing, so such an attribute only comes last. Of the others,
    those whose values repeat come first, then those whose name is not that of a measure or an identifier, then those
    that most objects have; of equal ones, the first.

    Args:
        images: of each image, the attributes of each object.
    """
    names = list(dict.fromkeys(name for objects in images for one in objects for name in one))
    if not names:
        return "", ""
    values = {name: [[one[name] for one in objects if one.get(name)] for objects in images] for name in names}
    fit = {name: rank for name in names if (rank := _rank(name, values[name])) is not None}
    if not fit:
        note = f"attributes of VIA ({listed(names)}) are empty or number the objects, which are therefore of one class"
        return "", f"{note}: rename the one with the classes to class in VIA"
    chosen = max(fit, key=lambda name: fit[name])
    others = [name for name in names if name != chosen]
    note = f"attribute {chosen!r} of VIA is taken for the class, not {listed(others)}"
    return chosen, f"{note}: to choose another, rename it to class in VIA" if others else ""


def _rank(name: str, images: Sequence[Sequence[str]]) -> tuple[bool, bool, bool, int] | None:
    """How well an attribute fits a class, the larger the better; ``None`` if it numbers the objects or is empty."""
    values = [value for objects in images for value in objects]
    repeats, numbering = len(set(values)) < len(values), _is_numbering(images)
    if not values or (len(values) >= FEW_ROWS and (numbering or not repeats)):
        return None
    return not numbering, repeats, not named_otherwise(name), len(values)


def _is_numbering(images: Sequence[Sequence[str]]) -> bool:
    """Whether the values are consecutive numbers in each image, and one has two or more objects."""
    if not all(value.isascii() and value.isdigit() and len(value) < 10 for objects in images for value in objects):
        return False
    numbers = [sorted(int(value) for value in objects) for objects in images if objects]
    running = all(found == list(range(found[0], found[0] + len(found))) for found in numbers)
    return running and any(len(found) > 1 for found in numbers)
