"""Classify images, files, folders or glob patterns, by the training's evaluation transform.

(A few lines above 300: what is read, run and written, each as it comes.)
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import sys
import textwrap
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import numpy as np

from ..data.classes import read_class_names
from ..data.folders import find_images
from ..data.pictures import read_image
from ..inference.backends import AUTO, INT8, PRECISIONS, check_device, check_gpu
from ..inference.predictor import ENGINES, Predictor
from ..utils.cores import available_cores
from ..utils.errors import UserError
from ..utils.html import require_jinja2
from ..utils.hub import is_saved
from ..utils.paths import expand
from ..utils.streams import escaped, readable
from ..weights.atomic import is_stream
from .output import Printer, TextFile, stdout_to_null

if TYPE_CHECKING:
    from PIL import Image

    from ..inference.predictor import Prediction

    Answer = tuple[Path, Optional[Image.Image], Sequence[Prediction]]
    Batch = tuple[list[tuple[Path, Optional[Image.Image]]], list[np.ndarray]]  # what was read, and the images

T = TypeVar("T")
R = TypeVar("R")
MOST_STREAMS, LEAST_BATCHES = 4, 4  # batches that run at once; of each stream
STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="a file, a folder or a glob pattern in quotes")
    add("--export", metavar="DIR", help="the output of `export`")
    add(
        "--model",
        metavar="NAME",
        help="instead of --export: a model, run eagerly; not needed if the weights name it",
    )
    add("--weights", metavar="FILE", help="its weights, or a folder that save_pretrained wrote")
    add("--classes", metavar="FILE", help="class names, one a line, or a JSON list")
    add("--topk", type=int, default=5, metavar="K", help="classes shown for each image; default: 5")
    add("--batch-size", type=int, default=8, metavar="N", help="images at once; default: 8")
    add("--device", help="cpu, gpu or gpu:N; default: a GPU where Paddle has one, else cpu")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all that this process may use")
    add(
        "--precision",
        default="fp32",
        choices=(AUTO, *PRECISIONS, INT8),
        help="auto: bf16 where it is fast and was found to keep the classes; bf16: float32, with a note, where the "
        "CPU does not multiply it; int8: of an export made with --int8; default: fp32",
    )
    add("--engine", default="auto", choices=ENGINES, help="default: the fastest that is installed")
    add(
        "--json",
        metavar="FILE",
        help="write the predictions as JSON; - for standard output, without the table",
    )
    add("--html", metavar="FILE", help="write a page with thumbnails")


def run(arguments: argparse.Namespace) -> int:
    """Classify images; 1 where one could not be read."""
    for flag, value in (("--topk", arguments.topk), ("--batch-size", arguments.batch_size)):
        if value < 1:
            raise UserError(f"{flag} is {value}; it must be at least 1")
    if arguments.html:
        require_jinja2()
    if arguments.json in STDOUT:
        arguments.json = "-"  # without the table between
    both = arguments.json and arguments.html and not is_stream(arguments.json)
    if both and os.path.realpath(expand(arguments.json)) == os.path.realpath(expand(arguments.html)):
        raise UserError(f"--json and --html are both {arguments.json}: give them a file each")
    notes: list[str] = []
    paths = find_images(arguments.images, notes)
    for note in notes:
        print(escaped(note), file=sys.stderr)
    unreadable: list[Path] = []
    with contextlib.ExitStack() as stack:
        json_file = page_file = None
        if arguments.json and arguments.json != "-":
            json_file = stack.enter_context(TextFile(arguments.json))
        if arguments.html:
            page_file = stack.enter_context(TextFile(arguments.html))
        printer = Printer(goes_on=json_file is not None or page_file is not None)
        if arguments.device is None:
            arguments.device = default_device(arguments.engine, arguments.precision)
        arguments.streams = streams_for(len(paths), arguments.batch_size, arguments.threads)
        predictor = open_predictor(arguments)
        facts = {
            "model": predictor.card["model"],
            "engine": engine_name(predictor),
            "device": arguments.device,
            "precision": predictor.options["precision"],
        }
        print("{model} by {engine} on {device} in {precision}".format(**facts), file=sys.stderr)
        if arguments.precision == AUTO:  # otherwise the Predictor has warned of what it did not take
            print(f"note: precision {facts['precision']}: {predictor.why_precision}", file=sys.stderr)
        # a few images at once go through all of this, so that memory does not grow with their number
        sizes = arguments.topk, arguments.batch_size
        answers = classify(predictor, paths, *sizes, unreadable, thumbnails=page_file is not None)
        if json_file is not None:
            answers = with_json(answers, facts, unreadable, json_file.write)
        if arguments.json == "-":
            ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
            answers = with_json(answers, facts, unreadable, printer.write, ascii_only)
        else:
            answers = with_table(answers, paths, printer.write)
        if page_file is not None:
            from ..inference.gallery import page_pieces

            shown = ((path, small, found) for path, small, found in answers if small is not None)
            for piece in page_pieces(predictor.card, shown, len(paths), unreadable):
                page_file.write(piece)
        else:
            for _ in answers:
                pass
    return 1 if unreadable else 0


def classify(
    predictor: Predictor,
    paths: Sequence[Path],
    topk: int,
    batch_size: int,
    unreadable: list[Path],
    *,
    thumbnails: bool,
) -> Iterator[Answer]:
    """Yield (path, thumbnail or None, likeliest classes) of each image that can be read, in their order.

    While the engine is at a batch, or at as many as it has streams, one more waits, and a thread a core reads and
    transforms the images of the next two.

    Args:
        unreadable: takes the paths of the others.
        thumbnails: whether they are wanted.
    """
    from ..inference.gallery import thumbnail

    def prepare(path: Path) -> tuple[Image.Image | None, np.ndarray] | UserError:
        try:
            image = read_image(path, predictor.mode)
        except UserError as error:
            return error
        return (thumbnail(image) if thumbnails else None), predictor.transform(image)

    def batches(prepared: Iterable[Any]) -> Iterator[Batch]:
        for start in range(0, len(paths), batch_size):
            read: list[tuple[Path, Image.Image | None]] = []
            images: list[np.ndarray] = []
            for path, one in zip(paths[start : start + batch_size], prepared):
                if isinstance(one, UserError):
                    print(f"warning: {escaped(one)}", file=sys.stderr)
                    unreadable.append(path)
                    continue
                read.append((path, one[0]))
                images.append(one[1])
            if images:
                yield read, images

    def answered(batch: Batch) -> list[Answer]:
        read, images = batch
        found = predictor.likeliest(np.stack(images), topk)
        return [(path, small, predictions) for (path, small), predictions in zip(read, found)]

    threads, streams = predictor.options["threads"] or available_cores(), predictor.streams
    with contextlib.closing(in_order(prepare, paths, threads, ahead=2 * batch_size)) as prepared:
        if streams == 1 or predictor.engine != "openvino":
            for batch in batches(prepared):
                with stdout_to_null():  # Paddle's kernels print at their first run
                    answers = answered(batch)
                yield from answers
            return
        with contextlib.closing(in_order(answered, batches(prepared), streams, ahead=streams + 1)) as done:
            for answers in done:
                yield from answers


def streams_for(pictures: int, batch_size: int, threads: int | None) -> int:
    """Return how many batches are run at once, where the engine can: as many as share the threads evenly, at most four.

    Only where each stream gets several batches: the last ones leave cores idle.
    """
    batches, threads = -(-pictures // batch_size), threads or available_cores()
    fit = (n for n in range(MOST_STREAMS, 1, -1) if threads % n == 0 and batches >= LEAST_BATCHES * n)
    return next(fit, 1)


def in_order(
    work: Callable[[T], R], items: Iterable[T], threads: int, ahead: int
) -> Generator[R, None, None]:
    """Yield work(item) of each item, in order, done by threads that are at most `ahead` items further.

    What `items` or `work` raises is raised when all before it is yielded.
    """
    rest, waiting = iter(items), deque[Future[R]]()
    pool, failed = ThreadPoolExecutor(threads), None
    count = ahead
    try:
        while True:
            try:
                if failed is None:
                    waiting.extend(pool.submit(work, item) for item in itertools.islice(rest, count))
            except Exception as error:
                failed = error
            if not waiting:
                break
            yield waiting.popleft().result()
            count = 1
        if failed is not None:
            raise failed
    finally:
        pool.shutdown(cancel_futures=True)


def default_device(engine: str, precision: str) -> str:
    """Return the device where none is named: a GPU where Paddle has one, unless something else asks for the CPU."""
    if engine in ("openvino", "onnx") or precision in ("bf16", INT8):  # which are the CPU's
        return "cpu"
    import paddle

    return "gpu" if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu"


def engine_name(predictor: Predictor) -> str:
    """Return what runs a Predictor's model, in words."""
    if not hasattr(predictor, "directory"):
        return "Paddle, layer by layer"
    return {"paddle": "Paddle Inference", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}[predictor.engine]


def with_json(
    answers: Iterable[Answer],
    facts: Mapping[str, str],
    unreadable: Sequence[Path],
    write: Callable[[str], None],
    ascii_only: bool = False,
) -> Iterator[Answer]:
    """Pass answers on, and write them as one JSON object meanwhile.

    Args:
        answers: as `classify` yields them.
        facts: what stands before them.
        unreadable: the paths of the others, looked at after the last answer.
        write: takes each piece.
        ascii_only: escape everything else.
    """
    write("{\n" + "".join(f'  "{name}": {as_json(value, ascii_only)},\n' for name, value in facts.items()))
    write('  "images": [')
    between = "\n"
    for path, small, predictions in answers:
        row = as_json({"image": readable(path), "classes": [asdict(one) for one in predictions]}, ascii_only)
        write(f"{between}{textwrap.indent(row, '    ')}")
        between = ",\n"
        yield path, small, predictions
    others = as_json([readable(path) for path in unreadable], ascii_only)
    write("" if between == "\n" else "\n  ")
    write(f'],\n  "unreadable": {textwrap.indent(others, "  ").lstrip()}\n}}\n')


def as_json(value: Any, ascii_only: bool = False) -> str:
    """Return a value as JSON; characters that the output does not have are escaped as JSON does it."""
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def with_table(
    answers: Iterable[Answer], paths: Sequence[Path], write: Callable[[str], None]
) -> Iterator[Answer]:
    """Pass answers on, and write a line for each meanwhile: its file, its classes with their probabilities."""
    from rich.cells import cell_len

    width = min(60, max(cell_len(escaped(path)) for path in paths))
    write(f"{'image':{width}}  classes\n")
    for path, small, predictions in answers:
        name = escaped(path)
        classes = ", ".join(f"{escaped(one.name)} {one.probability:.1%}" for one in predictions)
        write(f"{name}{' ' * (width - cell_len(name))}  {classes}\n")
        yield path, small, predictions


def open_predictor(arguments: argparse.Namespace) -> Predictor:
    """Return the Predictor that the options of `predict` describe."""
    classes = read_class_names(arguments.classes) if arguments.classes else None
    options = {
        name: getattr(arguments, name) for name in ("device", "threads", "precision", "engine", "streams")
    }
    if arguments.export:
        if arguments.model or arguments.weights:
            raise UserError("--export and --model or --weights exclude each other")
        return Predictor(arguments.export, classes=classes, **options)
    if not arguments.weights:
        raise UserError(
            "predict needs --export DIR, or --weights FILE (with --model where they do not name it)"
        )
    from ..hub import from_pretrained
    from ..models import create_model

    check_device(arguments.device)
    check_gpu(arguments.device)
    if arguments.device != "cpu":
        import paddle

        paddle.set_device(arguments.device)
    if is_saved(arguments.weights):
        model = from_pretrained(arguments.weights)
        if arguments.model not in (None, model.name):
            raise UserError(
                f"{arguments.weights} is of {model.name}, not of {arguments.model}: leave --model out"
            )
    else:
        model = create_model(arguments.model, weights=arguments.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it is said below, as one line
        predictor = Predictor(model, classes=classes, **options)
    if predictor.assumed:
        print(f"note: {predictor.assumed}", file=sys.stderr)
    return predictor
