"""Peak memory of whole models in inference and in a training step, InLine against their softmax twins.

    python benchmarks/memory.py --framework torch --models inline_deit_tiny --sizes 224 448 --device cpu

On a CPU: what the process grows by, each in a process of its own; on a GPU: what its allocator counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from common import could_not_run, figure, positive, print_table, report

from paddle_inline.utils.timing import peak_memory

MODELS = ["inline_deit_tiny", "inline_pvt_small"]
SIZES = [224, 448, 672]


def torch_step(
    name: str, device: str, batch: int, size: int, letters: str, training: bool
) -> tuple[Callable, Any]:
    """Return a function that runs one step, and the allocator's module."""
    import torch

    import torch_ref

    device = "cuda" if device.startswith("gpu") else device
    model = torch_ref.create_model(name, img_size=size, attn_type=letters).to(device).train(training)
    images = torch.randn(batch, 3, size, size, device=device)

    def step():
        if training:
            model(images).square().mean().backward()
        else:
            with torch.inference_mode():
                model(images)

    return step, torch.cuda


def paddle_step(
    name: str, device: str, batch: int, size: int, letters: str, training: bool
) -> tuple[Callable, Any]:
    """As `torch_step`."""
    import paddle

    import paddle_inline

    paddle.set_device(device)
    model = paddle_inline.create_model(name, img_size=size, attn_type=letters)
    model.train() if training else model.eval()
    images = paddle.randn([batch, 3, size, size])

    def step():
        if training:
            model(images).square().mean().backward()
        else:
            with paddle.no_grad():
                model(images)

    return step, paddle.device.cuda


FRAMEWORKS = {"torch": torch_step, "paddle": paddle_step}


def peak(framework: str, device: str, *what: Any) -> float:
    """Return the mebibytes by which one step raises the process's peak (CPU) or the allocator's (GPU)."""
    step, cuda = FRAMEWORKS[framework](what[0], device, *what[1:])
    if device == "cpu":
        before = peak_memory()
        step()
        return peak_memory() - before
    before = cuda.memory_allocated()
    step()
    return (cuda.max_memory_allocated() - before) / 2**20


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", nargs="+", default=["torch"], choices=FRAMEWORKS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", type=positive(int), nargs="+", default=SIZES, help="pixels of the sides")
    parser.add_argument("--batch-size", type=positive(int), default=2)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    arguments = parser.parse_args(argv)
    rows, missing, lines = [], [], {}
    fresh = multiprocessing.get_context("spawn")
    for framework in arguments.framework:
        for name in arguments.models:
            for size in arguments.sizes:
                for form, letters in (("InLine", "IIII"), ("softmax", "SSSS")):
                    row = {"framework": framework, "model": name, "size": size, "form": form}
                    for phase in ("inference", "training"):
                        what = (name, arguments.batch_size, size, letters, phase == "training")
                        try:
                            with ProcessPoolExecutor(1, fresh) as pool:  # unlike Pool it ends in peace
                                row[phase] = pool.submit(peak, framework, arguments.device, *what).result()
                        except Exception as error:
                            missing.append(
                                could_not_run(f"{framework} {name} {form} {phase} at {size}", error)
                            )
                            continue
                        x, y = lines.setdefault(f"{framework} {name} {form} {phase}", ([], []))
                        x.append(size)
                        y.append(row[phase])
                    rows.append(row)
    columns = ["framework", "model", "size", "form", "inference", "training"]
    print_table(
        [*columns[:4], "inference MiB", "training MiB"], [[row.get(c, "-") for c in columns] for row in rows]
    )
    report("memory", argv, rows, missing, batch=arguments.batch_size)
    figure("memory", f"Memory on {arguments.device}", "pixels of a side", "MiB", lines)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
