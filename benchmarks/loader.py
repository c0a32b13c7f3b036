"""Images a second and core of the training pipeline: JPEG files to batches, paddle_inline's and timm's in turn.

    python benchmarks/loader.py --images 64 --rounds 5

Both read the same files of about 500 x 375 pixels, made of scikit-learn's two photographs, and apply
the ImageNet recipe to them: random resized crop, flip, RandAugment, normalisation, random erasing.
timm's transforms run on torchvision's ImageFolder and torch's DataLoader. Without workers the clock is
this process's own processor time, so that other work on the machine does not count; with workers it is
the wall's, and the speed is divided by their number.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import could_not_run, figure, print_table, report
from PIL import Image, ImageOps

from paddle_inline.utils.timing import benchmark_interleaved

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY, ERASE, BATCH, SIZE = "rand-m9-mstd0.5-inc1", 0.25, 16, 224


def write_jpegs(folder: Path, count: int) -> None:
    """Write `count` different crops of two photographs in two class folders, 350 to 400 pixels high."""
    from sklearn.datasets import load_sample_images

    rng = np.random.RandomState(0)
    for i in range(count):
        photo = Image.fromarray(load_sample_images().images[i % 2])
        left, top = rng.randint(0, photo.width - 500), rng.randint(0, photo.height - 400)
        size = (500, int(rng.randint(350, 400)))
        path = folder / f"class{i % 2}" / f"{i:05d}.JPEG"
        path.parent.mkdir(exist_ok=True)
        photo.crop((left, top, left + 500, top + size[1])).save(path, quality=90)


def paddle_pipeline(folder: Path, workers: int) -> Callable[[], int]:
    """Return a function that loads every image once, by paddle_inline."""
    from paddle_inline.data.imagenet import Folder
    from paddle_inline.data.loaders import Loader, Samples
    from paddle_inline.data.sampler import train_batches
    from paddle_inline.data.transforms import train_transform

    source = Folder(folder)
    transform = train_transform(SIZE, mean=MEAN, std=STD, auto_augment=POLICY, reprob=ERASE)
    samples = Samples(source, transform)
    epochs = iter(range(1 << 30))

    def load():
        batches = train_batches(len(source), BATCH, seed=0, epoch=next(epochs))
        return sum(labels.shape[0] for _, labels in Loader(samples, batches, num_workers=workers))

    return load


def timm_pipeline(folder: Path, workers: int) -> Callable[[], int]:
    """As `paddle_pipeline`, by torchvision and timm."""
    import torch
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    posterize = ImageOps.posterize  # from Pillow 13 it refuses 0 bits, which timm asks for
    ImageOps.posterize = lambda image, bits: posterize(image, bits) if bits > 0 else image.point(lambda _: 0)
    transform = create_transform(
        SIZE,
        is_training=True,
        color_jitter=0.4,
        auto_augment=POLICY,
        re_prob=ERASE,
        re_mode="pixel",
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
    )
    loader = torch.utils.data.DataLoader(
        ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    return lambda: sum(labels.shape[0] for _, labels in loader)


PIPELINES = {"paddle_inline": paddle_pipeline, "timm": timm_pipeline}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128, help=f"a multiple of {BATCH}")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(argv)
    count = max(1, arguments.images // BATCH) * BATCH
    rows, missing, lines = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder), count)
        for workers in arguments.workers:
            runs, clock = {}, time.perf_counter if workers else time.process_time
            for name, make in PIPELINES.items():
                try:
                    runs[name] = make(folder, workers)
                    if runs[name]() != count:
                        raise ValueError(f"{count} images were wanted")
                except Exception as error:  # the other can still be measured
                    runs.pop(name, None)
                    missing.append(could_not_run(f"{name}, {workers} workers", error))
            for name, seconds in benchmark_interleaved(runs, arguments.rounds, 0, clock).items():
                speed = count / seconds["median"] / max(1, workers)
                rows.append({"pipeline": name, "workers": workers, "images": count, "seconds": seconds})
                rows[-1]["images_per_second_and_core"] = speed
                x, y = lines.setdefault(name, ([], []))
                x.append(workers)
                y.append(speed)
            print_table(
                ["pipeline", "workers", "images/s/core"],
                [
                    [row["pipeline"], workers, row["images_per_second_and_core"]]
                    for row in rows
                    if row["workers"] == workers
                ],
            )
        report("loader", argv, rows, missing, batch=BATCH, size=SIZE)
    title = "JPEG files to training batches"
    figure("loader", title, "worker processes", "images a second and core", lines, log=False)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
