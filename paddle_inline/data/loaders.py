"""From a source of images to batches of tensors, by any number of worker processes.

(A few lines above 300: what a worker hands over stands beside what the training process makes of it.)
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.io import BatchSampler, DataLoader, Dataset

from ..utils.errors import FileAccessError, short
from .draws import Draws
from .normalize import Normalize, Pixels, collate_pixels
from .pictures import truncated_allowed
from .reduced import Reading, read_from

if TYPE_CHECKING:
    from PIL import Image

    from .sources import Source
    from .transforms import Transform

Key = tuple[int, int]  # (epoch, image)

LAST_BATCH_SECONDS = 5  # that a worker has to finish what it reads when it is not needed any more
BAD = -1  # the label of an image that could not be read, where it is not replaced


class BadImage(FileAccessError):
    """An image that cannot be read; the message names it and the way out."""


class Samples(Dataset):
    """(epoch, image) -> (array [C, H, W], label), a function of its arguments and the seed alone.

    Args:
        source: of the images.
        transform: makes an array of each.
        seed: of all draws.
        on_bad_image: `fail`; `read`, which takes of a truncated image what is there, and else fails; or
            `skip`, which puts the next image of the source in its place when `replace` is set and labels it
            BAD, not to be counted, when it is not.
        reduced_decoding: decode JPEG at a fraction of its size where the recipe makes it smaller still (`reduced`).
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        *,
        seed: int = 0,
        on_bad_image: str = "fail",
        replace: bool = True,
        reduced_decoding: bool = False,
    ) -> None:
        self.source, self.seed = source, seed
        self.transform: Any = transform
        self.on_bad_image, self.replace, self.reduced_decoding = on_bad_image, replace, reduced_decoding
        self.normalize: Normalize | None = getattr(transform, "normalize", None)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.int64]:
        return self.load(key)[:2]

    def load(self, key: Key) -> tuple[np.ndarray, np.int64, np.int64]:
        """Return (array, label, 1 if the image asked for could not be read, else 0)."""
        pixels, label, unread = self.load_pixels(key)
        if self.normalize is None:
            return pixels, label, unread
        array = self.normalize.one(pixels.values)
        array.reshape(-1)[pixels.places] = pixels.filling
        return array, label, unread

    def load_pixels(self, key: Key) -> tuple[Any, np.int64, np.int64]:
        """As `load`, with `Pixels` of which `normalize` makes the array; without one with the array itself."""
        first = key[1]
        for step in range(len(self.source)):
            index = (first + step) % len(self.source)
            draws, reading = self.draws(key), None
            if self.reduced_decoding and self.normalize is not None:
                reading = Reading(functools.partial(self.transform.cut, draws=draws))
            try:
                image, label = (
                    self.source[index] if reading is None else read_from(self.source, index, reading)
                )
            except OSError as error:
                rescued = self._rescue(index, error)
                if rescued is None:
                    self._report(self.source.name(index), error)
                    continue
                image, label = rescued
                draws, reading = self.draws(key), None
            if self.normalize is None:
                pixels = self.transform(image, draws)
            else:
                pixels = self.transform.pixels(image, draws, reading)
            return pixels, np.int64(BAD if step and not self.replace else label), np.int64(step > 0)
        raise BadImage(
            f"no image of all {len(self.source)} can be read, {short(self.source.name(first), 400)} among them: "
            "`python -m paddle_inline doctor DATA` says why"
        )

    def draws(self, key: Key) -> Draws:
        """Return the draws of an image, before the first of them."""
        epoch, first = key
        return Draws(self.seed, epoch, first)

    def most_bytes(self, key: Key) -> int:
        """Return how many bytes an image has on its way from a worker, at most; it is loaded to see its size."""
        pixels = self.load_pixels(key)[0]
        if self.normalize is None:
            return pixels.nbytes
        # up to a third is erased, in 8 bytes for each value, its place and what is put there
        return pixels.values.nbytes * (1 if self.transform.erasing is None else 4)

    def _rescue(self, index: int, error: OSError) -> tuple[Image.Image, int] | None:
        """Return what can be read of a truncated image, where that is asked for."""
        if self.on_bad_image != "read":
            return None
        try:
            with truncated_allowed():
                found = self.source[index]
        except OSError:
            return None
        name = short(self.source.name(index), 400)
        print(f"warning: {name} is damaged ({error}): read as far as it goes", file=sys.stderr, flush=True)
        return found

    def _report(self, name: str, error: OSError) -> None:
        name = short(name, 400)
        if self.on_bad_image != "skip":
            raise BadImage(
                f"{name} cannot be read ({error}); repair or remove it, or set data.on_bad_image=skip"
            ) from error
        print(f"warning: {name} cannot be read ({error}): skipped", file=sys.stderr, flush=True)


class _Fixed(BatchSampler):
    """The batches it was given."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class Loader:
    """Loads the given batches in order: tensors images [B, C, H, W] float32, labels [B] int64.

    An error of the data set is raised in the training process, whoever met it. (Paddle's loader
    waits forever when its own thread meets one, and hides a worker's behind a SystemError.)

    Args:
        samples: a `Samples`.
        batches: lists of its keys.
        num_workers: processes that load ahead; 0 loads here, when asked.
        host: leave the batches on the host, where a GPU is used, for `Prefetch`.

    Attributes:
        bad: how many images could not be read, in the batches handed out so far.

    Raises, while it is iterated over:
        BadImage: for an image that cannot be read.
        RuntimeError: when a worker process was killed.
    """

    def __init__(
        self, samples: Samples, batches: Sequence[Sequence[Key]], *, num_workers: int = 0, host: bool = False
    ) -> None:
        self.samples, self.batches, self.host = samples, batches, host
        self.num_workers = min(num_workers, len(batches))
        self.unread: list[Any] = []  # of every batch handed out, which images could not be read

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def bad(self) -> int:
        return self.bad_of(len(self.unread))

    def bad_of(self, batches: int) -> int:
        """Return how many images of the first batches handed out could not be read."""
        return sum(np.asarray(unread).sum().item() for unread in self.unread[:batches])

    def __iter__(self) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
        with contextlib.closing(self.unfinished()) as batches:
            for batch in batches:
                yield self.finish(batch)

    def finish(self, batch: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return (images, labels) of a batch of `unfinished`, on the device where it is."""
        *images, labels = batch
        return (images[0] if self.samples.normalize is None else self.samples.normalize(*images)), labels

    def unfinished(self) -> Generator[tuple[paddle.Tensor, ...], None, None]:
        """Load the batches: what `samples.normalize` takes, without one images, and labels [B]."""
        self.unread = []
        place = {"place": paddle.CPUPlace()} if self.host else {}
        if self.num_workers == 0:
            for keys in self.batches:
                *batch, unread = collate([self.samples.load_pixels(key) for key in keys])
                self.unread.append(unread)
                yield tuple(paddle.to_tensor(part, **place) for part in batch)
            return
        loader = DataLoader(
            _Quiet(self.samples),
            batch_sampler=_Fixed(self.batches),
            num_workers=self.num_workers,
            collate_fn=_collate_quiet,
            use_shared_memory=shared_memory_suffices(self.samples, self.batches, self.num_workers),
            worker_init_fn=functools.partial(_end_with, os.getpid()),
            places=list(place.values()) or None,
        )
        batches = iter(loader)
        try:
            for *batch, unread in batches:
                if len(batch) == 1:  # a worker failed on this key: fail here, in the open
                    self.samples[tuple(batch[0].tolist())]
                # of the worker's memory, which goes with it; on a device it is read with the rest
                self.unread.append(unread if unread.place.is_gpu_place() else unread.numpy().copy())
                yield tuple(batch)
        except SystemError as error:
            raise RuntimeError(
                f"one of {self.num_workers} data workers was killed, often for lack of memory: lower "
                "data.num_workers or data.batch_size"
            ) from error
        finally:  # Paddle's own thread keeps the iterator, and so its workers, alive
            _shut_down(batches)


def _end_with(parent: int, worker: int, interval: float = 2.0) -> None:
    """End this worker process when its parent was killed: Paddle's waits for work for ever."""

    def watch():
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _shut_down(iterator):
    """End the processes, threads and pipes of Paddle's loader, which it does itself only when asked for one batch more.

    Whoever takes a number of batches and no more, as training does, would keep them all, epoch for epoch.
    """
    if getattr(iterator, "_shutdown", True):
        return
    iterator._exit_thread_expectedly()  # before the reader, which would wait for what that thread brings
    iterator._reader.shutdown()
    iterator._try_shutdown_all(LAST_BATCH_SECONDS)
    for worker in iterator._workers:
        if worker.is_alive():  # still reading an image
            worker.terminate()


def collate(samples: Sequence[tuple]) -> tuple[np.ndarray, ...]:
    """Stack [(array, label, unread), ...] to (arrays [B, ...], labels [B], unread [B]); of `Pixels` three arrays."""
    images, labels, unread = zip(*samples)
    stacked = collate_pixels(images) if isinstance(images[0], Pixels) else (np.stack(images),)
    return (*stacked, np.stack(labels), np.stack(unread))


class _Quiet(Dataset):
    """Hands on the key of a sample that fails, in place of the failure."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        try:
            return self.samples.load_pixels(key)
        except Exception:
            return None, key, 0


def _collate_quiet(samples):
    failed = [key for pixels, key, _ in samples if pixels is None]
    if failed:
        return np.asarray(failed[0], np.int64), np.zeros(1, np.int64)
    return collate(samples)


def shared_memory_suffices(
    samples: Samples, batches: Sequence[Sequence[Key]], num_workers: int, folder: str = "/dev/shm"
) -> bool:
    """Return whether the loader's shared memory holds what the workers fetch ahead; warns if it does not.

    A container's default of 64 MiB ends a run with a bus error in the middle of an epoch.
    """
    one = samples.most_bytes(batches[0][0]) * max(len(batch) for batch in batches)
    needed = 2 * num_workers * one  # two batches a worker are on their way
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return False
    if free >= needed:
        return True
    print(
        f"warning: {folder} has {free >> 20} MiB free, the loader's workers need {needed >> 20}: "
        "batches go through pipes instead, which is slower (docker run --shm-size=8g ... gives more)",
        file=sys.stderr,
        flush=True,
    )
    return False
