"""Classify images, files, folders or glob patterns, by the training's evaluation transform."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from typing import Any

from ..data.classes import read_class_names
from ..data.folders import find_images
from ..data.pictures import read_image
from ..inference.backends import PRECISIONS, check_device
from ..inference.predictor import ENGINES, Predictor
from ..utils.errors import UserError
from ..utils.html import require_jinja2
from .output import show, stdout_to_null, write_text


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
    add("--weights", metavar="FILE", help="its weights")
    add("--classes", metavar="FILE", help="class names, one a line, or a JSON list")
    add("--topk", type=int, default=5, metavar="K", help="classes shown for each image; default: 5")
    add("--batch-size", type=int, default=8, metavar="N", help="images at once; default: 8")
    add("--device", default="cpu", help="cpu, gpu or gpu:N; default: cpu")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all that this process may use")
    add("--precision", default="fp32", choices=PRECISIONS, help="default: fp32")
    add("--engine", default="auto", choices=ENGINES, help="default: the fastest that is installed")
    add(
        "--json",
        metavar="FILE",
        help="write the predictions as JSON; - for standard output, without the table",
    )
    add("--html", metavar="FILE", help="write a page with thumbnails")


def run(arguments: argparse.Namespace) -> int:
    """Classify images; 1 where one could not be read."""
    if arguments.topk < 1 or arguments.batch_size < 1:
        raise UserError("--topk and --batch-size start at 1")
    if arguments.html:
        require_jinja2()
    notes: list[str] = []
    paths = find_images(arguments.images, notes)
    for note in notes:
        print(note, file=sys.stderr)
    predictor = open_predictor(arguments)
    results, unreadable = [], 0
    for start in range(0, len(paths), arguments.batch_size):
        images = {}
        for path in paths[start : start + arguments.batch_size]:
            try:
                images[path] = read_image(path)
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)
                unreadable += 1
        with stdout_to_null():  # Paddle's kernels print at their first run
            predictions = predictor(images.values(), arguments.topk, arguments.batch_size)
        results += [(path, image, classes) for (path, image), classes in zip(images.items(), predictions)]
    rows = [{"image": str(path), "classes": [asdict(one) for one in classes]} for path, _, classes in results]
    if arguments.json:
        text = json.dumps({"model": predictor.card["model"], "images": rows}, indent=2, ensure_ascii=False)
        if arguments.json == "-":
            print(text)
        else:
            write_text(arguments.json, text + "\n")
    if arguments.json != "-":
        print_table(rows)
    if arguments.html:
        from ..inference.gallery import page

        write_text(arguments.html, page(predictor.card, results))
    return 1 if unreadable else 0


def open_predictor(arguments: argparse.Namespace) -> Predictor:
    """Return the Predictor that the options of `predict` describe."""
    classes = read_class_names(arguments.classes) if arguments.classes else None
    options = {name: getattr(arguments, name) for name in ("device", "threads", "precision", "engine")}
    if arguments.export:
        if arguments.model or arguments.weights:
            raise UserError("--export and --model or --weights exclude each other")
        return Predictor(arguments.export, classes=classes, **options)
    if not arguments.weights:
        raise UserError(
            "predict needs --export DIR, or --weights FILE (with --model where they do not name it)"
        )
    from ..models import create_model

    check_device(arguments.device)
    if arguments.device != "cpu":
        import paddle

        paddle.set_device(arguments.device)
    model = create_model(arguments.model, weights=arguments.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it is said below, as one line
        predictor = Predictor(model, classes=classes, **options)
    if predictor.assumed:
        print(f"note: {predictor.assumed}", file=sys.stderr)
    return predictor


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line for each image: its file, its classes with their probabilities."""
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "classes", box=None)
    for row in rows:
        classes = ", ".join(f"{one['name']} {one['probability']:.1%}" for one in row["classes"])
        table.add_row(Text(row["image"]), Text(classes))
    show(table)
