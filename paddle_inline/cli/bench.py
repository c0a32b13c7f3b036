"""How fast a model runs here, by engine, batch size and precision."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..inference.backends import CompiledEngine, EagerEngine, OnnxEngine, OpenVinoEngine, PaddleEngine
from ..inference.export import read_card, write_files
from ..utils.errors import UserError
from ..utils.timing import REST, benchmark_interleaved, machine

ENGINES = ("eager", "compiled", "compiled-bf16", "paddle", "paddle-plain", "paddle-bf16")
ENGINES += ("openvino", "openvino-bf16", "onnx")
ON_ONNX = {"openvino", "openvino-bf16", "onnx"}  # those that read an ONNX file


def open_engine(name, folder, files, model=None, device="cpu", threads=None):
    """The engine called `name` in ENGINES: the model itself, or the exported files in a folder."""
    precision = "bf16" if name.endswith("-bf16") else "fp32"
    if name == "eager":
        return EagerEngine(model)
    if name.startswith("compiled"):
        return CompiledEngine(model, precision)
    if name == "onnx":
        return OnnxEngine(folder / files["onnx"], threads)
    if name.startswith("openvino"):
        return OpenVinoEngine(folder / files["onnx"], threads, precision)
    return PaddleEngine(
        folder / files["program"],
        folder / files["params"],
        device,
        threads,
        precision=precision,
        onednn=name != "paddle-plain",
    )


def bench_command(parser):
    """Time a model's engines against each other, round by round: images a second."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="of `list`, with fresh weights: values do not change speed")
    add("--export", metavar="DIR", help="or the output of `export`, with --dynamic-batch")
    add("--img-size", type=int, metavar="S", help="pixels of the sides; default: the model's own")
    add("--engines", nargs="+", default=["paddle", "paddle-plain"], choices=ENGINES, metavar="E")
    add("--batch-size", type=int, nargs="+", default=[1, 8], metavar="N", help="default: 1 8")
    add("--rounds", type=int, default=10, metavar="N", help="timed runs of each; default: 10")
    add("--device", default="cpu", help="cpu, gpu or gpu:N; default: cpu")
    add("--threads", type=int, metavar="N", help="CPU threads; default: all that this process may use")
    add("--json", metavar="FILE", help="write the figures")
    parser.epilog = f"Engines: {', '.join(ENGINES)}; default: paddle paddle-plain."
    return run


def run(arguments):
    """The command `bench`; 1 where an engine could not run."""
    if bool(arguments.model) == bool(arguments.export):
        raise UserError("bench needs either --model NAME or --export DIR")
    if arguments.export and {"eager", "compiled", "compiled-bf16"} & set(arguments.engines):
        raise UserError("an export has no model to run eagerly or to compile: use --model")
    with tempfile.TemporaryDirectory() as made:
        model, shape = None, None
        if arguments.export:
            folder, card = Path(arguments.export), read_card(arguments.export)
            files, (batch, *shape) = card["files"], card["input"]["shape"]
            if batch is not None:
                raise UserError(f"{folder} is for batches of {batch}: export with --dynamic-batch")
        else:
            from ..models import create_model

            size = {} if arguments.img_size is None else {"img_size": arguments.img_size}
            model = create_model(arguments.model, **size)
            folder, shape = Path(made), (model.spec.in_chans, *model.img_size)
            files = write_files(model, folder, onnx=bool(ON_ONNX & set(arguments.engines)))
        rows, failed = [], {}
        engines = {}
        for name in arguments.engines:
            try:
                engines[name] = open_engine(name, folder, files, model, arguments.device, arguments.threads)
            except (RuntimeError, ValueError, ImportError) as error:
                failed[name] = str(error).strip().splitlines()[-1]
        for batch in arguments.batch_size:
            images = np.random.RandomState(0).standard_normal((batch, *shape)).astype(np.float32)
            runs = {name: functools.partial(engine, images) for name, engine in engines.items()}
            for name, seconds in benchmark_interleaved(runs, arguments.rounds, rest=REST).items():
                rows.append({"engine": name, "batch": batch, "seconds": seconds})
    print_rows(rows)
    for name, why in failed.items():
        print(f"COULD NOT RUN {name}: {why}", file=sys.stderr)
    if arguments.json:
        facts = {
            "machine": machine(),
            "model": arguments.model or card["model"],
            "rows": rows,
            "failed": failed,
        }
        Path(arguments.json).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def print_rows(rows):
    """A table of images a second: the median, and between the quartiles."""
    print(f"{'engine':14} {'batch':>5} {'images/s':>9}   half of the rounds")
    for row in rows:
        seconds, batch = row["seconds"], row["batch"]
        middle, low, high = (batch / seconds[key] for key in ("median", "high", "low"))
        print(f"{row['engine']:14} {batch:5} {middle:9.1f}   {low:.1f} to {high:.1f}")
