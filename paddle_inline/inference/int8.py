"""An export's ONNX file as an int8 program of OpenVINO: calibrated on pictures, measured on others, or not written.

NNCF quantises the linear layers, found in the graph by what they are (`kind_of`): their products are what int8 makes
faster. All else stays in float, by what was measured (docs/deploy.md): the head, whose one product costs as much
accuracy as many layers and takes no time; the attention's products and centring, the local residual and its filters,
convolutions, normalisations and sums.

B batch, C channels, K classes.

(A few lines above 300: what makes a program, what judges it, and who may run it.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import MissingPackageError, UserError
from .backends import PRECISIONS, OpenVinoEngine, multiplies_bfloat16, multiplies_int8
from .calibration import Calibration, Pictures, check_max_drop
from .openvino_graph import openvino_core, signal_stack_kept, simplify

BATCH = 8  # pictures at once, of a program for any batch
# What goes through the graph on the way to the next layer without being one, between a product and what follows it.
PASSED = {"Add", "Subtract", "Multiply", "Divide", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert"}
GELU = {"Erf", "Gelu", "Tanh"}
# Kinds of linear layers that stay in float, step by step, until the pictures of the calibration keep their classes: the
# first of an MLP cost least, in a trained network and in fresh ones.
STEPS: tuple[tuple[str, ...], ...] = ((), ("second of an MLP",), ("second of an MLP", "other"))


def check_packages() -> None:
    """Raise MissingPackageError where what makes an int8 program is not installed."""
    missing = [name for name in ("nncf", "openvino") if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"--int8 needs {' and '.join(missing)}: pip install 'paddle-inline[int8]', or pip install nncf openvino"
        )


def write_int8(
    onnx: Path, folder: Path, calibration: Calibration, batch: int | None, log: Callable[[str], Any] = print
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write model-int8.xml and model-int8.bin, if int8 keeps the accuracy.

    The kinds of linear layers in `STEPS` go back to float until at most `max_drop` percent of the calibration's
    pictures change their class, so that the held-out ones choose nothing.

    Args:
        onnx: the file, which was checked.
        folder: to write into.
        batch: the one batch size of the program; None: any.
        log: called with lines about what was found.

    Returns:
        ({kind: file name}, the card's entry), which holds {"calibration", "held_out", "max_drop", "float", "rest",
        "rows": [{"precision", "top1", "agree", "error"}]}; top1 is None without labels, in percent else.

    Raises:
        MissingPackageError: NNCF or OpenVINO is not installed.
        UserError: int8 costs more than `max_drop`.
    """
    check_packages()
    check_max_drop(calibration.max_drop)
    import openvino

    if not multiplies_int8():
        log("note: this processor has no instructions for int8 (VNNI, AMX): it may be slow here")
    training, held_out = calibration.training, calibration.held_out
    log(
        f"int8: calibrated on {training.count} {training.source}, measured on {held_out.count} {held_out.source}"
    )
    if held_out.labels is None:
        log("they have no labels: measured is for how many int8 finds the class of float32")
    rest = "bf16" if multiplies_bfloat16() else "fp32"
    full = logits_of(OpenVinoEngine(onnx), training, batch)
    best: tuple[float, Any, tuple[str, ...]] | None = None
    files = {"int8": "model-int8.xml", "int8_weights": "model-int8.bin"}
    path = folder / files["int8"]
    for kept in STEPS:
        program = quantise(onnx, training.batches(batch or 1, fill=True), kept)
        openvino.save_model(program, str(path), compress_to_fp16=False)
        found = compare_logits(logits_of(OpenVinoEngine(path, precision=rest), training, batch), full)
        changed = 100 * (1 - found["agree"] / training.count)
        if best is None or changed < best[0]:
            best = changed, program, kept
        if changed <= calibration.max_drop:
            break
        log(f"int8 changes the class of {changed:.1f} % of the calibration's pictures{_without(kept)}")
    assert best is not None
    if best[1] is not program:  # which is what the file holds
        openvino.save_model(best[1], str(path), compress_to_fp16=False)
    rows = measure(onnx, path, held_out, batch, rest)
    for line in table(rows, held_out.count):
        log(line)
    labelled = held_out.labels_fit(rows[0]["top1"], full.shape[1])
    if held_out.labels is not None and not labelled:
        log("top-1 of fp32 is no better than chance (are the labels the model's?): its classes stand in")
    check_drop(rows, held_out.count, calibration.max_drop, labelled)
    return files, {
        "calibration": {"pictures": training.count, "of": training.source},
        "held_out": {"pictures": held_out.count, "of": held_out.source},
        "max_drop": calibration.max_drop,
        "float": list(best[2]),
        "rest": rest,
        "rows": rows,
    }


def import_nncf() -> Any:
    """Return NNCF, without the reports of its use that it sends over the network: it reads the switch at its import."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    nncf.set_log_level(logging.ERROR)
    return nncf


def quantise(onnx: str | Path, batches: Iterable[np.ndarray], kept: Sequence[str] = ()) -> Any:
    """Return an `openvino.Model` of an ONNX file, its linear layers in int8.

    Activations are symmetric around zero: their products need no second sum for a zero point, which made int8 slower
    than bfloat16 where AMX multiplies both. Channels are evened out first (SmoothQuant, with NNCF's own exponent).

    Args:
        batches: images [B, C, H, W] float32 to read the ranges of numbers from.
        kept: kinds (`kind_of`) that stay in float besides.
    """
    nncf = import_nncf()
    program = openvino_core().read_model(str(onnx))
    simplify(program)
    nodes = program.get_ordered_ops()
    chosen = {node.get_friendly_name() for node in nodes if kind_of(node) not in (None, *kept)}
    others = [
        node.get_friendly_name()
        for node in nodes
        if node.get_friendly_name() not in chosen
        and node.get_type_name() not in ("Constant", "Parameter", "Result")
    ]
    images = list(batches)
    with signal_stack_kept(), no_progress_bars():
        return nncf.quantize(
            program,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep rich's console, on which NNCF draws its progress, quiet."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def kind_of(node: Any) -> str | None:
    """Return which kind of linear layer a node of a graph is; None: it is none, or the head, and stays in float.

    "first of an MLP": GELU follows; "second of an MLP": GELU is before; "other": the projections of the attention,
    patch mergings.
    """
    if node.get_type_name() != "MatMul" or not _stored(node.input_value(1)):
        return None
    after = _met(node, lambda one: [target.get_node() for target in one.output(0).get_target_inputs()])
    if "Result" in after:  # the head
        return None
    if after & GELU:
        return "first of an MLP"
    before = _met(node, lambda one: [value.get_node() for value in one.input_values()])
    return "second of an MLP" if before & GELU else "other"


def _stored(output: Any) -> bool:
    node = output.get_node()
    while node.get_type_name() in ("Convert", "Transpose", "Reshape"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"


def _met(node: Any, neighbours: Callable[[Any], list[Any]]) -> set[str]:
    """Return the types of the nodes on all ways up to the first that is none of `PASSED`, that one included."""
    waiting, met, seen = neighbours(node), set(), set()
    while waiting:
        one = waiting.pop()
        met.add(one.get_type_name())
        if one.get_type_name() in PASSED and one.get_friendly_name() not in seen:
            seen.add(one.get_friendly_name())
            waiting += neighbours(one)
    return met


def logits_of(
    engine: Callable[[np.ndarray], np.ndarray], pictures: Pictures, batch: int | None
) -> np.ndarray:
    """Return an engine's logits [pictures, K], in batches of `batch` (None: `BATCH`)."""
    parts = [engine(images) for images in pictures.batches(batch or BATCH, fill=batch is not None)]
    return np.concatenate(parts)[: pictures.count]


def compare_logits(
    logits: np.ndarray, full: np.ndarray, labels: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return {"top1", "agree", "error"} of logits [pictures, K] beside those of float32.

    Returns:
        top1 in percent, None without labels; for how many pictures the class is that of float32; the largest difference
        of a logit, divided by the largest logit where that is above 1.
    """
    answers = logits.argmax(-1)
    return {
        "top1": None if labels is None else 100 * (answers == np.asarray(labels)).mean().item(),
        "agree": (answers == full.argmax(-1)).sum().item(),
        "error": (np.abs(logits - full).max() / max(1.0, np.abs(full).max())).item(),
    }


def measure(onnx: Path, int8: Path, held_out: Pictures, batch: int | None, rest: str) -> list[dict[str, Any]]:
    """Return the card's rows: float32, bfloat16 where the processor multiplies it, int8, over the held-out pictures."""
    engines = {"fp32": OpenVinoEngine(onnx)}
    if multiplies_bfloat16():
        engines["bf16"] = OpenVinoEngine(onnx, precision="bf16")
    engines["int8"] = OpenVinoEngine(int8, precision=rest)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    for images in held_out.batches(batch or BATCH, fill=batch is not None):
        for name, engine in engines.items():
            parts[name].append(engine(images))
    logits = {name: np.concatenate(part)[: held_out.count] for name, part in parts.items()}
    return [
        {"precision": name, **compare_logits(found, logits["fp32"], held_out.labels)}
        for name, found in logits.items()
    ]


def table(rows: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Return the rows as lines of a table."""
    lines = [f"{'':6}{'top-1':>8}   class of fp32   largest difference of a logit"]
    for row in rows:
        top1 = "-" if row["top1"] is None else f"{row['top1']:.2f} %"
        lines.append(
            f"{row['precision']:6}{top1:>8}   {row['agree']} of {count}   {100 * row['error']:.2g} %"
        )
    return lines


def check_drop(rows: Sequence[dict[str, Any]], count: int, max_drop: float, labelled: bool) -> None:
    """Refuse an int8 program that costs too much top-1, or float32's classes where labels say nothing: UserError."""
    of = {row["precision"]: row for row in rows}
    if not labelled:
        drop, what = 100 * (1 - of["int8"]["agree"] / count), "the share of pictures with float32's class"
    else:
        drop, what = of["fp32"]["top1"] - of["int8"]["top1"], "top-1"
    if not drop <= max_drop + 1e-9:  # a NaN is no accuracy either
        raise UserError(
            f"int8 lowers {what} by {drop:.2f} points over {count} held-out pictures, --max-drop allows {max_drop:g}: "
            "nothing was written. Calibrate on more pictures, or on such as the model will see; use bf16; or allow more"
        )


def _without(kept: Sequence[str]) -> str:
    return f" with {', '.join(kept)} in float" if kept else ""


def int8_engine(card: Mapping[str, Any], engine: str, source: str | Path) -> str:
    """Return "openvino", which alone runs int8; a warning where this processor has no instructions for it.

    Raises:
        UserError: another engine was asked for, or the export holds no int8 program.
    """
    if engine not in ("auto", "openvino"):
        raise UserError(f"engine {engine} does not run int8; use openvino, or another precision")
    files, found = card["files"], card.get("int8")
    if not (files.get("int8") and files.get("int8_weights") and isinstance(found, Mapping)):
        raise UserError(
            f"{source} holds no int8 program: `python -m paddle_inline export --weights FILE --output {source} "
            "--dynamic-batch --int8 --calibrate PICTURES` writes one"
        )
    if found.get("rest") not in PRECISIONS:
        raise UserError(f"{source}: int8 of its card lacks the precision of the rest: export the model again")
    if not multiplies_int8():
        warnings.warn("this processor has no instructions for int8: it may be slow here", stacklevel=3)
    return "openvino"


def precision_of_rest(card: Mapping[str, Any]) -> str:
    """Return the precision of what is not in int8: the card's; fp32, with a warning, where bf16 is not multiplied."""
    rest = str(card["int8"]["rest"])
    if rest == "bf16" and not multiplies_bfloat16():
        warnings.warn(
            "this processor has no bfloat16 multiplication: what is not in int8 runs in float32, where the card's "
            "accuracy was measured in bf16",
            stacklevel=3,
        )
        return "fp32"
    return rest
