"""Build models with equal weights and record or compare them: the part of the suite that loads frameworks."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_inline.utils.errors import UserError
from paddle_inline.weights.bfloat16 import from_bfloat16, to_bfloat16

from ..families import family_of
from .arbiter import Arbiter
from .capture import check_dtype, record_paddle, record_torch
from .comparison import Comparison
from .golden import Digest, Golden, compare_digest
from .inputs import rule_batch
from .models import (
    ARGUMENTS,
    BACKBONE,
    TRAINED,
    Source,
    create_paddle,
    create_pair,
    create_torch,
    fingerprints,
    torch_state,
)
from .recording import Recording
from .result import Report
from .steps import train_paddle, train_torch

if TYPE_CHECKING:
    import paddle
    import torch

StepResults = tuple[np.ndarray, dict[str, np.ndarray]]  # losses [steps], {PyTorch name: weight}


def compare(
    name: str | None,
    weights: Source = None,
    dtype: str = "float64",
    seed: int = 0,
    backward: bool = True,
    batch: int | None = None,
    arbiter: bool = True,
    steps: int = 0,
    **overrides: Any,
) -> Report:
    """Run one model in both frameworks on the same batch and compare every named sublayer.

    Args:
        name: one of `list_models()`; None: the weights file's, which may be a backbone. "backbone:NAME" is
            `create_backbone(NAME)`, on images of 133 x 77 pixels, which nothing divides.
        weights: a weights file or checkpoint of either framework, or {Paddle name: array}; None draws test weights in
            which every tensor matters (inputs.py). A file's own overrides need not be repeated.
        dtype: "float64", "float32" or "bfloat16": that of weights, input and computation.
        seed: of the test weights and the batch.
        backward: compare gradients too: of every sublayer's output, every parameter, the input.
        batch: images in the batch; None: see `rule_batch`.
        arbiter: below float64, run PyTorch in float64 too and measure both sides' distance from it.
        steps: also train for so many steps, in float64 whatever `dtype` is (steps.py).
        overrides: as for `create_model` or `create_backbone`, whose img_size here is the size of the images.

    Returns:
        A Report.

    Raises:
        UserError: as `create_model` and `load_weights` do; an unknown dtype; torch is not PyTorch.
    """
    check_dtype(dtype)
    check_steps(name, steps)
    check_frameworks()
    source = weights
    name, weights, overrides = open_weights(name, weights, overrides)
    pair = create_pair(name, weights, seed, **overrides)
    report = compare_models(*pair, dtype, seed, backward, batch, arbiter, steps)
    return dataclasses.replace(report, subject={**report.subject, **_origin(source, overrides)})


def open_weights(
    name: str | None, source: Source, overrides: dict[str, Any]
) -> tuple[str, Mapping[str, Any] | None, dict[str, Any]]:
    """Read a file of either framework; what is no file passes through.

    Args:
        name: of the model; None: the file's own.
        source: the file.
        overrides: of the model, beyond those that the file shows.

    Returns:
        (name, {Paddle name: array} or None, overrides)

    Raises:
        UserError: as `open_checkpoint` does.
    """
    if not isinstance(source, (str, os.PathLike)):
        return name, source, overrides  # type: ignore[return-value]  # create_model refuses a name of None
    from ..checkpoint import ConversionOptions, open_checkpoint, paddle_side

    if name is not None and name.startswith(BACKBONE):
        own = {key: value for key, value in overrides.items() if key not in (*ARGUMENTS, "img_size")}
        _, arrays, found = open_weights(name[len(BACKBONE) :], source, own)
        return name, arrays, {**_of_backbone(found), **overrides}
    options = ConversionOptions(model=name, overrides=overrides)
    opened = open_checkpoint(Path(source), options)
    for remark in opened.identity.remarks:
        print(f"note: {remark}", file=sys.stderr)
    arrays, identity, _ = paddle_side(opened, options)
    values = {key: array.read() for key, array in arrays.items()}
    if identity.maps is None:
        return identity.name, values, identity.overrides
    given = {**_of_backbone(identity.overrides), **identity.maps.arguments(identity.name)}
    return f"{BACKBONE}{identity.name}", values, given


def _of_backbone(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's overrides as those of the backbone that its weights are of."""
    found = {key: value for key, value in overrides.items() if key != "num_classes"}
    if "img_size" in found:
        found[TRAINED] = found.pop("img_size")
    return found


def compare_models(
    paddle_model: paddle.nn.Layer,
    torch_model: torch.nn.Module,
    dtype: str = "float64",
    seed: int = 0,
    backward: bool = True,
    batch: int | None = None,
    arbiter: bool = True,
    steps: int = 0,
) -> Report:
    """Compare two models that exist, a paddle.nn.Layer and its torch.nn.Module twin, as they are.

    Other arguments, result and errors as for `compare`.
    """
    check_frameworks()
    started = time.perf_counter()
    images, labels = batch_of(paddle_model, batch, seed)
    reference = record_torch(torch_model, images, labels, dtype, backward)
    reference.model = getattr(paddle_model, "name", type(paddle_model).__name__)
    reference.subject = _subject(images, labels, seed)
    into = functools.partial(Comparison, reference)
    if arbiter and dtype != "float64":
        candidate = record_paddle(paddle_model, images, labels, dtype, backward)
        candidate.model, candidate.subject = reference.model, reference.subject
        judge = Arbiter(reference, candidate)
        record_torch(torch_model, rounded(images, dtype), labels, "float64", backward, lambda *_: judge)
        head = candidate.framework, candidate.version, candidate.model, candidate.dtype
        comparison = candidate.replay(into(*head, judge))
    else:  # compared as it is computed, so that one side's tensors are kept at a time
        comparison = record_paddle(paddle_model, images, labels, dtype, backward, into)
    if steps:
        reference.step_losses, reference.step_weights = _steps(torch_model, train_torch, steps, batch, seed)
        comparison.steps(*_steps(paddle_model, train_paddle, steps, batch, seed))
    return dataclasses.replace(comparison.report(), seconds=time.perf_counter() - started)


def check_steps(name: str | None, steps: int) -> None:
    """Refuse to train what has no head."""
    if steps and name is not None and name.startswith(BACKBONE):
        raise UserError(f"{name} has no head to train: leave the steps out, or give {name[len(BACKBONE) :]}")


def batch_of(model: Any, batch: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels that a model of either package is run on; see `rule_batch`."""
    return rule_batch(model.spec, batch, seed, getattr(model, "image_size", None))


def _steps(model: Any, train: Callable[..., Any], steps: int, batch: int | None, seed: int) -> StepResults:
    """The results of a training run, each step on a batch of its own."""
    batches = [rule_batch(model.spec, batch, seed + 1 + step) for step in range(steps)]
    losses = train(model, batches, family_of(model).recipe)
    return losses, {name: value for name, value in torch_state(model).items() if value.dtype.kind == "f"}


def compare_golden(golden: Golden, framework: str = "paddle", dtype: str = "float64") -> Report:
    """Compare one framework alone with a Golden; in float32 the logits alone."""
    started = time.perf_counter()
    create, run, _ = _SIDES[framework]
    model = create(golden.model, seed=golden.seed, **golden.overrides)
    digest = run(model, *golden.batch(), dtype, backward=dtype == "float64", into=Digest)
    if framework == "paddle":
        from paddle_inline.weights.torch_layout import torch_shapes

        shapes = torch_shapes(model)
    else:
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    report = compare_digest(digest, golden, shapes)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


def record(
    framework: str,
    name: str | None,
    weights: Source = None,
    dtype: str = "float64",
    seed: int = 0,
    backward: bool = True,
    batch: int | None = None,
    truth: bool = False,
    steps: int = 0,
    **overrides: Any,
) -> tuple[Recording, Recording | None]:
    """Run one framework's half of `compare`, which loads no other framework.

    Args:
        framework: "torch" or "paddle".
        weights: a file of this framework, or None.
        truth: also record the same rounded numbers in float64, for the arbiter.

    Other arguments and errors as for `compare`.

    Returns:
        (Recording, Recording of the truth or None)
    """
    if framework not in _SIDES:
        raise UserError(f"framework {framework!r} must be one of {', '.join(_SIDES)}")
    check_steps(name, steps)
    create, run, train = _SIDES[framework]
    if framework == "paddle":
        name, weights, overrides = open_weights(name, weights, overrides)
    model = create(name, weights, seed, **overrides)
    images, labels = batch_of(model, batch, seed)
    recording, true = run(model, images, labels, dtype, backward), None
    if truth:
        true = run(model, rounded(images, dtype), labels, "float64", backward)
    for each in filter(None, (recording, true)):
        each.subject = {**_subject(images, labels, seed), **_origin(None, overrides)}
        each.weights = fingerprints(model)
    if steps:
        recording.step_losses, recording.step_weights = _steps(model, train, steps, batch, seed)
    return recording, true


def _subject(images: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    return {"input": list(images.shape), "seed": seed, "labels": labels.tolist()}


def _origin(weights: Source, overrides: Mapping[str, Any]) -> dict[str, Any]:
    source = "drawn for the test" if weights is None else "given"
    if isinstance(weights, (str, os.PathLike)):
        source = os.path.basename(weights)
    return {"weights": source, "overrides": {key: str(value) for key, value in overrides.items()}}


def check_frameworks() -> None:
    """Refuse to compare Paddle with itself: after `paddle.enable_compat()`, `import torch` is Paddle.

    Judged by what the module makes, not by its path, which may well hold the word "paddle".
    """
    import paddle
    import torch

    if torch is paddle or isinstance(torch.zeros([1]), paddle.Tensor):
        raise UserError(
            f"`import torch` gives {torch!r}, not PyTorch: paddle.enable_compat() is on; "
            "start a new process without it"
        )


def rounded(images: np.ndarray, dtype: str) -> np.ndarray:
    """Return float64 images, each value rounded to `dtype`."""
    if dtype == "float64":
        return images
    images = from_bfloat16(to_bfloat16(images)) if dtype == "bfloat16" else images.astype("float32")
    return images.astype("float64")


_SIDES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "torch": (create_torch, record_torch, train_torch),
    "paddle": (create_paddle, record_paddle, train_paddle),
}
