"""What forms cost: parameters, multiply-adds, speed and memory of the network, and how a layer grows with its tokens.

Times are taken in turn, round by round, so that what else the machine does meets all forms alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle

from ..layers.attention import create_attention
from ..models.factory import create_model, model_spec
from ..ops.tokens import Size
from ..utils.errors import UserError
from ..utils.flops import profile
from ..utils.timing import benchmark_interleaved, machine
from .plan import Form, Plan
from .rows import attention_layers, derivative_rank

SIDES = (1, 2, 4)  # times the network's own image size
BATCH = 8
GRIDS = (14, 20, 28, 40, 56)  # sides of the grids on which a layer is timed: 196 to 3,136 tokens
SLOPE_FROM = 784  # tokens from which the exponents are fitted: below, the fixed cost of a call shows
RANK_GRID = (14, 14)


def costs(plan: Plan, form: Form) -> dict[str, Any]:
    """Return what needs no clock: {"params", "macs", "rank", "head_width", "linear", "source", ...} of a form."""
    model = create_model(plan.backbone, **form.overrides())
    counted = profile(model)
    found: dict[str, Any] = {"params": counted.params, "macs": counted.total}
    layer = attention_layers(model)[0] if attention_layers(model) else None
    if layer is not None:
        found["head_width"] = layer_dim(model) // layer.num_heads
        found["rank"] = rank_of_form(form, layer_dim(model), layer.num_heads)
    return found


def layer_dim(model: paddle.nn.Layer) -> int:
    """Return the channels C of a network's first layer of attention."""
    spec = model.spec
    return spec.embed_dims[0] if hasattr(spec, "embed_dims") else spec.embed_dim


def rank_of_form(form: Form, dim: int, heads: int) -> int | None:
    """Return the rank of the derivative of a row by its query in a fresh layer; None for a form without rows."""
    dtype = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    try:
        layer = create_attention(form.attention, dim, heads, grid=RANK_GRID, **dict(form.options))
        layer.eval()
        return derivative_rank(layer, RANK_GRID)
    except UserError:
        return None
    finally:
        paddle.set_default_dtype(dtype)


def image_sizes(plan: Plan) -> list[Size]:
    """Return the sizes in pixels at which the network is timed."""
    size = model_spec(plan.backbone).img_size
    height, width = (size, size) if isinstance(size, int) else size
    return [(height * times, width * times) for times in SIDES]


def network_speeds(plan: Plan, rounds: int, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time every form's network in inference, and at its own size in a training step.

    Returns:
        Rows {"form", "size", "phase": "inference" or "training", "batch", "seconds": median and quartiles of a batch,
        "images_per_s", "memory": peak MiB beside the weights}, or {"form", "size", "phase", "reason"}.
    """
    rows: list[dict[str, Any]] = []
    phases = [(size, "inference") for size in image_sizes(plan)] + [(image_sizes(plan)[0], "training")]
    for size, phase in phases:
        report(f"timing {phase} at {size[0]} x {size[1]} pixels")
        runs: dict[str, Callable[[], Any]] = {}
        rows_here: dict[str, dict[str, Any]] = {}
        for form in plan.forms:
            row = {"form": form.name, "size": list(size), "phase": phase, "batch": BATCH}
            rows_here[form.name] = row
            try:
                model = create_model(plan.backbone, img_size=size, **form.overrides())
            except UserError as error:
                row["reason"] = str(error)
                continue
            runs[form.name] = functools.partial(
                _network_step, model, _images(model, size), phase == "training"
            )
            row["memory"] = peak_of(runs[form.name])
        for name, seconds in benchmark_interleaved(runs, rounds, warmup=1).items():
            rows_here[name].update(seconds=seconds, images_per_s=BATCH / seconds["median"])
        rows += rows_here.values()
    return rows


def _images(model: paddle.nn.Layer, size: Size) -> paddle.Tensor:
    shape = (BATCH, model.spec.in_chans, *size)
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


def _network_step(model: paddle.nn.Layer, images: paddle.Tensor, training: bool) -> None:
    model.train() if training else model.eval()
    if training:
        model(images).square().mean().backward()
        model.clear_gradients()
    else:
        with paddle.no_grad():
            model(images)
    _wait()


def layer_growth(plan: Plan, rounds: int, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time one layer of every form on grids of growing size, without gradients, with the network's C and h.

    Returns:
        Rows {"form", "tokens": N, "seconds", "memory"} as `network_speeds`.
    """
    model = create_model(plan.backbone)
    layers = attention_layers(model)
    dim, heads = layer_dim(model), layers[0].num_heads if layers else 1
    rows: list[dict[str, Any]] = []
    for side in GRIDS:
        report(f"timing a layer on {side} x {side} tokens")
        x = paddle.to_tensor(
            np.random.RandomState(0).standard_normal((1, side * side, dim)).astype(np.float32)
        )
        runs: dict[str, Callable[[], Any]] = {}
        rows_here: dict[str, dict[str, Any]] = {}
        for form in plan.forms:
            layer = create_attention(form.attention, dim, heads, grid=(side, side), **dict(form.options))
            layer.eval()
            runs[form.name] = functools.partial(_layer_step, layer, x, (side, side))
            rows_here[form.name] = {
                "form": form.name,
                "tokens": side * side,
                "memory": peak_of(runs[form.name]),
            }
        for name, seconds in benchmark_interleaved(runs, rounds, warmup=1).items():
            rows_here[name]["seconds"] = seconds
        rows += rows_here.values()
    return rows


@paddle.no_grad()
def _layer_step(layer: paddle.nn.Layer, x: paddle.Tensor, size: Size) -> None:
    layer(x, size)
    _wait()


def _wait() -> None:
    if paddle.device.get_device() != "cpu":
        paddle.device.synchronize()


def peak_of(step: Callable[[], Any]) -> float | None:
    """Return the MiB that Paddle's allocator hands out at most in a call beyond what it held; None if not known.

    They are counted by Paddle, to the byte, whatever the machine does; what libraries allocate for themselves is not
    in them. Paddle 2.6 cannot set its peak back.
    """
    from paddle.base import core

    kind = "host" if paddle.device.get_device() == "cpu" else "device"
    reset = getattr(core, f"{kind}_memory_stat_reset_peak_value", None)
    step()  # what is made once is made
    if reset is None:
        return None
    reset("Allocated", 0)
    before = getattr(core, f"{kind}_memory_stat_current_value")("Allocated", 0)
    step()
    return (getattr(core, f"{kind}_memory_stat_peak_value")("Allocated", 0) - before) / 2**20


def slope(tokens: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent with which values grow with tokens, a line through the logarithms by least squares."""
    logs = [(math.log(n), math.log(value)) for n, value in zip(tokens, values)]
    mean_n, mean_value = (sum(part) / len(logs) for part in zip(*logs))
    above = sum((n - mean_n) * (value - mean_value) for n, value in logs)
    return above / sum((n - mean_n) ** 2 for n, _ in logs)


def slopes(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return {"time", "memory"}: the exponents of one form's rows of `layer_growth`, from SLOPE_FROM tokens on."""
    long = [row for row in rows if row["tokens"] >= SLOPE_FROM]
    tokens = [row["tokens"] for row in long]
    memory = [row["memory"] for row in long]
    if len(long) < 2:
        return {"time": None, "memory": None}
    return {
        "time": slope(tokens, [row["seconds"]["median"] for row in long]),
        "memory": slope(tokens, memory) if all(memory) else None,
    }


def measure(plan: Plan, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Time networks and layers of all forms; see the functions above."""
    return {
        "forms": [form.name for form in plan.forms],
        "rounds": rounds,
        "machine": machine(),
        "paddle": paddle.__version__,
        "threads": paddle.get_num_threads() if hasattr(paddle, "get_num_threads") else None,
        "networks": network_speeds(plan, rounds, report),
        "layers": layer_growth(plan, rounds, report),
        "load_after": machine()["load"],
    }
