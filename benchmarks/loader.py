"""Images a second and core of the training pipeline: JPEG files to batches, paddle_inline's and timm's in turn.

    python benchmarks/loader.py --images 64 --rounds 9 --workers 0

Both read the same files, made of scikit-learn's two photographs, of about 500 x 375 pixels as ImageNet's and of 2000 x
1500 as a camera's, by two recipes: `randaugment`, ImageNet's (random resized crop, flip, RandAugment, normalisation,
random erasing), and `simple`, without RandAugment and erasing. timm's transforms run on torchvision's ImageFolder and
torch's DataLoader. `paddle_inline, in full` decodes every file at its whole size, as timm does. All end in normalised
float32 batches on the host. Without workers the clock is this process's own processor time, so that other work on the
machine does not count; with workers it is the wall's, and the speed is divided by their number.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import could_not_run, figure, positive, print_table, report
from PIL import Image, ImageOps

from paddle_inline.utils.timing import benchmark_interleaved

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, SIZE = 16, 224
RECIPES = {
    "randaugment": ("rand-m9-mstd0.5-inc1", 0.25),  # the policy and the probability of an erased box
    "simple": ("", 0.0),
}
WIDTHS = (500, 2000)  # pixels


def write_jpegs(folder: Path, count: int, width: int = 500) -> None:
    """Write `count` different crops of two photographs in two class folders, heights 0.7 to 0.8 of the width."""
    from sklearn.datasets import load_sample_images

    rng = np.random.RandomState(0)
    for i in range(count):
        photo = Image.fromarray(load_sample_images().images[i % 2])
        left, top = rng.randint(0, photo.width - 500), rng.randint(0, photo.height - 400)
        height = int(rng.randint(350, 400))
        part = photo.crop((left, top, left + 500, top + height))
        if width != 500:  # grain, as of a camera, which enlarging does not make
            part = part.resize((width, height * width // 500), Image.BICUBIC)
            grain = rng.normal(0, 4, (part.height, part.width, 3))
            part = Image.fromarray(np.clip(np.asarray(part) + grain, 0, 255).astype(np.uint8))
        path = folder / f"class{i % 2}" / f"{i:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        part.save(path, quality=90)


def paddle_pipeline(
    folder: Path, workers: int, recipe: str = "randaugment", reduced: bool = True
) -> Callable[[], int]:
    """Return a function that loads every image once, by paddle_inline."""
    from paddle_inline.data.imagenet import Folder
    from paddle_inline.data.loaders import Loader, Samples
    from paddle_inline.data.sampler import train_batches
    from paddle_inline.data.transforms import train_transform

    policy, erase = RECIPES[recipe]
    source = Folder(folder)
    transform = train_transform(SIZE, mean=MEAN, std=STD, auto_augment=policy, color_jitter=0, reprob=erase)
    samples = Samples(source, transform, reduced_decoding=reduced)
    epochs = iter(range(1 << 30))

    def load():
        batches = train_batches(len(source), BATCH, seed=0, epoch=next(epochs))
        return sum(labels.shape[0] for _, labels in Loader(samples, batches, num_workers=workers))

    return load


def paddle_in_full(folder: Path, workers: int, recipe: str = "randaugment") -> Callable[[], int]:
    """As `paddle_pipeline`, decoding all of every file."""
    return paddle_pipeline(folder, workers, recipe, reduced=False)


def timm_pipeline(folder: Path, workers: int, recipe: str = "randaugment") -> Callable[[], int]:
    """As `paddle_pipeline`, by torchvision and timm."""
    import torch
    from torchvision_operators import declare

    declare()
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    posterize = ImageOps.posterize  # from Pillow 13 it refuses 0 bits, which timm asks for
    ImageOps.posterize = lambda image, bits: posterize(image, bits) if bits > 0 else image.point(lambda _: 0)
    policy, erase = RECIPES[recipe]
    transform = create_transform(
        SIZE,
        is_training=True,
        color_jitter=0.0,
        auto_augment=policy or None,
        re_prob=erase,
        re_mode="pixel",
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
    )
    loader = torch.utils.data.DataLoader(
        ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    return lambda: sum(labels.shape[0] for _, labels in loader)


PIPELINES = {
    "paddle_inline": paddle_pipeline,
    "paddle_inline, in full": paddle_in_full,
    "timm": timm_pipeline,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=positive(int), default=128, help=f"a multiple of {BATCH}")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=positive(int), default=7)
    parser.add_argument("--widths", type=positive(int), nargs="+", default=WIDTHS, help="pixels")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    arguments = parser.parse_args(argv)
    count = max(1, arguments.images // BATCH) * BATCH
    rows, missing, lines = [], [], {}
    for width, recipe, workers in itertools.product(arguments.widths, arguments.recipes, arguments.workers):
        case = {"width": width, "recipe": recipe, "workers": workers, "images": count}
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), count, width)
            measured = measure(folder, workers, recipe, count, arguments.rounds, missing)
        timm = measured.get("timm", {}).get("median", math.nan)
        for name, seconds in measured.items():
            speed = count / seconds["median"] / max(1, workers)
            rows.append({"pipeline": name, **case, "seconds": seconds, "images_per_second_and_core": speed})
            rows[-1]["over_timm"] = timm / seconds["median"]
            if workers == arguments.workers[0]:
                x, y = lines.setdefault(f"{name}, {recipe}", ([], []))
                x.append(width)
                y.append(speed)
        print_table(
            ["pipeline", "width", "recipe", "workers", "images/s/core", "over timm"],
            [
                [row["pipeline"], width, recipe, workers, row["images_per_second_and_core"], row["over_timm"]]
                for row in rows[-len(measured) :]
            ],
        )
        report("loader", argv, rows, missing, say=False, batch=BATCH, size=SIZE)
    report("loader", argv, rows, missing, batch=BATCH, size=SIZE)
    figure("loader", "JPEG files to training batches", "pixels of width", "images a second and core", lines)
    return 1 if missing else 0


def measure(
    folder: str, workers: int, recipe: str, count: int, rounds: int, missing: list[str]
) -> dict[str, dict[str, float]]:
    """Return {pipeline: seconds for all images of a folder}; what cannot run goes to `missing`."""
    runs, clock = {}, time.perf_counter if workers else time.process_time
    for name, make in PIPELINES.items():
        try:
            runs[name] = make(Path(folder), workers, recipe)
            if runs[name]() != count:
                raise ValueError(f"{count} images were wanted")
        except Exception as error:  # the others can still be measured
            runs.pop(name, None)
            missing.append(could_not_run(f"{name}, {recipe}, {workers} workers", error))
    return benchmark_interleaved(runs, rounds, 0, clock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
