"""Whole models at growing resolution: InLine against their softmax twins, the paper's speed figure redrawn.

    python benchmarks/resolution.py --framework torch --models inline_deit_tiny --sizes 224 512 --device gpu

A twin is the same model with attn_type S throughout (in DeiT the plain vision transformer).
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from common import could_not_run, figure, positive, print_table, report

from paddle_inline.utils.timing import benchmark_interleaved

MODELS = ["inline_deit_tiny", "inline_pvt_small"]
SIZES = [224, 384, 512, 640, 768, 1024]


def torch_model(name: str, device: str, **overrides: Any) -> Callable:
    """images -> nothing, by the reference, returning when the device is done."""
    import torch

    import torch_ref

    device = "cuda" if device.startswith("gpu") else device
    model = torch_ref.create_model(name, **overrides).eval().to(device)

    def run(images):
        with torch.inference_mode():
            model(torch.from_numpy(images).to(device)).cpu()

    return run


def paddle_model(name: str, device: str, **overrides: Any) -> Callable:
    """images -> nothing, by Paddle eagerly."""
    import paddle

    import paddle_inline
    from paddle_inline.inference.backends import EagerEngine

    paddle.set_device(device)
    model = paddle_inline.create_model(name, **overrides)
    model.eval()
    return EagerEngine(model)


FRAMEWORKS = {"torch": torch_model, "paddle": paddle_model}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", nargs="+", default=["torch"], choices=FRAMEWORKS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", type=positive(int), nargs="+", default=SIZES, help="pixels of the sides")
    parser.add_argument("--batch-size", type=positive(int), default=1)
    parser.add_argument("--rounds", type=positive(int), default=5)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    arguments = parser.parse_args(argv)
    rows, missing, lines = [], [], {}
    for framework in arguments.framework:
        for name in arguments.models:
            for size in arguments.sizes:
                images = np.random.RandomState(0).standard_normal((arguments.batch_size, 3, size, size))
                runs = {}
                for form, letters in (("InLine", "IIII"), ("softmax", "SSSS")):
                    try:
                        model = FRAMEWORKS[framework](
                            name, arguments.device, img_size=size, attn_type=letters
                        )
                        runs[form] = functools.partial(model, images.astype(np.float32))
                        runs[form]()
                    except Exception as error:
                        runs.pop(form, None)
                        missing.append(could_not_run(f"{framework} {name} {form} at {size}", error))
                for form, seconds in benchmark_interleaved(runs, arguments.rounds, warmup=1).items():
                    rows.append(
                        {
                            "framework": framework,
                            "model": name,
                            "form": form,
                            "size": size,
                            "batch": arguments.batch_size,
                            "seconds": seconds,
                        }
                    )
                    x, y = lines.setdefault(f"{framework} {name} {form}", ([], []))
                    x.append(size)
                    y.append(arguments.batch_size / seconds["median"])
                show(rows, framework, name, size)
                report("resolution", argv, rows, missing)
    figure("resolution", f"Whole models on {arguments.device}", "pixels of a side", "images a second", lines)
    return 1 if missing else 0


def show(rows: list[dict], framework: str, name: str, size: int) -> None:
    """Print one model at one size."""
    key = (framework, name, size)
    own = [row for row in rows if (row["framework"], row["model"], row["size"]) == key]
    inline = next((row["seconds"]["median"] for row in own if row["form"] == "InLine"), None)
    print_table(
        ["framework", "model", "size", "form", "images/s", "times InLine"],
        [
            [
                *key,
                row["form"],
                row["batch"] / row["seconds"]["median"],
                row["seconds"]["median"] / inline if inline else "-",
            ]
            for row in own
        ],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
