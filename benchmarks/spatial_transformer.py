"""The spatial transformer's grid generator and sampler against the usual ways to write them.

    python -m benchmarks.spatial_transformer [--json FILE] [--threads N] [--rounds N] [--batch 256] [--size 42]

Contract:
    * Forward and backward, from parameters and images to both gradients, in float32. The localisation network is left
      out, since it is the same everywhere: a whole model gains less than these ratios.
    * Affine and attention are compared with ``torch.nn.functional.affine_grid`` and ``grid_sample``; projective with
      homogeneous points times a 3 x 3 matrix; thin plate spline with the plain form, which solves the system for each
      image and evaluates the kernel at each pixel (torch and torchvision have none).
    * If kornia is installed (``pip install kornia``), its ``homography_warp`` and ``warp_image_tps`` are timed too.
    * All ways get the same parameters and images, and their outputs are compared (1e-3) before the timing; not that of
      kornia's spline, which passes through the same points but differs between them. ``ratios`` = other way / ours.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import Options, alternate, print_and_write, spread
from mistnn.nn.spatial_transformer import Kind, SpatialTransformer, TransformConfig
from mistnn.ops.transforms import REGULARISATION, control_lattice

Way = Callable[[Tensor, Tensor], Tensor]
"""From images and parameters (minus those of the identity) to the sampled output."""
KINDS: tuple[Kind, ...] = ("affine", "attention", "projective", "tps")
SPREAD, TOLERANCE = 0.05, 1e-3
"""Standard deviation of the parameters around the identity; largest difference of the outputs."""


class Given(nn.Module):
    """A localisation network that returns given parameters."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.last = nn.Linear(1, count)
        self.parameters_given = torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        return self.parameters_given


def ours(kind: Kind, size: int) -> Way:
    config = TransformConfig(kind)
    transformer = SpatialTransformer(given := Given(config.parameters), config, (size, size))

    def read(images: Tensor, offsets: Tensor) -> Tensor:
        given.parameters_given = offsets
        return transformer(images)

    return read


def usual(kind: Kind, size: int) -> Way:
    start = TransformConfig(kind).start().float()

    def affine(images: Tensor, offsets: Tensor) -> Tensor:
        theta = rows_of(kind, offsets + start)
        grid = F.affine_grid(theta.view(-1, 2, 3), [len(images), 1, size, size], align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    def projective(images: Tensor, offsets: Tensor) -> Tensor:
        theta = torch.cat((offsets + start, torch.ones(len(offsets), 1)), 1).view(-1, 3, 3)
        at = torch.cat((pixels(size), torch.ones(size * size, 1)), 1)
        seen = at @ theta.transpose(1, 2)
        grid = (seen[..., :2] / seen[..., 2:]).view(-1, size, size, 2)
        return F.grid_sample(images, grid, align_corners=False)

    def spline(images: Tensor, offsets: Tensor) -> Tensor:
        targets = (offsets + start).view(len(offsets), -1, 2)
        control = control_lattice().float().expand_as(targets)
        weights = torch.linalg.solve(system(control), F.pad(targets, (0, 0, 0, 3)))
        at = pixels(size).expand(len(offsets), -1, -1)
        basis = torch.cat((kernel(at, control), torch.ones(*at.shape[:2], 1), at), 2)
        return F.grid_sample(images, (basis @ weights).view(-1, size, size, 2), align_corners=False)

    return {"projective": projective, "tps": spline}.get(kind, affine)


def kornia(kind: Kind, size: int) -> Way:
    """Kornia's way; its frame has -1 and 1 at the centres of the outermost pixels in all versions."""
    warps = importlib.import_module("kornia.geometry.transform")
    start = TransformConfig(kind).start().float()
    wider = size / (size - 1)  # from the frame of the parameters to kornia's
    widen, shrink = (torch.diag(torch.tensor([by, by, 1.0])) for by in (wider, 1 / wider))
    last = {"projective": torch.ones(1)}.get(kind, torch.tensor([0.0, 0.0, 1.0]))

    def homography(images: Tensor, offsets: Tensor) -> Tensor:
        theta = rows_of(kind, offsets + start)
        theta = torch.cat((theta, last.expand(len(theta), -1)), 1).view(-1, 3, 3)
        return warps.homography_warp(images, widen @ theta @ shrink, (size, size), align_corners=True)

    def spline(images: Tensor, offsets: Tensor) -> Tensor:
        targets = wider * (offsets + start).view(len(offsets), -1, 2)
        control = wider * control_lattice().float().expand_as(targets)
        weights, affine = warps.get_tps_transform(control, targets)
        return warps.warp_image_tps(images, targets, weights, affine, align_corners=True)

    return spline if kind == "tps" else homography


def rows_of(kind: Kind, theta: Tensor) -> Tensor:
    """The elements of the affine matrix, row by row; attention has the parameters (s, x, y)."""
    if kind != "attention":
        return theta
    zero = torch.zeros_like(theta[:, 0])
    return torch.stack((theta[:, 0], zero, theta[:, 1], zero, theta[:, 0], theta[:, 2]), 1)


def pixels(size: int) -> Tensor:
    """Centres of all pixels, row by row, in the normalised frame."""
    line = (torch.arange(size) * 2 + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), -1).view(-1, 2)


def kernel(points: Tensor, control: Tensor) -> Tensor:
    """r^2 log r^2 of all pairs."""
    squared = (points[:, :, None] - control[:, None]).square().sum(-1)
    return squared * squared.clamp(min=1e-12).log()


def system(control: Tensor) -> Tensor:
    """The spline's system, one for each image."""
    batch, count, _ = control.shape
    affine = torch.cat((torch.ones(batch, count, 1), control), 2)
    top = torch.cat((kernel(control, control) + REGULARISATION * torch.eye(count), affine), 2)
    return torch.cat((top, F.pad(affine.transpose(1, 2), (0, 3))), 1)


def measure(kind: Kind, batch: int, size: int, rounds: int, warm_up: int) -> dict[str, object]:
    """Seconds of each way for one transform, and the ratios."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, size, size, generator=random).requires_grad_()
    offsets = SPREAD * torch.randn(batch, TransformConfig(kind).parameters, generator=random)
    offsets.requires_grad_()
    ways: dict[str, Way] = {"ours": ours(kind, size), "usual": usual(kind, size)}
    if importlib.util.find_spec("kornia"):
        ways["kornia"] = kornia(kind, size)
    expected = ways["ours"](images, offsets)
    for name, way in ways.items():
        difference = float((way(images, offsets) - expected).detach().abs().max())
        if difference > TOLERANCE and (kind, name) != ("tps", "kornia"):  # its kernels lie at the targets
            raise SystemExit(f"{kind}: {name} differs from ours by up to {difference:.3g}")
    weight = torch.rand(expected.shape, generator=random)

    def both(way: Way, _: int) -> None:
        torch.autograd.grad(way(images, offsets), (images, offsets), weight)

    seconds = alternate({name: partial(both, way) for name, way in ways.items()}, rounds, warm_up)
    found = {name: spread(times) for name, times in seconds.items()}
    ratios = {name: spent["median"] / found["ours"]["median"] for name, spent in found.items() if name != "ours"}
    return {"kind": kind, "ratios": ratios, "seconds": found}


def main() -> None:
    options = Options(__doc__, os.cpu_count() or 1)
    options.size("batch", 256, 2, "images per round")
    options.size("size", 42, 7, "side of the images in pixels", least=2)
    options.size("rounds", 30, 1, "measured rounds")
    options.size("warm-up", 5, 0, "rounds before them", least=0)
    given = options.parse()
    runs = [measure(kind, given.batch, given.size, given.rounds, given.warm_up) for kind in KINDS]
    result = {"runs": runs, "kornia": version("kornia") if importlib.util.find_spec("kornia") else None}
    print_and_write(result, given, "batch", "size", "rounds", "threads")


if __name__ == "__main__":
    main()
