"""``mist tune``: chooses how a trained heat map is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mistnn.cli.parsing import Device, Folder, Images, Model, OptionalFolder, Options, parse, renamed

DESCRIPTION = (
    "Chooses how the heat map of a trained model is read: the strength of its softmax, and the window in which only "
    "the largest response is kept. Every combination is measured on validation images by the labels of the training, "
    "never by boxes: the share of objects counted in the right class or, without classes, the reconstruction error. "
    "The model is written with the best combination; its weights stay unchanged. This is for MIST's own networks, "
    "supervised or not, and for the channel-wise baseline, whose strength is that of its soft-argmax. `mist reproduce` "
    "reads all rows of Tables 1, 2, 3 and 5 that have a strength in this way."
)


@dataclass(frozen=True)
class Tune(Options):
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        out: folder for the tuned model.
        images: how many validation images.
        strengths: strengths of the softmax to try; those that `mist reproduce` tries for such a model if not given.
        windows: sides of the suppression window to try, in pixels, odd; likewise.
        data_root: the folder that holds the images' files. For MNIST, the environment variable MIST_DATA also names it.
        force: replace what an earlier search left in the output folder.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    model: Model
    out: Folder
    images: Images = 300
    strengths: tuple[float, ...] = ()
    windows: tuple[int, ...] = ()
    data_root: OptionalFolder = None
    device: Device = "auto"
    force: bool = False


def run(arguments: Sequence[str]) -> int:
    """Tries all combinations and writes the best."""
    request = parse(Tune, renamed(arguments, "--data.root", "--data-root"), "mist tune", DESCRIPTION)
    from mistnn.experiments.readout import tune_readout

    tune_readout(
        request.model,
        request.out,
        request.images,
        request.strengths or None,
        request.windows or None,
        root=request.data_root,
        device=request.device,
        force=request.force,
    )
    print(f"The best combination is in {request.out}.")
    return 0
