"""The first and last lines of a run's log, and its figures."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import paddle
from PIL import Image

from ..data.loaders import Loader, collate
from ..ops import kernels
from ..utils import compiled
from ..utils.errors import counted, short
from . import plots
from .answers import Answers, write_report
from .lettering import drawn_name
from .log import RunLog, duration
from .state import Progress, when

if TYPE_CHECKING:
    from .build import Run


def describe(log: RunLog, run: Run, *, dataset: str, amp_level: str, tuned: dict[str, str]) -> None:
    """Log what is trained, on what data and how.

    Args:
        dataset: its name.
        amp_level: as it was asked for.
        tuned: the environment variables that `tune_cpu` has set.
    """
    model, device = run.components.model, paddle.device.get_device()
    count = sum(p.size for p in model.parameters())
    log.info(f"{model.name}: {count / 1e6:.3f} M parameters, {run.options.world} x {device}")
    log.info(
        f"{dataset}: {len(run.train_source)} training and {counted(len(run.eval_source), 'held-out image')}, "
        f"{counted(len(run.train_source.classes), 'class')}, {counted(run.images_per_step, 'image')} per step"
    )
    for line in run.plan:
        log.info(line)
    for group in run.groups:
        log.info(f"weight decay {group.weight_decay:g}: {counted(len(group.names), 'tensor')}, {group.rule}:")
        log.info(f"  {', '.join(name_patterns(group.names))}")
    if amp_level != "O0" and device == "cpu":
        log.info(f"amp.level {amp_level} has no effect on a CPU: training in full precision")
    if tuned and device == "cpu":
        log.info("set for this CPU: " + " ".join(f"{k}={v}" for k, v in tuned.items()))
    if device == "cpu":
        log.info(loops_line())


def loops_line() -> str:
    """Say what does the work of a CPU beside matrix products."""
    version = kernels.version()
    if version is not None:
        return f"on this CPU, Numba {version} compiles what Paddle does slowly: half a minute, the first time"
    if not compiled.wanted():
        return f"on this CPU, Paddle's own operators alone: {compiled.SWITCH} or NUMBA_DISABLE_JIT is set"
    if not compiled.fits_paddle():
        return f"on this CPU, Paddle's own operators alone: Paddle {paddle.__version__} does not go with Numba, 3 does"
    return "on this CPU, Paddle's own operators alone; faster with Numba: pip install numba"


def name_patterns(names: Iterable[str]) -> list[str]:
    """Return names without their numbers, each pattern once: blocks.0.norm.bias -> blocks.*.norm.bias."""
    return list(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in names))


@contextlib.contextmanager
def never_ends_a_run(log: RunLog, what: str) -> Iterator[None]:
    """Make any exception of drawing inside a line of the log, `what` at its beginning."""
    try:
        yield
    except Exception as error:
        log.info(f"{what}: {short(f'{type(error).__name__}: {error}', 300)}")


def show_samples(
    log: RunLog,
    loader: Loader,
    classes: Sequence[str],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    count: int = 16,
) -> None:
    """Write samples.png, and the same to VisualDL: the first augmented training images with their labels.

    Args:
        loader: of images normalised with `mean` and `std` of the channels.
        classes: their names.
    """
    path = log.folder / "samples.png"
    with never_ends_a_run(log, "no sample images"):
        pixels, labels, _ = collate([loader.samples.load(key) for key in loader.batches[0][:count]])
        titles = [drawn_name(classes, label) for label in labels]
        heading = "Training images as the model gets them, with their classes"
        plots.image_grid(plots.denormalise(pixels, mean, std), titles, path, heading=heading)
        log.image("train/augmented images", np.asarray(Image.open(path).convert("RGB")), 0)


def finish(
    log: RunLog,
    run: Run,
    progress: Progress,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seconds: float,
    count: int = 32,
    answers: Answers | None = None,
) -> None:
    """Write a run's figures and its last lines.

    Args:
        mean, std: of the channels, with which images are normalised.
        seconds: that the run took.
        count: held-out images shown with the model's predictions, drawn from all classes.
        answers: of the model to all held-out images; None: the run has not come to its end.

    Raises:
        FileAccessError: a table of the answers cannot be written.
    """
    with never_ends_a_run(log, "no curves.png"):
        plots.learning_curves(log.folder, log.folder / "curves.png")
    with never_ends_a_run(log, "no predictions.png"):
        source, path = run.eval_source, log.folder / "predictions.png"
        chosen = plots.spread(source.labels, count)
        pixels, labels, bad = collate([run.eval_loader.samples.load((0, place)) for place in chosen])
        images, labels = paddle.to_tensor(pixels[bad == 0]), paddle.to_tensor(labels[bad == 0])
        heading = f"{len(labels)} of {counted(len(source), 'held-out image')}, of all classes, with the model's answers"
        if len({*source.labels}) > count:
            heading = f"{len(labels)} of {len(source)} held-out images, of as many classes, with the model's answers"
        plots.predictions(
            run.components.model, images, labels, source.classes, path, mean=mean, std=std, heading=heading
        )
    if answers is not None:
        lines = write_report(log.folder, answers, run.eval_source, run.eval_loader, mean=mean, std=std)
        for line in lines:
            log.info(line)
    log.info(f"{best_so_far(progress)}; {duration(seconds)}; everything is in {log.folder}")


def best_so_far(progress: Progress) -> str:
    """Return the best accuracies of a run in words."""
    if progress.best_top1 < 0:
        return "no epoch has ended yet"
    best = f"best top-1 {progress.best_top1:.2f}% ({when(progress.best_epoch)})"
    if progress.best_ema_top1 >= 0:
        best += f", averaged {progress.best_ema_top1:.2f}% ({when(progress.best_ema_epoch)})"
    return best
