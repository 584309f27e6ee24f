"""Images of concurrent requests, predicted in batches by one thread.

An image waits as a file. It is decoded just before its batch is predicted, so that memory does not grow with the number
of requests. No request waits for others to come: while a batch is predicted, the next ones gather.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.data.images import open_image, to_tensor
from mistnn.devices import is_out_of_memory
from mistnn.errors import MistError
from mistnn.inference import Prediction, Predictor
from mistnn.inference.folder import BATCH_SIZE, NO_MEMORY


class Busy(Exception):
    """So many images wait already that no more is taken."""


class Found(NamedTuple):
    """A prediction, and the number of images in its batch."""

    prediction: Prediction
    batch: int


@dataclass(eq=False)
class _Waiting:
    """An image that waits; ``key``: what the images of a batch have in common."""

    path: Path
    key: tuple[int, int, int | None]
    result: asyncio.Future[Found] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batches:
    """Predicts images in batches; used within one event loop.

    Attributes:
        done: the number of batches so far.
    """

    def __init__(self, predictor: Predictor, most_waiting: int) -> None:
        """Starts nothing: ``run`` does. At most ``most_waiting`` images wait or are predicted at a time."""
        self.predictor, self.most_waiting, self.done = predictor, most_waiting, 0
        self._waiting: deque[_Waiting] = deque()
        self._inside, self._some = 0, asyncio.Event()

    @property
    def waiting(self) -> int:
        """Images that wait or are being predicted."""
        return self._inside

    async def predict(self, path: Path, width: int, height: int, k: int | None) -> Found:
        """Predicts the image of a file, which must stay until then.

        Args:
            path: the file.
            width: of the image as its header says, in pixels.
            height: likewise.
            k: see ``Predictor.predict``.

        Raises:
            Busy: if too many images wait.
            UnreadableImage: if the image can't be decoded.
            MistError: if the model can't find objects in it, or memory is too small.
        """
        if self._inside >= self.most_waiting:
            raise Busy
        self._inside += 1
        try:
            one = _Waiting(path, (width, height, k))
            self._waiting.append(one)
            self._some.set()
            return await one.result
        finally:
            self._inside -= 1

    async def run(self) -> None:
        """Predicts until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "mist-predict") as thread:
            while True:
                await self._some.wait()
                batch = self._next()
                results = await loop.run_in_executor(thread, self._results, batch)
                self.done += 1
                for one, result in zip(batch, results, strict=True):
                    if one.result.done():  # its request was given up
                        continue
                    if isinstance(result, Exception):
                        one.result.set_exception(result)
                    else:
                        one.result.set_result(result)

    def _next(self) -> list[_Waiting]:
        """The image that waits longest, with others of its size and K."""
        width, height, _ = key = self._waiting[0].key
        room = min(BATCH_SIZE, max(1, self.predictor.max_pixels // (width * height)))
        batch = list(itertools.islice((one for one in self._waiting if one.key == key), room))
        self._waiting = deque(one for one in self._waiting if one not in batch)
        if not self._waiting:
            self._some.clear()
        return batch

    def _results(self, batch: Sequence[_Waiting]) -> list[Found | Exception]:
        """What each image gives, or why it gives nothing."""
        images = [self._decoded(one) for one in batch]
        results: list[Found | Exception] = [one for one in images if isinstance(one, Exception)]
        if len(results) < len(batch):
            shapes = [tuple(one.shape) for one in images if isinstance(one, Tensor)]
            found = {shape: iter(self._predicted(images, shape, batch[0].key[2])) for shape in set(shapes)}
            results = [one if isinstance(one, Exception) else next(found[tuple(one.shape)]) for one in images]
        return results

    def _decoded(self, one: _Waiting) -> Tensor | Exception:
        try:
            image = to_tensor(open_image(one.path), self.predictor.model.config.channels)
            refusal = self.predictor.refusal(image.shape[-2], image.shape[-1], self.predictor.sought(one.key[2]))
            return image if refusal is None else MistError(f"this image {refusal}")
        except Exception as error:  # of this image; the others of its batch go on
            return MistError(f"this image {NO_MEMORY}") if is_out_of_memory(error) else error

    def _predicted(
        self, images: Sequence[Tensor | Exception], shape: tuple[int, ...], k: int | None
    ) -> list[Found | Exception]:
        """The predictions of the images of one shape; one by one if memory is too small for all."""
        of_shape = [one for one in images if isinstance(one, Tensor) and tuple(one.shape) == shape]
        try:
            return [Found(one, len(of_shape)) for one in self.predictor.predictions(torch.stack(of_shape), k)]
        except Exception as error:  # whatever it is, the server goes on
            if not is_out_of_memory(error) or len(of_shape) == 1:
                known = MistError(f"this image {NO_MEMORY}") if is_out_of_memory(error) else error
                return [known] * len(of_shape)
        return list(itertools.chain.from_iterable(self._predicted([one], shape, k) for one in of_shape))
