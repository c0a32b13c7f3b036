"""Build models with equal weights and record or compare them: the part of the suite that loads frameworks."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import zlib

from paddle_inline.utils.errors import UserError
from paddle_inline.weights.bfloat16 import from_bfloat16, to_bfloat16

from .capture import check_dtype, record_paddle, record_torch
from .comparison import Arbiter, Comparison
from .golden import Digest, compare_digest
from .inputs import rule_batch, rule_weights
from .steps import recipe_of, train_paddle, train_torch


def compare(
    name, weights=None, dtype="float64", seed=0, backward=True, batch=None, arbiter=True, steps=0, **overrides
):
    """Run one model in both frameworks on the same batch and compare every named sublayer.

    Args:
        name: one of `list_models()`; `overrides`: as for `create_model`.
        weights: a weights file or checkpoint of either framework, or {Paddle name: array}; None draws test
            weights in which every tensor matters (weights.py). A file's own overrides need not be repeated.
        dtype: "float64", "float32" or "bfloat16": that of weights, input and computation.
        seed: of the test weights and the batch.
        backward: compare gradients too: of every sublayer's output, every parameter, the input.
        batch: images in the batch; None: see `rule_batch`.
        arbiter: below float64, run PyTorch in float64 too and measure both sides' distance from it.
        steps: also train for so many updates, in float64 whatever `dtype` is (steps.py).
    Returns:
        A Report.
    Raises:
        ValueError: as `create_model` and `load_weights` do; an unknown dtype; torch is not PyTorch.
    """
    check_dtype(dtype)
    check_frameworks()
    source = weights
    name, weights, overrides = open_weights(name, weights, overrides)
    ours, theirs = create_pair(name, weights, seed, **overrides)
    report = compare_models(ours, theirs, dtype, seed, backward, batch, arbiter, steps)
    return dataclasses.replace(report, subject={**report.subject, **_origin(source, overrides)})


def open_weights(name, source, overrides):
    """(name, {Paddle name: array} or None, overrides) of a file of either framework; what is no file passes
    through. `name` None: the file's own.

    Raises ValueError, FileNotFoundError: see `open_checkpoint`.
    """
    if not isinstance(source, (str, os.PathLike)):
        return name, source, overrides
    from ..conversion import ConversionOptions, open_checkpoint, paddle_side

    options = ConversionOptions(model=name, overrides=overrides)
    arrays, identity, _ = paddle_side(open_checkpoint(source, options), options)
    return identity.name, {key: array.read() for key, array in arrays.items()}, identity.overrides


def compare_models(ours, theirs, dtype="float64", seed=0, backward=True, batch=None, arbiter=True, steps=0):
    """`compare` for two models that exist: a paddle.nn.Layer and its torch.nn.Module twin, as they are."""
    check_frameworks()
    started = time.perf_counter()
    images, labels = rule_batch(ours.spec, batch, seed)
    reference = record_torch(theirs, images, labels, dtype, backward)
    reference.model = getattr(ours, "name", type(ours).__name__)
    reference.subject = _subject(images, labels, seed)
    into = functools.partial(Comparison, reference)
    if arbiter and dtype != "float64":
        candidate = record_paddle(ours, images, labels, dtype, backward)
        candidate.model, candidate.subject = reference.model, reference.subject
        listener = Arbiter(reference, candidate)
        record_torch(theirs, rounded(images, dtype), labels, "float64", backward, lambda *_: listener)
        head = candidate.framework, candidate.version, candidate.model, candidate.dtype
        comparison = candidate.replay(into(*head, listener))
    else:  # compared as it is computed, so that one side's tensors are kept at a time
        comparison = record_paddle(ours, images, labels, dtype, backward, into)
    if steps:
        reference.step_losses, reference.step_weights = _steps(theirs, train_torch, steps, batch, seed)
        comparison.steps(*_steps(ours, train_paddle, steps, batch, seed))
    return dataclasses.replace(comparison.report(), seconds=time.perf_counter() - started)


def _steps(model, train, steps, batch, seed):
    """(losses, {PyTorch name: weight}) of a training run, each update on a batch of its own."""
    batches = [rule_batch(model.spec, batch, seed + 1 + step) for step in range(steps)]
    losses = train(model, batches, recipe_of(model.name))
    return losses, {name: value for name, value in _torch_state(model).items() if value.dtype.kind == "f"}


def compare_golden(golden, framework="paddle", dtype="float64"):
    """The Report on one framework alone against a Golden; in float32 the logits are compared."""
    from ..translate import torch_shapes

    started = time.perf_counter()
    create, run = _SIDES[framework]
    model = create(golden.model, seed=golden.seed, **golden.overrides)
    digest = run(model, *golden.batch(), dtype, backward=dtype == "float64", into=Digest)
    if framework == "paddle":
        shapes = torch_shapes(model)
    else:
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    report = compare_digest(digest, golden, shapes)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


def record(
    framework,
    name,
    weights=None,
    dtype="float64",
    seed=0,
    backward=True,
    batch=None,
    truth=False,
    steps=0,
    **overrides,
):
    """One framework's half of `compare`, which loads no other framework.

    Args:
        framework: "torch" or "paddle"; the others as for `compare`, but `weights` is this framework's file.
        truth: also record the same rounded numbers in float64, for the arbiter.
    Returns:
        (Recording, Recording of the truth or None)
    """
    if framework not in _SIDES:
        raise UserError(f"framework {framework!r} must be one of {', '.join(_SIDES)}")
    create, run = _SIDES[framework]
    if framework == "paddle":
        name, weights, overrides = open_weights(name, weights, overrides)
    model = create(name, weights, seed, **overrides)
    images, labels = rule_batch(model.spec, batch, seed)
    recordings = [run(model, images, labels, dtype, backward), None]
    if truth:
        recordings[1] = run(model, rounded(images, dtype), labels, "float64", backward)
    for recording in filter(None, recordings):
        recording.subject = {**_subject(images, labels, seed), **_origin(None, overrides)}
        recording.weights = fingerprints(model)
    if steps:
        train = {"torch": train_torch, "paddle": train_paddle}[framework]
        recordings[0].step_losses, recordings[0].step_weights = _steps(model, train, steps, batch, seed)
    return tuple(recordings)


def _subject(images, labels, seed):
    return {"input": list(images.shape), "seed": seed, "labels": labels.tolist()}


def _origin(weights, overrides):
    source = "drawn for the test" if weights is None else "given"
    if isinstance(weights, (str, os.PathLike)):
        source = os.path.basename(weights)
    return {"weights": source, "overrides": {key: str(value) for key, value in overrides.items()}}


def create_pair(name, weights=None, seed=0, **overrides):
    """(paddle_inline model, torch_ref model) in eval mode with the same weights, float64 test weights if
    `weights` is None. Arguments and errors as for `compare`."""
    import torch

    import torch_ref

    ours = create_paddle(name, weights, seed, **overrides)
    theirs = torch_ref.create_model(name, **overrides)
    state = _torch_state(ours)
    theirs.to(torch.from_numpy(next(iter(state.values()))).dtype)
    theirs.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    return ours, theirs.eval()


def create_paddle(name, weights=None, seed=0, **overrides):
    """A paddle_inline model in eval mode, with a file's weights or float64 test weights."""
    import paddle_inline

    from ..translate import torch_to_paddle

    model = paddle_inline.create_model(name, **overrides)
    if weights is None:
        template = _torch_state(model)
        model.to(dtype="float64")
        paddle_inline.load_weights(model, torch_to_paddle(rule_weights(template, seed), model))
    else:
        paddle_inline.load_weights(model, weights)
    model.eval()
    return model


def create_torch(name, weights=None, seed=0, **overrides):
    """A torch_ref model in eval mode, with a PyTorch file's weights or float64 test weights."""
    import torch

    import torch_ref

    model = torch_ref.create_model(name, weights=weights, **overrides)
    if weights is None:
        state = rule_weights({key: value.numpy() for key, value in model.state_dict().items()}, seed)
        model.double().load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return model.eval()


def _torch_state(model):
    """{PyTorch name: array} of a model of either framework."""
    if not hasattr(model, "sublayers"):
        return {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    from ..translate import paddle_to_torch

    return paddle_to_torch({key: value.numpy() for key, value in model.state_dict().items()}, model)


def fingerprints(model):
    """{PyTorch name: checksum} of a model of either framework, equal for equal numbers of any dtype."""
    return {
        name: zlib.crc32(value.astype("float64").tobytes()) for name, value in _torch_state(model).items()
    }


def check_frameworks():
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


def rounded(images, dtype):
    """float64 images, each value rounded to `dtype`."""
    if dtype == "float64":
        return images
    images = from_bfloat16(to_bfloat16(images)) if dtype == "bfloat16" else images.astype("float32")
    return images.astype("float64")


_SIDES = {"torch": (create_torch, record_torch), "paddle": (create_paddle, record_paddle)}
