"""The training program: train, evaluate or time a model (flags.py has its command line).

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log, metrics.jsonl ...
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..utils.environment import import_paddle, tune_cpu

TUNED = tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))  # before Paddle is imported
paddle = import_paddle()

from ..config import load as settings  # noqa: E402
from ..data.loaders import BadImage  # noqa: E402
from ..data.split import Part, keep_split  # noqa: E402
from ..ops import kernels  # noqa: E402
from ..ops.inline_attention import use_fused_attention, uses_fused_attention  # noqa: E402
from ..utils.errors import UserError, counted  # noqa: E402
from ..utils.paths import expand_all  # noqa: E402
from ..utils.streams import forgiving_streams  # noqa: E402
from ..utils.tf32 import allow_tf32, uses_tf32  # noqa: E402
from ..weights.atomic import atomic_write  # noqa: E402
from ..weights.description import image_sides  # noqa: E402
from . import build, checkpoint, described_eval, distributed, failure, report  # noqa: E402
from .answers import Answers, answers_of_best, write_report  # noqa: E402
from .build_data import dataset_name  # noqa: E402
from .callbacks import Callback, LogProgress, StopOnRequest, loader_handler_put_back  # noqa: E402
from .diagnose import NotFinite  # noqa: E402
from .evaluate import evaluate, forward_speed  # noqa: E402
from .flags import configure, parse  # noqa: E402
from .known_classes import known_classes, split_of_weights  # noqa: E402
from .lock import locked  # noqa: E402
from .log import RunLog, make_folder  # noqa: E402
from .loop import fit, measure  # noqa: E402
from .resume import CheckpointManager, archive_previous_run  # noqa: E402

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
NOTHING_ASKED = """\
nothing to train: give a file of settings, or pictures, for instance
  python -m paddle_inline train --cfg quickstart
  python -m paddle_inline train --dataset folder --data-path PICTURES --val-split 0.1
`python -m paddle_inline configs` lists the files of settings, `python -m paddle_inline train --help` all flags"""


@contextlib.contextmanager
def state_put_back() -> Iterator[None]:
    """Put back what a run changes for the whole process: generators of random numbers, the loader's signal handler,
    TF32 and fused attention; what is tuned for a GPU stays."""
    tf32, fused = uses_tf32(), uses_fused_attention()
    draws, numpys = paddle.get_rng_state(), np.random.get_state()  # Paddle's loader draws from numpy's
    try:
        with loader_handler_put_back():
            yield
    finally:
        allow_tf32(tf32)
        use_fused_attention(fused)
        paddle.set_rng_state(draws)
        np.random.set_state(numpys)


def train(config: settings.Config, args: argparse.Namespace) -> int:
    """Train from the beginning or a checkpoint to the end."""
    rank, world = distributed.start()
    folder = build.run_folder(config)
    with failure.reported(folder, rank, world), contextlib.ExitStack() as stack:
        run = build.build_run(config, rank, world)
        requested = config.model.resume or ("auto" if config.train.auto_resume else "")
        if requested not in ("", "auto"):
            requested = str(checkpoint.find_checkpoint(requested))  # refused before anything is written
        left = stack.enter_context(locked(folder)) if rank == 0 else ""
        if left:
            args.notes.append(f"the run of {left} in this folder has ended without its last words")
        return train_rank(config, args, run, requested)


def train_rank(config: settings.Config, args: argparse.Namespace, run: build.Run, requested: str) -> int:
    """Do one rank's part of `train`, from the checkpoint that is requested."""
    folder, rank = build.run_folder(config), run.options.rank
    archived = archive_previous_run(folder) if rank == 0 and not requested else None
    if rank == 0:
        make_folder(folder)
    log = RunLog(folder, rank=rank, visualdl=config.visualdl)
    if archived:
        log.info(f"an earlier run was here: it is now in {archived} (--resume auto would have continued it)")

    model = run.components.model
    manager = CheckpointManager(
        folder, run.components, run.state, keep_last=config.keep_last, with_optimizer=config.save_optimizer
    )
    own = build.rank_dependent_features(config, model)
    progress = manager.resume(requested, log, rank_dependent=own, force=args.force)
    if rank == 0:
        with atomic_write(folder / "config.yaml") as partial:
            partial.write_text(settings.to_yaml(config), encoding="utf-8")
        if isinstance(run.train_source, Part):
            keep_split(folder, run.train_source.split)
    for note in (*args.notes, *run.notes):
        log.info(note)
    report.describe(log, run, dataset=dataset_name(config), amp_level=config.amp.level, tuned=TUNED)

    mean, std = config.data.mean, config.data.std
    if rank == 0 and progress.step == 0:
        report.show_samples(log, run.components.load(0, 0), run.train_source.classes, mean=mean, std=std)
    frequencies = {"print_freq": config.print_freq, "histogram_freq": config.histogram_freq}
    stop = StopOnRequest(progress, args.stop_after)
    callbacks: list[Callback] = [LogProgress(log, run.options, model, **frequencies), stop]
    if rank == 0:
        callbacks.insert(0, manager)
    started = time.perf_counter()
    if manager.unmeasured:
        measure(run.components, progress, callbacks)
    if progress.epoch >= run.options.epochs:
        log.info(
            f"nothing is left to do after {counted(run.options.epochs, 'epoch')}, {report.best_so_far(progress)}; "
            "to train on, give more --epochs and --force, or begin another run with these weights (--pretrained) and "
            "a --tag"
        )
        reported = rank == 0 and (folder / "classes.csv").is_file()
        if distributed.any_rank(reported, run.options.world) and not manager.unmeasured:
            log.close()
            return 0
    with stop:
        finished = fit(run.components, progress, run.options, callbacks)
    if finished and rank == 0:
        manager.save_final()
    answers = None
    if finished:  # on all ranks
        answers, accuracy, weights = answers_of_best(run, manager.best, rank, run.options.world)
        log.info(f"{weights}, over all held-out images: {accuracy}")
    if rank == 0:
        seconds = time.perf_counter() - started
        report.finish(log, run, progress, mean=mean, std=std, seconds=seconds, answers=answers)
    log.close()
    return INTERRUPTED if stop.signal == signal.SIGINT and not finished else 0


def only_evaluate(config: settings.Config, args: argparse.Namespace) -> int:
    """Print the accuracy of given weights over the held-out images, made as the weights say theirs are."""
    rank, world = distributed.start()
    if args.metrics:
        described_eval.check_metrics_file(args.metrics)
    if args.report:
        described_eval.check_report_folder(args.report)
    resumed = (
        "" if args.pretrained else config.model.resume
    )  # else a file's model.pretrained is what a run began with
    if resumed == "auto" or (config.train.auto_resume and not (resumed or config.model.pretrained)):
        resumed = str(build.run_folder(config))
        if not Path(resumed).is_dir():
            raise UserError(
                f"--eval: there is no run {resumed}; give --pretrained FILE, or --resume CHECKPOINT"
            )
    weights = resumed or config.model.pretrained
    if not weights:
        raise UserError("--eval needs weights: give --pretrained FILE, or --resume CHECKPOINT")
    if Path(weights).is_dir() and not Path(f"{weights}.pdparams").is_file():
        weights = described_eval.weights_in(weights, prefer_best=not resumed)
    notes = described_eval.follow(config, weights, args.given, named=bool(args.cfg))
    classes, known, more = known_classes(weights, config)
    split, said = split_of_weights(weights, config, named=bool(args.cfg) or "data.dataset" in args.given)
    gpu = build.gpu_options(config)
    said += build.prepare_gpu(gpu)
    source, read, others = build.build_eval(config, rank, world, classes=classes, known=known, split=split)
    loader = build.prefetched(read, gpu)
    model = described_eval.build_model(config, weights, len(source.classes), notes)
    for note in (*args.notes, *more, *said, *others, *notes) if rank == 0 else ():
        print(f"note: {note}", file=sys.stderr)
    answers = Answers(loader, len(source)) if args.report else None
    record = {"record": answers.note} if answers else {}
    accuracy = evaluate(model, loader, world=world, amp=build.amp_arguments(config), **record)
    if answers:
        answers.gather(world)
    if rank == 0:
        print(f"{model.name} with {weights}: {accuracy}, loss {accuracy.loss:.4f}")
        if args.metrics:
            facts = {"model": model.name, "weights": weights, "data": config.data.data_path}
            described_eval.write_metrics(args.metrics, accuracy, source.classes, **facts)
        if answers:
            data = config.data
            for line in write_report(args.report, answers, source, loader, mean=data.mean, std=data.std):
                print(line)
            print(f"the report is in {args.report}")
    return 0


def throughput(config: settings.Config) -> int:
    """Print the images per second of the forward pass, on random images."""
    for line in build.prepare_gpu(build.gpu_options(config)):
        print(f"note: {line}", file=sys.stderr)
    model = build.build_model(config, config.model.num_classes or 1000)
    (height, width), batch = image_sides(config.data.img_size), config.data.batch_size
    images = paddle.randn([batch, config.model.in_chans, height, width])
    speed = forward_speed(model, images, build.amp_arguments(config))
    print(f"{model.name}: {speed:.1f} images/s, batch {batch} of {height} x {width}, forward")
    return 0


def main(argv: list[str] | None = None, program: str = "") -> int:
    """Run the program with a command line of its own.

    Args:
        argv: the command line; None: the process's.
        program: the Python file that calls this, for `--gpus` to start; empty: `python -m paddle_inline train`.

    Returns:
        The exit code: 0 done, 1 failed, 2 something the user gave cannot be used, 130 ended by Ctrl-C. Any
        other failure is raised with its traceback.
    """
    with forgiving_streams():
        arguments = list(sys.argv[1:] if argv is None else argv)
        args = parse(arguments)
        return run(args, arguments, program)


def run(args: argparse.Namespace, arguments: list[str], program: str = "") -> int:
    """Do what the parsed command line asks for, and return the exit code as `main` does.

    Args:
        args: what flags.py has parsed.
        arguments: the command line that it was parsed from.
        program: as `main`.
    """
    with state_put_back():
        return _run(args, arguments, program)


def _run(args: argparse.Namespace, arguments: list[str], program: str) -> int:
    try:
        expand_all(args, ["metrics", "report"])
        if not arguments:
            raise UserError(NOTHING_ASKED)
        if args.gpus is not None:
            own = [program] if program else [sys.executable, "-m", "paddle_inline", "train"]
            distributed.launch(args.gpus, own, arguments)
        if args.stop_after is not None and args.stop_after < 0:
            raise UserError(f"--stop-after is {args.stop_after}; give a number of epochs, from 0")
        config = configure(args)
        if args.throughput or config.throughput_mode:
            return throughput(config)
        if args.eval or config.eval_mode:
            kernels.version()  # the loops that the run had
            return only_evaluate(config, args)
        if args.metrics or args.report:
            raise UserError(
                f"{'--metrics' if args.metrics else '--report'} goes with --eval; training writes metrics.jsonl, "
                "classes.csv, confusion.png ... into the run's folder"
            )
        return train(config, args)
    except (BadImage, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except UserError as error:
        if getattr(args, "traceback", False):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not failure.is_out_of_memory(error):
            raise
        traceback.print_exc()
        print(failure.OUT_OF_MEMORY, file=sys.stderr)
        return 1
