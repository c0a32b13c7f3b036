"""Exported files held against the model that they were traced from, in every engine that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.child import run_python
from .backends import EagerEngine, OnnxEngine, OpenVinoEngine, PaddleEngine, multiplies_bfloat16

if TYPE_CHECKING:
    import paddle

TOLERANCE = 1e-5  # of the largest logit, and of 1 at least: float32 of two engines differs in the last digits


BF16_IMAGES = 16  # for which bfloat16 must not change the class, for `Predictor(precision="auto")` to take it


class ExportError(RuntimeError):
    """An exported program that does not compute what the model does; nothing was written."""


def check_engines(
    model: paddle.nn.Layer,
    folder: Path,
    files: dict[str, str | None],
    batch: int | None = None,
    log: Callable[[str], Any] = print,
) -> list[dict[str, Any]]:
    """Compare the files of an export with their model in every engine.

    Args:
        files: {kind: file name} in `folder`, as in the card.
        batch: the one batch size of the program; None: any.
        log: called with a line about each engine.

    Returns:
        The card's rows: {"engine", "batches", "error"}, or "crash" in place of "error" where oneDNN crashed.

    Raises:
        ExportError: an engine differs from the model by more than TOLERANCE.
    """
    sizes = (1, 3) if batch is None else (batch, batch)
    shape = (model.spec.in_chans, *model.img_size)
    random = np.random.RandomState(0)
    batches = [  # of other contrast, so that what an engine keeps from its first call shows in the second
        (scale * random.standard_normal((size, *shape))).astype(np.float32)
        for size, scale in zip(sizes, (1, 3))
    ]
    expected = [EagerEngine(model)(images) for images in batches]
    program, params = folder / str(files["program"]), folder / str(files["params"])
    runs: dict[str, Callable[[], list[np.ndarray] | str]] = {
        "Paddle Inference": lambda: _run_all(PaddleEngine(program, params, onednn=False), batches),
        "Paddle Inference with oneDNN": lambda: run_onednn_apart(program, params, batches),
    }
    if files["onnx"]:
        onnx = folder / files["onnx"]
        runs["ONNX Runtime"] = lambda: _run_all(OnnxEngine(onnx), batches)
        if find_spec("openvino"):
            # the first batch size in a program of its own, the second in the any-batch one
            runs["OpenVINO"] = lambda: _run_all(OpenVinoEngine(onnx, batches=1), batches)
    rows = []
    for engine, run in runs.items():
        row: dict[str, Any] = {"engine": engine, "batches": list(sizes)}
        results = run()
        if isinstance(results, str):
            row["crash"] = results
            log(f"{engine} crashes on this program, so it is left off: {results}")
        else:
            row["error"] = compare(results, expected, engine)
            at = f"batches {sizes[0]} and {sizes[1]}" if batch is None else f"batch {batch}, twice"
            log(f"{engine} agrees to {row['error']:.1e} at {at}")
        rows.append(row)
    return rows


def try_bfloat16(
    onnx: Path, shape: Sequence[int], batch: int | None = None, log: Callable[[str], Any] = print
) -> dict[str, Any] | None:
    """Count for how many of some made-up images OpenVINO finds the same class in bfloat16 as in float32.

    Args:
        onnx: the file, which was checked.
        shape: (C, H, W) of an image.
        batch: the one batch size of the program; None: any.
        log: called with a line about it.

    Returns:
        The card's entry, {"images", "agree", "error"}: the largest difference of the logits, divided by the largest
        logit where that is above 1. None where OpenVINO is missing or this processor does not multiply bfloat16.
    """
    if not multiplies_bfloat16():
        return None
    size = batch or BF16_IMAGES
    random, (channels, height, width) = np.random.RandomState(0), shape
    answers: dict[str, list[np.ndarray]] = {"fp32": [], "bf16": []}
    engines = {precision: OpenVinoEngine(onnx, None, precision) for precision in answers}
    for _ in range(0, BF16_IMAGES, size):
        images = random.standard_normal(
            (size, channels, 4, 4)
        )  # patches of colour, as pictures have, and noise
        images = images[:, :, np.arange(height) * 4 // height][..., np.arange(width) * 4 // width]
        images = (images + 0.3 * random.standard_normal((size, *shape))).astype(np.float32)
        for precision, engine in engines.items():
            answers[precision].append(engine(images))
    full, half = (np.concatenate(answers[precision]) for precision in ("fp32", "bf16"))
    agree = (full.argmax(-1) == half.argmax(-1)).sum().item()
    error = (np.abs(half - full).max() / max(1.0, np.abs(full).max())).item()
    log(
        f"OpenVINO in bf16 finds the class of fp32 for {agree} of {len(full)} images, logits differ by {error:.1e}"
    )
    return {"images": len(full), "agree": agree, "error": error}


def _run_all(engine: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> list[np.ndarray]:
    return [engine(images) for images in batches]


def run_onednn_apart(program: Path, params: Path, batches: list[np.ndarray]) -> list[np.ndarray] | str:
    """Run `PaddleEngine` with oneDNN in a process of its own.

    Returns:
        The results, or the last line of the error output where the process dies.
    """
    code = (
        "import sys, numpy; from paddle_inline.inference.backends import PaddleEngine\n"
        "engine = PaddleEngine(*sys.argv[1:3])\n"
        "with numpy.load(sys.argv[3]) as given: results = [engine(given[name]) for name in given.files]\n"
        "numpy.savez(sys.argv[4], *results)"
    )
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "batches.npz", Path(folder) / "results.npz"
        np.savez(inputs, *batches)
        done = run_python(code, program, params, inputs, outputs)
        if not outputs.is_file():
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        with np.load(outputs) as results:
            return [results[name] for name in results.files]


def compare(results: Sequence[np.ndarray], expected: Sequence[np.ndarray], engine: str) -> float:
    """Return the largest difference, divided by the largest expected value where that is above 1.

    Raises:
        ExportError: it is above TOLERANCE, or shapes differ; the message names the engine.
    """
    worst = 0.0
    for result, truth in zip(results, expected):
        if result.shape != truth.shape:
            raise ExportError(f"{engine} gives {result.shape}, the model {truth.shape}; nothing was written")
        error = np.abs(result - truth).max() / max(1.0, np.abs(truth).max())
        if not error <= TOLERANCE:  # a NaN is no agreement either
            raise ExportError(
                f"{engine} differs from the model by {error:.1e} at batch {len(truth)}, allowed is "
                f"{TOLERANCE}; nothing was written"
            )
        worst = max(worst, error.item())
    return worst
