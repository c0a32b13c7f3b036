"""What a model answers to each held-out image: accuracy by class, who is taken for whom, and the worst mistakes.

classes.csv     a row for each class: images, right answers, accuracy, precision, what it is mistaken for
confusion.csv   a row for each class, a column for each answer
mistakes.csv    the wrong answers, the most certain first, with the images' names
confusion.png, mistakes.png
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ..data.loaders import BAD, Loader, collate
from ..data.prefetch import Prefetch
from ..utils.errors import FileAccessError, UserError, short
from ..utils.streams import ESCAPE
from ..weights.atomic import atomic_write
from ..weights.load import load_weights
from . import plots
from .distributed import all_reduce_array, share_weights
from .evaluate import Accuracy, evaluate
from .lettering import class_name, drawn_name

if TYPE_CHECKING:
    from .build import Run

MOST_MISTAKES = 1000  # listed
MOST_PICTURES = 24  # of mistakes


class Answers:
    """The answers of one evaluation: each rank notes those to its images, `gather` brings all ranks' together.

    Args:
        loader: whose batches are evaluated, in their order.
        images: of the data set, on all ranks.

    Attributes:
        numbers: [images] the class answered; -1: not counted.
        certainty: [images] the probability given to it.
        outputs: of the model.
    """

    def __init__(self, loader: Loader | Prefetch, images: int) -> None:
        self.keys = [index for batch in loader.batches for _, index in batch]
        self.done = self.outputs = 0
        self.numbers = np.full(images, -1, np.int64)
        self.certainty = np.zeros(images, np.float64)

    def note(self, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
        """Note the answers to the next batch: logits [B, classes], labels [B]."""
        values = logits.numpy().astype(np.float64)
        self.outputs = values.shape[1]
        places = np.asarray(self.keys[self.done : self.done + len(values)], np.int64)
        self.done += len(values)
        best = values.argmax(1)
        largest = values.max(1)
        certainty = 1 / np.exp(values - largest[:, None]).sum(1)  # softmax of the largest
        counted = labels.numpy() != BAD
        self.numbers[places[counted]] = best[counted]
        self.certainty[places[counted]] = certainty[counted]

    def gather(self, world: int) -> None:
        """Bring together what all ranks have noted; no two have the same image."""
        self.numbers = all_reduce_array(self.numbers + 1, world) - 1
        self.certainty = all_reduce_array(self.certainty, world)
        self.outputs = int(all_reduce_array(np.asarray([self.outputs], np.int64), world, largest=True)[0])


def answers_of_best(run: Run, best: Path | None, rank: int, world: int) -> tuple[Answers, Accuracy, str]:
    """Return (answers, accuracy, what gave them) of a run's best weights over all held-out images.

    They are loaded into the model: by rank 0, from which the others get them. Where there are none, as the best ones
    lie in the folder of an earlier run, the model's present weights answer.
    """
    model, found = run.components.model, "the last weights"
    if rank == 0 and best is not None:
        with contextlib.suppress(UserError):
            load_weights(model, best)
            found = best.name
    share_weights(model, world)
    answers = Answers(run.eval_loader, len(run.eval_source))
    accuracy = evaluate(model, run.eval_loader, world=world, record=answers.note)
    answers.gather(world)
    return answers, accuracy, found


def confusion_of(answers: Answers, labels: Iterable[int]) -> np.ndarray:
    """Return [labels, answers]: how many images of each class got each answer.

    Only the images that count, with rows and columns for all outputs of the model.
    """
    classes = max(answers.outputs, 1 + max((int(label) for label in labels), default=0))
    matrix: np.ndarray = np.zeros((classes, classes), np.int64)
    counted = answers.numbers >= 0
    np.add.at(matrix, (np.asarray(list(labels), np.int64)[counted], answers.numbers[counted]), 1)
    return matrix


def mistakes_of(answers: Answers, labels: Iterable[int]) -> np.ndarray:
    """Return the images with a wrong answer, the most certain first."""
    wrong = np.flatnonzero((answers.numbers >= 0) & (answers.numbers != np.asarray(list(labels), np.int64)))
    return wrong[np.argsort(-answers.certainty[wrong], kind="stable")]


def write_report(
    folder: str | os.PathLike[str],
    answers: Answers,
    source: Any,
    loader: Loader | Prefetch,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[str]:
    """Write the tables and pictures of the answers into a folder; return the lines that sum them up.

    Whatever goes wrong with a picture is such a line.

    Args:
        source: the held-out images, with the classes that the model knows.
        loader: of them, normalised with `mean` and `std` of the channels.

    Raises:
        FileAccessError: a table cannot be written.
    """
    folder, labels = Path(folder), [int(label) for label in source.labels]
    matrix, wrong = confusion_of(answers, labels), mistakes_of(answers, labels)
    used = [n for n in range(len(matrix)) if n < len(source.classes) or matrix[n].any() or matrix[:, n].any()]
    matrix = matrix[np.ix_(used, used)]
    names = [class_name(source.classes, number) for number in used]
    _write(folder / "classes.csv", CLASS_COLUMNS, _class_rows(used, names, matrix))
    rows = ([name, *row] for name, row in zip(names, matrix.tolist()))
    _write(folder / "confusion.csv", ["label, then the answers", *names], rows)
    _write(folder / "mistakes.csv", MISTAKE_COLUMNS, _mistake_rows(answers, source, labels, wrong))
    lines = _summary(names, matrix)
    with _told(lines, "no confusion.png"):
        plots.confusion(matrix, names, used, folder / "confusion.png")
    (folder / "mistakes.png").unlink(missing_ok=True)  # of an earlier evaluation
    if len(wrong):
        with _told(lines, "no mistakes.png"):
            shown = wrong[:MOST_PICTURES]
            pixels = collate([loader.samples.load((0, int(index))) for index in shown])[0]
            titles = [
                f"{drawn_name(source.classes, answers.numbers[i])} {100 * answers.certainty[i]:.1f}%\n"
                f"({drawn_name(source.classes, labels[i])})"
                for i in shown
            ]
            plots.image_grid(
                plots.denormalise(pixels, mean, std),
                titles,
                folder / "mistakes.png",
                correct=[False] * len(shown),
                columns=min(6, len(shown)),
                heading=f"{len(shown)} of {len(wrong)} wrong answers, the most certain first\n"
                "answer and its probability (true class)",
            )
    return lines


CLASS_COLUMNS = (
    "class",
    "name",
    "images",
    "correct",
    "top1",
    "answered",
    "precision",
    "mistaken_for",
    "times",
)
MISTAKE_COLUMNS = ("image", "label", "answer", "probability")


def _class_rows(numbers, names, matrix):
    for place, (number, name) in enumerate(zip(numbers, names)):
        row, right = matrix[place], matrix[place, place].item()
        others = np.where(np.arange(len(row)) == place, 0, row)
        other, images, answered = others.argmax().item(), row.sum().item(), matrix[:, place].sum().item()
        yield [
            *(number, name, images, right, f"{100 * right / images:.2f}" if images else ""),
            *(answered, f"{100 * right / answered:.2f}" if answered else ""),
            *((names[other], others[other].item()) if others[other] else ("", 0)),
        ]


def _mistake_rows(answers, source, labels, wrong):
    for index in wrong[:MOST_MISTAKES].tolist():
        name, answer = source.name(index), int(answers.numbers[index])
        both = (class_name(source.classes, number) for number in (labels[index], answer))
        yield [name, *both, f"{answers.certainty[index]:.6f}"]


def _write(path, columns, rows):
    """Write a table of UTF-8, in which bytes that are none are escaped."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(path) as temporary,
            open(temporary, "w", encoding="utf-8", errors=ESCAPE, newline="") as file,
        ):
            csv.writer(file).writerows([columns, *rows])
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written: {error.strerror or error}") from None


def _summary(names: Sequence[str], matrix: np.ndarray, most: int = 5) -> list[str]:
    """Return the least accurate classes and the pairs that are confused most often, a line each."""
    images, right = matrix.sum(1), np.diag(matrix)
    share = np.divide(right, images, out=np.ones(len(images)), where=images > 0)
    lowest = [n for n in np.argsort(share, kind="stable")[:most].tolist() if share[n] < 1]
    if not lowest:
        return ["every answer is right"]
    texts = [f"{short(names[n], 40)} {100 * share[n]:.2f}% of {images[n]}" for n in lowest]
    off = matrix - np.diag(right)
    pairs = [divmod(int(place), len(off)) for place in np.argsort(-off, axis=None, kind="stable")[:most]]
    confused = [
        f"{short(names[label], 40)} for {short(names[answer], 40)} ({off[label, answer]})"
        for label, answer in pairs
        if off[label, answer]
    ]
    return [f"lowest accuracies: {', '.join(texts)}", f"most often taken: {', '.join(confused)}"]


@contextlib.contextmanager
def _told(lines: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        lines.append(f"{what}: {short(f'{type(error).__name__}: {error}', 300)}")
