"""Time a model's engines against each other, round by round: images a second."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference.backends import (
    CompiledEngine,
    EagerEngine,
    Engine,
    OnnxEngine,
    OpenVinoEngine,
    PaddleEngine,
    check_device,
    check_gpu,
)
from ..inference.card import read_card
from ..inference.export import write_files
from ..inference.int8 import int8_engine, precision_of_rest
from ..utils.errors import UserError
from ..utils.timing import REST, benchmark_interleaved, machine
from .output import SIZE_HELP, size_of, stdout_to_null, write_text

if TYPE_CHECKING:
    import paddle

ENGINES: tuple[str, ...] = ("eager", "compiled", "compiled-bf16", "paddle", "paddle-plain", "paddle-bf16")
ENGINES += ("openvino", "openvino-bf16", "openvino-int8", "onnx")
ON_ONNX = {"openvino", "openvino-bf16", "onnx"}  # those that read an ONNX file


def open_engine(
    name: str,
    folder: Path,
    files: dict[str, Any],
    model: paddle.nn.Layer | None = None,
    device: str = "cpu",
    threads: int | None = None,
    rest: str = "fp32",
) -> Engine:
    """Open the engine called `name` in ENGINES: the model itself, or the exported files in a folder.

    Args:
        files: {kind: file name} in `folder`, as in the card.
        model: for the engines that run it, "eager" and "compiled".
        rest: of "openvino-int8": the precision of what is not in int8, as in the card.
    """
    precision = "bf16" if name.endswith("-bf16") else "fp32"
    if name == "eager":
        return EagerEngine(model)
    if name.startswith("compiled"):
        return CompiledEngine(model, precision)
    if name == "onnx":
        return OnnxEngine(folder / files["onnx"], threads)
    if name == "openvino-int8":
        return OpenVinoEngine(folder / files["int8"], threads, rest)
    if name.startswith("openvino"):
        return OpenVinoEngine(folder / files["onnx"], threads, precision)
    program, params = folder / files["program"], folder / files["params"]
    return PaddleEngine(program, params, device, threads, precision, onednn=name != "paddle-plain")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="a model of `list`, with fresh weights, which do not affect speed")
    add("--export", metavar="DIR", help="or the output of `export`, with --dynamic-batch")
    add("--img-size", type=int, nargs="+", metavar="N", help=SIZE_HELP)
    add(
        "--engines",
        nargs="+",
        default=["paddle", "paddle-plain"],
        choices=ENGINES,
        metavar="E",
        help="listed below",
    )
    add("--batch-size", type=int, nargs="+", default=[1, 8], metavar="N", help="default: 1 8")
    add("--rounds", type=int, default=10, metavar="N", help="timed runs of each; default: 10")
    add("--device", default="cpu", help="cpu, gpu or gpu:N; default: cpu")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all that this process may use")
    add("--json", metavar="FILE", help="write the results as JSON")
    parser.epilog = (
        f"Engines: {', '.join(ENGINES)}; default: paddle paddle-plain. openvino-int8 is the program of an export that "
        "was made with --int8, and goes with --export."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the speed of each engine; 1 where one could not run."""
    if bool(arguments.model) == bool(arguments.export):
        raise UserError("bench needs either --model NAME or --export DIR")
    if arguments.export and {"eager", "compiled", "compiled-bf16"} & set(arguments.engines):
        raise UserError("an export has no model to run eagerly or to compile: use --model")
    if arguments.model and "openvino-int8" in arguments.engines:
        raise UserError(
            "openvino-int8 runs what `export --int8` wrote: give its folder, --export DIR, in place of --model"
        )
    if min(arguments.rounds, *arguments.batch_size, arguments.threads or 1) < 1:
        raise UserError("--rounds, --batch-size and --threads start at 1")
    check_device(arguments.device)
    check_gpu(arguments.device)
    with tempfile.TemporaryDirectory() as temporary:
        model, rest = None, "fp32"
        if arguments.export:
            folder, card = Path(arguments.export), read_card(arguments.export)
            name, files, (batch, *shape) = card["model"], card["files"], card["input"]["shape"]
            if batch is not None:
                raise UserError(f"{folder} is for batches of {batch}: export with --dynamic-batch")
            if files["onnx"] is None and ON_ONNX & set(arguments.engines):
                raise UserError(f"{folder} holds no ONNX file: export the model with --onnx")
            if "openvino-int8" in arguments.engines:
                int8_engine(card, "openvino", folder)
                rest = precision_of_rest(card)
        else:
            from ..models import create_model

            size: dict[str, Any] = {}
            if arguments.img_size is not None:
                size["img_size"] = size_of(arguments.img_size)
            name, model, folder = arguments.model, create_model(arguments.model, **size), Path(temporary)
            shape = [model.spec.in_chans, *model.img_size]
            files = write_files(model, folder, onnx=bool(ON_ONNX & set(arguments.engines)))
        rows, failed = [], {}
        engines: dict[str, Engine] = {}
        with stdout_to_null():  # Paddle's kernels print at their first run
            for engine in arguments.engines:
                try:
                    engines[engine] = open_engine(
                        engine, folder, files, model, arguments.device, arguments.threads, rest
                    )
                except UserError as error:
                    failed[engine] = str(error)
                except Exception as error:  # whatever an engine fails with, the others can be measured
                    traceback.print_exc()
                    failed[engine] = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            for batch in arguments.batch_size:
                images = np.random.RandomState(0).standard_normal((batch, *shape)).astype(np.float32)
                runs: dict[str, Callable[[], Any]] = {
                    engine: functools.partial(call, images) for engine, call in engines.items()
                }
                for engine, seconds in benchmark_interleaved(runs, arguments.rounds, rest=REST).items():
                    rows.append({"engine": engine, "batch": batch, "seconds": seconds})
    print_rows(rows)
    for engine, why in failed.items():
        print(f"COULD NOT RUN {engine}: {why}", file=sys.stderr)
    if arguments.json:
        facts = {"machine": machine(), "model": name, "rows": rows, "failed": failed}
        write_text(arguments.json, json.dumps(facts, indent=2) + "\n")
    return 1 if failed else 0


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a table of images a second: the median, and between the quartiles."""
    print(f"{'engine':14} {'batch':>5} {'images/s':>9}   half of the rounds")
    for row in rows:
        seconds, batch = row["seconds"], row["batch"]
        middle, low, high = (batch / seconds[key] for key in ("median", "high", "low"))
        print(f"{row['engine']:14} {batch:5} {middle:9.1f}   {low:.1f} to {high:.1f}")
