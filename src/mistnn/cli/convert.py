"""``mist convert``: makes plain images of the stacks that microscopes write."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import TWO_NUMBERS, Folder, Options, parse
from mistnn.cli.screen import progress_bar
from mistnn.data.images import FOREIGN, SUFFIXES, is_hidden
from mistnn.data.stacks import (
    MOST_CHANNELS,
    STACK_SUFFIXES,
    Planes,
    Stack,
    UnusableStack,
    as_png,
    images_of,
    needs_tifffile,
    range_of,
    read_stack,
)
from mistnn.data.text_files import listed
from mistnn.errors import MistError
from mistnn.files import replace_file

SOME_SKIPPED = 1

DESCRIPTION = """\
Makes PNG images of multi-page TIFF, OME-TIFF, ImageJ hyperstacks and LSM files, which all other commands read.

  mist convert stacks --out images                    one channel, or colours: nothing to choose
  mist convert stacks --out images --channels 1       the first channel, as 16-bit grey
  mist convert stacks --out images --channels 3 1     red is the third channel, green the first

PATH... are files, or folders that are searched recursively. Each time of a stack becomes an image. Of several series \
(positions, for example) only the first is converted. Planes are joined by their largest value. All images are scaled \
by the same range of values, in which 99.8 % of the values lie, so that they stay comparable; --range gives another \
one, for images that are added later. The range is printed.

Needs the extra "files": pip install 'mistnn[files]'."""


@dataclass(frozen=True)
class Convert(Options):
    """The arguments.

    Attributes:
        paths: files, or folders.
        out: the folder for the images, created if it is missing.
        channels: one to three channels, from 1.
        planes: max or mean of all planes, or each as an image of its own.
        range: the values that become black and white.
        force: replace images that are there already.
    """

    paths: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...", help_behavior_hint="(required)")
    ]
    out: Folder
    channels: tuple[int, ...] = ()
    planes: Planes = "max"
    range: Annotated[tuple[float, float] | None, TWO_NUMBERS] = None
    force: bool = False


def run(arguments: Sequence[str]) -> int:
    """Converts, and prints what was done and what was skipped."""
    request = parse(Convert, arguments, "mist convert", DESCRIPTION)
    needs_tifffile()
    if len(request.channels) > MOST_CHANNELS:
        raise MistError(f"--channels {' '.join(map(str, request.channels))}: give at most {MOST_CHANNELS}")
    if request.range is not None and request.range[0] >= request.range[1]:
        raise MistError("--range: give the lower value first")
    found = list(_stacks(request.paths))
    skipped: dict[str, str] = {}
    further: dict[str, int] = {}
    kinds: dict[str, str] = {}  # type of the values -> the first stack that has them
    unknown: dict[str, str] = {}
    plain: list[str] = []
    passed = _others(request.paths)
    low, high = _common_range(found, request, skipped) if request.range is None else request.range
    written: dict[Path, Path] = {}
    with progress_bar("writing") as progress:
        for done, (path, name) in enumerate(found, start=1):
            if name not in skipped:
                try:
                    stack = read_stack(path)
                    plain += _write(stack, path, name, request, (low, high), written)
                    further |= {name: stack.further} if stack.further else {}
                    kinds.setdefault(str(stack.values.dtype), name)
                    unknown |= {name: stack.unknown} if stack.unknown and request.planes != "each" else {}
                except UnusableStack as error:
                    skipped[name] = str(error)
            if progress is not None:
                progress(done, len(found))
    used = f"--range {low:.9g} {high:.9g}"
    print(f"{len(written):,} images of {len(found) - len(skipped):,} stacks in {request.out}; {used}")
    for name, why in skipped.items():
        print(f"mist: skipped {name}: {why}", file=sys.stderr)
    for note in (*_type_notes(kinds), *_axis_notes(unknown, request.planes), *_range_notes(plain, used)):
        print(f"mist: {note}", file=sys.stderr)
    for name, number in further.items():
        what = f"series 1 of {number + 1} is converted: positions or sizes that lie in the others are not"
        print(f"mist: {name}: {what}; save each as a file of its own", file=sys.stderr)
    if passed:
        known = [name for name in passed if Path(name).suffix.lower() in FOREIGN]
        fix = "; export those of microscopes as OME-TIFF with the program that wrote them" if known else ""
        print(f"mist: not converted, since they are no stacks: {listed(passed)}{fix}", file=sys.stderr)
    return SOME_SKIPPED if skipped or further else 0


def _type_notes(kinds: Mapping[str, str]) -> Iterator[str]:
    """A note on stacks with values of several types."""
    if len(kinds) > 1:
        examples = ", ".join(f"{kind} ({name})" for kind, name in kinds.items())
        yield (
            f"the stacks have values of several types, {examples}, and are all scaled by one range, which may "
            "make some black: convert each type into a folder of its own"
        )


def _axis_notes(unknown: Mapping[str, str], planes: Planes) -> Iterator[str]:
    """A note on stacks whose pages may be something else than depths."""
    if unknown:
        how = "mean" if planes == "mean" else "largest value"
        name, pages = next(iter(unknown.items()))
        yield (
            f"it is not known what the pages of {listed(list(unknown))} are ({name}: {pages}), so "
            f"they were taken for depths and joined by their {how}; --planes each makes an image of each page"
        )


def _range_notes(plain: Sequence[str], used: str) -> Iterator[str]:
    """A note on images that are all black or all white."""
    if plain:
        yield (
            f"all values of {len(plain)} images lie outside {used} ({listed(plain)}), so they are black or white "
            "everywhere: leave --range out to have it measured"
        )


def _stacks(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The files, and the name of each in the results, without its suffix."""
    seen: dict[str, Path] = {}
    for given in paths:
        if not given.exists():
            raise MistError(f"{given}: no such file or folder")
        inside = sorted(one for one in given.rglob("*") if one.suffix.lower() in STACK_SUFFIXES and one.is_file())
        shown = [one for one in inside if not any(is_hidden(part) for part in one.relative_to(given).parts)]
        files = [given] if given.is_file() else shown
        if given.is_file() and given.suffix.lower() not in STACK_SUFFIXES:
            raise MistError(f"{given} doesn't end in {', '.join(STACK_SUFFIXES)}: other images need no conversion")
        if not files:
            raise MistError(f"{given}: no file in it ends in {', '.join(STACK_SUFFIXES)}")
        for path in files:
            relative = path.relative_to(given) if given.is_dir() else Path(path.name)
            name = relative.with_suffix("").as_posix().removesuffix(".ome")
            if name in seen:
                raise MistError(f"{path} and {seen[name]} would both become {name}.png: convert them one by one")
            seen[name] = path
            yield path, name


def _others(paths: Sequence[Path]) -> list[str]:
    """The images in the folders that aren't converted."""
    return [
        one.relative_to(given).as_posix()
        for given in paths
        if given.is_dir()
        for one in sorted(given.rglob("*"))
        if one.suffix.lower() in (*SUFFIXES, *FOREIGN)
        and one.suffix.lower() not in STACK_SUFFIXES
        and one.is_file()
        and not any(is_hidden(part) for part in one.relative_to(given).parts)
    ]


def _common_range(found: Sequence[tuple[Path, str]], request: Convert, skipped: dict[str, str]) -> tuple[float, float]:
    """The smallest range that holds those of all images."""
    lows, highs = [], []
    with progress_bar("measuring") as progress:
        for done, (path, name) in enumerate(found, start=1):
            try:
                stack = read_stack(path)
                for _, image in images_of(stack, request.channels, request.planes):
                    low, high = range_of(image)
                    lows.append(low)
                    highs.append(high)
            except UnusableStack as error:
                skipped[name] = str(error)
            if progress is not None:
                progress(done, len(found))
    if not lows:
        name, why = next(iter(skipped.items()))
        raise MistError(f"none of {len(found)} stacks can be used; {name}: {why}")
    low, high = min(lows), max(highs)
    return (low, high) if low < high else (low, low + 1)


def _write(
    stack: Stack, path: Path, name: str, request: Convert, limits: tuple[float, float], written: dict[Path, Path]
) -> list[str]:
    """Writes the images of a stack, and notes for each of which stack it is. Returns those outside the range."""
    plain = []
    for ending, image in images_of(stack, request.channels, request.planes):
        target = request.out / f"{name}{ending}.png"
        if target in written:
            raise MistError(f"{path} and {written[target]} would both become {target.name}: convert them one by one")
        if target.exists() and not request.force:
            raise MistError(f"{target} exists already: give another folder with --out, or --force")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, as_png(image, *limits))
        written[target] = path
        lowest, highest = range_of(image)
        if lowest > limits[1] or highest < limits[0]:
            plain.append(f"{target.name}: {lowest:.9g} to {highest:.9g}")
    return plain
