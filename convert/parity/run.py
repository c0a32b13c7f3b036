"""Build models with equal weights and compare them: the part of the suite that loads the frameworks."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from .capture import check_dtype, record_paddle, record_torch
from .comparison import compare_recordings
from .weights import rule_batch, rule_weights


def compare(name, weights=None, dtype="float64", seed=0, backward=True, batch=2, arbiter=True, **overrides):
    """Run one model in both frameworks on the same batch and compare every named sublayer.

    Args:
        name: one of `list_models()`; `overrides`: as for `create_model`.
        weights: a `.pdparams` file (or {Paddle name: array}); None draws test weights in which
            every tensor matters (weights.py).
        dtype: "float64", "float32" or "bfloat16": that of weights, input and computation.
        seed: of the test weights and the batch.
        backward: compare gradients too: of every sublayer's output, every parameter, the input.
        batch: images in the batch.
        arbiter: below float64, run PyTorch in float64 too and measure both sides' distance from it.
    Returns:
        A Report.
    Raises:
        ValueError: as `create_model` and `load_weights` do; an unknown dtype.
    """
    check_dtype(dtype)
    ours, theirs = create_pair(name, weights, seed, **overrides)
    return compare_models(ours, theirs, dtype, seed, backward, batch, arbiter)


def compare_models(ours, theirs, dtype="float64", seed=0, backward=True, batch=2, arbiter=True):
    """`compare` for two models that exist: a paddle.nn.Layer and its torch.nn.Module twin, as they are."""
    check_frameworks()
    started = time.perf_counter()
    images, labels = rule_batch(ours.spec, batch, seed)
    reference = record_torch(theirs, images, labels, dtype, backward)
    candidate = record_paddle(ours, images, labels, dtype, backward)
    truth = None
    if arbiter and dtype != "float64":
        # the same rounded numbers, computed exactly
        truth = record_torch(theirs, _rounded(images, dtype), labels, "float64", backward)
    report = compare_recordings(reference, candidate, truth)
    return dataclasses.replace(report, seconds=time.perf_counter() - started)


def create_pair(name, weights=None, seed=0, **overrides):
    """(paddle_inline model, torch_ref model) in eval mode with the same weights, float64 test weights if
    `weights` is None. Arguments and errors as for `compare`."""
    import torch

    import torch_ref

    from ..translate import paddle_to_torch

    ours = create_paddle(name, weights, seed, **overrides)
    theirs = torch_ref.create_model(name, **overrides)
    state = paddle_to_torch({key: value.numpy() for key, value in ours.state_dict().items()}, ours)
    theirs.to(torch.from_numpy(next(iter(state.values()))).dtype)
    theirs.load_state_dict({key: torch.as_tensor(value) for key, value in state.items()})
    return ours, theirs.eval()


def create_paddle(name, weights=None, seed=0, **overrides):
    """A paddle_inline model in eval mode, with a file's weights or float64 test weights."""
    import paddle_inline

    from ..translate import paddle_to_torch, torch_to_paddle

    model = paddle_inline.create_model(name, **overrides)
    if weights is None:
        template = paddle_to_torch({key: value.numpy() for key, value in model.state_dict().items()}, model)
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


def check_frameworks():
    """Refuse to compare Paddle with itself: after `paddle.enable_compat()`, `import torch` is Paddle."""
    import paddle
    import torch

    if torch is paddle or "paddle" in (getattr(torch, "__file__", None) or "paddle"):
        raise RuntimeError(
            f"`import torch` gives {torch!r}, not PyTorch: paddle.enable_compat() is on; "
            "start a new process without it"
        )


def _rounded(images, dtype):
    """float64 images, each value rounded to `dtype`."""
    if dtype == "float32":
        return images.astype("float32").astype("float64")
    bits = np.ascontiguousarray(images, "float32").view("uint32")
    # round to nearest, ties to even, in the upper sixteen bits
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype("uint32").view("float32").astype("float64")
