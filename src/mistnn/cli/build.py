"""``mist build``: the photographs of PASCAL+COCO and full VOC07, from copies of VOC 2007 and COCO."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import Folder, OptionalNumber, OptionalPath, Options, parse
from mistnn.cli.screen import progress_bar
from mistnn.config import one_of
from mistnn.data.photographs.published import VOC_CLASSES
from mistnn.errors import MistError

DESCRIPTION = """\
Makes a folder of photographs for training and tests, filtered and cropped as in MIST (CVPR 2021).

  pascal-coco  section 5.2: photographs of VOC 2007 and COCO with objects of VOC's twenty classes, without those
               whose objects are too large, wide or narrow; cropped so that objects cover about 30 %
  voc07        supplement, section E: all of VOC 2007, whole images, with its own splits

--voc is VOCdevkit/VOC2007 (JPEGImages/, Annotations/, ImageSets/Main/), --coco a folder with
annotations/instances_*.json beside the folders of images. Both are only read; nothing is downloaded. OUT holds \
images/, boxes.json, counts.csv, split.csv and dataset.json, which lists every filter, what it dropped, and the \
SHA-256 of the split. For other filters see mistnn.data.photographs.build.BuildConfig."""


@dataclass(frozen=True)
class Build(Options):
    """The arguments.

    Attributes:
        name: pascal-coco or voc07.
        out: folder to create; an existing one must be empty.
        voc: the folder of VOC 2007.
        coco: the folder of COCO, for pascal-coco.
        classes: the classes to keep; all twenty if not given.
        most_images: at most this many images, drawn at random; the paper's number if not given, 0 for all.
        seed: of the crops and of the split.
    """

    name: Annotated[Literal["pascal-coco", "voc07"], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    out: Folder
    voc: OptionalPath = None
    coco: OptionalPath = None
    classes: tuple[Annotated[str, one_of(*VOC_CLASSES)], ...] = VOC_CLASSES
    most_images: OptionalNumber = None
    seed: int = 0

    def check(self) -> None:
        """Checks that the sources are those of the data set."""
        if self.name == "voc07" and self.coco is not None:
            raise MistError(f"--coco {self.coco}: voc07 is VOC 2007 alone; leave it out, or build pascal-coco")
        if self.voc is None and self.coco is None:
            raise MistError("no source was given: name --voc DIR" + (" and --coco DIR" * (self.name != "voc07")))


def run(arguments: Sequence[str]) -> int:
    """Builds the folder and prints what was kept and what was dropped."""
    request = parse(Build, arguments, "mist build", DESCRIPTION)
    from mistnn.data.photographs.build import PASCAL_COCO, VOC07, build_photographs

    base = PASCAL_COCO if request.name == "pascal-coco" else VOC07
    most = base.most_images if request.most_images is None else request.most_images
    config = dataclasses.replace(base, classes=request.classes, most_images=most, seed=request.seed)
    with progress_bar("building") as progress:
        built = build_photographs(request.name, config, request.out, request.voc, request.coco, progress)
    for reason, many in built.dropped.items():
        print(f"dropped {many:,}: {reason}")
    parts = ", ".join(f"{many:,} {split}" for split, many in built.images.items())
    print(
        f"{sum(built.images.values()):,} images ({parts}) in {request.out}; objects cover {built.covered:.0%} of them"
    )
    print(f"SHA-256 of the split: {built.digest}")
    return 0
