"""The command line of the training program, and the settings that it makes.

The flags are those that users of the authors' code know, in Paddle's spellings, and timm's where they differ.
"""

from __future__ import annotations

import argparse

from ..config import load as settings
from ..config.legacy_keys import average_of_flags
from ..config.schema import make_total
from ..utils.pairs import pairs_of

DESCRIPTION = """\
Train, evaluate or time a model.

  python -m paddle_inline train --cfg quickstart
  python -m paddle_inline train --gpus 0,1,2,3 --cfg inline_swin_t --data-path IMAGENET
  python -m paddle_inline train --cfg inline_swin_t --data-path IMAGENET --pretrained W --eval

`python train_paddle.py ...` of a checkout is the same. Several machines: python -m paddle.distributed.launch
--nnodes 2 --master HOST:PORT python -m paddle_inline train ...

Everything a run makes goes to OUTPUT/MODEL/TAG: checkpoints/, best_model.pdparams, train.log,
metrics.jsonl, visualdl/, samples.png, curves.png, predictions.png, config.yaml, and of the best weights' answers
classes.csv, confusion.csv, confusion.png, mistakes.csv, mistakes.png.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse a command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser."""
    add = parser.add_argument
    add(
        "-c",
        "--cfg",
        metavar="FILE",
        default="",
        help="a YAML file of settings, or the name of one of `configs`",
    )
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
    typed = {*(key for key, _ in pairs_of(args.opts)), *(text.partition("=")[0].strip() for text in args.o)}
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
