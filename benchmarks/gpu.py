"""All that is to be known of a GPU, in one command of at most six minutes, by Paddle or by the PyTorch reference.

    python benchmarks/gpu.py                                 # the framework that sees a GPU, Paddle first
    python benchmarks/gpu.py --framework torch --seconds 200
    python benchmarks/gpu.py --device cpu --small            # the same on a CPU in small, to see that it runs

Parity with float64 on the CPU in float64, float32, bfloat16 and float16, forward and backward; images a second of
training steps and of inference of five models, with the peak of memory; InLine against softmax attention (by the
framework's fused kernel) from 224 to 1024 pixels; and what share of the memory's bandwidth the attention alone reaches,
the bandwidth being that of a copy. A large GPU waits for Python at 64 images: give it --batch-size 256 and more. What
the time does not suffice for is named in the report, results/gpu.json (of --small: results/gpu_small.json).
(Above 300 lines: both frameworks stand beside each other, each in the same few methods.)
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from common import could_not_run, positive, print_table, report

MODELS = ["inline_deit_tiny", "inline_pvt_small", "inline_swin_tiny", "inline_cswin_tiny", "soft_tiny"]
SIZES = [224, 384, 512, 768, 1024]
Job = Callable[[], "list[dict]"]
PARTS = ("parity", "attention", "training", "inference", "resolution")
HALF = ("bfloat16", "float16")
# Largest error of the logits and of the weights' gradients, as a share of the largest number: float32 sums in another
# order, and 16 bits hold 8 or 11 binary digits.
LIMITS = {
    "float64": (1e-11, 1e-9),
    "float32": (1e-4, 1e-2),
    "bfloat16": (6e-2, 3e-1),
    "float16": (1e-2, 1e-1),
}


class Torch:
    """The reference on a device."""

    name = "torch"

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.gpu = torch, device == "gpu"
        self.place = torch.device("cuda" if self.gpu else "cpu")
        if self.gpu:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = True

    @staticmethod
    def sees_a_gpu() -> bool:
        import torch

        return torch.cuda.is_available()

    def model(self, name: str, **overrides: Any) -> Any:
        import torch_ref

        self.torch.manual_seed(0)
        return torch_ref.create_model(name, **overrides)

    def moved(self, model: Any) -> Any:
        return model.to(self.place)

    def tensor(self, array: np.ndarray, *, host: bool = False) -> Any:
        return self.torch.from_numpy(array).to("cpu" if host else self.place)

    def cast(self, dtype: str) -> Any:
        if dtype in ("float32", "float64"):
            return contextlib.nullcontext()
        return self.torch.autocast(self.place.type, getattr(self.torch, dtype))

    def no_grad(self) -> Any:
        return self.torch.no_grad()

    def in_float64(self, model: Any) -> Any:
        return model.double()

    def in_type(self, tensor: Any, dtype: str) -> Any:
        return tensor.to(getattr(self.torch, dtype))

    def gradients(self, model: Any, images: Any, labels: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and all gradients of the weights, end to end."""
        model.zero_grad()
        with self.cast(dtype):
            logits = model(images)
        logits = logits if dtype == "float64" else logits.float()
        self.torch.nn.functional.cross_entropy(logits, labels).backward()
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return logits.detach().cpu().numpy(), self.torch.cat(parts).cpu().numpy()

    def step(self, model: Any, images: Any, labels: Any, dtype: str) -> Callable[[], None]:
        parameters = list(model.train().parameters())
        optimizer = self.torch.optim.AdamW(parameters, lr=1e-4, fused=self.gpu)
        scaler = self.torch.amp.GradScaler(self.place.type, enabled=dtype == "float16")

        def step():
            with self.cast(dtype):
                logits = model(images)
            loss = self.torch.nn.functional.cross_entropy(logits.float(), labels)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            self.torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

        return step

    def attention(self) -> tuple[Callable, Callable]:
        from torch_ref.ops.inline_attention import inline_attention, softmax_attention

        return inline_attention, softmax_attention

    def wait(self) -> None:
        if self.gpu:
            self.torch.cuda.synchronize()

    def forget_peak(self) -> None:
        if self.gpu:
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float | None:
        return self.torch.cuda.max_memory_allocated() / 2**20 if self.gpu else None


class Paddle:
    """The product on a device."""

    name = "paddle"

    def __init__(self, device: str) -> None:
        import paddle

        self.paddle, self.gpu = paddle, device == "gpu"
        self.device = "gpu:0" if self.gpu else "cpu"
        if self.gpu:  # float32 in full, as PyTorch's above
            from paddle_inline.utils.tf32 import allow_tf32

            allow_tf32(False)

    @staticmethod
    def sees_a_gpu() -> bool:
        import paddle

        return bool(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count())

    def model(self, name: str, **overrides: Any) -> Any:
        import paddle_inline

        self.paddle.device.set_device("cpu")
        self.paddle.seed(0)
        return paddle_inline.create_model(name, **overrides)

    def moved(self, model: Any) -> Any:
        self.paddle.device.set_device(self.device)
        return model.to(device=self.device)

    def tensor(self, array: np.ndarray, *, host: bool = False) -> Any:
        if host or not self.gpu:
            return self.paddle.to_tensor(array, place=self.paddle.CPUPlace())
        return self.paddle.to_tensor(array, place=self.paddle.CUDAPlace(0))

    def cast(self, dtype: str) -> Any:
        if dtype in ("float32", "float64"):
            return contextlib.nullcontext()
        return self.paddle.amp.auto_cast(enable=True, level="O1", dtype=dtype)

    def no_grad(self) -> Any:
        return self.paddle.no_grad()

    def in_float64(self, model: Any) -> Any:
        return model.to(dtype="float64")

    def in_type(self, tensor: Any, dtype: str) -> Any:
        return tensor.astype(dtype)

    def gradients(self, model: Any, images: Any, labels: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and all gradients of the weights, end to end."""
        model.clear_gradients()
        with self.cast(dtype):
            logits = model(images)
        logits = logits if dtype == "float64" else logits.astype("float32")
        self.paddle.nn.functional.cross_entropy(logits, labels).backward()
        parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return logits.numpy(), self.paddle.concat(parts).numpy()

    def step(self, model: Any, images: Any, labels: Any, dtype: str) -> Callable[[], None]:
        from paddle_inline.training.loop import train_step
        from paddle_inline.training.losses import make_loss
        from paddle_inline.training.optim import decay_groups, make_optimizer
        from paddle_inline.training.scaling import LossScaler

        model.train()
        optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05), fused=True)
        amp = None if dtype == "float32" else {"enable": True, "level": "O1", "dtype": dtype}
        given = dict(clip=5.0, amp=amp, scaler=LossScaler() if dtype == "float16" else None, wait=False)
        loss_fn = make_loss(False, 0.1)
        return lambda: train_step(model, optimizer, [(images, labels)], loss_fn, 1e-4, **given)

    def attention(self) -> tuple[Callable, Callable]:
        from paddle_inline.ops.inline_attention import inline_attention, softmax_attention

        return inline_attention, softmax_attention

    def wait(self) -> None:
        if self.gpu:
            self.paddle.device.synchronize()

    def forget_peak(self) -> None:
        if self.gpu:
            self.paddle.device.cuda.empty_cache()
            reset = getattr(self.paddle.device.cuda, "reset_max_memory_allocated", None)  # Paddle 3
            if reset is not None:
                reset()

    def peak(self) -> float | None:
        return self.paddle.device.cuda.max_memory_allocated() / 2**20 if self.gpu else None


FRAMEWORKS = {"paddle": Paddle, "torch": Torch}


class Clock:
    """How much of the time is left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.perf_counter() + seconds

    def left(self) -> float:
        return self.end - time.perf_counter()


def seconds_of(call: Callable[[], Any], wait: Callable[[], None], least: float) -> float:
    """Return the seconds of one call, of as many as take `least` seconds, which the device is waited for once."""
    for _ in range(3):  # choosing of algorithms, allocation
        call()
    wait()
    count = 1
    while True:
        started = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        taken = time.perf_counter() - started
        if taken >= least:
            return taken / count
        count = max(2 * count, min(int(count * least / max(taken, 1e-9)) + 1, 1000))


def images_and_labels(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images [B, 3, size, size] and labels [B]."""
    rng = np.random.RandomState(0)
    return rng.standard_normal((batch, 3, size, size)).astype("float32"), rng.randint(0, 10, batch)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest number; infinity where one is not finite."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def parity(framework: Any, name: str, dtypes: list[str], size: int) -> list[dict]:
    """Compare logits and gradients of a model in eval mode on the device with float64 on the CPU."""

    def inputs(dtype: str, host: bool = False) -> list[Any]:
        images, labels = images_and_labels(2, size)
        images = images.astype("float64") if dtype == "float64" else images
        return [framework.tensor(each, host=host) for each in (images, labels)]

    def made(dtype: str) -> Any:
        model = framework.model(name, img_size=size)
        model.eval()
        return framework.in_float64(model) if dtype == "float64" else model

    expected, rows = framework.gradients(made("float64"), *inputs("float64", host=True), "float64"), []
    for dtype in dtypes:
        found = framework.gradients(framework.moved(made(dtype)), *inputs(dtype), dtype)
        errors = [error(a, b) for a, b in zip(found, expected)]
        passed = all(e <= limit for e, limit in zip(errors, LIMITS[dtype]))
        facts = {"logits": errors[0], "gradients": errors[1], "passed": passed}
        rows.append({"part": "parity", "model": name, "dtype": dtype, **facts})
    return rows


def speed(framework: Any, name: str, dtype: str, batch: int, size: int, least: float, train: bool) -> dict:
    """Measure training steps or the forward pass of a model."""
    images, labels = (framework.tensor(each) for each in images_and_labels(batch, size))
    model = framework.moved(framework.model(name, img_size=size))
    framework.forget_peak()
    if train:
        seconds = seconds_of(framework.step(model, images, labels, dtype), framework.wait, least)
    else:
        model.eval()
        with framework.no_grad(), framework.cast(dtype):
            seconds = seconds_of(lambda: model(images), framework.wait, least)
    facts = {"batch": batch, "size": size, "images_per_second": batch / seconds, "peak_mib": framework.peak()}
    return {"part": "training" if train else "inference", "model": name, "dtype": dtype, **facts}


def resolution(framework: Any, name: str, dtype: str, batch: int, size: int, least: float) -> list[dict]:
    """Measure the forward pass of a model and of its softmax twin at one size."""
    rows, images = [], framework.tensor(images_and_labels(batch, size)[0])
    for form, letters in (("InLine", "IIII"), ("softmax", "SSSS")):
        model = framework.moved(framework.model(name, img_size=size, attn_type=letters))
        model.eval()
        framework.forget_peak()
        with framework.no_grad(), framework.cast(dtype):
            seconds = seconds_of(lambda model=model: model(images), framework.wait, least)
        facts = {
            "batch": batch,
            "size": size,
            "images_per_second": batch / seconds,
            "peak_mib": framework.peak(),
        }
        rows.append({"part": "resolution", "model": name, "form": form, "dtype": dtype, **facts})
    return rows


def bandwidth(framework: Any, dtype: str, tokens: int, batch: int, least: float, copied: int) -> list[dict]:
    """Measure the attention alone, by the bytes that it has to read and write at least, against a copy."""
    rng = np.random.RandomState(0)
    source = framework.tensor(rng.standard_normal(copied).astype("float32"))
    seconds = seconds_of(lambda: source + 1.0, framework.wait, least)
    of_a_copy = 2 * source.shape[0] * 4 / seconds
    heads, width = 6, 64
    q, k, v = (
        framework.in_type(
            framework.tensor(rng.standard_normal((batch, heads, tokens, width)).astype("f4")), dtype
        )
        for _ in range(3)
    )
    moved = 4 * batch * heads * tokens * width * (4 if dtype == "float32" else 2)  # q, k, v and the result
    rows = []
    for form, function in zip(("InLine", "softmax"), framework.attention()):
        with framework.no_grad():
            seconds = seconds_of(lambda f=function: f(q, k, v, width**-0.5), framework.wait, least)
        facts = {"tokens": tokens, "batch": batch, "seconds": seconds, "gb_per_second": moved / seconds / 1e9}
        share = moved / seconds / of_a_copy
        rows.append({"part": "attention", "form": form, "dtype": dtype, **facts, "share_of_bandwidth": share})
    return rows


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", default="auto", choices=("auto", *FRAMEWORKS))
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--small", action="store_true", help="one small model, small images, short timings")
    parser.add_argument(
        "--seconds", type=positive(float), default=330, help="after which nothing new is begun"
    )
    parser.add_argument("--models", nargs="+", help=f"default: {' '.join(MODELS)}")
    parser.add_argument(
        "--sizes", type=positive(int), nargs="+", help=f"pixels of the sides; default: {SIZES}"
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="of the measurements; all")
    parser.add_argument("--batch-size", type=positive(int), help="of training and inference; default: 64")
    arguments = parser.parse_args(argv)
    if arguments.small and (arguments.models or arguments.sizes or arguments.batch_size):
        parser.error(
            "--small has a model, sizes and a batch of its own: no --models, --sizes or --batch-size"
        )
    clock = Clock(arguments.seconds)
    framework, why = chosen(arguments.framework, arguments.device)
    if framework is None:
        print(f"COULD NOT RUN: {why}")
        return 1
    small, on_gpu = arguments.small, arguments.device == "gpu"
    models = ["inline_deit_digits"] if small else arguments.models or MODELS
    sizes = [16, 32] if small else arguments.sizes or SIZES
    batch, usual, least = (2, 32, 0.0) if small else (arguments.batch_size or 64, 224, 0.5)
    dtypes = ["float64", "float32", *(HALF if on_gpu else ())]
    fast = "bfloat16" if on_gpu else "float32"
    missing: list[str] = []

    jobs: list[tuple[str, str, Job]] = []  # part, name, what is done
    for name in models:
        jobs.append(("parity", f"parity of {name}", lambda n=name: parity(framework, n, dtypes, usual)))
    for tokens in (64,) if small else (196, 1024, 4096):
        each, numbers = max((1 if small else 1 << 18) // tokens, 1), 1 << (12 if small else 28)
        for dtype in dict.fromkeys(["float32", fast]):
            jobs.append(
                (
                    "attention",
                    f"attention over {tokens} tokens, {dtype}",
                    lambda t=tokens, b=each, d=dtype, n=numbers: bandwidth(framework, d, t, b, least, n),
                )
            )
    for name in models:
        for dtype in dict.fromkeys(["float32", fast]):
            for train in (True, False):
                part = "training" if train else "inference"
                given = (framework, name, dtype, batch, usual, least, train)
                jobs.append((part, f"{part} of {name}, {dtype}", lambda given=given: [speed(*given)]))
    for size in sizes:
        name, count = models[0], max(batch * usual**2 // size**2, 1)
        what = f"{name} at {size} pixels"
        given = (framework, name, fast, count, size, least)
        jobs.append(("resolution", what, lambda given=given: resolution(*given)))

    rows = measured([job[1:] for job in jobs if job[0] in arguments.parts], clock, missing)
    planned = [] if on_gpu else ["bfloat16, float16: of GPUs"]
    for line in [*planned, *missing]:
        print(f"not measured: {line}")
    facts = {"framework": framework.name, "device": arguments.device}
    report("gpu", argv, rows, [*planned, *missing], small=small, **facts)
    failed = [f"{row['model']} {row['dtype']}" for row in rows if row.get("passed") is False]
    if failed:
        print(f"PARITY FAILED: {', '.join(failed)}")
    return 1 if failed or missing else 0


def measured(jobs: Iterable[tuple[str, Job]], clock: Clock, missing: list[str]) -> list[dict]:
    """Do jobs by their names while there is time, and return and print what they find; `missing` takes the others."""
    rows: list[dict] = []
    for what, job in jobs:
        if clock.left() <= 0:
            missing.append(f"{what}: no time was left")
            continue
        try:
            found = job()
        except Exception as failure:  # the rest can still be measured
            missing.append(could_not_run(what, failure))
            continue
        rows += found
        show(found)
    return rows


def chosen(name: str, device: str) -> tuple[Any, str]:
    """Return the framework that is asked for, or the first that sees a GPU; None with the reason: none does."""
    why = []
    for each in FRAMEWORKS if name == "auto" else [name]:
        try:
            if device == "cpu" or FRAMEWORKS[each].sees_a_gpu():
                return FRAMEWORKS[each](device), ""
            why.append(f"{each} sees no GPU")
        except ImportError as error:
            why.append(f"{each} cannot be imported ({error})")
    hint = "; --device cpu --small runs the same on a CPU in small" if device == "gpu" else ""
    return None, ", ".join(why) + hint


def show(rows: list[dict]) -> None:
    """Print what one job has found."""
    columns = [name for name, value in rows[0].items() if not isinstance(value, list)]
    print_table(
        columns, [["-" if row[column] is None else row[column] for column in columns] for row in rows]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
