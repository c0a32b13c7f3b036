"""Train, evaluate or time a model.

    python train_paddle.py --cfg configs/quickstart.yaml
    python -m paddle.distributed.launch train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET
    python train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET --pretrained W --eval

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log,
metrics.jsonl, visualdl/, samples.png, curves.png, predictions.png, config.yaml.
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

from paddle_inline.utils.environment import import_paddle, tune_cpu

TUNED = tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))  # before Paddle is imported
paddle = import_paddle()

from paddle_inline.config import load as settings  # noqa: E402
from paddle_inline.config.legacy_keys import average_of_flags  # noqa: E402
from paddle_inline.config.schema import make_total  # noqa: E402
from paddle_inline.data.loaders import BadImage  # noqa: E402
from paddle_inline.training import build, checkpoint, described_eval, distributed, failure, report  # noqa: E402
from paddle_inline.training.callbacks import Callback, LogProgress, StopOnRequest, loader_handler_put_back  # noqa: E402
from paddle_inline.training.diagnose import NotFinite  # noqa: E402
from paddle_inline.training.evaluate import evaluate, forward_speed  # noqa: E402
from paddle_inline.training.known_classes import known_classes  # noqa: E402
from paddle_inline.training.lock import locked  # noqa: E402
from paddle_inline.training.log import RunLog, make_folder  # noqa: E402
from paddle_inline.training.loop import fit  # noqa: E402
from paddle_inline.training.resume import CheckpointManager, archive_previous_run  # noqa: E402
from paddle_inline.utils.errors import UserError  # noqa: E402
from paddle_inline.utils.paths import expand_all  # noqa: E402
from paddle_inline.utils.streams import forgiving_streams  # noqa: E402
from paddle_inline.weights.atomic import atomic_write  # noqa: E402
from paddle_inline.weights.description import image_sides  # noqa: E402

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: the flags that users of the authors' code know, and Paddle's spellings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-c", "--cfg", metavar="FILE", default="", help="a YAML file of settings")
    add("--model", metavar="NAME", help="the model (model.name)")
    add("--data-path", metavar="PATH", help="the data set's folder or archive")
    add("--batch-size", metavar="N", help="images per device")
    add("--img-size", nargs="+", metavar="N", help="pixels: the side of a square, or height and width")
    add(
        "--num-classes",
        metavar="N",
        help="outputs of the model (default: as many classes as the data set has)",
    )
    add("--epochs", metavar="N", help="epochs in all, a cool-down included")
    add("--lr", metavar="RATE", help="the learning rate of train.lr_batch images per step (train.base_lr)")
    add("--workers", metavar="N", help="processes per device that load images")
    add("--output", metavar="DIR", help="where runs go (default: output)")
    add("--tag", metavar="NAME", help="names this run's folder (default: default)")
    add("--resume", metavar="WHAT", help="a checkpoint, a run's folder, or auto: this run's newest")
    add("--force", action="store_true", help="resume even if settings have changed")
    add("--pretrained", metavar="FILE", help="weights to start from, or to evaluate")
    add("--eval", action="store_true", help="only evaluate")
    add("--metrics", metavar="FILE", help="with --eval: write loss and the accuracy of every class as JSON")
    add("--throughput", action="store_true", help="only measure the forward pass, in images/s")
    add("--amp", action="store_true", help="mixed precision (amp.level=O1)")
    add("--accumulation-steps", metavar="N", help="batches per optimizer step")
    add("--use-checkpoint", action="store_true", help="save memory by recomputing activations")
    add("--model-ema-decay", metavar="D", help="keep an average of the weights")
    add("--save-steps", metavar="N", help="steps between checkpoints within an epoch")
    add("--stop-after", type=int, metavar="N", help="stop after N more epochs, to be resumed later")
    add("--on-bad-image", choices=("skip", "fail", "read"), help="what to do with a broken image file")
    add("--zip", action="store_true", help="the data set is in zip files")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="change any settings")
    add("-o", action="append", default=[], metavar="KEY=VALUE", help="change any setting; may be repeated")
    for flag in ("--find-unused-params", "--model-ema", "--model-ema-force-cpu"):
        add(flag, action="store_true", help=argparse.SUPPRESS)
    add("--cache-mode", choices=("no", "full", "part"), help=argparse.SUPPRESS)  # of the authors' programs
    add("--amp-opt-level", choices=("O0", "O1", "O2"), help=argparse.SUPPRESS)  # their older name of --amp
    add("--local-rank", "--local_rank", help=argparse.SUPPRESS)  # other launchers pass it
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> settings.Config:
    """Read the settings of the file, the options and the flags, the flags last; notes go to `args.notes`."""
    sides = args.img_size
    flags = {
        "model.name": args.model,
        "model.num_classes": args.num_classes,
        "data.img_size": sides and (sides[0] if len(sides) == 1 else f"[{', '.join(sides)}]"),
        "data.num_workers": args.workers,
        "data.data_path": args.data_path,
        "data.batch_size": args.batch_size,
        "data.on_bad_image": args.on_bad_image,
        "data.zip_mode": "true" if args.zip else None,
        "output": args.output,
        "tag": args.tag,
        "model.resume": args.resume,
        "model.pretrained": args.pretrained,
        "amp.level": "O1" if args.amp else args.amp_opt_level,
        "train.epochs": args.epochs,
        "train.base_lr": args.lr,
        "train.accumulation_steps": args.accumulation_steps,
        "train.use_checkpoint": "true" if args.use_checkpoint else None,
        "ema.decay": args.model_ema_decay,
        "save_steps": args.save_steps,
    }
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    args.notes = []
    config = settings.load_config(args.cfg, args.opts, [*args.o, *given], notes=args.notes)
    if args.epochs is not None:
        args.notes += filter(None, [make_total(config.train)])
    config.ema.decay, config.ema.lr_batch = average_of_flags(
        config.model.name,
        config.ema.decay,
        config.ema.lr_batch,
        wanted=args.model_ema,
        decay_given=args.model_ema_decay is not None,
    )
    for flag in ("cache_mode", "find_unused_params", "model_ema_force_cpu"):
        if getattr(args, flag):
            args.notes.append(f"--{flag.replace('_', '-')} is understood and has no effect here")
    return config


@contextlib.contextmanager
def state_put_back() -> Iterator[None]:
    """Put back what a run changes for the whole process: generators of random numbers, the loader's signal handler."""
    draws, numpys = paddle.get_rng_state(), np.random.get_state()  # Paddle's loader draws from numpy's
    try:
        with loader_handler_put_back():
            yield
    finally:
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
    for note in (*args.notes, *run.notes):
        log.info(note)
    report.describe(log, run, dataset=config.data.dataset, amp_level=config.amp.level, tuned=TUNED)

    mean, std = config.data.mean, config.data.std
    if rank == 0 and progress.step == 0:
        report.show_samples(log, run.components.load(0, 0), run.train_source.classes, mean=mean, std=std)
    frequencies = {"print_freq": config.print_freq, "histogram_freq": config.histogram_freq}
    stop = StopOnRequest(progress, args.stop_after)
    callbacks: list[Callback] = [LogProgress(log, run.options, model, **frequencies), stop]
    if rank == 0:
        callbacks.insert(0, manager)
    started = time.perf_counter()
    with stop:
        finished = fit(run.components, progress, run.options, callbacks)
    if rank == 0:
        if finished:
            manager.save_final()
        report.finish(log, run, progress, mean=mean, std=std, seconds=time.perf_counter() - started)
    log.close()
    return INTERRUPTED if stop.signal == signal.SIGINT and not finished else 0


def only_evaluate(config: settings.Config, args: argparse.Namespace) -> int:
    """Print the accuracy of given weights over the held-out images, made as the weights say theirs are."""
    rank, world = distributed.start()
    if args.metrics:
        described_eval.check_metrics_file(args.metrics)
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
    given = {*args.opts[::2], *(text.partition("=")[0].strip() for text in args.o)}
    notes = described_eval.follow(config, weights, {key.lower() for key in given}, named=bool(args.cfg))
    classes, known, more = known_classes(weights, config)
    source, loader, others = build.build_eval(config, rank, world, classes=classes, known=known)
    model = described_eval.build_model(config, weights, len(source.classes), notes)
    for note in (*args.notes, *more, *others, *notes) if rank == 0 else ():
        print(f"note: {note}", file=sys.stderr)
    accuracy = evaluate(model, loader, world=world, amp=build.amp_arguments(config))
    if rank == 0:
        print(f"{model.name} with {weights}: {accuracy}, loss {accuracy.loss:.4f}")
        if args.metrics:
            facts = {"model": model.name, "weights": weights, "data": config.data.data_path}
            described_eval.write_metrics(args.metrics, accuracy, source.classes, **facts)
    return 0


def throughput(config: settings.Config) -> int:
    """Print the images per second of the forward pass, on random images."""
    model = build.build_model(config, config.model.num_classes or 1000)
    (height, width), batch = image_sides(config.data.img_size), config.data.batch_size
    images = paddle.randn([batch, config.model.in_chans, height, width])
    speed = forward_speed(model, images, build.amp_arguments(config))
    print(f"{model.name}: {speed:.1f} images/s, batch {batch} of {height} x {width}, forward")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit code: 0 done, 1 failed, 2 something the user gave cannot be used, 130 ended by Ctrl-C. Any
        other failure is raised with its traceback.
    """
    with forgiving_streams():
        args = parse(argv)
        with state_put_back():
            return run(args)


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for, and return the exit code as `main` does."""
    try:
        expand_all(args, ["metrics"])
        if args.stop_after is not None and args.stop_after < 0:
            raise UserError(f"--stop-after is {args.stop_after}; give a number of epochs, from 0")
        config = configure(args)
        if args.throughput or config.throughput_mode:
            return throughput(config)
        if args.eval or config.eval_mode:
            return only_evaluate(config, args)
        if args.metrics:
            raise UserError(
                "--metrics goes with --eval; the numbers of training are in the run's metrics.jsonl"
            )
        return train(config, args)
    except (BadImage, NotFinite) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except UserError as error:
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


if __name__ == "__main__":
    sys.exit(main())
