"""What data parallelism costs: bytes and time of a step's all-reduce, how much of it hides behind the backward pass.

    python benchmarks/scaling.py --ranks 1 2 4 --models inline_deit_tiny --rounds 8

Each number of ranks is a job of paddle.distributed.launch on this machine, through gloo on a CPU, NCCL on GPUs. Its
steps are, in turn, round after round:

    alone        forward, backward, no exchange
    overlapped   as a training run does it: paddle.DataParallel sends gradients while the backward pass goes on
    afterwards   no exchange during the backward pass, then one all-reduce of all gradients
    exchange     that all-reduce by itself

hidden = 1 - (overlapped - alone) / exchange: 1, the exchange costs nothing; 0, it costs all its time; below, more than
that. Bytes are those of the loopback device over the exchanges of a round, by all ranks, where Linux counts them. A
checkpoint of the same model is timed too: weights, two moments and the average, written, summed and flushed to disk.

    python benchmarks/scaling.py --plan inline_deit_tiny --gpu-speed 4483 --gpu-batch 256

computes instead what 8, 64 and 512 GPUs need of images, loader cores, network and disk (docs/scaling.md), from images a
second of one GPU, which has to be given, and of one loader core.

On one machine ranks share its cores, so `alone` gets slower with their number: times of one row are to be compared.
(Above 300 lines: a rank's steps, the job around them and the arithmetic of the plan, which use the same names.)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import could_not_run, positive, print_table, report

from paddle_inline.utils.cores import available_cores
from paddle_inline.utils.errors import UserError

WORKER = "INLINE_SCALING_WORKER"  # where a rank of a job writes what it measured
GPUS = (8, 64, 512)
EPOCHS, IMAGENET = 300, 1_281_167
BACKWARD = 2 / 3  # of a step: twice the multiply-adds of the forward pass
# As measured on two cores of an Intel Xeon: images a second and core of the whole ImageNet recipe on JPEGs of 500 x 375
# (docs/benchmarks.md, "Training, loading, converting"), bytes a second of a checkpoint (docs/figures/scaling.json).
CORE_SPEED, DISK_SPEED = 316.0, 2.6e8
KINDS = ("alone", "overlapped", "afterwards", "exchange")


def loopback_bytes() -> int | None:
    """Return how many bytes went through the loopback device so far; None where the system does not say."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return None


def worker(arguments: argparse.Namespace) -> None:
    """Be one rank: time the four kinds of step in turn; rank 0 writes the times."""
    import paddle
    import paddle.distributed as dist

    import paddle_inline
    from paddle_inline.training.distributed import parallel, start
    from paddle_inline.training.losses import make_loss

    rank, world = start()
    name = arguments.models[0]
    model = paddle_inline.create_model(name, img_size=arguments.img_size)
    model.train()
    net = parallel(model, world)
    random = np.random.RandomState(rank)
    shape = (arguments.batch_size, model.spec.in_chans, arguments.img_size, arguments.img_size)
    images = paddle.to_tensor(random.standard_normal(shape).astype("float32"))
    labels = paddle.to_tensor(random.randint(0, model.spec.num_classes, arguments.batch_size))
    loss_fn = make_loss(False, 0.1)
    count = sum(parameter.size for parameter in model.parameters())
    gradients = paddle.to_tensor(random.standard_normal(count).astype("float32"))

    def backward(through):
        loss_fn(through(images), labels).backward()
        model.clear_gradients()

    def alone():
        if world == 1:
            backward(net)
        else:
            with net.no_sync():
                backward(net)

    def exchange():
        if world > 1:
            dist.all_reduce(gradients)

    def afterwards():
        alone()
        exchange()

    steps = {
        "alone": alone,
        "overlapped": lambda: backward(net),
        "afterwards": afterwards,
        "exchange": exchange,
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    moved = []
    for turn in range(arguments.rounds + 1):
        for kind, step in steps.items():
            if world > 1:
                dist.barrier()
            before, begin = loopback_bytes(), time.perf_counter()
            step()
            if world > 1:
                dist.barrier()  # the slowest rank ends a step
            taken = time.perf_counter() - begin
            if turn:  # the first round warms up
                seconds[kind].append(taken)
                if kind == "exchange" and before is not None:
                    moved.append(loopback_bytes() - before)
    if rank == 0:
        facts = {"parameters": count, "seconds": seconds, "bytes": moved if world > 1 else []}
        Path(os.environ[WORKER]).write_text(json.dumps(facts))


def measure(name: str, ranks: int, arguments: argparse.Namespace) -> dict:
    """Return what a job of so many ranks measured.

    Raises:
        RuntimeError: it failed; with the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        program = [sys.executable]
        if ranks > 1:
            program += [
                "-m",
                "paddle.distributed.launch",
                "--nproc_per_node",
                str(ranks),
                "--log_dir",
                folder,
            ]
        options = ["--models", name, "--batch-size", arguments.batch_size, "--img-size", arguments.img_size]
        threads = max(1, available_cores() // ranks)
        done = subprocess.run(
            [*program, __file__, *map(str, options), "--rounds", str(arguments.rounds)],
            env={**os.environ, WORKER: str(result), "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        if not result.exists():
            lines = (done.stderr + done.stdout).strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
        return json.loads(result.read_text())


def row_of(name: str, ranks: int, facts: dict) -> dict:
    """Return medians in seconds, bytes of one exchange, and the share of the exchange that is hidden."""
    median = {kind: float(np.median(values)) for kind, values in facts["seconds"].items()}
    row = {"model": name, "ranks": ranks, "parameters": facts["parameters"]}
    row |= {f"{kind}_s": value for kind, value in median.items()}
    if ranks > 1:
        row["hidden"] = 1 - (median["overlapped"] - median["alone"]) / median["exchange"]
        row["expected_bytes"] = 2 * (ranks - 1) * 4 * facts["parameters"]  # of a ring, all ranks together
        row["bytes"] = float(np.median(facts["bytes"])) if facts["bytes"] else None
    return row


def checkpoint_seconds(name: str, rounds: int) -> dict:
    """Return how long a checkpoint of a model takes to write, and its bytes."""
    import paddle

    import paddle_inline
    from paddle_inline.training.checkpoint import save_checkpoint
    from paddle_inline.training.ema import Ema
    from paddle_inline.training.losses import make_loss
    from paddle_inline.training.optim import decay_groups, make_optimizer
    from paddle_inline.training.state import TrainingState

    model = paddle_inline.create_model(name)
    optimizer = make_optimizer("adamw", model, decay_groups(model, 0.05))
    shape = (1, model.spec.in_chans, *model.img_size)
    make_loss(False, 0.1)(model(paddle.zeros(shape)), paddle.zeros([1], "int64")).backward()
    optimizer.step()
    average, state, seconds = Ema(model, 0.999), TrainingState(name, {}), []
    with tempfile.TemporaryDirectory(dir=".") as folder:  # a disk, not the memory that /tmp can be
        for step in range(rounds):
            state.progress.step = step
            begin = time.perf_counter()
            path = save_checkpoint(folder, model=model, optimizer=optimizer, state=state, ema=average)
            seconds.append(time.perf_counter() - begin)
        size = sum(file.stat().st_size for file in path.iterdir())
    median = float(np.median(seconds))
    return {"model": name, "checkpoint_s": median, "checkpoint_bytes": size, "bytes_per_s": size / median}


def needs(
    parameters: int, gpus: int, gpu_speed: float, gpu_batch: int, core_speed: float, disk_speed: float
) -> dict[str, float]:
    """Return what data-parallel training on so many GPUs needs.

    Args:
        parameters: of the model, float32: 4 bytes a gradient, 16 in a checkpoint (weight, two moments, average).
        gpu_speed: images a second of one GPU, all else free.
        gpu_batch: images of one GPU in a step.
        core_speed: images a second that one loader core makes.
        disk_speed: bytes a second of a checkpoint.

    Returns:
        images_s: of all GPUs. cores: of the loaders, each GPU. sent: bytes that each GPU sends, and receives, in a
        step, by a ring. step_s: of a step. hidden_s: of its backward pass, two thirds, behind which the exchange can
        hide. gigabits: a second that each GPU's share of the network has to carry for that. checkpoint_s. hours: of
        300 epochs of ImageNet-1K.
    """
    step = gpu_batch / gpu_speed
    sent = 2 * (gpus - 1) / gpus * 4 * parameters
    return {
        "gpus": gpus,
        "images_s": gpus * gpu_speed,
        "cores": gpu_speed / core_speed,
        "sent": sent,
        "step_s": step,
        "hidden_s": step * BACKWARD,
        "gigabits": 8e-9 * sent / (step * BACKWARD),
        "checkpoint_s": 16 * parameters / disk_speed,
        "hours": EPOCHS * IMAGENET / (gpus * gpu_speed) / 3600,
    }


def print_plan(arguments: argparse.Namespace) -> None:
    """Print what training a model on 8, 64 and 512 GPUs needs.

    Raises:
        UserError: there is no such model.
    """
    import paddle_inline
    from paddle_inline.layers.basic import meta_init

    with meta_init():
        model = paddle_inline.create_model(arguments.plan)
    parameters = sum(parameter.size for parameter in model.parameters())
    rest = arguments.gpu_speed, arguments.gpu_batch, arguments.core_speed, arguments.disk_speed
    rows = [needs(parameters, gpus, *rest) for gpus in GPUS]
    print(
        f"{arguments.plan}: {parameters / 1e6:.1f} M parameters; {arguments.gpu_speed:g} images/s of a GPU in batches "
        f"of {arguments.gpu_batch}, {arguments.core_speed:g} of a loader core, {arguments.disk_speed:g} bytes/s of disk"
    )
    print_table(list(rows[0]), [list(row.values()) for row in rows])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["inline_deit_tiny"])
    parser.add_argument("--ranks", nargs="+", type=positive(int), default=[1, 2, 4])
    parser.add_argument("--batch-size", type=positive(int), default=4, help="images of a rank")
    parser.add_argument("--img-size", type=positive(int), default=224)
    parser.add_argument("--rounds", type=positive(int), default=8)
    parser.add_argument(
        "--checkpoints", nargs="*", default=["inline_deit_tiny", "inline_swin_tiny"], metavar="MODEL"
    )
    parser.add_argument("--plan", metavar="MODEL", help="compute what many GPUs need, and measure nothing")
    parser.add_argument(
        "--gpu-speed", type=positive(float), help="images a second of one GPU in training; --plan needs it"
    )
    parser.add_argument("--gpu-batch", type=positive(int), default=128, help="images of one GPU in a step")
    parser.add_argument(
        "--core-speed",
        type=positive(float),
        default=CORE_SPEED,
        help="images a second of one loader core; default: %(default)g, a Xeon's (docs/benchmarks.md)",
    )
    parser.add_argument(
        "--disk-speed",
        type=positive(float),
        default=DISK_SPEED,
        help="bytes a second of a checkpoint; default: %(default)g (docs/figures/scaling.json)",
    )
    arguments = parser.parse_args(argv)
    if arguments.plan:
        if arguments.gpu_speed is None:
            parser.error(
                "--plan needs --gpu-speed: images a second of one GPU in training "
                "(python benchmarks/gpu.py --parts training measures them)"
            )
        try:
            print_plan(arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    if WORKER in os.environ:
        worker(arguments)
        return 0
    rows, checkpoints, missing = [], [], []
    for name in arguments.models:
        for ranks in arguments.ranks:
            try:
                rows.append(row_of(name, ranks, measure(name, ranks, arguments)))
            except RuntimeError as error:
                missing.append(could_not_run(f"{name} on {ranks} ranks", error))
    for name in arguments.checkpoints:
        try:
            checkpoints.append(checkpoint_seconds(name, arguments.rounds))
        except UserError as error:
            missing.append(could_not_run(f"the checkpoint of {name}", error))
    columns = ["model", "ranks", *(f"{kind}_s" for kind in KINDS), "hidden", "bytes", "expected_bytes"]
    print_table(columns, [[row.get(column, "") for column in columns] for row in rows])
    columns = ["model", "checkpoint_s", "checkpoint_bytes", "bytes_per_s"]
    print_table(columns, [[row[column] for column in columns] for row in checkpoints])
    report("scaling", argv, rows, missing, checkpoints=checkpoints)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
