"""Images a second of whole models, by engine and batch size, all engines in turn round after round.

    python benchmarks/inference.py --models inline_deit_tiny --batch-size 1 8 --device cpu

Paddle's engines run one exported any-batch program; OpenVINO and ONNX Runtime run the same program's ONNX
file, OpenVINO for each batch size its own, or one for any (openvino-any). torch-eager and torch-compile run the
reference, torch-onnx the ONNX file that torch.onnx writes of it, for each batch size its own, in ONNX Runtime, and
torch-openvino what OpenVINO converts straight from it, for each batch size its own or for any (torch-openvino-any).
openvino-int8 is the ONNX file in int8, as `export --int8` makes it, calibrated on noise: its speed is that of any.
What cannot run here is named and left out.
"""

from __future__ import annotations

import argparse
import functools
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, could_not_run, plotting, positive, print_table, report

from paddle_inline.cli.bench import ENGINES
from paddle_inline.utils.timing import REST, benchmark_interleaved

MODELS = ["inline_deit_tiny", "inline_pvt_small", "inline_swin_tiny", "inline_cswin_tiny"]
DEFAULT = ("openvino", "openvino-bf16", "onnx", "paddle", "paddle-bf16")
DEFAULT += ("torch-eager", "torch-compile", "torch-onnx", "torch-openvino", "torch-openvino-bf16")
INT8 = ("openvino-int8",)
ANY_BATCH = ("openvino-any", "openvino-any-bf16")
TORCH = ("torch-eager", "torch-compile", "torch-bf16", "torch-onnx")
PEERS = ("torch-openvino", "torch-openvino-bf16", "torch-openvino-any", "torch-openvino-any-bf16")


def torch_engine(name: str, kind: str, device: str, threads: int | None) -> Callable:
    """images -> logits by the reference model, returning when the device is done."""
    import torch

    import torch_ref

    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if device.startswith("gpu") else device
    model = torch_ref.create_model(name).eval().to(device)
    if kind == "torch-compile":
        model = torch.compile(model)

    def run(images):
        half = kind == "torch-bf16"
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            return model(torch.from_numpy(images).to(device)).float().cpu().numpy()

    def run_onnx(images):
        from paddle_inline.inference.backends import OnnxEngine

        if len(images) not in exported:
            file = io.BytesIO()
            torch.onnx.export(model, (torch.from_numpy(images),), file, opset_version=17, dynamo=False)
            exported[len(images)] = OnnxEngine(file.getvalue(), threads)
        return exported[len(images)](images)

    exported = {}
    run = run_onnx if kind == "torch-onnx" else run
    run(np.zeros((1, 3, 224, 224), np.float32))
    return run


def openvino_of_torch(name: str, kinds: list[str], threads: int | None) -> dict[str, Callable]:
    """{kind: images -> logits} of the reference model as OpenVINO converts it, each told what our engine is told."""
    import openvino
    import torch

    import torch_ref
    from paddle_inline.inference.openvino_graph import openvino_core
    from paddle_inline.utils.cores import available_cores

    model, core = torch_ref.create_model(name).eval(), openvino_core()
    programs, requests = {}, {}

    def run(images, kind):
        batch = -1 if "-any" in kind else len(images)
        if (kind, batch) not in requests:
            if batch not in programs:  # shared by both types
                example = torch.from_numpy(images)
                shape = [batch, *images.shape[1:]]
                programs[batch] = openvino.convert_model(model, input=shape, example_input=example)
            options = {
                "INFERENCE_NUM_THREADS": threads or available_cores(),
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if kind.endswith("bf16") else "f32",
                "ENABLE_CPU_PINNING": False,
            }
            compiled = core.compile_model(programs[batch], "CPU", options)
            requests[kind, batch] = compiled.create_infer_request()
        return requests[kind, batch].infer({0: images}, share_inputs=True)[0].copy()

    return {kind: functools.partial(run, kind=kind) for kind in kinds}


def paddle_engines(
    name: str, kinds: list[str], folder: Path, device: str, threads: int | None, missing: list[str]
) -> dict[str, Callable]:
    """Return {kind: engine} of one Paddle model's export, (3, H, W)."""
    import paddle

    import paddle_inline
    from paddle_inline.cli.bench import ON_ONNX, open_engine
    from paddle_inline.inference.backends import OpenVinoEngine
    from paddle_inline.inference.export import write_files

    paddle.set_device(device)
    model = paddle_inline.create_model(name)
    files = write_files(model, folder)
    engines = {}
    for kind in kinds:
        try:
            if (kind in ON_ONNX or kind in ANY_BATCH or kind in INT8) and not files["onnx"]:
                files = write_files(model, folder, onnx=True)
            if kind in INT8:
                engines[kind] = int8_engine(folder, folder / files["onnx"], model, threads)
                continue
            if kind in ANY_BATCH:
                precision = "bf16" if kind.endswith("bf16") else "fp32"
                engines[kind] = OpenVinoEngine(folder / files["onnx"], threads, precision, batches=0)
                continue
            engines[kind] = open_engine(kind, folder, files, model, device, threads)
        except Exception as error:  # whatever is missing here, the rest can still be measured
            missing.append(could_not_run(f"{name} {kind}", error))
    return engines


def int8_engine(folder: Path, onnx: Path, model: Any, threads: int | None) -> Callable:
    """Return an engine of an ONNX file in int8, the rest in bfloat16 where the processor multiplies it."""
    import openvino

    from paddle_inline.inference.backends import OpenVinoEngine, multiplies_bfloat16
    from paddle_inline.inference.int8 import quantise

    shape, random = (1, model.spec.in_chans, *model.img_size), np.random.RandomState(0)
    program = quantise(onnx, (random.standard_normal(shape).astype(np.float32) for _ in range(8)))
    openvino.save_model(program, str(folder / "int8.xml"), compress_to_fp16=False)
    return OpenVinoEngine(folder / "int8.xml", threads, "bf16" if multiplies_bfloat16() else "fp32")


def measure(name: str, arguments: argparse.Namespace, missing: list[str]) -> list[dict]:
    """Return the rows of one model."""
    engines, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        kinds = [kind for kind in arguments.engines if kind not in TORCH + PEERS]
        if kinds:
            try:
                engines = paddle_engines(
                    name, kinds, Path(folder), arguments.device, arguments.threads, missing
                )
            except Exception as error:
                missing.append(could_not_run(f"{name} in Paddle", error))
        for kind in arguments.engines:
            if kind in TORCH:
                try:
                    engines[kind] = torch_engine(name, kind, arguments.device, arguments.threads)
                except Exception as error:
                    missing.append(could_not_run(f"{name} {kind}", error))
        peers = [kind for kind in arguments.engines if kind in PEERS]
        if peers:
            try:
                engines.update(openvino_of_torch(name, peers, arguments.threads))
            except Exception as error:
                missing.append(could_not_run(f"{name} in OpenVINO, of PyTorch", error))
        for batch in arguments.batch_size:
            images = np.random.RandomState(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
            runs = {}
            for kind, engine in engines.items():
                try:
                    engine(images)
                    runs[kind] = functools.partial(engine, images)
                except Exception as error:
                    missing.append(could_not_run(f"{name} {kind} at batch {batch}", error))
            for kind, seconds in benchmark_interleaved(runs, arguments.rounds, rest=REST).items():
                rows.append({"model": name, "engine": kind, "batch": batch, "seconds": seconds})
            show(rows, name, batch)
    return rows


def show(rows: list[dict], name: str, batch: int) -> None:
    """Print one model's engines at one batch size, and how many times as fast as each the first is."""
    rows = [row for row in rows if row["model"] == name and row["batch"] == batch]
    first = rows[0]["seconds"]["median"] if rows else None
    print(f"\n{name}, batch {batch}")
    print_table(
        ["engine", "images/s", "half of the rounds", f"{rows[0]['engine'] if rows else ''} is x times this"],
        [
            [
                row["engine"],
                batch / row["seconds"]["median"],
                f"{batch / row['seconds']['high']:.1f} to {batch / row['seconds']['low']:.1f}",
                row["seconds"]["median"] / first,
            ]
            for row in rows
        ],
    )


def picture(rows: list[dict], device: str) -> None:
    """results/inference.png: for each model a bar for each engine and batch size, with the quartiles."""
    pyplot = plotting()
    if pyplot is None:
        return
    models, engines, batches = (
        list(dict.fromkeys(r[key] for r in rows)) for key in ("model", "engine", "batch")
    )
    size = (3.2 * len(models) + 1, 0.25 * len(engines) * len(batches) + 1.2)
    _, panels = pyplot.subplots(
        1, len(models), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    height = 0.8 / len(batches)
    for model, axes in zip(models, panels[0]):
        for b, batch in enumerate(batches):
            selected = [r for r in rows if (r["model"], r["batch"]) == (model, batch)]
            places = [engines.index(r["engine"]) + (b - (len(batches) - 1) / 2) * height for r in selected]
            middle, low, high = (
                [batch / r["seconds"][key] for r in selected] for key in ("median", "high", "low")
            )
            spread = [[m - v for m, v in zip(middle, low)], [v - m for m, v in zip(middle, high)]]
            axes.barh(places, middle, height, xerr=spread, label=f"batch {batch}", error_kw={"lw": 0.8})
        axes.set(title=model, xlabel="images a second", yticks=range(len(engines)), yticklabels=engines)
        axes.grid(alpha=0.3, axis="x")
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(fontsize=8)
    pyplot.suptitle(f"Inference on {device}")
    RESULTS.mkdir(exist_ok=True)
    pyplot.savefig(RESULTS / "inference.png", dpi=110)
    pyplot.close()
    print(RESULTS / "inference.png")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--engines", nargs="+", default=DEFAULT, choices=ENGINES + ANY_BATCH + TORCH + PEERS)
    parser.add_argument("--batch-size", type=positive(int), nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=positive(int), default=15)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument("--threads", type=positive(int))
    arguments = parser.parse_args(argv)
    rows, missing = [], []
    for name in arguments.models:
        rows += measure(name, arguments, missing)
        report("inference", argv, rows, missing)
    picture(rows, arguments.device)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
