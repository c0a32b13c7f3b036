"""InLine's and SOFT's attention against softmax, from 196 to 16384 tokens: time, memory, how both grow.

    python benchmarks/attention.py --framework paddle --tokens 196 784 3136 12544 --device cpu

In one framework at a time: plain softmax attention, the framework's fused one, InLine's, and the softmax-free
one of SOFT and SOFT-Norm with 49 landmarks, as they have at 224 pixels. Their first stage has one landmark
for 64 tokens at any size: a fixed number is linear, a fixed share is not, and is shown too. A slope is the
exponent of time, or memory, in the number of tokens, fitted from SHORTEST tokens on. While time is taken the
process keeps the memory that it frees: faulting in fresh pages costs more than linear attention on them.

    python benchmarks/attention.py --forms all --heads 6

Whole layers of all the forms of `list_attentions` instead (or of those that are named, with options as for
`python -m paddle_inline compare`), in training: see forms.py.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import math
import multiprocessing
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from common import could_not_run, figure, positive, print_table, report

from paddle_inline.utils.errors import UserError
from paddle_inline.utils.timing import benchmark_interleaved

LANDMARKS, TOKENS_PER_LANDMARK = 49, 64
TOKENS = [196, 392, 784, 1568, 3136, 6272, 12544, 16384]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
SHORTEST = 1024  # tokens from which the slope is fitted: below, the fixed cost of a call shows


def softmax_free_forms(ops: ModuleType) -> dict[str, Callable]:
    """Return {form: function of q, k, v}; keys are the queries, and every so manyth one is a landmark."""

    def form(q, v, step, invert):
        q = q * q.shape[3] ** -0.25
        return ops.softmax_free_attention(q, q[:, :, ::step][:, :, : q.shape[2] // step], v, invert)

    def few(invert):
        return lambda q, k, v: form(q, v, max(q.shape[2] // LANDMARKS, 1), invert)

    return {
        f"SOFT, {LANDMARKS} landmarks": few(ops.newton_inverse),
        f"SOFT-Norm, {LANDMARKS} landmarks": few(ops.normalised_newton_inverse),
        f"SOFT, N/{TOKENS_PER_LANDMARK} landmarks": lambda q, k, v: form(
            q, v, TOKENS_PER_LANDMARK, ops.newton_inverse
        ),
    }


def torch_forms(device: str) -> tuple[dict[str, Callable], Callable]:
    """Return ({form: function of q, k, v}, random tensors of a shape, wait for the device, peak memory or None)."""
    import torch

    from torch_ref.ops import softmax_free
    from torch_ref.ops.inline_attention import inline_attention, softmax_attention

    device = "cuda" if device.startswith("gpu") else device
    scale = 0.17
    forms = {
        "InLine": lambda q, k, v: inline_attention(q, k, v, scale),
        "softmax": lambda q, k, v: softmax_attention(q, k, v, scale),
        "fused softmax": lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, scale=scale
        ),
        **softmax_free_forms(softmax_free),
    }

    def tensors(*shape):
        return [torch.randn(shape, device=device) for _ in range(3)]

    def without_gradients(form):
        def run(*tensors):
            with torch.inference_mode():
                form(*tensors)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return {name: without_gradients(form) for name, form in forms.items()}, tensors


def paddle_forms(device: str) -> tuple[dict[str, Callable], Callable]:
    """As `torch_forms`. Paddle's fused attention takes [B, N, h, d]: that transpose is not timed."""
    import paddle
    import paddle.nn.functional as F

    from paddle_inline.ops import softmax_free
    from paddle_inline.ops.inline_attention import inline_attention, softmax_attention

    paddle.set_device(device)
    scale = 0.17
    forms = {
        "InLine": lambda q, k, v: inline_attention(q, k, v, scale),
        "softmax": lambda q, k, v: softmax_attention(q, k, v, scale),
        **softmax_free_forms(softmax_free),
    }
    if hasattr(F, "scaled_dot_product_attention"):
        forms["fused softmax"] = F.scaled_dot_product_attention

    def tensors(*shape):
        return [paddle.randn(shape) for _ in range(3)]

    def without_gradients(name, form):
        def run(*tensors):
            with paddle.no_grad():
                if name == "fused softmax":
                    tensors = [
                        tensor.reshape([1, tensor.shape[2], tensor.shape[1], -1]) for tensor in tensors
                    ]
                form(*tensors)
            if device != "cpu":
                paddle.device.synchronize()

        return run

    return {name: without_gradients(name, form) for name, form in forms.items()}, tensors


FRAMEWORKS = {"torch": torch_forms, "paddle": paddle_forms}


def peak_memory(framework: str, form: str, tokens: int, heads: int, width: int, device: str) -> float:
    """Return the mebibytes that a form needs beyond its inputs, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:  # which ends its process in peace, as Pool does not
        return pool.submit(_peak, framework, form, tokens, heads, width, device).result()


def _peak(framework: str, form: str, tokens: int, heads: int, width: int, device: str) -> float:
    forms, tensors = FRAMEWORKS[framework](device)
    forms[form](*tensors(1, heads, TOKENS_PER_LANDMARK, width))  # what the framework itself needs
    inputs = tensors(1, heads, tokens, width)
    if device == "cpu":
        return _resident_peak(lambda: forms[form](*inputs))
    library = sys.modules[framework]
    before = (
        library.device.cuda.memory_allocated() if framework == "paddle" else library.cuda.memory_allocated()
    )
    forms[form](*inputs)
    cuda = library.device.cuda if framework == "paddle" else library.cuda
    return (cuda.max_memory_allocated() - before) / 2**20


def _resident_peak(run: Callable[[], Any]) -> float:
    """Return the mebibytes by which memory grew at most; not a number where the system is not Linux."""
    status = Path("/proc/self/status")
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or memory that was freed before would be reused unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is in use
    except (OSError, AttributeError):
        return math.nan
    before = int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1])
    run()
    return (int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) - before) / 1024


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next tensor; elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(threshold, 2**31 - 1)


def slope(tokens: list[int], values: list[float | None]) -> float | None:
    """Return the exponent of `values` in the number of tokens, least squares in the logarithms, from SHORTEST on."""
    points = [(math.log(n), math.log(y)) for n, y in zip(tokens, values) if n >= SHORTEST and y and y > 0]
    return float(np.polyfit(*zip(*points), 1)[0]) if len(points) > 1 else None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--tokens", type=positive(int), nargs="+", metavar="N")
    parser.add_argument("--forms", nargs="+", metavar="F", help="train layers of these forms; all: every one")
    parser.add_argument("--heads", type=positive(int), default=2)
    parser.add_argument("--width", type=positive(int), default=32, help="channels of one head")
    parser.add_argument("--rounds", type=positive(int), default=7)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument("--no-memory", action="store_true", help="measure time alone")
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    if arguments.forms:
        import forms as layers  # which needs Paddle, also for the other framework

        try:
            return layers.run(arguments, argv)
        except UserError as error:
            parser.error(str(error))
    rows, missing, slopes, memory_slopes, lines = [], [], {}, {}, {}
    for framework in arguments.framework:
        try:
            forms, tensors = FRAMEWORKS[framework](arguments.device)
        except Exception as error:
            missing.append(could_not_run(framework, error))
            continue
        for tokens in arguments.tokens or TOKENS:
            inputs = tensors(1, arguments.heads, tokens, arguments.width)
            runs = {}
            for form, run in forms.items():
                try:
                    run(*inputs)
                    runs[form] = functools.partial(run, *inputs)
                except Exception as error:
                    missing.append(could_not_run(f"{framework} {form} at {tokens}", error))
            for form, seconds in benchmark_interleaved(runs, arguments.rounds, warmup=1).items():
                row = {"framework": framework, "form": form, "tokens": tokens, "seconds": seconds}
                if not arguments.no_memory:
                    sizes = (tokens, arguments.heads, arguments.width, arguments.device)
                    row["peak_mib"] = peak_memory(framework, form, *sizes)
                rows.append(row)
        print(f"\n{framework}, {arguments.heads} heads of {arguments.width} channels, {arguments.device}")
        own = [row for row in rows if row["framework"] == framework]
        inline = {row["tokens"]: row["seconds"]["median"] for row in own if row["form"] == "InLine"}
        print_table(
            ["tokens", "form", "ms", "MiB more", "times InLine"],
            [
                [
                    row["tokens"],
                    row["form"],
                    1e3 * row["seconds"]["median"],
                    float(row.get("peak_mib") or math.nan),
                    row["seconds"]["median"] / inline[row["tokens"]],
                ]
                for row in own
            ],
        )
        for form in forms:
            x = [row["tokens"] for row in own if row["form"] == form]
            y = [row["seconds"]["median"] for row in own if row["form"] == form]
            lines[f"{framework} {form}"] = (x, [1e3 * value for value in y])
            slopes[f"{framework} {form}"] = slope(x, y)
            mebibytes = [row.get("peak_mib") for row in own if row["form"] == form]
            memory_slopes[f"{framework} {form}"] = slope(x, mebibytes)
    print_table(
        ["form", f"slope of time from {SHORTEST} tokens", "of memory"],
        [[form, str(value)[:5], str(memory_slopes[form])[:5]] for form, value in slopes.items()],
    )
    report("attention", argv, rows, missing, slopes=slopes, memory_slopes=memory_slopes)
    figure("attention", f"Attention on {arguments.device}", "tokens", "milliseconds", lines)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
