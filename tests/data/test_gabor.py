"""Gabor noise: exact impulses, the loop over the equation, the spectrum and moments of the process, bad settings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mistnn.data import GaborConfig, GaborNoise, Split
from mistnn.data.gabor import Ground, Impulses, gabor_kernel, gabor_noise, tone
from mistnn.errors import MistError
from mistnn.ops.sampling import place_patches
from mistnn.records import Sample, collate
from tests.data.spectrum import analytic_power_spectrum

BLACK = GaborConfig()
GREY = GaborConfig(ground="grey", weights="signs", gain=0.4)
SET = replace(BLACK, orientation_set=(0.0, 1.0, 2.5), frequency=(0.1, 0.2))
POISSON = replace(GREY, density=0.008, min_distance=0.0, margin=0.0)
ALL = pytest.mark.parametrize("config", [BLACK, GREY, SET, POISSON], ids=["black", "grey", "set", "poisson"])
GROUNDS = pytest.mark.parametrize("ground", get_args(Ground))


def boxes_of(sample: Sample) -> torch.Tensor:
    assert sample.boxes is not None
    return sample.boxes


def poisson(random: np.random.Generator, density: float, size: int, reach: float, signs: bool) -> Impulses:
    """A Poisson process on a square of ``size`` pixels and all around it as far as a kernel reaches."""
    count = int(random.poisson(density * (size + 2 * reach) ** 2))
    return Impulses(
        positions=random.uniform(-reach, size + reach, (count, 2)),
        weights=random.choice([-1.0, 1.0], count) if signs else np.ones(count),
        orientations=np.full(count, 0.6),
        frequencies=np.full(count, 0.15),
    )


@ALL
def test_sample(config: GaborConfig) -> None:
    noise = GaborNoise(config, "train", 3)
    sample, impulses = noise[2], noise.impulses(2)
    count = len(impulses.weights)
    assert sample.image.shape == (1, 80, 80) and sample.image.dtype == torch.float32
    assert sample.image.min() >= 0 and sample.image.max() <= 1 and sample.image.std() > 0.05
    assert sample.counts is None and sample.labels is None and noise.class_names == ()
    boxes = boxes_of(sample)
    assert boxes.shape == (count, 4) and boxes.dtype == torch.float32
    np.testing.assert_array_equal(boxes[:, :2].numpy(), impulses.positions.astype(np.float32))
    assert (boxes[:, 2:] == 20).all()
    if not config.density:
        assert count == 30
        assert impulses.positions.min() >= config.margin and impulses.positions.max() <= 80 - config.margin


@ALL
def test_deterministic(config: GaborConfig) -> None:
    noise = GaborNoise(config, "train", None)
    forwards = [noise[index] for index in range(4)]
    again = GaborNoise(config, "train", 4)
    for index in (3, 1, 0, 2):
        assert torch.equal(again[index].image, forwards[index].image)
        assert torch.equal(boxes_of(again[index]), boxes_of(forwards[index]))


def test_seed_split_and_index_matter() -> None:
    base = GaborNoise(BLACK, "train", None)
    places = [
        base.impulses(0).positions,
        base.impulses(1).positions,
        base.impulses(2**40).positions,
        GaborNoise(replace(BLACK, seed=1), "train", None).impulses(0).positions,
        GaborNoise(BLACK, "validation", None).impulses(0).positions,
        GaborNoise(BLACK, "test", None).impulses(0).positions,
    ]
    assert len({each.tobytes() for each in places}) == len(places)


def test_splits_share_no_impulse() -> None:
    used = []
    for split in get_args(Split):
        noise = GaborNoise(BLACK, split, None)
        used.append({tuple(place) for index in range(50) for place in noise.impulses(index).positions.tolist()})
        assert len(used[-1]) == 50 * 30
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_pinned() -> None:
    """The same numbers on every machine: a published image stays the image it was."""
    impulses = GaborNoise(replace(GREY, counts=(2,), frequency=(0.1, 0.2)), "test", None).impulses(7)
    assert impulses.weights.tolist() == [-1, -1]
    np.testing.assert_allclose(impulses.positions, [[59.25775343, 41.76792259], [25.56380431, 32.23192327]], atol=1e-8)
    np.testing.assert_allclose(impulses.orientations, [0.09341331, 2.08332768], atol=1e-8)
    np.testing.assert_allclose(impulses.frequencies, [0.13224018, 0.11353756], atol=1e-8)


def test_kernel_reference() -> None:
    x, y, F, w, a, K = 2.5, -3.25, 0.15, 0.7, 0.1, 1.5
    envelope = K * math.exp(-math.pi * a**2 * (x**2 + y**2))
    wave = math.cos(2 * math.pi * F * (x * math.cos(w) + y * math.sin(w)))
    at = np.array([x, y])
    assert float(gabor_kernel(at, F, w, a, magnitude=K)) == pytest.approx(envelope * wave)
    assert float(gabor_kernel(at, F, w, a, "black", K)) == pytest.approx(envelope * (1 + wave) / 2)


@GROUNDS
def test_kernel_shape(ground: Ground) -> None:
    """The peak is at the impulse, point symmetry holds, and black has nothing below 0."""
    axis = np.linspace(-10, 10, 81)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    kernel = gabor_kernel(grid, 0.15, 0.3, 0.1, ground)
    assert kernel.shape == (81, 81) and kernel[40, 40] == 1 == kernel.max()
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(kernel, gabor_kernel(grid, 0.15, 0.3 + math.pi, 0.1, ground), atol=1e-12)
    assert kernel.min() >= 0 if ground == "black" else kernel.min() < -0.5


def test_orientation_turns_from_x_to_y() -> None:
    """At w = 0 the wave runs along x: half a period to the right it is dark, below it is bright."""
    right, below = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    for orientation, dark, bright in ((0.0, right, below), (math.pi / 2, below, right)):
        assert gabor_kernel(dark, 1 / 6, orientation, 0.05) < -0.9
        assert gabor_kernel(bright, 1 / 6, orientation, 0.05) > 0.9
    slanted = np.array([2.0, 2.0])
    assert gabor_kernel(slanted, 0.15, math.pi / 4, 0.05) < gabor_kernel(slanted, 0.15, -math.pi / 4, 0.05)


@given(
    count=st.integers(0, 3),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    box=st.floats(0.5, 8),
    ground=st.sampled_from(get_args(Ground)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_noise_reference(count: int, height: int, width: int, box: float, ground: Ground, seed: int) -> None:
    random = np.random.default_rng(seed)
    impulses = Impulses(
        random.uniform(-3, 11, (count, 2)),
        random.normal(size=count),
        random.uniform(0, math.tau, count),
        random.uniform(0, 0.5, count),
    )
    expected = np.zeros((height, width))
    for place, weight, orientation, frequency in zip(*impulses, strict=True):
        for row in range(height):
            for column in range(width):
                offset = np.array([column + 0.5, row + 0.5]) - place
                if np.abs(offset).max() <= box / 2:
                    kernel = gabor_kernel(offset, frequency, orientation, 0.1, ground)
                    expected[row, column] += weight * float(kernel)
    np.testing.assert_allclose(gabor_noise(impulses, 0.1, box, height, width, ground), expected, atol=1e-12)


@pytest.mark.parametrize("config", [BLACK, replace(GREY, weights="positive")], ids=["black", "grey"])
def test_one_impulse_peaks_at_its_position(config: GaborConfig) -> None:
    noise = GaborNoise(replace(config, counts=(1,)), "train", None)
    ground = 0.5 if config.ground == "grey" else 0.0
    for index in range(20):
        sample = noise[index]
        x, y, width, height = boxes_of(sample)[0].tolist()
        image = sample.image[0] - ground
        row, column = divmod(int(image.argmax()), 80)
        assert math.hypot(column + 0.5 - x, row + 0.5 - y) < 1.5  # Bars are long: the next pixel along may win.
        assert config.gain * 0.8 < image.max() <= config.gain + 1e-6
        # The squared kernel is symmetric, so its centre of mass is the sub-pixel position.
        mass = image.square()
        middle = torch.arange(80) + 0.5
        assert float((mass.sum(0) * middle).sum() / mass.sum()) == pytest.approx(x, abs=0.05)
        assert float((mass.sum(1) * middle).sum() / mass.sum()) == pytest.approx(y, abs=0.05)
        outside = ((middle - x).abs() > width / 2)[None] | ((middle - y).abs() > height / 2)[:, None]
        assert not image[outside].any() and int((~outside).sum()) == 400


def test_black_is_a_sum_of_placed_patches() -> None:
    """What equation 8 needs: kernels drawn on 32 x 32 patches, placed at the boxes and added, are the image."""
    noise = GaborNoise(BLACK, "train", None)
    assert max(noise.clipped(index) for index in range(50)) == 0
    impulses, sample = noise.impulses(3), noise[3]
    axis = ((np.arange(32) + 0.5) / 32 - 0.5) * 20
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    kernels = [gabor_kernel(grid, 0.15, orientation, 0.1, "black", 0.6) for orientation in impulses.orientations]
    patches = torch.from_numpy(np.stack(kernels)).float()[None, :, None]
    assert patches.min() >= 0 and patches.max() < 1
    rebuilt = place_patches(patches, boxes_of(sample)[None], 80, 80)[0]
    assert (rebuilt - sample.image).square().mean().sqrt() < 0.005  # Bilinear sampling of the patches is all.


@GROUNDS
def test_tone(ground: Ground) -> None:
    values = tone(np.array([-9.0, 0.0, 0.5, 9.0]), ground, 0.4)
    np.testing.assert_allclose(values, [0.0, 0.5, 0.7, 1.0] if ground == "grey" else [0.0, 0.0, 0.2, 1.0])


def test_clipped() -> None:
    loud = GaborNoise(replace(BLACK, gain=1.5), "train", None)
    shares = [loud.clipped(index) for index in range(10)]
    saturated = [float((loud[index].image == 1).double().mean()) for index in range(10)]
    assert 0.03 < np.mean(shares) < 0.3 and shares == pytest.approx(saturated)
    assert GaborNoise(replace(GREY, gain=9.0), "train", None).clipped(0) > 0.3


@GROUNDS
def test_spectrum(ground: Ground) -> None:
    """The mean periodogram of 200 seeded noises agrees with the analytic spectrum.

    Tolerance: the sum of absolute differences is below 12 % of the sum, and the sum, the variance, right within 6 %.
    Chance alone makes 0.8 / sqrt(200), 6 %; the Hann window smooths by a bin, 1 / 64 cycle per pixel.
    """
    size, density, bandwidth, box = 64, 0.02, 0.12, 26.0
    random = np.random.default_rng(11)
    window = np.outer(np.hanning(size + 1)[:-1], np.hanning(size + 1)[:-1])
    window /= np.sqrt((window**2).sum())
    # The mean is the kernel's integral x density x the mean weight, which is 0 for signs.
    mean = density / (2 * bandwidth**2) * (1 + math.exp(-math.pi * 0.15**2 / bandwidth**2)) if ground == "black" else 0
    periodogram = np.zeros((size, size))
    for _ in range(200):
        impulses = poisson(random, density, size, box / 2, signs=ground == "grey")
        noise = gabor_noise(impulses, bandwidth, box, size, size, ground) - mean
        periodogram += np.abs(np.fft.fft2(noise * window)) ** 2 / 200
    axis = np.fft.fftfreq(size)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    expected = analytic_power_spectrum(grid, density, 0.15, 0.6, bandwidth, ground)
    assert np.abs(periodogram - expected).sum() / expected.sum() < 0.12
    assert periodogram.sum() == pytest.approx(expected.sum(), rel=0.06)
    # A wrong angle, frequency or width is outside the tolerance.
    for frequency, orientation, a in ((0.15, -0.6, 0.12), (0.12, 0.6, 0.12), (0.15, 0.6, 0.15)):
        wrong = analytic_power_spectrum(grid, density, frequency, orientation, a, ground)
        assert np.abs(periodogram - wrong).sum() / wrong.sum() > 0.2


@GROUNDS
def test_spectrum_is_the_kernels(ground: Ground) -> None:
    """Without chance: the squared Fourier transform of a finely sampled kernel, and its integral by Parseval."""
    axis = np.arange(-64, 64)
    kernel = gabor_kernel(np.stack(np.meshgrid(axis, axis), axis=-1).astype(float), 0.15, 0.6, 0.08, ground)
    frequencies = np.fft.fftfreq(128)
    grid = np.stack(np.meshgrid(frequencies, frequencies), axis=-1)
    expected = 0.02 * 3.0 * np.abs(np.fft.fft2(kernel)) ** 2
    found = analytic_power_spectrum(grid, 0.02, 0.15, 0.6, 0.08, ground, mean_square_weight=3.0)
    np.testing.assert_allclose(found, expected, atol=1e-9 * expected.max())
    assert found.sum() / 128**2 == pytest.approx(0.02 * 3.0 * (kernel**2).sum())


@GROUNDS
def test_moments(ground: Ground) -> None:
    """Campbell: the mean is density x the kernel's integral, the variance density x that of its square."""
    random = np.random.default_rng(5)
    axis = np.arange(-9.75, 10, 0.5)
    kernel = gabor_kernel(np.stack(np.meshgrid(axis, axis), axis=-1), 0.15, 0.6, 0.1, ground)
    pixels = np.stack([
        gabor_noise(poisson(random, 0.01, 40, 10, signs=False), 0.1, 20, 40, 40, ground) for _ in range(800)
    ])  # fmt: skip
    assert pixels.mean() == pytest.approx(0.01 * kernel.sum() / 4, rel=0.02, abs=0.005)
    assert pixels.var() == pytest.approx(0.01 * (kernel**2).sum() / 4, rel=0.03)
    # The process is the same everywhere: neither the border nor the place on a pixel's raster shows.
    assert pixels.var(axis=0)[:8].mean() == pytest.approx(pixels.var(axis=0)[16:24].mean(), rel=0.1)


def test_poisson_number() -> None:
    noise = GaborNoise(replace(POISSON, margin=10.0), "train", None)
    drawn = np.array([len(noise.impulses(index).weights) for index in range(1500)])
    assert drawn.mean() == pytest.approx(0.008 * 60**2, rel=0.02)
    assert drawn.var() == pytest.approx(0.008 * 60**2, rel=0.12)


def test_counts_are_uniform() -> None:
    noise = GaborNoise(replace(BLACK, counts=(0, 1, 300), min_distance=2.0), "train", None)
    drawn = np.array([len(noise.impulses(index).weights) for index in range(150)])
    assert set(drawn) == {0, 1, 300}
    np.testing.assert_allclose([(drawn == count).mean() for count in (0, 1, 300)], 1 / 3, atol=0.1)


@ALL
def test_positions_cover_the_canvas(config: GaborConfig) -> None:
    noise = GaborNoise(config, "train", None)
    places = np.concatenate([noise.impulses(index).positions for index in range(100)])
    assert abs(places.min() - config.margin) < 0.5 and abs(places.max() - (80 - config.margin)) < 0.5
    quarters = np.bincount((places[:, 0] > 40) * 2 + (places[:, 1] > 40), minlength=4) / len(places)
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)
    np.testing.assert_allclose(np.bincount((places[:, 0] % 1 * 4).astype(int)) / len(places), 0.25, atol=0.03)


def test_drawn_kernels() -> None:
    noise = GaborNoise(replace(SET, ground="grey", weights="signs"), "train", None)
    drawn = [np.concatenate(parts) for parts in zip(*[noise.impulses(index) for index in range(100)], strict=True)]
    _, weights, orientations, frequencies = drawn
    assert set(weights) == {-1.0, 1.0} and abs(weights.mean()) < 0.06
    assert set(orientations) == {0.0, 1.0, 2.5}
    np.testing.assert_allclose([(orientations == w).mean() for w in (0.0, 1.0, 2.5)], 1 / 3, atol=0.04)
    assert 0.1 <= frequencies.min() < 0.101 and 0.199 < frequencies.max() <= 0.2
    plain = np.concatenate([GaborNoise(BLACK, "train", None).impulses(index).orientations for index in range(100)])
    assert 0 <= plain.min() < 0.01 and math.pi - 0.01 < plain.max() < math.pi
    assert (GaborNoise(BLACK, "train", None).impulses(0).frequencies == 0.15).all()


@given(count=st.integers(0, 40), distance=st.floats(0, 15), margin=st.floats(0, 30), seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_distance_and_margin(count: int, distance: float, margin: float, seed: int) -> None:
    config = replace(BLACK, counts=(count,), min_distance=distance, margin=margin, seed=seed)
    try:
        noise = GaborNoise(config, "train", None)
    except MistError as error:
        assert count > 1 and "do not fit" in str(error)
        return
    places = noise.impulses(0).positions
    assert places.shape == (count, 2)
    if count:
        assert places.min() >= margin and places.max() <= 80 - margin
    gaps = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(count, 1)]
    assert (gaps >= distance - 1e-9).all()


@pytest.mark.parametrize(("ground", "level"), [("black", 0.0), ("grey", 0.5)])
def test_no_impulse(ground: Ground, level: float) -> None:
    sample = GaborNoise(replace(BLACK, ground=ground, counts=(0,)), "train", None)[0]
    assert (sample.image == level).all() and boxes_of(sample).shape == (0, 4)


def test_length() -> None:
    noise = GaborNoise(BLACK, "train", 2)
    assert len(noise) == 2 and len([noise[index] for index in range(2)]) == 2
    for index in (2, -1):
        with pytest.raises(IndexError, match=str(index)):
            noise[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_loader(workers: int) -> None:
    noise = GaborNoise(POISSON, "train", None)
    batch = next(iter(DataLoader(noise, batch_size=4, collate_fn=collate, num_workers=workers)))
    assert batch.counts is None and batch.labels is None and batch.boxes is not None
    torch.testing.assert_close(batch.images, torch.stack([noise[index].image for index in range(4)]))


@pytest.mark.plain
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"canvas": 0}, ("data.canvas=0",)),
        ({"canvas": 20}, ("data.margin=10.0", "data.canvas=20")),
        ({"counts": ()}, ("data.counts=()",)),
        ({"counts": (3, -1)}, ("data.counts=(3, -1)",)),
        ({"density": -1.0}, ("data.density=-1.0",)),
        ({"density": 0.01}, ("data.density=0.01", "data.min_distance=0 (it is 6.0)")),
        ({"frequency": (0.1,)}, ("data.frequency=(0.1,)", "two numbers")),
        ({"frequency": (0.2, 0.1)}, ("data.frequency=(0.2, 0.1)", "lower first")),
        ({"frequency": (0.2, 0.6)}, ("data.frequency=(0.2, 0.6)", "0.5 cycles")),
        ({"orientation": (1.0, 0.0)}, ("data.orientation=(1.0, 0.0)", "lower first")),
        ({"orientation": (0.0, math.inf)}, ("data.orientation=(0.0, inf)",)),
        ({"orientation_set": (0.0, math.nan)}, ("data.orientation_set=(0.0, nan)",)),
        ({"bandwidth": 0.0}, ("data.bandwidth=0.0",)),
        ({"box_size": -1.0}, ("data.box_size=-1.0",)),
        ({"gain": math.nan}, ("data.gain=nan",)),
        ({"min_distance": -1.0}, ("data.min_distance=-1.0",)),
        ({"margin": -1.0}, ("data.margin=-1.0",)),
        ({"weights": "random"}, ("data.weights='random'", "positive or signs")),
        ({"ground": "white"}, ("data.ground='white'", "black or grey")),
        ({"weights": "signs"}, ("data.weights='signs'", "data.ground=grey")),
        ({"seed": -1}, ("data.seed=-1",)),
    ],
)
def test_bad_value(change: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(MistError) as error:
        replace(BLACK, **change)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("change", [{"counts": (3, 200)}, {"canvas": 30}, {"min_distance": 40.0}])
def test_too_crowded(change: dict[str, object]) -> None:
    config = replace(BLACK, **change)
    with pytest.raises(MistError) as error:
        GaborNoise(config, "train", None)
    message = str(error.value)
    assert "\n" not in message
    for part in (f"{max(config.counts)} impulses", f"data.canvas={config.canvas}", f"={config.min_distance:g} apart"):
        assert part in message


def test_density_ignores_counts() -> None:
    assert len(boxes_of(GaborNoise(replace(POISSON, counts=(10**9,)), "train", None)[0])) < 100


@pytest.mark.plain
def test_bad_split_and_length() -> None:
    with pytest.raises(MistError, match="'val'"):
        GaborNoise(BLACK, "val", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MistError, match="length 0"):
        GaborNoise(BLACK, "train", 0)
