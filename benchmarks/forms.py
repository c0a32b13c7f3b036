"""Layers of the forms of attention in training: the time of a step against InLine's, and how it grows with the tokens.

`attention.py --forms` runs it. A step is forward and backward of one layer of `create_attention`, its projections
included, for one image [1, N, C] on a grid of N tokens; all forms are timed in turn, round after round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import could_not_run, print_table, report

from paddle_inline.compare.plan import Form, default_forms, read_form
from paddle_inline.layers.attention import list_attentions
from paddle_inline.utils.timing import benchmark_interleaved

TOKENS = [784, 1568, 3136, 6272, 12544]
QUADRATIC_MOST = 3136  # tokens; beyond, the tensors of N^2 and their gradients take gigabytes
SLOPE_FROM = (
    3136  # tokens from which slopes of linear forms are fitted: below, the fixed cost of a call shows
)
RATIO_AT = 784  # tokens at which forms are compared with InLine
NAME = "attention_forms"


def read_forms(names: Sequence[str]) -> list[Form]:
    """Return forms as `compare --forms` takes them; "all": every one, and the two controls. UserError as there."""
    known = list(list_attentions())
    return [read_form(name, known) for name in (default_forms(known) if list(names) == ["all"] else names)]


def grid_of(tokens: int) -> tuple[int, int]:
    """Return (H, W) of so many tokens, as near to a square as they divide."""
    height = max(side for side in range(1, math.isqrt(tokens) + 1) if tokens % side == 0)
    return height, tokens // height


def is_linear(form: Form) -> bool:
    """Whether a form's work is linear in the tokens."""
    return list_attentions()[form.attention].linear


def paddle_step(form: Form, tokens: int, heads: int, width: int, device: str) -> Callable[[], None]:
    """Return a training step of one layer in Paddle."""
    import paddle

    import paddle_inline

    paddle.set_device(device)
    size, values = grid_of(tokens), _values(tokens, heads * width)
    layer = paddle_inline.create_attention(
        form.attention, heads * width, heads, grid=size, **dict(form.options)
    )
    x = paddle.to_tensor(values, stop_gradient=False)

    def step() -> None:
        layer(x, size).square().mean().backward()
        for tensor in (x, *layer.parameters()):
            tensor.clear_gradient(False)
        if device != "cpu":
            paddle.device.synchronize()

    return step


def torch_step(form: Form, tokens: int, heads: int, width: int, device: str) -> Callable[[], None]:
    """As `paddle_step`, in PyTorch."""
    import torch

    import torch_ref

    device = "cuda" if device.startswith("gpu") else device
    size = grid_of(tokens)
    layer = torch_ref.create_attention(
        form.attention, heads * width, heads, grid=size, **dict(form.options)
    ).to(device)
    x = torch.tensor(_values(tokens, heads * width), device=device, requires_grad=True)

    def step() -> None:
        layer(x, size).square().mean().backward()
        for tensor in (x, *layer.parameters()):
            tensor.grad = None
        if device == "cuda":
            torch.cuda.synchronize()

    return step


STEPS = {"paddle": paddle_step, "torch": torch_step}


def _values(tokens: int, channels: int) -> np.ndarray:
    return np.random.RandomState(0).standard_normal((1, tokens, channels)).astype(np.float32)


def measure(
    framework: str, forms: Sequence[Form], tokens: Sequence[int], rounds: int, **sizes: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Time all forms of one framework.

    Returns:
        Rows {"framework", "form", "tokens", "seconds"}, and what could not run.
    """
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for count in tokens:
        runs = {}
        for form in forms:
            if count > QUADRATIC_MOST and not is_linear(form):
                continue
            try:
                runs[form.name] = STEPS[framework](form, count, **sizes)
                runs[form.name]()
            except Exception as error:
                runs.pop(form.name, None)
                missing.append(could_not_run(f"{framework} {form.name} at {count}", error))
        for name, seconds in benchmark_interleaved(runs, rounds, warmup=1).items():
            rows.append({"framework": framework, "form": name, "tokens": count, "seconds": seconds})
    return rows, missing


def slope_of(points: dict[int, float], linear: bool) -> float | None:
    """Return the exponent of seconds by tokens, least squares in the logarithms; None of fewer than two sizes.

    Of a linear form from SLOPE_FROM tokens on; a quadratic one has its two largest sizes.
    """
    tokens = sorted(points)
    tokens = [count for count in tokens if count >= SLOPE_FROM] if linear else tokens[-2:]
    if len(tokens) < 2:
        return None
    return float(np.polyfit(np.log(tokens), np.log([points[count] for count in tokens]), 1)[0])


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return {form: {framework: {"ms", "ratio": to inline, at RATIO_AT tokens, "slope"}}}."""
    points: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        points.setdefault((row["form"], row["framework"]), {})[row["tokens"]] = row["seconds"]["median"]
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for (form, framework), times in points.items():
        own, inline = times.get(RATIO_AT), points.get(("inline", framework), {}).get(RATIO_AT)
        found.setdefault(form, {})[framework] = {
            "ms": None if own is None else 1e3 * own,
            "ratio": own / inline if own and inline else None,
            "slope": slope_of(times, list_attentions()[form.partition(":")[0]].linear),
        }
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the summary of rows as a table in Markdown, the fastest form in Paddle first."""
    found = summary(rows)
    frameworks = [name for name in STEPS if any(name in parts for parts in found.values())]
    lines = ["| form |" + "".join(f" {name}: ms | times `inline` | time ~N^ |" for name in frameworks)]
    lines.append("|---|" + "---:|---:|---:|" * len(frameworks))
    order = sorted(found, key=lambda form: found[form].get(frameworks[0], {}).get("ms") or math.inf)
    for form in order:
        cells = [f"`{form}`"]
        for name in frameworks:
            facts = found[form].get(name, {})
            for key, digits in (("ms", 1), ("ratio", 2), ("slope", 2)):
                value = facts.get(key)
                cells.append("-" if value is None else f"{value:.{digits}f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(arguments: Any, argv: list[str]) -> int:
    """Time the forms of parsed `arguments` of `attention.py`, print, and write results/attention_forms.json."""
    forms = read_forms(arguments.forms)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for framework in arguments.framework:
        sizes = {"heads": arguments.heads, "width": arguments.width, "device": arguments.device}
        more, failed = measure(framework, forms, arguments.tokens or TOKENS, arguments.rounds, **sizes)
        rows, missing = rows + more, missing + failed
    found = summary(rows)
    print_table(
        ["form", "framework", f"ms at {RATIO_AT}", "times inline", "slope"],
        [
            [form, name, *(math.nan if value is None else value for value in facts.values())]
            for form, parts in found.items()
            for name, facts in parts.items()
        ],
    )
    command = " ".join(["python", "benchmarks/attention.py", *argv])
    report(NAME, argv, rows, missing, command=command, heads=arguments.heads, width=arguments.width)
    return 1 if missing else 0
