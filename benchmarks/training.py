"""Images a second of training steps, Paddle and the PyTorch reference in turn, round after round.

    python benchmarks/training.py --models inline_deit_tiny --batch-size 8 --device cpu

A step is what train_paddle.py's is: forward, smoothed cross-entropy, backward, clipping by the global
norm, AdamW in its decay groups. Both start from the same images; values do not change speed. Each framework has a
process of its own with what its programs set: Paddle's are tuned as train_paddle.py is, PyTorch's is left as it starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from common import STARTED_WITH, accelerator, could_not_run, figure, positive, print_table, report, versions

from paddle_inline.utils.environment import keep_freed_memory
from paddle_inline.utils.timing import REST, benchmark_interleaved, machine

MODELS = ["inline_deit_tiny", "inline_swin_tiny"]
RATE, DECAY, CLIP, SMOOTHING = 1e-4, 0.05, 5.0, 0.1


def torch_step(
    name: str, device: str, images: np.ndarray, labels: np.ndarray, dtype: str
) -> Callable[[], float]:
    """Return a function that trains the reference by one step, and returns when the device is done."""
    import torch

    import torch_ref

    device = "cuda" if device.startswith("gpu") else device
    model = torch_ref.create_model(name, img_size=images.shape[-1]).train().to(device)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    images, labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype, torch.bfloat16)
    scaler = torch.amp.GradScaler(device, enabled=dtype == "float16")

    def step():
        with torch.autocast(device, half, enabled=dtype != "float32"):
            logits = model(images)
        loss = loss_fn(logits.float(), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.item()  # waits for the device

    return step


def paddle_step(
    name: str, device: str, images: np.ndarray, labels: np.ndarray, dtype: str
) -> Callable[[], float]:
    """As `torch_step`, by the engine of train_paddle.py."""
    import paddle

    import paddle_inline
    from paddle_inline.training.loop import train_step
    from paddle_inline.training.losses import make_loss
    from paddle_inline.training.optim import decay_groups, make_optimizer

    paddle.set_device(device)
    model = paddle_inline.create_model(name, img_size=images.shape[-1])
    model.train()
    optimizer = make_optimizer("adamw", model, decay_groups(model, DECAY))
    loss_fn = make_loss(False, SMOOTHING)
    batch = [(paddle.to_tensor(images), paddle.to_tensor(labels))]
    amp = {"enable": True, "level": "O1", "dtype": dtype} if dtype != "float32" else None
    scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**16) if dtype == "float16" else None
    return lambda: train_step(model, optimizer, batch, loss_fn, RATE, clip=CLIP, scaler=scaler, amp=amp)[0]


FRAMEWORKS = {"paddle": paddle_step, "torch": torch_step}


class Alone:
    """A framework's step in a process of its own; called, it makes one and returns the loss.

    Raises:
        RuntimeError: the framework cannot be run, with its own error's text.
    """

    def __init__(self, framework: str, *given: Any) -> None:
        self.framework = framework
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        environment = STARTED_WITH if framework == "torch" else dict(os.environ)
        self.process = context.Process(target=serve, args=(other, framework, environment, given), daemon=True)
        self.process.start()
        other.close()
        self.versions: dict[str, str] = {}
        self.accelerator: dict[str, str] = {}

    def __call__(self) -> float:
        try:
            self.pipe.send(None)
            loss, failure, self.versions, self.accelerator = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(timeout=60)
            raise RuntimeError(
                f"the process of {self.framework} ended with {self.process.exitcode} (-9: killed, for memory perhaps)"
            ) from None
        if failure:
            raise RuntimeError(failure)
        return loss

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def serve(pipe: Any, framework: str, environment: dict[str, str], given: tuple) -> None:
    """Make a step for each message, in a process of its own; the last of `given`: PyTorch keeps freed memory, too."""
    os.environ.clear()
    os.environ.update(environment)
    *given, torch_keeps_memory = given
    if framework == "paddle" or torch_keeps_memory:
        keep_freed_memory()  # as train_paddle.py does
    step, loss, failure = None, float("nan"), ""
    while True:
        pipe.recv()
        try:
            step = step or FRAMEWORKS[framework](*given)
            loss = float(step())
        except Exception as error:  # the other can still be measured
            failure = f"{type(error).__name__}: {error}"
        pipe.send((loss, failure, versions(), accelerator()))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch-size", type=positive(int), nargs="+", default=[8])
    parser.add_argument("--size", type=positive(int), default=224, help="pixels of the sides")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--rounds", type=positive(int), default=5)
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument(
        "--torch-keeps-memory",
        action="store_true",
        help="PyTorch's process keeps freed memory, as Paddle's does",
    )
    arguments = parser.parse_args(argv)
    rows, missing, lines = [], [], {}
    used: dict[str, dict[str, Any]] = {"versions": versions(), "machine": machine()}
    keep = arguments.torch_keeps_memory
    for name in arguments.models:
        for batch in arguments.batch_size:
            rng = np.random.RandomState(0)
            images = rng.standard_normal((batch, 3, arguments.size, arguments.size)).astype(np.float32)
            labels = rng.randint(0, 10, batch)
            runs = {}
            for framework in FRAMEWORKS:
                run = None
                try:
                    run = Alone(framework, name, arguments.device, images, labels, arguments.dtype, keep)
                    if not np.isfinite(run()):
                        raise FloatingPointError("the loss is not finite")
                    runs[framework] = run
                except Exception as error:  # the other can still be measured
                    if run is not None:
                        run.close()
                    missing.append(could_not_run(f"{framework} {name}, batch {batch}", error))
            try:
                measured = benchmark_interleaved(runs, arguments.rounds, warmup=1, rest=REST)
            except Exception as error:  # the next can still be measured
                measured = {}
                missing.append(could_not_run(f"{name}, batch {batch}", error))
            finally:
                for run in runs.values():
                    run.close()
            for framework, seconds in measured.items():
                row = {"framework": framework, "model": name, "batch": batch, "seconds": seconds}
                how = {"torch_keeps_memory": True} if keep else {}
                rows.append({**row, **how, "images_per_second": batch / seconds["median"]})
                x, y = lines.setdefault(f"{framework} {name}", ([], []))
                x.append(batch)
                y.append(batch / seconds["median"])
            for run in runs.values():
                used["versions"].update(run.versions)
                used["machine"].update(run.accelerator)
            show(rows, name, batch)
            report("training", argv, rows, missing, size=arguments.size, dtype=arguments.dtype, **used)
    figure("training", f"Training steps on {arguments.device}", "images a step", "images a second", lines)
    return 1 if missing else 0


def show(rows: list[dict], name: str, batch: int) -> None:
    """Print one model at one batch size."""
    own = [row for row in rows if (row["model"], row["batch"]) == (name, batch)]
    torch = next((row["images_per_second"] for row in own if row["framework"] == "torch"), None)
    print_table(
        ["model", "batch", "framework", "images/s", "times torch"],
        [
            [name, batch, row["framework"], speed, speed / torch if torch else "-"]
            for row in own
            for speed in [row["images_per_second"]]
        ],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
