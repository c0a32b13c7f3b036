"""What one kernel for InLine's whole attention gains on a GPU, in PyTorch: at most five minutes.

    python benchmarks/gpu_fused.py
    TRITON_INTERPRET=1 python benchmarks/gpu_fused.py --small      # its numbers alone, on a CPU

The attention with its local residual, from [q | k | v] to the merged heads, forward and backward, in two launches of
Triton each way, which read and write each number as often as it has to be (k and v twice). Beside it stand the
operators of `torch_ref` and what torch.compile makes of them; and a whole InLine-DeiT-Tiny with each, in inference and
training, beside softmax attention by its fused kernel. The attention is compared with float64 before it is timed. These
kernels measure what is to be gained; the models do not use them.

(Above 300 lines: the kernels, forward and backward, and what they are measured beside.)

B batch, h heads, N tokens on the grid H x W behind P prefix tokens, d head width, C = h * d channels.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from typing import Any

try:
    import torch
    import triton
    import triton.language as tl
except ImportError as missing:
    sys.exit(
        f"COULD NOT RUN: {missing.name} is missing; PyTorch's builds for CUDA bring Triton, else `pip install triton`"
    )
from common import positive, report
from gpu import Clock, Job, Torch, error, images_and_labels, measured, seconds_of
from torch import Tensor

from torch_ref.ops.inline_attention import inline_attention, local_residual, softmax_attention
from torch_ref.ops.tokens import all_heads, merge_heads, split_channels

FUSED_WITH_PRODUCTS = "fused, filters as products"
TILE = 64  # tokens that one program holds
PROGRAMS = 1024  # that a launch should have at least
LIMITS = {
    "float32": 1e-4,
    "bfloat16": 3e-2,
    "float16": 5e-3,
}  # largest error, as a share of the largest number


@triton.jit
def _neighbours(
    source, weight, row, inside, width, height, prefix, stride,
    D: tl.constexpr, T: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Filter a tile of tokens [T, D] of `source` by its 3x3 `weight`; BACK: by its transpose."""
    lane = tl.arange(0, D)
    place = row - prefix
    y, x = place // width, place % width
    out = tl.zeros([T, D], tl.float32)
    for tap in tl.static_range(9):
        if BACK:
            at_y, at_x = y - tap // 3 + 1, x - tap % 3 + 1
        else:
            at_y, at_x = y + tap // 3 - 1, x + tap % 3 - 1
        there = inside & (place >= 0) & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        token = prefix + at_y * width + at_x
        values = tl.load(source + token[:, None] * stride + lane[None, :], mask=there[:, None], other=0.0)
        out += values.to(tl.float32) * tl.load(weight + lane * 9 + tap).to(tl.float32)[None, :]
    return out


@triton.jit
def _sums(qkv, sums, tokens, channels, per, D: tl.constexpr, T: tl.constexpr):
    """sums [B * h, splits, D * D + 2 D]: k^T v, the sum of k and that of v over the tokens of one split."""
    head, split = tl.program_id(0), tl.program_id(1)
    heads = channels // D
    lane = tl.arange(0, D)
    k_at = qkv + (head // heads).to(tl.int64) * tokens * 3 * channels + channels + (head % heads) * D
    kv = tl.zeros([D, D], tl.float32)
    k_sum, v_sum = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    end = tl.minimum((split + 1) * per, tokens)
    for start in range(split * per, end, T):
        row = start + tl.arange(0, T)
        at, inside = row[:, None] * 3 * channels + lane[None, :], (row < end)[:, None]
        k = tl.load(k_at + at, mask=inside, other=0.0)
        v = tl.load(k_at + channels + at, mask=inside, other=0.0)
        kv += tl.dot(tl.trans(k), v, input_precision="ieee")
        k_sum += tl.sum(k.to(tl.float32), 0)
        v_sum += tl.sum(v.to(tl.float32), 0)
    out = sums + (head * tl.num_programs(1) + split).to(tl.int64) * (D * D + 2 * D)
    tl.store(out + lane[:, None] * D + lane[None, :], kv)
    tl.store(out + D * D + lane, k_sum)
    tl.store(out + D * D + D + lane, v_sum)


@triton.jit
def _centred(sums, head, splits, tokens, factor, D: tl.constexpr):
    """Return factor * sum (k - k_mean) (v - v_mean)^T [D, D], k_mean [D] and v_mean [D] of one head."""
    lane = tl.arange(0, D)
    kv = tl.zeros([D, D], tl.float32)
    k_sum, v_sum = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    for split in range(splits):
        each = sums + (head * splits + split).to(tl.int64) * (D * D + 2 * D)
        kv += tl.load(each + lane[:, None] * D + lane[None, :])
        k_sum += tl.load(each + D * D + lane)
        v_sum += tl.load(each + D * D + D + lane)
    k_mean, v_mean = k_sum / tokens, v_sum / tokens
    return (kv - tokens * k_mean[:, None] * v_mean[None, :]) * factor, k_mean, v_mean


@triton.jit
def _forward(
    qkv, weight, sums, out, tokens, channels, splits, factor, width, height, prefix,
    D: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """out [B, N, C] = q times the centred product, the mean of v and the filtered v."""
    head = tl.program_id(0)
    heads = channels // D
    lane, row = tl.arange(0, D), tl.program_id(1) * T + tl.arange(0, T)
    inside = row < tokens
    first = (head // heads).to(tl.int64) * tokens
    q_at = qkv + first * 3 * channels + (head % heads) * D
    kv, _, v_mean = _centred(sums, head, splits, tokens, factor, D)
    q = tl.load(q_at + row[:, None] * 3 * channels + lane[None, :], mask=inside[:, None], other=0.0)
    result = tl.dot(q, kv.to(q.dtype), input_precision="ieee") + v_mean[None, :]
    v_at, filters = q_at + 2 * channels, weight + head.to(tl.int64) * D * 9
    result += _neighbours(v_at, filters, row, inside, width, height, prefix, 3 * channels, D, T, False)
    at = out + first * channels + (head % heads) * D + row[:, None] * channels + lane[None, :]
    tl.store(at, result.to(q.dtype), mask=inside[:, None])


@triton.jit
def _backward_sums(
    qkv, given, sums, tokens, channels, per, width, height, prefix, D: tl.constexpr, T: tl.constexpr
):
    """sums [B * h, splits, D * D + 10 D]: q^T of the result's gradient, its sum, and the filters' gradients [9, D]."""
    head, split = tl.program_id(0), tl.program_id(1)
    heads = channels // D
    lane = tl.arange(0, D)
    first = (head // heads).to(tl.int64) * tokens
    q_at = qkv + first * 3 * channels + (head % heads) * D
    g_at = given + first * channels + (head % heads) * D
    out = sums + (head * tl.num_programs(1) + split).to(tl.int64) * (D * D + 10 * D)
    qg, g_sum = tl.zeros([D, D], tl.float32), tl.zeros([D], tl.float32)
    t0, t1, t2 = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    t3, t4, t5 = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    t6, t7, t8 = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    end = tl.minimum((split + 1) * per, tokens)
    for start in range(split * per, end, T):
        row = start + tl.arange(0, T)
        inside = row < end
        q = tl.load(q_at + row[:, None] * 3 * channels + lane[None, :], mask=inside[:, None], other=0.0)
        g = tl.load(g_at + row[:, None] * channels + lane[None, :], mask=inside[:, None], other=0.0)
        qg += tl.dot(tl.trans(q), g, input_precision="ieee")
        g = g.to(tl.float32)
        g_sum += tl.sum(g, 0)
        v_at = q_at + 2 * channels
        t0 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, -1, -1, D)
        t1 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, -1, 0, D)
        t2 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, -1, 1, D)
        t3 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 0, -1, D)
        t4 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 0, 0, D)
        t5 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 0, 1, D)
        t6 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 1, -1, D)
        t7 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 1, 0, D)
        t8 += _of_tap(v_at, g, row, inside, width, height, prefix, 3 * channels, 1, 1, D)
    tl.store(out + lane[:, None] * D + lane[None, :], qg)
    out += D * D
    tl.store(out + lane, g_sum)
    tl.store(out + D + lane, t0)
    tl.store(out + 2 * D + lane, t1)
    tl.store(out + 3 * D + lane, t2)
    tl.store(out + 4 * D + lane, t3)
    tl.store(out + 5 * D + lane, t4)
    tl.store(out + 6 * D + lane, t5)
    tl.store(out + 7 * D + lane, t6)
    tl.store(out + 8 * D + lane, t7)
    tl.store(out + 9 * D + lane, t8)


@triton.jit
def _of_tap(v_at, g, row, inside, width, height, prefix, stride, dy, dx, D: tl.constexpr):
    """Return the gradient [D] of one number of the filters from a tile of tokens."""
    lane, place = tl.arange(0, D), row - prefix
    y, x = place // width + dy, place % width + dx
    there = inside & (place >= 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    token = prefix + y * width + x
    v = tl.load(v_at + token[:, None] * stride + lane[None, :], mask=there[:, None], other=0.0)
    return tl.sum(v.to(tl.float32) * g, 0)


@triton.jit
def _backward(
    qkv, weight, given, sums, back, out, tokens, channels, splits, factor, width, height, prefix,
    D: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """out [B, N, 3 C]: the gradients of q, k, v; `back` [B * h, D * D + D]: q^T of the result's gradient, its sum."""
    head = tl.program_id(0)
    heads = channels // D
    lane, row = tl.arange(0, D), tl.program_id(1) * T + tl.arange(0, T)
    inside = row < tokens
    first = (head // heads).to(tl.int64) * tokens
    offset = first * 3 * channels + (head % heads) * D
    g_at = given + first * channels + (head % heads) * D
    kv, k_mean, v_mean = _centred(sums, head, splits, tokens, factor, D)
    qg = tl.load(back + head * (D * D + D) + lane[:, None] * D + lane[None, :]) * factor
    g_mean = tl.load(back + head * (D * D + D) + D * D + lane) / tokens
    at, mask = row[:, None] * 3 * channels + lane[None, :], inside[:, None]
    g = tl.load(g_at + row[:, None] * channels + lane[None, :], mask=mask, other=0.0)
    k = tl.load(qkv + offset + channels + at, mask=mask, other=0.0)
    v = tl.load(qkv + offset + 2 * channels + at, mask=mask, other=0.0)
    dq = tl.dot(g, tl.trans(kv.to(g.dtype)), input_precision="ieee")
    tl.store(out + offset + at, dq.to(g.dtype), mask=mask)
    v = (v.to(tl.float32) - v_mean[None, :]).to(g.dtype)
    dk = tl.dot(v, tl.trans(qg.to(g.dtype)), input_precision="ieee")
    tl.store(out + offset + channels + at, dk.to(g.dtype), mask=mask)
    k = (k.to(tl.float32) - k_mean[None, :]).to(g.dtype)
    dv = tl.dot(k, qg.to(g.dtype), input_precision="ieee") + g_mean[None, :]
    filters = weight + head.to(tl.int64) * D * 9
    dv += _neighbours(g_at, filters, row, inside, width, height, prefix, channels, D, T, True)
    tl.store(out + offset + 2 * channels + at, dv.to(g.dtype), mask=mask)


def split_of(heads: int, tokens: int) -> tuple[int, int]:
    """Return into how many parts the tokens are split so that all programs are PROGRAMS, and the tokens of each."""
    splits = min(max(PROGRAMS // heads, 1), -(-tokens // TILE))
    per = -(-tokens // splits // TILE) * TILE
    per = max(per, TILE)
    return -(-tokens // per), per


class Fused(torch.autograd.Function):
    """qkv [B, N, 3 C], filters [B, C, 3, 3] -> [B, N, C], by the kernels above."""

    @staticmethod
    def forward(ctx, qkv, kernel, heads, size, prefix, scale):
        batch, tokens, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        width = channels // heads
        splits, per = split_of(batch * heads, tokens)
        qkv, kernel = qkv.contiguous(), kernel.to(qkv.dtype).contiguous()
        sums = qkv.new_empty([batch * heads, splits, width * width + 2 * width], dtype=torch.float32)
        out = qkv.new_empty([batch, tokens, channels])
        _sums[(batch * heads, splits)](qkv, sums, tokens, channels, per, D=width, T=TILE)
        given = (tokens, channels, splits, scale / tokens, size[1], size[0], prefix)
        grid = (batch * heads, triton.cdiv(tokens, TILE))
        _forward[grid](qkv, kernel, sums, out, *given, D=width, T=TILE)
        ctx.save_for_backward(qkv, kernel, sums)
        ctx.given, ctx.heads, ctx.size, ctx.per = given, heads, size, per
        return out

    @staticmethod
    def backward(ctx, gradient):
        qkv, kernel, sums = ctx.saved_tensors
        gradient = gradient.contiguous()
        tokens, channels, splits, *_, prefix = ctx.given
        width = channels // ctx.heads
        all_heads_ = qkv.shape[0] * ctx.heads
        back = qkv.new_empty([all_heads_, splits, width * width + 10 * width], dtype=torch.float32)
        _backward_sums[(all_heads_, splits)](
            qkv, gradient, back, tokens, channels, ctx.per, ctx.size[1], ctx.size[0], prefix, D=width, T=TILE
        )
        back = back.sum(1)
        products, taps = back.split([width * width + width, 9 * width], dim=1)
        out = torch.empty_like(qkv)
        grid = (all_heads_, triton.cdiv(tokens, TILE))
        _backward[grid](qkv, kernel, gradient, sums, products.contiguous(), out, *ctx.given, D=width, T=TILE)
        taps = taps.reshape(-1, 9, width).transpose(1, 2).reshape(kernel.shape).to(kernel.dtype)
        return out, taps, None, None, None, None


def operators(
    qkv: Tensor, kernel: Tensor, heads: int, size: tuple[int, int], prefix: int, scale: float
) -> Tensor:
    """Compute the same as `Fused` by the operators of the models."""
    parts = split_channels(qkv, 3)
    q, k, v_heads, v = all_heads(parts, heads, keep=True)
    return local_residual(v, kernel, size, prefix, onto=merge_heads(inline_attention(q, k, v_heads, scale)))


def softmax(
    qkv: Tensor, kernel: Tensor, heads: int, size: tuple[int, int], prefix: int, scale: float
) -> Tensor:
    """Compute softmax attention of the same heads, by the framework's fused kernel in 16 bits."""
    return merge_heads(softmax_attention(*all_heads(split_channels(qkv, 3), heads), scale))


def filters_as_products(predictor: Any, context: Tensor) -> Tensor:
    """Compute `LocalFilter` of the mean tokens [B, C], grouped convolutions of one place, by two batched products."""
    first, second = predictor[0], predictor[2]
    hidden = context.reshape(context.shape[0], first.groups, -1).transpose(0, 1)  # [h, B, d]
    for layer in (first, second):
        if layer is second:
            hidden = predictor[1](hidden)
        weight = layer.weight.reshape(layer.groups, -1, hidden.shape[2])
        hidden = torch.matmul(hidden, weight.transpose(1, 2)) + layer.bias.reshape(layer.groups, 1, -1)
    return hidden.transpose(0, 1).reshape(*context.shape, 3, 3)


def as_one(layer: Any, products: bool) -> None:
    """Let a layer `InLineAttention` of a model go through `Fused`; `products`: and its filters' predictor too."""

    def forward(self, x, size):
        context = self.context(x)
        kernel = filters_as_products(self.residual, context) if products else self.residual(context)
        out = Fused.apply(self.qkv(x), kernel, self.num_heads, size, self.prefix_tokens, self.scale)
        return self.proj_drop(self.proj(out))

    layer.forward = types.MethodType(forward, layer)


def busy(call: Callable[[], Any], wait: Callable[[], None]) -> tuple[float, list[tuple[str, float]]]:
    """Return the milliseconds of one call's kernels, and the six that take longest with theirs."""
    count = 3
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(count):
            call()
        wait()
    return of_kernels(profile.key_averages(), count)


def of_kernels(events: Any, calls: int) -> tuple[float, list[tuple[str, float]]]:
    """Return `busy`'s of a profile's events by name: those of the GPU, without the ranges that hold others."""
    spent = [
        (each.key, each.self_device_time_total / 1e3 / calls)
        for each in events
        if each.device_type.name == "CUDA" and not each.is_user_annotation
    ]
    longest = sorted(spent, key=lambda item: -item[1])[:6]
    return sum(each for _, each in spent), [(name[:80], each) for name, each in longest]


def in_a_graph(call: Callable[[], Any], wait: Callable[[], None], least: float) -> float:
    """Return the seconds of one call that is recorded once and launched as a whole, as CUDA graphs are."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        call()
    return seconds_of(graph.replay, wait, least)


def inputs(
    place: Any, batch: int, heads: int, width: int, size: tuple[int, int], prefix: int
) -> tuple[Tensor, ...]:
    """Return random qkv [B, P + H * W, 3 C], filters [B, C, 3, 3] and a gradient of the result, in float32."""
    made = torch.Generator().manual_seed(size[0])
    channels, tokens = heads * width, prefix + size[0] * size[1]
    shapes = ([batch, tokens, 3 * channels], [batch, channels, 3, 3], [batch, tokens, channels])
    return tuple(torch.randn(shape, generator=made).to(place) for shape in shapes)


def passes(call: Callable, qkv: Tensor, kernel: Tensor, gradient: Tensor, given: tuple) -> list[Tensor]:
    """Return the result and the gradients of qkv and filters."""
    qkv, kernel = qkv.detach().requires_grad_(), kernel.detach().requires_grad_()
    out = call(qkv, kernel, *given)
    return [out.detach(), *torch.autograd.grad(out, (qkv, kernel), gradient)]


def check(framework: Any, dtype: str, side: int, width: int, prefix: int) -> dict:
    """Compare `Fused` and the operators with float64, forward and backward; batch 2, 3 heads."""
    size = (side, side + 1)
    given, tokens = (3, size, prefix, width**-0.5), prefix + side * (side + 1)
    numbers = [each.to(getattr(torch, dtype)) for each in inputs(framework.place, 2, 3, width, size, prefix)]
    numbers[0] = numbers[0] + 1  # a mean that is not small
    truth = passes(operators, *(each.double() for each in numbers), given)
    row: dict[str, Any] = {"part": "check", "dtype": dtype, "tokens": tokens, "d": width}
    for name, call in (("fused", Fused.apply), ("operators", operators)):
        found = passes(call, *numbers, given)
        row[name] = max(error(a.double().cpu().numpy(), b.cpu().numpy()) for a, b in zip(found, truth))
    row["passed"] = row["fused"] <= LIMITS[dtype]
    return row


def attention(framework: Any, dtype: str, batch: int, side: int, least: float, compiled: bool) -> list[dict]:
    """Time the attention of a layer of InLine-DeiT-Tiny, 6 heads of 32, forward, and forward and backward."""
    heads, width = 6, 32
    given = (heads, (side, side), 0, width**-0.5)
    numbers = [
        each.to(getattr(torch, dtype))
        for each in inputs(framework.place, batch, heads, width, (side, side), 0)
    ]
    forms: dict[str, Callable] = {"operators": operators, "fused": Fused.apply, "softmax": softmax}
    if compiled:
        forms["torch.compile"] = torch.compile(operators, dynamic=False)
    rows = []
    for form, call in forms.items():
        with framework.no_grad():
            forward = seconds_of(lambda c=call: c(*numbers[:2], *given), framework.wait, least)
        leaves = [each.detach().requires_grad_() for each in numbers[:2]]

        def both(call=call, leaves=leaves):
            out = call(*leaves, *given)
            torch.autograd.grad(out, leaves, numbers[2], allow_unused=True)

        whole = seconds_of(both, framework.wait, least)
        facts = {
            "tokens": side * side,
            "batch": batch,
            "forward_ms": 1e3 * forward,
            "with_backward_ms": 1e3 * whole,
        }
        rows.append({"part": "attention", "form": form, "dtype": dtype, **facts})
    return rows


def call_of(framework: Any, form: str, dtype: str, batch: int, size: int, train: bool) -> Callable[[], Any]:
    """Return a training step or a forward pass of InLine-DeiT-Tiny with its attention in one of the forms."""
    letters = "S" if form == "softmax" else "I"
    net = framework.moved(framework.model("inline_deit_tiny", img_size=size, attn_type=letters))
    if form.startswith("fused"):
        for block in net.blocks:
            as_one(block.attn, products=form == FUSED_WITH_PRODUCTS)
    images, labels = (framework.tensor(each) for each in images_and_labels(batch, size))
    called = torch.compile(net, dynamic=False) if form == "torch.compile" else net
    if train:
        return framework.step(called, images, labels, dtype)
    net.eval()

    def forward():
        with torch.no_grad(), torch.autocast("cuda", getattr(torch, dtype), cache_enabled=False):
            return called(images)

    return forward


def speed(framework: Any, *what: Any, least: float) -> list[dict]:
    """Measure a call of `call_of`, and in inference its graph."""
    framework.forget_peak()
    call = call_of(framework, *what)
    form, dtype, batch, size, train = what
    seconds = seconds_of(call, framework.wait, least)
    facts = {"images_per_second": batch / seconds, "peak_mib": framework.peak()}
    if not train:
        facts["in_a_graph"] = batch / in_a_graph(call, framework.wait, least)
    return [{"part": part_of(train), "form": form, "dtype": dtype, "batch": batch, "size": size, **facts}]


def kernels(framework: Any, *what: Any) -> list[dict]:
    """Measure how long the GPU works in a call of `call_of`; a profiler slows down what the host does from then on."""
    call = call_of(framework, *what)
    for _ in range(3):
        call()
    spent, longest = busy(call, framework.wait)
    form, _, batch, size, train = what
    facts = {"busy_ms": spent, "longest": longest}
    return [{"part": f"kernels, {part_of(train)}", "form": form, "batch": batch, "size": size, **facts}]


def part_of(train: bool) -> str:
    return "training" if train else "inference"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="compare with float64 alone, on a CPU")
    parser.add_argument(
        "--seconds", type=positive(float), default=270, help="after which nothing new is begun"
    )
    arguments = parser.parse_args(argv)
    if not (arguments.small or Torch.sees_a_gpu()):
        print(
            "COULD NOT RUN: PyTorch sees no GPU; TRITON_INTERPRET=1 and --small compare the numbers on a CPU"
        )
        return 1
    clock, framework = Clock(arguments.seconds), Torch("cpu" if arguments.small else "gpu")
    jobs: list[tuple[str, Job]] = []
    for dtype in ("float32",) if arguments.small else ("float32", "bfloat16", "float16"):
        for side, width, prefix in (
            ((3, 16, 1), (9, 32, 1)) if arguments.small else ((14, 32, 1), (37, 64, 0))
        ):
            given = (framework, dtype, side, width, prefix)
            jobs.append((f"comparison in {dtype}", lambda given=given: [check(*given)]))
    if not arguments.small:
        forms = ("operators", "fused", FUSED_WITH_PRODUCTS, "softmax", "torch.compile")
        calls = [
            (form, "bfloat16", batch, size, train)
            for train in (False, True)
            for size, batch in ((224, 256), (1024, 16))
            for form in forms[: None if size == 224 else -1]  # compiling takes half a minute
        ]
        for what in calls:
            name = f"{part_of(what[-1])} with {what[0]} at {what[3]} pixels"
            jobs.append((name, lambda what=what: speed(framework, *what, least=0.2)))
        for side, batch in ((14, 256), (32, 64), (64, 16), (128, 4)):
            numbers = (framework, "bfloat16", batch, side, 0.2, side == 64)
            jobs.append((f"attention over {side * side} tokens", lambda given=numbers: attention(*given)))
        for what in calls:
            name = f"kernels of {part_of(what[-1])} with {what[0]} at {what[3]} pixels"
            jobs.append((name, lambda what=what: kernels(framework, *what)))
    missing: list[str] = []
    rows = measured(jobs, clock, missing)
    for row in rows:
        for name, milliseconds in row.get("longest", ()):
            print(f"{row['form']}, {row['size']} pixels, {row['part']}: {milliseconds:8.3f} ms  {name}")
    for line in missing:
        print(f"not measured: {line}")
    report(
        "gpu_fused",
        argv,
        rows,
        missing,
        small=arguments.small,
        device="cpu" if arguments.small else "gpu",
        triton=triton.__version__,
    )
    failed = [row for row in rows if row.get("passed") is False]
    if failed:
        print(f"COMPARISON FAILED: {failed}")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
