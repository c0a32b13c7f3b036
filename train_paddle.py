"""Train, evaluate or time a model.

    python train_paddle.py --cfg configs/quickstart.yaml
    python -m paddle.distributed.launch train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET
    python train_paddle.py --cfg configs/inline_swin_t.yaml --data-path IMAGENET --pretrained W --eval

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log,
metrics.jsonl, visualdl/, samples.png, curves.png, predictions.png, config.yaml, and of the best weights' answers
classes.csv, confusion.csv, confusion.png, mistakes.csv, mistakes.png.
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

from paddle_inline.utils.environment import import_paddle, keep_freed_memory, tune_cpu

TUNED = tune_cpu(workers=int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))  # before Paddle is imported
paddle = import_paddle()

from paddle_inline.config import load as settings  # noqa: E402
from paddle_inline.config.legacy_keys import average_of_flags  # noqa: E402
from paddle_inline.config.schema import make_total  # noqa: E402
from paddle_inline.data.loaders import BadImage  # noqa: E402
from paddle_inline.data.split import Part, keep_split  # noqa: E402
from paddle_inline.training import build, checkpoint, described_eval, distributed, failure, report  # noqa: E402
from paddle_inline.training.answers import Answers, answers_of_best, write_report  # noqa: E402
from paddle_inline.training.build_data import dataset_name  # noqa: E402
from paddle_inline.training.callbacks import Callback, LogProgress, StopOnRequest, loader_handler_put_back  # noqa: E402
from paddle_inline.training.diagnose import NotFinite  # noqa: E402
from paddle_inline.training.evaluate import evaluate, forward_speed  # noqa: E402
from paddle_inline.training.known_classes import known_classes, split_of_weights  # noqa: E402
from paddle_inline.training.lock import locked  # noqa: E402
from paddle_inline.training.log import RunLog, make_folder  # noqa: E402
from paddle_inline.training.loop import fit, measure  # noqa: E402
from paddle_inline.training.resume import CheckpointManager, archive_previous_run  # noqa: E402
from paddle_inline.utils.errors import UserError  # noqa: E402
from paddle_inline.utils.paths import expand_all  # noqa: E402
from paddle_inline.utils.streams import forgiving_streams  # noqa: E402
from paddle_inline.weights.atomic import atomic_write  # noqa: E402
from paddle_inline.weights.description import image_sides  # noqa: E402

INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
NOTHING_ASKED = """\
nothing to train: give a file of settings, or pictures, for instance
  python train_paddle.py --cfg configs/quickstart.yaml
  python train_paddle.py --dataset folder --data-path PICTURES --val-split 0.1
--help has all flags, docs/recipes.md the recipes"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: the flags that users of the authors' code know, and Paddle's spellings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("-c", "--cfg", metavar="FILE", default="", help="a YAML file of settings")
    add("--model", metavar="NAME", help="the model (model.name)")
    add(
        "--dataset",
        metavar="NAME",
        help="imagenet, folder (pictures of your own), cifar10, cifar100 or digits",
    )
    add("--data-path", metavar="PATH", help="the data set's folder or archive")
    add("--val-split", metavar="SHARE", help="with --dataset folder: hold out this share of each class")
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
    add(
        "--report",
        metavar="DIR",
        help="with --eval: write accuracy by class, confusions and the worst mistakes",
    )
    add("--throughput", action="store_true", help="only measure the forward pass, in images/s")
    add("--amp", action="store_true", help="mixed precision (amp.level=O1)")
    add("--accumulation-steps", metavar="N", help="batches per optimizer step")
    add("--use-checkpoint", action="store_true", help="save memory by recomputing activations")
    add("--model-ema-decay", metavar="D", help="keep an average of the weights")
    add("--save-steps", metavar="N", help="steps between checkpoints within an epoch")
    add("--gpus", metavar="N,N", help="start one process for each of these GPUs (paddle.distributed.launch)")
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
    """Read the settings of the file, the options and the flags, the flags last.

    Notes go to `args.notes`, the keys that the command line sets to `args.given`.
    """
    sides = args.img_size
    flags = {
        "--model": ("model.name", args.model),
        "--num-classes": ("model.num_classes", args.num_classes),
        "--img-size": ("data.img_size", sides and (sides[0] if len(sides) == 1 else f"[{', '.join(sides)}]")),
        "--workers": ("data.num_workers", args.workers),
        "--dataset": ("data.dataset", args.dataset),
        "--data-path": ("data.data_path", args.data_path),
        "--val-split": ("data.val_split", args.val_split),
        "--batch-size": ("data.batch_size", args.batch_size),
        "--on-bad-image": ("data.on_bad_image", args.on_bad_image),
        "--zip": ("data.zip_mode", "true" if args.zip else None),
        "--output": ("output", args.output),
        "--tag": ("tag", args.tag),
        "--resume": ("model.resume", args.resume),
        "--pretrained": ("model.pretrained", args.pretrained),
        "--amp": ("amp.level", "O1" if args.amp else args.amp_opt_level),
        "--epochs": ("train.epochs", args.epochs),
        "--lr": ("train.base_lr", args.lr),
        "--accumulation-steps": ("train.accumulation_steps", args.accumulation_steps),
        "--use-checkpoint": ("train.use_checkpoint", "true" if args.use_checkpoint else None),
        "--model-ema-decay": ("ema.decay", args.model_ema_decay),
        "--save-steps": ("save_steps", args.save_steps),
    }
    given = {flag: setting for flag, setting in flags.items() if setting[1] is not None}
    args.notes = []
    config = settings.load_config(args.cfg, args.opts, args.o, notes=args.notes, flags=given)
    typed = {*args.opts[::2], *(text.partition("=")[0].strip() for text in args.o)}
    args.given = {*(key.lower() for key in typed), *(key for key, _ in given.values())}
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
            f"nothing is left to do: all {run.options.epochs} epochs are done, {report.best_so_far(progress)}; "
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
    source, loader, others = build.build_eval(config, rank, world, classes=classes, known=known, split=split)
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
        arguments = list(sys.argv[1:] if argv is None else argv)
        args = parse(arguments)
        args.arguments = arguments
        with state_put_back():
            return run(args)


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks for, and return the exit code as `main` does."""
    try:
        expand_all(args, ["metrics", "report"])
        if args.arguments == []:
            raise UserError(NOTHING_ASKED)
        if args.gpus is not None:
            distributed.launch(args.gpus, __file__, args.arguments)
        if args.stop_after is not None and args.stop_after < 0:
            raise UserError(f"--stop-after is {args.stop_after}; give a number of epochs, from 0")
        config = configure(args)
        if args.throughput or config.throughput_mode:
            return throughput(config)
        if args.eval or config.eval_mode:
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
    keep_freed_memory()
    sys.exit(main())
