"""Time and memory of one attention over the number of tokens: InLine, softmax and softmax-free.

    python benchmarks/attention.py                          # Paddle, forward
    python benchmarks/attention.py --framework torch        # the reference; neither loads the other
    python benchmarks/attention.py --backward --lengths 196 784 3136 --output DIR

The operators alone, on random q, k and v of one image, 2 heads and 32 channels each: the first stage of
InLine-PVT, which has 3136 tokens at 224 pixels and 12544 at 448. Runs on a GPU where the framework has one.
Writes attention_FRAMEWORK.json and, where matplotlib is installed, attention_FRAMEWORK.png.

The softmax-free attention is shown twice, with 49 landmarks, as SOFT has at 224 pixels, and with one for 64
tokens, as its first stage has at any size: a fixed number makes it linear, a fixed share does not.

Rounds are interleaved: each visits every attention once. Times are medians over the rounds. Memory is the
peak above what was in use before: the device's own count on a GPU, resident memory on a CPU (Linux only).
A slope is that of a straight line through log time, or log memory, over log tokens.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_inline.runtime import tune_cpu

LENGTHS = (196, 784, 1024, 3136, 6272, 12544, 16384)
HEADS, HEAD_DIM, LANDMARKS, TOKENS_PER_LANDMARK = 2, 32, 49, 64
SLOPE_FROM = 1000  # tokens: below, the cost of a call hides that of the work
BASELINE, OURS = "softmax", "inline"


class Paddle:
    """What the benchmark asks of a framework, in PaddlePaddle."""

    package = "paddle_inline"

    def __init__(self):
        import paddle

        self.paddle, self.version = paddle, paddle.__version__
        self.gpu = paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
        self.device = paddle.device.cuda.get_device_name() if self.gpu else ""

    def draw(self, length):
        return self.paddle.randn([1, HEADS, length, HEAD_DIM])

    def fused_softmax(self, q, k, v):
        q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))  # it wants [B, N, h, d]
        return self.paddle.nn.functional.scaled_dot_product_attention(q, k, v)

    def run(self, attention, inputs, backward):
        for x in inputs:
            x.stop_gradient = not backward
        with self.paddle.set_grad_enabled(backward):
            out = attention(*inputs)
            if backward:
                out.sum().backward()
                for x in inputs:
                    x.clear_gradient()
        if self.gpu:
            self.paddle.device.cuda.synchronize()

    def reset_peak(self):
        self.paddle.device.cuda.reset_max_memory_allocated()
        return self.paddle.device.cuda.memory_allocated()

    def peak(self):
        return self.paddle.device.cuda.max_memory_allocated()


class Torch:
    """What the benchmark asks of a framework, in PyTorch."""

    package = "torch_ref"

    def __init__(self):
        import torch

        self.torch, self.version = torch, torch.__version__
        self.gpu = torch.cuda.is_available()
        self.device = torch.cuda.get_device_name() if self.gpu else ""

    def draw(self, length):
        return self.torch.randn(1, HEADS, length, HEAD_DIM, device="cuda" if self.gpu else "cpu")

    def fused_softmax(self, q, k, v):
        return self.torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def run(self, attention, inputs, backward):
        for x in inputs:
            x.requires_grad_(backward)
            x.grad = None
        with self.torch.set_grad_enabled(backward):
            out = attention(*inputs)
            if backward:
                out.sum().backward()
        if self.gpu:
            self.torch.cuda.synchronize()

    def reset_peak(self):
        self.torch.cuda.reset_peak_memory_stats()
        return self.torch.cuda.memory_allocated()

    def peak(self):
        return self.torch.cuda.max_memory_allocated()


FRAMEWORKS = {"paddle": Paddle, "torch": Torch}


def attentions(framework):
    """{name: function of q, k, v [1, h, N, d]}"""
    ops = importlib.import_module(f"{framework.package}.ops.inline_attention")
    free = importlib.import_module(f"{framework.package}.ops.softmax_free")
    scale = HEAD_DIM**-0.5

    def softmax_free(q, k, v, step, invert=free.newton_inverse):
        q = q * HEAD_DIM**-0.25
        return free.softmax_free_attention(q, q[:, :, ::step][:, :, : q.shape[2] // step], v, invert)

    def every(length, count):
        return max(1, length // count)

    return {
        OURS: lambda q, k, v: ops.inline_attention(q, k, v, scale),
        BASELINE: lambda q, k, v: ops.softmax_attention(q, k, v, scale),
        "softmax, fused": framework.fused_softmax,
        "soft, 49 landmarks": lambda q, k, v: softmax_free(q, k, v, every(q.shape[2], LANDMARKS)),
        "soft_norm, 49 landmarks": lambda q, k, v: softmax_free(
            q, k, v, every(q.shape[2], LANDMARKS), free.normalised_newton_inverse
        ),
        "soft, N/64 landmarks": lambda q, k, v: softmax_free(q, k, v, TOKENS_PER_LANDMARK),
    }


def resident(field):
    """A field of /proc/self/status in bytes (VmRSS: resident now, VmHWM: its peak), None off Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def start_memory(framework):
    """Forget the peak so far; returns what is in use now, in bytes, or None where it cannot be known."""
    gc.collect()
    if framework.gpu:
        return framework.reset_peak()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give freed memory back, or its reuse would go unseen
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew from VmRSS
    except (OSError, AttributeError):
        return None
    return resident("VmRSS")


def measure(framework, lengths, rounds, backward):
    """[{attention, tokens, seconds, fastest, slowest, bytes}], one for each attention and length."""
    rows = []
    for length in lengths:
        seconds, memory = {}, {}
        inputs = [framework.draw(length) for _ in range(3)]
        for i in range(rounds + 1):
            for name, attention in attentions(framework).items():
                before = start_memory(framework) if i == 1 else None
                start = time.perf_counter()
                framework.run(attention, inputs, backward)
                if i > 0:  # the first round warms up
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
                if before is not None:
                    memory[name] = (framework.peak() if framework.gpu else resident("VmHWM")) - before
        for name, times in seconds.items():
            row = {"attention": name, "tokens": length, "seconds": statistics.median(times)}
            rows.append(row | {"fastest": min(times), "slowest": max(times), "bytes": memory.get(name)})
    return rows


def slope(lengths, values):
    """The least-squares slope of log value over log length; None with fewer than two of them."""
    points = [(math.log(x), math.log(y)) for x, y in zip(lengths, values) if x >= SLOPE_FROM and y]
    if len(points) < 2:
        return None
    mean_x, mean_y = (statistics.mean(axis) for axis in zip(*points))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def summarise(rows):
    """{attention: {tokens, seconds, bytes: lists; time_slope, memory_slope, speedup: by softmax, a list}}"""
    baseline = {row["tokens"]: row["seconds"] for row in rows if row["attention"] == BASELINE}
    summary = {}
    for name in dict.fromkeys(row["attention"] for row in rows):
        own = [row for row in rows if row["attention"] == name]
        tokens, seconds, memory = ([row[key] for row in own] for key in ("tokens", "seconds", "bytes"))
        summary[name] = {
            **{"tokens": tokens, "seconds": seconds, "bytes": memory},
            **{"time_slope": slope(tokens, seconds), "memory_slope": slope(tokens, memory)},
            "speedup": [baseline[length] / taken for length, taken in zip(tokens, seconds)],
        }
    return summary


def print_table(report):
    from rich.console import Console
    from rich.table import Table

    lengths = report["lengths"]
    title = f"{report['framework']} {report['version']}, {report['machine']}: milliseconds (MiB) for N tokens"
    table = Table(title=title, title_justify="left")
    table.add_column("attention")
    for length in lengths:
        table.add_column(str(length), justify="right")
    for column in ("slope: time", "memory", f"speed-up at {lengths[-1]}"):
        table.add_column(column, justify="right")
    for name, row in report["summary"].items():
        cells = [
            f"{1e3 * seconds:.1f} ({'?' if size is None else round(size / 2**20)})"
            for seconds, size in zip(row["seconds"], row["bytes"])
        ]
        slopes = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("time_slope", "memory_slope")]
        table.add_row(name, *cells, *slopes, f"{row['speedup'][-1]:.1f}x")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if any(size is None for row in report["summary"].values() for size in row["bytes"]):
        print("Memory is not known here: no GPU, and no /proc/self/clear_refs as on Linux.")


def draw_figure(report, path):
    """Two panels, time and memory over tokens, both axes logarithmic; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, key, label, unit in zip(
        figure.subplots(1, 2), ("seconds", "bytes"), ("milliseconds", "peak MiB"), (1e-3, 2**20)
    ):
        for name, row in report["summary"].items():
            points = [(x, y / unit) for x, y in zip(row["tokens"], row[key]) if y]
            if points:
                axes.plot(*zip(*points), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    what = "forward and backward" if report["backward"] else "forward"
    figure.suptitle(f"One attention, {what}: {report['framework']} {report['version']}, {report['machine']}")
    figure.savefig(path, dpi=120)
    return True


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--framework", choices=FRAMEWORKS, default="paddle")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N", help="tokens")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed runs of each (default: 5)")
    parser.add_argument("--backward", action="store_true", help="gradients too")
    parser.add_argument("--output", default="output/benchmarks", metavar="DIR", help="where the files go")
    args = parser.parse_args(argv)
    if args.rounds < 1 or min(args.lengths) < TOKENS_PER_LANDMARK:
        parser.error(f"--rounds must be at least 1 and --lengths at least {TOKENS_PER_LANDMARK}")
    tune_cpu()  # before Paddle is imported
    framework = FRAMEWORKS[args.framework]()
    lengths = sorted(set(args.lengths))
    rows = measure(framework, lengths, args.rounds, args.backward)
    report = {
        **{"framework": args.framework, "version": framework.version},
        "machine": framework.device or f"{platform.machine()}, {platform.system()}",
        "date": time.strftime("%Y-%m-%d"),
        **{"lengths": lengths, "rounds": args.rounds, "backward": args.backward},
        **{"summary": summarise(rows), "rows": rows},
    }
    print_table(report)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"attention_{args.framework}{'_backward' if args.backward else ''}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    drawn = draw_figure(report, stem.with_suffix(".png"))
    print(f"{stem}.json" + (f", {stem}.png" if drawn else " (no figure: matplotlib is not installed)"))
    return report


if __name__ == "__main__":
    main()
